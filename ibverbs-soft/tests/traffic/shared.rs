//! Shared receive queues.

use std::ptr::null_mut;

use ibverbs_sys as ffi;

use crate::c::{created, init_attr, link, place_of, recv_wr, send_wr, verb, Bed, Qp};

/// A shared receive queue for eight receives of one entry.
#[track_caller]
fn shared(bed: &Bed) -> *mut ffi::ibv_srq {
    let attr = ffi::ibv_srq_attr { max_wr: 8, max_sge: 1, srq_limit: 0 };
    let mut init = ffi::ibv_srq_init_attr { srq_context: null_mut(), attr };
    created(verb!(ibv_create_srq(bed.pd, &mut init)))
}

fn post(srq: *mut ffi::ibv_srq, wrs: &mut [ffi::ibv_recv_wr]) -> Result<(), (usize, i32)> {
    let first = link(wrs);
    let mut bad = null_mut();
    match verb!(ibv_post_srq_recv(srq, first, &mut bad)) {
        0 => Ok(()),
        code => Err((place_of(bad, first), code)),
    }
}

fn query(srq: *mut ffi::ibv_srq) -> (u32, u32, u32) {
    let mut attr = ffi::ibv_srq_attr::default();
    assert_eq!(verb!(ibv_query_srq(srq, &mut attr)), 0);
    (attr.max_wr, attr.max_sge, attr.srq_limit)
}

fn modify(srq: *mut ffi::ibv_srq, mask: u32, value: u32) -> i32 {
    let mut attr = ffi::ibv_srq_attr { max_wr: value, max_sge: 0, srq_limit: value };
    verb!(ibv_modify_srq(srq, &mut attr, mask as i32))
}

#[test]
fn messages_take_receives_in_order() {
    let bed = Bed::new();
    let cq = bed.cq(32);
    let srq = shared(&bed);
    let mem = bed.mem(64);
    let attr = ffi::ibv_qp_init_attr_ex { srq, ..init_attr(&cq, ffi::IBV_QPT_RC) };
    let qp = Qp::with(&bed, attr).connect_to_itself();
    let cap = qp.query().1.cap;
    assert_eq!((cap.max_recv_wr, cap.max_recv_sge), (0, 0));
    assert_eq!(qp.post_recv(&mut [recv_wr(1, &mut [])]), Err((0, libc::EINVAL)));

    let mut entries = [mem.sge(0, 8)];
    let mut wrs: Vec<_> = (10..13).map(|id| recv_wr(id, &mut entries)).collect();
    post(srq, &mut wrs).unwrap();
    for id in 10..13 {
        let mut sges = [mem.sge(32, 8)];
        qp.post_send(&mut [send_wr(1, ffi::IBV_WR_SEND, &mut sges)]).unwrap();
        let mut found: Vec<_> = cq.wait(2).iter().map(|wc| (wc.wr_id, wc.status)).collect();
        found.sort_unstable();
        assert_eq!(found, [(1, ffi::IBV_WC_SUCCESS), (id, ffi::IBV_WC_SUCCESS)]);
    }
    drop(qp);
    assert_eq!(verb!(ibv_destroy_srq(srq)), 0);
}

#[test]
fn what_does_not_fit_is_refused() {
    let bed = Bed::new();
    let srq = shared(&bed);
    let mem = bed.mem(64);
    let mut two = [mem.sge(0, 8), mem.sge(8, 8)];
    let one = recv_wr(1, &mut two[..1]);
    let wrong = recv_wr(2, &mut two);
    assert_eq!(post(srq, &mut [one, wrong, one]), Err((1, libc::EINVAL)));
    assert_eq!(post(srq, &mut [one; 9]), Err((7, libc::ENOMEM)));
    assert_eq!(query(srq), (8, 1, 0));
    assert_eq!(modify(srq, ffi::IBV_SRQ_LIMIT, 9), libc::EINVAL);
    assert_eq!(modify(srq, ffi::IBV_SRQ_LIMIT, 8), 0);
    assert_eq!(query(srq), (8, 1, 8));
    assert_eq!(modify(srq, ffi::IBV_SRQ_MAX_WR, 0), libc::EINVAL);
    assert_eq!(modify(srq, ffi::IBV_SRQ_MAX_WR, 4), libc::EINVAL, "there are eight in it");
    assert_eq!(modify(srq, ffi::IBV_SRQ_MAX_WR, 9), 0);
    assert_eq!(modify(srq, 1 << 7, 1), libc::EINVAL);
    assert_eq!(query(srq), (9, 1, 8));
    post(srq, &mut [one]).unwrap();
    assert_eq!(verb!(ibv_destroy_srq(srq)), 0);
}
