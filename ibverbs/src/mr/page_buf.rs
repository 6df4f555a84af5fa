//! Memory of whole pages, from the kernel.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::{fmt, io, ptr, slice};

use super::register::check_len;
use crate::error::{Error, Result};

/// Zeroed, page-aligned memory that does not move.
///
/// It comes from `mmap` and is held as a raw pointer: a `Box` or `Vec` claims, whenever it is moved,
/// that nobody else accesses its memory, and a device does.
pub struct PageBuf {
    ptr: NonNull<u8>,
    len: usize,
}

// SAFETY: a `PageBuf` owns its mapping alone, as a `Box<[u8]>` would; bytes may be used by any thread.
unsafe impl Send for PageBuf {}
// SAFETY: as above; through a shared reference the bytes are only read.
unsafe impl Sync for PageBuf {}

impl PageBuf {
    /// Maps `len` bytes of zeroes.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidArgument`] if `len` is zero: no device registers an empty region.
    /// - [`Error::Allocate`] if there is not so much memory.
    pub fn new(len: usize) -> Result<PageBuf> {
        check_len(len)?;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no other memory.
        let ptr = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        match NonNull::new(ptr.cast::<u8>()) {
            Some(ptr) if ptr.as_ptr().cast() != libc::MAP_FAILED => Ok(PageBuf { ptr, len }),
            _ => Err(Error::Allocate { len, source: io::Error::last_os_error() }),
        }
    }

    pub(crate) fn ptr(&self) -> NonNull<u8> {
        self.ptr
    }
}

impl Drop for PageBuf {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new` with this length and is unmapped once. Whoever
        // registers it with a device drops it after the registration is gone.
        unsafe { libc::munmap(self.ptr.as_ptr().cast(), self.len) };
    }
}

impl Deref for PageBuf {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping is readable, `len` bytes long (which fits an isize), initialised by the
        // kernel, and lives as long as self.
        unsafe { slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl DerefMut for PageBuf {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; it is writable too, and borrowed exclusively through `&mut self`.
        unsafe { slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

impl fmt::Debug for PageBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageBuf").field("ptr", &self.ptr).field("len", &self.len).finish()
    }
}
