//! Work queues and their indirection tables.

use core::ffi::c_int;
use core::ptr::null;

use super::context_operations;
use crate::bindings::*;

/// Creates a work queue.
///
/// Port of the inline function `ibv_create_wq`: calls `create_wq` of the `verbs_context`, and initializes the part of the
/// queue that the library itself uses. Null if the provider has no such operation; `errno` is then `EOPNOTSUPP`.
///
/// # Safety
///
/// The contract is that of the C function: see the manual page ibv_create_wq(3).
#[inline]
pub unsafe fn ibv_create_wq(
    context: *mut ibv_context,
    wq_init_attr: *mut ibv_wq_init_attr,
) -> *mut ibv_wq {
    let Some(create_wq) = super::operation!(context, create_wq) else {
        return super::failure!(null);
    };
    // SAFETY: the operation belongs to this function, and its contract is the caller's.
    let wq = unsafe { create_wq(context, wq_init_attr) };
    if wq.is_null() {
        return wq;
    }
    // SAFETY: valid, as the caller promises.
    let wq_context = unsafe { (*wq_init_attr).wq_context };
    // SAFETY: the operation has returned a new queue, which nobody else knows yet.
    unsafe { (*wq).wq_context = wq_context };
    // SAFETY: likewise.
    unsafe { (*wq).events_completed = 0 };
    // SAFETY: likewise.
    let mutex = unsafe { &raw mut (*wq).mutex };
    // SAFETY: likewise.
    let cond = unsafe { &raw mut (*wq).cond };
    // SAFETY: memory for a mutex that is not one yet, with default attributes.
    unsafe { libc::pthread_mutex_init(mutex, null()) };
    // SAFETY: memory for a condition variable that is not one yet, with default attributes.
    unsafe { libc::pthread_cond_init(cond, null()) };
    wq
}

context_operations! {
    /// Modifies a work queue.
    fn ibv_modify_wq(wq: *mut ibv_wq, wq_attr: *mut ibv_wq_attr) -> c_int {
        calls modify_wq of wq.context else errno
    }
    /// Destroys a work queue.
    fn ibv_destroy_wq(wq: *mut ibv_wq) -> c_int {
        calls destroy_wq of wq.context else errno
    }
    /// Creates an indirection table of receive work queues.
    fn ibv_create_rwq_ind_table(
        context: *mut ibv_context,
        init_attr: *mut ibv_rwq_ind_table_init_attr
    ) -> *mut ibv_rwq_ind_table {
        calls create_rwq_ind_table of context else null
    }
    /// Destroys an indirection table of receive work queues.
    fn ibv_destroy_rwq_ind_table(rwq_ind_table: *mut ibv_rwq_ind_table) -> c_int {
        calls destroy_rwq_ind_table of rwq_ind_table.context else errno
    }
}

super::object_calls! {
    /// Posts a list of receive work requests to a work queue.
    fn ibv_post_wq_recv(
        wq: *mut ibv_wq,
        recv_wr: *mut ibv_recv_wr,
        bad_recv_wr: *mut *mut ibv_recv_wr
    ) -> c_int {
        calls post_recv
    }
}
