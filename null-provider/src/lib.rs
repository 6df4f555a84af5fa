//! A provider of verbs that does next to nothing.
//!
//! It takes the place of libibverbs and librdmacm in a process, in Rust, without threads, sockets or a kernel, so
//! that everything above it runs under Miri and the sanitizers as well. It serves two purposes:
//!
//! - **tests** of what no device at hand shows: locks that are really held from one call to another,
//!   verbs that fail to destroy, function pointers that are null, structures that are as short as an
//!   older library's, and values that nobody has heard of. [`Controls`] chooses these, and tells which
//!   calls came, what is still alive, and what was done that a real provider would have punished.
//! - **benchmarks**, whose cost is what is left when the provider's is nothing: [`DataPath::Minimal`].
//!
//! The two devices, `null0` and `null1`, have one active Ethernet port each. Nothing is ever
//! transferred: a work request completes if the test says so. Connections are made within the process, or with
//! a peer that the test plays ([`CmConfig`]).

mod ah;
mod channel;
mod cm;
mod controls;
mod cq;
mod device;
mod dm;
mod efa;
mod event;
mod mcast;
mod minimal;
mod mr;
mod mw;
mod objects;
mod pd;
mod poll;
mod post_send;
mod qp;
mod query;
mod record;
mod recv;
mod srq;
mod wr;

use std::ffi::c_int;

use ibverbs_sys as ffi;
use ibverbs_sys::provider::{self, AlreadyChosen, Provider};

pub use cm::{
    CmAddrInfo, CmArgs, CmCall, CmConfig, CmConn, CmDatagrams, CmEvent, CmReplies, CmRequest,
    During, EditQpAttr,
};
pub use controls::{Config, Controls, DataPath, Edit};
pub use event::Element;
pub use minimal::rewind;
pub use record::{
    Address, Advised, Call, Completion, Kind, Memory, Operation, Path, Payload, PostLimit,
    Registration, Request, Verb,
};

/// What messages call this provider.
pub const NAME: &str = "null";

static VERBS: ffi::Verbs = ffi::Verbs {
    ibv_get_device_list: Some(device::get_device_list),
    ibv_free_device_list: Some(device::free_device_list),
    ibv_get_device_name: Some(device::get_device_name),
    ibv_get_device_index: Some(device::get_device_index),
    ibv_get_device_guid: Some(device::get_device_guid),
    ibv_open_device: Some(device::open_device),
    ibv_close_device: Some(device::close_device),
    ibv_get_async_event: Some(event::get_async_event),
    ibv_ack_async_event: Some(event::ack_async_event),
    ibv_fork_init: Some(device::fork_init),
    ibv_is_fork_initialized: Some(device::is_fork_initialized),
    ibv_query_device: Some(query::query_device),
    ibv_query_port: Some(query::query_port_compat),
    ibv_query_gid: Some(query::query_gid),
    _ibv_query_gid_table: Some(query::query_gid_table),
    ibv_query_pkey: Some(query::query_pkey),
    ibv_alloc_pd: Some(pd::alloc_pd),
    ibv_dealloc_pd: Some(pd::dealloc_pd),
    ibv_reg_mr: Some(mr::reg_mr),
    ibv_reg_mr_iova2: Some(mr::reg_mr_iova2),
    ibv_reg_dmabuf_mr: Some(mr::reg_dmabuf_mr),
    ibv_dereg_mr: Some(mr::dereg_mr),
    ibv_create_comp_channel: Some(channel::create_comp_channel),
    ibv_destroy_comp_channel: Some(channel::destroy_comp_channel),
    ibv_get_cq_event: Some(channel::get_cq_event),
    ibv_ack_cq_events: Some(channel::ack_cq_events),
    ibv_resize_cq: Some(cq::resize_cq),
    ibv_destroy_cq: Some(cq::destroy_cq),
    ibv_qp_to_qp_ex: Some(qp::qp_to_qp_ex),
    ibv_modify_qp: Some(qp::modify_qp),
    ibv_query_qp: Some(qp::query_qp),
    ibv_destroy_qp: Some(qp::destroy_qp),
    ibv_create_srq: Some(srq::create_srq),
    ibv_modify_srq: Some(srq::modify_srq),
    ibv_query_srq: Some(srq::query_srq),
    ibv_destroy_srq: Some(srq::destroy_srq),
    ibv_create_ah: Some(ah::create_ah),
    ibv_destroy_ah: Some(ah::destroy_ah),
    ibv_attach_mcast: Some(mcast::attach_mcast),
    ibv_detach_mcast: Some(mcast::detach_mcast),
    ..ffi::Verbs::EMPTY
};

/// Makes this the provider of the process, and returns its controls; again and again, if it is called
/// more than once.
///
/// # Errors
///
/// [`AlreadyChosen`] if the process has another provider.
///
/// # Safety
///
/// What the controls are told stays within what a provider of some version of rdma-core may do. Values
/// may be any; function pointers may be cleared in `verbs_context`, `ibv_cq_ex`, `efadv_cq` and `ibv_qp_ex`, but
/// not in `ibv_context_ops`, and may not be replaced by other ones; structures are not shorter than
/// those of the first version that had them. And what [`DataPath::Minimal`] demands is kept.
pub unsafe fn install() -> Result<&'static Controls, AlreadyChosen> {
    static NULL: Provider =
        Provider { name: NAME, verbs: &VERBS, rdmacm: &cm::RDMACM, efa: &efa::EFA };
    // SAFETY: the functions do what their manual pages say: they create, count and destroy objects,
    // and report failures by the convention of each. Whatever departs from that is the promise of
    // whoever uses the controls.
    match unsafe { provider::install(NULL) } {
        Err(refused) if refused.in_place != NAME => Err(refused),
        _ => Ok(Controls::get()),
    }
}

/// Sets this thread's `errno`.
fn set_errno(code: c_int) {
    // SAFETY: the function has no preconditions.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: it returned the address of this thread's `errno`, which no other thread accesses.
    unsafe { errno.write(code) }
}

/// Null, with this `errno`: how a verb that creates something fails.
fn null<T>(code: c_int) -> *mut T {
    set_errno(code);
    std::ptr::null_mut()
}
