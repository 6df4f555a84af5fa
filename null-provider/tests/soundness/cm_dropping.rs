//! Rules 9, 10 and 15 for the connection manager: whatever is dropped in whatever order, everything is destroyed
//! once, nothing before what it needs, and a request that nobody took is rejected.

use ibverbs::rdmacm::{
    Acceptor, CmEventType, CmId, Connection, ConnectionParams, Connector, EventChannel, Incoming,
    PrivateDataLimit, RejectReason, Tcp, Udp,
};
use ibverbs::{Error, Rc};
use null_provider::{CmArgs, CmReplies, Kind, Verb};

use crate::cm_common::*;
use crate::common::{null, Null};

/// All orders of so many things.
fn orders(things: usize) -> Vec<Vec<usize>> {
    if things == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for order in orders(things - 1) {
        for place in 0..things {
            let mut order = order.clone();
            order.insert(place, things - 1);
            all.push(order);
        }
    }
    all
}

/// Drops the things that are made in each order there is. What goes wrong is a violation, or still alive.
fn drop_in_each_order<const THINGS: usize>(
    null: &Null,
    make: impl Fn() -> [Box<dyn std::any::Any>; THINGS],
) {
    // Under Miri each takes seconds.
    let step = if cfg!(miri) { 47 } else { 1 };
    for order in orders(THINGS).into_iter().step_by(step) {
        let mut things = make().map(Some);
        for place in order {
            drop(things[place].take());
        }
        assert_eq!(null.take_violations(), [""; 0]);
        assert_eq!(null.all_live(), []);
        assert_eq!(null.count(Verb::CreateEventChannel), null.count(Verb::DestroyEventChannel));
        let acknowledged = null.count(Verb::AckCmEvent);
        // A read that found nothing is not acknowledged.
        assert!(acknowledged <= null.count(Verb::GetCmEvent));
        null.take_calls();
    }
}

#[test]
fn a_channel_its_identifiers_and_their_events_go_in_any_order() {
    let null = null();
    drop_in_each_order(&null, || {
        let channel = EventChannel::create().unwrap();
        let mut one = CmId::create_on(&channel, Tcp).unwrap();
        let other = CmId::create_on(&channel, Udp).unwrap();
        one.resolve_addr(None, address(0), TIMEOUT).unwrap();
        let event = next_on(&channel, CmEventType::ADDR_RESOLVED);
        // One that nobody reads.
        one.resolve_route(TIMEOUT).unwrap();
        [Box::new(channel), Box::new(one), Box::new(other), Box::new(event)]
    });
}

#[test]
fn a_listener_its_request_and_the_client_go_in_any_order() {
    let null = null();
    drop_in_each_order(&null, || {
        let Asked { mut listener, client, client_qp } = asked();
        let mut event = next(&mut listener, CmEventType::CONNECT_REQUEST);
        let request = event.take_request();
        [
            Box::new(listener),
            Box::new(event),
            Box::new(request),
            Box::new(client),
            Box::new(client_qp),
        ]
    });
}

#[test]
fn events_with_requests_go_in_any_order() {
    let null = null();
    drop_in_each_order(&null, || {
        let channel = EventChannel::create().unwrap();
        let mut listener = CmId::create_on(&channel, Tcp).unwrap();
        listener.bind_addr(address(0)).unwrap();
        listener.listen(0).unwrap();
        let mut client = resolved(Tcp, 0);
        client.connect(&ConnectionParams::new()).unwrap();
        let event = next_on(&channel, CmEventType::CONNECT_REQUEST);
        [Box::new(channel), Box::new(listener), Box::new(event), Box::new(client)]
    });
}

#[test]
fn both_ends_of_a_connection_go_in_any_order() {
    let null = null();
    drop_in_each_order(&null, || {
        let Ends { listener, client, client_qp, server, server_qp } = ends();
        [
            Box::new(listener),
            Box::new(client),
            Box::new(client_qp),
            Box::new(server),
            Box::new(server_qp),
        ]
    });
}

#[test]
fn members_of_groups_go_in_any_order() {
    let null = null();
    drop_in_each_order(&null, || {
        let channel = EventChannel::create().unwrap();
        let mut one = CmId::create_on(&channel, Udp).unwrap();
        one.bind_addr(address(0)).unwrap();
        one.join_multicast(group(1), Default::default()).unwrap();
        one.join_multicast(group(1), Default::default()).unwrap();
        let event = next_on(&channel, CmEventType::MULTICAST_JOIN);
        [Box::new(channel), Box::new(one), Box::new(event), Box::new(member(2))]
    });
    // The identifiers have left all their groups.
    assert_eq!(null.live(Kind::CmId), 0);
}

/// Both ends of a connection that was set up in two threads.
fn connected() -> (Acceptor<Tcp>, Connection, Connection) {
    let mut acceptor = Acceptor::bind(Tcp, address(0)).unwrap();
    let connected = std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let incoming = acceptor.accept(None).unwrap().unwrap();
            let qp = prepared::<Rc>(incoming.context());
            incoming.accept(qp, &ConnectionParams::new(), TIMEOUT).unwrap()
        });
        let resolved = Connector::new(Tcp).resolve(address(0), TIMEOUT).unwrap();
        let qp = prepared::<Rc>(resolved.context());
        let client = resolved.connect(qp, &ConnectionParams::new(), TIMEOUT).unwrap();
        (client, server.join().unwrap())
    });
    (acceptor, connected.0, connected.1)
}

#[test]
#[cfg_attr(miri, ignore = "no ppoll")]
fn connections_and_their_acceptor_go_in_any_order() {
    let null = null();
    drop_in_each_order(&null, || {
        let (acceptor, client, server) = connected();
        [Box::new(acceptor), Box::new(client), Box::new(server)]
    });
}

#[test]
#[cfg_attr(miri, ignore = "no ppoll")]
fn the_parts_of_a_connection_go_in_any_order() {
    let null = null();
    drop_in_each_order(&null, || {
        let (acceptor, client, server) = connected();
        drop(acceptor);
        let (qp, id) = client.into_parts();
        [Box::new(qp), Box::new(id), Box::new(server)]
    });
}

#[test]
#[cfg_attr(miri, ignore = "no ppoll")]
fn both_sides_hear_of_the_end() {
    let _null = null();
    let (acceptor, mut client, mut server) = connected();
    assert!(!client.poll_disconnected().unwrap());
    client.disconnect().unwrap();
    assert!(server.wait_disconnected(Some(TIMEOUT)).unwrap());
    assert!(client.wait_disconnected(None).unwrap());
    // It stays over, without any further event.
    assert!(client.wait_disconnected(None).unwrap());
    drop((acceptor, client, server));
}

/// That the client was rejected by the other side's program.
#[track_caller]
fn expect_rejected(client: &mut CmId) {
    let event = next(client, CmEventType::REJECTED);
    assert_eq!(event.reject_reason(), Some(RejectReason::CONSUMER_DEFINED));
}

#[test]
fn a_request_is_rejected_with_its_event() {
    let null = null();
    let Asked { mut listener, mut client, client_qp } = asked();
    let event = next(&mut listener, CmEventType::CONNECT_REQUEST);
    assert_eq!(null.live(Kind::CmId), 3);
    drop(event);
    assert_eq!(null.live(Kind::CmId), 2);
    expect_rejected(&mut client);
    drop(client_qp);
}

#[test]
fn a_request_on_a_shared_channel_is_rejected_with_its_event() {
    let null = null();
    let channel = EventChannel::create().unwrap();
    let mut listener = CmId::create_on(&channel, Tcp).unwrap();
    listener.bind_addr(address(0)).unwrap();
    listener.listen(0).unwrap();
    listener.set_context(u64::MAX);
    let mut client = resolved(Tcp, 0);
    client.connect(&ConnectionParams::new()).unwrap();
    let event = next_on(&channel, CmEventType::CONNECT_REQUEST);
    assert_eq!(event.context(), u64::MAX);
    // Taking events while one with a request is held, and dropping it after that.
    assert!(channel.poll_cm_event().unwrap().is_none());
    drop(event);
    assert_eq!(null.live(Kind::CmId), 2);
    expect_rejected(&mut client);
}

#[test]
fn a_request_that_nobody_read_is_rejected_with_its_listener() {
    let null = null();
    let Asked { listener, mut client, client_qp } = asked();
    drop(listener);
    assert_eq!(null.cm_unread_requests(), 1);
    expect_rejected(&mut client);
    drop(client_qp);
}

/// A request, taken by an acceptor.
fn incoming() -> (Acceptor<Tcp>, Incoming<Tcp>, CmId) {
    let Asked { listener, client, client_qp } = asked();
    drop(client_qp);
    let mut acceptor = Acceptor::from_id(Tcp, listener).map_err(|failed| failed.error).unwrap();
    let incoming = acceptor.poll().unwrap().unwrap();
    (acceptor, incoming, client)
}

#[test]
fn a_request_is_rejected_when_it_is_dropped() {
    let null = null();
    let (acceptor, incoming, mut client) = incoming();
    drop(incoming);
    assert_eq!(null.live(Kind::CmId), 2);
    expect_rejected(&mut client);
    drop(acceptor);
}

#[test]
fn a_request_is_rejected_with_a_message() {
    let null = null();
    let (_acceptor, incoming, mut client) = incoming();
    incoming.reject(b"no").unwrap();
    let sent = null.args(Verb::Reject).unwrap();
    assert_eq!(sent, CmArgs::Reject { reason: 0, private_data: b"no".to_vec() });
    let event = next(&mut client, CmEventType::REJECTED);
    assert_eq!(event.private_data()[..3], *b"no\0");
}

#[test]
fn a_request_is_rejected_without_a_message_if_that_is_too_long() {
    let null = null();
    let (_acceptor, incoming, mut client) = incoming();
    let too_long = vec![7; PrivateDataLimit::REJECT.bytes() + 1];
    assert!(matches!(incoming.reject(&too_long), Err(Error::PrivateDataTooLong { .. })));
    assert_eq!(null.count(Verb::Reject), 0);
    expect_rejected(&mut client);
}

#[test]
#[cfg_attr(miri, ignore = "no ppoll")]
fn a_request_is_rejected_if_it_gets_no_channel_of_its_own() {
    for (verb, code) in
        [(Verb::CreateEventChannel, libc::EMFILE), (Verb::MigrateCmId, libc::EINVAL)]
    {
        let null = null();
        let Asked { listener, mut client, client_qp } = asked();
        let mut acceptor = Acceptor::from_id(Tcp, listener).map_err(|failed| failed.error).unwrap();
        null.fail_once(verb, code);
        let error = acceptor.poll().unwrap_err();
        assert_eq!(error.os_error(), Some(code), "{error}");
        assert_eq!(null.live(Kind::CmId), 2);
        expect_rejected(&mut client);
        // The listener goes on.
        assert!(acceptor.poll().unwrap().is_none());
        drop(client_qp);
    }
}

#[test]
fn a_request_is_rejected_if_its_device_cannot_be_opened() {
    let null = null();
    let listener = listening(Tcp, 0);
    let mut client = resolved(Tcp, 0);
    client.connect(&ConnectionParams::new()).unwrap();
    let mut acceptor = Acceptor::from_id(Tcp, listener).map_err(|failed| failed.error).unwrap();
    null.fail_once(Verb::OpenDevice, libc::EMFILE);
    assert_eq!(acceptor.poll().unwrap_err().os_error(), Some(libc::EMFILE));
    assert_eq!(null.live(Kind::CmId), 2);
    expect_rejected(&mut client);
}

#[test]
#[cfg_attr(miri, ignore = "no ppoll")]
fn a_request_is_rejected_whichever_step_of_accepting_fails() {
    // When the queue pair is brought up it is looked whether there is something to answer still.
    let bringing_up = (0..3)
        .flat_map(|at| [(Verb::InitQpAttr, at, libc::EACCES), (Verb::ModifyQp, at, libc::EACCES)]);
    let accepting = [(Verb::InitQpAttr, 3, libc::EINVAL), (Verb::Accept, 0, libc::EACCES)];
    for (verb, at, code) in bringing_up.chain(accepting) {
        let null = null();
        let (_acceptor, incoming, mut client) = incoming();
        let qp = prepared::<Rc>(incoming.context());
        let number = qp.qp_num();
        null.fail_once_after(verb, at, libc::EACCES);
        let failed = incoming.accept(qp, &ConnectionParams::new(), TIMEOUT).unwrap_err();
        assert_eq!(failed.error.os_error(), Some(code), "{verb:?} {at}");
        assert_eq!(failed.resource.qp_num(), number);
        assert_eq!(null.live(Kind::CmId), 2, "{verb:?} {at}");
        expect_rejected(&mut client);
        // The queue pair is as it was.
        drop(failed.resource.init().unwrap());
    }
}

#[test]
#[cfg_attr(miri, ignore = "no ppoll")]
fn a_request_that_is_not_confirmed_is_given_up() {
    let null = null();
    let (_acceptor, incoming, mut client) = incoming();
    let qp = prepared::<Rc>(incoming.context());
    let short = std::time::Duration::from_millis(1);
    let failed = incoming.accept(qp, &ConnectionParams::new(), short).unwrap_err();
    assert!(matches!(failed.error, Error::TimedOut { .. }), "{}", failed.error);
    assert_eq!(null.live(Kind::CmId), 2);
    next(&mut client, CmEventType::CONNECT_RESPONSE);
    expect_rejected(&mut client);
    drop(failed.resource.init().unwrap());
}

#[test]
fn a_datagram_request_is_refused_when_it_is_dropped() {
    let _null = null();
    let (listener, mut client) = asked_for_datagrams();
    let mut acceptor = Acceptor::from_id(Udp, listener).map_err(|failed| failed.error).unwrap();
    drop(acceptor.poll().unwrap().unwrap());
    let event = next(&mut client, CmEventType::UNREACHABLE);
    assert_eq!(event.datagram_refusal(), Some(ibverbs::rdmacm::DatagramRefusal::REJECTED));
}

#[test]
fn an_acceptor_has_a_listener_of_its_own_port_space() {
    let null = null();
    let listener = listening(Udp, 0);
    let failed = Acceptor::from_id(Tcp, listener).unwrap_err();
    assert!(matches!(failed.error, Error::PortSpaceMismatch { .. }));
    assert!(failed.resource.local_addr().is_some());
    // Nor one that shares its channel.
    let channel = EventChannel::create().unwrap();
    let shared = CmId::create_on(&channel, Tcp).unwrap();
    let mut acceptor = Acceptor::from_id(Tcp, shared).map_err(|failed| failed.error).unwrap();
    assert!(matches!(acceptor.poll(), Err(Error::SharedEventChannel)));
    assert_eq!(null.count(Verb::GetCmEvent), 0);
}

#[test]
fn one_that_can_be_destroyed_after_all_is_not_leaked() {
    let null = null();
    let id = CmId::create(Tcp).unwrap();
    null.fail_once(Verb::DestroyCmId, libc::EIO);
    let failed = id.close().unwrap_err();
    failed.resource.close().unwrap();
    assert_eq!(null.count(Verb::DestroyEventChannel), 1);
}

#[test]
fn nobody_hears_of_what_no_program_waits_for() {
    let null = null();
    null.configure(|config| config.cm.replies = CmReplies::none());
    let Ok(mut id) = CmId::create(Tcp) else { panic!("no identifier") };
    id.resolve_addr(None, address(0), TIMEOUT).unwrap();
    assert!(id.poll_cm_event().unwrap().is_none());
    drop(id);
    assert_eq!(null.count(Verb::AckCmEvent), 0);
}
