//! Work requests of the extended interface.

use core::ffi::{c_int, c_void};

use super::object_calls;
use crate::bindings::*;

object_calls! {
    /// Opens a batch of work requests.
    fn ibv_wr_start(qp: *mut ibv_qp_ex) {
        calls wr_start
    }
    /// Posts the batch; an error number if it was not posted.
    fn ibv_wr_complete(qp: *mut ibv_qp_ex) -> c_int {
        calls wr_complete
    }
    /// Discards the batch.
    fn ibv_wr_abort(qp: *mut ibv_qp_ex) {
        calls wr_abort
    }
    /// Begins an atomic compare and swap.
    fn ibv_wr_atomic_cmp_swp(qp: *mut ibv_qp_ex, rkey: u32, remote_addr: u64, compare: u64, swap: u64) {
        calls wr_atomic_cmp_swp
    }
    /// Begins an atomic fetch and add.
    fn ibv_wr_atomic_fetch_add(qp: *mut ibv_qp_ex, rkey: u32, remote_addr: u64, add: u64) {
        calls wr_atomic_fetch_add
    }
    /// Begins an atomic write of 8 bytes.
    fn ibv_wr_atomic_write(qp: *mut ibv_qp_ex, rkey: u32, remote_addr: u64, atomic_wr: *const c_void) {
        calls wr_atomic_write
    }
    /// Begins the binding of a memory window of type 2.
    fn ibv_wr_bind_mw(qp: *mut ibv_qp_ex, mw: *mut ibv_mw, rkey: u32, bind_info: *const ibv_mw_bind_info) {
        calls wr_bind_mw
    }
    /// Begins a local invalidation of a key.
    fn ibv_wr_local_inv(qp: *mut ibv_qp_ex, invalidate_rkey: u32) {
        calls wr_local_inv
    }
    /// Begins an RDMA read.
    fn ibv_wr_rdma_read(qp: *mut ibv_qp_ex, rkey: u32, remote_addr: u64) {
        calls wr_rdma_read
    }
    /// Begins an RDMA write.
    fn ibv_wr_rdma_write(qp: *mut ibv_qp_ex, rkey: u32, remote_addr: u64) {
        calls wr_rdma_write
    }
    /// Begins an RDMA write with immediate data, in network byte order.
    fn ibv_wr_rdma_write_imm(qp: *mut ibv_qp_ex, rkey: u32, remote_addr: u64, imm_data: __be32) {
        calls wr_rdma_write_imm
    }
    /// Begins a flush of remote memory.
    fn ibv_wr_flush(qp: *mut ibv_qp_ex, rkey: u32, remote_addr: u64, len: usize, flush_type: u8, level: u8) {
        calls wr_flush
    }
    /// Begins a send.
    fn ibv_wr_send(qp: *mut ibv_qp_ex) {
        calls wr_send
    }
    /// Begins a send with immediate data, in network byte order.
    fn ibv_wr_send_imm(qp: *mut ibv_qp_ex, imm_data: __be32) {
        calls wr_send_imm
    }
    /// Begins a send that invalidates a key of the peer.
    fn ibv_wr_send_inv(qp: *mut ibv_qp_ex, invalidate_rkey: u32) {
        calls wr_send_inv
    }
    /// Begins a send that the device splits into TCP segments.
    fn ibv_wr_send_tso(qp: *mut ibv_qp_ex, hdr: *mut c_void, hdr_sz: u16, mss: u16) {
        calls wr_send_tso
    }
    /// Addresses the datagram.
    fn ibv_wr_set_ud_addr(qp: *mut ibv_qp_ex, ah: *mut ibv_ah, remote_qpn: u32, remote_qkey: u32) {
        calls wr_set_ud_addr
    }
    /// Names the remote shared receive queue.
    fn ibv_wr_set_xrc_srqn(qp: *mut ibv_qp_ex, remote_srqn: u32) {
        calls wr_set_xrc_srqn
    }
    /// Sets inline data, which is copied.
    fn ibv_wr_set_inline_data(qp: *mut ibv_qp_ex, addr: *mut c_void, length: usize) {
        calls wr_set_inline_data
    }
    /// Sets inline data of several buffers, which are copied.
    fn ibv_wr_set_inline_data_list(qp: *mut ibv_qp_ex, num_buf: usize, buf_list: *const ibv_data_buf) {
        calls wr_set_inline_data_list
    }
    /// Sets one scatter entry.
    fn ibv_wr_set_sge(qp: *mut ibv_qp_ex, lkey: u32, addr: u64, length: u32) {
        calls wr_set_sge
    }
    /// Sets a scatter list.
    fn ibv_wr_set_sge_list(qp: *mut ibv_qp_ex, num_sge: usize, sg_list: *const ibv_sge) {
        calls wr_set_sge_list
    }
}
