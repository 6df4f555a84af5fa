//! What a queue pair needs of the device around it.

use super::work::{Bind, Completion, CqId, PdId, RecvRequest, Sge, SrqId, Through};
use super::RemoteAccess;

/// Memory that a key does not cover, or an access that it does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryError;

/// What is to be told asynchronously about a queue pair (`enum ibv_event_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QpEvent {
    /// It failed, and no completion tells why (`IBV_EVENT_QP_FATAL`).
    Fatal,
    /// A peer's request was not valid (`IBV_EVENT_QP_REQ_ERR`).
    RequestError,
    /// A peer's request was not allowed (`IBV_EVENT_QP_ACCESS_ERR`).
    AccessError,
    /// The first packet came before the queue pair was told to send (`IBV_EVENT_COMM_EST`).
    CommunicationEstablished,
    /// What was begun is finished (`IBV_EVENT_SQ_DRAINED`).
    SendQueueDrained,
    /// It failed, and takes no receive of its shared queue any more (`IBV_EVENT_QP_LAST_WQE_REACHED`).
    LastRequestReached,
}

/// The device around a queue pair: memory, queues and events. Every access to memory checks the key, whose it is, its rights and
/// the bounds, each time. A peer's key is that of a region, or of a memory window that is bound.
pub trait Host {
    /// Copies from local memory into `to`: the bytes from `offset` of the entry on.
    ///
    /// # Errors
    ///
    /// If the key does not cover them.
    fn read_local(
        &self,
        pd: PdId,
        sge: &Sge,
        offset: u32,
        to: &mut [u8],
    ) -> Result<(), MemoryError>;

    /// Copies into local memory, from `offset` of the entry on.
    ///
    /// # Errors
    ///
    /// If the key does not cover it, or does not allow local writes.
    fn write_local(&self, pd: PdId, sge: &Sge, offset: u32, from: &[u8])
        -> Result<(), MemoryError>;

    /// Whether a local key covers the whole entry, and allows local writes if `write` is set.
    ///
    /// # Errors
    ///
    /// If not.
    fn check_local(&self, pd: PdId, sge: &Sge, write: bool) -> Result<(), MemoryError>;

    /// Whether a remote key covers `len` bytes at `addr` and allows this access by a peer. Nothing is checked for no bytes.
    ///
    /// # Errors
    ///
    /// If not.
    fn check_remote(
        &self,
        through: Through,
        rkey: u32,
        addr: u64,
        len: u32,
        access: RemoteAccess,
    ) -> Result<(), MemoryError>;

    /// Copies from memory that a peer reads.
    ///
    /// # Errors
    ///
    /// If the key does not cover it, or does not allow remote reads.
    fn read_remote(
        &self,
        through: Through,
        rkey: u32,
        addr: u64,
        to: &mut [u8],
    ) -> Result<(), MemoryError>;

    /// Copies into memory that a peer writes.
    ///
    /// # Errors
    ///
    /// If the key does not cover it, or does not allow remote writes.
    fn write_remote(
        &self,
        through: Through,
        rkey: u32,
        addr: u64,
        from: &[u8],
    ) -> Result<(), MemoryError>;

    /// Compares 8 bytes that a peer may change and swaps them if they are equal; returns what was there. The address is a
    /// multiple of 8.
    ///
    /// # Errors
    ///
    /// If the key does not cover it, or does not allow remote atomics.
    fn compare_swap(
        &self,
        through: Through,
        rkey: u32,
        addr: u64,
        compare: u64,
        swap: u64,
    ) -> Result<u64, MemoryError>;

    /// Adds to 8 bytes that a peer may change; returns what was there. The address is a multiple of 8.
    ///
    /// # Errors
    ///
    /// If the key does not cover it, or does not allow remote atomics.
    fn fetch_add(
        &self,
        through: Through,
        rkey: u32,
        addr: u64,
        add: u64,
    ) -> Result<u64, MemoryError>;

    /// Binds a memory window for a request of a queue pair.
    ///
    /// # Errors
    ///
    /// If the window does not have the old key, or must not be bound now, or not to that. It is what it was then.
    fn bind_window(&mut self, through: Through, bind: &Bind) -> Result<(), MemoryError>;

    /// Withdraws the key of a window, for a request of this side or of the peer.
    ///
    /// # Errors
    ///
    /// If it is not that of a window of type 2 which this queue pair has bound.
    fn invalidate(&mut self, through: Through, rkey: u32) -> Result<(), MemoryError>;

    /// Puts a completion into a queue, and raises its event if it is armed for such a one.
    fn complete(&mut self, cq: CqId, completion: Completion);

    /// Takes the next receive of a shared queue, and raises its limit event if that is due.
    fn take_shared_receive(&mut self, srq: SrqId) -> Option<RecvRequest>;

    /// Raises an asynchronous event of a queue pair.
    fn raise(&mut self, qp_num: u32, event: QpEvent);
}
