//! Waiting, with a deadline: a test fails with a message and never hangs.

use std::os::fd::AsRawFd;
use std::panic::resume_unwind;
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::time::{Duration, Instant};

use ibverbs::{
    AsyncEvent, CompletionQueue, Context, DatagramSender, EventType, WcError, WcFlags, WcOpcode,
    WcStatus, WorkCompletion,
};

/// How long anything may take. It is generous: an emulated processor is slow.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// What a completion said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wc {
    /// The work request's identifier.
    pub wr_id: u64,
    /// How it ended.
    pub ok: Result<(), WcError>,
    /// The queue pair's number.
    pub qp_num: u32,
    /// What was done; means nothing on an error.
    pub opcode: WcOpcode,
    /// How many bytes were received or transferred; means nothing on an error.
    pub len: u32,
    /// The immediate data; means nothing on an error.
    pub imm: Option<u32>,
    /// The flags; mean nothing on an error.
    pub flags: WcFlags,
    /// Who sent it; means something for received datagrams only.
    pub sender: DatagramSender,
}

impl Wc {
    /// Copies a completion.
    pub fn new(wc: &WorkCompletion<'_>) -> Wc {
        Wc {
            wr_id: wc.wr_id(),
            ok: wc.ok(),
            qp_num: wc.qp_num(),
            opcode: wc.opcode(),
            len: wc.len(),
            imm: wc.imm_data(),
            flags: wc.flags(),
            sender: wc.sender(),
        }
    }

    /// The status of the work request.
    pub fn status(&self) -> WcStatus {
        self.ok.err().map_or(WcStatus::SUCCESS, |error| error.status)
    }
}

/// What is in the queue now.
fn poll(cq: &CompletionQueue) -> Vec<Wc> {
    let mut found = Vec::new();
    if let Some(mut completions) = cq.poll().expect("the completion queue cannot be polled") {
        while let Some(wc) = completions.next() {
            found.push(Wc::new(&wc));
        }
    }
    found
}

/// Waits for exactly `count` completions, in order.
#[track_caller]
pub fn wait(cq: &CompletionQueue, count: usize) -> Vec<Wc> {
    let mut found = Vec::new();
    let end = Instant::now() + DEADLINE;
    while found.len() < count {
        assert!(
            Instant::now() < end,
            "only {} of {count} completions came: {found:?}",
            found.len()
        );
        found.extend(poll(cq));
        // Other tests share the processors.
        std::thread::yield_now();
    }
    assert_eq!(found.len(), count, "too many completions came: {found:?}");
    found
}

/// Waits for exactly `count` completions, and checks that all are successful.
#[track_caller]
pub fn wait_ok(cq: &CompletionQueue, count: usize) -> Vec<Wc> {
    let found = wait(cq, count);
    for wc in &found {
        assert_eq!(wc.ok, Ok(()), "request {} failed: {found:?}", wc.wr_id);
    }
    found
}

/// Waits for one completion, which is that of `wr_id`, whatever it says.
#[track_caller]
pub fn wait_one(cq: &CompletionQueue, wr_id: u64) -> Wc {
    let wc = wait(cq, 1).remove(0);
    assert_eq!(wc.wr_id, wr_id, "another request completed: {wc:?}");
    wc
}

/// Checks that nothing completes for a while.
#[track_caller]
pub fn assert_silent(cq: &CompletionQueue) {
    let end = Instant::now() + Duration::from_millis(100);
    while Instant::now() < end {
        let found = poll(cq);
        assert!(found.is_empty(), "nothing should have completed: {found:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for an asynchronous event of this type. Others that come before it are dropped.
#[track_caller]
pub fn wait_event(ctx: &Context, event_type: EventType) -> AsyncEvent {
    let mut others = Vec::new();
    let end = Instant::now() + DEADLINE;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match ctx.wait_async_event(Some(left)).expect("the events cannot be read") {
            Some(event) if event.event_type() == event_type => return event,
            Some(event) => others.push(event.to_string()),
            None => panic!("no {event_type} came, but {others:?}"),
        }
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "this did not happen in {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether there is something to read, without taking it.
#[track_caller]
pub fn is_readable(fd: &impl AsRawFd) -> bool {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: the first argument points to one entry, as the second says.
    let count = unsafe { libc::poll(&mut entry, 1, 0) };
    assert!(count >= 0, "{}", std::io::Error::last_os_error());
    entry.revents & libc::POLLIN != 0
}

/// Runs what would wait for ever for a lock if the library were wrong, in a thread of its own that is left
/// behind then.
#[track_caller]
pub fn within_deadline(f: impl FnOnce() + Send + 'static) {
    let (sender, receiver) = channel::<()>();
    let thread = std::thread::spawn(move || {
        f();
        drop(sender);
    });
    match receiver.recv_timeout(DEADLINE) {
        Err(RecvTimeoutError::Timeout) => panic!("it did not return in {DEADLINE:?}"),
        // The sender is gone: the thread has returned or panicked.
        _ => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
    }
}
