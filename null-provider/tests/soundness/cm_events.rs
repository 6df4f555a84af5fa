//! Rules 7, 10 and 14 for the connection manager: its events are copied and acknowledged before anybody sees
//! them, and whatever they say is taken as it is.

use std::sync::atomic::{AtomicPtr, Ordering};

use ibverbs::rdmacm::{
    Acceptor, CmEventType, CmId, ConnectionParams, DatagramRefusal, EventChannel, RejectReason,
    Tcp, Udp,
};
use ibverbs::Error;
use null_provider::{CmConn, CmEvent as Raised, CmRequest, Kind, Verb};

use crate::cm_common::*;
use crate::common::null;

#[test]
fn an_event_is_acknowledged_before_anybody_sees_it() {
    let null = null();
    let mut id = CmId::create(Tcp).unwrap();
    id.resolve_addr(None, address(0), TIMEOUT).unwrap();
    let event = next(&mut id, CmEventType::ADDR_RESOLVED);
    assert_eq!(null.live(Kind::CmEvent), 0);
    assert_eq!(null.count(Verb::AckCmEvent), 1);
    // Nothing is left that destroying it could wait for, and the event goes on to say what it said.
    id.close().unwrap();
    assert_eq!((event.event_type(), event.status()), (CmEventType::ADDR_RESOLVED, 0));
    drop(event);
    assert_eq!(null.count(Verb::AckCmEvent), 1);
}

#[test]
fn a_request_is_acknowledged_while_its_listener_is_there() {
    let null = null();
    let Asked { mut listener, client, client_qp } = asked();
    let mut event = next(&mut listener, CmEventType::CONNECT_REQUEST);
    assert_eq!(null.live(Kind::CmEvent), 0);
    listener.close().unwrap();
    let request = event.take_request().unwrap();
    assert!(event.take_request().is_none(), "it is there once");
    assert_eq!(event.private_data(), [0; 56]);
    drop((client, client_qp));
    drop(event);
    assert_eq!(request.peer_addr().unwrap().ip(), address(0).ip());
}

#[test]
fn that_no_event_can_be_read_is_told() {
    let null = null();
    let channel = EventChannel::create().unwrap();
    let mut id = CmId::create_on(&channel, Tcp).unwrap();
    id.resolve_addr(None, address(0), TIMEOUT).unwrap();
    null.fail_once(Verb::GetCmEvent, libc::EIO);
    assert_eq!(channel.poll_cm_event().unwrap_err().os_error(), Some(libc::EIO));
    // A signal is no reason.
    null.fail_once(Verb::GetCmEvent, libc::EINTR);
    next_on(&channel, CmEventType::ADDR_RESOLVED);
    assert!(channel.poll_cm_event().unwrap().is_none());
}

#[test]
fn unknown_types_and_statuses_are_what_they_are() {
    let null = null();
    let mut id = CmId::create(Tcp).unwrap();
    for event in [20, 77, 0x7fff_ffff, u32::MAX] {
        for status in [i32::MIN, -77_777, -1, 0, 1, 9999, i32::MAX] {
            raise(&null, &id, Raised { event, status, ..Raised::default() });
            let event = next(&mut id, CmEventType(event));
            assert_eq!(event.status(), status);
            assert!(event.to_string().contains("unknown"), "{event}");
            assert!(event.connection().is_none() && event.datagram().is_none());
            assert!(event.reject_reason().is_none() && event.datagram_refusal().is_none());
            assert!(event.private_data().is_empty());
            let _ = format!("{event:?}");
        }
    }
}

#[test]
fn unknown_reasons_are_what_they_are() {
    let null = null();
    let (mut id, mut datagrams) = (CmId::create(Tcp).unwrap(), CmId::create(Udp).unwrap());
    for status in [34, 36, 255, i32::MAX] {
        let rejected = Raised { status, ..plain(CmEventType::REJECTED) };
        raise(&null, &id, rejected);
        let event = next(&mut id, CmEventType::REJECTED);
        assert_eq!(event.reject_reason(), Some(RejectReason(status)));
        assert_eq!(event.to_string(), format!("REJECTED: unknown ({status})"));
        raise(&null, &datagrams, Raised { status, ..plain(CmEventType::UNREACHABLE) });
        let event = next(&mut datagrams, CmEventType::UNREACHABLE);
        assert_eq!(event.datagram_refusal(), Some(DatagramRefusal(status)));
        assert_eq!(event.reject_reason(), None);
    }
    // An error number is no reason.
    for status in [0, -1, i32::MIN] {
        raise(&null, &id, Raised { status, ..plain(CmEventType::REJECTED) });
        assert_eq!(next(&mut id, CmEventType::REJECTED).reject_reason(), None);
    }
}

/// What private data an event has when librdmacm says this pointer and this length.
fn private_data_of(pointer: *const std::ffi::c_void, len: u8) -> Vec<Vec<u8>> {
    let null = null();
    let pointer = AtomicPtr::new(pointer.cast_mut());
    null.configure(|config| {
        config.cm.edit_event = Some(Box::new(move |event| {
            // Both kinds of parameters begin with these.
            event.param.conn.private_data = pointer.load(Ordering::Relaxed);
            event.param.conn.private_data_len = len;
        }));
    });
    let events = [
        CmEventType::CONNECT_RESPONSE,
        CmEventType::CONNECT_ERROR,
        CmEventType::UNREACHABLE,
        CmEventType::REJECTED,
        CmEventType::ESTABLISHED,
        CmEventType::DISCONNECTED,
    ];
    let mut found = Vec::new();
    for mut id in [CmId::create(Tcp).unwrap(), CmId::create(Udp).unwrap()] {
        for event_type in events {
            raise(&null, &id, plain(event_type));
            found.push(next(&mut id, event_type).private_data().to_vec());
        }
    }
    found
}

#[test]
fn no_private_data_is_read_through_null() {
    for len in [0, 1, 255] {
        assert!(private_data_of(std::ptr::null(), len).iter().all(Vec::is_empty), "{len}");
    }
}

#[test]
fn private_data_is_as_long_as_the_event_says() {
    let bytes: Vec<u8> = (0..=255).collect();
    for len in [0_u8, 1, 56, 196, 255] {
        let found = private_data_of(bytes.as_ptr().cast(), len);
        assert!(found.iter().all(|found| found[..] == bytes[..usize::from(len)]), "{len}");
    }
}

#[test]
fn events_that_carry_no_private_data_are_not_looked_through() {
    let null = null();
    // Of these, the union holds other things, or nothing.
    null.configure(|config| {
        config.cm.edit_event = Some(Box::new(|event| {
            event.param.ud.private_data = std::ptr::without_provenance(0xdead_0001);
            event.param.ud.private_data_len = 255;
        }));
    });
    let without = [
        CmEventType::ADDR_ERROR,
        CmEventType::ROUTE_ERROR,
        CmEventType::DEVICE_REMOVAL,
        CmEventType::ADDR_CHANGE,
        CmEventType::TIMEWAIT_EXIT,
        CmEventType::ADDRINFO_RESOLVED,
        CmEventType::ADDRINFO_ERROR,
        CmEventType::USER,
        CmEventType(77),
    ];
    for mut id in [CmId::create(Tcp).unwrap(), CmId::create(Udp).unwrap()] {
        for event_type in without {
            raise(&null, &id, plain(event_type));
            assert!(next(&mut id, event_type).private_data().is_empty());
        }
    }
}

#[test]
fn the_context_of_a_membership_is_not_read_as_private_data() {
    let null = null();
    let mut id = bound(Udp, 0);
    null.configure(|config| {
        config.cm.edit_event = Some(Box::new(|event| {
            event.param.ud.private_data = std::ptr::without_provenance(0xdead_0001);
            event.param.ud.private_data_len = 255;
        }));
    });
    id.join_multicast(group(1), Default::default()).unwrap();
    let event = next(&mut id, CmEventType::MULTICAST_JOIN);
    assert!(event.private_data().is_empty());
    assert_eq!(event.datagram().unwrap().qp_num, 0xff_ffff);
    raise(&null, &id, Raised { status: -5, ..plain(CmEventType::MULTICAST_ERROR) });
    let event = next(&mut id, CmEventType::MULTICAST_ERROR);
    assert!(event.private_data().is_empty());
    assert!(event.datagram().is_none());
}

#[test]
fn what_a_peer_says_is_taken_as_it_is() {
    let null = null();
    let mut listener = listening(Tcp, 0);
    let conn = CmConn {
        responder_resources: 255,
        initiator_depth: 255,
        flow_control: 2,
        retry_count: 255,
        rnr_retry_count: 255,
        srq: 255,
        qp_num: u32::MAX,
    };
    let event = Raised { conn, private_data: vec![7; 255], ..Raised::default() };
    let request = CmRequest { event, src: address(0), dst: address(1) };
    null.cm_request(listener.as_raw(), request);
    let mut event = next(&mut listener, CmEventType::CONNECT_REQUEST);
    let params = event.connection().unwrap();
    assert_eq!((params.responder_resources, params.initiator_depth), (255, 255));
    assert_eq!((params.retry_count, params.rnr_retry_count, params.qp_num), (255, 255, u32::MAX));
    assert!(params.srq && params.flow_control);
    assert_eq!(event.private_data(), [7; 255]);
    // What is granted is what the queue pair was built for.
    let mut id = event.take_request().unwrap();
    let mut qp = id.bring_up(prepared_for::<ibverbs::Rc>(&id)).unwrap();
    let attr = null.modified()[2].1;
    assert!(attr.max_rd_atomic <= 16, "{}", attr.max_rd_atomic);
    assert!(qp.query(ibverbs::QueuePairAttrMask::all()).is_ok());
    id.accept(&ConnectionParams::new().for_queue_pair(&qp)).unwrap();
}

#[test]
fn an_event_of_connections_tells_no_peer_of_datagrams() {
    let null = null();
    let mut id = CmId::create(Udp).unwrap();
    raise(&null, &id, plain(CmEventType::CONNECT_RESPONSE));
    let event = next(&mut id, CmEventType::CONNECT_RESPONSE);
    assert!(event.datagram().is_none() && event.connection().is_some());
    let mut id = CmId::create(Tcp).unwrap();
    raise(&null, &id, plain(CmEventType::ESTABLISHED));
    let event = next(&mut id, CmEventType::ESTABLISHED);
    assert!(event.datagram().is_none() && event.connection().is_none());
}

#[test]
#[cfg_attr(miri, ignore = "no ppoll")]
fn an_unknown_event_of_a_listener_ends_accepting_with_an_error() {
    let null = null();
    let listener = listening(Tcp, 0);
    raise(&null, &listener, Raised { event: 77, status: -5, ..Raised::default() });
    raise(&null, &listener, plain(CmEventType::ADDR_CHANGE));
    let mut acceptor = Acceptor::from_id(Tcp, listener).map_err(|failed| failed.error).unwrap();
    match acceptor.poll() {
        Err(Error::Connection(failure)) => {
            assert_eq!((failure.event_type(), failure.status()), (CmEventType(77), -5));
            assert_eq!(failure.step(), "listen any longer");
        }
        other => panic!("{other:?}"),
    }
    // A changed address is no matter of a listener.
    assert!(acceptor.poll().unwrap().is_none());
    let listener = acceptor.into_id();
    assert!(listener.local_addr().is_some());
}

#[test]
fn addresses_that_are_none_are_none() {
    let null = null();
    let id = CmId::create(Tcp).unwrap();
    assert_eq!((id.local_addr(), id.peer_addr()), (None, None));
    null.configure(|config| {
        config.cm.edit_id = Some(Box::new(|id| {
            id.route.addr.__bindgen_anon_1.src_addr.sa_family = 27;
            id.route.addr.__bindgen_anon_2.dst_addr.sa_family = u16::MAX;
        }));
    });
    let id = bound(Tcp, 0);
    assert_eq!((id.local_addr(), id.peer_addr()), (None, None));
    let _ = format!("{id:?}");
}
