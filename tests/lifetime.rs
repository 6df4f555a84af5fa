//! How objects end: not while something uses them, and with nothing left. `drop_order.rs` counts what is left.

use ibverbs::{AccessFlags, Context, Error, ProtectionDomain, Rc, RecvRequest};
use ibverbs_tests::{pair, post_recv, submit, test_context, wait_one, Bed, PORT};

#[test]
fn a_context_in_use_comes_back_and_works() {
    let ctx = test_context();
    let in_use = |ctx: Context| {
        let failed = ctx.close().unwrap_err();
        assert!(matches!(failed.error, Error::InUse { resource: "device context" }), "{failed}");
        failed.resource.query_device().unwrap();
        failed.resource
    };
    let clone = ctx.clone();
    let ctx = in_use(ctx);
    drop(clone);
    let pd = ctx.alloc_pd().unwrap();
    let ctx = in_use(ctx);
    pd.close().unwrap();
    let cq = ctx.create_cq(1).build().unwrap();
    let ctx = in_use(ctx);
    cq.close().unwrap();
    ctx.close().unwrap();
}

#[test]
fn a_protection_domain_in_use_comes_back_and_works() {
    let ctx = test_context();
    let in_use = |pd: ProtectionDomain| {
        let failed = pd.close().unwrap_err();
        let expected = matches!(failed.error, Error::InUse { resource: "protection domain" });
        assert!(expected, "{failed}");
        failed.resource.allocate(64, AccessFlags::LOCAL_WRITE).unwrap();
        failed.resource
    };
    let pd = ctx.alloc_pd().unwrap();
    let clone = pd.clone();
    let pd = in_use(pd);
    clone.close().unwrap_err();
    let region = pd.allocate(64, AccessFlags::LOCAL_WRITE).unwrap();
    let pd = in_use(pd);
    region.close().unwrap();
    let cq = ctx.create_cq(1).build().unwrap();
    let qp = pd.create_qp::<Rc>(&cq, &cq, PORT).unwrap().build().unwrap();
    let pd = in_use(pd);
    qp.close().unwrap();
    pd.close().unwrap();
}

#[test]
fn a_completion_queue_in_use_comes_back_and_works() {
    let bed = Bed::new();
    let (mut a, mut b) = pair(&bed);
    let mem = bed.mem(8);
    for _ in 0..2 {
        let failed = a.send_cq.close().unwrap_err();
        let expected = matches!(failed.error, Error::InUse { resource: "completion queue" });
        assert!(expected, "{failed}");
        a.send_cq = failed.resource;
        post_recv(&mut b.qp, [RecvRequest::new(1, &[mem.slice(..)])]).unwrap();
        submit(&mut a.qp, |batch| batch.op().signaled().send(2, &[mem.slice(..0)])).unwrap();
        assert_eq!(wait_one(&a.send_cq, 2).ok, Ok(()));
        assert_eq!(wait_one(&b.recv_cq, 1).ok, Ok(()));
    }
    a.qp.close().unwrap();
    a.send_cq.close().unwrap();
    a.recv_cq.close().unwrap();
}

#[test]
fn a_queue_pair_works_after_its_completion_queue_and_domain_were_dropped() {
    let ctx = test_context();
    let bed = Bed::on(ctx);
    let (from, to) = (bed.mem(8), bed.mem(8));
    from.write(0, b"survivor");
    let (a, b) = pair(&bed);
    let (mut qp, send_cq) = (a.qp, a.send_cq);
    drop(a.recv_cq);
    let remote = to.remote();
    submit(&mut qp, |batch| batch.op().signaled().write(1, &[from.slice(..)], remote)).unwrap();
    assert_eq!(wait_one(&send_cq, 1).ok, Ok(()));
    assert_eq!(to.read(..), b"survivor");
    drop(send_cq);
    let reset = qp.reset().unwrap();
    reset.close().unwrap();
    drop(b);
}

#[test]
fn failed_attempts_leave_nothing_behind() {
    let ctx = test_context();
    let pd = ctx.alloc_pd().unwrap();
    let cq = ctx.create_cq(4).build().unwrap();
    for _ in 0..10 {
        let builder = || pd.create_qp::<Rc>(&cq, &cq, PORT).unwrap();
        builder().set_max_send_wr(u32::MAX).build().map(drop).unwrap_err();
        builder().set_max_inline_data(1 << 20).build().map(drop).unwrap_err();
        builder().set_gid_index(255).build().map(drop).unwrap_err();
        pd.allocate(64, AccessFlags::REMOTE_WRITE).map(drop).unwrap_err();
        ctx.create_cq(u32::MAX).build().map(drop).unwrap_err();
        let remote = ibverbs::QueuePairEndpoint::new(1, 1, 0, None).unwrap();
        if let Err(failed) = builder().build().unwrap().handshake(remote) {
            drop(failed);
        }
    }
    pd.close().unwrap();
    cq.close().unwrap();
    ctx.close().unwrap();
}

#[test]
fn many_queue_pairs_come_and_go() {
    let bed = Bed::new();
    let cq = bed.ctx().create_cq(4).build().unwrap();
    for _ in 0..20 {
        let qps: Vec<_> = (0..10)
            .map(|_| bed.pd().create_qp::<Rc>(&cq, &cq, PORT).unwrap().build().unwrap())
            .collect();
        let mut numbers: Vec<u32> = qps.iter().map(|qp| qp.qp_num()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 10, "queue pairs that live at one time have different numbers");
        qps.into_iter().for_each(|qp| qp.close().unwrap());
    }
    cq.close().unwrap();
}
