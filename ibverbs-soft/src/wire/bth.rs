//! The base transport header.

use zerocopy::big_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::opcode::Opcode;
use super::u24::U24;
use super::{ParseError, Psn, Service};

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

const SOLICITED: u8 = 1 << 7;
const MIGRATED: u8 = 1 << 6;
const PAD_SHIFT: u8 = 4;
const PAD: u8 = 0b11 << PAD_SHIFT;
const VERSION: u8 = 0b1111;
const ACK_REQUEST: u8 = 1 << 7;

/// Its bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct BthBytes {
    opcode: u8,
    /// Solicited event, migration state, pad count and transport version.
    flags: u8,
    pkey: U16,
    /// Congestion notifications, and bits that are reserved: for nobody here.
    reserved: u8,
    dest_qp: U24,
    /// Whether an acknowledgement is asked for, and bits that are reserved.
    ack_request: u8,
    psn: U24,
}

impl BthBytes {
    /// The bytes of a header for this opcode, whose payload is followed by `pad` bytes of padding.
    pub(super) fn new(bth: &Bth, opcode: Opcode, pad: u8) -> BthBytes {
        let solicited = if bth.solicited { SOLICITED } else { 0 };
        let migrated = if bth.migrated { MIGRATED } else { 0 };
        BthBytes {
            opcode: opcode.code(bth.service),
            flags: solicited | migrated | (pad << PAD_SHIFT) & PAD,
            pkey: bth.pkey.into(),
            reserved: 0,
            dest_qp: U24::new(bth.dest_qp),
            ack_request: if bth.ack_request { ACK_REQUEST } else { 0 },
            psn: U24::new(bth.psn.get()),
        }
    }

    /// The header, and the opcode that it is for.
    pub(super) fn parse(&self) -> Result<(Bth, Opcode), ParseError> {
        let version = self.flags & VERSION;
        if version != 0 {
            return Err(ParseError::TransportVersion(version));
        }
        let (service, opcode) = Opcode::parse(self.opcode)?;
        let bth = Bth {
            service,
            solicited: self.flags & SOLICITED != 0,
            migrated: self.flags & MIGRATED != 0,
            pkey: self.pkey.get(),
            dest_qp: self.dest_qp.get(),
            ack_request: self.ack_request & ACK_REQUEST != 0,
            psn: Psn::new(self.psn.get()),
        };
        Ok((bth, opcode))
    }

    /// The header as the invariant CRC covers it: what switches may change counts as ones.
    pub(super) fn with_ones(&self) -> BthBytes {
        BthBytes { reserved: u8::MAX, ..*self }
    }

    /// How many bytes of padding follow the payload.
    pub(super) fn pad(&self) -> u8 {
        (self.flags & PAD) >> PAD_SHIFT
    }
}
