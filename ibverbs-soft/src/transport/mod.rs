//! The transport services of a queue pair: a protocol without sockets, clock, threads or `unsafe`.
//!
//! A queue pair is driven from outside: `handle_*` gives it what has happened, `poll_transmit` asks what it wants to send, and
//! time is an argument. Memory, completion queues and events are behind [`Host`].

mod attributes;
mod common;
mod host;
mod incoming;
mod outgoing;
mod queue_pair;
mod rc;
mod receive_queue;
mod segment;
mod send_queue;
mod srd;
mod uc;
mod ud;
mod work;

pub use attributes::{Attributes, Config, Path, RemoteAccess, State};
pub use host::{Host, MemoryError, QpEvent};
pub use queue_pair::{QueuePair, Transmit};
pub use srd::{refuse, SRD_MAX_RDMA, SRD_MAX_SEND};
pub use work::{
    Bind, Completion, CompletionKind, CqId, DatagramTarget, Payload, PdId, RecvRequest,
    SendOperation, SendRequest, Sge, SrdOperation, SrqId, Status, Through,
};
