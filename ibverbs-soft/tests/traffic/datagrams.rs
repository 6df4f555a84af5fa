//! Datagrams.

use ibverbs_sys as ffi;

use crate::c::{created, errno, init_attr, recv_wr, send_wr, verb, Bed, Cq, Qp, PORT, QKEY};

/// How many bytes come before the message.
const GRH: usize = 40;

fn queue_pair<'q>(bed: &'q Bed, cq: &'q Cq<'q>) -> Qp<'q> {
    Qp::new(bed, cq, ffi::IBV_QPT_UD).connect(0)
}

#[test]
fn a_datagram_tells_where_it_came_from_and_is_answered() {
    let bed = Bed::new();
    let (a_cq, b_cq) = (bed.cq(16), bed.cq(16));
    let (a, b) = (queue_pair(&bed, &a_cq), queue_pair(&bed, &b_cq));
    let mem = bed.mem(512);
    mem.write(b"question");
    let mut way = bed.way();
    way.grh.traffic_class = 0x20;
    let there = created(verb!(ibv_create_ah(bed.pd, &mut way)));
    let mut into = [mem.sge(128, 128)];
    b.post_recv(&mut [recv_wr(1, &mut into)]).unwrap();
    let mut sges = [mem.sge(0, 8)];
    let mut wr = send_wr(2, ffi::IBV_WR_SEND_WITH_IMM, &mut sges);
    wr.__bindgen_anon_1.imm_data = 0x0102_0304_u32.to_be();
    wr.wr.ud = address(there, b.number());
    a.post_send(&mut [wr]).unwrap();
    assert_eq!(a_cq.wait_one(), (2, ffi::IBV_WC_SUCCESS));
    let mut wc = b_cq.wait(1)[0];
    assert_eq!((wc.wr_id, wc.status, wc.src_qp), (1, ffi::IBV_WC_SUCCESS, a.number()));
    assert_eq!(wc.byte_len as usize, GRH + 8);
    assert_eq!(wc.wc_flags, ffi::IBV_WC_GRH | ffi::IBV_WC_WITH_IMM);
    assert_eq!(mem.read(128 + GRH, 8), b"question");

    let mut back: ffi::ibv_ah_attr = Default::default();
    let mut header = ffi::ibv_grh::default();
    let bytes: [u8; GRH] = mem.read(128, GRH).try_into().unwrap();
    // SAFETY: a header is 40 bytes, for which every bit pattern is valid.
    unsafe { (&raw mut header).cast::<[u8; GRH]>().write(bytes) };
    let code = verb!(ibv_init_ah_from_wc(bed.context, PORT, &mut wc, &mut header, &mut back));
    assert_eq!((code, back.is_global, back.grh.traffic_class), (0, 1, 0x20));
    // SAFETY: every bit pattern is valid for the union's bytes.
    let gid = |gid: ffi::ibv_gid| unsafe { gid.raw };
    assert_eq!(gid(back.grh.dgid), gid(bed.gid()));
    let reply = created(verb!(ibv_create_ah_from_wc(bed.pd, &mut wc, &mut header, PORT)));
    let mut into = [mem.sge(256, 128)];
    a.post_recv(&mut [recv_wr(3, &mut into)]).unwrap();
    let mut wr = send_wr(4, ffi::IBV_WR_SEND, &mut sges);
    wr.wr.ud = address(reply, wc.src_qp);
    b.post_send(&mut [wr]).unwrap();
    assert_eq!(b_cq.wait_one(), (4, ffi::IBV_WC_SUCCESS));
    assert_eq!(a_cq.wait(1)[0].src_qp, b.number());
    assert_eq!(mem.read(256 + GRH, 8), b"question");

    header.dgid = ffi::ibv_gid { raw: [9; 16] };
    header.version_tclass_flow = 0x6000_0000_u32.to_be();
    assert!(verb!(ibv_create_ah_from_wc(bed.pd, &mut wc, &mut header, PORT)).is_null());
    assert_eq!(errno(), libc::ENOENT);
    for handle in [there, reply] {
        assert_eq!(verb!(ibv_destroy_ah(handle)), 0);
    }
}

fn address(ah: *mut ffi::ibv_ah, remote_qpn: u32) -> ffi::ibv_send_wr__bindgen_ty_2__bindgen_ty_3 {
    ffi::ibv_send_wr__bindgen_ty_2__bindgen_ty_3 { ah, remote_qpn, remote_qkey: QKEY }
}

#[test]
fn a_wrong_queue_key_and_a_missing_receive_lose_the_datagram() {
    let bed = Bed::new();
    let (a_cq, b_cq) = (bed.cq(16), bed.cq(16));
    let (a, b) = (queue_pair(&bed, &a_cq), queue_pair(&bed, &b_cq));
    let mem = bed.mem(512);
    let mut way = bed.way();
    let there = created(verb!(ibv_create_ah(bed.pd, &mut way)));
    let send = |wr_id, qkey| {
        let mut sges = [mem.sge(0, 8)];
        let mut wr = send_wr(wr_id, ffi::IBV_WR_SEND, &mut sges);
        wr.wr.ud = address(there, b.number());
        wr.wr.ud.remote_qkey = qkey;
        a.post_send(&mut [wr]).unwrap();
        assert_eq!(a_cq.wait_one(), (wr_id, ffi::IBV_WC_SUCCESS));
    };
    // Nobody waits for it.
    send(1, QKEY);
    let mut into = [mem.sge(64, 64)];
    b.post_recv(&mut [recv_wr(2, &mut into)]).unwrap();
    send(3, QKEY + 1);
    send(4, QKEY);
    assert_eq!(b_cq.wait_one(), (2, ffi::IBV_WC_SUCCESS));
    assert_eq!(verb!(ibv_destroy_ah(there)), 0);
}

#[test]
fn a_datagram_without_an_address_refuses_its_batch() {
    let bed = Bed::new();
    let cq = bed.cq_ex(16, ffi::IBV_WC_STANDARD_FLAGS.into());
    let mut attr = init_attr(&cq, ffi::IBV_QPT_UD);
    attr.comp_mask = ffi::IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
    attr.send_ops_flags = ffi::IBV_QP_EX_WITH_SEND.into();
    let qp = Qp::with(&bed, attr).connect(0);
    let ex = verb!(ibv_qp_to_qp_ex(qp.raw));
    let mut way = bed.way();
    let to_itself = created(verb!(ibv_create_ah(bed.pd, &mut way)));
    let mem = bed.mem(64);
    let mut into = [mem.sge(0, 64)];
    qp.post_recv(&mut [recv_wr(1, &mut into)]).unwrap();
    for addressed in [false, true] {
        verb!(ibv_wr_start(ex));
        // SAFETY: the queue pair is alive, and a batch is open.
        unsafe { (*ex).wr_id = 5 };
        verb!(ibv_wr_send(ex));
        if addressed {
            verb!(ibv_wr_set_ud_addr(ex, to_itself, qp.number(), QKEY));
        }
        verb!(ibv_wr_set_inline_data(ex, b"text".as_ptr().cast_mut().cast(), 4));
        let expected = if addressed { 0 } else { libc::EINVAL };
        assert_eq!(verb!(ibv_wr_complete(ex)), expected);
    }
    assert_eq!(cq.wait_one(), (1, ffi::IBV_WC_SUCCESS));
    assert_eq!(mem.read(GRH, 4), b"text");
    assert_eq!(verb!(ibv_destroy_ah(to_itself)), 0);
}
