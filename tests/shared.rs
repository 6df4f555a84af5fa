//! The shared level on a device: what safe code sends, writes, reads, counts and receives, and what becomes of its
//! memory.

#![forbid(unsafe_code)]

use std::io::IoSlice;
use std::sync::atomic::Ordering;
use std::thread;

use ibverbs::{
    AccessFlags, Error, Payload, Rc, RecvRequest, Result, SharedBatch, SharedRegion, Uc, WcOpcode,
};
use ibverbs_tests::{
    activated, connect, eventually, other_context, pair, pair_with, pattern, prepare, prepare_on,
    wait, wait_ok, wait_one, way, Bed, Side, GRH, QKEY,
};

/// A full queue.
const ENOMEM: i32 = 12;

fn shared(bed: &Bed, len: usize) -> SharedRegion {
    bed.pd().allocate_shared(len, AccessFlags::PERMISSIVE).unwrap()
}

fn read(region: &SharedRegion, offset: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    region.read_at(offset, &mut bytes);
    bytes
}

/// Posts what `fill` adds.
fn submit(side: &mut Side, fill: impl FnOnce(&mut SharedBatch<'_, Rc>)) -> Result<()> {
    let mut batch = side.qp.start_shared();
    fill(&mut batch);
    batch.submit()
}

#[test]
fn messages_arrive_whole_from_several_pieces_into_several() {
    let bed = Bed::new();
    let (mut a, mut b) = pair(&bed);
    let (from, to) = (shared(&bed, 8192), shared(&bed, 8192));
    let data = pattern(6000, 1);
    from.write_at(100, &data[..2000]);
    from.write_at(3000, &data[2000..]);
    let slices = [to.slice(7..1007), to.slice(2000..8000)];
    b.qp.post_recv_shared([RecvRequest::shared(1, &slices)]).unwrap();
    let pieces = [from.slice(100..2100), from.slice(3000..7000)];
    submit(&mut a, |batch| batch.op().signaled().send(2, &pieces)).unwrap();
    assert_eq!(wait_one(&a.send_cq, 2).ok, Ok(()));
    let received = wait_ok(&b.recv_cq, 1).remove(0);
    assert_eq!((received.wr_id, received.len), (1, 6000));
    assert_eq!(read(&to, 7, 1000), data[..1000]);
    assert_eq!(read(&to, 2000, 5000), data[1000..]);
}

#[test]
fn inline_data_is_copied_as_it_is_named() {
    let bed = Bed::new();
    let (mut a, mut b) = pair(&bed);
    let to = shared(&bed, 256);
    let slots: Vec<_> = (0..4).map(|n| [to.slice(n * 64..(n + 1) * 64)]).collect();
    let requests = slots.iter().zip(0..).map(|(slot, id)| RecvRequest::shared(id, slot));
    b.qp.post_recv_shared(requests.collect::<Vec<_>>()).unwrap();
    let mut bytes = *b"first";
    let mut batch = a.qp.start_shared();
    batch.op().send(1, &bytes);
    bytes = *b"other";
    batch.op().imm(7).send(2, &[IoSlice::new(b"se"), IoSlice::new(b"cond")]);
    batch.op().send(3, &bytes);
    batch.op().signaled().imm(8).send(4, Payload::EMPTY);
    batch.submit().unwrap();
    assert_eq!(wait_one(&a.send_cq, 4).ok, Ok(()));
    let received = wait_ok(&b.recv_cq, 4);
    let told: Vec<_> = received.iter().map(|wc| (wc.len, wc.imm)).collect();
    assert_eq!(told, [(5, None), (6, Some(7)), (5, None), (0, Some(8))]);
    assert_eq!(read(&to, 0, 5), b"first");
    assert_eq!(read(&to, 64, 6), b"second");
    assert_eq!(read(&to, 128, 5), b"other");
}

#[test]
fn memory_is_written_and_read_from_afar() {
    let bed = Bed::new();
    let (mut a, mut b) = pair(&bed);
    let (own, far) = (shared(&bed, 65536), shared(&bed, 65536));
    let data = pattern(50_000, 2);
    own.write_at(0, &data);
    b.qp.post_recv_shared([RecvRequest::shared(9, &[])]).unwrap();
    let remote = far.remote().slice(1000..);
    submit(&mut a, |batch| {
        batch.op().write(1, &[own.slice(..50_000)], remote);
        batch.op().imm(5).write(2, b"!", remote.slice(60_000..));
        batch.op().fenced().signaled().read(3, &[own.slice(60_000..60_010)], far.remote());
    })
    .unwrap();
    let read_done = wait_one(&a.send_cq, 3);
    assert_eq!((read_done.ok, read_done.opcode), (Ok(()), WcOpcode::RDMA_READ));
    let told = wait_one(&b.recv_cq, 9);
    assert_eq!((told.imm, told.len), (Some(5), 1));
    assert_eq!(read(&far, 1000, 50_000), data);
    assert_eq!(read(&far, 61_000, 1), b"!");
    assert_eq!(read(&own, 60_000, 10), read(&far, 0, 10));
}

#[test]
fn numbers_are_changed_from_afar_and_seen_at_once() {
    let bed = Bed::new();
    let (mut a, _b) = pair(&bed);
    let (own, far) = (shared(&bed, 64), shared(&bed, 64));
    let number = far.atomic_u64(16);
    number.store(40, Ordering::SeqCst);
    let remote = far.remote().slice(16..);
    submit(&mut a, |batch| {
        batch.op().atomic_fetch_add(1, own.slice(..8), remote, 2);
        batch.op().signaled().atomic_cmp_swap(2, own.slice(8..16), remote, 42, 7);
    })
    .unwrap();
    assert_eq!(wait_one(&a.send_cq, 2).ok, Ok(()));
    assert_eq!(own.atomic_u64(0).load(Ordering::SeqCst), 40);
    assert_eq!(own.atomic_u64(8).load(Ordering::SeqCst), 42);
    assert_eq!(number.load(Ordering::SeqCst), 7);
}

#[test]
fn a_flag_that_a_peer_writes_can_be_waited_for() {
    let bed = Bed::new();
    let (mut a, _b) = pair(&bed);
    let far = shared(&bed, 64);
    let flag = far.atomic_u64(0);
    submit(&mut a, |batch| {
        batch.op().signaled().write(1, &7u64.to_ne_bytes(), far.remote());
    })
    .unwrap();
    eventually("the flag is written", || flag.load(Ordering::Acquire) == 7);
    assert_eq!(wait_one(&a.send_cq, 1).ok, Ok(()));
}

#[test]
fn a_full_queue_says_how_much_it_took_and_goes_on_when_there_is_room() {
    let bed = Bed::new();
    // Nothing completes before there are receives.
    let (mut a, mut b) = pair_with::<Rc>(&bed, |builder| builder.set_max_send_wr(8));
    let (from, to) = (shared(&bed, 8), shared(&bed, 8));
    let depth = u64::from(a.qp.capacity().max_send_wr);
    for round in 0..3 {
        let mut posted = 0;
        loop {
            let mut batch = a.qp.start_shared();
            for n in 0..5.min(depth) {
                batch.op().signaled().send(posted + n, &[from.slice(..)]);
            }
            match batch.submit() {
                Ok(()) => posted += 5.min(depth),
                Err(Error::PostShared { accepted, requested, source }) => {
                    assert_eq!(source.raw_os_error(), Some(ENOMEM));
                    assert!(accepted < requested);
                    posted += accepted as u64;
                    break;
                }
                Err(other) => panic!("{other:?}"),
            }
            assert!(posted < 100 * depth, "the queue does not become full");
        }
        assert!(posted >= depth, "round {round}: {posted} of {depth}");
        let mut done = Vec::new();
        let mut received = 0;
        eventually("all requests complete", || {
            let missing = (posted - received).min(8);
            let slots = [to.slice(..)];
            let requests: Vec<_> = (0..missing).map(|n| RecvRequest::shared(n, &slots)).collect();
            b.qp.post_recv_shared(requests).unwrap();
            received += missing;
            wait_ok(&b.recv_cq, missing as usize);
            done.extend(ids(&a.send_cq));
            done.len() as u64 == posted
        });
        assert!(done.into_iter().eq(0..posted));
    }
}

fn ids(cq: &ibverbs::CompletionQueue) -> Vec<u64> {
    let mut ids = Vec::new();
    if let Some(mut completions) = cq.poll().unwrap() {
        while let Some(wc) = completions.next() {
            wc.ok().unwrap();
            ids.push(wc.wr_id());
        }
    }
    ids
}

#[test]
fn a_shared_queue_takes_receives_from_any_thread() {
    let bed = Bed::new();
    let srq = bed.pd().create_srq(64).build().unwrap();
    let sender = prepare::<Rc>(&bed, |builder| builder.set_max_inline_data(8));
    let (mut a, b) = connect(sender, prepare_on(&bed, &srq));
    let mut region = shared(&bed, 4096);
    let other = region.split_off(2048);
    thread::scope(|scope| {
        let srq = &srq;
        scope.spawn(move || post_slots(srq, 0, region));
        scope.spawn(move || post_slots(srq, 16, other));
    });
    for n in 0..32u64 {
        submit(&mut a, |batch| batch.op().signaled().send(n, &n.to_ne_bytes())).unwrap();
        assert_eq!(wait_one(&a.send_cq, n).ok, Ok(()));
    }
    let mut taken: Vec<_> = wait_ok(&b.recv_cq, 32).iter().map(|wc| wc.wr_id).collect();
    taken.sort_unstable();
    assert!(taken.into_iter().eq(0..32));
}

fn post_slots(srq: &ibverbs::SharedReceiveQueue, first: u64, region: SharedRegion) {
    for n in 0..16 {
        let at = n as usize * 64;
        srq.post_recv_shared([RecvRequest::shared(first + n, &[region.slice(at..at + 64)])])
            .unwrap();
    }
}

#[test]
fn threads_use_their_pieces_of_one_region() {
    let bed = Bed::new();
    let mut region = shared(&bed, 1 << 16);
    let pairs: Vec<_> = (0..2).map(|_| pair(&bed)).collect();
    let pieces: Vec<_> = (0..2).map(|n| region.split_off((1 - n) << 15)).collect();
    thread::scope(|scope| {
        for ((n, (mut a, mut b)), piece) in pairs.into_iter().enumerate().zip(pieces) {
            scope.spawn(move || {
                for round in 0..50 {
                    let data = pattern(1000, n as u64 * 100 + round);
                    piece.write_at(0, &data);
                    let slot = [piece.slice(8192..9192)];
                    b.qp.post_recv_shared([RecvRequest::shared(1, &slot)]).unwrap();
                    let from = piece.slice(..1000);
                    submit(&mut a, |batch| batch.op().signaled().send(2, &[from])).unwrap();
                    assert_eq!(wait_one(&a.send_cq, 2).ok, Ok(()));
                    assert_eq!(wait_one(&b.recv_cq, 1).ok, Ok(()));
                    assert_eq!(read(&piece, 8192, 1000), data);
                }
            });
        }
    });
}

#[test]
fn memory_that_was_dropped_is_still_read_and_written() {
    let bed = Bed::new();
    let (mut a, mut b) = pair(&bed);
    let (from, to) = (shared(&bed, 4096), shared(&bed, 4096));
    from.write_at(0, b"still here");
    b.qp.post_recv_shared([RecvRequest::shared(1, &[to.slice(..)])]).unwrap();
    let mut batch = a.qp.start_shared();
    batch.op().signaled().send(2, &[from.slice(..10)]);
    // Before it is submitted, and before it arrives.
    drop((from, to));
    batch.submit().unwrap();
    assert_eq!(wait_one(&a.send_cq, 2).ok, Ok(()));
    assert_eq!(wait_one(&b.recv_cq, 1).ok, Ok(()));
}

#[test]
fn a_read_into_memory_that_the_device_may_not_write_fails_and_harms_nobody() {
    let bed = Bed::new();
    let (mut a, _b) = pair(&bed);
    let own = bed.pd().allocate_shared(64, AccessFlags::empty()).unwrap();
    own.write_at(0, &[1; 64]);
    let far = shared(&bed, 64);
    submit(&mut a, |batch| batch.op().signaled().read(1, &[own.slice(..)], far.remote())).unwrap();
    assert!(wait_one(&a.send_cq, 1).ok.is_err());
    assert_eq!(read(&own, 0, 64), [1; 64]);
}

#[test]
fn memory_of_another_domain_is_refused() {
    let bed = Bed::new();
    let (mut a, mut b) = pair(&bed);
    let same_device = bed.ctx().alloc_pd().unwrap();
    let elsewhere = other_context(bed.ctx()).alloc_pd().unwrap();
    for pd in [same_device, elsewhere] {
        let foreign = pd.allocate_shared(64, AccessFlags::LOCAL_WRITE).unwrap();
        let result = submit(&mut a, |batch| batch.op().send(1, &[foreign.slice(..)]));
        assert!(matches!(result, Err(Error::ProtectionDomainMismatch { .. })));
        let result = b.qp.post_recv_shared([RecvRequest::shared(1, &[foreign.slice(..)])]);
        assert!(matches!(result, Err(Error::ProtectionDomainMismatch { .. })));
    }
}

#[test]
fn datagrams_are_sent_and_received() {
    let bed = Bed::new();
    let (mut a, mut b) = (activated(&bed, QKEY), activated(&bed, QKEY));
    let to_b = way(&a, &b);
    let region = shared(&bed, 4096);
    region.write_at(0, b"datagram");
    b.qp.post_recv_shared([RecvRequest::shared(1, &[region.slice(1024..2048)])]).unwrap();
    let number = b.qp.qp_num();
    let mut batch = a.qp.start_shared();
    batch.to(&to_b, number, QKEY).signaled().send(2, &[region.slice(..8)]);
    batch.submit().unwrap();
    assert_eq!(wait_one(&a.send_cq, 2).ok, Ok(()));
    let received = wait(&b.recv_cq, 1).remove(0);
    assert_eq!(received.len as usize, GRH + 8);
    assert_eq!(read(&region, 1024 + GRH, 8), b"datagram");
}

#[test]
fn unreliable_connections_have_the_level_too() {
    let bed = Bed::new();
    let (mut a, mut b) = pair_with::<Uc>(&bed, |builder| builder);
    let region = shared(&bed, 4096);
    region.write_at(0, b"unreliable");
    b.qp.post_recv_shared([RecvRequest::shared(1, &[region.slice(1024..2048)])]).unwrap();
    let mut batch = a.qp.start_shared();
    batch.op().signaled().send(2, &[region.slice(..10)]);
    batch.submit().unwrap();
    assert_eq!(wait_one(&a.send_cq, 2).ok, Ok(()));
    assert_eq!(wait_one(&b.recv_cq, 1).ok, Ok(()));
    assert_eq!(read(&region, 1024, 10), b"unreliable");
}

#[test]
fn both_levels_take_turns_on_one_queue_pair() {
    let bed = Bed::new();
    let (mut a, mut b) = pair(&bed);
    let (region, mem) = (shared(&bed, 64), bed.mem(64));
    region.write_at(0, b"shared");
    mem.write(0, b"raw");
    for n in 0..20 {
        let slot = [region.slice(32..)];
        b.qp.post_recv_shared([RecvRequest::shared(n, &slot)]).unwrap();
        let expected: &[u8] = if n % 2 == 0 {
            submit(&mut a, |batch| batch.op().signaled().send(n, &[region.slice(..6)])).unwrap();
            b"shared"
        } else {
            ibverbs_tests::submit(&mut a.qp, |batch| {
                batch.op().signaled().send(n, &[mem.slice(..3)]);
            })
            .unwrap();
            b"raw"
        };
        assert_eq!(wait_one(&a.send_cq, n).ok, Ok(()));
        assert_eq!(wait_one(&b.recv_cq, n).len as usize, expected.len());
        assert_eq!(read(&region, 32, expected.len()), expected);
    }
}
