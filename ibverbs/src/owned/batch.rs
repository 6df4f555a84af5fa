//! Batches of operations that buffers are moved into.

use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Range;

use super::buffer::Buffer;
use super::table::Ring;
use crate::ah::AddressHandle;
use crate::error::{os_error, Error, Failed, Result};
use crate::ffi;
use crate::mr::RemoteMemorySlice;
use crate::post::{verb, Classic, Imm, NoImm, Refusal, WithoutImm};
use crate::qp::{
    Address, Connected, Core, Datagram, DatagramAddress, Limits, OpenShared, Peer, RdmaRead,
    RdmaWrite, Reliable, Transport,
};

/// Operations that are posted together, each with a buffer that is moved into it; see
/// [`OwnedQueuePair::start_send`](crate::OwnedQueuePair::start_send).
///
/// Nothing is posted before [`submit`](Self::submit). If the batch is dropped, its buffers go back to their pool.
#[must_use = "a batch that is dropped posts nothing"]
pub struct OwnedBatch<'qp, T: Transport> {
    core: &'qp mut Core,
    open: OpenShared,
    ring: &'qp mut Ring,
    /// The buffers of operations that were refused, in the order in which they were added.
    refused: Vec<Buffer>,
    _type: PhantomData<*mut T>,
}

impl<'qp, T: Transport> OwnedBatch<'qp, T> {
    #[inline(always)]
    pub(super) fn new(core: &'qp mut Core, ring: &'qp mut Ring) -> Self {
        if core.requests().staged() > 0 {
            take_back_left(core, ring);
        }
        let open = core.start_shared();
        OwnedBatch { core, open, ring, refused: Vec::new(), _type: PhantomData }
    }

    /// Begins an operation. It is complete with the call that names it: `send`, `write`, ...
    #[inline]
    pub fn op(&mut self) -> OwnedOp<'_, 'qp, T>
    where
        T: Connected,
    {
        OwnedOp { batch: self, flags: ffi::IBV_SEND_SIGNALED, imm: NoImm(()), address: Peer }
    }

    /// Begins an operation that goes to the queue pair `remote_qpn` at the port that `ah` names, as
    /// [`to`](crate::SendBatch::to) of a batch of [`start_send`](crate::QueuePair::start_send) does. The handle must
    /// outlive the batch: it is read when that is submitted.
    #[inline]
    pub fn to(&mut self, ah: &'qp AddressHandle, remote_qpn: u32, qkey: u32) -> OwnedOp<'_, 'qp, T>
    where
        T: Datagram,
    {
        let mut address = DatagramAddress { ah: ah.as_raw(), remote_qpn, qkey };
        if !self.core.is_of_domain(ah.pd()) {
            address.ah = std::ptr::null_mut();
            self.open.refuse(self.core, Refusal::Domain("address handle"));
        }
        OwnedOp { batch: self, flags: ffi::IBV_SEND_SIGNALED, imm: NoImm(()), address }
    }

    /// Posts the batch, with one call.
    ///
    /// The provider takes locks meanwhile, mlx5 and hns that of the completion queue as well if the send queue seems
    /// to be full, and ionic in any case: submit no batch within a poll of that queue, or the thread waits for itself.
    ///
    /// # Errors
    ///
    /// All buffers whose operations are not posted come back with the error, in the order in which they were added.
    ///
    /// - [`Error::NotReadyToSend`] if a queue pair in [`Manual`](crate::Manual) was not asked for RTS yet.
    /// - [`Error::OperationNotGranted`], [`Error::QueueFull`], [`Error::OutOfBounds`], [`Error::BeyondRemote`],
    ///   [`Error::ProtectionDomainMismatch`] or [`Error::Unsupported`] if an operation of the batch was refused; the
    ///   first such one is told. Nothing is posted then.
    /// - [`Error::PostShared`] if the device refuses. It tells how many of the operations, from the first, are posted.
    #[doc(alias = "ibv_post_send")]
    #[inline]
    pub fn submit(self) -> Result<(), Failed<Vec<Buffer>>> {
        let this = &mut *ManuallyDrop::new(self);
        let staged = this.core.requests().staged();
        match this.core.submit_shared(&this.open) {
            Ok(()) => {
                this.core.requests().set_staged(0);
                Ok(())
            }
            Err(error) => Err(this.give_back(staged, error)),
        }
    }
}

/// Why an operation of `V` with the first `len` bytes of the buffer cannot be carried out by a queue pair of the domain
/// `domain` with these limits.
#[inline(always)]
fn check<T: Transport, V: Classic>(
    limits: &Limits,
    domain: usize,
    buffer: &Buffer,
    len: usize,
) -> Result<(), Refusal> {
    if !T::CLASSIC_OPS.contains(V::OP) {
        return Err(Refusal::NotClassic);
    }
    limits.check(V::OP)?;
    if len > buffer.size() as usize {
        Err(Refusal::BeyondBuffer { len, size: buffer.len() })
    } else if buffer.domain() != domain {
        Err(Refusal::Domain("buffer"))
    } else {
        Ok(())
    }
}

/// Posts one signaled send to the queue pair's peer, without a batch. Returns the buffer of one that the provider has not
/// taken.
#[inline(always)]
pub(super) fn send_one<T: Connected>(
    core: &mut Core,
    ring: &mut Ring,
    user: u64,
    buffer: Buffer,
    len: usize,
) -> Result<(), Failed<Option<Buffer>>> {
    if core.requests().staged() > 0 {
        take_back_left(core, ring);
    }
    if let Err(error) = core.make_ready() {
        return Err(Failed { resource: Some(buffer), error: *error });
    }
    if let Err(refusal) = check::<T, verb::Send>(core.limits(), core.domain(), &buffer, len) {
        let error = core.explain_refusal(refusal);
        return Err(Failed { resource: Some(buffer), error });
    }
    let mut entry = buffer.entry(len as u32);
    let id = match ring.stage(user, true, buffer) {
        Ok(id) => id,
        Err(buffer) => {
            let error = core.explain_refusal(Refusal::QueueFull(ring.capacity()));
            return Err(Failed { resource: Some(buffer), error });
        }
    };
    let mut request = ffi::ibv_send_wr {
        wr_id: id,
        sg_list: &mut entry,
        num_sge: i32::from(len > 0),
        opcode: <verb::Send as Classic>::OPCODE,
        send_flags: ffi::IBV_SEND_SIGNALED,
        ..Default::default()
    };
    let mut bad = std::ptr::null_mut();
    // SAFETY: the queue pair is alive and ready to send, and no batch is open on it; the chain is one request, which ends
    // in null, and its list has the one entry. The operation is granted; the builder asked for at least one entry. The
    // buffer is of the queue pair's domain, and in a table that it keeps until it is destroyed or reset.
    let code = unsafe { ffi::ibv_post_send(core.raw().cast(), &mut request, &mut bad) };
    if code == 0 {
        return Ok(());
    }
    Err(refused_one(ring, id, code, bad.is_null()))
}

/// What is told of one send that the provider has refused, or has taken and failed all the same.
#[cold]
#[inline(never)]
fn refused_one(ring: &mut Ring, id: u64, code: i32, is_taken: bool) -> Failed<Option<Buffer>> {
    let error =
        Error::PostShared { accepted: usize::from(is_taken), requested: 1, source: os_error(code) };
    if is_taken {
        return Failed { resource: None, error };
    }
    // SAFETY: the provider says that it has not taken the request, which was staged last.
    let back = unsafe { ring.unstage([id]) }.pop();
    Failed { resource: back.map(|(_, buffer)| buffer), error }
}

/// Takes back what a batch has left that was forgotten.
#[cold]
#[inline(never)]
fn take_back_left(core: &mut Core, ring: &mut Ring) {
    let left = 0..core.requests().staged();
    drop(unstage(core, ring, left));
}

impl<T: Transport> OwnedBatch<'_, T> {
    /// Refuses the batch, for an operation with this buffer.
    #[cold]
    #[inline(never)]
    fn refuse(&mut self, refusal: Refusal, buffer: Buffer) {
        self.open.refuse(self.core, refusal);
        self.refused.push(buffer);
    }

    /// The buffers of what is not posted, for this reason.
    #[cold]
    #[inline(never)]
    fn give_back(&mut self, staged: usize, error: Error) -> Failed<Vec<Buffer>> {
        let accepted = match error {
            Error::PostShared { accepted, .. } => accepted,
            _ => 0,
        };
        Failed { resource: self.unstage(accepted..staged), error }
    }

    /// Takes back these operations of the batch, of which the last is the last, and those that were refused.
    fn unstage(&mut self, range: Range<usize>) -> Vec<Buffer> {
        let mut buffers = unstage(self.core, self.ring, range);
        buffers.extend(std::mem::take(&mut self.refused));
        buffers
    }
}

/// Takes back these operations of the batch that is staged, of which the last is the last.
#[cold]
#[inline(never)]
fn unstage(core: &mut Core, ring: &mut Ring, range: Range<usize>) -> Vec<Buffer> {
    let requests = core.requests();
    let ids = range.filter_map(|index| requests.wr_id(index));
    // SAFETY: the device has not taken the requests, nor will it; nothing was staged after them, since that takes a
    // batch, which borrows the queue pair, and takes back first what another has left.
    let staged = unsafe { ring.unstage(ids) };
    requests.set_staged(0);
    staged.into_iter().map(|(_, buffer)| buffer).collect()
}

impl<T: Transport> Drop for OwnedBatch<'_, T> {
    fn drop(&mut self) {
        let staged = self.core.requests().staged();
        drop(self.unstage(0..staged));
    }
}

impl<T: Transport> fmt::Debug for OwnedBatch<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedBatch").field("refused", &self.refused).finish_non_exhaustive()
    }
}

/// An operation of an [`OwnedBatch`] that is being described.
///
/// First come the modifiers: [`unsignaled`](Self::unsignaled), [`solicited`](Self::solicited),
/// [`fenced`](Self::fenced), [`imm`](Self::imm). Then the call that names the operation consumes it, takes the buffer, and
/// adds it to the batch.
#[doc(alias = "ibv_send_wr")]
#[must_use = "nothing is posted until an operation is named"]
pub struct OwnedOp<'b, 'qp, T: Transport, I = NoImm> {
    batch: &'b mut OwnedBatch<'qp, T>,
    flags: u32,
    imm: I,
    /// If it names an address handle, that is borrowed for `'qp`.
    address: T::Address,
}

impl<'b, 'qp, T: Transport, I> OwnedOp<'b, 'qp, T, I> {
    /// Asks for no completion, if it succeeds. The buffer comes back with that of a later operation of the queue pair that
    /// is signaled; and only then is its place in the send queue free again. So that it becomes free at all, one of every
    /// so many completes nevertheless: the last of half a queue of which none is signaled.
    ///
    /// Operations of `Srd` (feature `efa`) complete in any case.
    #[doc(alias = "IBV_SEND_SIGNALED")]
    #[inline]
    pub fn unsignaled(mut self) -> Self {
        if !T::ALWAYS_SIGNALED {
            self.flags &= !ffi::IBV_SEND_SIGNALED;
        }
        self
    }

    /// As [`SendOp::solicited`](crate::SendOp::solicited).
    #[doc(alias = "IBV_SEND_SOLICITED")]
    #[inline]
    pub fn solicited(mut self) -> Self {
        self.flags |= ffi::IBV_SEND_SOLICITED;
        self
    }

    /// As [`SendOp::fenced`](crate::SendOp::fenced).
    #[doc(alias = "IBV_SEND_FENCE")]
    #[inline]
    pub fn fenced(mut self) -> Self
    where
        T: Reliable,
    {
        self.flags |= ffi::IBV_SEND_FENCE;
        self
    }

    /// As [`SendOp::imm`](crate::SendOp::imm).
    #[inline]
    pub fn imm(self, imm: u32) -> OwnedOp<'b, 'qp, T, Imm>
    where
        I: WithoutImm,
    {
        let OwnedOp { batch, flags, address, .. } = self;
        OwnedOp { batch, flags, imm: Imm(imm), address }
    }

    /// Adds the operation, if the queue pair can carry it out, and refuses the batch otherwise.
    #[inline(always)]
    fn add<V: Classic>(self, user: u64, buffer: Buffer, len: usize, verb: V) {
        let OwnedOp { batch, flags, address, .. } = self;
        let checked = check::<T, V>(&batch.open.limits, batch.open.domain, &buffer, len);
        if let Err(refusal) = checked {
            return batch.refuse(refusal, buffer);
        }
        if !address.is_usable() || !batch.refused.is_empty() {
            // The batch is refused already.
            return batch.refused.push(buffer);
        }
        if let Err(places) = batch.open.reserve(batch.core) {
            return batch.refuse(Refusal::QueueFull(places), buffer);
        }
        let entry = buffer.entry(len as u32);
        let mut flags = flags;
        if flags & ffi::IBV_SEND_SIGNALED == 0 && batch.ring.needs_signal() {
            flags |= ffi::IBV_SEND_SIGNALED;
        }
        let is_signaled = flags & ffi::IBV_SEND_SIGNALED != 0;
        let id = match batch.ring.stage(user, is_signaled, buffer) {
            Ok(id) => id,
            Err(buffer) => {
                let places = batch.ring.capacity();
                return batch.refuse(Refusal::QueueFull(places), buffer);
            }
        };
        // SAFETY: there is room for one, as was checked just now.
        let mut slot = unsafe { batch.core.requests().slot(&batch.open.places) };
        // SAFETY: the builder asked for at least one entry.
        unsafe { slot.set_entries((len > 0).then_some(entry).into_iter()) };
        slot.request.wr_id = id;
        slot.request.opcode = V::OPCODE;
        slot.request.send_flags = flags;
        verb.describe(slot.request);
        address.describe(slot.request);
        batch.open.places.push();
        let staged = batch.core.requests().filled(&batch.open.places);
        batch.core.requests().set_staged(staged);
    }

    /// As [`add`](Self::add), if the bytes do not go beyond the remote memory.
    #[inline(always)]
    fn add_remote(
        self,
        user: u64,
        buffer: Buffer,
        len: usize,
        remote: RemoteMemorySlice,
        verb: impl Classic,
    ) {
        let bytes = len as u64;
        if bytes > remote.len {
            return self.batch.refuse(Refusal::BeyondRemote { bytes, len: remote.len }, buffer);
        }
        self.add(user, buffer, len, verb);
    }
}

impl<T: Transport> OwnedOp<'_, '_, T, NoImm> {
    /// Sends the first `len` bytes of the buffer into a receive that the peer has posted. A datagram fits into one
    /// packet.
    #[doc(alias = "ibv_post_send")]
    #[inline]
    pub fn send(self, user: u64, buffer: Buffer, len: usize) {
        self.add(user, buffer, len, verb::Send);
    }

    /// Writes the first `len` bytes of the buffer into the peer's memory. The peer does not notice.
    #[doc(alias = "ibv_post_send")]
    #[inline]
    pub fn write(self, user: u64, buffer: Buffer, len: usize, remote: RemoteMemorySlice)
    where
        T: RdmaWrite,
    {
        self.add_remote(user, buffer, len, remote, verb::Write(remote));
    }

    /// Reads `len` bytes of the peer's memory to the beginning of the buffer.
    #[doc(alias = "ibv_post_send")]
    #[inline]
    pub fn read(self, user: u64, buffer: Buffer, len: usize, remote: RemoteMemorySlice)
    where
        T: RdmaRead,
    {
        self.add_remote(user, buffer, len, remote, verb::Read(remote));
    }
}

impl<T: Transport> OwnedOp<'_, '_, T, Imm> {
    /// As [`send`](OwnedOp::send) without immediate data.
    #[doc(alias = "ibv_post_send")]
    #[inline]
    pub fn send(self, user: u64, buffer: Buffer, len: usize) {
        let imm = self.imm.0.to_be();
        self.add(user, buffer, len, verb::SendImm(imm));
    }

    /// Writes the first `len` bytes of the buffer into the peer's memory, and consumes one of its receives.
    #[doc(alias = "ibv_post_send")]
    #[inline]
    pub fn write(self, user: u64, buffer: Buffer, len: usize, remote: RemoteMemorySlice)
    where
        T: RdmaWrite,
    {
        let imm = self.imm.0.to_be();
        self.add_remote(user, buffer, len, remote, verb::WriteImm(remote, imm));
    }
}

impl<T: Transport, I> fmt::Debug for OwnedOp<'_, '_, T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedOp").field("flags", &self.flags).finish_non_exhaustive()
    }
}
