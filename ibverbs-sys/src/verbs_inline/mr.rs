//! Memory regions and windows.

use core::ffi::{c_int, c_void};

use super::context_operations;
use crate::bindings::*;
use crate::table;

/// Whether an access flag asks for what a library or a kernel may not know, and may then leave out.
#[inline]
const fn has_optional_flag(access: c_int) -> bool {
    access as u32 & IB_UVERBS_ACCESS_OPTIONAL_RANGE != 0
}

/// The flags that every library knows.
#[inline]
const fn without_optional_flags(access: c_int) -> c_int {
    (access as u32 & !IB_UVERBS_ACCESS_OPTIONAL_RANGE) as c_int
}

/// Whether the library has `ibv_reg_mr_iova2`, as those from rdma-core 28 on do. To an older one optional flags mean
/// nothing, and may be left out.
#[inline]
fn has_iova2() -> bool {
    crate::provider::verbs().is_ok_and(|verbs| verbs.ibv_reg_mr_iova2.is_some())
}

/// Registers a memory region.
///
/// Port of the macro `ibv_reg_mr` and the inline function `__ibv_reg_mr`: calls the exported `ibv_reg_mr_iova2`, which
/// drops optional access flags that the kernel does not know, if there is one among `access`, and `ibv_reg_mr` otherwise.
/// (C decides by whether the compiler knows the flags; the outcome is the same.)
///
/// # Safety
///
/// The contract is that of the C function: see the manual page ibv_reg_mr(3).
#[inline]
pub unsafe fn ibv_reg_mr(
    pd: *mut ibv_pd,
    addr: *mut c_void,
    length: usize,
    access: c_int,
) -> *mut ibv_mr {
    if has_optional_flag(access) && has_iova2() {
        // SAFETY: the contract is the caller's; the address that the device sees is the address itself.
        unsafe { table::ibv_reg_mr_iova2(pd, addr, length, addr as u64, access as u32) }
    } else {
        // SAFETY: the contract is the caller's.
        unsafe { table::ibv_reg_mr(pd, addr, length, without_optional_flags(access)) }
    }
}

/// Registers a memory region that the device sees at the address `iova`.
///
/// Port of the macro `ibv_reg_mr_iova` and the inline function `__ibv_reg_mr_iova`: calls the exported
/// `ibv_reg_mr_iova2` if there is an optional flag among `access`, and `ibv_reg_mr_iova` otherwise.
///
/// # Safety
///
/// The contract is that of the C function: see the manual page ibv_reg_mr_iova(3).
#[inline]
pub unsafe fn ibv_reg_mr_iova(
    pd: *mut ibv_pd,
    addr: *mut c_void,
    length: usize,
    iova: u64,
    access: c_int,
) -> *mut ibv_mr {
    if has_optional_flag(access) && has_iova2() {
        // SAFETY: the contract is the caller's.
        unsafe { table::ibv_reg_mr_iova2(pd, addr, length, iova, access as u32) }
    } else {
        // SAFETY: the contract is the caller's.
        unsafe { table::ibv_reg_mr_iova(pd, addr, length, iova, without_optional_flags(access)) }
    }
}

context_operations! {
    /// Gives the device advice about ranges of memory regions.
    fn ibv_advise_mr(
        pd: *mut ibv_pd,
        advice: ibv_advise_mr_advice,
        flags: u32,
        sg_list: *mut ibv_sge,
        num_sge: u32
    ) -> c_int {
        calls advise_mr of pd.context else errno
    }
    /// Allocates a memory region that swallows what is written to it.
    fn ibv_alloc_null_mr(pd: *mut ibv_pd) -> *mut ibv_mr {
        calls alloc_null_mr of pd.context else null
    }
}

/// Allocates a memory window.
///
/// Port of the inline function `ibv_alloc_mw`: calls `alloc_mw` of the context's operations. Null if the provider has no
/// such operation; `errno` is then `EOPNOTSUPP`.
///
/// # Safety
///
/// The contract is that of the C function: see the manual page ibv_alloc_mw(3).
#[inline]
pub unsafe fn ibv_alloc_mw(pd: *mut ibv_pd, mw_type: ibv_mw_type) -> *mut ibv_mw {
    let context = super::context_of!(pd.context);
    // SAFETY: the context of a live protection domain.
    match unsafe { (*context).ops.alloc_mw } {
        // SAFETY: the operation belongs to this function, and its contract is the caller's.
        Some(alloc_mw) => unsafe { alloc_mw(pd, mw_type) },
        None => super::failure!(null),
    }
}

/// Frees a memory window.
///
/// Port of the inline function `ibv_dealloc_mw`: calls `dealloc_mw` of the context's operations. `EOPNOTSUPP` if the
/// provider has no such operation.
///
/// # Safety
///
/// The contract is that of the C function: see the manual page ibv_dealloc_mw(3).
#[inline]
pub unsafe fn ibv_dealloc_mw(mw: *mut ibv_mw) -> c_int {
    let context = super::context_of!(mw.context);
    // SAFETY: the context of a live memory window.
    match unsafe { (*context).ops.dealloc_mw } {
        // SAFETY: the operation belongs to this function, and its contract is the caller's.
        Some(dealloc_mw) => unsafe { dealloc_mw(mw) },
        None => super::failure!(errno),
    }
}

/// Binds a memory window of type 1.
///
/// Port of the inline function `ibv_bind_mw`: `EINVAL` for a window of another type or a range without a region, `EPERM`
/// for a region of another protection domain; else calls `bind_mw` of the context's operations, `EOPNOTSUPP` if the
/// provider has no such operation.
///
/// # Safety
///
/// The contract is that of the C function: see the manual page ibv_bind_mw(3).
#[inline]
pub unsafe fn ibv_bind_mw(qp: *mut ibv_qp, mw: *mut ibv_mw, mw_bind: *mut ibv_mw_bind) -> c_int {
    // SAFETY: a live memory window, as the caller promises.
    let window = unsafe { mw.read() };
    // SAFETY: valid, as the caller promises.
    let info = unsafe { (*mw_bind).bind_info };
    if window.type_ != IBV_MW_TYPE_1 {
        return libc::EINVAL;
    }
    if info.mr.is_null() {
        if info.addr != 0 || info.length != 0 {
            return libc::EINVAL;
        }
    } else {
        // SAFETY: not null, and then a live region, as the caller promises.
        let pd = unsafe { (*info.mr).pd };
        if window.pd != pd {
            return libc::EPERM;
        }
    }
    // SAFETY: the context of a live memory window.
    match unsafe { (*window.context).ops.bind_mw } {
        // SAFETY: the operation belongs to this function, and its contract is the caller's.
        Some(bind_mw) => unsafe { bind_mw(qp, mw, mw_bind) },
        None => super::failure!(errno),
    }
}

/// The key with its lowest 8 bits, the consumer's part, incremented.
///
/// Port of the inline function `ibv_inc_rkey`.
#[inline]
pub const fn ibv_inc_rkey(rkey: u32) -> u32 {
    const TAG: u32 = 0xff;
    (rkey & !TAG) | (rkey.wrapping_add(1) & TAG)
}
