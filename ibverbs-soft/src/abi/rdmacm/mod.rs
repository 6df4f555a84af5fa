//! What stands in the place of librdmacm: identifiers, their events, and what they ask the connection manager for.
//!
//! Where librdmacm asks the kernel, this asks the [connection manager](crate::cm) of a device; what the kernel knows besides (the
//! states of identifiers, ports, which device has an address) is here. What each call refuses, and with which error number, is as
//! there. Not here: services of InfiniBand's subnet administration, XRC, and `rsocket`.

mod address;
mod addrinfo;
mod attr;
mod channel;
mod connect;
mod endpoint;
mod event;
mod id;
mod multicast;
mod option;
mod ports;
mod qp;
mod registry;
mod resolve;

use ibverbs_sys as ffi;

/// What is not here, the process's table answers with `EOPNOTSUPP`.
pub(super) static RDMACM: ffi::Rdmacm = ffi::Rdmacm {
    rdma_create_event_channel: Some(channel::create_event_channel),
    rdma_destroy_event_channel: Some(channel::destroy_event_channel),
    rdma_get_cm_event: Some(event::get_cm_event),
    rdma_ack_cm_event: Some(event::ack_cm_event),
    rdma_event_str: Some(super::names::cm_event_str),
    rdma_create_id: Some(id::create_id),
    rdma_destroy_id: Some(id::destroy_id),
    rdma_migrate_id: Some(id::migrate_id),
    rdma_bind_addr: Some(resolve::bind_addr),
    rdma_listen: Some(resolve::listen),
    rdma_resolve_addr: Some(resolve::resolve_addr),
    rdma_resolve_route: Some(resolve::resolve_route),
    rdma_get_src_port: Some(resolve::get_src_port),
    rdma_get_dst_port: Some(resolve::get_dst_port),
    rdma_connect: Some(connect::connect),
    rdma_accept: Some(connect::accept),
    rdma_reject: Some(connect::reject),
    rdma_reject_ece: Some(connect::reject_ece),
    rdma_establish: Some(connect::establish),
    rdma_disconnect: Some(connect::disconnect),
    rdma_notify: Some(connect::notify),
    rdma_join_multicast: Some(multicast::join_multicast),
    rdma_join_multicast_ex: Some(multicast::join_multicast_ex),
    rdma_leave_multicast: Some(multicast::leave_multicast),
    rdma_init_qp_attr: Some(attr::init_qp_attr),
    rdma_create_qp: Some(qp::create_qp),
    rdma_create_qp_ex: Some(qp::create_qp_ex),
    rdma_destroy_qp: Some(qp::destroy_qp),
    rdma_create_srq: Some(qp::create_srq),
    rdma_create_srq_ex: Some(qp::create_srq_ex),
    rdma_destroy_srq: Some(qp::destroy_srq),
    rdma_create_ep: Some(endpoint::create_ep),
    rdma_destroy_ep: Some(endpoint::destroy_ep),
    rdma_get_request: Some(endpoint::get_request),
    rdma_set_option: Some(option::set_option),
    rdma_set_local_ece: Some(option::set_local_ece),
    rdma_get_remote_ece: Some(option::get_remote_ece),
    rdma_write_cm_event: Some(event::write_cm_event),
    rdma_get_devices: Some(registry::get_devices),
    rdma_free_devices: Some(registry::free_devices),
    rdma_getaddrinfo: Some(addrinfo::getaddrinfo),
    rdma_freeaddrinfo: Some(addrinfo::freeaddrinfo),
    rdma_resolve_addrinfo: Some(addrinfo::resolve_addrinfo),
    rdma_query_addrinfo: Some(addrinfo::query_addrinfo),
    ..ffi::Rdmacm::EMPTY
};
