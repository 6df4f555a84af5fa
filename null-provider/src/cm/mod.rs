//! librdmacm without a kernel: connection management within the process.
//!
//! The functions keep to `cma.c` of rdma-core 65, and to what the kernel answers it for RoCE devices. What
//! is memory that the program sees (`rdma_cm_id`, `rdma_cm_event`) is written where librdmacm writes it,
//! and freed where it frees it. Calls that use an identifier at the same time are a violation if one of
//! them writes into it, since librdmacm takes no lock there.

mod address;
mod addrinfo;
mod attr;
mod call;
mod channel;
mod connect;
mod controls;
mod device;
mod event;
mod id;
mod kernel;
mod mcast;
mod resolve;
mod values;

use std::ffi::c_char;

use ibverbs_sys as ffi;

use crate::device::DEVICES;

pub(crate) use channel::EventChannel;
pub(crate) use event::Reported;
pub(crate) use id::IdData;
pub use values::{
    CmAddrInfo, CmArgs, CmCall, CmConfig, CmConn, CmDatagrams, CmEvent, CmReplies, CmRequest,
    During, EditQpAttr,
};

pub(crate) static RDMACM: ffi::Rdmacm = ffi::Rdmacm {
    rdma_create_event_channel: Some(channel::create_event_channel),
    rdma_destroy_event_channel: Some(channel::destroy_event_channel),
    rdma_get_cm_event: Some(event::get_cm_event),
    rdma_ack_cm_event: Some(event::ack_cm_event),
    rdma_event_str: Some(event_str),
    rdma_create_id: Some(id::create_id),
    rdma_destroy_id: Some(id::destroy_id),
    rdma_migrate_id: Some(id::migrate_id),
    rdma_set_option: Some(id::set_option),
    rdma_set_local_ece: Some(id::set_local_ece),
    rdma_get_remote_ece: Some(id::get_remote_ece),
    rdma_get_src_port: Some(id::get_src_port),
    rdma_get_dst_port: Some(id::get_dst_port),
    rdma_bind_addr: Some(resolve::bind_addr),
    rdma_listen: Some(resolve::listen),
    rdma_resolve_addr: Some(resolve::resolve_addr),
    rdma_resolve_route: Some(resolve::resolve_route),
    rdma_connect: Some(connect::connect),
    rdma_accept: Some(connect::accept),
    rdma_reject: Some(connect::reject),
    rdma_reject_ece: Some(connect::reject_ece),
    rdma_establish: Some(connect::establish),
    rdma_disconnect: Some(connect::disconnect),
    rdma_init_qp_attr: Some(attr::init_qp_attr),
    rdma_join_multicast_ex: Some(mcast::join_multicast_ex),
    rdma_leave_multicast: Some(mcast::leave_multicast),
    rdma_get_devices: Some(device::get_devices),
    rdma_free_devices: Some(device::free_devices),
    rdma_getaddrinfo: Some(addrinfo::getaddrinfo),
    rdma_freeaddrinfo: Some(addrinfo::freeaddrinfo),
    ..ffi::Rdmacm::EMPTY
};

/// What librdmacm knows apart from its objects.
#[derive(Default)]
pub(crate) struct Cm {
    pub(crate) devices: [device::CmDevice; DEVICES],
    pub(crate) calls: Vec<CmCall>,
    /// The connect requests that nobody had read when their listener was destroyed.
    pub(crate) unread_requests: usize,
    /// How many ports were given away.
    ports: u16,
}

unsafe extern "C" fn event_str(event: ffi::rdma_cm_event_type) -> *const c_char {
    let text = match event {
        ffi::RDMA_CM_EVENT_ADDR_RESOLVED => c"RDMA_CM_EVENT_ADDR_RESOLVED",
        ffi::RDMA_CM_EVENT_ADDR_ERROR => c"RDMA_CM_EVENT_ADDR_ERROR",
        ffi::RDMA_CM_EVENT_ROUTE_RESOLVED => c"RDMA_CM_EVENT_ROUTE_RESOLVED",
        ffi::RDMA_CM_EVENT_ROUTE_ERROR => c"RDMA_CM_EVENT_ROUTE_ERROR",
        ffi::RDMA_CM_EVENT_CONNECT_REQUEST => c"RDMA_CM_EVENT_CONNECT_REQUEST",
        ffi::RDMA_CM_EVENT_CONNECT_RESPONSE => c"RDMA_CM_EVENT_CONNECT_RESPONSE",
        ffi::RDMA_CM_EVENT_CONNECT_ERROR => c"RDMA_CM_EVENT_CONNECT_ERROR",
        ffi::RDMA_CM_EVENT_UNREACHABLE => c"RDMA_CM_EVENT_UNREACHABLE",
        ffi::RDMA_CM_EVENT_REJECTED => c"RDMA_CM_EVENT_REJECTED",
        ffi::RDMA_CM_EVENT_ESTABLISHED => c"RDMA_CM_EVENT_ESTABLISHED",
        ffi::RDMA_CM_EVENT_DISCONNECTED => c"RDMA_CM_EVENT_DISCONNECTED",
        ffi::RDMA_CM_EVENT_DEVICE_REMOVAL => c"RDMA_CM_EVENT_DEVICE_REMOVAL",
        ffi::RDMA_CM_EVENT_MULTICAST_JOIN => c"RDMA_CM_EVENT_MULTICAST_JOIN",
        ffi::RDMA_CM_EVENT_MULTICAST_ERROR => c"RDMA_CM_EVENT_MULTICAST_ERROR",
        ffi::RDMA_CM_EVENT_ADDR_CHANGE => c"RDMA_CM_EVENT_ADDR_CHANGE",
        ffi::RDMA_CM_EVENT_TIMEWAIT_EXIT => c"RDMA_CM_EVENT_TIMEWAIT_EXIT",
        ffi::RDMA_CM_EVENT_ADDRINFO_RESOLVED => c"RDMA_CM_EVENT_ADDRINFO_RESOLVED",
        ffi::RDMA_CM_EVENT_ADDRINFO_ERROR => c"RDMA_CM_EVENT_ADDRINFO_ERROR",
        _ => c"UNKNOWN EVENT",
    };
    text.as_ptr()
}
