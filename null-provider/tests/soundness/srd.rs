//! Scalable reliable datagrams, whose queue pairs a verb of EFA creates, and whose operations have rules of their own.

use ibverbs::efa::{DeviceCaps, SendQueueShape};
use ibverbs::{
    ffi, AccessFlags, AddressHandle, CompletionQueue, Context, Error, Payload, ProtectionDomain,
    QpState, QueuePair, QueuePairAttr, QueuePairBuilder, RemoteMemorySlice, Result, SendOps, Srd,
    Ud,
};
use null_provider::{Kind, Operation, Request, Verb};

use crate::common::{null, open, parts, some_handle, submit, Null, Parts, QKEY};

/// The provider, with EFA's devices.
pub(crate) fn efa() -> Null {
    let null = null();
    null.configure(|config| config.is_efa = true);
    null
}

pub(crate) fn without(null: &Null, caps: DeviceCaps) {
    null.configure(|config| {
        config.edit_efa_attr = Some(Box::new(move |attr| attr.device_caps &= !caps.bits()));
    });
}

pub(crate) fn builder<'a>(
    pd: &'a ProtectionDomain,
    cq: &'a CompletionQueue,
) -> QueuePairBuilder<'a, Srd> {
    pd.create_srd_qp(cq, cq, 1).unwrap()
}

/// With everything that the device has.
pub(crate) fn srd(ctx: &Context, pd: &ProtectionDomain, cq: &CompletionQueue) -> QueuePair<Srd> {
    let ops = ctx.query_efa_device().unwrap().send_ops();
    let builder = builder(pd, cq).set_send_ops(ops).set_max_send_sge(2).set_max_inline_data(16);
    builder.build().unwrap().activate(QKEY).unwrap()
}

#[track_caller]
pub(crate) fn expect_unsupported<T>(result: Result<T>, what: &str) {
    match result.map(drop) {
        Err(Error::Unsupported { operation }) => assert!(operation.contains(what), "{operation}"),
        other => panic!("{what}: {other:?}"),
    }
}

#[test]
fn a_queue_pair_is_created_by_efas_verb() {
    let null = efa();
    let Parts { pd, cq, .. } = parts();
    null.take_calls();
    let prepared = builder(&pd, &cq).build().unwrap();
    assert_eq!((null.count(Verb::CreateSrdQp), null.count(Verb::CreateQp)), (1, 0));
    assert_eq!(prepared.send_ops(), SendOps::SEND | SendOps::SEND_WITH_IMM);
    drop(pd.create_qp::<Srd>(&cq, &cq, 1).unwrap().build().unwrap());
    assert_eq!((null.count(Verb::CreateSrdQp), null.count(Verb::CreateQp)), (2, 0));
    drop(pd.create_qp::<Ud>(&cq, &cq, 1).unwrap().build().unwrap());
    assert_eq!((null.count(Verb::CreateSrdQp), null.count(Verb::CreateQp)), (2, 1));
}

#[test]
fn what_only_srd_has_is_asked_for() {
    let null = efa();
    let Parts { pd, cq, .. } = parts();
    drop(builder(&pd, &cq).build().unwrap());
    drop(builder(&pd, &cq).set_inline_write(true).set_service_level(8).build().unwrap());
    drop(builder(&pd, &cq).set_unsolicited_write_recv(true).build().unwrap());
    let attr = |flags: u32, sl| ffi::efadv_qp_init_attr {
        driver_qp_type: ffi::EFADV_QP_DRIVER_TYPE_SRD,
        flags: flags as u16,
        sl,
        ..Default::default()
    };
    let created: Vec<_> = null.srd().iter().map(|attr| (attr.flags, attr.sl)).collect();
    let expected = [
        attr(0, 0),
        attr(ffi::EFADV_QP_FLAGS_INLINE_WRITE, 8),
        attr(ffi::EFADV_QP_FLAGS_UNSOLICITED_WRITE_RECV, 0),
    ];
    assert_eq!(created, expected.map(|attr| (attr.flags, attr.sl)));
}

#[test]
fn another_device_has_no_srd() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    let region = pd.allocate(64, AccessFlags::LOCAL_WRITE).unwrap();
    let ah = some_handle(&pd);
    expect_unsupported(builder(&pd, &cq).build(), "SRD, which EFA devices have");
    expect_unsupported(ctx.query_efa_device(), "efadv_query_device, of EFA devices only");
    expect_unsupported(ctx.efa_max_send_wr(&SendQueueShape::default()), "efadv_get_max_sq_depth");
    expect_unsupported(ctx.efa_max_recv_wr(1), "efadv_get_max_rq_depth");
    expect_unsupported(ah.efa_ahn(), "efadv_query_ah");
    expect_unsupported(region.efa_interconnects(), "efadv_query_mr");
    assert_eq!(null.count(Verb::CreateQp) + null.count(Verb::CreateSrdQp), 0);
}

const REMOTE: RemoteMemorySlice = RemoteMemorySlice { addr: 0x1000, len: 64, rkey: 0x77 };

#[test]
fn operations_are_addressed_and_signaled() {
    let null = efa();
    let Parts { ctx, pd, cq } = parts();
    let region = pd.allocate(64, AccessFlags::LOCAL_WRITE).unwrap();
    let entry = (region.slice(..8).addr(), 8, region.slice(..8).lkey());
    let slices = [region.slice(..8)];
    let ah = some_handle(&pd);
    let mut qp = srd(&ctx, &pd, &cq);
    null.take_calls();
    let mut batch = qp.start_send();
    batch.to(&ah, 17, 1).send(1, &slices);
    batch.to(&ah, 18, 2).signaled().imm(5).send(2, b"inline");
    batch.to(&ah, 19, 3).write(3, &slices, REMOTE);
    batch.to(&ah, 20, 4).imm(6).write(4, &slices, REMOTE);
    batch.to(&ah, 21, 5).read(5, &slices, REMOTE);
    submit(batch).unwrap();
    let one = [Verb::WrOperation, Verb::WrAddress, Verb::WrPayload];
    let calls = [&[Verb::WrStart][..], &one.repeat(5), &[Verb::WrComplete]].concat();
    assert_eq!(null.verbs(), calls);
    let (rkey, addr) = (REMOTE.rkey, REMOTE.addr);
    let operations = [
        Operation::Send { imm: None },
        Operation::Send { imm: Some(5_u32.to_be()) },
        Operation::Write { rkey, addr, imm: None },
        Operation::Write { rkey, addr, imm: Some(6_u32.to_be()) },
        Operation::Read { rkey, addr },
    ];
    let requests = null.take_requests();
    assert_eq!(requests.len(), operations.len());
    for (index, (request, operation)) in requests.into_iter().zip(operations).enumerate() {
        let inline = index == 1;
        let payload = if inline {
            null_provider::Payload::Inline(b"inline".to_vec())
        } else {
            null_provider::Payload::Scatter(vec![entry])
        };
        let (remote_qpn, qkey) = (17 + index as u32, 1 + index as u32);
        let mut flags = ffi::IBV_SEND_SIGNALED;
        if inline {
            flags |= ffi::IBV_SEND_INLINE;
        }
        let ah = ah.as_raw() as usize;
        let expected = Request {
            qp_num: qp.qp_num(),
            wr_id: 1 + index as u64,
            flags,
            operation,
            address: Some(null_provider::Address { ah, remote_qpn, qkey }),
            payload,
        };
        assert_eq!(request, expected);
    }
}

/// The error of a batch with this one operation, of which the provider sees nothing.
fn refused(
    null: &Null,
    qp: &mut QueuePair<Srd>,
    fill: impl FnOnce(&mut ibverbs::SendBatch<'_, Srd>),
) -> Error {
    null.take_calls();
    let mut batch = qp.start_send();
    fill(&mut batch);
    let error = submit(batch).unwrap_err();
    assert_eq!(null.verbs(), [Verb::WrStart, Verb::WrAbort]);
    assert_eq!(null.take_requests(), []);
    error
}

#[test]
fn writes_and_reads_carry_less_than_sends() {
    let null = efa();
    let Parts { ctx, pd, cq } = parts();
    let region = pd.allocate(64, AccessFlags::LOCAL_WRITE).unwrap();
    let two = [region.slice(..8), region.slice(8..16)];
    let ah = some_handle(&pd);
    let mut qp = srd(&ctx, &pd, &cq);
    let mut batch = qp.start_send();
    batch.to(&ah, 17, QKEY).send(1, &two);
    batch.to(&ah, 17, QKEY).send(2, &[0; 16]);
    submit(batch).unwrap();
    null.take_requests();
    for error in [
        refused(&null, &mut qp, |batch| batch.to(&ah, 17, QKEY).write(1, &two, REMOTE)),
        refused(&null, &mut qp, |batch| batch.to(&ah, 17, QKEY).imm(1).write(1, &two, REMOTE)),
        refused(&null, &mut qp, |batch| batch.to(&ah, 17, QKEY).read(1, &two, REMOTE)),
    ] {
        let two_of_one =
            matches!(error, Error::TooManyScatterEntries { queue: "send", entries: 2, granted: 1 });
        assert!(two_of_one, "{error}");
    }
    for error in [
        refused(&null, &mut qp, |batch| batch.to(&ah, 17, QKEY).write(1, b"inline", REMOTE)),
        refused(&null, &mut qp, |batch| batch.to(&ah, 17, QKEY).imm(1).write(1, b"inline", REMOTE)),
    ] {
        assert!(matches!(error, Error::InlineTooLong { bytes: 6, granted: 0 }), "{error}");
        assert!(error.to_string().contains("set_inline_write"), "{error}");
    }
}

#[test]
fn inline_writes_are_asked_for() {
    let null = efa();
    let Parts { ctx, pd, cq } = parts();
    let ah = some_handle(&pd);
    let ops = ctx.query_efa_device().unwrap().send_ops();
    let builder = builder(&pd, &cq).set_send_ops(ops).set_max_inline_data(16);
    let mut qp = builder.set_inline_write(true).build().unwrap().activate(QKEY).unwrap();
    let mut batch = qp.start_send();
    batch.to(&ah, 17, QKEY).write(1, &[0; 16], REMOTE);
    submit(batch).unwrap();
    null.take_requests();
    let error = refused(&null, &mut qp, |batch| batch.to(&ah, 17, QKEY).write(1, &[0; 17], REMOTE));
    assert!(matches!(error, Error::InlineTooLong { bytes: 17, granted: 16 }), "{error}");
}

#[test]
fn what_was_not_asked_for_is_refused() {
    let null = efa();
    let Parts { pd, cq, .. } = parts();
    let ah = some_handle(&pd);
    let mut qp = builder(&pd, &cq).build().unwrap().activate(QKEY).unwrap();
    for error in [
        refused(&null, &mut qp, |batch| batch.to(&ah, 17, QKEY).write(1, Payload::EMPTY, REMOTE)),
        refused(&null, &mut qp, |batch| batch.to(&ah, 17, QKEY).read(1, &[], REMOTE)),
    ] {
        assert!(matches!(error, Error::OperationNotGranted { .. }), "{error}");
    }
    for ops in [SendOps::ATOMICS, SendOps::LOCAL_INV, SendOps::FLUSH] {
        let result = builder(&pd, &cq).add_send_ops(ops).build();
        assert!(matches!(result, Err(Error::InvalidSendOps { .. })), "{ops:?}");
    }
}

#[test]
fn what_an_older_adapter_lacks_is_told() {
    let null = efa();
    let Parts { ctx, pd, cq } = parts();
    without(&null, DeviceCaps::all());
    let attr = ctx.query_efa_device().unwrap();
    assert_eq!(attr.send_ops(), SendOps::SEND | SendOps::SEND_WITH_IMM);
    drop(builder(&pd, &cq).set_send_ops(attr.send_ops()).build().unwrap());
    let with = |ops| builder(&pd, &cq).add_send_ops(ops).build();
    expect_unsupported(with(SendOps::RDMA_READ), "an RDMA read");
    expect_unsupported(with(SendOps::RDMA_WRITE), "an RDMA write");
    expect_unsupported(with(SendOps::RDMA_WRITE_WITH_IMM), "an RDMA write");
    let result = builder(&pd, &cq).set_inline_write(true).build();
    expect_unsupported(result, "an inline write (`set_inline_write`)");
    let result = builder(&pd, &cq).set_unsolicited_write_recv(true).build();
    expect_unsupported(result, "without a receive (`set_unsolicited_write_recv`)");
    let result = builder(&pd, &cq).set_rnr_retry(3).build();
    expect_unsupported(result, "`set_rnr_retry`");
    without(&null, DeviceCaps::RDMA_WRITE);
    let ops = ctx.query_efa_device().unwrap().send_ops();
    assert_eq!(ops, SendOps::SEND | SendOps::SEND_WITH_IMM | SendOps::RDMA_READ);
    drop(builder(&pd, &cq).set_send_ops(ops).build().unwrap());
    // The device has it, but the library does not.
    null.fail(Verb::CreateQp, libc::EOPNOTSUPP);
    expect_unsupported(builder(&pd, &cq).build(), "efadv_create_qp_ex");
    assert_eq!(null.live(Kind::Qp), 0);
}

#[test]
fn the_function_of_an_operation_is_demanded_if_the_operation_is() {
    let null = efa();
    let Parts { ctx, pd, cq } = parts();
    let ops = ctx.query_efa_device().unwrap().send_ops();
    for (clear, op) in [
        (|qp: &mut ffi::ibv_qp_ex| qp.wr_send = None, SendOps::SEND),
        (|qp: &mut ffi::ibv_qp_ex| qp.wr_rdma_write = None, SendOps::RDMA_WRITE),
        (|qp: &mut ffi::ibv_qp_ex| qp.wr_rdma_read = None, SendOps::RDMA_READ),
    ] as [(fn(&mut ffi::ibv_qp_ex), SendOps); 3]
    {
        null.configure(|config| config.edit_qp = Some(Box::new(clear)));
        expect_unsupported(builder(&pd, &cq).set_send_ops(ops).build(), "ibv_qp_ex.wr_");
        assert_eq!(null.live(Kind::Qp), 0);
        drop(builder(&pd, &cq).set_send_ops(ops - op).build().unwrap());
    }
    null.configure(|config| config.edit_qp = Some(Box::new(|qp| qp.wr_set_ud_addr = None)));
    expect_unsupported(builder(&pd, &cq).build(), "ibv_qp_ex.wr_set_ud_addr");
}

#[test]
fn what_is_too_much_is_told() {
    let null = efa();
    let Parts { pd, cq, .. } = parts();
    let cases: [(&str, u64, QueuePairBuilder<'_, Srd>); 7] = [
        ("send requests", 512, builder(&pd, &cq).set_max_send_wr(513)),
        ("send requests", 256, builder(&pd, &cq).set_max_send_wr(257).set_max_inline_data(33)),
        ("send requests", 256, builder(&pd, &cq).set_max_send_wr(257).set_inline_write(true)),
        ("receive requests", 512, builder(&pd, &cq).set_max_recv_wr(513).set_max_recv_sge(2)),
        ("send scatter entries", 2, builder(&pd, &cq).set_max_send_sge(3)),
        ("receive scatter entries", 3, builder(&pd, &cq).set_max_recv_sge(4)),
        ("bytes of inline data", 80, builder(&pd, &cq).set_max_inline_data(81)),
    ];
    for (expected, most, builder) in cases {
        match builder.build() {
            Err(Error::Capacity { verb, what, requested, available, source }) => {
                assert_eq!((verb, what, available), ("efadv_create_qp_ex", expected, most));
                assert_eq!(source.unwrap().raw_os_error(), Some(libc::EINVAL));
                assert!(requested > available);
            }
            other => panic!("{expected}: {other:?}"),
        }
    }
    assert_eq!(null.live(Kind::Qp), 0);
    null.fail(Verb::CreateQp, libc::ENOMEM);
    let error = builder(&pd, &cq).set_max_recv_wr(1024).build().unwrap_err();
    assert!(matches!(error, Error::Verb { verb: "efadv_create_qp_ex", .. }), "{error}");
    assert_eq!(error.os_error(), Some(libc::ENOMEM));
}

/// The attributes that bringing up a queue pair has set in each step.
fn steps(null: &Null, bring_up: impl FnOnce()) -> Vec<(u32, ffi::ibv_qp_attr)> {
    let before = null.modified().len();
    bring_up();
    null.modified().split_off(before)
}

#[test]
fn retries_are_left_to_the_device_unless_they_are_set() {
    let null = efa();
    let Parts { pd, cq, .. } = parts();
    let qkey = ffi::IBV_QP_STATE | ffi::IBV_QP_QKEY;
    let expected = |last: u32| {
        let first = qkey | ffi::IBV_QP_PKEY_INDEX | ffi::IBV_QP_PORT;
        [first, qkey, ffi::IBV_QP_STATE | ffi::IBV_QP_SQ_PSN | last]
    };
    let masks = |steps: &[(u32, _)]| -> Vec<u32> { steps.iter().map(|step| step.0).collect() };
    let prepared = builder(&pd, &cq).build().unwrap();
    let found = steps(&null, || drop(prepared.activate(QKEY).unwrap()));
    assert_eq!(masks(&found), expected(0));
    assert_eq!(found[1].1.qkey, QKEY);
    let prepared = builder(&pd, &cq).set_rnr_retry(3).build().unwrap();
    let found = steps(&null, || drop(prepared.activate(QKEY).unwrap()));
    assert_eq!(masks(&found), expected(ffi::IBV_QP_RNR_RETRY));
    assert_eq!(found[2].1.rnr_retry, 3);
    let error = builder(&pd, &cq).set_rnr_retry(8).build().unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { value: 8, .. }), "{error}");
}

#[test]
fn a_number_of_retries_may_come_with_rts_and_only_there() {
    let null = efa();
    let Parts { pd, cq, .. } = parts();
    let mut qp = builder(&pd, &cq).build().unwrap().init().unwrap().reset().unwrap().into_manual();
    null.fail(Verb::ModifyQp, libc::EINVAL);
    let wrong = |qp: &mut QueuePair<Srd, ibverbs::Manual>, from, to| {
        let attr = QueuePairAttr::new().set_cur_state(from).set_state(to).set_rnr_retry(1);
        match qp.modify(&attr) {
            Err(Error::Transition(failure)) => failure.not_allowed(),
            other => panic!("{other:?}"),
        }
    };
    let retries = ibverbs::QueuePairAttrMask::RNR_RETRY;
    assert!(!wrong(&mut qp, QpState::RTR, QpState::RTS).contains(retries));
    assert!(wrong(&mut qp, QpState::RTS, QpState::RTS).contains(retries));
    assert!(wrong(&mut qp, QpState::INIT, QpState::RTR).contains(retries));
}

#[test]
fn a_handle_of_another_domain_is_refused() {
    let null = efa();
    let Parts { ctx, pd, cq } = parts();
    let foreign: AddressHandle = some_handle(&open(0).alloc_pd().unwrap());
    let mut qp = srd(&ctx, &pd, &cq);
    for error in [
        refused(&null, &mut qp, |batch| batch.to(&foreign, 1, 1).write(1, Payload::EMPTY, REMOTE)),
        refused(&null, &mut qp, |batch| {
            batch.to(&foreign, 1, 1).imm(1).write(1, Payload::EMPTY, REMOTE)
        }),
        refused(&null, &mut qp, |batch| batch.to(&foreign, 1, 1).read(1, &[], REMOTE)),
    ] {
        let mismatch = matches!(error, Error::ProtectionDomainMismatch { what: "address handle" });
        assert!(mismatch, "{error}");
    }
}
