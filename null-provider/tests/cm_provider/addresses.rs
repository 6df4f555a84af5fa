//! Addresses and routes.

use std::ffi::CString;
use std::ptr::{null, null_mut};

use ibverbs_sys as ffi;
use null_provider::{CmAddrInfo, CmArgs, CmEvent, CmReplies, Kind, Verb};

use crate::common::{self, *};

#[test]
fn binding_chooses_a_port_and_a_device() {
    let null = common::null();
    let channel = channel();
    let (any, own, other) = (channel.tcp(), channel.tcp(), channel.tcp());
    ok(any.bind("0.0.0.0:0"));
    assert!(any.src_port() >= 49152);
    assert!(any.get().verbs.is_null());
    assert_eq!(any.get().port_num, 0);

    ok(own.bind("10.0.0.1:0"));
    assert_eq!(null.args(Verb::BindAddr), CmArgs::Bind(Some(socket("10.0.0.1:0"))));
    assert_ne!(own.src_port(), any.src_port());
    assert_eq!(own.get().port_num, 1);
    // SAFETY: the context is open.
    let device = unsafe { (*own.get().verbs).device };
    // SAFETY: a device lives as long as its context.
    let name = unsafe { ffi::ibv_get_device_name(device) };
    // SAFETY: the device has a name.
    assert_eq!(unsafe { std::ffi::CStr::from_ptr(name) }, c"null0");

    ok(other.bind("10.0.0.2:0"));
    assert_ne!(other.get().verbs, own.get().verbs);
    fails(other.bind("10.0.0.2:0"), libc::EINVAL);
    // SAFETY: the library refuses null.
    fails(unsafe { ffi::rdma_bind_addr(any.raw(), null_mut()) }, libc::EINVAL);
    // The contexts are not the program's.
    expect_live(&null, Kind::Context, 0);
    expect_live(&null, Kind::Pd, 0);
}

#[test]
fn ports_are_given_away_once() {
    let _null = common::null();
    let channel = channel();
    let (one, same, other, datagrams) =
        (channel.tcp(), channel.tcp(), channel.tcp(), channel.create(ffi::RDMA_PS_UDP));
    ok(one.bind("10.0.0.1:7"));
    fails(same.bind("0.0.0.0:7"), libc::EADDRINUSE);
    ok(other.bind("10.0.0.2:7"));
    ok(datagrams.bind("10.0.0.1:7"));
    drop(one);
    ok(same.bind("10.0.0.1:7"));
}

#[test]
fn listeners_are_bound() {
    let null = common::null();
    let channel = channel();
    let (bound, unbound) = (channel.tcp(), channel.tcp());
    ok(bound.bind("10.0.0.1:7"));
    ok(bound.listen());
    assert_eq!(null.args(Verb::Listen), CmArgs::Listen(3));
    fails(bound.listen(), libc::EINVAL);
    ok(unbound.listen());
    assert_ne!(unbound.src_port(), 0);
    fails(unbound.resolve_addr("10.0.0.1:7"), libc::EINVAL);
}

#[test]
fn the_device_is_known_when_the_event_is_read() {
    let null = common::null();
    let channel = channel();
    let id = channel.tcp();
    ok(id.resolve_addr("10.0.0.2:7"));
    let (src, dst) = (None, Some(socket("10.0.0.2:7")));
    let args = CmArgs::ResolveAddr { src, dst, timeout_ms: 2000 };
    assert_eq!(null.args(Verb::ResolveAddr), args);
    assert!(id.get().verbs.is_null());
    assert_eq!((id.src_port(), id.dst_port()), (0, 7));
    drop(channel.expect(ffi::RDMA_CM_EVENT_ADDR_RESOLVED));
    assert!(!id.get().verbs.is_null());
    assert_ne!(id.src_port(), 0);

    ok(id.resolve_route());
    assert_eq!(null.args(Verb::ResolveRoute), CmArgs::ResolveRoute(2000));
    assert!(id.get().route.path_rec.is_null());
    drop(channel.expect(ffi::RDMA_CM_EVENT_ROUTE_RESOLVED));
    // SAFETY: there is a path.
    let path = unsafe { id.get().route.path_rec.read() };
    // SAFETY: all bytes are initialized.
    assert_eq!(unsafe { path.dgid.raw }[12..], [10, 0, 0, 2]);
    fails(id.resolve_route(), libc::EINVAL);
}

#[test]
fn failures_of_librdmacm_itself_become_errors_of_events() {
    let null = common::null();
    let channel = channel();
    let id = channel.tcp();
    for verb in [Verb::OpenDevice, Verb::QueryCmId] {
        null.fail_once(verb, libc::EMFILE);
        null.cm_event(id.raw(), resolved());
        let failed = channel.expect(ffi::RDMA_CM_EVENT_ADDR_ERROR);
        // Not an errno value: what the function inside has returned.
        assert_eq!(failed.get().status, -1);
        assert!(id.get().verbs.is_null());
    }
    // An identifier that has no address is on no device.
    null.cm_event(id.raw(), resolved());
    drop(channel.expect(ffi::RDMA_CM_EVENT_ADDR_ERROR));
}

fn resolved() -> CmEvent {
    CmEvent { event: ffi::RDMA_CM_EVENT_ADDR_RESOLVED, ..CmEvent::default() }
}

#[test]
fn errors_of_resolution_can_be_tried_again() {
    let null = common::null();
    null.configure(|config| config.cm.replies = CmReplies::none());
    let channel = channel();
    let id = channel.tcp();
    let report = |event, status| {
        null.cm_event(id.raw(), CmEvent { event, status, ..CmEvent::default() });
        assert_eq!(channel.expect(event).get().status, status);
    };
    ok(id.resolve_addr("10.0.0.1:7"));
    report(ffi::RDMA_CM_EVENT_ADDR_ERROR, -libc::ETIMEDOUT);
    ok(id.resolve_addr("10.0.0.1:7"));
    report(ffi::RDMA_CM_EVENT_ADDR_RESOLVED, 0);
    ok(id.resolve_route());
    report(ffi::RDMA_CM_EVENT_ROUTE_ERROR, -libc::ETIMEDOUT);
    ok(id.resolve_route());
    report(ffi::RDMA_CM_EVENT_ROUTE_RESOLVED, 0);
    ok(id.connect(param(1)));
    channel.expect_empty();
    report(ffi::RDMA_CM_EVENT_DEVICE_REMOVAL, 0);
    fails(id.disconnect(), libc::EIO);
}

#[test]
fn a_route_without_a_device_is_a_crash() {
    let null = common::null();
    let channel = channel();
    let id = channel.tcp();
    fails(id.resolve_route(), libc::EFAULT);
    null.expect_violation("ResolveRoute: null pointer, the identifier has no device");
    let event = ffi::RDMA_CM_EVENT_ROUTE_RESOLVED;
    null.cm_event(id.raw(), CmEvent { event, ..CmEvent::default() });
    drop(channel.event());
    null.expect_violation("GetCmEvent: null pointer, the identifier has no device");
}

fn addrinfo(
    node: Option<&str>,
    service: Option<&str>,
    hints: Option<ffi::rdma_addrinfo>,
) -> Result<*mut ffi::rdma_addrinfo, i32> {
    let text = |text: Option<&str>| text.map(|text| CString::new(text).unwrap());
    let (node, service) = (text(node), text(service));
    let at = |text: &Option<CString>| text.as_ref().map_or(null(), |text| text.as_ptr());
    let hints = hints.as_ref().map_or(null(), |hints| &raw const *hints);
    let mut list = null_mut();
    // SAFETY: all are null or valid, and there is room for a pointer.
    match unsafe { ffi::rdma_getaddrinfo(at(&node), at(&service), hints, &raw mut list) } {
        0 => Ok(list),
        code => Err(code),
    }
}

#[test]
fn numeric_addresses_are_understood() {
    let null = common::null();
    let list = addrinfo(Some("10.0.0.1"), Some("7"), None).unwrap();
    let args =
        CmArgs::AddrInfo { node: Some("10.0.0.1".to_owned()), service: Some("7".to_owned()) };
    assert_eq!(null.args(Verb::GetAddrInfo), args);
    // SAFETY: the list has an entry.
    let entry = unsafe { list.read() };
    assert_eq!((entry.ai_family, entry.ai_port_space as u32), (libc::AF_INET, ffi::RDMA_PS_TCP));
    assert_eq!((entry.ai_dst_len, entry.ai_src_len), (16, 0));
    assert!(entry.ai_src_addr.is_null() && entry.ai_next.is_null());

    let channel = channel();
    let id = channel.tcp();
    // SAFETY: the identifier and the address are alive.
    ok(unsafe { ffi::rdma_resolve_addr(id.raw(), null_mut(), entry.ai_dst_addr, 1) });
    drop(channel.event());
    assert_eq!(id.dst_port(), 7);
    // SAFETY: the list is freed once.
    unsafe { ffi::rdma_freeaddrinfo(list) };
    // SAFETY: null is no list.
    unsafe { ffi::rdma_freeaddrinfo(null_mut()) };

    let passive = ffi::rdma_addrinfo {
        ai_flags: ffi::RAI_PASSIVE as i32,
        ai_port_space: ffi::RDMA_PS_UDP as i32,
        ..Default::default()
    };
    let list = addrinfo(None, Some("9"), Some(passive)).unwrap();
    // SAFETY: the list has an entry.
    let entry = unsafe { list.read() };
    assert_eq!((entry.ai_family, entry.ai_src_len), (libc::AF_INET6, 28));
    assert_eq!(entry.ai_port_space as u32, ffi::RDMA_PS_UDP);
    // SAFETY: the list is freed once.
    unsafe { ffi::rdma_freeaddrinfo(list) };
    assert_eq!(addrinfo(Some("no such node"), None, None), Err(libc::EAI_NONAME));
    assert_eq!(addrinfo(None, None, None), Err(-1));
    // SAFETY: the provider tells that it is not alive.
    unsafe { ffi::rdma_freeaddrinfo(list) };
    null.expect_violation("FreeAddrInfo: no AddrInfo is alive");
}

#[test]
fn lists_of_addresses_can_be_told() {
    let null = common::null();
    let entries = ["10.0.0.1:7", "10.0.0.2:8"].map(|dst| {
        let src = socket("10.0.0.9:0");
        CmAddrInfo { src: Some(src), dst: Some(socket(dst)) }
    });
    null.configure(|config| config.cm.addrinfo = entries.to_vec());
    let list = addrinfo(Some("somebody"), None, None).unwrap();
    // SAFETY: the list has an entry.
    let first = unsafe { list.read() };
    // SAFETY: and another.
    let second = unsafe { first.ai_next.read() };
    assert!(second.ai_next.is_null());
    let port = |addr: *mut libc::sockaddr| {
        // SAFETY: it is an address of IPv4.
        u16::from_be(unsafe { addr.cast::<libc::sockaddr_in>().read() }.sin_port)
    };
    assert_eq!([first.ai_dst_addr, second.ai_dst_addr, first.ai_src_addr].map(port), [7, 8, 0]);
    expect_live(&null, Kind::AddrInfo, 1);
    // SAFETY: the list is freed once.
    unsafe { ffi::rdma_freeaddrinfo(list) };
    null.fail_once(Verb::GetAddrInfo, libc::ENOMEM);
    assert_eq!(addrinfo(Some("somebody"), None, None), Err(-1));
}
