//! Connections by the connection manager: addresses, contexts, and what goes over a connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ibverbs::rdmacm::{Acceptor, CmId, ConnectionParams, Connector, RejectReason, Tcp};
use ibverbs::{Error, Rc, RecvRequest};
use ibverbs_tests::{
    accept, assert_connected, both, connected, connected_as, dial, listen, listen_on, local_addr,
    local_addrs, local_ipv6, local_link_local, next_request, other_context, post_recv, resolve,
    scope, submit, unconnected, wait_ok, Bed, End, Plan, Prepared, DEADLINE,
};

/// Connects to a listener, from an address if one is given.
#[track_caller]
fn connected_to(
    acceptor: &mut Acceptor<Tcp>,
    to: SocketAddr,
    source: Option<SocketAddr>,
) -> (End, End) {
    let connector = Connector::new(Tcp);
    let connector = source.map_or(connector, |source| connector.set_source(source));
    let (server, client) = both(
        || Plan::plain().accept(next_request(acceptor)),
        || Plan::plain().dial(connector.resolve(to, DEADLINE).unwrap()),
    );
    (client, server)
}

/// Checks that data goes both ways, and that each side knows the other's address.
#[track_caller]
fn assert_between(client: &mut End, server: &mut End, to: SocketAddr) {
    assert_connected(client, server);
    // A request carries no scopes.
    let place = |address: Option<SocketAddr>| address.map(|address| (address.ip(), address.port()));
    assert_eq!(client.connection.peer_addr(), Some(to));
    assert_eq!(place(server.connection.local_addr()), place(Some(to)));
    let from = client.connection.local_addr();
    assert_ne!(from.unwrap().port(), 0);
    assert_eq!(place(server.connection.peer_addr()), place(from));
}

#[test]
fn both_sides_exchange_data_and_private_data() {
    let Some(bed) = Bed::with_cm() else { return };
    let saying = |text: &[u8]| ConnectionParams::new().set_private_data(text);
    let (mut client, mut server) = connected_as(
        &bed,
        Plan::plain().with(saying(b"from the client")),
        Plan::plain().with(saying(b"from the server")),
    );
    assert!(client.connection.peer_private_data().starts_with(b"from the server\0"));
    assert!(server.connection.peer_private_data().starts_with(b"from the client\0"));
    assert_connected(&mut client, &mut server);
}

#[test]
fn a_listener_is_reached_at_each_address_of_its_device() {
    let Some(bed) = Bed::with_cm() else { return };
    for address in local_addrs(&bed) {
        let (mut acceptor, to) = listen_on(Tcp, address);
        assert_eq!(to.ip(), address.ip());
        assert_ne!(to.port(), 0, "port 0 is any that is free");
        let (mut client, mut server) = connected_to(&mut acceptor, to, None);
        assert_between(&mut client, &mut server, to);
    }
    if bed.is_softroce() {
        assert!(local_addr(&bed).is_ipv4());
        assert!(local_ipv6(&bed).is_some());
        assert!(local_link_local(&bed).is_some());
    }
}

#[test]
fn a_link_local_address_takes_its_scope() {
    let Some(bed) = Bed::with_cm() else { return };
    let Some(SocketAddr::V6(address)) = local_link_local(&bed) else { return };
    let (_acceptor, to) = listen_on(Tcp, address.into());
    assert_eq!(scope(&to), address.scope_id());
    let mut nowhere = address;
    nowhere.set_scope_id(0);
    nowhere.set_port(to.port());
    let error = Acceptor::bind(Tcp, nowhere.into()).unwrap_err();
    assert!(matches!(error, Error::BindAddress { .. }), "{error}");
}

#[test]
fn a_wildcard_listener_is_reached_at_each_address_of_its_family() {
    let Some(bed) = Bed::with_cm() else { return };
    let addresses = local_addrs(&bed);
    let (mut v4, to_v4) = listen_on(Tcp, (Ipv4Addr::UNSPECIFIED, 0).into());
    let (mut v6, to_v6) = listen_on(Tcp, (Ipv6Addr::UNSPECIFIED, 0).into());
    for mut to in addresses {
        let acceptor = if to.is_ipv4() { &mut v4 } else { &mut v6 };
        to.set_port(if to.is_ipv4() { to_v4.port() } else { to_v6.port() });
        let (mut client, mut server) = connected_to(acceptor, to, None);
        assert_between(&mut client, &mut server, to);
    }
}

/// A listener on `::`.
fn listen_on_all(port: u16, address_family_only: bool) -> ibverbs::Result<Acceptor<Tcp>> {
    let mut id = CmId::create(Tcp)?;
    id.set_address_family_only(address_family_only)?;
    id.bind_addr((Ipv6Addr::UNSPECIFIED, port).into())?;
    id.listen(8)?;
    Ok(Acceptor::from_id(Tcp, id)?)
}

#[test]
fn a_listener_on_all_of_ipv6_takes_ipv4_too_unless_it_is_told_not_to() {
    let Some(bed) = Bed::with_cm() else { return };
    let mut to = local_addr(&bed);
    if !to.is_ipv4() {
        return;
    }
    let mut both_families = listen_on_all(0, false).unwrap();
    let port = both_families.local_addr().unwrap().port();
    to.set_port(port);
    let (mut client, mut server) = connected_to(&mut both_families, to, None);
    assert_connected(&mut client, &mut server);
    let error = Acceptor::bind(Tcp, (Ipv4Addr::UNSPECIFIED, port).into()).unwrap_err();
    assert!(matches!(error, Error::BindAddress { .. }), "{error}");
    drop(both_families);

    let mut only_v6 = listen_on_all(port, true).unwrap();
    let qp = unconnected::<Rc>(&bed, |builder| builder).qp;
    let refused = resolve(Tcp, to).connect(qp, &ConnectionParams::new(), DEADLINE);
    let Error::Connection(failure) = refused.unwrap_err().error else { panic!() };
    // Somebody listens on that port, but not on that address.
    assert_eq!(failure.reject_reason(), Some(RejectReason::CONSUMER_DEFINED));
    if let Some(mut to_v6) = local_ipv6(&bed) {
        to_v6.set_port(port);
        let (mut client, mut server) = connected_to(&mut only_v6, to_v6, None);
        assert_between(&mut client, &mut server, to_v6);
    }
    // The other family's port is free for another listener.
    let (mut only_v4, _) = listen_on(Tcp, (Ipv4Addr::UNSPECIFIED, port).into());
    let (mut client, mut server) = connected_to(&mut only_v4, to, None);
    assert_between(&mut client, &mut server, to);
}

#[test]
fn a_connection_comes_from_the_source_that_was_asked_for() {
    let Some(bed) = Bed::with_cm() else { return };
    let (mut acceptor, to) = listen(Tcp, &bed);
    let here = local_addr(&bed);
    let (mut client, mut server) = connected_to(&mut acceptor, to, Some(here));
    assert_between(&mut client, &mut server, to);
    assert_eq!(server.connection.peer_addr().unwrap().ip(), here.ip());

    let (free, source) = listen(Tcp, &bed);
    let taken = Connector::new(Tcp).set_source(source).resolve(to, DEADLINE).unwrap_err();
    assert_eq!(taken.os_error(), Some(libc::EADDRINUSE), "{taken}");
    drop(free);
    let (mut client, mut server) = connected_to(&mut acceptor, to, Some(source));
    assert_between(&mut client, &mut server, to);
    assert_eq!(server.connection.peer_addr(), Some(source));
}

#[test]
fn what_is_no_address_of_a_device_is_refused() {
    let Some(bed) = Bed::with_cm() else { return };
    // TEST-NET-3 (RFC 5737): nobody has an address of it.
    let nobodys = SocketAddr::new(IpAddr::from([203, 0, 113, 7]), 0);
    let error = Acceptor::bind(Tcp, nobodys).unwrap_err();
    assert!(matches!(error, Error::BindAddress { address, .. } if address == nobodys), "{error}");
    assert_eq!(error.os_error(), Some(libc::EADDRNOTAVAIL), "{error}");
    let connector = Connector::new(Tcp).set_source(nobodys);
    let error = connector.resolve(local_addr(&bed), DEADLINE).unwrap_err();
    assert_eq!(error.os_error(), Some(libc::EADDRNOTAVAIL), "{error}");
    let nowhere = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 7471);
    let error = Connector::new(Tcp).resolve(nowhere, DEADLINE).unwrap_err();
    assert_eq!(error.os_error(), Some(libc::ENODEV), "{error:?}");
    let (_acceptor, taken) = listen(Tcp, &bed);
    let error = Acceptor::bind(Tcp, taken).unwrap_err();
    assert_eq!(error.os_error(), Some(libc::EADDRINUSE), "{error}");
}

#[test]
fn connections_share_a_protection_domain_and_completion_queues() {
    let Some(bed) = Bed::with_cm() else { return };
    let (mut acceptor, to) = listen(Tcp, &bed);
    let params = ConnectionParams::new();
    let (mut servers, mut clients) = both(
        || {
            let first = next_request(&mut acceptor);
            let bed = Bed::on(first.context().clone());
            let one = accept(first, unconnected(&bed, |builder| builder), &params);
            let second = next_request(&mut acceptor);
            assert_eq!(second.context().as_raw(), bed.ctx().as_raw());
            let other = accept(second, unconnected(&bed, |builder| builder), &params);
            [one, other]
        },
        || {
            let (first, second) = (resolve(Tcp, to), resolve(Tcp, to));
            let bed = Bed::on(first.context().clone());
            // What comes from either context works with what comes from the other.
            let cq = second.context().create_cq(64).build().unwrap();
            let clients = [first, second].map(|resolved| {
                let builder = bed.pd().create_qp::<Rc>(&cq, &cq, resolved.port()).unwrap();
                let qp = builder.set_max_inline_data(8).build().unwrap();
                resolved.connect(qp, &params, DEADLINE).unwrap()
            });
            (clients, cq, bed)
        },
    );
    let (clients, cq, bed) = &mut clients;
    let mem = bed.mem(64);
    for (n, (client, server)) in (0..).zip(clients.iter_mut().zip(&mut servers)) {
        let sink = server.bed.mem(8);
        post_recv(server.qp(), [RecvRequest::new(n, &[sink.slice(..)])]).unwrap();
        mem.write(0, &[n as u8; 8]);
        submit(&mut client.queue_pair, |batch| {
            batch.op().signaled().send(n, &[mem.slice(..8)]);
        })
        .unwrap();
        let sent = wait_ok(cq, 1);
        assert_eq!((sent[0].wr_id, sent[0].qp_num), (n, client.queue_pair.qp_num()));
        assert_eq!(wait_ok(&server.recv_cq, 1)[0].wr_id, n);
        assert_eq!(sink.read(..), [n as u8; 8]);
    }
}

#[test]
fn queue_pairs_of_the_programs_own_context_are_connected_as_well() {
    let Some(bed) = Bed::with_cm() else { return };
    let (mut acceptor, to) = listen(Tcp, &bed);
    let params = ConnectionParams::new();
    let resolved = resolve(Tcp, to);
    assert_ne!(resolved.context().as_raw(), bed.ctx().as_raw());
    let prepared = [(); 2].map(|()| unconnected(&bed, |builder| builder));
    let [for_server, for_client] = prepared;
    let (mut server, mut client) = both(
        || accept(next_request(&mut acceptor), for_server, &params),
        || dial(resolved, for_client, &params),
    );
    assert_between(&mut client, &mut server, to);
}

#[test]
fn a_queue_pair_of_another_device_comes_back() {
    let Some(bed) = Bed::with_cm() else { return };
    let other = Bed::on(other_context(bed.ctx()));
    if other.ctx().device().name() == bed.ctx().device().name() {
        return;
    }
    let (mut acceptor, to) = listen(Tcp, &bed);
    let params = ConnectionParams::new();
    let foreign = || unconnected::<Rc>(&other, |builder| builder);
    let (refused, failed) = both(
        || next_request(&mut acceptor).accept(foreign().qp, &params, DEADLINE).unwrap_err(),
        || {
            // It was not sent, so that the listener sees the second one only.
            let prepared = foreign();
            let failed = resolve(Tcp, to).connect(prepared.qp, &params, DEADLINE).unwrap_err();
            assert!(matches!(failed.error, Error::DeviceMismatch { what: "queue pair" }));
            let qp = unconnected::<Rc>(&bed, |builder| builder).qp;
            (failed, resolve(Tcp, to).connect(qp, &params, DEADLINE).unwrap_err())
        },
    );
    assert!(matches!(refused.error, Error::DeviceMismatch { what: "queue pair" }));
    let (mine, rejected) = failed;
    let Error::Connection(failure) = rejected.error else { panic!("{:?}", rejected.error) };
    assert_eq!(failure.reject_reason(), Some(RejectReason::CONSUMER_DEFINED));
    // Both can still be connected, on their own device.
    let endpoint = mine.resource.endpoint().unwrap();
    let connected = refused.resource.handshake(endpoint).unwrap();
    connected.close().unwrap();
}

#[test]
fn receives_that_were_posted_before_take_the_first_messages() {
    let Some(bed) = Bed::with_cm() else { return };
    let (mut acceptor, to) = listen(Tcp, &bed);
    let params = ConnectionParams::new();
    // Without retries, a message that finds no receive fails.
    let early = |bed: Bed| {
        let prepared =
            unconnected::<Rc>(&bed, |builder| builder.set_rnr_retry(0).set_max_inline_data(8));
        let Prepared { qp, send_cq, recv_cq, bed } = prepared;
        let mut qp = qp.init().unwrap();
        let mem = bed.mem(32);
        let slices = [0, 8, 16].map(|at| mem.slice(at..at + 8));
        post_recv(&mut qp, [0, 1, 2].map(|n| RecvRequest::new(n, &slices[n as usize..][..1])))
            .unwrap();
        (qp, send_cq, recv_cq, bed, mem)
    };
    let send = |end: &mut End, text: &[u8; 8]| {
        submit(end.qp(), |batch| {
            for n in 0..3 {
                batch.op().signaled().send(n, text);
            }
        })
        .unwrap();
    };
    let ((server, to_server), (client, to_client)) = both(
        || {
            let incoming = next_request(&mut acceptor);
            let (qp, send_cq, recv_cq, bed, mem) = early(Bed::on(incoming.context().clone()));
            let connection = incoming.accept(qp, &params, DEADLINE).unwrap();
            let mut end = End { connection, send_cq, recv_cq, bed };
            send(&mut end, b"accepted");
            (end, mem)
        },
        || {
            let resolved = resolve(Tcp, to);
            let (qp, send_cq, recv_cq, bed, mem) = early(Bed::on(resolved.context().clone()));
            let connection = resolved.connect(qp, &params, DEADLINE).unwrap();
            let mut end = End { connection, send_cq, recv_cq, bed };
            send(&mut end, b"dialled!");
            (end, mem)
        },
    );
    for (end, mem, text) in [(&server, &to_server, "dialled!"), (&client, &to_client, "accepted")] {
        wait_ok(&end.send_cq, 3);
        let ids: Vec<u64> = wait_ok(&end.recv_cq, 3).iter().map(|wc| wc.wr_id).collect();
        assert_eq!(ids, [0, 1, 2]);
        assert_eq!(mem.read(..24), text.repeat(3).into_bytes());
    }
}

#[test]
fn a_context_outlives_what_it_came_from() {
    let Some(bed) = Bed::with_cm() else { return };
    let (client, server) = connected(&bed);
    let ctx = client.bed.ctx().clone();
    let (acceptor, address) = listen(Tcp, &bed);
    drop((client, server, acceptor));
    let others = Bed::on(ctx);
    others.mem(64);
    // A listener gives its port free, whoever still has a context.
    let acceptor = Acceptor::bind(Tcp, address).unwrap();
    drop(acceptor);
    let (mut client, mut server) = connected(&others);
    assert_connected(&mut client, &mut server);
}
