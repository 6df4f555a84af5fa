//! What a queue pair is, whatever its type says: the C object, what it was granted, and the batch that is
//! being filled.

use std::ffi::c_int;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use super::gate::Gate;
use super::limits::Limits;
use super::nowhere::Nowhere;
use super::open::{OpenBatch, OpenShared};
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
///
/// No function that is not in line is given a pointer to the whole. So the compiler knows, where it has a queue pair from an
/// exclusive reference, that no call of the provider changes this, and need not load everything again.
pub struct Core {
    pub(super) raw: NonNull<ffi::ibv_qp_ex>,
    pub(super) limits: Limits,
    /// If something stands in the way, `inner` knows what.
    pub(super) gate: Gate,
    /// As [`identity`] tells it.
    domain: usize,
    pub(super) inner: ManuallyDrop<Box<Handle<QpInner>>>,
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
}

// SAFETY: verbs may be called by any thread, as `handle.rs` argues. Through a shared reference nothing is
// written: posting, `modify` and `query`, which store into the C structure, take `&mut self`.
unsafe impl Send for Core {}
// SAFETY: as above.
unsafe impl Sync for Core {}

impl Core {
    /// The core of a queue pair that was created just now.
    pub(super) fn new(raw: NonNull<ffi::ibv_qp_ex>, inner: Handle<QpInner>) -> Core {
        let inner = ManuallyDrop::new(Box::new(inner));
        let (limits, domain) = (inner.limits, identity(&inner.pd));
        let gate = inner.gate.with_obstacle(true);
        Core { raw, limits, gate, domain, inner }
    }

    /// Posts a chain of receive requests: `ibv_post_recv`, of which the function is known.
    ///
    /// # Safety
    ///
    /// The contract of ibv_post_recv(3), but that the queue pair is alive.
    #[inline(always)]
    pub(crate) unsafe fn post_recv(
        &self,
        first: *mut ffi::ibv_recv_wr,
        bad: *mut *mut ffi::ibv_recv_wr,
    ) -> c_int {
        // SAFETY: the queue pair is alive, and `ibv_qp_ex` begins with its `ibv_qp`; the rest is the caller's promise.
        unsafe { (self.inner.posting.recv)(self.raw.as_ptr().cast(), first, bad) }
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
        self.gate = self.inner.gate.with_obstacle(self.inner.obstacle != Obstacle::None);
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

    /// Sees to it that no batch is open. Returns whether there can be another one.
    #[inline(always)]
    pub(super) fn make_free(&mut self) -> bool {
        if !self.gate.is_free() {
            // SAFETY: this is the queue pair, and something stands in the way.
            let is_free = unsafe { self.inner.abort(self.raw) };
            self.gate = self.inner.gate.with_obstacle(!is_free);
            return is_free;
        }
        true
    }

    /// Aborts a batch that was forgotten: some providers take its lock for other verbs as well.
    #[inline(always)]
    pub(crate) fn end_forgotten_batch(&mut self) {
        self.make_free();
    }

    /// Makes sure that requests can be posted, and no batch is open.
    #[inline(always)]
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
    #[inline]
    pub(crate) fn explain_refusal(&self, refusal: Refusal) -> Error {
        self.inner.explain_refusal(refusal)
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

    /// Posts the batch that was opened last, or aborts it if an operation was refused.
    #[inline(always)]
    pub(crate) fn complete_batch(&mut self, batch: &OpenBatch) -> Result<()> {
        if batch.is_refused {
            return Err(*self.give_up());
        }
        self.gate.leave();
        // SAFETY: the queue pair is alive and a batch is open, or it is one that does nothing; the builder checked that the
        // function is there. What it posts is the promise of whoever filled the batch.
        let code = unsafe { ffi::ibv_wr_complete(batch.raw.as_ptr()) };
        if code == 0 {
            return Ok(());
        }
        if !batch.is_begun(self) {
            return Err(*self.inner.explain());
        }
        let is_free = self.inner.after_failure();
        self.gate = self.inner.gate.with_obstacle(!is_free);
        Err(Error::PostSend { source: os_error(code) })
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
    #[inline(always)]
    pub(crate) fn submit_shared(&mut self, batch: &OpenShared) -> Result<()> {
        if batch.is_refused {
            return Err(*self.give_up());
        }
        let qp = self.raw().cast();
        // Once, so that the pointer stays valid beside the reference to another field.
        let inner: &mut QpInner = &mut self.inner;
        let posting = &raw const inner.posting;
        let call = move |first: *mut _, bad: &mut *mut _| {
            // SAFETY: it is a field of `inner`, which outlives the call. (Read now, where it is called.)
            let send = unsafe { (*posting).send };
            // SAFETY: the queue pair is alive and ready to send, and no batch is open on it; the chain ends in null,
            // and its scatter lists and inline data are its own. Operations, entries and inline bytes are within what
            // was granted; address handles are borrowed by the batch. What the entries name is memory of the queue
            // pair's domain, to which nobody has a reference, and which stays registered: shared memory for as long as
            // the queue pair is alive, and buffers for as long as they are in the tables that it keeps.
            unsafe { send(qp, first, bad) }
        };
        // SAFETY: the places were handed out when the batch was begun, which has borrowed the queue pair since, and are
        // pushed after [`OpenShared::reserve`].
        unsafe { inner.requests.post(&batch.places, call) }
    }

    /// Takes back the open batch, or what is kept of a refused one, if there is one.
    #[inline(always)]
    pub(crate) fn abort_batch(&mut self) {
        self.make_free();
    }

    /// The same with a batch that is refused, or was never begun. Returns why, in a box, so that the caller's result can
    /// stay in registers.
    #[inline(always)]
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
        let Core { raw, limits, gate, domain, .. } = *this;
        inner.close().map_err(|failed| {
            failed.map(|inner| {
                let inner = ManuallyDrop::new(Box::new(inner));
                Core { raw, limits, gate, domain, inner }
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

    /// The error of an operation that is refused.
    #[cold]
    #[inline(never)]
    fn explain_refusal(&self, refusal: Refusal) -> Error {
        refusal.into_error(self.limits.ops(), &self.limits.granted)
    }

    /// Whether the queue pair has what an operation asks for, with so many scatter entries or bytes inline. Otherwise the
    /// batch is refused.
    #[cold]
    #[inline(never)]
    pub(super) fn admits(
        &mut self,
        op: SendOps,
        entries: usize,
        bytes: usize,
        is_first: bool,
    ) -> bool {
        let granted = &self.limits.granted;
        let refusal = if let Err(refusal) = self.limits.check(op) {
            refusal
        } else if entries > granted.max_send_sge as usize {
            Refusal::ScatterEntries(entries)
        } else if bytes > granted.max_inline_data as usize {
            Refusal::InlineBytes(bytes)
        } else {
            return true;
        };
        self.refuse(refusal, is_first);
        false
    }

    /// Keeps the reason why the batch that is being filled is refused, if it `is_first`: an earlier batch that was dropped
    /// may have left another one.
    #[cold]
    #[inline(never)]
    pub(super) fn refuse(&mut self, refusal: Refusal, is_first: bool) {
        self.refuse_beyond(refusal, &{ self.limits.granted }, is_first);
    }

    /// The same, of an operation that goes beyond `capacity`.
    #[cold]
    #[inline(never)]
    pub(super) fn refuse_beyond(
        &mut self,
        refusal: Refusal,
        capacity: &QueuePairCapacity,
        is_first: bool,
    ) {
        if is_first && self.obstacle == Obstacle::None {
            self.refusal = Some(Box::new(refusal.into_error(self.limits.ops(), capacity)));
        }
    }

    /// Begins a batch, and takes back first what stands in the way. Returns where operations go.
    ///
    /// # Safety
    ///
    /// `raw` is the queue pair of this, and a batch is open on it unless there is another obstacle.
    #[cold]
    #[inline(never)]
    pub(super) unsafe fn start(&mut self, raw: NonNull<ffi::ibv_qp_ex>) -> NonNull<ffi::ibv_qp_ex> {
        // SAFETY: the caller's promise.
        if !unsafe { self.abort(raw) } {
            return self.nowhere.get_or_insert_with(Nowhere::new).as_raw();
        }
        // SAFETY: the queue pair is alive and no batch is open; the builder checked that the function is there.
        unsafe { ffi::ibv_wr_start(raw.as_ptr()) }
        raw
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
        // What is kept is not why the next batch is refused.
        self.refusal = None;
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
