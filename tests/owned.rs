//! The owned level on a device: buffers that are moved there and back, whatever happens meanwhile.

#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::mem::forget;
use std::thread;
use std::time::Instant;

use ibverbs::{
    AccessFlags, Buffer, BufferPool, Error, OwnedCompletionQueue, OwnedQueuePair, QpState,
    QueuePairAttr, QueuePairAttrMask, Rc, Ud, WcStatus,
};
use ibverbs_tests::{
    eventually, filled, other_context, owned_cq, owned_pair, owned_pair_with, pattern, poll_owned,
    prepare_owned, wait_owned, Bed, OwnedSide, DEADLINE, GRH, PORT, QKEY,
};

const SIZE: usize = 4096;

fn pool(bed: &Bed, count: usize) -> BufferPool {
    bed.pd().buffer_pool(count, SIZE).unwrap()
}

#[track_caller]
fn take(pool: &BufferPool) -> Buffer {
    pool.take().expect("the pool is empty")
}

/// Fails the queue pair: what is posted is flushed.
fn fail(qp: &mut OwnedQueuePair<Rc>) {
    qp.modify(&QueuePairAttr::new().set_state(QpState::ERR)).unwrap();
}

#[test]
fn buffers_arrive_and_come_back_as_ordinary_bytes() {
    let bed = Bed::new();
    let (mut a, mut b) = owned_pair(&bed);
    let pool = pool(&bed, 4);
    let data = pattern(3000, 1);
    b.qp.post_recv(10, take(&pool)).unwrap();
    b.qp.post_recv(11, take(&pool)).unwrap();
    a.qp.send(1, filled(&pool, &data), 3000).unwrap();
    let mut batch = a.qp.start_send();
    batch.op().imm(7).send(2, take(&pool), 0);
    batch.submit().unwrap();
    assert_eq!(pool.available(), 0);
    let sent = wait_owned(&a.cq, 2);
    assert!(sent.iter().map(|done| (done.user, done.is_recv, done.ok)).eq([1, 2].map(|n| (
        n,
        false,
        Ok(())
    ))));
    assert_eq!(sent[0].buffers.len(), 1);
    assert_eq!(sent[0].buffers[0][..3000], data);
    let received = wait_owned(&b.cq, 2);
    let told: Vec<_> =
        received.iter().map(|done| (done.user, done.is_recv, done.len, done.imm)).collect();
    assert_eq!(told, [(10, true, 3000, None), (11, true, 0, Some(7))]);
    assert_eq!(received[0].bytes(), data);
    assert_eq!(received[0].buffers[0].len(), SIZE);
    drop((sent, received));
    assert_eq!(pool.available(), 4);
}

#[test]
fn memory_is_written_and_read_from_afar() {
    let bed = Bed::new();
    let (mut a, mut b) = owned_pair(&bed);
    let pool = pool(&bed, 4);
    let far = bed.pd().allocate_shared(SIZE, AccessFlags::PERMISSIVE).unwrap();
    b.qp.post_recv(9, take(&pool)).unwrap();
    let mut batch = a.qp.start_send();
    batch.op().unsignaled().write(1, filled(&pool, b"over there"), 10, far.remote());
    batch.op().imm(5).write(2, filled(&pool, b"!"), 1, far.remote().slice(10..));
    batch.op().fenced().read(3, take(&pool), 11, far.remote());
    batch.submit().unwrap();
    let done = wait_owned(&a.cq, 2);
    assert_eq!((done[0].user, done[0].buffers.len()), (2, 2));
    assert_eq!((done[1].user, done[1].ok), (3, Ok(())));
    assert_eq!(&done[1].buffers[0][..11], b"over there!");
    assert_eq!(wait_owned(&b.cq, 1)[0].user, 9);
    drop(done);
    assert_eq!(pool.available(), 4);
}

#[test]
fn unsignaled_sends_come_back_with_a_later_one_in_order() {
    let bed = Bed::new();
    let (mut a, mut b) = owned_pair(&bed);
    let (pool, count) = (pool(&bed, 32), 16);
    // Many rounds: around the table and around again.
    for round in 0..20 {
        for n in 0..count {
            b.qp.post_recv(n, take(&pool)).unwrap();
        }
        let mut batch = a.qp.start_send();
        for n in 0..count {
            let op = batch.op();
            let op = if n % 5 == 4 || n == count - 1 { op } else { op.unsignaled() };
            op.send(n, filled(&pool, &[n as u8]), 1);
        }
        batch.submit().unwrap();
        let sent = wait_owned(&a.cq, 4);
        assert!(sent.iter().map(|done| done.user).eq([4, 9, 14, 15]));
        let mut expected = 0;
        for done in &sent {
            // Its own first, then the earlier ones from the first.
            let first: Vec<u8> = done.buffers.iter().map(|buffer| buffer[0]).collect();
            let earlier = expected..done.user as u8;
            assert!(
                first.iter().copied().eq([done.user as u8].into_iter().chain(earlier)),
                "{first:?}"
            );
            expected = done.user as u8 + 1;
        }
        assert_eq!(wait_owned(&b.cq, count as usize).len(), 16, "round {round}");
        // Those that nobody takes go home as well.
        drop(sent);
        assert_eq!(pool.available(), 32);
    }
}

#[test]
fn what_is_not_taken_goes_back_to_its_pool() {
    let bed = Bed::new();
    let (mut a, mut b) = owned_pair(&bed);
    let pool = pool(&bed, 4);
    for _ in 0..3 {
        b.qp.post_recv(1, take(&pool)).unwrap();
        b.qp.post_recv(2, take(&pool)).unwrap();
        let mut batch = a.qp.start_send();
        batch.op().unsignaled().send(3, take(&pool), 8);
        batch.op().send(4, take(&pool), 8);
        batch.submit().unwrap();
        for (cq, count) in [(&a.cq, 1), (&b.cq, 2)] {
            let mut seen = 0;
            eventually("all has completed", || {
                if let Some(mut completions) = cq.poll().unwrap() {
                    while completions.next().is_some() {
                        seen += 1;
                    }
                }
                seen == count
            });
        }
        assert_eq!(pool.available(), 4);
    }
}

#[test]
fn a_failure_gives_each_buffer_back_with_its_status() {
    let bed = Bed::new();
    let (mut a, b) = owned_pair_with::<Rc>(&bed, |builder| builder.set_rnr_retry(0));
    let pool = pool(&bed, 8);
    for n in 0..3 {
        a.qp.post_recv(n, take(&pool)).unwrap();
    }
    // The peer has posted nothing.
    let mut batch = a.qp.start_send();
    for n in 10..15 {
        batch.op().unsignaled().send(n, filled(&pool, &[n as u8]), 4);
    }
    batch.submit().unwrap();
    assert_eq!(pool.available(), 0);
    let done = wait_owned(&a.cq, 8);
    let (received, sent): (Vec<_>, Vec<_>) = done.iter().partition(|done| done.is_recv);
    assert_eq!(sent[0].status(), WcStatus::RNR_RETRY_EXC_ERR);
    assert!(sent[1..].iter().chain(&received).all(|done| done.status() == WcStatus::WR_FLUSH_ERR));
    assert!(sent.iter().map(|done| done.user).eq(10..15));
    assert!(received.iter().map(|done| done.user).eq(0..3));
    assert!(sent
        .iter()
        .all(|done| done.buffers.len() == 1 && done.buffers[0][0] == done.user as u8));
    drop(done);
    assert_eq!(pool.available(), 8);
    drop(b);
}

#[test]
fn a_drain_returns_all_that_is_posted() {
    let bed = Bed::new();
    let (mut a, mut b) = owned_pair_with::<Rc>(&bed, |builder| builder.set_rnr_retry(7));
    let pool = pool(&bed, 16);
    b.qp.post_recv(0, take(&pool)).unwrap();
    for n in 1..4 {
        a.qp.post_recv(n, filled(&pool, &[100 + n as u8])).unwrap();
    }
    let mut batch = a.qp.start_send();
    for n in 1..=5 {
        // The first arrives, the second waits for a receive without end.
        batch.op().send(n, filled(&pool, &[n as u8]), 1);
    }
    batch.submit().unwrap();
    assert_eq!(wait_owned(&b.cq, 1)[0].bytes(), [1]);
    let done = wait_owned(&a.cq, 1);
    assert_eq!((done[0].user, done[0].ok), (1, Ok(())));
    let drained = a.qp.drain(&[&a.cq]).unwrap();
    let first: Vec<u8> = drained.iter().map(|buffer| buffer[0]).collect();
    assert_eq!(first, [2, 3, 4, 5, 101, 102, 103]);
    drop((drained, done));
    assert_eq!(pool.available(), 16);
    assert!(poll_owned(&a.cq).is_empty(), "what was drained does not complete");
    assert!(b.qp.drain(&[&b.cq]).unwrap().is_empty());
}

#[test]
fn a_drain_takes_the_queues_that_may_be_polled() {
    let bed = Bed::new();
    let pool = pool(&bed, 4);
    let (a, b) = (owned_cq(&bed), owned_cq(&bed));
    let builder = || bed.pd().create_owned_qp::<Rc>(&a, &b, PORT).unwrap();
    let qp = builder().set_gid_index(bed.gid_index()).build().unwrap();
    let mut qp = qp.init().unwrap();
    qp.post_recv(1, take(&pool)).unwrap();
    let others = owned_cq(&bed);
    for queues in [&[][..], &[&a], &[&b], &[&a, &others]] {
        let failed = qp.drain(queues).unwrap_err();
        assert!(matches!(failed.error, Error::CompletionQueueNeeded), "{}", failed.error);
        qp = failed.resource;
    }
    // A forgotten poll is one that goes on: nobody can say what it reads.
    assert_eq!(pool.available(), 3);
    drop(a);
    assert_eq!(qp.drain(&[&b]).unwrap().len(), 1);
    assert_eq!(pool.available(), 4);
    // With all queues gone nobody polls.
    let mut qp = initialised(&bed, &owned_cq(&bed));
    qp.post_recv(1, take(&pool)).unwrap();
    assert_eq!(qp.drain(&[]).unwrap().len(), 1);
    assert_eq!(pool.available(), 4);
}

fn initialised(bed: &Bed, cq: &OwnedCompletionQueue) -> OwnedQueuePair<Rc, ibverbs::Init> {
    prepare_owned::<Rc>(bed, cq, |builder| builder).init().unwrap()
}

#[test]
fn buffers_go_home_when_their_queue_pair_is_gone() {
    let bed = Bed::new();
    let pool = pool(&bed, 6);
    let post = |(a, b): (OwnedSide, OwnedSide)| {
        let (mut a, b) = (a, b);
        a.qp.post_recv(1, take(&pool)).unwrap();
        let mut batch = a.qp.start_send();
        batch.op().unsignaled().send(2, take(&pool), 1);
        batch.op().send(3, take(&pool), 1);
        batch.submit().unwrap();
        assert_eq!(pool.available(), 3);
        (a, b)
    };
    // Closed: at the next poll of its queue.
    let (a, b) = post(owned_pair(&bed));
    a.qp.close().unwrap();
    drop(poll_owned(&a.cq));
    assert_eq!(pool.available(), 6);
    drop(b);
    // Dropped.
    let (a, b) = post(owned_pair(&bed));
    drop(a.qp);
    drop(poll_owned(&a.cq));
    assert_eq!(pool.available(), 6);
    drop(b);
    // The completion queue first.
    let (a, b) = post(owned_pair(&bed));
    drop(a.cq);
    assert_eq!(pool.available(), 3);
    drop(a.qp);
    assert_eq!(pool.available(), 6);
    drop(b);
    // Reset.
    let (a, b) = post(owned_pair(&bed));
    let mut qp = a.qp.reset().unwrap().init().unwrap();
    drop(poll_owned(&a.cq));
    assert_eq!(pool.available(), 6);
    qp.post_recv(4, take(&pool)).unwrap();
    assert_eq!(qp.drain(&[&a.cq]).unwrap().len(), 1);
    drop(b);
    // Within a poll: the queue pair is destroyed when that ends.
    let (mut a, b) = post(owned_pair(&bed));
    fail(&mut a.qp);
    eventually("something was flushed", || a.cq.poll().unwrap().is_some());
    let mut qp = Some(a.qp);
    let mut found = 0;
    eventually("the poll has dropped it", || {
        if let Some(mut completions) = a.cq.poll().unwrap() {
            drop(qp.take());
            while completions.next().is_some() {
                found += 1;
            }
        }
        qp.is_none()
    });
    assert!(found <= 3);
    drop(poll_owned(&a.cq));
    assert_eq!(pool.available(), 6);
    drop(b);
    // The pool itself first, and all at once.
    let (a, b) = post(owned_pair(&bed));
    drop(pool);
    drop((a, b));
}

/// Forgets a queue pair that has the one buffer of the pool. (`leaks.txt` names this function.)
#[inline(never)]
fn queue_pair_that_is_leaked_on_purpose(bed: &Bed) -> (BufferPool, OwnedCompletionQueue) {
    let pool = pool(bed, 1);
    let (mut a, _b) = owned_pair(bed);
    a.qp.post_recv(1, take(&pool)).unwrap();
    forget(a.qp);
    (pool, a.cq)
}

#[test]
fn what_is_forgotten_is_neither_freed_nor_handed_out() {
    let bed = Bed::new();
    let pool = pool(&bed, 8);
    let (leaked, cq) = queue_pair_that_is_leaked_on_purpose(&bed);
    drop(poll_owned(&cq));
    drop(cq);
    assert_eq!(leaked.available(), 0);
    // A completion that nothing is taken from.
    let (mut a, mut b) = owned_pair(&bed);
    b.qp.post_recv(1, take(&pool)).unwrap();
    a.qp.send(2, take(&pool), 1).unwrap();
    assert_eq!(wait_owned(&a.cq, 1)[0].buffers.len(), 1);
    eventually("it was forgotten", || {
        let Some(mut completions) = b.cq.poll().unwrap() else { return false };
        let _ = completions.next().unwrap();
        true
    });
    assert_eq!(pool.available(), 8);
    // A batch: what was to be sent is not, and comes back to the pool.
    let mut batch = a.qp.start_send();
    batch.op().send(3, filled(&pool, b"x"), 1);
    forget(batch);
    b.qp.post_recv(4, take(&pool)).unwrap();
    a.qp.send(5, filled(&pool, b"y"), 1).unwrap();
    let sent = wait_owned(&a.cq, 1);
    assert_eq!((sent[0].user, sent[0].buffers.len()), (5, 1));
    assert_eq!(wait_owned(&b.cq, 1)[0].bytes(), b"y");
    drop(sent);
    assert_eq!(pool.available(), 8);
    // A poll: the queue cannot be polled any more, and its queue pairs cannot be destroyed before it.
    a.qp.post_recv(6, take(&pool)).unwrap();
    fail(&mut a.qp);
    eventually("a poll was forgotten", || a.cq.poll().unwrap().map(forget).is_some());
    assert!(matches!(a.cq.poll(), Err(Error::PollInProgress)));
    let failed = a.qp.drain(&[&a.cq]).unwrap_err();
    assert!(matches!(failed.error, Error::PollInProgress), "{}", failed.error);
    drop(a.cq);
    failed.resource.close().unwrap();
}

#[test]
fn completions_from_before_a_reset_are_passed_over() {
    let bed = Bed::new();
    let pool = pool(&bed, 64);
    let (mut a, mut b) = owned_pair(&bed);
    // They complete, and are not polled.
    for n in 0..4 {
        b.qp.post_recv(n, take(&pool)).unwrap();
        a.qp.send(n, filled(&pool, b"old"), 3).unwrap();
    }
    assert_eq!(wait_owned(&b.cq, 4).len(), 4);
    let OwnedSide { qp, cq } = a;
    let prepared = qp.reset().unwrap();
    let (of_a, b_again) = (prepared.endpoint().unwrap(), b.qp.reset().unwrap());
    let of_b = b_again.endpoint().unwrap();
    let (mut qp, mut other) = (prepared.handshake(of_b).unwrap(), b_again.handshake(of_a).unwrap());
    other.post_recv(20, take(&pool)).unwrap();
    qp.send(21, filled(&pool, b"new"), 3).unwrap();
    assert_eq!(wait_owned(&b.cq, 1)[0].bytes(), b"new");
    let mut users = Vec::new();
    eventually("the new one has completed", || {
        users.extend(poll_owned(&cq).iter().map(|done| done.user));
        users.contains(&21)
    });
    assert_eq!(users.last(), Some(&21));
    assert_eq!(pool.available(), 64);
}

#[test]
fn a_full_queue_gives_the_buffer_back() {
    let bed = Bed::new();
    let cq = owned_cq(&bed);
    let qp = prepare_owned::<Rc>(&bed, &cq, |builder| builder.set_max_recv_wr(4));
    let mut qp = qp.init().unwrap();
    let pool = pool(&bed, 300);
    let mut posted = 0;
    let failed = loop {
        match qp.post_recv(posted, filled(&pool, &[posted as u8])) {
            Ok(()) => posted += 1,
            Err(failed) => break failed,
        }
    };
    let full = matches!(failed.error, Error::QueueFull { .. } | Error::PostReceive { .. });
    assert!(full, "{}", failed.error);
    assert_eq!(failed.resource.unwrap()[0], posted as u8);
    assert!(posted >= 4);
    assert_eq!(pool.available() as u64, 300 - posted);
    let mut more: Vec<_> = (0..40).map(|n| (n, take(&pool))).collect();
    assert!(qp.post_recv_all(&mut more).is_err());
    assert!(more.iter().map(|(user, _)| *user).eq(0..40));
    drop(more);
    assert_eq!(qp.drain(&[&cq]).unwrap().len() as u64, posted);
}

#[test]
fn many_receives_are_posted_at_once_in_order() {
    let bed = Bed::new();
    let (mut a, mut b) = owned_pair(&bed);
    let pool = pool(&bed, 101);
    let mut receives: Vec<_> = (0..100).map(|n| (n, take(&pool))).collect();
    b.qp.post_recv_all(&mut receives).unwrap();
    assert!(receives.is_empty());
    for n in 0..100u8 {
        a.qp.send(1, filled(&pool, &[n]), 1).unwrap();
        assert_eq!(wait_owned(&a.cq, 1)[0].ok, Ok(()));
    }
    let received = wait_owned(&b.cq, 100);
    assert!(received
        .iter()
        .map(|done| (done.user, done.bytes()[0]))
        .eq((0..100).map(|n| (n, n as u8))));
    let addresses: HashSet<_> = received.iter().map(|done| done.buffers[0].as_ptr()).collect();
    assert_eq!(addresses.len(), 100);
}

#[test]
fn what_is_refused_comes_back() {
    let bed = Bed::new();
    let pool = pool(&bed, 4);
    let cq = owned_cq(&bed);
    let prepared = prepare_owned::<Rc>(&bed, &cq, |builder| builder);
    let mut manual = prepared.into_manual();
    let failed = manual.send(1, take(&pool), 1).unwrap_err();
    assert!(matches!(failed.error, Error::NotReadyToSend), "{}", failed.error);
    assert!(failed.resource.is_some());
    drop(failed);

    let (mut a, mut b) = owned_pair(&bed);
    let failed = a.qp.send(1, take(&pool), SIZE + 1).unwrap_err();
    assert!(matches!(failed.error, Error::OutOfBounds { end: 4097, len: 4096, .. }));
    drop(failed);
    // The first reason counts, and all come back in order.
    let far = bed.pd().allocate_shared(8, AccessFlags::PERMISSIVE).unwrap();
    let mut batch = a.qp.start_send();
    batch.op().send(1, filled(&pool, b"1"), 1);
    batch.op().write(2, filled(&pool, b"2"), 9, far.remote());
    batch.op().send(3, filled(&pool, b"3"), 1);
    let failed = batch.submit().unwrap_err();
    assert!(matches!(failed.error, Error::BeyondRemote { bytes: 9, len: 8 }), "{}", failed.error);
    let first: Vec<u8> = failed.resource.iter().map(|buffer| buffer[0]).collect();
    assert_eq!(first, *b"123");
    drop(failed);
    // One that is dropped posts nothing.
    let mut batch = a.qp.start_send();
    batch.op().send(1, take(&pool), 1);
    drop(batch);
    assert_eq!(pool.available(), 4);
    b.qp.post_recv(5, take(&pool)).unwrap();
    a.qp.send(6, filled(&pool, b"works"), 5).unwrap();
    assert_eq!(wait_owned(&b.cq, 1)[0].bytes(), b"works");
    assert_eq!(wait_owned(&a.cq, 1)[0].user, 6);

    // Of another domain.
    let stranger = bed.ctx().alloc_pd().unwrap().buffer_pool(2, 64).unwrap();
    let failed = a.qp.send(1, take(&stranger), 1).unwrap_err();
    assert!(matches!(failed.error, Error::ProtectionDomainMismatch { what: "buffer" }));
    let failed = a.qp.post_recv(1, failed.resource.unwrap()).unwrap_err();
    assert!(matches!(failed.error, Error::ProtectionDomainMismatch { what: "buffer" }));
    let mut mixed = vec![(1, take(&pool)), (2, take(&stranger)), (3, take(&pool))];
    assert!(matches!(a.qp.post_recv_all(&mut mixed), Err(Error::ProtectionDomainMismatch { .. })));
    assert!(mixed.iter().map(|(user, _)| *user).eq([2, 3]));
}

#[test]
fn queues_of_another_device_are_refused() {
    let bed = Bed::new();
    let other = other_context(bed.ctx()).create_cq(4).build_owned().unwrap();
    let own = owned_cq(&bed);
    for (send, recv) in [(&own, &other), (&other, &own)] {
        let error = bed.pd().create_owned_qp::<Rc>(send, recv, PORT).unwrap_err();
        assert!(matches!(error, Error::DeviceMismatch { .. }), "{error}");
    }
    let domain = bed.ctx().alloc_pd().unwrap();
    let srq = domain.create_srq(4).build_owned().unwrap();
    let builder = bed.pd().create_owned_qp::<Rc>(&own, &own, PORT).unwrap().set_srq(&srq);
    assert!(matches!(builder.build().unwrap_err(), Error::ProtectionDomainMismatch { .. }));
}

#[test]
fn pools_say_what_they_have() {
    let bed = Bed::new();
    for (count, size) in [(0, 1), (1, 0), (usize::MAX, 2), (1, 1 << 33), (usize::MAX, usize::MAX)] {
        let error = bed.pd().buffer_pool(count, size).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
    }
    let pool = bed.pd().buffer_pool(3, 100).unwrap();
    assert_eq!((pool.count(), pool.buffer_size(), pool.available()), (3, 100, 3));
    let mut buffers: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    assert_eq!(buffers.len(), 3);
    for (n, buffer) in buffers.iter_mut().enumerate() {
        assert_eq!(**buffer, [0; 100]);
        buffer.fill(n as u8);
    }
    // They outlive the pool, and do not overlap.
    drop(pool);
    let buffers = std::thread::spawn(move || buffers).join().unwrap();
    assert!(buffers.iter().enumerate().all(|(n, buffer)| **buffer == [n as u8; 100]));
}

#[test]
fn datagrams_are_sent_and_received() {
    let bed = Bed::new();
    let (cq_a, cq_b) = (owned_cq(&bed), owned_cq(&bed));
    let mut a = prepare_owned::<Ud>(&bed, &cq_a, |builder| builder).activate(QKEY).unwrap();
    let mut b = prepare_owned::<Ud>(&bed, &cq_b, |builder| builder).activate(QKEY).unwrap();
    let pool = pool(&bed, 4);
    let of_b = b.endpoint().unwrap();
    let ah = bed.pd().create_ah(&a.address_of(&of_b).unwrap()).unwrap();
    b.post_recv(1, take(&pool)).unwrap();
    let mut batch = a.start_send();
    batch.to(&ah, of_b.qp_num(), QKEY).send(2, filled(&pool, b"to you"), 6);
    batch.submit().unwrap();
    assert_eq!(wait_owned(&cq_a, 1)[0].user, 2);
    assert_eq!(&wait_owned(&cq_b, 1)[0].bytes()[GRH..], b"to you");
    // A handle of another domain.
    let domain = bed.ctx().alloc_pd().unwrap();
    let stranger = domain.create_ah(&a.address_of(&of_b).unwrap()).unwrap();
    let mut batch = a.start_send();
    batch.to(&stranger, of_b.qp_num(), QKEY).send(3, take(&pool), 1);
    let failed = batch.submit().unwrap_err();
    assert!(matches!(failed.error, Error::ProtectionDomainMismatch { what: "address handle" }));
    assert_eq!(failed.resource.len(), 1);
}

#[test]
fn shared_receives_come_back_from_whoever_took_them() {
    let bed = Bed::new();
    let pool = pool(&bed, 64);
    let mut srq = bed.pd().create_srq(32).build_owned().unwrap();
    let receivers = [owned_cq(&bed), owned_cq(&bed)];
    let senders = owned_cq(&bed);
    let mut receives: Vec<_> = (0..20).map(|n| (n, take(&pool))).collect();
    srq.post_recv_all(&mut receives).unwrap();
    let mut pairs: Vec<_> = receivers
        .iter()
        .map(|cq| {
            let a = prepare_owned::<Rc>(&bed, &senders, |builder| builder);
            let builder = bed.pd().create_owned_qp::<Rc>(cq, cq, PORT).unwrap();
            let b = builder.set_gid_index(bed.gid_index()).set_srq(&srq).build().unwrap();
            let (of_a, of_b) = (a.endpoint().unwrap(), b.endpoint().unwrap());
            (a.handshake(of_b).unwrap(), b.handshake(of_a).unwrap())
        })
        .collect();
    let failed = pairs[0].1.post_recv(1, take(&pool)).unwrap_err();
    assert!(matches!(failed.error, Error::NoReceiveQueue), "{}", failed.error);
    drop(failed);
    let mut kept = Vec::new();
    // More than it has places for, in turn and not in order.
    for n in 0..100 {
        let from = n * 7 % 3 % 2;
        pairs[from].0.send(1, filled(&pool, &[n as u8]), 1).unwrap();
        assert_eq!(wait_owned(&senders, 1)[0].ok, Ok(()));
        let mut received = wait_owned(&receivers[from], 1).remove(0);
        assert_eq!(received.bytes(), [n as u8]);
        // Some are kept for a while.
        let buffer = received.buffers.remove(0);
        if n % 3 == 0 {
            kept.push((received.user, buffer));
        } else {
            srq.post_recv(received.user, buffer).unwrap();
        }
        if kept.len() == 10 {
            srq.post_recv_all(&mut kept).unwrap();
        }
    }
    let here = kept.len();
    drop(kept);
    // Its queue pairs have no right to the receives.
    for (a, b) in pairs {
        assert!(b.drain(&[&receivers[0], &receivers[1]]).unwrap().is_empty());
        drop(a);
    }
    let failed = srq.drain(&[&receivers[0]]).unwrap_err();
    assert!(matches!(failed.error, Error::CompletionQueueNeeded), "{}", failed.error);
    let drained = failed.resource.drain(&[&receivers[0], &receivers[1]]).unwrap();
    assert_eq!(drained.len(), 20 - here);
    drop((drained, poll_owned(&senders)));
    assert_eq!(pool.available(), 64);
}

#[test]
fn one_thread_posts_and_another_polls() {
    const COUNT: u64 = 2000;
    let bed = Bed::new();
    let (mut a, mut b) = owned_pair(&bed);
    let (sends, receives) = (pool(&bed, 8), pool(&bed, 32));
    let mut first: Vec<_> = (0..32).map(|n| (n, take(&receives))).collect();
    b.qp.post_recv_all(&mut first).unwrap();
    let (sends, cq) = (&sends, a.cq);
    let deadline = Instant::now() + DEADLINE;
    thread::scope(|scope| {
        let poster = scope.spawn(move || {
            for n in 0..COUNT {
                let mut buffer = loop {
                    if let Some(buffer) = sends.take() {
                        break buffer;
                    }
                    assert!(Instant::now() < deadline, "no buffer has come back");
                    thread::yield_now();
                };
                buffer[..8].copy_from_slice(&n.to_le_bytes());
                let mut batch = a.qp.start_send();
                let op = batch.op();
                let op = if n % 3 == 2 || n == COUNT - 1 { op } else { op.unsignaled() };
                op.send(n, buffer, 8);
                batch.submit().unwrap();
            }
            a.qp
        });
        let poller = scope.spawn(move || {
            let mut back = 0;
            while back < COUNT {
                assert!(Instant::now() < deadline, "only {back} have come back");
                for done in poll_owned(&cq) {
                    assert_eq!(done.ok, Ok(()));
                    back += done.buffers.len() as u64;
                }
                thread::yield_now();
            }
        });
        let mut expected = 0u64;
        while expected < COUNT {
            assert!(Instant::now() < deadline, "only {expected} have arrived");
            for mut done in poll_owned(&b.cq) {
                assert_eq!(done.bytes(), expected.to_le_bytes());
                expected += 1;
                b.qp.post_recv(done.user, done.buffers.remove(0)).unwrap();
            }
            thread::yield_now();
        }
        // The queue pair lives until all is back.
        poller.join().unwrap();
        poster.join().unwrap().close().unwrap();
    });
    assert_eq!(sends.available(), 8);
}

#[test]
fn a_queue_pair_of_this_level_says_what_others_say() {
    let bed = Bed::new();
    let (mut a, _b) = owned_pair(&bed);
    assert!(a.qp.capacity().max_send_wr >= 128);
    assert!(!a.qp.send_ops().is_empty());
    let attr = a.qp.query(QueuePairAttrMask::STATE).unwrap();
    assert_eq!(attr.state(), Some(QpState::RTS));
    assert!(format!("{:?}", a.qp).contains("Rc"));
    let in_use = a.cq.close().unwrap_err();
    assert!(matches!(in_use.error, Error::InUse { .. }));
    a.qp.close().unwrap();
    in_use.resource.close().unwrap();
}
