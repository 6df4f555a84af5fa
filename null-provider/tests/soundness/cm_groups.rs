//! Rules 9, 10 and 15 for multicast groups: librdmacm frees a membership even if the kernel refuses to leave, whatever
//! events of it are still to come. Such an event is never taken.

use ibverbs::rdmacm::{CmEventType, CmId, EventChannel, Udp};
use ibverbs::{Error, QpState};
use null_provider::Verb;

use crate::cm_common::*;
use crate::cm_turns::take_turns;
use crate::common::{null, Null};

/// A member on a shared channel that has not heard yet that it is one.
pub(crate) fn joining(channel: &EventChannel) -> CmId {
    let mut id = CmId::create_on(channel, Udp).unwrap();
    id.bind_addr(std::net::SocketAddr::new(address(0).ip(), 0)).unwrap();
    id.join_multicast(group(1), Default::default()).unwrap();
    id
}

/// Its device is removed: the kernel refuses whatever it is asked for.
pub(crate) fn removed(null: &Null, id: &CmId) {
    raise(null, id, plain(CmEventType::DEVICE_REMOVAL));
}

#[test]
fn groups_are_left_before_their_identifier_is_destroyed() {
    let null = null();
    let channel = EventChannel::create().unwrap();
    let mut id = joining(&channel);
    id.join_multicast(group(2), Default::default()).unwrap();
    next_on(&channel, CmEventType::MULTICAST_JOIN);
    id.leave_multicast(group(2)).unwrap();
    assert!(matches!(id.leave_multicast(group(2)), Err(Error::NotJoined { .. })));
    assert_eq!(null.count(Verb::LeaveMulticast), 1);
    assert!(channel.poll_cm_event().unwrap().is_none(), "its event is gone with it");
    null.take_calls();
    drop(id);
    let verbs = null.verbs();
    let place = |verb| verbs.iter().position(|&called| called == verb).unwrap();
    assert!(place(Verb::LeaveMulticast) < place(Verb::DestroyCmId));
}

#[test]
fn no_event_comes_of_a_group_that_could_not_be_left() {
    let null = null();
    let channel = EventChannel::create().unwrap();
    let (mut id, other) = (joining(&channel), joining(&channel));
    removed(&null, &id);
    assert_eq!(id.leave_multicast(group(1)).unwrap_err().os_error(), Some(libc::EIO));
    // What comes is of the other one.
    next_on(&channel, CmEventType::MULTICAST_JOIN);
    assert!(channel.poll_cm_event().unwrap().is_none());
    assert_eq!(null.count(Verb::DestroyCmId), 1);
    drop((id, other));
    assert_eq!(null.count(Verb::DestroyCmId), 2);
}

#[test]
fn nothing_reaches_librdmacm_of_an_identifier_that_was_given_up() {
    let null = null();
    let channel = EventChannel::create().unwrap();
    let mut id = joining(&channel);
    id.join_multicast(group(2), Default::default()).unwrap();
    removed(&null, &id);
    assert!(id.leave_multicast(group(1)).is_err());
    null.take_calls();
    let to = EventChannel::create().unwrap();
    null.take_calls();
    for refused in [
        id.bind_addr(address(0)),
        id.listen(0),
        id.resolve_addr(None, address(0), TIMEOUT),
        id.resolve_route(TIMEOUT),
        id.connect(&Default::default()),
        id.accept(&Default::default()),
        id.reject(b""),
        id.establish(),
        id.disconnect(),
        id.set_type_of_service(1),
        id.qp_attr(QpState::INIT).map(drop),
        id.remote_ece().map(drop),
        id.join_multicast(group(3), Default::default()),
        id.leave_multicast(group(2)),
        id.migrate(&to),
        id.context().map(drop),
    ] {
        assert!(refused.is_err());
    }
    id.set_context(7);
    assert_eq!((id.context_value(), id.port()), (0, None));
    assert_eq!((id.local_addr(), id.peer_addr()), (None, None));
    let _ = format!("{id:?}");
    id.close().unwrap();
    null.expect_no_calls();
}

#[test]
fn an_identifier_on_its_own_channel_is_given_up_as_well() {
    let null = null();
    let mut id = bound(Udp, 0);
    id.join_multicast(group(1), Default::default()).unwrap();
    removed(&null, &id);
    assert!(id.leave_multicast(group(1)).is_err());
    assert!(id.poll_cm_event().unwrap().is_none());
    drop(id);
    assert_eq!(null.count(Verb::DestroyCmId), 1);
}

#[test]
fn an_identifier_whose_groups_cannot_be_left_is_destroyed() {
    let null = null();
    let channel = EventChannel::create().unwrap();
    let id = joining(&channel);
    removed(&null, &id);
    drop(id);
    assert_eq!((null.count(Verb::LeaveMulticast), null.count(Verb::DestroyCmId)), (1, 1));
    assert!(channel.poll_cm_event().unwrap().is_none());
}

/// Does this while another thread waits for its turn to take an event, which finds nothing then.
fn with_poller(null: &Null, verb: Verb, act: impl FnOnce(CmId) + Send) {
    let channel = EventChannel::create().unwrap();
    let id = joining(&channel);
    removed(null, &id);
    null.take_calls();
    take_turns(
        null,
        verb,
        || act(id),
        || assert!(channel.poll_cm_event().unwrap().is_none()),
        |controls| controls.count(Verb::GetCmEvent) > 0,
    );
}

#[test]
fn no_event_is_taken_between_leaving_and_destroying() {
    let null = null();
    for verb in [Verb::LeaveMulticast, Verb::DestroyCmId] {
        with_poller(&null, verb, drop);
        with_poller(&null, verb, |mut id| assert!(id.leave_multicast(group(1)).is_err()));
    }
}
