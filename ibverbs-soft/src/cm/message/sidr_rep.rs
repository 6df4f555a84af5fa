//! The answer to the question for a queue pair of datagrams (SIDR_REP).

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Layout;
use crate::wire::U24;

/// The answer to the question for a queue pair of datagrams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidrRep {
    /// The number by which the receiver knows the question.
    pub request_id: u32,
    /// Whether there is a queue pair, or why not: see [`sidr_status`](crate::cm::sidr_status).
    pub status: u8,
    /// The queue pair: 24 bits.
    pub qpn: u32,
    /// Its queue key.
    pub qkey: u32,
    /// What was asked for.
    pub service_id: u64,
    /// What the programs make of it.
    pub private_data: [u8; SidrRep::PRIVATE_DATA],
}

impl SidrRep {
    /// How much private data there is.
    pub const PRIVATE_DATA: usize = 136;
}

/// Its bytes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct SidrRepBytes {
    request_id: U32,
    status: u8,
    information_len: u8,
    reserved: U16,
    qpn: U24,
    more_reserved: u8,
    service_id: U64,
    qkey: U32,
    information: [u8; 72],
    private_data: [u8; SidrRep::PRIVATE_DATA],
}

impl Layout for SidrRepBytes {}

impl From<&SidrRep> for SidrRepBytes {
    fn from(rep: &SidrRep) -> SidrRepBytes {
        SidrRepBytes {
            request_id: rep.request_id.into(),
            status: rep.status,
            information_len: 0,
            reserved: U16::ZERO,
            qpn: U24::new(rep.qpn),
            more_reserved: 0,
            service_id: rep.service_id.into(),
            qkey: rep.qkey.into(),
            information: [0; 72],
            private_data: rep.private_data,
        }
    }
}

impl From<&SidrRepBytes> for SidrRep {
    fn from(bytes: &SidrRepBytes) -> SidrRep {
        SidrRep {
            request_id: bytes.request_id.get(),
            status: bytes.status,
            qpn: bytes.qpn.get(),
            qkey: bytes.qkey.get(),
            service_id: bytes.service_id.get(),
            private_data: bytes.private_data,
        }
    }
}
