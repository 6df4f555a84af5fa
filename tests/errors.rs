//! Requests that fail while they are carried out: which status they complete with, and what it leaves
//! behind.

use std::time::Duration;

use ibverbs::{
    AccessFlags, AckTimeout, CompletionQueue, Error, LocalMemorySlice, QpState, QueuePair,
    QueuePairAttrMask as Mask, Rc, RecvRequest, RemoteMemorySlice, RnrTimer, SendBatch, WcStatus,
};
use ibverbs_tests::{
    assert_silent, connect, eventually, pair, pair_with, post_recv, submit, test_context, wait,
    wait_ok, wait_one, Bed, Prepared, Side, PORT,
};

/// Waits for the state: SoftRoCE moves a queue pair to ERR a moment after the completion that tells why.
#[track_caller]
fn assert_state(qp: &mut QueuePair<Rc>, state: QpState) {
    eventually(&format!("the queue pair is in {state}"), || {
        qp.query(Mask::STATE).unwrap().state() == Some(state)
    });
}

/// Waits for the completions of these requests, and returns their statuses.
#[track_caller]
fn statuses<const N: usize>(cq: &CompletionQueue, wr_ids: [u64; N]) -> [WcStatus; N] {
    let found = wait(cq, N);
    assert_eq!(found.iter().map(|wc| wc.wr_id).collect::<Vec<_>>(), wr_ids, "{found:?}");
    std::array::from_fn(|n| found[n].status())
}

/// Posts one operation on a connection of its own, whose peer posted nothing, and returns the status
/// that it completed with.
#[track_caller]
fn status_of(bed: &Bed, fill: impl FnOnce(&mut SendBatch<'_, Rc>)) -> WcStatus {
    let (mut a, _b) = pair(bed);
    submit(&mut a.qp, fill).unwrap();
    let status = wait(&a.send_cq, 1)[0].status();
    if status != WcStatus::SUCCESS {
        assert_state(&mut a.qp, QpState::ERR);
    }
    status
}

/// Tries a write, a read and an atomic of eight bytes, and returns what became of them.
#[track_caller]
fn attempts(bed: &Bed, remote: RemoteMemorySlice) -> [WcStatus; 3] {
    let mem = bed.mem(8);
    mem.write(0, &[7; 8]);
    let slice = mem.slice(..);
    [
        status_of(bed, |batch| batch.op().signaled().write(1, &[slice], remote)),
        status_of(bed, |batch| batch.op().signaled().read(2, &[slice], remote)),
        status_of(bed, |batch| batch.op().signaled().atomic_fetch_add(3, slice, remote, 1)),
    ]
}

const OK: WcStatus = WcStatus::SUCCESS;
const REFUSED: WcStatus = WcStatus::REM_ACCESS_ERR;

#[test]
fn a_wrong_remote_key_is_refused_by_the_peer() {
    let bed = Bed::new();
    let target = bed.mem(64);
    let right = target.remote();
    let wrong = RemoteMemorySlice { rkey: right.rkey ^ 0x5a5a_5a00, ..right };
    assert_eq!(attempts(&bed, wrong), [REFUSED; 3]);
    assert_eq!(target.read(..), [0; 64]);
    assert_eq!(attempts(&bed, right), [OK; 3]);
}

#[test]
fn a_forged_length_does_not_reach_beyond_the_region() {
    let bed = Bed::new();
    let target = bed.mem(4096);
    let right = target.remote();
    // The last four bytes of the region and four beyond, and eight before it.
    let end = RemoteMemorySlice { addr: right.addr + 4092, len: 1 << 20, ..right };
    let start = RemoteMemorySlice { addr: right.addr - 8, len: 1 << 20, ..right };
    let mem = bed.mem(8);
    let slice = mem.slice(..);
    for remote in [end, start] {
        let write = status_of(&bed, |batch| batch.op().signaled().write(1, &[slice], remote));
        let read = status_of(&bed, |batch| batch.op().signaled().read(2, &[slice], remote));
        assert_eq!([write, read], [REFUSED; 2]);
    }
    assert_eq!(target.read(..), vec![0; 4096]);
}

#[test]
fn a_region_gives_its_peers_no_more_than_it_was_asked_for() {
    let bed = Bed::new();
    let local = AccessFlags::LOCAL_WRITE;
    let cases = [
        (AccessFlags::REMOTE_READ, [REFUSED, OK, REFUSED]),
        (local | AccessFlags::REMOTE_READ, [REFUSED, OK, REFUSED]),
        (local | AccessFlags::REMOTE_WRITE, [OK, REFUSED, REFUSED]),
        (local | AccessFlags::REMOTE_ATOMIC, [REFUSED, REFUSED, OK]),
    ];
    for (access, expected) in cases {
        let target = bed.mem_with(64, access);
        assert_eq!(attempts(&bed, target.remote()), expected, "{access:?}");
        if !access.intersects(AccessFlags::REMOTE_WRITE | AccessFlags::REMOTE_ATOMIC) {
            assert_eq!(target.read(..), [0; 64], "{access:?}");
        }
    }
}

#[test]
fn a_region_without_remote_rights_has_no_remote_key() {
    let bed = Bed::new();
    for access in [AccessFlags::empty(), AccessFlags::LOCAL_WRITE] {
        let region = bed.pd().allocate(64, access).unwrap();
        // SAFETY: no peer learns of it.
        let error = unsafe { region.remote() }.unwrap_err();
        assert!(
            matches!(error, Error::InvalidAccess { access: told, .. } if told == access),
            "{error}"
        );
        assert!(error.to_string().contains("a remote right is needed"), "{error}");
    }
}

#[test]
fn a_region_cannot_be_reached_before_its_remote_key_was_given_away() {
    let bed = Bed::new();
    // On many devices, SoftRoCE among them, the local key is the remote key.
    let target = bed.mem(64);
    let local = target.slice(..);
    let guessed = RemoteMemorySlice { addr: local.addr(), len: 64, rkey: local.lkey() };
    assert_eq!(attempts(&bed, guessed), [REFUSED; 3]);
    assert_eq!(target.read(..), [0; 64]);
    let given = target.remote();
    assert_ne!(given.rkey, local.lkey());
    assert_eq!(given, target.remote(), "the second call gives the same key");
    assert_eq!(attempts(&bed, guessed), [REFUSED; 3]);
    assert_eq!(attempts(&bed, given), [OK; 3]);
}

#[test]
fn a_queue_pair_lets_its_peer_do_no_more_than_it_was_asked_for() {
    let bed = Bed::new();
    let target = bed.mem(8);
    let mem = bed.mem(8);
    let (slice, remote) = (mem.slice(..), target.remote());
    let (read, write) = (AccessFlags::REMOTE_READ, AccessFlags::REMOTE_WRITE);
    for (access, can_write, can_read) in
        [(AccessFlags::empty(), false, false), (read, false, true), (write, true, false)]
    {
        let connected = || pair_with::<Rc>(&bed, |builder| builder.set_access(access));
        let (mut a, _b) = connected();
        submit(&mut a.qp, |batch| batch.op().signaled().write(1, &[slice], remote)).unwrap();
        assert_eq!(wait_one(&a.send_cq, 1).ok.is_ok(), can_write, "{access:?}");
        let (mut a, _b) = connected();
        submit(&mut a.qp, |batch| batch.op().signaled().read(2, &[slice], remote)).unwrap();
        assert_eq!(wait_one(&a.send_cq, 2).ok.is_ok(), can_read, "{access:?}");
        let (mut a, _b) = connected();
        let add = |batch: &mut SendBatch<'_, Rc>| {
            batch.op().signaled().atomic_fetch_add(3, slice, remote, 1)
        };
        submit(&mut a.qp, add).unwrap();
        assert!(wait_one(&a.send_cq, 3).ok.is_err(), "{access:?}");
    }
    assert_eq!(target.read(..), [0; 8]);
}

#[test]
fn a_message_that_is_too_long_for_its_receive_fails_on_both_sides() {
    let bed = Bed::new();
    for (size, room) in [(101, 100), (1, 0), (5000, 4999), (5000, 100)] {
        let (mut a, mut b) = pair(&bed);
        let (from, to) = (bed.mem(8192), bed.mem(8192));
        from.write(0, &[7; 8192]);
        let receives = [[to.slice(..room)], [to.slice(..)]];
        let requests = [RecvRequest::new(1, &receives[0]), RecvRequest::new(2, &receives[1])];
        post_recv(&mut b.qp, requests).unwrap();
        submit(&mut a.qp, |batch| {
            batch.op().signaled().send(3, &[from.slice(..size)]);
            batch.op().signaled().send(4, &[from.slice(..1)]);
        })
        .unwrap();
        let [sent, after] = statuses(&a.send_cq, [3, 4]);
        let [received, waiting] = statuses(&b.recv_cq, [1, 2]);
        // The first of each is what the specification says, the second what SoftRoCE does.
        let remote = [WcStatus::REM_INV_REQ_ERR, WcStatus::REM_OP_ERR];
        let local = [WcStatus::LOC_LEN_ERR, WcStatus::LOC_QP_OP_ERR];
        assert!(remote.contains(&sent), "{size} into {room}: {sent}");
        assert!(local.contains(&received), "{size} into {room}: {received}");
        assert_eq!([after, waiting], [WcStatus::WR_FLUSH_ERR; 2], "{size} into {room}");
        assert_eq!(to.read(room..), vec![0; 8192 - room], "nothing is written beyond");
        assert_state(&mut a.qp, QpState::ERR);
        assert_state(&mut b.qp, QpState::ERR);
    }
}

#[test]
fn a_connection_that_failed_works_again_after_a_reset() {
    let bed = Bed::new();
    let (mut a, mut b) = pair(&bed);
    let (from, to) = (bed.mem(64), bed.mem(64));
    from.write(0, &[7; 64]);
    for _ in 0..3 {
        let wrong = RemoteMemorySlice { addr: 4096, len: 64, rkey: 1 };
        submit(&mut a.qp, |batch| batch.op().write(1, &[from.slice(..)], wrong)).unwrap();
        assert_eq!(wait_one(&a.send_cq, 1).status(), REFUSED);
        let reset = |side: Side| {
            let Side { qp, send_cq, recv_cq, bed } = side;
            Prepared { qp: qp.reset().unwrap(), send_cq, recv_cq, bed }
        };
        (a, b) = connect(reset(a), reset(b));
        to.write(0, &[0; 64]);
        post_recv(&mut b.qp, [RecvRequest::new(2, &[to.slice(..)])]).unwrap();
        submit(&mut a.qp, |batch| batch.op().signaled().send(3, &[from.slice(..)])).unwrap();
        assert_eq!(wait_one(&a.send_cq, 3).ok, Ok(()));
        assert_eq!(wait_one(&b.recv_cq, 2).ok, Ok(()));
        assert_eq!(to.read(..), [7; 64]);
    }
}

#[test]
fn a_peer_without_a_receive_is_given_up_after_the_retries() {
    let bed = Bed::new();
    for retries in [0, 2] {
        let (mut a, mut b) = pair_with::<Rc>(&bed, |builder| {
            builder.set_rnr_retry(retries).set_min_rnr_timer(RnrTimer::at_least(Duration::ZERO))
        });
        let mem = bed.mem(8);
        submit(&mut a.qp, |batch| {
            batch.op().send(1, &[mem.slice(..)]);
            batch.op().signaled().send(2, &[mem.slice(..)]);
        })
        .unwrap();
        let status: Vec<_> = wait(&a.send_cq, 2).iter().map(|wc| (wc.wr_id, wc.status())).collect();
        let expected = [(1, WcStatus::RNR_RETRY_EXC_ERR), (2, WcStatus::WR_FLUSH_ERR)];
        assert_eq!(status, expected, "{retries} retries");
        assert_state(&mut a.qp, QpState::ERR);
        assert_state(&mut b.qp, QpState::RTS);
    }
}

#[test]
fn a_message_waits_for_a_receive_as_long_as_there_are_retries() {
    let bed = Bed::new();
    let (mut a, mut b) = pair(&bed);
    let (from, to) = (bed.mem(8), bed.mem(8));
    from.write(0, b"patience");
    submit(&mut a.qp, |batch| batch.op().signaled().send(1, &[from.slice(..)])).unwrap();
    assert_silent(&a.send_cq);
    post_recv(&mut b.qp, [RecvRequest::new(2, &[to.slice(..)])]).unwrap();
    assert_eq!(wait_one(&a.send_cq, 1).ok, Ok(()));
    assert_eq!(wait_one(&b.recv_cq, 2).ok, Ok(()));
    assert_eq!(to.read(..), b"patience");
}

#[test]
fn a_peer_that_is_gone_is_given_up_after_the_retries() {
    let bed = Bed::new();
    let timeout = AckTimeout::at_least(Duration::from_millis(8));
    let (mut a, b) =
        pair_with::<Rc>(&bed, |builder| builder.set_timeout(timeout).set_retry_count(2));
    let mem = bed.mem(8);
    b.qp.close().unwrap();
    submit(&mut a.qp, |batch| {
        batch.op().send(1, &[mem.slice(..)]);
        batch.op().signaled().send(2, &[mem.slice(..)]);
    })
    .unwrap();
    let expected = [WcStatus::RETRY_EXC_ERR, WcStatus::WR_FLUSH_ERR];
    assert_eq!(statuses(&a.send_cq, [1, 2]), expected);
    assert_state(&mut a.qp, QpState::ERR);
}

/// Sends from one slice and receives into the other; returns how both ended.
#[track_caller]
fn send_between(bed: &Bed, from: LocalMemorySlice, to: LocalMemorySlice) -> [WcStatus; 2] {
    let (mut a, mut b) = pair(bed);
    post_recv(&mut b.qp, [RecvRequest::new(1, &[to])]).unwrap();
    submit(&mut a.qp, |batch| batch.op().signaled().send(2, &[from])).unwrap();
    let sent = wait_one(&a.send_cq, 2).status();
    if sent != OK {
        // The peer notices nothing of a failure before the first packet, so fail it as well.
        let err = ibverbs::QueuePairAttr::new().set_state(QpState::ERR);
        b.qp.modify(&err).unwrap();
    }
    [sent, wait_one(&b.recv_cq, 1).status()]
}

#[test]
fn memory_of_another_protection_domain_cannot_be_used() {
    let bed = Bed::new();
    let pd = bed.ctx().alloc_pd().unwrap();
    let (own, foreign) = (bed.mem(64), bed.mem_of(&pd, 64, AccessFlags::PERMISSIVE));
    foreign.write(0, &[7; 64]);
    let [sent, received] = send_between(&bed, foreign.slice(..), own.slice(..));
    // SoftRoCE says LOC_QP_OP_ERR (6.1) or WR_FLUSH_ERR (6.12, 7.2).
    let local = [WcStatus::LOC_PROT_ERR, WcStatus::LOC_QP_OP_ERR, WcStatus::WR_FLUSH_ERR];
    assert!(local.contains(&sent), "{sent}");
    assert_eq!(received, WcStatus::WR_FLUSH_ERR);
    assert_eq!(own.read(..), [0; 64]);

    own.write(0, &[1; 64]);
    let [sent, received] = send_between(&bed, own.slice(..), foreign.slice(..));
    assert_ne!(sent, OK);
    assert_ne!(received, OK);
    assert_eq!(foreign.read(..), [7; 64]);

    let (slice, remote) = (foreign.slice(..), own.remote());
    let read = status_of(&bed, |batch| batch.op().signaled().read(1, &[slice], remote));
    assert_eq!(read, WcStatus::LOC_PROT_ERR);
    assert_eq!(foreign.read(..), [7; 64]);

    // Nor by a peer whose queue pair is of another domain.
    assert_eq!(attempts(&bed, foreign.remote()), [REFUSED; 3]);
}

#[test]
fn memory_without_local_write_can_be_sent_but_not_received_into() {
    let bed = Bed::new();
    let (fixed, own) = (bed.mem_with(64, AccessFlags::empty()), bed.mem(64));
    fixed.write(0, &[7; 64]);
    assert_eq!(send_between(&bed, fixed.slice(..), own.slice(..)), [OK; 2]);
    assert_eq!(own.read(..), [7; 64]);
    own.write(0, &[1; 64]);
    let statuses = send_between(&bed, own.slice(..), fixed.slice(..));
    assert!(!statuses.contains(&OK), "{statuses:?}");
    let (slice, remote) = (fixed.slice(..), own.remote());
    let read = status_of(&bed, |batch| batch.op().signaled().read(1, &[slice], remote));
    assert_eq!(read, WcStatus::LOC_PROT_ERR);
    assert_eq!(fixed.read(..), [7; 64]);
}

#[test]
fn completions_beyond_the_queue_s_capacity_do_no_harm() {
    let ctx = test_context();
    let bed = Bed::on(ctx);
    let cq = bed.ctx().create_cq(2).build().unwrap();
    let capacity = cq.capacity();
    let other = bed.ctx().create_cq(256).build().unwrap();
    let create = |cq| {
        let builder = bed.pd().create_qp::<Rc>(cq, &other, PORT).unwrap();
        builder.set_gid_index(bed.gid_index()).set_max_send_wr(capacity + 64).build().unwrap()
    };
    let qp = create(&cq);
    let endpoint = qp.endpoint().unwrap();
    let mut qp = qp.handshake(endpoint).unwrap();
    let (from, to) = (bed.mem(8), bed.mem(8));
    let count = capacity + 20;
    for n in 1..=u64::from(count) {
        from.write_u64(0, n);
        let remote = to.remote();
        let sent =
            submit(&mut qp, |batch| batch.op().signaled().write(n, &[from.slice(..)], remote));
        // The device may have noticed and stopped.
        if sent.is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(100));
    let mut found = 0;
    while let Ok(Some(mut completions)) = cq.poll() {
        while let Some(wc) = completions.next() {
            assert!((1..=u64::from(count)).contains(&wc.wr_id()));
            found += 1;
            assert!(found <= count, "more completions than requests");
        }
    }
    qp.close().unwrap();
    cq.close().unwrap();

    // Another queue pair of the same context is not affected.
    let (mut a, mut b) = pair(&bed);
    post_recv(&mut b.qp, [RecvRequest::new(1, &[to.slice(..)])]).unwrap();
    submit(&mut a.qp, |batch| batch.op().signaled().send(2, &[from.slice(..)])).unwrap();
    wait_ok(&a.send_cq, 1);
    wait_ok(&b.recv_cq, 1);
}
