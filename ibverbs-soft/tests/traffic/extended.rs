//! Through the extended interface: `ibv_wr_start` and the others, `ibv_start_poll` and the others.

use std::time::{SystemTime, UNIX_EPOCH};

use ibverbs_sys as ffi;

use crate::c::{eventually, init_attr, recv_wr, verb, Bed, Cq, Mem, Qp};

const FIELDS: u64 = (ffi::IBV_WC_STANDARD_FLAGS
    | ffi::IBV_WC_EX_WITH_COMPLETION_TIMESTAMP
    | ffi::IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK) as u64;

/// Every operation of reliable connections.
const OPS: u32 = ffi::IBV_QP_EX_WITH_SEND
    | ffi::IBV_QP_EX_WITH_SEND_WITH_IMM
    | ffi::IBV_QP_EX_WITH_RDMA_WRITE
    | ffi::IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM
    | ffi::IBV_QP_EX_WITH_RDMA_READ
    | ffi::IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP
    | ffi::IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD;

/// What a completion says.
#[derive(Debug, PartialEq)]
struct Said {
    wr_id: u64,
    status: ffi::ibv_wc_status,
    opcode: ffi::ibv_wc_opcode,
    len: u32,
    imm: Option<u32>,
    qp_num: u32,
    timestamp: u64,
    wallclock: u64,
}

fn read(cq: *mut ffi::ibv_cq_ex) -> Said {
    let flags = verb!(ibv_wc_read_wc_flags(cq));
    let imm = verb!(ibv_wc_read_imm_data(cq));
    assert_eq!((verb!(ibv_wc_read_slid(cq)), verb!(ibv_wc_read_sl(cq))), (0, 0));
    assert_eq!(verb!(ibv_wc_read_dlid_path_bits(cq)), 0);
    // SAFETY: the queue is alive, and a poll is open.
    let wr_id = unsafe { (*cq).wr_id };
    // SAFETY: as above.
    let status = unsafe { (*cq).status };
    Said {
        wr_id,
        status,
        opcode: verb!(ibv_wc_read_opcode(cq)),
        len: verb!(ibv_wc_read_byte_len(cq)),
        imm: (flags & ffi::IBV_WC_WITH_IMM != 0).then_some(u32::from_be(imm)),
        qp_num: verb!(ibv_wc_read_qp_num(cq)),
        timestamp: verb!(ibv_wc_read_completion_ts(cq)),
        wallclock: verb!(ibv_wc_read_completion_wallclock_ns(cq)),
    }
}

/// What is in the queue now.
fn poll(cq: &Cq<'_>) -> Vec<Said> {
    let cq = cq.raw.cast::<ffi::ibv_cq_ex>();
    let mut attr = ffi::ibv_poll_cq_attr { comp_mask: 0 };
    let mut found = Vec::new();
    match verb!(ibv_start_poll(cq, &mut attr)) {
        libc::ENOENT => return found,
        code => assert_eq!(code, 0),
    }
    found.push(read(cq));
    while verb!(ibv_next_poll(cq)) == 0 {
        found.push(read(cq));
    }
    verb!(ibv_end_poll(cq));
    found
}

#[track_caller]
fn wait(cq: &Cq<'_>, count: usize) -> Vec<Said> {
    let mut found = Vec::new();
    eventually("the completions", || {
        found.extend(poll(cq));
        found.len() >= count
    });
    assert_eq!(found.len(), count, "{found:?}");
    found
}

fn extended<'q>(bed: &'q Bed, cq: &'q Cq<'q>) -> (Qp<'q>, *mut ffi::ibv_qp_ex) {
    let mut attr = init_attr(cq, ffi::IBV_QPT_RC);
    attr.comp_mask = ffi::IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
    attr.send_ops_flags = OPS.into();
    let qp = Qp::with(bed, attr).connect_to_itself();
    let ex = verb!(ibv_qp_to_qp_ex(qp.raw));
    assert!(!ex.is_null());
    (qp, ex)
}

/// The identifier and the flags of the next request.
fn next(qp: *mut ffi::ibv_qp_ex, wr_id: u64) {
    // SAFETY: the queue pair is alive, and a batch is open.
    unsafe { (*qp).wr_id = wr_id };
    // SAFETY: as above.
    unsafe { (*qp).wr_flags = ffi::IBV_SEND_SIGNALED };
}

/// The whole of a region, as one entry.
fn set_whole(qp: *mut ffi::ibv_qp_ex, mem: &Mem<'_>, len: usize) {
    let ffi::ibv_sge { addr, length, lkey } = mem.sge(0, len);
    verb!(ibv_wr_set_sge(qp, lkey, addr, length));
}

#[test]
fn a_batch_of_everything_is_carried_out_in_order() {
    let bed = Bed::new();
    let cq = bed.cq_ex(32, FIELDS);
    let (qp, ex) = extended(&bed, &cq);
    let (from, to, other) = (bed.mem(4096), bed.mem(4096), bed.mem(64));
    from.write(&[3; 4096]);
    for id in [100, 101, 102] {
        let mut into = [other.sge(0, 64)];
        qp.post_recv(&mut [recv_wr(id, &mut into)]).unwrap();
    }
    let (rkey, addr) = (to.rkey(), to.addr());
    let mut text = *b"in two pieces";
    let start = text.as_mut_ptr();
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    verb!(ibv_wr_start(ex));
    next(ex, 1);
    verb!(ibv_wr_rdma_write(ex, rkey, addr));
    set_whole(ex, &from, 4096);
    next(ex, 2);
    verb!(ibv_wr_send(ex));
    let list = [
        ffi::ibv_data_buf { addr: start.cast(), length: 3 },
        ffi::ibv_data_buf { addr: start.wrapping_add(3).cast(), length: 10 },
    ];
    verb!(ibv_wr_set_inline_data_list(ex, 2, list.as_ptr()));
    next(ex, 3);
    verb!(ibv_wr_send_imm(ex, 8_u32.to_be()));
    verb!(ibv_wr_set_inline_data(ex, start.cast(), 0));
    next(ex, 4);
    verb!(ibv_wr_rdma_write_imm(ex, rkey, addr, 9_u32.to_be()));
    let list = [from.sge(0, 4), from.sge(10, 4)];
    verb!(ibv_wr_set_sge_list(ex, 2, list.as_ptr()));
    next(ex, 5);
    verb!(ibv_wr_atomic_fetch_add(ex, rkey, addr, 1));
    set_whole(ex, &other, 8);
    next(ex, 6);
    verb!(ibv_wr_atomic_cmp_swp(ex, rkey, addr, 0, 1));
    set_whole(ex, &other, 8);
    next(ex, 7);
    verb!(ibv_wr_rdma_read(ex, rkey, addr));
    set_whole(ex, &other, 64);
    text.fill(0);
    assert_eq!(verb!(ibv_wr_complete(ex)), 0);

    let mut found = wait(&cq, 10);
    let after = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    for said in &found {
        assert_eq!((said.status, said.qp_num), (ffi::IBV_WC_SUCCESS, qp.number()), "{said:?}");
        let tolerance = 1_000_000_000;
        assert!((before - tolerance..after + tolerance).contains(&said.wallclock), "{said:?}");
    }
    assert!(found.windows(2).all(|pair| pair[0].timestamp <= pair[1].timestamp), "{found:#?}");
    found.sort_by_key(|said| said.wr_id);
    let opcodes: Vec<_> = found[..7].iter().map(|said| said.opcode).collect();
    let expected = [
        ffi::IBV_WC_RDMA_WRITE,
        ffi::IBV_WC_SEND,
        ffi::IBV_WC_SEND,
        ffi::IBV_WC_RDMA_WRITE,
        ffi::IBV_WC_FETCH_ADD,
        ffi::IBV_WC_COMP_SWAP,
        ffi::IBV_WC_RDMA_READ,
    ];
    assert_eq!(opcodes, expected);
    let received: Vec<_> =
        found[7..].iter().map(|said| (said.opcode, said.len, said.imm)).collect();
    let told = ffi::IBV_WC_RECV_RDMA_WITH_IMM;
    let recv = ffi::IBV_WC_RECV;
    assert_eq!(received, [(recv, 13, None), (recv, 0, Some(8)), (told, 8, Some(9))]);
    let mut expected = [3; 64];
    expected[..8].copy_from_slice(&(0x0303_0303_0303_0303_u64 + 1).to_ne_bytes());
    assert_eq!(other.read(0, 64), expected);
}

#[test]
fn what_is_aborted_or_wrong_posts_nothing() {
    let bed = Bed::new();
    let cq = bed.cq_ex(32, FIELDS);
    let (_qp, ex) = extended(&bed, &cq);
    let (from, to) = (bed.mem(64), bed.mem(64));
    from.write(&[7; 64]);
    let (rkey, addr) = (to.rkey(), to.addr());
    let write = |len| {
        next(ex, 1);
        verb!(ibv_wr_rdma_write(ex, rkey, addr));
        set_whole(ex, &from, len);
    };
    verb!(ibv_wr_start(ex));
    write(64);
    verb!(ibv_wr_abort(ex));

    let list = [from.sge(0, 1); 3];
    let bytes = [1_u8; 65];
    let start = bytes.as_ptr().cast_mut().cast();
    let wrong: [&dyn Fn(); 5] = [
        &|| verb!(ibv_wr_set_sge_list(ex, 3, list.as_ptr())),
        &|| verb!(ibv_wr_set_inline_data(ex, start, 65)),
        &|| {
            next(ex, 2);
            verb!(ibv_wr_rdma_read(ex, rkey, addr));
            verb!(ibv_wr_set_inline_data(ex, start, 8));
        },
        &|| {
            next(ex, 2);
            verb!(ibv_wr_atomic_fetch_add(ex, rkey, addr, 1));
            set_whole(ex, &from, 16);
        },
        &|| {
            next(ex, 2);
            verb!(ibv_wr_atomic_fetch_add(ex, rkey, addr + 1, 1));
            set_whole(ex, &from, 8);
        },
    ];
    for (number, spoil) in wrong.iter().enumerate() {
        verb!(ibv_wr_start(ex));
        write(64);
        spoil();
        write(64);
        assert_eq!(verb!(ibv_wr_complete(ex)), libc::EINVAL, "{number}");
    }
    // A payload without a request.
    verb!(ibv_wr_start(ex));
    set_whole(ex, &from, 8);
    assert_eq!(verb!(ibv_wr_complete(ex)), libc::EINVAL);
    // More than fits: nothing of it is posted.
    verb!(ibv_wr_start(ex));
    (0..17).for_each(|_| write(64));
    assert_eq!(verb!(ibv_wr_complete(ex)), libc::ENOMEM);

    verb!(ibv_wr_start(ex));
    assert_eq!(verb!(ibv_wr_complete(ex)), 0, "nothing is no error");
    assert_eq!(poll(&cq), []);
    assert_eq!(to.read(0, 64), [0; 64]);
    verb!(ibv_wr_start(ex));
    write(5);
    assert_eq!(verb!(ibv_wr_complete(ex)), 0);
    assert_eq!(wait(&cq, 1)[0].status, ffi::IBV_WC_SUCCESS);
    assert_eq!(to.read(0, 6), [7, 7, 7, 7, 7, 0]);
}

#[test]
fn threads_share_a_queue_pair_and_a_completion_queue() {
    const EACH: u64 = 200;
    const THREADS: u64 = 3;
    /// Verbs may be called by any thread.
    struct Shared(*mut ffi::ibv_qp_ex, *mut ffi::ibv_cq_ex);
    // SAFETY: verbs may be called by any thread.
    unsafe impl Sync for Shared {}
    impl Shared {
        fn post(&self, mem: (u64, u32), wr_id: u64) {
            verb!(ibv_wr_start(self.0));
            next(self.0, wr_id);
            verb!(ibv_wr_rdma_write(self.0, mem.1, mem.0));
            assert_eq!(verb!(ibv_wr_complete(self.0)), 0);
        }
        fn take(&self) -> Option<u64> {
            let mut attr = ffi::ibv_poll_cq_attr { comp_mask: 0 };
            if verb!(ibv_start_poll(self.1, &mut attr)) != 0 {
                return None;
            }
            let said = read(self.1);
            verb!(ibv_end_poll(self.1));
            assert_eq!(said.status, ffi::IBV_WC_SUCCESS);
            Some(said.wr_id)
        }
    }
    let bed = Bed::new();
    let cq = bed.cq_ex(32, FIELDS);
    let (_qp, ex) = extended(&bed, &cq);
    let mem = bed.mem(8);
    let shared = Shared(ex, cq.raw.cast());
    let place = (mem.addr(), mem.rkey());
    let mut all: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let shared = &shared;
                scope.spawn(move || {
                    let mut found = Vec::new();
                    for n in 0..EACH {
                        shared.post(place, thread * EACH + n);
                        // Anybody's: there are never more than one for each thread.
                        eventually("a completion", || {
                            found.extend(shared.take());
                            found.len() as u64 > n
                        });
                    }
                    found
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    all.sort_unstable();
    assert!(all.into_iter().eq(0..THREADS * EACH));
}
