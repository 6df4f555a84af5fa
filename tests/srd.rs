//! Scalable reliable datagrams: on devices of EFA, and on the software device, which is to be like one here.

use ibverbs::efa::{DeviceCaps, SendQueueShape, WcFields};
use ibverbs::{
    AccessFlags, AddressHandle, AddressVector, Error, QueuePairEndpoint, RecvRequest, SendOps, Srd,
    WcOpcode, WcStatus,
};
use ibverbs_tests::{
    assert_silent, eventually, hear, pattern, post_recv, prepare, role, submit, tell, wait,
    wait_ok, wait_one, Bed, Mem, PeerProcess, Prepared, Side, GRH, PORT, QKEY,
};

/// The most that a send has.
fn longest(bed: &Bed) -> usize {
    bed.ctx().query_port(PORT).unwrap().max_msg_size() as usize
}

/// What of SRD the device has.
fn send_ops(bed: &Bed) -> SendOps {
    bed.ctx().query_efa_device().unwrap().send_ops()
}

/// A queue pair that is ready, with all operations of the device.
#[track_caller]
fn activated(bed: &Bed) -> Side<Srd> {
    let ops = send_ops(bed);
    let prepared = prepare::<Srd>(bed, |builder| builder.set_send_ops(ops).set_max_inline_data(32));
    let Prepared { qp, send_cq, recv_cq, bed } = prepared;
    Side { qp: qp.activate(QKEY).unwrap(), send_cq, recv_cq, bed }
}

#[track_caller]
fn way(from: &Side<Srd>, to: &QueuePairEndpoint) -> AddressHandle {
    from.bed.pd().create_ah(&from.qp.address_of(to).unwrap()).unwrap()
}

/// Two queue pairs, the way from the first to the second, and its number.
#[track_caller]
fn two(bed: &Bed) -> (Side<Srd>, Side<Srd>, AddressHandle, u32) {
    let (a, b) = (activated(bed), activated(bed));
    let to = b.qp.endpoint().unwrap();
    let ah = way(&a, &to);
    (a, b, ah, to.qp_num())
}

/// Posts a receive of this size for each of these places in memory, which are numbered by them.
#[track_caller]
fn receive(side: &mut Side<Srd>, mem: &Mem, size: usize, count: usize) {
    for place in 0..count {
        let into = mem.slice(place * size..(place + 1) * size);
        post_recv(&mut side.qp, [RecvRequest::new(place as u64, &[into])]).unwrap();
    }
}

#[test]
fn the_device_says_what_it_has() {
    let Some(bed) = Bed::of_efa() else { return };
    let attr = bed.ctx().query_efa_device().unwrap();
    assert!(attr.max_sq_wr() > 0 && attr.max_rq_wr() > 0 && attr.inline_buf_size() >= 32);
    assert_eq!(attr.send_ops().contains(SendOps::RDMA_READ), attr.max_rdma_size() > 0);
    let shape = SendQueueShape { max_send_sge: 1, ..Default::default() };
    assert_eq!(bed.ctx().efa_max_send_wr(&shape).unwrap(), attr.max_sq_wr());
    assert!(bed.ctx().efa_max_recv_wr(1).unwrap() >= bed.ctx().efa_max_recv_wr(2).unwrap());
    assert!((4096..16_384).contains(&longest(&bed)));
    bed.mem(4096).region().efa_interconnects().unwrap();
    // What is too much is told with what there is.
    let cq = bed.ctx().create_cq(4).build().unwrap();
    let builder = bed.pd().create_srd_qp(&cq, &cq, PORT).unwrap();
    let error = builder.set_max_send_wr(attr.max_sq_wr() + 1).build().unwrap_err();
    let Error::Capacity { requested, available, .. } = error else { panic!("{error}") };
    let most = u64::from(attr.max_sq_wr());
    assert_eq!((requested, available), (most + 1, most));
}

#[test]
fn messages_of_all_sizes_arrive_from_their_first_byte_on() {
    let Some(bed) = Bed::of_efa() else { return };
    let (mut a, mut b, ah, number) = two(&bed);
    let most = longest(&bed);
    let (from, to) = (bed.mem(most), bed.mem(most));
    for (round, len) in (0..).zip([1, 4096, 4097, most, 0]) {
        let data = pattern(len, round);
        from.write(0, &data);
        receive(&mut b, &to, most, 1);
        let imm = (round % 2 == 1).then_some(round as u32);
        submit(&mut a.qp, |batch| {
            let op = batch.to(&ah, number, QKEY);
            match imm {
                Some(imm) => op.imm(imm).send(9, &[from.slice(..len)]),
                None => op.send(9, &[from.slice(..len)]),
            }
        })
        .unwrap();
        let received = wait_one(&b.recv_cq, 0);
        assert_eq!((received.ok, received.opcode), (Ok(()), WcOpcode::RECV));
        assert_eq!((received.len as usize, received.imm), (len, imm));
        assert_eq!(received.sender.src_qp, a.qp.qp_num());
        assert!(to.read(..len) == data, "{len} bytes");
        // It completes without being asked to.
        let sent = wait_one(&a.send_cq, 9);
        assert_eq!((sent.ok, sent.opcode), (Ok(()), WcOpcode::SEND));
    }
}

#[test]
fn many_messages_arrive_once_each_in_any_order() {
    const COUNT: usize = 64;
    const SIZE: usize = 64;
    let Some(bed) = Bed::of_efa() else { return };
    let (mut a, mut b, ah, number) = two(&bed);
    let to = bed.mem(COUNT * SIZE);
    for round in 0..20 {
        receive(&mut b, &to, SIZE, COUNT);
        submit(&mut a.qp, |batch| {
            for index in 0..COUNT as u64 {
                batch.to(&ah, number, QKEY).send(index, &(round * 1000 + index).to_ne_bytes());
            }
        })
        .unwrap();
        let mut got: Vec<u64> = wait_ok(&b.recv_cq, COUNT)
            .iter()
            .map(|received| to.read_u64(received.wr_id as usize * SIZE))
            .collect();
        got.sort_unstable();
        assert!(got.into_iter().eq((0..COUNT as u64).map(|index| round * 1000 + index)));
        let mut sent: Vec<u64> = wait_ok(&a.send_cq, COUNT).iter().map(|wc| wc.wr_id).collect();
        sent.sort_unstable();
        assert!(sent.into_iter().eq(0..COUNT as u64));
    }
}

#[test]
fn memory_is_written_and_read() {
    let Some(bed) = Bed::of_efa() else { return };
    let ops = send_ops(&bed);
    let (mut a, mut b, ah, number) = two(&bed);
    let len = 3 << 20;
    let (local, remote) = (bed.mem(len), bed.mem(len));
    let data = pattern(len, 7);
    if ops.contains(SendOps::RDMA_WRITE) {
        local.write(0, &data);
        submit(&mut a.qp, |batch| {
            batch.to(&ah, number, QKEY).write(1, &[local.slice(..)], remote.remote());
        })
        .unwrap();
        assert_eq!(wait_one(&a.send_cq, 1).opcode, WcOpcode::RDMA_WRITE);
        assert!(remote.read(..) == data);
        // With immediate data, which comes when everything is there, and takes a receive.
        let data = pattern(len, 8);
        local.write(0, &data);
        receive(&mut b, &remote, 0, 1);
        submit(&mut a.qp, |batch| {
            let op = batch.to(&ah, number, QKEY);
            op.imm(77).write(2, &[local.slice(..)], remote.remote());
        })
        .unwrap();
        let received = wait(&b.recv_cq, 1).remove(0);
        assert_eq!(received.opcode, WcOpcode::RECV_RDMA_WITH_IMM);
        assert_eq!((received.ok, received.imm, received.len), (Ok(()), Some(77), len as u32));
        assert!(remote.read(..) == data);
        assert_eq!(wait_one(&a.send_cq, 2).ok, Ok(()));
    }
    if ops.contains(SendOps::RDMA_READ) {
        let data = pattern(len, 9);
        remote.write(0, &data);
        submit(&mut a.qp, |batch| {
            batch.to(&ah, number, QKEY).read(3, &[local.slice(..)], remote.remote());
        })
        .unwrap();
        // EFA tells writes and the rest apart.
        assert_eq!(wait_one(&a.send_cq, 3).opcode, WcOpcode::SEND);
        assert!(local.read(..) == data);
    }
    assert_silent(&b.recv_cq);
}

#[test]
fn what_fails_fails_alone_and_says_why() {
    let Some(bed) = Bed::of_efa() else { return };
    let (mut a, mut b, ah, number) = two(&bed);
    let mem = bed.mem(64);
    let readable = bed.mem_with(64, AccessFlags::LOCAL_WRITE | AccessFlags::REMOTE_READ);
    // A queue pair that was there.
    let gone = activated(&bed);
    let gone_number = gone.qp.qp_num();
    gone.qp.close().unwrap();
    submit(&mut a.qp, |batch| batch.to(&ah, gone_number, QKEY).send(1, b"gone")).unwrap();
    let failed = wait_one(&a.send_cq, 1);
    let error = failed.ok.unwrap_err();
    assert_eq!((error.status, error.vendor_err), (WcStatus::REM_INV_RD_REQ_ERR, 9));
    // A key that does not allow it.
    if send_ops(&bed).contains(SendOps::RDMA_WRITE) {
        submit(&mut a.qp, |batch| {
            batch.to(&ah, number, QKEY).write(2, &[mem.slice(..)], readable.remote());
        })
        .unwrap();
        let error = wait_one(&a.send_cq, 2).ok.unwrap_err();
        assert_eq!((error.status, error.vendor_err), (WcStatus::REM_ACCESS_ERR, 7));
    }
    // The queue pair goes on.
    receive(&mut b, &mem, 64, 1);
    submit(&mut a.qp, |batch| batch.to(&ah, number, QKEY).send(3, b"goes on")).unwrap();
    assert_eq!(wait_one(&b.recv_cq, 0).ok, Ok(()));
    assert_eq!(wait_one(&a.send_cq, 3).ok, Ok(()));
}

#[test]
fn who_is_not_ready_is_waited_for_or_not() {
    let Some(bed) = Bed::of_efa() else { return };
    let (mut a, mut b, ah, number) = two(&bed);
    submit(&mut a.qp, |batch| batch.to(&ah, number, QKEY).send(1, b"later")).unwrap();
    assert_silent(&a.send_cq);
    let mem = bed.mem(64);
    receive(&mut b, &mem, 64, 1);
    assert_eq!(wait_one(&b.recv_cq, 0).ok, Ok(()));
    assert_eq!(wait_one(&a.send_cq, 1).ok, Ok(()));

    if bed.ctx().query_efa_device().unwrap().capabilities().contains(DeviceCaps::RNR_RETRY) {
        let prepared =
            prepare::<Srd>(&bed, |builder| builder.set_rnr_retry(0).set_max_inline_data(32));
        let mut qp = prepared.qp.activate(QKEY).unwrap();
        submit(&mut qp, |batch| batch.to(&ah, number, QKEY).send(2, b"now")).unwrap();
        let error = wait_one(&prepared.send_cq, 2).ok.unwrap_err();
        assert_eq!((error.status, error.vendor_err), (WcStatus::RNR_RETRY_EXC_ERR, 10));
    }
    assert_silent(&b.recv_cq);
}

#[test]
fn senders_are_named_by_the_number_of_their_handle_or_by_their_gid() {
    let Some(bed) = Bed::of_efa() else { return };
    let caps = bed.ctx().query_efa_device().unwrap().capabilities();
    if !caps.contains(DeviceCaps::CQ_WITH_SGID) {
        return;
    }
    // Another context knows no handles of the first.
    let other = Bed::on(bed.ctx().device().open().unwrap());
    let mut a = activated(&bed);
    let cq = other.ctx().create_cq(16).set_efa_wc_fields(WcFields::SENDER_GID).build().unwrap();
    let builder = other.pd().create_srd_qp(&cq, &cq, PORT).unwrap();
    let mut qp = builder.set_gid_index(other.gid_index()).build().unwrap().activate(QKEY).unwrap();
    let to = qp.endpoint().unwrap();
    let ah = way(&a, &to);
    assert_eq!(ah.efa_ahn().unwrap(), way(&a, &to).efa_ahn().unwrap());
    let mem = other.mem(64);
    let mut handle = None;
    for known in [false, true] {
        post_recv(&mut qp, [RecvRequest::new(5, &[mem.slice(..)])]).unwrap();
        submit(&mut a.qp, |batch| batch.to(&ah, to.qp_num(), QKEY).send(1, b"who")).unwrap();
        assert_eq!(wait_one(&a.send_cq, 1).ok, Ok(()));
        let mut told = None;
        eventually("the message arrives", || {
            let mut polled = cq.poll().unwrap();
            let received = polled.as_mut().and_then(|completions| {
                let wc = completions.next()?;
                Some((wc.slid(), wc.efa_sender_gid()))
            });
            told = received;
            told.is_some()
        });
        let (slid, gid) = told.unwrap();
        let named: Option<u16> = handle.as_ref().map(|ah: &AddressHandle| ah.efa_ahn().unwrap());
        assert_eq!(known, named.is_some());
        match named {
            Some(number) => assert_eq!((slid, gid), (number.into(), None)),
            None => {
                let gid = gid.expect("nobody here has a handle");
                assert_eq!((slid, gid), (0xffff, bed.gid().gid()));
                let index = other.gid_index();
                let back = AddressVector::to_gid(PORT, index, gid);
                handle = Some(other.pd().create_ah(&back).unwrap());
            }
        }
    }
}

#[test]
fn ordinary_datagrams_are_still_there() {
    let Some(bed) = Bed::of_efa() else { return };
    let mut side = ibverbs_tests::activated(&bed, QKEY);
    let ah = ibverbs_tests::way(&side, &side);
    let mem = bed.mem(128);
    post_recv(&mut side.qp, [RecvRequest::new(1, &[mem.slice(..)])]).unwrap();
    let number = side.qp.qp_num();
    submit(&mut side.qp, |batch| {
        batch.to(&ah, number, QKEY).signaled().send(2, b"plain");
    })
    .unwrap();
    assert_eq!(wait_one(&side.send_cq, 2).ok, Ok(()));
    assert_eq!(wait_one(&side.recv_cq, 1).len as usize, GRH + 5);
}

/// Two processes, of which each sends the other many messages.
#[test]
fn two_processes_send_each_other_many_messages() {
    const TEST: &str = "two_processes_send_each_other_many_messages";
    const ROUNDS: u64 = 50;
    const COUNT: usize = 16;
    let Some(bed) = Bed::of_efa() else { return };
    let most = longest(&bed);
    let mut side = activated(&bed);
    let own = side.qp.endpoint().unwrap().to_bytes();
    let print = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let parse = |text: &str| {
        let byte = |n: usize| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).unwrap();
        QueuePairEndpoint::from_bytes(&std::array::from_fn::<_, { QueuePairEndpoint::BYTES }, _>(
            byte,
        ))
    };
    let is_peer = role().is_some();
    let mut peer = (!is_peer).then(|| PeerProcess::start(TEST, "peer"));
    let mut meet = |line: &str| match &mut peer {
        Some(peer) => {
            peer.tell(line);
            peer.hear()
        }
        None => {
            tell(line);
            hear()
        }
    };
    let remote = parse(&meet(&print(&own))).unwrap();
    let ah = way(&side, &remote);
    let (from, into) = (bed.mem(most), bed.mem(COUNT * most));
    for round in 0..ROUNDS {
        let len = pattern(2, round)[0] as usize * most / 255;
        from.write(0, &pattern(len, round));
        receive(&mut side, &into, most, COUNT);
        assert_eq!(meet("ready"), "ready");
        submit(&mut side.qp, |batch| {
            for index in 0..COUNT as u32 {
                let op = batch.to(&ah, remote.qp_num(), QKEY);
                op.imm(index).send(index.into(), &[from.slice(..len)]);
            }
        })
        .unwrap();
        let received = wait_ok(&side.recv_cq, COUNT);
        let mut numbers: Vec<u32> = received.iter().map(|wc| wc.imm.unwrap()).collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..COUNT as u32));
        for wc in received {
            let start = wc.wr_id as usize * most;
            assert!(wc.len as usize == len && into.read(start..start + len) == pattern(len, round));
        }
        wait_ok(&side.send_cq, COUNT);
    }
    assert_eq!(meet("done"), "done");
}
