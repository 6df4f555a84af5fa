//! Event channels, and the events that come out of them.

use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ibverbs_sys as ffi;
use null_provider::{CmConn, CmDatagrams, CmEvent, CmRequest, Kind, Verb};

use crate::common::*;

/// Whether the descriptor can be read.
fn is_readable(channel: &Channel) -> bool {
    let mut poll = libc::pollfd { fd: channel.fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: it points to one entry.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    ready == 1 && poll.revents & libc::POLLIN != 0
}

fn set_blocking(channel: &Channel) {
    // SAFETY: the descriptor is open.
    assert_eq!(unsafe { libc::fcntl(channel.fd(), libc::F_SETFL, 0) }, 0);
}

#[cfg_attr(miri, ignore = "no poll")]
#[test]
fn the_descriptor_is_readable_while_there_is_an_event() {
    let null = null();
    let channel = channel();
    let (one, other) = (channel.tcp(), channel.tcp());
    assert!(!is_readable(&channel));
    null.cm_event(one.raw(), CmEvent { event: 77, ..CmEvent::default() });
    null.cm_event(other.raw(), CmEvent { event: 78, ..CmEvent::default() });
    assert!(is_readable(&channel));
    drop(channel.expect(77));
    assert!(is_readable(&channel));
    // An event that nobody has read goes with its identifier.
    drop(other);
    assert!(!is_readable(&channel));
    channel.expect_empty();
}

#[test]
fn reading_waits_until_there_is_an_event() {
    let null = null();
    let channel = channel();
    set_blocking(&channel);
    let id = channel.tcp();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            channel.expect(77);
            done.store(true, Ordering::Relaxed);
        });
        while null.count(Verb::GetCmEvent) == 0 {
            thread::yield_now();
        }
        assert!(!done.load(Ordering::Relaxed));
        null.cm_event(id.raw(), CmEvent { event: 77, ..CmEvent::default() });
    });
}

#[test]
fn a_channel_stays_while_somebody_waits_for_its_events() {
    let null = null();
    let channel = channel();
    set_blocking(&channel);
    let id = channel.tcp();
    thread::scope(|scope| {
        scope.spawn(|| drop(channel.expect(77)));
        while null.count(Verb::GetCmEvent) == 0 {
            thread::yield_now();
        }
        // SAFETY: the provider does not destroy it.
        unsafe { ffi::rdma_destroy_event_channel(channel.raw()) };
        null.cm_event(id.raw(), CmEvent { event: 77, ..CmEvent::default() });
    });
    null.expect_violation("DestroyEventChannel: a thread reads an event of the channel");
}

#[test]
fn waiting_in_vain_is_a_violation() {
    let null = null();
    null.be_impatient();
    let channel = channel();
    set_blocking(&channel);
    let mut raw = null_mut();
    // SAFETY: the channel is alive, and there is room for a pointer.
    fails(unsafe { ffi::rdma_get_cm_event(channel.raw(), &raw mut raw) }, libc::EIO);
    null.expect_violation("it would wait for ever");
}

#[test]
fn an_event_of_any_type_has_the_parameters_of_a_connection() {
    let null = null();
    let channel = channel();
    let id = channel.tcp();
    let conn = CmConn {
        responder_resources: 1,
        initiator_depth: 2,
        flow_control: 3,
        retry_count: 4,
        rnr_retry_count: 5,
        srq: 6,
        qp_num: 7,
    };
    let private_data = vec![9; 255];
    let event = CmEvent { event: 4711, status: -13, conn, private_data, ..CmEvent::default() };
    null.cm_event(id.raw(), event);
    let found = channel.expect(4711);
    assert_eq!(found.get().status, -13);
    assert_eq!(found.get().id, id.raw());
    let param = found.conn();
    assert_eq!((param.responder_resources, param.initiator_depth, param.flow_control), (1, 2, 3));
    assert_eq!((param.retry_count, param.rnr_retry_count, param.srq), (4, 5, 6));
    assert_eq!((param.qp_num, found.private_data()), (7, vec![9; 255]));
}

#[test]
fn events_of_datagrams_say_where_they_go() {
    let null = null();
    let channel = channel();
    let id = channel.create(ffi::RDMA_PS_UDP);
    let mut datagrams = CmDatagrams { qp_num: 5, qkey: 6, ..CmDatagrams::default() };
    datagrams.ah_attr.sl = 3;
    let event = ffi::RDMA_CM_EVENT_ESTABLISHED;
    null.cm_event(id.raw(), CmEvent { event, datagrams, ..CmEvent::default() });
    let found = channel.event().get();
    // SAFETY: the event is one of datagrams.
    let ud = unsafe { found.param.ud };
    assert_eq!((ud.qp_num, ud.qkey, ud.ah_attr.sl), (5, 6, 3));
    assert!(ud.private_data.is_null());
}

#[test]
fn an_event_of_the_program_has_its_argument() {
    let null = null();
    let channel = channel();
    let id = channel.tcp();
    let event = ffi::RDMA_CM_EVENT_USER;
    null.cm_event(id.raw(), CmEvent { event, status: 3, arg: 1 << 40, ..CmEvent::default() });
    let found = channel.event().get();
    // SAFETY: every bit pattern is a number.
    assert_eq!((found.status, unsafe { found.param.arg }), (3, 1 << 40));
}

#[test]
fn requests_come_from_tests_too() {
    let null = null();
    let channel = channel();
    let listener = channel.tcp();
    ok(listener.bind("10.0.0.1:7"));
    ok(listener.listen());
    let event = CmEvent { ece: (0x2c9, 5), ..CmEvent::default() };
    let request = CmRequest { event, src: socket("10.0.0.1:7"), dst: socket("10.0.0.9:1000") };
    null.cm_request(listener.raw(), request.clone());
    let server = channel.expect(ffi::RDMA_CM_EVENT_CONNECT_REQUEST).request();
    assert_eq!((server.src_port(), server.dst_port()), (7, 1000));
    assert!(!server.get().verbs.is_null());
    let mut ece = ffi::ibv_ece::default();
    // SAFETY: the identifier is alive, and there is room for the answer.
    ok(unsafe { ffi::rdma_get_remote_ece(server.raw(), &raw mut ece) });
    assert_eq!((ece.vendor_id, ece.options), (0x2c9, 5));

    // What happens before it is accepted is not reported.
    let lost = CmEvent { event: ffi::RDMA_CM_EVENT_DISCONNECTED, ..CmEvent::default() };
    null.cm_event(server.raw(), lost.clone());
    channel.expect_empty();
    drop(server);

    null.cm_request(listener.raw(), request.clone());
    let server = channel.expect(ffi::RDMA_CM_EVENT_CONNECT_REQUEST).request();
    ok(server.accept(param(22)));
    null.cm_event(server.raw(), lost);
    channel.expect(ffi::RDMA_CM_EVENT_DISCONNECTED);

    // librdmacm rejects a request that it cannot learn about, and goes on to the next event.
    null.cm_request(listener.raw(), request);
    null.cm_event(listener.raw(), CmEvent { event: 77, ..CmEvent::default() });
    null.fail_once(Verb::QueryCmId, libc::ENODEV);
    channel.expect(77);
    expect_live(&null, Kind::CmId, 2);
}

#[test]
fn an_event_is_acknowledged_once() {
    let null = null();
    let channel = channel();
    let id = channel.tcp();
    null.cm_event(id.raw(), CmEvent { event: 77, ..CmEvent::default() });
    let raw = channel.event();
    let again = raw.0;
    expect_live(&null, Kind::CmEvent, 1);
    ok(raw.ack());
    expect_live(&null, Kind::CmEvent, 0);
    // SAFETY: the provider does not look into the event before it knows that it is alive.
    fails(unsafe { ffi::rdma_ack_cm_event(again) }, libc::EINVAL);
    null.expect_violation("AckCmEvent: no CmEvent is alive");
    // SAFETY: the library refuses null.
    fails(unsafe { ffi::rdma_ack_cm_event(null_mut()) }, libc::EINVAL);
}

#[test]
fn a_request_is_acknowledged_before_the_listener_goes() {
    let null = null();
    null.be_impatient();
    let channel = channel();
    let listener = channel.tcp();
    ok(listener.bind("10.0.0.1:7"));
    ok(listener.listen());
    let (src, dst) = (socket("10.0.0.1:7"), socket("10.0.0.9:1000"));
    null.cm_request(listener.raw(), CmRequest { event: CmEvent::default(), src, dst });
    let request = channel.event();
    // The new identifier does not wait for it, but the listener does.
    drop(request.request());
    fails(listener.destroy(), libc::EBUSY);
    null.expect_violation("DestroyCmId: an event of the identifier is not acknowledged");
    drop(request);
    null.reset();
    std::mem::forget((listener, channel));
}

#[test]
fn a_channel_goes_after_its_identifiers() {
    let null = null();
    let channel = channel();
    let id = channel.tcp();
    // SAFETY: the provider does not destroy it.
    unsafe { ffi::rdma_destroy_event_channel(channel.raw()) };
    null.expect_violation("DestroyEventChannel: the EventChannel is still used by [CmId]");
    drop(id);
}

#[test]
fn channels_may_fail() {
    let null = null();
    null.fail_once(Verb::CreateEventChannel, libc::ENOENT);
    // SAFETY: the function has no preconditions.
    assert!(unsafe { ffi::rdma_create_event_channel() }.is_null());
    assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::ENOENT));
    let channel = channel();
    null.fail_once(Verb::GetCmEvent, libc::EINTR);
    let mut raw = null_mut();
    // SAFETY: the channel is alive, and there is room for a pointer.
    fails(unsafe { ffi::rdma_get_cm_event(channel.raw(), &raw mut raw) }, libc::EINTR);
    channel.expect_empty();
}

#[test]
fn events_have_names() {
    let name = |event| {
        // SAFETY: the function takes any number.
        let name = unsafe { ffi::rdma_event_str(event) };
        // SAFETY: it returns a string that is never freed.
        unsafe { std::ffi::CStr::from_ptr(name) }.to_str().unwrap()
    };
    let _null = null();
    assert_eq!(name(ffi::RDMA_CM_EVENT_CONNECT_ERROR), "RDMA_CM_EVENT_CONNECT_ERROR");
    assert_eq!(name(ffi::RDMA_CM_EVENT_USER), "UNKNOWN EVENT");
}
