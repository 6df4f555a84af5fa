//! Events that somebody waits for on a descriptor: those of completion channels, and the asynchronous ones.

use std::collections::{HashMap, VecDeque};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{eventfd, EventfdFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::fork::Generation;
use super::Result;
use crate::transport::QpEvent;

/// A queue, and a semaphore eventfd that counts what is in it. Whoever takes reads the eventfd first, and waits there if its flags
/// say so; every count that is read gives the right to one event.
#[derive(Debug)]
pub(super) struct Events<E> {
    eventfd: OwnedFd,
    generation: Generation,
    inner: Mutex<Inner<E>>,
}

#[derive(Debug)]
struct Inner<E> {
    queue: VecDeque<E>,
    /// How many counts are for events that were taken back: whoever has read one has read it in vain.
    void: usize,
    /// How many events were taken of each token that has not been forgotten.
    taken: HashMap<usize, u32>,
}

/// An event, which is about an object.
pub(super) trait HasToken {
    fn token(&self) -> usize;
}

impl<E: HasToken> Events<E> {
    pub(super) fn new() -> Result<Events<E>> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::SEMAPHORE;
        let inner = Inner { queue: VecDeque::new(), void: 0, taken: HashMap::new() };
        Ok(Events {
            eventfd: eventfd(0, flags)?,
            generation: Generation::current(),
            inner: Mutex::new(inner),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner<E>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether they are those of a parent of this process.
    pub(super) fn is_dead(&self) -> bool {
        self.generation.is_over()
    }

    /// The descriptor: one count for each event in the queue.
    pub(super) fn as_raw_fd(&self) -> i32 {
        self.eventfd.as_raw_fd()
    }

    pub(super) fn push(&self, event: E) {
        let mut inner = self.lock();
        inner.queue.push_back(event);
        // It fails only if 2^64 - 2 events are in the queue already.
        let _ = rustix::io::write(&self.eventfd, &1_u64.to_ne_bytes());
    }

    fn take(&self) -> Result<E> {
        self.take_within(|| ()).map(|(event, ())| event)
    }

    /// Takes an event while holding what `enter` returns, which the next one to come here needs, too.
    pub(super) fn take_within<G>(&self, enter: impl Fn() -> G) -> Result<(E, G)> {
        if self.generation.is_over() {
            // The descriptor is shared with the parent, whose events these are.
            return Err(Errno::IO);
        }
        loop {
            rustix::io::read(&self.eventfd, &mut [0; 8])?;
            let entered = enter();
            let mut inner = self.lock();
            if let Some(void) = inner.void.checked_sub(1) {
                inner.void = void;
                continue;
            }
            if let Some(event) = inner.queue.pop_front() {
                // It is compared with how many were acknowledged, which wraps around, too.
                let taken = inner.taken.entry(event.token()).or_default();
                *taken = taken.wrapping_add(1);
                return Ok((event, entered));
            }
        }
    }

    /// The events that nobody has taken, and how many were taken.
    pub(super) fn take_back(&self, token: usize) -> (u32, Vec<E>) {
        if self.generation.is_over() {
            return (0, Vec::new());
        }
        let mut inner = self.lock();
        let back = self.take_out(&mut inner, |event| event.token() == token);
        (inner.taken.remove(&token).unwrap_or(0), back)
    }

    /// Those of the events that nobody has taken which are like this.
    pub(super) fn take_back_those(&self, is_one: impl Fn(&E) -> bool) -> Vec<E> {
        if self.generation.is_over() {
            return Vec::new();
        }
        self.take_out(&mut self.lock(), is_one)
    }

    /// Takes events out of the queue, with their counts.
    fn take_out(&self, inner: &mut Inner<E>, is_one: impl Fn(&E) -> bool) -> Vec<E> {
        let queue = std::mem::take(&mut inner.queue);
        let (back, rest): (Vec<E>, Vec<E>) = queue.into_iter().partition(is_one);
        inner.queue = rest.into();
        inner.void += back.len();
        while inner.void > 0 {
            // Without waiting, whatever the descriptor's flags say. A count that is not there was read by somebody who now waits for
            // the lock. Kernels before 5.8 cannot do this: then the descriptor stays readable, and who reads it looks in vain.
            let mut count = [0; 8];
            let mut slices = [IoSliceMut::new(&mut count)];
            let now = ReadWriteFlags::NOWAIT;
            if rustix::io::preadv2(&self.eventfd, &mut slices, u64::MAX, now).is_err() {
                break;
            }
            inner.void -= 1;
        }
        back
    }
}

/// Where completion queues raise events: what is behind `ibv_comp_channel`. A token says which queue it was.
#[derive(Debug)]
pub(crate) struct Channel(Events<usize>);

impl HasToken for usize {
    fn token(&self) -> usize {
        *self
    }
}

impl Channel {
    pub(crate) fn new() -> Result<Channel> {
        Ok(Channel(Events::new()?))
    }

    /// A semaphore eventfd: one count for each event in the queue.
    pub(crate) fn as_raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }

    pub(crate) fn push(&self, token: usize) {
        self.0.push(token);
    }

    /// Takes an event: blocks on the descriptor as its flags say (EAGAIN, EINTR).
    pub(crate) fn take(&self) -> Result<usize> {
        self.0.take()
    }

    /// Takes back the events of a queue that were not taken by anybody, and forgets the token. Returns how many of its events
    /// were taken: whoever destroys the queue waits until so many are acknowledged.
    pub(crate) fn take_back(&self, token: usize) -> u32 {
        self.0.take_back(token).0
    }
}

/// What an asynchronous event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AsyncEvent {
    /// A queue pair, by its token.
    Qp(usize, QpEvent),
    /// A completion queue has overflown, by its token.
    CqError(usize),
    /// A shared receive queue has reached its limit, by its token.
    SrqLimit(usize),
    /// The port has come up, or gone down.
    Port { is_up: bool },
    /// The device has failed.
    DeviceFatal,
}

impl HasToken for AsyncEvent {
    fn token(&self) -> usize {
        match *self {
            AsyncEvent::Qp(token, _) | AsyncEvent::CqError(token) | AsyncEvent::SrqLimit(token) => {
                token
            }
            // No object is there.
            AsyncEvent::Port { .. } | AsyncEvent::DeviceFatal => 0,
        }
    }
}

/// The asynchronous events of one context; descriptor and taking as those of `Channel`.
#[derive(Debug)]
pub(crate) struct AsyncQueue(Events<AsyncEvent>);

impl AsyncQueue {
    pub(crate) fn new() -> Result<AsyncQueue> {
        Ok(AsyncQueue(Events::new()?))
    }

    pub(crate) fn as_raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }

    pub(crate) fn push(&self, event: AsyncEvent) {
        self.0.push(event);
    }

    pub(crate) fn take(&self) -> Result<AsyncEvent> {
        self.0.take()
    }

    /// Takes back the events about an object that were not taken by anybody, and forgets the token. Returns how many of its
    /// events were taken.
    pub(crate) fn take_back(&self, token: usize) -> u32 {
        self.0.take_back(token).0
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::BorrowedFd;
    use std::sync::Arc;
    use std::time::Duration;

    use rustix::event::{poll, PollFd, PollFlags, Timespec};

    use super::*;

    fn fd(channel: &Channel) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        channel.0.eventfd.as_fd()
    }

    fn set_nonblocking(channel: &Channel) {
        rustix::io::ioctl_fionbio(fd(channel), true).unwrap();
    }

    fn is_readable(channel: &Channel) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(fd(channel), PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }

    #[test]
    fn events_come_in_their_order_one_for_each_count() {
        let channel = Channel::new().unwrap();
        assert!(!is_readable(&channel));
        for token in [7, 8, 7] {
            channel.push(token);
        }
        assert!(is_readable(&channel));
        set_nonblocking(&channel);
        assert_eq!([(); 3].map(|()| channel.take()), [Ok(7), Ok(8), Ok(7)]);
        assert!(!is_readable(&channel));
        assert_eq!(channel.take(), Err(Errno::AGAIN));
        assert_eq!([channel.take_back(7), channel.take_back(8), channel.take_back(7)], [2, 1, 0]);
    }

    #[test]
    fn there_may_be_more_events_than_can_be_counted() {
        let channel = Channel::new().unwrap();
        channel.0.lock().taken.insert(7, u32::MAX);
        channel.push(7);
        assert_eq!(channel.take(), Ok(7));
        assert_eq!(channel.take_back(7), 0);
    }

    #[test]
    fn waits_until_there_is_one() {
        let channel = Arc::new(Channel::new().unwrap());
        let taker = std::thread::spawn({
            let channel = Arc::clone(&channel);
            move || channel.take()
        });
        std::thread::sleep(Duration::from_millis(50));
        assert!(!taker.is_finished());
        channel.push(5);
        assert_eq!(taker.join().unwrap(), Ok(5));
    }

    #[test]
    fn what_is_taken_back_leaves_neither_event_nor_count() {
        for nonblocking in [false, true] {
            let channel = Channel::new().unwrap();
            if nonblocking {
                set_nonblocking(&channel);
            }
            for token in [1, 2, 1, 1] {
                channel.push(token);
            }
            assert_eq!(channel.take(), Ok(1));
            assert_eq!(channel.take_back(1), 1);
            assert!(is_readable(&channel));
            assert_eq!(channel.take(), Ok(2));
            assert!(!is_readable(&channel));
            assert_eq!(channel.take_back(3), 0);
        }
    }

    #[test]
    fn who_waits_while_events_are_taken_back_goes_on_waiting() {
        let channel = Arc::new(Channel::new().unwrap());
        let taker = std::thread::spawn({
            let channel = Arc::clone(&channel);
            move || {
                std::iter::repeat_with(|| channel.take().unwrap()).take_while(|&t| t != 0).count()
            }
        });
        let mut taken_back = 0;
        for _ in 0..10_000 {
            channel.push(1);
            channel.push(1);
            taken_back += 2 - channel.take_back(1);
        }
        channel.push(0);
        assert_eq!(taker.join().unwrap() as u32, 20_000 - taken_back);
        assert!(!is_readable(&channel));
    }

    #[test]
    fn asynchronous_events_are_taken_back_by_what_they_are_about() {
        let queue = AsyncQueue::new().unwrap();
        for event in [
            AsyncEvent::Qp(1, QpEvent::Fatal),
            AsyncEvent::CqError(2),
            AsyncEvent::SrqLimit(1),
            AsyncEvent::SrqLimit(3),
        ] {
            queue.push(event);
        }
        assert_eq!(queue.take_back(1), 0);
        assert_eq!(queue.take(), Ok(AsyncEvent::CqError(2)));
        assert_eq!(queue.take(), Ok(AsyncEvent::SrqLimit(3)));
        assert_eq!([queue.take_back(2), queue.take_back(1)], [1, 0]);
        assert!(queue.as_raw_fd() >= 0);
    }
}
