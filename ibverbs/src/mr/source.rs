//! Where the memory of a region is, and how it is registered.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;

use super::AccessFlags;
use crate::attr::{AtomicCap, DeviceAttrEx, DeviceCaps, OdpGeneralCaps};
use crate::context::Context;
use crate::dm::DmHandle;
use crate::error::{created, Error, Result};
use crate::ffi;
use crate::pd::PdHandle;

/// Where the memory is. Both registrations of a region are made from this.
pub(super) enum Source {
    /// In this process.
    Address(NonNull<u8>),
    /// In a dma-buf, from `offset` on. Devices and peers see it at the address `iova`.
    Dmabuf { fd: OwnedFd, offset: u64, iova: u64 },
    /// In memory of the device, from `offset` on. Devices and peers see it at the address 0.
    DeviceMemory { memory: DmHandle, offset: u64 },
}

impl Source {
    /// The address of the first byte in scatter entries and for peers.
    pub(super) fn address(&self) -> u64 {
        match self {
            Source::Address(ptr) => ptr.as_ptr() as u64,
            Source::Dmabuf { iova, .. } => *iova,
            Source::DeviceMemory { .. } => 0,
        }
    }

    fn verb(&self) -> &'static str {
        match self {
            Source::Address(_) => "ibv_reg_mr",
            Source::Dmabuf { .. } => "ibv_reg_dmabuf_mr",
            Source::DeviceMemory { .. } => "ibv_reg_dm_mr",
        }
    }

    /// Whether memory of this kind can be registered with these flags on some device.
    pub(super) fn check_access(&self, access: AccessFlags) -> Result<()> {
        let needs_write = AccessFlags::REMOTE_WRITE | AccessFlags::REMOTE_ATOMIC;
        let in_process = matches!(self, Source::Address(_));
        let reason = if access.intersects(needs_write) && !access.contains(AccessFlags::LOCAL_WRITE)
        {
            "remote write and remote atomic need LOCAL_WRITE as well"
        } else if !AccessFlags::all().contains(access) {
            "it may only have bits that have a name"
        } else if !in_process && !AccessFlags::PERMISSIVE.contains(access) {
            "a dma-buf or device memory can have the flags that are in PERMISSIVE, and no others"
        } else {
            return Ok(());
        };
        Err(Error::InvalidAccess { access, reason })
    }

    /// Registers the first `len` bytes. If that fails, what it returns is for [`error`](Self::error).
    ///
    /// # Safety
    ///
    /// Memory at an address is mapped for `len` bytes, and stays so until the registration is gone. Device
    /// memory is of the domain's context.
    pub(super) unsafe fn register(
        &self,
        pd: &PdHandle,
        len: usize,
        access: AccessFlags,
    ) -> Result<NonNull<ffi::ibv_mr>, i32> {
        let (pd, flags) = (pd.as_raw(), access.bits());
        created(|| match self {
            Source::Address(ptr) => {
                let addr = ptr.as_ptr().cast();
                // SAFETY: the domain is alive, and the memory is mapped by the caller's promise. The
                // kernel checks the range and the flags.
                unsafe { ffi::ibv_reg_mr(pd, addr, len, flags as i32) }
            }
            Source::Dmabuf { fd, offset, iova } => {
                let fd = fd.as_raw_fd();
                // SAFETY: the domain is alive. The kernel checks that the descriptor is a dma-buf, the
                // range and the flags, and keeps a reference to the dma-buf for as long as it is needed.
                unsafe { ffi::ibv_reg_dmabuf_mr(pd, *offset, len, *iova, fd, flags as i32) }
            }
            Source::DeviceMemory { memory, offset } => {
                let flags = flags | ffi::IBV_ACCESS_ZERO_BASED;
                // SAFETY: the domain and the memory are alive, and of one context by the caller's promise.
                // The kernel checks the range and the flags, and does not free memory that is registered.
                unsafe { ffi::ibv_reg_dm_mr(pd, memory.as_raw(), *offset, len, flags) }
            }
        })
    }

    /// Why the memory could not be registered.
    #[cold]
    pub(super) fn error(&self, pd: &PdHandle, len: usize, access: AccessFlags, code: i32) -> Error {
        let refused = matches!(code, libc::EINVAL | libc::EOPNOTSUPP);
        if refused {
            if let Some(error) = refused_flag(pd, access) {
                return error;
            }
        }
        let verb = self.verb();
        let error = Error::from_code(verb, code);
        if matches!(error, Error::Unsupported { .. }) && !matches!(self, Source::Address(_)) {
            return error;
        }
        let hint = match (self, code) {
            (_, libc::ENOMEM) => {
                "there is not enough memory, or the limit of locked memory is too low (`ulimit -l`)"
            }
            (Source::Address(_), libc::EFAULT) => "the memory is not mapped, or not writable",
            (Source::Address(_), libc::EINVAL)
                if access.contains(AccessFlags::FLUSH_PERSISTENT) =>
            {
                "the memory is not persistent (FLUSH_PERSISTENT), or more than the device can register"
            }
            (Source::Address(_), _) if refused => {
                "the device does not have one of these access flags, or cannot register so much memory"
            }
            (Source::Dmabuf { fd, .. }, _) if !is_dmabuf(fd) => {
                "the file descriptor is not one of a dma-buf"
            }
            (Source::Dmabuf { .. }, libc::EINVAL) => {
                "the range goes beyond the end of the dma-buf, or the device cannot reach its memory"
            }
            _ => "the device or the kernel refused",
        };
        let source = io::Error::from_raw_os_error(code);
        Error::Register { verb, len, access, hint, source }
    }
}

/// The error that names the flag among `access` that the device does not have.
fn refused_flag(pd: &PdHandle, access: AccessFlags) -> Option<Error> {
    type Has = fn(&DeviceAttrEx) -> bool;
    const WINDOWS: DeviceCaps = DeviceCaps::MEM_WINDOW
        .union(DeviceCaps::MEM_WINDOW_TYPE_2A)
        .union(DeviceCaps::MEM_WINDOW_TYPE_2B);
    const OPTIONAL: [(AccessFlags, &str, Has); 5] = [
        (AccessFlags::ON_DEMAND, "on-demand paging (AccessFlags::ON_DEMAND)", |attr| {
            attr.odp_caps().general.contains(OdpGeneralCaps::SUPPORT)
        }),
        (
            AccessFlags::FLUSH_GLOBAL,
            "flushing to global visibility (AccessFlags::FLUSH_GLOBAL)",
            |attr| attr.capabilities().contains(DeviceCaps::FLUSH_GLOBAL),
        ),
        (
            AccessFlags::FLUSH_PERSISTENT,
            "flushing to persistence (AccessFlags::FLUSH_PERSISTENT)",
            |attr| attr.capabilities().contains(DeviceCaps::FLUSH_PERSISTENT),
        ),
        (AccessFlags::MW_BIND, "binding memory windows (AccessFlags::MW_BIND)", |attr| {
            attr.capabilities().intersects(WINDOWS)
        }),
        (AccessFlags::REMOTE_ATOMIC, "remote atomics (AccessFlags::REMOTE_ATOMIC)", |attr| {
            attr.base().atomic_cap() != AtomicCap::NONE
        }),
    ];
    if access.contains(AccessFlags::HUGETLB) && !access.contains(AccessFlags::ON_DEMAND) {
        let reason =
            "HUGETLB goes with ON_DEMAND: memory that is pinned needs no flag for huge pages";
        return Some(Error::InvalidAccess { access, reason });
    }
    let attr = Context::from_handle(pd.context().clone()).query_device_ex().ok()?;
    let missing =
        |(flag, _, has): &&(AccessFlags, &str, Has)| access.contains(*flag) && !has(&attr);
    let (_, operation, _) = OPTIONAL.iter().find(missing)?;
    Some(Error::Unsupported { operation })
}

/// Whether the file is a dma-buf: those lie in a file system of their own.
fn is_dmabuf(fd: &OwnedFd) -> bool {
    /// `DMA_BUF_MAGIC` of linux/magic.h.
    const DMA_BUF_MAGIC: u32 = 0x444d_4142;
    let mut stat = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the last argument points to a whole `statfs`.
    let code = unsafe { libc::fstatfs(fd.as_raw_fd(), stat.as_mut_ptr()) };
    // SAFETY: a `statfs` is numbers only, for which the zeroes written above are valid.
    let stat = unsafe { stat.assume_init() };
    // The field is signed, and of another width on some architectures; the number has 32 bits.
    code == 0 && stat.f_type as u32 == DMA_BUF_MAGIC
}
