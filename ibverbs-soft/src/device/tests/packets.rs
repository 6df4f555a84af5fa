//! Packets between queue pairs: in memory, and over the wire.

use super::*;
use crate::faults::Link;
use crate::transport::{CompletionKind, Status};

fn each_way(service: Service, test: impl Fn([Side; 2])) {
    for devices in ways() {
        test(connected(service, devices.each_ref()));
    }
}

const SEND: SendOperation = SendOperation::Send { imm: Some(5) };

#[test]
fn reliable_sends_arrive() {
    each_way(Service::Rc, |[one, other]| {
        other.post_recv(11, vec![other.sge(0, 1), other.sge(2, 4094)]);
        for (i, word) in one.memory.iter().enumerate() {
            word.store(i as u64 + 1, Ordering::Relaxed);
        }
        let before = one.device.clock();
        one.post_send(22, SEND, vec![one.sge(0, 4000)]);
        let received = other.wait();
        let sent = one.wait();
        assert_eq!((sent.completion.wr_id, sent.completion.status), (22, Status::Success));
        assert_eq!(sent.completion.kind, CompletionKind::Send);
        let completion = received.completion;
        assert_eq!((completion.wr_id, completion.status), (11, Status::Success));
        assert_eq!((completion.len, completion.imm), (32_000, Some(5)));
        assert_eq!(completion.qp_num, other.qp_num);
        assert_eq!([other.load(0), other.load(1), other.load(2)], [1, 0, 2]);
        assert_eq!([other.load(4000), other.load(4001)], [4000, 0]);
        for timestamp in [received.timestamp, sent.timestamp] {
            assert!((before..=one.device.clock()).contains(&timestamp));
        }
        one.close();
        other.close();
    });
}

#[test]
fn in_memory_everything_is_done_when_it_was_posted() {
    let device = new_device(Loopback::Memory);
    let [one, other] = connected(Service::Rc, [&device, &device]);
    for i in 0..100 {
        other.post_recv(i, vec![other.sge(0, 1)]);
        one.post_send(i, SEND, vec![one.sge(0, 1)]);
        for side in [&one, &other] {
            let entry = side.device.poll_more(side.cq).unwrap().expect("it is still to be done");
            assert_eq!(entry.completion.wr_id, i);
        }
    }
}

#[test]
fn unreliable_sends_arrive() {
    each_way(Service::Uc, |[one, other]| {
        other.post_recv(1, vec![other.sge(0, 8)]);
        one.store(0, 77);
        one.post_send(2, SEND, vec![one.sge(0, 8)]);
        assert_eq!(one.wait().completion.wr_id, 2);
        assert_eq!(other.wait().completion.wr_id, 1);
        assert_eq!(other.load(0), 77);
    });
}

#[test]
fn datagrams_arrive_with_the_fields_of_their_ip_header() {
    for devices in ways() {
        let [one, other] = devices.each_ref().map(|device| Side::new(device, Service::Ud, 64));
        one.bring_to_rts(None, 0);
        other.bring_to_rts(None, 0);
        for (traffic_class, hop_limit) in [(0, 64), (0xb8, 3)] {
            other.post_recv(1, vec![other.sge(0, 64)]);
            one.store(0, 99);
            let path = Path { traffic_class, hop_limit, ..one.path_to(&other) };
            let remote_qpn = other.qp_num;
            let datagram = SendOperation::Datagram { path, remote_qpn, qkey: QKEY, imm: None };
            one.post_send(2, datagram, vec![one.sge(0, 1)]);
            let received = [one.wait(), other.wait()].map(|entry| entry.completion);
            assert!(received.iter().all(|completion| completion.status == Status::Success));
            let received = received.iter().find(|it| it.kind == CompletionKind::Recv).unwrap();
            assert_eq!((received.len, received.src_qp, received.grh), (48, one.qp_num, true));
            assert_eq!(other.load(5), 99);
            // The 20 bytes of an IPv4 header are the second half of the GRH.
            let grh: Vec<u8> = (0..5).flat_map(|i| other.load(i).to_ne_bytes()).collect();
            assert_eq!((grh[20], grh[21], grh[28]), (0x45, traffic_class, hop_limit));
            assert_eq!(IpAddr::from(<[u8; 4]>::try_from(&grh[32..36]).unwrap()), one.device.addr());
        }
    }
}

#[test]
fn devices_of_ipv6_reach_themselves_over_the_wire() {
    let (_turn, device) = device_of_ipv6(Loopback::Wire);
    let [one, other] = connected(Service::Rc, [&device, &device]);
    other.post_recv(1, vec![other.sge(0, 4000)]);
    one.store(3999, 7);
    one.post_send(2, SEND, vec![one.sge(0, 4000)]);
    let received = [one.wait(), other.wait()].map(|entry| entry.completion);
    assert!(received.iter().all(|completion| completion.status == Status::Success));
    assert_eq!(other.load(3999), 7);
}

#[test]
fn memory_of_the_peer_is_read_written_and_changed() {
    each_way(Service::Rc, |[one, other]| {
        one.store(0, 3);
        let (addr, rkey) = (other.addr(), other.key);
        one.post_send(1, SendOperation::Write { addr, rkey, imm: None }, vec![one.sge(0, 2000)]);
        one.post_send(2, SendOperation::FetchAdd { addr, rkey, add: 4 }, vec![one.sge(1, 1)]);
        let swap = SendOperation::CompareSwap { addr, rkey, compare: 7, swap: 8 };
        one.post_send(3, swap, vec![one.sge(2, 1)]);
        one.post_send(4, SendOperation::Read { addr, rkey }, vec![one.sge(3, 1000)]);
        for wr_id in 1..=4 {
            let completion = one.wait().completion;
            assert_eq!((completion.wr_id, completion.status), (wr_id, Status::Success));
        }
        assert_eq!([one.load(1), one.load(2), one.load(3), other.load(0)], [3, 7, 8, 8]);
        let forged = SendOperation::Write { addr, rkey: rkey ^ (1 << 20), imm: None };
        one.post_send(5, forged, vec![one.sge(0, 1)]);
        assert_eq!(one.wait().completion.status, Status::RemoteAccess);
    });
}

#[test]
fn a_peer_that_polls_nothing_is_served_by_the_engine() {
    let devices = [Loopback::Memory, Loopback::Memory].map(new_device);
    let [one, other] = connected(Service::Rc, devices.each_ref());
    for i in 1..200 {
        one.store(0, i);
        other.store(1, i);
        let write = |to: &Side, word: u64| SendOperation::Write {
            addr: to.addr() + 8 * word,
            rkey: to.key,
            imm: None,
        };
        one.post_send(i, write(&other, 0), vec![one.sge(0, 1)]);
        other.wait_for_word(0, i);
        other.post_send(i, write(&one, 1), vec![other.sge(1, 1)]);
        one.wait_for_word(1, i);
        if i % 50 == 0 {
            for _ in 0..50 {
                assert_eq!(one.wait().completion.status, Status::Success);
                assert_eq!(other.wait().completion.status, Status::Success);
            }
        }
    }
}

#[test]
fn who_waits_on_a_channel_is_woken() {
    for devices in ways() {
        let [one, other] = connected(Service::Rc, devices.each_ref());
        for i in 0..20 {
            other.post_recv(i, vec![other.sge(0, 1)]);
            for side in [&one, &other] {
                side.device.arm_cq(side.cq, false).unwrap();
                assert!(side.device.poll_cq(side.cq).unwrap().is_none());
            }
            one.post_send(i, SEND, vec![one.sge(0, 1)]);
            for side in [&one, &other] {
                assert_eq!(side.channel.take(), Ok(CQ_TOKEN));
                // Both may complete in the same queue, and not at the same time.
                assert_eq!(side.wait().completion.wr_id, i);
            }
        }
        assert_eq!(one.channel.take_back(CQ_TOKEN), 20);
    }
}

#[test]
fn a_receiver_that_has_polled_is_told_while_it_waits() {
    let devices = [Loopback::Memory, Loopback::Memory].map(new_device);
    let [one, other] = connected(Service::Rc, devices.each_ref());
    let rounds = 200;
    for i in 0..rounds {
        // Polling first, as programs do that spin for a while before they wait.
        other.post_recv(i, vec![other.sge(0, 1)]);
        one.post_send(i, SEND, vec![one.sge(0, 1)]);
        assert_eq!([other.wait(), one.wait()].map(|entry| entry.completion.wr_id), [i, i]);
        other.post_recv(i, vec![other.sge(0, 1)]);
        other.device.arm_cq(other.cq, false).unwrap();
        assert!(other.device.poll_cq(other.cq).unwrap().is_none());
        one.post_send(i, SEND, vec![one.sge(0, 1)]);
        assert_eq!(other.channel.take(), Ok(CQ_TOKEN));
        assert_eq!([other.wait(), one.wait()].map(|entry| entry.completion.wr_id), [i, i]);
    }
}

#[test]
fn messages_longer_than_a_call_moves_arrive_without_another_call() {
    for devices in ways() {
        let [one, other] = devices.each_ref().map(|device| Side::new(device, Service::Rc, 1 << 17));
        one.bring_to_rts(Some(one.path_to(&other)), other.qp_num);
        other.bring_to_rts(Some(other.path_to(&one)), one.qp_num);
        let last = (1 << 17) - 1;
        one.store(last, 9);
        let write = SendOperation::Write { addr: other.addr(), rkey: other.key, imm: None };
        one.post_send(1, write, vec![one.sge(0, 1 << 17)]);
        other.wait_for_word(last, 9);
        assert_eq!(one.wait().completion.status, Status::Success);
    }
}

#[test]
fn garbage_on_the_port_changes_nothing() {
    let devices = [Loopback::Memory, Loopback::Memory].map(new_device);
    let [one, other] = connected(Service::Rc, devices.each_ref());
    let socket = std::net::UdpSocket::bind((one.device.addr(), 0)).unwrap();
    let to = (other.device.addr(), 4791);
    let mut bytes = vec![0; 6000];
    let mut seed = 1_u32;
    for i in 0..2000 {
        for byte in &mut bytes {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (seed >> 24) as u8;
        }
        socket.send_to(&bytes[..(i * 37) % 6000], to).unwrap();
        if i % 20 == 0 {
            assert!(other.device.poll_cq(other.cq).unwrap().is_none());
        }
    }
    other.post_recv(1, vec![other.sge(0, 1)]);
    one.post_send(2, SEND, vec![one.sge(0, 1)]);
    assert_eq!(other.wait().completion.wr_id, 1);
    assert_eq!(one.wait().completion.wr_id, 2);
    let dropped = other.device.lock().unwrap().dropped();
    assert!(dropped.corrupt > 1000, "{dropped:?}");
}

#[test]
fn packets_for_no_queue_pair_are_dropped_and_counted() {
    let devices = [Loopback::Memory, Loopback::Memory].map(new_device);
    let [one, other] = connected(Service::Uc, devices.each_ref());
    let service = Side::new(&other.device, Service::Rc, 1);
    for dest_qp in [other.qp_num ^ 1, service.qp_num, 0, 1] {
        one.bring_to_rts(Some(one.path_to(&other)), dest_qp);
        one.post_send(1, SEND, vec![one.sge(0, 1)]);
        assert_eq!(one.wait().completion.status, Status::Success);
    }
    let end = Instant::now() + LONG;
    while other.device.lock().unwrap().dropped().unknown_qp < 4 {
        assert!(Instant::now() < end);
        assert!(other.device.poll_cq(other.cq).unwrap().is_none());
    }
}

#[test]
fn a_peer_that_is_gone_is_noticed() {
    let one = Side::new(&new_device(Loopback::Memory), Service::Rc, 1);
    // An address that no device takes by itself.
    let path = Path { dest: "127.0.0.255".parse().unwrap(), ..one.path_to(&one) };
    one.bring_to_rts(Some(path), 55);
    one.device.arm_cq(one.cq, false).unwrap();
    one.post_send(1, SEND, vec![one.sge(0, 1)]);
    // Nobody polls: the engine's timers do it, after 8 times 67 ms or a few more.
    let started = Instant::now();
    assert_eq!(one.channel.take(), Ok(CQ_TOKEN));
    assert!((300..5000).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
    assert_eq!(one.wait().completion.status, Status::RetryExceeded);
}

#[test]
fn connected_queue_pairs_that_do_nothing_use_no_time() {
    let devices = [Loopback::Memory, Loopback::Memory].map(new_device);
    let [one, other] = connected(Service::Rc, devices.each_ref());
    other.post_recv(1, vec![other.sge(0, 1)]);
    one.post_send(2, SEND, vec![one.sge(0, 1)]);
    assert_eq!((other.wait().completion.wr_id, one.wait().completion.wr_id), (1, 2));
    // The timers of what was sent, and the ticks of what was polled.
    std::thread::sleep(Duration::from_millis(200));
    let threads = || devices.each_ref().map(|device| device.lock().unwrap().turns);
    let before = threads();
    std::thread::sleep(Duration::from_secs(1));
    for (now, before) in threads().iter().zip(before) {
        // A few, for packets may come that are for a device that had the address before.
        assert!(now - before < 20, "the engine was awake {} times", now - before);
    }
}

#[test]
fn what_a_link_delays_is_sent_before_the_device_is_closed() {
    let [one, other] = [Loopback::Memory, Loopback::Memory]
        .map(|loopback| Side::new(&new_device(loopback), Service::Ud, 8));
    one.bring_to_rts(None, 0);
    other.bring_to_rts(None, 0);
    other.post_recv(1, vec![other.sge(0, 8)]);
    // Longer than the test takes.
    one.device.set_link(Link::new().set_delay(Link::MAX_DELAY)).unwrap();
    let (path, remote_qpn) = (one.path_to(&other), other.qp_num);
    let datagram = SendOperation::Datagram { path, remote_qpn, qkey: QKEY, imm: None };
    one.post_send(2, datagram, vec![one.sge(0, 1)]);
    assert_eq!(one.wait().completion.wr_id, 2);
    drop(one);
    assert_eq!(other.wait().completion.wr_id, 1);
}
