//! Memory windows through the classic interface: `ibv_bind_mw`, and `ibv_post_send` for those of type 2.

use ibverbs_sys as ffi;

use crate::c::{created, init_attr, recv_wr, refused, send_wr, verb, zeroed, Bed, Cq, Mem, Qp};

const OK: ffi::ibv_wc_status = ffi::IBV_WC_SUCCESS;
const READ: u32 = ffi::IBV_ACCESS_REMOTE_READ;

/// A region of the memory that windows can be bound to.
fn bindable(bed: &Bed, mem: &Mem<'_>, len: usize) -> *mut ffi::ibv_mr {
    let access = ffi::IBV_ACCESS_LOCAL_WRITE | ffi::IBV_ACCESS_MW_BIND;
    created(verb!(ibv_reg_mr(bed.pd, mem.addr() as *mut _, len, access as i32)))
}

fn info(mr: *mut ffi::ibv_mr, mem: &Mem<'_>, length: u64) -> ffi::ibv_mw_bind_info {
    ffi::ibv_mw_bind_info { mr, addr: mem.addr(), length, mw_access_flags: READ }
}

fn key_of(mw: *mut ffi::ibv_mw) -> u32 {
    // SAFETY: the window is alive.
    unsafe { (*mw).rkey }
}

/// A request that binds a window of type 2, with the key that it gets.
fn bind_wr(mw: *mut ffi::ibv_mw, bind_info: ffi::ibv_mw_bind_info) -> ffi::ibv_send_wr {
    let rkey = ffi::ibv_inc_rkey(key_of(mw));
    let mut wr = send_wr(1, ffi::IBV_WR_BIND_MW, &mut []);
    wr.__bindgen_anon_2.bind_mw =
        ffi::ibv_send_wr__bindgen_ty_4__bindgen_ty_1 { mw, rkey, bind_info };
    wr
}

/// Posts one request and waits for its completion.
#[track_caller]
fn run(qp: &Qp<'_>, cq: &Cq<'_>, wr: ffi::ibv_send_wr) -> (ffi::ibv_wc_status, ffi::ibv_wc_opcode) {
    qp.post_send(&mut [wr]).unwrap();
    let wc = cq.wait(1)[0];
    (wc.status, wc.opcode)
}

fn read_wr(sges: &mut [ffi::ibv_sge], addr: u64, rkey: u32) -> ffi::ibv_send_wr {
    let mut wr = send_wr(2, ffi::IBV_WR_RDMA_READ, sges);
    wr.wr.rdma.remote_addr = addr;
    wr.wr.rdma.rkey = rkey;
    wr
}

#[test]
fn the_device_says_that_it_has_windows() {
    let bed = Bed::new();
    let attr = bed.device_attr();
    assert!(attr.max_mw > 0);
    let both = ffi::IBV_DEVICE_MEM_WINDOW | ffi::IBV_DEVICE_MEM_WINDOW_TYPE_2B;
    assert_eq!(attr.device_cap_flags & both, both);
    assert_eq!(attr.device_cap_flags & ffi::IBV_DEVICE_MEM_WINDOW_TYPE_2A, 0);
    assert_eq!(refused(verb!(ibv_alloc_mw(bed.pd, 7))), libc::EINVAL);
}

#[test]
fn a_window_of_type_2_is_bound_used_and_withdrawn_from_either_side() {
    let bed = Bed::new();
    let (send_cq, recv_cq) = (bed.cq(16), bed.cq(16));
    let mut attr = init_attr(&send_cq, ffi::IBV_QPT_RC);
    attr.recv_cq = recv_cq.raw;
    let qp = Qp::with(&bed, attr).connect_to_itself();
    let (mem, into) = (bed.mem(4096), bed.mem(4096));
    mem.write(b"through a window");
    let mr = bindable(&bed, &mem, 4096);
    let mw = created(verb!(ibv_alloc_mw(bed.pd, ffi::IBV_MW_TYPE_2)));
    for by_peer in [false, true] {
        let wr = bind_wr(mw, info(mr, &mem, 16));
        assert_eq!(run(&qp, &send_cq, wr), (OK, ffi::IBV_WC_BIND_MW));
        // SAFETY: the window is alive, and its key the program's to write.
        unsafe { (*mw).rkey = ffi::ibv_inc_rkey(key_of(mw)) };
        let key = key_of(mw);
        let mut sges = [into.sge(0, 16)];
        let read = run(&qp, &send_cq, read_wr(&mut sges, mem.addr(), key));
        assert_eq!(read, (OK, ffi::IBV_WC_RDMA_READ));
        assert_eq!(into.read(0, 16), b"through a window");
        assert_eq!(verb!(ibv_dereg_mr(mr)), libc::EBUSY);
        let opcode = if by_peer { ffi::IBV_WR_SEND_WITH_INV } else { ffi::IBV_WR_LOCAL_INV };
        let mut wr = send_wr(3, opcode, &mut []);
        wr.__bindgen_anon_1.invalidate_rkey = key;
        if by_peer {
            qp.post_recv(&mut [recv_wr(4, &mut [])]).unwrap();
            assert_eq!(run(&qp, &send_cq, wr), (OK, ffi::IBV_WC_SEND));
            let wc = recv_cq.wait(1)[0];
            assert_eq!((wc.status, wc.wc_flags), (OK, ffi::IBV_WC_WITH_INV));
            // SAFETY: every bit pattern is valid for a number.
            assert_eq!(unsafe { wc.__bindgen_anon_1.invalidated_rkey }, key);
        } else {
            assert_eq!(run(&qp, &send_cq, wr), (OK, ffi::IBV_WC_LOCAL_INV));
        }
    }
    let mut sges = [into.sge(0, 16)];
    let (status, _) = run(&qp, &send_cq, read_wr(&mut sges, mem.addr(), key_of(mw)));
    // As the peer of itself it has failed before it is told why.
    assert_eq!(status, ffi::IBV_WC_WR_FLUSH_ERR);
    assert_eq!(verb!(ibv_dereg_mr(mr)), 0);
    assert_eq!(verb!(ibv_dealloc_mw(mw)), 0);
}

#[test]
fn windows_are_bound_by_the_call_of_their_type_to_what_is_there() {
    let bed = Bed::new();
    let cq = bed.cq(16);
    let qp = Qp::new(&bed, &cq, ffi::IBV_QPT_RC).connect_to_itself();
    let mem = bed.mem(4096);
    let mr = bindable(&bed, &mem, 4096);
    let [one, two] = [ffi::IBV_MW_TYPE_1, ffi::IBV_MW_TYPE_2]
        .map(|kind| created(verb!(ibv_alloc_mw(bed.pd, kind))));
    let bind = |mw, send_flags, bind_info| {
        let mut bind = ffi::ibv_mw_bind { wr_id: 1, send_flags, bind_info };
        verb!(ibv_bind_mw(qp.raw, mw, &mut bind))
    };
    let (good, signaled) = (info(mr, &mem, 16), ffi::IBV_SEND_SIGNALED);
    let post = |mw, info| qp.post_send(&mut [bind_wr(mw, info)]);
    let key = key_of(one);
    assert_eq!(post(one, good), Err((0, libc::EINVAL)));
    assert_eq!(bind(two, signaled, good), libc::EINVAL);
    assert_eq!(bind(one, ffi::IBV_SEND_INLINE, good), libc::EINVAL);
    let too_much = ffi::ibv_mw_bind_info { mw_access_flags: ffi::IBV_ACCESS_LOCAL_WRITE, ..good };
    assert_eq!(bind(one, signaled, too_much), libc::EINVAL);
    assert_eq!(post(two, too_much), Err((0, libc::EINVAL)));
    assert_eq!(key_of(one), key);

    assert_eq!(bind(one, signaled, good), 0);
    assert_eq!(key_of(one), ffi::ibv_inc_rkey(key));
    assert_eq!(cq.wait_one(), (1, OK));
    // To nothing, without a region.
    assert_eq!(bind(one, signaled, zeroed()), 0);
    assert_eq!(cq.wait_one(), (1, OK));
    // What is not in the region is told by the completion.
    assert_eq!(bind(one, 0, info(mr, &mem, 4097)), 0);
    assert_eq!(cq.wait_one(), (1, ffi::IBV_WC_MW_BIND_ERR));
    assert_eq!(qp.state(), ffi::IBV_QPS_ERR);
    for mw in [one, two] {
        assert_eq!(verb!(ibv_dealloc_mw(mw)), 0);
    }
    assert_eq!(verb!(ibv_dereg_mr(mr)), 0);
}
