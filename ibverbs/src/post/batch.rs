//! Batches of send requests: one doorbell for all of them.

use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;

use super::level::{Level, Raw};
use super::op::SendOp;
use super::refusal::Refusal;
use crate::ah::AddressHandle;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::qp::{
    CanSend, Connected, Core, Datagram, DatagramAddress, Peer, QueuePair, State, Transport,
};

/// Send requests that are posted together; see [`QueuePair::start_send`], and
/// [`start_shared`](QueuePair::start_shared) for the level `L` of [`Shared`](crate::Shared) memory.
///
/// Nothing is posted before [`submit`](Self::submit). Dropping the batch takes everything back. In a task it ends,
/// in a block or a function of its own, before an `.await`: it is not `Send`.
///
/// An operation that the queue pair cannot carry out (one that it was not built for, too many scatter
/// entries or too many inline bytes) is not given to the device; `submit` then refuses the whole batch
/// and says why.
#[doc(alias = "ibv_wr_abort")]
#[must_use = "a batch that is dropped is aborted"]
pub struct SendBatch<'qp, T: Transport, L: Level = Raw> {
    pub(super) core: &'qp mut Core,
    pub(super) open: L::Open,
    /// Not `Send`: providers hold a spin lock from the start to the end of a batch, and whoever takes one
    /// should release it. (Only what was forgotten may end on another thread: see `handle.rs`.)
    _type: PhantomData<(*mut T, L)>,
}

impl<T: Transport, S: State> QueuePair<T, S> {
    /// Starts a batch of send requests. It borrows the queue pair until it is submitted or dropped.
    ///
    /// Providers hold locks meanwhile: of the send queue, and one (ionic) of its completion queue. So finish
    /// a batch before you poll its completion queue, and before you do anything with another queue pair of
    /// that completion queue: create it, change its state, post to it or drop it. And do not fill a queue
    /// beyond its capacity within a poll, for mlx5 and hns then look whether the completion queue has made
    /// room. Such a thread would wait for itself.
    ///
    /// For the same reason a batch is not `Send`. A task that may move to another thread ends it in a block or a
    /// function of its own before an `.await`: the compiler takes a batch that was submitted for a part of the task
    /// until the block ends.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use ibverbs::{MemoryRegion, QueuePair, Rc, RemoteMemorySlice};
    /// # fn post(mut qp: QueuePair<Rc>, region: MemoryRegion, remote: RemoteMemorySlice) -> ibverbs::Result<()> {
    /// let mut batch = qp.start_send();
    /// batch.op().write(1, &[region.slice(..4096)], remote);
    /// batch.op().signaled().imm(7).send(2, b"done");
    /// // SAFETY: the region is not touched before the completion of request 2 is polled.
    /// unsafe { batch.submit() }?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// In a task:
    ///
    /// ```no_run
    /// # use ibverbs::{QueuePair, Rc, Result};
    /// # fn is_send<T: Send>(_: T) {}
    /// # fn spawn(qp: QueuePair<Rc>) { is_send(post(qp)) }
    /// # async fn something_else() {}
    /// # async fn post(mut qp: QueuePair<Rc>) -> Result<()> {
    /// {
    ///     let mut batch = qp.start_send();
    ///     batch.op().signaled().send(1, b"ping");
    ///     // SAFETY: inline data has no conditions, and the send queue is not full.
    ///     unsafe { batch.submit() }?;
    /// }
    /// something_else().await;
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "ibv_wr_start")]
    #[doc(alias = "ibv_post_send")]
    #[inline]
    pub fn start_send(&mut self) -> SendBatch<'_, T>
    where
        S: CanSend,
    {
        let core = self.core_mut();
        let open = core.start_batch();
        SendBatch::new(core, open)
    }
}

impl<'qp, T: Transport, L: Level> SendBatch<'qp, T, L> {
    #[inline]
    pub(super) fn new(core: &'qp mut Core, open: L::Open) -> Self {
        SendBatch { core, open, _type: PhantomData }
    }

    /// Begins an operation. It is complete with the call that names it: `send`, `write`, ...
    #[inline]
    pub fn op(&mut self) -> SendOp<'_, T, L>
    where
        T: Connected,
    {
        SendOp::new(self.core, &mut self.open, Peer)
    }
}

impl<T: Transport> SendBatch<'_, T, Raw> {
    /// Begins an operation that goes to the queue pair `remote_qpn`, a number of 24 bits, at the port that `ah`
    /// names; or to the group that it names, with
    /// [`AddressHandle::MULTICAST_QPN`](crate::AddressHandle::MULTICAST_QPN).
    ///
    /// `qkey` is the one that the *remote* queue pair was activated with. A datagram with another one is dropped
    /// there, and the send succeeds all the same. (A key whose highest bit is set stands for the sender's own.)
    ///
    /// A handle of another protection domain refuses the batch. When the handle may be dropped is told
    /// [there](AddressHandle).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use ibverbs::{AddressHandle, QueuePair, Result, Ud};
    /// # fn send(qp: &mut QueuePair<Ud>, ah: &AddressHandle, remote_qpn: u32, remote_qkey: u32) -> Result<()> {
    /// let mut batch = qp.start_send();
    /// batch.to(ah, remote_qpn, remote_qkey).signaled().send(1, b"hello");
    /// // SAFETY: inline data has no conditions, and there is room in the send queue.
    /// unsafe { batch.submit() }
    /// # }
    /// ```
    #[doc(alias = "ibv_wr_set_ud_addr")]
    #[inline]
    pub fn to<'b>(&'b mut self, ah: &'b AddressHandle, remote_qpn: u32, qkey: u32) -> SendOp<'b, T>
    where
        T: Datagram,
    {
        let mut address = DatagramAddress { ah: ah.as_raw(), remote_qpn, qkey };
        if !self.core.is_of_domain(ah.pd()) {
            address.ah = std::ptr::null_mut();
            self.open.refuse(self.core, Refusal::Domain("address handle"));
        }
        SendOp::new(self.core, &mut self.open, address)
    }

    /// Posts the batch and rings the doorbell once.
    ///
    /// # Errors
    ///
    /// - [`Error::AbortedBefore`] if an earlier batch was aborted or failed, on the one driver (ionic) that
    ///   does not get over it.
    /// - [`Error::NotReadyToSend`] if a queue pair in [`Manual`](crate::Manual) was not asked for RTS yet.
    /// - [`Error::OperationNotGranted`], [`Error::TooManyScatterEntries`], [`Error::InlineTooLong`],
    ///   [`Error::BeyondRemote`], [`Error::ProtectionDomainMismatch`], [`Error::InvalidAccess`] or
    ///   [`Error::InvalidArgument`] if an operation of the batch was refused; the first such one is told.
    ///   Nothing is posted then.
    /// - [`Error::PostSend`] if the device refuses the batch, most often because the send queue is full.
    ///   Nothing is posted then either, but for what the last paragraph says.
    ///
    /// # Safety
    ///
    /// For each operation of the batch, until its completion is polled (or, if it is not signaled, that
    /// of a later send request of this queue pair), or [`close`](QueuePair::close) or
    /// [`reset`](QueuePair::reset) of the queue pair has returned `Ok` (dropping it ends this too, unless a
    /// poll of one of its completion queues is open, or the device is broken and does not destroy it):
    ///
    /// - the memory of its scatter entries stays registered and is not unmapped (if it is deregistered
    ///   too early, as by dropping its region, the request fails; that breaks this contract only if
    ///   memory is registered later, for it may get the same key);
    /// - nobody writes to memory that the device reads: the entries of sends and writes;
    /// - nobody reads or writes memory that the device writes: the entries of reads and atomics; and no
    ///   reference to it exists.
    ///
    /// Inline data is copied at once and has no such conditions.
    ///
    /// There is room in the send queue: the requests of this batch, and earlier ones, of either level, of which neither
    /// the completion nor that of a later send request was polled, are no more than [`capacity`](QueuePair::capacity)
    /// says; and if they are as many, no operation is added to a batch of this queue pair before such a
    /// completion is polled. (Operations of `Srd`, of the feature `efa`, complete in any order: each is counted until its own
    /// completion is polled.) Most providers tell a full queue when the batch is submitted, and have done nothing.
    /// But mlx5 has then written an operation that was added to a completely full queue over the last request in
    /// it, and ionic does not look at all: it writes over the first ones.
    ///
    /// The same holds after [`Error::PostSend`] with another error than `ENOMEM` or `ENOSPC` (a full
    /// queue): SoftRoCE has put the requests into its queue by the time that its doorbell fails.
    #[doc(alias = "ibv_wr_complete")]
    #[inline]
    pub unsafe fn submit(self) -> Result<()> {
        let this = &mut *ManuallyDrop::new(self);
        this.core.complete_batch(&this.open)
    }
}

impl<T: Transport, L: Level> Drop for SendBatch<'_, T, L> {
    #[inline(always)]
    fn drop(&mut self) {
        L::abort(self.core);
    }
}

impl<T: Transport, L: Level> fmt::Debug for SendBatch<'_, T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendBatch").finish_non_exhaustive()
    }
}
