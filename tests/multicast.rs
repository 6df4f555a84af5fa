//! Multicast groups: who is attached receives what is sent to the group, and nobody else.

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::atomic::{AtomicU8, Ordering};

use ibverbs::{
    AddressHandle, AddressVector, Error, Gid, GidEntry, GidType, Grh, QpState, QueuePairAttr,
    RecvRequest, Ud,
};
use ibverbs_tests::{
    activated, assert_silent, eventually, hear, post_recv, prepare, role, submit, tell, wait_one,
    Ability, Bed, Mem, PeerProcess, Prepared, Side, GRH, PORT, QKEY,
};

/// The number of the queue pair that stands for all of a group.
const ALL: u32 = AddressHandle::MULTICAST_QPN;

/// A multicast group, of the same kind of addresses as the GID that is sent from.
struct Group {
    gid: Gid,
    from: GidEntry,
    /// Makes the network device deliver the group's packets, its own ones as well.
    _member: UdpSocket,
}

impl Group {
    /// One that no other test has, nor other processes: a group is that of all who share the network.
    fn join(from: GidEntry) -> Group {
        static LAST: AtomicU8 = AtomicU8::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        Group::numbered(from, std::process::id() as u16, number)
    }

    fn numbered(from: GidEntry, process: u16, number: u8) -> Group {
        let [high, low] = process.to_be_bytes();
        match from.gid().to_ipv4_mapped() {
            Some(local) => {
                let group = Ipv4Addr::new(239, high, low, number);
                let member = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
                member.join_multicast_v4(&group, &local).unwrap();
                Group { gid: group.into(), from, _member: member }
            }
            None => {
                let group = Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 7, process, number.into());
                let member = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
                let device = from.netdev_index().expect("a network device");
                member.join_multicast_v6(&group, device).unwrap();
                Group { gid: group.into(), from, _member: member }
            }
        }
    }

    fn way(&self, bed: &Bed) -> AddressHandle {
        let gid_index = u8::try_from(self.from.index()).unwrap();
        let address = AddressVector::to_gid(PORT, gid_index, self.gid);
        bed.pd().create_ah(&address).unwrap()
    }
}

/// A group for each kind of address that the port has. SoftRoCE and other devices of RoCE v2 take multicast for
/// IP; on InfiniBand a group must be joined with the subnet manager, which these tests do not do.
fn groups(bed: &Bed) -> Vec<Group> {
    let table = bed.ctx().gid_table().unwrap();
    let fits = |entry: &GidEntry| entry.port() == PORT && entry.gid_type() == GidType::ROCE_V2;
    table.into_iter().filter(fits).map(Group::join).collect()
}

/// A queue pair that receives what is sent to its groups, and remembers how often it did.
struct Receiver {
    side: Side<Ud>,
    mem: Mem,
}

impl Receiver {
    fn new(bed: &Bed) -> Receiver {
        Receiver { side: activated(bed, QKEY), mem: bed.mem(4096) }
    }

    #[track_caller]
    fn attached(bed: &Bed, group: &Group) -> Receiver {
        let mut receiver = Receiver::new(bed);
        receiver.side.qp.attach_mcast(group.gid, 0).unwrap();
        receiver
    }

    #[track_caller]
    fn post(&mut self) {
        post_recv(&mut self.side.qp, [RecvRequest::new(1, &[self.mem.slice(..)])]).unwrap();
    }

    /// Waits for what was sent to the group, with this text, by the device itself.
    #[track_caller]
    fn assert_got(&self, group: &Group, src_qp: u32, text: &[u8]) {
        let sender = self.assert_got_from_any(group, src_qp, text);
        assert_eq!(sender, group.from.gid());
    }

    /// Waits for what was sent to the group, with this text, and returns where it came from.
    #[track_caller]
    fn assert_got_from_any(&self, group: &Group, src_qp: u32, text: &[u8]) -> Gid {
        let received = wait_one(&self.side.recv_cq, 1);
        assert_eq!((received.ok, received.len as usize), (Ok(()), GRH + text.len()));
        assert_eq!((received.sender.src_qp, received.sender.has_grh), (src_qp, true));
        assert_eq!(self.mem.read(GRH..GRH + text.len()), text);
        let grh = Grh::from_bytes(&self.mem.read(..GRH)).unwrap();
        assert_eq!(grh.dgid(), group.gid);
        grh.sgid()
    }

    #[track_caller]
    fn assert_got_nothing(&self) {
        assert_silent(&self.side.recv_cq);
    }
}

/// Sends this to the group.
#[track_caller]
fn send(sender: &mut Side<Ud>, ah: &AddressHandle, qkey: u32, text: &[u8]) {
    submit(&mut sender.qp, |batch| batch.to(ah, ALL, qkey).signaled().send(2, text)).unwrap();
    assert_eq!(wait_one(&sender.send_cq, 2).ok, Ok(()));
}

#[test]
fn all_that_are_attached_receive_and_nobody_else() {
    let Some(bed) = Bed::with([Ability::Multicast]) else { return };
    for group in groups(&bed) {
        let ah = group.way(&bed);
        let mut sender = activated(&bed, QKEY);
        let number = sender.qp.qp_num();
        let mut members: Vec<_> = (0..3).map(|_| Receiver::attached(&bed, &group)).collect();
        let mut outsider = Receiver::new(&bed);
        members.iter_mut().for_each(Receiver::post);
        outsider.post();
        send(&mut sender, &ah, QKEY, b"to all");
        members.iter().for_each(|member| member.assert_got(&group, number, b"to all"));
        outsider.assert_got_nothing();

        // One leaves.
        members[1].side.qp.detach_mcast(group.gid, 0).unwrap();
        members.iter_mut().for_each(Receiver::post);
        send(&mut sender, &ah, QKEY, b"to two");
        for (place, member) in members.iter().enumerate() {
            if place == 1 {
                member.assert_got_nothing();
            } else {
                member.assert_got(&group, number, b"to two");
            }
        }

        // One is closed and one dropped; nobody is left but the sender, who hears himself.
        members.swap_remove(0).side.qp.close().unwrap();
        drop(members);
        sender.qp.attach_mcast(group.gid, 0).unwrap();
        let mut sender = Receiver { side: sender, mem: bed.mem(4096) };
        sender.post();
        send(&mut sender.side, &ah, QKEY, b"to me");
        sender.assert_got(&group, number, b"to me");
        outsider.assert_got_nothing();
    }
}

#[test]
fn a_wrong_key_reaches_no_member() {
    let Some(bed) = Bed::with([Ability::Multicast]) else { return };
    for group in groups(&bed) {
        let ah = group.way(&bed);
        let mut sender = activated(&bed, QKEY);
        let mut member = Receiver::attached(&bed, &group);
        member.post();
        send(&mut sender, &ah, QKEY ^ 1, b"wrong");
        member.assert_got_nothing();
        send(&mut sender, &ah, QKEY, b"right");
        member.assert_got(&group, sender.qp.qp_num(), b"right");
    }
}

#[test]
fn a_member_answers_the_sender_alone() {
    let Some(bed) = Bed::with([Ability::Multicast]) else { return };
    for group in groups(&bed) {
        let mut sender = Receiver::new(&bed);
        let mut member = Receiver::attached(&bed, &group);
        member.post();
        sender.post();
        send(&mut sender.side, &group.way(&bed), QKEY, b"question");
        let received = wait_one(&member.side.recv_cq, 1);
        let bytes = member.mem.read(..);
        let back = bed.pd().create_ah_from_wc(PORT, &received.sender, &bytes).unwrap();
        member.post();
        submit(&mut member.side.qp, |batch| {
            batch.to(&back, received.sender.src_qp, QKEY).signaled().send(3, b"answer");
        })
        .unwrap();
        assert_eq!(wait_one(&member.side.send_cq, 3).ok, Ok(()));
        let answer = wait_one(&sender.side.recv_cq, 1);
        assert_eq!(answer.sender.src_qp, member.side.qp.qp_num());
        assert_eq!(sender.mem.read(GRH..GRH + 6), b"answer");
        let grh = Grh::from_bytes(&sender.mem.read(..GRH)).unwrap();
        // From an address of the same kind, and not from the group's.
        assert!(!grh.sgid().is_multicast());
        assert_eq!(grh.dgid(), group.from.gid());
        member.assert_got_nothing();
    }
}

#[test]
fn attaching_twice_is_attaching_once() {
    let Some(bed) = Bed::with([Ability::Multicast]) else { return };
    for group in groups(&bed) {
        let ah = group.way(&bed);
        let mut sender = activated(&bed, QKEY);
        let mut member = Receiver::attached(&bed, &group);
        member.side.qp.attach_mcast(group.gid, 0).unwrap();
        member.post();
        member.post();
        send(&mut sender, &ah, QKEY, b"once");
        member.assert_got(&group, sender.qp.qp_num(), b"once");
        member.assert_got_nothing();
        member.side.qp.detach_mcast(group.gid, 0).unwrap();
        send(&mut sender, &ah, QKEY, b"gone");
        member.assert_got_nothing();
        let error = member.side.qp.detach_mcast(group.gid, 0).unwrap_err();
        assert!(matches!(error, Error::NotAttached { gid, lid: 0 } if gid == group.gid), "{error}");
        member.side.qp.close().unwrap();
    }
}

#[test]
fn a_group_has_one_local_identifier() {
    let Some(bed) = Bed::with([Ability::Multicast]) else { return };
    for group in groups(&bed) {
        let mut member = Receiver::attached(&bed, &group);
        let error = member.side.qp.attach_mcast(group.gid, 0xc001).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument { value: 0xc001, .. }), "{error}");
        member.side.qp.close().unwrap();
    }
}

#[test]
fn a_queue_pair_is_in_several_groups() {
    let Some(bed) = Bed::with([Ability::Multicast]) else { return };
    let groups: Vec<_> = (0..8).flat_map(|_| groups(&bed)).collect();
    let mut sender = activated(&bed, QKEY);
    let mut member = Receiver::new(&bed);
    for group in &groups {
        member.side.qp.attach_mcast(group.gid, 0).unwrap();
    }
    for group in &groups {
        member.post();
        send(&mut sender, &group.way(&bed), QKEY, b"any");
        member.assert_got(group, sender.qp.qp_num(), b"any");
    }
    // It is detached from all of them.
    member.side.qp.close().unwrap();
}

#[test]
fn an_address_that_is_no_group_s_is_refused() {
    let Some(bed) = Bed::with([Ability::Multicast]) else { return };
    let mut side = activated(&bed, QKEY);
    for address in ["::", "::1", "fe80::1", "fd07::1", "::ffff:10.7.0.1", "::ffff:255.255.255.255"]
    {
        let error = side.qp.attach_mcast(address.parse().unwrap(), 0).unwrap_err();
        assert!(matches!(error, Error::InvalidBytes { .. }), "{address}: {error}");
        assert!(side.qp.detach_mcast(address.parse().unwrap(), 0).is_err());
    }
    side.qp.close().unwrap();
}

#[test]
fn a_queue_pair_stays_attached_through_its_states() {
    let Some(bed) = Bed::with([Ability::Multicast]) else { return };
    for group in groups(&bed) {
        let ah = group.way(&bed);
        let mut sender = activated(&bed, QKEY);
        let mut prepared = prepare::<Ud>(&bed, |builder| builder);
        prepared.qp.attach_mcast(group.gid, 0).unwrap();
        let Prepared { qp, send_cq, recv_cq, .. } = prepared;
        let qp = qp.activate(QKEY).unwrap();
        let side = Side { qp, send_cq, recv_cq, bed: bed.clone() };
        let mut member = Receiver { side, mem: bed.mem(4096) };
        member.post();
        send(&mut sender, &ah, QKEY, b"first");
        member.assert_got(&group, sender.qp.qp_num(), b"first");
        member.side.qp = member.side.qp.reset().unwrap().activate(QKEY).unwrap();
        member.post();
        send(&mut sender, &ah, QKEY, b"again");
        member.assert_got(&group, sender.qp.qp_num(), b"again");
        // One that has failed can be closed as well.
        member.side.qp.modify(&QueuePairAttr::new().set_state(QpState::ERR)).unwrap();
        member.side.qp.close().unwrap();
    }
}

#[test]
fn a_member_that_is_dropped_within_a_poll_goes_with_its_end() {
    let Some(bed) = Bed::with([Ability::Multicast]) else { return };
    for group in groups(&bed) {
        let mut sender = activated(&bed, QKEY);
        let mut member = Receiver::attached(&bed, &group);
        member.post();
        send(&mut sender, &group.way(&bed), QKEY, b"poll");
        let Receiver { side: Side { qp, recv_cq, send_cq, .. }, .. } = member;
        let mut polled = None;
        eventually("the datagram arrives", || {
            polled = recv_cq.poll().unwrap();
            polled.is_some()
        });
        drop(qp);
        drop(polled);
        // Both can be closed only if the queue pair is gone.
        recv_cq.close().unwrap();
        send_cq.close().unwrap();
    }
}

#[test]
fn members_in_another_process_receive_as_well() {
    const TEST: &str = "members_in_another_process_receive_as_well";
    // Not one that another test takes.
    const GROUP: u8 = 200;
    let Some(bed) = Bed::with([Ability::Multicast]) else { return };
    let process = role().map_or(std::process::id() as u16, |process| process.parse().unwrap());
    let group = Group::numbered(bed.gid(), process, GROUP);
    let mut here = Receiver::attached(&bed, &group);
    here.post();
    if role().is_some() {
        tell("ready");
        // From the other process; then from this one.
        let number: u32 = hear().parse().unwrap();
        here.assert_got_from_any(&group, number, b"from there");
        here.post();
        tell(&here.side.qp.qp_num().to_string());
        assert_eq!(hear(), "posted");
        let ah = group.way(&bed);
        send(&mut here.side, &ah, QKEY, b"from here");
        here.assert_got(&group, here.side.qp.qp_num(), b"from here");
        here.assert_got_nothing();
        return tell("done");
    }
    let mut peer = PeerProcess::start(TEST, &process.to_string());
    assert_eq!(peer.hear(), "ready");
    let number = here.side.qp.qp_num();
    peer.tell(&number.to_string());
    send(&mut here.side, &group.way(&bed), QKEY, b"from there");
    here.assert_got(&group, number, b"from there");
    here.post();
    peer.tell("posted");
    let number: u32 = peer.hear().parse().unwrap();
    here.assert_got_from_any(&group, number, b"from here");
    assert_eq!(peer.hear(), "done");
    here.assert_got_nothing();
}
