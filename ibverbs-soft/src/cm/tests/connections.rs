//! Connections: how they come to stand, and end.

use super::network::{Network, Side, Weather};
use super::*;
use crate::cm::{reason, Refused};

#[test]
fn both_sides_learn_what_the_other_has_said() {
    let mut network = Network::fine();
    network.listen();
    let client = network.ask();
    let (server, event) = network.expect(Owner::Listener);
    let Event::Requested(requested) = event else { panic!("{event:?}") };
    assert_eq!((requested.addressing, requested.port), (addressing(), 0x1d2f));
    assert!(requested.private_data.starts_with(b"please\0"));
    assert_eq!(requested.private_data.len(), 56);
    // As seen from here.
    let seen = Peer { responder_resources: 2, initiator_depth: 3, ..of_client() };
    assert_eq!(requested.peer, Some(seen));

    network.server.set_owner(server, Owner::Server);
    network.accept(server);
    let (_, event) = network.expect(Owner::Client);
    let Event::Responded(responded) = event else { panic!("{event:?}") };
    let seen = Peer { responder_resources: 6, initiator_depth: 1, ..of_server() };
    assert_eq!(responded.peer, seen);
    assert!(responded.private_data.starts_with(b"welcome\0"));

    let (of_client, of_server) =
        (network.client.facts(client).unwrap(), network.server.facts(server).unwrap());
    assert_eq!((of_client.remote_qpn, of_server.remote_qpn), (0x22, 0x11));
    assert_eq!((of_client.rq_psn, of_client.sq_psn), (0x1111, 0x2222));
    assert_eq!((of_server.rq_psn, of_server.sq_psn), (0x2222, 0x1111));
    assert_eq!((of_client.mtu, of_server.mtu, of_server.ack_timeout), (5, 5, 17));
    assert_eq!((of_client.path, of_server.path), (path(Side::Client), path(Side::Server)));
    assert_eq!((of_client.responder_resources, of_client.initiator_depth), (6, 1));
    assert_eq!((of_server.responder_resources, of_server.initiator_depth), (1, 6));

    network.client.confirm(client).unwrap();
    assert_eq!(network.expect(Owner::Server), (server, Event::Established));
    network.settle();
    assert_eq!(network.events, []);
    assert_eq!(network.states(client, server), [Some(State::Established); 2]);
    // Request, reply, confirmation. Nobody was asked to be patient, who would then not notice soon that a message is lost.
    assert_eq!(network.sent, 3);
}

#[test]
fn either_side_ends_it_and_nothing_is_left() {
    for first in [Side::Client, Side::Server] {
        let mut network = Network::fine();
        network.listen();
        let (client, server) = network.connected();
        let of = |side| if side == Side::Client { client } else { server };
        let owner = |side| if side == Side::Client { Owner::Client } else { Owner::Server };
        let now = network.now();
        network.manager(first).disconnect(now, of(first));
        network.manager(first).disconnect(now, of(first));
        let ended = Event::Disconnected { is_known: true };
        assert_eq!(network.expect(owner(first.other())), (of(first.other()), ended.clone()));
        let now = network.now();
        network.manager(first.other()).disconnect(now, of(first.other()));
        assert_eq!(network.expect(owner(first)), (of(first), ended));
        assert_eq!(network.expect(owner(first)), (of(first), Event::TimeWaitOver));
        network.settle();
        let now = network.now();
        network.client.destroy(now, client);
        network.server.destroy(now, server);
        network.settle();
        assert_eq!(network.states(client, server), [None, None]);
    }
}

#[test]
fn both_end_it_at_once() {
    let mut network = Network::fine();
    network.listen();
    let (client, server) = network.connected();
    let now = network.now();
    network.client.disconnect(now, client);
    network.server.disconnect(now, server);
    let ended = Event::Disconnected { is_known: true };
    assert_eq!(network.expect(Owner::Client).1, ended);
    assert_eq!(network.expect(Owner::Server).1, ended);
    network.settle();
    assert_eq!(network.states(client, server), [Some(State::Closed); 2]);
}

#[test]
fn a_side_that_is_destroyed_ends_it() {
    let mut network = Network::fine();
    network.listen();
    let (client, server) = network.connected();
    let now = network.now();
    network.client.destroy(now, client);
    let (_, event) = network.expect(Owner::Server);
    assert_eq!(event, Event::Disconnected { is_known: true });
    let now = network.now();
    network.server.destroy(now, server);
    network.settle();
    assert_eq!(network.events, []);
    assert_eq!(network.states(client, server), [None, None]);
}

#[test]
fn a_peer_is_told_of_the_end_more_than_once_before_it_forgets_the_connection() {
    let mut network = Network::fine();
    network.listen();
    let (client, _) = network.connected();
    network.settle();
    network.dead = Some(Side::Server);
    let (now, before) = (network.now(), network.sent);
    network.client.disconnect(now, client);
    network.run_for(Duration::from_millis(500));
    assert_eq!(network.sent - before, 3);
    // From then on twice a second, as with other messages.
    network.run_for(Duration::from_secs(3));
    assert!((8..=9).contains(&(network.sent - before)), "{}", network.sent - before);
}

#[test]
fn data_may_come_before_the_confirmation() {
    let mut network = Network::fine();
    network.listen();
    let (client, server) = network.asked();
    assert_eq!(network.server.notice_data(server), Err(Refused::State));
    network.accept(server);
    network.expect(Owner::Client);
    network.server.notice_data(server).unwrap();
    assert_eq!(network.expect(Owner::Server), (server, Event::Established));
    assert_eq!(network.server.notice_data(server), Err(Refused::Established));
    network.client.confirm(client).unwrap();
    network.settle();
    assert_eq!(network.events, []);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut network = Network::fine();
    network.listen();
    let (client, server) = network.asked();
    let now = network.now();
    assert_eq!(network.client.accept(now, client, acceptance()), Err(Refused::State));
    assert_eq!(network.client.confirm(client), Err(Refused::State));
    assert_eq!(network.client.reject(client, reason::CONSUMER, [0; 148]), Err(Refused::State));
    network.accept(server);
    assert_eq!(network.server.accept(now, server, acceptance()), Err(Refused::State));
    assert_eq!(network.server.confirm(server), Err(Refused::State));
    network.expect(Owner::Client);
    network.client.confirm(client).unwrap();
    assert_eq!(network.client.confirm(client), Err(Refused::State));
    assert_eq!(network.server.accept(now, 12345, acceptance()), Err(Refused::State));
}

#[test]
fn a_queue_pair_that_asks_again_has_lost_its_connection() {
    let mut network = Network::fine();
    network.listen();
    let (_, server) = network.connected();
    // As a client that was started again, and has the same queue pair by chance.
    let client = network.ask();
    let (_, event) = network.expect(Owner::Server);
    assert_eq!(event, Event::Disconnected { is_known: true });
    let (it, event) = network.expect(Owner::Client);
    assert!(matches!(event, Event::Rejected { reason: reason::STALE_CONNECTION, .. }), "{event:?}");
    assert_eq!(it, client);
    assert_eq!(network.server.state(server), Some(State::Closed));
    // It can ask again then.
    network.connected();
}

/// Whatever the network does, both sides end up with the same.
#[test]
fn connections_stand_and_end_in_any_weather() {
    for seed in 0..300 {
        let weather = Weather { lost: seed % 40, repeated: seed % 30, delay: seed % 700 };
        let mut network = Network::with(weather, seed);
        network.listen();
        let (client, server) = network.connected();
        assert_eq!(
            network.states(client, server),
            [Some(State::Established); 2],
            "seed {seed}, {weather:?}"
        );
        let now = network.now();
        network.client.disconnect(now, client);
        let (_, event) = network.expect(Owner::Server);
        assert_eq!(event, Event::Disconnected { is_known: true });
        let now = network.now();
        network.server.disconnect(now, server);
        let (_, event) = network.expect(Owner::Client);
        assert!(matches!(event, Event::Disconnected { .. }), "{event:?}");
        network.settle();
        let now = network.now();
        network.client.destroy(now, client);
        network.server.destroy(now, server);
        network.settle();
        assert_eq!(network.states(client, server), [None, None]);
        // A request that was repeated late must not have been taken for another.
        let requests = network.events.iter().filter(|it| it.owner == Owner::Listener).count();
        assert_eq!(requests, 0, "seed {seed}, {weather:?}");
    }
}

#[test]
fn a_peer_that_is_gone_is_given_up() {
    // Before the request, before the reply, before the confirmation, and when the connection ends.
    let mut network = Network::fine();
    network.dead = Some(Side::Server);
    let client = network.ask();
    let before = network.now();
    assert_eq!(network.expect(Owner::Client), (client, Event::Unreachable));
    let took = network.now() - before;
    assert!((8..10).contains(&took.as_secs()), "{took:?}");

    let mut network = Network::fine();
    network.listen();
    let (client, _) = network.asked();
    network.dead = Some(Side::Server);
    assert_eq!(network.expect(Owner::Client), (client, Event::Unreachable));

    let mut network = Network::fine();
    network.listen();
    let (_, server) = network.asked();
    network.dead = Some(Side::Client);
    network.accept(server);
    assert_eq!(network.expect(Owner::Server), (server, Event::Unreachable));

    let mut network = Network::fine();
    network.listen();
    let (client, _) = network.connected();
    network.dead = Some(Side::Server);
    let now = network.now();
    network.client.disconnect(now, client);
    let given_up = Event::Disconnected { is_known: false };
    assert_eq!(network.expect(Owner::Client), (client, given_up));
    assert_eq!(network.expect(Owner::Client), (client, Event::TimeWaitOver));
}

#[test]
fn a_program_may_take_its_time_as_long_as_its_device_answers() {
    let mut network = Network::fine();
    network.listen();
    let (client, server) = network.asked();
    network.run_for(Duration::from_secs(300));
    assert_eq!(network.events, []);
    network.accept(server);
    network.run_for(Duration::from_secs(300));
    assert!(matches!(network.expect(Owner::Client).1, Event::Responded(_)));
    assert_eq!(network.events, []);
    network.client.confirm(client).unwrap();
    assert_eq!(network.expect(Owner::Server), (server, Event::Established));
}

#[test]
fn at_the_end_of_a_process_its_peers_are_told() {
    let mut network = Network::fine();
    network.listen();
    let (_, server) = network.connected();
    let now = network.now();
    let other = Connect { local: Peer { qpn: 0x33, ..of_client() }, ..request() };
    network.client.connect(now, other, Owner::Client);
    let (waiting, _) = network.expect(Owner::Listener);
    network.server.set_owner(waiting, Owner::Server);
    let now = network.now();
    network.client.finish(now);
    network.client.finish(now);
    let told = [network.expect(Owner::Server), network.expect(Owner::Server)];
    for (connection, event) in told {
        match event {
            Event::Disconnected { is_known: true } => assert_eq!(connection, server),
            Event::Rejected { reason: reason::TIMEOUT, .. } => assert_eq!(connection, waiting),
            event => panic!("{event:?}"),
        }
    }
}

#[test]
fn the_network_may_say_that_a_peer_is_gone() {
    let gone = addr(Side::Server);
    // Not heard of yet: it may come.
    let mut network = Network::fine();
    let client = network.ask();
    let now = network.now();
    network.client.handle_gone(now, gone);
    assert_eq!(network.client.state(client), Some(State::ReqSent));
    let mut network = Network::fine();
    network.listen();
    let (client, _) = network.asked();
    // Now the request has come once more, and the server's device has asked for patience, and so is known.
    network.run_for(Duration::from_millis(600));
    let now = network.now();
    network.client.handle_gone(now, addr(Side::Client));
    assert_eq!(network.client.state(client), Some(State::ReqSent));
    network.client.handle_gone(now, gone);
    assert_eq!(network.expect(Owner::Client), (client, Event::Unreachable));

    let mut network = Network::fine();
    network.listen();
    let (client, server) = network.connected();
    let now = network.now();
    network.client.handle_gone(now, gone);
    network.client.handle_gone(now, gone);
    let ended = Event::Disconnected { is_known: true };
    assert_eq!(network.expect(Owner::Client), (client, ended));
    assert_eq!(network.expect(Owner::Client), (client, Event::TimeWaitOver));
    network.server.disconnect(now, server);
    network.settle();
    let now = network.now();
    network.client.destroy(now, client);
    network.server.destroy(now, server);
    network.settle();
    assert_eq!(network.states(client, server), [None, None]);
}
