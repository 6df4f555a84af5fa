//! Rules 1, 6, 9 and 13 for shared receive queues: of one domain, not beyond their limits, kept by their queue
//! pairs, and open about what they took.

use ibverbs::{
    AccessFlags, CompletionQueue, Error, LocalMemorySlice, PreparedQueuePair, ProtectionDomain, Rc,
    RecvChain, RecvRequest, Result, SharedReceiveQueue,
};
use null_provider::{Kind, PostLimit, Verb};

use crate::common::{complete, null, open, parts, Null, Parts};

fn post<'a>(srq: &SharedReceiveQueue, requests: impl AsMut<[RecvRequest<'a>]>) -> Result<()> {
    // SAFETY: the null provider never touches the memory of a scatter entry.
    unsafe { srq.post_recv(requests) }
}

fn post_chain(srq: &SharedReceiveQueue, chain: &mut RecvChain) -> Result<()> {
    // SAFETY: as above.
    unsafe { srq.post_chain(chain) }
}

fn requests(slices: &[LocalMemorySlice]) -> [RecvRequest<'_>; 5] {
    [0, 1, 2, 3, 4].map(|wr_id| RecvRequest::new(wr_id, slices))
}

/// A queue of sixteen receives of two scatter entries.
fn create(pd: &ProtectionDomain) -> SharedReceiveQueue {
    pd.create_srq(16).set_max_sge(2).build().unwrap()
}

fn pair_on(
    pd: &ProtectionDomain,
    cq: &CompletionQueue,
    srq: &SharedReceiveQueue,
) -> Result<PreparedQueuePair<Rc>> {
    pd.create_qp::<Rc>(cq, cq, 1).unwrap().set_srq(srq).build()
}

/// The identifiers of the requests that the provider took.
fn taken(null: &Null) -> Vec<u64> {
    null.take_requests().iter().map(|request| request.wr_id).collect()
}

#[test]
fn a_queue_of_another_domain_or_context_is_refused() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    let other_pd = ctx.alloc_pd().unwrap();
    let others = [open(0), open(1)].map(|ctx| ctx.alloc_pd().unwrap());
    for foreign in [&other_pd, &others[0], &others[1]] {
        match pair_on(&pd, &cq, &create(foreign)) {
            Err(Error::ProtectionDomainMismatch { what }) => {
                assert_eq!(what, "shared receive queue");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(null.count(Verb::CreateQp), 0);
    // A clone of the domain is the same domain.
    pair_on(&pd.clone(), &cq, &create(&pd)).unwrap().close().unwrap();
}

#[test]
fn a_batch_or_a_chain_that_is_taken_in_part_tells_how_much() {
    let null = null();
    let Parts { pd, .. } = parts();
    let region = pd.allocate(8, AccessFlags::LOCAL_WRITE).unwrap();
    let (srq, slices) = (create(&pd), [region.slice(..)]);
    let mut chain = RecvChain::new(requests(&slices));
    for accept in 0..6 {
        let limit = PostLimit { accept, code: libc::ENOMEM, set_bad_wr: true };
        null.configure(|config| config.recv_limit = Some(limit));
        for chained in [false, true] {
            let result = match chained {
                false => post(&srq, requests(&slices)),
                true => post_chain(&srq, &mut chain),
            };
            assert_eq!(taken(&null), (0..accept.min(5) as u64).collect::<Vec<_>>());
            if accept >= 5 {
                result.unwrap();
                continue;
            }
            let error = result.unwrap_err();
            assert_eq!(error.os_error(), Some(libc::ENOMEM));
            match error {
                Error::PostReceive { verb: "ibv_post_srq_recv", accepted, requested, .. } => {
                    assert_eq!((accepted, requested), (accept, 5));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn a_provider_that_does_not_say_which_request_it_refused_may_have_taken_all() {
    let null = null();
    let Parts { pd, .. } = parts();
    let srq = create(&pd);
    for (code, expected) in [(libc::EINVAL, libc::EINVAL), (-2, libc::EIO)] {
        let limit = PostLimit { accept: 0, code, set_bad_wr: false };
        null.configure(|config| config.recv_limit = Some(limit));
        let mut chain = RecvChain::new(requests(&[]));
        for result in [post(&srq, requests(&[])), post_chain(&srq, &mut chain)] {
            let error = result.unwrap_err();
            assert_eq!(error.os_error(), Some(expected));
            assert!(matches!(error, Error::PostReceive { accepted: 5, requested: 5, .. }));
        }
    }
    assert_eq!(taken(&null), []);
}

#[test]
fn a_device_that_says_too_much_gets_no_more_scatter_entries_than_were_asked_for() {
    let null = null();
    null.configure(|config| config.edit_srq_attr = Some(Box::new(|attr| attr.max_sge += 1)));
    let Parts { pd, .. } = parts();
    let region = pd.allocate(8, AccessFlags::LOCAL_WRITE).unwrap();
    let srq = create(&pd);
    assert_eq!((srq.max_sge(), srq.query().unwrap().max_sge), (2, 3));
    let three = [region.slice(..); 3];
    for place in 0..3 {
        let mut requests = [RecvRequest::new(1, &three[..1]); 3];
        requests[place] = RecvRequest::new(2, &three);
        let mut chain = RecvChain::new(requests);
        for result in [post(&srq, &mut requests[..]), post_chain(&srq, &mut chain)] {
            match result {
                Err(Error::TooManyScatterEntries { queue, entries, granted }) => {
                    assert_eq!((queue, entries, granted), ("receive", 3, 2));
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(null.count(Verb::PostSrqRecv), 0);
    post(&srq, [RecvRequest::new(3, &three[..2])]).unwrap();
    assert_eq!(taken(&null), [3]);
}

#[test]
fn no_requests_are_no_call() {
    let null = null();
    let Parts { pd, .. } = parts();
    let srq = create(&pd);
    post(&srq, []).unwrap();
    post_chain(&srq, &mut RecvChain::new([])).unwrap();
    assert_eq!(null.count(Verb::PostSrqRecv), 0);
}

#[test]
fn a_queue_pair_with_a_shared_queue_never_posts_to_one_of_its_own() {
    let null = null();
    // As if the provider had granted one all the same.
    null.configure(|config| {
        config.edit_qp_cap = Some(Box::new(|cap| (cap.max_recv_wr, cap.max_recv_sge) = (64, 4)));
    });
    let Parts { pd, cq, .. } = parts();
    let srq = create(&pd);
    let mut qp = pair_on(&pd, &cq, &srq).unwrap().init().unwrap();
    let mut chain = RecvChain::new(requests(&[]));
    // SAFETY: the requests have no memory.
    let posted = unsafe { qp.post_recv(requests(&[])) };
    // SAFETY: as above.
    let chained = unsafe { qp.post_chain(&mut chain) };
    for result in [posted, chained] {
        assert!(matches!(result, Err(Error::NoReceiveQueue)), "{result:?}");
    }
    assert_eq!(null.count(Verb::PostRecv), 0);
}

#[test]
fn queue_pairs_keep_their_shared_queue() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let srq = create(&pd);
    let (first, second) = (pair_on(&pd, &cq, &srq).unwrap(), pair_on(&pd, &cq, &srq).unwrap());
    let srq = match srq.close() {
        Err(failed) if matches!(failed.error, Error::InUse { .. }) => failed.resource,
        other => panic!("{other:?}"),
    };
    assert_eq!(null.count(Verb::DestroySrq), 0);
    drop(srq);
    drop(pd);
    drop(first);
    assert_eq!(null.count(Verb::DestroySrq), 0);
    null.take_calls();
    drop(second);
    assert_eq!(null.verbs(), [Verb::DestroyQp, Verb::DestroySrq, Verb::DeallocPd]);
}

#[test]
fn a_queue_pair_that_waits_for_a_poll_keeps_its_shared_queue() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let srq = create(&pd);
    let qp = pair_on(&pd, &cq, &srq).unwrap();
    complete(&null, &cq, [1]);
    let completions = cq.poll().unwrap();
    drop((qp, srq, pd));
    assert_eq!(null.live(Kind::Srq), 1);
    drop(completions);
    assert_eq!(null.live(Kind::Srq), 0);
}

#[test]
fn a_queue_that_cannot_be_closed_comes_back_and_works() {
    let null = null();
    let Parts { pd, .. } = parts();
    let srq = create(&pd);
    null.fail(Verb::DestroySrq, libc::EIO);
    let failed = srq.close().unwrap_err();
    assert_eq!(failed.error.os_error(), Some(libc::EIO));
    null.fail(Verb::DestroySrq, libc::EBUSY);
    let failed = failed.resource.close().unwrap_err();
    assert!(matches!(failed.error, Error::InUse { resource: "shared receive queue" }));
    null.succeed(Verb::DestroySrq);
    post(&failed.resource, requests(&[])).unwrap();
    failed.resource.close().unwrap();
}

#[test]
fn a_queue_that_its_provider_has_lost_is_never_posted_to_again() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let mut srq = create(&pd);
    let qp = pair_on(&pd, &cq, &srq).unwrap();
    null.configure(|config| config.resize_loses = true);
    let error = srq.resize(100).unwrap_err();
    assert_eq!(error.os_error(), Some(libc::ENOMEM));
    let mut chain = RecvChain::new(requests(&[]));
    for result in [post(&srq, requests(&[])), post(&srq, []), post_chain(&srq, &mut chain)] {
        assert!(matches!(result, Err(Error::NoReceiveQueue)), "{result:?}");
    }
    assert_eq!(null.count(Verb::PostSrqRecv), 0);
    qp.close().unwrap();
    srq.close().unwrap();
}

#[test]
fn a_resize_that_is_refused_changes_nothing() {
    let null = null();
    let Parts { pd, .. } = parts();
    let mut srq = create(&pd);
    null.take_calls();
    assert!(matches!(srq.resize(0), Err(Error::InvalidArgument { value: 0, .. })));
    null.expect_no_calls();
    for asked in [4097, u32::MAX] {
        match srq.resize(asked) {
            Err(Error::Capacity { verb: "ibv_modify_srq", requested, available, .. }) => {
                assert_eq!((requested, available), (asked.into(), 4096));
            }
            other => panic!("{other:?}"),
        }
    }
    null.fail(Verb::ModifySrq, libc::EINVAL);
    assert_eq!(srq.resize(100).unwrap_err().os_error(), Some(libc::EINVAL));
    null.succeed(Verb::ModifySrq);
    post(&srq, requests(&[])).unwrap();
    srq.resize(100).unwrap();
    post(&srq, requests(&[])).unwrap();
    assert_eq!(srq.query().unwrap().max_wr, 128);
}

#[test]
fn a_resize_of_which_nobody_knows_what_it_did_loses_the_queue() {
    let null = null();
    let Parts { pd, .. } = parts();
    // Refused with a code that no argument explains, or asked about in vain.
    for (code, unanswered) in [(libc::ENOMEM, false), (libc::EIO, false), (libc::EINVAL, true)] {
        let mut srq = create(&pd);
        null.fail(Verb::ModifySrq, code);
        if unanswered {
            null.fail_after(Verb::QuerySrq, 1, libc::EIO);
        }
        assert_eq!(srq.resize(100).unwrap_err().os_error(), Some(code));
        null.succeed(Verb::ModifySrq);
        null.succeed(Verb::QuerySrq);
        assert!(matches!(post(&srq, requests(&[])), Err(Error::NoReceiveQueue)), "{code}");
    }
    assert_eq!(null.count(Verb::PostSrqRecv), 0);
}

#[test]
fn a_device_without_shared_queues_or_without_resizing_says_so() {
    let null = null();
    let Parts { pd, .. } = parts();
    let mut srq = create(&pd);
    null.configure(|config| {
        config.edit_device_attr = Some(Box::new(|attr| {
            (attr.device_cap_flags, attr.max_srq) = (0, 0);
        }));
    });
    assert!(matches!(srq.resize(100), Err(Error::Unsupported { .. })));
    assert_eq!(null.count(Verb::ModifySrq), 0);
    for code in [libc::ENOSYS, libc::EOPNOTSUPP, libc::EINVAL] {
        null.fail(Verb::CreateSrq, code);
        let result = pd.create_srq(1).build();
        assert!(matches!(result, Err(Error::Unsupported { .. })), "{code}: {result:?}");
    }
}

#[test]
fn verbs_of_a_shared_queue_fail_cleanly() {
    let null = null();
    let Parts { pd, .. } = parts();
    null.fail(Verb::CreateSrq, libc::ENOMEM);
    assert_eq!(pd.create_srq(1).build().unwrap_err().os_error(), Some(libc::ENOMEM));
    null.succeed(Verb::CreateSrq);
    for (max_wr, max_sge) in [(4097, 1), (1, 17)] {
        let result = pd.create_srq(max_wr).set_max_sge(max_sge).build();
        assert!(matches!(result, Err(Error::Capacity { .. })), "{result:?}");
    }
    assert!(matches!(pd.create_srq(0).build(), Err(Error::InvalidArgument { .. })));
    let srq = create(&pd);
    null.fail(Verb::QuerySrq, libc::EIO);
    assert_eq!(srq.query().unwrap_err().os_error(), Some(libc::EIO));
    null.succeed(Verb::QuerySrq);
    srq.set_limit(16).unwrap();
    assert_eq!(srq.query().unwrap().limit, 16);
    match srq.set_limit(17) {
        Err(Error::Capacity { requested: 17, available: 16, .. }) => {}
        other => panic!("{other:?}"),
    }
    null.fail(Verb::ModifySrq, libc::EIO);
    assert_eq!(srq.set_limit(3).unwrap_err().os_error(), Some(libc::EIO));
}

#[test]
fn many_threads_post_to_one_queue() {
    let null = null();
    let Parts { pd, .. } = parts();
    let srq = create(&pd);
    const EACH: u64 = if cfg!(miri) { 5 } else { 200 };
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let srq = &srq;
            scope.spawn(move || {
                let mut chain = RecvChain::new([RecvRequest::new(thread, &[]); 2]);
                for _ in 0..EACH {
                    post(srq, [RecvRequest::new(thread, &[])]).unwrap();
                    post_chain(srq, &mut chain).unwrap();
                }
            });
        }
    });
    let mut taken = taken(&null);
    taken.sort_unstable();
    let expected: Vec<u64> = (0..3).flat_map(|id| vec![id; 3 * EACH as usize]).collect();
    assert_eq!(taken, expected);
}
