//! Transfers over a reliable connection.

use std::io::IoSlice;

use ibverbs::{
    AccessFlags, LocalMemorySlice, Payload, RecvRequest, RemoteMemorySlice, SendBatch, WcOpcode,
};
use ibverbs_tests::{
    pair, pattern, post_recv, submit, test_context, wait_ok, Bed, Mem, Side, DEADLINE, PORT,
};

/// The program of the README, on the test device and with a deadline.
#[test]
fn the_first_program_moves_its_five_bytes() -> ibverbs::Result<()> {
    let ctx = test_context();
    let gid = ctx.routable_gid(PORT)?.expect("no GID");
    let cq = ctx.create_cq(16).build()?;
    let pd = ctx.alloc_pd()?;
    let prepared = pd
        .create_qp::<ibverbs::Rc>(&cq, &cq, PORT)?
        .set_gid_index(gid.index().try_into().expect("a small index"))
        .build()?;
    let endpoint = prepared.endpoint()?;
    let mut qp = prepared.handshake(endpoint)?;
    let mut recv = pd.allocate(4096, AccessFlags::PERMISSIVE)?;
    let mut send = pd.allocate(4096, AccessFlags::PERMISSIVE)?;
    send.bytes_mut()[..5].copy_from_slice(b"hello");
    // SAFETY: the region is dropped after its completion was polled, and not touched before.
    unsafe { qp.post_recv([RecvRequest::new(1, &[recv.slice(..)])]) }?;
    let mut batch = qp.start_send();
    batch.op().signaled().send(2, &[send.slice(..5)]);
    // SAFETY: as above.
    unsafe { batch.submit() }?;
    let end = std::time::Instant::now() + DEADLINE;
    let mut pending = 2;
    while pending > 0 {
        assert!(std::time::Instant::now() < end, "{pending} completions did not come");
        if let Some(mut completions) = cq.poll()? {
            while let Some(wc) = completions.next() {
                wc.ok().expect("work request failed");
                pending -= 1;
            }
        }
    }
    assert_eq!(&recv.bytes_mut()[..5], b"hello");
    Ok(())
}

/// Two connected queue pairs, each with memory.
struct Lab {
    a: Side,
    b: Side,
    a_mem: Mem,
    b_mem: Mem,
}

impl Lab {
    fn new(len: usize) -> Lab {
        let bed = Bed::new();
        let (a, b) = pair(&bed);
        Lab { a, b, a_mem: bed.mem(len), b_mem: bed.mem(len) }
    }

    /// Posts on side `a` and waits for the one completion that is to come.
    #[track_caller]
    fn run(&mut self, fill: impl FnOnce(&mut SendBatch<'_, ibverbs::Rc>)) -> ibverbs_tests::Wc {
        submit(&mut self.a.qp, fill).expect("the batch was refused");
        wait_ok(&self.a.send_cq, 1).remove(0)
    }

    /// Posts one receive on side `b`.
    #[track_caller]
    fn receive(&mut self, wr_id: u64, slices: &[LocalMemorySlice]) {
        post_recv(&mut self.b.qp, [RecvRequest::new(wr_id, slices)]).expect("receive refused");
    }

    fn remote(&self) -> RemoteMemorySlice {
        self.b_mem.remote()
    }
}

#[test]
fn a_send_arrives_in_the_posted_receive() {
    let mut lab = Lab::new(4096);
    let data = pattern(3000, 1);
    lab.a_mem.write(0, &data);
    lab.receive(7, &[lab.b_mem.slice(..)]);
    let slice = lab.a_mem.slice(..3000);
    let sent = lab.run(|batch| batch.op().signaled().send(8, &[slice]));
    let received = wait_ok(&lab.b.recv_cq, 1).remove(0);
    assert_eq!((sent.wr_id, sent.qp_num), (8, lab.a.qp.qp_num()));
    assert_eq!(sent.opcode, WcOpcode::SEND);
    assert_eq!((received.wr_id, received.qp_num), (7, lab.b.qp.qp_num()));
    assert_eq!((received.len, received.imm, received.opcode), (3000, None, WcOpcode::RECV));
    assert!(received.opcode.is_recv() && !sent.opcode.is_recv());
    assert_eq!(lab.b_mem.read(..3000), data);
    assert_eq!(lab.b_mem.read(3000..), vec![0; 1096]);
}

#[test]
fn a_send_brings_its_immediate_data_along() {
    let mut lab = Lab::new(4096);
    for imm in [0, 1, 0x0102_0304, u32::MAX] {
        let data = pattern(1500, u64::from(imm));
        lab.a_mem.write(0, &data);
        lab.receive(1, &[lab.b_mem.slice(..)]);
        let slice = lab.a_mem.slice(..1500);
        lab.run(|batch| batch.op().signaled().imm(imm).send(2, &[slice]));
        let received = wait_ok(&lab.b.recv_cq, 1).remove(0);
        assert_eq!((received.imm, received.len), (Some(imm), 1500));
        assert_eq!(received.opcode, WcOpcode::RECV);
        assert_eq!(lab.b_mem.read(..1500), data);
    }
}

#[test]
fn a_write_changes_the_bytes_that_it_names_and_no_others() {
    let mut lab = Lab::new(8192);
    lab.b_mem.write(0, &[0xee; 8192]);
    let data = pattern(3001, 3);
    lab.a_mem.write(17, &data);
    let (slice, remote) = (lab.a_mem.slice(17..3018), lab.remote().slice(1111..4112));
    let done = lab.run(|batch| batch.op().signaled().write(1, &[slice], remote));
    assert_eq!(done.opcode, WcOpcode::RDMA_WRITE);
    let expected = [vec![0xee; 1111], data, vec![0xee; 8192 - 4112]].concat();
    assert_eq!(lab.b_mem.read(..), expected);
}

#[test]
fn a_write_with_immediate_data_consumes_a_receive() {
    let mut lab = Lab::new(8192);
    let data = pattern(2500, 4);
    lab.a_mem.write(0, &data);
    // The receive has no memory: the data goes where the write says.
    lab.receive(5, &[]);
    let (slice, remote) = (lab.a_mem.slice(..2500), lab.remote().slice(4096..));
    lab.run(|batch| batch.op().signaled().imm(0xfeed_beef).write(6, &[slice], remote));
    let told = wait_ok(&lab.b.recv_cq, 1).remove(0);
    assert_eq!((told.wr_id, told.imm, told.len), (5, Some(0xfeed_beef), 2500));
    assert_eq!(told.opcode, WcOpcode::RECV_RDMA_WITH_IMM);
    assert!(told.opcode.is_recv());
    assert_eq!(lab.b_mem.read(4096..6596), data);
    assert_eq!(lab.b_mem.read(..4096), vec![0; 4096]);
}

#[test]
fn a_read_fetches_the_bytes_that_it_names() {
    let mut lab = Lab::new(8192);
    let data = pattern(8192, 5);
    lab.b_mem.write(0, &data);
    let (slice, remote) = (lab.a_mem.slice(100..5101), lab.remote().slice(3000..8001));
    let done = lab.run(|batch| batch.op().signaled().read(1, &[slice], remote));
    assert_eq!((done.opcode, done.len), (WcOpcode::RDMA_READ, 5001));
    assert_eq!(lab.a_mem.read(100..5101), data[3000..8001]);
    assert_eq!(lab.a_mem.read(..100), vec![0; 100]);
    assert_eq!(lab.a_mem.read(5101..), vec![0; 8192 - 5101]);
}

#[test]
fn a_fetch_and_add_returns_the_old_value_and_wraps() {
    let mut lab = Lab::new(4096);
    let cases = [(5u64, 7u64), (0x0102_0304_0506_0708, 1 << 40), (u64::MAX, 2), (9, u64::MAX)];
    for (old, add) in cases {
        lab.b_mem.write_u64(64, old);
        lab.a_mem.write_u64(8, 0xdead);
        let (slice, remote) = (lab.a_mem.slice(8..16), lab.remote().slice(64..72));
        let done = lab.run(|batch| batch.op().signaled().atomic_fetch_add(1, slice, remote, add));
        assert_eq!(done.opcode, WcOpcode::FETCH_ADD);
        assert_eq!(lab.a_mem.read_u64(8), old);
        assert_eq!(lab.b_mem.read_u64(64), old.wrapping_add(add));
    }
    assert_eq!(lab.b_mem.read(72..), vec![0; 4096 - 72]);
}

#[test]
fn a_compare_and_swap_swaps_only_what_it_expects() {
    let mut lab = Lab::new(4096);
    let (old, swap) = (0x1122_3344_5566_7788, 0x99aa_bbcc_ddee_ff00);
    for (compare, expected) in [(old, swap), (old + 1, old)] {
        lab.b_mem.write_u64(0, old);
        lab.a_mem.write_u64(0, 0xdead);
        let (slice, remote) = (lab.a_mem.slice(..8), lab.remote());
        let done =
            lab.run(|batch| batch.op().signaled().atomic_cmp_swap(1, slice, remote, compare, swap));
        assert_eq!(done.opcode, WcOpcode::COMP_SWAP);
        assert_eq!(lab.a_mem.read_u64(0), old, "the old value comes back either way");
        assert_eq!(lab.b_mem.read_u64(0), expected);
    }
}

#[test]
fn atomics_of_one_batch_see_each_other_in_order() {
    let mut lab = Lab::new(4096);
    let (mem, remote) = (lab.a_mem.clone(), lab.remote());
    lab.run(|batch| {
        for n in 0..8 {
            let op = batch.op();
            let op = if n == 7 { op.signaled() } else { op };
            op.atomic_fetch_add(n, mem.slice(n as usize * 8..n as usize * 8 + 8), remote, 10);
        }
    });
    let fetched: Vec<u64> = (0..8).map(|n| mem.read_u64(n * 8)).collect();
    assert_eq!(fetched, [0, 10, 20, 30, 40, 50, 60, 70]);
    assert_eq!(lab.b_mem.read_u64(0), 80);
}

#[test]
fn inline_data_is_copied_when_it_is_posted() {
    let mut lab = Lab::new(4096);
    lab.receive(1, &[lab.b_mem.slice(..64)]);
    lab.receive(2, &[lab.b_mem.slice(64..128)]);
    let remote = lab.remote().slice(128..);
    let mut data = pattern(64, 6);
    let expected = data.clone();
    let mut batch = lab.a.qp.start_send();
    batch.op().send(1, &data[..]);
    batch.op().imm(3).send(2, &data[..33]);
    batch.op().signaled().write(3, &data[..17], remote);
    data.fill(0);
    // SAFETY: inline data has no conditions.
    unsafe { batch.submit() }.unwrap();
    wait_ok(&lab.a.send_cq, 1);
    let received = wait_ok(&lab.b.recv_cq, 2);
    assert_eq!((received[0].len, received[1].len, received[1].imm), (64, 33, Some(3)));
    assert_eq!(lab.b_mem.read(..64), expected);
    assert_eq!(lab.b_mem.read(64..97), expected[..33]);
    assert_eq!(lab.b_mem.read(128..145), expected[..17]);
    assert_eq!(lab.b_mem.read(145..), vec![0; 4096 - 145]);
}

#[test]
fn inline_buffers_arrive_as_one_message() {
    let mut lab = Lab::new(4096);
    lab.receive(1, &[lab.b_mem.slice(..64)]);
    let remote = lab.remote().slice(64..);
    let data = pattern(60, 7);
    let buffers = [&data[..1], &data[1..1], &data[1..40], &data[40..]].map(IoSlice::new);
    lab.run(|batch| {
        batch.op().send(1, &buffers);
        batch.op().signaled().write(2, &buffers[..3], remote);
    });
    assert_eq!(wait_ok(&lab.b.recv_cq, 1)[0].len, 60);
    assert_eq!(lab.b_mem.read(..60), data);
    assert_eq!(lab.b_mem.read(64..104), data[..40]);
    assert_eq!(lab.b_mem.read(104..), vec![0; 4096 - 104]);
}

#[test]
fn an_empty_payload_is_a_message_too() {
    let mut lab = Lab::new(4096);
    for wr_id in 0..4 {
        lab.receive(wr_id, &[lab.b_mem.slice(..)]);
    }
    let remote = lab.remote();
    lab.run(|batch| {
        batch.op().send(0, Payload::EMPTY);
        batch.op().imm(1).send(1, Payload::EMPTY);
        batch.op().imm(2).write(2, Payload::EMPTY, remote);
        batch.op().write(3, Payload::EMPTY, remote);
        batch.op().send(4, b"");
        batch.op().signaled().read(5, &[], remote);
    });
    let received = wait_ok(&lab.b.recv_cq, 4);
    let what: Vec<_> = received.iter().map(|wc| (wc.wr_id, wc.len, wc.imm)).collect();
    assert_eq!(what, [(0, 0, None), (1, 0, Some(1)), (2, 0, Some(2)), (3, 0, None)]);
    assert_eq!(lab.b_mem.read(..), vec![0; 4096]);
}

/// Cuts pieces of these lengths out of `mem`, with gaps between them.
fn cut(mem: &Mem, lengths: &[usize]) -> Vec<LocalMemorySlice> {
    let mut start = 0;
    let mut piece = |len: &usize| {
        start += 5;
        let slice = mem.slice(start..start + len);
        start += len;
        slice
    };
    lengths.iter().map(&mut piece).collect()
}

/// The offsets in `mem` of what `cut` cut.
fn joined(mem: &Mem, slices: &[LocalMemorySlice]) -> Vec<u8> {
    let base = mem.slice(..).addr();
    let bytes = |slice: &LocalMemorySlice| {
        let start = (slice.addr() - base) as usize;
        mem.read(start..start + slice.len() as usize)
    };
    slices.iter().flat_map(bytes).collect()
}

#[test]
fn lists_of_unequal_entries_are_gathered_and_scattered() {
    let mut lab = Lab::new(16384);
    let gather = [1, 1023, 3, 4000];
    let scatter = [2000, 7, 1, 5000];
    let total: usize = gather.iter().sum();
    lab.a_mem.write(0, &pattern(16384, 8));
    let (from, to) = (cut(&lab.a_mem, &gather), cut(&lab.b_mem, &scatter));
    let data = joined(&lab.a_mem, &from);

    lab.receive(1, &to);
    lab.run(|batch| batch.op().signaled().send(2, &from[..]));
    assert_eq!(wait_ok(&lab.b.recv_cq, 1)[0].len as usize, total);
    assert_eq!(joined(&lab.b_mem, &to)[..total], data);
    assert_eq!(lab.b_mem.read(..5), [0; 5], "the gaps stay");
    assert_eq!(lab.b_mem.read(2005..2010), [0; 5], "the gaps stay");

    lab.b_mem.write(0, &[0; 16384]);
    let remote = lab.remote();
    lab.run(|batch| batch.op().signaled().write(3, &from[..], remote));
    assert_eq!(lab.b_mem.read(..total), data);
    assert_eq!(lab.b_mem.read(total..), vec![0; 16384 - total]);

    let data = pattern(7008, 9);
    lab.b_mem.write(0, &data);
    let to = cut(&lab.a_mem, &scatter);
    lab.run(|batch| batch.op().signaled().read(4, &to, remote.slice(..7008)));
    assert_eq!(joined(&lab.a_mem, &to), data);
}

/// No byte, one, and around the multiples of any MTU, up to a MiB.
const SIZES: [usize; 31] = [
    0,
    1,
    2,
    3,
    4,
    5,
    7,
    8,
    9,
    255,
    256,
    257,
    511,
    512,
    513,
    1023,
    1024,
    1025,
    2047,
    2048,
    2049,
    4095,
    4096,
    4097,
    8191,
    8192,
    8193,
    65535,
    65537,
    (1 << 20) - 1,
    1 << 20,
];

/// What follows a transfer, and must stay as it is.
const GUARD: usize = 64;

#[test]
fn sends_of_every_size_arrive_whole() {
    let mut lab = Lab::new((1 << 20) + GUARD);
    for size in SIZES {
        let data = pattern(size, size as u64);
        lab.a_mem.write(0, &data);
        lab.b_mem.write(0, &vec![0xee; size + GUARD]);
        lab.receive(1, &[lab.b_mem.slice(..)]);
        let slice = lab.a_mem.slice(..size);
        lab.run(|batch| batch.op().signaled().send(2, &[slice]));
        assert_eq!(wait_ok(&lab.b.recv_cq, 1)[0].len as usize, size);
        assert!(lab.b_mem.read(..size) == data, "a send of {size} bytes");
        assert_eq!(lab.b_mem.read(size..size + GUARD), [0xee; GUARD], "{size}");
    }
}

#[test]
fn writes_of_every_size_arrive_whole() {
    let mut lab = Lab::new((1 << 20) + GUARD);
    for size in SIZES {
        let data = pattern(size, size as u64);
        lab.a_mem.write(0, &data);
        lab.b_mem.write(0, &vec![0xee; size + GUARD]);
        let (slice, remote) = (lab.a_mem.slice(..size), lab.remote());
        lab.run(|batch| batch.op().signaled().write(2, &[slice], remote));
        assert!(lab.b_mem.read(..size) == data, "a write of {size} bytes");
        assert_eq!(lab.b_mem.read(size..size + GUARD), [0xee; GUARD], "{size}");
    }
}

#[test]
fn reads_of_every_size_arrive_whole() {
    let mut lab = Lab::new((1 << 20) + GUARD);
    for size in SIZES {
        let data = pattern(size, size as u64);
        lab.b_mem.write(0, &data);
        lab.a_mem.write(0, &vec![0xee; size + GUARD]);
        let (slice, remote) = (lab.a_mem.slice(..size), lab.remote());
        lab.run(|batch| batch.op().signaled().read(2, &[slice], remote));
        assert!(lab.a_mem.read(..size) == data, "a read of {size} bytes");
        assert_eq!(lab.a_mem.read(size..size + GUARD), [0xee; GUARD], "{size}");
    }
}

#[test]
fn both_directions_work_at_once() {
    let mut lab = Lab::new(65536);
    let (of_a, of_b) = (pattern(30000, 10), pattern(29999, 11));
    lab.a_mem.write(0, &of_a);
    lab.b_mem.write(0, &of_b);
    let (a_half, b_half) = (lab.a_mem.slice(32768..), lab.b_mem.slice(32768..));
    lab.receive(1, &[b_half]);
    post_recv(&mut lab.a.qp, [RecvRequest::new(2, &[a_half])]).unwrap();
    let (from_a, from_b) = (lab.a_mem.slice(..30000), lab.b_mem.slice(..29999));
    submit(&mut lab.a.qp, |batch| batch.op().signaled().send(3, &[from_a])).unwrap();
    submit(&mut lab.b.qp, |batch| batch.op().signaled().send(4, &[from_b])).unwrap();
    wait_ok(&lab.a.send_cq, 1);
    wait_ok(&lab.b.send_cq, 1);
    assert_eq!(wait_ok(&lab.a.recv_cq, 1)[0].len, 29999);
    assert_eq!(wait_ok(&lab.b.recv_cq, 1)[0].len, 30000);
    assert_eq!(lab.b_mem.read(32768..62768), of_a);
    assert_eq!(lab.a_mem.read(32768..62767), of_b);
}

#[test]
fn a_fenced_operation_uses_what_the_read_before_it_fetched() {
    let mut lab = Lab::new(65536);
    for round in 0..8 {
        let data = pattern(20000, 100 + round);
        lab.b_mem.write(0, &data);
        let (slice, remote) = (lab.a_mem.slice(..20000), lab.remote());
        lab.run(|batch| {
            batch.op().read(1, &[slice], remote.slice(..20000));
            batch.op().fenced().signaled().write(2, &[slice], remote.slice(32768..));
        });
        assert!(lab.b_mem.read(32768..52768) == data, "round {round}");
    }
}

#[test]
fn a_solicited_send_arrives_like_any_other() {
    let mut lab = Lab::new(4096);
    lab.receive(1, &[lab.b_mem.slice(..)]);
    lab.receive(2, &[lab.b_mem.slice(..)]);
    let remote = lab.remote();
    lab.run(|batch| {
        batch.op().solicited().send(1, b"solicited");
        batch.op().solicited().imm(9).signaled().write(2, b"S", remote);
    });
    let received = wait_ok(&lab.b.recv_cq, 2);
    assert_eq!((received[0].len, received[1].imm), (9, Some(9)));
    assert_eq!(lab.b_mem.read(..9), b"Solicited");
}
