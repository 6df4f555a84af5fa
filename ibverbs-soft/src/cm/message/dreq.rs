//! The request to end a connection (DREQ).

use zerocopy::big_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Layout;
use crate::wire::U24;

/// The request to end a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dreq {
    /// The number by which the sender knows the connection.
    pub local_id: u32,
    /// The number by which the receiver does.
    pub remote_id: u32,
    /// The receiver's queue pair: 24 bits.
    pub remote_qpn: u32,
}

/// Its bytes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct DreqBytes {
    local_id: U32,
    remote_id: U32,
    remote_qpn: U24,
    reserved: u8,
    private_data: [u8; 220],
}

impl Layout for DreqBytes {}

impl From<&Dreq> for DreqBytes {
    fn from(dreq: &Dreq) -> DreqBytes {
        DreqBytes {
            local_id: dreq.local_id.into(),
            remote_id: dreq.remote_id.into(),
            remote_qpn: U24::new(dreq.remote_qpn),
            reserved: 0,
            private_data: [0; 220],
        }
    }
}

impl From<&DreqBytes> for Dreq {
    fn from(bytes: &DreqBytes) -> Dreq {
        Dreq {
            local_id: bytes.local_id.get(),
            remote_id: bytes.remote_id.get(),
            remote_qpn: bytes.remote_qpn.get(),
        }
    }
}
