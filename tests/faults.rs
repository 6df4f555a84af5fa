//! Peers that go away while data moves, queues that overflow, and parts of another device: what fails says so,
//! what was posted ends in order, and nothing else is harmed.

use std::iter::successors;
use std::time::Duration;

use ibverbs::{
    AccessFlags, AckTimeout, CompletionQueue, Error, MemoryWindow, QpState, QueuePairAttr,
    QueuePairAttrMask as Mask, Rc, RecvRequest, RemoteMemorySlice, SendOps, Ud, WcStatus,
    WindowType2,
};
use ibverbs_tests::{
    activated, assert_silent, be_peer, connect, connect_to, eventually, other_context, pair,
    pair_with, pattern, post_recv, prepare, role, submit, wait, wait_for_death, wait_ok, wait_one,
    way, Ability, Bed, Mem, Prepared, Side, Wc, PORT, QKEY,
};

/// The least length of a transfer that is interrupted.
const LONG: usize = 1 << 16;
/// The greatest one.
const LONGEST: usize = LONG << 7;
const COUNT: u64 = 100;

/// Two queue pairs that give up soon.
fn impatient(bed: &Bed) -> (Side, Side) {
    pair_with::<Rc>(bed, |builder| {
        builder.set_timeout(AckTimeout::at_least(Duration::from_millis(60))).set_retry_count(3)
    })
}

/// What is in the queue now.
fn poll(cq: &CompletionQueue) -> Vec<Wc> {
    let mut found = Vec::new();
    if let Some(mut completions) = cq.poll().unwrap() {
        while let Some(wc) = completions.next() {
            found.push(Wc::new(&wc));
        }
    }
    found
}

/// Waits until something has completed, and returns what has.
#[track_caller]
fn first(cq: &CompletionQueue) -> Vec<Wc> {
    let mut found = Vec::new();
    eventually("something has completed", || {
        found = poll(cq);
        !found.is_empty()
    });
    found
}

/// Posts many signaled writes of this length.
#[track_caller]
fn write_all(a: &mut Side, from: &Mem, len: usize, remote: RemoteMemorySlice) {
    submit(&mut a.qp, |batch| {
        for id in 0..COUNT {
            batch.op().signaled().write(id, &[from.slice(..len)], remote);
        }
    })
    .unwrap();
}

/// Waits for the rest of the completions: in order, first successes, then one that failed for one of these reasons,
/// then those that were flushed. Returns how many succeeded; `None` if all did, since what was to fail them came too
/// late.
#[track_caller]
fn assert_failed(a: &mut Side, mut found: Vec<Wc>, reasons: &[WcStatus]) -> Option<usize> {
    let rest = COUNT as usize - found.len();
    found.extend(wait(&a.send_cq, rest));
    let ids: Vec<u64> = found.iter().map(|wc| wc.wr_id).collect();
    assert_eq!(ids, (0..COUNT).collect::<Vec<_>>());
    let done = found.iter().take_while(|wc| wc.ok.is_ok()).count();
    let statuses: Vec<_> = found[done..].iter().map(Wc::status).collect();
    let (failed, flushed) = statuses.split_first()?;
    assert!(reasons.contains(failed), "request {done}: {failed}");
    assert!(flushed.iter().all(|status| *status == WcStatus::WR_FLUSH_ERR), "{flushed:?}");
    eventually("the queue pair has failed", || {
        a.qp.query(Mask::STATE).unwrap().state() == Some(QpState::ERR)
    });
    assert_silent(&a.send_cq);
    Some(done)
}

/// Makes an attempt to interrupt a transfer of the length that it is given, until one was in time: the processor may
/// be busy elsewhere, so that each transfer is longer than the one before.
#[track_caller]
fn until_in_time(attempt: impl Fn(usize) -> bool) {
    let mut lengths = successors(Some(LONG), |len| Some(len * 2).filter(|len| *len <= LONGEST));
    assert!(lengths.any(attempt), "the transfers were always over already");
}

#[test]
fn a_peer_that_is_dropped_in_mid_transfer_fails_the_rest_in_order() {
    let bed = Bed::new();
    until_in_time(|len| {
        let (mut a, b) = impatient(&bed);
        let (from, to) = (bed.mem(len), bed.mem(len));
        let data = pattern(len, 1);
        from.write(0, &data);
        write_all(&mut a, &from, len, to.remote());
        let first = first(&a.send_cq);
        drop(b);
        let Some(done) = assert_failed(&mut a, first, &[WcStatus::RETRY_EXC_ERR]) else {
            return false;
        };
        assert!(done >= 1);
        assert!(to.read(..) == data, "what was reported as done was done");

        // It works again with a new peer.
        let Side { qp, send_cq, recv_cq, bed } = a;
        let a = Prepared { qp: qp.reset().unwrap(), send_cq, recv_cq, bed: bed.clone() };
        let (mut a, _b) = connect(a, prepare(&bed, |builder| builder));
        to.write(0, &vec![0; len]);
        submit(&mut a.qp, |batch| batch.op().signaled().write(1, &[from.slice(..)], to.remote()))
            .unwrap();
        assert_eq!(wait_one(&a.send_cq, 1).ok, Ok(()));
        assert!(to.read(..) == data);
        true
    });
}

#[test]
fn a_peer_that_fails_in_mid_transfer_flushes_its_receives_in_order() {
    let bed = Bed::new();
    until_in_time(|len| {
        let (mut a, mut b) = impatient(&bed);
        let (from, to) = (bed.mem(len), bed.mem(len));
        let slices = [to.slice(..)];
        let receives = (0..COUNT).map(|id| RecvRequest::new(id, &slices));
        post_recv(&mut b.qp, receives.collect::<Vec<_>>()).unwrap();
        submit(&mut a.qp, |batch| {
            for id in 0..COUNT {
                batch.op().signaled().send(id, &[from.slice(..)]);
            }
        })
        .unwrap();
        let first = first(&a.send_cq);
        b.qp.modify(&QueuePairAttr::new().set_state(QpState::ERR)).unwrap();
        let Some(sent) = assert_failed(&mut a, first, &[WcStatus::RETRY_EXC_ERR]) else {
            return false;
        };
        let received = wait(&b.recv_cq, COUNT as usize);
        let ids: Vec<u64> = received.iter().map(|wc| wc.wr_id).collect();
        assert_eq!(ids, (0..COUNT).collect::<Vec<_>>());
        let arrived = received.iter().take_while(|wc| wc.ok.is_ok()).count();
        // What the sender knows to have arrived has arrived.
        assert!(arrived >= sent, "{arrived} arrived of {sent}");
        for wc in &received[arrived..] {
            assert_eq!(wc.status(), WcStatus::WR_FLUSH_ERR);
        }
        assert_silent(&b.recv_cq);
        true
    });
}

#[test]
fn a_peer_whose_process_is_killed_fails_the_rest_in_order() {
    let bed = Bed::new();
    if role().is_some() {
        let _connection = be_peer(&bed, LONGEST);
        wait_for_death();
    }
    let mem = bed.mem(LONGEST);
    until_in_time(|len| {
        let name = "a_peer_whose_process_is_killed_fails_the_rest_in_order";
        let timeout = AckTimeout::at_least(Duration::from_millis(60));
        let prepared = prepare(&bed, |builder| builder.set_timeout(timeout).set_retry_count(3));
        let (peer, mut a, remote) = connect_to(name, prepared, &mem);
        write_all(&mut a, &mem, len, remote);
        let first = first(&a.send_cq);
        drop(peer);
        // The kernel may take the memory first, or the queue pair.
        let reasons = [WcStatus::REM_ACCESS_ERR, WcStatus::RETRY_EXC_ERR];
        let Some(done) = assert_failed(&mut a, first, &reasons) else { return false };
        assert!(done >= 1);
        true
    });

    // Others are not affected.
    let (mut a, mut b) = pair(&bed);
    post_recv(&mut b.qp, [RecvRequest::new(1, &[mem.slice(..)])]).unwrap();
    submit(&mut a.qp, |batch| batch.op().signaled().send(2, b"alive")).unwrap();
    assert_eq!(wait_one(&a.send_cq, 2).ok, Ok(()));
    assert_eq!(wait_one(&b.recv_cq, 1).ok, Ok(()));
}

#[test]
fn a_sender_whose_process_is_killed_leaves_a_queue_pair_that_can_be_reset() {
    let bed = Bed::new();
    let name = "a_sender_whose_process_is_killed_leaves_a_queue_pair_that_can_be_reset";
    if role().is_some() {
        let (mut side, mem, remote) = be_peer(&bed, LONG);
        for id in 0.. {
            submit(&mut side.qp, |batch| {
                batch.op().signaled().imm(id as u32).write(id, &[mem.slice(..)], remote);
            })
            .unwrap();
            wait_ok(&side.send_cq, 1);
        }
    }
    let mem = bed.mem(LONG);
    let mut prepared = prepare::<Rc>(&bed, |builder| builder);
    for _ in 0..2 {
        let (peer, mut side, _) = connect_to(name, prepared, &mem);
        post_recv(&mut side.qp, [1, 2, 3].map(|id| RecvRequest::new(id, &[]))).unwrap();
        let received = wait_ok(&side.recv_cq, 3);
        assert_eq!(
            received.iter().map(|wc| wc.imm).collect::<Vec<_>>(),
            [Some(0), Some(1), Some(2)]
        );
        drop(peer);
        // Nobody tells that it is gone: receives just wait.
        post_recv(&mut side.qp, [RecvRequest::new(4, &[])]).unwrap();
        let Side { qp, send_cq, recv_cq, bed } = side;
        prepared = Prepared { qp: qp.reset().unwrap(), send_cq, recv_cq, bed };
        // One more message may have arrived before.
        for wc in poll(&prepared.recv_cq) {
            assert_eq!((wc.wr_id, wc.ok), (4, Ok(())));
        }
    }
}

#[test]
fn receives_beyond_the_completion_queue_s_capacity_do_no_harm() {
    let bed = Bed::new();
    let small = bed.ctx().create_cq(2).build().unwrap();
    let other = bed.ctx().create_cq(256).build().unwrap();
    let capacity = small.capacity();
    let count = capacity + 20;
    let create = |recv_cq| {
        let builder = bed.pd().create_qp::<Rc>(&other, recv_cq, PORT).unwrap();
        let builder = builder.set_gid_index(bed.gid_index()).set_max_inline_data(8);
        let timeout = AckTimeout::at_least(Duration::from_millis(60));
        let builder = builder.set_timeout(timeout).set_retry_count(2);
        builder.set_max_recv_wr(count).set_max_send_wr(count).build().unwrap()
    };
    let (a, b) = (create(&other), create(&small));
    let (of_a, of_b) = (a.endpoint().unwrap(), b.endpoint().unwrap());
    let (mut a, mut b) = (a.handshake(of_b).unwrap(), b.handshake(of_a).unwrap());
    let receives = (0..u64::from(count)).map(|id| RecvRequest::new(id, &[]));
    post_recv(&mut b, receives.collect::<Vec<_>>()).unwrap();
    submit(&mut a, |batch| {
        for id in 0..u64::from(count) {
            batch.op().signaled().imm(id as u32).send(id, b"");
        }
    })
    .unwrap();
    // Each send ends, this way or that.
    let sent = wait(&other, count as usize);
    assert!(sent.iter().map(|wc| wc.wr_id).eq(0..u64::from(count)));
    let mut found = 0;
    while let Ok(Some(mut completions)) = small.poll() {
        while let Some(wc) = completions.next() {
            assert!(wc.wr_id() < u64::from(count));
            found += 1;
            assert!(found <= count, "more completions than receives");
        }
    }
    b.close().unwrap();
    a.close().unwrap();
    small.close().unwrap();
    pair(&bed);
}

#[test]
fn a_key_is_for_its_own_region_to_the_byte() {
    let bed = Bed::new();
    let (from, one, other) = (bed.mem(4096), bed.mem(4096), bed.mem(4096));
    from.write(0, &[7; 4096]);
    let remote = one.remote();
    for wrong in [
        RemoteMemorySlice { rkey: other.remote().rkey, ..remote },
        RemoteMemorySlice { addr: remote.addr + 1, ..remote },
        RemoteMemorySlice { addr: remote.addr - 1, ..remote },
        RemoteMemorySlice { addr: u64::MAX - 4095, ..remote },
    ] {
        for read in [false, true] {
            let (mut a, _b) = impatient(&bed);
            submit(&mut a.qp, |batch| match read {
                false => batch.op().signaled().write(1, &[from.slice(..)], wrong),
                true => batch.op().signaled().read(1, &[from.slice(..)], wrong),
            })
            .unwrap();
            let status = wait_one(&a.send_cq, 1).status();
            assert_eq!(status, WcStatus::REM_ACCESS_ERR, "{wrong:?}");
        }
    }
    assert_eq!(one.read(..), vec![0; 4096]);
    assert_eq!(other.read(..), vec![0; 4096]);
    assert_eq!(from.read(..), vec![7; 4096]);
}

#[track_caller]
fn assert_other_domain(error: Error, part: &str) {
    let ok = matches!(error, Error::ProtectionDomainMismatch { what } if what.contains(part));
    assert!(ok, "{error}");
}

#[test]
fn parts_of_another_device_are_refused_wherever_two_come_together() {
    let bed = Bed::new();
    let other = Bed::on(other_context(bed.ctx()));
    let cq = bed.ctx().create_cq(4).build().unwrap();
    let device = |error: Error, part: &str| {
        let ok = matches!(error, Error::DeviceMismatch { what } if what.contains(part));
        assert!(ok, "{error}");
    };

    let foreign_cq = other.ctx().create_cq(4).build().unwrap();
    for (send, recv) in [(&cq, &foreign_cq), (&foreign_cq, &cq)] {
        device(bed.pd().create_qp::<Ud>(send, recv, PORT).unwrap_err(), "completion queue");
    }
    let channel = other.ctx().create_comp_channel().unwrap();
    let result = bed.ctx().create_cq(4).set_comp_channel(&channel).build();
    device(result.unwrap_err(), "completion channel");
    let srq = other.pd().create_srq(4).build().unwrap();
    let builder = bed.pd().create_qp::<Rc>(&cq, &cq, PORT).unwrap();
    assert_other_domain(builder.set_srq(&srq).build().unwrap_err(), "shared receive queue");

    // Address handles, with each operation.
    let mut datagrams = activated(&bed, QKEY);
    let foreign = activated(&other, QKEY);
    let handle = way(&foreign, &foreign);
    let error = submit(&mut datagrams.qp, |batch| batch.to(&handle, 1, QKEY).send(1, b"x"));
    assert_other_domain(error.unwrap_err(), "address handle");
}

#[test]
fn windows_and_regions_of_another_device_are_refused() {
    let Some(bed) = Bed::with([Ability::WindowsOfType2]) else { return };
    let other = Bed::on(other_context(bed.ctx()));
    let cq = bed.ctx().create_cq(4).build().unwrap();
    let builder = bed.pd().create_qp::<Rc>(&cq, &cq, PORT).unwrap();
    let builder = builder.set_gid_index(bed.gid_index()).add_send_ops(SendOps::WINDOWS);
    let prepared = builder.build().unwrap();
    let endpoint = prepared.endpoint().unwrap();
    let mut qp = prepared.handshake(endpoint).unwrap();
    let access = AccessFlags::LOCAL_WRITE | AccessFlags::MW_BIND;
    let (own_mem, foreign_mem) = (bed.mem_with(64, access), other.mem_with(64, access));
    let mut own: MemoryWindow<WindowType2> = bed.pd().alloc_window().unwrap();
    let mut foreign: MemoryWindow<WindowType2> = other.pd().alloc_window().unwrap();
    let mut bind = |window: &mut MemoryWindow<WindowType2>, mem: &Mem| {
        let error = submit(&mut qp, |batch| {
            let (op, access) = (batch.op(), AccessFlags::REMOTE_READ);
            // SAFETY: nothing in this package makes a reference to the bytes of a `Mem`.
            unsafe { op.bind_window(1, window, mem.region(), .., access) };
        });
        error.unwrap_err()
    };
    assert_other_domain(bind(&mut own, &foreign_mem), "memory region");
    assert_other_domain(bind(&mut foreign, &own_mem), "memory region");
    assert_other_domain(bind(&mut foreign, &foreign_mem), "memory window");
}
