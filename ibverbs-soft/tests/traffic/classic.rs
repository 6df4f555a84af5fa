//! Through the classic interface: `ibv_post_send`, `ibv_post_recv` and `ibv_poll_cq`.

use std::net::Ipv4Addr;

use ibverbs_sys as ffi;

use crate::c::{init_attr, recv_wr, send_wr, verb, Bed, Cq, Mem, Qp, DEADLINE};

/// Posts one send and waits for its completion.
#[track_caller]
fn run(qp: &Qp<'_>, cq: &Cq<'_>, wr: ffi::ibv_send_wr) -> ffi::ibv_wc {
    qp.post_send(&mut [wr]).unwrap();
    let wc = cq.wait(1)[0];
    assert_eq!((wc.wr_id, wc.status, wc.qp_num), (wr.wr_id, ffi::IBV_WC_SUCCESS, qp.number()));
    wc
}

/// An RDMA operation between pieces of memory.
fn rdma(
    opcode: ffi::ibv_wr_opcode,
    sges: &mut [ffi::ibv_sge],
    to: &Mem<'_>,
    offset: u64,
) -> ffi::ibv_send_wr {
    let mut wr = send_wr(9, opcode, sges);
    wr.wr.rdma.remote_addr = to.addr() + offset;
    wr.wr.rdma.rkey = to.rkey();
    wr
}

#[test]
fn a_message_to_oneself_arrives() {
    let bed = Bed::new();
    let (send_cq, recv_cq) = (bed.cq(16), bed.cq(16));
    let mut attr = init_attr(&send_cq, ffi::IBV_QPT_RC);
    attr.recv_cq = recv_cq.raw;
    let qp = Qp::with(&bed, attr).connect_to_itself();
    let (from, to) = (bed.mem(8192), bed.mem(8192));
    for (size, imm) in [(0, None), (1, Some(7)), (1024, None), (5000, Some(u32::MAX)), (8192, None)]
    {
        let data: Vec<u8> = (0..size).map(|n| (n * 7 + size) as u8).collect();
        from.write(&data);
        to.write(&[0; 8192]);
        let mut into = [to.sge(0, 4000), to.sge(4000, 4192)];
        qp.post_recv(&mut [recv_wr(1, &mut into)]).unwrap();
        let mut sges = [from.sge(0, size / 2), from.sge(size / 2, size - size / 2)];
        let mut wr = send_wr(2, ffi::IBV_WR_SEND, &mut sges);
        if let Some(imm) = imm {
            wr.opcode = ffi::IBV_WR_SEND_WITH_IMM;
            wr.__bindgen_anon_1.imm_data = imm.to_be();
        }
        assert_eq!(run(&qp, &send_cq, wr).opcode, ffi::IBV_WC_SEND);
        let wc = recv_cq.wait(1)[0];
        assert_eq!((wc.wr_id, wc.status), (1, ffi::IBV_WC_SUCCESS));
        assert_eq!((wc.opcode, wc.byte_len), (ffi::IBV_WC_RECV, size as u32));
        let flags = if imm.is_some() { ffi::IBV_WC_WITH_IMM } else { 0 };
        assert_eq!(wc.wc_flags, flags);
        // SAFETY: every bit pattern is valid for a number.
        let told = unsafe { wc.__bindgen_anon_1.imm_data };
        assert_eq!(imm.unwrap_or(0), u32::from_be(told));
        assert!(to.read(0, size) == data, "{size} bytes");
        assert!(to.read(size, 8192 - size).iter().all(|&byte| byte == 0));
    }
}

#[test]
fn memory_is_written_read_and_changed() {
    let bed = Bed::new();
    let cq = bed.cq(16);
    let qp = Qp::new(&bed, &cq, ffi::IBV_QPT_RC).connect_to_itself();
    let (from, to) = (bed.mem(8192), bed.mem(8192));
    let data: Vec<u8> = (0..8000).map(|n| n as u8 ^ 0x35).collect();
    from.write(&data);
    let mut sges = [from.sge(0, 8000)];
    let wc = run(&qp, &cq, rdma(ffi::IBV_WR_RDMA_WRITE, &mut sges, &to, 100));
    assert_eq!(wc.opcode, ffi::IBV_WC_RDMA_WRITE);
    assert!(to.read(100, 8000) == data);

    qp.post_recv(&mut [recv_wr(5, &mut [])]).unwrap();
    let mut wr = rdma(ffi::IBV_WR_RDMA_WRITE_WITH_IMM, &mut sges, &to, 0);
    wr.__bindgen_anon_1.imm_data = 99_u32.to_be();
    qp.post_send(&mut [wr]).unwrap();
    let mut found = cq.wait(2);
    found.sort_by_key(|wc| wc.wr_id);
    assert_eq!((found[0].opcode, found[0].byte_len), (ffi::IBV_WC_RECV_RDMA_WITH_IMM, 8000));
    assert_eq!(found[1].status, ffi::IBV_WC_SUCCESS);
    assert!(to.read(0, 8000) == data);

    from.write(&[0; 8192]);
    let mut sges = [from.sge(0, 5000)];
    let wc = run(&qp, &cq, rdma(ffi::IBV_WR_RDMA_READ, &mut sges, &to, 10));
    assert_eq!((wc.opcode, wc.byte_len), (ffi::IBV_WC_RDMA_READ, 5000));
    assert!(from.read(0, 5000) == data[10..5010]);

    to.write(&7_u64.to_ne_bytes());
    let mut sges = [from.sge(0, 8)];
    let mut wr = send_wr(3, ffi::IBV_WR_ATOMIC_FETCH_AND_ADD, &mut sges);
    wr.wr.atomic.remote_addr = to.addr();
    wr.wr.atomic.rkey = to.rkey();
    wr.wr.atomic.compare_add = 5;
    assert_eq!(run(&qp, &cq, wr).opcode, ffi::IBV_WC_FETCH_ADD);
    let word = |mem: &Mem<'_>| u64::from_ne_bytes(mem.read(0, 8).try_into().unwrap());
    assert_eq!((word(&from), word(&to)), (7, 12));
    wr.opcode = ffi::IBV_WR_ATOMIC_CMP_AND_SWP;
    wr.wr.atomic.compare_add = 12;
    wr.wr.atomic.swap = 1 << 40;
    assert_eq!(run(&qp, &cq, wr).opcode, ffi::IBV_WC_COMP_SWAP);
    assert_eq!((word(&from), word(&to)), (12, 1 << 40));
}

#[test]
fn inline_data_is_copied_when_it_is_posted() {
    let bed = Bed::new();
    let cq = bed.cq(16);
    for qp_type in [ffi::IBV_QPT_RC, ffi::IBV_QPT_UC] {
        let qp = Qp::new(&bed, &cq, qp_type).connect_to_itself();
        let to = bed.mem(64);
        let mut data = *b"not registered";
        let addr = data.as_mut_ptr() as u64;
        let mut sges = [ffi::ibv_sge { addr, length: 14, lkey: 0 }];
        let mut wr = rdma(ffi::IBV_WR_RDMA_WRITE, &mut sges, &to, 3);
        wr.send_flags |= ffi::IBV_SEND_INLINE;
        qp.post_send(&mut [wr]).unwrap();
        data.fill(0);
        assert_eq!(cq.wait_one(), (9, ffi::IBV_WC_SUCCESS));
        crate::c::eventually("the bytes arrive", || to.read(3, 14) == *b"not registered");
    }
}

#[test]
fn only_signaled_sends_complete_unless_all_do() {
    let bed = Bed::new();
    let cq = bed.cq(16);
    let (from, to) = (bed.mem(8), bed.mem(8));
    for sq_sig_all in [0, 1] {
        let attr = ffi::ibv_qp_init_attr_ex { sq_sig_all, ..init_attr(&cq, ffi::IBV_QPT_RC) };
        let qp = Qp::with(&bed, attr).connect_to_itself();
        let mut sges = [from.sge(0, 8)];
        let mut wrs = [rdma(ffi::IBV_WR_RDMA_WRITE, &mut sges, &to, 0); 4];
        for (wr, id) in wrs.iter_mut().zip(0..) {
            wr.wr_id = id;
            wr.send_flags = if id == 3 { ffi::IBV_SEND_SIGNALED } else { 0 };
        }
        qp.post_send(&mut wrs).unwrap();
        let expected: &[u64] = if sq_sig_all == 1 { &[0, 1, 2, 3] } else { &[3] };
        let found: Vec<u64> = cq.wait(expected.len()).iter().map(|wc| wc.wr_id).collect();
        assert_eq!(found, expected);
    }
}

/// Posts three writes, of which the second is spoilt; returns what was said, and that only the first was posted.
#[track_caller]
fn refuse_second(
    qp: &Qp<'_>,
    cq: &Cq<'_>,
    mem: &Mem<'_>,
    spoil: impl Fn(&mut ffi::ibv_send_wr),
) -> i32 {
    let mut sges = [mem.sge(0, 8), mem.sge(8, 8), mem.sge(16, 8)];
    let mut wrs = [rdma(ffi::IBV_WR_RDMA_WRITE, &mut sges[..1], mem, 32); 3];
    for (wr, id) in wrs.iter_mut().zip(1..) {
        wr.wr_id = id;
    }
    spoil(&mut wrs[1]);
    let (place, code) = qp.post_send(&mut wrs).unwrap_err();
    assert_eq!(place, 1);
    assert_eq!(cq.wait_one(), (1, ffi::IBV_WC_SUCCESS));
    code
}

#[test]
fn the_first_request_that_is_refused_is_told() {
    let bed = Bed::new();
    let cq = bed.cq(16);
    let mem = bed.mem(256);
    let qp = Qp::new(&bed, &cq, ffi::IBV_QPT_RC).connect_to_itself();
    let check = |spoil: &dyn Fn(&mut ffi::ibv_send_wr)| {
        assert_eq!(refuse_second(&qp, &cq, &mem, spoil), libc::EINVAL);
    };
    check(&|wr| wr.num_sge = 3);
    check(&|wr| wr.num_sge = -1);
    check(&|wr| wr.opcode = 99);
    check(&|wr| wr.opcode = ffi::IBV_WR_LOCAL_INV);
    check(&|wr| wr.opcode = ffi::IBV_WR_TSO);
    check(&|wr| wr.send_flags |= 1 << 20);
    check(&|wr| {
        wr.opcode = ffi::IBV_WR_RDMA_READ;
        wr.send_flags |= ffi::IBV_SEND_INLINE;
    });
    // An atomic changes eight bytes at a multiple of eight.
    check(&|wr| {
        wr.opcode = ffi::IBV_WR_ATOMIC_FETCH_AND_ADD;
        wr.num_sge = 2;
    });
    check(&|wr| {
        wr.opcode = ffi::IBV_WR_ATOMIC_CMP_AND_SWP;
        wr.wr.atomic.remote_addr = mem.addr() + 4;
    });
    check(&|wr| {
        wr.send_flags |= ffi::IBV_SEND_INLINE;
        // SAFETY: the list has an entry, of memory that can be read.
        unsafe { (*wr.sg_list).length = 65 };
    });
    let uc = Qp::new(&bed, &cq, ffi::IBV_QPT_UC).connect_to_itself();
    let read = |wr: &mut ffi::ibv_send_wr| wr.opcode = ffi::IBV_WR_RDMA_READ;
    assert_eq!(refuse_second(&uc, &cq, &mem, read), libc::EINVAL);
}

#[test]
fn receives_are_refused_one_by_one_as_well() {
    let bed = Bed::new();
    let cq = bed.cq(64);
    let mem = bed.mem(64);
    let qp = Qp::new(&bed, &cq, ffi::IBV_QPT_RC);
    let mut sges = [mem.sge(0, 8); 3];
    let requests = |count: usize| vec![recv_wr(1, &mut []); count];
    assert_eq!(qp.post_recv(&mut requests(1)), Err((0, libc::EINVAL)), "in RESET");
    qp.go(ffi::IBV_QPS_INIT, 0);
    let mut wrs = requests(3);
    (wrs[1].sg_list, wrs[1].num_sge) = (sges.as_mut_ptr(), 3);
    assert_eq!(qp.post_recv(&mut wrs), Err((1, libc::EINVAL)));
    (wrs[1].num_sge, wrs[0].num_sge) = (0, -1);
    assert_eq!(qp.post_recv(&mut wrs), Err((0, libc::EINVAL)));
    // One is there; fifteen fit, and no more.
    assert_eq!(qp.post_recv(&mut requests(20)), Err((15, libc::ENOMEM)));
    assert_eq!(qp.post_recv(&mut requests(1)), Err((0, libc::ENOMEM)));
    qp.go(ffi::IBV_QPS_ERR, 0);
    let flushed = cq.wait(16);
    assert!(flushed.iter().all(|wc| wc.status == ffi::IBV_WC_WR_FLUSH_ERR));
}

#[test]
fn a_full_send_queue_takes_no_more() {
    let bed = Bed::new();
    let cq = bed.cq(64);
    let mem = bed.mem(8);
    let qp = Qp::new(&bed, &cq, ffi::IBV_QPT_RC).connect_to_itself();
    let mut sges = [mem.sge(0, 8)];
    let send = send_wr(1, ffi::IBV_WR_SEND, &mut sges);
    // There is no receive, so that they stay.
    assert_eq!(qp.post_send(&mut [send; 20]), Err((16, libc::ENOMEM)));
    assert_eq!(qp.post_send(&mut [send]), Err((0, libc::ENOMEM)));
    qp.go(ffi::IBV_QPS_ERR, 0);
    let flushed = cq.wait(16);
    assert!(flushed.iter().all(|wc| wc.status == ffi::IBV_WC_WR_FLUSH_ERR), "{}", flushed.len());
    qp.post_send(&mut [send]).unwrap();
    assert_eq!(cq.wait_one(), (1, ffi::IBV_WC_WR_FLUSH_ERR));
}

#[test]
fn sends_are_refused_before_the_queue_pair_is_ready() {
    let bed = Bed::new();
    let cq = bed.cq(4);
    let qp = Qp::new(&bed, &cq, ffi::IBV_QPT_RC);
    for state in [ffi::IBV_QPS_INIT, ffi::IBV_QPS_RTR, ffi::IBV_QPS_RTS] {
        let send = send_wr(1, ffi::IBV_WR_SEND, &mut []);
        assert_eq!(qp.post_send(&mut [send]), Err((0, libc::EINVAL)));
        qp.go(state, qp.number());
    }
}

#[test]
fn a_peer_that_allows_nothing_is_told_by_the_status() {
    let bed = Bed::new();
    let cq = bed.cq(16);
    let mem = bed.mem(64);
    type Spoil = fn(&mut ffi::ibv_send_wr);
    let wrong_key: Spoil = |wr| {
        // SAFETY: every bit pattern is valid for a number.
        let key = unsafe { wr.wr.rdma.rkey };
        wr.wr.rdma.rkey = key ^ 0x5555;
    };
    let beyond: Spoil = |wr| {
        // SAFETY: every bit pattern is valid for a number.
        let addr = unsafe { wr.wr.rdma.remote_addr };
        wr.wr.rdma.remote_addr = addr + 60;
    };
    for spoil in [wrong_key, beyond] {
        for opcode in [ffi::IBV_WR_RDMA_WRITE, ffi::IBV_WR_RDMA_READ] {
            let [a, b] = [(); 2].map(|()| Qp::new(&bed, &cq, ffi::IBV_QPT_RC));
            let (of_a, of_b) = (a.number(), b.number());
            let (a, b) = (a.connect(of_b), b.connect(of_a));
            let mut sges = [mem.sge(0, 8)];
            let mut wr = rdma(opcode, &mut sges, &mem, 0);
            spoil(&mut wr);
            a.post_send(&mut [wr]).unwrap();
            assert_eq!(cq.wait_one(), (9, ffi::IBV_WC_REM_ACCESS_ERR));
            assert_eq!((a.state(), b.state()), (ffi::IBV_QPS_ERR, ffi::IBV_QPS_ERR));
        }
    }
}

#[test]
fn completions_of_a_queue_pair_go_with_it() {
    let bed = Bed::new();
    let cq = bed.cq(16);
    let (from, to) = (bed.mem(8), bed.mem(8));
    for destroy in [false, true] {
        let qp = Qp::new(&bed, &cq, ffi::IBV_QPT_RC).connect_to_itself();
        let mut sges = [from.sge(0, 8)];
        from.write(&[7; 8]);
        qp.post_send(&mut [rdma(ffi::IBV_WR_RDMA_WRITE, &mut sges, &to, 0)]).unwrap();
        crate::c::eventually("the bytes arrive", || to.read(0, 8) == [7; 8]);
        to.write(&[0; 8]);
        if destroy {
            drop(qp);
        } else {
            qp.go(ffi::IBV_QPS_RESET, 0);
        }
        std::thread::sleep(DEADLINE / 200);
        assert_eq!(cq.poll().len(), 0);
    }
}

/// A device that is opened anew, and never closed; memory, a queue pair that is connected with the peer's, and one that is attached
/// to a multicast group. They are all leaked, as by a program that closes a device without destroying them.
#[inline(never)]
fn objects_that_are_left_on_purpose(
    peer: &Qp<'_>,
) -> (&'static Mem<'static>, &'static Qp<'static>) {
    let bed: &Bed = Box::leak(Box::new(Bed::new()));
    let cq = Box::leak(Box::new(bed.cq(16)));
    let qp = Qp::new(bed, cq, ffi::IBV_QPT_RC).connect(peer.number());
    let group = ffi::ibv_gid { raw: Ipv4Addr::new(239, 7, 3, 2).to_ipv6_mapped().octets() };
    let attached = Box::leak(Box::new(Qp::new(bed, cq, ffi::IBV_QPT_UD)));
    assert_eq!(verb!(ibv_attach_mcast(attached.raw, &group, 0)), 0);
    (Box::leak(Box::new(bed.mem(64))), Box::leak(Box::new(qp)))
}

#[test]
fn a_closed_device_lets_nobody_into_memory() {
    let bed = Bed::new();
    let cq = bed.cq(16);
    let qp = Qp::new(&bed, &cq, ffi::IBV_QPT_RC);
    let (to, left) = objects_that_are_left_on_purpose(&qp);
    let qp = qp.connect(left.number());
    let from = bed.mem(64);
    from.write(&[1; 64]);
    let mut sges = [from.sge(0, 64)];
    let wr = rdma(ffi::IBV_WR_RDMA_WRITE, &mut sges, to, 0);
    run(&qp, &cq, wr);
    assert_eq!(to.read(0, 64), [1; 64]);
    assert_eq!(verb!(ibv_close_device(left.bed.context)), 0);
    to.write(&[2; 64]);
    qp.post_send(&mut [wr]).unwrap();
    assert_eq!(cq.wait_one(), (9, ffi::IBV_WC_RETRY_EXC_ERR));
    assert_eq!(to.read(0, 64), [2; 64]);
}
