//! One operation of a batch.

use std::fmt;
use std::marker::PhantomData;

use super::payload::Payload;
use super::refusal::Refusal;
use crate::ffi;
use crate::mr::{LocalMemorySlice, RemoteMemorySlice};
use crate::qp::{Address, Atomic, Core, RdmaRead, RdmaWrite, Reliable, SendOps, Transport};

/// An operation that carries no immediate data.
#[derive(Debug)]
pub struct NoImm(());

/// An operation that carries immediate data.
#[derive(Debug)]
pub struct Imm(u32);

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::NoImm {}
}

/// An operation without immediate data, which may still be any. Sealed.
#[diagnostic::on_unimplemented(
    message = "an operation that carries immediate data is a `send` or a `write`",
    note = "reads and atomics carry none, and `imm` is called once"
)]
pub trait WithoutImm: sealed::Sealed {}

impl WithoutImm for NoImm {}

/// An operation of a [`SendBatch`](super::SendBatch) that is being described.
///
/// First come the modifiers: [`signaled`](Self::signaled), [`solicited`](Self::solicited),
/// [`fenced`](Self::fenced), [`imm`](Self::imm). Then the call that names the operation consumes it and
/// adds it to the batch.
#[doc(alias = "ibv_send_wr")]
#[must_use = "nothing is posted until an operation is named"]
pub struct SendOp<'b, T: Transport, I = NoImm> {
    pub(super) core: &'b mut Core,
    flags: u32,
    imm: I,
    /// If it names an address handle, that is borrowed for `'b`.
    address: T::Address,
    _transport: PhantomData<*mut T>,
}

impl<'b, T: Transport> SendOp<'b, T> {
    #[inline]
    pub(super) fn new(core: &'b mut Core, address: T::Address) -> Self {
        let flags = if T::ALWAYS_SIGNALED { ffi::IBV_SEND_SIGNALED } else { 0 };
        SendOp { core, flags, imm: NoImm(()), address, _transport: PhantomData }
    }
}

impl<'b, T: Transport, I> SendOp<'b, T, I> {
    /// Sends 32 bits along, in host order; they arrive in the peer's completion. After this only `send`
    /// and `write` exist; a write with immediate data consumes one of the peer's receives.
    #[inline]
    pub fn imm(self, imm: u32) -> SendOp<'b, T, Imm>
    where
        I: WithoutImm,
    {
        let SendOp { core, flags, address, .. } = self;
        SendOp { core, flags, imm: Imm(imm), address, _transport: PhantomData }
    }

    /// Asks for a completion. Without it only a failure completes; but operations of `Srd` (feature `efa`) complete
    /// in any case, and datagrams of EFA that are not signaled are refused ([`PostSend`](crate::Error::PostSend)).
    ///
    /// The place of a request in the send queue is free again when the completion of it, or of a later
    /// send request of the same queue pair, was polled.
    #[doc(alias = "IBV_SEND_SIGNALED")]
    #[inline]
    pub fn signaled(mut self) -> Self {
        self.flags |= ffi::IBV_SEND_SIGNALED;
        self
    }

    /// Marks the message as one that the peer may be waiting for: it raises an event there, even if the
    /// peer asked for events of such messages only. EFA has no such messages, and refuses the batch.
    #[doc(alias = "IBV_SEND_SOLICITED")]
    #[inline]
    pub fn solicited(mut self) -> Self {
        self.flags |= ffi::IBV_SEND_SOLICITED;
        self
    }

    /// Starts the operation only after all earlier reads and atomics of this queue pair are done.
    #[doc(alias = "IBV_SEND_FENCE")]
    #[inline]
    pub fn fenced(mut self) -> Self
    where
        T: Reliable,
    {
        self.flags |= ffi::IBV_SEND_FENCE;
        self
    }

    /// Adds the operation, if the queue pair can carry it out: one call of the provider for the
    /// operation, one for its address if it has one, and one for its payload, with nothing in between
    /// that could fail.
    ///
    /// # Safety
    ///
    /// `begin` calls the provider's function for an operation of `op`, which takes a payload, and nothing
    /// else.
    // Always: what is known of the payload where it is named must be known here too, and in a loop the
    // compiler would rather make a call.
    #[inline(always)]
    pub(super) unsafe fn add(
        self,
        op: SendOps,
        wr_id: u64,
        payload: &Payload<'_>,
        begin: impl FnOnce(*mut ffi::ibv_qp_ex),
    ) {
        if !self.core.ops().contains(op) {
            return self.core.refuse(Refusal::NotGranted(op));
        }
        if let Err(refusal) = payload.check(self.core.granted()) {
            return self.core.refuse(refusal);
        }
        if !self.address.is_usable() {
            // The batch is refused already.
            return;
        }
        let qp = self.core.raw();
        // SAFETY: the queue pair is alive and borrowed by the batch, exclusively.
        unsafe { (*qp).wr_id = wr_id };
        // SAFETY: as above.
        unsafe { (*qp).wr_flags = self.flags | payload.flags() };
        begin(qp);
        // SAFETY: a batch is open and `begin` has begun a request; the builder checked the function; the
        // address is usable, and its handle borrowed by self.
        unsafe { self.address.set(qp) };
        // SAFETY: a batch is open, `begin` has begun a request, and `check` was passed above.
        unsafe { payload.set(qp) }
    }

    /// As [`add`](Self::add), for an operation that takes no payload.
    ///
    /// # Safety
    ///
    /// As for `add`, but that the operation takes none: its request is complete when `begin` returns.
    #[inline]
    pub(super) unsafe fn add_bare(
        self,
        op: SendOps,
        wr_id: u64,
        begin: impl FnOnce(*mut ffi::ibv_qp_ex),
    ) {
        if !self.core.ops().contains(op) {
            return self.core.refuse(Refusal::NotGranted(op));
        }
        let qp = self.core.raw();
        // SAFETY: the queue pair is alive and borrowed by the batch, exclusively.
        unsafe { (*qp).wr_id = wr_id };
        // SAFETY: as above.
        unsafe { (*qp).wr_flags = self.flags };
        begin(qp);
    }

    /// As [`add`](Self::add), if the payload does not go beyond the remote memory.
    ///
    /// # Safety
    ///
    /// As for `add`.
    #[inline(always)]
    unsafe fn add_remote(
        self,
        op: SendOps,
        wr_id: u64,
        payload: &Payload<'_>,
        remote: RemoteMemorySlice,
        begin: impl FnOnce(*mut ffi::ibv_qp_ex),
    ) {
        let bytes = payload.len();
        if bytes > remote.len {
            return self.core.refuse(Refusal::BeyondRemote { bytes, len: remote.len });
        }
        if let Some(capacity) = self.core.rdma_capacity::<T>() {
            if let Err(refusal) = payload.check(&capacity) {
                return self.core.refuse_beyond(refusal, &capacity);
            }
        }
        // SAFETY: passed on to the caller.
        unsafe { self.add(op, wr_id, payload, begin) }
    }
}

/// Calls the function that begins an operation. Pointers among the arguments are valid for the call.
macro_rules! begin {
    ($function:ident $(, $argument:expr)*) => {
        |qp| {
            // SAFETY: the queue pair is alive and a batch is open on it, for which `SendOp` borrows
            // both; the builder checked the function, since the operation was granted; pointers among the
            // arguments are valid, as the macro demands.
            unsafe { ffi::$function(qp $(, $argument)*) }
        }
    };
}
pub(super) use begin;

impl<T: Transport> SendOp<'_, T, NoImm> {
    /// Sends a message into a receive that the peer has posted. A datagram fits into one packet.
    #[doc(alias = "ibv_wr_send")]
    #[inline]
    pub fn send<'a>(self, wr_id: u64, payload: impl Into<Payload<'a>>) {
        let begin = begin!(ibv_wr_send);
        // SAFETY: this begins a send.
        unsafe { self.add(SendOps::SEND, wr_id, &payload.into(), begin) }
    }

    /// Writes into the peer's memory. The peer does not notice.
    ///
    /// A payload that is longer than `remote` refuses the batch.
    #[doc(alias = "ibv_wr_rdma_write")]
    #[inline]
    pub fn write<'a>(self, wr_id: u64, payload: impl Into<Payload<'a>>, remote: RemoteMemorySlice)
    where
        T: RdmaWrite,
    {
        let begin = begin!(ibv_wr_rdma_write, remote.rkey, remote.addr);
        // SAFETY: this begins an RDMA write.
        unsafe { self.add_remote(SendOps::RDMA_WRITE, wr_id, &payload.into(), remote, begin) }
    }
}

impl<T: Transport, I> SendOp<'_, T, I> {
    /// Reads the peer's memory into `slices`. The peer does not notice.
    ///
    /// Slices that are longer than `remote` refuse the batch.
    #[doc(alias = "ibv_wr_rdma_read")]
    #[inline]
    pub fn read(self, wr_id: u64, slices: &[LocalMemorySlice], remote: RemoteMemorySlice)
    where
        T: RdmaRead,
        I: WithoutImm,
    {
        let begin = begin!(ibv_wr_rdma_read, remote.rkey, remote.addr);
        // SAFETY: this begins an RDMA read.
        unsafe { self.add_remote(SendOps::RDMA_READ, wr_id, &slices.into(), remote, begin) }
    }

    /// Atomically replaces the peer's 64-bit number by `swap` if it equals `compare`, and stores its old
    /// value into `slice`, in host order. `slice` has 8 bytes; the remote address is a multiple of 8.
    #[doc(alias = "ibv_wr_atomic_cmp_swp")]
    #[inline]
    pub fn atomic_cmp_swap(
        self,
        wr_id: u64,
        slice: LocalMemorySlice,
        remote: RemoteMemorySlice,
        compare: u64,
        swap: u64,
    ) where
        T: Atomic,
        I: WithoutImm,
    {
        if let Err(refusal) = check_atomic(slice, remote) {
            return self.core.refuse(refusal);
        }
        let begin = begin!(ibv_wr_atomic_cmp_swp, remote.rkey, remote.addr, compare, swap);
        // SAFETY: this begins a compare and swap.
        unsafe { self.add(SendOps::ATOMIC_CMP_AND_SWP, wr_id, &Payload::from(&[slice]), begin) }
    }

    /// Atomically adds `add` to the peer's 64-bit number, and stores its old value into `slice`, in host
    /// order. `slice` has 8 bytes; the remote address is a multiple of 8.
    #[doc(alias = "ibv_wr_atomic_fetch_add")]
    #[inline]
    pub fn atomic_fetch_add(
        self,
        wr_id: u64,
        slice: LocalMemorySlice,
        remote: RemoteMemorySlice,
        add: u64,
    ) where
        T: Atomic,
        I: WithoutImm,
    {
        if let Err(refusal) = check_atomic(slice, remote) {
            return self.core.refuse(refusal);
        }
        let begin = begin!(ibv_wr_atomic_fetch_add, remote.rkey, remote.addr, add);
        // SAFETY: this begins a fetch and add.
        unsafe { self.add(SendOps::ATOMIC_FETCH_AND_ADD, wr_id, &Payload::from(&[slice]), begin) }
    }
}

impl<T: Transport> SendOp<'_, T, Imm> {
    /// Sends a message and the immediate data into a receive that the peer has posted.
    #[doc(alias = "ibv_wr_send_imm")]
    #[inline]
    pub fn send<'a>(self, wr_id: u64, payload: impl Into<Payload<'a>>) {
        let imm = self.imm.0.to_be();
        let begin = begin!(ibv_wr_send_imm, imm);
        // SAFETY: this begins a send with immediate data.
        unsafe { self.add(SendOps::SEND_WITH_IMM, wr_id, &payload.into(), begin) }
    }

    /// Writes into the peer's memory, and then consumes one of its receives to tell it, with the
    /// immediate data.
    ///
    /// A payload that is longer than `remote` refuses the batch.
    #[doc(alias = "ibv_wr_rdma_write_imm")]
    #[inline]
    pub fn write<'a>(self, wr_id: u64, payload: impl Into<Payload<'a>>, remote: RemoteMemorySlice)
    where
        T: RdmaWrite,
    {
        let imm = self.imm.0.to_be();
        let begin = begin!(ibv_wr_rdma_write_imm, remote.rkey, remote.addr, imm);
        // SAFETY: this begins an RDMA write with immediate data.
        unsafe {
            self.add_remote(SendOps::RDMA_WRITE_WITH_IMM, wr_id, &payload.into(), remote, begin)
        }
    }
}

#[inline]
fn check_atomic(slice: LocalMemorySlice, remote: RemoteMemorySlice) -> Result<(), Refusal> {
    if slice.len() != 8 {
        return Err(Refusal::AtomicLength(slice.len()));
    }
    check_atomic_address(remote)
}

#[inline]
pub(super) fn check_atomic_address(remote: RemoteMemorySlice) -> Result<(), Refusal> {
    if remote.len < 8 {
        return Err(Refusal::BeyondRemote { bytes: 8, len: remote.len });
    }
    if remote.addr % 8 != 0 {
        return Err(Refusal::AtomicAddress(remote.addr));
    }
    Ok(())
}

impl<T: Transport, I> fmt::Debug for SendOp<'_, T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendOp").field("flags", &self.flags).finish_non_exhaustive()
    }
}
