//! What a queue pair is, whatever its type says: the C object, what it was granted, and the batch that is
//! being filled.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use super::state::QpState;
use super::transport::{SendOps, Transport};
use super::{QpInner, QueuePairCapacity};
use crate::cq::drop_or_park;
use crate::error::{os_error, Error, Failed, Result};
use crate::ffi;
use crate::handle::Handle;
use crate::mw::{MemoryWindow, WindowType2};
use crate::owned::KeptTables;
use crate::pd::{identity, PdHandle};
use crate::post::{Places, Refusal, Requests};

/// What the queue pair's type does not change: what posting needs, and the rest behind a pointer.
pub struct Core {
    raw: NonNull<ffi::ibv_qp_ex>,
    limits: Limits,
    /// Whether nothing stands in the way of the next batch. If something does, `inner` knows what.
    is_free: bool,
    /// As [`identity`] tells it.
    domain: usize,
    pub(super) inner: ManuallyDrop<Box<Handle<QpInner>>>,
}

/// What can be posted.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    lacks: Lacks,
    pub(crate) granted: QueuePairCapacity,
}

/// What operations ask for and a queue pair does not have: [`SendOps`], and [`ENTRY`](Lacks::ENTRY). Bits that must not be
/// set are looked for together, by one instruction where they are. (Half as long as `SendOps`, for errors in which a queue
/// pair is handed back.)
#[derive(Clone, Copy)]
struct Lacks(u32);

impl Lacks {
    /// A scatter entry.
    const ENTRY: Lacks = Lacks(1 << 31);
    const EVERYTHING: Lacks = Lacks::of(SendOps::all()).and(Lacks::ENTRY);

    const fn of(ops: SendOps) -> Lacks {
        Lacks(ops.bits() as u32)
    }

    const fn and(self, other: Lacks) -> Lacks {
        Lacks(self.0 | other.0)
    }

    #[inline]
    fn include(self, asked: Lacks) -> bool {
        self.0 & asked.0 != 0
    }
}

const _: () = assert!(SendOps::all().bits() < Lacks::ENTRY.0 as u64);

impl Limits {
    /// What a queue pair that was granted this can post if `ops` are the operations that it can carry out.
    fn new(ops: SendOps, granted: QueuePairCapacity) -> Limits {
        let lacks = Lacks::of(SendOps::all().difference(ops));
        let no_entry = granted.max_send_sge == 0;
        Limits { lacks: if no_entry { lacks.and(Lacks::ENTRY) } else { lacks }, granted }
    }

    fn ops(&self) -> SendOps {
        SendOps::all().difference(SendOps::from_bits_retain(self.lacks.0.into()))
    }

    /// Whether an operation of `op` can be posted.
    #[inline]
    pub(crate) fn check(&self, op: SendOps) -> Result<(), Refusal> {
        if self.lacks.include(Lacks::of(op)) {
            Err(Refusal::NotGranted(op))
        } else {
            Ok(())
        }
    }

    /// The same, with one scatter entry.
    #[inline]
    pub(crate) fn check_entry(&self, op: SendOps) -> Result<(), Refusal> {
        if self.lacks.include(Lacks::of(op).and(Lacks::ENTRY)) {
            // Which one is found out where the error is made, so that the bits are not needed any more.
            Err(Refusal::NotGrantedWithEntry(op))
        } else {
            Ok(())
        }
    }
}

/// The batch that is being filled, with what it needs of its queue pair.
///
/// They are copies that stand on the stack of whoever fills the batch, where the compiler sees that no call of the
/// provider changes them: it keeps them in registers, and checks before a loop what it would check again and again
/// within.
pub struct OpenBatch {
    pub(crate) raw: *mut ffi::ibv_qp_ex,
    pub(crate) limits: Limits,
    /// Whether it is refused already, or was never begun: it is not open at the provider's.
    pub(crate) is_refused: bool,
}

impl OpenBatch {
    /// Refuses the batch, which is one of `core`, for an operation of it. The first reason counts.
    #[inline]
    pub(crate) fn refuse(&mut self, core: &mut Core, refusal: Refusal) {
        self.is_refused = true;
        core.refuse(refusal, Obstacle::None);
    }

    /// The same, for an operation that goes beyond `capacity`.
    #[inline]
    pub(crate) fn refuse_beyond(
        &mut self,
        core: &mut Core,
        refusal: Refusal,
        capacity: &QueuePairCapacity,
    ) {
        self.is_refused = true;
        core.refuse_beyond(refusal, capacity, Obstacle::None);
    }
}

/// The batch of the shared level that is being filled: copies, as in [`OpenBatch`]. The provider knows nothing of it.
pub struct OpenShared {
    pub(crate) limits: Limits,
    /// The protection domain, as [`SharedSlice::domain`](crate::SharedSlice) tells it.
    pub(crate) domain: usize,
    /// Where its requests go.
    pub(crate) places: Places,
    is_refused: bool,
}

impl OpenShared {
    /// Makes sure that there is a place for a request. If there may be none, because the batch has as many requests as the
    /// send queue has places, it returns their number.
    #[inline]
    pub(crate) fn reserve(&mut self, core: &mut Core) -> std::result::Result<(), usize> {
        if self.places.is_empty() {
            let places = core.inner.requests.grow();
            self.places = places.ok_or(core.limits.granted.max_send_wr as usize)?;
        }
        Ok(())
    }

    /// Refuses the batch, which is one of `core`, for an operation of it. The first reason counts.
    #[inline]
    pub(crate) fn refuse(&mut self, core: &mut Core, refusal: Refusal) {
        self.is_refused = true;
        core.refuse(refusal, Obstacle::Refused);
    }

    /// The same, for an operation that goes beyond `capacity`.
    #[inline]
    pub(crate) fn refuse_beyond(
        &mut self,
        core: &mut Core,
        refusal: Refusal,
        capacity: &QueuePairCapacity,
    ) {
        self.is_refused = true;
        core.refuse_beyond(refusal, capacity, Obstacle::Refused);
    }
}

/// What stands in the way of the next batch, if that is not one which is open: started, and neither submitted nor
/// aborted, so that the provider holds a lock.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Obstacle {
    None,
    /// The queue pair was not asked for a state in which it sends. Some providers count a request that
    /// is begun before that as posted, so that they are not called at all.
    #[default]
    NotReady,
    /// A batch was aborted on a driver that does not get over it. No more are started before a reset.
    Spoilt,
    /// The reason is kept why a batch of the shared level was refused. The provider knows nothing of that.
    Refused,
}

// SAFETY: verbs may be called by any thread, as `handle.rs` argues. Through a shared reference nothing is
// written: posting, `modify` and `query`, which store into the C structure, take `&mut self`.
unsafe impl Send for Core {}
// SAFETY: as above.
unsafe impl Sync for Core {}

// SAFETY: the pointer is that of a `Core`, which the batch borrows exclusively, and may be sent as that may.
unsafe impl Send for OpenBatch {}
// SAFETY: as above.
unsafe impl Sync for OpenBatch {}

impl Core {
    /// The core of a queue pair that was created just now.
    pub(super) fn new(
        raw: NonNull<ffi::ibv_qp_ex>,
        granted: QueuePairCapacity,
        inner: Handle<QpInner>,
    ) -> Core {
        let inner = ManuallyDrop::new(Box::new(inner));
        // Without a send queue there is nothing to post to, and providers do not check.
        let has_queue = granted.max_send_wr > 0;
        let ops = if has_queue { inner.config.send_ops } else { SendOps::empty() };
        let limits = Limits::new(ops, granted);
        let domain = identity(&inner.pd);
        Core { raw, limits, is_free: false, domain, inner }
    }

    /// Keeps tables of buffers until the queue pair is destroyed, instead of those that it has: of these, nothing is
    /// with the device any more.
    pub(crate) fn keep(&mut self, tables: KeptTables) {
        self.inner.tables = tables;
    }

    /// Whether sends complete in the order in which they were posted. Those of EFA do in no order that is promised: its
    /// provider keeps their places in a pool (`efa_wq_get_wrid_idx`), and signals all.
    pub(crate) fn completes_in_order<T: Transport>(&self) -> bool {
        !T::ALWAYS_SIGNALED && !self.inner.config.is_efa
    }

    /// How often the queue pair was reset, around the end: the device forgets then what was posted.
    pub(crate) fn resets(&self) -> u32 {
        self.inner.resets
    }

    /// Takes note that the queue pair was moved to another state.
    pub(super) fn set_state(&mut self, state: QpState) {
        if state == QpState::RESET {
            self.inner.resets = self.inner.resets.wrapping_add(1);
        }
        self.inner.refusal = None;
        self.inner.obstacle = match state {
            QpState::RESET | QpState::INIT | QpState::RTR => Obstacle::NotReady,
            // Only a reset, after which the others come first, makes good what was spoilt.
            _ if self.inner.obstacle == Obstacle::Spoilt => Obstacle::Spoilt,
            _ => Obstacle::None,
        };
        self.is_free = self.inner.obstacle == Obstacle::None;
    }

    /// The operations that the queue pair was built for.
    pub(crate) fn granted_ops(&self) -> SendOps {
        self.limits.ops()
    }

    #[inline]
    pub(crate) fn raw(&self) -> *mut ffi::ibv_qp_ex {
        self.raw.as_ptr()
    }

    /// Whether the queue pair is of this protection domain.
    #[inline]
    pub(crate) fn is_of_domain(&self, pd: &PdHandle) -> bool {
        PdHandle::ptr_eq(&self.inner.pd, pd)
    }

    /// Takes note that this queue pair binds the window.
    pub(crate) fn add_window(
        &mut self,
        window: &mut MemoryWindow<WindowType2>,
    ) -> Result<(), Refusal> {
        self.inner.windows.add(window)
    }

    #[inline]
    pub(crate) fn granted(&self) -> &QueuePairCapacity {
        &self.limits.granted
    }

    /// Opens a batch, and first aborts one that was forgotten. If the queue pair is not ready to send,
    /// there will be none: the provider is not called, and no operation is granted.
    #[inline]
    pub(crate) fn start_batch(&mut self) -> OpenBatch {
        let raw = self.raw();
        if !self.is_free {
            self.abort_batch();
            if !self.is_free {
                let limits = Limits { lacks: Lacks::EVERYTHING, ..self.limits };
                return OpenBatch { raw, limits, is_refused: true };
            }
        }
        self.is_free = false;
        // SAFETY: the queue pair is alive and no batch is open; the builder checked that the function is there.
        unsafe { ffi::ibv_wr_start(raw) }
        OpenBatch { raw, limits: self.limits, is_refused: false }
    }

    /// Sees to it that no batch is open. Returns whether there can be another one.
    // In line, and `inner` alone is given away: where nobody was given a pointer to the whole, the compiler knows that no
    // call of the provider changes it, and need not load everything again.
    #[inline(always)]
    fn make_free(&mut self) -> bool {
        if !self.is_free {
            // SAFETY: this is the queue pair, and something stands in the way.
            self.is_free = unsafe { self.inner.abort(self.raw) };
        }
        self.is_free
    }

    /// Aborts a batch that was forgotten: some providers take its lock for other verbs as well.
    #[inline]
    pub(crate) fn end_forgotten_batch(&mut self) {
        self.make_free();
    }

    /// Makes sure that requests can be posted, and no batch is open.
    #[inline]
    pub(crate) fn make_ready(&mut self) -> Result<(), Box<Error>> {
        if self.make_free() {
            Ok(())
        } else {
            Err(self.inner.explain())
        }
    }

    /// What can be posted.
    #[inline]
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Makes sure that a request of this operation can be posted by a call of its own, without a batch.
    pub(crate) fn prepare_send(&mut self, op: SendOps) -> Result<()> {
        self.make_ready().map_err(|error| *error)?;
        self.limits.check(op).map_err(|refusal| self.explain_refusal(refusal))
    }

    /// The error of an operation that is refused.
    #[cold]
    pub(crate) fn explain_refusal(&self, refusal: Refusal) -> Error {
        refusal.into_error(self.granted_ops(), &self.limits.granted)
    }

    /// What a write or a read may carry, if that is less than was granted for sends.
    #[inline]
    pub(crate) fn rdma_capacity<T: Transport>(&self) -> Option<QueuePairCapacity> {
        T::rdma_capacity(&self.inner.config, &self.limits.granted)
    }

    /// How many scatter entries a receive may have, if receives can be posted to the queue pair itself. Ends
    /// a forgotten batch.
    #[inline]
    pub(crate) fn prepare_recv(&mut self) -> Result<u32> {
        if self.limits.granted.max_recv_wr == 0 {
            return Err(Error::NoReceiveQueue);
        }
        self.end_forgotten_batch();
        Ok(self.limits.granted.max_recv_sge)
    }

    /// Keeps the reason why the batch that is being filled is refused, unless there is one already, and `obstacle` to
    /// the next one.
    #[cold]
    #[inline(never)]
    fn refuse(&mut self, refusal: Refusal, obstacle: Obstacle) {
        self.refuse_beyond(refusal, &{ self.limits.granted }, obstacle);
    }

    /// The same, of an operation that goes beyond `capacity`.
    #[cold]
    #[inline(never)]
    fn refuse_beyond(
        &mut self,
        refusal: Refusal,
        capacity: &QueuePairCapacity,
        obstacle: Obstacle,
    ) {
        let ops = self.granted_ops();
        let inner = &mut **self.inner;
        if inner.obstacle == Obstacle::None && inner.refusal.is_none() {
            inner.refusal = Some(Box::new(refusal.into_error(ops, capacity)));
            inner.obstacle = obstacle;
            self.is_free = false;
        }
    }

    /// Posts the batch that was opened last, or aborts it if an operation was refused.
    #[inline]
    pub(crate) fn complete_batch(&mut self, batch: &OpenBatch) -> Result<()> {
        debug_assert!(!self.is_free);
        if batch.is_refused {
            return Err(*self.give_up());
        }
        self.is_free = true;
        // SAFETY: the queue pair is alive and a batch is open; the builder checked that the function
        // is there. What it posts is the promise of whoever filled the batch.
        let code = unsafe { ffi::ibv_wr_complete(batch.raw) };
        if code == 0 {
            return Ok(());
        }
        self.is_free = self.inner.after_failure();
        Err(Error::PostSend { source: os_error(code) })
    }

    /// Begins a shared batch, and first aborts one that was forgotten. If the queue pair is not ready to send, the
    /// batch is refused.
    #[inline]
    pub(crate) fn start_shared(&mut self) -> OpenShared {
        if !self.is_free {
            self.abort_batch();
            if !self.is_free {
                let limits = Limits { lacks: Lacks::EVERYTHING, ..self.limits };
                let places = self.inner.requests.places();
                return OpenShared { limits, domain: self.domain, places, is_refused: true };
            }
        }
        let Core { limits, domain, .. } = *self;
        let places = self.inner.requests.places();
        OpenShared { limits, domain, places, is_refused: false }
    }

    /// What a shared batch is made of.
    #[inline]
    pub(crate) fn requests(&mut self) -> &mut Requests {
        &mut self.inner.requests
    }

    /// The protection domain, as [`SharedSlice::domain`](crate::SharedSlice) tells it.
    #[inline]
    pub(crate) fn domain(&self) -> usize {
        self.domain
    }

    /// Posts the shared batch, unless it is refused.
    #[inline]
    pub(crate) fn submit_shared(&mut self, batch: &OpenShared) -> Result<()> {
        if batch.is_refused {
            return Err(*self.give_up());
        }
        let qp = self.raw().cast();
        let call = |first: *mut _, bad: &mut *mut _| {
            // SAFETY: the queue pair is alive and ready to send, and no batch is open on it; the chain ends in null,
            // and its scatter lists and inline data are its own. Operations, entries and inline bytes are within what
            // was granted; address handles are borrowed by the batch. What the entries name is memory of the queue
            // pair's domain, to which nobody has a reference, and which stays registered: shared memory for as long as
            // the queue pair is alive, and buffers for as long as they are in the tables that it keeps.
            unsafe { ffi::ibv_post_send(qp, first, bad) }
        };
        // SAFETY: the places were handed out when the batch was begun, which has borrowed the queue pair since, and are
        // pushed after [`OpenShared::reserve`].
        unsafe { self.inner.requests.post(&batch.places, call) }
    }

    /// Takes back the open batch, or what is kept of a refused one, if there is one.
    #[cold]
    #[inline(never)]
    pub(crate) fn abort_batch(&mut self) {
        self.make_free();
    }

    /// The same with a batch that is refused, or was never begun. Returns why, in a box, so that the caller's result can
    /// stay in registers.
    #[cold]
    #[inline(never)]
    fn give_up(&mut self) -> Box<Error> {
        let error = self.inner.explain();
        self.make_free();
        error
    }

    pub(super) fn close(mut self) -> Result<(), Failed<Core>> {
        if self.inner.is_polling() {
            return Err(Failed { resource: self, error: Error::PollInProgress });
        }
        self.end_forgotten_batch();
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is not dropped, and its `inner` is not used again.
        let inner = unsafe { ManuallyDrop::take(&mut this.inner) };
        let Core { raw, limits, is_free, domain, .. } = *this;
        inner.close().map_err(|failed| {
            failed.map(|inner| {
                let inner = ManuallyDrop::new(Box::new(inner));
                Core { raw, limits, is_free, domain, inner }
            })
        })
    }
}

/// What posting seldom needs.
impl QpInner {
    /// Why there is no batch, or one is refused.
    #[cold]
    #[inline(never)]
    fn explain(&mut self) -> Box<Error> {
        self.refusal.take().unwrap_or_else(|| {
            Box::new(match self.obstacle {
                Obstacle::Spoilt => Error::AbortedBefore,
                _ => Error::NotReadyToSend,
            })
        })
    }

    /// Takes back the batch that is open or was refused, if there is one. Returns whether there can be another.
    ///
    /// # Safety
    ///
    /// `raw` is the queue pair of this, and a batch is open on it unless there is another obstacle.
    #[cold]
    #[inline(never)]
    unsafe fn abort(&mut self, raw: NonNull<ffi::ibv_qp_ex>) -> bool {
        match self.obstacle {
            Obstacle::NotReady | Obstacle::Spoilt => return false,
            Obstacle::Refused => {
                (self.refusal, self.obstacle) = (None, Obstacle::None);
                return true;
            }
            Obstacle::None => {}
        }
        self.refusal = None;
        // SAFETY: the queue pair is alive and a batch is open, as the caller promises; the builder checked that the
        // function is there.
        unsafe { ffi::ibv_wr_abort(raw.as_ptr()) }
        self.after_failure()
    }

    /// Takes note that a batch was aborted, or has failed. Returns whether there can be another.
    #[cold]
    #[inline(never)]
    fn after_failure(&mut self) -> bool {
        if self.config.abort_spoils {
            self.obstacle = Obstacle::Spoilt;
        }
        self.obstacle == Obstacle::None
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.end_forgotten_batch();
        // SAFETY: self is being dropped, and `inner` is not used again.
        drop_or_park(*unsafe { ManuallyDrop::take(&mut self.inner) });
    }
}
