//! The inline functions of `rdma_cma.h` and `rdma_verbs.h`.

use core::ffi::{c_int, c_uint, c_void};
use core::ptr::null_mut;

use libc::sockaddr;

use super::{
    ibv_poll_cq, ibv_post_recv, ibv_post_send, ibv_post_srq_recv, ibv_reg_mr, ibv_req_notify_cq,
};
use crate::bindings::*;
use crate::table::{self, set_errno};

/// The local address of an id.
///
/// Port of the inline function `rdma_get_local_addr`.
///
/// # Safety
///
/// `id` is alive.
#[inline]
pub unsafe fn rdma_get_local_addr(id: *mut rdma_cm_id) -> *mut sockaddr {
    // SAFETY: a live id, as the caller promises; the fields of the union all begin where it begins.
    unsafe { &raw mut (*id).route.addr.__bindgen_anon_1 }.cast()
}

/// The address of the peer of an id.
///
/// Port of the inline function `rdma_get_peer_addr`.
///
/// # Safety
///
/// `id` is alive.
#[inline]
pub unsafe fn rdma_get_peer_addr(id: *mut rdma_cm_id) -> *mut sockaddr {
    // SAFETY: a live id, as the caller promises; the fields of the union all begin where it begins.
    unsafe { &raw mut (*id).route.addr.__bindgen_anon_2 }.cast()
}

/// librdmacm's convention for an error number: -1, and `errno`.
///
/// Port of the inline function `rdma_seterrno`.
#[inline]
pub fn rdma_seterrno(error: c_int) -> c_int {
    if error == 0 {
        return 0;
    }
    set_errno(error);
    -1
}

/// Ports of the functions that register memory in the protection domain of an id.
macro_rules! registrations {
    ($($(#[$doc:meta])* fn $name:ident = $access:expr;)*) => {$(
        $(#[$doc])*
        ///
        #[doc = concat!("Port of the inline function `", stringify!($name), "`.")]
        ///
        /// # Safety
        ///
        #[doc = concat!("The contract is that of the C function: see the manual page ", stringify!($name), "(3).")]
        #[inline]
        pub unsafe fn $name(id: *mut rdma_cm_id, addr: *mut c_void, length: usize) -> *mut ibv_mr {
            // SAFETY: a live id, as the caller promises.
            let pd = unsafe { (*id).pd };
            // SAFETY: the domain of a live id; the rest of the contract is the caller's.
            unsafe { ibv_reg_mr(pd, addr, length, $access as c_int) }
        }
    )*};
}

registrations! {
    /// Registers memory for sends and receives.
    fn rdma_reg_msgs = IBV_ACCESS_LOCAL_WRITE;
    /// Registers memory that the peer may read.
    fn rdma_reg_read = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ;
    /// Registers memory that the peer may write.
    fn rdma_reg_write = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE;
}

/// Deregisters a memory region.
///
/// Port of the inline function `rdma_dereg_mr`.
///
/// # Safety
///
/// The contract is that of the C function: see the manual page rdma_dereg_mr(3).
#[inline]
pub unsafe fn rdma_dereg_mr(mr: *mut ibv_mr) -> c_int {
    // SAFETY: the contract is the caller's.
    rdma_seterrno(unsafe { table::ibv_dereg_mr(mr) })
}

/// Posts a receive with a scatter list, to the shared receive queue of the id if it has one.
///
/// Port of the inline function `rdma_post_recvv`.
///
/// # Safety
///
/// The contract is that of the C function: see the manual page rdma_post_recvv(3).
#[inline]
pub unsafe fn rdma_post_recvv(
    id: *mut rdma_cm_id,
    context: *mut c_void,
    sgl: *mut ibv_sge,
    nsge: c_int,
) -> c_int {
    let mut wr =
        ibv_recv_wr { wr_id: context as u64, next: null_mut(), sg_list: sgl, num_sge: nsge };
    let mut bad = null_mut();
    // SAFETY: a live id, as the caller promises.
    let srq = unsafe { (*id).srq };
    if srq.is_null() {
        // SAFETY: a live id, as the caller promises.
        let qp = unsafe { (*id).qp };
        // SAFETY: the queue pair of a live id; the entries and their memory are the caller's contract.
        rdma_seterrno(unsafe { ibv_post_recv(qp, &mut wr, &mut bad) })
    } else {
        // SAFETY: the queue of a live id; the entries and their memory are the caller's contract.
        rdma_seterrno(unsafe { ibv_post_srq_recv(srq, &mut wr, &mut bad) })
    }
}

/// Posts a receive into one buffer.
///
/// Port of the inline function `rdma_post_recv`, without its assertion that the buffer lies in the region.
///
/// # Safety
///
/// The contract is that of the C function: see the manual page rdma_post_recv(3).
#[inline]
pub unsafe fn rdma_post_recv(
    id: *mut rdma_cm_id,
    context: *mut c_void,
    addr: *mut c_void,
    length: usize,
    mr: *mut ibv_mr,
) -> c_int {
    // SAFETY: a live region, as the caller promises.
    let mut sge = unsafe { scatter_entry(addr, length, mr) };
    // SAFETY: one entry; the rest of the contract is the caller's.
    unsafe { rdma_post_recvv(id, context, &mut sge, 1) }
}

/// Posts a send with a scatter list.
///
/// Port of the inline function `rdma_post_sendv`.
///
/// # Safety
///
/// The contract is that of the C function: see the manual page rdma_post_sendv(3).
#[inline]
pub unsafe fn rdma_post_sendv(
    id: *mut rdma_cm_id,
    context: *mut c_void,
    sgl: *mut ibv_sge,
    nsge: c_int,
    flags: c_int,
) -> c_int {
    let wr = work_request(IBV_WR_SEND, context, sgl, nsge, flags);
    // SAFETY: the contract is the caller's.
    unsafe { post(id, wr) }
}

/// Posts a send of one buffer; `mr` may be null for inline data.
///
/// Port of the inline function `rdma_post_send`.
///
/// # Safety
///
/// The contract is that of the C function: see the manual page rdma_post_send(3).
#[inline]
pub unsafe fn rdma_post_send(
    id: *mut rdma_cm_id,
    context: *mut c_void,
    addr: *mut c_void,
    length: usize,
    mr: *mut ibv_mr,
    flags: c_int,
) -> c_int {
    // SAFETY: null or a live region, as the caller promises.
    let mut sge = unsafe { scatter_entry(addr, length, mr) };
    // SAFETY: one entry; the rest of the contract is the caller's.
    unsafe { rdma_post_sendv(id, context, &mut sge, 1, flags) }
}

/// Posts an RDMA read with a scatter list.
///
/// Port of the inline function `rdma_post_readv`.
///
/// # Safety
///
/// The contract is that of the C function: see the manual page rdma_post_readv(3).
#[inline]
pub unsafe fn rdma_post_readv(
    id: *mut rdma_cm_id,
    context: *mut c_void,
    sgl: *mut ibv_sge,
    nsge: c_int,
    flags: c_int,
    remote_addr: u64,
    rkey: u32,
) -> c_int {
    let mut wr = work_request(IBV_WR_RDMA_READ, context, sgl, nsge, flags);
    wr.wr.rdma = ibv_send_wr__bindgen_ty_2__bindgen_ty_1 { remote_addr, rkey };
    // SAFETY: the contract is the caller's.
    unsafe { post(id, wr) }
}

/// Posts an RDMA read into one buffer.
///
/// Port of the inline function `rdma_post_read`.
///
/// # Safety
///
/// The contract is that of the C function: see the manual page rdma_post_read(3).
#[inline]
#[allow(clippy::too_many_arguments)]
pub unsafe fn rdma_post_read(
    id: *mut rdma_cm_id,
    context: *mut c_void,
    addr: *mut c_void,
    length: usize,
    mr: *mut ibv_mr,
    flags: c_int,
    remote_addr: u64,
    rkey: u32,
) -> c_int {
    // SAFETY: a live region, as the caller promises.
    let mut sge = unsafe { scatter_entry(addr, length, mr) };
    // SAFETY: one entry; the rest of the contract is the caller's.
    unsafe { rdma_post_readv(id, context, &mut sge, 1, flags, remote_addr, rkey) }
}

/// Posts an RDMA write with a scatter list.
///
/// Port of the inline function `rdma_post_writev`.
///
/// # Safety
///
/// The contract is that of the C function: see the manual page rdma_post_writev(3).
#[inline]
pub unsafe fn rdma_post_writev(
    id: *mut rdma_cm_id,
    context: *mut c_void,
    sgl: *mut ibv_sge,
    nsge: c_int,
    flags: c_int,
    remote_addr: u64,
    rkey: u32,
) -> c_int {
    let mut wr = work_request(IBV_WR_RDMA_WRITE, context, sgl, nsge, flags);
    wr.wr.rdma = ibv_send_wr__bindgen_ty_2__bindgen_ty_1 { remote_addr, rkey };
    // SAFETY: the contract is the caller's.
    unsafe { post(id, wr) }
}

/// Posts an RDMA write of one buffer; `mr` may be null for inline data.
///
/// Port of the inline function `rdma_post_write`.
///
/// # Safety
///
/// The contract is that of the C function: see the manual page rdma_post_write(3).
#[inline]
#[allow(clippy::too_many_arguments)]
pub unsafe fn rdma_post_write(
    id: *mut rdma_cm_id,
    context: *mut c_void,
    addr: *mut c_void,
    length: usize,
    mr: *mut ibv_mr,
    flags: c_int,
    remote_addr: u64,
    rkey: u32,
) -> c_int {
    // SAFETY: null or a live region, as the caller promises.
    let mut sge = unsafe { scatter_entry(addr, length, mr) };
    // SAFETY: one entry; the rest of the contract is the caller's.
    unsafe { rdma_post_writev(id, context, &mut sge, 1, flags, remote_addr, rkey) }
}

/// Posts a datagram, with the key that librdmacm gives to its datagram queue pairs.
///
/// Port of the inline function `rdma_post_ud_send`.
///
/// # Safety
///
/// The contract is that of the C function: see the manual page rdma_post_ud_send(3).
#[inline]
#[allow(clippy::too_many_arguments)]
pub unsafe fn rdma_post_ud_send(
    id: *mut rdma_cm_id,
    context: *mut c_void,
    addr: *mut c_void,
    length: usize,
    mr: *mut ibv_mr,
    flags: c_int,
    ah: *mut ibv_ah,
    remote_qpn: u32,
) -> c_int {
    // SAFETY: null or a live region, as the caller promises.
    let mut sge = unsafe { scatter_entry(addr, length, mr) };
    let mut wr = work_request(IBV_WR_SEND, context, &mut sge, 1, flags);
    wr.wr.ud =
        ibv_send_wr__bindgen_ty_2__bindgen_ty_3 { ah, remote_qpn, remote_qkey: RDMA_UDP_QKEY };
    // SAFETY: the contract is the caller's.
    unsafe { post(id, wr) }
}

/// Waits for a completion of a send queue; 1 for a completion, and -1 with `errno` for an error.
///
/// Port of the inline function `rdma_get_send_comp`.
///
/// # Safety
///
/// The contract is that of the C function: see the manual page rdma_get_send_comp(3).
pub unsafe fn rdma_get_send_comp(id: *mut rdma_cm_id, wc: *mut ibv_wc) -> c_int {
    // SAFETY: a live id, as the caller promises.
    let queue = unsafe { (*id).send_cq };
    // SAFETY: a live id, as the caller promises.
    let channel = unsafe { (*id).send_cq_channel };
    // SAFETY: the queue and channel of a live id, which belong together.
    unsafe { wait_for_completion(queue, channel, wc) }
}

/// Waits for a completion of a receive queue; 1 for a completion, and -1 with `errno` for an error.
///
/// Port of the inline function `rdma_get_recv_comp`.
///
/// # Safety
///
/// The contract is that of the C function: see the manual page rdma_get_recv_comp(3).
pub unsafe fn rdma_get_recv_comp(id: *mut rdma_cm_id, wc: *mut ibv_wc) -> c_int {
    // SAFETY: a live id, as the caller promises.
    let queue = unsafe { (*id).recv_cq };
    // SAFETY: a live id, as the caller promises.
    let channel = unsafe { (*id).recv_cq_channel };
    // SAFETY: the queue and channel of a live id, which belong together.
    unsafe { wait_for_completion(queue, channel, wc) }
}

/// Polls, arms, polls again (a completion may have come in between) and sleeps, until there is a completion.
///
/// # Safety
///
/// `queue` is alive, reports to `channel` and alone does so; `wc` is valid for a write.
unsafe fn wait_for_completion(
    queue: *mut ibv_cq,
    channel: *mut ibv_comp_channel,
    wc: *mut ibv_wc,
) -> c_int {
    loop {
        // SAFETY: a live queue, and room for one completion.
        let polled = unsafe { ibv_poll_cq(queue, 1, wc) };
        if polled != 0 {
            return if polled < 0 { rdma_seterrno(polled) } else { polled };
        }
        // SAFETY: a live queue.
        let armed = unsafe { ibv_req_notify_cq(queue, 0) };
        if armed != 0 {
            return rdma_seterrno(armed);
        }
        // SAFETY: a live queue, and room for one completion.
        let polled = unsafe { ibv_poll_cq(queue, 1, wc) };
        if polled != 0 {
            return if polled < 0 { rdma_seterrno(polled) } else { polled };
        }
        let mut of = null_mut();
        let mut context = null_mut();
        // SAFETY: a live channel, and places for what it returns.
        let event = unsafe { table::ibv_get_cq_event(channel, &mut of, &mut context) };
        if event != 0 {
            return event;
        }
        // SAFETY: the event that was just taken is of this queue, the only one of the channel.
        unsafe { table::ibv_ack_cq_events(queue, 1) };
    }
}

/// A scatter entry for one buffer, whose key is 0 without a region.
///
/// # Safety
///
/// `mr` is null or a live region.
#[inline]
unsafe fn scatter_entry(addr: *mut c_void, length: usize, mr: *mut ibv_mr) -> ibv_sge {
    // SAFETY: null or a live region, as the caller promises.
    let lkey = if mr.is_null() { 0 } else { unsafe { (*mr).lkey } };
    ibv_sge { addr: addr as u64, length: length as u32, lkey }
}

#[inline]
fn work_request(
    opcode: ibv_wr_opcode,
    context: *mut c_void,
    sg_list: *mut ibv_sge,
    num_sge: c_int,
    flags: c_int,
) -> ibv_send_wr {
    ibv_send_wr {
        wr_id: context as u64,
        sg_list,
        num_sge,
        opcode,
        send_flags: flags as c_uint,
        ..ibv_send_wr::default()
    }
}

/// # Safety
///
/// `id` is alive and has a queue pair; `wr` is as `ibv_post_send` demands.
#[inline]
unsafe fn post(id: *mut rdma_cm_id, mut wr: ibv_send_wr) -> c_int {
    let mut bad = null_mut();
    // SAFETY: a live id, as the caller promises.
    let qp = unsafe { (*id).qp };
    // SAFETY: the queue pair of a live id, and a work request, as the caller promises.
    rdma_seterrno(unsafe { ibv_post_send(qp, &mut wr, &mut bad) })
}
