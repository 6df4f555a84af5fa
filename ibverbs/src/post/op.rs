//! One operation of a batch.

use std::fmt;
use std::marker::PhantomData;

use super::level::{Level, Raw, Request};
use super::payload::Payload;
use super::refusal::Refusal;
use super::verb::{self, Classic};
use crate::ffi;
use crate::mr::{LocalMemorySlice, RemoteMemorySlice};
use crate::qp::{Atomic, Core, Demand, RdmaRead, RdmaWrite, Reliable, SendOps, Transport};

/// An operation that carries no immediate data.
#[derive(Debug)]
pub struct NoImm(pub(crate) ());

/// An operation that carries immediate data.
#[derive(Debug)]
pub struct Imm(pub(crate) u32);

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
pub struct SendOp<'b, T: Transport, L: Level = Raw, I = NoImm> {
    pub(super) core: &'b mut Core,
    pub(super) open: &'b mut L::Open,
    flags: u32,
    imm: I,
    /// If it names an address handle, that is borrowed for `'b`.
    address: T::Address,
    _type: PhantomData<(*mut T, L)>,
}

impl<'b, T: Transport, L: Level> SendOp<'b, T, L> {
    #[inline]
    pub(super) fn new(core: &'b mut Core, open: &'b mut L::Open, address: T::Address) -> Self {
        let flags = if T::ALWAYS_SIGNALED { ffi::IBV_SEND_SIGNALED } else { 0 };
        SendOp { core, open, flags, imm: NoImm(()), address, _type: PhantomData }
    }
}

impl<'b, T: Transport, L: Level, I> SendOp<'b, T, L, I> {
    /// Sends 32 bits along, in host order; they arrive in the peer's completion. After this only `send`
    /// and `write` exist; a write with immediate data consumes one of the peer's receives.
    #[inline]
    pub fn imm(self, imm: u32) -> SendOp<'b, T, L, Imm>
    where
        I: WithoutImm,
    {
        let SendOp { core, open, flags, address, .. } = self;
        SendOp { core, open, flags, imm: Imm(imm), address, _type: PhantomData }
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

    /// What every operation has, and where to post it.
    #[inline]
    pub(super) fn into_request(self, wr_id: u64) -> (&'b mut Core, &'b mut L::Open, Request<T>) {
        let SendOp { core, open, flags, address, .. } = self;
        (core, open, Request { wr_id, flags, address })
    }

    /// Refuses the operation, and the batch with it.
    #[inline]
    pub(super) fn refuse(self, refusal: Refusal) {
        L::refuse(self.core, self.open, refusal);
    }

    /// Adds the operation, if the queue pair can carry it out.
    // Always: see `add_raw`.
    #[inline(always)]
    fn add(self, wr_id: u64, payload: &Payload<'_, L>, verb: impl Classic) {
        let (core, open, request) = self.into_request(wr_id);
        L::add(core, open, request, payload, verb);
    }

    /// As [`add`](Self::add), if the payload does not go beyond the remote memory.
    #[inline(always)]
    fn add_remote(
        self,
        wr_id: u64,
        payload: &Payload<'_, L>,
        remote: RemoteMemorySlice,
        verb: impl Classic,
    ) {
        let bytes = payload.len();
        if bytes > remote.len {
            return self.refuse(Refusal::BeyondRemote { bytes, len: remote.len });
        }
        if let Some(capacity) = self.core.rdma_capacity::<T>() {
            if let Err(refusal) = payload.check(&capacity) {
                return L::refuse_beyond(self.core, self.open, refusal, &capacity);
            }
        }
        self.add(wr_id, payload, verb);
    }
}

impl<T: Transport, I> SendOp<'_, T, Raw, I> {
    /// Adds an operation that takes no payload.
    ///
    /// # Safety
    ///
    /// `begin` calls the provider's function for an operation of `op`, which takes no payload, and nothing else: the
    /// request is complete when it returns.
    #[inline]
    pub(super) unsafe fn add_bare(
        self,
        op: SendOps,
        wr_id: u64,
        begin: impl FnOnce(*mut ffi::ibv_qp_ex),
    ) {
        if !self.open.admits::<T>(self.core, op, Demand::NOTHING) {
            return;
        }
        let qp = self.open.raw.as_ptr();
        // SAFETY: the queue pair is alive and borrowed by the batch, exclusively.
        unsafe { (*qp).wr_id = wr_id };
        // SAFETY: as above.
        unsafe { (*qp).wr_flags = self.flags };
        begin(qp);
    }
}

/// Calls the function that begins an operation without a payload. Pointers among the arguments are valid for the call.
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

impl<T: Transport, L: Level> SendOp<'_, T, L, NoImm> {
    /// Sends a message into a receive that the peer has posted. A datagram fits into one packet.
    #[doc(alias = "ibv_wr_send")]
    #[inline]
    pub fn send<'a>(self, wr_id: u64, payload: impl Into<Payload<'a, L>>) {
        self.add(wr_id, &payload.into(), verb::Send);
    }

    /// Writes into the peer's memory. The peer does not notice.
    ///
    /// A payload that is longer than `remote` refuses the batch.
    #[doc(alias = "ibv_wr_rdma_write")]
    #[inline]
    pub fn write<'a>(
        self,
        wr_id: u64,
        payload: impl Into<Payload<'a, L>>,
        remote: RemoteMemorySlice,
    ) where
        T: RdmaWrite,
    {
        self.add_remote(wr_id, &payload.into(), remote, verb::Write(remote));
    }
}

impl<T: Transport, L: Level, I> SendOp<'_, T, L, I> {
    /// Reads the peer's memory into `slices`. The peer does not notice.
    ///
    /// Slices that are longer than `remote` refuse the batch.
    #[doc(alias = "ibv_wr_rdma_read")]
    #[inline]
    pub fn read(self, wr_id: u64, slices: &[L::Slice<'_>], remote: RemoteMemorySlice)
    where
        T: RdmaRead,
        I: WithoutImm,
    {
        self.add_remote(wr_id, &L::payload(slices), remote, verb::Read(remote));
    }

    /// Atomically replaces the peer's 64-bit number by `swap` if it equals `compare`, and stores its old
    /// value into `slice`, in host order. `slice` has 8 bytes; the remote address is a multiple of 8.
    #[doc(alias = "ibv_wr_atomic_cmp_swp")]
    #[inline]
    pub fn atomic_cmp_swap(
        self,
        wr_id: u64,
        slice: L::Slice<'_>,
        remote: RemoteMemorySlice,
        compare: u64,
        swap: u64,
    ) where
        T: Atomic,
        I: WithoutImm,
    {
        if let Err(refusal) = check_atomic(L::entry(&slice), remote) {
            return self.refuse(refusal);
        }
        let verb = verb::CompareSwap { remote, compare, swap };
        self.add(wr_id, &L::payload(&[slice]), verb);
    }

    /// Atomically adds `add` to the peer's 64-bit number, and stores its old value into `slice`, in host
    /// order. `slice` has 8 bytes; the remote address is a multiple of 8.
    #[doc(alias = "ibv_wr_atomic_fetch_add")]
    #[inline]
    pub fn atomic_fetch_add(
        self,
        wr_id: u64,
        slice: L::Slice<'_>,
        remote: RemoteMemorySlice,
        add: u64,
    ) where
        T: Atomic,
        I: WithoutImm,
    {
        if let Err(refusal) = check_atomic(L::entry(&slice), remote) {
            return self.refuse(refusal);
        }
        self.add(wr_id, &L::payload(&[slice]), verb::FetchAdd { remote, add });
    }
}

impl<T: Transport, L: Level> SendOp<'_, T, L, Imm> {
    /// Sends a message and the immediate data into a receive that the peer has posted.
    #[doc(alias = "ibv_wr_send_imm")]
    #[inline]
    pub fn send<'a>(self, wr_id: u64, payload: impl Into<Payload<'a, L>>) {
        let verb = verb::SendImm(self.imm.0.to_be());
        self.add(wr_id, &payload.into(), verb);
    }

    /// Writes into the peer's memory, and then consumes one of its receives to tell it, with the
    /// immediate data.
    ///
    /// A payload that is longer than `remote` refuses the batch.
    #[doc(alias = "ibv_wr_rdma_write_imm")]
    #[inline]
    pub fn write<'a>(
        self,
        wr_id: u64,
        payload: impl Into<Payload<'a, L>>,
        remote: RemoteMemorySlice,
    ) where
        T: RdmaWrite,
    {
        let verb = verb::WriteImm(remote, self.imm.0.to_be());
        self.add_remote(wr_id, &payload.into(), remote, verb);
    }
}

#[inline]
fn check_atomic(slice: &LocalMemorySlice, remote: RemoteMemorySlice) -> Result<(), Refusal> {
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

impl<T: Transport, L: Level, I> fmt::Debug for SendOp<'_, T, L, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendOp").field("flags", &self.flags).finish_non_exhaustive()
    }
}
