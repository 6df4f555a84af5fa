//! The engine's thread.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, mem};

use rustix::event::{eventfd, poll, EventfdFlags, PollFd, PollFlags, Timespec};

use super::engine::Wait;
use super::Driver;

/// Wakes the engine's thread.
#[derive(Debug)]
pub(crate) struct Wake(OwnedFd);

impl Wake {
    pub(crate) fn new() -> io::Result<Wake> {
        Ok(Wake(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    pub(crate) fn wake(&self) {
        // It fails only if the thread has been woken 2^64 - 2 times, and still is to see it.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Forgets that the thread was woken.
    fn clear(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

/// The thread that keeps time for a device, and reads its socket when nobody else does. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct EngineThread {
    thread: Option<JoinHandle<()>>,
}

impl EngineThread {
    /// Starts the thread.
    pub(crate) fn start(driver: Arc<Driver>, name: String) -> io::Result<EngineThread> {
        Ok(EngineThread { thread: Some(spawn(name, move || run(&driver))?) })
    }

    /// Waits until the thread has ended, which it was told to.
    pub(crate) fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // What a panic has to say, it has said.
            let _ = thread.join();
        }
    }

    /// Forgets the thread, which does not exist: in the child of the process that started it.
    pub(crate) fn forget(&mut self) {
        mem::forget(self.thread.take());
    }
}

/// Starts a thread that handles no signals: those are for the program's threads.
pub(super) fn spawn(
    name: String,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let before = block_signals()?;
    let thread = std::thread::Builder::new().name(name).spawn(run);
    before.restore();
    thread
}

fn run(driver: &Driver) {
    // Timers are kept to the microsecond, not to the usual 50: the shortest waiting times of RC are not longer.
    // SAFETY: it is about this thread, and takes a number of nanoseconds.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000 as libc::c_ulong) };
    let wake = driver.wake();
    let (socket, groups) = {
        let engine = driver.lock();
        (Arc::clone(engine.socket().fd()), Arc::clone(engine.group_packets()))
    };
    loop {
        let turn = driver.lock().turn();
        let Some(Wait { listens, time }) = turn else { return };
        if time.is_some_and(|time| time.is_zero()) {
            // Others want the lock, too.
            std::thread::yield_now();
            continue;
        }
        let time = time.map(timespec);
        let mut fds = [&wake.0, &*socket, &*groups].map(|fd| PollFd::new(fd, PollFlags::IN));
        let fds = if listens { &mut fds[..] } else { &mut fds[..1] };
        // It fails if there is no memory: then it was as if it had waited.
        let _ = poll(fds, time.as_ref());
        if !fds[0].revents().is_empty() {
            wake.clear();
        }
    }
}

fn timespec(time: Duration) -> Timespec {
    let tv_sec = time.as_secs().try_into().unwrap_or(i64::MAX);
    Timespec { tv_sec, tv_nsec: time.subsec_nanos().into() }
}

/// The signals that a thread has blocked.
struct Signals(libc::sigset_t);

/// Blocks all signals for this thread, and those that it starts.
fn block_signals() -> io::Result<Signals> {
    let mut all = mem::MaybeUninit::uninit();
    // SAFETY: a place for a set, which is filled.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: filled just now.
    let all = unsafe { all.assume_init() };
    let mut before = mem::MaybeUninit::uninit();
    // SAFETY: a set, and a place for one, which is filled on success.
    let answer = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &all, before.as_mut_ptr()) };
    if answer != 0 {
        return Err(io::Error::from_raw_os_error(answer));
    }
    // SAFETY: filled by the call that has succeeded.
    Ok(Signals(unsafe { before.assume_init() }))
}

impl Signals {
    fn restore(self) {
        // SAFETY: a set, and no place for one.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) };
    }
}
