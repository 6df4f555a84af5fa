//! Rule 10 for tasks: events that are awaited on tokio.

use std::time::Duration;

use ibverbs::{ffi, AsyncEvent, AsyncEvents, Context, EventSource, EventType, Result};
use null_provider::{Element, Kind};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::common::{connected, null, open, parts, Null, Parts};

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn raise_on_port(null: &Null, ctx: &Context, port: i32) {
    null.raise(ctx.as_raw(), ffi::IBV_EVENT_PORT_ERR, Element::Number(port));
}

async fn next(events: &mut AsyncEvents) -> Result<AsyncEvent> {
    timeout(Duration::from_secs(30), events.next()).await.expect("something came")
}

async fn next_port(events: &mut AsyncEvents) -> u8 {
    match next(events).await.unwrap().source() {
        EventSource::Port(port) => port,
        other => panic!("{other:?}"),
    }
}

/// That nothing comes for a moment. The future is dropped then.
async fn expect_none(events: &mut AsyncEvents) {
    let soon = Duration::from_millis(5);
    assert!(timeout(soon, events.next()).await.is_err(), "an event came");
}

#[test]
#[cfg_attr(miri, ignore = "tokio needs more of epoll than Miri has")]
fn a_task_on_any_thread_awaits_events() {
    let null = null();
    let ctx = open(0);
    let runtime = runtime();
    let mut events = runtime.block_on(async { ctx.async_events() }).unwrap();
    // `spawn` demands that the task be `Send`.
    let task = runtime.spawn(async move {
        let mut ports = Vec::new();
        while ports.len() < 3 {
            ports.push(next_port(&mut events).await);
        }
        ports
    });
    for port in 1..=3 {
        std::thread::sleep(Duration::from_millis(2));
        raise_on_port(&null, &ctx, port);
    }
    assert_eq!(runtime.block_on(task).unwrap(), [1, 2, 3]);
}

#[test]
#[cfg_attr(miri, ignore = "tokio needs more of epoll than Miri has")]
fn events_that_came_together_are_awaited_one_by_one() {
    let null = null();
    let ctx = open(0);
    runtime().block_on(async {
        let mut events = ctx.async_events().unwrap();
        for port in 1..=3 {
            raise_on_port(&null, &ctx, port);
        }
        for port in 1..=3 {
            assert_eq!(next_port(&mut events).await, port);
        }
        expect_none(&mut events).await;
    });
}

#[test]
#[cfg_attr(miri, ignore = "tokio needs more of epoll than Miri has")]
fn a_future_that_is_dropped_loses_no_event() {
    let null = null();
    let ctx = open(0);
    runtime().block_on(async {
        let mut events = ctx.async_events().unwrap();
        for port in 1..=3 {
            let mut future = Box::pin(events.next());
            // Polls the future once.
            tokio::select! {
                biased;
                event = &mut future => panic!("{event:?}"),
                () = std::future::ready(()) => raise_on_port(&null, &ctx, port),
            }
            drop(future);
            assert_eq!(next_port(&mut events).await, port as u8);
            expect_none(&mut events).await;
        }
    });
}

#[test]
#[cfg_attr(miri, ignore = "tokio needs more of epoll than Miri has")]
fn an_event_that_is_gone_when_it_is_read_is_awaited_no_more() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    runtime().block_on(async {
        let mut events = ctx.async_events().unwrap();
        let qp = connected(&pd, &cq);
        let element = Element::Object(qp.as_raw().cast());
        null.raise(ctx.as_raw(), ffi::IBV_EVENT_QP_FATAL, element);
        drop(qp);
        expect_none(&mut events).await;
        raise_on_port(&null, &ctx, 1);
        assert_eq!(next_port(&mut events).await, 1);
    });
}

#[test]
#[cfg_attr(miri, ignore = "tokio needs more of epoll than Miri has")]
fn a_device_that_was_removed_ends_the_events() {
    let null = null();
    let ctx = open(0);
    runtime().block_on(async {
        let mut events = ctx.async_events().unwrap();
        null.raise(ctx.as_raw(), ffi::IBV_EVENT_DEVICE_FATAL, Element::Number(0));
        null.end_events(ctx.as_raw());
        assert_eq!(next(&mut events).await.unwrap().event_type(), EventType::DEVICE_FATAL);
        for _ in 0..2 {
            assert_eq!(next(&mut events).await.unwrap_err().os_error(), Some(libc::EIO));
        }
    });
}

#[test]
#[cfg_attr(miri, ignore = "tokio needs more of epoll than Miri has")]
fn tasks_share_the_events_of_a_context() {
    let null = null();
    let ctx = open(0);
    let runtime = runtime();
    let tasks: Vec<_> = (0..2)
        .map(|_| {
            let mut events = runtime.block_on(async { ctx.async_events() }).unwrap();
            runtime.spawn(async move { next_port(&mut events).await })
        })
        .collect();
    raise_on_port(&null, &ctx, 1);
    raise_on_port(&null, &ctx, 2);
    let mut ports: Vec<_> = tasks.into_iter().map(|task| runtime.block_on(task).unwrap()).collect();
    ports.sort();
    assert_eq!(ports, [1, 2]);
}

#[test]
#[cfg_attr(miri, ignore = "tokio needs more of epoll than Miri has")]
fn awaited_events_keep_the_context_open() {
    let null = null();
    let ctx = open(0);
    let runtime = runtime();
    let mut events = runtime.block_on(async { ctx.async_events() }).unwrap();
    raise_on_port(&null, &ctx, 1);
    let ctx = ctx.close().unwrap_err().resource;
    drop(ctx);
    assert_eq!(null.live(Kind::Context), 1);
    assert_eq!(runtime.block_on(next_port(&mut events)), 1);
    // The runtime may end first.
    drop(runtime);
    assert!(format!("{events:?}").contains("null0"));
    drop(events);
    assert_eq!(null.live(Kind::Context), 0);
}
