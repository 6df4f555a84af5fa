//! Rule 2: one poll at a time, and nothing that takes the lock of a completion queue while it is held.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::mpsc;
use std::thread;

use ibverbs::{Error, QpState, QueuePair, QueuePairAttr, Rc, Wc};
use null_provider::{Kind, Verb};

use crate::common::{
    complete, connected, connected_to, expect_poll_in_progress, null, open, parts, poll_all, Parts,
};

#[test]
fn a_second_poll_is_refused_without_calling_the_provider() {
    let null = null();
    let Parts { cq, .. } = parts();
    complete(&null, &cq, [1, 2]);
    let first = cq.poll().unwrap().unwrap();
    null.take_calls();
    expect_poll_in_progress(cq.poll());
    null.expect_no_calls();
    drop(first);
    assert_eq!(poll_all(&cq), [2]);
}

#[test]
fn a_poll_after_a_forgotten_one_is_refused_without_calling_the_provider() {
    let null = null();
    let Parts { cq, .. } = parts();
    complete(&null, &cq, [1, 2]);
    std::mem::forget(cq.poll().unwrap().unwrap());
    null.take_calls();
    for _ in 0..3 {
        expect_poll_in_progress(cq.poll());
    }
    null.expect_no_calls();
}

#[test]
fn nothing_that_takes_the_lock_of_the_queue_is_called_during_a_poll() {
    let null = null();
    let ctx = open(0);
    let channel = ctx.create_comp_channel().unwrap();
    let mut shared = ctx.create_cq(16).set_comp_channel(&channel).build().unwrap();
    let mut private = ctx.create_cq(16).set_private_channel().build().unwrap();
    let mut wcs = [Wc::default(); 2];
    for cq in [&mut shared, &mut private] {
        complete(&null, cq, [1, 2]);
        let open = cq.poll().unwrap().unwrap();
        null.take_calls();
        expect_poll_in_progress(cq.poll_into(&mut wcs));
        null.expect_no_calls();
        std::mem::forget(open);
        expect_poll_in_progress(cq.poll_into(&mut wcs));
        expect_poll_in_progress(cq.resize(100));
        null.expect_no_calls();
    }
    expect_poll_in_progress(shared.req_notify(false));
    expect_poll_in_progress(shared.poll_armed(false, |_| ()));
    expect_poll_in_progress(private.wait(None));
    null.expect_no_calls();
}

#[test]
fn a_closure_that_is_handed_completions_cannot_poll() {
    let null = null();
    let ctx = open(0);
    let channel = ctx.create_comp_channel().unwrap();
    let cq = ctx.create_cq(16).set_comp_channel(&channel).build().unwrap();
    complete(&null, &cq, 0..20);
    let mut seen = Vec::new();
    let count = cq.poll_armed(false, |wc| {
        expect_poll_in_progress(cq.poll());
        expect_poll_in_progress(cq.poll_into(&mut [Wc::default()]));
        expect_poll_in_progress(cq.poll_armed(false, |_| ()));
        seen.push(wc.wr_id());
    });
    assert_eq!(count.unwrap(), 20);
    assert!(seen.into_iter().eq(0..20));
}

#[test]
fn a_closure_that_panics_ends_the_poll() {
    let null = null();
    let ctx = open(0);
    let channel = ctx.create_comp_channel().unwrap();
    let cq = ctx.create_cq(16).set_comp_channel(&channel).build().unwrap();
    complete(&null, &cq, 0..3);
    let panic = catch_unwind(AssertUnwindSafe(|| {
        cq.poll_armed(false, |_| std::panic::resume_unwind(Box::new(())))
    }));
    assert!(panic.is_err());
    assert_eq!(poll_all(&cq), [1, 2]);
}

#[test]
fn a_poll_that_finds_nothing_is_not_open() {
    let _null = null();
    let Parts { cq, .. } = parts();
    assert!(cq.poll().unwrap().is_none());
    assert!(cq.poll().unwrap().is_none());
}

#[test]
fn a_completion_queue_with_a_forgotten_poll_is_not_closed_but_dropped() {
    let null = null();
    let Parts { ctx: _ctx, cq, .. } = parts();
    complete(&null, &cq, [1]);
    std::mem::forget(cq.poll().unwrap().unwrap());
    null.take_calls();
    let failed = cq.close().unwrap_err();
    assert!(matches!(failed.error, Error::PollInProgress));
    null.expect_no_calls();
    drop(failed.resource);
    assert_eq!(null.verbs(), [Verb::EndPoll, Verb::DestroyCq]);
}

#[test]
fn a_queue_pair_is_not_closed_during_a_poll() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let other = cq.context().create_cq(1).build().unwrap();
    for queues in [[&cq, &cq], [&cq, &other], [&other, &cq]] {
        let qp = connected_to(&pd, queues[0], queues[1]);
        complete(&null, &cq, [1]);
        let completions = cq.poll().unwrap().unwrap();
        null.take_calls();
        let failed = qp.close().unwrap_err();
        assert!(matches!(failed.error, Error::PollInProgress));
        null.expect_no_calls();
        drop(completions);
        failed.resource.close().unwrap();
    }
}

#[test]
fn a_queue_pair_is_not_reset_during_a_poll() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let qp = connected(&pd, &cq);
    complete(&null, &cq, [1]);
    let completions = cq.poll().unwrap().unwrap();
    null.take_calls();
    let failed = qp.reset().unwrap_err();
    assert!(matches!(failed.error, Error::PollInProgress));
    null.expect_no_calls();
    drop(completions);
    drop(failed.resource.reset().unwrap());
}

#[test]
fn a_manual_queue_pair_is_not_reset_during_a_poll() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let prepared = pd.create_qp::<Rc>(&cq, &cq, 1).unwrap().build().unwrap();
    let mut qp = prepared.into_manual();
    complete(&null, &cq, [1]);
    std::mem::forget(cq.poll().unwrap().unwrap());
    null.take_calls();
    expect_poll_in_progress(qp.modify(&QueuePairAttr::new().set_state(QpState::RESET)));
    null.expect_no_calls();
    // Failing it takes no lock of a completion queue.
    qp.modify(&QueuePairAttr::new().set_state(QpState::ERR)).unwrap();
}

#[test]
fn a_handshake_that_fails_during_a_poll_does_not_reset() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let prepared = pd.create_qp::<Rc>(&cq, &cq, 1).unwrap().build().unwrap();
    let without_gid = ibverbs::QueuePairEndpoint::new(1, 0, 1, None).unwrap();
    complete(&null, &cq, [1]);
    let completions = cq.poll().unwrap().unwrap();
    let failed = prepared.handshake(without_gid).unwrap_err();
    drop(completions);
    let endpoint = failed.resource.endpoint().unwrap();
    drop(failed.resource.handshake(endpoint).unwrap());
}

#[test]
fn a_queue_pair_that_is_dropped_during_a_poll_is_destroyed_after_it() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let qp = connected(&pd, &cq);
    complete(&null, &cq, [1, 2]);
    let mut completions = cq.poll().unwrap().unwrap();
    null.take_calls();
    drop(qp);
    null.expect_no_calls();
    assert_eq!(completions.next().unwrap().wr_id(), 1);
    assert_eq!(completions.next().unwrap().wr_id(), 2);
    drop(completions);
    assert_eq!(null.verbs(), [Verb::NextPoll, Verb::EndPoll, Verb::DestroyQp]);
}

#[test]
fn a_queue_pair_waits_for_the_polls_of_both_its_queues() {
    let null = null();
    let Parts { ctx, pd, cq: send_cq } = parts();
    let recv_cq = ctx.create_cq(1).build().unwrap();
    for send_first in [true, false] {
        let qp = connected_to(&pd, &send_cq, &recv_cq);
        complete(&null, &send_cq, [1]);
        complete(&null, &recv_cq, [2]);
        let mut polls = [send_cq.poll().unwrap(), recv_cq.poll().unwrap()];
        drop(qp);
        if !send_first {
            polls.reverse();
        }
        let [first, second] = polls;
        null.take_calls();
        drop(first);
        assert_eq!(null.verbs(), [Verb::EndPoll]);
        drop(second);
        assert_eq!(null.verbs(), [Verb::EndPoll, Verb::DestroyQp]);
    }
}

#[test]
fn a_queue_pair_that_another_thread_drops_during_a_poll_waits_as_well() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let qp = connected(&pd, &cq);
    complete(&null, &cq, [1]);
    let completions = cq.poll().unwrap().unwrap();
    null.take_calls();
    // This thread waits for the other one: had that one to wait for the poll, it would be for ever.
    thread::scope(|scope| scope.spawn(move || drop(qp)).join().unwrap());
    null.expect_no_calls();
    drop(completions);
    assert_eq!(null.verbs(), [Verb::EndPoll, Verb::DestroyQp]);
}

#[test]
fn a_completion_queue_that_is_dropped_with_a_forgotten_poll_frees_what_waits() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    let qp = connected(&pd, &cq);
    complete(&null, &cq, [1]);
    std::mem::forget(cq.poll().unwrap().unwrap());
    drop((qp, pd, ctx));
    null.take_calls();
    drop(cq);
    let expected =
        [Verb::EndPoll, Verb::DestroyQp, Verb::DeallocPd, Verb::DestroyCq, Verb::CloseDevice];
    let mut found = null.verbs();
    assert_eq!(found[..2], expected[..2]);
    found.sort();
    let mut expected = expected;
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn a_queue_pair_outlives_the_completion_queue_with_a_forgotten_poll() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let qp = connected(&pd, &cq);
    complete(&null, &cq, [1]);
    std::mem::forget(cq.poll().unwrap().unwrap());
    drop(cq);
    assert_eq!(null.count(Verb::EndPoll), 1);
    assert_eq!(null.count(Verb::DestroyCq), 0);
    qp.close().unwrap();
    assert_eq!(null.count(Verb::DestroyCq), 1);
}

#[test]
fn a_forgotten_poll_can_be_ended_on_another_thread() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let qp = connected(&pd, &cq);
    complete(&null, &cq, [1]);
    std::mem::forget(cq.poll().unwrap().unwrap());
    drop(qp);
    thread::scope(|scope| scope.spawn(move || drop(cq)).join().unwrap());
    assert_eq!(null.count(Verb::DestroyQp), 1);
}

#[test]
fn a_queue_pair_that_cannot_be_built_during_a_poll_is_destroyed_after_it() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    complete(&null, &cq, [1]);
    null.configure(|config| config.edit_qp = Some(Box::new(|qp| qp.wr_send = None)));
    let completions = cq.poll().unwrap().unwrap();
    let result = pd.create_qp::<Rc>(&cq, &cq, 1).unwrap().build();
    assert!(matches!(result, Err(Error::Unsupported { .. })));
    null.configure(|config| {
        config.edit_qp = None;
        config.plain_queue_pairs = true;
    });
    let result = pd.create_qp::<Rc>(&cq, &cq, 1).unwrap().build();
    assert!(matches!(result, Err(Error::Unsupported { .. })));
    drop(completions);
}

#[test]
fn too_much_inline_data_is_explained_during_a_poll_as_well() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    complete(&null, &cq, [1]);
    let completions = cq.poll().unwrap().unwrap();
    let builder = pd.create_qp::<Rc>(&cq, &cq, 1).unwrap().set_max_inline_data(100_000);
    assert!(builder.build().is_err());
    drop(completions);
}

#[test]
fn queue_pairs_that_another_thread_ends_while_polls_come_and_go() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let (sender, receiver) = mpsc::channel::<QueuePair<Rc>>();
    thread::scope(|scope| {
        scope.spawn(move || {
            for (place, qp) in receiver.into_iter().enumerate() {
                match place % 2 {
                    0 => drop(qp),
                    // During a poll it comes back, and is dropped.
                    _ => drop(qp.close()),
                }
            }
        });
        for round in 0..if cfg!(miri) { 20 } else { 2000 } {
            sender.send(connected(&pd, &cq)).unwrap();
            complete(&null, &cq, 0..round % 3);
            assert!(poll_all(&cq).len() <= 2);
        }
        drop(sender);
    });
}

#[test]
fn a_queue_pair_that_another_thread_drops_together_with_its_completion_queue_is_destroyed() {
    let null = null();
    let Parts { ctx, pd, .. } = parts();
    for _ in 0..if cfg!(miri) { 10 } else { 1000 } {
        let cq = ctx.create_cq(1).build().unwrap();
        let qp = connected(&pd, &cq);
        complete(&null, &cq, [1]);
        std::mem::forget(cq.poll().unwrap().unwrap());
        thread::scope(|scope| {
            scope.spawn(move || drop(qp));
            drop(cq);
        });
        assert_eq!((null.live(Kind::Qp), null.live(Kind::Cq)), (0, 0));
    }
}

#[test]
fn completion_queues_are_independent() {
    let null = null();
    let ctx = open(0);
    let queues = [1, 2].map(|_| ctx.create_cq(1).build().unwrap());
    queues.iter().for_each(|cq| complete(&null, cq, [7]));
    let first = queues[0].poll().unwrap().unwrap();
    let second = queues[1].poll().unwrap().unwrap();
    drop(first);
    drop(second);
}
