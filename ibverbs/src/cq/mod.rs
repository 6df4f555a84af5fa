//! Completion queues: where the device says what it has done.

#[cfg(feature = "tokio")]
mod asynchronous;
mod builder;
mod channel;
mod completion;
mod events;
mod modify;
mod parking;
mod status;
mod wc;

use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};
use std::sync::Arc;

#[cfg(feature = "tokio")]
pub use asynchronous::AsyncCompletionQueue;
pub use builder::{CompletionQueueBuilder, WcFields};
pub use channel::{CompletionChannel, CompletionEvent};
pub use completion::{Completions, TagMatchingInfo, WorkCompletion};
pub(crate) use parking::drop_or_park;
pub use status::{WcError, WcFlags, WcOpcode, WcStatus};
pub use wc::Wc;

use crate::context::{Context, ContextHandle};
use crate::error::{os_error, Error, Failed, Result};
use crate::ffi;
use crate::handle::{Destroy, Handle};
use events::Events;
use parking::Parked;

/// A completion queue.
///
/// It is `Send` but not `Sync` and not `Clone`: one owner polls it. (Several threads that share one
/// put it in a `Mutex`.) The reason is that providers take a lock when a poll starts and release it
/// when it ends, so that a second poller would wait for the first, or for itself.
///
/// Queue pairs keep their completion queues alive, so that it may be dropped before them; what
/// completes then is lost.
#[doc(alias = "ibv_cq")]
pub struct CompletionQueue {
    /// The same as in `inner`: one load less on the data path.
    raw: NonNull<ffi::ibv_cq_ex>,
    inner: CqHandle,
    _one_poller: PhantomData<std::cell::Cell<()>>,
}

// SAFETY: verbs may be called by any thread, as `handle.rs` argues; what is not allowed is that two poll
// at a time, and without `Sync` they cannot.
unsafe impl Send for CompletionQueue {}

/// What the queue pairs of a completion queue keep alive.
pub(crate) type CqHandle = Arc<Handle<CqInner>>;

pub(crate) struct CqInner {
    raw: NonNull<ffi::ibv_cq_ex>,
    /// Whether a poll is open, or none can be. Written by the one poller; read by whoever destroys a queue
    /// pair.
    state: AtomicU8,
    /// What a poll is started with: nothing is asked for. C takes it as mutable, and it is the one poller's.
    attr: UnsafeCell<ffi::ibv_poll_cq_attr>,
    /// The error that ended a poll early and is not reported yet, or zero. Written and read by the one poller.
    poll_error: AtomicI32,
    parked: Parked,
    fields: WcFields,
    #[cfg(feature = "efa")]
    efa: crate::efa::EfaCq,
    /// What the queue raises events on, alive for as long as the queue is: `ibv_destroy_cq` uses it at last.
    events: Events,
    context: ContextHandle,
}

/// No poll is open.
const IDLE: u8 = 0;
/// A poll is open.
const POLLING: u8 = 1;
/// The provider has no memory of the queue any more.
const LOST: u8 = 2;

// SAFETY: everybody but the one poller reads plain fields of the structure, destroys the C object
// after the last reference is gone, or uses the atomics and the mutex in here; `attr` is the one poller's.
unsafe impl Send for CqInner {}
// SAFETY: as above.
unsafe impl Sync for CqInner {}

impl Destroy for CqInner {
    const RESOURCE: &'static str = "completion queue";
    const VERB: &'static str = "ibv_destroy_cq";

    unsafe fn destroy(&mut self) -> i32 {
        // SAFETY: the queue came from `ibv_create_cq_ex`, is destroyed once as the caller promises, and
        // its queue pairs held references to this structure.
        unsafe { ffi::ibv_destroy_cq(ffi::ibv_cq_ex_to_cq(self.raw.as_ptr())) }
    }
}

impl CqInner {
    pub(crate) fn as_raw(&self) -> *mut ffi::ibv_cq {
        self.raw.as_ptr().cast()
    }

    pub(crate) fn context(&self) -> &ContextHandle {
        &self.context
    }

    /// Whether a poll is open: the provider holds the queue's lock then, and in some providers
    /// destroying and resetting a queue pair would wait for it.
    pub(crate) fn is_polling(&self) -> bool {
        self.state.load(Ordering::Acquire) == POLLING
    }

    /// That the queue can be polled, and that nobody does.
    fn check_idle(&self) -> Result<()> {
        match self.state.load(Ordering::Relaxed) {
            IDLE => Ok(()),
            _ => Err(self.poll_failure(0).into_error()),
        }
    }

    /// The same for the data path, which tells the reasons apart elsewhere.
    ///
    /// # Safety
    ///
    /// The caller is the one poller.
    #[inline]
    unsafe fn is_idle(&self) -> bool {
        // SAFETY: only the one poller writes it, so that nobody does meanwhile, and there is no race; a plain load can be
        // compared where it is, an atomic one goes through a register.
        unsafe { *self.state.as_ptr() == IDLE }
    }

    /// Opens a poll of `raw`, which is the queue of this, if there is something in it.
    ///
    /// # Safety
    ///
    /// No poll of it is open, and the caller is the one poller.
    #[inline]
    unsafe fn start_poll(&self, raw: NonNull<ffi::ibv_cq_ex>) -> c_int {
        // SAFETY: the queue is alive, and the caller promises the rest, by which `attr` is in nobody else's use; the
        // builder checked that the function is there.
        unsafe { ffi::ibv_start_poll(raw.as_ptr(), self.attr.get()) }
    }

    /// Sees to it that the queue is not polled any more.
    fn set_lost(&self) {
        self.state.store(LOST, Ordering::Relaxed);
    }

    /// Ends the open poll of `raw`, which is the queue of this.
    ///
    /// # Safety
    ///
    /// A poll is open, the caller is the one poller, and nothing reads a completion after this.
    #[inline]
    unsafe fn end_poll(&self, raw: NonNull<ffi::ibv_cq_ex>) {
        // SAFETY: a poll is open, by the caller's promise; the builder checked that the function is
        // there.
        unsafe { ffi::ibv_end_poll(raw.as_ptr()) };
        self.state.store(IDLE, Ordering::Release);
        if self.parked.is_occupied() {
            self.parked.release(self);
        }
    }
}

impl CompletionQueue {
    fn new(inner: CqInner) -> Self {
        let raw = inner.raw;
        CompletionQueue { raw, inner: Arc::new(Handle::new(inner)), _one_poller: PhantomData }
    }

    pub(crate) fn handle(&self) -> &CqHandle {
        &self.inner
    }

    /// Looks for completions: `None` if there are none.
    ///
    /// What it returns holds the queue until it is dropped; then the device may reuse the places of
    /// the completions that were taken. Providers hold locks meanwhile: do not wait, while it lives, for a
    /// thread that closes or drops a queue pair of this queue, and poll when no batch of such a queue pair is
    /// open ([`start_send`](crate::QueuePair::start_send) says more).
    ///
    /// # Errors
    ///
    /// - [`Error::PollInProgress`] if an earlier poll is still open, or was forgotten.
    /// - [`Error::Verb`] if the provider cannot make sense of the queue (`EIO`), or of its clock.
    /// - [`Error::CompletionQueueLost`] if [`resize`](Self::resize) has lost the queue.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn poll(cq: &ibverbs::CompletionQueue) -> ibverbs::Result<()> {
    /// if let Some(mut completions) = cq.poll()? {
    ///     while let Some(wc) = completions.next() {
    ///         println!("{}: {:?}", wc.wr_id(), wc.ok());
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "ibv_start_poll")]
    #[doc(alias = "ibv_poll_cq")]
    #[inline]
    pub fn poll(&self) -> Result<Option<Completions<'_>>> {
        let inner = &**self.inner;
        // SAFETY: this is the one poller, for `CompletionQueue` is not `Sync`.
        let failure = if unsafe { inner.is_idle() } {
            // SAFETY: no poll of the queue is open, as checked above by the one poller.
            match unsafe { inner.start_poll(self.raw) } {
                // SAFETY: the poll was opened just now.
                0 => return Ok(Some(unsafe { self.begun() })),
                libc::ENOENT if inner.poll_error.load(Ordering::Relaxed) == 0 => return Ok(None),
                // SAFETY: as above; there is none now.
                code => match unsafe { inner.poll_past(code) } {
                    // SAFETY: the poll was opened just now.
                    Ok(true) => return Ok(Some(unsafe { self.begun() })),
                    Ok(false) => return Ok(None),
                    Err(failure) => failure,
                },
            }
        } else {
            inner.poll_failure(0)
        };
        Err(failure.into_error())
    }

    /// What a poll hands out.
    ///
    /// # Safety
    ///
    /// The poll was opened just now.
    #[inline]
    unsafe fn begun(&self) -> Completions<'_> {
        self.inner.state.store(POLLING, Ordering::Release);
        // SAFETY: passed on to the caller; and the flag keeps anybody from opening another.
        unsafe { Completions::new(self.raw, &self.inner) }
    }

    /// Ends the poll that is open.
    ///
    /// # Safety
    ///
    /// A poll is open, which nobody else ends, and nothing reads a completion after this.
    pub(crate) unsafe fn end_poll(&self) {
        // SAFETY: passed on to the caller; this is the one poller, for `CompletionQueue` is not `Sync`.
        unsafe { self.inner.end_poll(self.raw) }
    }

    /// How many completions the queue can hold: what was granted, at least what was asked for.
    pub fn capacity(&self) -> u32 {
        self.inner.capacity()
    }

    /// The number that its builder was [given](CompletionQueueBuilder::set_context), by which events name it.
    pub fn context_value(&self) -> u64 {
        // SAFETY: the queue is alive; the field is not written after its creation.
        unsafe { (*self.raw.as_ptr()).cq_context as u64 }
    }

    /// The optional fields that its completions have.
    pub fn wc_fields(&self) -> WcFields {
        self.inner.fields
    }

    /// The context that the queue was created from.
    pub fn context(&self) -> Context {
        Context::from_handle(self.inner.context.clone())
    }

    /// Destroys the queue. Dropping does the same, but cannot tell what went wrong.
    ///
    /// # Errors
    ///
    /// - [`Error::InUse`] if there is a queue pair that completes to it.
    /// - [`Error::PollInProgress`] if a poll of it was forgotten.
    /// - [`Error::Verb`] if the device refuses; one that was unplugged answers `EIO`.
    #[doc(alias = "ibv_destroy_cq")]
    pub fn close(self) -> Result<(), Failed<Self>> {
        if self.inner.is_polling() {
            return Err(Failed { resource: self, error: Error::PollInProgress });
        }
        self.inner.parked.release(&self.inner);
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: `this` is not dropped, so that the reference moves out once.
        let inner = unsafe { std::ptr::read(&this.inner) };
        let raw = this.raw;
        Handle::close_shared(inner).map_err(|failed| {
            failed.map(|inner| CompletionQueue { raw, inner, _one_poller: PhantomData })
        })
    }

    /// The C structure, as the extended interface has it.
    pub fn as_raw(&self) -> *mut ffi::ibv_cq_ex {
        self.raw.as_ptr()
    }
}

impl Drop for CompletionQueue {
    fn drop(&mut self) {
        if self.inner.is_polling() {
            // The poll was forgotten; without ending it the queue pairs of this queue could never be
            // destroyed.
            // SAFETY: a poll is open; `&mut self` proves that this is the one poller, and that no
            // `Completions`, which borrows the queue, can be used any more. (If it was opened by another
            // thread: a spin lock has no owner, as `handle.rs` says.)
            unsafe { self.inner.end_poll(self.raw) };
        }
        // After the last poll and under the lock: what is parked here would be missed for good.
        self.inner.parked.release(&self.inner);
    }
}

impl fmt::Debug for CompletionQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompletionQueue")
            .field("device", &self.inner.context.device().name())
            .field("context_value", &self.context_value())
            .field("capacity", &self.capacity())
            .field("wc_fields", &self.inner.fields)
            .finish()
    }
}

impl CqInner {
    /// Remembers why a poll ended early, for the next call of `poll` that finds nothing to report.
    #[cold]
    fn set_poll_error(&self, code: i32) {
        if !self.is_stale(code) {
            self.poll_error.store(code, Ordering::Relaxed);
        }
    }

    /// Whether the code of a poll means that a completion was taken out of the queue which belongs to a queue pair that
    /// was destroyed. EFA says so, and goes on (`efa_poll_sub_cq` in providers/efa/verbs.c); others remove such
    /// completions.
    #[cold]
    fn is_stale(&self, code: i32) -> bool {
        code.abs() == libc::EINVAL && self.context.query_device().is_ok_and(|attr| attr.is_efa())
    }

    /// Opens a poll past what is not reported, after one that began with this code. Returns whether there is something
    /// to poll.
    ///
    /// # Safety
    ///
    /// No poll is open, and the caller is the one poller.
    #[cold]
    #[inline(never)]
    unsafe fn poll_past(&self, mut code: i32) -> Result<bool, PollFailure> {
        // Each one leaves the queue, but what a device says is not relied on.
        for _ in 0..self.capacity() {
            if !self.is_stale(code) {
                break;
            }
            // SAFETY: passed on to the caller.
            code = unsafe { self.start_poll(self.raw) };
            match code {
                0 => return Ok(true),
                libc::ENOENT if self.poll_error.load(Ordering::Relaxed) == 0 => return Ok(false),
                _ => {}
            }
        }
        Err(self.poll_failure(code))
    }

    fn capacity(&self) -> u32 {
        // SAFETY: the queue is alive; after its creation the field is written by `resize` only, which takes
        // `&mut self`.
        u32::try_from(unsafe { (*self.raw.as_ptr()).cqe }).unwrap_or(0)
    }

    /// Why there is no poll: `code` is what `start_poll` returned, or zero if the state forbids it.
    #[cold]
    #[inline(never)]
    fn poll_failure(&self, code: i32) -> PollFailure {
        match code {
            0 if self.state.load(Ordering::Relaxed) == LOST => PollFailure::Lost,
            0 => PollFailure::InProgress,
            libc::ENOENT => {
                PollFailure::Verb("ibv_next_poll", self.poll_error.swap(0, Ordering::Relaxed))
            }
            code => PollFailure::Verb("ibv_start_poll", code),
        }
    }
}

/// Why there is no poll.
///
/// The error is made of it where the result is used, and the compiler sees which one it is. Of an error that a
/// function returns it does not see that it is one, and the path of a success, which that of a failure might join
/// then, takes more instructions.
enum PollFailure {
    InProgress,
    Lost,
    Verb(&'static str, i32),
}

impl PollFailure {
    #[inline(always)]
    fn into_error(self) -> Error {
        match self {
            PollFailure::InProgress => Error::PollInProgress,
            PollFailure::Lost => Error::CompletionQueueLost,
            PollFailure::Verb(verb, code) => Error::Verb { verb, source: os_error(code) },
        }
    }
}
