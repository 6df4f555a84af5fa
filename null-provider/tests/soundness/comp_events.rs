//! Rule 10 for completion events: an event is acknowledged before the user sees it, so that nothing waits for
//! it; a channel lives for as long as its queues; and an event is not counted while its queue is armed.

use std::thread;
use std::time::Duration;

use ibverbs::{CompletionChannel, CompletionQueue, Context, Error, Rc};
use null_provider::{Completion, Kind, Verb};

use crate::common::{complete, connected, null, open, poll_all, Null};

const NOT_AT_ALL: Option<Duration> = Some(Duration::ZERO);

fn armed(ctx: &Context, channel: &CompletionChannel, number: u64) -> CompletionQueue {
    let builder = ctx.create_cq(16).set_comp_channel(channel).set_context(number);
    let cq = builder.build().unwrap();
    cq.req_notify(false).unwrap();
    cq
}

/// A context and a channel, with an armed queue in which something has completed.
fn with_event(null: &Null, number: u64) -> (Context, CompletionChannel, CompletionQueue) {
    let ctx = open(0);
    let channel = ctx.create_comp_channel().unwrap();
    let cq = armed(&ctx, &channel, number);
    complete(null, &cq, [1]);
    (ctx, channel, cq)
}

#[test]
fn an_event_is_acknowledged_before_it_is_handed_out() {
    let null = null();
    let (_ctx, channel, cq) = with_event(&null, u64::MAX);
    null.take_calls();
    let event = channel.get_event().unwrap().unwrap();
    assert_eq!(null.verbs(), [Verb::GetCqEvent, Verb::AckCqEvents]);
    // The queue can go while the event is kept.
    cq.close().unwrap();
    channel.close().unwrap();
    assert_eq!(event.context(), u64::MAX);
}

#[test]
#[cfg_attr(miri, ignore = "Miri does not have ppoll")]
fn an_event_that_was_waited_for_is_acknowledged() {
    let null = null();
    let (ctx, channel, cq) = with_event(&null, 5);
    assert_eq!(channel.wait(None).unwrap().unwrap().context(), 5);
    assert_eq!((null.count(Verb::GetCqEvent), null.count(Verb::AckCqEvents)), (1, 1));
    cq.close().unwrap();

    let cq = ctx.create_cq(16).set_private_channel().build().unwrap();
    assert!(cq.wait(NOT_AT_ALL).unwrap().is_none());
    complete(&null, &cq, [1]);
    assert_eq!(poll_all(&cq), [1]);
    // It takes the event that is left over, and then finds nothing.
    assert!(cq.wait(NOT_AT_ALL).unwrap().is_none());
    assert_eq!(null.count(Verb::AckCqEvents), 2);
    cq.close().unwrap();
}

#[test]
fn things_go_in_every_order_with_and_without_events() {
    let null = null();
    for unread in [false, true] {
        for channel_first in [false, true] {
            let (ctx, channel, cq) = with_event(&null, 1);
            drop(ctx);
            if !unread {
                channel.get_event().unwrap().unwrap();
            }
            if channel_first {
                drop(channel);
                assert_eq!(null.live(Kind::CompChannel), 1);
                // Still armed and completed, for nobody.
                cq.req_notify(false).unwrap();
                complete(&null, &cq, [2]);
                assert_eq!(poll_all(&cq), [1, 2]);
                drop(cq);
            } else {
                drop(cq);
                assert_eq!(channel.get_event().unwrap(), None);
                drop(channel);
            }
            assert_eq!(null.all_live(), []);
        }
    }
}

#[test]
fn a_queue_pair_keeps_the_channel_of_its_queue() {
    let null = null();
    let (ctx, channel, cq) = with_event(&null, 1);
    let pd = ctx.alloc_pd().unwrap();
    let qp = connected(&pd, &cq);
    drop((ctx, channel, cq, pd));
    assert_eq!(null.live(Kind::CompChannel), 1);
    drop(qp);
    assert_eq!(null.live(Kind::CompChannel), 0);
}

#[test]
fn a_channel_in_use_is_not_closed() {
    let null = null();
    let (_ctx, channel, cq) = with_event(&null, 1);
    null.take_calls();
    let failed = channel.close().unwrap_err();
    assert!(matches!(failed.error, Error::InUse { .. }), "{failed}");
    null.expect_no_calls();
    let channel = failed.resource;
    assert!(channel.get_event().unwrap().is_some());
    cq.close().unwrap();
    null.fail(Verb::DestroyCompChannel, libc::EBUSY);
    let failed = channel.close().unwrap_err();
    assert!(matches!(failed.error, Error::InUse { .. }), "{failed}");
    null.succeed(Verb::DestroyCompChannel);
    failed.resource.close().unwrap();
}

#[test]
fn a_queue_that_cannot_be_created_leaves_its_channel() {
    let null = null();
    let ctx = open(0);
    let channel = ctx.create_comp_channel().unwrap();
    null.fail(Verb::CreateCq, libc::ENOMEM);
    assert!(ctx.create_cq(1).set_comp_channel(&channel).build().is_err());
    assert!(ctx.create_cq(1).set_private_channel().build().is_err());
    assert_eq!(null.live(Kind::CompChannel), 1);
    null.succeed(Verb::CreateCq);
    null.fail(Verb::CreateCompChannel, libc::EMFILE);
    let error = ctx.create_cq(1).set_private_channel().build().unwrap_err();
    assert_eq!(error.os_error(), Some(libc::EMFILE));
    assert_eq!(ctx.create_comp_channel().unwrap_err().os_error(), Some(libc::EMFILE));
    channel.close().unwrap();
}

#[test]
fn the_descriptor_never_blocks() {
    // That it would is a violation.
    let null = null();
    let ctx = open(0);
    let channel = ctx.create_comp_channel().unwrap();
    assert_eq!(channel.get_event().unwrap(), None);
    // An event of a queue that is gone: the descriptor can be read, but there is nothing.
    let cq = armed(&ctx, &channel, 1);
    complete(&null, &cq, [1]);
    drop(cq);
    assert_eq!(channel.get_event().unwrap(), None);
    assert_eq!(null.count(Verb::AckCqEvents), 0);
}

#[test]
fn errors_of_taking_and_arming_are_reported() {
    let null = null();
    let (ctx, channel, cq) = with_event(&null, 1);
    null.fail(Verb::GetCqEvent, libc::EIO);
    assert_eq!(channel.get_event().unwrap_err().os_error(), Some(libc::EIO));
    assert_eq!(channel.wait(None).unwrap_err().os_error(), Some(libc::EIO));
    assert_eq!(null.count(Verb::AckCqEvents), 0);
    null.succeed(Verb::GetCqEvent);
    // EFA has no solicited events; ionic's codes are negative.
    null.fail(Verb::ReqNotifyCq, libc::EOPNOTSUPP);
    assert!(matches!(cq.req_notify(true), Err(Error::Unsupported { .. })));
    null.fail(Verb::ReqNotifyCq, -libc::EINVAL);
    assert_eq!(cq.req_notify(false).unwrap_err().os_error(), Some(libc::EINVAL));
    let private = ctx.create_cq(16).set_private_channel().build().unwrap();
    assert_eq!(private.wait(None).unwrap_err().os_error(), Some(libc::EINVAL));
    null.succeed(Verb::ReqNotifyCq);
    assert!(channel.get_event().unwrap().is_some());
}

#[test]
fn nothing_is_handed_out_without_a_channel() {
    let null = null();
    let ctx = open(0);
    let plain = ctx.create_cq(16).build().unwrap();
    let private = ctx.create_cq(16).set_private_channel().build().unwrap();
    for cq in [&plain, &private] {
        complete(&null, cq, [1]);
        null.take_calls();
        assert!(cq.req_notify(false).is_err());
        assert!(cq.poll_armed(false, |_| panic!("it was handed out")).is_err());
        null.expect_no_calls();
        assert_eq!(poll_all(cq), [1]);
    }
    assert!(plain.wait(None).is_err());
}

#[test]
fn a_queue_is_armed_when_it_is_empty_and_looked_at_once_more() {
    let null = null();
    let ctx = open(0);
    let channel = ctx.create_comp_channel().unwrap();
    let cq = ctx.create_cq(64).set_comp_channel(&channel).build().unwrap();
    complete(&null, &cq, 0..2);
    null.take_calls();
    cq.poll_armed(false, |_| ()).unwrap();
    let [.., Verb::StartPoll, Verb::ReqNotifyCq, Verb::StartPoll] = null.verbs()[..] else {
        panic!("another order")
    };
    // The places of completions are given back in batches.
    complete(&null, &cq, 0..40);
    null.take_calls();
    cq.poll_armed(false, |_| ()).unwrap();
    assert_eq!(null.count(Verb::EndPoll), 3);
}

#[test]
#[cfg_attr(miri, ignore = "Miri does not have ppoll")]
fn what_completes_just_before_the_queue_is_armed_is_not_missed() {
    let null = null();
    let ctx = open(0);
    let late = |wr_id| {
        let completion = Completion { wr_id, ..Completion::default() };
        null.configure(|config| config.completes_before_arming = Some(completion));
    };
    let channel = ctx.create_comp_channel().unwrap();
    let cq = ctx.create_cq(16).set_comp_channel(&channel).build().unwrap();
    late(1);
    let mut found = Vec::new();
    assert_eq!(cq.poll_armed(false, |wc| found.push(wc.wr_id())).unwrap(), 1);
    assert_eq!(found, [1]);
    assert_eq!(channel.get_event().unwrap(), None);
    let cq = ctx.create_cq(16).set_private_channel().build().unwrap();
    late(2);
    let mut completions = cq.wait(NOT_AT_ALL).unwrap().expect("it was missed");
    assert_eq!(completions.next().map(|wc| wc.wr_id()), Some(2));
}

#[test]
#[cfg_attr(miri, ignore = "Miri does not have ppoll")]
fn events_do_not_pile_up() {
    let null = null();
    let ctx = open(0);
    let cq = ctx.create_cq(16).set_private_channel().build().unwrap();
    for round in 0..10 {
        assert!(cq.wait(NOT_AT_ALL).unwrap().is_none());
        complete(&null, &cq, [round]);
        assert_eq!(poll_all(&cq), [round]);
        complete(&null, &cq, [round]);
        drop(cq.wait(NOT_AT_ALL).unwrap().expect("it is there"));
    }
    // It was never armed while an event was on its way.
    assert!(null.count(Verb::ReqNotifyCq) <= null.count(Verb::AckCqEvents) + 1);
    while cq.wait(NOT_AT_ALL).unwrap().is_some() {}
    assert_eq!(null.count(Verb::ReqNotifyCq), null.count(Verb::AckCqEvents) + 1);
}

#[test]
#[cfg_attr(miri, ignore = "Miri does not have ppoll")]
fn a_queue_that_is_resized_is_armed_anew() {
    let null = null();
    let ctx = open(0);
    let mut cq = ctx.create_cq(16).set_private_channel().build().unwrap();
    assert!(cq.wait(NOT_AT_ALL).unwrap().is_none());
    null.take_calls();
    cq.resize(100).unwrap();
    assert!(cq.wait(NOT_AT_ALL).unwrap().is_none());
    assert_eq!(null.count(Verb::ReqNotifyCq), 1);
}

#[test]
fn solicited_events_are_for_solicited_completions() {
    let null = null();
    let ctx = open(0);
    let channel = ctx.create_comp_channel().unwrap();
    let cq = ctx.create_cq(16).set_comp_channel(&channel).build().unwrap();
    assert_eq!(cq.poll_armed(true, |_| ()).unwrap(), 0);
    complete(&null, &cq, [1]);
    assert_eq!(channel.get_event().unwrap(), None);
    null.complete(cq.as_raw(), Completion { solicited: true, ..Completion::default() });
    assert!(channel.get_event().unwrap().is_some());
}

#[test]
fn a_queue_is_not_armed_while_its_event_is_taken() {
    let null = null();
    null.configure(|config| config.slow_events = true);
    let ctx = open(0);
    let channel = ctx.create_comp_channel().unwrap();
    let cq = ctx.create_cq(16).set_comp_channel(&channel).build().unwrap();
    // That they come together is a violation.
    thread::scope(|scope| {
        let channel = &channel;
        let taking = scope.spawn(move || {
            let mut events = 0;
            while events < 20 {
                events += usize::from(channel.get_event().unwrap().is_some());
                thread::yield_now();
            }
        });
        while !taking.is_finished() {
            cq.req_notify(false).unwrap();
            complete(&null, &cq, [1]);
            poll_all(&cq);
        }
    });
}

#[test]
fn a_queue_is_closed_while_another_thread_takes_its_events() {
    let null = null();
    null.configure(|config| config.slow_events = true);
    let ctx = open(0);
    let channel = ctx.create_comp_channel().unwrap();
    thread::scope(|scope| {
        let channel = &channel;
        let ctx = &ctx;
        let null = &null;
        let creating = scope.spawn(move || {
            for number in 0..20 {
                let cq = armed(ctx, channel, number);
                complete(null, &cq, [1]);
                thread::yield_now();
                cq.close().unwrap();
            }
        });
        while !creating.is_finished() {
            if let Some(event) = channel.get_event().unwrap() {
                assert!(event.context() < 20);
            }
        }
    });
}

#[test]
fn queue_pairs_are_created_on_queues_with_channels() {
    let _null = null();
    let ctx = open(0);
    let pd = ctx.alloc_pd().unwrap();
    let channel = ctx.create_comp_channel().unwrap();
    let send_cq = ctx.create_cq(1).set_comp_channel(&channel).set_context(1).build().unwrap();
    let recv_cq = ctx.create_cq(1).set_private_channel().build().unwrap();
    assert_eq!((send_cq.context_value(), recv_cq.context_value()), (1, 0));
    drop(pd.create_qp::<Rc>(&send_cq, &recv_cq, 1).unwrap().build().unwrap());
}
