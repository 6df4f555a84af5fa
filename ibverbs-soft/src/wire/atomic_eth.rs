//! The extended transport headers of atomic operations and of what answers them.

use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

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

/// Its bytes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct AtomicEthBytes {
    addr: U64,
    rkey: U32,
    swap_or_add: U64,
    compare: U64,
}

impl From<&AtomicEthBytes> for AtomicEth {
    fn from(bytes: &AtomicEthBytes) -> AtomicEth {
        AtomicEth {
            addr: bytes.addr.get(),
            rkey: bytes.rkey.get(),
            swap_or_add: bytes.swap_or_add.get(),
            compare: bytes.compare.get(),
        }
    }
}

impl From<&AtomicEth> for AtomicEthBytes {
    fn from(eth: &AtomicEth) -> AtomicEthBytes {
        AtomicEthBytes {
            addr: eth.addr.into(),
            rkey: eth.rkey.into(),
            swap_or_add: eth.swap_or_add.into(),
            compare: eth.compare.into(),
        }
    }
}
