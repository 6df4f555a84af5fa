//! Batches of the shared level: filled by safe code, submitted by safe code.
//!
//! They are posted through the classic interface, `ibv_post_send`. Each provider that has the extended one too looks
//! there whether the send queue has room before it writes a request over another, which some do not do in the extended
//! one: `docs/decisions.md` says more.

use std::ptr;

use super::batch::SendBatch;
use super::level::{Request, Shared};
use super::payload::{Kind, Payload};
use super::refusal::Refusal;
use super::verb::Classic;
use super::SendOp;
use crate::ah::AddressHandle;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::qp::{
    Address, CanSend, Core, Datagram, DatagramAddress, OpenShared, QueuePair, State, Transport,
};

/// A batch whose operations carry slices of a [`SharedRegion`](crate::SharedRegion), or inline data; see
/// [`QueuePair::start_shared`].
pub type SharedBatch<'qp, T> = SendBatch<'qp, T, Shared>;

impl<T: Transport, S: State> QueuePair<T, S> {
    /// Starts a batch of send requests that safe code may submit: their payloads are slices of a
    /// [`SharedRegion`](crate::SharedRegion), and inline data.
    ///
    /// Its operations are those of [`start_send`](Self::start_send), but for those that few devices have: windows,
    /// flushes and atomic writes; and on `Srd` (feature `efa`) there are only sends. No lock is held before it is
    /// submitted.
    ///
    /// Batches of both levels may be submitted in turn.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # #![forbid(unsafe_code)]
    /// # use ibverbs::{AccessFlags, ProtectionDomain, QueuePair, Rc, RemoteMemorySlice, Result};
    /// # fn post(pd: &ProtectionDomain, mut qp: QueuePair<Rc>, remote: RemoteMemorySlice) -> Result<()> {
    /// let region = pd.allocate_shared(4096, AccessFlags::LOCAL_WRITE)?;
    /// region.write_at(0, b"hello");
    /// let mut batch = qp.start_shared();
    /// batch.op().write(1, &[region.slice(..5)], remote);
    /// batch.op().signaled().imm(7).send(2, b"done");
    /// batch.submit()
    /// # }
    /// ```
    #[doc(alias = "ibv_post_send")]
    #[inline]
    pub fn start_shared(&mut self) -> SharedBatch<'_, T>
    where
        S: CanSend,
    {
        let core = self.core_mut();
        let open = core.start_shared();
        SendBatch::new(core, open)
    }
}

impl<'qp, T: Transport> SendBatch<'qp, T, Shared> {
    /// Begins an operation that goes to the queue pair `remote_qpn` at the port that `ah` names, as
    /// [`to`](SendBatch::to) of a batch of [`start_send`](QueuePair::start_send) does. The handle must outlive the
    /// batch: it is read when that is submitted.
    #[doc(alias = "ibv_post_send")]
    #[inline]
    pub fn to(
        &mut self,
        ah: &'qp AddressHandle,
        remote_qpn: u32,
        qkey: u32,
    ) -> SendOp<'_, T, Shared>
    where
        T: Datagram,
    {
        let mut address = DatagramAddress { ah: ah.as_raw(), remote_qpn, qkey };
        if !self.core.is_of_domain(ah.pd()) {
            address.ah = ptr::null_mut();
            self.open.refuse(self.core, Refusal::Domain("address handle"));
        }
        SendOp::new(self.core, &mut self.open, address)
    }

    /// Posts the batch, with one call.
    ///
    /// What the memory holds when the device reads it is what is sent; what it holds when the device writes it is
    /// replaced. So a message may be mixed of old and new, if the program does not wait for the completion; memory is
    /// safe all the same.
    ///
    /// The provider takes locks meanwhile, mlx5 and hns that of the completion queue as well if the send queue seems
    /// to be full, and ionic in any case: submit no such batch within a poll of that queue, or the thread waits for
    /// itself.
    ///
    /// # Errors
    ///
    /// - [`Error::NotReadyToSend`] if a queue pair in [`Manual`](crate::Manual) was not asked for RTS yet.
    /// - [`Error::AbortedBefore`] if a batch of [`start_send`](QueuePair::start_send) was aborted or failed, on the
    ///   one driver (ionic) that does not get over it.
    /// - [`Error::OperationNotGranted`], [`Error::TooManyScatterEntries`], [`Error::InlineTooLong`],
    ///   [`Error::BeyondRemote`], [`Error::ProtectionDomainMismatch`], [`Error::Unsupported`] or
    ///   [`Error::InvalidArgument`] if an operation of the batch was refused; the first such one is told. Nothing is
    ///   posted then.
    /// - [`Error::PostShared`] if the device refuses, most often because the send queue is full. It tells how many of
    ///   the operations, from the first, are posted: those complete, the others are not.
    #[doc(alias = "ibv_post_send")]
    // Always: see `Core::complete_batch`.
    #[inline(always)]
    pub fn submit(self) -> Result<()> {
        // The batch has no more to say when it is dropped.
        self.core.submit_shared(&self.open)
    }
}

/// Adds an operation to the batch, if the queue pair can carry it out and its memory is of the queue pair's domain.
#[inline(always)]
pub(super) fn add<T: Transport, V: Classic>(
    core: &mut Core,
    open: &mut OpenShared,
    request: Request<T>,
    payload: &Payload<'_, Shared>,
    verb: V,
) {
    if !T::CLASSIC_OPS.contains(V::OP) {
        return open.refuse(core, Refusal::NotClassic);
    }
    if !open.admits::<T>(core, V::OP, payload.demand()) {
        return;
    }
    let Request { wr_id, flags, address } = request;
    if !address.is_usable() {
        // The batch is refused already.
        return;
    }
    if let Kind::Shared(slices) = payload.kind() {
        let domain = open.domain;
        if slices.iter().any(|slice| slice.domain() != domain) {
            return open.refuse(core, Refusal::Domain("shared region"));
        }
    }
    if let Err(places) = open.reserve(core) {
        return open.refuse(core, Refusal::BatchTooLong(places));
    }
    // SAFETY: there is room for one, as was checked just now.
    let mut slot = unsafe { core.requests().slot(&open.places) };
    let inline = match payload.kind() {
        Kind::Shared(slices) => {
            let entries = slices.iter().map(|slice| *slice.entry().raw());
            // SAFETY: the batch admits it: they are no more than was granted.
            unsafe { slot.set_entries(entries) };
            0
        }
        // SAFETY: as above, of the bytes.
        Kind::Inline(bytes) | Kind::Short(bytes) => unsafe { slot.set_bytes([bytes]) },
        Kind::InlineList(buffers) => {
            let buffers = buffers.iter().map(|buffer| &**buffer);
            // SAFETY: as above, of all of them together.
            unsafe { slot.set_bytes(buffers) }
        }
        // Payloads of this level are not made of them.
        Kind::Scatter(_) => return,
    };
    slot.request.wr_id = wr_id;
    slot.request.opcode = V::OPCODE;
    slot.request.send_flags = flags | inline;
    verb.describe(slot.request);
    address.describe(slot.request);
    open.places.push();
}
