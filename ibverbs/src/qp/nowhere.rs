//! A queue pair to which nothing is posted: what a batch is given that cannot be begun.

use std::ffi::c_int;
use std::ptr::NonNull;

use crate::ffi;

/// A C structure whose functions do nothing, but that a batch fails. Operations need not ask then whether their batch was
/// begun.
pub(super) struct Nowhere(NonNull<ffi::ibv_qp_ex>);

// SAFETY: it is memory of its own, and its functions look at nothing.
unsafe impl Send for Nowhere {}

/// Functions that do nothing.
macro_rules! nothing {
    ($($name:ident($($argument:ty),*);)*) => {
        $( extern "C" fn $name(_: *mut ffi::ibv_qp_ex $(, _: $argument)*) {} )*
    };
}

nothing! {
    bare();
    key(u32);
    remote(u32, u64);
    remote_imm(u32, u64, u32);
    compare_swap(u32, u64, u64, u64);
    fetch_add(u32, u64, u64);
    bind(*mut ffi::ibv_mw, u32, *const ffi::ibv_mw_bind_info);
    atomic_write(u32, u64, *const std::ffi::c_void);
    flush(u32, u64, usize, u8, u8);
    address(*mut ffi::ibv_ah, u32, u32);
    entry(u32, u64, u32);
    entries(usize, *const ffi::ibv_sge);
    bytes(*mut std::ffi::c_void, usize);
    buffers(usize, *const ffi::ibv_data_buf);
}

extern "C" fn fail(_: *mut ffi::ibv_qp_ex) -> c_int {
    libc::EINVAL
}

impl Nowhere {
    pub(super) fn new() -> Nowhere {
        let qp = Box::new(ffi::ibv_qp_ex {
            wr_start: Some(bare),
            wr_complete: Some(fail),
            wr_abort: Some(bare),
            wr_send: Some(bare),
            wr_send_imm: Some(key),
            wr_send_inv: Some(key),
            wr_local_inv: Some(key),
            wr_rdma_read: Some(remote),
            wr_rdma_write: Some(remote),
            wr_rdma_write_imm: Some(remote_imm),
            wr_atomic_cmp_swp: Some(compare_swap),
            wr_atomic_fetch_add: Some(fetch_add),
            wr_bind_mw: Some(bind),
            wr_atomic_write: Some(atomic_write),
            wr_flush: Some(flush),
            wr_set_ud_addr: Some(address),
            wr_set_sge: Some(entry),
            wr_set_sge_list: Some(entries),
            wr_set_inline_data: Some(bytes),
            wr_set_inline_data_list: Some(buffers),
            ..Default::default()
        });
        Nowhere(NonNull::from(Box::leak(qp)))
    }

    pub(super) fn as_raw(&self) -> NonNull<ffi::ibv_qp_ex> {
        self.0
    }
}

impl Drop for Nowhere {
    fn drop(&mut self) {
        // SAFETY: this is the box that `new` has leaked, and it is dropped once.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}
