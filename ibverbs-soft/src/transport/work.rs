//! Work requests, and what is said when they are done.

use std::net::IpAddr;

use super::attributes::Path;
use super::RemoteAccess;

/// A protection domain, by its place in the device's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PdId(pub usize);

/// Through which queue pair a peer uses a key: what it belongs to is checked against that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Through {
    /// The queue pair's protection domain.
    pub pd: PdId,
    /// Its number.
    pub qp_num: u32,
}

/// A completion queue, by its place in the device's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CqId(pub usize);

/// A shared receive queue, by its place in the device's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SrqId(pub usize);

/// A piece of local memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sge {
    /// Its address.
    pub addr: u64,
    /// Its length in bytes.
    pub len: u32,
    /// The local key.
    pub lkey: u32,
}

/// Where the bytes of a request come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Copied when it was posted.
    Inline(Vec<u8>),
    /// Local memory: read as packets are made, or written by the response.
    Sges(Vec<Sge>),
}

impl Payload {
    /// How many bytes there are.
    pub fn len(&self) -> u64 {
        match self {
            Payload::Inline(bytes) => bytes.len() as u64,
            Payload::Sges(sges) => sges.iter().map(|sge| u64::from(sge.len)).sum(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a memory window is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The key that the window has.
    pub old_rkey: u32,
    /// The key that it gets: all but the lowest 8 bits are the same.
    pub rkey: u32,
    /// The local key of the region; nothing to end the binding of a window of type 1.
    pub region: Option<u32>,
    /// The address.
    pub addr: u64,
    /// The length in bytes.
    pub len: u64,
    /// What a peer may do.
    pub access: RemoteAccess,
}

/// What is to be sent, or done here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOperation {
    /// A message for a receive of the peer.
    Send {
        /// Immediate data, in host order.
        imm: Option<u32>,
    },
    /// A message for a receive of the peer, which withdraws a key of the peer's.
    SendWithInvalidate {
        /// The key: that of a window of type 2 which the peer's queue pair has bound.
        rkey: u32,
    },
    /// Bytes for memory of the peer.
    Write {
        /// The address.
        addr: u64,
        /// The remote key.
        rkey: u32,
        /// Immediate data, in host order, which takes a receive.
        imm: Option<u32>,
    },
    /// Bytes from memory of the peer.
    Read {
        /// The address.
        addr: u64,
        /// The remote key.
        rkey: u32,
    },
    /// Compares and swaps 8 bytes of the peer.
    CompareSwap {
        /// The address.
        addr: u64,
        /// The remote key.
        rkey: u32,
        /// What must be there.
        compare: u64,
        /// What is put there.
        swap: u64,
    },
    /// Adds to 8 bytes of the peer.
    FetchAdd {
        /// The address.
        addr: u64,
        /// The remote key.
        rkey: u32,
        /// What is added.
        add: u64,
    },
    /// Binds a memory window. Nothing is sent.
    Bind(Bind),
    /// Withdraws the key of a window of type 2 that this queue pair has bound. Nothing is sent.
    LocalInvalidate {
        /// The key.
        rkey: u32,
    },
    /// A datagram.
    Datagram {
        /// Where to.
        path: Path,
        /// The queue pair there.
        remote_qpn: u32,
        /// The queue key: if its highest bit is set, that of the sending queue pair is used.
        qkey: u32,
        /// Immediate data, in host order.
        imm: Option<u32>,
    },
    /// A scalable reliable datagram.
    Srd {
        /// Where to.
        to: DatagramTarget,
        /// What.
        operation: SrdOperation,
    },
}

/// Where a reliable datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramTarget {
    /// The address.
    pub path: Path,
    /// The queue pair there.
    pub remote_qpn: u32,
    /// The queue key: if its highest bit is set, that of the sending queue pair is used.
    pub qkey: u32,
}

/// What a scalable reliable datagram is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SrdOperation {
    /// A message for a receive of the peer.
    Send {
        /// Immediate data, in host order.
        imm: Option<u32>,
    },
    /// Bytes for memory of the peer.
    Write {
        /// The address.
        addr: u64,
        /// The remote key.
        rkey: u32,
        /// Immediate data, in host order, which takes a receive.
        imm: Option<u32>,
    },
    /// Bytes from memory of the peer.
    Read {
        /// The address.
        addr: u64,
        /// The remote key.
        rkey: u32,
    },
}

impl SendOperation {
    /// Whether it is done here, without that anything is sent.
    pub const fn is_local(&self) -> bool {
        matches!(self, SendOperation::Bind(_) | SendOperation::LocalInvalidate { .. })
    }
}

/// A request of the send queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendRequest {
    /// The program's identifier.
    pub wr_id: u64,
    /// What to do.
    pub operation: SendOperation,
    /// The bytes, or where those that come back are put.
    pub payload: Payload,
    /// Whether success makes a completion, too.
    pub signaled: bool,
    /// Whether the peer's completion is solicited.
    pub solicited: bool,
    /// Whether it waits for the reads and atomics before it.
    pub fenced: bool,
}

/// A request of a receive queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecvRequest {
    /// The program's identifier.
    pub wr_id: u64,
    /// Where the message is put.
    pub sges: Vec<Sge>,
}

/// How a request ended: the statuses of `enum ibv_wc_status` that a queue pair gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// It is done.
    Success,
    /// A message was longer than the receive, or a request is longer than the transport allows.
    LocalLength,
    /// The queue pair could not do it.
    LocalQpOperation,
    /// A local key does not cover a scatter entry, or does not allow the access.
    LocalProtection,
    /// The queue pair had failed before.
    WorkRequestFlushed,
    /// A window could not be bound, or a key not be withdrawn.
    WindowBind,
    /// The peer answered what makes no sense.
    BadResponse,
    /// A peer's request could not be carried out in local memory.
    LocalAccess,
    /// The peer says that the request is not valid.
    RemoteInvalidRequest,
    /// The peer says that a key does not allow it.
    RemoteAccess,
    /// The peer says that it failed.
    RemoteOperation,
    /// The peer did not answer, as often as it was tried.
    RetryExceeded,
    /// The peer had no receive, as often as it was tried.
    RnrRetryExceeded,
    /// There is no such queue pair that takes reliable datagrams with this key.
    RemoteInvalidRdRequest,
    /// The peer of reliable datagrams does not answer any more.
    Unresponsive,
    /// The peer of reliable datagrams has never answered.
    Unreachable,
}

/// What has completed: the opcodes of `enum ibv_wc_opcode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CompletionKind {
    /// A send.
    Send,
    /// An RDMA write.
    Write,
    /// An RDMA read.
    Read,
    /// A compare and swap.
    CompareSwap,
    /// A fetch and add.
    FetchAdd,
    /// The binding of a memory window.
    Bind,
    /// The withdrawal of a key.
    LocalInvalidate,
    /// A receive of a send.
    Recv,
    /// A receive that an RDMA write with immediate data has taken.
    RecvWriteWithImm,
}

/// A completion. Fields after `status` mean something on success only, but for the queue pair's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The program's identifier.
    pub wr_id: u64,
    /// How it ended.
    pub status: Status,
    /// What it was.
    pub kind: CompletionKind,
    /// The queue pair.
    pub qp_num: u32,
    /// Bytes received, read, or changed by an atomic; with a GRH, its 40 bytes are counted.
    pub len: u32,
    /// Immediate data, in host order.
    pub imm: Option<u32>,
    /// The key that the peer's send has invalidated.
    pub invalidated: Option<u32>,
    /// Of a datagram: the queue pair that sent it.
    pub src_qp: u32,
    /// Of a reliable datagram: the address that it was sent from.
    pub source: Option<IpAddr>,
    /// A code of the vendor's, with an error; else 0.
    pub vendor_error: u32,
    /// Whether the first 40 bytes are a GRH.
    pub grh: bool,
    /// Whether the sender asked for an event.
    pub solicited: bool,
}
