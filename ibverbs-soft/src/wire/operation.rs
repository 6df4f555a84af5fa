//! What packets are for.

use super::{Aeth, AtomicEth, Reth, Srd};

/// Which transport service a packet belongs to: the upper three bits of its opcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// Reliable connection.
    Rc,
    /// Unreliable connection.
    Uc,
    /// Unreliable datagram.
    Ud,
    /// Scalable reliable datagram: see [`Srd`].
    Srd,
}

impl Service {
    /// Whether its packets have the header of datagrams.
    pub const fn is_datagram(self) -> bool {
        matches!(self, Service::Ud | Service::Srd)
    }
}

/// Where in its message a packet stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Position {
    /// The first of several.
    First,
    /// Neither the first nor the last.
    Middle,
    /// The last of several.
    Last,
    /// The only one.
    Only,
}

impl Position {
    /// Whether a message begins with it.
    pub const fn begins(self) -> bool {
        matches!(self, Position::First | Position::Only)
    }

    /// Whether a message ends with it.
    pub const fn ends(self) -> bool {
        matches!(self, Position::Last | Position::Only)
    }
}

/// What a packet is for: the lower five bits of its opcode, and the extended headers that come with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A part of a send. The last packet may have immediate data, or a key to invalidate, not both.
    Send {
        /// Where in the message.
        position: Position,
        /// Immediate data in host order, in the last or only packet.
        imm: Option<u32>,
        /// The remote key to invalidate, in the last or only packet.
        invalidate: Option<u32>,
    },
    /// A part of an RDMA write.
    Write {
        /// Where in the message.
        position: Position,
        /// Where to write: in the first or only packet, and there alone.
        reth: Option<Reth>,
        /// Immediate data in host order, in the last or only packet.
        imm: Option<u32>,
    },
    /// Asks for memory.
    ReadRequest(Reth),
    /// A part of the answer to that.
    ReadResponse {
        /// Where in the answer.
        position: Position,
        /// In all but the middle packets.
        aeth: Option<Aeth>,
    },
    /// An acknowledgement, positive or negative.
    Acknowledge(Aeth),
    /// The answer to an atomic operation: the value that was there before.
    AtomicAcknowledge {
        /// The acknowledgement.
        aeth: Aeth,
        /// The value before the operation.
        original: u64,
    },
    /// Compares and swaps 8 bytes.
    CompareSwap(AtomicEth),
    /// Adds to 8 bytes.
    FetchAdd(AtomicEth),
    /// Everything of scalable reliable datagrams.
    Srd(Srd),
}

impl Operation {
    /// Whether the responder answers with this, so that it is for the requester.
    pub const fn is_response(&self) -> bool {
        match self {
            Operation::ReadResponse { .. }
            | Operation::Acknowledge(_)
            | Operation::AtomicAcknowledge { .. } => true,
            Operation::Srd(srd) => srd.part.is_response(),
            _ => false,
        }
    }
}
