//! Requests that come to nothing.

use super::network::{Network, Weather};
use super::*;
use crate::cm::{reason, Rej, MESSAGE_LEN};

#[track_caller]
fn assert_rejected(network: &mut Network, owner: Owner, expected: u16, data: &[u8]) {
    let (_, event) = network.expect(owner);
    let Event::Rejected { reason, private_data } = event else { panic!("{event:?}") };
    assert_eq!(reason, expected);
    assert!(private_data.starts_with(data));
}

#[test]
fn nobody_listens() {
    let mut network = Network::fine();
    let listener = network.listen();
    network.server.stop_listening(listener);
    network.ask();
    assert_rejected(&mut network, Owner::Client, reason::INVALID_SERVICE_ID, &[]);
}

#[test]
fn others_are_listened_for() {
    for other in [
        Listener { addr: Some([127, 0, 0, 3].into()), ..listener() },
        Listener { ipv4: false, ipv6: true, ..listener() },
        Listener { connections: false, ..listener() },
    ] {
        let mut network = Network::fine();
        network.server.listen(other);
        network.ask();
        assert_rejected(&mut network, Owner::Client, reason::CONSUMER, &[]);
    }
}

#[test]
fn a_request_without_addresses_is_rejected() {
    let mut network = Network::fine();
    network.listen();
    let now = network.now();
    let request = Connect { private_data: [0x50; 92], ..request() };
    network.client.connect(now, request, Owner::Client);
    assert_rejected(&mut network, Owner::Client, reason::CONSUMER, &[]);
}

#[test]
fn a_program_rejects_with_a_message() {
    for seed in 0..100 {
        let mut network =
            Network::with(Weather { lost: seed % 40, repeated: seed % 30, delay: 9 }, seed);
        network.listen();
        let (_, server) = network.asked();
        let data = super::super::filled_up(b"not today").unwrap();
        network.server.reject(server, reason::CONSUMER, data).unwrap();
        assert_rejected(&mut network, Owner::Client, reason::CONSUMER, b"not today\0");
        assert!(network.server.reject(server, reason::CONSUMER, data).is_err());
    }
}

#[test]
fn a_client_rejects_the_reply() {
    let mut network = Network::fine();
    network.listen();
    let (client, server) = network.asked();
    network.accept(server);
    network.expect(Owner::Client);
    network.client.reject(client, reason::CONSUMER, [7; Rej::PRIVATE_DATA]).unwrap();
    assert_rejected(&mut network, Owner::Server, reason::CONSUMER, &[7; 148]);
    assert!(network.client.confirm(client).is_err());
}

#[test]
fn what_is_destroyed_is_rejected() {
    // The client, whose request is not answered.
    let mut network = Network::fine();
    network.listen();
    let (client, _) = network.asked();
    let now = network.now();
    network.client.destroy(now, client);
    assert_rejected(&mut network, Owner::Server, reason::TIMEOUT, &[]);
    // The server, before and after it has accepted.
    for accepted in [false, true] {
        let mut network = Network::fine();
        network.listen();
        let (client, server) = network.asked();
        if accepted {
            network.accept(server);
        }
        let now = network.now();
        network.server.destroy(now, server);
        if accepted {
            assert!(matches!(network.expect(Owner::Client).1, Event::Responded(_)));
        }
        assert_rejected(&mut network, Owner::Client, reason::CONSUMER, &[]);
        network.settle();
        network.client.destroy(network.now(), client);
        network.settle();
        assert_eq!(network.states(client, server), [None, None]);
    }
}

#[test]
fn requests_beyond_the_backlog_wait() {
    let mut network = Network::fine();
    network.server.listen(Listener { backlog: 2, ..listener() });
    let clients = [(); 4].map(|()| network.ask());
    network.run_for(Duration::from_millis(100));
    let first: Vec<u32> = [(); 2].map(|()| network.expect(Owner::Listener).0).to_vec();
    assert_eq!(network.events, []);
    // As soon as there is room, they come again.
    for connection in first {
        network.server.mark_read(connection);
    }
    network.expect(Owner::Listener);
    network.expect(Owner::Listener);
    for client in clients {
        assert_eq!(network.client.state(client), Some(State::ReqSent));
    }
}

#[test]
fn nonsense_does_no_harm() {
    let mut network = Network::fine();
    network.listen();
    let (client, server) = network.connected();
    let mut random = crate::random::Random::from_seed(7);
    let (mut message, mut now) = ([0; MESSAGE_LEN], network.now());
    for round in 0..20_000 {
        for byte in &mut message {
            *byte = random.next() as u8;
        }
        message[..4].copy_from_slice(&[1, 7, 2, 3]);
        message[16] = 0;
        message[17] = 0x10 + (random.next() % 10) as u8;
        if round % 2 == 0 {
            // About a connection that there is.
            message[28..32].copy_from_slice(&server.to_be_bytes());
        }
        now += Duration::from_millis(1);
        // From somebody else.
        let path = Path { source: [10, 0, 0, 1].into(), ..path(Side::Client) };
        network.server.handle_message(now, &path, &message);
        network.server.handle_timeout(now);
        while network.server.poll_transmit().is_some() {}
        while network.server.poll_event().is_some() {}
    }
    assert_eq!(network.states(client, server), [Some(State::Established); 2]);
}
