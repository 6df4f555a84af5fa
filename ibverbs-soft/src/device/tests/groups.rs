//! Multicast groups: in memory, and over the wire.

use std::collections::BTreeSet;

use rustix::io::Errno;

use super::super::limits;
use super::*;
use crate::transport::Status;

const ALL_OF_GROUP: u32 = 0xff_ffff;

/// A group that no other process has: a group is that of all who share the network.
fn group(last: u8) -> IpAddr {
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    IpAddr::from([239, high, low, last])
}

fn member(device: &Arc<Device>) -> Side {
    let side = Side::new(device, Service::Ud, 64);
    side.bring_to_rts(None, 0);
    side
}

/// Sends a word to a number at an address, from another one.
fn send_from(from: &Side, [source, dest]: [IpAddr; 2], remote_qpn: u32, word: u64) {
    from.store(63, word);
    let path = Path { source, dest, traffic_class: 0, hop_limit: 64, flow_label: 0 };
    let datagram = SendOperation::Datagram { path, remote_qpn, qkey: QKEY, imm: None };
    let request = SendRequest { signaled: false, ..send(2, datagram, vec![from.sge(63, 1)]) };
    from.device.post_send_all(from.qp_num, vec![request]).unwrap();
}

fn send_word(from: &Side, group: IpAddr, word: u64) {
    send_from(from, [from.device.addr(), group], ALL_OF_GROUP, word);
}

/// Waits for one datagram, which brings this word.
#[track_caller]
fn expect_word(side: &Side, word: u64) {
    let completion = side.wait().completion;
    assert_eq!((completion.status, completion.grh), (Status::Success, true));
    assert_eq!((completion.len, side.load(5)), (48, word));
}

#[test]
fn each_member_of_any_device_gets_a_message_once() {
    for (number, [one, other]) in (1..).zip(ways()) {
        let group = group(number);
        let members = [&one, &one, &other, &other].map(member);
        for member in &members {
            member.device.attach(member.qp_num, group).unwrap();
            member.device.attach(member.qp_num, group).unwrap();
            (0..4).for_each(|wr_id| member.post_recv(wr_id, vec![member.sge(0, 60)]));
        }
        for (word, from) in (100..).zip(&members) {
            send_word(from, group, word);
            members.iter().for_each(|member| expect_word(member, word));
        }
        // Had any of them come twice, a receive would be used.
        for member in &members {
            member.device.detach(member.qp_num, group).unwrap();
            assert_eq!(member.device.detach(member.qp_num, group), Err(Errno::INVAL));
            send_from(&members[0], [&one, &member.device].map(|it| it.addr()), member.qp_num, 7);
        }
        let polled = |side: &Side| side.device.poll_cq(side.cq).unwrap().map(|it| it.completion);
        std::thread::sleep(Duration::from_millis(20));
        assert!(members.iter().all(|member| polled(member).is_none()));
        members.iter().for_each(Side::close);
    }
}

#[test]
fn groups_of_ipv6_are_those_of_devices_of_ipv6() {
    let (_turn, device) = device_of_ipv6(Loopback::Memory);
    let [one, other] = [(); 2].map(|()| member(&device));
    // Without a route for groups, as there is none on the loopback interface, they reach the device itself.
    for (word, text) in (9..).zip(["ff01::7:1", "ff02::7:2", "ff0e::7:3"]) {
        let group = text.parse().unwrap();
        device.attach(other.qp_num, group).unwrap();
        other.post_recv(1, vec![other.sge(0, 60)]);
        send_word(&one, group, word);
        expect_word(&other, word);
        device.detach(other.qp_num, group).unwrap();
    }
    assert_eq!(device.attach(other.qp_num, group(50)), Err(Errno::INVAL));
}

#[test]
fn from_the_link_local_address_a_group_is_the_device_alone() {
    for loopback in [Loopback::Memory, Loopback::Wire] {
        let devices = [new_device(loopback), new_device(loopback)];
        let group = "ff0e::7:3".parse().unwrap();
        let [one, other] = devices.each_ref().map(member);
        for side in [&one, &other] {
            side.device.attach(side.qp_num, group).unwrap();
            side.post_recv(1, vec![side.sge(0, 60)]);
        }
        let link_local = std::net::Ipv6Addr::from(one.device.gids()[0]).into();
        send_from(&one, [link_local, group], ALL_OF_GROUP, 11);
        expect_word(&one, 11);
        assert!(other.device.poll_cq(other.cq).unwrap().is_none());
        for side in [&one, &other] {
            side.device.detach(side.qp_num, group).unwrap();
        }
    }
}

#[test]
fn a_group_s_packets_are_for_all_of_it_and_others_for_none() {
    let devices = [new_device(Loopback::Memory), new_device(Loopback::Memory)];
    let [one, other] = devices.each_ref().map(member);
    let group = group(60);
    other.device.attach(other.qp_num, group).unwrap();
    other.post_recv(1, vec![other.sge(0, 60)]);
    // To one number at the group's address, and to all at that of one.
    send_from(&one, [one.device.addr(), group], other.qp_num, 1);
    send_from(&one, [&one, &other].map(|side| side.device.addr()), ALL_OF_GROUP, 2);
    send_word(&one, group, 3);
    expect_word(&other, 3);
    assert_eq!(other.device.lock().unwrap().dropped().unknown_qp, 2);
    other.device.detach(other.qp_num, group).unwrap();
}

#[test]
fn a_device_is_in_a_group_until_nobody_is_attached_or_has_joined() {
    let devices = [new_device(Loopback::Memory), new_device(Loopback::Memory)];
    let [one, other] = devices.each_ref().map(member);
    let (device, group) = (&other.device, group(62));
    let is_left = || device.leave(group) == Err(Errno::INVAL);
    let hears = |word| {
        other.post_recv(1, vec![other.sge(0, 60)]);
        send_word(&one, group, word);
        expect_word(&other, word);
    };
    assert!(is_left());
    (0..2).for_each(|_| device.join(group).unwrap());
    device.attach(other.qp_num, group).unwrap();
    hears(1);
    device.leave(group).unwrap();
    device.detach(other.qp_num, group).unwrap();
    device.attach(other.qp_num, group).unwrap();
    device.leave(group).unwrap();
    assert!(is_left());
    hears(2);
    device.detach(other.qp_num, group).unwrap();
    assert!(is_left());
}

#[test]
fn who_does_not_poll_is_served_by_the_engine() {
    let devices = [new_device(Loopback::Memory), new_device(Loopback::Memory)];
    let [one, other] = devices.each_ref().map(member);
    let group = group(61);
    other.device.attach(other.qp_num, group).unwrap();
    for word in 1..20 {
        other.post_recv(1, vec![other.sge(0, 60)]);
        send_word(&one, group, word);
        other.wait_for_word(5, word);
    }
    other.device.detach(other.qp_num, group).unwrap();
    // The engine is not woken for a group that is left, also if a child has its socket.
    let turns = other.device.lock().unwrap().turns;
    send_word(&one, group, 99);
    std::thread::sleep(Duration::from_millis(50));
    assert!(other.device.lock().unwrap().turns < turns + 50);
}

#[test]
fn there_are_as_many_groups_and_members_as_the_device_says() {
    let device = new_device(Loopback::Memory);
    let side = member(&device);
    assert_eq!(device.attach(side.qp_num ^ 1, group(1)), Err(Errno::INVAL));
    let groups: BTreeSet<IpAddr> =
        (0..limits::MAX_MCAST_GRP).map(|number| group(100 + number as u8)).collect();
    for _ in 0..2 {
        for &group in &groups {
            device.attach(side.qp_num, group).unwrap();
        }
        assert_eq!(device.attach(side.qp_num, self::group(70)), Err(Errno::NOMEM));
        assert_eq!(device.destroy_qp(side.qp_num), Err(Errno::BUSY));
        for &group in &groups {
            device.detach(side.qp_num, group).unwrap();
        }
    }
    let create = |_| create_qp(&device, Service::Ud, side.pd, side.cq, &side.async_queue).unwrap();
    let members: Vec<u32> = (0..limits::MAX_MCAST_QP_ATTACH).map(create).collect();
    for &qp_num in &members {
        device.attach(qp_num, group(71)).unwrap();
    }
    assert_eq!(device.attach(side.qp_num, group(71)), Err(Errno::NOMEM));
    for &qp_num in &members {
        device.detach(qp_num, group(71)).unwrap();
        device.destroy_qp(qp_num).unwrap();
    }
    side.close();
}
