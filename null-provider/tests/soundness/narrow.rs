//! Rule 6 where the limit is zero or nearly so: queues without scatter entries, and operations that carry fewer than others.

use ibverbs::{
    AccessFlags, CompletionQueue, Error, LocalMemorySlice, ProtectionDomain, QueuePair, Rc,
    RecvRequest, RemoteMemorySlice,
};
use null_provider::Verb;

use crate::common::{null, parts, post, some_handle, submit, Parts, QKEY};
use crate::srd::{efa, srd};

const REMOTE: RemoteMemorySlice = RemoteMemorySlice { addr: 0x7000, len: 64, rkey: 9 };

/// A queue pair whose requests have no scatter entries.
fn without_entries(pd: &ProtectionDomain, cq: &CompletionQueue) -> QueuePair<Rc> {
    let builder = pd.create_qp::<Rc>(cq, cq, 1).unwrap();
    let prepared = builder.set_max_send_sge(0).set_max_recv_sge(0).build().unwrap();
    let capacity = prepared.capacity();
    assert_eq!((capacity.max_send_sge, capacity.max_recv_sge), (0, 0));
    let endpoint = prepared.endpoint().unwrap();
    prepared.handshake(endpoint).unwrap()
}

#[track_caller]
fn expect_too_many<T>(result: Result<T, Error>, expected: (&str, usize, u32)) {
    match result.map(drop) {
        Err(Error::TooManyScatterEntries { queue, entries, granted }) => {
            assert_eq!((queue, entries, granted), expected);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_entry_is_let_past_a_queue_that_has_none() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let region = pd.allocate(8, AccessFlags::LOCAL_WRITE).unwrap();
    let shared = pd.allocate_shared(8, AccessFlags::LOCAL_WRITE).unwrap();
    let mut qp = without_entries(&pd, &cq);
    // An operation that was granted is refused for its entry, and not for itself.
    let one: [LocalMemorySlice; 1] = [region.slice(..)];
    let mut batch = qp.start_send();
    batch.op().send(1, &one);
    expect_too_many(submit(batch), ("send", 1, 0));
    let mut batch = qp.start_shared();
    batch.op().send(1, &[shared.slice(..)]);
    expect_too_many(batch.submit(), ("send", 1, 0));
    expect_too_many(post(&mut qp, [RecvRequest::new(1, &one)]), ("receive", 1, 0));
    let one = [shared.slice(..)];
    let result = qp.post_recv_shared([RecvRequest::shared(1, &one)]);
    expect_too_many(result, ("receive", 1, 0));
    let srq = pd.create_srq(4).set_max_sge(0).build().unwrap();
    let result = srq.post_recv_shared([RecvRequest::shared(1, &one)]);
    expect_too_many(result, ("receive", 1, srq.max_sge()));
    assert_eq!(null.take_requests(), []);
    // What has none is taken.
    qp.post_recv_shared([RecvRequest::shared(2, &[])]).unwrap();
    post(&mut qp, [RecvRequest::new(3, &[])]).unwrap();
    let taken: Vec<_> = null.take_requests().iter().map(|request| request.wr_id).collect();
    assert_eq!(taken, [2, 3]);
}

#[test]
fn a_shared_batch_tells_of_writes_that_carry_less_than_sends() {
    let null = efa();
    let Parts { ctx, pd, cq } = parts();
    let region = pd.allocate_shared(64, AccessFlags::LOCAL_WRITE).unwrap();
    let two = [region.slice(..8), region.slice(8..16)];
    let ah = some_handle(&pd);
    let mut qp = srd(&ctx, &pd, &cq);
    null.take_calls();
    let mut batch = qp.start_shared();
    batch.to(&ah, 17, QKEY).send(1, &two);
    batch.to(&ah, 17, QKEY).write(2, &two, REMOTE);
    expect_too_many(batch.submit(), ("send", 2, 1));
    assert_eq!(null.count(Verb::PostSend), 0);
    assert_eq!(null.take_requests(), []);
}
