//! Identifiers of the connection manager: each step, in order and out of it.

use std::time::Instant;

use ibverbs::rdmacm::{CmEventType, CmId, ConnectionParams, RejectReason, Tcp, Udp};
use ibverbs::{AccessFlags, Error, EventType, QpState, QueuePairAttrMask, Rc, RecvRequest, Ud};
use ibverbs_tests::ids::{
    accepted, assert_no_event, cm_address, ends, established, expect_event, listening, next_event,
    place_of, prepare_for, refused, requested, resolve, resolved, End,
};
use ibverbs_tests::{
    is_soft, other_context, pattern, post_recv, prepare, submit, wait_ok, wait_one, Bed, Prepared,
    Side, DEADLINE, GRH,
};

#[track_caller]
fn assert_not_bound<R: std::fmt::Debug>(what: &str, result: ibverbs::Result<R>) {
    let error = result.expect_err(what);
    assert!(matches!(error, Error::NotBound), "{what}: {error}");
}

/// Sends a message from one end to the other.
#[track_caller]
fn assert_sends(from: &mut Side, to: &mut Side) {
    let text = pattern(48, u64::from(from.qp.qp_num()));
    let mem = to.bed.mem(64);
    post_recv(&mut to.qp, [RecvRequest::new(1, &[mem.slice(..)])]).unwrap();
    submit(&mut from.qp, |batch| batch.op().signaled().send(2, text.as_slice())).unwrap();
    assert_eq!(wait_ok(&to.recv_cq, 1)[0].len, 48);
    wait_ok(&from.send_cq, 1);
    assert_eq!(mem.read(..48), text);
}

#[test]
fn a_connection_goes_through_all_steps() {
    let Some(address) = cm_address() else { return };
    let mut listener = CmId::create(Tcp).unwrap();
    assert_eq!((listener.local_addr(), listener.peer_addr(), listener.port()), (None, None, None));
    listener.set_context(1);
    listener.bind_addr(address).unwrap();
    let to = place_of(&listener);
    assert_eq!((to.ip(), listener.peer_addr()), (address.ip(), None));
    assert_ne!(to.port(), 0);
    listener.listen(8).unwrap();

    let mut client = CmId::create(Tcp).unwrap();
    client.set_context(u64::MAX);
    assert_eq!(client.context_value(), u64::MAX);
    client.resolve_addr(None, to, DEADLINE).unwrap();
    let event = expect_event(&mut client, CmEventType::ADDR_RESOLVED);
    assert_eq!((event.context(), event.private_data()), (u64::MAX, &[][..]));
    assert!(event.connection().is_none() && event.datagram().is_none(), "{event:?}");
    assert_eq!(client.local_addr().map(|local| local.ip()), Some(address.ip()));
    assert_eq!(client.peer_addr(), Some(to));
    client.resolve_route(DEADLINE).unwrap();
    expect_event(&mut client, CmEventType::ROUTE_RESOLVED);

    let of_client = prepare_for::<Rc>(&client);
    let params = ConnectionParams::new()
        .set_private_data(*b"from the client")
        .set_responder_resources(3)
        .set_initiator_depth(2)
        .set_retry_count(5)
        .set_rnr_retry_count(4);
    client.connect(&params.for_queue_pair(&of_client.qp)).unwrap();
    let mut event = expect_event(&mut listener, CmEventType::CONNECT_REQUEST);
    assert_eq!(event.context(), 1, "the listener's");
    assert!(event.private_data().starts_with(b"from the client\0"));
    let peer = event.connection().expect("parameters");
    // Seen from here: what the peer answers is what this side can begin.
    assert_eq!((peer.responder_resources, peer.initiator_depth), (2, 3));
    assert_eq!((peer.retry_count, peer.rnr_retry_count), (5, 4));
    assert_eq!((peer.qp_num, peer.srq, peer.flow_control), (of_client.qp.qp_num(), false, false));
    let mut server = event.take_request().expect("an identifier");
    assert!(event.take_request().is_none(), "there is one identifier");
    assert_eq!(server.context_value(), 1, "it begins with the listener's");
    assert_eq!(server.local_addr(), Some(to));
    assert_eq!(server.peer_addr(), client.local_addr());
    server.set_context(2);

    let of_server = prepare_for::<Rc>(&server);
    let Prepared { qp, send_cq, recv_cq, bed } = of_server;
    let qp = server.bring_up(qp).unwrap();
    let params = ConnectionParams::new().set_private_data(*b"from the server");
    server.accept(&params.for_queue_pair(&qp)).unwrap();
    let mut of_server = Side { qp, send_cq, recv_cq, bed };
    let event = expect_event(&mut client, CmEventType::CONNECT_RESPONSE);
    assert!(event.private_data().starts_with(b"from the server\0"));
    assert_eq!(event.connection().expect("parameters").qp_num, of_server.qp.qp_num());
    assert_no_event(&mut server);
    let End { id: mut client, side: mut of_client } = established(client, of_client);
    let event = expect_event(&mut server, CmEventType::ESTABLISHED);
    assert_eq!(event.context(), 2);
    assert_no_event(&mut client);

    assert_sends(&mut of_client, &mut of_server);
    assert_sends(&mut of_server, &mut of_client);

    client.disconnect().unwrap();
    expect_event(&mut server, CmEventType::DISCONNECTED);
    server.disconnect().unwrap();
    expect_event(&mut client, CmEventType::DISCONNECTED);
    // The side that began it waits for what may still be on its way.
    expect_event(&mut client, CmEventType::TIMEWAIT_EXIT);
    listener.close().unwrap();
    client.close().unwrap();
    server.close().unwrap();
}

#[test]
fn queue_pairs_go_from_state_to_state() {
    let Some(address) = cm_address() else { return };
    let mut listener = listening(Tcp, address);
    let ((mut client, of_client), (mut server, _)) =
        requested(&mut listener, ConnectionParams::new());
    let Prepared { qp, send_cq, recv_cq, bed } = prepare_for::<Rc>(&server);
    let mem = bed.mem(64);
    let mut qp = server.init(qp).unwrap();
    // The receive is there before the peer can send.
    post_recv(&mut qp, [RecvRequest::new(1, &[mem.slice(..)])]).unwrap();
    let mut qp = server.ready_to_receive(qp).unwrap();
    post_recv(&mut qp, [RecvRequest::new(2, &[mem.slice(32..)])]).unwrap();
    let qp = server.ready_to_send(qp).unwrap();
    server.accept(&ConnectionParams::new().for_queue_pair(&qp)).unwrap();
    let mut of_server = Side { qp, send_cq, recv_cq, bed };

    expect_event(&mut client, CmEventType::CONNECT_RESPONSE);
    let Prepared { qp, send_cq, recv_cq, bed } = of_client;
    let qp = client.init(qp).unwrap();
    let qp = client.ready_to_receive(qp).unwrap();
    let qp = client.ready_to_send(qp).unwrap();
    let mut of_client = Side { qp, send_cq, recv_cq, bed };
    client.establish().unwrap();
    submit(&mut of_client.qp, |batch| {
        batch.op().signaled().send(3, b"one");
        batch.op().signaled().send(4, b"two");
    })
    .unwrap();
    assert_eq!(wait_ok(&of_server.recv_cq, 2)[1].wr_id, 2);
    assert_eq!((mem.read(..3), mem.read(32..35)), (b"one".to_vec(), b"two".to_vec()));
    wait_ok(&of_client.send_cq, 2);
    expect_event(&mut server, CmEventType::ESTABLISHED);
    assert_sends(&mut of_server, &mut of_client);
}

#[test]
fn what_the_builder_was_told_holds_in_a_connection() {
    let Some(address) = cm_address() else { return };
    let mut listener = listening(Tcp, address);
    let mut client = resolved(Tcp, place_of(&listener));
    let bed = Bed::on(client.context().unwrap());
    let Prepared { qp, send_cq, recv_cq, bed } = prepare::<Rc>(&bed, |builder| {
        builder
            .set_access(AccessFlags::REMOTE_READ)
            .set_max_rd_atomic(5)
            .set_max_dest_rd_atomic(6)
            .set_retry_count(3)
            .set_rnr_retry(2)
    });
    client.connect(&ConnectionParams::new().for_queue_pair(&qp)).unwrap();
    let mut event = expect_event(&mut listener, CmEventType::CONNECT_REQUEST);
    let peer = event.connection().unwrap();
    assert_eq!((peer.responder_resources, peer.initiator_depth), (5, 6));
    assert_eq!((peer.retry_count, peer.rnr_retry_count), (3, 2));
    let mut server = event.take_request().unwrap();
    let built = prepare_for::<Rc>(&server);
    let of_server = server.bring_up(built.qp).unwrap();
    // The server answers less, and asks for less.
    let params = ConnectionParams::new().set_initiator_depth(1).set_responder_resources(2);
    server.accept(&params.for_queue_pair(&of_server)).unwrap();
    expect_event(&mut client, CmEventType::CONNECT_RESPONSE);
    let prepared = Prepared { qp, send_cq, recv_cq, bed };
    let mut end = established(client, prepared);
    let mask = QueuePairAttrMask::ACCESS_FLAGS
        | QueuePairAttrMask::MAX_RD_ATOMIC
        | QueuePairAttrMask::MAX_DEST_RD_ATOMIC
        | QueuePairAttrMask::RETRY_CNT
        | QueuePairAttrMask::RNR_RETRY
        | QueuePairAttrMask::DEST_QPN;
    let attr = end.side.qp.query(mask).unwrap();
    assert_eq!(attr.access(), Some(AccessFlags::REMOTE_READ));
    assert_eq!((attr.max_rd_atomic(), attr.max_dest_rd_atomic()), (Some(2), Some(1)));
    assert_eq!((attr.retry_count(), attr.rnr_retry()), (Some(3), Some(2)));
    assert_eq!(attr.dest_qp_num(), Some(of_server.qp_num()));
}

#[test]
fn a_program_may_modify_its_queue_pairs_itself() {
    let Some(address) = cm_address() else { return };
    let mut listener = listening(Tcp, address);
    let ((mut client, of_client), (server, _)) = requested(&mut listener, ConnectionParams::new());
    let mut server = accepted(server);
    expect_event(&mut client, CmEventType::CONNECT_RESPONSE);
    let Prepared { qp, send_cq, .. } = of_client;
    let mut qp = qp.into_manual();
    let init = client.qp_attr(QpState::INIT).unwrap();
    assert_eq!(init.state(), Some(QpState::INIT));
    assert_eq!(init.port(), client.port());
    qp.modify(&init).unwrap();
    let rtr = client.qp_attr(QpState::RTR).unwrap();
    assert_eq!(rtr.dest_qp_num(), Some(server.side.qp.qp_num()));
    assert!(rtr.address().is_some_and(|address| address.grh.is_some()), "{rtr:?}");
    qp.modify(&rtr).unwrap();
    qp.modify(&client.qp_attr(QpState::RTS).unwrap()).unwrap();
    client.establish().unwrap();
    let mem = server.side.bed.mem(8);
    post_recv(&mut server.side.qp, [RecvRequest::new(1, &[mem.slice(..)])]).unwrap();
    submit(&mut qp, |batch| batch.op().signaled().send(2, b"by hand")).unwrap();
    wait_one(&send_cq, 2).ok.unwrap();
    assert_eq!(wait_one(&server.side.recv_cq, 1).len, 7);
    assert_eq!(mem.read(..7), b"by hand");
}

#[test]
fn datagrams_find_their_peer() {
    let Some(address) = cm_address() else { return };
    let mut listener = listening(Udp, address);
    let mut client = resolved(Udp, place_of(&listener));
    client.connect(&ConnectionParams::new().set_private_data(*b"who is there")).unwrap();
    let mut event = expect_event(&mut listener, CmEventType::CONNECT_REQUEST);
    assert!(event.private_data().starts_with(b"who is there\0"));
    assert!(event.connection().is_none() && event.datagram().is_none(), "{event:?}");
    let mut server = event.take_request().unwrap();

    let Prepared { qp, recv_cq, bed, .. } = prepare_for::<Ud>(&server);
    let mut qp = server.activate(qp).unwrap();
    let mem = bed.mem(128);
    post_recv(&mut qp, [RecvRequest::new(1, &[mem.slice(..)])]).unwrap();
    let answer = ConnectionParams::new().set_private_data(*b"it is me");
    server.accept(&answer.set_qp_num(qp.qp_num())).unwrap();
    let event = expect_event(&mut client, CmEventType::ESTABLISHED);
    assert!(event.private_data().starts_with(b"it is me\0"));
    let peer = event.datagram().expect("a queue pair");
    assert_eq!(peer.qp_num, qp.qp_num());
    assert!(event.connection().is_none(), "{event:?}");

    let prepared = prepare_for::<Ud>(&client);
    let mut from = client.activate(prepared.qp).unwrap();
    let ah = peer.create_ah(prepared.bed.pd()).unwrap();
    submit(&mut from, |batch| batch.to(&ah, peer.qp_num, peer.qkey).signaled().send(2, b"hello"))
        .unwrap();
    wait_one(&prepared.send_cq, 2).ok.unwrap();
    let received = wait_one(&recv_cq, 1);
    assert_eq!((received.len as usize, received.sender.src_qp), (GRH + 5, from.qp_num()));
    assert_eq!(mem.read(GRH..GRH + 5), b"hello");
    assert_no_event(&mut server);
    drop((client, server));
    assert_no_event(&mut listener);
}

#[test]
fn a_request_for_datagrams_is_refused() {
    let Some(address) = cm_address() else { return };
    let mut listener = listening(Udp, address);
    let mut client = resolved(Udp, place_of(&listener));
    client.connect(&ConnectionParams::new()).unwrap();
    let mut event = expect_event(&mut listener, CmEventType::CONNECT_REQUEST);
    let mut request = event.take_request().unwrap();
    request.reject(b"not today").unwrap();
    let event = next_event(&mut client);
    assert_eq!(event.event_type(), CmEventType::UNREACHABLE, "{event}");
    assert!(event.datagram_refusal().is_some(), "{event:?}");
    assert!(event.datagram().is_none(), "{event:?}");
}

#[test]
fn an_identifier_without_a_device_refuses_what_needs_one() {
    fn check(mut id: CmId, what: &str) {
        let params = ConnectionParams::new();
        assert_not_bound(what, id.resolve_route(DEADLINE));
        assert_not_bound(what, id.connect(&params));
        assert_not_bound(what, id.accept(&params));
        assert_not_bound(what, id.reject(b""));
        assert_not_bound(what, id.reject_ece(b""));
        assert_not_bound(what, id.disconnect());
        assert_not_bound(what, id.context());
        assert_not_bound(what, id.qp_attr(QpState::INIT));
        let group = "239.7.1.1:0".parse().unwrap();
        assert_not_bound(what, id.join_multicast(group, Default::default()));
        assert_eq!(id.port(), None, "{what}");
        // These need none to be refused.
        assert!(id.establish().is_err(), "{what}");
        assert!(id.notify(EventType::COMM_EST).is_err(), "{what}");
        assert!(matches!(id.leave_multicast(group), Err(Error::NotJoined { .. })), "{what}");
        id.close().unwrap();
    }
    let Some(bed) = Bed::with_cm() else { return };
    for what in ["fresh", "bound to the wildcard", "listening there", "listening unbound"] {
        for datagram in [false, true] {
            let id = if datagram { CmId::create(Udp) } else { CmId::create(Tcp) };
            let mut id = id.unwrap();
            if what == "bound to the wildcard" || what == "listening there" {
                id.bind_addr("[::]:0".parse().unwrap()).unwrap();
            }
            if what.starts_with("listening") {
                id.listen(1).unwrap();
                assert_ne!(place_of(&id).port(), 0, "{what}");
            }
            assert_eq!(id.peer_addr(), None, "{what}");
            check(id, what);
        }
    }
    // The queue pairs come back, and can be used.
    let mut id = CmId::create(Tcp).unwrap();
    let failed = id.bring_up(prepare::<Rc>(&bed, |builder| builder).qp).unwrap_err();
    assert!(matches!(failed.error, Error::NotBound), "{}", failed.error);
    let qp = id.init(failed.resource).unwrap_err().resource.init().unwrap();
    let qp = id.ready_to_receive(qp).unwrap_err().resource;
    let endpoint = qp.endpoint().unwrap();
    qp.handshake(endpoint).unwrap().close().unwrap();
}

#[test]
fn steps_out_of_order_are_refused() {
    let Some(address) = cm_address() else { return };
    let listener = listening(Tcp, address);
    let to = place_of(&listener);
    let params = ConnectionParams::new();

    let mut id = CmId::create(Tcp).unwrap();
    id.bind_addr(address).unwrap();
    assert_eq!(refused(id.bind_addr(address)), libc::EINVAL, "bound twice");
    id.resolve_route(DEADLINE).map_or_else(drop, |()| panic!("there is no peer"));
    id.resolve_addr(None, to, DEADLINE).unwrap();
    expect_event(&mut id, CmEventType::ADDR_RESOLVED);
    assert_eq!(refused(id.resolve_addr(None, to, DEADLINE)), libc::EINVAL, "resolved twice");
    assert_eq!(refused(id.bind_addr(address)), libc::EINVAL, "bound when resolved");
    assert_eq!(refused(id.listen(1)), libc::EINVAL, "listens when resolved");
    assert_eq!(refused(id.connect(&params)), libc::EINVAL, "connects without a route");
    assert_eq!(refused(id.disconnect()), libc::EINVAL, "disconnects");
    id.resolve_route(DEADLINE).unwrap();
    expect_event(&mut id, CmEventType::ROUTE_RESOLVED);
    assert_eq!(refused(id.resolve_route(DEADLINE)), libc::EINVAL, "route resolved twice");
    assert_eq!(refused(id.accept(&params)), libc::EINVAL, "a client accepts");
    assert_eq!(refused(id.reject(b"")), libc::EINVAL, "a client rejects");
    assert_eq!(refused(id.establish()), libc::EINVAL, "established too early");
    assert_eq!(refused(id.notify(EventType::COMM_EST)), libc::EINVAL, "notified too early");
    assert_eq!(refused(id.disconnect()), libc::EINVAL, "disconnects");
    assert_no_event(&mut id);
    id.close().unwrap();

    let mut listener = listener;
    assert_eq!(refused(listener.connect(&params)), libc::EINVAL, "a listener connects");
    assert_eq!(refused(listener.accept(&params)), libc::EINVAL, "a listener accepts");
    assert_eq!(refused(listener.reject(b"")), libc::EINVAL, "a listener rejects");
    assert_eq!(refused(listener.resolve_addr(None, to, DEADLINE)), libc::EINVAL);
    // And works all the same.
    let (_client, _server) = ends(&mut listener);
}

#[test]
fn a_peer_that_no_device_leads_to_has_no_route() {
    let Some(address) = cm_address() else { return };
    // Addresses of loopback may be those of software devices, which know at once whether they lead somewhere.
    let loopbacks: &[&str] = match is_soft() {
        true => &[],
        false => &["127.0.0.1:7471", "[::1]:7471"],
    };
    for loopback in loopbacks {
        let mut id = CmId::create(Tcp).unwrap();
        id.resolve_addr(None, loopback.parse().unwrap(), DEADLINE).unwrap();
        expect_event(&mut id, CmEventType::ADDR_RESOLVED);
        assert_eq!(refused(id.resolve_route(DEADLINE)), libc::ENODEV);
        assert_eq!(refused(id.connect(&ConnectionParams::new())), libc::EINVAL);
        assert_eq!(refused(id.resolve_addr(None, address, DEADLINE)), libc::EINVAL, "another try");
        assert_no_event(&mut id);
    }
    if is_soft() {
        let mut id = CmId::create(Tcp).unwrap();
        id.resolve_addr(None, "[::1]:7471".parse().unwrap(), DEADLINE).unwrap();
        let event = next_event(&mut id);
        let told = (event.event_type(), event.status());
        assert_eq!(told, (CmEventType::ADDR_ERROR, -libc::ENODEV));
        assert!(matches!(id.connect(&ConnectionParams::new()), Err(Error::NotBound)));
        assert_no_event(&mut id);
    }
    // Refused before it begins: the identifier is as it was.
    let mut id = CmId::create(Tcp).unwrap();
    let elsewhere = "192.0.2.1:0".parse().unwrap();
    assert!(id.resolve_addr(Some(elsewhere), address, DEADLINE).is_err());
    resolve(&mut id, address);
    let mut id = CmId::create(Tcp).unwrap();
    let other_family = "[::1]:0".parse().unwrap();
    assert!(id.resolve_addr(Some(other_family), address, DEADLINE).is_err());
    assert_no_event(&mut id);
}

#[test]
fn nobody_listens() {
    let Some(address) = cm_address() else { return };
    let to = place_of(&listening(Tcp, address));
    // That listener is gone again.
    let mut client = resolved(Tcp, to);
    let prepared = prepare_for::<Rc>(&client);
    client.connect(&ConnectionParams::new().for_queue_pair(&prepared.qp)).unwrap();
    let event = next_event(&mut client);
    assert_eq!(event.event_type(), CmEventType::REJECTED);
    assert_eq!(event.reject_reason(), Some(RejectReason::INVALID_SERVICE_ID));
    // It is over for the identifier, but not for the queue pair.
    let error = client.bring_up(prepared.qp).unwrap_err();
    assert!(client.establish().is_err());
    let endpoint = error.resource.endpoint().unwrap();
    error.resource.handshake(endpoint).unwrap().close().unwrap();
}

#[test]
fn a_request_is_rejected_once() {
    let Some(address) = cm_address() else { return };
    let mut listener = listening(Tcp, address);
    for ece in [false, true] {
        let ((mut client, _prepared), (mut request, _)) =
            requested(&mut listener, ConnectionParams::new());
        let too_much = request.reject(&[0; 149]).unwrap_err();
        assert!(
            matches!(too_much, Error::PrivateDataTooLong { bytes: 149, available: 148, .. }),
            "{too_much}"
        );
        let rejected = if ece { request.reject_ece(b"why") } else { request.reject(b"why") };
        rejected.unwrap();
        let event = next_event(&mut client);
        assert_eq!(event.event_type(), CmEventType::REJECTED, "{event}");
        let reason = match ece {
            false => RejectReason::CONSUMER_DEFINED,
            true => RejectReason::VENDOR_OPTION_NOT_SUPPORTED,
        };
        assert_eq!(event.reject_reason(), Some(reason));
        assert!(event.private_data().starts_with(b"why\0"), "{event:?}");
        assert!(request.reject(b"again").is_err());
        assert!(request.accept(&ConnectionParams::new()).is_err());
        drop(request);
        assert_no_event(&mut client);
    }
}

#[test]
fn what_comes_too_late_is_refused() {
    let Some(address) = cm_address() else { return };
    let mut listener = listening(Tcp, address);
    let params = ConnectionParams::new();
    let ((mut client, prepared), (request, _)) = requested(&mut listener, params.clone());
    assert!(client.connect(&params).is_err(), "connected twice");
    let mut server = accepted(request);
    expect_event(&mut client, CmEventType::CONNECT_RESPONSE);
    assert!(client.connect(&params).is_err(), "connected three times");
    let mut client = established(client, prepared);
    expect_event(&mut server.id, CmEventType::ESTABLISHED);
    let again = params.clone().for_queue_pair(&server.side.qp);
    assert!(server.id.accept(&again).is_err(), "accepted twice");
    assert!(client.id.establish().is_err(), "established twice");
    assert!(server.id.establish().is_err(), "a server establishes");
    assert!(server.id.reject(b"").is_err(), "rejected when connected");
    assert!(client.id.connect(&params).is_err(), "connected when connected");
    assert!(client.id.resolve_route(DEADLINE).is_err(), "resolved when connected");
    assert_no_event(&mut client.id);
    assert_no_event(&mut server.id);
    // It stands all the same.
    assert_sends(&mut client.side, &mut server.side);
    assert_sends(&mut server.side, &mut client.side);
}

/// The kernel would reject the connection, and destroying the identifier would take more than a minute.
#[test]
fn an_answer_where_there_is_nothing_to_answer_does_no_harm() {
    let Some(address) = cm_address() else { return };
    let mut listener = listening(Tcp, address);
    let params = ConnectionParams::new();
    let ((mut client, prepared), (request, _)) = requested(&mut listener, params.clone());
    let no_answer = |id: &mut CmId, params: &ConnectionParams| {
        assert_eq!(refused(id.establish()), libc::EINVAL);
        assert_eq!(refused(id.accept(params)), libc::EINVAL);
        assert_eq!(refused(id.reject(b"")), libc::EINVAL);
        assert_eq!(refused(id.reject_ece(b"")), libc::EINVAL);
    };
    no_answer(&mut client, &params);
    let mut server = accepted(request);
    let again = params.for_queue_pair(&server.side.qp);
    no_answer(&mut server.id, &again);
    expect_event(&mut client, CmEventType::CONNECT_RESPONSE);
    no_answer(&mut server.id, &again);
    let mut client = established(client, prepared);
    expect_event(&mut server.id, CmEventType::ESTABLISHED);
    no_answer(&mut server.id, &again);
    assert_sends(&mut client.side, &mut server.side);

    // Neither does ending it in the middle.
    let start = Instant::now();
    let ((client, _prepared), (mut request, _)) = requested(&mut listener, ConnectionParams::new());
    drop(client);
    let _ = request.reject(b"");
    drop(request);
    let ((client, _prepared), (request, _)) = requested(&mut listener, ConnectionParams::new());
    let mut server = accepted(request);
    server.id.disconnect().unwrap();
    drop((server, client));
    assert!(start.elapsed() < DEADLINE, "it took {:?}", start.elapsed());
}

#[test]
fn a_client_rejects_a_response() {
    let Some(address) = cm_address() else { return };
    let mut listener = listening(Tcp, address);
    let ((mut client, _prepared), (request, _)) = requested(&mut listener, ConnectionParams::new());
    let mut server = accepted(request);
    expect_event(&mut client, CmEventType::CONNECT_RESPONSE);
    client.reject(b"not like this").unwrap();
    let event = next_event(&mut server.id);
    assert_eq!(event.event_type(), CmEventType::REJECTED, "{event}");
    assert!(event.private_data().starts_with(b"not like this\0"));
    assert_eq!(refused(client.establish()), libc::EINVAL);
}

#[test]
fn a_queue_pair_comes_back_when_the_connection_has_not_got_that_far() {
    let Some(address) = cm_address() else { return };
    let mut listener = listening(Tcp, address);
    let ((mut client, of_client), (request, _)) = requested(&mut listener, ConnectionParams::new());
    let Prepared { qp, send_cq, recv_cq, bed } = of_client;
    let failed = client.bring_up(qp).unwrap_err();
    assert!(failed.error.os_error().is_some(), "{}", failed.error);
    // One in state `Init` comes back in it.
    let qp = client.init(failed.resource).unwrap();
    let qp = client.ready_to_receive(qp).unwrap_err().resource;
    let mut qp = client.bring_up(qp).unwrap_err().resource;
    let mem = bed.mem(8);
    post_recv(&mut qp, [RecvRequest::new(1, &[mem.slice(..)])]).unwrap();
    let mut server = accepted(request);
    expect_event(&mut client, CmEventType::CONNECT_RESPONSE);
    let qp = client.bring_up(qp).unwrap();
    client.establish().unwrap();
    submit(&mut server.side.qp, |batch| batch.op().signaled().send(2, b"early")).unwrap();
    assert_eq!(wait_one(&recv_cq, 1).len, 5);
    wait_ok(&server.side.send_cq, 1);
    drop((qp, send_cq));
}

#[test]
fn a_queue_pair_must_be_of_the_device_and_the_port_space() {
    let Some(bed) = Bed::with_cm() else { return };
    let mut listener = listening(Tcp, cm_address().unwrap());
    let mut of_datagrams = resolved(Udp, place_of(&listener));
    let ((mut client, of_client), (mut request, _)) =
        requested(&mut listener, ConnectionParams::new());

    let failed = of_datagrams.bring_up(of_client.qp).unwrap_err();
    assert!(
        matches!(
            failed.error,
            Error::PortSpaceMismatch { port_space: "UDP", expected: "one of connections" }
        ),
        "{}",
        failed.error
    );
    let datagrams = prepare_for::<Ud>(&request);
    let error = request.activate(datagrams.qp).unwrap_err();
    assert!(
        matches!(
            error.error,
            Error::PortSpaceMismatch { port_space: "TCP", expected: "one of datagrams" }
        ),
        "{}",
        error.error
    );
    of_datagrams.activate(error.resource).unwrap().close().unwrap();

    let other = other_context(bed.ctx());
    if other.device().name() != bed.ctx().device().name() {
        let elsewhere = prepare::<Rc>(&Bed::on(other), |builder| builder);
        let failed = request.bring_up(elsewhere.qp).unwrap_err();
        assert!(matches!(failed.error, Error::DeviceMismatch { .. }), "{}", failed.error);
        let endpoint = failed.resource.endpoint().unwrap();
        failed.resource.handshake(endpoint).unwrap().close().unwrap();
    }

    // Another context of the same device will do.
    let Prepared { qp, send_cq, recv_cq, bed } =
        prepare::<Rc>(&bed, |builder| builder.set_max_inline_data(64));
    let qp = request.bring_up(qp).unwrap();
    request.accept(&ConnectionParams::new().for_queue_pair(&qp)).unwrap();
    let mut of_server = Side { qp, send_cq, recv_cq, bed };
    expect_event(&mut client, CmEventType::CONNECT_RESPONSE);
    let Prepared { send_cq, recv_cq, bed, .. } = of_client;
    let prepared = Prepared { qp: failed.resource, send_cq, recv_cq, bed };
    let mut client = established(client, prepared);
    assert_sends(&mut client.side, &mut of_server);
    assert_sends(&mut of_server, &mut client.side);
}
