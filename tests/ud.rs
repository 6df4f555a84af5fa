//! Datagrams: what arrives, what is lost, and how their queue pairs are brought up.

use std::io::IoSlice;

use ibverbs::{
    AddressHandle, Failed, LocalMemorySlice, Payload, QpState, QueuePair, QueuePairAttr,
    QueuePairAttrMask as Mask, RecvRequest, SendOp, SendOps, State, TransitionFailure, Ud,
    WcOpcode, WcStatus,
};
use ibverbs_tests::{
    activated, activated_with, assert_silent, longest_datagram, pattern, post_recv, prepare,
    submit, wait, wait_ok, wait_one, way, Bed, Mem, Prepared, Side, Wc, GRH, PORT, QKEY,
};

/// Two datagram queue pairs, each with memory, and the way from the one to the other.
struct Lab {
    a: Side<Ud>,
    b: Side<Ud>,
    a_mem: Mem,
    b_mem: Mem,
    to_b: AddressHandle,
    longest: usize,
}

impl Lab {
    fn new() -> Lab {
        let bed = Bed::new();
        let (a, b) = (activated(&bed, QKEY), activated(&bed, QKEY));
        let (to_b, longest) = (way(&a, &b), longest_datagram(&bed));
        Lab { a, b, a_mem: bed.mem(8192), b_mem: bed.mem(8192), to_b, longest }
    }

    /// Sends one datagram from `a` to `b` and waits for its completion, whatever it says.
    #[track_caller]
    fn try_send(&mut self, qkey: u32, describe: impl FnOnce(SendOp<'_, Ud>)) -> Wc {
        let number = self.b.qp.qp_num();
        submit(&mut self.a.qp, |batch| {
            describe(batch.to(&self.to_b, number, qkey).signaled());
        })
        .expect("the batch was refused");
        wait(&self.a.send_cq, 1).remove(0)
    }

    #[track_caller]
    fn send(&mut self, describe: impl FnOnce(SendOp<'_, Ud>)) -> Wc {
        let wc = self.try_send(QKEY, describe);
        assert_eq!(wc.ok, Ok(()));
        wc
    }

    /// Posts one receive on side `b`.
    #[track_caller]
    fn receive(&mut self, wr_id: u64, slices: &[LocalMemorySlice]) {
        post_recv(&mut self.b.qp, [RecvRequest::new(wr_id, slices)]).expect("receive refused");
    }

    /// That what was sent before is lost, and that what is sent now arrives.
    #[track_caller]
    fn assert_nothing_came_and_all_is_well(&mut self) {
        assert_silent(&self.b.recv_cq);
        self.b_mem.write(0, &[0; 8192]);
        self.receive(901, &[self.b_mem.slice(4096..)]);
        self.send(|op| op.send(902, b"all is well"));
        let received = wait_ok(&self.b.recv_cq, 1).remove(0);
        assert_eq!(received.len as usize, GRH + 11);
        let at = if received.wr_id == 901 { 4096 } else { 0 };
        assert_eq!(self.b_mem.read(at + GRH..at + GRH + 11), b"all is well");
    }
}

#[track_caller]
fn state<S: State>(qp: &mut QueuePair<Ud, S>) -> QpState {
    qp.query(Mask::STATE).unwrap().state().expect("the state was asked for")
}

#[test]
fn datagrams_of_every_size_arrive_whole_behind_their_header() {
    let mut lab = Lab::new();
    let sizes = [0, 1, 2, 3, 4, 5, 7, 8, 9, 63, 64, 65, 127, 128, 129, 255, 256];
    for size in sizes.into_iter().chain([lab.longest - 1, lab.longest]) {
        let data = pattern(size, size as u64);
        lab.a_mem.write(0, &data);
        lab.b_mem.write(0, &[0xee; 8192]);
        lab.receive(1, &[lab.b_mem.slice(..)]);
        let slice = lab.a_mem.slice(..size);
        let sent = lab.send(|op| op.send(2, &[slice]));
        assert_eq!((sent.wr_id, sent.opcode), (2, WcOpcode::SEND));
        let received = wait_one(&lab.b.recv_cq, 1);
        assert_eq!((received.ok, received.opcode), (Ok(()), WcOpcode::RECV));
        assert_eq!((received.len as usize, received.imm), (GRH + size, None));
        assert_eq!(received.qp_num, lab.b.qp.qp_num());
        assert_eq!(received.sender.src_qp, lab.a.qp.qp_num());
        assert!(lab.b_mem.read(GRH..GRH + size) == data, "{size} bytes");
        assert_eq!(lab.b_mem.read(GRH + size..), vec![0xee; 8192 - GRH - size], "{size}");
    }
}

#[test]
fn a_receive_that_just_fits_is_enough() {
    let mut lab = Lab::new();
    for size in [0, 1, 100, lab.longest] {
        let data = pattern(size, 7 + size as u64);
        lab.a_mem.write(0, &data);
        lab.b_mem.write(0, &[0xee; 8192]);
        lab.receive(1, &[lab.b_mem.slice(..GRH + size)]);
        let slice = lab.a_mem.slice(..size);
        lab.send(|op| op.send(2, &[slice]));
        assert_eq!(wait_one(&lab.b.recv_cq, 1).ok, Ok(()));
        assert!(lab.b_mem.read(GRH..GRH + size) == data, "{size} bytes");
        assert_eq!(lab.b_mem.read(GRH + size..), vec![0xee; 8192 - GRH - size], "{size}");
    }
}

#[test]
fn inline_data_is_copied_when_it_is_added() {
    let mut lab = Lab::new();
    for size in [0, 1, 15, 16, 17, 63, 64] {
        let mut data = pattern(size, 3);
        lab.receive(1, &[lab.b_mem.slice(..)]);
        lab.send(|op| {
            op.send(2, &data[..]);
            data.fill(0xff);
        });
        assert_eq!(wait_one(&lab.b.recv_cq, 1).len as usize, GRH + size);
        assert_eq!(lab.b_mem.read(GRH..GRH + size), pattern(size, 3), "{size} bytes");
    }
    let data = pattern(60, 4);
    let buffers = [&data[..1], &data[1..1], &data[1..40], &data[40..]].map(IoSlice::new);
    lab.receive(3, &[lab.b_mem.slice(..)]);
    lab.send(|op| op.send(4, &buffers));
    assert_eq!(wait_one(&lab.b.recv_cq, 3).len as usize, GRH + 60);
    assert_eq!(lab.b_mem.read(GRH..GRH + 60), data);
}

#[test]
fn immediate_data_arrives_in_the_completion() {
    let mut lab = Lab::new();
    let data = pattern(33, 5);
    for (imm, inline) in [(0, false), (0x0102_0304, true), (u32::MAX, false)] {
        lab.a_mem.write(0, &data);
        lab.receive(1, &[lab.b_mem.slice(..)]);
        let slices = [lab.a_mem.slice(..33)];
        let payload = if inline { Payload::from(&data[..]) } else { Payload::from(&slices) };
        lab.send(|op| op.imm(imm).send(2, payload));
        let received = wait_one(&lab.b.recv_cq, 1);
        assert_eq!((received.len as usize, received.imm), (GRH + 33, Some(imm)));
        assert_eq!(lab.b_mem.read(GRH..GRH + 33), data);
    }
    lab.receive(3, &[lab.b_mem.slice(..GRH)]);
    lab.send(|op| op.imm(7).solicited().send(4, Payload::EMPTY));
    let received = wait_one(&lab.b.recv_cq, 3);
    assert_eq!((received.len as usize, received.imm), (GRH, Some(7)));
}

#[test]
fn lists_are_gathered_and_scattered_with_the_header_in_a_place_of_its_own() {
    let mut lab = Lab::new();
    let data = pattern(8192, 6);
    lab.a_mem.write(0, &data);
    let from = [0..1, 100..103, 200..400, 1000..1500].map(|range| lab.a_mem.slice(range));
    let message = [&data[..1], &data[100..103], &data[200..400], &data[1000..1500]].concat();
    let into = [0..GRH, 100..103, 200..201, 1000..2000].map(|range| lab.b_mem.slice(range));
    lab.receive(1, &into);
    lab.send(|op| op.send(2, &from));
    assert_eq!(wait_one(&lab.b.recv_cq, 1).len as usize, GRH + message.len());
    let rest = message.len() - 4;
    let arrived =
        [lab.b_mem.read(100..103), lab.b_mem.read(200..201), lab.b_mem.read(1000..1000 + rest)];
    assert!(arrived.concat() == message);
    assert_eq!(lab.b_mem.read(GRH..100), [0; 60], "the gaps stay");
}

/// A number for each datagram, in its payload and its immediate data.
fn message(number: u32) -> [u8; 24] {
    pattern(24, u64::from(number)).try_into().expect("24 bytes")
}

/// Sends 1000 datagrams, so many with one doorbell, and checks that each arrives once.
fn assert_all_arrive(per_batch: u32) {
    let mut lab = Lab::new();
    const ROUND: u32 = 100;
    const SLOT: usize = 64;
    let number = lab.b.qp.qp_num();
    for start in (0..1000).step_by(ROUND as usize) {
        let slots: Vec<_> = (0..ROUND as usize)
            .map(|slot| [lab.b_mem.slice(slot * SLOT..slot * SLOT + SLOT)])
            .collect();
        let requests = slots.iter().zip(0..).map(|(slot, wr_id)| RecvRequest::new(wr_id, slot));
        post_recv(&mut lab.b.qp, requests.collect::<Vec<_>>()).unwrap();
        let mut next = start;
        while next < start + ROUND {
            let end = (next + per_batch).min(start + ROUND);
            submit(&mut lab.a.qp, |batch| {
                for n in next..end {
                    let op = batch.to(&lab.to_b, number, QKEY).imm(n);
                    let op = if n + 1 == start + ROUND { op.signaled() } else { op };
                    op.send(u64::from(n), &message(n));
                }
            })
            .unwrap();
            next = end;
        }
        assert_eq!(wait_one(&lab.a.send_cq, u64::from(start + ROUND - 1)).ok, Ok(()));
        let mut numbers = Vec::new();
        for wc in wait_ok(&lab.b.recv_cq, ROUND as usize) {
            let n = wc.imm.expect("immediate data");
            let at = wc.wr_id as usize * SLOT + GRH;
            assert_eq!(lab.b_mem.read(at..at + 24), message(n));
            numbers.push(n);
        }
        numbers.sort_unstable();
        assert_eq!(numbers, (start..start + ROUND).collect::<Vec<_>>());
    }
}

#[test]
fn a_thousand_datagrams_with_a_doorbell_each_arrive_once() {
    assert_all_arrive(1);
}

#[test]
fn a_thousand_datagrams_in_batches_arrive_once() {
    assert_all_arrive(32);
}

#[test]
fn one_queue_pair_sends_to_many_and_to_itself() {
    let bed = Bed::new();
    let mut sides: Vec<_> = (0..6).map(|_| activated(&bed, QKEY)).collect();
    let mem = bed.mem(6 * 256);
    let slices: Vec<_> = (0..6).map(|n| [mem.slice(n * 256..n * 256 + 256)]).collect();
    for (n, side) in sides.iter_mut().enumerate() {
        post_recv(&mut side.qp, [RecvRequest::new(n as u64, &slices[n])]).unwrap();
    }
    let ways: Vec<_> = sides.iter().map(|side| way(&sides[0], side)).collect();
    let numbers: Vec<_> = sides.iter().map(|side| side.qp.qp_num()).collect();
    let sender = &mut sides[0];
    submit(&mut sender.qp, |batch| {
        for n in 0..6 {
            let op = batch.to(&ways[n], numbers[n], QKEY).signaled().imm(n as u32);
            op.send(n as u64, &pattern(40, n as u64)[..]);
        }
    })
    .unwrap();
    wait_ok(&sides[0].send_cq, 6);
    for (n, side) in sides.iter().enumerate() {
        let received = wait_one(&side.recv_cq, n as u64);
        assert_eq!((received.imm, received.sender.src_qp), (Some(n as u32), numbers[0]));
        assert_eq!(mem.read(n * 256 + GRH..n * 256 + GRH + 40), pattern(40, n as u64));
    }
}

#[test]
fn a_datagram_with_a_wrong_key_is_dropped() {
    let mut lab = Lab::new();
    lab.receive(1, &[lab.b_mem.slice(..4096)]);
    for wrong in [0, QKEY ^ 1, !QKEY & !(1 << 31)] {
        let sent = lab.try_send(wrong, |op| op.send(2, b"wrong key"));
        assert_eq!(sent.ok, Ok(()), "the sender does not learn of it");
    }
    lab.assert_nothing_came_and_all_is_well();
}

#[test]
fn a_datagram_to_nobody_is_lost() {
    let mut lab = Lab::new();
    let gone = activated(&lab.a.bed, QKEY);
    let number = gone.qp.qp_num();
    gone.qp.close().unwrap();
    lab.receive(1, &[lab.b_mem.slice(..4096)]);
    submit(&mut lab.a.qp, |batch| {
        batch.to(&lab.to_b, number, QKEY).signaled().send(2, b"nobody");
    })
    .unwrap();
    assert_eq!(wait_one(&lab.a.send_cq, 2).ok, Ok(()));
    lab.assert_nothing_came_and_all_is_well();
}

#[test]
fn a_datagram_without_a_receive_is_lost() {
    let mut lab = Lab::new();
    lab.send(|op| op.send(1, b"too early"));
    lab.assert_nothing_came_and_all_is_well();
}

#[test]
fn a_datagram_that_is_longer_than_a_packet_does_not_arrive() {
    let mut lab = Lab::new();
    lab.receive(1, &[lab.b_mem.slice(..4096)]);
    let slice = lab.a_mem.slice(..lab.longest + 1);
    let sent = lab.try_send(QKEY, |op| op.send(2, &[slice]));
    // The specification wants no error (C10-93.1.1), and SoftRoCE obeys; others tell.
    match sent.status() {
        WcStatus::SUCCESS => lab.assert_nothing_came_and_all_is_well(),
        status => {
            assert_eq!(status, WcStatus::LOC_LEN_ERR);
            assert_silent(&lab.b.recv_cq);
        }
    }
}

#[test]
fn a_datagram_that_is_longer_than_its_receive_does_not_reach_beyond_it() {
    let mut lab = Lab::new();
    lab.b_mem.write(0, &[0xee; 8192]);
    lab.receive(1, &[lab.b_mem.slice(..GRH + 11)]);
    lab.send(|op| op.send(2, b"twelve bytes"));
    lab.send(|op| op.send(3, b"only eleven"));
    let first = wait_one(&lab.b.recv_cq, 1);
    // SoftRoCE drops the long one and keeps the receive for the next; others tell.
    if first.ok.is_ok() {
        assert_eq!(first.len as usize, GRH + 11);
        assert_eq!(lab.b_mem.read(GRH..GRH + 11), b"only eleven");
    } else {
        // Its kernel 6.1 calls it an error of the operation.
        let told = [WcStatus::LOC_LEN_ERR, WcStatus::LOC_QP_OP_ERR];
        assert!(told.contains(&first.status()), "{first:?}");
    }
    assert_eq!(lab.b_mem.read(GRH + 11..), vec![0xee; 8192 - GRH - 11]);
}

#[test]
fn a_queue_pair_is_reset_and_activated_with_another_key() {
    let mut lab = Lab::new();
    lab.receive(1, &[lab.b_mem.slice(..)]);
    let mut reset = lab.b.qp.reset().unwrap();
    assert_eq!(state(&mut reset), QpState::RESET);
    let other = QKEY + 1;
    lab.b.qp = reset.activate(other).unwrap();
    // The receive is gone with the reset.
    assert_eq!(lab.try_send(other, |op| op.send(2, b"lost")).ok, Ok(()));
    assert_silent(&lab.b.recv_cq);
    lab.receive(3, &[lab.b_mem.slice(..)]);
    assert_eq!(lab.try_send(QKEY, |op| op.send(4, b"the old key")).ok, Ok(()));
    assert_eq!(lab.try_send(other, |op| op.send(5, b"the new key")).ok, Ok(()));
    assert_eq!(wait_one(&lab.b.recv_cq, 3).ok, Ok(()));
    assert_eq!(lab.b_mem.read(GRH..GRH + 11), b"the new key");
}

/// Sends a datagram to a queue pair that has one receive, of `mem`, posted as number 1.
#[track_caller]
fn assert_receives<S: State>(
    qp: &QueuePair<Ud, S>,
    recv_cq: &ibverbs::CompletionQueue,
    mem: &Mem,
    bed: &Bed,
) {
    let mut sender = activated(bed, QKEY);
    let ah = ibverbs_tests::way_from(&sender, &qp.endpoint().unwrap());
    submit(&mut sender.qp, |batch| batch.to(&ah, qp.qp_num(), QKEY).signaled().send(2, b"caught"))
        .unwrap();
    assert_eq!(wait_one(&sender.send_cq, 2).ok, Ok(()));
    assert_eq!(wait_one(recv_cq, 1).ok, Ok(()));
    assert_eq!(mem.read(GRH..GRH + 6), b"caught");
}

#[test]
fn receives_that_wait_from_init_on_catch_the_first_datagram() {
    let bed = Bed::new();
    let Prepared { qp, recv_cq, .. } = prepare::<Ud>(&bed, |builder| builder);
    let mem = bed.mem(4096);
    let mut init = qp.init().unwrap();
    assert_eq!(state(&mut init), QpState::INIT);
    post_recv(&mut init, [RecvRequest::new(1, &[mem.slice(..)])]).unwrap();
    let mut qp = init.activate(QKEY).unwrap();
    assert_eq!(state(&mut qp), QpState::RTS);
    assert_receives(&qp, &recv_cq, &mem, &bed);
}

#[test]
fn a_query_tells_the_key_and_what_the_builder_set() {
    let bed = Bed::new();
    let mut side = activated_with(&bed, QKEY, |builder| builder.set_first_psn(0x12_3456));
    let attr = side.qp.query(Mask::STATE | Mask::QKEY | Mask::PORT | Mask::SQ_PSN).unwrap();
    assert_eq!((attr.state(), attr.qkey()), (Some(QpState::RTS), Some(QKEY)));
    assert_eq!((attr.port(), attr.sq_psn()), (Some(PORT), Some(0x12_3456)));
    assert_eq!(side.qp.send_ops(), SendOps::SEND | SendOps::SEND_WITH_IMM);
}

fn to(state: QpState) -> QueuePairAttr {
    QueuePairAttr::new().set_state(state)
}

#[test]
fn a_program_can_drive_all_states_itself() {
    let bed = Bed::new();
    let Prepared { qp, send_cq, recv_cq, .. } =
        prepare::<Ud>(&bed, |builder| builder.set_max_inline_data(16));
    let mem = bed.mem(4096);
    let mut qp = qp.into_manual();
    qp.modify(&to(QpState::INIT).set_pkey_index(0).set_port(PORT).set_qkey(QKEY)).unwrap();
    post_recv(&mut qp, [RecvRequest::new(1, &[mem.slice(..)])]).unwrap();
    qp.modify(&to(QpState::RTR)).unwrap();
    assert_receives(&qp, &recv_cq, &mem, &bed);
    qp.modify(&to(QpState::RTS).set_sq_psn(7)).unwrap();
    assert_eq!(qp.query(Mask::QKEY).unwrap().qkey(), Some(QKEY));

    // To a peer, and with another key from then on.
    let mut peer = activated(&bed, QKEY);
    let ah = way(&peer, &peer);
    post_recv(&mut peer.qp, [RecvRequest::new(3, &[mem.slice(..)])]).unwrap();
    submit(&mut qp, |batch| batch.to(&ah, peer.qp.qp_num(), QKEY).signaled().send(4, b"by hand"))
        .unwrap();
    assert_eq!(wait_one(&send_cq, 4).ok, Ok(()));
    assert_eq!(wait_one(&peer.recv_cq, 3).sender.src_qp, qp.qp_num());
    assert_eq!(mem.read(GRH..GRH + 7), b"by hand");
    qp.modify(&to(QpState::RTS).set_qkey(QKEY + 1)).unwrap();
    assert_eq!(qp.query(Mask::QKEY).unwrap().qkey(), Some(QKEY + 1));
    post_recv(&mut qp, [RecvRequest::new(5, &[mem.slice(..)])]).unwrap();
    for (wr_id, qkey, text) in [(6, QKEY, b"old"), (7, QKEY + 1, b"new")] {
        submit(&mut peer.qp, |batch| batch.to(&ah, qp.qp_num(), qkey).signaled().send(wr_id, text))
            .unwrap();
        assert_eq!(wait_one(&peer.send_cq, wr_id).ok, Ok(()));
    }
    assert_eq!(wait_one(&recv_cq, 5).ok, Ok(()));
    assert_eq!(mem.read(GRH..GRH + 3), b"new");
}

#[test]
fn what_a_transition_of_datagrams_takes_is_told() {
    let bed = Bed::new();
    let mut qp = prepare::<Ud>(&bed, |builder| builder).qp.into_manual();
    let mut refused = |attr: &QueuePairAttr| -> Box<TransitionFailure> {
        match qp.modify(attr).unwrap_err() {
            ibverbs::Error::Transition(failure) => failure,
            other => panic!("{other}"),
        }
    };
    let access = ibverbs::AccessFlags::REMOTE_READ;
    let failure = refused(&to(QpState::INIT).set_pkey_index(0).set_port(PORT).set_access(access));
    assert_eq!((failure.missing(), failure.not_allowed()), (Mask::QKEY, Mask::ACCESS_FLAGS));
    let failure = refused(&to(QpState::RTR));
    assert!(!failure.exists(), "{failure}");
}

/// Takes the right to raw packets away from this thread, for good.
fn drop_privileges() {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header { version: VERSION_3, pid: 0 };
    let none = [0u32; 6];
    // SAFETY: the header is that of version 3, which takes two times three numbers (capset(2)); both are
    // read during the call.
    let code = unsafe { libc::syscall(libc::SYS_capset, &header, none.as_ptr()) };
    assert_eq!(code, 0, "{}", std::io::Error::last_os_error());
}

/// Runs this on a thread that may not use privileged queue keys.
fn unprivileged<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            drop_privileges();
            f()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The highest bit makes a queue key a privileged one.
const PRIVILEGED: u32 = 1 << 31 | 1;

#[test]
fn a_privileged_key_works_for_the_privileged() {
    let bed = Bed::new();
    let activate = || {
        let Prepared { qp, send_cq, recv_cq, bed } =
            prepare::<Ud>(&bed, |builder| builder.set_max_inline_data(16));
        match qp.activate(PRIVILEGED) {
            Ok(qp) => Some(Side { qp, send_cq, recv_cq, bed }),
            Err(failed) => {
                assert_eq!(failed.error.os_error(), Some(libc::EPERM));
                None
            }
        }
    };
    let (Some(mut a), Some(mut b)) = (activate(), activate()) else { return };
    let mem = bed.mem(4096);
    let ah = way(&a, &b);
    post_recv(&mut b.qp, [RecvRequest::new(1, &[mem.slice(..)])]).unwrap();
    // In a request such a key stands for the queue pair's own, which is the same here.
    submit(&mut a.qp, |batch| {
        batch.to(&ah, b.qp.qp_num(), PRIVILEGED).signaled().send(2, b"hello")
    })
    .unwrap();
    assert_eq!(wait_one(&a.send_cq, 2).ok, Ok(()));
    assert_eq!(wait_one(&b.recv_cq, 1).ok, Ok(()));
    assert_eq!(mem.read(GRH..GRH + 5), b"hello");
}

#[test]
fn a_queue_pair_that_could_not_be_activated_comes_back_in_its_state() {
    let bed = Bed::new();
    let mem = bed.mem(4096);

    let Prepared { qp, .. } = prepare::<Ud>(&bed, |builder| builder);
    let Err(Failed { resource: mut reset, error }) = unprivileged(|| qp.activate(PRIVILEGED))
    else {
        eprintln!("not tested: this kernel gives privileged queue keys to everybody");
        return;
    };
    assert_eq!(error.os_error(), Some(libc::EPERM), "{error}");
    assert_eq!(state(&mut reset), QpState::RESET);
    assert_eq!(state(&mut reset.activate(QKEY).unwrap()), QpState::RTS);

    // From `Init` it comes back in `Init`, with the receives that were posted.
    let Prepared { qp, recv_cq, .. } = prepare::<Ud>(&bed, |builder| builder);
    let mut init = qp.init().unwrap();
    post_recv(&mut init, [RecvRequest::new(1, &[mem.slice(..)])]).unwrap();
    let mut init = unprivileged(|| init.activate(PRIVILEGED)).unwrap_err().resource;
    assert_eq!(state(&mut init), QpState::INIT);
    assert_receives(&init.activate(QKEY).unwrap(), &recv_cq, &mem, &bed);
}

#[test]
fn a_queue_pair_in_error_flushes_its_datagrams_and_works_after_a_reset() {
    let mut lab = Lab::new();
    lab.receive(1, &[lab.b_mem.slice(..)]);
    lab.b.qp.modify(&to(QpState::ERR)).unwrap();
    assert_eq!(wait_one(&lab.b.recv_cq, 1).status(), WcStatus::WR_FLUSH_ERR);
    lab.send(|op| op.send(2, b"lost"));
    lab.b.qp = lab.b.qp.reset().unwrap().activate(QKEY).unwrap();
    lab.assert_nothing_came_and_all_is_well();
}
