//! Pieces of registered memory: here, and at a peer.

use std::ops::{Bound, RangeBounds};

use crate::error::{Error, Result};
use crate::ffi;

/// A piece of a registered region of this process: one scatter entry (`struct ibv_sge`).
///
/// It is a plain value that borrows nothing. Whoever posts it promises, in the contract of the posting
/// function, that the region is still registered.
#[doc(alias = "ibv_sge")]
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct LocalMemorySlice {
    sge: ffi::ibv_sge,
}

impl LocalMemorySlice {
    #[inline]
    pub(crate) fn new(addr: u64, length: u32, lkey: u32) -> LocalMemorySlice {
        LocalMemorySlice { sge: ffi::ibv_sge { addr, length, lkey } }
    }

    /// The address of the first byte.
    #[inline]
    pub fn addr(&self) -> u64 {
        self.sge.addr
    }

    /// The length in bytes.
    #[inline]
    pub fn len(&self) -> u32 {
        self.sge.length
    }

    /// Whether it has no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.sge.length == 0
    }

    /// The local key of the region.
    #[inline]
    pub fn lkey(&self) -> u32 {
        self.sge.lkey
    }

    #[inline]
    pub(crate) fn raw(&self) -> &ffi::ibv_sge {
        &self.sge
    }

    /// The C structure.
    #[inline]
    pub fn as_raw(&self) -> *const ffi::ibv_sge {
        &self.sge
    }
}

impl std::fmt::Debug for LocalMemorySlice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalMemorySlice")
            .field("addr", &format_args!("{:#x}", self.addr()))
            .field("len", &self.len())
            .field("lkey", &format_args!("{:#x}", self.lkey()))
            .finish()
    }
}

/// A piece of memory that a peer gave access to.
///
/// It can be made from any three numbers, and be sent and received as bytes; the peer's device checks
/// the key and the bounds of its region on every access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RemoteMemorySlice {
    /// The address of the first byte, in the peer's process.
    pub addr: u64,
    /// The length in bytes. An operation that goes beyond it is refused here, before it is posted.
    pub len: u64,
    /// The remote key of the peer's region.
    pub rkey: u32,
}

impl RemoteMemorySlice {
    /// The length of [`to_bytes`](Self::to_bytes).
    pub const BYTES: usize = 24;

    const WIRE_VERSION: u8 = 1;
    const WIRE_NAME: &'static str = "remote memory slice";

    /// A piece of this piece.
    ///
    /// # Panics
    ///
    /// If the range does not lie within it, as slicing does.
    #[inline]
    #[track_caller]
    pub fn slice(&self, range: impl RangeBounds<u64>) -> RemoteMemorySlice {
        let (start, end) =
            bounds(range.start_bound().cloned(), range.end_bound().cloned(), self.len);
        RemoteMemorySlice { addr: self.addr.wrapping_add(start), len: end - start, rkey: self.rkey }
    }

    /// The bytes to send to whoever is to use this memory: a version, the key, the address and the
    /// length, in network byte order.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0] = Self::WIRE_VERSION;
        bytes[4..8].copy_from_slice(&self.rkey.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.addr.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.len.to_be_bytes());
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidBytes`] if the length or the version is another one, a reserved byte is set, or
    /// the memory would go beyond the end of the address space.
    pub fn from_bytes(bytes: &[u8]) -> Result<RemoteMemorySlice> {
        let invalid = |reason| Error::InvalidBytes { what: Self::WIRE_NAME, reason };
        let bytes: &[u8; Self::BYTES] =
            bytes.try_into().map_err(|_| invalid("they must be exactly 24 bytes"))?;
        let [version, r0, r1, r2, fields @ ..] = bytes;
        if *version != Self::WIRE_VERSION {
            return Err(invalid("their version is not 1"));
        }
        if [r0, r1, r2] != [&0; 3] {
            return Err(invalid("a reserved byte is not zero"));
        }
        let number = |from: usize, len: usize| {
            fields[from..from + len].iter().fold(0u64, |value, &byte| value << 8 | u64::from(byte))
        };
        let (rkey, addr, len) = (number(0, 4) as u32, number(4, 8), number(12, 8));
        RemoteMemorySlice::received(addr, len, rkey)
    }

    /// A piece that a peer told of, in whatever form.
    pub(crate) fn received(addr: u64, len: u64, rkey: u32) -> Result<RemoteMemorySlice> {
        if addr.checked_add(len).is_none() {
            let reason = "the memory would end beyond the address space";
            return Err(Error::InvalidBytes { what: Self::WIRE_NAME, reason });
        }
        Ok(RemoteMemorySlice { addr, len, rkey })
    }
}

/// The start and the length of `range` within `len` bytes.
///
/// # Panics
///
/// If the range does not lie within them, or is longer than a scatter entry can be.
#[inline]
#[track_caller]
pub(crate) fn resolve(range: impl RangeBounds<usize>, len: usize) -> (usize, u32) {
    let start = range.start_bound().map(|&start| start as u64);
    let (start, end) = bounds(start, range.end_bound().map(|&end| end as u64), len as u64);
    match u32::try_from(end - start) {
        Ok(length) => (start as usize, length),
        Err(_) => too_long(end - start),
    }
}

/// Looks whether `len` bytes from `offset` on lie within memory of `whole` bytes.
///
/// # Panics
///
/// If they do not.
#[inline]
#[track_caller]
pub(crate) fn check_within(offset: usize, len: usize, whole: usize) {
    if offset > whole || len > whole - offset {
        out_of_range(offset as u64, (offset as u64).saturating_add(len as u64), whole as u64);
    }
}

/// The start and the length of `range` within `len` bytes of `what`, or the error that it does not lie
/// within them.
pub(crate) fn try_resolve(
    range: impl RangeBounds<usize>,
    len: usize,
    what: &'static str,
) -> Result<(usize, usize)> {
    let start = range.start_bound().map(|&start| start as u64);
    let (start, end) = ends(start, range.end_bound().map(|&end| end as u64), len as u64);
    if start > end || end > len as u64 {
        return Err(Error::OutOfBounds { what, start, end, len: len as u64 });
    }
    Ok((start as usize, (end - start) as usize))
}

/// The first byte of a range within `len` bytes, and the one behind its last.
///
/// # Panics
///
/// If the range does not lie within them.
#[inline]
#[track_caller]
fn bounds(start: Bound<u64>, end: Bound<u64>, len: u64) -> (u64, u64) {
    let (start, end) = ends(start, end, len);
    if start > end || end > len {
        out_of_range(start, end, len);
    }
    (start, end)
}

/// What the two bounds of a range of `len` bytes are, within them or not.
#[inline]
fn ends(start: Bound<u64>, end: Bound<u64>, len: u64) -> (u64, u64) {
    let start = match start {
        Bound::Included(start) => start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match end {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => end,
        Bound::Unbounded => len,
    };
    (start, end)
}

#[cold]
#[inline(never)]
#[track_caller]
fn out_of_range(start: u64, end: u64, len: u64) -> ! {
    panic!("range {start}..{end} is out of range for memory of {len} bytes")
}

#[cold]
#[inline(never)]
#[track_caller]
fn too_long(len: u64) -> ! {
    panic!("a slice of {len} bytes is too long for a scatter entry, which has at most {}", u32::MAX)
}
