//! Registered memory that is read and written by copying.

use std::ops::RangeBounds;
use std::sync::Arc;

use ibverbs::{LocalMemorySlice, MemoryRegion, RemoteMemorySlice};

/// A registered region. It gives no references to its bytes, so that a device and a peer may read and
/// write them at any time. Cloning gives a second handle.
#[derive(Clone, Debug)]
pub struct Mem {
    region: Arc<MemoryRegion>,
}

impl Mem {
    pub(crate) fn new(region: MemoryRegion) -> Mem {
        Mem { region: Arc::new(region) }
    }

    /// The region.
    pub fn region(&self) -> &MemoryRegion {
        &self.region
    }

    /// A piece of it for a work request.
    #[track_caller]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> LocalMemorySlice {
        self.region.slice(range)
    }

    /// All of it, for a peer.
    #[track_caller]
    pub fn remote(&self) -> RemoteMemorySlice {
        // SAFETY: nothing in this package makes a reference to the bytes of a `Mem`.
        unsafe { self.region.remote() }.expect("no remote key")
    }

    /// Copies out of it.
    #[track_caller]
    pub fn read(&self, range: impl RangeBounds<usize>) -> Vec<u8> {
        let slice = self.region.slice(range);
        let mut bytes = vec![0; slice.len() as usize];
        let from = slice.addr() as *const u8;
        // SAFETY: `slice` checked that the range lies in the region, which `self` keeps mapped; the
        // vector is as long, and no part of the region.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) };
        bytes
    }

    /// Copies into it.
    #[track_caller]
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let to = self.region.slice(offset..offset + bytes.len()).addr() as *mut u8;
        // SAFETY: `slice` checked that the range lies in the region, which `self` keeps mapped; `bytes`
        // is as long, and no part of the region, to whose bytes there are no references.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    /// The number at `offset`, in host order.
    #[track_caller]
    pub fn read_u64(&self, offset: usize) -> u64 {
        u64::from_ne_bytes(self.read(offset..offset + 8).try_into().expect("eight bytes"))
    }

    /// Stores a number at `offset`, in host order.
    #[track_caller]
    pub fn write_u64(&self, offset: usize, value: u64) {
        self.write(offset, &value.to_ne_bytes());
    }
}

/// Bytes that differ with their place and with `seed`, so that a byte that is lost, moved or left over
/// from an earlier transfer shows.
pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
