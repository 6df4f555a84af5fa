//! What is known of one connection.

use std::time::{Duration, Instant};

use super::manager::ListenerId;
use super::message::{Context, MessageBytes};
use crate::transport::Path;

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It was asked for.
    ReqSent,
    /// The peer asks for it.
    ReqReceived,
    /// The peer has accepted it, and is to be told that this side is ready.
    RepReceived,
    /// It was accepted, and the peer is to say that it is ready.
    RepSent,
    /// It stands.
    Established,
    /// The peer was told that it ends.
    DreqSent,
    /// The peer has said that it ends, and is to be told that this is known.
    DreqReceived,
    /// It has ended, and packets of it may still be on their way.
    TimeWait,
    /// A queue pair of datagrams was asked for.
    SidrSent,
    /// The peer asks for a queue pair of datagrams.
    SidrReceived,
    /// It has come to nothing, or is over.
    Closed,
}

/// What the queue pair of a connection is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// From here to the peer.
    pub path: Path,
    /// The path MTU, encoded as in `enum ibv_mtu`.
    pub mtu: u8,
    /// The peer's queue pair.
    pub remote_qpn: u32,
    /// The sequence number that the peer begins with.
    pub rq_psn: u32,
    /// The sequence number that this side begins with.
    pub sq_psn: u32,
    /// How many reads and atomics of the peer's there may be at a time.
    pub responder_resources: u8,
    /// How many of this side's there may be at a time.
    pub initiator_depth: u8,
    /// How often packets are sent again.
    pub retry_count: u8,
    /// How often packets are sent again when there was no receive.
    pub rnr_retry_count: u8,
    /// The encoded time to wait for acknowledgements.
    pub ack_timeout: u8,
}

/// A message that is sent until it is answered.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) message: Box<MessageBytes>,
    pub(super) until: Instant,
    pub(super) interval: Duration,
    pub(super) left: u8,
}

#[derive(Debug)]
pub(super) struct Connection<O> {
    /// Who is to know what happens; nobody if it was destroyed, and only ends.
    pub(super) owner: Option<O>,
    pub(super) state: State,
    /// How messages go. Those of the queue pair go by the path in the facts.
    pub(super) path: Path,
    pub(super) local_id: u32,
    /// By what the peer knows it; 0 as long as it is not known.
    pub(super) remote_id: u32,
    pub(super) context: Context,
    pub(super) service_id: u64,
    pub(super) facts: Facts,
    /// A request that nobody has read, at this listener.
    pub(super) unread_at: Option<ListenerId>,
    pub(super) waiting: Option<Waiting>,
    /// What was answered last, for a peer who asks again.
    pub(super) answer: Option<Box<MessageBytes>>,
    /// When the time of `TimeWait` is over.
    pub(super) ends: Option<Instant>,
    /// For when it stands among the timers.
    pub(super) timer: Option<Instant>,
}

impl<O> Connection<O> {
    /// When something is to be done.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.waiting.as_ref().map(|waiting| waiting.until).or(self.ends)
    }
}

/// A time as messages have it.
pub(super) fn time(exponent: u8) -> Duration {
    Duration::from_nanos(4096 << exponent.min(31))
}
