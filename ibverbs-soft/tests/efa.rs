//! What a C program finds of EFA, on devices that are to be like it.

// Not every test program needs all of it.
#[allow(dead_code)]
mod c;

use std::ffi::c_int;
use std::mem::size_of_val;

use c::{created, init_attr, recv_wr, refused, send_wr, verb, zeroed, Bed, Qp, PORT, QKEY};
use ibverbs_soft::Options;
use ibverbs_sys as ffi;

fn options() -> Options {
    Options { efa: true, ..Options::default() }
}

fn len_of<T>() -> u32 {
    size_of::<T>() as u32
}

#[test]
fn the_device_answers_in_structures_of_every_length() {
    let bed = Bed::new();
    let mut attrs = [ffi::efadv_device_attr { max_rdma_size: 7, ..zeroed() }; 2];
    let len = len_of::<ffi::efadv_device_attr>();
    let mut query = |len| verb!(efadv_query_device(bed.context, attrs.as_mut_ptr(), len));
    assert_eq!([query(0), query(len - 16)], [libc::EINVAL; 2]);
    assert_eq!(query(len - 8), 0);
    assert_eq!((attrs[0].max_rq_sge, attrs[0].inline_buf_size, attrs[0].max_rdma_size), (3, 32, 7));
    // What only a newer library knows is zero.
    let len = size_of_val(&attrs) as u32;
    assert_eq!(verb!(efadv_query_device(bed.context, attrs.as_mut_ptr(), len)), 0);
    assert_eq!((attrs[0].max_rdma_size, attrs[1].max_rdma_size), (1 << 30, 0));

    let mut port: ffi::ibv_port_attr = zeroed();
    assert_eq!(verb!(ibv_query_port(bed.context, PORT, &mut port)), 0);
    assert_eq!((port.max_msg_sz, bed.device_attr().max_sge_rd), (8928, 1));
}

#[test]
fn depths_follow_from_what_requests_hold() {
    let bed = Bed::new();
    let send = |change: &dyn Fn(&mut ffi::efadv_sq_depth_attr)| {
        let mut attr: ffi::efadv_sq_depth_attr = zeroed();
        change(&mut attr);
        let len = len_of::<ffi::efadv_sq_depth_attr>();
        verb!(efadv_get_max_sq_depth(bed.context, &mut attr, len))
    };
    let most = send(&|_| {});
    assert_eq!(send(&|attr| attr.max_inline_data = 32), most);
    assert_eq!(send(&|attr| attr.max_inline_data = 33), most / 2);
    assert_eq!(send(&|attr| attr.flags = ffi::EFADV_SQ_DEPTH_ATTR_INLINE_WRITE), most / 2);
    assert_eq!(send(&|attr| attr.max_inline_data = 81), -libc::EINVAL);
    assert_eq!(send(&|attr| attr.max_send_sge = 3), -libc::EINVAL);
    assert_eq!(send(&|attr| attr.max_rdma_sge = 2), -libc::EINVAL);
    assert_eq!(send(&|attr| attr.comp_mask = 1), -libc::EINVAL);
    let recv = |max_recv_sge| {
        let mut attr = ffi::efadv_rq_depth_attr { max_recv_sge, ..zeroed() };
        let len = len_of::<ffi::efadv_rq_depth_attr>();
        verb!(efadv_get_max_rq_depth(bed.context, &mut attr, len))
    };
    assert_eq!([recv(0), recv(4), recv(2)], [-libc::EINVAL, -libc::EINVAL, recv(1) / 2]);
}

#[test]
fn what_there_is_not_is_refused() {
    let bed = Bed::new();
    let cq = bed.cq(4);
    type Change<'a> = &'a dyn Fn(&mut ffi::ibv_qp_init_attr_ex, &mut ffi::efadv_qp_init_attr);
    let create = |change: Change<'_>| -> c_int {
        let mut attr = init_attr(&cq, ffi::IBV_QPT_DRIVER);
        attr.comp_mask |= ffi::IBV_QP_INIT_ATTR_PD;
        attr.pd = bed.pd;
        (attr.cap.max_send_sge, attr.cap.max_recv_sge) = (2, 1);
        attr.cap.max_inline_data = 32;
        let mut srd: ffi::efadv_qp_init_attr = zeroed();
        change(&mut attr, &mut srd);
        let len = len_of::<ffi::efadv_qp_init_attr>();
        let qp = verb!(efadv_create_qp_ex(bed.context, &mut attr, &mut srd, len));
        if !qp.is_null() {
            return verb!(ibv_destroy_qp(qp));
        }
        refused(qp)
    };
    assert_eq!(create(&|_, _| {}), 0);
    assert_eq!(create(&|_, srd| srd.flags = ffi::EFADV_QP_FLAGS_INLINE_WRITE as u16), 0);
    assert_eq!(create(&|attr, _| attr.qp_type = ffi::IBV_QPT_UD), libc::EINVAL);
    assert_eq!(create(&|attr, _| attr.cap.max_send_sge = 3), libc::EINVAL);
    assert_eq!(create(&|attr, _| attr.cap.max_inline_data = 81), libc::EINVAL);
    assert_eq!(create(&|_, srd| srd.comp_mask = 1), libc::EINVAL);
    assert_eq!(create(&|_, srd| srd.driver_qp_type = 1), libc::EOPNOTSUPP);
    let unsolicited = ffi::EFADV_QP_FLAGS_UNSOLICITED_WRITE_RECV as u16;
    assert_eq!(create(&|_, srd| srd.flags = unsolicited), libc::EOPNOTSUPP);
    // Not by the ordinary way.
    let mut attr = init_attr(&cq, ffi::IBV_QPT_DRIVER);
    attr.comp_mask |= ffi::IBV_QP_INIT_ATTR_PD;
    attr.pd = bed.pd;
    assert_eq!(refused(verb!(ibv_create_qp_ex(bed.context, &mut attr))), libc::EOPNOTSUPP);

    let mut attr = ffi::ibv_cq_init_attr_ex { cqe: 4, ..zeroed() };
    for (wc_flags, code) in [(2, libc::EOPNOTSUPP), (1, 0), (0, 0)] {
        let mut efa: ffi::efadv_cq_init_attr = zeroed();
        efa.wc_flags = wc_flags;
        let len = len_of::<ffi::efadv_cq_init_attr>();
        let cq = verb!(efadv_create_cq(bed.context, &mut attr, &mut efa, len));
        if code != 0 {
            assert_eq!(refused(cq), code);
            continue;
        }
        let fields = created(verb!(efadv_cq_from_ibv_cq_ex(created(cq))));
        // SAFETY: it belongs to the queue, which is alive.
        assert_eq!(unsafe { (*fields).wc_read_sgid.is_some() }, wc_flags == 1);
        assert_eq!(verb!(ibv_destroy_cq(cq.cast())), 0);
    }
}

#[test]
fn the_classic_interface_sends_and_tells_codes() {
    let bed = Bed::new();
    let cq = bed.cq(16);
    let ex = init_attr(&cq, ffi::IBV_QPT_DRIVER);
    let mut attr = ffi::ibv_qp_init_attr {
        send_cq: ex.send_cq,
        recv_cq: ex.recv_cq,
        cap: ffi::ibv_qp_cap { max_send_sge: 1, max_recv_sge: 1, max_inline_data: 0, ..ex.cap },
        qp_type: ex.qp_type,
        ..zeroed()
    };
    let srd = ffi::EFADV_QP_DRIVER_TYPE_SRD;
    assert_eq!(
        refused(verb!(efadv_create_driver_qp(bed.pd, &mut attr, srd + 1))),
        libc::EOPNOTSUPP
    );
    let raw = created(verb!(efadv_create_driver_qp(bed.pd, &mut attr, srd)));
    let qp = Qp { raw, bed: &bed }.connect(0);
    let mut way = bed.way();
    let ah = created(verb!(ibv_create_ah(bed.pd, &mut way)));
    let mut number: ffi::efadv_ah_attr = zeroed();
    assert_eq!(verb!(efadv_query_ah(ah, &mut number, len_of::<ffi::efadv_ah_attr>())), 0);

    let mem = bed.mem(128);
    mem.write(b"scalable");
    qp.post_recv(&mut [recv_wr(1, &mut [mem.sge(64, 64)])]).unwrap();
    let mut sges = [mem.sge(0, 8)];
    let mut send = |remote_qpn, flags| {
        let mut wr = send_wr(2, ffi::IBV_WR_SEND, &mut sges);
        wr.send_flags = flags;
        wr.wr.ud =
            ffi::ibv_send_wr__bindgen_ty_2__bindgen_ty_3 { ah, remote_qpn, remote_qkey: QKEY };
        qp.post_send(&mut [wr])
    };
    send(qp.number(), 0).unwrap();
    let mut completions = cq.wait(2);
    completions.sort_by_key(|wc| wc.wr_id);
    assert!(completions.iter().all(|wc| (wc.status, wc.vendor_err) == (ffi::IBV_WC_SUCCESS, 0)));
    let received = completions[0];
    assert_eq!((received.wr_id, received.byte_len, received.wc_flags), (1, 8, 0));
    assert_eq!((received.src_qp, received.slid), (qp.number(), number.ahn));
    assert_eq!(mem.read(64, 8), b"scalable");
    // To a number that is not there; and what EFA has not.
    send(qp.number() ^ (1 << 20), 0).unwrap();
    let failed = cq.wait(1)[0];
    assert_eq!((failed.status, failed.vendor_err), (ffi::IBV_WC_REM_INV_RD_REQ_ERR, 9));
    for flag in [ffi::IBV_SEND_SOLICITED, ffi::IBV_SEND_FENCE] {
        assert!(send(qp.number(), flag).is_err());
    }
    assert_eq!(verb!(ibv_destroy_ah(ah)), 0);
}
