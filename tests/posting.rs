//! Batches of sends and receives: what is posted, what is refused, and what a refusal leaves behind.

use std::io::IoSlice;

use ibverbs::{
    Error, Payload, Rc, RecvRequest, RemoteMemorySlice, SendBatch, SendOp, SendOps, WcStatus,
};
use ibverbs_tests::{
    assert_silent, pair, pair_with, pattern, post_recv, submit, wait, wait_ok, wait_one,
    within_deadline, Bed, Side,
};

/// Sends four bytes from `a` to `b`, to show that the connection works and that nothing else was posted
/// on it.
#[track_caller]
fn assert_clean_and_usable(a: &mut Side, b: &mut Side) {
    assert_silent(&a.send_cq);
    assert_silent(&b.recv_cq);
    let mem = b.bed.mem(8);
    let from = a.bed.mem(8);
    from.write(0, b"work");
    post_recv(&mut b.qp, [RecvRequest::new(9001, &[mem.slice(..)])]).unwrap();
    submit(&mut a.qp, |batch| batch.op().signaled().send(9002, &[from.slice(..4)])).unwrap();
    assert_eq!(wait_one(&a.send_cq, 9002).ok, Ok(()));
    assert_eq!(wait_one(&b.recv_cq, 9001).len, 4);
    assert_eq!(mem.read(..4), b"work");
}

#[test]
fn only_signaled_operations_complete() {
    let bed = Bed::new();
    let (mut a, mut b) = pair(&bed);
    let (from, to) = (bed.mem(4096), bed.mem(4096));
    let data = pattern(4096, 1);
    from.write(0, &data);
    let remote = to.remote();
    submit(&mut a.qp, |batch| {
        for n in 0..8 {
            let (start, end) = (n * 512, (n + 1) * 512);
            let op = batch.op();
            let op = if n % 4 == 3 { op.signaled() } else { op };
            let part = remote.slice(start as u64..end as u64);
            op.write(n as u64, &[from.slice(start..end)], part);
        }
    })
    .unwrap();
    let done: Vec<u64> = wait_ok(&a.send_cq, 2).iter().map(|wc| wc.wr_id).collect();
    assert_eq!(done, [3, 7]);
    assert_eq!(to.read(..), data);
    assert_clean_and_usable(&mut a, &mut b);
}

#[test]
fn thirty_two_operations_go_out_with_one_doorbell_and_complete_in_order() {
    let bed = Bed::new();
    let (mut a, mut b) = pair(&bed);
    let (from, to) = (bed.mem(32 * 256), bed.mem(32 * 256));
    let data = pattern(32 * 256, 2);
    from.write(0, &data);
    let slices: Vec<_> = (0..32).map(|n| [to.slice(n * 256..(n + 1) * 256)]).collect();
    let receives = slices.iter().zip(100..).map(|(slice, id)| RecvRequest::new(id, slice));
    post_recv(&mut b.qp, receives.collect::<Vec<_>>()).unwrap();
    submit(&mut a.qp, |batch| {
        for n in 0..32 {
            let slice = from.slice(n * 256..(n + 1) * 256);
            batch.op().signaled().imm(n as u32).send(n as u64, &[slice]);
        }
    })
    .unwrap();
    let sent: Vec<u64> = wait_ok(&a.send_cq, 32).iter().map(|wc| wc.wr_id).collect();
    let received = wait_ok(&b.recv_cq, 32);
    assert_eq!(sent, (0..32).collect::<Vec<_>>());
    for (n, wc) in received.iter().enumerate() {
        assert_eq!((wc.wr_id, wc.imm, wc.len), (100 + n as u64, Some(n as u32), 256));
    }
    assert_eq!(to.read(..), data);
}

#[test]
fn a_batch_that_is_dropped_posts_nothing() {
    let bed = Bed::new();
    within_deadline(move || {
        let (mut a, mut b) = pair(&bed);
        let (from, to) = (bed.mem(64), bed.mem(64));
        from.write(0, &[7; 64]);
        for count in [0, 1, 20] {
            let mut batch = a.qp.start_send();
            for n in 0..count {
                batch.op().signaled().write(n, &[from.slice(..)], to.remote());
            }
            drop(batch);
            assert_eq!(to.read(..), [0; 64]);
            assert_clean_and_usable(&mut a, &mut b);
        }
    });
}

#[test]
fn a_batch_that_was_forgotten_is_taken_back_by_the_next_one() {
    let bed = Bed::new();
    within_deadline(move || {
        let (mut a, mut b) = pair(&bed);
        let (from, to) = (bed.mem(64), bed.mem(64));
        from.write(0, &[7; 64]);
        let mut batch = a.qp.start_send();
        batch.op().signaled().write(1, &[from.slice(..)], to.remote());
        std::mem::forget(batch);
        assert_clean_and_usable(&mut a, &mut b);
        assert_eq!(to.read(..), [0; 64]);

        // And it does not keep the queue pair from being destroyed.
        std::mem::forget(a.qp.start_send());
        a.qp.close().unwrap();
        std::mem::forget(b.qp.start_send());
    });
}

#[test]
fn an_empty_batch_is_posted_and_does_nothing() {
    let bed = Bed::new();
    let (mut a, mut b) = pair(&bed);
    submit(&mut a.qp, |_| ()).unwrap();
    post_recv(&mut b.qp, []).unwrap();
    assert_clean_and_usable(&mut a, &mut b);
}

#[test]
fn a_batch_with_an_operation_that_cannot_be_is_refused_as_a_whole() {
    let bed = Bed::new();
    let (mut a, mut b) = pair(&bed);
    let (from, to) = (bed.mem(4096), bed.mem(4096));
    let (slice, remote) = (from.slice(..64), to.remote());
    from.write(0, &[7; 4096]);
    let granted = a.qp.capacity();
    let long = vec![1; granted.max_inline_data as usize + 1];
    let list = vec![from.slice(..1); granted.max_send_sge as usize + 1];

    let refusal = |a: &mut Side, wrong: &dyn Fn(&mut SendBatch<'_, Rc>)| {
        submit(&mut a.qp, |batch| {
            batch.op().signaled().write(1, &[slice], remote);
            wrong(batch);
            batch.op().signaled().write(3, &[slice], remote);
        })
        .expect_err("the batch should have been refused")
    };

    let error = refusal(&mut a, &|batch| batch.op().write(2, &list[..], remote));
    assert!(
        matches!(error, Error::TooManyScatterEntries { queue: "send", entries, granted: g }
            if entries == list.len() && g == granted.max_send_sge),
        "{error}"
    );
    let error = refusal(&mut a, &|batch| batch.op().signaled().read(2, &list, remote));
    assert!(matches!(error, Error::TooManyScatterEntries { .. }), "{error}");

    let inline = |error: &Error| {
        matches!(error, Error::InlineTooLong { bytes, granted: g }
            if *bytes == long.len() && *g == granted.max_inline_data)
    };
    let error = refusal(&mut a, &|batch| batch.op().send(2, &long[..]));
    assert!(inline(&error), "{error}");
    let buffers = [&long[..10], &long[10..]].map(IoSlice::new);
    let error = refusal(&mut a, &|batch| batch.op().imm(1).send(2, &buffers));
    assert!(inline(&error), "{error}");

    let beyond = |error: &Error, bytes: u64, len: u64| matches!(error, Error::BeyondRemote { bytes: b, len: l } if (*b, *l) == (bytes, len));
    let error = refusal(&mut a, &|batch| batch.op().write(2, &[slice], remote.slice(..63)));
    assert!(beyond(&error, 64, 63), "{error}");
    let error = refusal(&mut a, &|batch| batch.op().imm(1).write(2, b"abc", remote.slice(9..11)));
    assert!(beyond(&error, 3, 2), "{error}");
    let error = refusal(&mut a, &|batch| batch.op().read(2, &[slice], remote.slice(4095..)));
    assert!(beyond(&error, 64, 1), "{error}");
    let eight = from.slice(..8);
    let short = remote.slice(..7);
    let error = refusal(&mut a, &|batch| batch.op().atomic_fetch_add(2, eight, short, 1));
    assert!(beyond(&error, 8, 7), "{error}");
    let error = refusal(&mut a, &|batch| batch.op().atomic_cmp_swap(2, eight, short, 1, 2));
    assert!(beyond(&error, 8, 7), "{error}");

    let seven = from.slice(..7);
    let error = refusal(&mut a, &|batch| batch.op().atomic_fetch_add(2, seven, remote, 1));
    assert!(matches!(error, Error::InvalidArgument { value: 7, .. }), "{error}");

    let odd = remote.slice(4..);
    for atomic in 0..2 {
        let error = refusal(&mut a, &|batch| match atomic {
            0 => batch.op().atomic_fetch_add(2, eight, odd, 1),
            _ => batch.op().atomic_cmp_swap(2, eight, odd, 1, 2),
        });
        let ok = matches!(error, Error::InvalidArgument { value, .. } if value == odd.addr);
        assert!(ok, "{error}");
    }

    // The first thing that is wrong is told.
    let error = refusal(&mut a, &|batch| {
        batch.op().write(2, &[slice], remote.slice(..1));
        batch.op().send(2, &long[..]);
    });
    assert!(beyond(&error, 64, 1), "{error}");

    assert_eq!(to.read(..), vec![0; 4096]);
    assert_clean_and_usable(&mut a, &mut b);
}

#[test]
fn an_operation_that_the_queue_pair_was_not_built_for_is_refused() {
    let bed = Bed::new();
    let ops = SendOps::SEND | SendOps::RDMA_READ;
    let (mut a, mut b) = pair_with(&bed, |builder| builder.set_send_ops(ops));
    let (from, to) = (bed.mem(64), bed.mem(64));
    assert_eq!(a.qp.send_ops(), ops);
    let (slice, remote) = (from.slice(..8), to.remote());
    let mut refused = |fill: &dyn Fn(SendOp<'_, Rc>), expected: SendOps| {
        let error = submit(&mut a.qp, |batch| fill(batch.op())).unwrap_err();
        let ok = matches!(error, Error::OperationNotGranted { operation, granted }
            if operation == expected && granted == ops);
        assert!(ok, "{error}");
    };
    refused(&|op| op.imm(1).send(1, &[slice]), SendOps::SEND_WITH_IMM);
    refused(&|op| op.write(1, &[slice], remote), SendOps::RDMA_WRITE);
    refused(&|op| op.imm(1).write(1, &[slice], remote), SendOps::RDMA_WRITE_WITH_IMM);
    let swap = SendOps::ATOMIC_CMP_AND_SWP;
    refused(&|op| op.atomic_cmp_swap(1, slice, remote, 1, 2), swap);
    refused(&|op| op.atomic_fetch_add(1, slice, remote, 1), SendOps::ATOMIC_FETCH_AND_ADD);
    submit(&mut a.qp, |batch| batch.op().signaled().read(2, &[slice], remote)).unwrap();
    assert_eq!(wait_one(&a.send_cq, 2).ok, Ok(()));
    assert_clean_and_usable(&mut a, &mut b);
}

#[test]
fn a_batch_that_is_deeper_than_the_queue_posts_nothing() {
    let bed = Bed::new();
    let (mut a, mut b) = pair_with(&bed, |builder| builder.set_max_send_wr(8));
    let (from, to) = (bed.mem(8), bed.mem(8));
    let depth = a.qp.capacity().max_send_wr;
    assert!(depth >= 8);
    from.write(0, &[7; 8]);
    // SoftRoCE of Linux 6.1 has up to twice the room that it grants.
    for count in [2 * depth + 1, 3 * depth, 1000] {
        let error = submit(&mut a.qp, |batch| {
            for n in 0..count {
                batch.op().signaled().write(n.into(), &[from.slice(..)], to.remote());
            }
        })
        .unwrap_err();
        assert!(matches!(error, Error::PostSend { .. }), "{error}");
        assert!(matches!(error.os_error(), Some(libc::ENOMEM | libc::ENOSPC)), "{error:?}");
        assert!(error.to_string().contains("the queue is full"), "{error}");
        assert_eq!(to.read(..), [0; 8]);
        assert_clean_and_usable(&mut a, &mut b);
    }
}

#[test]
fn a_full_queue_takes_more_once_completions_were_polled() {
    let bed = Bed::new();
    let (mut a, mut b) = pair_with(&bed, |builder| builder.set_max_send_wr(4));
    let mem = bed.mem(8);
    let depth = a.qp.capacity().max_send_wr as usize;
    let to = bed.mem(8);
    let slices = [to.slice(..)];
    for _ in 0..3 {
        // No receive is posted yet, so that nothing completes. (One more would be refused; but mlx5, for
        // one, damages the last request meanwhile, so that the contract of `submit` forbids to try.)
        for n in 0..depth as u64 {
            submit(&mut a.qp, |batch| batch.op().signaled().send(n, &[mem.slice(..)])).unwrap();
        }
        for n in 0..depth as u64 {
            post_recv(&mut b.qp, [RecvRequest::new(n, &slices)]).unwrap();
        }
        wait_ok(&b.recv_cq, depth);
        wait_ok(&a.send_cq, depth);
    }
    assert_clean_and_usable(&mut a, &mut b);
}

#[test]
fn unsignaled_requests_make_room_when_a_later_one_completes() {
    let bed = Bed::new();
    let (mut a, mut b) = pair_with(&bed, |builder| builder.set_max_send_wr(8));
    let (from, to) = (bed.mem(1 << 10), bed.mem(1 << 10));
    for round in 0..20 {
        let data = pattern(1 << 10, round);
        from.write(0, &data);
        submit(&mut a.qp, |batch| {
            for n in 0..8 {
                let (start, end) = (n * 128, (n + 1) * 128);
                let op = batch.op();
                let op = if n == 7 { op.signaled() } else { op };
                let part = to.remote().slice(start as u64..end as u64);
                op.write(n as u64, &[from.slice(start..end)], part);
            }
        })
        .unwrap();
        assert_eq!(wait_one(&a.send_cq, 7).ok, Ok(()));
        assert_eq!(to.read(..), data);
    }
    assert_clean_and_usable(&mut a, &mut b);
}

#[test]
fn receives_can_be_posted_as_an_array_a_vector_or_a_slice() {
    let bed = Bed::new();
    let (mut a, mut b) = pair(&bed);
    let mem = bed.mem(64);
    let slices = [mem.slice(..)];
    let request = |id| RecvRequest::new(id, &slices);
    post_recv(&mut b.qp, [request(1), request(2)]).unwrap();
    post_recv(&mut b.qp, vec![request(3)]).unwrap();
    let mut kept = [request(4), request(5), request(6)];
    post_recv(&mut b.qp, &mut kept[..2]).unwrap();
    // The same requests again: they are linked anew.
    post_recv(&mut b.qp, &mut kept).unwrap();
    for n in 0..7 {
        submit(&mut a.qp, |batch| batch.op().signaled().send(n, &[mem.slice(..0)])).unwrap();
    }
    wait_ok(&a.send_cq, 7);
    let ids: Vec<u64> = wait_ok(&b.recv_cq, 7).iter().map(|wc| wc.wr_id).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5, 4, 5]);
    submit(&mut a.qp, |batch| batch.op().signaled().send(7, &[mem.slice(..0)])).unwrap();
    assert_eq!(wait_one(&b.recv_cq, 6).ok, Ok(()));
}

#[test]
fn a_full_receive_queue_tells_how_many_it_took() {
    let bed = Bed::new();
    // A message without a receive fails at once.
    let (mut a, mut b) =
        pair_with::<Rc>(&bed, |builder| builder.set_max_recv_wr(8).set_rnr_retry(0));
    let mem = bed.mem(64);
    let slices = [mem.slice(..)];
    let depth = b.qp.capacity().max_recv_wr as usize;
    let too_many: Vec<_> = (0..3 * depth).map(|id| RecvRequest::new(id as u64, &slices)).collect();
    let requests = too_many.len();
    let error = post_recv(&mut b.qp, too_many).unwrap_err();
    let accepted = match error {
        Error::PostReceive { verb: "ibv_post_recv", accepted, requested, .. } => {
            assert_eq!(requested, requests);
            accepted
        }
        _ => panic!("{error}"),
    };
    assert_eq!(error.os_error(), Some(libc::ENOMEM));
    assert!(error.to_string().contains("the queue is full"), "{error}");
    assert!((depth..requests).contains(&accepted), "{accepted} of {requests}, granted {depth}");

    for n in 0..accepted {
        let id = n as u64;
        submit(&mut a.qp, |batch| batch.op().signaled().send(id, &[mem.slice(..0)])).unwrap();
        assert_eq!(wait_one(&a.send_cq, id).ok, Ok(()));
    }
    let ids: Vec<u64> = wait_ok(&b.recv_cq, accepted).iter().map(|wc| wc.wr_id).collect();
    assert_eq!(ids, (0..accepted as u64).collect::<Vec<_>>());
    // Those that were not accepted are not there.
    submit(&mut a.qp, |batch| batch.op().signaled().send(99, &[mem.slice(..0)])).unwrap();
    assert_eq!(wait_one(&a.send_cq, 99).status(), WcStatus::RNR_RETRY_EXC_ERR);
}

#[test]
fn receives_with_too_many_entries_are_refused_as_a_whole() {
    let bed = Bed::new();
    let (mut a, mut b) = pair_with(&bed, |builder| builder.set_max_recv_sge(2));
    let mem = bed.mem(64);
    let granted = b.qp.capacity().max_recv_sge;
    let right = vec![mem.slice(..8); granted as usize];
    let wrong = vec![mem.slice(..8); granted as usize + 1];
    let batch = [RecvRequest::new(1, &right), RecvRequest::new(2, &wrong)];
    let error = post_recv(&mut b.qp, batch).unwrap_err();
    let ok = matches!(error, Error::TooManyScatterEntries { queue: "receive", entries, granted: g }
        if entries == wrong.len() && g == granted);
    assert!(ok, "{error}");
    assert_clean_and_usable(&mut a, &mut b);
}

#[test]
fn requests_of_one_batch_that_follow_a_failed_one_are_flushed() {
    let bed = Bed::new();
    let (mut a, _b) = pair(&bed);
    let (from, to) = (bed.mem(64), bed.mem(64));
    from.write(0, &[7; 64]);
    let remote = to.remote();
    let wrong = RemoteMemorySlice { rkey: remote.rkey ^ 0x5555_5500, ..remote };
    submit(&mut a.qp, |batch| {
        batch.op().signaled().write(1, &[from.slice(..8)], remote);
        // Nobody asked for its completion, but it fails.
        batch.op().write(2, &[from.slice(..)], wrong);
        batch.op().write(3, &[from.slice(..)], remote);
        batch.op().signaled().write(4, &[from.slice(..)], remote);
    })
    .unwrap();
    let status: Vec<_> = wait(&a.send_cq, 4).iter().map(|wc| (wc.wr_id, wc.status())).collect();
    let flushed = WcStatus::WR_FLUSH_ERR;
    let expected =
        [(1, WcStatus::SUCCESS), (2, WcStatus::REM_ACCESS_ERR), (3, flushed), (4, flushed)];
    assert_eq!(status, expected);
    assert_eq!(to.read(..8), [7; 8]);
    assert_eq!(to.read(8..), [0; 56]);
}

#[test]
fn a_queue_pair_without_a_send_queue_sends_nothing() {
    let bed = Bed::new();
    let (mut a, mut b) = pair_with::<Rc>(&bed, |builder| builder.set_max_send_wr(0));
    if a.qp.capacity().max_send_wr > 0 {
        // The device gives one to everybody.
        return assert_clean_and_usable(&mut a, &mut b);
    }
    let error = submit(&mut a.qp, |batch| batch.op().send(1, Payload::EMPTY)).unwrap_err();
    let ok = matches!(error, Error::OperationNotGranted { granted, .. } if granted.is_empty());
    assert!(ok, "{error}");
}
