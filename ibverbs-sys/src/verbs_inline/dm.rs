//! Device memory.

use core::ffi::{c_int, c_uint, c_void};

use super::context_operations;
use crate::bindings::*;

context_operations! {
    /// Allocates memory on the device.
    fn ibv_alloc_dm(context: *mut ibv_context, attr: *mut ibv_alloc_dm_attr) -> *mut ibv_dm {
        calls alloc_dm of context else null
    }
    /// Frees memory on the device.
    fn ibv_free_dm(dm: *mut ibv_dm) -> c_int {
        calls free_dm of dm.context else errno
    }
    /// Registers memory on the device as a memory region.
    fn ibv_reg_dm_mr(
        pd: *mut ibv_pd,
        dm: *mut ibv_dm,
        dm_offset: u64,
        length: usize,
        access: c_uint
    ) -> *mut ibv_mr {
        calls reg_dm_mr of pd.context else null
    }
}

/// Copies to memory on the device.
///
/// Port of the inline function `ibv_memcpy_to_dm`: calls the pointer `memcpy_to_dm` of `struct ibv_dm`. `EOPNOTSUPP` if
/// the provider has not set it.
///
/// # Safety
///
/// The contract is that of the C function: see the manual page ibv_memcpy_to_dm(3).
#[inline]
pub unsafe fn ibv_memcpy_to_dm(
    dm: *mut ibv_dm,
    dm_offset: u64,
    host_addr: *const c_void,
    length: usize,
) -> c_int {
    // SAFETY: live device memory, as the caller promises.
    match unsafe { (*dm).memcpy_to_dm } {
        // SAFETY: the pointer belongs to this function, and its contract is the caller's.
        Some(copy) => unsafe { copy(dm, dm_offset, host_addr, length) },
        None => super::failure!(errno),
    }
}

/// Copies from memory on the device.
///
/// Port of the inline function `ibv_memcpy_from_dm`: calls the pointer `memcpy_from_dm` of `struct ibv_dm`. `EOPNOTSUPP`
/// if the provider has not set it.
///
/// # Safety
///
/// The contract is that of the C function: see the manual page ibv_memcpy_from_dm(3).
#[inline]
pub unsafe fn ibv_memcpy_from_dm(
    host_addr: *mut c_void,
    dm: *mut ibv_dm,
    dm_offset: u64,
    length: usize,
) -> c_int {
    // SAFETY: live device memory, as the caller promises.
    match unsafe { (*dm).memcpy_from_dm } {
        // SAFETY: the pointer belongs to this function, and its contract is the caller's.
        Some(copy) => unsafe { copy(host_addr, dm, dm_offset, length) },
        None => super::failure!(errno),
    }
}
