//! Completion channels: where queues tell that there is something to poll.
//!
//! Two things are kept here that C leaves to the program.
//!
//! An event is acknowledged before anybody sees it. `ibv_destroy_cq` waits until each event that was read is
//! acknowledged; this way there is nothing that it could wait for, in whatever order things are dropped.
//!
//! Taking an event and arming a queue of the same channel exclude each other. `ibv_get_cq_event` calls the
//! provider for the queue of the event, which counts it without a lock (mlx5, mlx4 and hns in `arm_sn`, EFA in
//! `cmd_sn`), and `ibv_req_notify_cq` tells the device that number. The device takes an old number for a
//! request that it has answered, and there would be no more events.
//!
//! irdma takes the lock of the queue for both, which an open poll holds. So a queue is not armed during a poll.
//! Taking an event does not ask, since nobody knows of which queue the next one is: irdma has no extended queue
//! pairs, without which nothing completes here and no poll is ever open.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::context::{Context, ContextHandle};
use crate::error::{created, last_errno, Error, Failed, Result};
use crate::ffi;
use crate::handle::{Destroy, Handle};
use crate::readiness::{deadline, set_nonblocking, wait_readable};

const GET: &str = "ibv_get_cq_event";

/// A completion channel: a descriptor that can be read when a completion queue has something to poll.
///
/// Any number of queues can share one; [`CompletionQueueBuilder::set_context`] tells them apart. A queue says
/// nothing unless it is armed: each [`req_notify`] asks for one event. This is the order in which no
/// completion is missed:
///
/// 1. Poll the queue until it is empty.
/// 2. Arm it.
/// 3. Poll it again: what completed before it was armed raises no event.
/// 4. Wait for an event, and begin anew with the queue that it names.
///
/// [`CompletionQueue::poll_armed`] does the first three. What it finds in step 3 may have raised an event all
/// the same, so that events come for queues that are empty. They do no harm.
///
/// To wait for one queue only, [`CompletionQueue::wait`] needs no channel like this one.
///
/// Queues keep their channel open. Threads may share it.
///
/// # Examples
///
/// Two queues, and one thread that sleeps while there is nothing to do:
///
/// ```no_run
/// # fn serve(ctx: &ibverbs::Context) -> ibverbs::Result<()> {
/// let channel = ctx.create_comp_channel()?;
/// let mut queues = Vec::new();
/// for number in 0..2 {
///     queues.push(ctx.create_cq(64).set_comp_channel(&channel).set_context(number).build()?);
/// }
/// // ... create queue pairs ...
/// for cq in &queues {
///     cq.poll_armed(false, |wc| println!("{}: {:?}", wc.wr_id(), wc.ok()))?;
/// }
/// while let Some(event) = channel.wait(None)? {
///     let cq = &queues[event.context() as usize];
///     cq.poll_armed(false, |wc| println!("{}: {:?}", wc.wr_id(), wc.ok()))?;
/// }
/// # Ok(())
/// # }
/// ```
///
/// [`CompletionQueueBuilder::set_context`]: super::CompletionQueueBuilder::set_context
/// [`CompletionQueue::poll_armed`]: super::CompletionQueue::poll_armed
/// [`CompletionQueue::wait`]: super::CompletionQueue::wait
/// [`req_notify`]: super::CompletionQueue::req_notify
#[doc(alias = "ibv_comp_channel")]
pub struct CompletionChannel {
    inner: ChannelHandle,
}

/// What the completion queues of a channel keep alive.
pub(super) type ChannelHandle = Arc<Handle<ChannelInner>>;

pub(super) struct ChannelInner {
    raw: NonNull<ffi::ibv_comp_channel>,
    /// Held while an event is taken, and while a queue of this channel is armed.
    turn: Mutex<()>,
    context: ContextHandle,
}

// SAFETY: verbs may be called by any thread, as `handle.rs` argues. Of `ibv_comp_channel`, only the count of
// its queues is written after its creation, under the mutex of the context (libibverbs/verbs.c and device.c).
unsafe impl Send for ChannelInner {}
// SAFETY: as above; and what the provider counts for each event is under the mutex in here.
unsafe impl Sync for ChannelInner {}

impl Destroy for ChannelInner {
    const RESOURCE: &'static str = "completion channel";
    const VERB: &'static str = "ibv_destroy_comp_channel";

    unsafe fn destroy(&mut self) -> i32 {
        // SAFETY: the channel came from `ibv_create_comp_channel`, is destroyed once as the caller promises,
        // and its queues held references to this structure.
        unsafe { ffi::ibv_destroy_comp_channel(self.raw.as_ptr()) }
    }
}

impl ChannelInner {
    fn new(context: &Context) -> Result<ChannelInner> {
        // SAFETY: the context is open.
        let raw = created(|| unsafe { ffi::ibv_create_comp_channel(context.as_raw()) });
        let raw = raw.map_err(|code| Error::from_code("ibv_create_comp_channel", code))?;
        Ok(ChannelInner { raw, turn: Mutex::new(()), context: context.handle().clone() })
    }

    pub(super) fn as_raw(&self) -> *mut ffi::ibv_comp_channel {
        self.raw.as_ptr()
    }

    pub(super) fn context(&self) -> &ContextHandle {
        &self.context
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the channel is alive; the field is not written after its creation.
        let fd = unsafe { (*self.raw.as_ptr()).fd };
        // SAFETY: the descriptor is open until the channel is destroyed, which the borrow of self prevents.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }

    /// Excludes whoever takes an event from this channel, or arms a queue of it.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an event, if there is one.
    pub(super) fn take(&self) -> Result<Option<CompletionEvent>> {
        let _turn = self.turn();
        let (mut cq, mut context) = (ptr::null_mut(), ptr::null_mut());
        loop {
            // SAFETY: the channel is alive, and the others point to pointers. The queue of the event is alive
            // until the event is acknowledged: destroying it first drops those of its events that were not
            // read, and then waits for the others (ibv_get_cq_event(3)).
            if unsafe { ffi::ibv_get_cq_event(self.raw.as_ptr(), &mut cq, &mut context) } == 0 {
                break;
            }
            match last_errno() {
                libc::EAGAIN => return Ok(None),
                libc::EINTR => {}
                code => return Err(Error::from_code(GET, code)),
            }
        }
        // SAFETY: one event of this queue was read above, and is acknowledged once. The queue is not used
        // after this.
        unsafe { ffi::ibv_ack_cq_events(cq, 1) };
        Ok(Some(CompletionEvent { context: context as u64 }))
    }

    /// Waits for an event: `None` if the deadline comes first.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> Result<Option<CompletionEvent>> {
        loop {
            if let Some(event) = self.take()? {
                return Ok(Some(event));
            }
            // What makes the descriptor ready may be gone when it is read: another thread took it, or
            // the kernel dropped it together with its queue.
            if !wait_readable(GET, self.fd(), deadline)? {
                return Ok(None);
            }
        }
    }
}

impl CompletionChannel {
    pub(crate) fn create(context: &Context) -> Result<CompletionChannel> {
        let channel =
            CompletionChannel::from_handle(Arc::new(Handle::new(ChannelInner::new(context)?)));
        set_nonblocking(channel.as_fd())?;
        Ok(channel)
    }

    pub(super) fn from_handle(inner: ChannelHandle) -> CompletionChannel {
        CompletionChannel { inner }
    }

    pub(super) fn handle(&self) -> &ChannelHandle {
        &self.inner
    }

    /// Takes the next event: `None` if there is none. It never waits.
    ///
    /// The event is acknowledged already (`ibv_ack_cq_events`): closing its queue does not wait for anybody.
    ///
    /// # Errors
    ///
    /// [`Error::Verb`] with `EIO` if the device was removed.
    #[doc(alias = "ibv_get_cq_event")]
    #[doc(alias = "ibv_ack_cq_events")]
    pub fn get_event(&self) -> Result<Option<CompletionEvent>> {
        self.inner.take()
    }

    /// Waits for the next event: `None` if none came within `timeout`. Without a timeout it waits for as long
    /// as it takes.
    ///
    /// Several threads may wait; one of them gets the event.
    ///
    /// # Errors
    ///
    /// [`Error::Verb`] with `EIO` if the device was removed.
    #[doc(alias = "ibv_get_cq_event")]
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Option<CompletionEvent>> {
        self.inner.wait(deadline(timeout))
    }

    /// The context that the channel was created from.
    pub fn context(&self) -> Context {
        Context::from_handle(self.inner.context.clone())
    }

    /// Destroys the channel. Dropping does the same, but cannot tell what went wrong.
    ///
    /// # Errors
    ///
    /// [`Error::InUse`] if a completion queue uses it.
    #[doc(alias = "ibv_destroy_comp_channel")]
    pub fn close(self) -> Result<(), Failed<Self>> {
        Handle::close_shared(self.inner).map_err(|failed| failed.map(Self::from_handle))
    }

    /// The C structure.
    pub fn as_raw(&self) -> *mut ffi::ibv_comp_channel {
        self.inner.as_raw()
    }
}

/// For `epoll` and the like. Do not read it, but call [`CompletionChannel::get_event`] until that returns
/// `None`. It is non-blocking (`O_NONBLOCK`), and must stay so.
impl AsFd for CompletionChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.fd()
    }
}

impl AsRawFd for CompletionChannel {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl fmt::Debug for CompletionChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompletionChannel")
            .field("device", &self.inner.context.device().name())
            .finish_non_exhaustive()
    }
}

/// What a [`CompletionChannel`] reports: that something completed, after a completion queue was armed.
///
/// It is a copy, and refers to nothing: the queue may be gone by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CompletionEvent {
    context: u64,
}

impl CompletionEvent {
    /// The number of the queue, as its builder was given it with
    /// [`set_context`](super::CompletionQueueBuilder::set_context).
    pub fn context(&self) -> u64 {
        self.context
    }
}
