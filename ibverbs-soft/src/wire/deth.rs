//! The datagram extended transport header.

use zerocopy::big_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::u24::U24;

/// The datagram extended transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deth {
    /// The queue key.
    pub qkey: u32,
    /// The queue pair that sent it: 24 bits.
    pub src_qp: u32,
}

/// Its bytes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct DethBytes {
    qkey: U32,
    reserved: u8,
    src_qp: U24,
}

impl From<&DethBytes> for Deth {
    fn from(bytes: &DethBytes) -> Deth {
        Deth { qkey: bytes.qkey.get(), src_qp: bytes.src_qp.get() }
    }
}

impl From<&Deth> for DethBytes {
    fn from(deth: &Deth) -> DethBytes {
        DethBytes { qkey: deth.qkey.into(), reserved: 0, src_qp: U24::new(deth.src_qp) }
    }
}
