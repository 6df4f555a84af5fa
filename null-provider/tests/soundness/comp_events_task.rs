//! Rule 10 for tasks: completions that are awaited on tokio.

use std::future::Future;
use std::pin::pin;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use ibverbs::{AsyncCompletionQueue, Completions, Error};
use null_provider::{Completion, Kind, Verb};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::common::{complete, null, open, poll_all};

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn queue() -> AsyncCompletionQueue {
    open(0).create_cq(16).build_async().unwrap()
}

fn ids(mut completions: Completions<'_>) -> Vec<u64> {
    let mut found = Vec::new();
    while let Some(wc) = completions.next() {
        found.push(wc.wr_id());
    }
    found
}

async fn next(cq: &mut AsyncCompletionQueue) -> Vec<u64> {
    let completions = timeout(Duration::from_secs(30), cq.completions()).await;
    ids(completions.expect("a completion was missed").unwrap())
}

/// An error that does not take for ever.
async fn failure(cq: &mut AsyncCompletionQueue) -> Error {
    let result = timeout(Duration::from_secs(30), cq.completions()).await;
    result.expect("an error was missed").map(drop).unwrap_err()
}

/// Polls the future once; it is dropped then.
fn poll_once<T>(future: impl Future<Output = T>) -> Poll<T> {
    pin!(future).poll(&mut TaskContext::from_waker(Waker::noop()))
}

#[test]
#[cfg_attr(miri, ignore = "tokio needs more of epoll than Miri has")]
fn a_future_that_is_dropped_loses_nothing() {
    let null = null();
    runtime().block_on(async {
        let mut cq = queue();
        for round in 0..20 {
            // Dropped before it was polled, while it waits, and when there is something already.
            drop(cq.completions());
            assert!(poll_once(cq.completions()).is_pending());
            complete(&null, cq.queue(), [round]);
            if round % 2 == 0 {
                tokio::task::yield_now().await;
            }
            drop(cq.completions());
            assert_eq!(next(&mut cq).await, [round]);
            // An event is left over.
            if round % 3 == 0 {
                assert!(timeout(Duration::from_millis(2), cq.completions()).await.is_err());
            }
        }
    });
}

#[test]
#[cfg_attr(miri, ignore = "tokio needs more of epoll than Miri has")]
fn a_task_that_waits_wakes_up_each_time() {
    let null = null();
    runtime().block_on(async {
        let mut cq = queue();
        let raw = cq.queue().as_raw();
        for wr_id in 0..10 {
            let later = async {
                tokio::time::sleep(Duration::from_millis(2)).await;
                null.complete(raw, Completion { wr_id, ..Completion::default() });
            };
            let (found, ()) = tokio::join!(next(&mut cq), later);
            assert_eq!(found, [wr_id]);
        }
        // At the last moment before it sleeps.
        let completion = Completion { wr_id: 77, ..Completion::default() };
        null.configure(|config| config.completes_before_arming = Some(completion));
        assert_eq!(next(&mut cq).await, [77]);
    });
}

#[test]
#[cfg_attr(miri, ignore = "tokio needs more of epoll than Miri has")]
fn a_queue_is_armed_once_for_each_event() {
    let null = null();
    runtime().block_on(async {
        let mut cq = queue();
        for round in 0..10 {
            for _ in 0..3 {
                assert!(poll_once(cq.completions()).is_pending());
            }
            assert!(null.count(Verb::ReqNotifyCq) <= null.count(Verb::AckCqEvents) + 1);
            complete(&null, cq.queue(), [round]);
            assert_eq!(next(&mut cq).await, [round]);
        }
        // While there are completions, nothing is armed.
        null.take_calls();
        complete(&null, cq.queue(), [1]);
        assert_eq!(next(&mut cq).await, [1]);
        assert_eq!(null.count(Verb::ReqNotifyCq), 0);
    });
}

#[test]
#[cfg_attr(miri, ignore = "tokio needs more of epoll than Miri has")]
fn events_that_are_left_over_wake_nobody_for_long() {
    let null = null();
    runtime().block_on(async {
        let mut cq = queue();
        assert!(poll_once(cq.completions()).is_pending());
        complete(&null, cq.queue(), [1]);
        assert_eq!(poll_all(cq.queue()), [1]);
        null.take_calls();
        assert!(timeout(Duration::from_millis(20), cq.completions()).await.is_err());
        // It took the event, armed the queue anew, found that there is no other event, and slept.
        assert_eq!(null.count(Verb::AckCqEvents), 1);
        assert!(null.count(Verb::GetCqEvent) <= 3);
        complete(&null, cq.queue(), [2]);
        assert_eq!(next(&mut cq).await, [2]);
    });
}

#[test]
#[cfg_attr(miri, ignore = "tokio needs more of epoll than Miri has")]
fn an_event_that_was_taken_without_the_runtime_does_not_keep_a_task_awake() {
    let null = null();
    runtime().block_on(async {
        let mut cq = queue();
        assert!(poll_once(cq.completions()).is_pending());
        complete(&null, cq.queue(), [1]);
        // The runtime sees that the descriptor is readable; then the event is gone.
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert_eq!(poll_all(cq.queue()), [1]);
        assert!(cq.queue().wait(Some(Duration::ZERO)).unwrap().is_none());
        null.take_calls();
        assert!(timeout(Duration::from_millis(20), cq.completions()).await.is_err());
        assert!(null.count(Verb::GetCqEvent) <= 3, "{}", null.count(Verb::GetCqEvent));
        complete(&null, cq.queue(), [2]);
        assert_eq!(next(&mut cq).await, [2]);
    });
}

#[test]
#[cfg_attr(miri, ignore = "tokio needs more of epoll than Miri has")]
fn errors_are_reported_to_the_task() {
    let null = null();
    runtime().block_on(async {
        let mut cq = queue();
        null.fail(Verb::ReqNotifyCq, libc::EIO);
        let error = failure(&mut cq).await;
        assert!(matches!(error, Error::Verb { verb: "ibv_req_notify_cq", .. }), "{error}");
        null.succeed(Verb::ReqNotifyCq);
        assert!(poll_once(cq.completions()).is_pending());
        complete(&null, cq.queue(), [1]);
        assert_eq!(poll_all(cq.queue()), [1]);
        null.fail(Verb::GetCqEvent, libc::EIO);
        let error = failure(&mut cq).await;
        assert!(matches!(error, Error::Verb { verb: "ibv_get_cq_event", .. }), "{error}");
        null.succeed(Verb::GetCqEvent);
        complete(&null, cq.queue(), [2]);
        assert_eq!(next(&mut cq).await, [2]);
    });
}

#[test]
#[cfg_attr(miri, ignore = "tokio needs more of epoll than Miri has")]
fn the_channel_goes_with_the_queue() {
    let null = null();
    runtime().block_on(async {
        let cq = queue();
        assert_eq!(null.live(Kind::CompChannel), 1);
        drop(cq);
        assert_eq!(null.all_live(), []);
        let cq = queue().into_inner();
        assert_eq!(null.live(Kind::CompChannel), 1);
        cq.close().unwrap();
        assert_eq!(null.all_live(), []);
    });
}

#[test]
#[cfg_attr(miri, ignore = "tokio needs more of epoll than Miri has")]
fn a_queue_that_cannot_be_registered_is_destroyed() {
    let null = null();
    let ctx = open(0);
    // Without its I/O driver, a runtime cannot wait for a descriptor.
    let runtime = Builder::new_current_thread().build().unwrap();
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runtime.block_on(async { ctx.create_cq(1).build_async().map(drop) })
    }));
    assert!(panic.is_err());
    assert_eq!(null.live(Kind::Cq), 0);
}
