//! Calls of two threads at once, which librdmacm does not keep apart.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;

use ibverbs_sys as ffi;
use null_provider::{CmEvent, CmReplies, Controls, Verb};

use crate::common::*;

/// Calls the second while the first is in the middle of this function, and lets the first go on when the last
/// condition holds, or when the second has returned.
fn overlap(
    null: &Null,
    verb: Verb,
    first: impl FnOnce() + Send,
    second: impl FnOnce(),
    until: impl Fn(&Controls) -> bool + Send + Sync + 'static,
) {
    let inside = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicBool::new(false));
    let during = {
        let (inside, done, controls) = (inside.clone(), done.clone(), null.controls());
        move |called| {
            if called == verb && !inside.swap(true, Ordering::Relaxed) {
                while !done.load(Ordering::Relaxed) && !until(controls) {
                    thread::yield_now();
                }
            }
        }
    };
    null.configure(|config| config.cm.during = Some(Arc::new(during)));
    thread::scope(|scope| {
        scope.spawn(first);
        while !inside.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        let _done = SetOnDrop(done);
        second();
    });
    null.configure(|config| config.cm.during = None);
}

/// Lets the other thread go on even if a test fails.
struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn never(_: &Controls) -> bool {
    false
}

#[test]
fn two_threads_do_not_write_at_once() {
    let null = null();
    let channel = channel();
    let id = channel.tcp();
    let resolve = || ok(id.resolve_addr("10.0.0.1:7"));
    overlap(&null, Verb::BindAddr, || fails(id.bind("10.0.0.1:0"), libc::EINVAL), resolve, never);
    null.expect_violation("ResolveAddr: two threads use the identifier at once");
}

#[test]
fn reading_an_event_writes_into_the_identifier() {
    let null = null();
    let channel = channel();
    let id = channel.tcp();
    ok(id.resolve_addr("10.0.0.1:7"));
    let read = || drop(channel.expect(ffi::RDMA_CM_EVENT_ADDR_RESOLVED));
    let look = || assert!(id.qp_attr(ffi::IBV_QPS_INIT).is_ok());
    overlap(&null, Verb::GetCmEvent, read, look, never);
    null.expect_violation("InitQpAttr: two threads use the identifier at once");
}

#[test]
fn two_threads_may_look_at_once() {
    let null = null();
    let channel = channel();
    let ends = connected(&channel);
    null.configure(|config| config.cm.replies = CmReplies::none());
    let event = ffi::RDMA_CM_EVENT_DISCONNECTED;
    null.cm_event(ends.client.raw(), CmEvent { event, ..CmEvent::default() });
    let read = || drop(channel.expect(event));
    overlap(&null, Verb::GetCmEvent, read, || ok(ends.client.disconnect()), never);
}

#[test]
fn an_event_may_be_read_while_the_identifier_is_destroyed() {
    let null = null();
    let channel = channel();
    let id = channel.tcp();
    ok(id.resolve_addr("10.0.0.1:7"));
    let destroying = |controls: &Controls| controls.count(Verb::DestroyCmId) > 0;
    overlap(&null, Verb::GetCmEvent, || drop(channel.event()), || drop(id), destroying);
}

#[test]
fn an_identifier_is_destroyed_when_all_calls_have_returned() {
    let null = null();
    let channel = channel();
    let id = channel.tcp();
    let destroy = || fails(id.destroy(), libc::EBUSY);
    overlap(&null, Verb::BindAddr, || ok(id.bind("10.0.0.1:0")), destroy, never);
    null.expect_violation("DestroyCmId: a call on the identifier has not returned");
    null.reset();
    std::mem::forget((id, channel));
}

#[test]
fn an_identifier_that_is_being_destroyed_is_left_alone() {
    let null = null();
    let channel = channel();
    let id = channel.tcp();
    null.cm_event(id.raw(), CmEvent { event: 77, ..CmEvent::default() });
    let event = channel.event();
    thread::scope(|scope| {
        let destroyer = scope.spawn(|| ok(id.destroy()));
        let found = loop {
            id.src_port();
            let found = null.take_violations();
            if !found.is_empty() {
                break found;
            }
        };
        assert_eq!(found, ["GetCmPort: the identifier is being destroyed"]);
        drop(event);
        destroyer.join().unwrap();
    });
    id.forget();
}
