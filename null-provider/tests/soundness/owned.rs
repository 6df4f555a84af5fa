//! The owned level: a buffer is posted or in hand, never both, and comes back once, whatever the provider and safe code
//! do. In random order too: see `owned_random.rs`; what completions and batches leave: `owned_runs.rs`.

use std::collections::HashSet;
use std::mem::forget;

use ibverbs::{
    AccessFlags, Buffer, BufferPool, Context, Error, OwnedCompletionQueue, OwnedQueuePair,
    OwnedSharedReceiveQueue, ProtectionDomain, QpState, QueuePairAttr, Rc, Rts, SendOps, Ud,
    WcStatus,
};
use null_provider::{Completion, Kind, Operation, Payload, PostLimit, Verb};

use crate::common::{null, open, some_handle, Null, QKEY};

pub(crate) struct Parts {
    pub(crate) ctx: Context,
    pub(crate) pd: ProtectionDomain,
    pub(crate) cq: OwnedCompletionQueue,
    pub(crate) pool: BufferPool,
}

pub(crate) fn parts() -> Parts {
    let ctx = open(0);
    let pd = ctx.alloc_pd().unwrap();
    let cq = ctx.create_cq(16).build_owned().unwrap();
    let pool = pd.buffer_pool(40, 64).unwrap();
    Parts { ctx, pd, cq, pool }
}

pub(crate) fn connected(pd: &ProtectionDomain, cq: &OwnedCompletionQueue) -> OwnedQueuePair<Rc> {
    let prepared = pd.create_owned_qp::<Rc>(cq, cq, 1).unwrap().build().unwrap();
    let endpoint = prepared.endpoint().unwrap();
    prepared.handshake(endpoint).unwrap()
}

pub(crate) fn take(pool: &BufferPool, first: u8) -> Buffer {
    let mut buffer = pool.take().expect("the pool is empty");
    buffer[0] = first;
    buffer
}

/// The identifiers of what the provider was given since the last look, in order.
pub(crate) fn posted(null: &Null) -> Vec<u64> {
    null.take_requests().iter().map(|request| request.wr_id).collect()
}

/// Completes a request, or what was never one.
pub(crate) fn complete(null: &Null, cq: &OwnedCompletionQueue, wr_id: u64) {
    null.complete(cq.as_raw(), Completion { wr_id, ..Completion::default() });
}

/// What is in the queue: the numbers of the program, with the first bytes of the buffers.
pub(crate) fn poll(cq: &OwnedCompletionQueue) -> Vec<(u64, Vec<u8>)> {
    let mut found = Vec::new();
    if let Some(mut completions) = cq.poll().unwrap() {
        while let Some(mut completion) = completions.next() {
            let user = completion.user();
            let first = std::iter::from_fn(|| completion.take()).map(|buffer| buffer[0]);
            found.push((user, first.collect()));
        }
    }
    found
}

pub(crate) fn post(
    qp: &mut OwnedQueuePair<Rc>,
    pool: &BufferPool,
    users: impl IntoIterator<Item = u64>,
) {
    for user in users {
        qp.post_recv(user, take(pool, user as u8)).unwrap();
    }
}

#[test]
fn what_is_in_the_queue_and_is_not_posted_hands_nothing_out() {
    let null = null();
    let Parts { pd, cq, pool, .. } = &parts();
    let mut qp = connected(pd, cq);
    post(&mut qp, pool, [7]);
    let [id] = posted(&null)[..] else { panic!("one") };
    let others = [0, 1, 7, !0, id ^ 1, id ^ (1 << 27), id ^ (1 << 28), id ^ (1 << 63), id << 1];
    others.iter().for_each(|wr_id| complete(&null, cq, *wr_id));
    assert_eq!(poll(cq), []);
    // The right one among them, and twice.
    complete(&null, cq, !id);
    complete(&null, cq, id);
    complete(&null, cq, id);
    assert_eq!(poll(cq), [(7, vec![7])]);
    post(&mut qp, pool, [8]);
    complete(&null, cq, id);
    assert_eq!(poll(cq), []);
    let [again] = posted(&null)[..] else { panic!("one") };
    complete(&null, cq, again);
    assert_eq!(poll(cq), [(8, vec![8])]);
    assert_eq!(pool.available(), 40);
}

#[test]
fn no_identifier_is_used_twice() {
    let null = null();
    let Parts { pd, cq, pool, .. } = &parts();
    let mut ids = HashSet::new();
    for round in 0..if cfg!(miri) { 4 } else { 50 } {
        let mut qp = connected(pd, cq);
        for user in 0..3 {
            post(&mut qp, pool, [user]);
            qp.send(user, take(pool, 1), 1).unwrap();
        }
        let mut qp = if round % 2 == 0 { qp } else { again(qp.reset().unwrap()) };
        post(&mut qp, pool, [9]);
        for id in posted(&null) {
            assert!(id != 0 && ids.insert(id), "{id:#x} was used twice");
        }
        drop(qp);
        assert_eq!(poll(cq), []);
        assert_eq!(pool.available(), 40);
    }
}

pub(crate) fn again(prepared: OwnedQueuePair<Rc, ibverbs::Reset>) -> OwnedQueuePair<Rc> {
    let endpoint = prepared.endpoint().unwrap();
    prepared.handshake(endpoint).unwrap()
}

#[test]
fn completions_of_a_queue_pair_that_is_gone_or_reset_are_passed_over() {
    let null = null();
    let Parts { pd, cq, pool, .. } = &parts();
    let mut qp = connected(pd, cq);
    post(&mut qp, pool, [1, 2]);
    let old = posted(&null);
    qp.close().unwrap();
    let mut qp = connected(pd, cq);
    post(&mut qp, pool, [3]);
    // Before the poll: it has not let go of the old one yet.
    old.iter().for_each(|id| complete(&null, cq, *id));
    assert_eq!(poll(cq), []);
    assert_eq!(pool.available(), 39);
    let old = posted(&null);
    let mut qp = again(qp.reset().unwrap());
    post(&mut qp, pool, [4]);
    complete(&null, cq, old[0]);
    let new = posted(&null);
    complete(&null, cq, new[0]);
    assert_eq!(poll(cq), [(4, vec![4])]);
    assert_eq!(pool.available(), 40);
}

#[test]
fn a_manual_reset_gives_back_what_was_posted() {
    let null = null();
    let Parts { pd, cq, pool, .. } = &parts();
    let prepared = pd.create_owned_qp::<Rc>(cq, cq, 1).unwrap().build().unwrap();
    let mut qp = prepared.into_manual();
    qp.post_recv(1, take(pool, 1)).unwrap();
    qp.modify(&QueuePairAttr::new().set_state(QpState::RESET)).unwrap();
    assert_eq!(poll(cq), []);
    assert_eq!(pool.available(), 40);
    // Any other change leaves it where it is.
    qp.post_recv(2, take(pool, 2)).unwrap();
    qp.modify(&QueuePairAttr::new().set_state(QpState::ERR)).unwrap();
    assert_eq!(poll(cq), []);
    assert_eq!(pool.available(), 39);
    let id = *posted(&null).last().unwrap();
    complete(&null, cq, id);
    assert_eq!(poll(cq), [(2, vec![2])]);
}

#[test]
fn a_bring_up_that_fails_gives_back_what_was_posted_before() {
    let null = null();
    let Parts { pd, cq, pool, .. } = &parts();
    let prepared = pd.create_owned_qp::<Rc>(cq, cq, 1).unwrap().build().unwrap();
    let endpoint = prepared.endpoint().unwrap();
    let mut qp = prepared.init().unwrap();
    qp.post_recv(1, take(pool, 1)).unwrap();
    // To RTR; then back, by a reset.
    null.fail_once_after(Verb::ModifyQp, 1, libc::EINVAL);
    let failed = qp.handshake(endpoint).unwrap_err();
    assert_eq!(poll(cq), []);
    assert_eq!(pool.available(), 40);
    let mut qp = failed.resource;
    qp.post_recv(2, take(pool, 2)).unwrap();
    assert_eq!(qp.drain(&[cq]).unwrap().len(), 1);
    // If it cannot be reset either, the device may still have it.
    let prepared = pd.create_owned_qp::<Rc>(cq, cq, 1).unwrap().build().unwrap();
    let mut qp = prepared.init().unwrap();
    qp.post_recv(1, take(pool, 1)).unwrap();
    null.fail(Verb::ModifyQp, libc::EINVAL);
    let failed = qp.handshake(endpoint).unwrap_err();
    null.succeed(Verb::ModifyQp);
    assert_eq!(poll(cq), []);
    assert_eq!(pool.available(), 39);
    assert_eq!(failed.resource.drain(&[cq]).unwrap().len(), 1);
}

#[test]
fn a_batch_that_is_taken_in_part_gives_the_rest_back() {
    let null = null();
    let Parts { pd, cq, pool, .. } = &parts();
    let mut qp = connected(pd, cq);
    for accept in 0..4 {
        let limit = PostLimit { accept, code: libc::ENOMEM, set_bad_wr: true };
        null.configure(|config| config.send_limit = Some(limit));
        let mut batch = qp.start_send();
        (0..4).for_each(|n| batch.op().send(n, take(pool, n as u8), 1));
        let failed = batch.submit().unwrap_err();
        let told = matches!(failed.error, Error::PostShared { accepted, requested: 4, .. } if accepted == accept);
        assert!(told, "{}", failed.error);
        let back: Vec<_> = failed.resource.iter().map(|buffer| buffer[0] as usize).collect();
        assert_eq!(back, (accept..4).collect::<Vec<_>>());
        drop(failed);
        null.configure(|config| config.send_limit = None);
        // It goes on with the place after those that were taken.
        qp.send(9, take(pool, 9), 1).unwrap();
        let ids = posted(&null);
        assert_eq!(ids.len(), accept + 1);
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
        ids.iter().for_each(|id| complete(&null, cq, *id));
        let users: Vec<_> = poll(cq).iter().map(|(user, first)| (*user, first.len())).collect();
        let expected = (0..accept as u64).chain([9]).map(|user| (user, 1));
        assert!(users.iter().copied().eq(expected), "{users:?}");
        assert_eq!(pool.available(), 40);
    }
}

#[test]
fn receives_that_are_taken_in_part_leave_the_rest() {
    let null = null();
    let Parts { pd, cq, pool, .. } = &parts();
    let mut qp = connected(pd, cq);
    let limit = PostLimit { accept: 3, code: libc::ENOMEM, set_bad_wr: true };
    null.configure(|config| config.recv_limit = Some(limit));
    let mut receives: Vec<_> = (0..5).map(|n| (n, take(pool, n as u8))).collect();
    let error = qp.post_recv_all(&mut receives).unwrap_err();
    assert!(matches!(error, Error::PostReceive { accepted: 3, requested: 5, .. }), "{error}");
    assert!(receives.iter().map(|(user, buffer)| (*user, buffer[0])).eq([(3, 3), (4, 4)]));
    let limit = PostLimit { accept: 0, code: libc::ENOMEM, set_bad_wr: true };
    null.configure(|config| config.recv_limit = Some(limit));
    let failed = qp.post_recv(6, take(pool, 6)).unwrap_err();
    assert_eq!(failed.resource.expect("it was not taken")[0], 6);
    null.configure(|config| config.recv_limit = None);
    qp.post_recv_all(&mut receives).unwrap();
    let ids = posted(&null);
    ids.iter().rev().for_each(|id| complete(&null, cq, *id));
    assert!(poll(cq).iter().map(|(user, _)| *user).eq((0..5).rev()));
    drop(receives);
    assert_eq!(pool.available(), 40);
}

#[test]
fn what_a_provider_may_have_taken_does_not_come_back() {
    let null = null();
    let Parts { pd, cq, pool, .. } = &parts();
    let mut qp = connected(pd, cq);
    // It fails, and does not say where: as SoftRoCE's, when its doorbell fails.
    let limit = PostLimit { accept: 0, code: libc::EIO, set_bad_wr: false };
    null.configure(|config| {
        config.send_limit = Some(limit);
        config.recv_limit = Some(limit);
    });
    assert!(qp.send(1, take(pool, 1), 1).unwrap_err().resource.is_none());
    assert!(qp.post_recv(2, take(pool, 2)).unwrap_err().resource.is_none());
    let mut receives = vec![(3, take(pool, 3))];
    qp.post_recv_all(&mut receives).unwrap_err();
    assert!(receives.is_empty());
    assert_eq!(pool.available(), 37);
    let drained = qp.drain(&[cq]).unwrap();
    assert!(drained.iter().map(|buffer| buffer[0]).eq([1, 2, 3]));
}

#[test]
fn what_a_queue_pair_cannot_carry_out_does_not_reach_the_provider() {
    let null = null();
    let Parts { ctx, pd, cq, pool } = &parts();
    let builder = pd.create_owned_qp::<Rc>(cq, cq, 1).unwrap().set_send_ops(SendOps::RDMA_WRITE);
    let mut qp = again(builder.build().unwrap());
    let failed = qp.send(1, take(pool, 1), 1).unwrap_err();
    assert!(matches!(failed.error, Error::OperationNotGranted { .. }), "{}", failed.error);
    drop(failed);
    // Queues without a place, and without an entry, are made with one, or take nothing.
    let builder = pd.create_owned_qp::<Rc>(cq, cq, 1).unwrap();
    let builder = builder.set_max_send_sge(0).set_max_recv_sge(0);
    let mut narrow = again(builder.clone().build().unwrap());
    assert!(narrow.capacity().max_send_sge >= 1 && narrow.capacity().max_recv_sge >= 1);
    narrow.send(1, take(pool, 1), 64).unwrap();
    narrow.drain(&[cq]).unwrap();
    posted(&null);
    let mut none = again(builder.set_max_send_wr(0).set_max_recv_wr(0).build().unwrap());
    assert!(none.send(1, take(pool, 1), 1).is_err());
    assert!(none.post_recv(1, take(pool, 1)).is_err());
    let far = pd.allocate_shared(8, AccessFlags::PERMISSIVE).unwrap();
    let stranger = ctx.alloc_pd().unwrap().buffer_pool(1, 8).unwrap();
    let mut full = connected(pd, cq);
    for case in 0..4 {
        let mut batch = full.start_send();
        batch.op().send(0, take(pool, 0), 1);
        match case {
            0 => batch.op().send(1, take(pool, 1), 65),
            1 => batch.op().write(1, take(pool, 1), 9, far.remote()),
            2 => batch.op().read(1, take(pool, 1), 9, far.remote()),
            _ => batch.op().send(1, stranger.take().unwrap(), 1),
        }
        let failed = batch.submit().unwrap_err();
        assert_eq!(failed.resource.len(), 2, "{}", failed.error);
    }
    assert_eq!(posted(&null), []);
    assert_eq!(pool.available(), 40);
    let stranger = ctx.alloc_pd().unwrap().buffer_pool(2, 8).unwrap();
    let failed = full.post_recv(1, stranger.take().unwrap()).unwrap_err();
    assert!(failed.resource.is_some(), "{}", failed.error);
    let mut receives = vec![(2, stranger.take().unwrap())];
    assert!(full.post_recv_all(&mut receives).is_err() && receives.len() == 1);
    // A datagram to a handle of another domain.
    let ah = some_handle(&ctx.alloc_pd().unwrap());
    let mut datagrams =
        pd.create_owned_qp::<Ud>(cq, cq, 1).unwrap().build().unwrap().activate(QKEY).unwrap();
    let mut batch = datagrams.start_send();
    batch.to(&ah, 1, QKEY).send(1, take(pool, 1), 1);
    assert_eq!(batch.submit().unwrap_err().resource.len(), 1);
    assert_eq!(posted(&null), []);
}

#[test]
fn more_than_the_queue_has_places_for_is_refused() {
    let null = null();
    let Parts { ctx, pd, cq, .. } = &parts();
    let pool = pd.buffer_pool(200, 8).unwrap();
    let builder = pd.create_owned_qp::<Rc>(cq, cq, 1).unwrap();
    let mut qp = again(builder.set_max_send_wr(4).set_max_recv_wr(4).build().unwrap());
    let places = qp.capacity().max_send_wr as usize;
    // The null provider itself takes any number.
    let mut batch = qp.start_send();
    (0..=places as u64).for_each(|n| batch.op().send(n, take(&pool, n as u8), 1));
    let failed = batch.submit().unwrap_err();
    assert!(matches!(failed.error, Error::QueueFull { queue: "send", .. }), "{}", failed.error);
    assert!(failed.resource.iter().map(|buffer| buffer[0] as usize).eq(0..=places));
    drop(failed);
    assert_eq!(posted(&null), []);
    let mut sent = 0;
    while qp.send(sent, take(&pool, sent as u8), 1).is_ok() {
        sent += 1;
    }
    assert!(sent as usize >= places);
    // One that completes makes room for one, but not one that completes before its time.
    let ids = posted(&null);
    complete(&null, cq, ids[1]);
    assert_eq!(poll(cq), [(1, vec![1])]);
    assert!(qp.send(100, take(&pool, 100), 1).is_err());
    complete(&null, cq, ids[0]);
    assert_eq!(poll(cq), [(0, vec![0])]);
    (0..2).for_each(|_| qp.send(100, take(&pool, 100), 1).unwrap());
    assert!(qp.send(100, take(&pool, 100), 1).is_err());
    drop(qp);
    assert_eq!(poll(cq), []);
    assert_eq!(pool.available(), 200);
    drop(ctx.clone());
}

#[test]
fn memory_outlives_the_queue_that_has_it() {
    let null = null();
    type Order = [usize; 4];
    let mut orders: Vec<Order> = Vec::new();
    for a in 0..4 {
        for b in (0..4).filter(|b| *b != a) {
            for c in (0..4).filter(|c| *c != a && *c != b) {
                orders.push([a, b, c, 6 - a - b - c]);
            }
        }
    }
    assert_eq!(orders.len(), 24);
    for order in orders.into_iter().step_by(if cfg!(miri) { 5 } else { 1 }) {
        let Parts { ctx, pd, cq, pool } = parts();
        let mut qp = connected(&pd, &cq);
        post(&mut qp, &pool, [1, 2]);
        let mut batch = qp.start_send();
        batch.op().unsignaled().send(3, take(&pool, 3), 1);
        batch.submit().unwrap();
        null.take_calls();
        let (mut qp, mut cq, mut pool, mut pd) = (Some(qp), Some(cq), Some(pool), Some((pd, ctx)));
        for part in order {
            match part {
                0 => drop(qp.take()),
                1 => drop(cq.take()),
                2 => drop(pool.take()),
                _ => drop(pd.take()),
            }
        }
        let verbs = null.verbs();
        let place = |verb| verbs.iter().position(|&found| found == verb);
        assert!(
            place(Verb::DestroyQp).unwrap() < place(Verb::DeregMr).unwrap(),
            "{order:?}: {verbs:?}"
        );
        assert_eq!(null.all_live(), []);
    }
}

#[test]
fn a_queue_pair_that_is_dropped_within_a_poll_keeps_what_it_has_until_that_ends() {
    let null = null();
    let Parts { pd, cq, pool, .. } = parts();
    let mut qp = connected(&pd, &cq);
    post(&mut qp, &pool, [1, 2]);
    let ids = posted(&null);
    complete(&null, &cq, ids[0]);
    complete(&null, &cq, ids[1]);
    let mut completions = cq.poll().unwrap().unwrap();
    drop(qp);
    assert_eq!((null.live(Kind::Qp), pool.available()), (1, 38));
    assert_eq!(completions.next().unwrap().take().unwrap()[0], 1);
    assert_eq!((null.live(Kind::Qp), pool.available()), (1, 39));
    drop(completions);
    assert_eq!(null.live(Kind::Qp), 0);
    drop(pool);
    assert_eq!(null.live(Kind::Mr), 1);
    assert_eq!(poll(&cq), []);
    assert_eq!(null.live(Kind::Mr), 0);
}

#[test]
fn a_queue_pair_that_comes_within_a_poll_completes_there() {
    let null = null();
    let Parts { pd, cq, pool, .. } = parts();
    let mut first = connected(&pd, &cq);
    post(&mut first, &pool, [1]);
    posted(&null).iter().for_each(|id| complete(&null, &cq, *id));
    let mut completions = cq.poll().unwrap().unwrap();
    // The null provider would report that it is created under the lock of the queue; it takes none for this.
    let mut second = connected(&pd, &cq);
    post(&mut second, &pool, [2]);
    let ids = posted(&null);
    assert_eq!(completions.next().unwrap().user(), 1);
    ids.iter().for_each(|id| complete(&null, &cq, *id));
    let mut completion = completions.next().expect("it is found within the poll");
    assert_eq!((completion.user(), completion.take().unwrap()[0]), (2, 2));
}

#[test]
fn a_status_is_told_and_the_buffer_comes_back_whatever_it_is() {
    let null = null();
    let Parts { pd, cq, pool, .. } = parts();
    let mut qp = connected(&pd, &cq);
    for status in [1, 5, 12, 9999] {
        post(&mut qp, &pool, [1]);
        let [wr_id] = posted(&null)[..] else { panic!("one") };
        null.complete(cq.as_raw(), Completion { wr_id, status, opcode: 77, ..Default::default() });
        let mut completions = cq.poll().unwrap().unwrap();
        let mut completion = completions.next().unwrap();
        assert_eq!(completion.ok().unwrap_err().status, WcStatus(status));
        assert!(completion.is_recv() && completion.take().is_some() && completion.take().is_none());
    }
    assert_eq!(pool.available(), 40);
}

#[test]
fn shared_receives_are_the_queue_s_own() {
    let null = null();
    let Parts { ctx, pd, pool, cq: one } = parts();
    let two = ctx.create_cq(16).build_owned().unwrap();
    let mut srq = pd.create_srq(8).build_owned().unwrap();
    let pair =
        |cq: &OwnedCompletionQueue, srq: &OwnedSharedReceiveQueue| -> OwnedQueuePair<Rc, Rts> {
            again(pd.create_owned_qp::<Rc>(cq, cq, 1).unwrap().set_srq(srq).build().unwrap())
        };
    let pairs = [pair(&one, &srq), pair(&two, &srq), pair(&two, &srq)];
    let mut receives: Vec<_> = (0..8).map(|n| (n, take(&pool, n as u8))).collect();
    srq.post_recv_all(&mut receives).unwrap();
    let ids = posted(&null);
    complete(&null, &two, ids[5]);
    complete(&null, &one, ids[2]);
    assert_eq!((poll(&one), poll(&two)), (vec![(2, vec![2])], vec![(5, vec![5])]));
    // In whatever place is empty.
    srq.post_recv(12, take(&pool, 12)).unwrap();
    srq.post_recv(15, take(&pool, 15)).unwrap();
    assert!(matches!(
        srq.post_recv(16, take(&pool, 16)).unwrap_err().error,
        Error::QueueFull { queue: "receive", capacity: 8 }
    ));
    let [a, b] = posted(&null)[..] else { panic!("two") };
    complete(&null, &one, b);
    complete(&null, &one, a);
    assert_eq!(poll(&one), [(15, vec![15]), (12, vec![12])]);
    // What a queue pair took that is gone is still told.
    complete(&null, &two, ids[7]);
    drop(pairs);
    assert_eq!(poll(&two), [(7, vec![7])]);
    drop(two);
    let drained = srq.drain(&[&one]).unwrap();
    assert!(drained.iter().map(|buffer| buffer[0]).eq([0, 1, 3, 4, 6]));
    drop(drained);
    assert_eq!(pool.available(), 40);
    assert_eq!(null.verbs().iter().filter(|verb| **verb == Verb::DestroySrq).count(), 1);
}

#[test]
fn a_queue_that_refuses_to_be_drained_keeps_what_it_has() {
    let null = null();
    let Parts { pd, cq, pool, .. } = parts();
    let mut qp = connected(&pd, &cq);
    post(&mut qp, &pool, [1]);
    null.fail_once(Verb::DestroyQp, libc::EIO);
    let failed = qp.drain(&[&cq]).unwrap_err();
    assert_eq!(poll(&cq), []);
    assert_eq!(pool.available(), 39);
    assert_eq!(failed.resource.drain(&[&cq]).unwrap().len(), 1);
    let mut srq = pd.create_srq(8).build_owned().unwrap();
    srq.post_recv(1, take(&pool, 1)).unwrap();
    null.fail_once(Verb::DestroySrq, libc::EIO);
    let failed = srq.drain(&[]).unwrap_err();
    assert_eq!(failed.resource.drain(&[]).unwrap().len(), 1);
    assert_eq!(pool.available(), 40);
    forget(null.take_requests());
}

/// The lengths of the entries of a scatter list.
fn lens(payload: &Payload) -> Vec<u32> {
    match payload {
        Payload::Scatter(entries) => entries.iter().map(|entry| entry.1).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_drain_takes_every_queue_that_may_be_polled() {
    let null = null();
    let Parts { ctx, pd, cq, pool } = parts();
    let other = ctx.create_cq(4).build_owned().unwrap();
    let mut qp = again(pd.create_owned_qp::<Rc>(&cq, &other, 1).unwrap().build().unwrap());
    post(&mut qp, &pool, [1]);
    for queues in [&[][..], &[&cq], &[&other]] {
        let failed = qp.drain(queues).unwrap_err();
        assert!(matches!(failed.error, Error::CompletionQueueNeeded), "{}", failed.error);
        qp = failed.resource;
    }
    assert_eq!(null.count(Verb::DestroyQp), 0);
    assert_eq!(qp.drain(&[&other, &cq]).unwrap().len(), 1);
}

#[test]
fn requests_are_what_was_asked_for() {
    let null = null();
    let Parts { pd, cq, pool, .. } = parts();
    let far = pd.allocate_shared(64, AccessFlags::PERMISSIVE).unwrap();
    let mut qp = connected(&pd, &cq);
    let mut batch = qp.start_send();
    batch.op().unsignaled().solicited().send(1, take(&pool, 1), 5);
    batch.op().fenced().imm(7).write(2, take(&pool, 2), 6, far.remote());
    batch.op().read(3, take(&pool, 3), 0, far.remote());
    batch.submit().unwrap();
    let requests = null.take_requests();
    let flags: Vec<_> = requests.iter().map(|request| request.flags).collect();
    let (fence, signaled, solicited) = (
        ibverbs::ffi::IBV_SEND_FENCE,
        ibverbs::ffi::IBV_SEND_SIGNALED,
        ibverbs::ffi::IBV_SEND_SOLICITED,
    );
    assert_eq!(flags, [solicited, fence | signaled, signaled]);
    assert!(matches!(requests[0].operation, Operation::Send { imm: None }), "{:?}", requests[0]);
    let lens: Vec<Vec<u32>> = requests.iter().map(|request| lens(&request.payload)).collect();
    assert_eq!(lens, [vec![5], vec![6], vec![]], "no entry for nothing");
    // The last tells of those that were not signaled.
    complete(&null, &cq, requests[1].wr_id);
    complete(&null, &cq, requests[2].wr_id);
    assert_eq!(poll(&cq), [(2, vec![2, 1]), (3, vec![3])]);
}

#[test]
fn a_queue_in_which_nothing_is_signaled_does_not_fill_up_for_good() {
    let null = null();
    let Parts { pd, cq, pool, .. } = parts();
    let builder = pd.create_owned_qp::<Rc>(&cq, &cq, 1).unwrap();
    let mut qp = again(builder.set_max_send_wr(8).build().unwrap());
    for n in 0..if cfg!(miri) { 12 } else { 100 } {
        let mut batch = qp.start_send();
        batch.op().unsignaled().send(n, take(&pool, 1), 1);
        batch.submit().unwrap();
        for request in null.take_requests() {
            if request.flags & ibverbs::ffi::IBV_SEND_SIGNALED != 0 {
                complete(&null, &cq, request.wr_id);
            }
        }
        assert!(poll(&cq).iter().all(|(user, back)| *user == n && back.len() == 5));
    }
    drop(qp);
}

#[test]
fn shared_queues_that_are_too_deep_are_refused() {
    let _null = null();
    let Parts { pd, .. } = parts();
    for depth in [0, 1 << 28, u32::MAX] {
        assert!(pd.create_srq(depth).build_owned().is_err());
    }
}

#[test]
fn buffers_have_no_remote_rights() {
    let null = null();
    let Parts { pd, .. } = parts();
    drop(pd.buffer_pool(3, 100).unwrap());
    let registrations = null.registrations();
    assert_eq!(registrations.len(), 2);
    for registration in registrations {
        assert_eq!(registration.access, AccessFlags::LOCAL_WRITE.bits());
    }
}
