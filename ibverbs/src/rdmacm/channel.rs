//! Event channels: where identifiers tell what became of what they were asked for.
//!
//! `rdma_get_cm_event` writes into the identifier that the event is of: its device, its addresses, its route.
//! So whoever takes an event from a channel, and whoever calls a function for an identifier of that channel,
//! take turns. With that, an identifier may be on one thread and the loop that takes its events on another.
//!
//! An event is copied and acknowledged before anybody sees it: `rdma_destroy_id` waits until each event that
//! was read is acknowledged, and this way there is nothing that it could wait for.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::event::{CmEvent, RawEvent};
use crate::error::{clear_errno, created, last_errno, Error, Result};
use crate::ffi;
use crate::fork;
use crate::provider;
use crate::readiness::{deadline, set_nonblocking, wait_readable};

const GET: &str = "rdma_get_cm_event";

/// A channel that any number of [`CmId`](super::CmId)s report their events to: one descriptor for an event loop
/// that serves many connections.
///
/// An identifier that is created with [`CmId::create`](super::CmId::create) has a channel of its own, and needs
/// none of these. Identifiers keep their channel open. Threads may share it.
///
/// # Examples
///
/// ```no_run
/// # fn serve() -> ibverbs::Result<()> {
/// use ibverbs::rdmacm::{CmEventType, CmId, EventChannel, Tcp};
///
/// let channel = EventChannel::create()?;
/// let mut listener = CmId::create_on(&channel, Tcp)?;
/// listener.bind_addr("0.0.0.0:7471".parse().expect("an address"))?;
/// listener.listen(64)?;
/// let mut requests = Vec::new();
/// while let Some(mut event) = channel.wait(None)? {
///     println!("identifier {}: {event}", event.context());
///     if let Some(mut id) = event.take_request() {
///         id.set_context(1 + requests.len() as u64);
///         requests.push(id);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[doc(alias = "rdma_event_channel")]
#[doc(alias = "rdma_destroy_event_channel")]
#[derive(Clone)]
pub struct EventChannel {
    inner: Arc<ChannelInner>,
}

/// What the identifiers of a channel keep alive.
pub(super) struct ChannelInner {
    raw: NonNull<ffi::rdma_event_channel>,
    /// Held while an event is taken, and during each call for an identifier of this channel.
    turn: Mutex<State>,
}

/// Whether events can be taken from a channel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Usable,
    /// Events may come whose membership librdmacm has freed.
    GivenUp,
}

/// The right to take an event from a channel, or to use an identifier of it.
pub(super) struct Turn<'a>(MutexGuard<'a, State>);

impl Turn<'_> {
    /// Sees to it that no more events are taken from the channel.
    pub(super) fn give_up(&mut self) {
        *self.0 = State::GivenUp;
    }
}

// SAFETY: of `rdma_event_channel`, nothing is written after its creation (librdmacm/cma.c), and the kernel
// serialises what is written to its descriptor (`file->mut` in drivers/infiniband/core/ucma.c).
unsafe impl Send for ChannelInner {}
// SAFETY: as above; what taking an event writes into an identifier is under the mutex in here.
unsafe impl Sync for ChannelInner {}

impl Drop for ChannelInner {
    fn drop(&mut self) {
        // SAFETY: the channel came from `rdma_create_event_channel`, and is destroyed once. Its identifiers held
        // references to this structure, so that they are gone, and each event was acknowledged when it was
        // read, as rdma_destroy_event_channel(3) demands.
        unsafe { ffi::rdma_destroy_event_channel(self.raw.as_ptr()) }
    }
}

impl ChannelInner {
    pub(super) fn as_raw(&self) -> *mut ffi::rdma_event_channel {
        self.raw.as_ptr()
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the channel is alive; the field is not written after its creation.
        let fd = unsafe { (*self.raw.as_ptr()).fd };
        // SAFETY: the descriptor is open until the channel is destroyed, which the borrow of self prevents.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }

    /// Excludes whoever takes an event from this channel, or uses an identifier of it.
    pub(super) fn turn(&self) -> Turn<'_> {
        Turn(self.turn.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl EventChannel {
    /// Opens a channel.
    ///
    /// # Errors
    ///
    /// - [`Error::Provider`] if librdmacm is not installed.
    /// - Those of the [choice of the provider](crate#the-provider-of-the-verbs).
    /// - [`Error::EventChannel`] if the provider has no connection manager, if there is no RDMA device, if the kernel's connection manager is not loaded, or
    ///   if there are no more file descriptors.
    #[doc(alias = "rdma_create_event_channel")]
    pub fn create() -> Result<EventChannel> {
        provider::rdmacm()?;
        // The first call sets the library up, and is not safe to make from two threads; and from here on
        // librdmacm may open devices at any time.
        let mut turn = fork::turn();
        let raw = created(|| {
            // SAFETY: the function has no preconditions; that no other thread sets the library up is seen to
            // by the turn, since every use of librdmacm begins here.
            unsafe { ffi::rdma_create_event_channel() }
        });
        if raw.is_ok() {
            turn.opened();
        }
        drop(turn);
        let raw = raw.map_err(|code| Error::EventChannel {
            source: std::io::Error::from_raw_os_error(code),
        })?;
        let channel =
            EventChannel { inner: Arc::new(ChannelInner { raw, turn: Mutex::new(State::Usable) }) };
        set_nonblocking(channel.as_fd())?;
        Ok(channel)
    }

    pub(super) fn handle(&self) -> &Arc<ChannelInner> {
        &self.inner
    }

    /// Whether both are handles of one channel.
    pub(super) fn is(&self, other: &EventChannel) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Takes the next event: `None` if there is none. It never waits.
    ///
    /// The event is acknowledged already (`rdma_ack_cm_event`). A [connection request](CmEvent::take_request)
    /// comes with an identifier of its own, on this channel.
    ///
    /// # Errors
    ///
    /// [`Error::Verb`] if the kernel refuses; with `EIO` if an identifier of the channel had to be
    /// [given up](super::CmId::leave_multicast) and could not be destroyed.
    #[doc(alias = "rdma_get_cm_event")]
    #[doc(alias = "rdma_ack_cm_event")]
    pub fn poll_cm_event(&self) -> Result<Option<CmEvent>> {
        let turn = self.inner.turn();
        if *turn.0 == State::GivenUp {
            return Err(Error::from_code(GET, libc::EIO));
        }
        loop {
            let mut event = std::ptr::null_mut();
            clear_errno();
            // SAFETY: the channel is alive, and the other argument points to a pointer. The call writes into the
            // identifier of the event, which is alive: the kernel drops the events of one that is destroyed
            // (`ucma_cleanup_ctx_events` and its like), and those of a membership that is left; if it cannot do the
            // latter, the identifier was destroyed (`IdInner::leave`). It is this thread's turn to do so.
            if unsafe { ffi::rdma_get_cm_event(self.inner.as_raw(), &mut event) } == 0 {
                // SAFETY: the event was returned just now, its identifiers are alive and of this channel, and it
                // is this thread's turn.
                return Ok(Some(unsafe { RawEvent::new(event) }.copy_and_acknowledge(self)));
            }
            match last_errno() {
                libc::EAGAIN => return Ok(None),
                libc::EINTR => {}
                code => return Err(Error::from_code(GET, code)),
            }
        }
    }

    /// Waits for the next event: `None` if none came within `timeout`. Without a timeout it waits for as long
    /// as it takes.
    ///
    /// Several threads may wait; one of them gets the event.
    ///
    /// # Errors
    ///
    /// [`Error::Verb`] if the kernel refuses.
    #[doc(alias = "rdma_get_cm_event")]
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Option<CmEvent>> {
        self.wait_until(deadline(timeout))
    }

    pub(super) fn wait_until(&self, deadline: Option<Instant>) -> Result<Option<CmEvent>> {
        loop {
            if let Some(event) = self.poll_cm_event()? {
                return Ok(Some(event));
            }
            // What makes the descriptor ready may be gone when it is read: another thread took it, or
            // the kernel dropped it together with its identifier.
            if !wait_readable(GET, self.as_fd(), deadline)? {
                return Ok(None);
            }
        }
    }
}

/// For `epoll` and the like. Do not read it, but call [`EventChannel::poll_cm_event`] until that returns `None`.
/// It is non-blocking (`O_NONBLOCK`), and must stay so.
impl AsFd for EventChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.fd()
    }
}

impl AsRawFd for EventChannel {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl fmt::Debug for EventChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventChannel").field("fd", &self.as_raw_fd()).finish()
    }
}
