//! The RDMA extended transport header.

use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

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

/// Its bytes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RethBytes {
    addr: U64,
    rkey: U32,
    len: U32,
}

impl From<&RethBytes> for Reth {
    fn from(bytes: &RethBytes) -> Reth {
        Reth { addr: bytes.addr.get(), rkey: bytes.rkey.get(), len: bytes.len.get() }
    }
}

impl From<&Reth> for RethBytes {
    fn from(reth: &Reth) -> RethBytes {
        RethBytes { addr: reth.addr.into(), rkey: reth.rkey.into(), len: reth.len.into() }
    }
}
