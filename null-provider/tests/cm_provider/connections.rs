//! Connections from one identifier of the process to another.

use std::ptr::null_mut;

use ibverbs_sys as ffi;
use null_provider::{CmArgs, CmReplies, Verb};

use crate::common::*;

#[test]
fn two_sides_connect_and_disconnect() {
    let null = null();
    let channel = channel();
    let listener = channel.tcp();
    ok(listener.bind("0.0.0.0:7"));
    ok(listener.listen());
    assert!(listener.get().verbs.is_null());

    let client = channel.tcp();
    client.resolve(&channel, "10.0.0.1:7");
    let route = client.get().route;
    assert_eq!(route.num_paths, 1);
    assert_eq!((client.dst_port(), client.get().port_num), (7, 1));
    ok(client.connect(param_with(11, b"hello")));
    let CmArgs::Conn(Some((conn, data))) = null.args(Verb::Connect) else { panic!() };
    assert_eq!((conn.qp_num, conn.responder_resources, &data[..]), (11, 3, &b"hello"[..]));

    let request = channel.expect(ffi::RDMA_CM_EVENT_CONNECT_REQUEST);
    let server = request.request();
    assert_eq!(request.get().listen_id, listener.raw());
    assert_eq!(server.get().context, listener.get().context);
    assert_eq!(server.get().verbs, client.get().verbs);
    assert_eq!((server.src_port(), server.dst_port()), (7, client.src_port()));
    let asked = request.conn();
    // Each side sees the depths from its own end.
    assert_eq!((asked.responder_resources, asked.initiator_depth, asked.qp_num), (2, 3, 11));
    // As long as the message is.
    let data = request.private_data();
    assert_eq!((data.len(), &data[..6]), (56, &b"hello\0"[..]));
    drop(request);

    ok(server.accept(param_with(22, b"welcome")));
    let response = channel.expect(ffi::RDMA_CM_EVENT_CONNECT_RESPONSE);
    assert_eq!(response.get().id, client.raw());
    assert_eq!((response.conn().qp_num, response.private_data().len()), (22, 196));
    drop(response);
    channel.expect_empty();

    ok(client.establish());
    assert_eq!(channel.expect(ffi::RDMA_CM_EVENT_ESTABLISHED).get().id, server.raw());
    fails(client.establish(), libc::EINVAL);

    ok(server.disconnect());
    let both = [channel.event(), channel.event()].map(|event| event.get());
    assert!(both.iter().all(|event| event.event == ffi::RDMA_CM_EVENT_DISCONNECTED));
    assert_eq!(both.map(|event| event.id), [client.raw(), server.raw()]);
    // It is no error if there is no connection any more.
    ok(client.disconnect());
    channel.expect_empty();
}

#[test]
fn a_request_is_rejected_with_data() {
    let _null = null();
    let channel = channel();
    let ends = requested(&channel);
    ok(ends.server.reject(b"no"));
    let rejected = channel.expect(ffi::RDMA_CM_EVENT_REJECTED);
    assert_eq!((rejected.get().id, rejected.get().status), (ends.client.raw(), 28));
    assert_eq!((rejected.private_data().len(), &rejected.private_data()[..3]), (148, &b"no\0"[..]));
    drop(rejected);
    fails(ends.server.accept(param(22)), libc::EINVAL);
    fails(ends.server.reject(b""), libc::EINVAL);
}

#[test]
fn without_a_listener_there_is_a_refusal() {
    let _null = null();
    let channel = channel();
    let client = channel.tcp();
    client.resolve(&channel, "10.0.0.1:7");
    ok(client.connect(param(11)));
    assert_eq!(channel.expect(ffi::RDMA_CM_EVENT_REJECTED).get().status, 8);
    fails(client.connect(param(11)), libc::EINVAL);
}

#[test]
fn whoever_goes_tells_the_other_side() {
    let _null = null();
    let channel = channel();
    let ends = requested(&channel);
    drop(ends.server);
    assert_eq!(channel.expect(ffi::RDMA_CM_EVENT_REJECTED).get().status, 28);
    drop((ends.client, ends.listener));

    let ends = connected(&channel);
    drop(ends.client);
    let lost = channel.expect(ffi::RDMA_CM_EVENT_DISCONNECTED);
    assert_eq!(lost.get().id, ends.server.raw());
    drop(lost);
    drop((ends.server, ends.listener));

    // Before it has accepted, the server does not hear of it.
    let ends = requested(&channel);
    drop(ends.client);
    channel.expect_empty();
    fails(ends.server.accept(param(22)), libc::EINVAL);
}

#[test]
fn requests_that_nobody_reads_are_refused_with_the_listener() {
    let null = null();
    let channel = channel();
    let listener = channel.tcp();
    ok(listener.bind("10.0.0.1:7"));
    ok(listener.listen());
    let client = channel.tcp();
    client.resolve(&channel, "10.0.0.1:7");
    ok(client.connect(param(11)));
    drop(listener);
    assert_eq!(null.cm_unread_requests(), 1);
    let rejected = channel.expect(ffi::RDMA_CM_EVENT_REJECTED);
    assert_eq!((rejected.get().id, rejected.get().status), (client.raw(), 28));
}

#[test]
fn replies_are_silent_if_they_are_switched_off() {
    let null = null();
    null.configure(|config| config.cm.replies = CmReplies::none());
    let channel = channel();
    let client = channel.tcp();
    ok(client.resolve_addr("10.0.0.1:7"));
    channel.expect_empty();
    fails(client.resolve_addr("10.0.0.1:7"), libc::EINVAL);
}

#[test]
fn depths_are_within_the_limits_of_the_device() {
    let null = null();
    let channel = channel();
    let listener = channel.tcp();
    ok(listener.bind("10.0.0.1:7"));
    ok(listener.listen());
    let client = channel.tcp();
    client.resolve(&channel, "10.0.0.1:7");
    let with = |responder_resources, initiator_depth| {
        client.connect(ffi::rdma_conn_param { responder_resources, initiator_depth, ..param(1) })
    };
    fails(with(17, 1), libc::EINVAL);
    fails(with(1, 17), libc::EINVAL);
    null.fail_once(Verb::Connect, libc::ENOMEM);
    fails(with(1, 1), libc::ENOMEM);
    // The largest number means as much as the device can do.
    ok(with(255, 255));
    let request = channel.event();
    assert_eq!((request.conn().responder_resources, request.conn().initiator_depth), (16, 16));
    let server = request.request();
    fails(server.accept(ffi::rdma_conn_param { initiator_depth: 17, ..param(2) }), libc::EINVAL);
}

#[test]
fn private_data_fit_into_the_message() {
    let null = null();
    let channel = channel();
    let listener = channel.tcp();
    ok(listener.bind("10.0.0.1:7"));
    ok(listener.listen());
    let client = channel.tcp();
    client.resolve(&channel, "10.0.0.1:7");
    fails(client.connect(param_with(1, &[1; 57])), libc::EINVAL);
    ok(client.connect(param_with(1, &[1; 56])));
    let request = channel.event();
    assert_eq!(request.private_data(), [1; 56]);
    let server = request.request();
    fails(server.reject(&[1; 149]), libc::EINVAL);
    let CmArgs::Reject { reason: 0, private_data } = null.args(Verb::Reject) else { panic!() };
    assert_eq!(private_data, [1; 149]);
    fails(server.accept(param_with(1, &[1; 197])), libc::EINVAL);
    ok(server.accept(param_with(1, &[1; 196])));
    assert_eq!(channel.event().private_data(), [1; 196]);
}

#[test]
fn connecting_without_a_device_is_a_crash() {
    let null = null();
    let channel = channel();
    let client = channel.tcp();
    fails(client.connect(param(1)), libc::EFAULT);
    null.expect_violation("Connect: null pointer, the identifier has no device");
    // SAFETY: the library refuses null if there is no queue pair.
    fails(unsafe { ffi::rdma_connect(client.raw(), null_mut()) }, libc::EINVAL);
    // Depths that are given explicitly are not looked at for datagrams.
    let datagrams = channel.create(ffi::RDMA_PS_UDP);
    fails(datagrams.connect(param(1)), libc::EINVAL);
    let unlimited = ffi::rdma_conn_param { initiator_depth: 255, ..param(1) };
    fails(datagrams.connect(unlimited), libc::EFAULT);
    null.expect_violation("Connect: null pointer, the identifier has no device");
    fails(client.disconnect(), libc::EINVAL);
}

#[test]
fn accepting_without_parameters_is_a_crash() {
    let null = null();
    let channel = channel();
    let ends = requested(&channel);
    // SAFETY: the provider does not look through the pointer.
    fails(unsafe { ffi::rdma_accept(ends.server.raw(), null_mut()) }, libc::EFAULT);
    null.expect_violation("Accept: null pointer, there are no parameters");
}

#[test]
fn a_reply_can_be_rejected() {
    let null = null();
    let channel = channel();
    let ends = requested(&channel);
    ok(ends.server.accept(param(22)));
    drop(channel.expect(ffi::RDMA_CM_EVENT_CONNECT_RESPONSE));
    // SAFETY: the identifier is alive, and there are no data.
    ok(unsafe { ffi::rdma_reject_ece(ends.client.raw(), null_mut(), 0) });
    let args = CmArgs::Reject { reason: 35, private_data: Vec::new() };
    assert_eq!(null.args(Verb::Reject), args);
    let rejected = channel.expect(ffi::RDMA_CM_EVENT_REJECTED);
    assert_eq!((rejected.get().id, rejected.get().status), (ends.server.raw(), 35));
    drop(rejected);
    fails(ends.client.establish(), libc::EINVAL);
}

#[test]
fn datagram_services_are_found() {
    let _null = null();
    let channel = channel();
    let listener = channel.create(ffi::RDMA_PS_UDP);
    ok(listener.bind("10.0.0.1:7"));
    ok(listener.listen());
    let ask = |client: &Id| {
        client.resolve(&channel, "10.0.0.1:7");
        ok(client.connect(param_with(11, b"who")));
        channel.expect(ffi::RDMA_CM_EVENT_CONNECT_REQUEST)
    };
    let client = channel.create(ffi::RDMA_PS_UDP);
    let request = ask(&client);
    // SAFETY: the event is one of datagrams.
    assert_eq!(unsafe { request.get().param.ud }.private_data_len, 180);
    let server = request.request();
    assert_eq!(server.get().qp_type, ffi::IBV_QPT_UD);
    ok(server.accept(param(22)));
    let answer = channel.expect(ffi::RDMA_CM_EVENT_ESTABLISHED).get();
    assert_eq!(answer.id, client.raw());
    // SAFETY: the event is one of datagrams.
    let ud = unsafe { answer.param.ud };
    assert_eq!((ud.qp_num, ud.qkey, ud.private_data_len), (22, ffi::RDMA_UDP_QKEY, 136));
    assert_eq!((ud.ah_attr.is_global, ud.ah_attr.port_num), (1, 1));
    channel.expect_empty();
    drop((request, client));
    channel.expect_empty();

    let other = channel.create(ffi::RDMA_PS_UDP);
    ok(ask(&other).request().reject(b""));
    // The server hears nothing; the client does before the server's identifier goes.
    assert_eq!(channel.expect(ffi::RDMA_CM_EVENT_UNREACHABLE).get().status, 2);
    drop((listener, server));
    let lost = channel.create(ffi::RDMA_PS_UDP);
    lost.resolve(&channel, "10.0.0.1:7");
    ok(lost.connect(param(1)));
    assert_eq!(channel.expect(ffi::RDMA_CM_EVENT_UNREACHABLE).get().status, 1);
}

/// What a transition to ready-to-receive and one to ready-to-send demand.
const RTR: u32 = ffi::IBV_QP_STATE
    | ffi::IBV_QP_AV
    | ffi::IBV_QP_PATH_MTU
    | ffi::IBV_QP_DEST_QPN
    | ffi::IBV_QP_RQ_PSN
    | ffi::IBV_QP_MAX_DEST_RD_ATOMIC
    | ffi::IBV_QP_MIN_RNR_TIMER;
const RTS: u32 = ffi::IBV_QP_STATE
    | ffi::IBV_QP_SQ_PSN
    | ffi::IBV_QP_RETRY_CNT
    | ffi::IBV_QP_RNR_RETRY
    | ffi::IBV_QP_MAX_QP_RD_ATOMIC
    | ffi::IBV_QP_TIMEOUT;
const BASE: u32 = ffi::IBV_QP_STATE | ffi::IBV_QP_PKEY_INDEX | ffi::IBV_QP_PORT;

#[test]
fn the_attributes_of_queue_pairs_follow_the_connection() {
    let null = null();
    let channel = channel();
    let idle = channel.tcp();
    assert_eq!(idle.qp_attr(ffi::IBV_QPS_INIT).err(), Some(libc::EINVAL));
    ok(idle.bind("10.0.0.1:0"));
    let (attr, mask) = idle.qp_attr(ffi::IBV_QPS_INIT).unwrap();
    assert_eq!(
        (mask, attr.port_num, attr.qp_access_flags),
        (BASE | ffi::IBV_QP_ACCESS_FLAGS, 1, 0)
    );
    assert_eq!(null.args(Verb::InitQpAttr), CmArgs::QpState(ffi::IBV_QPS_INIT));

    let Ends { client, server, .. } = requested(&channel);
    let (attr, mask) = client.qp_attr(ffi::IBV_QPS_INIT).unwrap();
    let flags =
        ffi::IBV_ACCESS_REMOTE_WRITE | ffi::IBV_ACCESS_REMOTE_READ | ffi::IBV_ACCESS_REMOTE_ATOMIC;
    assert_eq!((mask, attr.qp_access_flags), (BASE | ffi::IBV_QP_ACCESS_FLAGS, flags));
    // The client learns more when there is a reply, the server can go on before it accepts.
    assert_eq!(client.qp_attr(ffi::IBV_QPS_RTR).err(), Some(libc::EINVAL));
    let (attr, mask) = server.qp_attr(ffi::IBV_QPS_RTR).unwrap();
    assert_eq!((mask, attr.dest_qp_num, attr.max_dest_rd_atomic), (RTR, 11, 2));
    assert_eq!(attr.qp_state, ffi::IBV_QPS_RTR);
    // It is not written.
    assert_eq!(attr.rate_limit, 5);
    let (attr, mask) = server.qp_attr(ffi::IBV_QPS_RTS).unwrap();
    assert_eq!((mask, attr.max_rd_atomic, attr.retry_cnt, attr.rnr_retry), (RTS, 3, 6, 5));
    assert_eq!(attr.timeout, 19);
    let (name, mut timeout) = (ffi::RDMA_OPTION_ID_ACK_TIMEOUT as i32, 7_u8);
    // SAFETY: the identifier and the value are alive.
    ok(unsafe { ffi::rdma_set_option(server.raw(), 0, name, (&raw mut timeout).cast(), 1) });
    assert_eq!(server.qp_attr(ffi::IBV_QPS_RTS).unwrap().0.timeout, 7);

    ok(server.accept(ffi::rdma_conn_param { initiator_depth: 1, ..param(22) }));
    drop(channel.expect(ffi::RDMA_CM_EVENT_CONNECT_RESPONSE));
    let (attr, mask) = client.qp_attr(ffi::IBV_QPS_RTR).unwrap();
    assert_eq!((mask, attr.dest_qp_num, attr.max_dest_rd_atomic), (RTR, 22, 1));
    assert_eq!(server.qp_attr(ffi::IBV_QPS_RTS).unwrap().0.max_rd_atomic, 1);
    assert_eq!(client.qp_attr(ffi::IBV_QPS_SQD).err(), Some(libc::EINVAL));
    assert_eq!(client.qp_attr(99).err(), Some(libc::EINVAL));

    null.configure(|config| {
        config.cm.edit_qp_attr = Some(Box::new(|attr, mask| {
            attr.timeout = 31;
            *mask = -1;
        }));
    });
    let (attr, mask) = client.qp_attr(ffi::IBV_QPS_RTS).unwrap();
    assert_eq!((attr.timeout, mask), (31, u32::MAX));
}

#[test]
fn the_attributes_of_datagrams_have_a_key() {
    let _null = null();
    let channel = channel();
    let id = channel.create(ffi::RDMA_PS_UDP);
    ok(id.bind("10.0.0.1:0"));
    let (attr, mask) = id.qp_attr(ffi::IBV_QPS_INIT).unwrap();
    assert_eq!((mask, attr.qkey), (BASE | ffi::IBV_QP_QKEY, ffi::RDMA_UDP_QKEY));
}
