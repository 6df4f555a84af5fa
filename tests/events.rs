//! Completion events: arming, channels, and waiting.

use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use ibverbs::{
    CompletionChannel, CompletionEvent, CompletionQueue, Completions, Error, QueuePair, Rc,
    RecvRequest,
};
use ibverbs_tests::{
    connect, eventually, is_readable, other_context, post_recv, submit, test_context, wait_ok,
    wait_one, within_deadline, Bed, Mem, Prepared, Side, DEADLINE, PORT,
};

/// Long enough for an event that must not come.
const SILENCE: Duration = Duration::from_millis(100);

/// A queue with this number that raises its events on the channel.
#[track_caller]
fn queue(bed: &Bed, channel: &CompletionChannel, number: u64) -> CompletionQueue {
    let builder = bed.ctx().create_cq(64).set_comp_channel(channel).set_context(number);
    builder.build().unwrap()
}

/// A queue with a channel of its own.
#[track_caller]
fn waiting_queue(bed: &Bed) -> CompletionQueue {
    bed.ctx().create_cq(64).set_private_channel().build().unwrap()
}

/// A queue pair that is connected to itself.
#[track_caller]
fn loopback(bed: &Bed, cq: &CompletionQueue) -> QueuePair<Rc> {
    let builder = bed.pd().create_qp::<Rc>(cq, cq, PORT).unwrap();
    let qp = builder.set_gid_index(bed.gid_index()).build().unwrap();
    let endpoint = qp.endpoint().unwrap();
    qp.handshake(endpoint).unwrap()
}

/// Posts a signaled write of no bytes: the shortest way to a completion.
#[track_caller]
fn complete(qp: &mut QueuePair<Rc>, mem: &Mem, wr_id: u64) {
    let remote = mem.remote();
    submit(qp, |batch| batch.op().signaled().write(wr_id, &[mem.slice(..0)], remote)).unwrap();
}

/// The number of the queue that the next event is of.
#[track_caller]
fn event(channel: &CompletionChannel) -> u64 {
    let event = channel.wait(Some(DEADLINE)).unwrap();
    event.expect("no event came").context()
}

#[track_caller]
fn assert_no_event(channel: &CompletionChannel) {
    assert_eq!(channel.wait(Some(SILENCE)).unwrap(), None);
}

/// What `poll_armed` hands out.
#[track_caller]
fn poll_armed(cq: &CompletionQueue) -> Vec<u64> {
    let mut found = Vec::new();
    let count = cq.poll_armed(false, |wc| {
        wc.ok().unwrap();
        found.push(wc.wr_id());
    });
    assert_eq!(count.unwrap(), found.len());
    found
}

/// The identifiers in a poll.
fn ids(mut completions: Completions<'_>) -> Vec<u64> {
    let mut found = Vec::new();
    while let Some(wc) = completions.next() {
        wc.ok().unwrap();
        found.push(wc.wr_id());
    }
    found
}

/// Waits until the queue has something, without taking it: no event is involved.
fn wait_for_event_without_taking_it(channel: &CompletionChannel) {
    eventually("an event", || is_readable(channel));
}

#[test]
fn a_channel_without_queues_has_no_events() {
    let ctx = test_context();
    let channel = ctx.create_comp_channel().unwrap();
    assert_eq!(channel.context().device().name(), ctx.device().name());
    assert_eq!(channel.as_fd().as_raw_fd(), channel.as_raw_fd());
    assert_eq!(channel.get_event().unwrap(), None);
    assert_eq!(channel.wait(Some(Duration::ZERO)).unwrap(), None);
    channel.close().unwrap();
}

#[test]
fn the_timeout_is_the_time_that_is_waited() {
    let ctx = test_context();
    let channel = ctx.create_comp_channel().unwrap();
    let cq = ctx.create_cq(1).set_private_channel().build().unwrap();
    for millis in [1, 50] {
        let timeout = Duration::from_millis(millis);
        let start = Instant::now();
        assert_eq!(channel.wait(Some(timeout)).unwrap(), None);
        assert!(start.elapsed() >= timeout);
        let start = Instant::now();
        assert!(cq.wait(Some(timeout)).unwrap().is_none());
        assert!(start.elapsed() >= timeout);
    }
    assert!(cq.wait(Some(Duration::ZERO)).unwrap().is_none());
}

#[test]
fn a_queue_raises_one_event_each_time_that_it_is_armed() {
    let bed = Bed::new();
    let channel = bed.ctx().create_comp_channel().unwrap();
    let cq = queue(&bed, &channel, 7);
    let mut qp = loopback(&bed, &cq);
    let mem = bed.mem(8);
    assert_eq!(cq.context_value(), 7);
    // Not armed: nothing.
    complete(&mut qp, &mem, 1);
    wait_one(&cq, 1).ok.unwrap();
    assert_no_event(&channel);
    // Armed once: one event for two completions.
    cq.req_notify(false).unwrap();
    complete(&mut qp, &mem, 2);
    assert_eq!(event(&channel), 7);
    complete(&mut qp, &mem, 3);
    wait_ok(&cq, 2);
    assert_no_event(&channel);
    // And again.
    cq.req_notify(false).unwrap();
    complete(&mut qp, &mem, 4);
    assert_eq!(event(&channel), 7);
    wait_one(&cq, 4).ok.unwrap();
}

#[test]
fn a_queue_that_waits_for_solicited_messages_ignores_others() {
    let bed = Bed::new();
    let channel = bed.ctx().create_comp_channel().unwrap();
    let prepare = |number| {
        let (send_cq, recv_cq) = (queue(&bed, &channel, 0), queue(&bed, &channel, number));
        let builder = bed.pd().create_qp::<Rc>(&send_cq, &recv_cq, PORT).unwrap();
        let builder = builder.set_gid_index(bed.gid_index()).set_max_inline_data(8);
        Prepared { qp: builder.build().unwrap(), send_cq, recv_cq, bed: bed.clone() }
    };
    let (mut a, mut b): (Side, Side) = connect(prepare(1), prepare(2));
    let mem = bed.mem(8);
    for wr_id in 0..3 {
        post_recv(&mut b.qp, [RecvRequest::new(wr_id, &[mem.slice(..)])]).unwrap();
    }
    b.recv_cq.req_notify(true).unwrap();
    submit(&mut a.qp, |batch| batch.op().signaled().send(0, b"plain")).unwrap();
    wait_one(&b.recv_cq, 0).ok.unwrap();
    assert_no_event(&channel);
    submit(&mut a.qp, |batch| batch.op().signaled().solicited().send(1, b"please")).unwrap();
    assert_eq!(event(&channel), 2);
    wait_one(&b.recv_cq, 1).ok.unwrap();
    // With the helper, too.
    assert_eq!(b.recv_cq.poll_armed(true, |_| ()).unwrap(), 0);
    submit(&mut a.qp, |batch| batch.op().signaled().solicited().send(2, b"please")).unwrap();
    assert_eq!(event(&channel), 2);
    wait_one(&b.recv_cq, 2).ok.unwrap();
    wait_ok(&a.send_cq, 3);
}

#[test]
fn many_queues_share_a_channel_and_are_told_apart() {
    const QUEUES: u64 = 5;
    const ROUNDS: u64 = 20;
    let bed = Bed::new();
    let channel = bed.ctx().create_comp_channel().unwrap();
    let mem = bed.mem(8);
    let mut ends: Vec<_> = (0..QUEUES)
        .map(|number| {
            let cq = queue(&bed, &channel, number << 40 | 3);
            (loopback(&bed, &cq), cq)
        })
        .collect();
    let mut found = vec![Vec::new(); ends.len()];
    for (qp, cq) in &mut ends {
        assert_eq!(poll_armed(cq), []);
        complete(qp, &mem, 0);
    }
    // Each completion of a queue starts the next one: nothing may be missed, or it would end here.
    let end = Instant::now() + DEADLINE;
    while found.iter().any(|found| found.len() < ROUNDS as usize) {
        let left = end.saturating_duration_since(Instant::now());
        let event = channel.wait(Some(left)).unwrap().expect("a completion was missed");
        let number = (event.context() >> 40) as usize;
        assert_eq!(event.context() & 0xff_ffff_ffff, 3);
        let (qp, cq) = &mut ends[number];
        for wr_id in poll_armed(cq) {
            found[number].push(wr_id);
            if wr_id + 1 < ROUNDS {
                complete(qp, &mem, wr_id + 1);
            }
        }
    }
    assert!(found.iter().all(|found| found.iter().copied().eq(0..ROUNDS)), "{found:?}");
}

#[test]
fn completions_that_came_before_the_queue_was_armed_are_handed_out() {
    let bed = Bed::new();
    let channel = bed.ctx().create_comp_channel().unwrap();
    let cq = queue(&bed, &channel, 0);
    let mut qp = loopback(&bed, &cq);
    let mem = bed.mem(8);
    // More than one batch of the helper.
    const COUNT: u64 = 40;
    let mut found = Vec::new();
    (0..COUNT).for_each(|wr_id| complete(&mut qp, &mem, wr_id));
    let end = Instant::now() + DEADLINE;
    while found.len() < COUNT as usize {
        assert!(Instant::now() < end, "{found:?}");
        found.extend(poll_armed(&cq));
    }
    assert!(found.into_iter().eq(0..COUNT));
}

#[test]
fn events_that_are_left_over_do_no_harm() {
    let bed = Bed::new();
    let channel = bed.ctx().create_comp_channel().unwrap();
    let cq = queue(&bed, &channel, 1);
    let mut qp = loopback(&bed, &cq);
    let mem = bed.mem(8);
    for wr_id in 0..3 {
        cq.req_notify(false).unwrap();
        complete(&mut qp, &mem, wr_id);
        wait_one(&cq, wr_id).ok.unwrap();
    }
    // There is an event, and nothing in the queue.
    assert_eq!(event(&channel), 1);
    assert_eq!(poll_armed(&cq), []);
    while channel.wait(Some(SILENCE)).unwrap().is_some() {
        assert_eq!(poll_armed(&cq), []);
    }
    complete(&mut qp, &mem, 9);
    assert_eq!(event(&channel), 1);
    assert_eq!(poll_armed(&cq), [9]);
}

#[test]
fn a_thread_that_waits_for_a_channel_wakes_up() {
    let bed = Bed::new();
    let channel = bed.ctx().create_comp_channel().unwrap();
    let cq = queue(&bed, &channel, 11);
    let mut qp = loopback(&bed, &cq);
    let mem = bed.mem(8);
    cq.req_notify(false).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| event(&channel));
        std::thread::sleep(SILENCE);
        complete(&mut qp, &mem, 1);
        assert_eq!(waiting.join().unwrap(), 11);
    });
}

#[test]
fn one_of_several_waiting_threads_gets_the_event() {
    let bed = Bed::new();
    let channel = bed.ctx().create_comp_channel().unwrap();
    let cq = queue(&bed, &channel, 11);
    let mut qp = loopback(&bed, &cq);
    let mem = bed.mem(8);
    cq.req_notify(false).unwrap();
    let timeout = Some(Duration::from_secs(3));
    std::thread::scope(|scope| {
        let waiting: Vec<_> =
            (0..3).map(|_| scope.spawn(|| channel.wait(timeout).unwrap())).collect();
        complete(&mut qp, &mem, 1);
        let events: Vec<CompletionEvent> =
            waiting.into_iter().filter_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].context(), 11);
    });
}

#[test]
fn a_queue_with_a_channel_of_its_own_can_be_waited_for() {
    let bed = Bed::new();
    let cq = waiting_queue(&bed);
    let mut qp = loopback(&bed, &cq);
    let mem = bed.mem(8);
    for wr_id in 0..5 {
        complete(&mut qp, &mem, wr_id);
        assert_eq!(ids(cq.wait(Some(DEADLINE)).unwrap().expect("no completion")), [wr_id]);
        // What is polled otherwise is not waited for.
        complete(&mut qp, &mem, 100);
        wait_one(&cq, 100).ok.unwrap();
    }
    assert!(cq.wait(Some(SILENCE)).unwrap().is_none());
}

#[test]
fn a_thread_that_waits_for_a_queue_wakes_up() {
    let bed = Bed::new();
    let cq = waiting_queue(&bed);
    let mut qp = loopback(&bed, &cq);
    let mem = bed.mem(8);
    let waiting = std::thread::spawn(move || {
        let mut found = Vec::new();
        while found.len() < 20 {
            found.extend(ids(cq.wait(Some(DEADLINE)).unwrap().expect("a completion was missed")));
        }
        found
    });
    for wr_id in 0..20 {
        complete(&mut qp, &mem, wr_id);
        std::thread::sleep(Duration::from_millis(wr_id % 4));
    }
    assert!(waiting.join().unwrap().into_iter().eq(0..20));
}

#[test]
fn queues_with_channels_of_their_own_do_not_disturb_each_other() {
    let bed = Bed::new();
    let mem = bed.mem(8);
    let (one, two) = (waiting_queue(&bed), waiting_queue(&bed));
    let (mut qp_one, mut qp_two) = (loopback(&bed, &one), loopback(&bed, &two));
    assert!(one.wait(Some(Duration::ZERO)).unwrap().is_none());
    assert!(two.wait(Some(Duration::ZERO)).unwrap().is_none());
    complete(&mut qp_two, &mem, 2);
    assert!(one.wait(Some(SILENCE)).unwrap().is_none());
    assert_eq!(ids(two.wait(Some(DEADLINE)).unwrap().expect("no completion")), [2]);
    complete(&mut qp_one, &mem, 1);
    assert_eq!(ids(one.wait(Some(DEADLINE)).unwrap().expect("no completion")), [1]);
}

#[test]
fn things_can_be_closed_in_any_order() {
    let bed = Bed::new();
    within_deadline(move || {
        let mem = bed.mem(8);
        for unread in [false, true] {
            // The queue first.
            let channel = bed.ctx().create_comp_channel().unwrap();
            let cq = queue(&bed, &channel, 1);
            let mut qp = loopback(&bed, &cq);
            cq.req_notify(false).unwrap();
            complete(&mut qp, &mem, 1);
            wait_for_event_without_taking_it(&channel);
            let seen = if unread { None } else { channel.get_event().unwrap() };
            qp.close().unwrap();
            cq.close().unwrap();
            // Unread events of it are gone with it.
            assert_no_event(&channel);
            channel.close().unwrap();
            assert_eq!(seen.map(|event| event.context()), (!unread).then_some(1));

            // The channel first.
            let channel = bed.ctx().create_comp_channel().unwrap();
            let cq = queue(&bed, &channel, 1);
            let mut qp = loopback(&bed, &cq);
            let failed = channel.close().unwrap_err();
            assert!(matches!(failed.error, Error::InUse { .. }), "{failed}");
            let channel = failed.resource;
            cq.req_notify(false).unwrap();
            complete(&mut qp, &mem, 1);
            wait_for_event_without_taking_it(&channel);
            if !unread {
                channel.get_event().unwrap().expect("an event");
            }
            drop(channel);
            // It raises events that nobody will see.
            wait_one(&cq, 1).ok.unwrap();
            cq.req_notify(false).unwrap();
            complete(&mut qp, &mem, 2);
            wait_one(&cq, 2).ok.unwrap();
            drop((cq, qp));
        }
    });
}

#[test]
fn a_queue_needs_a_channel_for_its_events() {
    let bed = Bed::new();
    let plain = bed.ctx().create_cq(1).build().unwrap();
    let channel = bed.ctx().create_comp_channel().unwrap();
    let (shared, own) = (queue(&bed, &channel, 1), waiting_queue(&bed));
    let setter_of = |error| match error {
        Error::NoCompletionChannel { setter } => setter,
        other => panic!("{other}"),
    };
    for cq in [&plain, &own] {
        assert_eq!(setter_of(cq.req_notify(false).unwrap_err()), "set_comp_channel");
        assert_eq!(setter_of(cq.poll_armed(false, |_| ()).unwrap_err()), "set_comp_channel");
    }
    for cq in [&plain, &shared] {
        let error = cq.wait(Some(Duration::ZERO)).map(drop).unwrap_err();
        assert_eq!(setter_of(error), "set_private_channel");
    }
    let both = bed.ctx().create_cq(1).set_comp_channel(&channel).set_private_channel().build();
    assert!(matches!(both, Err(Error::TwoCompletionChannels)), "{both:?}");
}

#[test]
fn a_channel_of_another_context_is_refused() {
    let ctx = test_context();
    let other = other_context(&ctx);
    let channel = other.create_comp_channel().unwrap();
    match ctx.create_cq(1).set_comp_channel(&channel).build() {
        Err(Error::DeviceMismatch { what }) => assert_eq!(what, "completion channel"),
        other => panic!("{other:?}"),
    }
    channel.close().unwrap();
}

#[test]
fn a_queue_is_not_armed_during_a_poll() {
    let bed = Bed::new();
    let channel = bed.ctx().create_comp_channel().unwrap();
    let (shared, own) = (queue(&bed, &channel, 1), waiting_queue(&bed));
    let mem = bed.mem(8);
    for cq in [&shared, &own] {
        let mut qp = loopback(&bed, cq);
        complete(&mut qp, &mem, 1);
        let mut open = None;
        eventually("a completion", || {
            open = cq.poll().unwrap();
            open.is_some()
        });
        let error = match cq.context_value() {
            1 => cq.req_notify(false).unwrap_err(),
            _ => cq.wait(None).map(drop).unwrap_err(),
        };
        assert!(matches!(error, Error::PollInProgress), "{error}");
        drop(open);
    }
}
