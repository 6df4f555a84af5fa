//! The shared level: what is posted names registered memory for as long as anything could reach it, whatever safe code
//! does, and nothing that the queue pair cannot carry out reaches the provider.

use std::io::IoSlice;
use std::mem::forget;
use std::sync::atomic::Ordering;

use ibverbs::{
    AccessFlags, AddressHandle, Error, Payload, QpState, QueuePair, QueuePairAttr, Rc, RecvRequest,
    RemoteMemorySlice, Result, SharedBatch, SharedRegion, Ud, WindowType1,
};
use null_provider::{Kind, Operation, Payload as Carried, PostLimit, Verb};

use crate::common::{
    activated, complete, connected, expect_poll_in_progress, null, open, parts, poll_all,
    some_handle, submit, with_windows, Null, Parts, QKEY,
};
use crate::srd::{efa, srd};

const REMOTE: RemoteMemorySlice = RemoteMemorySlice { addr: 0x7000, len: 64, rkey: 9 };

pub(crate) fn region(pd: &ibverbs::ProtectionDomain) -> SharedRegion {
    pd.allocate_shared(4096, AccessFlags::PERMISSIVE).unwrap()
}

pub(crate) fn send(qp: &mut QueuePair<Rc>, region: &SharedRegion) -> Result<()> {
    let mut batch = qp.start_shared();
    batch.op().signaled().send(1, &[region.slice(..8)]);
    batch.submit()
}

/// That the region that was dropped is still registered, and then, when this was dropped, is not.
fn outlives<T>(null: &Null, user: T, destroy: Verb) {
    assert_eq!((null.count(Verb::DeregMr), null.live(Kind::Mr)), (0, 1));
    null.take_calls();
    drop(user);
    let verbs = null.verbs();
    let place = |verb| verbs.iter().position(|&found| found == verb);
    assert!(place(destroy).unwrap() < place(Verb::DeregMr).unwrap(), "{verbs:?}");
    assert_eq!(null.live(Kind::Mr), 0);
}

#[test]
fn a_region_that_nothing_reaches_is_freed_at_once() {
    let null = null();
    let Parts { pd, .. } = parts();
    drop(region(&pd));
    assert_eq!((null.count(Verb::DeregMr), null.live(Kind::Mr)), (1, 0));
}

#[test]
fn a_region_outlives_the_queue_pairs_of_its_domain() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let (mut qp, other) = (connected(&pd, &cq), connected(&pd, &cq));
    let memory = region(&pd);
    send(&mut qp, &memory).unwrap();
    drop((memory, other));
    // In any order: this one is the last.
    outlives(&null, qp, Verb::DestroyQp);
}

#[test]
fn a_region_outlives_the_shared_queues_of_its_domain() {
    let null = null();
    let Parts { pd, .. } = parts();
    let srq = pd.create_srq(4).build().unwrap();
    let memory = region(&pd);
    srq.post_recv_shared([RecvRequest::shared(1, &[memory.slice(..)])]).unwrap();
    drop((memory, pd));
    outlives(&null, srq, Verb::DestroySrq);
}

#[test]
fn a_region_outlives_a_queue_pair_that_keeps_a_shared_queue() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let srq = pd.create_srq(4).build().unwrap();
    let qp = pd.create_qp::<Rc>(&cq, &cq, 1).unwrap().set_srq(&srq).build().unwrap();
    let memory = region(&pd);
    srq.post_recv_shared([RecvRequest::shared(1, &[memory.slice(..)])]).unwrap();
    drop((memory, srq));
    outlives(&null, qp, Verb::DestroySrq);
}

#[test]
fn a_region_outlives_the_windows_of_its_domain() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let mut window = pd.alloc_window::<WindowType1>().unwrap();
    let memory = pd.allocate_shared(64, AccessFlags::LOCAL_WRITE | AccessFlags::MW_BIND).unwrap();
    let mut qp = with_windows(&pd, &cq);
    let (range, access) = (8..16, AccessFlags::REMOTE_WRITE);
    let remote = qp.bind_window_shared(1, &mut window, &memory, range, access).unwrap();
    assert_eq!((remote.addr, remote.len), (memory.remote().addr + 8, 8));
    assert_eq!(remote.rkey, window.rkey());
    null.take_calls();
    qp.unbind_window_shared(2, &mut window, &memory).unwrap();
    assert_eq!(null.count(Verb::BindMw), 1);
    qp.bind_window_shared(3, &mut window, &memory, .., access).unwrap();
    drop((memory, qp));
    outlives(&null, window, Verb::DeallocMw);
}

#[test]
fn a_region_outlives_a_queue_pair_that_waits_for_the_end_of_a_poll() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let (mut qp, memory) = (connected(&pd, &cq), region(&pd));
    send(&mut qp, &memory).unwrap();
    complete(&null, &cq, [1]);
    let completions = cq.poll().unwrap();
    drop((qp, memory, pd));
    outlives(&null, completions, Verb::DestroyQp);
}

#[test]
fn a_region_that_was_split_is_freed_when_all_pieces_are() {
    let null = null();
    let Parts { pd, .. } = parts();
    let mut first = region(&pd);
    let mut second = first.split_off(1000);
    let third = second.split_off(3096);
    assert_eq!((first.len(), second.len(), third.len()), (1000, 3096, 0));
    assert!(third.is_empty() && !second.is_empty());
    assert!(second.slice(7..7).is_empty() && !second.slice(7..8).is_empty());
    assert_eq!(second.remote().addr, first.remote().addr + 1000);
    assert_eq!(second.slice(..).addr(), first.remote().addr + 1000);
    first.write_at(999, &[1]);
    second.write_at(0, &[2]);
    let mut byte = [0];
    first.read_at(999, &mut byte);
    assert_eq!(byte, [1]);
    drop((first, third));
    assert_eq!(null.live(Kind::Mr), 1);
    second.read_at(0, &mut byte);
    assert_eq!(byte, [2]);
    std::thread::spawn(move || drop(second)).join().unwrap();
    assert_eq!(null.live(Kind::Mr), 0);
}

#[test]
fn a_domain_with_shared_memory_is_in_use() {
    let _null = null();
    let Parts { pd, .. } = parts();
    let memory = region(&pd);
    let failed = pd.close().unwrap_err();
    assert!(matches!(failed.error, Error::InUse { .. }));
    drop(memory);
    failed.resource.close().unwrap();
}

#[test]
fn the_rights_that_were_asked_for_are_real_at_once() {
    let null = null();
    let Parts { pd, .. } = parts();
    let memory = region(&pd);
    let registered = null.registrations();
    let [registration] = &registered[..] else { panic!("{registered:?}") };
    assert_eq!(registration.access, AccessFlags::PERMISSIVE.bits());
    let RemoteMemorySlice { addr, len, rkey } = memory.remote();
    assert_eq!((addr as usize, len as usize), (registration.addr, registration.length));
    assert_eq!(rkey, registration.key);
    assert_eq!(memory.access(), AccessFlags::PERMISSIVE);
    let error = pd.allocate_shared(8, AccessFlags::REMOTE_WRITE).unwrap_err();
    assert!(matches!(error, Error::InvalidAccess { .. }));
    let error = pd.allocate_shared(0, AccessFlags::LOCAL_WRITE).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { .. }));
    null.fail(Verb::RegMr, libc::ENOMEM);
    let error = pd.allocate_shared(8, AccessFlags::LOCAL_WRITE).unwrap_err();
    assert!(matches!(error, Error::Register { .. }));
}

#[test]
fn only_what_is_within_a_region_is_read_written_and_posted() {
    let _null = null();
    let Parts { pd, .. } = parts();
    let memory = region(&pd);
    let mut bytes = [0; 8];
    memory.write_at(4088, &[7; 8]);
    memory.read_at(4088, &mut bytes);
    assert_eq!(bytes, [7; 8]);
    memory.read_at(4096, &mut []);
    assert_eq!(memory.slice(4096..).len(), 0);
    let panics = |what: &dyn Fn(&SharedRegion)| {
        let what = std::panic::AssertUnwindSafe(|| what(&memory));
        assert!(std::panic::catch_unwind(what).is_err());
    };
    panics(&|memory| memory.write_at(4089, &[7; 8]));
    panics(&|memory| memory.write_at(4097, &[]));
    panics(&|memory| memory.write_at(usize::MAX, &[7; 8]));
    panics(&|memory| memory.read_at(4089, &mut [0; 8]));
    panics(&|memory| _ = memory.slice(4000..4097));
    panics(&|memory| _ = memory.atomic_u64(4092));
    panics(&|memory| _ = memory.atomic_u64(4));
    let mut memory = memory;
    let too_far = std::panic::AssertUnwindSafe(|| memory.split_off(4097));
    assert!(std::panic::catch_unwind(too_far).is_err());
    assert_eq!(memory.len(), 4096);
    memory.split_off(8);
    let beyond = std::panic::AssertUnwindSafe(|| memory.write_at(8, &[7]));
    assert!(std::panic::catch_unwind(beyond).is_err());
}

#[test]
fn a_number_is_read_and_written_at_once() {
    let _null = null();
    let Parts { pd, .. } = parts();
    let memory = region(&pd);
    let number = memory.atomic_u64(16);
    number.store(5, Ordering::Release);
    assert_eq!(number.fetch_add(2, Ordering::AcqRel), 5);
    assert_eq!(number.swap(1, Ordering::AcqRel), 7);
    let exchange =
        |from, to| number.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
    assert_eq!((exchange(1, 9), exchange(1, 8)), (Ok(1), Err(9)));
    assert_eq!(number.load(Ordering::Acquire), 9);
    let mut bytes = [0; 8];
    memory.read_at(16, &mut bytes);
    assert_eq!(u64::from_ne_bytes(bytes), 9);
}

#[test]
fn a_batch_is_posted_as_it_was_filled_with_one_call() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let (mut qp, memory) = (connected(&pd, &cq), region(&pd));
    let (one, two) = (memory.slice(..8), memory.slice(64..72));
    let (addr, key) = (memory.remote().addr, memory.remote().rkey);
    null.take_calls();
    let mut batch = qp.start_shared();
    batch.op().send(1, &[one, two]);
    batch.op().signaled().imm(0x0102_0304).send(2, b"inline");
    batch.op().fenced().write(3, &[one], REMOTE);
    batch.op().imm(5).write(4, &[IoSlice::new(b"in"), IoSlice::new(b"line")], REMOTE);
    batch.op().read(5, &[two], REMOTE);
    batch.op().atomic_cmp_swap(6, one, REMOTE, 7, 8);
    batch.op().atomic_fetch_add(7, two, REMOTE, 9);
    batch.op().solicited().send(8, Payload::EMPTY);
    null.expect_no_calls();
    batch.submit().unwrap();
    assert_eq!(null.verbs(), [Verb::PostSend]);
    let requests = null.take_requests();
    let wr_ids: Vec<_> = requests.iter().map(|request| request.wr_id).collect();
    assert_eq!(wr_ids, (1..9).collect::<Vec<_>>());
    let (at, rkey) = (REMOTE.addr, REMOTE.rkey);
    let operations: Vec<_> = requests.iter().map(|request| request.operation).collect();
    let expected = [
        Operation::Send { imm: None },
        Operation::Send { imm: Some(0x0102_0304u32.to_be()) },
        Operation::Write { rkey, addr: at, imm: None },
        Operation::Write { rkey, addr: at, imm: Some(5u32.to_be()) },
        Operation::Read { rkey, addr: at },
        Operation::CompareSwap { rkey, addr: at, compare: 7, swap: 8 },
        Operation::FetchAdd { rkey, addr: at, add: 9 },
        Operation::Send { imm: None },
    ];
    assert_eq!(operations, expected);
    let (one, two) = ((addr, 8, key), (addr + 64, 8, key));
    let carried: Vec<_> = requests.iter().map(|request| request.payload.clone()).collect();
    let inline = || Carried::Inline(b"inline".to_vec());
    let list = |entries: &[_]| Carried::Scatter(entries.to_vec());
    let expected = [
        list(&[one, two]),
        inline(),
        list(&[one]),
        inline(),
        list(&[two]),
        list(&[one]),
        list(&[two]),
        list(&[]),
    ];
    assert_eq!(carried, expected);
    use ibverbs::ffi;
    let flags: Vec<_> = requests.iter().map(|request| request.flags).collect();
    let (signaled, inline) = (ffi::IBV_SEND_SIGNALED, ffi::IBV_SEND_INLINE);
    let (fence, solicited) = (ffi::IBV_SEND_FENCE, ffi::IBV_SEND_SOLICITED);
    assert_eq!(flags, [0, signaled | inline, fence, inline, 0, 0, 0, solicited]);
}

#[test]
fn batches_follow_one_another_whatever_became_of_those_before() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let (mut qp, memory) = (connected(&pd, &cq), region(&pd));
    let mut fill = |ids: std::ops::Range<u64>, end: fn(SharedBatch<'_, Rc>) -> Result<()>| {
        let mut batch = qp.start_shared();
        for id in ids {
            batch.op().send(id, &[memory.slice(..id as usize)]);
        }
        end(batch)
    };
    fill(0..40, |batch| {
        drop(batch);
        Ok(())
    })
    .unwrap();
    fill(0..3, |batch| {
        forget(batch);
        Ok(())
    })
    .unwrap();
    null.take_calls();
    fill(0..0, |batch| batch.submit()).unwrap();
    null.expect_no_calls();
    for ids in [3..5, 5..70, 70..71] {
        fill(ids.clone(), |batch| batch.submit()).unwrap();
        let requests = null.take_requests();
        assert!(requests.iter().map(|request| request.wr_id).eq(ids.clone()));
        let lengths = requests.iter().map(|request| match &request.payload {
            Carried::Scatter(list) => u64::from(list[0].1),
            Carried::Inline(_) => panic!("it is not inline"),
        });
        assert!(lengths.eq(ids));
    }
}

#[test]
fn what_cannot_be_carried_out_refuses_the_batch_before_the_provider_hears_of_it() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let (mut qp, memory) = (connected(&pd, &cq), region(&pd));
    let foreign = open(0).alloc_pd().unwrap();
    let foreign = region(&foreign);
    let slice = memory.slice(..8);
    let mut refused = |fill: &dyn Fn(&mut SharedBatch<'_, Rc>)| {
        null.take_calls();
        let mut batch = qp.start_shared();
        batch.op().send(1, &[slice]);
        fill(&mut batch);
        batch.op().send(2, &[slice]);
        let error = batch.submit().unwrap_err();
        null.expect_no_calls();
        error
    };
    let error = refused(&|batch| batch.op().send(3, &[foreign.slice(..8)]));
    assert!(matches!(error, Error::ProtectionDomainMismatch { what: "shared region" }));
    let error = refused(&|batch| batch.op().read(3, &[slice, foreign.slice(..8)], REMOTE));
    assert!(matches!(error, Error::ProtectionDomainMismatch { .. }));
    let error = refused(&|batch| batch.op().atomic_fetch_add(3, foreign.slice(..8), REMOTE, 1));
    assert!(matches!(error, Error::ProtectionDomainMismatch { .. }));
    let error = refused(&|batch| batch.op().send(3, &[slice; 3]));
    assert!(matches!(error, Error::TooManyScatterEntries { entries: 3, granted: 2, .. }));
    let error = refused(&|batch| batch.op().send(3, &[0; 65]));
    assert!(matches!(error, Error::InlineTooLong { bytes: 65, .. }));
    let error = refused(&|batch| batch.op().send(3, &[IoSlice::new(&[0; 40]); 2]));
    assert!(matches!(error, Error::InlineTooLong { bytes: 80, .. }));
    let error = refused(&|batch| batch.op().write(3, &[memory.slice(..65)], REMOTE));
    assert!(matches!(error, Error::BeyondRemote { bytes: 65, len: 64 }));
    let error = refused(&|batch| batch.op().atomic_fetch_add(3, memory.slice(..4), REMOTE, 1));
    assert!(matches!(error, Error::InvalidArgument { value: 4, .. }));
    // The first reason is told.
    let error = refused(&|batch| {
        batch.op().send(3, &[slice; 3]);
        batch.op().send(3, &[foreign.slice(..8)]);
    });
    assert!(matches!(error, Error::TooManyScatterEntries { .. }));
    send(&mut qp, &memory).unwrap();
}

#[test]
fn a_batch_is_not_longer_than_the_send_queue() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let builder = pd.create_qp::<Rc>(&cq, &cq, 1).unwrap().set_max_send_wr(20);
    let prepared = builder.build().unwrap();
    let endpoint = prepared.endpoint().unwrap();
    let mut qp = prepared.handshake(endpoint).unwrap();
    let depth = u64::from(qp.capacity().max_send_wr);
    for (len, fits) in [(depth, true), (depth + 1, false), (depth, true)] {
        let mut batch = qp.start_shared();
        for id in 0..len {
            batch.op().send(id, Payload::EMPTY);
        }
        let result = batch.submit();
        let posted = null.take_requests().len() as u64;
        match result {
            Ok(()) => assert!(fits && posted == depth),
            Err(Error::InvalidArgument { value, .. }) => {
                assert!(!fits && posted == 0 && value == depth + 1);
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn operations_that_were_not_granted_and_that_come_too_early_are_refused() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let memory = region(&pd);
    let builder = pd.create_qp::<Rc>(&cq, &cq, 1).unwrap();
    let prepared = builder.set_send_ops(ibverbs::SendOps::SEND).build().unwrap();
    let endpoint = prepared.endpoint().unwrap();
    let mut qp = prepared.handshake(endpoint).unwrap();
    null.take_calls();
    let mut batch = qp.start_shared();
    batch.op().write(1, &[memory.slice(..8)], REMOTE);
    assert!(matches!(batch.submit(), Err(Error::OperationNotGranted { .. })));
    let mut qp = qp.reset().unwrap().into_manual();
    null.take_calls();
    for empty in [true, false] {
        let mut batch = qp.start_shared();
        if !empty {
            batch.op().send(1, &[memory.slice(..8)]);
        }
        assert!(matches!(batch.submit(), Err(Error::NotReadyToSend)));
    }
    null.expect_no_calls();
    for state in [QpState::INIT, QpState::RTR, QpState::RTS] {
        qp.modify(&QueuePairAttr::new().set_state(state)).unwrap();
    }
    let mut batch = qp.start_shared();
    batch.op().send(1, &[memory.slice(..8)]);
    batch.submit().unwrap();
}

#[test]
fn a_batch_that_is_taken_in_part_tells_how_much() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let (mut qp, memory) = (connected(&pd, &cq), region(&pd));
    for (accept, set_bad_wr, told) in [(0, true, 0), (2, true, 2), (2, false, 5), (5, true, 5)] {
        let limit = PostLimit { accept, code: libc::ENOMEM, set_bad_wr };
        null.configure(|config| config.send_limit = Some(limit));
        let mut batch = qp.start_shared();
        for id in 0..5 {
            batch.op().send(id, &[memory.slice(..8)]);
        }
        match batch.submit() {
            Ok(()) => assert_eq!(accept, 5),
            Err(Error::PostShared { accepted, requested, source }) => {
                assert_eq!((accepted, requested), (told, 5));
                assert_eq!(source.raw_os_error(), Some(libc::ENOMEM));
            }
            Err(other) => panic!("{other:?}"),
        }
        assert_eq!(null.take_requests().len(), accept);
    }
}

#[test]
fn a_forgotten_batch_of_either_level_is_ended_by_the_other() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let (mut qp, memory) = (connected(&pd, &cq), region(&pd));
    let mut batch = qp.start_send();
    batch.op().send(1, b"raw");
    forget(batch);
    send(&mut qp, &memory).unwrap();
    assert_eq!(null.count(Verb::WrAbort), 1);
    let mut batch = qp.start_shared();
    batch.op().send(2, &[memory.slice(..); 3]);
    forget(batch);
    let mut batch = qp.start_send();
    batch.op().send(3, b"raw");
    submit(batch).unwrap();
    send(&mut qp, &memory).unwrap();
    let wr_ids: Vec<_> = null.take_requests().iter().map(|request| request.wr_id).collect();
    assert_eq!(wr_ids, [1, 3, 1]);
}

#[test]
fn a_queue_pair_goes_on_where_a_batch_is_open_no_longer() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let (mut qp, memory) = (connected(&pd, &cq), region(&pd));
    complete(&null, &cq, [7]);
    // Filling holds no lock, so that it may go on within a poll; the provider takes none of the completion queue here.
    let completions = cq.poll().unwrap();
    send(&mut qp, &memory).unwrap();
    let qp = match qp.close() {
        Err(failed) => {
            let qp = failed.resource;
            expect_poll_in_progress(Err::<(), _>(failed.error));
            qp
        }
        Ok(()) => panic!("a poll is open"),
    };
    drop(completions);
    qp.close().unwrap();
    assert_eq!(poll_all(&cq), []);
}

fn datagram<'qp>(
    qp: &'qp mut QueuePair<Ud>,
    ah: &'qp AddressHandle,
    memory: &SharedRegion,
) -> Result<()> {
    let mut batch = qp.start_shared();
    batch.to(ah, 0x123, QKEY).signaled().send(1, &[memory.slice(..8)]);
    batch.submit()
}

#[test]
fn datagrams_go_where_their_handles_say_and_not_by_foreign_ones() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    let (mut qp, memory, ah) = (activated(&pd, &cq), region(&pd), some_handle(&pd));
    datagram(&mut qp, &ah, &memory).unwrap();
    let requests = null.take_requests();
    let address = requests[0].address.unwrap();
    assert_eq!((address.ah, address.remote_qpn), (ah.as_raw() as usize, 0x123));
    assert_eq!(address.qkey, QKEY);
    let foreign = some_handle(&ctx.alloc_pd().unwrap());
    null.take_calls();
    let error = datagram(&mut qp, &foreign, &memory).unwrap_err();
    assert!(matches!(error, Error::ProtectionDomainMismatch { what: "address handle" }));
    null.expect_no_calls();
}

#[test]
fn receives_are_posted_as_they_are_and_not_of_foreign_memory() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    let (mut qp, memory) = (connected(&pd, &cq), region(&pd));
    let srq = pd.create_srq(8).set_max_sge(2).build().unwrap();
    let slots: Vec<_> = (0..3).map(|i| [memory.slice(i * 8..i * 8 + 8)]).collect();
    let mut requests: Vec<_> =
        slots.iter().zip(0..).map(|(slot, id)| RecvRequest::shared(id, slot)).collect();
    requests.push(RecvRequest::shared(3, &[]));
    null.take_requests();
    // Twice: they can be posted again.
    for call in 0..4 {
        null.take_calls();
        if call % 2 == 0 {
            qp.post_recv_shared(&mut requests).unwrap();
            assert_eq!(null.verbs(), [Verb::PostRecv]);
        } else {
            srq.post_recv_shared(&mut requests).unwrap();
            assert_eq!(null.verbs(), [Verb::PostSrqRecv]);
        }
        let taken = null.take_requests();
        assert!(taken.iter().map(|request| request.wr_id).eq(0..4));
        for (request, slot) in taken.iter().zip(&slots) {
            let [slice] = slot;
            let entry = (slice.addr(), slice.len(), slice.lkey());
            assert_eq!(request.payload, Carried::Scatter(vec![entry]));
        }
        assert_eq!(taken[3].payload, Carried::Scatter(Vec::new()));
    }
    null.take_calls();
    qp.post_recv_shared(&mut requests[..0]).unwrap();
    let foreign = region(&ctx.alloc_pd().unwrap());
    null.take_calls();
    let slices = [foreign.slice(..8)];
    let mixed = [memory.slice(..8), foreign.slice(..8)];
    for slices in [&slices[..], &mixed] {
        let requests = || [RecvRequest::shared(1, &slots[0]), RecvRequest::shared(2, slices)];
        for result in [qp.post_recv_shared(requests()), srq.post_recv_shared(requests())] {
            let error = result.unwrap_err();
            assert!(matches!(error, Error::ProtectionDomainMismatch { what: "shared region" }));
        }
    }
    let three = [memory.slice(..8); 3];
    let too_long = || [RecvRequest::shared(1, &slots[0]), RecvRequest::shared(2, &three)];
    for result in [qp.post_recv_shared(too_long()), srq.post_recv_shared(too_long())] {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::TooManyScatterEntries { entries: 3, granted: 2, .. }));
    }
    null.expect_no_calls();
}

#[test]
fn receives_of_several_entries_are_copied_together() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    let builder = pd.create_qp::<Rc>(&cq, &cq, 1).unwrap();
    let max = ctx.query_device().unwrap().max_sge() as usize;
    let mut qp = builder.set_max_recv_sge(max as u32).build().unwrap().init().unwrap();
    let memory = region(&pd);
    let slices: Vec<_> = (0..max.min(64)).map(|i| memory.slice(i * 8..i * 8 + i)).collect();
    let requests = || {
        let request = |id: usize| RecvRequest::shared(id as u64, &slices[..id % slices.len() + 1]);
        (0..100).map(request).collect::<Vec<_>>()
    };
    null.take_requests();
    qp.post_recv_shared(requests()).unwrap();
    let taken = null.take_requests();
    assert!(taken.iter().map(|request| request.wr_id).eq(0..100));
    for request in &taken {
        let len = request.wr_id as usize % slices.len() + 1;
        let entry = |slice: &ibverbs::SharedSlice<'_>| (slice.addr(), slice.len(), slice.lkey());
        let expected = slices[..len].iter().map(entry).collect();
        assert_eq!(request.payload, Carried::Scatter(expected));
    }
    // By several calls, of which each takes 20: the first ones are asked for fewer, since their entries are many.
    null.take_calls();
    let limit = PostLimit { accept: 20, code: libc::ENOMEM, set_bad_wr: true };
    null.configure(|config| config.recv_limit = Some(limit));
    let long = (0..8).map(|id| RecvRequest::shared(id, &slices));
    let short = (8..100).map(|id| RecvRequest::shared(id, &slices[..1]));
    let error = qp.post_recv_shared(long.chain(short).collect::<Vec<_>>()).unwrap_err();
    let taken = null.take_requests().len();
    assert!(taken > 20 && null.count(Verb::PostRecv) > 1);
    match error {
        Error::PostReceive { accepted, requested: 100, .. } => assert_eq!(accepted, taken),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_queue_pair_without_receives_takes_none() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let srq = pd.create_srq(4).build().unwrap();
    let prepared = pd.create_qp::<Rc>(&cq, &cq, 1).unwrap().set_srq(&srq).build().unwrap();
    let mut qp = prepared.init().unwrap();
    let memory = region(&pd);
    null.take_calls();
    let result = qp.post_recv_shared([RecvRequest::shared(1, &[memory.slice(..)])]);
    assert!(matches!(result, Err(Error::NoReceiveQueue)));
    null.expect_no_calls();
}

#[test]
fn srd_has_sends_only() {
    let null = efa();
    let Parts { ctx, pd, cq } = parts();
    let (mut qp, memory, ah) = (srd(&ctx, &pd, &cq), region(&pd), some_handle(&pd));
    null.take_calls();
    let mut batch = qp.start_shared();
    batch.to(&ah, 1, QKEY).send(1, &[memory.slice(..8)]);
    batch.to(&ah, 1, QKEY).write(2, &[memory.slice(..8)], REMOTE);
    assert!(matches!(batch.submit(), Err(Error::Unsupported { .. })));
    null.expect_no_calls();
    let mut batch = qp.start_shared();
    batch.to(&ah, 1, QKEY).send(1, &[memory.slice(..8)]);
    batch.submit().unwrap();
    let requests = null.take_requests();
    assert_eq!(requests[0].flags, ibverbs::ffi::IBV_SEND_SIGNALED);
}
