//! Shared receive queues: who takes which receive, limits and resizing, and how they end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ibverbs::{
    Error, QpState, QueuePair, QueuePairAttr, Rc, RecvChain, RecvRequest, Result, RnrTimer,
    SharedReceiveQueue, Uc, WcStatus,
};
use ibverbs_tests::{
    activated, activated_with, assert_silent, connect, eventually, other_context, pattern,
    post_recv, prepare, prepare_on, submit, wait, wait_ok, wait_one, way, Bed, Mem, Prepared, Side,
    GRH, PORT, QKEY,
};

/// Posts receives into slices of the queue's own bed.
fn post<'a>(srq: &SharedReceiveQueue, requests: impl AsMut<[RecvRequest<'a>]>) -> Result<()> {
    // SAFETY: in this package, slices come from a `Mem`, whose bed is dropped after the queue, and there are no
    // references to its bytes.
    unsafe { srq.post_recv(requests) }
}

/// Posts a receive of the whole memory.
#[track_caller]
fn post_one(srq: &SharedReceiveQueue, wr_id: u64, mem: &Mem) {
    post(srq, [RecvRequest::new(wr_id, &[mem.slice(..)])]).unwrap();
}

/// A sender, and a receiver that takes its receives from the shared queue.
fn pair_on<T: ibverbs::Connected>(
    bed: &Bed,
    srq: &SharedReceiveQueue,
) -> (Prepared<T>, Prepared<T>) {
    let sender = prepare::<T>(bed, |builder| builder.set_max_inline_data(64));
    let receiver = prepare_on(bed, srq);
    (sender, receiver)
}

/// A connected sender and receiver.
fn connected(bed: &Bed, srq: &SharedReceiveQueue) -> (Side, Side) {
    let (a, b) = pair_on::<Rc>(bed, srq);
    connect(a, b)
}

/// Sends a message from one side to the other, and returns which receive it took.
#[track_caller]
fn send(a: &mut Side, b: &Side, mem: &Mem, data: &[u8]) -> u64 {
    mem.write(0, data);
    let slice = mem.slice(..data.len());
    submit(&mut a.qp, |batch| batch.op().signaled().send(1, &[slice])).unwrap();
    assert_eq!(wait_one(&a.send_cq, 1).ok, Ok(()));
    let received = wait_ok(&b.recv_cq, 1).remove(0);
    assert_eq!((received.qp_num, received.len as usize), (b.qp.qp_num(), data.len()));
    received.wr_id
}

/// The exact number of receives that fit into the queue.
fn depth(srq: &SharedReceiveQueue) -> usize {
    srq.query().unwrap().max_wr as usize
}

#[test]
fn queue_pairs_take_receives_in_the_order_of_their_messages() {
    let bed = Bed::new();
    let srq = bed.pd().create_srq(64).build().unwrap();
    let mem = bed.mem(32 * 128);
    let prepared: Vec<_> = (0..4).map(|_| pair_on::<Rc>(&bed, &srq)).collect();
    // Before any of them is connected.
    let slices: Vec<_> = (0..32).map(|n| [mem.slice(n * 128..(n + 1) * 128)]).collect();
    let requests = slices.iter().zip(0..).map(|(slice, id)| RecvRequest::new(id, slice));
    post(&srq, requests.collect::<Vec<_>>()).unwrap();
    let mut pairs: Vec<_> = prepared.into_iter().map(|(a, b)| connect(a, b)).collect();
    let from = bed.mem(128);
    for n in 0..32 {
        let (a, b) = &mut pairs[n * 7 % 4];
        let data = pattern(n * 4, n as u64);
        assert_eq!(send(a, b, &from, &data), n as u64);
        assert_eq!(mem.read(n * 128..n * 128 + data.len()), data);
        assert_eq!(mem.read(n * 128 + data.len()..(n + 1) * 128), vec![0; 128 - data.len()]);
    }
    for (_, b) in &pairs {
        assert_eq!(b.qp.capacity().max_recv_wr, 0);
        assert_silent(&b.recv_cq);
    }
}

#[test]
fn messages_of_many_senders_at_once_take_each_receive_once() {
    let bed = Bed::new();
    const MESSAGES: usize = 48;
    let srq = bed.pd().create_srq(4 * MESSAGES as u32).build().unwrap();
    let mem = bed.mem(4 * MESSAGES * 64);
    let slices: Vec<_> = (0..4 * MESSAGES).map(|n| [mem.slice(n * 64..(n + 1) * 64)]).collect();
    let requests = slices.iter().zip(0..).map(|(slice, id)| RecvRequest::new(id, slice));
    post(&srq, requests.collect::<Vec<_>>()).unwrap();
    let mut pairs: Vec<_> = (0..4).map(|_| connected(&bed, &srq)).collect();
    for (number, (a, _)) in pairs.iter_mut().enumerate() {
        submit(&mut a.qp, |batch| {
            for n in 0..MESSAGES {
                let data = pattern(64, (number * MESSAGES + n) as u64);
                batch.op().imm(n as u32).send(n as u64, &data[..]);
            }
        })
        .unwrap();
    }
    let mut taken = [false; 4 * MESSAGES];
    for (number, (_, b)) in pairs.iter().enumerate() {
        for (n, wc) in wait_ok(&b.recv_cq, MESSAGES).into_iter().enumerate() {
            // In order for each sender, whatever receives they took.
            assert_eq!((wc.qp_num, wc.imm), (b.qp.qp_num(), Some(n as u32)));
            let place = wc.wr_id as usize;
            assert!(!std::mem::replace(&mut taken[place], true), "{place} was taken twice");
            let data = pattern(64, (number * MESSAGES + n) as u64);
            assert_eq!(mem.read(place * 64..(place + 1) * 64), data);
        }
    }
}

#[test]
fn queue_pairs_of_every_transport_share_a_queue() {
    let bed = Bed::new();
    let srq = bed.pd().create_srq(16).build().unwrap();
    let (mem, from) = (bed.mem(3 * 128), bed.mem(128));
    let slices: Vec<_> = (0..3).map(|n| [mem.slice(n * 128..(n + 1) * 128)]).collect();
    let requests = slices.iter().zip(0..).map(|(slice, id)| RecvRequest::new(id, slice));
    post(&srq, requests.collect::<Vec<_>>()).unwrap();

    let (mut a, b) = connected(&bed, &srq);
    assert_eq!(send(&mut a, &b, &from, b"reliable"), 0);
    assert_eq!(mem.read(..8), b"reliable");

    let mut a = activated(&bed, QKEY);
    let Prepared { qp, send_cq, recv_cq, bed } = prepare_on(&bed, &srq);
    let b = Side { qp: qp.activate(QKEY).unwrap(), send_cq, recv_cq, bed };
    let (to_b, number) = (way(&a, &b), b.qp.qp_num());
    submit(&mut a.qp, |batch| batch.to(&to_b, number, QKEY).send(1, b"datagram")).unwrap();
    let received = wait_ok(&b.recv_cq, 1).remove(0);
    assert_eq!((received.wr_id, received.qp_num), (1, number));
    assert_eq!(received.sender.src_qp, a.qp.qp_num());
    assert_eq!(mem.read(128 + GRH..128 + GRH + 8), b"datagram");

    let (a, b) = pair_on::<Uc>(&b.bed, &srq);
    let (mut a, b) = connect(a, b);
    submit(&mut a.qp, |batch| batch.op().send(1, b"unreliable")).unwrap();
    let received = wait_one(&b.recv_cq, 2);
    assert_eq!((received.ok, received.qp_num), (Ok(()), b.qp.qp_num()));
    assert_eq!(mem.read(256..266), b"unreliable");
}

#[test]
fn a_write_with_immediate_data_takes_a_receive_as_well() {
    let bed = Bed::new();
    let srq = bed.pd().create_srq(4).build().unwrap();
    let (mut a, b) = connected(&bed, &srq);
    let mem = bed.mem(8);
    post(&srq, [RecvRequest::new(5, &[])]).unwrap();
    submit(&mut a.qp, |batch| batch.op().imm(7).write(1, b"immediat", mem.remote())).unwrap();
    let received = wait_one(&b.recv_cq, 5);
    assert_eq!((received.ok, received.imm), (Ok(()), Some(7)));
    assert_eq!(mem.read(..), b"immediat");
}

#[test]
fn a_full_queue_tells_how_many_it_took() {
    let bed = Bed::new();
    let srq = bed.pd().create_srq(10).build().unwrap();
    let (mut a, b) = connected(&bed, &srq);
    let mem = bed.mem(8);
    let (from, slices) = (bed.mem(8), [mem.slice(..)]);
    let depth = depth(&srq);
    assert!(depth >= 10);
    let requests = (0..depth + 5).map(|id| RecvRequest::new(id as u64, &slices));
    let error = post(&srq, requests.collect::<Vec<_>>()).unwrap_err();
    let expected = matches!(error, Error::PostReceive { verb: "ibv_post_srq_recv", accepted, requested, .. }
        if accepted == depth && requested == depth + 5);
    assert!(expected, "{error}, depth {depth}");
    assert_eq!(error.os_error(), Some(libc::ENOMEM));
    assert!(error.to_string().contains("the queue is full"), "{error}");

    // None fits; when two are gone, two do.
    let more = || [100, 101, 102].map(|id| RecvRequest::new(id, &slices));
    let error = post(&srq, more()).unwrap_err();
    assert!(matches!(error, Error::PostReceive { accepted: 0, requested: 3, .. }), "{error}");
    assert_eq!(send(&mut a, &b, &from, b"1"), 0);
    assert_eq!(send(&mut a, &b, &from, b"2"), 1);
    let error = post(&srq, more()).unwrap_err();
    assert!(matches!(error, Error::PostReceive { accepted: 2, requested: 3, .. }), "{error}");
    let rest = (2..depth as u64).chain([100, 101]);
    for expected in rest {
        assert_eq!(send(&mut a, &b, &from, b"3"), expected);
    }
}

#[test]
fn receives_have_as_many_scatter_entries_as_were_asked_for() {
    let bed = Bed::new();
    let srq = bed.pd().create_srq(4).set_max_sge(3).build().unwrap();
    assert_eq!(srq.max_sge(), 3);
    assert!(srq.query().unwrap().max_sge >= 3);
    let (mut a, b) = connected(&bed, &srq);
    let (mem, from) = (bed.mem(64), bed.mem(64));
    let three = [mem.slice(..5), mem.slice(20..30), mem.slice(40..60)];
    let four = [mem.slice(..4); 4];
    let requests = [RecvRequest::new(1, &three), RecvRequest::new(2, &four)];
    let error = post(&srq, requests).unwrap_err();
    let expected =
        matches!(error, Error::TooManyScatterEntries { queue: "receive", entries: 4, granted: 3 });
    assert!(expected, "{error}");
    // The first was not posted either.
    post(&srq, [RecvRequest::new(3, &three), RecvRequest::new(4, &three[..1])]).unwrap();
    assert_eq!(send(&mut a, &b, &from, b"abcdefghijklmnopqrst"), 3);
    assert_eq!(mem.read(..5), b"abcde");
    assert_eq!(mem.read(20..30), b"fghijklmno");
    assert_eq!(mem.read(40..45), b"pqrst");
    assert_eq!(mem.read(45..), [0; 19]);
    assert_eq!(send(&mut a, &b, &from, b"fits"), 4);
}

#[test]
fn a_message_that_is_too_long_fails_its_own_queue_pair_only() {
    let bed = Bed::new();
    let srq = bed.pd().create_srq(4).build().unwrap();
    let (mut a, b) = connected(&bed, &srq);
    let (mut other_a, other_b) = connected(&bed, &srq);
    let (small, large, from) = (bed.mem(8), bed.mem(64), bed.mem(64));
    post_one(&srq, 1, &small);
    post_one(&srq, 2, &large);
    submit(&mut a.qp, |batch| batch.op().signaled().send(3, &[from.slice(..9)])).unwrap();
    assert_ne!(wait_one(&a.send_cq, 3).status(), WcStatus::SUCCESS);
    assert_ne!(wait_one(&b.recv_cq, 1).status(), WcStatus::SUCCESS);
    assert_eq!(send(&mut other_a, &other_b, &from, &[7; 64]), 2);
    assert_eq!(large.read(..), [7; 64]);
}

#[test]
fn a_message_that_finds_the_queue_empty_arrives_when_there_is_a_receive() {
    let bed = Bed::new();
    let srq = bed.pd().create_srq(4).build().unwrap();
    let (mut a, b) = connected(&bed, &srq);
    let mem = bed.mem(8);
    submit(&mut a.qp, |batch| batch.op().signaled().send(1, b"patience")).unwrap();
    assert_silent(&a.send_cq);
    post_one(&srq, 2, &mem);
    assert_eq!(wait_one(&a.send_cq, 1).ok, Ok(()));
    assert_eq!(wait_one(&b.recv_cq, 2).ok, Ok(()));
    assert_eq!(mem.read(..), b"patience");

    // Without retries it fails at once.
    let sender = prepare::<Rc>(&bed, |builder| {
        builder.set_rnr_retry(0).set_min_rnr_timer(RnrTimer::at_least(Duration::ZERO))
    });
    let (mut a, _b) = connect(sender, prepare_on(&bed, &srq));
    submit(&mut a.qp, |batch| batch.op().signaled().send(1, &[mem.slice(..)])).unwrap();
    assert_eq!(wait_one(&a.send_cq, 1).status(), WcStatus::RNR_RETRY_EXC_ERR);
}

#[test]
fn queries_and_limits_tell_what_was_asked_for() {
    let bed = Bed::new();
    let srq = bed.pd().create_srq(10).set_max_sge(2).build().unwrap();
    let attr = srq.query().unwrap();
    assert!(attr.max_wr >= 10 && attr.max_sge >= 2 && attr.limit == 0, "{attr:?}");
    for limit in [1, 9, attr.max_wr, 0] {
        srq.set_limit(limit).unwrap();
        assert_eq!(srq.query().unwrap().limit, limit);
    }
    srq.set_limit(3).unwrap();
    for limit in [attr.max_wr + 1, u32::MAX] {
        let error = srq.set_limit(limit).unwrap_err();
        let expected = matches!(error, Error::Capacity { requested, available, .. }
            if (requested, available) == (limit.into(), attr.max_wr.into()));
        assert!(expected, "{error}");
    }
    assert_eq!(srq.query().unwrap().limit, 3);
}

#[test]
fn queues_that_are_too_large_are_told_with_both_numbers() {
    let bed = Bed::new();
    let device = bed.ctx().query_device().unwrap();
    let (most_wr, most_sge) = (device.max_srq_wr(), device.max_srq_sge());
    for asked in [most_wr + 1, u32::MAX] {
        let error = bed.pd().create_srq(asked).build().unwrap_err();
        let expected = matches!(error, Error::Capacity { requested, available, .. }
            if (requested, available) == (asked.into(), most_wr.into()));
        assert!(expected, "{error}");
        assert!(error.to_string().contains("receives of a shared receive queue"), "{error}");
    }
    for asked in [most_sge + 1, u32::MAX] {
        let error = bed.pd().create_srq(1).set_max_sge(asked).build().unwrap_err();
        let expected = matches!(error, Error::Capacity { requested, available, .. }
            if (requested, available) == (asked.into(), most_sge.into()));
        assert!(expected, "{error}");
    }
    let error = bed.pd().create_srq(0).build().unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { value: 0, .. }), "{error}");
    // What the device says it has can be had.
    let srq = bed.pd().create_srq(most_wr).set_max_sge(1).build().unwrap();
    assert!(srq.query().unwrap().max_wr >= most_wr);
    bed.pd().create_srq(1).set_max_sge(most_sge).build().unwrap();
    // Receives of no entries are receives.
    bed.pd().create_srq(1).set_max_sge(0).build().unwrap();
}

#[test]
fn a_queue_that_is_resized_keeps_its_receives() {
    let bed = Bed::new();
    let mut srq = bed.pd().create_srq(20).build().unwrap();
    let (mut a, b) = connected(&bed, &srq);
    let (mem, from) = (bed.mem(100 * 16), bed.mem(16));
    let slices: Vec<_> = (0..100).map(|n| [mem.slice(n * 16..(n + 1) * 16)]).collect();
    let request = |n: usize| RecvRequest::new(n as u64, &slices[n]);
    let mut receive = |expected: usize| {
        let data = pattern(16, expected as u64);
        assert_eq!(send(&mut a, &b, &from, &data), expected as u64);
        assert_eq!(mem.read(expected * 16..(expected + 1) * 16), data);
    };
    // So that the receives do not begin at the start of the ring.
    post(&srq, (0..15).map(request).collect::<Vec<_>>()).unwrap();
    (0..10).for_each(&mut receive);
    post(&srq, (15..25).map(request).collect::<Vec<_>>()).unwrap();
    srq.resize(60).unwrap();
    assert!(depth(&srq) >= 60);
    post(&srq, (25..70).map(request).collect::<Vec<_>>()).unwrap();
    (10..50).for_each(&mut receive);
    srq.resize(25).unwrap();
    let depth = depth(&srq);
    assert!((25..60).contains(&depth), "{depth}");
    post(&srq, (70..75).map(request).collect::<Vec<_>>()).unwrap();
    (50..75).for_each(&mut receive);
    // It holds exactly what it says.
    let requests: Vec<_> = (0..depth + 1).map(request).collect();
    let error = post(&srq, requests).unwrap_err();
    assert!(matches!(error, Error::PostReceive { accepted, .. } if accepted == depth), "{error}");
    (0..depth).for_each(&mut receive);
}

#[test]
fn a_resize_that_cannot_be_leaves_the_queue_as_it_is() {
    let bed = Bed::new();
    let mut srq = bed.pd().create_srq(60).build().unwrap();
    let (mut a, b) = connected(&bed, &srq);
    let (mem, from) = (bed.mem(8), bed.mem(8));
    let (before, slices) = (srq.query().unwrap(), [mem.slice(..)]);
    post(&srq, (0..40).map(|n| RecvRequest::new(n, &slices)).collect::<Vec<_>>()).unwrap();
    let error = srq.resize(0).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { value: 0, .. }), "{error}");
    let most = bed.ctx().query_device().unwrap().max_srq_wr();
    for asked in [most + 1, u32::MAX] {
        let error = srq.resize(asked).unwrap_err();
        let expected = matches!(error, Error::Capacity { requested, available, .. }
            if (requested, available) == (asked.into(), most.into()));
        assert!(expected, "{error}");
    }
    // Fewer than are in it.
    let error = srq.resize(10).unwrap_err();
    assert!(matches!(error, Error::Resize { verb: "ibv_modify_srq", .. }), "{error}");
    // Below the limit.
    srq.set_limit(50).unwrap();
    let error = srq.resize(45).unwrap_err();
    assert!(matches!(error, Error::Resize { verb: "ibv_modify_srq", .. }), "{error}");
    srq.set_limit(0).unwrap();

    assert_eq!(srq.query().unwrap(), before);
    post(&srq, [RecvRequest::new(40, &slices)]).unwrap();
    for n in 0..41 {
        assert_eq!(send(&mut a, &b, &from, b"unharmed"), n);
    }
}

#[test]
fn a_queue_of_another_domain_or_device_is_refused() {
    let bed = Bed::new();
    let other_pd = bed.ctx().alloc_pd().unwrap();
    let other = Bed::on(other_context(bed.ctx()));
    let cq = bed.ctx().create_cq(1).build().unwrap();
    for srq in [other_pd.create_srq(1).build().unwrap(), other.pd().create_srq(1).build().unwrap()]
    {
        let builder = bed.pd().create_qp::<Rc>(&cq, &cq, PORT).unwrap();
        let error = builder.set_srq(&srq).build().unwrap_err();
        let expected =
            matches!(error, Error::ProtectionDomainMismatch { what: "shared receive queue" });
        assert!(expected, "{error}");
        srq.close().unwrap();
    }
}

#[test]
fn a_queue_pair_with_a_shared_queue_has_no_receive_queue_of_its_own() {
    let bed = Bed::new();
    let srq = bed.pd().create_srq(1).build().unwrap();
    let Prepared { qp, .. } = prepare_on::<Rc>(&bed, &srq);
    assert_eq!((qp.capacity().max_recv_wr, qp.capacity().max_recv_sge), (0, 0));
    let mut qp = qp.init().unwrap();
    let error = post_recv(&mut qp, [RecvRequest::new(1, &[])]).unwrap_err();
    assert!(matches!(error, Error::NoReceiveQueue), "{error}");
    let mut chain = RecvChain::new([RecvRequest::new(1, &[])]);
    // SAFETY: the receive has no memory.
    let error = unsafe { qp.post_chain(&mut chain) }.unwrap_err();
    assert!(matches!(error, Error::NoReceiveQueue), "{error}");
}

#[test]
fn a_queue_in_use_comes_back_and_works() {
    let bed = Bed::new();
    let srq = bed.pd().create_srq(4).build().unwrap();
    let (mut a, b) = connected(&bed, &srq);
    let (mem, from) = (bed.mem(8), bed.mem(8));
    let failed = srq.close().unwrap_err();
    assert!(matches!(failed.error, Error::InUse { resource: "shared receive queue" }), "{failed}");
    let srq = failed.resource;
    post_one(&srq, 1, &mem);
    assert_eq!(send(&mut a, &b, &from, b"in use"), 1);
    b.qp.close().unwrap();
    srq.close().unwrap();
}

#[test]
fn queues_and_queue_pairs_can_be_dropped_in_every_order() {
    let bed = Bed::new();
    let (mem, from) = (bed.mem(8), bed.mem(8));
    for order in 0..6 {
        let srq = bed.pd().create_srq(4).build().unwrap();
        post_one(&srq, 1, &mem);
        post_one(&srq, 2, &mem);
        let (mut a, b) = connected(&bed, &srq);
        let (other_a, other_b) = connected(&bed, &srq);
        assert_eq!(send(&mut a, &b, &from, b"dropping"), 1);
        match order {
            0 => drop((srq, b, other_b)),
            1 => drop((b, srq, other_b)),
            2 => drop((b, other_b, srq)),
            3 => {
                // The receive that is left is the other queue pair's now.
                drop(srq);
                b.qp.close().unwrap();
                let (mut a, b) = (other_a, other_b);
                assert_eq!(send(&mut a, &b, &from, b"survivor"), 2);
            }
            4 => {
                let Side { qp, send_cq, recv_cq, .. } = b;
                drop((send_cq, recv_cq, srq));
                drop(qp.reset().unwrap());
            }
            _ => {
                other_b.qp.close().unwrap();
                b.qp.close().unwrap();
                srq.close().unwrap();
            }
        }
    }
}

#[test]
fn many_threads_post_and_every_receive_is_taken_once() {
    let bed = Bed::new();
    const THREADS: u64 = 4;
    const EACH: u64 = 100;
    let srq = bed.pd().create_srq(64).build().unwrap();
    let (a, b) = connected(&bed, &srq);
    let mem = bed.mem(8);
    let posted = AtomicU64::new(0);
    let mut taken = std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (srq, posted, slices) = (&srq, &posted, [mem.slice(..)]);
            scope.spawn(move || {
                let mut chain = RecvChain::new([]);
                let mut next = 0;
                while next < EACH {
                    let id = thread * EACH + next;
                    // One at a time, two at a time, and chains.
                    let count = if next + 2 <= EACH { 1 + next % 2 } else { 1 };
                    let requests = (id..id + count).map(|id| RecvRequest::new(id, &slices));
                    let result = match thread {
                        0 => {
                            chain = RecvChain::new(requests);
                            // SAFETY: as in `post`.
                            unsafe { srq.post_chain(&mut chain) }
                        }
                        _ => post(srq, requests.collect::<Vec<_>>()),
                    };
                    let accepted = match result {
                        Ok(()) => count,
                        Err(Error::PostReceive { accepted, .. }) => accepted as u64,
                        Err(error) => panic!("{error}"),
                    };
                    next += accepted;
                    posted.fetch_add(accepted, Ordering::Relaxed);
                    std::thread::yield_now();
                }
                drop(chain);
            });
        }
        let (mut a, b) = (a, b);
        let mut taken = Vec::new();
        while (taken.len() as u64) < THREADS * EACH {
            eventually("a receive was posted", || {
                posted.load(Ordering::Relaxed) > taken.len() as u64
            });
            submit(&mut a.qp, |batch| batch.op().signaled().send(1, b"one")).unwrap();
            assert_eq!(wait_one(&a.send_cq, 1).ok, Ok(()));
            taken.push(wait_ok(&b.recv_cq, 1)[0].wr_id);
        }
        submit(&mut a.qp, |batch| batch.op().signaled().send(1, b"one too many")).unwrap();
        assert_silent(&b.recv_cq);
        taken
    });
    taken.sort_unstable();
    assert_eq!(taken, (0..THREADS * EACH).collect::<Vec<_>>());
}

#[test]
fn a_failed_queue_pair_leaves_the_receives_to_the_others() {
    let bed = Bed::new();
    let srq = bed.pd().create_srq(8).build().unwrap();
    let (mem, from) = (bed.mem(8), bed.mem(8));
    let slices = [mem.slice(..)];
    post(&srq, [1, 2, 3, 4].map(|id| RecvRequest::new(id, &slices))).unwrap();
    let (mut a, b) = connected(&bed, &srq);
    assert_eq!(send(&mut a, &b, &from, b"first"), 1);
    let fail = |qp: &mut QueuePair<Rc>| {
        qp.modify(&QueuePairAttr::new().set_state(QpState::ERR)).unwrap();
    };
    let mut failed = b;
    fail(&mut failed.qp);
    // Its receives are not flushed, because they are not its own.
    assert_silent(&failed.recv_cq);
    let (mut a, b) = connected(&bed, &srq);
    assert_eq!(send(&mut a, &b, &from, b"second"), 2);
    failed.qp.close().unwrap();
    assert_eq!(send(&mut a, &b, &from, b"third"), 3);
    drop(b);
    let (mut a, b) = connected(&bed, &srq);
    assert_eq!(send(&mut a, &b, &from, b"fourth"), 4);
}

#[test]
fn datagrams_without_a_receive_are_lost() {
    let bed = Bed::new();
    let srq = bed.pd().create_srq(4).build().unwrap();
    let mem = bed.mem(128);
    let mut a = activated_with(&bed, QKEY, |builder| builder.set_max_inline_data(64));
    let Prepared { qp, send_cq, recv_cq, bed } = prepare_on(&bed, &srq);
    let b = Side { qp: qp.activate(QKEY).unwrap(), send_cq, recv_cq, bed };
    let (to_b, number) = (way(&a, &b), b.qp.qp_num());
    submit(&mut a.qp, |batch| batch.to(&to_b, number, QKEY).signaled().send(1, b"lost")).unwrap();
    assert_eq!(wait(&a.send_cq, 1)[0].ok, Ok(()));
    assert_silent(&b.recv_cq);
    post_one(&srq, 2, &mem);
    assert_silent(&b.recv_cq);
    submit(&mut a.qp, |batch| batch.to(&to_b, number, QKEY).signaled().send(3, b"found")).unwrap();
    assert_eq!(wait_one(&b.recv_cq, 2).ok, Ok(()));
    assert_eq!(mem.read(GRH..GRH + 5), b"found");
}
