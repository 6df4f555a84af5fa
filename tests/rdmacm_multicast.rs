//! Multicast groups that are joined by the connection manager.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};

use ibverbs::rdmacm::{CmEvent, CmEventType, CmId, EventChannel, Membership, Tcp, Udp};
use ibverbs::{AddressHandle, Error, Gid, QueuePair, RecvRequest, Ud};
use ibverbs_tests::ids::{assert_no_event, cm_address, expect_event, next_event_on, prepare_for};
use ibverbs_tests::{
    eventually, post_recv, submit, wait_one, Ability, Bed, Mem, Prepared, Side, DEADLINE, GRH,
};

/// A group that no other test has, nor other processes: a group is that of all who share the network.
fn group() -> SocketAddr {
    static LAST: AtomicU8 = AtomicU8::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    SocketAddr::new(Ipv4Addr::new(239, high, low, number).into(), 0)
}

fn gid_of(group: SocketAddr) -> Gid {
    match group {
        SocketAddr::V4(group) => (*group.ip()).into(),
        SocketAddr::V6(group) => (*group.ip()).into(),
    }
}

/// The address of the test device; `None` if groups cannot be joined there.
fn group_address() -> Option<SocketAddr> {
    Bed::with([Ability::ConnectionManager, Ability::JoinedGroups]).and_then(|_| cm_address())
}

/// An identifier that is bound to the device.
fn bound(address: SocketAddr) -> CmId {
    let mut id = CmId::create(Udp).unwrap();
    id.bind_addr(address).unwrap();
    id
}

#[track_caller]
fn joined(id: &mut CmId, group: SocketAddr) -> CmEvent {
    id.join_multicast(group, Membership::Full).unwrap();
    expect_event(id, CmEventType::MULTICAST_JOIN)
}

/// A queue pair of datagrams that is ready, with the queue key of the port space, and some memory.
fn ready(id: &mut CmId) -> (Side<Ud>, Mem) {
    let Prepared { qp, send_cq, recv_cq, bed } = prepare_for::<Ud>(id);
    let qp: QueuePair<Ud> = id.activate(qp).unwrap();
    let mem = bed.mem(256);
    (Side { qp, send_cq, recv_cq, bed }, mem)
}

/// Sends to the group of the event.
#[track_caller]
fn send(from: &mut Side<Ud>, join: &CmEvent, text: &[u8]) {
    let group = join.datagram().expect("a group");
    let ah = group.create_ah(from.bed.pd()).unwrap();
    submit(&mut from.qp, |batch| {
        batch.to(&ah, group.qp_num, group.qkey).signaled().send(1, text);
    })
    .unwrap();
    assert_eq!(wait_one(&from.send_cq, 1).ok, Ok(()));
}

#[test]
fn a_group_is_joined_sent_to_and_left() {
    let Some(address) = group_address() else { return };
    let (mut id, group) = (bound(address), group());
    id.set_context(12);
    let join = joined(&mut id, group);
    assert_eq!((join.context(), join.private_data()), (12, &[][..]));
    assert!(join.connection().is_none(), "{join:?}");
    let peer = join.datagram().expect("a group");
    assert_eq!(peer.qp_num, AddressHandle::MULTICAST_QPN);
    assert_eq!(peer.address.grh.map(|grh| grh.dgid), Some(gid_of(group)));
    assert_eq!(Some(peer.address.port), id.port());

    let (mut side, mem) = ready(&mut id);
    side.qp.attach_mcast(gid_of(group), 0).unwrap();
    post_recv(&mut side.qp, [RecvRequest::new(2, &[mem.slice(..)])]).unwrap();
    send(&mut side, &join, b"to the group");
    id.leave_multicast(group).unwrap();
    assert_no_event(&mut id);
    side.qp.detach_mcast(gid_of(group), 0).unwrap();
}

/// The network device delivers what it sends to a group that it is in: joining has told it so.
#[test]
fn members_receive_what_is_sent_to_the_group() {
    let Some(address) = group_address() else { return };
    let (mut sender, mut member, group) = (bound(address), bound(address), group());
    let to = joined(&mut sender, group);
    joined(&mut member, group);
    let (mut from, _) = ready(&mut sender);
    let (mut receives, mem) = ready(&mut member);
    receives.qp.attach_mcast(gid_of(group), 0).unwrap();
    post_recv(&mut receives.qp, [RecvRequest::new(2, &[mem.slice(..)])]).unwrap();
    send(&mut from, &to, b"to all");
    let received = wait_one(&receives.recv_cq, 2);
    assert_eq!((received.ok, received.len as usize), (Ok(()), GRH + 6));
    assert_eq!(received.sender.src_qp, from.qp.qp_num());
    assert_eq!(mem.read(GRH..GRH + 6), b"to all");
}

#[test]
fn a_group_that_was_not_joined_cannot_be_left() {
    let Some(address) = group_address() else { return };
    let (mut id, one, other) = (bound(address), group(), group());
    let not_joined = |result: ibverbs::Result<()>, which: SocketAddr| {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::NotJoined { group } if group == which), "{error}");
    };
    not_joined(id.leave_multicast(one), one);
    joined(&mut id, one);
    not_joined(id.leave_multicast(other), other);
    id.leave_multicast(one).unwrap();
    not_joined(id.leave_multicast(one), one);
    // It can be joined again.
    joined(&mut id, one);
    id.leave_multicast(one).unwrap();
}

#[test]
fn an_identifier_is_in_many_groups() {
    let Some(address) = group_address() else { return };
    let mut id = bound(address);
    let groups: Vec<_> = (0..8).map(|_| group()).collect();
    for &group in &groups {
        id.join_multicast(group, Membership::Full).unwrap();
    }
    let mut reported: Vec<_> = (0..groups.len())
        .map(|_| {
            let join = expect_event(&mut id, CmEventType::MULTICAST_JOIN);
            join.datagram().and_then(|peer| peer.address.grh).expect("a group").dgid
        })
        .collect();
    reported.sort_unstable_by_key(Gid::to_string);
    let mut expected: Vec<_> = groups.iter().copied().map(gid_of).collect();
    expected.sort_unstable_by_key(Gid::to_string);
    assert_eq!(reported, expected);
    for &group in groups.iter().rev().skip(3) {
        id.leave_multicast(group).unwrap();
    }
    id.close().unwrap();
}

#[test]
fn memberships_end_with_their_identifier_read_or_not() {
    let Some(address) = group_address() else { return };
    for _ in 0..20 {
        let (mut id, group) = (bound(address), group());
        id.join_multicast(group, Membership::Full).unwrap();
        drop(id);
        let mut id = bound(address);
        joined(&mut id, group);
        drop(id);
    }
    // Left before the event was taken, or came.
    let (mut id, group) = (bound(address), group());
    id.join_multicast(group, Membership::Full).unwrap();
    id.leave_multicast(group).unwrap();
    assert_no_event(&mut id);
    joined(&mut id, group);
}

#[test]
fn memberships_are_counted() {
    let Some(address) = group_address() else { return };
    let (mut id, group) = (bound(address), group());
    for _ in 0..3 {
        joined(&mut id, group);
    }
    for _ in 0..3 {
        id.leave_multicast(group).unwrap();
    }
    assert!(matches!(id.leave_multicast(group), Err(Error::NotJoined { .. })));
}

#[test]
fn what_is_no_group_of_ipv4_is_refused() {
    let Some(address) = group_address() else { return };
    let mut id = bound(address);
    let group = SocketAddr::new(Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 7, 1).into(), 0);
    // RoCE has groups of IPv6, but not the kernel's connection manager.
    let error = id.join_multicast(group, Membership::Full).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    assert!(matches!(id.leave_multicast(group), Err(Error::NotJoined { .. })));
    assert_no_event(&mut id);
}

#[test]
fn only_datagrams_have_groups() {
    let Some(address) = group_address() else { return };
    let mut id = CmId::create(Tcp).unwrap();
    id.bind_addr(address).unwrap();
    let group = group();
    let error = id.join_multicast(group, Membership::Full).unwrap_err();
    assert_eq!(error.os_error(), Some(libc::EINVAL), "{error}");
    assert!(matches!(id.leave_multicast(group), Err(Error::NotJoined { .. })));
}

#[test]
fn a_sender_need_not_receive() {
    let Some(address) = group_address() else { return };
    let (mut id, group) = (bound(address), group());
    match id.join_multicast(group, Membership::SendOnly) {
        Ok(()) => {
            let join = expect_event(&mut id, CmEventType::MULTICAST_JOIN);
            let (mut side, _) = ready(&mut id);
            send(&mut side, &join, b"unheard");
            id.leave_multicast(group).unwrap();
        }
        Err(error) => assert!(matches!(error, Error::Unsupported { .. }), "{error}"),
    }
}

/// The event of a membership is written into it, whichever thread takes it.
#[test]
fn groups_are_joined_and_left_while_events_are_taken() {
    let Some(address) = group_address() else { return };
    let channel = EventChannel::create().unwrap();
    let mut id = CmId::create_on(&channel, Udp).unwrap();
    id.bind_addr(address).unwrap();
    let stays = group();
    std::thread::scope(|scope| {
        let taker = scope.spawn(|| loop {
            let event = next_event_on(&channel);
            assert_eq!((event.event_type(), event.status()), (CmEventType::MULTICAST_JOIN, 0));
            let grh = event.datagram().and_then(|peer| peer.address.grh).expect("a group");
            if grh.dgid == gid_of(stays) {
                break;
            }
        });
        for _ in 0..30 {
            let group = group();
            id.join_multicast(group, Membership::Full).unwrap();
            id.leave_multicast(group).unwrap();
        }
        id.join_multicast(stays, Membership::Full).unwrap();
        eventually("the last event is taken", || taker.is_finished());
    });
    id.migrate_to_own_channel().unwrap();
    id.leave_multicast(stays).unwrap();
    assert!(id.wait(Some(DEADLINE / 100)).unwrap().is_none());
}
