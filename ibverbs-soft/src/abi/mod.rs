//! The C interface: what stands in the place of libibverbs.
//!
//! C knows an object by a pointer to a structure that it reads, and in a few fields writes: see [`object`]. Everything else about
//! it is behind that structure, where C does not look.

mod ah;
mod batch;
mod buf;
mod channel;
mod context;
mod cq;
mod device;
mod efa;
mod event;
mod lock;
mod mcast;
mod modify;
mod mr;
mod mw;
mod names;
mod object;
mod pd;
mod poll;
mod port;
mod qp;
mod query;
mod rdmacm;
mod recv;
mod route;
mod send;
mod srq;

use std::ffi::c_int;

use ibverbs_sys as ffi;
use ibverbs_sys::provider::Provider;
use rustix::io::Errno;

use crate::device::{configure, Result};
use crate::options::Options;

/// What messages call this provider.
const NAME: &str = "soft";

/// What is not here, the process's table answers with `EOPNOTSUPP`.
static VERBS: ffi::Verbs = ffi::Verbs {
    ibv_get_device_list: Some(device::get_device_list),
    ibv_free_device_list: Some(device::free_device_list),
    ibv_get_device_name: Some(device::get_device_name),
    ibv_get_device_index: Some(device::get_device_index),
    ibv_get_device_guid: Some(device::get_device_guid),
    ibv_open_device: Some(context::open_device),
    ibv_close_device: Some(context::close_device),
    ibv_fork_init: Some(device::fork_init),
    ibv_is_fork_initialized: Some(device::is_fork_initialized),
    ibv_get_async_event: Some(event::get_async_event),
    ibv_ack_async_event: Some(event::ack_async_event),
    ibv_query_device: Some(query::query_device),
    ibv_query_port: Some(port::query_port_compat),
    ibv_query_gid: Some(port::query_gid),
    _ibv_query_gid_ex: Some(port::query_gid_ex),
    _ibv_query_gid_table: Some(port::query_gid_table),
    ibv_query_pkey: Some(port::query_pkey),
    ibv_get_pkey_index: Some(port::get_pkey_index),
    ibv_alloc_pd: Some(pd::alloc_pd),
    ibv_dealloc_pd: Some(pd::dealloc_pd),
    ibv_reg_mr: Some(mr::reg_mr),
    ibv_reg_mr_iova: Some(mr::reg_mr_iova),
    ibv_reg_mr_iova2: Some(mr::reg_mr_iova2),
    ibv_dereg_mr: Some(mr::dereg_mr),
    ibv_alloc_buf: Some(buf::alloc_buf),
    ibv_free_buf: Some(buf::free_buf),
    ibv_reg_buf_mr: Some(buf::reg_buf_mr),
    ibv_export_buf_dmabuf_fd: Some(buf::export_buf_dmabuf_fd),
    ibv_create_comp_channel: Some(channel::create_comp_channel),
    ibv_destroy_comp_channel: Some(channel::destroy_comp_channel),
    ibv_create_cq: Some(cq::create_cq),
    ibv_resize_cq: Some(cq::resize_cq),
    ibv_destroy_cq: Some(cq::destroy_cq),
    ibv_get_cq_event: Some(channel::get_cq_event),
    ibv_ack_cq_events: Some(channel::ack_cq_events),
    ibv_create_srq: Some(srq::create_srq),
    ibv_modify_srq: Some(srq::modify_srq),
    ibv_query_srq: Some(srq::query_srq),
    ibv_destroy_srq: Some(srq::destroy_srq),
    ibv_create_qp: Some(qp::create_qp),
    ibv_qp_to_qp_ex: Some(qp::qp_to_qp_ex),
    ibv_modify_qp: Some(modify::modify_qp),
    ibv_query_qp: Some(modify::query_qp),
    ibv_query_qp_data_in_order: Some(qp::query_qp_data_in_order),
    ibv_destroy_qp: Some(qp::destroy_qp),
    ibv_attach_mcast: Some(mcast::attach_mcast),
    ibv_detach_mcast: Some(mcast::detach_mcast),
    ibv_create_ah: Some(ah::create_ah),
    ibv_init_ah_from_wc: Some(ah::init_ah_from_wc),
    ibv_create_ah_from_wc: Some(ah::create_ah_from_wc),
    ibv_destroy_ah: Some(ah::destroy_ah),
    ibv_wc_status_str: Some(names::wc_status_str),
    ibv_node_type_str: Some(names::node_type_str),
    ibv_port_state_str: Some(names::port_state_str),
    ibv_event_type_str: Some(names::event_type_str),
    ibv_rate_to_mult: Some(names::rate_to_mult),
    mult_to_ibv_rate: Some(names::mult_to_rate),
    ibv_rate_to_mbps: Some(names::rate_to_mbps),
    mbps_to_ibv_rate: Some(names::mbps_to_rate),
    ..ffi::Verbs::EMPTY
};

/// The software devices as a provider of verbs. The options of the first call are those of the process.
pub fn provider(options: Options) -> Provider {
    configure(options);
    Provider { name: NAME, verbs: &VERBS, rdmacm: &rdmacm::RDMACM, efa: &efa::EFA }
}

/// Sets this thread's `errno`.
fn set_errno(errno: Errno) {
    // SAFETY: the function has no preconditions.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: it returned the address of this thread's `errno`, which no other thread accesses.
    unsafe { place.write(errno.raw_os_error()) }
}

/// This thread's `errno`: why a verb that was called here has failed.
fn errno() -> Errno {
    // SAFETY: the function has no preconditions.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: it returned the address of this thread's `errno`, which no other thread accesses.
    Errno::from_raw_os_error(unsafe { place.read() })
}

/// A result as verbs tell it that return 0 or an error number.
fn code(result: Result<()>) -> c_int {
    match result {
        Ok(()) => 0,
        Err(errno) => errno.raw_os_error(),
    }
}

/// A result as verbs tell it that return 0 or -1 with `errno`.
fn minus_one(result: Result<()>) -> c_int {
    match result {
        Ok(()) => 0,
        Err(errno) => {
            set_errno(errno);
            -1
        }
    }
}

/// A result as verbs tell it that return an object or null with `errno`.
fn pointer<T>(result: Result<*mut T>) -> *mut T {
    result.unwrap_or_else(|errno| {
        set_errno(errno);
        std::ptr::null_mut()
    })
}
