//! The question for the queue pair of a service of datagrams (SIDR_REQ).

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Layout;

/// The question for the queue pair of a service of datagrams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidrReq {
    /// The number by which the sender knows the question.
    pub request_id: u32,
    /// The partition.
    pub pkey: u16,
    /// What is asked for.
    pub service_id: u64,
    /// What the programs make of it.
    pub private_data: [u8; SidrReq::PRIVATE_DATA],
}

impl SidrReq {
    /// How much private data there is.
    pub const PRIVATE_DATA: usize = 216;
}

/// Its bytes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct SidrReqBytes {
    request_id: U32,
    pkey: U16,
    reserved: U16,
    service_id: U64,
    private_data: [u8; SidrReq::PRIVATE_DATA],
}

impl Layout for SidrReqBytes {}

impl From<&SidrReq> for SidrReqBytes {
    fn from(req: &SidrReq) -> SidrReqBytes {
        SidrReqBytes {
            request_id: req.request_id.into(),
            pkey: req.pkey.into(),
            reserved: U16::ZERO,
            service_id: req.service_id.into(),
            private_data: req.private_data,
        }
    }
}

impl From<&SidrReqBytes> for SidrReq {
    fn from(bytes: &SidrReqBytes) -> SidrReq {
        SidrReq {
            request_id: bytes.request_id.get(),
            pkey: bytes.pkey.get(),
            service_id: bytes.service_id.get(),
            private_data: bytes.private_data,
        }
    }
}
