//! Shared receive queues.

use core::ffi::c_int;

use super::context_operations;
use crate::bindings::*;
use crate::table;

/// Creates a shared receive queue with extended attributes.
///
/// Port of the inline function `ibv_create_srq_ex`: calls `ibv_create_srq` for a basic queue that is described by nothing
/// but its protection domain and type, and `create_srq_ex` of the `verbs_context` otherwise. Null if the provider has no
/// such operation; `errno` is then `EOPNOTSUPP`.
///
/// # Safety
///
/// The contract is that of the C function: see the manual page ibv_create_srq_ex(3).
#[inline]
pub unsafe fn ibv_create_srq_ex(
    context: *mut ibv_context,
    srq_init_attr_ex: *mut ibv_srq_init_attr_ex,
) -> *mut ibv_srq {
    // SAFETY: valid, as the caller promises.
    let attr = unsafe { srq_init_attr_ex.read() };
    let basic = attr.comp_mask & IBV_SRQ_INIT_ATTR_TYPE == 0 || attr.srq_type == IBV_SRQT_BASIC;
    let plain = attr.comp_mask & !IBV_SRQ_INIT_ATTR_TYPE == IBV_SRQ_INIT_ATTR_PD;
    if basic && plain {
        // SAFETY: the mask says that the domain is set; and the structure begins with the fields of `ibv_srq_init_attr`.
        return unsafe { table::ibv_create_srq(attr.pd, srq_init_attr_ex.cast()) };
    }
    match super::operation!(context, create_srq_ex) {
        // SAFETY: the operation belongs to this function, and its contract is the caller's.
        Some(create_srq_ex) => unsafe { create_srq_ex(context, srq_init_attr_ex) },
        None => super::failure!(null),
    }
}

context_operations! {
    /// Reads the number of a shared receive queue.
    fn ibv_get_srq_num(srq: *mut ibv_srq, srq_num: *mut u32) -> c_int {
        calls get_srq_num of srq.context else errno
    }
}

/// Posts a list of receive work requests to a shared receive queue.
///
/// Port of the inline function `ibv_post_srq_recv`: calls `post_srq_recv` of the context's operations.
///
/// # Safety
///
/// The contract is that of the C function: see the manual page ibv_post_srq_recv(3). A provider that has created a shared
/// receive queue has the operation.
#[inline]
pub unsafe fn ibv_post_srq_recv(
    srq: *mut ibv_srq,
    recv_wr: *mut ibv_recv_wr,
    bad_recv_wr: *mut *mut ibv_recv_wr,
) -> c_int {
    let context = super::context_of!(srq.context);
    // SAFETY: the context of a live shared receive queue.
    let field = unsafe { &raw const (*context).ops.post_srq_recv };
    // SAFETY: part of that context, and set, as the caller promises.
    let post_srq_recv = unsafe { super::present(field) };
    // SAFETY: the operation belongs to this function, and its contract is the caller's.
    unsafe { post_srq_recv(srq, recv_wr, bad_recv_wr) }
}

/// Posts a list of tag-matching operations to a shared receive queue.
///
/// Port of the inline function `ibv_post_srq_ops`: calls `post_srq_ops` of the `verbs_context`. If the provider has no such
/// operation, `*bad_op` is the first one of the list, and the result is `EOPNOTSUPP`.
///
/// # Safety
///
/// The contract is that of the C function: see the manual page ibv_post_srq_ops(3).
#[inline]
pub unsafe fn ibv_post_srq_ops(
    srq: *mut ibv_srq,
    op: *mut ibv_ops_wr,
    bad_op: *mut *mut ibv_ops_wr,
) -> c_int {
    let context = super::context_of!(srq.context);
    match super::operation!(context, post_srq_ops) {
        // SAFETY: the operation belongs to this function, and its contract is the caller's.
        Some(post_srq_ops) => unsafe { post_srq_ops(srq, op, bad_op) },
        None => {
            // SAFETY: valid for a write, as the caller promises.
            unsafe { bad_op.write(op) };
            super::failure!(errno)
        }
    }
}
