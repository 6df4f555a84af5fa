//! In a child of the process that opened it, a device is dead: every call says so at once, and everything can be destroyed.
//!
//! It is the only test of its binary, because it forks.

#[allow(dead_code)]
mod c;

use std::time::Duration;

use c::{errno, init_attr, recv_wr, refused, send_wr, verb, zeroed, Bed, Cq, Mem, Qp};
use ibverbs_soft::Options;
use ibverbs_sys as ffi;

fn options() -> Options {
    Options::default()
}

/// Calls everything that a child could call.
fn assert_dead(bed: &Bed, cq: &Cq<'_>, qp: &Qp<'_>, mem: &Mem<'_>) {
    let mut port = zeroed();
    assert_eq!(verb!(ibv_query_port(bed.context, c::PORT, &mut port)), libc::EIO);
    let mut device = zeroed();
    assert_eq!(verb!(ibv_query_device(bed.context, &mut device)), libc::EIO);
    assert_eq!(refused(verb!(ibv_alloc_pd(bed.context))), libc::EIO);
    let null = std::ptr::null_mut();
    assert_eq!(refused(verb!(ibv_create_cq(bed.context, 1, null, null.cast(), 0))), libc::EIO);
    let addr = mem.addr() as *mut _;
    assert_eq!(refused(verb!(ibv_reg_mr(bed.pd, addr, 8, 1))), libc::EIO);
    let mut way = zeroed();
    assert_eq!(refused(verb!(ibv_create_ah(bed.pd, &mut way))), libc::EIO);
    let mut wc = ffi::ibv_wc::default();
    assert_eq!(verb!(ibv_poll_cq(cq.raw, 1, &mut wc)), -libc::EIO);
    assert_eq!(verb!(ibv_start_poll(cq.raw.cast(), std::ptr::null_mut())), libc::EIO);
    assert_eq!(verb!(ibv_req_notify_cq(cq.raw, 0)), libc::EIO);
    assert_eq!(verb!(ibv_resize_cq(cq.raw, 9)), libc::EIO);
    assert_eq!(qp.post_send(&mut [send_wr(1, ffi::IBV_WR_SEND, &mut [])]), Err((0, libc::EIO)));
    assert_eq!(qp.post_recv(&mut [recv_wr(1, &mut [])]), Err((0, libc::EIO)));
    let attr = ffi::ibv_qp_attr { qp_state: ffi::IBV_QPS_ERR, ..Default::default() };
    assert_eq!(qp.try_modify(&attr, ffi::IBV_QP_STATE), libc::EIO);
    let (mut attr, mut init) = (attr, zeroed());
    assert_eq!(verb!(ibv_query_qp(qp.raw, &mut attr, 0, &mut init)), libc::EIO);
    let ex = verb!(ibv_qp_to_qp_ex(qp.raw));
    verb!(ibv_wr_start(ex));
    verb!(ibv_wr_send(ex));
    assert_eq!(verb!(ibv_wr_complete(ex)), libc::EIO);
    let mut event = ffi::ibv_async_event::default();
    assert_eq!(verb!(ibv_get_async_event(bed.context, &mut event)), -1);
    assert_eq!(errno(), libc::EIO);
}

/// Waits for a child for as long as a test may take; the status that it ended with.
fn wait_for(child: libc::pid_t) -> i32 {
    let mut status = 0;
    c::eventually("the child ends", || {
        std::thread::sleep(Duration::from_millis(1));
        // SAFETY: there is room for a status.
        unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) == child }
    });
    status
}

#[test]
fn a_child_finds_everything_dead_and_destroys_it() {
    let bed = Bed::new();
    let cq = bed.cq_ex(16, 0);
    let mut attr = init_attr(&cq, ffi::IBV_QPT_RC);
    attr.comp_mask = ffi::IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
    attr.send_ops_flags = ffi::IBV_QP_EX_WITH_SEND.into();
    let qp = Qp::with(&bed, attr).connect_to_itself();
    let mem = bed.mem(64);
    // One that another thread would have to acknowledge, and that the child has not.
    qp.post_send(&mut [send_wr(1, ffi::IBV_WR_SEND, &mut [])]).unwrap();
    // A lock that the child finds taken.
    let ex = verb!(ibv_qp_to_qp_ex(qp.raw));
    verb!(ibv_wr_start(ex));

    // SAFETY: the child calls what a child may call, and ends without running what its parent has to run.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            assert_dead(&bed, &cq, &qp, &mem);
            drop((qp, mem, cq));
            assert_eq!(verb!(ibv_dealloc_pd(bed.pd)), 0);
            assert_eq!(verb!(ibv_close_device(bed.context)), 0);
            // It can open a device of its own.
            Bed::new().device_attr();
        }));
        // SAFETY: the function has no preconditions.
        unsafe { libc::_exit(i32::from(outcome.is_err())) };
    }
    assert_eq!(wait_for(child), 0);

    // The parent did not notice.
    verb!(ibv_wr_abort(ex));
    let mut into = [mem.sge(0, 64)];
    qp.post_recv(&mut [recv_wr(2, &mut into)]).unwrap();
    let mut found: Vec<_> = cq.wait(2).iter().map(|wc| (wc.wr_id, wc.status)).collect();
    found.sort_unstable();
    assert_eq!(found, [(1, ffi::IBV_WC_SUCCESS), (2, ffi::IBV_WC_SUCCESS)]);
}
