//! Registered memory.

mod access;
mod page_buf;
mod slice;
#[cfg(test)]
mod tests;

use std::ffi::c_void;
use std::fmt;
use std::ops::RangeBounds;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

pub use access::AccessFlags;
pub use page_buf::PageBuf;
pub use slice::{LocalMemorySlice, RemoteMemorySlice};

use crate::error::{last_errno, Error, Failed, Result};
use crate::ffi;
use crate::handle::{Destroy, Handle};
use crate::pd::{PdHandle, ProtectionDomain};

/// Memory that is registered with a device, with the buffer `B` that it lies in.
///
/// The device reaches it through [`slice`](Self::slice)s that are posted with a work request. A peer
/// reaches it only once [`remote`](Self::remote) was called.
///
/// Dropping deregisters the memory and then frees it. Should deregistration fail, the memory is
/// leaked: the device may still write to it.
pub struct MemoryRegion<B = PageBuf> {
    // What a slice needs is copied out of `ibv_mr`: one load less for each on the data path.
    addr: u64,
    len: usize,
    lkey: u32,
    inner: Handle<MrInner<B>>,
}

struct MrInner<B> {
    local: NonNull<ffi::ibv_mr>,
    /// The second registration, with remote rights, once there is one.
    remote: Mutex<Option<NonNull<ffi::ibv_mr>>>,
    access: AccessFlags,
    buf: B,
    pd: PdHandle,
}

// SAFETY: `ibv_mr` is not written after its creation (verbs.h: pointers, a length, keys), verbs may be
// called by any thread, as `handle.rs` argues, and the buffer is sent only if its type can be.
unsafe impl<B: Send> Send for MrInner<B> {}
// SAFETY: as above; the second registration is made under a mutex.
unsafe impl<B: Sync> Sync for MrInner<B> {}

impl<B> Destroy for MrInner<B> {
    const RESOURCE: &'static str = "memory region";
    const VERB: &'static str = "ibv_dereg_mr";

    unsafe fn destroy(&mut self) -> i32 {
        let remote = self.remote.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(mr) = *remote {
            // SAFETY: the region came from `ibv_reg_mr` and is deregistered once: it is forgotten below.
            let code = unsafe { ffi::ibv_dereg_mr(mr.as_ptr()) };
            if code != 0 {
                return code;
            }
            *remote = None;
        }
        // SAFETY: the region came from `ibv_reg_mr`; that it is deregistered once is the caller's promise.
        unsafe { ffi::ibv_dereg_mr(self.local.as_ptr()) }
    }
}

impl ProtectionDomain {
    /// Allocates `len` bytes of zeroed, page-aligned memory and registers it.
    ///
    /// Remote rights in `access` become real at the first call of [`MemoryRegion::remote`]; until
    /// then no peer reaches the memory, whatever key it guesses.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidArgument`] if `len` is zero.
    /// - [`Error::InvalidAccess`] if `access` has a remote write or atomic right without
    ///   [`AccessFlags::LOCAL_WRITE`].
    /// - [`Error::Allocate`] if there is not so much memory.
    /// - [`Error::Register`] if the device or the kernel refuses, with the likely cause: the limit of
    ///   locked memory (`ulimit -l`), or an access flag that the device does not have.
    #[doc(alias = "ibv_reg_mr")]
    pub fn allocate(&self, len: usize, access: AccessFlags) -> Result<MemoryRegion> {
        let buf = PageBuf::new(len)?;
        let (ptr, len) = (buf.ptr(), buf.len());
        // SAFETY: the buffer is `len` bytes of mapped, writable memory; it moves into the region,
        // which frees it after deregistration.
        unsafe { MemoryRegion::register(self.handle(), ptr, len, access, buf) }
    }
}

impl<B> MemoryRegion<B> {
    /// # Safety
    ///
    /// `ptr` and `len` are memory that stays mapped for as long as `buf` is not dropped.
    unsafe fn register(
        pd: &PdHandle,
        ptr: NonNull<u8>,
        len: usize,
        access: AccessFlags,
        buf: B,
    ) -> Result<MemoryRegion<B>> {
        check_access(access)?;
        // On many adapters the local and the remote key are one number, and keys can be guessed: as
        // long as the memory may be seen as a Rust slice, no key of it may carry remote rights.
        // SAFETY: the memory is mapped, by the caller's promise.
        let mr =
            unsafe { reg_mr(pd, ptr.as_ptr().cast(), len, access.difference(AccessFlags::REMOTE)) }
                .map_err(|code| register_error(len, access, code))?;
        // SAFETY: a successful registration returns an initialised `ibv_mr`.
        let lkey = unsafe { (*mr.as_ptr()).lkey };
        let inner = MrInner { local: mr, remote: Mutex::new(None), access, buf, pd: pd.clone() };
        let addr = ptr.as_ptr() as u64;
        Ok(MemoryRegion { addr, len, lkey, inner: Handle::new(inner) })
    }

    /// A piece of the region, to be posted with a work request.
    ///
    /// # Panics
    ///
    /// If the range does not lie within the region, as slicing does, or is longer than `u32::MAX`.
    #[inline]
    #[track_caller]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> LocalMemorySlice {
        let (start, length) = slice::resolve(range, self.len);
        LocalMemorySlice::new(self.addr + start as u64, length, self.lkey)
    }

    /// All of it, with a key of a peer's.
    pub(crate) fn with_rkey(&self, rkey: u32) -> RemoteMemorySlice {
        RemoteMemorySlice { addr: self.addr, len: self.len as u64, rkey }
    }

    pub(crate) fn pd(&self) -> &PdHandle {
        &self.inner.pd
    }

    /// The length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes, which no region of this crate's has.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The local key, which names the region in a scatter entry.
    #[inline]
    pub fn lkey(&self) -> u32 {
        self.lkey
    }

    /// The access that was asked for.
    pub fn access(&self) -> AccessFlags {
        self.inner.access
    }

    /// Gives the memory away to peers: registers it a second time, with the remote rights that were
    /// asked for, and returns what a peer needs to use them. Later calls return the same.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidAccess`] if the region was not created with any remote right.
    /// - [`Error::Register`] if the device refuses.
    ///
    /// # Safety
    ///
    /// From now on, and until the region is deregistered, whoever knows or guesses the key may read
    /// and write the memory at any time, as far as the rights go. The caller must make sure, by an
    /// agreement with the peers, that no peer writes while a reference from
    /// [`bytes`](MemoryRegion::bytes) or [`bytes_mut`](MemoryRegion::bytes_mut) exists, and that none
    /// reads while one from `bytes_mut` does.
    #[doc(alias = "rkey")]
    pub unsafe fn remote(&self) -> Result<RemoteMemorySlice> {
        let access = self.inner.access;
        if !access.intersects(AccessFlags::REMOTE) {
            return Err(Error::InvalidAccess {
                access,
                reason: "a remote right is needed for `remote`: register it with one",
            });
        }
        let mut remote = self.inner.remote.lock().unwrap_or_else(PoisonError::into_inner);
        let mr = match *remote {
            Some(mr) => mr,
            None => {
                // SAFETY: a successful registration returns an initialised `ibv_mr`.
                let ptr = unsafe { (*self.inner.local.as_ptr()).addr };
                // SAFETY: the memory is mapped for as long as `buf` lives, which is in `inner`.
                let mr = unsafe { reg_mr(&self.inner.pd, ptr, self.len, access) }
                    .map_err(|code| register_error(self.len, access, code))?;
                *remote.insert(mr)
            }
        };
        // SAFETY: a successful registration returns an initialised `ibv_mr`, alive until `destroy`.
        let rkey = unsafe { (*mr.as_ptr()).rkey };
        Ok(self.with_rkey(rkey))
    }

    /// Deregisters the memory and hands out the buffer.
    ///
    /// # Errors
    ///
    /// - [`Error::InUse`] if a memory window is bound to it.
    /// - [`Error::Verb`] if the device refuses; one that was unplugged answers `EIO`.
    #[doc(alias = "ibv_dereg_mr")]
    pub fn into_inner(self) -> Result<B, Failed<Self>> {
        let MemoryRegion { addr, len, lkey, inner } = self;
        match inner.into_parts() {
            Ok(parts) => Ok(parts.buf),
            Err(failed) => Err(failed.map(|inner| MemoryRegion { addr, len, lkey, inner })),
        }
    }

    /// Deregisters the memory and frees it. Dropping does the same, but cannot tell what went wrong.
    ///
    /// # Errors
    ///
    /// - [`Error::InUse`] if a memory window is bound to it.
    /// - [`Error::Verb`] if the device refuses; one that was unplugged answers `EIO`.
    #[doc(alias = "ibv_dereg_mr")]
    pub fn close(self) -> Result<(), Failed<Self>> {
        self.into_inner().map(drop)
    }

    /// The C structure of the registration without remote rights.
    pub fn as_raw(&self) -> *mut ffi::ibv_mr {
        self.inner.local.as_ptr()
    }
}

impl MemoryRegion<PageBuf> {
    /// The memory.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.inner.buf
    }

    /// The memory, to be written.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.inner.buf
    }
}

impl<B> fmt::Debug for MemoryRegion<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryRegion")
            .field("addr", &format_args!("{:#x}", self.addr))
            .field("len", &self.len)
            .field("lkey", &format_args!("{:#x}", self.lkey))
            .field("access", &self.inner.access)
            .finish_non_exhaustive()
    }
}

/// # Safety
///
/// The memory is mapped, and stays so until the registration is gone.
unsafe fn reg_mr(
    pd: &PdHandle,
    ptr: *mut c_void,
    len: usize,
    access: AccessFlags,
) -> Result<NonNull<ffi::ibv_mr>, i32> {
    let access = access.bits() as i32;
    // SAFETY: the domain is alive, and the memory is mapped by the caller's promise. The kernel checks
    // the range and the flags.
    let mr = unsafe { ffi::ibv_reg_mr(pd.as_raw(), ptr, len, access) };
    NonNull::new(mr).ok_or_else(last_errno)
}

fn check_access(access: AccessFlags) -> Result<()> {
    let needs_write = AccessFlags::REMOTE_WRITE | AccessFlags::REMOTE_ATOMIC;
    let reason = if access.intersects(needs_write) && !access.contains(AccessFlags::LOCAL_WRITE) {
        "remote write and remote atomic need LOCAL_WRITE as well"
    } else if !AccessFlags::all().contains(access) {
        "it may only have bits that have a name"
    } else {
        return Ok(());
    };
    Err(Error::InvalidAccess { access, reason })
}

#[cold]
fn register_error(len: usize, access: AccessFlags, code: i32) -> Error {
    let hint = match code {
        libc::ENOMEM => {
            "there is not enough memory, or the limit of locked memory is too low (`ulimit -l`)"
        }
        libc::EFAULT => "the memory is not mapped, or not writable",
        libc::EINVAL | libc::EOPNOTSUPP => {
            "the device does not have one of these access flags, or cannot register so much memory"
        }
        _ => "the device or the kernel refused",
    };
    Error::Register { len, access, hint, source: std::io::Error::from_raw_os_error(code) }
}
