//! Registering memory with a protection domain.

use std::ops::RangeBounds;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::Arc;

use super::source::Source;
use super::{slice, AccessFlags, MemoryRegion, PageBuf};
use crate::dm::DeviceMemory;
use crate::error::{Error, Result};
use crate::pd::ProtectionDomain;

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
    /// - [`Error::Unsupported`] if the device does not have one of the flags; the error names it. A remote
    ///   right that it does not have is found by [`MemoryRegion::remote`].
    /// - [`Error::Allocate`] if there is not so much memory.
    /// - [`Error::Register`] if the device or the kernel refuses, with the likely cause, such as the limit of
    ///   locked memory (`ulimit -l`).
    #[doc(alias = "ibv_reg_mr")]
    pub fn allocate(&self, len: usize, access: AccessFlags) -> Result<MemoryRegion> {
        let buf = PageBuf::new(len)?;
        let (ptr, len) = (buf.ptr(), buf.len());
        // SAFETY: the buffer is `len` bytes of mapped, writable memory; it moves into the region,
        // which frees it after deregistration.
        unsafe { MemoryRegion::register(self.handle(), Source::Address(ptr), len, access, buf) }
    }

    /// Registers `len` bytes at `ptr` that the program has mapped itself: huge pages, a file or shared memory, an
    /// arena. Prefer [`allocate`](Self::allocate) where there is a choice.
    ///
    /// The region does not own the memory, and there is no `bytes` of it: only the program knows what else
    /// uses it. Rights are those of `allocate`: remote ones become real with [`MemoryRegion::remote`], which
    /// registers the same memory a second time. Memory that is mapped read-only can be registered without
    /// [`AccessFlags::LOCAL_WRITE`], but not by Linux 6.1 and before if the mapping is shared.
    ///
    /// Memory that is not registered [`ON_DEMAND`](AccessFlags::ON_DEMAND) is pinned as it is mapped now. A
    /// registration of the whole address space (implicit on-demand paging) is not offered: its slices
    /// would have no bounds to be checked against.
    ///
    /// # Errors
    ///
    /// Those of [`allocate`](Self::allocate), and
    ///
    /// - [`Error::InvalidArgument`] if `ptr` is null.
    /// - [`Error::Register`] if the memory is not mapped, or is read-only and `access` has `LOCAL_WRITE`.
    ///
    /// # Safety
    ///
    /// The memory is mapped, and stays so, at this address, until the region is gone: until
    /// [`close`](MemoryRegion::close) or [`into_inner`](MemoryRegion::into_inner) returned `Ok`. If they fail, it
    /// must go on being mapped, for the device may still use it. A drop cannot tell whether it
    /// failed: whoever wants to unmap the memory must close the region first.
    ///
    /// What the device writes on behalf of a work request, and what peers do after
    /// [`remote`](MemoryRegion::remote), are the contracts of those functions.
    ///
    /// # Examples
    ///
    /// Two megabytes of huge pages:
    ///
    /// ```no_run
    /// # fn huge(pd: &ibverbs::ProtectionDomain) -> ibverbs::Result<()> {
    /// use ibverbs::AccessFlags;
    ///
    /// const LEN: usize = 2 << 20;
    /// let protection = libc::PROT_READ | libc::PROT_WRITE;
    /// let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB;
    /// // SAFETY: a new mapping touches no other memory.
    /// let ptr = unsafe { libc::mmap(std::ptr::null_mut(), LEN, protection, flags, -1, 0) };
    /// assert_ne!(ptr, libc::MAP_FAILED);
    /// // SAFETY: the memory is unmapped below, after the region was closed.
    /// let region = unsafe { pd.register_from_raw(ptr.cast(), LEN, AccessFlags::PERMISSIVE) }?;
    /// // ... post `region.slice(..)` ...
    /// region.close()?; // if it fails, the memory stays mapped
    /// // SAFETY: it was mapped above, and nobody uses it any more.
    /// unsafe { libc::munmap(ptr, LEN) };
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "ibv_reg_mr")]
    pub unsafe fn register_from_raw(
        &self,
        ptr: *mut u8,
        len: usize,
        access: AccessFlags,
    ) -> Result<MemoryRegion<()>> {
        check_len(len)?;
        let ptr = NonNull::new(ptr).ok_or(Error::InvalidArgument {
            what: "the address of a memory region",
            value: 0,
            expected: "it must not be null",
        })?;
        // SAFETY: the memory is mapped until the registrations are gone, by the caller's promise.
        unsafe { MemoryRegion::register(self.handle(), Source::Address(ptr), len, access, ()) }
    }

    /// Registers `len` bytes of a dma-buf, from `offset` on: memory of a GPU or another device that its driver
    /// exports as a file descriptor.
    ///
    /// Slices of the region begin at the address `iova`, which the caller chooses; it need not be mapped
    /// in this process, but its place within a page must be that of `offset`. The kernel keeps the
    /// dma-buf for as long as it is registered; and the region keeps a descriptor of its own,
    /// of which [`MemoryRegion::remote`] makes the second registration, so that `fd` may be closed.
    ///
    /// Of the flags, a dma-buf can have those that are in [`AccessFlags::PERMISSIVE`].
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidArgument`] if `len` is zero, the range or the addresses would wrap around, or `iova` and
    ///   `offset` lie at different places within their pages.
    /// - [`Error::InvalidAccess`] if `access` has another flag, or a remote write or atomic right without
    ///   [`AccessFlags::LOCAL_WRITE`].
    /// - [`Error::Unsupported`] if the device, the kernel (before 5.12) or the installed rdma-core (before 34)
    ///   cannot register a dma-buf. SoftRoCE cannot.
    /// - [`Error::Register`] if the device or the kernel refuses, with the likely cause, such as a descriptor that
    ///   is not one of a dma-buf.
    /// - [`Error::Verb`] if there is no descriptor left in this process.
    #[doc(alias = "ibv_reg_dmabuf_mr")]
    pub fn register_dmabuf(
        &self,
        fd: impl AsFd,
        offset: u64,
        len: usize,
        iova: u64,
        access: AccessFlags,
    ) -> Result<MemoryRegion<()>> {
        check_len(len)?;
        check_dmabuf_range(offset, len as u64, iova)?;
        let fd = fd.as_fd().try_clone_to_owned();
        let fd = fd.map_err(|source| Error::Verb { verb: "fcntl", source })?;
        let source = Source::Dmabuf { fd, offset, iova };
        // SAFETY: the memory is at no address, and no device memory.
        unsafe { MemoryRegion::register(self.handle(), source, len, access, ()) }
    }

    /// Registers a range of memory that lies on the device.
    ///
    /// Slices of the region count from 0, which is the first byte of the range, and the region keeps
    /// the memory allocated.
    ///
    /// Of the flags, device memory can have those that are in [`AccessFlags::PERMISSIVE`].
    ///
    /// # Errors
    ///
    /// - [`Error::DeviceMismatch`] if the memory is of another context than this domain.
    /// - [`Error::OutOfBounds`] if the range does not lie within the memory.
    /// - [`Error::InvalidArgument`] if the range is empty.
    /// - [`Error::InvalidAccess`] if `access` has another flag, or a remote write or atomic right without
    ///   [`AccessFlags::LOCAL_WRITE`].
    /// - [`Error::Unsupported`] if the device cannot register its memory.
    /// - [`Error::Register`] if the device or the kernel refuses.
    #[doc(alias = "ibv_reg_dm_mr")]
    pub fn register_dm(
        &self,
        memory: &DeviceMemory,
        range: impl RangeBounds<usize>,
        access: AccessFlags,
    ) -> Result<MemoryRegion<()>> {
        let memory = memory.handle().clone();
        if !Arc::ptr_eq(self.handle().context(), memory.context()) {
            return Err(Error::DeviceMismatch { what: "device memory" });
        }
        let (offset, len) = slice::try_resolve(range, memory.len(), "device memory")?;
        check_len(len)?;
        let source = Source::DeviceMemory { memory, offset: offset as u64 };
        // SAFETY: the device memory is of the domain's context, as was checked above.
        unsafe { MemoryRegion::register(self.handle(), source, len, access, ()) }
    }
}

/// No device registers an empty region, and no object is longer than an `isize` can tell.
pub(super) fn check_len(len: usize) -> Result<()> {
    if len == 0 || isize::try_from(len).is_err() {
        return Err(Error::InvalidArgument {
            what: "the length of a memory region",
            value: len as u64,
            expected: "it must be at least 1 and fit an isize",
        });
    }
    Ok(())
}

/// What the kernel demands of a range of a dma-buf, and what keeps the addresses of slices from wrapping.
fn check_dmabuf_range(offset: u64, len: u64, iova: u64) -> Result<()> {
    for (what, value) in [("the offset in a dma-buf", offset), ("the address of a dma-buf", iova)] {
        if value.checked_add(len).is_none() {
            let expected = "the length must not reach beyond the largest 64-bit number";
            return Err(Error::InvalidArgument { what, value, expected });
        }
    }
    // SAFETY: the function has no preconditions.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64;
    if iova % page != offset % page {
        return Err(Error::InvalidArgument {
            what: "the address of a dma-buf",
            value: iova,
            expected: "its place within a page must be that of the offset in the dma-buf",
        });
    }
    Ok(())
}
