//! Memory regions. Memory windows are in `mw`.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;

use ibverbs_sys as ffi;
use rustix::io::Errno;

use super::object::{object, reclaim, unless_dead, Object, Place};
use super::pd::{context_of, domain, Domain};
use super::{code, pointer};
use crate::device::{Access, Result};

/// A memory region.
#[repr(C)]
pub(super) struct Mr {
    raw: UnsafeCell<ffi::ibv_mr>,
    pub(super) key: u32,
    pub(super) domain: Arc<Domain>,
}

// SAFETY: `repr(C)`, and the structure for C comes first, in an `UnsafeCell`. The rest is `Sync` and never written.
unsafe impl Object for Mr {
    type Raw = ffi::ibv_mr;
}

pub(super) unsafe extern "C" fn reg_mr(
    pd: *mut ffi::ibv_pd,
    addr: *mut c_void,
    length: usize,
    access: c_int,
) -> *mut ffi::ibv_mr {
    // SAFETY: the contract is the same.
    unsafe { reg_mr_iova2(pd, addr, length, addr as u64, access as c_uint) }
}

pub(super) unsafe extern "C" fn reg_mr_iova(
    pd: *mut ffi::ibv_pd,
    addr: *mut c_void,
    length: usize,
    iova: u64,
    access: c_int,
) -> *mut ffi::ibv_mr {
    // SAFETY: the contract is the same.
    unsafe { reg_mr_iova2(pd, addr, length, iova, access as c_uint) }
}

pub(super) unsafe extern "C" fn reg_mr_iova2(
    pd: *mut ffi::ibv_pd,
    addr: *mut c_void,
    length: usize,
    iova: u64,
    access: c_uint,
) -> *mut ffi::ibv_mr {
    // SAFETY: the domain is alive, and the memory is kept (ibv_reg_mr(3)).
    pointer(unsafe { register(pd, addr, length, iova, access) })
}

/// # Safety
///
/// The domain is alive, and the memory stays until the region is deregistered.
unsafe fn register(
    pd: *mut ffi::ibv_pd,
    addr: *mut c_void,
    length: usize,
    iova: u64,
    access: c_uint,
) -> Result<*mut ffi::ibv_mr> {
    // SAFETY: by the caller's promise.
    let domain = unsafe { domain(pd) };
    // SAFETY: by the caller's promise.
    let context = unsafe { context_of(pd) };
    let access = parse_access(access)?;
    let (start, len) = (addr as u64, length as u64);
    if len == 0 || start.checked_add(len).is_none() || iova.checked_add(len).is_none() {
        return Err(Errno::INVAL);
    }
    // An adapter maps pages, so that both addresses lie at the same place in theirs.
    if start % PAGE != iova % PAGE {
        return Err(Errno::INVAL);
    }
    let device = &domain.shared.device;
    // SAFETY: by the caller's promise.
    let key = unsafe { device.register(domain.id, start, len, iova, access) }?;
    let raw = ffi::ibv_mr { context, pd, addr, length, handle: key, lkey: key, rkey: key };
    Ok(Place::new().fill(Mr { raw: UnsafeCell::new(raw), key, domain: domain.clone() }))
}

/// The size of the pages that the device speaks of.
pub(super) const PAGE: u64 = 4096;

/// What the flags mean; those that may be ignored are.
fn parse_access(flags: c_uint) -> Result<Access> {
    // Pinned memory may be in pages of any size.
    const HARMLESS: c_uint = ffi::IBV_ACCESS_HUGETLB;
    const LACKING: c_uint =
        ffi::IBV_ACCESS_ON_DEMAND | ffi::IBV_ACCESS_FLUSH_GLOBAL | ffi::IBV_ACCESS_FLUSH_PERSISTENT;
    const RIGHTS: c_uint = ffi::IBV_ACCESS_LOCAL_WRITE
        | ffi::IBV_ACCESS_REMOTE_WRITE
        | ffi::IBV_ACCESS_REMOTE_READ
        | ffi::IBV_ACCESS_REMOTE_ATOMIC
        | ffi::IBV_ACCESS_MW_BIND;
    let flags = flags & !ffi::IB_UVERBS_ACCESS_OPTIONAL_RANGE & !HARMLESS;
    if flags & LACKING != 0 {
        return Err(Errno::OPNOTSUPP);
    }
    let has = |flag| flags & flag != 0;
    let writes = has(ffi::IBV_ACCESS_REMOTE_WRITE | ffi::IBV_ACCESS_REMOTE_ATOMIC);
    if flags & !RIGHTS != 0 || (writes && !has(ffi::IBV_ACCESS_LOCAL_WRITE)) {
        return Err(Errno::INVAL);
    }
    Ok(Access {
        local_write: has(ffi::IBV_ACCESS_LOCAL_WRITE),
        remote_write: has(ffi::IBV_ACCESS_REMOTE_WRITE),
        remote_read: has(ffi::IBV_ACCESS_REMOTE_READ),
        remote_atomic: has(ffi::IBV_ACCESS_REMOTE_ATOMIC),
        windows: has(ffi::IBV_ACCESS_MW_BIND),
    })
}

pub(super) unsafe extern "C" fn dereg_mr(mr: *mut ffi::ibv_mr) -> c_int {
    // SAFETY: the region is alive (ibv_dereg_mr(3)).
    let Mr { key, domain, .. } = unsafe { object::<Mr>(mr) };
    let result = unless_dead(domain.shared.device.deregister(*key));
    if result.is_ok() {
        // SAFETY: the region is not used any more (ibv_dereg_mr(3)).
        drop(unsafe { reclaim::<Mr>(mr) });
    }
    code(result)
}
