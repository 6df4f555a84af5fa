//! What identifiers can be told, what they tell the peer beside the connection itself, and the device behind them.

use std::net::SocketAddr;

use ibverbs::rdmacm::{CmEventType, CmId, ConnectionParams, Ece, Tcp, Udp};
use ibverbs::{
    AckTimeout, Error, EventSource, EventType, QpState, QueuePair, QueuePairAttr,
    QueuePairAttrMask, Rc, RecvRequest, State,
};
use ibverbs_tests::ids::{
    accepted, assert_no_event, cm_address, ends, established, expect_event, listening, next_event,
    place_of, prepare_for, refused, requested, resolve, resolved, End,
};
use ibverbs_tests::{
    local_ipv6, pair, post_recv, prepare, submit, wait_event, wait_ok, wait_one, within_deadline,
    Bed, Prepared,
};

/// The wildcard address of IPv6, which stands for that of IPv4 as well.
const ANY: &str = "[::]:0";

fn traffic_class<S: State>(qp: &mut QueuePair<Rc, S>) -> u8 {
    let attr = qp.query(QueuePairAttrMask::AV).unwrap();
    attr.address().and_then(|address| address.grh).expect("a global route").traffic_class
}

/// Asks a listener for a connection, with a queue pair of this address's device.
#[track_caller]
fn ask(id: &mut CmId) -> Prepared<Rc> {
    let prepared = prepare_for(id);
    id.connect(&ConnectionParams::new().for_queue_pair(&prepared.qp)).unwrap();
    prepared
}

#[track_caller]
fn assert_in_use(result: ibverbs::Result<()>) {
    let error = result.expect_err("it should be in use");
    assert!(matches!(error, Error::BindAddress { .. }), "{error}");
    assert_eq!(error.os_error(), Some(libc::EADDRINUSE), "{error}");
}

#[test]
fn packets_have_the_type_of_service() {
    const SERVICE: u8 = 0x68;
    let Some(address) = cm_address() else { return };
    let mut listener = listening(Tcp, address);
    let mut client = CmId::create(Tcp).unwrap();
    client.set_type_of_service(0xff).unwrap();
    client.set_type_of_service(SERVICE).unwrap();
    resolve(&mut client, place_of(&listener));
    // Too late for the route.
    client.set_type_of_service(0x10).unwrap();
    let prepared = ask(&mut client);
    let mut event = expect_event(&mut listener, CmEventType::CONNECT_REQUEST);
    let mut server = accepted(event.take_request().unwrap());
    expect_event(&mut client, CmEventType::CONNECT_RESPONSE);
    let mut client = established(client, prepared);
    assert_eq!(traffic_class(&mut client.side.qp), SERVICE);
    // The other direction has that of the request.
    assert_eq!(traffic_class(&mut server.side.qp), SERVICE);
    // Nobody has asked for anything here.
    let (mut client, mut server) = ends(&mut listener);
    assert_eq!(traffic_class(&mut client.side.qp), 0);
    assert_eq!(traffic_class(&mut server.side.qp), 0);
}

#[test]
fn an_address_is_bound_twice_if_both_allow_it() {
    let Some(address) = cm_address() else { return };
    let bind = |reuse: Option<bool>, to: SocketAddr| {
        let mut id = CmId::create(Tcp).unwrap();
        if let Some(reuse) = reuse {
            id.set_reuse_address(reuse).unwrap();
        }
        id.bind_addr(to).map(|()| id)
    };
    let first = bind(None, address).unwrap();
    let taken = place_of(&first);
    assert_in_use(bind(Some(true), taken).map(drop));
    drop(first);

    let mut first = bind(Some(true), taken).unwrap();
    assert_in_use(bind(None, taken).map(drop));
    assert_in_use(bind(Some(false), taken).map(drop));
    let mut second = bind(Some(true), taken).unwrap();
    assert_eq!(place_of(&second), taken);
    // But it is no way to share requests.
    assert_eq!(refused(first.listen(1)), libc::EADDRINUSE);
    assert_eq!(refused(second.listen(1)), libc::EADDRINUSE);
    drop(first);
    second.listen(1).unwrap();
    assert_in_use(bind(Some(true), taken).map(drop));
    // Other port spaces have other ports.
    CmId::create(Udp).unwrap().bind_addr(taken).unwrap();
    let _ends = ends(&mut second);
}

#[test]
fn a_wildcard_stands_for_both_families_or_one() {
    let Some(address) = cm_address() else { return };
    let any: SocketAddr = ANY.parse().unwrap();
    let at =
        |listener: &CmId, host: SocketAddr| SocketAddr::new(host.ip(), place_of(listener).port());

    let mut both = listening(Tcp, any);
    let mut client = resolved(Tcp, at(&both, address));
    let _prepared = ask(&mut client);
    let mut event = expect_event(&mut both, CmEventType::CONNECT_REQUEST);
    let request = event.take_request().unwrap();
    // The request has an address that the wildcard stands for, and a device.
    assert!(request.local_addr().is_some_and(|local| !local.ip().is_unspecified()));
    assert!(request.port().is_some());
    let mut v4 = CmId::create(Tcp).unwrap();
    assert!(v4.bind_addr(at(&both, "0.0.0.0:0".parse().unwrap())).is_err());

    let mut only = CmId::create(Tcp).unwrap();
    only.set_address_family_only(true).unwrap();
    only.bind_addr(any).unwrap();
    only.listen(1).unwrap();
    let mut client = resolved(Tcp, at(&only, address));
    let _prepared = ask(&mut client);
    assert_eq!(next_event(&mut client).event_type(), CmEventType::REJECTED);
    assert_no_event(&mut only);
    // That port of IPv4 is free.
    CmId::create(Tcp).unwrap().bind_addr(at(&only, "0.0.0.0:0".parse().unwrap())).unwrap();
    let Some(v6) = Bed::with_cm().as_ref().and_then(local_ipv6) else { return };
    let mut client = resolved(Tcp, at(&only, v6));
    let _prepared = ask(&mut client);
    expect_event(&mut only, CmEventType::CONNECT_REQUEST);
}

#[test]
fn the_peer_learns_how_long_to_wait_for_acknowledgements() {
    let Some(address) = cm_address() else { return };
    let mut listener = listening(Tcp, address);
    // Not less than what the device itself needs.
    for exponent in [20, 22] {
        let mut client = CmId::create(Tcp).unwrap();
        client.set_ack_timeout(AckTimeout::from_exponent(exponent).unwrap()).unwrap();
        resolve(&mut client, place_of(&listener));
        let prepared = ask(&mut client);
        let mut event = expect_event(&mut listener, CmEventType::CONNECT_REQUEST);
        let mut request = event.take_request().unwrap();
        let suggested = request.qp_attr(QpState::RTS).unwrap().timeout();
        assert_eq!(suggested.map(AckTimeout::exponent), Some(exponent));
        // What the builder said holds.
        let mut server = accepted(request);
        expect_event(&mut client, CmEventType::CONNECT_RESPONSE);
        let mut client = established(client, prepared);
        for qp in [&mut client.side.qp, &mut server.side.qp] {
            let attr = qp.query(QueuePairAttrMask::TIMEOUT).unwrap();
            assert_eq!(attr.timeout(), Some(AckTimeout::DEFAULT));
        }
    }
    let mut datagrams = CmId::create(Udp).unwrap();
    assert_eq!(refused(datagrams.set_ack_timeout(AckTimeout::DEFAULT)), libc::EINVAL);
}

#[test]
fn options_that_come_too_late_do_no_harm() {
    let Some(address) = cm_address() else { return };
    let mut listener = listening(Tcp, address);
    let _ = listener.set_reuse_address(true);
    let _ = listener.set_address_family_only(true);
    let _ = listener.set_type_of_service(4);
    let _ = listener.set_ack_timeout(AckTimeout::DEFAULT);
    let (mut client, mut server) = ends(&mut listener);
    for id in [&mut client.id, &mut server.id] {
        let _ = id.set_reuse_address(true);
        let _ = id.set_address_family_only(true);
        let _ = id.set_type_of_service(4);
        let _ = id.set_ack_timeout(AckTimeout::DEFAULT);
        assert_no_event(id);
    }
    let _ends = ends(&mut listener);
}

#[test]
fn options_of_vendors_go_to_the_peer_and_back() {
    let Some(address) = cm_address() else { return };
    let mut listener = listening(Tcp, address);
    let mut client = resolved(Tcp, place_of(&listener));
    let of_client = Ece { vendor_id: 0x00_15b3, options: 0x8000_0001 };
    let of_server = Ece { vendor_id: 0x00_02c9, options: 0x7f };
    assert_eq!(refused(client.set_local_ece(Ece { vendor_id: 0, options: 1 })), libc::EINVAL);
    assert_eq!(client.remote_ece().unwrap(), Ece::default());
    client.set_local_ece(of_client).unwrap();
    let prepared = ask(&mut client);
    let mut event = expect_event(&mut listener, CmEventType::CONNECT_REQUEST);
    let mut request = event.take_request().unwrap();
    assert_eq!(request.remote_ece().unwrap(), of_client);
    request.set_local_ece(of_server).unwrap();
    let mut server = accepted(request);
    expect_event(&mut client, CmEventType::CONNECT_RESPONSE);
    // An answer has the vendor of the request.
    assert_eq!(client.remote_ece().unwrap(), Ece { vendor_id: of_client.vendor_id, ..of_server });
    let _client = established(client, prepared);
    expect_event(&mut server.id, CmEventType::ESTABLISHED);

    // Without any, there are none.
    let ((client, _prepared), (mut request, _)) = requested(&mut listener, ConnectionParams::new());
    assert_eq!(request.remote_ece().unwrap(), Ece::default());
    drop(client);
}

#[test]
fn a_device_without_options_of_its_vendor_says_so() {
    let Some(bed) = Bed::with_cm() else { return };
    if !bed.is_softroce() {
        return;
    }
    let mut qp = prepare::<Rc>(&bed, |builder| builder).qp;
    assert!(matches!(qp.query_ece(), Err(Error::Unsupported { .. })));
    let some = Ece { vendor_id: 1, options: 1 };
    assert!(matches!(qp.set_ece(some), Err(Error::Unsupported { .. })));
}

#[test]
fn data_that_comes_before_the_confirmation_is_one() {
    let Some(address) = cm_address() else { return };
    let mut listener = listening(Tcp, address);
    let ((mut client, prepared), (request, _)) = requested(&mut listener, ConnectionParams::new());
    let mut server = accepted(request);
    let mem = server.side.bed.mem(8);
    post_recv(&mut server.side.qp, [RecvRequest::new(1, &[mem.slice(..)])]).unwrap();
    expect_event(&mut client, CmEventType::CONNECT_RESPONSE);
    let Prepared { qp, send_cq, .. } = prepared;
    let mut qp = client.bring_up(qp).unwrap();
    submit(&mut qp, |batch| batch.op().signaled().send(2, b"early")).unwrap();
    wait_ok(&send_cq, 1);
    assert_eq!(wait_one(&server.side.recv_cq, 1).len, 5);
    assert_no_event(&mut server.id);
    // Only this kind of event is one.
    for other in [EventType::QP_FATAL, EventType::PORT_ERR, EventType(1000)] {
        assert_eq!(refused(server.id.notify(other)), libc::EINVAL, "{other}");
    }
    server.id.notify(EventType::COMM_EST).unwrap();
    expect_event(&mut server.id, CmEventType::ESTABLISHED);
    assert_eq!(refused(server.id.notify(EventType::COMM_EST)), libc::EISCONN);
    // The confirmation itself changes nothing any more.
    client.establish().unwrap();
    assert_no_event(&mut server.id);
    client.disconnect().unwrap();
    expect_event(&mut server.id, CmEventType::DISCONNECTED);
    assert!(server.id.notify(EventType::COMM_EST).is_err());
}

#[test]
fn a_connection_ends_however_often_it_is_ended() {
    let Some(address) = cm_address() else { return };
    let mut listener = listening(Tcp, address);
    let (mut client, mut server) = ends(&mut listener);
    client.id.disconnect().unwrap();
    client.id.disconnect().unwrap();
    let event = expect_event(&mut server.id, CmEventType::DISCONNECTED);
    assert!(event.connection().is_none(), "{event:?}");
    server.id.disconnect().unwrap();
    server.id.disconnect().unwrap();
    expect_event(&mut client.id, CmEventType::DISCONNECTED);
    expect_event(&mut client.id, CmEventType::TIMEWAIT_EXIT);
    client.id.disconnect().unwrap();
    assert_no_event(&mut client.id);
    assert!(client.id.connect(&ConnectionParams::new()).is_err(), "it is used up");
    // Nobody has touched the queue pairs.
    for End { side, .. } in [&mut client, &mut server] {
        let attr = side.qp.query(QueuePairAttrMask::STATE).unwrap();
        assert_eq!(attr.state(), Some(QpState::RTS));
    }
}

#[test]
fn identifiers_of_one_device_share_a_context() {
    let Some(address) = cm_address() else { return };
    let mut listener = listening(Tcp, address);
    let ((client, _prepared), (request, _)) = requested(&mut listener, ConnectionParams::new());
    let contexts = [listener.context(), client.context(), request.context(), client.context()];
    let contexts = contexts.map(Result::unwrap);
    for ctx in &contexts {
        assert_eq!(ctx.as_raw(), contexts[0].as_raw());
        assert_eq!(ctx.device().name(), contexts[0].device().name());
    }
}

#[test]
fn a_context_outlives_its_identifiers_and_not_their_ports() {
    let Some(address) = cm_address() else { return };
    let listener = listening(Tcp, address);
    let (to, ctx) = (place_of(&listener), listener.context().unwrap());
    drop(listener);
    // The port is free.
    let mut again = listening(Tcp, to);
    let _ends = ends(&mut again);
    drop((again, _ends));

    let ctx = match ctx.close() {
        // Another test may have one, of the same device.
        Err(failed) => {
            assert!(matches!(failed.error, Error::InUse { .. }), "{}", failed.error);
            failed.resource
        }
        Ok(()) => listening(Tcp, to).context().unwrap(),
    };
    let bed = Bed::on(ctx);
    let (mut a, mut b) = pair(&bed);
    let mem = bed.mem(16);
    post_recv(&mut b.qp, [RecvRequest::new(1, &[mem.slice(..)])]).unwrap();
    submit(&mut a.qp, |batch| batch.op().signaled().send(2, b"still here")).unwrap();
    wait_ok(&a.send_cq, 1);
    assert_eq!(wait_ok(&b.recv_cq, 1)[0].len, 10);
    assert!(matches!(bed.ctx().clone().close().unwrap_err().error, Error::InUse { .. }));
}

#[test]
fn events_of_the_device_come_to_the_context() {
    let Some(address) = cm_address() else { return };
    let ctx = listening(Tcp, address).context().unwrap();
    let bed = Bed::on(ctx.clone());
    let mut seen = false;
    while !seen {
        let (mut a, _b) = pair(&bed);
        let drained = QueuePairAttr::new().set_state(QpState::SQD).set_sqd_async_notify(true);
        a.qp.modify(&drained).unwrap();
        let event = wait_event(&ctx, EventType::SQ_DRAINED);
        // Others that run at the same time may have the same context.
        seen = event.source() == EventSource::Qp { qp_num: a.qp.qp_num(), context: 0 };
        within_deadline(|| a.qp.close().unwrap());
    }
}
