//! Rule 5: no half-built work request, and no batch that stays open.

use ibverbs::{
    ffi, AccessFlags, Error, LocalMemorySlice, Payload, QpState, QueuePair, QueuePairAttr,
    QueuePairAttrMask, Rc, RecvRequest, RemoteMemorySlice,
};
use null_provider::{Controls, Operation, Request, Verb};

use crate::common::{complete, connected, null, parts, poll_all, post, submit, Parts};

const REMOTE: RemoteMemorySlice = RemoteMemorySlice { addr: 0x1000, len: 64, rkey: 0x77 };

/// Starts a batch with a request in it and forgets it.
fn forget_batch(qp: &mut QueuePair<Rc>) {
    let mut batch = qp.start_send();
    batch.op().signaled().send(99, b"lost");
    std::mem::forget(batch);
}

#[test]
fn a_dropped_batch_is_aborted() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let mut qp = connected(&pd, &cq);
    null.take_calls();
    let mut batch = qp.start_send();
    batch.op().send(1, b"one");
    drop(batch);
    drop(qp.start_send());
    let one = [Verb::WrStart, Verb::WrOperation, Verb::WrPayload, Verb::WrAbort];
    assert_eq!(null.verbs(), [&one[..], &[Verb::WrStart, Verb::WrAbort]].concat());
    assert_eq!(null.take_requests(), []);
}

/// As ionic, whose provider does not take back all of an aborted batch.
fn without_an_abort_that_works(null: &Controls) {
    null.configure(|config| {
        config.edit_device_attr = Some(Box::new(|attr| attr.vendor_id = 0x1dd8));
    });
}

#[test]
fn a_driver_that_an_abort_spoils_is_given_no_more_batches_before_a_reset() {
    let null = null();
    without_an_abort_that_works(&null);
    let Parts { pd, cq, .. } = parts();
    type End = fn(&mut QueuePair<Rc>);
    let endings: [(bool, End); 4] = [
        (true, |qp| {
            let mut batch = qp.start_send();
            batch.op().send(1, b"one");
            drop(batch);
        }),
        (true, |qp| {
            let mut batch = qp.start_send();
            batch.op().send(1, b"one");
            batch.op().send(2, &[0; 4096]);
            assert!(matches!(submit(batch), Err(Error::InlineTooLong { .. })));
        }),
        (true, forget_batch),
        (false, |qp| {
            let mut batch = qp.start_send();
            batch.op().send(1, b"one");
            submit(batch).unwrap();
        }),
    ];
    for (index, (spoils, end)) in endings.into_iter().enumerate() {
        let mut qp = connected(&pd, &cq);
        end(&mut qp);
        // A forgotten batch is aborted here.
        post(&mut qp, []).unwrap();
        null.take_calls();
        for _ in 0..2 {
            let mut batch = qp.start_send();
            batch.op().send(3, b"three");
            let result = submit(batch);
            let refused = matches!(result, Err(Error::AbortedBefore));
            assert_eq!(refused, spoils, "{index}: {result:?}");
        }
        assert_eq!(null.verbs().is_empty(), spoils, "{index}: {:?}", null.verbs());
        // It may stay ready to send, which does not make it good.
        qp.modify(&QueuePairAttr::new().set_state(QpState::RTS)).unwrap();
        let mut batch = qp.start_send();
        batch.op().send(3, b"three");
        assert_eq!(submit(batch).is_err(), spoils, "{index}");
        let qp = qp.reset().unwrap();
        let endpoint = qp.endpoint().unwrap();
        let mut qp = qp.handshake(endpoint).unwrap();
        let mut batch = qp.start_send();
        batch.op().send(4, b"four");
        submit(batch).unwrap();
    }
}

#[test]
fn a_driver_that_an_abort_spoils_is_spoilt_by_a_batch_that_fails_as_well() {
    let null = null();
    without_an_abort_that_works(&null);
    let Parts { pd, cq, .. } = parts();
    let mut qp = connected(&pd, &cq);
    null.fail(Verb::WrComplete, libc::EIO);
    // One that is refused and dropped says nothing of those that follow.
    let memory = pd.allocate_shared(8, AccessFlags::LOCAL_WRITE).unwrap();
    let mut refused = qp.start_shared();
    refused.op().send(1, &[memory.slice(..); 3]);
    drop(refused);
    for expected in [Some(libc::EIO), None] {
        let mut batch = qp.start_send();
        batch.op().send(1, b"one");
        let error = submit(batch).unwrap_err();
        assert_eq!(error.os_error(), expected, "{error}");
        assert!(expected.is_some() || matches!(error, Error::AbortedBefore), "{error}");
    }
}

#[test]
fn a_forgotten_batch_is_aborted_by_the_next_one() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let mut qp = connected(&pd, &cq);
    forget_batch(&mut qp);
    null.take_calls();
    let mut batch = qp.start_send();
    assert_eq!(null.verbs(), [Verb::WrAbort, Verb::WrStart]);
    batch.op().send(1, b"one");
    submit(batch).unwrap();
    let wr_ids: Vec<u64> = null.take_requests().iter().map(|request| request.wr_id).collect();
    assert_eq!(wr_ids, [1]);
}

#[test]
fn a_forgotten_batch_is_aborted_by_receives_and_queries() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let mut qp = connected(&pd, &cq);
    forget_batch(&mut qp);
    null.take_calls();
    post(&mut qp, [RecvRequest::new(1, &[])]).unwrap();
    assert_eq!(null.verbs(), [Verb::WrAbort, Verb::PostRecv]);
    forget_batch(&mut qp);
    null.take_calls();
    qp.query(QueuePairAttrMask::STATE).unwrap();
    assert_eq!(null.verbs(), [Verb::WrAbort, Verb::QueryQp]);
}

#[test]
fn the_refusal_of_a_forgotten_batch_is_not_that_of_a_later_one() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let mut qp = connected(&pd, &cq);
    let mut batch = qp.start_send();
    batch.op().send(1, &[0; 1000]);
    std::mem::forget(batch);
    null.fail(Verb::WrComplete, libc::ENOMEM);
    let error = submit(qp.start_send()).unwrap_err();
    assert!(matches!(error, Error::PostSend { .. }), "{error:?}");
    assert_eq!(error.os_error(), Some(libc::ENOMEM));
}

/// What ends a queue pair, or what was posted to it.
type End = fn(QueuePair<Rc>);

#[test]
fn a_forgotten_batch_is_aborted_by_close_drop_and_modify() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let endings: [(End, Verb); 4] = [
        (|qp| qp.close().unwrap(), Verb::DestroyQp),
        (drop, Verb::DestroyQp),
        (|qp| drop(qp.reset().unwrap()), Verb::ModifyQp),
        // Some providers take the lock of the send queue for this as well.
        (
            |mut qp| qp.modify(&QueuePairAttr::new().set_state(QpState::ERR)).unwrap(),
            Verb::ModifyQp,
        ),
    ];
    for (end, verb) in endings {
        let mut qp = connected(&pd, &cq);
        forget_batch(&mut qp);
        null.take_calls();
        end(qp);
        assert_eq!(null.verbs()[..2], [Verb::WrAbort, verb]);
    }
    assert_eq!(null.take_requests(), []);
}

#[test]
fn a_forgotten_batch_is_aborted_when_its_queue_pair_waits_for_a_poll() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let mut qp = connected(&pd, &cq);
    forget_batch(&mut qp);
    complete(&null, &cq, [1]);
    let completions = cq.poll().unwrap();
    null.take_calls();
    drop(qp);
    assert_eq!(null.verbs(), [Verb::WrAbort]);
    drop(completions);
    assert_eq!(null.verbs(), [Verb::EndPoll, Verb::DestroyQp]);
}

#[test]
fn a_batch_that_the_device_refuses_is_over() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let mut qp = connected(&pd, &cq);
    null.fail(Verb::WrComplete, libc::ENOMEM);
    let mut batch = qp.start_send();
    batch.op().send(1, b"one");
    let error = submit(batch).unwrap_err();
    assert!(matches!(error, Error::PostSend { .. }));
    assert_eq!(error.os_error(), Some(libc::ENOMEM));
    assert!(error.to_string().contains("full"), "{error}");
    assert_eq!(null.count(Verb::WrAbort), 0);
    null.succeed(Verb::WrComplete);
    let mut batch = qp.start_send();
    batch.op().send(2, b"two");
    submit(batch).unwrap();
    assert_eq!(null.take_requests().len(), 1);
}

#[test]
fn an_operation_and_its_payload_are_one_step() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let region = pd.allocate(64, AccessFlags::LOCAL_WRITE).unwrap();
    let mut qp = connected(&pd, &cq);
    let mut batch = qp.start_send();
    let eight = region.slice(..8);
    batch.op().send(1, &[eight]);
    batch.op().imm(5).send(2, b"inline");
    batch.op().write(3, &[eight, region.slice(8..16)], REMOTE);
    batch.op().imm(6).write(4, Payload::EMPTY, REMOTE);
    batch.op().fenced().read(5, &[eight], REMOTE);
    batch.op().atomic_cmp_swap(6, eight, REMOTE, 10, 11);
    batch.op().solicited().signaled().atomic_fetch_add(7, eight, REMOTE, 12);
    // One that was begun and not named is nothing.
    let _ = batch.op().signaled();
    null.take_calls();
    submit(batch).unwrap();
    let requests = null.take_requests();
    let scatter = |slices: &[LocalMemorySlice]| {
        let entries = slices.iter().map(|slice| (slice.addr(), slice.len(), slice.lkey()));
        null_provider::Payload::Scatter(entries.collect())
    };
    let request = |wr_id, flags, operation, payload| Request {
        qp_num: qp.qp_num(),
        wr_id,
        flags,
        operation,
        address: None,
        payload,
    };
    let (rkey, addr) = (0x77, 0x1000);
    let (one, two) = (scatter(&[eight]), scatter(&[eight, region.slice(8..16)]));
    let inline = null_provider::Payload::Inline(b"inline".to_vec());
    let ending = ffi::IBV_SEND_SIGNALED | ffi::IBV_SEND_SOLICITED;
    let (five, six) = (Some(5u32.to_be()), Some(6u32.to_be()));
    let expected = [
        request(1, 0, Operation::Send { imm: None }, one.clone()),
        request(2, ffi::IBV_SEND_INLINE, Operation::Send { imm: five }, inline),
        request(3, 0, Operation::Write { rkey, addr, imm: None }, two),
        request(4, 0, Operation::Write { rkey, addr, imm: six }, scatter(&[])),
        request(5, ffi::IBV_SEND_FENCE, Operation::Read { rkey, addr }, one.clone()),
        request(6, 0, Operation::CompareSwap { rkey, addr, compare: 10, swap: 11 }, one.clone()),
        request(7, ending, Operation::FetchAdd { rkey, addr, add: 12 }, one),
    ];
    assert_eq!(requests, expected);
}

#[test]
fn signaled_requests_complete() {
    let null = null();
    null.configure(|config| config.complete_sends = true);
    let Parts { pd, cq, .. } = parts();
    let mut qp = connected(&pd, &cq);
    let mut batch = qp.start_send();
    batch.op().send(1, b"quiet");
    batch.op().signaled().send(2, b"loud");
    submit(batch).unwrap();
    assert_eq!(poll_all(&cq), [2]);
}
