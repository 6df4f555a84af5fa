//! What a connected queue pair is granted: access rights, depths, timers and counts of retries.

use std::time::Duration;

use ibverbs::rdmacm::{ConnectionParams, Connector, PeerParams, Tcp};
use ibverbs::{
    AccessFlags, AckTimeout, Error, Mtu, QpState, QueuePairAttr, QueuePairAttrMask,
    QueuePairBuilder, Rc, RecvRequest, RnrTimer, WcStatus,
};
use ibverbs_tests::{
    accept, assert_connected, both, connected_as, dial, listen, next_request, post_recv,
    prepare_on, resolve, submit, unconnected, wait_ok, wait_one, Bed, End, Plan, Prepared,
    DEADLINE,
};

fn query(end: &mut End) -> QueuePairAttr {
    end.qp().query(QueuePairAttrMask::all()).unwrap()
}

/// How many reads and atomics may be under way: from a side, and towards it.
type Depths = (u8, u8);

fn depths(end: &mut End) -> Depths {
    let attr = query(end);
    (attr.max_rd_atomic().unwrap(), attr.max_dest_rd_atomic().unwrap())
}

/// What a side is built for, and what it asks for if that is something else.
#[derive(Clone, Copy)]
struct Wish {
    built: Depths,
    asked: Option<Depths>,
}

impl Wish {
    const fn built(from_here: u8, towards_here: u8) -> Wish {
        Wish { built: (from_here, towards_here), asked: None }
    }

    const fn asking(self, from_here: u8, towards_here: u8) -> Wish {
        Wish { asked: Some((from_here, towards_here)), ..self }
    }

    fn build<'b>(self, builder: QueuePairBuilder<'b, Rc>) -> QueuePairBuilder<'b, Rc> {
        builder.set_max_rd_atomic(self.built.0).set_max_dest_rd_atomic(self.built.1)
    }

    fn params(self) -> ConnectionParams {
        let params = ConnectionParams::new();
        match self.asked {
            Some((from, towards)) => {
                params.set_initiator_depth(from).set_responder_resources(towards)
            }
            None => params,
        }
    }
}

#[test]
fn depths_are_the_least_that_both_sides_can_do() {
    let Some(bed) = Bed::with_cm() else { return };
    let default = Wish::built(16, 16);
    // The powers of two are those that SoftRoCE does not round.
    for (client, server, granted) in [
        (default, default, (16, 16)),
        (Wish::built(4, 8), default, (4, 8)),
        (default, Wish::built(4, 8), (8, 4)),
        (Wish::built(2, 16), Wish::built(8, 4), (2, 8)),
        (Wish::built(8, 1), Wish::built(1, 8), (8, 1)),
        // A client that asks for more than the server offers.
        (Wish::built(16, 2), Wish::built(1, 1), (1, 1)),
        // Parameters below what was built for.
        (default.asking(4, 2), default, (4, 2)),
        (default, default.asking(4, 2), (2, 4)),
        (default.asking(8, 2), default.asking(1, 4), (4, 1)),
        // Parameters beyond what was built for.
        (Wish::built(4, 2).asking(16, 16), default, (4, 2)),
        (default, Wish::built(4, 2).asking(255, 255), (2, 4)),
        // Nothing in one direction.
        (Wish::built(0, 4), default, (0, 4)),
        (default, default.asking(0, 4), (4, 0)),
    ] {
        let (mut one, mut other) = connected_as(
            &bed,
            Plan::new(|builder| client.build(builder)).with(client.params()),
            Plan::new(|builder| server.build(builder)).with(server.params()),
        );
        let found = (depths(&mut one), depths(&mut other));
        let built = (client.built, client.asked, server.built, server.asked);
        assert_eq!(found, (granted, (granted.1, granted.0)), "{built:?}");
        if granted.0 > 0 {
            read_and_add(&mut one, &mut other, granted.0);
        }
        if granted.1 > 0 {
            read_and_add(&mut other, &mut one, granted.1);
        }
    }
}

/// Reads and adds, more of each at once than there may be under way.
#[track_caller]
fn read_and_add(from: &mut End, to: &mut End, depth: u8) {
    let count = u64::from(depth) + 3;
    let (mine, theirs) = (from.bed.mem(16), to.bed.mem(16));
    theirs.write_u64(0, 100);
    theirs.write_u64(8, 7);
    let remote = theirs.remote();
    submit(from.qp(), |batch| {
        for id in 0..count {
            batch.op().signaled().read(2 * id, &[mine.slice(8..)], remote.slice(8..16));
            batch.op().signaled().atomic_fetch_add(
                2 * id + 1,
                mine.slice(..8),
                remote.slice(..8),
                1,
            );
        }
    })
    .unwrap();
    wait_ok(&from.send_cq, 2 * count as usize);
    assert_eq!((mine.read_u64(0), mine.read_u64(8)), (100 + count - 1, 7));
    assert_eq!(theirs.read_u64(0), 100 + count);
}

#[test]
fn what_a_failed_try_was_granted_is_forgotten() {
    let Some(bed) = Bed::with_cm() else { return };
    let (mut acceptor, to) = listen(Tcp, &bed);
    let short = Duration::from_millis(200);
    let little = Wish::built(16, 16).asking(1, 1).params();
    let Prepared { mut qp, send_cq, recv_cq, bed } = unconnected::<Rc>(&bed, |builder| builder);
    // A request whose client does not confirm, and one whose client has given up by then.
    for gives_up in [false, true] {
        let of_client = unconnected::<Rc>(&bed, |builder| builder).qp;
        let mut client = resolve(Tcp, to).into_id();
        client.connect(&little.clone().for_queue_pair(&of_client)).unwrap();
        let incoming = next_request(&mut acceptor);
        if gives_up {
            client.close().unwrap();
            // That takes its way over the network.
            std::thread::sleep(short);
        }
        qp = incoming.accept(qp, &little, short).unwrap_err().resource;
    }
    let prepared = Prepared { qp, send_cq, recv_cq, bed };
    let params = ConnectionParams::new();
    let (mut server, mut client) = both(
        || accept(next_request(&mut acceptor), prepared, &params),
        || Plan::plain().dial(resolve(Tcp, to)),
    );
    assert_eq!((depths(&mut server), depths(&mut client)), ((16, 16), (16, 16)));
}

#[test]
fn packets_have_the_type_of_service_that_was_asked_for() {
    let Some(bed) = Bed::with_cm() else { return };
    let (mut acceptor, to) = listen(Tcp, &bed);
    let ack_timeout = AckTimeout::from_exponent(18).unwrap();
    let connector = Connector::new(Tcp).set_type_of_service(0x68).set_ack_timeout(ack_timeout);
    let (mut server, mut client) = both(
        || Plan::plain().accept(next_request(&mut acceptor)),
        || Plan::plain().dial(connector.resolve(to, DEADLINE).unwrap()),
    );
    for end in [&mut client, &mut server] {
        let attr = query(end);
        let grh = attr.address().unwrap().grh.unwrap();
        assert_eq!(grh.traffic_class, 0x68);
        // The builder's.
        assert_eq!(attr.timeout(), Some(AckTimeout::DEFAULT));
    }
    assert_connected(&mut client, &mut server);
}

#[test]
fn the_peer_learns_what_was_asked_for() {
    let Some(bed) = Bed::with_cm() else { return };
    let (mut acceptor, to) = listen(Tcp, &bed);
    let plain = ConnectionParams::new();
    for (params, retry_count, rnr_retry_count, depths) in [
        (plain.clone(), 5, 3, (4, 2)),
        (plain.clone().set_retry_count(2).set_rnr_retry_count(6), 2, 6, (4, 2)),
        (plain.clone().set_initiator_depth(3).set_responder_resources(1), 5, 3, (3, 1)),
    ] {
        let client = unconnected::<Rc>(&bed, |builder| {
            builder
                .set_retry_count(5)
                .set_rnr_retry(3)
                .set_max_rd_atomic(4)
                .set_max_dest_rd_atomic(2)
        });
        let qp_num = client.qp.qp_num();
        let (mut server, mut client) = both(
            || {
                let incoming = next_request(&mut acceptor);
                let expected = PeerParams {
                    responder_resources: depths.0,
                    initiator_depth: depths.1,
                    flow_control: false,
                    retry_count,
                    rnr_retry_count,
                    srq: false,
                    qp_num,
                };
                assert_eq!(incoming.peer_params(), Some(expected));
                accept(incoming, unconnected(&bed, |builder| builder), &plain)
            },
            || dial(resolve(Tcp, to), client, &params),
        );
        // What the peer is told is no matter of this side's queue pair, nor the other way round.
        let attr = query(&mut client);
        assert_eq!((attr.retry_count(), attr.rnr_retry()), (Some(5), Some(3)));
        let attr = query(&mut server);
        assert_eq!((attr.retry_count(), attr.rnr_retry()), (Some(6), Some(7)));
    }
}

#[test]
fn counts_of_retries_beyond_their_range_are_refused() {
    let Some(bed) = Bed::with_cm() else { return };
    let (_acceptor, to) = listen(Tcp, &bed);
    let plain = ConnectionParams::new();
    for params in [plain.clone().set_retry_count(8), plain.set_rnr_retry_count(8)] {
        let qp = unconnected::<Rc>(&bed, |builder| builder).qp;
        let failed = resolve(Tcp, to).connect(qp, &params, DEADLINE).unwrap_err();
        assert!(matches!(failed.error, Error::InvalidArgument { value: 8, .. }), "{failed}");
    }
}

#[test]
fn a_queue_pair_stays_as_it_was_built() {
    let Some(bed) = Bed::with_cm() else { return };
    let exponent = |n| AckTimeout::from_exponent(n).unwrap();
    let timer = |ms| RnrTimer::at_least(Duration::from_millis(ms));
    let reads = AccessFlags::REMOTE_READ;
    let (mut client, mut server) = connected_as(
        &bed,
        Plan::new(|builder| {
            let builder = builder.set_timeout(exponent(15)).set_retry_count(4).set_rnr_retry(2);
            builder.set_min_rnr_timer(timer(1)).set_access(reads)
        }),
        Plan::new(|builder| {
            let builder = builder.set_timeout(exponent(17)).set_retry_count(3).set_rnr_retry(1);
            let access = AccessFlags::REMOTE_WRITE | AccessFlags::REMOTE_ATOMIC;
            builder.set_min_rnr_timer(timer(10)).set_access(access)
        }),
    );
    for (end, timeout, retry_count, rnr_retry, rnr_timer, access) in [
        (&mut client, 15, 4, 2, 1, reads),
        (&mut server, 17, 3, 1, 10, AccessFlags::REMOTE_WRITE | AccessFlags::REMOTE_ATOMIC),
    ] {
        let attr = query(end);
        assert_eq!(attr.state(), Some(QpState::RTS));
        assert_eq!(attr.timeout(), Some(exponent(timeout)));
        assert_eq!(attr.retry_count(), Some(retry_count));
        assert_eq!(attr.rnr_retry(), Some(rnr_retry));
        assert_eq!(attr.min_rnr_timer(), Some(timer(rnr_timer)));
        assert_eq!(attr.access(), Some(access));
        assert_eq!(attr.path_mtu(), Some(agreed_mtu(&bed)));
    }
    assert_connected(&mut client, &mut server);

    // The defaults are neither all rights nor none.
    let (mut client, _server) = connected_as(&bed, Plan::plain(), Plan::plain());
    let rights = reads | AccessFlags::REMOTE_WRITE | AccessFlags::REMOTE_ATOMIC;
    assert_eq!(query(&mut client).access(), Some(rights));
    let attr = query(&mut client);
    assert_eq!(attr.timeout(), Some(AckTimeout::DEFAULT));
    assert_eq!(attr.min_rnr_timer(), Some(RnrTimer::DEFAULT));
    assert_eq!((attr.retry_count(), attr.rnr_retry()), (Some(6), Some(7)));
}

/// The port's, which both sides have: it is the same port.
fn agreed_mtu(bed: &Bed) -> Mtu {
    bed.ctx().query_port(ibverbs_tests::PORT).unwrap().active_mtu()
}

#[test]
fn a_peer_without_the_right_is_refused() {
    let Some(bed) = Bed::with_cm() else { return };
    let refused = [WcStatus::REM_ACCESS_ERR, WcStatus::REM_INV_REQ_ERR];
    type Operation = fn(&mut End, &End);
    let read: Operation = |from, to| {
        let (mine, theirs) = (from.bed.mem(8), to.bed.mem(8).remote());
        submit(from.qp(), |batch| batch.op().signaled().read(1, &[mine.slice(..)], theirs))
            .unwrap();
    };
    let write: Operation = |from, to| {
        let (mine, theirs) = (from.bed.mem(8), to.bed.mem(8).remote());
        submit(from.qp(), |batch| batch.op().signaled().write(1, &[mine.slice(..)], theirs))
            .unwrap();
    };
    let add: Operation = |from, to| {
        let (mine, theirs) = (from.bed.mem(8), to.bed.mem(8).remote());
        submit(from.qp(), |batch| {
            batch.op().signaled().atomic_fetch_add(1, mine.slice(..), theirs, 1);
        })
        .unwrap();
    };
    let all = AccessFlags::REMOTE_READ | AccessFlags::REMOTE_WRITE | AccessFlags::REMOTE_ATOMIC;
    for (operation, right) in [
        (read, AccessFlags::REMOTE_READ),
        (write, AccessFlags::REMOTE_WRITE),
        (add, AccessFlags::REMOTE_ATOMIC),
    ] {
        for by_client in [true, false] {
            let (mut client, mut server) = connected_as(
                &bed,
                Plan::new(|builder| builder.set_access(if by_client { all } else { right })),
                Plan::new(|builder| builder.set_access(if by_client { right } else { all })),
            );
            let (from, to) =
                if by_client { (&mut client, &server) } else { (&mut server, &client) };
            operation(from, to);
            assert_eq!(wait_one(&from.send_cq, 1).ok, Ok(()), "{right:?} suffices");

            let (mut client, mut server) = connected_as(
                &bed,
                Plan::new(|builder| builder.set_access(all.difference(right))),
                Plan::new(|builder| builder.set_access(all.difference(right))),
            );
            let (from, to) =
                if by_client { (&mut client, &server) } else { (&mut server, &client) };
            operation(from, to);
            let status = wait_one(&from.send_cq, 1).status();
            assert!(refused.contains(&status), "{right:?} was missing: {status}");
        }
    }
}

#[test]
fn the_builder_says_what_becomes_of_a_message_without_a_receive() {
    let Some(bed) = Bed::with_cm() else { return };
    let timer = RnrTimer::at_least(Duration::from_micros(10));
    let impatient = Plan::new(|builder| builder.set_rnr_retry(0).set_max_inline_data(8));
    // That the peer is patient is no matter of this side.
    let server = Plan::new(|builder| builder.set_rnr_retry(7).set_min_rnr_timer(timer));
    let params = ConnectionParams::new().set_rnr_retry_count(7);
    let (mut client, _server) = connected_as(&bed, impatient, server.with(params));
    submit(client.qp(), |batch| batch.op().signaled().send(1, b"too soon")).unwrap();
    assert_eq!(wait_one(&client.send_cq, 1).status(), WcStatus::RNR_RETRY_EXC_ERR);

    let patient = Plan::new(|builder| builder.set_rnr_retry(7).set_max_inline_data(8));
    let params = ConnectionParams::new().set_rnr_retry_count(0);
    let server = Plan::new(|builder| builder.set_min_rnr_timer(timer)).with(params);
    let (mut client, mut server) = connected_as(&bed, patient, server);
    submit(client.qp(), |batch| batch.op().signaled().send(2, b"too soon")).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let mem = server.bed.mem(8);
    post_recv(server.qp(), [RecvRequest::new(3, &[mem.slice(..)])]).unwrap();
    assert_eq!(wait_one(&client.send_cq, 2).ok, Ok(()));
    assert_eq!(wait_one(&server.recv_cq, 3).ok, Ok(()));
    assert_eq!(mem.read(..), b"too soon");
}

#[test]
fn a_shared_receive_queue_takes_the_messages_of_connections() {
    let Some(bed) = Bed::with_cm() else { return };
    let srq = bed.pd().create_srq(8).build().unwrap();
    let mem = bed.mem(16);
    let (one, other) = ([mem.slice(..8)], [mem.slice(8..)]);
    let receives = [RecvRequest::new(7, &one), RecvRequest::new(8, &other)];
    // SAFETY: the bed keeps the memory registered for longer than its queue pairs live, and there are no references
    // to its bytes.
    unsafe { srq.post_recv(receives) }.unwrap();
    let (mut acceptor, to) = listen(Tcp, &bed);
    let params = ConnectionParams::new();
    for id in [7, 8] {
        let (server, client) = (prepare_on(&bed, &srq), prepare_on(&bed, &srq));
        let (server, mut client) = both(
            || {
                let incoming = next_request(&mut acceptor);
                assert!(incoming.peer_params().unwrap().srq);
                accept(incoming, server, &params)
            },
            || dial(resolve(Tcp, to), client, &params),
        );
        let text = client.bed.mem(8);
        text.write(0, b"shared!!");
        submit(client.qp(), |batch| batch.op().signaled().send(id, &[text.slice(..)])).unwrap();
        assert_eq!(wait_one(&client.send_cq, id).ok, Ok(()));
        assert_eq!(wait_one(&server.recv_cq, id).ok, Ok(()));
    }
    assert_eq!(mem.read(..), b"shared!!shared!!");
}
