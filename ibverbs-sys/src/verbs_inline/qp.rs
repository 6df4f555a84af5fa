//! Queue pairs.

use core::ffi::c_int;

use super::context_operations;
use crate::bindings::*;
use crate::table;

/// Creates a queue pair with extended attributes.
///
/// Port of the inline function `ibv_create_qp_ex`: calls `ibv_create_qp` if the attributes are the plain ones and the
/// protection domain, and `create_qp_ex` of the `verbs_context` otherwise. Null if the provider has no such operation;
/// `errno` is then `EOPNOTSUPP`.
///
/// # Safety
///
/// The contract is that of the C function: see the manual page ibv_create_qp_ex(3).
#[inline]
pub unsafe fn ibv_create_qp_ex(
    context: *mut ibv_context,
    qp_init_attr_ex: *mut ibv_qp_init_attr_ex,
) -> *mut ibv_qp {
    // SAFETY: valid, as the caller promises.
    let mask = unsafe { (*qp_init_attr_ex).comp_mask };
    if mask == IBV_QP_INIT_ATTR_PD {
        // SAFETY: valid, as the caller promises.
        let pd = unsafe { (*qp_init_attr_ex).pd };
        // SAFETY: the mask says that the domain is set; and the structure begins with the fields of `ibv_qp_init_attr`.
        return unsafe { table::ibv_create_qp(pd, qp_init_attr_ex.cast()) };
    }
    match super::operation!(context, create_qp_ex) {
        // SAFETY: the operation belongs to this function, and its contract is the caller's.
        Some(create_qp_ex) => unsafe { create_qp_ex(context, qp_init_attr_ex) },
        None => super::failure!(null),
    }
}

context_operations! {
    /// Opens a shared queue pair.
    fn ibv_open_qp(context: *mut ibv_context, qp_open_attr: *mut ibv_qp_open_attr) -> *mut ibv_qp {
        calls open_qp of context else null
    }
    /// Limits the rate at which a queue pair sends.
    fn ibv_modify_qp_rate_limit(qp: *mut ibv_qp, attr: *mut ibv_qp_rate_limit_attr) -> c_int {
        calls modify_qp_rate_limit of qp.context else errno
    }
}

/// Posts a list of send work requests.
///
/// Port of the inline function `ibv_post_send`: calls `post_send` of the context's operations.
///
/// # Safety
///
/// The contract is that of the C function: see the manual page ibv_post_send(3). Every provider has the operation.
#[inline]
pub unsafe fn ibv_post_send(
    qp: *mut ibv_qp,
    wr: *mut ibv_send_wr,
    bad_wr: *mut *mut ibv_send_wr,
) -> c_int {
    let context = super::context_of!(qp.context);
    // SAFETY: the context of a live queue pair.
    let field = unsafe { &raw const (*context).ops.post_send };
    // SAFETY: part of that context, and set, as the caller promises.
    let post_send = unsafe { super::present(field) };
    // SAFETY: the operation belongs to this function, and its contract is the caller's.
    unsafe { post_send(qp, wr, bad_wr) }
}

/// Posts a list of receive work requests.
///
/// Port of the inline function `ibv_post_recv`: calls `post_recv` of the context's operations.
///
/// # Safety
///
/// The contract is that of the C function: see the manual page ibv_post_recv(3). Every provider has the operation.
#[inline]
pub unsafe fn ibv_post_recv(
    qp: *mut ibv_qp,
    wr: *mut ibv_recv_wr,
    bad_wr: *mut *mut ibv_recv_wr,
) -> c_int {
    let context = super::context_of!(qp.context);
    // SAFETY: the context of a live queue pair.
    let field = unsafe { &raw const (*context).ops.post_recv };
    // SAFETY: part of that context, and set, as the caller promises.
    let post_recv = unsafe { super::present(field) };
    // SAFETY: the operation belongs to this function, and its contract is the caller's.
    unsafe { post_recv(qp, wr, bad_wr) }
}

/// Whether a mask of supported types, as in `ibv_tso_caps`, has this type of queue pair.
///
/// Port of the inline function `ibv_is_qpt_supported`. A type whose number is no bit of the mask is not supported.
#[inline]
pub const fn ibv_is_qpt_supported(caps: u32, qpt: ibv_qp_type) -> bool {
    qpt < u32::BITS && caps & (1 << qpt) != 0
}
