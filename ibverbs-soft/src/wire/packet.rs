//! A packet as the transport sees it: headers that hold valid values only, and the payload.
//!
//! Names and numbers are those of the InfiniBand Architecture Specification, volume 1, chapter 9.

use std::fmt;

/// A packet sequence number: 24 bits, compared on a circle.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Psn(u32);

impl Psn {
    const MASK: u32 = 0xff_ffff;

    /// The lower 24 bits of a number.
    pub const fn new(number: u32) -> Psn {
        Psn(number & Psn::MASK)
    }

    /// The number, below 2^24.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The number `count` packets later.
    pub const fn add(self, count: u32) -> Psn {
        Psn::new(self.0.wrapping_add(count))
    }

    /// How far this is behind `earlier` on the circle: negative if it comes before it.
    pub const fn since(self, earlier: Psn) -> i32 {
        ((self.0.wrapping_sub(earlier.0) << 8) as i32) >> 8
    }
}

impl fmt::Debug for Psn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#08x}", self.0)
    }
}

/// Which transport service a packet belongs to: the upper three bits of its opcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// Reliable connection.
    Rc,
    /// Unreliable connection.
    Uc,
    /// Unreliable datagram.
    Ud,
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
}

impl Operation {
    /// Whether the responder answers with this, so that it is for the requester.
    pub const fn is_response(&self) -> bool {
        matches!(
            self,
            Operation::ReadResponse { .. }
                | Operation::Acknowledge(_)
                | Operation::AtomicAcknowledge { .. }
        )
    }
}

/// The base transport header, but for what the operation determines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bth {
    /// The transport service.
    pub service: Service,
    /// Whether the receiver's completion is solicited.
    pub solicited: bool,
    /// The state of path migration: set, for there is none.
    pub migrated: bool,
    /// The partition key.
    pub pkey: u16,
    /// The queue pair that it is for: 24 bits.
    pub dest_qp: u32,
    /// Whether an acknowledgement is asked for.
    pub ack_request: bool,
    /// The packet sequence number.
    pub psn: Psn,
}

/// The RDMA extended transport header: which memory of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reth {
    /// The address.
    pub addr: u64,
    /// The remote key.
    pub rkey: u32,
    /// The length of the whole message in bytes.
    pub len: u32,
}

/// The extended transport header of atomic operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtomicEth {
    /// The address.
    pub addr: u64,
    /// The remote key.
    pub rkey: u32,
    /// What to swap in, or to add.
    pub swap_or_add: u64,
    /// What to compare with.
    pub compare: u64,
}

/// The acknowledgement extended transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aeth {
    /// What is acknowledged, and how.
    pub syndrome: Syndrome,
    /// The message sequence number: how many messages were completed. 24 bits.
    pub msn: u32,
}

/// How a request was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syndrome {
    /// It is acknowledged; the number is the encoded credit count (5 bits, 31: not counted).
    Ack(u8),
    /// The receiver is not ready; the number is the encoded time to wait (5 bits).
    RnrNak(u8),
    /// It is refused.
    Nak(NakCode),
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NakCode {
    /// One or more packets before it are missing.
    SequenceError,
    /// The request is not valid.
    InvalidRequest,
    /// A key or its rights do not allow it.
    RemoteAccessError,
    /// The responder could not complete it.
    RemoteOperationalError,
    /// For reliable datagrams only.
    InvalidRdRequest,
}

/// The datagram extended transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deth {
    /// The queue key.
    pub qkey: u32,
    /// The queue pair that sent it: 24 bits.
    pub src_qp: u32,
}

/// A packet, without its addresses and its CRC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The base transport header.
    pub bth: Bth,
    /// Of datagrams only.
    pub deth: Option<Deth>,
    /// What it is for, with its extended headers.
    pub operation: Operation,
    /// The payload, without padding.
    pub payload: Vec<u8>,
}
