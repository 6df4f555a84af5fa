//! Registered memory.

mod access;
mod advise;
mod page_buf;
mod register;
mod shared;
mod slice;
mod source;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::RangeBounds;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

pub use access::AccessFlags;
pub use advise::{Advice, AdviseFlags};
pub use page_buf::PageBuf;
pub(crate) use shared::{register_pages, SharedMr};
pub use shared::{SharedAtomicU64, SharedRegion, SharedSlice};
pub(crate) use slice::try_resolve;
pub use slice::{LocalMemorySlice, RemoteMemorySlice};

use crate::error::{Error, Failed, Result};
use crate::ffi;
use crate::handle::{Destroy, Handle};
use crate::mw::Bindable;
use crate::pd::PdHandle;
use source::Source;

/// Memory that is registered with a device, with the buffer `B` that it lies in.
///
/// | made by | the memory | `B` | addresses of slices |
/// |---|---|---|---|
/// | [`allocate`](crate::ProtectionDomain::allocate) | its own | [`PageBuf`] | its address |
/// | [`register_from_raw`](crate::ProtectionDomain::register_from_raw) | the caller's | `()` | its address |
/// | [`register_dmabuf`](crate::ProtectionDomain::register_dmabuf) | a dma-buf, of a GPU for example | `()` | from `iova` on |
/// | [`register_dm`](crate::ProtectionDomain::register_dm) | [`DeviceMemory`](crate::DeviceMemory) | `()` | from 0 on |
///
/// The device reaches it through [`slice`](Self::slice)s that are posted with a work request. A peer
/// reaches it only once [`remote`](Self::remote) was called.
///
/// Dropping deregisters the memory and then frees what the region owns of it. Should deregistration fail,
/// that is leaked: the device may still write to it.
#[doc(alias = "ibv_mr")]
pub struct MemoryRegion<B = PageBuf> {
    // What a slice needs is copied out of `ibv_mr`: one load less for each on the data path.
    addr: u64,
    len: usize,
    lkey: u32,
    inner: Handle<MrInner<B>>,
}

struct MrInner<B> {
    registration: Box<Registration>,
    buf: B,
}

/// In a box, so that a region is small to move, and so is what hands it back.
struct Registration {
    local: NonNull<ffi::ibv_mr>,
    /// The second one, with remote rights, once there is one.
    remote: Mutex<Option<NonNull<ffi::ibv_mr>>>,
    access: AccessFlags,
    source: Source,
    pd: PdHandle,
}

// SAFETY: `ibv_mr` is not written after its creation (verbs.h: pointers, a length, keys), and verbs may be
// called by any thread, as `handle.rs` argues. The address in `source` is a number here: nothing is read or
// written through it.
unsafe impl Send for Registration {}
// SAFETY: as above; the second registration is made under a mutex.
unsafe impl Sync for Registration {}

impl<B> Destroy for MrInner<B> {
    const RESOURCE: &'static str = "memory region";
    const VERB: &'static str = "ibv_dereg_mr";
    // SoftRoCE answers EINVAL to a region with a memory window. The verb has no argument but the region, so
    // that there is nothing else that could be invalid.
    const IN_USE: &'static [i32] = &[libc::EBUSY, libc::EINVAL];

    unsafe fn destroy(&mut self) -> i32 {
        let Registration { local, remote, .. } = &mut *self.registration;
        let remote = remote.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(mr) = *remote {
            // SAFETY: the region came from `Source::register` and is deregistered once: it is forgotten below.
            let code = unsafe { ffi::ibv_dereg_mr(mr.as_ptr()) };
            if code != 0 {
                return code;
            }
            *remote = None;
        }
        // SAFETY: the region came from `Source::register`; that it is deregistered once is the caller's promise.
        unsafe { ffi::ibv_dereg_mr(local.as_ptr()) }
    }
}

impl<B> MemoryRegion<B> {
    /// # Safety
    ///
    /// What [`Source::register`] demands, until `buf` is dropped.
    unsafe fn register(
        pd: &PdHandle,
        source: Source,
        len: usize,
        access: AccessFlags,
        buf: B,
    ) -> Result<MemoryRegion<B>> {
        source.check_access(access)?;
        // On many adapters the local and the remote key are one number, and keys can be guessed: as
        // long as the memory may be seen as a Rust slice, no key of it may carry remote rights.
        let local_rights = access.difference(AccessFlags::REMOTE);
        // SAFETY: the caller's promise: `buf` is dropped after the registration is gone.
        let local = unsafe { source.register(pd, len, local_rights) }
            .map_err(|code| source.error(pd, len, access, code))?;
        // SAFETY: a successful registration returns an initialised `ibv_mr`.
        let lkey = unsafe { (*local.as_ptr()).lkey };
        let (addr, remote) = (source.address(), Mutex::new(None));
        let registration = Registration { local, remote, access, source, pd: pd.clone() };
        let inner = MrInner { registration: Box::new(registration), buf };
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

    /// What a window may be bound to.
    pub(crate) fn bindable(&self) -> Bindable<'_> {
        let Registration { access, pd, .. } = &*self.inner.registration;
        Bindable { raw: self.as_raw(), whole: self.with_rkey(0), access: *access, pd }
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
        self.inner.registration.access
    }

    /// Gives the memory away to peers: registers it a second time, with the remote rights that were
    /// asked for, and returns what a peer needs to use them. Later calls return the same.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidAccess`] if the region was not created with any remote right.
    /// - [`Error::Unsupported`] if the device does not have one of the rights; the error names it.
    /// - [`Error::Register`] if the device refuses for another reason.
    ///
    /// # Safety
    ///
    /// From now on, and until the region is deregistered, whoever knows or guesses the key may read
    /// and write the memory at any time, as far as the rights go. The caller must make sure, by an
    /// agreement with the peers, that no peer writes while a reference to the memory exists, such as
    /// [`bytes`](MemoryRegion::bytes) and [`bytes_mut`](MemoryRegion::bytes_mut) make, and that none reads
    /// while an exclusive one does.
    #[doc(alias = "rkey")]
    pub unsafe fn remote(&self) -> Result<RemoteMemorySlice> {
        let Registration { remote, access, source, pd, .. } = &*self.inner.registration;
        let access = *access;
        if !access.intersects(AccessFlags::REMOTE) {
            return Err(Error::InvalidAccess {
                access,
                reason: "a remote right is needed for `remote`: register it with one",
            });
        }
        let mut remote = remote.lock().unwrap_or_else(PoisonError::into_inner);
        let mr = match *remote {
            Some(mr) => mr,
            None => {
                // SAFETY: what it demands holds until `buf` is dropped, by the promise of whoever made the
                // region; it is in `inner`, which drops it after both registrations are gone.
                let mr = unsafe { source.register(pd, self.len, access) }
                    .map_err(|code| source.error(pd, self.len, access, code))?;
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
        self.inner.registration.local.as_ptr()
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
            .field("access", &self.inner.registration.access)
            .finish_non_exhaustive()
    }
}
