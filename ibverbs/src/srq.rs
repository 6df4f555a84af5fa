//! Shared receive queues: receives that any of several queue pairs may take.

use std::ffi::c_void;
use std::fmt;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use crate::attr::DeviceCaps;
use crate::context::ContextInner;
use crate::error::{at_least_one, check, created, error_number, Error, Failed, Result};
use crate::ffi;
use crate::handle::{Destroy, Handle};
use crate::owned::KeptTables;
use crate::pd::{identity, PdHandle, PdUser, ProtectionDomain};
use crate::post::{post_chain, post_requests, post_shared, RecvChain, RecvRequest, Shared};

/// A shared receive queue: the queue pairs that were built with it take their receives from it, in the
/// order in which they were posted.
///
/// It is `Sync`: any thread may post to it. Queue pairs keep it alive. A completion tells by
/// [`qp_num`](crate::WorkCompletion::qp_num) which queue pair took the receive.
///
/// # Examples
///
/// ```no_run
/// # use std::sync::mpsc::Receiver;
/// # use std::time::Duration;
/// # use ibverbs::{CompletionQueue, Context, EventType, MemoryRegion, ProtectionDomain, Rc, RecvRequest, Result};
/// # fn serve(
/// #     ctx: &Context, pd: &ProtectionDomain, cq: &CompletionQueue, region: &MemoryRegion, free: Receiver<usize>,
/// # ) -> Result<()> {
/// let slots: Vec<_> = (0..64).map(|slot| [region.slice(slot * 4096..(slot + 1) * 4096)]).collect();
/// let receive = |slot: usize| RecvRequest::new(slot as u64, &slots[slot]);
/// let srq = pd.create_srq(64).build()?;
/// // SAFETY: the region outlives the queue and its queue pairs, and nobody touches a slot that is posted.
/// unsafe { srq.post_recv((0..64).map(receive).collect::<Vec<_>>()) }?;
/// let prepared = pd.create_qp::<Rc>(cq, cq, 1)?.set_srq(&srq).build()?;
/// // ... connect this queue pair and others, and serve them in another thread ...
///
/// loop {
///     srq.set_limit(16)?;
///     // Not for ever: when the event came, there may have been no free slot.
///     let event = ctx.wait_async_event(Some(Duration::from_millis(100)))?;
///     if event.is_none_or(|event| event.event_type() == EventType::SRQ_LIMIT_REACHED) {
///         // `free` has the slots whose completions were polled, once what was in them is done with.
///         let requests: Vec<_> = free.try_iter().map(receive).collect();
///         // SAFETY: as above.
///         unsafe { srq.post_recv(requests) }?;
///     }
/// }
/// # }
/// ```
#[doc(alias = "ibv_srq")]
pub struct SharedReceiveQueue {
    inner: SrqHandle,
    max_sge: u32,
    /// Whether a failed resize has left it unusable.
    lost: bool,
}

/// What the queue pairs of a shared receive queue keep alive.
pub(crate) type SrqHandle = Arc<Handle<SrqInner>>;

pub(crate) struct SrqInner {
    raw: NonNull<ffi::ibv_srq>,
    /// The buffers that are posted, on the owned level.
    _tables: KeptTables,
    pd: PdUser,
}

// SAFETY: verbs may be called by any thread, as `handle.rs` argues. Posting and resizing take a lock of the
// queue in each provider (in providers/mlx5/srq.c and providers/rxe/rxe.c a spin lock of the queue), which
// `Context::open` does not let the environment remove. Limits and queries go to the kernel; that bnxt_re and cxgb4
// note a limit in plain integers, which posting reads, does no harm: either value will do.
unsafe impl Send for SrqInner {}
// SAFETY: as above.
unsafe impl Sync for SrqInner {}

impl Destroy for SrqInner {
    const RESOURCE: &'static str = "shared receive queue";
    const VERB: &'static str = "ibv_destroy_srq";

    unsafe fn destroy(&mut self) -> i32 {
        // SAFETY: the queue came from `ibv_create_srq`, is destroyed once as the caller promises, and its
        // queue pairs held references to this structure.
        unsafe { ffi::ibv_destroy_srq(self.raw.as_ptr()) }
    }
}

impl SrqInner {
    pub(crate) fn as_raw(&self) -> *mut ffi::ibv_srq {
        self.raw.as_ptr()
    }

    pub(crate) fn pd(&self) -> &PdHandle {
        &self.pd
    }
}

/// Builds a [`SharedReceiveQueue`]; see [`ProtectionDomain::create_srq`].
#[derive(Debug, Clone)]
#[must_use = "nothing is created before `build`"]
pub struct SharedReceiveQueueBuilder<'a> {
    pd: &'a ProtectionDomain,
    max_wr: u32,
    max_sge: u32,
    context: u64,
}

impl ProtectionDomain {
    /// Starts a shared receive queue that can hold at least `max_wr` receives.
    #[doc(alias = "ibv_create_srq")]
    pub fn create_srq(&self, max_wr: u32) -> SharedReceiveQueueBuilder<'_> {
        SharedReceiveQueueBuilder { pd: self, max_wr, max_sge: 1, context: 0 }
    }
}

impl SharedReceiveQueueBuilder<'_> {
    /// How many scatter entries a receive may have. Default: 1.
    pub fn set_max_sge(mut self, max_sge: u32) -> Self {
        self.max_sge = max_sge;
        self
    }

    /// A number that device events of this queue will carry. Default: 0.
    pub fn set_context(mut self, context: u64) -> Self {
        self.context = context;
        self
    }

    /// Creates the queue.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidArgument`] if it is to hold no receive.
    /// - [`Error::Capacity`] if the device has no queue of such a depth, or of so many scatter entries.
    /// - [`Error::Unsupported`] if the device has no shared receive queues.
    /// - [`Error::Verb`] if the kernel refuses for another reason.
    #[doc(alias = "ibv_create_srq")]
    pub fn build(self) -> Result<SharedReceiveQueue> {
        Ok(self.build_with(|| ((), KeptTables::default()))?.0)
    }

    pub(crate) fn max_wr(&self) -> u32 {
        self.max_wr
    }

    /// Creates a queue that keeps the tables which `make` makes until it is destroyed; and returns what else it makes.
    pub(crate) fn build_with<R>(
        self,
        make: impl FnOnce() -> (R, KeptTables),
    ) -> Result<(SharedReceiveQueue, R)> {
        const VERB: &str = "ibv_create_srq";
        at_least_one(DEPTH, self.max_wr)?;
        check_capacity(self.pd.handle().context(), VERB, self.max_wr, self.max_sge)?;
        let mut attr = ffi::ibv_srq_init_attr {
            srq_context: ptr::null_mut::<c_void>().wrapping_byte_add(self.context as usize),
            attr: ffi::ibv_srq_attr {
                max_wr: self.max_wr,
                max_sge: self.max_sge,
                ..Default::default()
            },
        };
        // SAFETY: the domain is alive, and the attributes are a whole structure.
        let raw = created(|| unsafe { ffi::ibv_create_srq(self.pd.as_raw(), &mut attr) });
        let raw = raw.map_err(|code| Error::from_code(VERB, code))?;
        let (made, tables) = make();
        let inner = SrqInner { raw, _tables: tables, pd: PdUser::new(self.pd.handle()) };
        let inner = Arc::new(Handle::new(inner));
        // Not what `attr` says now: providers that grant more do not all say so, and one might say too much.
        Ok((SharedReceiveQueue { inner, max_sge: self.max_sge, lost: false }, made))
    }
}

/// What an error calls it.
const DEPTH: &str = "the depth of a shared receive queue";

/// Refuses what is more than the device has. Providers are not trusted with it: bnxt_re would overflow a 32-bit
/// size.
fn check_capacity(
    context: &ContextInner,
    verb: &'static str,
    max_wr: u32,
    max_sge: u32,
) -> Result<()> {
    let device = context.query_device()?;
    if device.max_srq() == 0 {
        return Err(Error::Unsupported { operation: verb });
    }
    for (what, requested, available) in [
        ("receives of a shared receive queue", max_wr, device.max_srq_wr()),
        ("scatter entries of a shared receive queue", max_sge, device.max_srq_sge()),
    ] {
        if requested > available {
            let (requested, available) = (requested.into(), available.into());
            return Err(Error::Capacity { verb, what, requested, available, source: None });
        }
    }
    Ok(())
}

/// The state of a shared receive queue (`struct ibv_srq_attr`); from [`SharedReceiveQueue::query`].
#[doc(alias = "ibv_srq_attr")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedReceiveQueueAttr {
    /// How many receives it can hold: at least what was asked for.
    pub max_wr: u32,
    /// How many scatter entries a receive may have, as the device says. What it takes is
    /// [`SharedReceiveQueue::max_sge`].
    pub max_sge: u32,
    /// Below how many receives the next limit event is raised; 0 for none.
    pub limit: u32,
}

impl SharedReceiveQueue {
    pub(crate) fn handle(&self) -> &SrqHandle {
        &self.inner
    }

    /// How many scatter entries a receive may have: what was asked for.
    pub fn max_sge(&self) -> u32 {
        self.max_sge
    }

    /// Posts receive requests, with one call for all of them: an array, a `Vec` or a `&mut` slice.
    ///
    /// # Errors
    ///
    /// - [`Error::TooManyScatterEntries`] if a request has more entries than the queue was created with;
    ///   nothing is posted then.
    /// - [`Error::PostReceive`] if the device refuses, most often because the queue is full. It tells how
    ///   many of the requests, from the first, the device may own the buffers of.
    /// - [`Error::NoReceiveQueue`] if a [`resize`](Self::resize) has lost the queue.
    ///
    /// # Safety
    ///
    /// For each request that is posted, until its completion is polled, or the queue was destroyed: its
    /// memory stays registered and is not unmapped (with the exception that
    /// [`SendBatch::submit`](crate::SendBatch::submit) explains), nobody reads or writes it, and no reference
    /// to it exists. The queue is destroyed when [`close`](Self::close) has returned `Ok`; or when it
    /// and all queue pairs that were built with it were dropped, unless a poll of one of their completion
    /// queues was open or the device is broken and does not destroy them.
    #[doc(alias = "ibv_post_srq_recv")]
    #[inline]
    pub unsafe fn post_recv<'a>(&self, mut requests: impl AsMut<[RecvRequest<'a>]>) -> Result<()> {
        self.check_usable()?;
        post_requests(requests.as_mut(), self.max_sge, "ibv_post_srq_recv", |first, bad| {
            // SAFETY: the queue is alive; the chain is valid, as `PostCall` says; what the device does with the
            // memory is the caller's promise.
            unsafe { ffi::ibv_post_srq_recv(self.as_raw(), first, bad) }
        })
    }

    /// Posts receive requests for shared memory: as [`post_recv_shared`](crate::QueuePair::post_recv_shared) of a
    /// queue pair does. The memory is kept until the queue is destroyed, which its queue pairs keep alive.
    ///
    /// # Errors
    ///
    /// Those of a queue pair, and [`Error::NoReceiveQueue`] if a [`resize`](Self::resize) has lost the queue.
    #[doc(alias = "ibv_post_srq_recv")]
    #[inline]
    pub fn post_recv_shared<'a>(
        &self,
        mut requests: impl AsMut<[RecvRequest<'a, Shared>]>,
    ) -> Result<()> {
        self.check_usable()?;
        let (domain, verb) = (identity(&self.inner.pd), "ibv_post_srq_recv");
        post_shared(requests.as_mut(), self.max_sge, domain, verb, |first, bad| {
            // SAFETY: the queue is alive; the chain is valid, as `PostCall` says. The memory is of the queue's domain,
            // stays registered for as long as the queue is alive, and nobody has a reference to it.
            unsafe { ffi::ibv_post_srq_recv(self.as_raw(), first, bad) }
        })
    }

    /// Posts the receives of a chain, with one call and without looking at them again.
    ///
    /// # Errors
    ///
    /// As [`post_recv`](Self::post_recv).
    ///
    /// # Safety
    ///
    /// That of [`post_recv`](Self::post_recv), for each request of the chain.
    #[doc(alias = "ibv_post_srq_recv")]
    #[inline]
    pub unsafe fn post_chain(&self, chain: &mut RecvChain) -> Result<()> {
        self.check_usable()?;
        post_chain(chain, self.max_sge, "ibv_post_srq_recv", |first, bad| {
            // SAFETY: as in `post_recv`.
            unsafe { ffi::ibv_post_srq_recv(self.as_raw(), first, bad) }
        })
    }

    /// Asks the device for its state.
    ///
    /// # Errors
    ///
    /// [`Error::Verb`] if the device does not answer.
    #[doc(alias = "ibv_query_srq")]
    pub fn query(&self) -> Result<SharedReceiveQueueAttr> {
        let mut attr = ffi::ibv_srq_attr::default();
        // SAFETY: the queue is alive, and the attributes are a whole structure.
        let code = unsafe { ffi::ibv_query_srq(self.as_raw(), &mut attr) };
        check("ibv_query_srq", code)?;
        let ffi::ibv_srq_attr { max_wr, max_sge, srq_limit: limit } = attr;
        Ok(SharedReceiveQueueAttr { max_wr, max_sge, limit })
    }

    /// Asks for one device event as soon as less than `limit` receives are left; 0 takes the wish back. After
    /// the event it has to be asked for again.
    ///
    /// SoftRoCE looks at the limit when a receive is taken: if there are too few receives already, there is no event
    /// before the next one is.
    ///
    /// # Errors
    ///
    /// - [`Error::Capacity`] if the queue does not hold so many receives.
    /// - [`Error::Verb`] if the device refuses.
    #[doc(alias = "ibv_modify_srq")]
    #[doc(alias = "IBV_SRQ_LIMIT")]
    pub fn set_limit(&self, limit: u32) -> Result<()> {
        let attr = ffi::ibv_srq_attr { srq_limit: limit, ..Default::default() };
        self.modify(attr, ffi::IBV_SRQ_LIMIT).map_err(|code| {
            let available = self.query().map_or(u32::MAX, |attr| attr.max_wr);
            if limit <= available {
                return Error::from_code("ibv_modify_srq", code);
            }
            Error::Capacity {
                verb: "ibv_modify_srq",
                what: "receives as the limit of this queue",
                requested: limit.into(),
                available: available.into(),
                source: Some(io::Error::from_raw_os_error(code)),
            }
        })
    }

    /// Changes how many receives it can hold. Those that are posted stay.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidArgument`] if it is to hold no receive.
    /// - [`Error::Capacity`] if the device has no queue of such a depth.
    /// - [`Error::Unsupported`] if the device cannot do this ([`DeviceCaps`](crate::DeviceCaps) says so).
    /// - [`Error::Resize`] if the device refuses for another reason, such as more receives in it, or a higher limit,
    ///   than are to fit. Should the device have resized the queue, but the process have no memory for it, then the queue is
    ///   lost, and all posts fail from now on.
    #[doc(alias = "ibv_modify_srq")]
    #[doc(alias = "IBV_SRQ_MAX_WR")]
    pub fn resize(&mut self, max_wr: u32) -> Result<()> {
        const VERB: &str = "ibv_modify_srq";
        at_least_one(DEPTH, max_wr)?;
        let context = self.inner.pd.context();
        check_capacity(context, VERB, max_wr, 0)?;
        // Kernel drivers without this answer EINVAL, as they do to a wrong number.
        if !context.query_device()?.capabilities().contains(DeviceCaps::SRQ_RESIZE) {
            return Err(Error::Unsupported { operation: "ibv_modify_srq with IBV_SRQ_MAX_WR" });
        }
        let before = self.query()?.max_wr;
        let attr = ffi::ibv_srq_attr { max_wr, ..Default::default() };
        let Err(code) = self.modify(attr, ffi::IBV_SRQ_MAX_WR) else { return Ok(()) };
        // SoftRoCE's provider has no mapping of its queue if the kernel did as asked but the new one could
        // not be mapped, and would write to address zero. (That is why this takes `&mut self`.) If the kernel
        // refuses a number, or cannot do this, nothing has changed.
        let refused = matches!(code, libc::EINVAL | libc::EOPNOTSUPP | libc::ENOSYS);
        self.lost = !(refused && self.query().is_ok_and(|attr| attr.max_wr == before));
        Err(match Error::from_code(VERB, code) {
            Error::Verb { verb, source } => {
                Error::Resize { verb, requested: max_wr, capacity: before, source }
            }
            unsupported => unsupported,
        })
    }

    fn modify(&self, mut attr: ffi::ibv_srq_attr, mask: u32) -> Result<(), i32> {
        // SAFETY: the queue is alive, and the attributes are a whole structure.
        match unsafe { ffi::ibv_modify_srq(self.as_raw(), &mut attr, mask as i32) } {
            0 => Ok(()),
            code => Err(error_number(code)),
        }
    }

    #[inline]
    fn check_usable(&self) -> Result<()> {
        if self.lost {
            return Err(Error::NoReceiveQueue);
        }
        Ok(())
    }

    /// Destroys the queue. Dropping does the same, but cannot tell what went wrong.
    ///
    /// # Errors
    ///
    /// - [`Error::InUse`] if there is a queue pair that was built with it.
    /// - [`Error::Verb`] if the device refuses; one that was unplugged answers `EIO`.
    #[doc(alias = "ibv_destroy_srq")]
    pub fn close(self) -> Result<(), Failed<Self>> {
        let SharedReceiveQueue { inner, max_sge, lost } = self;
        Handle::close_shared(inner)
            .map_err(|failed| failed.map(|inner| SharedReceiveQueue { inner, max_sge, lost }))
    }

    /// The C structure.
    pub fn as_raw(&self) -> *mut ffi::ibv_srq {
        self.inner.as_raw()
    }
}

impl fmt::Debug for SharedReceiveQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedReceiveQueue")
            .field("device", &self.inner.pd.context().device().name())
            .field("max_sge", &self.max_sge)
            .finish_non_exhaustive()
    }
}
