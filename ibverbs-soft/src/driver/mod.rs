//! What moves packets: the socket, the thread, and the time.
//!
//! Whoever calls the device moves its packets: posting sends, and polling an empty completion queue receives and answers. The
//! engine, a thread for each device, keeps time. It looks at the socket only while nobody polls, for two who read it cost more than
//! one: as long as somebody does, it looks once in a millisecond whether that is still so.

mod cm;
mod control;
mod datagram;
mod engine;
mod groups;
mod interface;
mod line;
mod lock;
mod message;
mod receive;
mod send;
mod socket;
mod tape;
mod thread;

use std::net::IpAddr;

pub(crate) use cm::Cm;
pub(crate) use datagram::Datagram;
pub(crate) use engine::Engine;
pub(crate) use groups::MULTICAST_QPN;
pub(crate) use interface::Interface;
pub(crate) use lock::{Driver, Locked};
pub(crate) use socket::Socket;
pub(crate) use tape::Tape;
pub(crate) use thread::{EngineThread, Wake};

/// How many packets were dropped, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// Their CRC was wrong, or they had no length of a packet.
    pub(crate) corrupt: u64,
    /// Their CRC was right, and they made no sense.
    pub(crate) malformed: u64,
    /// There was no queue pair of this number and service.
    pub(crate) unknown_qp: u64,
    /// They could not be sent where they were to go, or peers had asked for more of them than the socket took.
    pub(crate) unsendable: u64,
}

/// What sending or receiving has to tell.
#[derive(Debug, Default)]
pub(crate) struct Report {
    dropped: Dropped,
    /// Addresses at which there is no device, as the network has said.
    gone: Vec<IpAddr>,
}

impl Dropped {
    fn add(&mut self, others: Dropped) {
        let Dropped { corrupt, malformed, unknown_qp, unsendable } = others;
        self.corrupt += corrupt;
        self.malformed += malformed;
        self.unknown_qp += unknown_qp;
        self.unsendable += unsendable;
    }
}
