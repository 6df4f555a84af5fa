//! The functions that posting calls: they are looked at once, when a queue pair is created, and then called
//! without a check.

use std::ffi::c_int;
use std::ptr::NonNull;

use super::transport::SendOps;
use crate::ffi;

type Post<R> = unsafe extern "C" fn(*mut ffi::ibv_qp, *mut R, *mut *mut R) -> c_int;

/// The functions behind `ibv_post_send` and `ibv_post_recv`. They are of the context, and its provider does not change them
/// once it is open (`verbs_set_ops` in rdma-core's providers).
pub(super) struct Posting {
    pub(super) send: Post<ffi::ibv_send_wr>,
    pub(super) recv: Post<ffi::ibv_recv_wr>,
}

impl Posting {
    /// Those of this queue pair. A provider that has none has one here that fails.
    ///
    /// # Safety
    ///
    /// The queue pair is alive.
    pub(super) unsafe fn of(qp: NonNull<ffi::ibv_qp>) -> Posting {
        // SAFETY: the queue pair is alive, by the caller's promise.
        let context = unsafe { (*qp.as_ptr()).context };
        // SAFETY: the context is open as long as the queue pair is alive.
        let ops = unsafe { &(*context).ops };
        Posting {
            send: ops.post_send.unwrap_or(unsupported),
            recv: ops.post_recv.unwrap_or(unsupported),
        }
    }
}

unsafe extern "C" fn unsupported<R>(_: *mut ffi::ibv_qp, first: *mut R, bad: *mut *mut R) -> c_int {
    // SAFETY: there is room for a pointer (ibv_post_send(3), ibv_post_recv(3)).
    unsafe { bad.write(first) };
    libc::EOPNOTSUPP
}

/// The name of a function that posting will call, but that the provider did not set.
///
/// Functions of operations that were not asked for are not looked at: the structure of an older library
/// may end before them.
///
/// # Safety
///
/// `qp` points to a queue pair that was created with the operations `ops`.
pub(super) unsafe fn missing(
    qp: NonNull<ffi::ibv_qp_ex>,
    ops: SendOps,
    addressed: bool,
) -> Option<&'static str> {
    let qp = qp.as_ptr();
    macro_rules! require {
        ($($function:ident)*) => {
            $(
                // SAFETY: the queue pair is alive, and has this field by the caller's promise.
                if unsafe { (*qp).$function.is_none() } {
                    return Some(concat!("ibv_qp_ex.", stringify!($function)));
                }
            )*
        };
    }
    require!(wr_start wr_complete wr_abort);
    require!(wr_set_sge wr_set_sge_list wr_set_inline_data wr_set_inline_data_list);
    if addressed {
        require!(wr_set_ud_addr);
    }
    macro_rules! require_for {
        ($($op:ident: $function:ident;)*) => {
            $( if ops.contains(SendOps::$op) { require!($function); } )*
        };
    }
    require_for! {
        SEND: wr_send;
        SEND_WITH_IMM: wr_send_imm;
        RDMA_WRITE: wr_rdma_write;
        RDMA_WRITE_WITH_IMM: wr_rdma_write_imm;
        RDMA_READ: wr_rdma_read;
        ATOMIC_CMP_AND_SWP: wr_atomic_cmp_swp;
        ATOMIC_FETCH_AND_ADD: wr_atomic_fetch_add;
        BIND_MW: wr_bind_mw;
        LOCAL_INV: wr_local_inv;
        SEND_WITH_INV: wr_send_inv;
        FLUSH: wr_flush;
        ATOMIC_WRITE: wr_atomic_write;
    }
    None
}
