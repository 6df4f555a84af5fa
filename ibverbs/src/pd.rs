//! Protection domains: what may work together.

use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::context::{Context, ContextHandle};
use crate::cq::CompletionQueue;
use crate::error::{created, Error, Failed, Result};
use crate::ffi;
use crate::handle::{Destroy, Handle};
use crate::mr::SharedMr;
use crate::owned::{Owned, OwnedCompletionQueue};
use crate::qp::{QueuePairBuilder, Transport};

/// A protection domain. Memory can be used by the queue pairs of its own domain only.
///
/// Cloning is cheap and gives a second handle of the same domain. It is deallocated when the last
/// handle is gone and everything that was created from it.
#[doc(alias = "ibv_pd")]
#[derive(Clone)]
pub struct ProtectionDomain {
    inner: PdHandle,
}

/// What everything that is created from a protection domain keeps alive.
pub(crate) type PdHandle = Arc<Handle<PdInner>>;

pub(crate) struct PdInner {
    raw: NonNull<ffi::ibv_pd>,
    kept: Mutex<Kept>,
    identity: usize,
    _number: Number,
    context: ContextHandle,
}

/// Shared memory that nobody has any more, but that posted work may still reach.
#[derive(Default)]
struct Kept {
    /// How many objects of the domain there are through which memory is reached: queue pairs, shared receive queues
    /// and windows.
    users: usize,
    /// Empty when there are no users.
    memory: Vec<Handle<SharedMr>>,
}

/// What an object that reaches memory of a protection domain keeps alive: the domain, and memory that was shared.
///
/// It is dropped after the object was destroyed; if that fails, never.
pub(crate) struct PdUser(PdHandle);

impl PdUser {
    pub(crate) fn new(pd: &PdHandle) -> PdUser {
        pd.kept().users += 1;
        PdUser(pd.clone())
    }
}

impl Deref for PdUser {
    type Target = PdHandle;

    fn deref(&self) -> &PdHandle {
        &self.0
    }
}

impl Drop for PdUser {
    fn drop(&mut self) {
        let mut kept = self.0.kept();
        kept.users -= 1;
        let free = match kept.users {
            0 => std::mem::take(&mut kept.memory),
            _ => Vec::new(),
        };
        // No verb is called under the lock.
        drop(kept);
        drop(free);
    }
}

// SAFETY: verbs may be called by any thread, as `handle.rs` argues, and `ibv_pd` is not written after
// its creation (verbs.h: a context pointer and a handle).
unsafe impl Send for PdInner {}
// SAFETY: as above.
unsafe impl Sync for PdInner {}

impl Destroy for PdInner {
    const RESOURCE: &'static str = "protection domain";
    const VERB: &'static str = "ibv_dealloc_pd";

    unsafe fn destroy(&mut self) -> i32 {
        // SAFETY: the domain came from `ibv_alloc_pd`, is deallocated once as the caller promises, and
        // whatever was created from it held a reference to this structure.
        unsafe { ffi::ibv_dealloc_pd(self.raw.as_ptr()) }
    }
}

impl PdInner {
    pub(crate) fn as_raw(&self) -> *mut ffi::ibv_pd {
        self.raw.as_ptr()
    }

    pub(crate) fn context(&self) -> &ContextHandle {
        &self.context
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frees shared memory that nobody has any more: now, or when nothing reaches it any more.
    pub(crate) fn retire(&self, memory: Handle<SharedMr>) {
        let mut kept = self.kept();
        if kept.users > 0 {
            return kept.memory.push(memory);
        }
        drop(kept);
        drop(memory);
    }
}

/// By what a domain is told from others for as long as it is alive. It is never zero.
///
/// In memory, it is what a receive request that has one entry of the domain has where its list's length is: a one in the
/// bytes of `num_sge`, and a number of the domain in those behind, which C has no field in.
#[inline]
pub(crate) fn identity(pd: &PdHandle) -> usize {
    pd.identity
}

/// The numbers of domains: those that are alive have different ones.
struct Numbers {
    next: u32,
    /// Of domains that are gone.
    free: Vec<u32>,
}

static NUMBERS: Mutex<Numbers> = Mutex::new(Numbers { next: 0, free: Vec::new() });

/// The number of a domain, until it is dropped.
struct Number(u32);

impl Number {
    fn new() -> Number {
        let mut numbers = NUMBERS.lock().unwrap_or_else(PoisonError::into_inner);
        Number(numbers.free.pop().unwrap_or_else(|| {
            let number = numbers.next;
            numbers.next = number.checked_add(1).expect("so many domains do not fit into memory");
            number
        }))
    }

    /// See [`identity`].
    fn identity(&self) -> usize {
        // SAFETY: two numbers of 32 bits are as long as one of 64, which any bytes are.
        unsafe { std::mem::transmute::<[u32; 2], usize>([1, self.0]) }
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        NUMBERS.lock().unwrap_or_else(PoisonError::into_inner).free.push(self.0);
    }
}

impl ProtectionDomain {
    pub(crate) fn alloc(context: &Context) -> Result<ProtectionDomain> {
        // SAFETY: the context is open.
        let raw = created(|| unsafe { ffi::ibv_alloc_pd(context.as_raw()) });
        let raw = raw.map_err(|code| Error::from_code("ibv_alloc_pd", code))?;
        let (number, context) = (Number::new(), context.handle().clone());
        let (kept, identity) = (Mutex::default(), number.identity());
        let inner = PdInner { raw, kept, identity, _number: number, context };
        Ok(ProtectionDomain { inner: Arc::new(Handle::new(inner)) })
    }

    pub(crate) fn handle(&self) -> &PdHandle {
        &self.inner
    }

    /// The context that the domain was allocated from.
    pub fn context(&self) -> Context {
        Context::from_handle(self.inner.context.clone())
    }

    /// Starts a queue pair of transport `T` on `port`, which counts from 1. Its completions go to
    /// `send_cq` and `recv_cq`, which may be the same.
    ///
    /// # Errors
    ///
    /// - [`Error::DeviceMismatch`] if a completion queue is of another context than this domain.
    /// - [`Error::InvalidPort`] if the device has no such port.
    /// - [`Error::Verb`] if the device does not answer.
    #[doc(alias = "ibv_create_qp_ex")]
    #[doc(alias = "ibv_create_qp")]
    #[doc(alias = "ibv_qp_to_qp_ex")]
    pub fn create_qp<'a, T: Transport>(
        &'a self,
        send_cq: &'a CompletionQueue,
        recv_cq: &'a CompletionQueue,
        port: u8,
    ) -> Result<QueuePairBuilder<'a, T>> {
        QueuePairBuilder::new(self, send_cq, recv_cq, port)
    }

    /// Starts a queue pair of the owned level: as [`create_qp`](Self::create_qp), with completion queues that hand
    /// buffers back.
    ///
    /// # Errors
    ///
    /// Those of [`create_qp`](Self::create_qp).
    #[doc(alias = "ibv_create_qp_ex")]
    pub fn create_owned_qp<'a, T: Transport>(
        &'a self,
        send_cq: &'a OwnedCompletionQueue,
        recv_cq: &'a OwnedCompletionQueue,
        port: u8,
    ) -> Result<QueuePairBuilder<'a, T, Owned>> {
        QueuePairBuilder::new(self, send_cq, recv_cq, port)
    }

    /// Deallocates the domain. Dropping does the same, but cannot tell what went wrong.
    ///
    /// # Errors
    ///
    /// - [`Error::InUse`] if there is another handle of this domain, or anything created from it.
    /// - [`Error::Verb`] if the device refuses; one that was unplugged answers `EIO`.
    #[doc(alias = "ibv_dealloc_pd")]
    pub fn close(self) -> Result<(), Failed<Self>> {
        Handle::close_shared(self.inner).map_err(|failed| failed.map(|inner| Self { inner }))
    }

    /// The C structure.
    pub fn as_raw(&self) -> *mut ffi::ibv_pd {
        self.inner.as_raw()
    }
}

impl fmt::Debug for ProtectionDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProtectionDomain")
            .field("device", &self.inner.context.device().name())
            .finish_non_exhaustive()
    }
}
