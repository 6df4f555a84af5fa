//! What EFA has of its own, on a device that is not of EFA: everything says so, and the device works on.

use ibverbs::efa::SendQueueShape;
use ibverbs::{Error, Result, SendOps, Srd};
use ibverbs_tests::{activated, pair, submit, wait_one, way, Ability, Bed, PORT, QKEY};

#[track_caller]
fn expect_unsupported<T>(result: Result<T>, what: &str) {
    match result.map(drop) {
        Err(error @ Error::Unsupported { .. }) => {
            let text = error.to_string();
            assert!(text.contains(what) && text.contains("EFA"), "{text}");
        }
        other => panic!("{what}: {other:?}"),
    }
}

#[test]
fn queries_say_that_this_is_no_efa_device() {
    let Some(bed) = Bed::without(Ability::Srd) else { return };
    expect_unsupported(bed.ctx().query_efa_device(), "efadv_query_device");
    let shape = SendQueueShape { max_send_sge: 1, ..Default::default() };
    expect_unsupported(bed.ctx().efa_max_send_wr(&shape), "efadv_get_max_sq_depth");
    expect_unsupported(bed.ctx().efa_max_recv_wr(1), "efadv_get_max_rq_depth");
    let side = activated(&bed, QKEY);
    expect_unsupported(way(&side, &side).efa_ahn(), "efadv_query_ah");
    expect_unsupported(bed.mem(4096).region().efa_interconnects(), "efadv_query_mr");
}

#[test]
fn there_is_no_srd_here() {
    let Some(bed) = Bed::without(Ability::Srd) else { return };
    let cq = bed.ctx().create_cq(4).build().unwrap();
    let builder = || bed.pd().create_srd_qp(&cq, &cq, PORT).unwrap();
    expect_unsupported(builder().build(), "SRD");
    expect_unsupported(builder().set_send_ops(SendOps::RDMA_WRITE).build(), "SRD");
    expect_unsupported(builder().set_inline_write(true).set_rnr_retry(3).build(), "SRD");
    let ordinary = bed.pd().create_qp::<Srd>(&cq, &cq, PORT).unwrap();
    expect_unsupported(ordinary.build(), "SRD");
}

#[test]
fn the_device_works_on() {
    let Some(bed) = Bed::without(Ability::Srd) else { return };
    let cq = bed.ctx().create_cq(4).build().unwrap();
    bed.pd().create_srd_qp(&cq, &cq, PORT).unwrap().build().unwrap_err();
    let (mut a, b) = pair(&bed);
    let (from, to) = (bed.mem(64), bed.mem(64));
    submit(&mut a.qp, |batch| {
        batch.op().signaled().write(1, &[from.slice(..)], to.remote());
    })
    .unwrap();
    wait_one(&a.send_cq, 1);
    // A reset of another device's queue pair is nothing to be afraid of.
    drop((a.qp.reset().unwrap(), b));
}
