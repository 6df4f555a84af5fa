//! Rules 1, 5 and 9, as far as they concern datagrams: an address is part of its request, of the queue pair's
//! own domain, and alive when the provider gets it.

use ibverbs::{
    AddressHandle, Error, Failed, LocalMemorySlice, Payload, ProtectionDomain, QpState, QueuePair,
    QueuePairAttr, QueuePairAttrMask as Mask, Rc, RecvRequest, SendOps, State, Ud,
};
use null_provider::{Address, Kind, Operation, Path, Request, Verb};

use crate::common::{
    activated, null, open, parts, prepared, some_address, some_handle, submit, Null, Parts, QKEY,
};

/// What a request of a datagram takes from the provider.
const ONE: [Verb; 3] = [Verb::WrOperation, Verb::WrAddress, Verb::WrPayload];

/// The calls of a batch with so many requests, and how it ends.
fn batch_of(requests: usize, end: Verb) -> Vec<Verb> {
    [&[Verb::WrStart][..], &ONE.repeat(requests), &[end]].concat()
}

#[test]
fn a_handle_is_made_of_the_whole_address() {
    let null = null();
    let Parts { pd, .. } = parts();
    some_handle(&pd).close().unwrap();
    let dgid = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 7];
    let (port, dlid, sl, src_path_bits, static_rate) = (1, 5, 3, 1, 2);
    let (flow_label, sgid_index, hop_limit, traffic_class) = (0xabcde, 1, 9, 0x20);
    let expected = Path {
        port,
        dlid,
        sl,
        src_path_bits,
        static_rate,
        dgid,
        flow_label,
        sgid_index,
        hop_limit,
        traffic_class,
    };
    assert_eq!(null.paths(), [expected]);
}

#[test]
fn an_operation_its_address_and_its_payload_are_one_step() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let region = pd.allocate(64, ibverbs::AccessFlags::LOCAL_WRITE).unwrap();
    let (one, two) = (some_handle(&pd), some_handle(&pd));
    let mut qp = activated(&pd, &cq);
    null.take_calls();
    let slices = [region.slice(..8), region.slice(8..16)];
    let mut batch = qp.start_send();
    batch.to(&one, 17, QKEY).send(1, &slices[..1]);
    batch.to(&two, 18, 1).signaled().send(2, &slices);
    batch.to(&one, 0xff_ffff, u32::MAX).imm(5).send(3, b"inline");
    batch.to(&two, 0, 0).solicited().imm(6).send(4, Payload::EMPTY);
    // One that was begun and not named is nothing.
    let _ = batch.to(&one, 19, QKEY).signaled();
    submit(batch).unwrap();
    assert_eq!(null.verbs(), batch_of(4, Verb::WrComplete));
    let scatter = |slices: &[LocalMemorySlice]| {
        let entries = slices.iter().map(|slice| (slice.addr(), slice.len(), slice.lkey()));
        null_provider::Payload::Scatter(entries.collect())
    };
    let request = |wr_id, flags, imm: Option<u32>, to: (&AddressHandle, u32, u32), payload| {
        let (ah, remote_qpn, qkey) = to;
        Request {
            qp_num: qp.qp_num(),
            wr_id,
            flags,
            operation: Operation::Send { imm: imm.map(u32::to_be) },
            address: Some(Address { ah: ah.as_raw() as usize, remote_qpn, qkey }),
            payload,
        }
    };
    let inline = null_provider::Payload::Inline(b"inline".to_vec());
    let (signaled, solicited) = (ibverbs::ffi::IBV_SEND_SIGNALED, ibverbs::ffi::IBV_SEND_SOLICITED);
    let expected = [
        request(1, 0, None, (&one, 17, QKEY), scatter(&slices[..1])),
        request(2, signaled, None, (&two, 18, 1), scatter(&slices)),
        request(3, ibverbs::ffi::IBV_SEND_INLINE, Some(5), (&one, 0xff_ffff, u32::MAX), inline),
        request(4, solicited, Some(6), (&two, 0, 0), scatter(&[])),
    ];
    assert_eq!(null.take_requests(), expected);
}

#[track_caller]
fn expect_mismatch(result: ibverbs::Result<()>) {
    match result {
        Err(Error::ProtectionDomainMismatch { what }) => assert_eq!(what, "address handle"),
        other => panic!("{other:?}"),
    }
}

/// That a handle of `other` is refused when the batch is submitted, wherever in it it stands, and that the
/// provider never gets it.
fn refuses_a_handle_of(null: &Null, other: &ProtectionDomain) {
    let Parts { pd, cq, .. } = parts();
    let (own, foreign) = (some_handle(&pd), some_handle(other));
    let mut qp = activated(&pd, &cq);
    null.take_calls();
    for (order, begun) in [
        (&[&foreign][..], 0),
        (&[&foreign, &foreign], 0),
        (&[&own, &foreign], 1),
        (&[&foreign, &own], 1),
        (&[&own, &foreign, &own], 2),
    ] {
        let mut batch = qp.start_send();
        for ah in order {
            batch.to(ah, 17, QKEY).signaled().send(1, b"hello");
        }
        expect_mismatch(submit(batch));
        assert_eq!(null.verbs(), batch_of(begun, Verb::WrAbort));
    }
    // Even one that is not used: whoever names it expects something of it.
    let mut batch = qp.start_send();
    let _ = batch.to(&foreign, 17, QKEY);
    expect_mismatch(submit(batch));
    // With immediate data, which is another function.
    let mut batch = qp.start_send();
    batch.to(&foreign, 17, QKEY).imm(1).send(1, Payload::EMPTY);
    expect_mismatch(submit(batch));
    assert_eq!(null.take_requests(), []);
    // The next batch is none the worse.
    let mut batch = qp.start_send();
    batch.to(&own, 17, QKEY).send(2, b"hello");
    submit(batch).unwrap();
    assert_eq!(null.take_requests().len(), 1);
}

#[test]
fn a_handle_of_another_domain_is_refused() {
    let null = null();
    refuses_a_handle_of(&null, &open(0).alloc_pd().unwrap());
    let ctx = open(0);
    let (one, other) = (ctx.alloc_pd().unwrap(), ctx.alloc_pd().unwrap());
    let cq = ctx.create_cq(1).build().unwrap();
    let mut qp = activated(&one, &cq);
    let foreign = some_handle(&other);
    let mut batch = qp.start_send();
    batch.to(&foreign, 17, QKEY).send(1, b"hello");
    expect_mismatch(submit(batch));
}

#[test]
fn a_handle_of_another_device_is_refused() {
    let null = null();
    refuses_a_handle_of(&null, &open(1).alloc_pd().unwrap());
}

#[test]
fn the_first_reason_to_refuse_a_batch_is_told() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    let (own, foreign) = (some_handle(&pd), some_handle(&ctx.alloc_pd().unwrap()));
    let mut qp = activated(&pd, &cq);
    let mut batch = qp.start_send();
    batch.to(&own, 17, QKEY).send(1, &[0; 1000]);
    batch.to(&foreign, 17, QKEY).send(2, b"hello");
    assert!(matches!(submit(batch), Err(Error::InlineTooLong { bytes: 1000, .. })));
    let mut batch = qp.start_send();
    batch.to(&foreign, 17, QKEY).send(2, &[0; 1000]);
    expect_mismatch(submit(batch));
    assert_eq!(null.take_requests(), []);
}

#[test]
fn nothing_is_addressed_before_the_queue_pair_is_ready() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    let (own, foreign) = (some_handle(&pd), some_handle(&ctx.alloc_pd().unwrap()));
    let mut qp = prepared(&pd, &cq).into_manual();
    let to = |state| QueuePairAttr::new().set_state(state);
    for state in [QpState::INIT, QpState::RTR, QpState::RTS] {
        null.take_calls();
        for ah in [&own, &foreign] {
            let mut batch = qp.start_send();
            batch.to(ah, 17, QKEY).send(1, b"hello");
            assert!(matches!(submit(batch), Err(Error::NotReadyToSend)));
        }
        null.expect_no_calls();
        qp.modify(&to(state)).unwrap();
    }
    let mut batch = qp.start_send();
    batch.to(&own, 17, QKEY).send(1, b"hello");
    submit(batch).unwrap();
}

#[test]
fn a_handle_may_go_before_its_batch() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let mut qp = activated(&pd, &cq);
    let ah = some_handle(&pd);
    let mut batch = qp.start_send();
    batch.to(&ah, 17, QKEY).send(1, b"hello");
    drop(ah);
    assert_eq!(null.live(Kind::Ah), 0);
    submit(batch).unwrap();
    assert_eq!(null.take_requests().len(), 1);
    // And before one that was forgotten is aborted.
    let ah = some_handle(&pd);
    let mut batch = qp.start_send();
    batch.to(&ah, 17, QKEY).send(2, b"lost");
    let _ = batch.to(&ah, 17, QKEY);
    std::mem::forget(batch);
    drop(ah);
    null.take_calls();
    drop(qp.start_send());
    assert_eq!(null.verbs(), [Verb::WrAbort, Verb::WrStart, Verb::WrAbort]);
    assert_eq!(null.take_requests(), []);
}

#[test]
fn the_function_for_addresses_is_demanded_where_there_are_any() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    null.configure(|config| config.edit_qp = Some(Box::new(|qp| qp.wr_set_ud_addr = None)));
    match pd.create_qp::<Ud>(&cq, &cq, 1).unwrap().build() {
        Err(Error::Unsupported { operation }) => assert_eq!(operation, "ibv_qp_ex.wr_set_ud_addr"),
        other => panic!("{other:?}"),
    }
    assert_eq!(null.live(Kind::Qp), 0);
    drop(pd.create_qp::<Rc>(&cq, &cq, 1).unwrap().build().unwrap());
}

#[test]
fn datagrams_demand_sends_and_nothing_else() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    null.configure(|config| {
        config.edit_qp = Some(Box::new(|qp| {
            qp.wr_rdma_write = None;
            qp.wr_rdma_write_imm = None;
            qp.wr_rdma_read = None;
            qp.wr_atomic_cmp_swp = None;
            qp.wr_atomic_fetch_add = None;
        }));
    });
    assert_eq!(activated(&pd, &cq).send_ops(), SendOps::SEND | SendOps::SEND_WITH_IMM);
    for (clear, left) in [
        (|qp: &mut ibverbs::ffi::ibv_qp_ex| qp.wr_send = None, SendOps::SEND_WITH_IMM),
        (|qp: &mut ibverbs::ffi::ibv_qp_ex| qp.wr_send_imm = None, SendOps::SEND),
    ] as [(fn(&mut ibverbs::ffi::ibv_qp_ex), SendOps); 2]
    {
        null.configure(|config| config.edit_qp = Some(Box::new(clear)));
        let result = pd.create_qp::<Ud>(&cq, &cq, 1).unwrap().build();
        assert!(matches!(result, Err(Error::Unsupported { .. })), "{result:?}");
        let builder = pd.create_qp::<Ud>(&cq, &cq, 1).unwrap().set_send_ops(left);
        let mut qp = builder.build().unwrap().activate(QKEY).unwrap();
        let ah = some_handle(&pd);
        let mut batch = qp.start_send();
        batch.to(&ah, 17, QKEY).send(1, Payload::EMPTY);
        batch.to(&ah, 17, QKEY).imm(1).send(2, Payload::EMPTY);
        assert!(matches!(submit(batch), Err(Error::OperationNotGranted { .. })));
    }
    for op in [SendOps::RDMA_WRITE, SendOps::RDMA_READ, SendOps::ATOMICS, SendOps::LOCAL_INV] {
        let builder = pd.create_qp::<Ud>(&cq, &cq, 1).unwrap().add_send_ops(op);
        assert!(matches!(builder.build(), Err(Error::InvalidSendOps { .. })), "{op:?}");
    }
}

#[test]
fn a_device_without_address_handles_says_so() {
    let null = null();
    let Parts { pd, .. } = parts();
    null.fail(Verb::CreateAh, libc::EOPNOTSUPP);
    let error = pd.create_ah(&some_address()).unwrap_err();
    assert!(matches!(error, Error::Unsupported { operation: "ibv_create_ah" }), "{error}");
    null.fail(Verb::CreateAh, libc::ENOMEM);
    assert_eq!(pd.create_ah(&some_address()).unwrap_err().os_error(), Some(libc::ENOMEM));
}

#[test]
fn a_handle_keeps_its_domain() {
    let _null = null();
    let Parts { pd, .. } = parts();
    let ah = some_handle(&pd);
    let Failed { resource: pd, error } = pd.close().unwrap_err();
    assert!(matches!(error, Error::InUse { resource: "protection domain" }), "{error}");
    ah.close().unwrap();
    pd.close().unwrap();
}

#[track_caller]
fn state<S: State>(qp: &mut QueuePair<Ud, S>) -> Option<QpState> {
    qp.query(Mask::STATE).unwrap().state()
}

#[test]
fn a_queue_pair_that_could_not_be_activated_comes_back_in_its_state() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    // To INIT, to RTR and to RTS.
    for step in 0..3 {
        null.fail_after(Verb::ModifyQp, step, libc::EIO);
        let mut reset = prepared(&pd, &cq).activate(QKEY).unwrap_err().resource;
        null.succeed(Verb::ModifyQp);
        if step == 0 {
            assert_eq!(state(&mut reset), Some(QpState::RESET));
        }
        assert_eq!(
            state(&mut reset.activate(QKEY).unwrap_or_else(|failed| {
                // The way back failed as well, which the next transition repairs.
                failed.resource.activate(QKEY).unwrap()
            })),
            Some(QpState::RTS),
            "{step}"
        );
    }
    for step in 0..2 {
        let mut init = prepared(&pd, &cq).init().unwrap();
        // SAFETY: the null provider never touches the memory of a scatter entry.
        unsafe { init.post_recv([RecvRequest::new(1, &[])]) }.unwrap();
        null.fail_after(Verb::ModifyQp, step, libc::EIO);
        let Failed { resource: mut init, error } = init.activate(QKEY).unwrap_err();
        assert_eq!(error.os_error(), Some(libc::EIO));
        null.succeed(Verb::ModifyQp);
        if step == 0 {
            assert_eq!(state(&mut init), Some(QpState::INIT));
        }
        drop(init);
    }
}
