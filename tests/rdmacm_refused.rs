//! Connections that do not come about: who refuses, why, and how soon that is known.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ibverbs::rdmacm::{
    Acceptor, CmEventType, CmId, ConnectionFailure, ConnectionParams, Connector, DatagramRefusal,
    EventChannel, Incoming, RejectReason, Tcp, Udp,
};
use ibverbs::{
    Error, Init, QpState, QueuePair, QueuePairAttrMask, Rc, RecvRequest, Reset, Unconnected,
};
use ibverbs_tests::{
    assert_connected, both, dial, listen, local_addr, local_addrs, next_request, other_context,
    post_recv, resolve, submit, unconnected, wait_one, Bed, Plan, Prepared, DEADLINE,
};

/// Well below what the kernel takes to give a peer up, and enough for a slow machine.
const PROMPT: Duration = Duration::from_secs(5);

/// How long an answer is waited for that does not come.
const SHORT: Duration = Duration::from_millis(300);

#[track_caller]
fn failure(error: Error) -> Box<ConnectionFailure> {
    match error {
        Error::Connection(failure) => failure,
        error => panic!("{error}"),
    }
}

/// A queue pair of the bed, and nothing else.
fn queue_pair(bed: &Bed) -> QueuePair<Rc, Reset> {
    unconnected(bed, |builder| builder).qp
}

/// Tries to connect a queue pair, which must fail, and soon.
#[track_caller]
fn refused<S: Unconnected>(
    to: SocketAddr,
    qp: QueuePair<Rc, S>,
) -> (Box<ConnectionFailure>, QueuePair<Rc, S>) {
    let resolved = resolve(Tcp, to);
    let start = Instant::now();
    let failed = resolved.connect(qp, &ConnectionParams::new(), DEADLINE).unwrap_err();
    let took = start.elapsed();
    assert!(took < PROMPT, "{took:?}: {failed}");
    (failure(failed.error), failed.resource)
}

/// An address that nobody listens on.
#[track_caller]
fn nobody(bed: &Bed) -> SocketAddr {
    let (acceptor, address) = listen(Tcp, bed);
    drop(acceptor);
    address
}

#[test]
fn nobody_listens() {
    let Some(bed) = Bed::with_cm() else { return };
    for mut to in local_addrs(&bed) {
        to.set_port(nobody(&bed).port());
        let (failure, qp) = refused(to, queue_pair(&bed));
        assert_eq!(failure.event_type(), CmEventType::REJECTED);
        assert_eq!(failure.reject_reason(), Some(RejectReason::INVALID_SERVICE_ID));
        assert_eq!(failure.status(), RejectReason::INVALID_SERVICE_ID.0);
        assert_eq!(failure.peer_addr(), Some(to));
        assert_eq!(failure.datagram_refusal(), None);
        let text = failure.to_string();
        for part in ["connect", &to.to_string(), "nobody listens", "is the server running"] {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
        qp.close().unwrap();
    }
}

#[test]
fn nobody_listens_for_datagrams() {
    let Some(bed) = Bed::with_cm() else { return };
    let (acceptor, to) = listen(Udp, &bed);
    drop(acceptor);
    let start = Instant::now();
    let failure = failure(resolve(Udp, to).find_peer(b"anybody?", DEADLINE).unwrap_err());
    assert!(start.elapsed() < PROMPT);
    assert_eq!(failure.event_type(), CmEventType::UNREACHABLE);
    assert_eq!(failure.datagram_refusal(), Some(DatagramRefusal::UNSUPPORTED));
    assert_eq!(failure.reject_reason(), None);
    assert!(failure.to_string().contains("nobody listens"), "{failure}");
}

#[test]
fn port_spaces_have_nothing_to_do_with_each_other() {
    let Some(bed) = Bed::with_cm() else { return };
    let (mut connected, to_connected) = listen(Tcp, &bed);
    let (mut datagrams, to_datagrams) = listen(Udp, &bed);
    let (failure, _qp) = refused(to_datagrams, queue_pair(&bed));
    assert_eq!(failure.reject_reason(), Some(RejectReason::INVALID_SERVICE_ID));
    let error = resolve(Udp, to_connected).find_peer(b"", DEADLINE).unwrap_err();
    let failure = self::failure(error);
    assert_eq!(failure.datagram_refusal(), Some(DatagramRefusal::UNSUPPORTED));
    assert!(connected.poll().unwrap().is_none());
    assert!(datagrams.poll().unwrap().is_none());
    // The same port can be had in both.
    drop(Acceptor::bind(Udp, to_connected).unwrap());
    let id = connected.into_id();
    let failed = Acceptor::from_id(Udp, id).unwrap_err();
    assert!(matches!(failed.error, Error::PortSpaceMismatch { .. }), "{failed}");
    // It still listens.
    let mut connected = Acceptor::from_id(Tcp, failed.resource).unwrap();
    let (mut server, mut client) = both(
        || Plan::plain().accept(next_request(&mut connected)),
        || Plan::plain().dial(resolve(Tcp, to_connected)),
    );
    assert_connected(&mut client, &mut server);
}

#[test]
fn an_acceptor_needs_a_channel_of_its_own() {
    let Some(bed) = Bed::with_cm() else { return };
    let channel = EventChannel::create().unwrap();
    let mut id = CmId::create_on(&channel, Tcp).unwrap();
    id.bind_addr(local_addr(&bed)).unwrap();
    id.listen(1).unwrap();
    let to = id.local_addr().unwrap();
    let mut acceptor = Acceptor::from_id(Tcp, id).unwrap();
    assert!(matches!(acceptor.poll(), Err(Error::SharedEventChannel)));
    assert!(matches!(acceptor.accept(Some(SHORT)), Err(Error::SharedEventChannel)));
    let mut id = acceptor.into_id();
    id.migrate_to_own_channel().unwrap();
    let mut acceptor = Acceptor::from_id(Tcp, id).unwrap();
    let (mut server, mut client) = both(
        // Without a timeout.
        || Plan::plain().accept(acceptor.accept(None).unwrap().unwrap()),
        || Plan::plain().dial(resolve(Tcp, to)),
    );
    assert_connected(&mut client, &mut server);
}

#[test]
fn a_listener_that_does_not_answer_is_given_up_in_time() {
    let Some(bed) = Bed::with_cm() else { return };
    let (mut silent, to) = listen(Tcp, &bed);
    let params = ConnectionParams::new();
    let Prepared { qp, send_cq, recv_cq, bed } = unconnected(&bed, |builder| builder);
    let resolved = resolve(Tcp, to);
    let start = Instant::now();
    let failed = resolved.connect(qp, &params, SHORT).unwrap_err();
    let took = start.elapsed();
    assert!(SHORT <= took && took < SHORT + PROMPT, "{took:?}");
    let Error::TimedOut { peer, timeout, .. } = &failed.error else { panic!("{failed}") };
    assert_eq!((&**peer, *timeout), (&*to.to_string(), SHORT));

    // Its request is still there. Whoever accepts it learns that it came too late.
    let late = next_request(&mut silent);
    assert_too_late(&bed, late);

    // The queue pair can be connected at the next try.
    let prepared = Prepared { qp: failed.resource, send_cq, recv_cq, bed };
    let (mut server, mut client) = both(
        || Plan::plain().accept(next_request(&mut silent)),
        || dial(resolve(Tcp, to), prepared, &params),
    );
    assert_connected(&mut client, &mut server);
}

/// Checks that the request of a peer that has given up cannot be accepted. The peer's rejection may be on its way still.
#[track_caller]
fn assert_too_late(bed: &Bed, late: Incoming<Tcp>) {
    let qp = queue_pair(bed);
    let start = Instant::now();
    let failed = late.accept(qp, &ConnectionParams::new(), DEADLINE).unwrap_err();
    assert!(start.elapsed() < PROMPT, "{failed}");
    match &failed.error {
        Error::NothingToAnswer { .. } => {}
        Error::Connection(failure) => {
            assert_eq!(failure.reject_reason(), Some(RejectReason::TIMEOUT), "{failure}");
        }
        _ => panic!("{failed}"),
    }
    let endpoint = failed.resource.endpoint().unwrap();
    failed.resource.handshake(endpoint).unwrap().close().unwrap();
}

#[test]
fn a_client_that_has_given_up_is_noticed() {
    let Some(bed) = Bed::with_cm() else { return };
    let (mut acceptor, to) = listen(Tcp, &bed);
    let (incoming, ()) = both(
        || next_request(&mut acceptor),
        || {
            let connected =
                resolve(Tcp, to).connect(queue_pair(&bed), &ConnectionParams::new(), SHORT);
            assert!(matches!(connected.unwrap_err().error, Error::TimedOut { .. }));
        },
    );
    assert_too_late(&bed, incoming);
}

#[test]
fn a_listener_that_does_not_answer_for_datagrams_is_given_up_in_time() {
    let Some(bed) = Bed::with_cm() else { return };
    let (_silent, to) = listen(Udp, &bed);
    let resolved = resolve(Udp, to);
    let start = Instant::now();
    let error = resolved.find_peer(b"", SHORT).unwrap_err();
    let took = start.elapsed();
    assert!(SHORT <= took && took < SHORT + PROMPT, "{took:?}");
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
}

#[test]
fn a_host_that_does_not_answer_is_given_up_in_time() {
    let Some(bed) = Bed::with_cm() else { return };
    let other = Bed::on(other_context(bed.ctx()));
    // What this device's interface sends, nobody gets: it is a dummy one.
    if !bed.is_softroce() || other.ctx().device().name() == bed.ctx().device().name() {
        return;
    }
    let (mut acceptor, to) = listen(Tcp, &bed);
    let connector = Connector::new(Tcp).set_source(local_addr(&other));
    let resolved = connector.resolve(to, DEADLINE).unwrap();
    assert_eq!(resolved.context().device().name(), other.ctx().device().name());
    let start = Instant::now();
    let failed = resolved.connect(queue_pair(&other), &ConnectionParams::new(), SHORT).unwrap_err();
    let took = start.elapsed();
    assert!(SHORT <= took && took < SHORT + PROMPT, "{took:?}");
    assert!(matches!(failed.error, Error::TimedOut { .. }), "{failed}");
    assert!(acceptor.poll().unwrap().is_none());
    // The queue pair is as it was.
    let qp = failed.resource;
    let endpoint = qp.endpoint().unwrap();
    qp.handshake(endpoint).unwrap().close().unwrap();
}

#[test]
fn a_peer_that_does_not_confirm_is_given_up_in_time() {
    let Some(bed) = Bed::with_cm() else { return };
    let (mut acceptor, to) = listen(Tcp, &bed);
    let params = ConnectionParams::new();
    // It takes no event, and so sees no answer, which it would have to confirm.
    let qp = queue_pair(&bed);
    let mut client = resolve(Tcp, to).into_id();
    client.connect(&params.clone().for_queue_pair(&qp)).unwrap();
    let incoming = next_request(&mut acceptor);
    let Prepared { qp, send_cq, recv_cq, bed } = unconnected::<Rc>(&bed, |builder| builder);
    let qp = qp.init().unwrap();
    let start = Instant::now();
    let failed = incoming.accept(qp, &params, SHORT).unwrap_err();
    let took = start.elapsed();
    assert!(SHORT <= took && took < SHORT + PROMPT, "{took:?}");
    assert!(matches!(failed.error, Error::TimedOut { .. }), "{failed}");
    drop(client);

    // The queue pair was ready to send meanwhile, and is back where it was.
    let mut qp: QueuePair<Rc, Init> = failed.resource;
    assert_eq!(qp.query(QueuePairAttrMask::STATE).unwrap().state(), Some(QpState::INIT));
    let mem = bed.mem(8);
    post_recv(&mut qp, [RecvRequest::new(1, &[mem.slice(..)])]).unwrap();
    let (connection, mut client) = both(
        || next_request(&mut acceptor).accept(qp, &params, DEADLINE).unwrap(),
        || Plan::new(|builder| builder.set_max_inline_data(8)).dial(resolve(Tcp, to)),
    );
    submit(client.qp(), |batch| batch.op().send(2, b"received")).unwrap();
    assert_eq!(wait_one(&recv_cq, 1).ok, Ok(()));
    assert_eq!(mem.read(..), b"received");
    drop((connection, send_cq));
}

#[test]
fn a_queue_pair_comes_back_in_its_state() {
    let Some(bed) = Bed::with_cm() else { return };
    let to = nobody(&bed);
    let prepared = unconnected::<Rc>(&bed, |builder| builder);
    let mut qp = refused(to, prepared.qp).1;
    let mask = QueuePairAttrMask::STATE;
    assert_eq!(qp.query(mask).unwrap().state(), Some(QpState::RESET));
    let mem = prepared.bed.mem(8);
    let mut qp: QueuePair<Rc, Init> = qp.init().unwrap();
    post_recv(&mut qp, [RecvRequest::new(1, &[mem.slice(..)])]).unwrap();
    let mut qp: QueuePair<Rc, Init> = refused(to, qp).1;
    assert_eq!(qp.query(mask).unwrap().state(), Some(QpState::INIT));
    // It has not gone any further, so that the receive is still there.
    let (mut acceptor, to) = listen(Tcp, &bed);
    let params = ConnectionParams::new();
    let (mut server, client) = both(
        || Plan::new(|builder| builder.set_max_inline_data(8)).accept(next_request(&mut acceptor)),
        || resolve(Tcp, to).connect(qp, &params, DEADLINE).unwrap(),
    );
    submit(server.qp(), |batch| batch.op().send(2, b"received")).unwrap();
    assert_eq!(wait_one(&prepared.recv_cq, 1).ok, Ok(()));
    assert_eq!(mem.read(..), b"received");
    drop(client);
}

#[test]
fn a_request_is_rejected_with_a_message() {
    let Some(bed) = Bed::with_cm() else { return };
    let (mut acceptor, to) = listen(Tcp, &bed);
    let ((), (failure, _qp)) = both(
        || next_request(&mut acceptor).reject(b"version 2 is spoken here").unwrap(),
        || refused(to, queue_pair(&bed)),
    );
    assert_eq!(failure.event_type(), CmEventType::REJECTED);
    assert_eq!(failure.reject_reason(), Some(RejectReason::CONSUMER_DEFINED));
    assert!(failure.private_data().starts_with(b"version 2 is spoken here\0"));
    assert_eq!(failure.peer_addr(), Some(to));
}

#[test]
fn a_request_that_is_dropped_is_rejected() {
    let Some(bed) = Bed::with_cm() else { return };
    let (mut acceptor, to) = listen(Tcp, &bed);
    let ((), (failure, _qp)) =
        both(|| drop(next_request(&mut acceptor)), || refused(to, queue_pair(&bed)));
    assert_eq!(failure.reject_reason(), Some(RejectReason::CONSUMER_DEFINED));

    // So it is as an identifier, and with the device's context still there.
    let (ctx, (failure, _qp)) = both(
        || {
            let incoming = next_request(&mut acceptor);
            let ctx = incoming.context().clone();
            drop(incoming.into_id());
            ctx
        },
        || refused(to, queue_pair(&bed)),
    );
    assert_eq!(failure.reject_reason(), Some(RejectReason::CONSUMER_DEFINED));
    drop(ctx);
}

#[test]
fn a_request_for_datagrams_that_is_dropped_is_rejected() {
    let Some(bed) = Bed::with_cm() else { return };
    let (mut acceptor, to) = listen(Udp, &bed);
    let ((), found) =
        both(|| drop(next_request(&mut acceptor)), || resolve(Udp, to).find_peer(b"", DEADLINE));
    let refusal = failure(found.unwrap_err()).datagram_refusal();
    assert_eq!(refusal, Some(DatagramRefusal::REJECTED));
}

#[test]
fn requests_that_wait_are_rejected_with_their_listener() {
    let Some(bed) = Bed::with_cm() else { return };
    for taken in [0, 1] {
        let (mut acceptor, to) = listen(Tcp, &bed);
        let waiting: Vec<_> = (0..5).map(|_| (resolve(Tcp, to), queue_pair(&bed))).collect();
        std::thread::scope(|scope| {
            let clients: Vec<_> = waiting
                .into_iter()
                .map(|(resolved, qp)| {
                    scope.spawn(move || {
                        let failed = resolved.connect(qp, &ConnectionParams::new(), DEADLINE);
                        (failure(failed.unwrap_err().error), Instant::now())
                    })
                })
                .collect();
            let taken: Vec<_> = (0..taken).map(|_| next_request(&mut acceptor)).collect();
            // Some of them are there by now, perhaps not all: those are rejected as well.
            std::thread::sleep(SHORT);
            let start = Instant::now();
            drop(acceptor);
            drop(taken);
            for client in clients {
                let (failure, end) = client.join().unwrap();
                assert_eq!(failure.event_type(), CmEventType::REJECTED, "{failure}");
                assert!(end.saturating_duration_since(start) < PROMPT, "{failure}");
            }
        });
    }
}

/// The listener accepts, and is gone at once: before this is confirmed, while it is, or after that.
#[test]
fn a_listener_that_takes_its_answer_back_has_rejected() {
    let Some(bed) = Bed::with_cm() else { return };
    let (mut acceptor, to) = listen(Tcp, &bed);
    for round in 0..20 {
        let (_, connected) = both(
            || {
                let mut id = next_request(&mut acceptor).into_id();
                let qp = id.bring_up(queue_pair(&bed)).unwrap();
                id.accept(&ConnectionParams::new().for_queue_pair(&qp)).unwrap();
                std::thread::sleep(Duration::from_micros(round * 50));
                drop(id);
                qp
            },
            || resolve(Tcp, to).connect(queue_pair(&bed), &ConnectionParams::new(), DEADLINE),
        );
        match connected {
            Ok(mut connection) => assert!(connection.wait_disconnected(Some(DEADLINE)).unwrap()),
            Err(failed) => {
                let failure = failure(failed.error);
                assert_eq!(failure.reject_reason(), Some(RejectReason::CONSUMER_DEFINED));
                failed.resource.close().unwrap();
            }
        }
    }
}
