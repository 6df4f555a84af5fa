//! Datagrams between queue pairs that the connection manager has told of each other.

use ibverbs::rdmacm::{FoundPeer, Udp};
use ibverbs::{Error, QpState, QueuePair, QueuePairAttrMask, RecvRequest, Reset, Ud};
use ibverbs_tests::{
    both, listen, listen_on, local_addrs, next_request, other_context, pattern, post_recv, resolve,
    submit, unconnected, wait_one, Bed, Prepared, Side, DEADLINE, GRH, PORT,
};

/// The queue key of this port space (`RDMA_UDP_QKEY`).
const UDP_QKEY: u32 = 0x0123_4567;

/// A queue pair that `activate` has made ready.
#[track_caller]
fn ready(bed: &Bed, activate: impl FnOnce(QueuePair<Ud, Reset>) -> QueuePair<Ud>) -> Side<Ud> {
    let Prepared { qp, send_cq, recv_cq, bed } = unconnected::<Ud>(bed, |builder| builder);
    Side { qp: activate(qp), send_cq, recv_cq, bed }
}

/// Sends a datagram to a peer that was found, and one back to its sender.
#[track_caller]
fn assert_reaches(client: &mut Side<Ud>, found: &FoundPeer, server: &mut Side<Ud>, seed: u64) {
    const LEN: usize = 500;
    let (source, sink) = (client.bed.mem(LEN), server.bed.mem(GRH + LEN));
    source.write(0, &pattern(LEN, seed));
    post_recv(&mut server.qp, [RecvRequest::new(seed, &[sink.slice(..)])]).unwrap();
    let ah = found.peer.create_ah(client.bed.pd()).unwrap();
    submit(&mut client.qp, |batch| {
        let to = batch.to(&ah, found.peer.qp_num, found.peer.qkey);
        to.signaled().send(seed, &[source.slice(..)]);
    })
    .unwrap();
    assert_eq!(wait_one(&client.send_cq, seed).ok, Ok(()));
    let received = wait_one(&server.recv_cq, seed);
    assert_eq!((received.ok, received.len as usize), (Ok(()), GRH + LEN));
    assert_eq!(sink.read(GRH..), pattern(LEN, seed));
    assert_eq!(received.sender.src_qp, client.qp.qp_num());

    let back = server.bed.pd().create_ah_from_wc(PORT, &received.sender, &sink.read(..)).unwrap();
    let answer = client.bed.mem(GRH + LEN);
    post_recv(&mut client.qp, [RecvRequest::new(seed, &[answer.slice(..)])]).unwrap();
    submit(&mut server.qp, |batch| {
        let to = batch.to(&back, received.sender.src_qp, UDP_QKEY);
        to.signaled().send(seed, &[sink.slice(GRH..)]);
    })
    .unwrap();
    assert_eq!(wait_one(&server.send_cq, seed).ok, Ok(()));
    assert_eq!(wait_one(&client.recv_cq, seed).ok, Ok(()));
    assert_eq!(answer.read(GRH..), pattern(LEN, seed));
}

#[test]
fn datagrams_go_to_the_peer_that_was_found() {
    let Some(bed) = Bed::with_cm() else { return };
    for address in local_addrs(&bed) {
        let (mut acceptor, to) = listen_on(Udp, address);
        let (mut server, (mut client, found)) = both(
            || {
                let mut incoming = next_request(&mut acceptor);
                assert!(incoming.peer_private_data().starts_with(b"who are you?\0"));
                assert_eq!(incoming.local_addr().unwrap().port(), to.port());
                let bed = Bed::on(incoming.context().clone());
                let server = ready(&bed, |qp| incoming.activate(qp).unwrap());
                incoming.answer(&server.qp, b"it is me").unwrap();
                server
            },
            || {
                let mut resolved = resolve(Udp, to);
                assert_eq!(resolved.peer_addr(), Some(to));
                assert_eq!(resolved.local_addr().unwrap().ip(), to.ip());
                let bed = Bed::on(resolved.context().clone());
                let client = ready(&bed, |qp| resolved.activate(qp).unwrap());
                (client, resolved.find_peer(b"who are you?", DEADLINE).unwrap())
            },
        );
        assert!(found.private_data.starts_with(b"it is me\0"));
        assert_eq!((found.peer.qp_num, found.peer.qkey), (server.qp.qp_num(), UDP_QKEY));
        assert_reaches(&mut client, &found, &mut server, 1);
    }
}

#[test]
fn many_are_told_of_the_same_queue_pair() {
    const PEERS: u64 = 20;
    let Some(bed) = Bed::with_cm() else { return };
    let (mut acceptor, to) = listen(Udp, &bed);
    let (mut server, mut clients) = both(
        || {
            let mut server: Option<Side<Ud>> = None;
            for _ in 0..PEERS {
                let mut incoming = next_request(&mut acceptor);
                // The queue pair may be one of the program's own context, too.
                let side = server.take();
                let side = side.unwrap_or_else(|| ready(&bed, |qp| incoming.activate(qp).unwrap()));
                let number = incoming.peer_private_data()[0];
                incoming.answer(&side.qp, &[number + 100]).unwrap();
                server = Some(side);
            }
            server.unwrap()
        },
        || {
            // All ask before the first is answered.
            let asking: Vec<_> = (0..PEERS).map(|n| (n, resolve(Udp, to))).collect();
            std::thread::scope(|scope| {
                let threads: Vec<_> = asking
                    .into_iter()
                    .map(|(n, mut resolved)| {
                        let bed = &bed;
                        scope.spawn(move || {
                            let client = ready(bed, |qp| resolved.activate(qp).unwrap());
                            let found = resolved.find_peer(&[n as u8], DEADLINE).unwrap();
                            assert_eq!(found.private_data[0], n as u8 + 100);
                            (client, found)
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
            })
        },
    );
    for (n, (client, found)) in (0..).zip(&mut clients) {
        assert_eq!(found.peer.qp_num, server.qp.qp_num());
        assert_reaches(client, found, &mut server, n);
    }
}

#[test]
fn a_peer_asks_more_than_once() {
    let Some(bed) = Bed::with_cm() else { return };
    let (mut acceptor, to) = listen(Udp, &bed);
    let (mut server, (mut client, answers)) = both(
        || {
            let mut first = next_request(&mut acceptor);
            let server = ready(&bed, |qp| first.activate(qp).unwrap());
            first.answer(&server.qp, b"1").unwrap();
            next_request(&mut acceptor).answer(&server.qp, b"2").unwrap();
            server
        },
        || {
            let mut resolved = resolve(Udp, to);
            let client = ready(&bed, |qp| resolved.activate(qp).unwrap());
            let first = resolved.find_peer(b"", DEADLINE).unwrap();
            (client, [first, resolve(Udp, to).find_peer(b"", DEADLINE).unwrap()])
        },
    );
    assert_eq!(answers.each_ref().map(|answer| answer.private_data[0]), *b"12");
    assert_eq!(answers[0].peer.qp_num, answers[1].peer.qp_num);
    // What was told stays true without a listener.
    drop(acceptor);
    assert_reaches(&mut client, &answers[1], &mut server, 3);
}

#[test]
fn an_activated_queue_pair_has_the_port_spaces_queue_key() {
    let Some(bed) = Bed::with_cm() else { return };
    let (_acceptor, to) = listen(Udp, &bed);
    let mut resolved = resolve(Udp, to);
    let Prepared { qp, recv_cq, bed, .. } = unconnected::<Ud>(&bed, |builder| builder);
    // Receives can have been posted before.
    let mut qp = qp.init().unwrap();
    let mem = bed.mem(GRH + 8);
    post_recv(&mut qp, [RecvRequest::new(1, &[mem.slice(..)])]).unwrap();
    let mut qp = resolved.activate(qp).unwrap();
    let attr = qp.query(QueuePairAttrMask::all()).unwrap();
    assert_eq!((attr.state(), attr.qkey()), (Some(QpState::RTS), Some(UDP_QKEY)));
    drop((qp, recv_cq));
}

#[test]
fn a_queue_pair_of_another_device_is_refused() {
    let Some(bed) = Bed::with_cm() else { return };
    let other = Bed::on(other_context(bed.ctx()));
    if other.ctx().device().name() == bed.ctx().device().name() {
        return;
    }
    let foreign = || unconnected::<Ud>(&other, |builder| builder);
    let (mut acceptor, to) = listen(Udp, &bed);
    let ((), found) = both(
        || {
            let mut incoming = next_request(&mut acceptor);
            let failed = incoming.activate(foreign().qp).unwrap_err();
            assert!(matches!(failed.error, Error::DeviceMismatch { what: "queue pair" }));
            // The queue pair is as it was, and can be made ready without the connection manager.
            let qp = failed.resource.activate(UDP_QKEY).unwrap();
            let error = incoming.answer(&qp, b"").unwrap_err();
            assert!(matches!(error, Error::DeviceMismatch { what: "queue pair" }), "{error}");
        },
        || {
            let mut resolved = resolve(Udp, to);
            let failed = resolved.activate(foreign().qp).unwrap_err();
            assert!(matches!(failed.error, Error::DeviceMismatch { what: "queue pair" }));
            resolved.find_peer(b"", DEADLINE)
        },
    );
    assert!(matches!(found.unwrap_err(), Error::Connection(_)));
}
