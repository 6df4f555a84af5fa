//! Rules 9 and 15 for the connection manager: librdmacm is not asked for what it would follow a null pointer for, and
//! whatever fails leaves things as they were.

use std::net::SocketAddr;

use ibverbs::rdmacm::{
    getaddrinfo, Acceptor, AddrInfoHints, CmEventType, CmId, Connection, ConnectionParams,
    Connector, Ece, EventChannel, PrivateDataLimit, Tcp, Udp,
};
use ibverbs::{AckTimeout, Error, EventType, Failed, PreparedQueuePair, QpState, Rc, Result, Ud};
use null_provider::{CmAddrInfo, CmReplies, Kind, Verb};

use crate::cm_common::*;
use crate::common::{null, open, Null};

/// Everything of an identifier that librdmacm looks at its device for. None of it reaches librdmacm.
fn expect_not_bound(null: &Null, id: &mut CmId) {
    let qps = (open(0), open(0));
    let (rc, ud) = (prepared::<Rc>(&qps.0), prepared::<Ud>(&qps.1));
    null.take_calls();
    let params = ConnectionParams::new();
    let results: [(&str, Result<()>); 13] = [
        ("context", id.context().map(drop)),
        ("resolve_route", id.resolve_route(TIMEOUT)),
        ("connect", id.connect(&params)),
        ("accept", id.accept(&params)),
        ("reject", id.reject(b"")),
        ("reject_ece", id.reject_ece(b"")),
        ("disconnect", id.disconnect()),
        ("join_multicast", id.join_multicast(group(1), Default::default())),
        ("qp_attr", id.qp_attr(QpState::INIT).map(drop)),
        ("bring_up", id.bring_up(rc).map(drop).map_err(Error::from)),
        ("init", id.init(prepared::<Rc>(&qps.0)).map(drop).map_err(Error::from)),
        ("activate", id.activate(ud).map(drop).map_err(Error::from)),
        (
            "ready_to_receive",
            id.ready_to_receive(prepared::<Rc>(&qps.0).init().unwrap())
                .map(drop)
                .map_err(Error::from),
        ),
    ];
    for (name, result) in results {
        assert!(matches!(result, Err(Error::NotBound)), "{name}: {result:?}");
    }
    assert_eq!(id.port(), None);
    let of_librdmacm = null.take_cm_calls();
    assert!(of_librdmacm.iter().all(|call| call.object != id.as_raw() as usize));
}

#[test]
fn what_needs_a_device_is_refused_without_one() {
    let null = null();
    for mut id in [CmId::create(Tcp).unwrap(), CmId::create(Udp).unwrap()] {
        null.take_cm_calls();
        expect_not_bound(&null, &mut id);
    }
}

#[test]
fn an_identifier_on_all_addresses_has_no_device() {
    let null = null();
    let mut id = CmId::create(Tcp).unwrap();
    id.bind_addr(SocketAddr::from(([0, 0, 0, 0], 0))).unwrap();
    id.listen(0).unwrap();
    null.take_cm_calls();
    expect_not_bound(&null, &mut id);
}

#[test]
fn an_identifier_whose_address_was_not_resolved_has_no_device() {
    let null = null();
    for event_type in [CmEventType::ADDR_RESOLVED, CmEventType::ADDR_ERROR] {
        let mut id = CmId::create(Tcp).unwrap();
        null.configure(|config| config.cm.replies = CmReplies::none());
        id.resolve_addr(None, address(0), TIMEOUT).unwrap();
        null.take_cm_calls();
        // While it is resolved, nothing is known.
        expect_not_bound(&null, &mut id);
        // What librdmacm asks the kernel then can fail.
        null.fail(Verb::QueryCmId, libc::ENODEV);
        raise(&null, &id, plain(event_type));
        next(&mut id, CmEventType::ADDR_ERROR);
        null.succeed(Verb::QueryCmId);
        null.take_cm_calls();
        expect_not_bound(&null, &mut id);
        null.configure(|config| config.cm.replies = CmReplies::default());
    }
}

#[test]
fn what_needs_no_device_is_answered_without_one() {
    let null = null();
    let mut id = CmId::create(Tcp).unwrap();
    assert!(id.establish().is_err());
    assert!(id.notify(EventType::COMM_EST).is_err());
    assert!(id.remote_ece().is_ok_and(|ece| ece == Ece::default()));
    assert!(id.set_local_ece(Ece { vendor_id: 1, options: 2 }).is_ok());
    assert!(matches!(id.leave_multicast(group(1)), Err(Error::NotJoined { .. })));
    assert_eq!(null.count(Verb::LeaveMulticast), 0);
    assert_eq!(id.context_value(), 0);
    id.set_context(u64::MAX);
    assert_eq!(id.context_value(), u64::MAX);
}

#[test]
fn errors_of_every_function_are_told() {
    let null = null();
    let mut id = resolved(Tcp, 0);
    let mut datagrams = bound(Udp, 0);
    let params = ConnectionParams::new();
    let channel = EventChannel::create().unwrap();
    type Act<'a> = Box<dyn FnMut() -> Result<()> + 'a>;
    let id = std::cell::RefCell::new(&mut id);
    let acts: [(Verb, Act<'_>); 15] = [
        (Verb::BindAddr, Box::new(|| id.borrow_mut().bind_addr(address(0)))),
        (Verb::Listen, Box::new(|| id.borrow_mut().listen(u32::MAX))),
        (Verb::ResolveAddr, Box::new(|| id.borrow_mut().resolve_addr(None, address(0), TIMEOUT))),
        (Verb::ResolveRoute, Box::new(|| id.borrow_mut().resolve_route(TIMEOUT))),
        (Verb::Connect, Box::new(|| id.borrow_mut().connect(&params))),
        (Verb::Accept, Box::new(|| id.borrow_mut().accept(&params))),
        (Verb::Reject, Box::new(|| id.borrow_mut().reject(b""))),
        (Verb::Establish, Box::new(|| id.borrow_mut().establish())),
        (Verb::Disconnect, Box::new(|| id.borrow_mut().disconnect())),
        (Verb::InitQpAttr, Box::new(|| id.borrow_mut().qp_attr(QpState::INIT).map(drop))),
        (Verb::SetCmOption, Box::new(|| id.borrow_mut().set_type_of_service(8))),
        (
            Verb::SetLocalEce,
            Box::new(|| id.borrow_mut().set_local_ece(Ece { vendor_id: 1, options: 2 })),
        ),
        (Verb::GetRemoteEce, Box::new(|| id.borrow_mut().remote_ece().map(drop))),
        (Verb::MigrateCmId, Box::new(|| id.borrow_mut().migrate(&channel))),
        (Verb::JoinMulticast, Box::new(|| datagrams.join_multicast(group(1), Default::default()))),
    ];
    for (verb, mut act) in acts {
        null.fail_once(verb, libc::EACCES);
        let error = act().unwrap_err();
        assert_eq!(error.os_error(), Some(libc::EACCES), "{verb:?}: {error}");
    }
    // It is where it was: on its own channel, and on its way.
    id.borrow_mut().connect(&params).unwrap();
    next(&mut id.borrow_mut(), CmEventType::REJECTED);
    // A group that was not joined is not left.
    drop(datagrams);
    assert_eq!(null.count(Verb::LeaveMulticast), 0);
}

#[test]
fn nothing_is_left_of_what_could_not_be_created() {
    let null = null();
    null.fail_once(Verb::CreateEventChannel, libc::EMFILE);
    let error = EventChannel::create().unwrap_err();
    assert!(matches!(error, Error::EventChannel { .. }));
    assert_eq!(error.os_error(), Some(libc::EMFILE));
    null.fail_once(Verb::CreateCmId, libc::ENOMEM);
    assert_eq!(CmId::create(Tcp).unwrap_err().os_error(), Some(libc::ENOMEM));
    assert_eq!(null.live(Kind::EventChannel), 0);
}

#[test]
fn nothing_is_left_of_a_listener_that_could_not_be_bound() {
    let null = null();
    for verb in [Verb::CreateEventChannel, Verb::CreateCmId, Verb::BindAddr, Verb::Listen] {
        null.fail_once(verb, libc::EACCES);
        let error = Acceptor::bind(Tcp, address(0)).unwrap_err();
        assert_eq!(error.os_error(), Some(libc::EACCES), "{verb:?}");
        assert_eq!(null.all_live(), [], "{verb:?}");
    }
    drop(Acceptor::bind(Tcp, address(0)).unwrap());
}

#[test]
fn nothing_is_left_of_a_way_that_could_not_be_found() {
    let null = null();
    let connector = Connector::new(Tcp)
        .set_type_of_service(8)
        .set_ack_timeout(AckTimeout::from_exponent(14).unwrap());
    let steps = [
        (Verb::CreateEventChannel, 0),
        (Verb::CreateCmId, 0),
        (Verb::SetCmOption, 0),
        (Verb::SetCmOption, 1),
        (Verb::ResolveAddr, 0),
        (Verb::GetCmEvent, 0),
        (Verb::ResolveRoute, 0),
        (Verb::GetCmEvent, 1),
        (Verb::OpenDevice, 0),
    ];
    for (verb, successes) in steps {
        null.fail_once_after(verb, successes, libc::EACCES);
        let error = connector.resolve(address(0), TIMEOUT).unwrap_err();
        assert_eq!(error.os_error(), Some(libc::EACCES), "{verb:?} {successes}: {error}");
        assert_eq!(null.all_live(), [], "{verb:?} {successes}");
    }
    drop(connector.resolve(address(0), TIMEOUT).unwrap());
}

#[test]
fn the_event_that_ends_a_step_otherwise_is_the_error() {
    let null = null();
    null.configure(|config| {
        config.cm.replies = CmReplies { resolve_addr: false, ..CmReplies::default() };
        config.cm.during = None;
    });
    let mut id = CmId::create(Tcp).unwrap();
    id.resolve_addr(None, address(0), TIMEOUT).unwrap();
    raise(&null, &id, plain(CmEventType::DEVICE_REMOVAL));
    next(&mut id, CmEventType::DEVICE_REMOVAL);
    // The kernel serves it no more.
    assert_eq!(id.listen(0).unwrap_err().os_error(), Some(libc::EIO));
}

#[track_caller]
fn expect_back(null: &Null, result: Result<Connection, Failed<PreparedQueuePair<Rc>>>, code: i32) {
    let failed = result.map(drop).unwrap_err();
    assert_eq!(failed.error.os_error(), Some(code), "{}", failed.error);
    // In its state, and usable.
    drop(failed.resource.init().unwrap());
    assert_eq!(null.live(Kind::Qp), 0);
}

/// Accepts one request.
fn serve(mut acceptor: Acceptor<Tcp>) {
    let incoming = acceptor.accept(None).unwrap().unwrap();
    let qp = prepared::<Rc>(incoming.context());
    drop(incoming.accept(qp, &ConnectionParams::new(), TIMEOUT));
}

#[test]
#[cfg_attr(miri, ignore = "no ppoll")]
fn a_queue_pair_comes_back_whichever_step_of_connecting_fails() {
    // The server has asked for four attributes and taken three transitions before.
    let bringing_up = (0..3).flat_map(|at| {
        [(Verb::InitQpAttr, 4 + at, libc::EACCES), (Verb::ModifyQp, 3 + at, libc::EACCES)]
    });
    let others = [
        (Verb::Connect, 0, libc::EACCES),
        (Verb::InitQpAttr, 7, libc::EINVAL),
        (Verb::Establish, 0, libc::EACCES),
    ];
    for (verb, successes, code) in bringing_up.chain(others) {
        let null = null();
        let acceptor = Acceptor::bind(Tcp, address(0)).unwrap();
        let way = Connector::new(Tcp).resolve(address(0), TIMEOUT).unwrap();
        let qp = prepared::<Rc>(way.context());
        null.fail_once_after(verb, successes, libc::EACCES);
        std::thread::scope(|scope| {
            let server = (verb != Verb::Connect).then(|| scope.spawn(|| serve(acceptor)));
            let result = way.connect(qp, &ConnectionParams::new(), TIMEOUT);
            if let Some(server) = server {
                server.join().unwrap();
            }
            expect_back(&null, result, code);
        });
        assert_eq!(null.take_violations(), [""; 0], "{verb:?} {successes}");
        assert_eq!(null.all_live(), [], "{verb:?} {successes}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "no ppoll")]
fn a_queue_pair_comes_back_when_nobody_listens_or_answers() {
    let null = null();
    let way = Connector::new(Tcp).resolve(address(0), TIMEOUT).unwrap();
    let qp = prepared::<Rc>(way.context());
    let failed = way.connect(qp, &ConnectionParams::new(), TIMEOUT).unwrap_err();
    assert!(matches!(failed.error, Error::Connection(_)), "{}", failed.error);
    drop(failed.resource.init().unwrap());
    null.configure(|config| {
        config.cm.replies = CmReplies { connect: false, ..CmReplies::default() };
    });
    let way = Connector::new(Tcp).resolve(address(0), TIMEOUT).unwrap();
    let qp = prepared::<Rc>(way.context()).init().unwrap();
    let short = std::time::Duration::from_millis(1);
    let failed = way.connect(qp, &ConnectionParams::new(), short).unwrap_err();
    assert!(matches!(failed.error, Error::TimedOut { .. }), "{}", failed.error);
    drop(failed.resource);
    assert_eq!(null.all_live(), []);
}

#[test]
fn private_data_that_is_too_long_does_not_reach_librdmacm() {
    let null = null();
    let (mut tcp, mut udp) = (resolved(Tcp, 0), resolved(Udp, 0));
    let params = |limit: PrivateDataLimit, more: usize| {
        ConnectionParams::new().set_private_data(vec![7; limit.bytes() + more])
    };
    let limits = (PrivateDataLimit::CONNECT, PrivateDataLimit::CONNECT_DATAGRAM);
    for more in [1, 200, 256, 1 << 16] {
        for result in [
            tcp.connect(&params(limits.0, more)),
            udp.connect(&params(limits.1, more)),
            tcp.accept(&params(PrivateDataLimit::ACCEPT, more)),
            udp.accept(&params(PrivateDataLimit::ACCEPT_DATAGRAM, more)),
            tcp.reject(&vec![7; PrivateDataLimit::REJECT.bytes() + more]),
        ] {
            assert!(matches!(result, Err(Error::PrivateDataTooLong { .. })), "{result:?}");
        }
    }
    for verb in [Verb::Connect, Verb::Accept, Verb::Reject] {
        assert_eq!(null.count(verb), 0);
    }
    let listeners = (listening(Tcp, 0), listening(Udp, 0));
    tcp.connect(&params(limits.0, 0)).unwrap();
    udp.connect(&params(limits.1, 0)).unwrap();
    drop(listeners);
}

#[test]
fn an_infinite_number_of_retries_is_not_truncated() {
    let null = null();
    let mut id = resolved(Tcp, 0);
    for params in [
        ConnectionParams::new().set_retry_count(8),
        ConnectionParams::new().set_rnr_retry_count(255),
    ] {
        assert!(matches!(id.connect(&params), Err(Error::InvalidArgument { .. })));
    }
    assert_eq!(null.count(Verb::Connect), 0);
}

#[test]
#[cfg_attr(miri, ignore = "no gai_strerror")]
fn lists_of_addresses_are_freed_whatever_is_in_them() {
    let null = null();
    let hints = AddrInfoHints::new;
    let found = getaddrinfo(Tcp, Some("10.0.0.1"), Some("7471"), hints()).unwrap();
    assert_eq!(found.destination, Some(address(0)));
    let entry = CmAddrInfo { src: Some(address(1)), dst: Some(address(0)) };
    null.configure(|config| config.cm.addrinfo = vec![entry, CmAddrInfo::default()]);
    let found = getaddrinfo(Udp, Some("somewhere"), None, hints()).unwrap();
    assert_eq!((found.source, found.destination), (None, Some(address(1))));
    null.configure(|config| config.cm.addrinfo = vec![CmAddrInfo::default(), entry]);
    let error = getaddrinfo(Udp, Some("somewhere"), None, hints()).unwrap_err();
    assert!(matches!(error, Error::ResolveName { .. }));
    for (node, service) in [(Some("a\0b"), None), (Some("a"), Some("\0"))] {
        let error = getaddrinfo(Tcp, node, service, hints()).unwrap_err();
        assert!(matches!(error, Error::InvalidBytes { .. }));
    }
    null.configure(|config| config.cm.addrinfo = Vec::new());
    let error = getaddrinfo(Tcp, Some("no such host"), None, hints()).unwrap_err();
    assert!(matches!(error, Error::ResolveName { .. }));
    null.fail_once(Verb::GetAddrInfo, libc::ENOMEM);
    assert!(getaddrinfo(Tcp, Some("10.0.0.1"), None, hints()).is_err());
    assert_eq!(null.all_live(), []);
}
