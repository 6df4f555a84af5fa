//! The owned level: what a completion tells to be done, and what is left by completions, polls and batches that are not used to
//! their end.

use std::mem::forget;

use ibverbs::{BufferPool, Error, OwnedQueuePair, Rc, Ud};
use null_provider::{Completion, PostLimit};

use crate::common::{null, some_handle, Null, QKEY};
use crate::owned::{again, complete, connected, parts, poll, post, posted, take, Parts};

#[test]
fn what_is_not_taken_of_a_completion_goes_home_when_the_next_is_looked_at() {
    let null = null();
    let Parts { pd, cq, pool, .. } = parts();
    let mut qp = connected(&pd, &cq);
    post(&mut qp, &pool, [1, 2]);
    posted(&null).iter().for_each(|id| complete(&null, &cq, *id));
    let mut completions = cq.poll().unwrap().unwrap();
    assert_eq!(completions.next().unwrap().user(), 1);
    assert_eq!(pool.available(), 38);
    let mut second = completions.next().unwrap();
    assert_eq!(pool.available(), 39);
    assert_eq!(second.take().unwrap()[0], 2);
    assert_eq!(pool.available(), 40);
    drop(completions);
}

#[test]
fn a_poll_has_ended_when_there_are_no_more_completions() {
    let null = null();
    let Parts { pd, cq, pool, .. } = parts();
    let mut qp = connected(&pd, &cq);
    post(&mut qp, &pool, [1]);
    complete(&null, &cq, posted(&null)[0]);
    let mut completions = cq.poll().unwrap().unwrap();
    assert_eq!(completions.next().unwrap().take().unwrap()[0], 1);
    assert!(matches!(cq.poll(), Err(Error::PollInProgress)));
    assert!(completions.next().is_none());
    // Another may be open, in which it is asked for more, and dropped.
    post(&mut qp, &pool, [2, 3]);
    posted(&null).iter().for_each(|id| complete(&null, &cq, *id));
    let mut others = cq.poll().unwrap().unwrap();
    assert_eq!(others.next().unwrap().take().unwrap()[0], 2);
    assert!(completions.next().is_none());
    drop(completions);
    assert!(matches!(cq.poll(), Err(Error::PollInProgress)));
    assert_eq!(others.next().unwrap().take().unwrap()[0], 3);
    drop(others);
    assert_eq!(poll(&cq), []);
    qp.drain(&[&cq]).unwrap();
}

/// The sends that a batch of these has, with their identifiers; `true` are signaled.
fn send_batch(
    qp: &mut OwnedQueuePair<Rc>,
    pool: &BufferPool,
    null: &Null,
    sends: &[(u64, bool)],
) -> Vec<u64> {
    let mut batch = qp.start_send();
    for (user, is_signaled) in sends {
        let op = batch.op();
        let op = if *is_signaled { op } else { op.unsignaled() };
        op.send(*user, take(pool, *user as u8), 1);
    }
    batch.submit().unwrap();
    posted(null)
}

#[test]
fn sends_that_fail_hand_back_those_that_were_done_before_and_no_others() {
    let null = null();
    let Parts { pd, cq, pool, .. } = parts();
    let builder = pd.create_owned_qp::<Rc>(&cq, &cq, 1).unwrap();
    let mut qp = again(builder.set_max_send_wr(16).build().unwrap());
    for _ in 0..5 {
        let sends: Vec<_> = (0..7).map(|user| (user, user == 3)).collect();
        let ids = send_batch(&mut qp, &pool, &null, &sends);
        // The second fails, as do all behind it.
        ids[1..].iter().for_each(|id| complete(&null, &cq, *id));
        let users: Vec<_> = poll(&cq);
        let each = |user: u64| (user, vec![user as u8]);
        assert_eq!(users[0], (1, vec![1, 0]));
        assert!(users[1..].iter().cloned().eq((2..7).map(each)), "{users:?}");
        assert_eq!(pool.available(), 40);
    }
    // What was refused has left no trace in the places that others take.
    for refused in 1..4 {
        let ids = send_batch(&mut qp, &pool, &null, &[(0, false)]);
        let limit = PostLimit { accept: 0, code: libc::ENOMEM, set_bad_wr: true };
        null.configure(|config| config.send_limit = Some(limit));
        let mut batch = qp.start_send();
        (0..refused).for_each(|user| batch.op().send(user, take(&pool, 9), 1));
        batch.submit().unwrap_err();
        null.configure(|config| config.send_limit = None);
        posted(&null);
        let more = send_batch(&mut qp, &pool, &null, &[(1, false), (2, false), (3, true)]);
        // The first is done, and was not told; the second fails.
        complete(&null, &cq, more[0]);
        assert_eq!(poll(&cq), [(1, vec![1, 0])]);
        complete(&null, &cq, ids[0]);
        more[1..].iter().for_each(|id| complete(&null, &cq, *id));
        assert_eq!(poll(&cq), [(2, vec![2]), (3, vec![3])]);
        assert_eq!(pool.available(), 40);
    }
}

#[test]
fn sends_that_fail_hand_back_nothing_from_before_one_whose_completion_was_lost() {
    let null = null();
    let Parts { pd, cq, pool, .. } = parts();
    let mut qp = connected(&pd, &cq);
    let ids = send_batch(&mut qp, &pool, &null, &[(0, false), (1, true), (2, false), (3, false)]);
    complete(&null, &cq, ids[3]);
    assert_eq!(poll(&cq), [(3, vec![3, 2])]);
    assert!(qp.drain(&[&cq]).unwrap().iter().map(|buffer| buffer[0]).eq([0, 1]));
}

#[test]
fn sends_that_complete_in_any_order_are_all_signaled() {
    let null = null();
    null.configure(|config| config.is_efa = true);
    let Parts { pd, cq, pool, .. } = parts();
    let ah = some_handle(&pd);
    let builder = pd.create_owned_qp::<Ud>(&cq, &cq, 1).unwrap();
    let mut qp = builder.build().unwrap().activate(QKEY).unwrap();
    let mut batch = qp.start_send();
    (0..4).for_each(|n| batch.to(&ah, 1, QKEY).unsignaled().send(n, take(&pool, n as u8), 1));
    batch.submit().unwrap();
    let requests = null.take_requests();
    let is_signaled = |flags: u32| flags & ibverbs::ffi::IBV_SEND_SIGNALED != 0;
    assert!(requests.iter().all(|request| is_signaled(request.flags)));
    for place in [2, 0, 3] {
        let (wr_id, qp_num) = (requests[place].wr_id, qp.qp_num());
        null.complete(cq.as_raw(), Completion { wr_id, qp_num, ..Completion::default() });
        assert_eq!(poll(&cq), [(place as u64, vec![place as u8])]);
    }
    assert_eq!(qp.drain(&[&cq]).unwrap().len(), 1);
}

#[test]
fn a_batch_that_was_refused_and_is_forgotten_leaves_nothing() {
    let null = null();
    let Parts { pd, cq, pool, .. } = parts();
    let mut qp = connected(&pd, &cq);
    for _ in 0..2 {
        let mut batch = qp.start_send();
        batch.op().send(1, take(&pool, 1), 1);
        batch.op().send(2, take(&pool, 2), 65);
        batch.op().send(3, take(&pool, 3), 1);
        forget(batch);
        assert_eq!(pool.available(), 37);
        qp.send(4, take(&pool, 4), 1).unwrap();
        assert_eq!(pool.available(), 39);
        complete(&null, &cq, posted(&null)[0]);
        assert_eq!(poll(&cq), [(4, vec![4])]);
        // The next is not refused.
        let ids = send_batch(&mut qp, &pool, &null, &[(5, true)]);
        complete(&null, &cq, ids[0]);
        assert_eq!(poll(&cq), [(5, vec![5])]);
    }
    assert_eq!(pool.available(), 40);
}

#[test]
fn a_batch_that_is_refused_gives_back_its_buffers_in_their_order() {
    let null = null();
    let Parts { pd, cq, pool, .. } = parts();
    let mut qp = connected(&pd, &cq);
    for refused in 0..3 {
        let mut batch = qp.start_send();
        for n in 0..3 {
            batch.op().send(n, take(&pool, n as u8), if n == refused { 65 } else { 1 });
        }
        let failed = batch.submit().unwrap_err();
        assert!(failed.resource.iter().map(|buffer| buffer[0]).eq(0..3));
    }
    assert_eq!(posted(&null), []);
}

#[test]
fn receives_behind_a_refused_one_are_posted_the_next_time() {
    let null = null();
    let Parts { ctx, pd, cq, pool } = parts();
    let stranger = ctx.alloc_pd().unwrap().buffer_pool(1, 64).unwrap();
    let mut qp = connected(&pd, &cq);
    let mut receives: Vec<_> = (0..4).map(|n| (n, take(&pool, n as u8))).collect();
    receives.insert(2, (9, take(&stranger, 9)));
    let error = qp.post_recv_all(&mut receives).unwrap_err();
    assert!(matches!(error, Error::ProtectionDomainMismatch { .. }), "{error}");
    assert!(receives.iter().map(|(user, buffer)| (*user, buffer[0])).eq([(9, 9), (2, 2), (3, 3)]));
    assert_eq!(posted(&null).len(), 2);
    // The chain that was cut there is whole again.
    drop(receives.remove(0));
    receives.extend((4..7).map(|n| (n, take(&pool, n as u8))));
    qp.post_recv_all(&mut receives).unwrap();
    assert_eq!(posted(&null).len(), 5);
    assert!(qp.drain(&[&cq]).unwrap().iter().map(|buffer| buffer[0]).eq(0..7));
}

/// What is wrong with that if it is, Miri tells.
#[test]
fn a_table_that_was_the_last_to_be_found_is_not_looked_at_when_it_is_gone() {
    let null = null();
    let Parts { pd, cq, pool, .. } = parts();
    let (mut first, mut second) = (connected(&pd, &cq), connected(&pd, &cq));
    post(&mut first, &pool, [1]);
    complete(&null, &cq, posted(&null)[0]);
    assert_eq!(poll(&cq), [(1, vec![1])]);
    drop(first);
    post(&mut second, &pool, [2]);
    complete(&null, &cq, posted(&null)[0]);
    assert_eq!(poll(&cq), [(2, vec![2])]);
}

#[test]
fn what_a_poll_does_not_look_at_goes_home() {
    let null = null();
    let Parts { pd, cq, pool, .. } = parts();
    let builder = pd.create_owned_qp::<Rc>(&cq, &cq, 1).unwrap();
    let mut qp = again(builder.set_max_recv_wr(4).build().unwrap());
    for n in 0..20 {
        post(&mut qp, &pool, [n]);
        posted(&null).iter().for_each(|id| complete(&null, &cq, *id));
        assert!(cq.poll().unwrap().is_some());
        assert_eq!(pool.available(), 40);
    }
    // The first only, also if that is of a queue pair that is gone.
    complete(&null, &cq, 12345);
    post(&mut qp, &pool, [1]);
    posted(&null).iter().for_each(|id| complete(&null, &cq, *id));
    assert!(cq.poll().unwrap().is_some());
    assert_eq!(pool.available(), 39);
    assert_eq!(poll(&cq), [(1, vec![1])]);
    drop(qp);
}

#[test]
fn what_is_not_taken_of_a_completion_goes_home_when_the_poll_ends() {
    let null = null();
    let Parts { pd, cq, pool, .. } = parts();
    let mut qp = connected(&pd, &cq);
    let mut batch = qp.start_send();
    for n in 0..6 {
        let op = batch.op();
        let op = if n % 3 == 2 { op } else { op.unsignaled() };
        op.send(n, take(&pool, n as u8), 1);
    }
    batch.submit().unwrap();
    let ids = posted(&null);
    complete(&null, &cq, ids[2]);
    complete(&null, &cq, ids[5]);
    let mut completions = cq.poll().unwrap().unwrap();
    let _ = completions.next();
    drop(completions);
    assert_eq!(pool.available(), 37);
    assert_eq!(poll(&cq), [(5, vec![5, 3, 4])]);
    assert_eq!(pool.available(), 40);
    drop(qp);
}

#[test]
fn a_batch_that_is_forgotten_is_taken_back_by_the_next() {
    let null = null();
    let Parts { pd, cq, pool, .. } = parts();
    let builder = pd.create_owned_qp::<Rc>(&cq, &cq, 1).unwrap();
    let mut qp = again(builder.set_max_send_wr(4).build().unwrap());
    for n in 0..if cfg!(miri) { 6 } else { 50 } {
        let mut batch = qp.start_send();
        (0..3).for_each(|_| batch.op().send(n, take(&pool, 1), 1));
        forget(batch);
        assert_eq!(pool.available(), 37);
        match n % 3 {
            0 => drop(qp.start_send()),
            1 => {
                let mut batch = qp.start_send();
                batch.op().send(n, take(&pool, 2), 1);
                batch.submit().unwrap();
            }
            _ => qp.send(n, take(&pool, 2), 1).unwrap(),
        }
        let ids = posted(&null);
        assert_eq!(pool.available(), 40 - ids.len());
        ids.iter().for_each(|id| complete(&null, &cq, *id));
        assert!(poll(&cq).iter().all(|done| *done == (n, vec![2])));
        assert_eq!(pool.available(), 40);
    }
    // Or goes with the queue pair.
    let mut batch = qp.start_send();
    batch.op().send(1, take(&pool, 1), 1);
    forget(batch);
    qp.close().unwrap();
    assert_eq!(poll(&cq), []);
    assert_eq!(pool.available(), 40);
}

#[test]
fn a_poll_that_is_forgotten_ends_with_its_queue() {
    let null = null();
    let Parts { pd, cq, pool, .. } = parts();
    let mut qp = connected(&pd, &cq);
    let mut srq = pd.create_srq(4).build_owned().unwrap();
    let other = pd.create_owned_qp::<Rc>(&cq, &cq, 1).unwrap().set_srq(&srq).build().unwrap();
    srq.post_recv(1, take(&pool, 1)).unwrap();
    drop(other);
    post(&mut qp, &pool, [1, 2]);
    complete(&null, &cq, posted(&null)[1]);
    forget(cq.poll().unwrap());
    // While it is open, nobody can say what it looks at.
    let failed = srq.drain(&[&cq]).unwrap_err();
    assert!(matches!(failed.error, Error::PollInProgress), "{}", failed.error);
    let failed_qp = qp.drain(&[&cq]).unwrap_err();
    assert!(matches!(failed_qp.error, Error::PollInProgress), "{}", failed_qp.error);
    drop(cq);
    assert_eq!(failed.resource.drain(&[]).unwrap().len(), 1);
    assert_eq!(failed_qp.resource.drain(&[]).unwrap().len(), 2);
    assert_eq!(pool.available(), 40);
}
