//! Completion queues.

use core::ffi::{c_int, c_uint};

use super::{context_operations, object_calls};
use crate::bindings::*;

/// The plain completion queue that an extended one begins with.
///
/// Port of the inline function `ibv_cq_ex_to_cq`.
#[inline]
pub const fn ibv_cq_ex_to_cq(cq: *mut ibv_cq_ex) -> *mut ibv_cq {
    cq.cast()
}

context_operations! {
    /// Creates an extended completion queue.
    fn ibv_create_cq_ex(context: *mut ibv_context, cq_attr: *mut ibv_cq_init_attr_ex) -> *mut ibv_cq_ex {
        calls create_cq_ex of context else null
    }
    /// Modifies the moderation of a completion queue.
    fn ibv_modify_cq(cq: *mut ibv_cq, attr: *mut ibv_modify_cq_attr) -> c_int {
        calls modify_cq of cq.context else errno
    }
}

/// Polls a completion queue for plain completions; returns their number, or a negative one for an error.
///
/// Port of the inline function `ibv_poll_cq`: calls `poll_cq` of the context's operations.
///
/// # Safety
///
/// The contract is that of the C function: see the manual page ibv_poll_cq(3). Every provider has the operation.
#[inline]
pub unsafe fn ibv_poll_cq(cq: *mut ibv_cq, num_entries: c_int, wc: *mut ibv_wc) -> c_int {
    let context = super::context_of!(cq.context);
    // SAFETY: the context of a live completion queue.
    let field = unsafe { &raw const (*context).ops.poll_cq };
    // SAFETY: part of that context, and set, as the caller promises.
    let poll_cq = unsafe { super::present(field) };
    // SAFETY: the operation belongs to this function, and its contract is the caller's.
    unsafe { poll_cq(cq, num_entries, wc) }
}

/// Asks for an event at the next completion, or at the next solicited one.
///
/// Port of the inline function `ibv_req_notify_cq`: calls `req_notify_cq` of the context's operations.
///
/// # Safety
///
/// The contract is that of the C function: see the manual page ibv_req_notify_cq(3). Every provider has the operation.
#[inline]
pub unsafe fn ibv_req_notify_cq(cq: *mut ibv_cq, solicited_only: c_int) -> c_int {
    let context = super::context_of!(cq.context);
    // SAFETY: the context of a live completion queue.
    let field = unsafe { &raw const (*context).ops.req_notify_cq };
    // SAFETY: part of that context, and set, as the caller promises.
    let req_notify_cq = unsafe { super::present(field) };
    // SAFETY: the operation belongs to this function, and its contract is the caller's.
    unsafe { req_notify_cq(cq, solicited_only) }
}

object_calls! {
    /// Opens a poll and reads the first completion; `ENOENT` if there is none, and then the poll is not open.
    fn ibv_start_poll(cq: *mut ibv_cq_ex, attr: *mut ibv_poll_cq_attr) -> c_int {
        calls start_poll
    }
    /// Reads the next completion; `ENOENT` if there is none.
    fn ibv_next_poll(cq: *mut ibv_cq_ex) -> c_int {
        calls next_poll
    }
    /// Closes a poll.
    fn ibv_end_poll(cq: *mut ibv_cq_ex) {
        calls end_poll
    }
    /// The current completion's opcode.
    fn ibv_wc_read_opcode(cq: *mut ibv_cq_ex) -> ibv_wc_opcode {
        calls read_opcode
    }
    /// The vendor's error code of a failed completion.
    fn ibv_wc_read_vendor_err(cq: *mut ibv_cq_ex) -> u32 {
        calls read_vendor_err
    }
    /// The number of bytes transferred.
    fn ibv_wc_read_byte_len(cq: *mut ibv_cq_ex) -> u32 {
        calls read_byte_len
    }
    /// The immediate data, in network byte order.
    fn ibv_wc_read_imm_data(cq: *mut ibv_cq_ex) -> __be32 {
        calls read_imm_data
    }
    /// The key that the peer's send has invalidated; the provider reads it like immediate data.
    fn ibv_wc_read_invalidated_rkey(cq: *mut ibv_cq_ex) -> u32 {
        calls read_imm_data
    }
    /// The local queue pair's number.
    fn ibv_wc_read_qp_num(cq: *mut ibv_cq_ex) -> u32 {
        calls read_qp_num
    }
    /// The remote queue pair's number.
    fn ibv_wc_read_src_qp(cq: *mut ibv_cq_ex) -> u32 {
        calls read_src_qp
    }
    /// The completion's flags, of `ibv_wc_flags`.
    fn ibv_wc_read_wc_flags(cq: *mut ibv_cq_ex) -> c_uint {
        calls read_wc_flags
    }
    /// The source's local identifier.
    fn ibv_wc_read_slid(cq: *mut ibv_cq_ex) -> u32 {
        calls read_slid
    }
    /// The service level.
    fn ibv_wc_read_sl(cq: *mut ibv_cq_ex) -> u8 {
        calls read_sl
    }
    /// The path bits of the destination's local identifier.
    fn ibv_wc_read_dlid_path_bits(cq: *mut ibv_cq_ex) -> u8 {
        calls read_dlid_path_bits
    }
    /// The device's clock at the completion.
    fn ibv_wc_read_completion_ts(cq: *mut ibv_cq_ex) -> u64 {
        calls read_completion_ts
    }
    /// The time of the completion in nanoseconds since the epoch.
    fn ibv_wc_read_completion_wallclock_ns(cq: *mut ibv_cq_ex) -> u64 {
        calls read_completion_wallclock_ns
    }
    /// The VLAN tag that was stripped.
    fn ibv_wc_read_cvlan(cq: *mut ibv_cq_ex) -> u16 {
        calls read_cvlan
    }
    /// The tag that a flow's action has set.
    fn ibv_wc_read_flow_tag(cq: *mut ibv_cq_ex) -> u32 {
        calls read_flow_tag
    }
    /// The header of a tag-matched message.
    fn ibv_wc_read_tm_info(cq: *mut ibv_cq_ex, tm_info: *mut ibv_wc_tm_info) {
        calls read_tm_info
    }
}
