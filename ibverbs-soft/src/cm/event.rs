//! What programs get to know.

use super::message::{Rej, Rep, SidrRep};
use super::Addressing;

/// Something that has happened to what somebody owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice<O> {
    /// Who is to know: of a request, the owner of the listener.
    pub owner: O,
    /// The connection that it is about.
    pub connection: u32,
    /// What has happened.
    pub event: Event,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody asks for a connection, which has no owner until it is given [one](super::Manager::set_owner).
    Requested(Box<Requested>),
    /// The peer accepts, and is to be told that this side is ready.
    Responded(Box<Responded>),
    /// The connection stands.
    Established,
    /// The peer rejects.
    Rejected {
        /// Why: see [`reason`](super::reason).
        reason: u16,
        /// What its program says.
        private_data: Box<[u8; Rej::PRIVATE_DATA]>,
    },
    /// Nothing comes back.
    Unreachable,
    /// The connection has ended.
    Disconnected {
        /// Whether the peer has said so, or else nothing has come back.
        is_known: bool,
    },
    /// No packets of the connection are on their way any more.
    TimeWaitOver,
    /// The answer to a question for a queue pair of datagrams.
    Answered {
        /// Whether there is one, or why not: see [`sidr_status`](super::sidr_status).
        status: u8,
        /// The queue pair.
        qpn: u32,
        /// Its queue key.
        qkey: u32,
        /// What its program says.
        private_data: Box<[u8; SidrRep::PRIVATE_DATA]>,
    },
}

/// What a peer says about its queue pair, as this side sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its number.
    pub qpn: u32,
    /// How many reads and atomics of the peer's there may be at a time.
    pub responder_resources: u8,
    /// How many the peer answers at a time.
    pub initiator_depth: u8,
    /// Whether there is end-to-end flow control.
    pub flow_control: bool,
    /// How often packets are sent again.
    pub retry_count: u8,
    /// How often packets are sent again when there was no receive.
    pub rnr_retry_count: u8,
    /// Whether its queue pair has a shared receive queue.
    pub srq: bool,
    /// The vendor whose options these are, or 0.
    pub vendor_id: u32,
    /// Options of vendors.
    pub options: u32,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requested {
    /// Who asks whom.
    pub addressing: Addressing,
    /// The port that is asked.
    pub port: u16,
    /// What the peer says of its queue pair; of a question for datagrams, nothing.
    pub peer: Option<Peer>,
    /// What its program says.
    pub private_data: Vec<u8>,
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Responded {
    /// What the peer says of its queue pair.
    pub peer: Peer,
    /// What its program says.
    pub private_data: [u8; Rep::PRIVATE_DATA],
}
