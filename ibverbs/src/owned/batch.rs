//! Batches of operations that buffers are moved into.

use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;

use super::buffer::Buffer;
use super::sends::{Requests, Sends};
use super::table::{Places, Position};
use crate::ah::AddressHandle;
use crate::error::{Failed, Result};
use crate::ffi;
use crate::mr::RemoteMemorySlice;
use crate::post::{verb, Classic, Imm, NoImm, Refusal, WithoutImm};
use crate::qp::{
    Address, Connected, Core, Datagram, DatagramAddress, Peer, RdmaRead, RdmaWrite, Reliable,
    Transport,
};

/// Operations that are posted together, each with a buffer that is moved into it; see
/// [`OwnedQueuePair::start_send`](crate::OwnedQueuePair::start_send).
///
/// Nothing is posted before [`submit`](Self::submit). If the batch is dropped, its buffers go back to their pool.
#[must_use = "a batch that is dropped posts nothing"]
pub struct OwnedBatch<'qp, T: Transport> {
    core: &'qp mut Core,
    sends: &'qp mut Sends,
    // Copies that stand on the stack of whoever fills the batch: nobody is given a pointer to them, so that the compiler
    // keeps them in registers. What has become of them if the batch is forgotten, `Sends` finds out.
    places: Places,
    /// Where the ring has come to.
    at: Position,
    requests: Requests,
    _type: PhantomData<*mut T>,
}

impl<'qp, T: Transport> OwnedBatch<'qp, T> {
    #[inline(always)]
    pub(super) fn new(core: &'qp mut Core, sends: &'qp mut Sends) -> Self {
        let mut requests = sends.begin();
        let (places, at) = (sends.ring.places(), sends.ring.position());
        if let Err(error) = core.make_ready() {
            sends.refuse_all(error);
            requests.end = 0;
        }
        OwnedBatch { core, sends, places, at, requests, _type: PhantomData }
    }

    /// Refuses the batch, for an operation with this buffer.
    #[inline(always)]
    fn refuse(&mut self, why: Option<Refusal>, buffer: Option<Buffer>) {
        self.sends.refuse(self.core, why, buffer);
        self.requests.end = 0;
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
            self.refuse(Some(Refusal::Domain("address handle")), None);
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
    ///
    /// [`Error::NotReadyToSend`]: crate::Error::NotReadyToSend
    /// [`Error::OperationNotGranted`]: crate::Error::OperationNotGranted
    /// [`Error::QueueFull`]: crate::Error::QueueFull
    /// [`Error::OutOfBounds`]: crate::Error::OutOfBounds
    /// [`Error::BeyondRemote`]: crate::Error::BeyondRemote
    /// [`Error::ProtectionDomainMismatch`]: crate::Error::ProtectionDomainMismatch
    /// [`Error::Unsupported`]: crate::Error::Unsupported
    /// [`Error::PostShared`]: crate::Error::PostShared
    #[doc(alias = "ibv_post_send")]
    #[inline]
    pub fn submit(self) -> Result<(), Failed<Vec<Buffer>>> {
        let OwnedBatch { core, sends, at, requests, .. } = &mut *ManuallyDrop::new(self);
        if sends.is_refused() {
            return Err(sends.give_back(at.next));
        }
        sends.ring.set_open(false);
        let (first, end) = (sends.first(), requests.at(at.next));
        if end == first {
            return Ok(());
        }
        sends.ring.go_on(*at);
        let last = end.wrapping_sub(1);
        let mut bad = std::ptr::null_mut();
        // SAFETY: the request is one of the chain, which the batch has borrowed; no provider knows of it now.
        unsafe { (*last).next = std::ptr::null_mut() };
        // SAFETY: the queue pair is alive and ready to send, and no batch is open on it, which `new` has seen to; the chain
        // ends in null. Operations and entries are within what was granted, or the batch would be refused; address
        // handles are borrowed by the batch. What an entry names is a buffer of the queue pair's domain, which is in a
        // table that it keeps until it is destroyed or reset, and so is the piece that the entry is in.
        let code = unsafe { ffi::ibv_post_send(core.raw().cast(), first, &mut bad) };
        // SAFETY: as above.
        unsafe { (*last).next = end };
        if code == 0 {
            return Ok(());
        }
        Err(sends.explain(code, bad, end))
    }
}

/// Why an operation of `V` with the first `len` bytes of the buffer cannot be carried out by this queue pair.
#[inline(always)]
fn check<T: Transport, V: Classic>(
    core: &Core,
    buffer: &Buffer,
    len: usize,
) -> Result<(), Refusal> {
    if !T::CLASSIC_OPS.contains(V::OP) {
        return Err(Refusal::NotClassic);
    }
    core.limits().check(V::OP)?;
    if len > buffer.size() as usize {
        Err(Refusal::BeyondBuffer { len, size: buffer.len() })
    } else if buffer.domain() != core.domain() {
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
    sends: &mut Sends,
    user: u64,
    mut buffer: Buffer,
    len: usize,
) -> Result<(), Failed<Option<Buffer>>> {
    if sends.ring.is_open() {
        sends.take_back_left();
    }
    if let Err(error) = core.make_ready() {
        return Err(Failed { resource: Some(buffer), error: *error });
    }
    if let Err(refusal) = check::<T, verb::Send>(core, &buffer, len) {
        let error = core.explain_refusal(refusal);
        return Err(Failed { resource: Some(buffer), error });
    }
    let Some(at) = sends.ring.vacancy(sends.ring.position()) else {
        let error = core.explain_refusal(Refusal::QueueFull(sends.ring.capacity()));
        return Err(Failed { resource: Some(buffer), error });
    };
    let places = sends.ring.places();
    let (first, entry) = (sends.single(), buffer.entry(len as u32));
    // SAFETY: the ring is borrowed exclusively, and the position is its vacancy.
    let behind = unsafe { places.fill(at, true, user, buffer) };
    sends.ring.go_on(behind);
    // SAFETY: it is a request of the queue pair, which is borrowed exclusively; no provider knows of it now.
    let request = unsafe { &mut *first };
    request.wr_id = at.next;
    request.sg_list = entry;
    request.num_sge = i32::from(len > 0);
    let mut bad = std::ptr::null_mut();
    // SAFETY: the queue pair is alive and ready to send, and no batch is open on it; the chain is one request, which ends
    // in null, and its list has the one entry. The operation is granted; the builder asked for at least one entry. The
    // buffer is of the queue pair's domain, and in a table that it keeps until it is destroyed or reset.
    let code = unsafe { ffi::ibv_post_send(core.raw().cast(), first, &mut bad) };
    if code == 0 {
        return Ok(());
    }
    Err(sends.explain_one(code, bad.is_null(), at.next))
}

impl<T: Transport> Drop for OwnedBatch<'_, T> {
    // It takes but one call, with values: in line it costs less than to have the batch in memory.
    #[inline(always)]
    fn drop(&mut self) {
        self.sends.abandon(self.at.next);
    }
}

impl<T: Transport> fmt::Debug for OwnedBatch<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedBatch")
            .field("is_refused", &self.sends.is_refused())
            .finish_non_exhaustive()
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
    /// so many completes nevertheless: the one behind half a queue of which none is signaled.
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
    fn add<V: Classic>(self, user: u64, mut buffer: Buffer, len: usize, verb: V) {
        let OwnedOp { batch, mut flags, address, .. } = self;
        if let Err(refusal) = check::<T, V>(batch.core, &buffer, len) {
            return batch.refuse(Some(refusal), Some(buffer));
        }
        // SAFETY: the table is the ring's, which the batch has borrowed.
        let is_empty = || unsafe { batch.places.is_empty(batch.at.next) };
        if batch.at.next >= batch.requests.end || !is_empty() {
            let request = batch.requests.at(batch.at.next);
            let prepared = match batch.sends.prepare(request, batch.at, flags) {
                Ok(prepared) => prepared,
                Err(refusal) => return batch.refuse(refusal, Some(buffer)),
            };
            (batch.requests, batch.at, flags) = (prepared.requests, prepared.at, prepared.flags);
        }
        let is_signaled = flags & ffi::IBV_SEND_SIGNALED != 0;
        let (entry, id) = (buffer.entry(len as u32), batch.at.next);
        // SAFETY: the batch has borrowed the ring and staged all before the position, whose place is empty; and its
        // identifier is within the block.
        batch.at = unsafe { batch.places.fill(batch.at, is_signaled, user, buffer) };
        // SAFETY: the request is one of the chain, which the batch has borrowed; no provider knows of it now.
        let request = unsafe { &mut *batch.requests.at(id) };
        request.wr_id = id;
        request.sg_list = entry;
        request.num_sge = i32::from(len > 0);
        request.opcode = V::OPCODE;
        request.send_flags = flags;
        verb.describe(request);
        // Usable: a batch to an address that is not is refused.
        address.describe(request);
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
            let why = Refusal::BeyondRemote { bytes, len: remote.len };
            return self.batch.refuse(Some(why), Some(buffer));
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
