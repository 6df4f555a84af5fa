//! What is special about the software device: it is in the process, on a port of UDP that anybody can send to.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use ibverbs::{
    AckTimeout, Error, GidType, LinkLayer, PortState, QpState, QueuePairAttrMask as Mask, Rc,
    RecvRequest, RemoteMemorySlice, WcFields, WcStatus,
};
use ibverbs_tests::{
    activated, alone, alone_with_each, assert_silent, be_peer, connect, connect_to, other_context,
    pair, pair_with, pattern, post_recv, prepare, role, say_skipped, submit, test_context, wait,
    wait_for_death, wait_ok, wait_one, way, Ability, Bed, Numbers, Side, GRH, PORT, QKEY,
};

/// The port of RoCE.
const ROCE: u16 = 4791;

/// A bed on the software device; `None`, with a line that says so, if the tests run on another one.
fn soft() -> Option<Bed> {
    Bed::without(Ability::Kernel)
}

fn address(bed: &Bed) -> IpAddr {
    match bed.gid().gid().to_ipv4_mapped() {
        Some(address) => address.into(),
        None => IpAddr::V6(bed.gid().gid().into()),
    }
}

/// Sends a message and checks that it arrives.
#[track_caller]
fn assert_connected(a: &mut Side, b: &mut Side, seed: u64) {
    let data = pattern(10_000, seed);
    let (from, to) = (a.bed.mem(data.len()), b.bed.mem(data.len()));
    from.write(0, &data);
    post_recv(&mut b.qp, [RecvRequest::new(1, &[to.slice(..)])]).unwrap();
    submit(&mut a.qp, |batch| batch.op().signaled().send(2, &[from.slice(..)])).unwrap();
    assert_eq!(wait_one(&a.send_cq, 2).ok, Ok(()));
    assert_eq!(wait_one(&b.recv_cq, 1).ok, Ok(()));
    assert!(to.read(..) == data);
}

#[test]
fn devices_have_names_identities_and_addresses_of_their_own() {
    let Some(bed) = soft() else { return };
    let other = Bed::on(other_context(bed.ctx()));
    let (one, two) = (bed.ctx().device(), other.ctx().device());
    assert_eq!((one.name(), two.name()), ("soft0", "soft1"));
    assert_ne!(one.guid(), two.guid());
    assert_ne!(address(&bed), address(&other));
    for bed in [&bed, &other] {
        let attr = bed.ctx().query_device().unwrap();
        assert_eq!(attr.node_guid(), bed.ctx().device().guid());
        assert!(!attr.node_guid().is_reserved());
        let port = bed.ctx().query_port(PORT).unwrap();
        assert_eq!((port.state(), port.link_layer()), (PortState::ACTIVE, LinkLayer::ETHERNET));
        let (gid, index) = (bed.gid(), bed.gid_index());
        assert_eq!((gid.gid_type(), index), (GidType::ROCE_V2, 1));
        assert!(gid.netdev_name().is_some());
        assert_eq!(bed.ctx().query_pkey(PORT, 0).unwrap(), 0xffff);
    }
}

#[test]
fn two_devices_of_one_process_reach_each_other() {
    let Some(bed) = soft() else { return };
    let other = Bed::on(other_context(bed.ctx()));
    let (mut a, mut b) =
        connect(prepare::<Rc>(&bed, |builder| builder), prepare(&other, |builder| builder));
    assert_connected(&mut a, &mut b, 1);
    assert_connected(&mut b, &mut a, 2);

    let (mut a, mut b) = (activated(&bed, QKEY), activated(&other, QKEY));
    let (to_b, number) = (way(&a, &b), b.qp.qp_num());
    let to = other.mem(GRH + 100);
    post_recv(&mut b.qp, [RecvRequest::new(1, &[to.slice(..)])]).unwrap();
    submit(&mut a.qp, |batch| batch.to(&to_b, number, QKEY).signaled().send(2, b"hello")).unwrap();
    assert_eq!(wait_one(&a.send_cq, 2).ok, Ok(()));
    assert_eq!(wait_one(&b.recv_cq, 1).len as usize, GRH + 5);
    assert_eq!(to.read(GRH..GRH + 5), b"hello");
}

/// If this is the peer's process, connects and does nothing more.
fn be_killed_as_peer(bed: &Bed) {
    if role().is_some() {
        let _connection = be_peer(bed, 4096);
        wait_for_death();
    }
}

#[test]
fn work_towards_a_killed_peer_fails_within_its_timeout_times_its_retries() {
    const RETRIES: u8 = 3;
    let Some(bed) = soft() else { return };
    be_killed_as_peer(&bed);
    let timeout = AckTimeout::at_least(Duration::from_millis(60));
    let limit = timeout.duration().expect("it is not infinite") * (u32::from(RETRIES) + 1);
    let mem = bed.mem(4096);
    let name = "work_towards_a_killed_peer_fails_within_its_timeout_times_its_retries";
    let prepared = prepare(&bed, |builder| builder.set_timeout(timeout).set_retry_count(RETRIES));
    let (peer, mut a, remote) = connect_to(name, prepared, &mem);
    post_recv(&mut a.qp, [RecvRequest::new(9, &[mem.slice(..)])]).unwrap();
    submit(&mut a.qp, |batch| batch.op().signaled().write(1, &[mem.slice(..)], remote)).unwrap();
    assert_eq!(wait_one(&a.send_cq, 1).ok, Ok(()));
    drop(peer);
    let start = Instant::now();
    submit(&mut a.qp, |batch| {
        for id in 2..5 {
            batch.op().signaled().write(id, &[mem.slice(..)], remote);
        }
    })
    .unwrap();
    let failed = wait(&a.send_cq, 3);
    let time = start.elapsed();
    let statuses: Vec<_> = failed.iter().map(|wc| wc.status()).collect();
    assert_eq!(statuses, [WcStatus::RETRY_EXC_ERR, WcStatus::WR_FLUSH_ERR, WcStatus::WR_FLUSH_ERR]);
    assert_eq!(wait_one(&a.recv_cq, 9).status(), WcStatus::WR_FLUSH_ERR);
    assert_eq!(a.qp.query(Mask::STATE).unwrap().state(), Some(QpState::ERR));
    // The specification lets a timeout take up to four times as long; the processors may be busy.
    assert!(time >= limit / 2, "{time:?} of {limit:?}");
    assert!(time < 4 * limit + Duration::from_secs(2), "{time:?} of {limit:?}");
}

#[test]
fn receives_from_a_killed_peer_wait() {
    let Some(bed) = soft() else { return };
    be_killed_as_peer(&bed);
    let mem = bed.mem(4096);
    let prepared = prepare(&bed, |builder| builder);
    let (peer, mut a, _) = connect_to("receives_from_a_killed_peer_wait", prepared, &mem);
    post_recv(&mut a.qp, [RecvRequest::new(1, &[mem.slice(..)])]).unwrap();
    drop(peer);
    assert_silent(&a.recv_cq);
    assert_eq!(a.qp.query(Mask::STATE).unwrap().state(), Some(QpState::RTS));
    a.qp.close().unwrap();
}

#[test]
fn processes_take_different_addresses_by_themselves() {
    let Some(bed) = soft() else { return };
    let name = "processes_take_different_addresses_by_themselves";
    let mem = bed.mem(4096);
    if role().is_some() {
        let (_side, peer_mem, _) = be_peer(&bed, 4096);
        ibverbs_tests::tell(&address(&bed).to_string());
        ibverbs_tests::hear();
        assert_eq!(peer_mem.read(..5), b"hello");
        ibverbs_tests::tell("arrived");
        wait_for_death();
    }
    mem.write(0, b"hello");
    let (mut peer, mut a, remote) = connect_to(name, prepare(&bed, |builder| builder), &mem);
    let theirs: IpAddr = peer.hear().parse().unwrap();
    assert!(theirs.is_loopback() && theirs != address(&bed), "{theirs}");
    submit(&mut a.qp, |batch| batch.op().signaled().write(1, &[mem.slice(..)], remote)).unwrap();
    assert_eq!(wait_one(&a.send_cq, 1).ok, Ok(()));
    peer.tell("look");
    assert_eq!(peer.hear(), "arrived");
}

/// Bytes that are no packet for anybody here, but some of which look like one.
fn garbage(numbers: &mut Numbers, qp_num: u32) -> Vec<u8> {
    let len = numbers.below(120);
    let mut bytes: Vec<u8> = (0..len).map(|_| numbers.below(256) as u8).collect();
    if len >= 12 && numbers.below(4) > 0 {
        // A base transport header of any operation, for a queue pair that is there. The checksum is wrong.
        bytes[1] = 0;
        bytes[2..4].copy_from_slice(&[0xff, 0xff]);
        bytes[4..8].copy_from_slice(&qp_num.to_be_bytes());
        bytes[8..12].copy_from_slice(&(numbers.below(8) as u32).to_be_bytes());
    }
    bytes
}

#[test]
fn garbage_changes_nothing() {
    let Some(bed) = soft() else { return };
    // From the peer's own address, which is this one's as well.
    let socket = UdpSocket::bind((address(&bed), 0)).unwrap();
    let to = SocketAddr::new(address(&bed), ROCE);
    let (mut a, mut b) = pair_with::<Rc>(&bed, |builder| builder.set_first_psn(0));
    let target = bed.mem(4096);
    post_recv(&mut b.qp, [RecvRequest::new(7, &[target.slice(..)])]).unwrap();
    let (mut numbers, qp_num) = (Numbers::seeded(7), b.qp.qp_num());
    for _ in 0..20 {
        for _ in 0..100 {
            socket.send_to(&garbage(&mut numbers, qp_num), to).unwrap();
        }
        assert!(b.recv_cq.poll().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_silent(&b.recv_cq);
    assert_silent(&a.send_cq);
    assert_eq!(target.read(..), vec![0; 4096]);
    for side in [&mut a, &mut b] {
        assert_eq!(side.qp.query(Mask::STATE).unwrap().state(), Some(QpState::RTS));
    }
    assert_eq!(bed.ctx().poll_async_event().unwrap(), None);

    // It is not in the way of others either.
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut numbers = Numbers::seeded(8);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for _ in 0..10 {
                    // The device's queue may be full.
                    let _ = socket.send_to(&garbage(&mut numbers, qp_num), to);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        submit(&mut a.qp, |batch| batch.op().signaled().send(1, &[target.slice(..5)])).unwrap();
        assert_eq!(wait_one(&b.recv_cq, 7).len, 5);
        assert_eq!(wait_one(&a.send_cq, 1).ok, Ok(()));
        for round in 0..50 {
            assert_connected(&mut a, &mut b, round);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

/// The time that the processors have spent on this process.
fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it points to a structure that the call may write.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) }, 0);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

#[test]
fn an_idle_device_sleeps() {
    alone("an_idle_device_sleeps", &[], || {
        let Some(bed) = soft() else { return };
        let mut pairs: Vec<_> = (0..10).map(|_| pair(&bed)).collect();
        let mem = bed.mem(4096);
        for (a, b) in &mut pairs {
            assert_connected(a, b, 1);
            for side in [a, b] {
                post_recv(&mut side.qp, [RecvRequest::new(1, &[mem.slice(..)])]).unwrap();
            }
        }
        // What is left to do is done within a moment.
        std::thread::sleep(Duration::from_millis(200));
        let (start, before) = (Instant::now(), processor_time());
        std::thread::sleep(Duration::from_secs(3));
        let (time, spent) = (start.elapsed(), processor_time() - before);
        // Ten milliseconds in ten seconds.
        assert!(spent < time / 1000, "{spent:?} in {time:?}");
    });
}

#[test]
fn completions_have_the_time_of_the_device_s_clock() {
    let Some(bed) = soft() else { return };
    assert_eq!(bed.ctx().query_device_ex().unwrap().core_clock_khz(), Some(1_000_000));
    let clock = || bed.ctx().query_rt_values_ex().unwrap().raw_clock();
    let fields = WcFields::COMPLETION_TIMESTAMP;
    let cq = bed.ctx().create_cq(16).set_wc_fields(fields).build().unwrap();
    let builder = bed.pd().create_qp::<Rc>(&cq, &cq, PORT).unwrap();
    let qp = builder.set_gid_index(bed.gid_index()).build().unwrap();
    let endpoint = qp.endpoint().unwrap();
    let mut qp = qp.handshake(endpoint).unwrap();
    let mem = bed.mem(8);
    let mut last = clock();
    for round in 0..10 {
        let remote = mem.remote();
        submit(&mut qp, |batch| {
            batch.op().signaled().write(round, &[mem.slice(..)], remote);
        })
        .unwrap();
        let mut time = None;
        ibverbs_tests::eventually("it completes", || {
            let polled = cq.poll().unwrap();
            time =
                polled.and_then(|mut found| found.next().and_then(|wc| wc.completion_timestamp()));
            time.is_some()
        });
        let time = time.unwrap();
        assert!(last <= time && time <= clock(), "{last} {time}");
        last = time;
    }
}

#[test]
fn an_address_that_is_taken_is_told() {
    let taken = Ipv4Addr::new(127, 0, 4, 1);
    let variables = [("IBVERBS_PROVIDER", "soft"), ("IBVERBS_SOFT_ADDR", "127.0.4.1")];
    alone("an_address_that_is_taken_is_told", &variables, || {
        let Ok(_taken) = UdpSocket::bind((taken, ROCE)) else {
            return say_skipped("the port of RoCE is taken, for all addresses");
        };
        let devices = ibverbs::devices().unwrap();
        let error = devices.get(0).unwrap().open().unwrap_err();
        assert!(matches!(error, Error::OpenDevice { .. }), "{error:?}");
        assert_eq!(error.os_error(), Some(libc::EADDRINUSE));
        assert!(error.to_string().contains("UDP port 4791"), "{error}");
    });
}

#[test]
fn an_address_of_another_machine_is_told() {
    // It is one for documentation (RFC 5737).
    let variables = [("IBVERBS_PROVIDER", "soft"), ("IBVERBS_SOFT_ADDR", "192.0.2.1")];
    alone("an_address_of_another_machine_is_told", &variables, || {
        let devices = ibverbs::devices().unwrap();
        let error = devices.get(0).unwrap().open().unwrap_err();
        assert_eq!(error.os_error(), Some(libc::EADDRNOTAVAIL), "{error}");
        assert!(error.to_string().contains("IBVERBS_SOFT_ADDR"), "{error}");
    });
}

#[test]
fn a_process_that_cannot_be_told_why_goes_on() {
    let variables = [("IBVERBS_PROVIDER", "soft"), ("IBVERBS_SOFT_ADDR", "192.0.2.1")];
    alone("a_process_that_cannot_be_told_why_goes_on", &variables, || {
        let full = File::options().write(true).open("/dev/full").unwrap();
        // SAFETY: dup2(2) takes any numbers; nobody owns the standard descriptors.
        assert_eq!(unsafe { libc::dup2(full.as_raw_fd(), libc::STDERR_FILENO) }, 2);
        let devices = ibverbs::devices().unwrap();
        let error = devices.get(0).unwrap().open().unwrap_err();
        assert_eq!(error.os_error(), Some(libc::EADDRNOTAVAIL), "{error}");
    });
}

/// Checks that connections and datagrams work on the address that the environment tells, or on any if it tells none.
fn assert_works_as_told() {
    let Some(bed) = soft() else { return };
    if let Ok(told) = std::env::var("IBVERBS_SOFT_ADDR") {
        assert_eq!(address(&bed).to_string(), told);
    }
    let (mut a, mut b) = pair(&bed);
    assert_connected(&mut a, &mut b, 1);
    let mut datagrams = activated(&bed, QKEY);
    let (to, number) = (way(&datagrams, &datagrams), datagrams.qp.qp_num());
    let mem = bed.mem(GRH + 5);
    post_recv(&mut datagrams.qp, [RecvRequest::new(1, &[mem.slice(..)])]).unwrap();
    submit(&mut datagrams.qp, |batch| batch.to(&to, number, QKEY).signaled().send(2, b"hello"))
        .unwrap();
    assert_eq!(wait_one(&datagrams.recv_cq, 1).len as usize, GRH + 5);
    assert_eq!(mem.read(GRH..), b"hello");

    let mem = bed.mem(8192);
    let wrong = RemoteMemorySlice { rkey: !mem.remote().rkey, ..mem.remote() };
    let remote = mem.remote().slice(4096..);
    submit(&mut a.qp, |batch| {
        batch.op().signaled().write(1, &[mem.slice(..4096)], remote);
        batch.op().signaled().read(2, &[mem.slice(..4096)], remote);
        batch.op().signaled().write(3, &[mem.slice(..8)], wrong);
    })
    .unwrap();
    let statuses: Vec<_> = wait(&a.send_cq, 3).iter().map(|wc| wc.status()).collect();
    assert_eq!(statuses, [WcStatus::SUCCESS, WcStatus::SUCCESS, WcStatus::REM_ACCESS_ERR]);
}

const MEMORY: (&str, &str) = ("IBVERBS_SOFT_LOOPBACK", "memory");
const WIRE: (&str, &str) = ("IBVERBS_SOFT_LOOPBACK", "wire");

#[test]
fn a_device_has_the_address_that_it_is_told() {
    let addr = ("IBVERBS_SOFT_ADDR", "127.0.4.2");
    let sets: [&[_]; 2] = [&[addr, MEMORY], &[addr, WIRE]];
    alone_with_each("a_device_has_the_address_that_it_is_told", &sets, assert_works_as_told);
}

#[test]
fn an_address_of_ipv6_serves_as_well() {
    let addr = ("IBVERBS_SOFT_ADDR", "::1");
    if UdpSocket::bind((addr.1, 0)).is_err() {
        return say_skipped("the system has no IPv6");
    }
    let sets: [&[_]; 2] = [&[addr, MEMORY], &[addr, WIRE]];
    alone_with_each("an_address_of_ipv6_serves_as_well", &sets, assert_works_as_told);
}

#[test]
fn a_forked_process_has_devices_of_its_own() {
    alone("a_forked_process_has_devices_of_its_own", &[], || {
        let Some(bed) = soft() else { return };
        let (mut a, mut b) = pair(&bed);
        assert_connected(&mut a, &mut b, 1);
        let parent = address(&bed);
        // SAFETY: this process has no other threads that hold locks which the child needs: the test harness waits for this
        // test, and the device's own thread takes none that a new device would.
        let child = unsafe { libc::fork() };
        assert!(child >= 0, "{}", std::io::Error::last_os_error());
        if child == 0 {
            // Whatever happens, nothing of the parent's is dropped here.
            let result = std::panic::catch_unwind(|| {
                let bed = Bed::on(test_context());
                assert_ne!(address(&bed), parent);
                let (mut a, mut b) = pair(&bed);
                assert_connected(&mut a, &mut b, 2);
            });
            // SAFETY: it ends the process at once.
            unsafe { libc::_exit(i32::from(result.is_err())) };
        }
        for round in 0..20 {
            assert_connected(&mut a, &mut b, round);
        }
        let mut status = 0;
        // SAFETY: the second argument points to a place for a number.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "status {status:#x}");
        assert_connected(&mut a, &mut b, 99);
        assert_eq!(wait_ok(&a.send_cq, 0), []);
    });
}
