//! Completion queues: polling, what a completion is, and who may poll.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ibverbs::{
    CompletionQueue, Error, QueuePair, Rc, RecvRequest, RemoteMemorySlice, Wc, WcFields,
};
use ibverbs_tests::{
    connect, eventually, pair, post_recv, prepare, submit, test_context, wait, wait_ok, wait_one,
    within_deadline, Ability, Bed, Mem, Prepared, Side, DEADLINE, PORT,
};

/// A reliable queue pair that is connected to itself, with one completion queue for everything.
fn loopback(bed: &Bed) -> (QueuePair<Rc>, CompletionQueue) {
    let cq = bed.ctx().create_cq(64).build().unwrap();
    let builder = bed.pd().create_qp::<Rc>(&cq, &cq, PORT).unwrap();
    let qp = builder.set_gid_index(bed.gid_index()).build().unwrap();
    let endpoint = qp.endpoint().unwrap();
    (qp.handshake(endpoint).unwrap(), cq)
}

/// Posts a signaled write of no bytes: the shortest way to a completion.
#[track_caller]
fn complete(qp: &mut QueuePair<Rc>, mem: &Mem, wr_id: u64) {
    let remote = mem.remote();
    submit(qp, |batch| batch.op().signaled().write(wr_id, &[mem.slice(..0)], remote)).unwrap();
}

/// Polls until there is something.
#[track_caller]
fn poll(cq: &CompletionQueue) -> ibverbs::Completions<'_> {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(completions) = cq.poll().unwrap() {
            return completions;
        }
        assert!(Instant::now() < end, "nothing completed");
        std::thread::yield_now();
    }
}

#[test]
fn an_empty_queue_has_no_completions() {
    let ctx = test_context();
    let cq = ctx.create_cq(1).build().unwrap();
    for _ in 0..3 {
        assert!(cq.poll().unwrap().is_none());
    }
    cq.close().unwrap();
}

#[test]
fn a_queue_holds_what_was_asked_for_at_least() {
    let ctx = test_context();
    for entries in [1, 2, 100, 1000] {
        let cq = ctx.create_cq(entries).build().unwrap();
        assert!(cq.capacity() >= entries, "{cq:?}");
        assert_eq!(cq.wc_fields(), WcFields::empty());
        assert_eq!(cq.context().device().name(), ctx.device().name());
    }
}

#[test]
fn every_completion_vector_can_be_used() {
    let ctx = test_context();
    let vectors = ctx.num_comp_vectors();
    assert!(vectors > 0);
    for vector in 0..vectors {
        ctx.create_cq(1).set_comp_vector(vector).build().unwrap();
    }
}

#[test]
fn a_second_poll_is_refused_while_the_first_is_open() {
    let bed = Bed::new();
    within_deadline(move || {
        let (mut qp, cq) = loopback(&bed);
        let mem = bed.mem(8);
        complete(&mut qp, &mem, 1);
        let mut first = poll(&cq);
        for _ in 0..2 {
            let error = cq.poll().unwrap_err();
            assert!(matches!(error, Error::PollInProgress), "{error}");
        }
        assert_eq!(first.next().map(|wc| wc.wr_id()), Some(1));
        drop(first);
        assert!(cq.poll().unwrap().is_none());
        complete(&mut qp, &mem, 2);
        assert_eq!(wait_one(&cq, 2).ok, Ok(()));
    });
}

#[test]
fn an_empty_poll_leaves_nothing_open() {
    let bed = Bed::new();
    within_deadline(move || {
        let (mut qp, cq) = loopback(&bed);
        let mem = bed.mem(8);
        assert!(cq.poll().unwrap().is_none());
        assert!(cq.poll().unwrap().is_none());
        complete(&mut qp, &mem, 1);
        assert_eq!(wait_one(&cq, 1).ok, Ok(()));
        qp.close().unwrap();
        cq.close().unwrap();
    });
}

#[test]
fn a_poll_that_was_forgotten_locks_the_queue_and_nothing_else() {
    let bed = Bed::new();
    within_deadline(move || {
        let (mut qp, cq) = loopback(&bed);
        let mem = bed.mem(8);
        complete(&mut qp, &mem, 1);
        std::mem::forget(poll(&cq));
        assert!(matches!(cq.poll(), Err(Error::PollInProgress)));
        let failed = cq.close().unwrap_err();
        assert!(matches!(failed.error, Error::PollInProgress), "{failed}");
        let cq = failed.resource;
        // Neither resetting nor closing the queue pair waits for the lock that the poll holds.
        let failed = qp.reset().unwrap_err();
        assert!(matches!(failed.error, Error::PollInProgress), "{failed}");
        let failed = failed.resource.close().unwrap_err();
        assert!(matches!(failed.error, Error::PollInProgress), "{failed}");
        // Posting still works, and the drop of the queue ends the poll.
        let mut qp = failed.resource;
        complete(&mut qp, &mem, 2);
        drop(cq);
        qp.close().unwrap();
    });
}

#[test]
fn a_queue_pair_that_is_dropped_during_a_poll_is_destroyed_after_it() {
    let bed = Bed::new();
    within_deadline(move || {
        let (mut qp, cq) = loopback(&bed);
        let mem = bed.mem(8);
        complete(&mut qp, &mem, 1);
        let completions = poll(&cq);
        drop(qp);
        drop(completions);
        // It is gone: nothing uses the queue any more.
        cq.close().unwrap();

        // The same without an end of the poll but the drop of the queue.
        let (mut qp, cq) = loopback(&bed);
        complete(&mut qp, &mem, 1);
        std::mem::forget(poll(&cq));
        drop(qp);
        drop(cq);
    });
}

#[test]
fn completions_that_were_not_looked_at_stay_for_the_next_poll() {
    let bed = Bed::new();
    let (mut qp, cq) = loopback(&bed);
    let mem = bed.mem(8);
    for n in 1..=5 {
        complete(&mut qp, &mem, n);
    }
    let mut seen = Vec::new();
    let end = Instant::now() + DEADLINE;
    while seen.len() < 5 {
        assert!(Instant::now() < end, "{seen:?}");
        // One at a time: what is not handed out is not taken.
        if let Some(mut completions) = cq.poll().unwrap() {
            seen.extend(completions.next().map(|wc| wc.wr_id()));
        }
    }
    assert_eq!(seen, [1, 2, 3, 4, 5]);
    assert!(cq.poll().unwrap().is_none());
}

#[test]
fn asking_beyond_the_last_completion_is_harmless() {
    let bed = Bed::new();
    let (mut qp, cq) = loopback(&bed);
    let mem = bed.mem(8);
    for round in 0..3 {
        complete(&mut qp, &mem, round);
        let mut completions = poll(&cq);
        assert!(completions.next().is_some());
        for _ in 0..3 {
            assert!(completions.next().is_none());
        }
        drop(completions);
        assert!(cq.poll().unwrap().is_none());
    }
}

#[test]
fn optional_fields_are_absent_unless_they_were_asked_for() {
    let bed = Bed::new();
    let (mut qp, cq) = loopback(&bed);
    let mem = bed.mem(8);
    complete(&mut qp, &mem, 1);
    let mut completions = poll(&cq);
    let wc = completions.next().unwrap();
    assert_eq!(wc.completion_timestamp(), None);
    assert_eq!(wc.completion_wallclock_ns(), None);
    assert_eq!((wc.cvlan(), wc.flow_tag()), (None, None));
    assert_eq!(wc.tag_matching_info(), None);
    assert_eq!((wc.imm_data(), wc.invalidated_rkey()), (None, None));
    assert!(format!("{wc:?}").contains("wr_id: 1"), "{wc:?}");
}

#[test]
fn optional_fields_are_there_if_the_device_grants_them() {
    let bed = Bed::new();
    for fields in WcFields::all().iter() {
        let cq = match bed.ctx().create_cq(4).set_wc_fields(fields).build() {
            Ok(cq) => cq,
            Err(Error::Unsupported { .. }) => continue,
            Err(error) => panic!("{fields:?}: {error}"),
        };
        assert_eq!(cq.wc_fields(), fields);
        let builder = bed.pd().create_qp::<Rc>(&cq, &cq, PORT).unwrap();
        let qp = builder.set_gid_index(bed.gid_index()).build().unwrap();
        let endpoint = qp.endpoint().unwrap();
        let mut qp = qp.handshake(endpoint).unwrap();
        complete(&mut qp, &bed.mem(8), 1);
        let mut completions = poll(&cq);
        let wc = completions.next().unwrap();
        let has = |field| fields.contains(field);
        let timestamp = WcFields::COMPLETION_TIMESTAMP;
        assert_eq!(wc.completion_timestamp().is_some(), has(timestamp));
        let wallclock = WcFields::COMPLETION_WALLCLOCK_NS;
        assert_eq!(wc.completion_wallclock_ns().is_some(), has(wallclock));
        assert_eq!(wc.cvlan().is_some(), has(WcFields::CVLAN));
        assert_eq!(wc.flow_tag().is_some(), has(WcFields::FLOW_TAG));
        assert_eq!(wc.tag_matching_info().is_some(), has(WcFields::TM_INFO));
    }
}

#[test]
fn a_field_without_a_name_does_not_reach_the_device() {
    let ctx = test_context();
    let fields = WcFields::from_bits_retain(1 << 40);
    let error = ctx.create_cq(1).set_wc_fields(fields).build().map(drop).unwrap_err();
    let value = fields.bits();
    assert!(matches!(error, Error::InvalidArgument { value: v, .. } if v == value), "{error}");
}

#[test]
fn queue_pairs_can_share_a_queue_and_are_told_apart() {
    let bed = Bed::new();
    let cq = bed.ctx().create_cq(64).build().unwrap();
    let mem = bed.mem(8);
    let mut qps: Vec<_> = (0..4)
        .map(|_| {
            let builder = bed.pd().create_qp::<Rc>(&cq, &cq, PORT).unwrap();
            let qp = builder.set_gid_index(bed.gid_index()).build().unwrap();
            let endpoint = qp.endpoint().unwrap();
            qp.handshake(endpoint).unwrap()
        })
        .collect();
    for (n, qp) in qps.iter_mut().enumerate() {
        complete(qp, &mem, n as u64);
    }
    let mut found: Vec<_> =
        wait_ok(&cq, 4).iter().map(|wc| (wc.wr_id as usize, wc.qp_num)).collect();
    found.sort_unstable();
    let expected: Vec<_> = qps.iter().map(QueuePair::qp_num).enumerate().collect();
    assert_eq!(found, expected);
}

#[test]
fn sends_and_receives_complete_to_the_queues_of_their_own() {
    let bed = Bed::new();
    let (mut a, mut b) = pair(&bed);
    let (from, into) = (bed.mem(8), bed.mem(8));
    post_recv(&mut b.qp, [RecvRequest::new(1, &[into.slice(..)])]).unwrap();
    submit(&mut a.qp, |batch| batch.op().signaled().send(2, &[from.slice(..)])).unwrap();
    assert_eq!(wait_one(&a.send_cq, 2).qp_num, a.qp.qp_num());
    assert_eq!(wait_one(&b.recv_cq, 1).qp_num, b.qp.qp_num());
    assert!(a.recv_cq.poll().unwrap().is_none());
    assert!(b.send_cq.poll().unwrap().is_none());
}

#[test]
fn threads_can_poll_one_queue_in_turns() {
    const COUNT: u64 = 200;
    let bed = Bed::new();
    let (mut qp, cq) = loopback(&bed);
    let mem = bed.mem(8);
    let cq = Arc::new(Mutex::new(cq));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let end = Instant::now() + DEADLINE;
    let pollers: Vec<_> = (0..4)
        .map(|_| {
            let (cq, seen) = (cq.clone(), seen.clone());
            std::thread::spawn(move || {
                while seen.lock().unwrap().len() < COUNT as usize && Instant::now() < end {
                    let cq = cq.lock().unwrap();
                    if let Some(mut completions) = cq.poll().unwrap() {
                        while let Some(wc) = completions.next() {
                            wc.ok().unwrap();
                            seen.lock().unwrap().push(wc.wr_id());
                        }
                    }
                    drop(cq);
                    std::thread::yield_now();
                }
            })
        })
        .collect();
    let mut posted = 0;
    while posted < COUNT && Instant::now() < end {
        // At most half of what the queue can hold.
        if posted - (seen.lock().unwrap().len() as u64) < 32 {
            complete(&mut qp, &mem, posted);
            posted += 1;
        } else {
            std::thread::yield_now();
        }
    }
    pollers.into_iter().for_each(|poller| poller.join().unwrap());
    let mut seen = std::mem::take(&mut *seen.lock().unwrap());
    seen.sort_unstable();
    assert_eq!(seen, (0..COUNT).collect::<Vec<_>>());
}

#[test]
fn everything_can_move_to_another_thread() {
    let bed = Bed::new();
    let (a, b) = (prepare::<Rc>(&bed, |builder| builder), prepare::<Rc>(&bed, |builder| builder));
    // Prepared in one thread, connected in another, used in a third.
    let connected = std::thread::spawn(move || {
        let (a, b): (Prepared, Prepared) = (a, b);
        connect(a, b)
    });
    let (a, mut b): (Side, Side) = connected.join().unwrap();
    let mem = bed.mem(8);
    let from = mem.clone();
    let sender = std::thread::spawn(move || {
        let mut a = a;
        from.write(0, b"threads!");
        submit(&mut a.qp, |batch| batch.op().signaled().send(1, &[from.slice(..)])).unwrap();
        wait_one(&a.send_cq, 1).ok.unwrap();
        a
    });
    let into = bed.mem(8);
    post_recv(&mut b.qp, [RecvRequest::new(2, &[into.slice(..)])]).unwrap();
    assert_eq!(wait(&b.recv_cq, 1)[0].ok, Ok(()));
    let a = sender.join().unwrap();
    assert_eq!(into.read(..), b"threads!");
    let dropped = std::thread::spawn(move || drop(a));
    dropped.join().unwrap();
}

#[test]
fn queue_pairs_of_different_threads_do_not_disturb_each_other() {
    let bed = Bed::new();
    let threads: Vec<_> = (0..3u64)
        .map(|thread| {
            let bed = bed.clone();
            std::thread::spawn(move || {
                let (mut a, mut b) = pair(&bed);
                let (from, into) = (bed.mem(4096), bed.mem(4096));
                for round in 0..20 {
                    let data = ibverbs_tests::pattern(4096, thread * 1000 + round);
                    from.write(0, &data);
                    post_recv(&mut b.qp, [RecvRequest::new(round, &[into.slice(..)])]).unwrap();
                    let slice = from.slice(..);
                    submit(&mut a.qp, |batch| batch.op().signaled().send(round, &[slice])).unwrap();
                    assert_eq!(wait_one(&a.send_cq, round).ok, Ok(()));
                    assert_eq!(wait_one(&b.recv_cq, round).len, 4096);
                    assert!(into.read(..) == data, "thread {thread}, round {round}");
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// What a completion says that means something, to compare those that are lent with copies.
macro_rules! said {
    ($wc:expr) => {{
        let wc = $wc;
        let received = wc.opcode().is_recv().then(|| (wc.len(), wc.flags(), wc.imm_data()));
        let details = wc.ok().map(|()| (wc.opcode(), received, wc.invalidated_rkey()));
        format!("{} of {:#x}: {:?}, {details:?}", wc.wr_id(), wc.qp_num(), wc.status())
    }};
}

/// What is in the queue, as it is lent.
fn lent(cq: &CompletionQueue) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(mut completions) = cq.poll().unwrap() {
        while let Some(wc) = completions.next() {
            found.push(said!(wc));
        }
    }
    found
}

/// What is in the queue, as a copy.
fn copied(cq: &CompletionQueue) -> Vec<String> {
    let mut wcs = [Wc::default(); 2];
    cq.poll_into(&mut wcs).unwrap().iter().map(|wc| said!(wc)).collect()
}

/// Polls in one way or another until there are so many completions.
#[track_caller]
fn collect(count: usize, mut poll: impl FnMut() -> Vec<String>) -> Vec<String> {
    let mut found = Vec::new();
    eventually("all completions", || {
        found.extend(poll());
        found.len() >= count
    });
    assert_eq!(found.len(), count, "{found:#?}");
    found
}

#[test]
fn copies_say_what_lent_completions_say() {
    let bed = Bed::new();
    let (mut a, mut b) = pair(&bed);
    let (from, into) = (bed.mem(64), bed.mem(64));
    // The same traffic on the same queue pairs, looked at in two ways.
    let mut round = |poll: &dyn Fn(&CompletionQueue) -> Vec<String>| {
        let slices = [into.slice(..)];
        post_recv(&mut b.qp, [1, 2, 3].map(|wr_id| RecvRequest::new(wr_id, &slices))).unwrap();
        submit(&mut a.qp, |batch| {
            batch.op().signaled().send(11, &[from.slice(..7)]);
            batch.op().signaled().imm(0x1234_5678).send(12, b"inline");
            batch.op().signaled().imm(9).write(13, &[from.slice(..)], into.remote());
            batch.op().signaled().read(14, &[from.slice(..8)], into.remote());
        })
        .unwrap();
        [collect(4, || poll(&a.send_cq)), collect(3, || poll(&b.recv_cq))]
    };
    let first = round(&lent);
    assert!(first[1][1].contains("Some(305419896)"), "{first:#?}");
    assert_eq!(round(&copied), first);
    assert_eq!(round(&lent), first);
    assert_eq!(round(&copied), first);
}

#[test]
fn copies_of_failures_say_what_lent_ones_say() {
    let bed = Bed::new();
    let mem = bed.mem(8);
    let failures = |poll: &dyn Fn(&CompletionQueue) -> Vec<String>| {
        let (mut a, _b) = pair(&bed);
        let right = mem.remote();
        let wrong = RemoteMemorySlice { rkey: right.rkey ^ 0x5a5a_5a00, ..right };
        submit(&mut a.qp, |batch| {
            for wr_id in 1..=3 {
                batch.op().signaled().read(wr_id, &[mem.slice(..)], wrong);
            }
        })
        .unwrap();
        let number = format!("{:#x}", a.qp.qp_num());
        let found = collect(3, || poll(&a.send_cq));
        found.into_iter().map(|said| said.replace(&number, "")).collect::<Vec<_>>()
    };
    let first = failures(&lent);
    assert!(first[0].contains("WcStatus::REM_ACCESS_ERR"), "{first:#?}");
    assert!(first[1].contains("WcStatus::WR_FLUSH_ERR"), "{first:#?}");
    assert_eq!(failures(&copied), first);
}

#[test]
fn both_ways_of_polling_take_turns() {
    let bed = Bed::new();
    let (mut qp, cq) = loopback(&bed);
    let mem = bed.mem(8);
    let mut wcs = [Wc::default(); 3];
    assert!(cq.poll_into(&mut wcs).unwrap().is_empty());
    (0..20).for_each(|wr_id| complete(&mut qp, &mem, wr_id));
    let mut seen = Vec::new();
    eventually("all completions", || {
        seen.extend(cq.poll_into(&mut wcs).unwrap().iter().map(Wc::wr_id));
        if let Some(mut completions) = cq.poll().unwrap() {
            // One of them; the others stay.
            seen.extend(completions.next().map(|wc| wc.wr_id()));
            assert!(matches!(cq.poll_into(&mut wcs), Err(Error::PollInProgress)));
        }
        seen.len() >= 20
    });
    assert!(seen.into_iter().eq(0..20));
    assert!(cq.poll_into(&mut wcs).unwrap().is_empty());
    assert!(cq.poll_into(&mut []).unwrap().is_empty());
}

#[test]
fn a_queue_is_resized_with_completions_in_it() {
    let Some(bed) = Bed::with([Ability::QueueResizing]) else { return };
    let (mut qp, mut cq) = loopback(&bed);
    let mem = bed.mem(8);
    let mut posted = 0..;
    for entries in [500, 70, 2000, 64, 65, 10] {
        for wr_id in posted.by_ref().take(10) {
            complete(&mut qp, &mem, wr_id);
        }
        cq.resize(entries).unwrap();
        assert!(cq.capacity() >= entries, "{cq:?}");
        assert!(cq.capacity() < 4 * entries, "{cq:?}");
        let found: Vec<_> = wait_ok(&cq, 10).iter().map(|wc| wc.wr_id % 10).collect();
        assert!(found.into_iter().eq(0..10));
    }
    qp.close().unwrap();
    cq.close().unwrap();
}

#[test]
fn sizes_that_a_queue_cannot_have_are_explained() {
    let Some(bed) = Bed::with([Ability::QueueResizing]) else { return };
    let (mut qp, mut cq) = loopback(&bed);
    let mem = bed.mem(8);
    assert!(matches!(cq.resize(0), Err(Error::InvalidArgument { .. })));
    let max = bed.ctx().query_device().unwrap().max_cqe();
    match cq.resize(max + 1) {
        Err(Error::Capacity { requested, available, .. }) => {
            assert_eq!((requested, available), (u64::from(max) + 1, u64::from(max)));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(cq.resize(u32::MAX), Err(Error::Capacity { .. })));
    // Fewer than there are completions in it: all but the last have completed when its data is there.
    let (capacity, source) = (cq.capacity(), bed.mem(8));
    source.write(0, b"the last");
    (1..40).for_each(|wr_id| complete(&mut qp, &mem, wr_id));
    let (to, from) = ([mem.slice(..)], source.remote());
    submit(&mut qp, |batch| batch.op().signaled().read(40, &to, from)).unwrap();
    eventually("the last request", || mem.read(..) == b"the last");
    let error = cq.resize(3).unwrap_err();
    assert!(matches!(error, Error::Resize { requested: 3, .. }), "{error}");
    assert!(error.to_string().contains("take completions"), "{error}");
    assert_eq!(cq.capacity(), capacity);
    let found: Vec<_> = wait_ok(&cq, 40).iter().map(|wc| wc.wr_id).collect();
    assert!(found.into_iter().eq(1..=40));
    cq.resize(3).unwrap();
}

#[test]
fn moderation_is_what_the_device_says_it_can() {
    let bed = Bed::new();
    let (mut qp, cq) = loopback(&bed);
    let mem = bed.mem(8);
    let micros = Duration::from_micros(1);
    match bed.ctx().query_device_ex().unwrap().cq_moderation_caps() {
        None => {
            let error = cq.set_moderation(1, micros).unwrap_err();
            assert!(matches!(error, Error::Unsupported { operation: "ibv_modify_cq" }), "{error}");
        }
        Some(caps) => {
            cq.set_moderation(caps.max_count, caps.max_period).unwrap();
            let error = cq.set_moderation(1, caps.max_period + micros).unwrap_err();
            assert!(matches!(error, Error::Capacity { .. }), "{error}");
            cq.set_moderation(0, Duration::ZERO).unwrap();
        }
    }
    complete(&mut qp, &mem, 1);
    assert_eq!(wait_one(&cq, 1).ok, Ok(()));
}
