//! What is made to go wrong with the software device, and that programs see what they would of the real thing.
//!
//! Each test has a device of its own.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{env, fs, process};

use ibverbs::soft::{faults, Faults, Link, LinkCounts};
use ibverbs::{
    AccessFlags, AckTimeout, CompletionQueue, Connected, Context, Error, EventSource, EventType,
    PortState, QpState, QueuePairAttrMask as Mask, Rc, RecvRequest, Uc, WcStatus,
};
use ibverbs_tests::{
    activated, alone, assert_silent, pair_with, pattern, post_recv, role, soft_bed, submit, wait,
    wait_event, wait_ok, wait_one, way, Bed, Mem, Side, Wc, GRH, PORT, QKEY,
};

/// The bed of a device, and what can be made to go wrong with it.
fn bed(device: usize) -> Option<(Bed, Faults)> {
    let bed = soft_bed(device)?;
    let faults = faults(bed.ctx()).unwrap();
    Some((bed, faults))
}

/// A link on which everything goes wrong that can.
fn bad_link(seed: u64) -> Link {
    Link::new()
        .set_loss(0.05)
        .set_duplication(0.05)
        .set_corruption(0.05)
        .set_reordering(0.1, Duration::from_micros(300))
        .set_delay(Duration::from_micros(20))
        .set_seed(seed)
}

/// Everything has gone wrong at least once.
#[track_caller]
fn assert_all_happened(faults: &Faults) {
    let counts = faults.link_counts().unwrap();
    let LinkCounts { lost, duplicated, corrupted, held, .. } = counts;
    assert!([lost, duplicated, corrupted, held].iter().all(|&count| count > 0), "{counts:?}");
}

/// Two connected queue pairs.
fn pair<T: Connected>(bed: &Bed) -> (Side<T>, Side<T>) {
    pair_with(bed, |builder| builder.set_max_inline_data(64))
}

/// Two reliable queue pairs that try again after this time, this often.
fn retrying(bed: &Bed, millis: u64, retries: u8) -> (Side<Rc>, Side<Rc>) {
    let timeout = AckTimeout::at_least(Duration::from_millis(millis));
    pair_with(bed, |builder| builder.set_timeout(timeout).set_retry_count(retries))
}

/// Two reliable queue pairs that give up after two seconds: longer than a busy machine lets a test wait.
fn patient(bed: &Bed) -> (Side<Rc>, Side<Rc>) {
    retrying(bed, 250, 7)
}

/// What completes until nothing does for a while.
fn all(cq: &CompletionQueue) -> Vec<Wc> {
    let mut found = Vec::new();
    let mut end = Instant::now() + Duration::from_millis(100);
    while Instant::now() < end {
        if let Some(mut completions) = cq.poll().unwrap() {
            while let Some(wc) = completions.next() {
                found.push(Wc::new(&wc));
            }
            end = Instant::now() + Duration::from_millis(100);
        }
        std::thread::yield_now();
    }
    found
}

#[test]
fn a_reliable_connection_delivers_everything_in_order_whatever_the_link_does() {
    const COUNT: u64 = 60;
    const LEN: usize = 10_000;
    let Some((bed, faults)) = bed(0) else { return };
    let (mut a, mut b) = retrying(&bed, 16, 7);
    let (from, to) = (bed.mem(LEN * COUNT as usize), bed.mem(LEN * COUNT as usize));
    let place = |i: u64| LEN * i as usize..LEN * (i as usize + 1);
    faults.set_link(bad_link(1)).unwrap();
    for i in 0..COUNT {
        from.write(place(i).start, &pattern(LEN, i));
        post_recv(&mut b.qp, [RecvRequest::new(i, &[to.slice(place(i))])]).unwrap();
    }
    submit(&mut a.qp, |batch| {
        for i in 0..COUNT {
            batch.op().signaled().imm(i as u32).send(i, &[from.slice(place(i))]);
        }
    })
    .unwrap();
    let (sent, received) =
        (wait_ok(&a.send_cq, COUNT as usize), wait_ok(&b.recv_cq, COUNT as usize));
    for (i, (sent, received)) in sent.iter().zip(&received).enumerate() {
        let i = i as u64;
        assert_eq!((sent.wr_id, received.wr_id), (i, i));
        assert_eq!((received.len as usize, received.imm), (LEN, Some(i as u32)));
        assert!(to.read(place(i)) == pattern(LEN, i), "message {i}");
    }

    // What the peer does not take part in, and what must happen once.
    let number = bed.mem(8);
    number.write_u64(0, 5);
    let (remote, counter) = (from.remote(), number.remote());
    let results = bed.mem(8 * COUNT as usize);
    for i in 0..COUNT {
        to.write(place(i).start, &[0; LEN]);
    }
    submit(&mut a.qp, |batch| {
        for i in 0..COUNT {
            let (at, result) = (place(i).start as u64, 8 * i as usize);
            batch.op().read(i, &[to.slice(place(i))], remote.slice(at..at + LEN as u64));
            let result = results.slice(result..result + 8);
            batch.op().signaled().atomic_fetch_add(i, result, counter, 3);
        }
    })
    .unwrap();
    wait_ok(&a.send_cq, COUNT as usize);
    assert_eq!(number.read_u64(0), 5 + 3 * COUNT);
    for i in 0..COUNT {
        assert!(to.read(place(i)) == pattern(LEN, i), "read {i}");
        assert_eq!(results.read_u64(8 * i as usize), 5 + 3 * i);
    }
    assert_all_happened(&faults);
}

/// Checks that each completion is of a whole message that was sent: its number is its immediate data.
#[track_caller]
fn assert_whole(received: &[Wc], to: &Mem, room: usize, skip: usize, len: usize) {
    for wc in received {
        assert_eq!((wc.ok, wc.len as usize), (Ok(()), skip + len));
        let start = room * wc.wr_id as usize + skip;
        let number = wc.imm.expect("all have one").into();
        assert!(to.read(start..start + len) == pattern(len, number), "message {number}");
    }
}

#[test]
fn an_unreliable_connection_loses_whole_messages_and_corrupts_none() {
    const COUNT: usize = 60;
    const LEN: usize = 10_000;
    let Some((bed, faults)) = bed(1) else { return };
    let (mut a, mut b) = pair::<Uc>(&bed);
    let (from, to) = (bed.mem(LEN * COUNT), bed.mem(LEN * COUNT));
    let place = |i: usize| LEN * i..LEN * (i + 1);
    faults.set_link(bad_link(2)).unwrap();
    for i in 0..COUNT {
        from.write(place(i).start, &pattern(LEN, i as u64));
        post_recv(&mut b.qp, [RecvRequest::new(i as u64, &[to.slice(place(i))])]).unwrap();
    }
    for i in 0..COUNT {
        let slice = [from.slice(place(i))];
        submit(&mut a.qp, |batch| batch.op().signaled().imm(i as u32).send(1, &slice)).unwrap();
        assert_eq!(wait_one(&a.send_cq, 1).ok, Ok(()));
        // No two messages are on the way at a time: the link would mix them, and few would arrive.
        std::thread::sleep(Duration::from_millis(1));
    }
    let received = all(&b.recv_cq);
    assert!((1..COUNT).contains(&received.len()), "{} messages", received.len());
    assert_whole(&received, &to, LEN, 0, LEN);
    let numbers: Vec<_> = received.iter().map(|wc| wc.imm).collect();
    assert!(numbers.windows(2).all(|two| two[0] < two[1]), "{numbers:?}");
    assert_all_happened(&faults);
}

const DATAGRAMS: usize = 60;

/// Sends datagrams through the link, and returns the numbers of those that arrive, unchanged and in this order.
fn datagrams(bed: &Bed, faults: &Faults, link: Link) -> Vec<u32> {
    const LEN: usize = 1000;
    const ROOM: usize = GRH + LEN;
    let (mut a, mut b) = (activated(bed, QKEY), activated(bed, QKEY));
    let (to_b, number) = (way(&a, &b), b.qp.qp_num());
    let (from, to) = (bed.mem(LEN * DATAGRAMS), bed.mem(2 * ROOM * DATAGRAMS));
    faults.set_link(link).unwrap();
    // Twice as many, for datagrams may arrive twice.
    for i in 0..2 * DATAGRAMS {
        let slice = [to.slice(ROOM * i..ROOM * (i + 1))];
        post_recv(&mut b.qp, [RecvRequest::new(i as u64, &slice)]).unwrap();
    }
    for i in 0..DATAGRAMS {
        let place = LEN * i..LEN * (i + 1);
        from.write(place.start, &pattern(LEN, i as u64));
        let slice = [from.slice(place)];
        submit(&mut a.qp, |batch| {
            batch.to(&to_b, number, QKEY).imm(i as u32).signaled().send(1, &slice);
        })
        .unwrap();
        assert_eq!(wait_one(&a.send_cq, 1).ok, Ok(()));
    }
    let received = all(&b.recv_cq);
    assert_whole(&received, &to, ROOM, GRH, LEN);
    received.iter().map(|wc| wc.imm.expect("all have one")).collect()
}

#[test]
fn datagrams_are_lost_as_a_whole_and_none_is_corrupted() {
    let Some((bed, faults)) = bed(2) else { return };
    // So long that others overtake what is held, on a busy machine as well.
    let link = bad_link(3).set_reordering(0.1, Duration::from_millis(20));
    let link = link.set_loss(0.2).set_duplication(0.2).set_corruption(0.2);
    let numbers = datagrams(&bed, &faults, link);
    let different: BTreeSet<_> = numbers.iter().collect();
    assert!((1..DATAGRAMS).contains(&different.len()), "{numbers:?}");
    assert!(numbers.windows(2).any(|two| two[0] > two[1]), "{numbers:?}");
    assert_all_happened(&faults);
}

#[test]
fn the_same_seed_decides_the_same() {
    let Some((bed, faults)) = bed(3) else { return };
    let arrive = |seed| {
        let link =
            Link::new().set_loss(0.3).set_duplication(0.2).set_corruption(0.1).set_seed(seed);
        datagrams(&bed, &faults, link)
    };
    let first = arrive(1);
    assert_eq!(arrive(1), first);
    assert_ne!(arrive(2), first);
    let everything: Vec<_> = (0..DATAGRAMS as u32).collect();
    assert_ne!(first, everything);
    assert_eq!(datagrams(&bed, &faults, Link::new()), everything);
}

#[test]
fn the_link_of_either_side_is_between_two_devices() {
    let Some((one, here)) = bed(4) else { return };
    let Some((other, there)) = bed(5) else { return };
    let (a, b) = (ibverbs_tests::prepare(&one, |it| it), ibverbs_tests::prepare(&other, |it| it));
    let (mut a, mut b) = ibverbs_tests::connect::<Rc>(a, b);
    let mem = one.mem(8);
    let mut exchange = || {
        let start = Instant::now();
        post_recv(&mut b.qp, [RecvRequest::new(1, &[])]).unwrap();
        submit(&mut a.qp, |batch| batch.op().signaled().send(2, &[mem.slice(..0)])).unwrap();
        assert_eq!(wait_one(&b.recv_cq, 1).ok, Ok(()));
        let there = start.elapsed();
        assert_eq!(wait_one(&a.send_cq, 2).ok, Ok(()));
        (there, start.elapsed())
    };
    let delay = Duration::from_millis(5);
    for faults in [here, there] {
        // The message there, and its acknowledgement back.
        faults.set_link(Link::new().set_delay(delay)).unwrap();
        let (there, and_back) = exchange();
        assert!(there >= delay && and_back >= 2 * delay, "{there:?}, {and_back:?}");
        faults.set_link(Link::new()).unwrap();
    }
    assert_eq!((one.ctx().device().name(), other.ctx().device().name()), ("soft4", "soft5"));
}

#[test]
fn a_link_must_be_possible() {
    let Some((_bed, faults)) = bed(6) else { return };
    let error = faults.set_link(Link::new().set_loss(1.5)).unwrap_err();
    assert!(matches!(error, Error::Faults { .. }) && error.to_string() == "cannot set the link");
    let source = std::error::Error::source(&error).expect("it says why").to_string();
    assert_eq!(source, "the probability of loss is 1.5, but it can be from 0 to 1");
    for errno in [0, -1, 4096] {
        assert!(matches!(faults.fail_registrations(1, errno), Err(Error::Faults { .. })));
    }
}

#[track_caller]
fn assert_port(ctx: &Context, state: PortState) {
    assert_eq!(ctx.query_port(PORT).unwrap().state(), state);
}

#[test]
fn a_port_that_is_down_lets_nothing_through() {
    let Some((bed, faults)) = bed(7) else { return };
    let second = bed.ctx().device().open().unwrap();
    let (mut a, mut b) = retrying(&bed, 4, 2);
    let mem = bed.mem(16);
    let (from, remote) = ([mem.slice(..8)], mem.remote().slice(8..));
    assert_port(bed.ctx(), PortState::ACTIVE);
    faults.port_down().unwrap();
    faults.port_down().unwrap();
    for ctx in [bed.ctx(), &second] {
        let event = wait_event(ctx, EventType::PORT_ERR);
        assert_eq!(event.source(), EventSource::Port(PORT));
        assert!(ctx.poll_async_event().unwrap().is_none());
        assert_port(ctx, PortState::DOWN);
    }
    post_recv(&mut b.qp, [RecvRequest::new(1, &[])]).unwrap();
    submit(&mut a.qp, |batch| {
        batch.op().write(2, &from, remote);
        batch.op().signaled().send(3, &from[..0]);
    })
    .unwrap();
    let statuses: Vec<_> = wait(&a.send_cq, 2).iter().map(Wc::status).collect();
    assert_eq!(statuses, [WcStatus::RETRY_EXC_ERR, WcStatus::WR_FLUSH_ERR]);
    assert_silent(&b.recv_cq);
    assert_eq!(b.qp.query(Mask::STATE).unwrap().state(), Some(QpState::RTS));

    faults.port_up().unwrap();
    for ctx in [bed.ctx(), &second] {
        assert_eq!(wait_event(ctx, EventType::PORT_ACTIVE).source(), EventSource::Port(PORT));
        assert_port(ctx, PortState::ACTIVE);
    }
    let (mut a, _b) = patient(&bed);
    submit(&mut a.qp, |batch| batch.op().signaled().write(4, &from, remote)).unwrap();
    assert_eq!(wait_one(&a.send_cq, 4).ok, Ok(()));
}

#[test]
fn a_connection_outlives_a_port_that_is_down_for_a_while() {
    let Some((bed, faults)) = bed(8) else { return };
    let (mut a, _b) = patient(&bed);
    let mem = bed.mem(16);
    mem.write(0, b"and back");
    faults.port_down().unwrap();
    let (from, remote) = ([mem.slice(..8)], mem.remote().slice(8..));
    submit(&mut a.qp, |batch| batch.op().signaled().write(1, &from, remote)).unwrap();
    std::thread::sleep(Duration::from_millis(2));
    faults.port_up().unwrap();
    assert_eq!(wait_one(&a.send_cq, 1).ok, Ok(()));
    assert_eq!(mem.read(8..), b"and back");
}

#[test]
fn registrations_fail_as_often_as_is_said() {
    let Some((bed, faults)) = bed(9) else { return };
    let allocate = || bed.pd().allocate(4096, AccessFlags::LOCAL_WRITE);
    faults.fail_registrations(2, libc::ENOMEM).unwrap();
    for _ in 0..2 {
        let error = allocate().unwrap_err();
        assert!(matches!(error, Error::Register { .. }), "{error}");
        assert_eq!(error.os_error(), Some(libc::ENOMEM));
    }
    assert!(allocate().is_ok());
    faults.fail_registrations(u32::MAX, libc::EAGAIN).unwrap();
    assert_eq!(allocate().unwrap_err().os_error(), Some(libc::EAGAIN));
    faults.fail_registrations(0, libc::EAGAIN).unwrap();
    assert!(allocate().is_ok());
}

#[test]
fn a_device_that_fails_flushes_and_works_again_when_it_is_opened_anew() {
    let Some((bed, faults)) = bed(10) else { return };
    let (mut a, mut b) = patient(&bed);
    let mem = bed.mem(16);
    for wr_id in 0..3 {
        post_recv(&mut b.qp, [RecvRequest::new(wr_id, &[mem.slice(..)])]).unwrap();
    }
    // What is on its way when it happens.
    faults.set_link(Link::new().set_loss(1.0)).unwrap();
    let remote = mem.remote();
    submit(&mut a.qp, |batch| batch.op().signaled().write(7, &[mem.slice(..)], remote)).unwrap();
    faults.fail_device().unwrap();
    faults.fail_device().unwrap();
    assert_eq!(wait_event(bed.ctx(), EventType::DEVICE_FATAL).source(), EventSource::Device);
    assert!(bed.ctx().poll_async_event().unwrap().is_none());
    assert_eq!(wait_one(&a.send_cq, 7).status(), WcStatus::WR_FLUSH_ERR);
    let flushed: Vec<_> = wait(&b.recv_cq, 3).iter().map(|wc| (wc.wr_id, wc.status())).collect();
    assert_eq!(flushed, [0, 1, 2].map(|wr_id| (wr_id, WcStatus::WR_FLUSH_ERR)));

    let is_eio = |error: Error| error.os_error() == Some(libc::EIO);
    assert!(is_eio(bed.ctx().query_device().unwrap_err()));
    assert!(is_eio(bed.ctx().query_port(PORT).unwrap_err()));
    assert!(is_eio(bed.ctx().alloc_pd().unwrap_err()));
    assert!(is_eio(bed.ctx().create_cq(1).build().unwrap_err()));
    assert!(is_eio(bed.pd().allocate(8, AccessFlags::LOCAL_WRITE).unwrap_err()));
    assert!(is_eio(a.qp.query(Mask::STATE).unwrap_err()));
    assert!(is_eio(bed.ctx().device().open().unwrap_err()));
    let write =
        |a: &mut Side| submit(&mut a.qp, |batch| batch.op().write(8, &[mem.slice(..)], remote));
    assert!(is_eio(write(&mut a).unwrap_err()));
    assert!(is_eio(post_recv(&mut b.qp, [RecvRequest::new(9, &[])]).unwrap_err()));
    assert!(matches!(faults.port_up(), Err(Error::Faults { .. })));

    for side in [a, b] {
        side.qp.close().unwrap();
        side.send_cq.close().unwrap();
        side.recv_cq.close().unwrap();
    }
    drop((mem, bed));
    assert_eq!(faults.fail_device().unwrap_err().os_error(), Some(libc::ENODEV));
    let Some((bed, _faults)) = self::bed(10) else { return };
    let (mut a, _b) = patient(&bed);
    let mem = bed.mem(16);
    let remote = mem.remote();
    submit(&mut a.qp, |batch| batch.op().signaled().write(1, &[mem.slice(..)], remote)).unwrap();
    assert_eq!(wait_one(&a.send_cq, 1).ok, Ok(()));
}

/// A file that is removed when this is dropped.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str) -> TempFile {
        TempFile(env::temp_dir().join(format!("ibverbs-{}-{name}", process::id())))
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The packets in a capture: the payloads of UDP, from devices with addresses of IPv4.
fn packets(file: &TempFile) -> Vec<Vec<u8>> {
    const HEADERS: usize = 20 + 8;
    let bytes = fs::read(&file.0).unwrap();
    let (header, mut rest) = bytes.split_at(24);
    assert_eq!(header[..4], 0xa1b2_3c4d_u32.to_le_bytes());
    let mut packets = Vec::new();
    while !rest.is_empty() {
        let len = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
        let (packet, after) = rest[16..].split_at(len);
        assert_eq!(packet[0], 0x45);
        assert_eq!(packet[22..24], 4791_u16.to_be_bytes());
        packets.push(packet[HEADERS..].to_vec());
        rest = after;
    }
    packets
}

#[test]
fn a_capture_has_what_the_link_leaves_of_packets() {
    const UD_SEND_ONLY: u8 = 0x65;
    let Some((bed, faults)) = bed(11) else { return };
    let file = TempFile::new("link.pcap");
    let capture = faults.capture(&file.0).unwrap();
    let link = Link::new().set_loss(0.3).set_duplication(0.3).set_seed(4);
    let arrived = datagrams(&bed, &faults, link).len();
    let again = faults.capture(&file.0);
    assert!(matches!(again, Err(Error::Faults { .. })), "two captures share a file");
    assert_eq!(capture.finish().unwrap() as usize, arrived);
    let packets = packets(&file);
    assert_eq!(packets.len(), arrived);
    assert!(packets.iter().all(|packet| packet[0] == UD_SEND_ONLY));

    // One that has ended does not go on, and can be begun again.
    datagrams(&bed, &faults, Link::new());
    assert_eq!(self::packets(&file).len(), arrived);
    assert_eq!(faults.capture(&file.0).unwrap().finish().unwrap(), 0);
    assert_eq!(self::packets(&file).len(), 0);
}

#[test]
fn whoever_runs_a_program_can_capture_its_packets() {
    let Some((bed, _faults)) = bed(0) else { return };
    drop(bed);
    let file = TempFile::new("variable-soft12.pcap");
    let path = file.0.to_str().expect("it is UTF-8").replace("soft12", "%d");
    let name = "whoever_runs_a_program_can_capture_its_packets";
    alone(name, &[("IBVERBS_SOFT_PCAP", &path)], || {
        // More than once, for programs open a device as often as they like.
        for _ in 0..2 {
            let Some((bed, faults)) = self::bed(12) else { return };
            datagrams(&bed, &faults, Link::new());
        }
    });
    if role().is_none() {
        assert_eq!(packets(&file).len(), 2 * DATAGRAMS);
    }
}

#[test]
fn other_devices_are_none_of_its_business() {
    let Some((bed, faults)) = bed(13) else { return };
    let Some((other, _)) = self::bed(14) else { return };
    faults.set_link(Link::new().set_loss(1.0)).unwrap();
    faults.fail_registrations(1, libc::ENOMEM).unwrap();
    faults.fail_device().unwrap();
    assert!(bed.ctx().alloc_pd().is_err());
    let mem = other.mem(16);
    let (mut a, _b) = pair::<Rc>(&other);
    let remote = mem.remote();
    submit(&mut a.qp, |batch| batch.op().signaled().write(1, &[mem.slice(..)], remote)).unwrap();
    assert_eq!(wait_one(&a.send_cq, 1).ok, Ok(()));
    assert!(other.ctx().poll_async_event().unwrap().is_none());
}
