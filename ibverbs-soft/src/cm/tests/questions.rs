//! Questions for queue pairs of datagrams.

use super::network::{Network, Weather};
use super::*;
use crate::cm::{sidr_status, Answer, Context, Find, Message, Refused, SidrRep};

fn question() -> Find {
    Find {
        path: path(Side::Client),
        service_id: SERVICE,
        private_data: addressing().emit(b"who is there").unwrap(),
    }
}

fn answer(status: u8) -> Answer {
    let private_data = super::super::filled_up(b"it is me").unwrap();
    Answer { status, qpn: 0x22, qkey: 0x0123_4567, private_data }
}

#[test]
fn a_question_is_answered_in_any_weather() {
    for seed in 0..200 {
        let weather = Weather { lost: seed % 40, repeated: seed % 30, delay: seed % 700 };
        let mut network = Network::with(weather, seed);
        network.listen();
        let now = network.now();
        let client = network.client.find(now, question(), Owner::Client);
        let (server, event) = network.expect(Owner::Listener);
        let Event::Requested(requested) = event else { panic!("{event:?}") };
        assert_eq!((requested.peer, requested.addressing), (None, addressing()));
        assert!(requested.private_data.starts_with(b"who is there\0"));
        assert_eq!(requested.private_data.len(), 180);
        network.server.set_owner(server, Owner::Server);
        let status = if seed % 2 == 0 { sidr_status::SUCCESS } else { sidr_status::REJECTED };
        network.server.answer(server, answer(status)).unwrap();
        assert_eq!(network.server.answer(server, answer(status)), Err(Refused::State));
        let (it, event) = network.expect(Owner::Client);
        let Event::Answered { status: told, qpn, qkey, private_data } = event else {
            panic!("{event:?}")
        };
        assert_eq!((it, told, qpn, qkey), (client, status, 0x22, 0x0123_4567));
        assert!(private_data.starts_with(b"it is me\0"));
        network.settle();
        assert_eq!(network.events, [], "seed {seed}, {weather:?}");
        let now = network.now();
        network.client.destroy(now, client);
        network.server.destroy(now, server);
        network.settle();
        assert_eq!(network.states(client, server), [None, None]);
    }
}

#[track_caller]
fn assert_answered(network: &mut Network, expected: u8) {
    let (_, event) = network.expect(Owner::Client);
    assert!(matches!(event, Event::Answered { status, .. } if status == expected), "{event:?}");
}

#[test]
fn what_nobody_answers_is_refused() {
    let mut network = Network::fine();
    let now = network.now();
    network.client.find(now, question(), Owner::Client);
    assert_answered(&mut network, sidr_status::UNSUPPORTED);

    for other in [
        Listener { ipv4: false, ipv6: true, ..listener() },
        Listener { datagrams: false, ..listener() },
    ] {
        network.server.listen(other);
        let now = network.now();
        network.client.find(now, question(), Owner::Client);
        assert_answered(&mut network, sidr_status::REJECTED);
    }

    let mut network = Network::fine();
    network.listen();
    let now = network.now();
    network.client.find(now, question(), Owner::Client);
    let (server, _) = network.expect(Owner::Listener);
    let now = network.now();
    network.server.destroy(now, server);
    assert_answered(&mut network, sidr_status::REJECTED);
}

#[test]
fn only_who_was_asked_answers() {
    let mut network = Network::fine();
    network.dead = Some(Side::Server);
    let now = network.now();
    let client = network.client.find(now, question(), Owner::Client);
    let Answer { status, qpn, qkey, private_data } = answer(sidr_status::SUCCESS);
    let request_id = client;
    let rep = SidrRep { request_id, status, qpn, qkey, service_id: SERVICE, private_data };
    let message = Message::SidrRep(Box::new(rep)).emit(Context::default());
    let path = path(Side::Server);
    let other = Path { source: [127, 0, 0, 3].into(), ..path };
    network.client.handle_message(now, &other, &*message);
    assert_eq!(network.client.state(client), Some(State::SidrSent));
    network.client.handle_message(now, &path, &*message);
    assert_answered(&mut network, sidr_status::SUCCESS);
}

#[test]
fn a_host_that_is_gone_is_given_up() {
    let mut network = Network::fine();
    network.dead = Some(Side::Server);
    let now = network.now();
    let client = network.client.find(now, question(), Owner::Client);
    assert_eq!(network.expect(Owner::Client), (client, Event::Unreachable));
}
