//! The headers of scalable reliable datagrams. They are this device's own: what adapters of EFA send is not public.
//!
//! Each packet is a request that is answered by itself, and its number is one of the flow that it belongs to.

use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::u24::U24;
use super::{Psn, Reth, Syndrome};

/// What all packets of scalable reliable datagrams have: the flow, and what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Srd {
    /// The flow: from one queue pair to another, with numbers of its own. No other flow of the same queue pairs has the same.
    pub flow: u32,
    /// In a request, the first number that is not done with. In an answer, the number from which `Ack` counts.
    pub floor: Psn,
    /// What the packet is for.
    pub part: SrdPart,
}

/// What a packet of scalable reliable datagrams is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SrdPart {
    /// A piece of a send.
    Fragment {
        /// The number of the first packet of the message.
        message: Psn,
        /// Where in the message the payload belongs.
        offset: u32,
        /// The length of the whole message.
        len: u32,
        /// Immediate data in host order, in each piece.
        imm: Option<u32>,
    },
    /// A piece of an RDMA write.
    Write {
        /// Where to write.
        addr: u64,
        /// The remote key.
        rkey: u32,
    },
    /// Everything of an RDMA write was written, and there is immediate data for a receive.
    WriteEnd {
        /// How many bytes were written.
        len: u32,
        /// Immediate data in host order.
        imm: u32,
    },
    /// Asks for memory that fits into a packet.
    Read(Reth),
    /// The answer to that, under the same number.
    Data,
    /// Which requests have been carried out: that many after the floor as the places of the bits say.
    Ack {
        /// A bit for each, the lowest one first.
        done: u64,
    },
    /// A request is refused, or there is no receive for it: that of the packet's number.
    Nak(Syndrome),
}

impl SrdPart {
    /// Whether it answers a request.
    pub const fn is_response(&self) -> bool {
        matches!(self, SrdPart::Data | SrdPart::Ack { .. } | SrdPart::Nak(_))
    }
}

/// The flow, and a number of it.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct FlowBytes {
    pub(super) flow: U32,
    reserved: u8,
    floor: U24,
}

impl FlowBytes {
    pub(super) fn new(flow: u32, floor: Psn) -> FlowBytes {
        FlowBytes { flow: flow.into(), reserved: 0, floor: U24::new(floor.get()) }
    }

    /// The header, in front of this part.
    pub(super) fn with(&self, part: SrdPart) -> Srd {
        Srd { flow: self.flow.get(), floor: Psn::new(self.floor.get()), part }
    }
}

/// A piece of a send, without its immediate data.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct FragmentBytes {
    reserved: u8,
    message: U24,
    offset: U32,
    len: U32,
}

impl FragmentBytes {
    pub(super) fn new(message: Psn, offset: u32, len: u32) -> FragmentBytes {
        let message = U24::new(message.get());
        FragmentBytes { reserved: 0, message, offset: offset.into(), len: len.into() }
    }

    pub(super) fn with(&self, imm: Option<u32>) -> SrdPart {
        SrdPart::Fragment {
            message: Psn::new(self.message.get()),
            offset: self.offset.get(),
            len: self.len.get(),
            imm,
        }
    }
}

/// Where a piece of an RDMA write goes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct WriteBytes {
    addr: U64,
    rkey: U32,
}

impl WriteBytes {
    pub(super) fn new(addr: u64, rkey: u32) -> WriteBytes {
        WriteBytes { addr: addr.into(), rkey: rkey.into() }
    }

    pub(super) fn part(&self) -> SrdPart {
        SrdPart::Write { addr: self.addr.get(), rkey: self.rkey.get() }
    }
}

/// The end of an RDMA write.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct WriteEndBytes {
    len: U32,
    imm: U32,
}

impl WriteEndBytes {
    pub(super) fn new(len: u32, imm: u32) -> WriteEndBytes {
        WriteEndBytes { len: len.into(), imm: imm.into() }
    }

    pub(super) fn part(&self) -> SrdPart {
        SrdPart::WriteEnd { len: self.len.get(), imm: self.imm.get() }
    }
}
