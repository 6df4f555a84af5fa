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
use crate::post::{Refusal, Requests};

/// What the queue pair's type does not change: what posting needs, and the rest behind a pointer.
pub struct Core {
    raw: NonNull<ffi::ibv_qp_ex>,
    /// What can be posted now: what was granted, but nothing before the queue pair is ready to send.
    ops: SendOps,
    granted: QueuePairCapacity,
    batch: Batch,
    /// Why the open batch is refused, if it is.
    refusal: Option<Box<Error>>,
    pub(super) inner: ManuallyDrop<Box<Handle<QpInner>>>,
}

/// The batch that is being filled, with what it needs of its queue pair.
///
/// They are copies that stand on the stack of whoever fills the batch, where the compiler sees that no call of the
/// provider changes them: it keeps them in registers, and checks before a loop what it would check again and again
/// within.
pub struct OpenBatch {
    pub(crate) raw: *mut ffi::ibv_qp_ex,
    /// What can be posted.
    pub(crate) ops: SendOps,
    pub(crate) granted: QueuePairCapacity,
    /// Whether it is refused already, or was never begun: it is not open at the provider's.
    pub(crate) is_refused: bool,
}

impl OpenBatch {
    /// Whether the queue pair can carry out an operation of `op`.
    #[inline]
    pub(crate) fn check(&self, op: SendOps) -> Result<(), Refusal> {
        if self.ops.contains(op) {
            Ok(())
        } else {
            Err(Refusal::NotGranted(op))
        }
    }

    /// Refuses the batch, which is one of `core`, for an operation of it.
    #[inline]
    pub(crate) fn refuse(&mut self, core: &mut Core, refusal: Refusal) {
        self.is_refused = true;
        core.refuse(refusal);
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
        core.refuse_beyond(refusal, capacity);
    }
}

/// What stands in the way of the next batch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Batch {
    /// Nothing.
    Closed,
    /// The queue pair was not asked for a state in which it sends. Some providers count a request that
    /// is begun before that as posted, so that they are not called at all.
    NotReady,
    /// A batch was aborted on a driver that does not get over it. No more are started before a reset.
    Spoilt,
    /// A batch was started and neither submitted nor aborted: the provider holds a lock.
    Open,
    /// As `Open`, but with an operation that is refused: it will not be posted.
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
        Core { raw, ops: SendOps::empty(), granted, batch: Batch::NotReady, refusal: None, inner }
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
        match state {
            QpState::RESET | QpState::INIT | QpState::RTR => {
                (self.ops, self.batch) = (SendOps::empty(), Batch::NotReady);
            }
            // Only a reset, after which the others come first, makes good what was spoilt.
            _ if self.batch == Batch::Spoilt => {}
            _ => (self.ops, self.batch) = (self.granted_ops(), Batch::Closed),
        }
    }

    /// Takes note that no batch must be started before a reset.
    fn spoil(&mut self) {
        (self.ops, self.batch) = (SendOps::empty(), Batch::Spoilt);
    }

    /// The operations that the queue pair was built for.
    pub(crate) fn granted_ops(&self) -> SendOps {
        // Without a send queue there is nothing to post to, and providers do not check.
        if self.granted.max_send_wr == 0 {
            return SendOps::empty();
        }
        self.inner.config.send_ops
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
        &self.granted
    }

    /// The operations that can be posted now.
    #[inline]
    pub(crate) fn ops(&self) -> SendOps {
        self.ops
    }

    /// Opens a batch, and first aborts one that was forgotten. If the queue pair is not ready to send,
    /// there will be none: the provider is not called, and no operation is granted.
    #[inline]
    pub(crate) fn start_batch(&mut self) -> OpenBatch {
        let is_ready = self.batch == Batch::Closed || {
            self.abort_batch();
            self.batch == Batch::Closed
        };
        if is_ready {
            self.batch = Batch::Open;
            // SAFETY: the queue pair is alive and no batch is open; the builder checked that the function
            // is there.
            unsafe { ffi::ibv_wr_start(self.raw()) }
        }
        let ops = if is_ready { self.ops } else { SendOps::empty() };
        OpenBatch { raw: self.raw(), ops, granted: self.granted, is_refused: !is_ready }
    }

    /// Aborts a batch that was forgotten: some providers take its lock for other verbs as well.
    #[inline]
    pub(crate) fn end_forgotten_batch(&mut self) {
        if matches!(self.batch, Batch::Open | Batch::Refused) {
            self.abort_batch();
        }
    }

    /// Makes sure that a request of this operation can be posted by a call of its own, without a batch.
    pub(crate) fn prepare_send(&mut self, op: SendOps) -> Result<()> {
        self.end_forgotten_batch();
        match self.batch {
            Batch::NotReady => return Err(Error::NotReadyToSend),
            Batch::Spoilt => return Err(Error::AbortedBefore),
            _ => {}
        }
        if !self.ops.contains(op) {
            return Err(self.explain_refusal(Refusal::NotGranted(op)));
        }
        Ok(())
    }

    /// The error of an operation that is refused.
    #[cold]
    pub(crate) fn explain_refusal(&self, refusal: Refusal) -> Error {
        refusal.into_error(self.granted_ops(), &self.granted)
    }

    /// What a write or a read may carry, if that is less than was granted for sends.
    #[inline]
    pub(crate) fn rdma_capacity<T: Transport>(&self) -> Option<QueuePairCapacity> {
        T::rdma_capacity(&self.inner.config, &self.granted)
    }

    /// How many scatter entries a receive may have, if receives can be posted to the queue pair itself. Ends
    /// a forgotten batch.
    #[inline]
    pub(crate) fn prepare_recv(&mut self) -> Result<u32> {
        if self.granted.max_recv_wr == 0 {
            return Err(Error::NoReceiveQueue);
        }
        self.end_forgotten_batch();
        Ok(self.granted.max_recv_sge)
    }

    /// Takes note that an operation of the open batch is refused. The first reason counts.
    #[cold]
    #[inline(never)]
    fn refuse(&mut self, refusal: Refusal) {
        self.refuse_beyond(refusal, &{ self.granted });
    }

    /// The same, of an operation that goes beyond `capacity`.
    #[cold]
    #[inline(never)]
    fn refuse_beyond(&mut self, refusal: Refusal, capacity: &QueuePairCapacity) {
        if self.batch == Batch::Open {
            self.batch = Batch::Refused;
            self.refusal = Some(Box::new(refusal.into_error(self.granted_ops(), capacity)));
        }
    }

    /// Posts the batch that was opened last, or aborts it if an operation was refused.
    #[inline]
    pub(crate) fn complete_batch(&mut self, batch: &OpenBatch) -> Result<()> {
        if batch.is_refused {
            return Err(*self.take_refusal());
        }
        debug_assert!(self.batch == Batch::Open);
        self.batch = Batch::Closed;
        // SAFETY: the queue pair is alive and a batch is open; the builder checked that the function
        // is there. What it posts is the promise of whoever filled the batch.
        let code = unsafe { ffi::ibv_wr_complete(batch.raw) };
        if code == 0 {
            return Ok(());
        }
        self.spoil_if_fragile();
        Err(Error::PostSend { source: os_error(code) })
    }

    /// Aborts the batch, which is not posted, and says why. In a box, so that the caller's result can stay in registers.
    #[cold]
    #[inline(never)]
    fn take_refusal(&mut self) -> Box<Error> {
        let refusal = self.refusal.take();
        self.abort_batch();
        refusal.unwrap_or_else(|| {
            Box::new(match self.batch {
                Batch::Spoilt => Error::AbortedBefore,
                _ => Error::NotReadyToSend,
            })
        })
    }

    /// Takes note that a batch was aborted, or failed.
    #[cold]
    #[inline(never)]
    fn spoil_if_fragile(&mut self) {
        if self.inner.config.abort_spoils {
            self.spoil();
        }
    }

    /// Begins a shared batch, and first aborts one that was forgotten. If the queue pair is not ready to send, the
    /// batch is refused.
    #[inline]
    pub(crate) fn start_shared(&mut self) {
        self.inner.requests.clear();
        if self.batch != Batch::Closed || self.inner.refusal.is_some() {
            self.start_shared_over();
        }
    }

    #[cold]
    #[inline(never)]
    fn start_shared_over(&mut self) {
        self.abort_batch();
        self.inner.refusal = match self.batch {
            Batch::NotReady => Some(Box::new(Error::NotReadyToSend)),
            Batch::Spoilt => Some(Box::new(Error::AbortedBefore)),
            _ => None,
        };
    }

    /// What a shared batch is made of.
    #[inline]
    pub(crate) fn requests(&mut self) -> &mut Requests {
        &mut self.inner.requests
    }

    /// The protection domain, as [`SharedSlice::domain`](crate::SharedSlice) tells it.
    #[inline]
    pub(crate) fn domain(&self) -> usize {
        identity(&self.inner.pd)
    }

    /// Takes note that an operation of the shared batch is refused. The first reason counts.
    #[cold]
    #[inline(never)]
    pub(crate) fn refuse_shared(&mut self, refusal: Refusal) {
        self.refuse_shared_beyond(refusal, &{ self.granted });
    }

    /// The same, of an operation that goes beyond `capacity`.
    #[cold]
    #[inline(never)]
    pub(crate) fn refuse_shared_beyond(&mut self, refusal: Refusal, capacity: &QueuePairCapacity) {
        if self.inner.refusal.is_none() {
            let error = refusal.into_error(self.granted_ops(), capacity);
            self.inner.refusal = Some(Box::new(error));
        }
    }

    /// Posts the shared batch, unless it is refused.
    #[inline]
    pub(crate) fn submit_shared(&mut self) -> Result<()> {
        if self.inner.refusal.is_some() {
            return Err(*self.take_shared_refusal());
        }
        let qp = self.raw().cast();
        self.inner.requests.post(|first, bad| {
            // SAFETY: the queue pair is alive and ready to send, and no batch is open on it; the chain ends in null,
            // and its scatter lists and inline data are its own. Operations, entries and inline bytes are within what
            // was granted; address handles are borrowed by the batch. What the entries name is memory of the queue
            // pair's domain, to which nobody has a reference, and which stays registered: shared memory for as long as
            // the queue pair is alive, and buffers for as long as they are in the tables that it keeps.
            unsafe { ffi::ibv_post_send(qp, first, bad) }
        })
    }

    /// In a box, so that the caller's result can stay in registers.
    #[cold]
    #[inline(never)]
    fn take_shared_refusal(&mut self) -> Box<Error> {
        self.inner.refusal.take().unwrap_or_else(|| Box::new(Error::NotReadyToSend))
    }

    /// Takes the open batch back, if there is one.
    #[cold]
    #[inline(never)]
    pub(crate) fn abort_batch(&mut self) {
        if matches!(self.batch, Batch::Open | Batch::Refused) {
            self.batch = Batch::Closed;
            self.refusal = None;
            // SAFETY: the queue pair is alive and a batch is open; the builder checked that the
            // function is there.
            unsafe { ffi::ibv_wr_abort(self.raw()) }
            self.spoil_if_fragile();
        }
    }

    pub(super) fn close(mut self) -> Result<(), Failed<Core>> {
        if self.inner.is_polling() {
            return Err(Failed { resource: self, error: Error::PollInProgress });
        }
        self.end_forgotten_batch();
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is not dropped, and its `inner` is not used again.
        let inner = unsafe { ManuallyDrop::take(&mut this.inner) };
        let Core { raw, ops, granted, batch, .. } = *this;
        inner.close().map_err(|failed| {
            failed.map(|inner| {
                let inner = ManuallyDrop::new(Box::new(inner));
                Core { raw, ops, granted, batch, refusal: None, inner }
            })
        })
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.abort_batch();
        // SAFETY: self is being dropped, and `inner` is not used again.
        drop_or_park(*unsafe { ManuallyDrop::take(&mut self.inner) });
    }
}
