//! What a fork leaves of the devices of a process.
//!
//! A child has the parent's memory, with locks that no thread will ever release, but none of its threads; and descriptors that are
//! the parent's. So everything of before the fork is dead there: it is asked for with an atomic, before any lock, and answers `EIO`.

use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, Ordering};
use std::sync::Once;

use crate::options::Options;

/// How many forks this process is away from the one that started the program.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// The sockets of the open devices, by their place in the list, or -1.
static SOCKETS: [AtomicI32; Options::MAX_DEVICES] =
    [const { AtomicI32::new(-1) }; Options::MAX_DEVICES];

/// The process that something was made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Generation(u32);

impl Generation {
    /// That of this process, whose children will be told apart from now on.
    pub(crate) fn current() -> Generation {
        static WATCH: Once = Once::new();
        WATCH.call_once(|| {
            // SAFETY: `in_child` does what a child of a process with several threads may do: it stores to atomics, and closes
            // descriptors. It is part of the program for as long as that runs. If it cannot be registered (there is no memory),
            // children are not told apart, which is as it is without this.
            unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        });
        Generation(GENERATION.load(Ordering::Relaxed))
    }

    /// Whether this process is a child of that one.
    #[inline]
    pub(crate) fn is_over(self) -> bool {
        GENERATION.load(Ordering::Relaxed) != self.0
    }
}

/// Something that each process has one of: a child makes its own, and leaves that of its parent as it was.
#[derive(Debug)]
pub(crate) struct PerProcess<T> {
    current: AtomicPtr<Made<T>>,
}

#[derive(Debug)]
struct Made<T> {
    generation: Generation,
    thing: T,
    /// Those of its parents, which are dead but not lost.
    _before: *mut Made<T>,
}

impl<T: Sync> PerProcess<T> {
    pub(crate) const fn new() -> PerProcess<T> {
        PerProcess { current: AtomicPtr::new(ptr::null_mut()) }
    }

    /// That of this process. Several may make one at the same time, of which one stays.
    pub(crate) fn get(&'static self, make: impl Fn(Generation) -> T) -> &'static T {
        loop {
            let current = self.current.load(Ordering::Acquire);
            // SAFETY: null, or made below and never freed.
            if let Some(made) = unsafe { current.as_ref() } {
                if !made.generation.is_over() {
                    return &made.thing;
                }
            }
            let generation = Generation::current();
            let made = Made { generation, thing: make(generation), _before: current };
            let new = Box::into_raw(Box::new(made));
            let order = (Ordering::AcqRel, Ordering::Acquire);
            if self.current.compare_exchange(current, new, order.0, order.1).is_err() {
                // SAFETY: the box from above, which nobody else has seen.
                drop(unsafe { Box::from_raw(new) });
            }
        }
    }
}

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    // Otherwise a child that outlives its parent would hold the parent's address.
    for socket in &SOCKETS {
        let socket = socket.swap(-1, Ordering::Relaxed);
        if socket >= 0 {
            // SAFETY: this process's copy of the descriptor, which its owner, dead here, will not use or close any more.
            unsafe { libc::close(socket) };
        }
    }
}

/// Remembers a device's socket, so that a child closes it; `None` when the device is about to close it.
pub(crate) fn remember_socket(index: usize, socket: Option<&OwnedFd>) {
    if let Some(place) = SOCKETS.get(index) {
        place.store(socket.map_or(-1, AsRawFd::as_raw_fd), Ordering::Relaxed);
    }
}
