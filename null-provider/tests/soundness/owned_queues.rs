//! What queues and completions of the owned level tell and do beside moving buffers: what the raw level tells and does.

use std::time::Duration;

use ibverbs::{
    ffi, AccessFlags, Error, OwnedCompletionQueue, OwnedQueuePair, ProtectionDomain, Rc, Ud,
    WcFields,
};
use null_provider::{Completion, Kind, Payload, Verb};

use crate::common::{null, some_handle, Null, QKEY};
use crate::owned::{complete, connected, parts, poll, posted, Parts};

const NOT_AT_ALL: Option<Duration> = Some(Duration::ZERO);

/// A queue pair with a receive that has completed, with this beside its identifier.
fn with_completion(
    null: &Null,
    pd: &ProtectionDomain,
    cq: &OwnedCompletionQueue,
    completion: Completion,
) -> OwnedQueuePair<Rc> {
    let mut qp = connected(pd, cq);
    let pool = pd.buffer_pool(1, 8).unwrap();
    qp.post_recv(1, pool.take().unwrap()).unwrap();
    let [wr_id] = posted(null)[..] else { panic!("one") };
    null.complete(cq.as_raw(), Completion { wr_id, ..completion });
    qp
}

#[test]
fn completions_tell_what_the_provider_tells() {
    let null = null();
    let Parts { ctx, pd, .. } = parts();
    let fields = WcFields::COMPLETION_TIMESTAMP;
    let cq = ctx.create_cq(16).set_wc_fields(fields).build_owned().unwrap();
    let plain = ctx.create_cq(16).build_owned().unwrap();
    for (wc_flags, has_grh) in [(0, false), (ffi::IBV_WC_GRH | ffi::IBV_WC_WITH_IMM, true)] {
        let completion = Completion {
            wc_flags,
            opcode: ffi::IBV_WC_RECV,
            byte_len: 77,
            imm_data: 0x1234_5678_u32.to_be(),
            qp_num: 4321,
            completion_ts: 99,
            ..Completion::default()
        };
        let _qp = with_completion(&null, &pd, &cq, completion);
        let mut completions = cq.poll().unwrap().unwrap();
        let wc = completions.next().unwrap();
        assert_eq!((wc.len(), wc.qp_num(), wc.has_grh()), (77, 4321, has_grh));
        assert_eq!(wc.imm_data(), has_grh.then_some(0x1234_5678));
        assert_eq!(wc.completion_timestamp(), Some(99));
        let _qp = with_completion(&null, &pd, &plain, completion);
        let mut completions = plain.poll().unwrap().unwrap();
        assert_eq!(completions.next().unwrap().completion_timestamp(), None);
    }
}

#[test]
#[cfg_attr(miri, ignore = "Miri does not have ppoll")]
fn a_queue_is_awaited() {
    let null = null();
    let Parts { ctx, pd, .. } = parts();
    let cq = ctx.create_cq(16).set_private_channel().build_owned().unwrap();
    assert!(cq.wait(NOT_AT_ALL).unwrap().is_none());
    let _qp = with_completion(&null, &pd, &cq, Completion::default());
    let mut completions = cq.wait(Some(Duration::from_secs(30))).unwrap().expect("it is there");
    assert_eq!(completions.next().unwrap().user(), 1);
}

#[test]
fn a_queue_is_armed_and_named() {
    let null = null();
    let Parts { ctx, .. } = parts();
    let channel = ctx.create_comp_channel().unwrap();
    assert!(!channel.as_raw().is_null());
    let builder = ctx.create_cq(5).set_comp_channel(&channel).set_context(1234);
    let cq = builder.build_owned().unwrap();
    assert_eq!((cq.capacity(), cq.context_value()), (8, 1234));
    complete(&null, &cq, 1);
    assert_eq!(channel.get_event().unwrap(), None);
    cq.req_notify(false).unwrap();
    complete(&null, &cq, 1);
    assert_eq!(channel.get_event().unwrap().unwrap().context(), 1234);
    null.fail(Verb::ReqNotifyCq, libc::EIO);
    assert_eq!(cq.req_notify(false).unwrap_err().os_error(), Some(libc::EIO));
}

#[test]
fn what_cannot_be_destroyed_comes_back() {
    let null = null();
    let Parts { pd, cq, pool, .. } = parts();
    let mut qp = connected(&pd, &cq);
    let srq = pd.create_srq(4).build_owned().unwrap();
    for verb in [Verb::DestroyQp, Verb::DestroySrq, Verb::DestroyCq] {
        null.fail(verb, libc::EIO);
    }
    qp = qp.close().unwrap_err().resource;
    let srq = srq.close().unwrap_err().resource;
    for verb in [Verb::DestroyQp, Verb::DestroySrq, Verb::DestroyCq] {
        null.succeed(verb);
    }
    // It is as it was.
    qp.post_recv(1, pool.take().unwrap()).unwrap();
    complete(&null, &cq, posted(&null)[0]);
    assert_eq!(poll(&cq).len(), 1);
    let failed = cq.close().unwrap_err();
    assert!(matches!(failed.error, Error::InUse { .. }), "{failed}");
    qp.close().unwrap();
    srq.close().unwrap();
    let cq = failed.resource;
    null.fail(Verb::DestroyCq, libc::EIO);
    let failed = cq.close().unwrap_err();
    assert_eq!(failed.error.os_error(), Some(libc::EIO));
    null.succeed(Verb::DestroyCq);
    failed.resource.close().unwrap();
    assert_eq!(null.live(Kind::Cq), 0);
}

#[test]
fn the_limit_of_a_shared_queue_is_set() {
    let null = null();
    let Parts { pd, .. } = parts();
    let srq = pd.create_srq(8).build_owned().unwrap();
    srq.set_limit(3).unwrap();
    assert_eq!(srq.query().unwrap().limit, 3);
    assert_eq!(null.count(Verb::ModifySrq), 1);
}

#[test]
fn the_c_structures_are_the_provider_s() {
    let null = null();
    let Parts { ctx, pd, .. } = parts();
    let cq = ctx.create_cq(1).build_owned().unwrap();
    let qp = connected(&pd, &cq);
    let srq = pd.create_srq(1).build_owned().unwrap();
    null.take_calls();
    let raw = [qp.as_raw() as usize, srq.as_raw() as usize, cq.as_raw() as usize];
    qp.close().unwrap();
    srq.close().unwrap();
    cq.close().unwrap();
    let destroyed: Vec<_> = null.take_calls().iter().map(|call| call.object).collect();
    assert_eq!(destroyed, raw);
    let region = pd.allocate(8, AccessFlags::LOCAL_WRITE).unwrap();
    let slice = region.slice(2..5);
    // SAFETY: it points to the slice's own entry.
    let entry = unsafe { *slice.as_raw() };
    assert_eq!((entry.addr, entry.length, entry.lkey), (slice.addr(), 3, region.lkey()));
}

/// The lengths of the scatter entries of what was posted since the last look.
fn lens(null: &Null) -> Vec<Vec<u32>> {
    let lens = |payload: &Payload| match payload {
        Payload::Scatter(entries) => entries.iter().map(|entry| entry.1).collect(),
        other => panic!("{other:?}"),
    };
    null.take_requests().iter().map(|request| lens(&request.payload)).collect()
}

#[test]
fn what_fits_exactly_is_posted_and_nothing_has_no_entry() {
    let null = null();
    let Parts { pd, cq, pool, .. } = parts();
    let far = pd.allocate_shared(64, AccessFlags::PERMISSIVE).unwrap();
    let mut qp = connected(&pd, &cq);
    qp.send(1, pool.take().unwrap(), 0).unwrap();
    qp.send(2, pool.take().unwrap(), 64).unwrap();
    let mut batch = qp.start_send();
    batch.op().write(3, pool.take().unwrap(), 64, far.remote());
    batch.op().read(4, pool.take().unwrap(), 64, far.remote());
    batch.submit().unwrap();
    assert_eq!(lens(&null), [vec![], vec![64], vec![64], vec![64]]);
    assert_eq!(pool.available(), 36);
}

#[test]
fn a_batch_that_is_dropped_gives_its_buffers_back_at_once() {
    let null = null();
    let Parts { pd, cq, pool, .. } = parts();
    let mut qp = connected(&pd, &cq);
    let mut batch = qp.start_send();
    batch.op().send(1, pool.take().unwrap(), 1);
    batch.op().send(2, pool.take().unwrap(), 65);
    drop(batch);
    assert_eq!(pool.available(), 40);
    assert_eq!(posted(&null), []);
}

#[test]
fn a_send_says_nothing_of_an_earlier_one_where_no_order_is_promised() {
    let null = null();
    for is_efa in [false, true] {
        null.configure(|config| config.is_efa = is_efa);
        let Parts { pd, cq, pool, .. } = parts();
        let builder = pd.create_owned_qp::<Ud>(&cq, &cq, 1).unwrap().set_max_send_wr(8);
        let mut qp = builder.build().unwrap().activate(QKEY).unwrap();
        let ah = some_handle(&pd);
        let mut batch = qp.start_send();
        for user in 0..2 {
            let op = batch.to(&ah, 17, QKEY);
            let op = if user == 0 { op.unsignaled() } else { op };
            op.send(user, pool.take().unwrap(), 1);
        }
        batch.submit().unwrap();
        let ids = posted(&null);
        let qp_num = qp.qp_num();
        let complete = |wr_id| {
            null.complete(cq.as_raw(), Completion { wr_id, qp_num, ..Completion::default() });
        };
        complete(ids[1]);
        let back: Vec<_> = poll(&cq).iter().map(|(user, back)| (*user, back.len())).collect();
        assert_eq!(back, [(1, if is_efa { 1 } else { 2 })]);
        // EFA completes each in any case.
        complete(ids[0]);
        assert_eq!(poll(&cq).len(), usize::from(is_efa));
        assert_eq!(pool.available(), 40);
    }
}

#[test]
fn receives_of_several_chains_are_counted_together() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let pool = pd.buffer_pool(100, 8).unwrap();
    let builder = pd.create_owned_qp::<Rc>(&cq, &cq, 1).unwrap().set_max_recv_wr(100);
    let prepared = builder.build().unwrap();
    let endpoint = prepared.endpoint().unwrap();
    let mut qp = prepared.handshake(endpoint).unwrap();
    let mut receives: Vec<_> = (0..100).map(|n| (n, pool.take().unwrap())).collect();
    null.fail_once_after(Verb::PostRecv, 1, libc::ENOMEM);
    let error = qp.post_recv_all(&mut receives).unwrap_err();
    let taken = posted(&null).len();
    assert!(taken > 0 && taken < 100);
    match error {
        Error::PostReceive { accepted, requested, .. } => {
            assert_eq!((accepted, requested), (taken, 100));
        }
        other => panic!("{other:?}"),
    }
}
