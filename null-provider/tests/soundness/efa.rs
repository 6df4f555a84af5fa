//! EFA: what its driver must not be asked for, and what its completions and its library tell.

use ibverbs::efa::{DeviceCaps, SendQueueShape, WcFields};
use ibverbs::{
    ffi, AccessFlags, AddressVector, CompletionQueue, Error, Gid, PreparedQueuePair, QpState,
    QueuePairAttr, RecvRequest, Srd, Ud,
};
use null_provider::{Completion, Kind, Verb};

use crate::common::{activated, null, open, parts, some_address, some_handle, Null, Parts, QKEY};
use crate::srd::{builder, efa, expect_unsupported, srd, without};

#[test]
fn a_port_of_efa_has_its_address_although_it_is_of_no_known_kind() {
    let _null = efa();
    let Parts { ctx, pd, cq } = parts();
    assert_eq!(ctx.query_port(1).unwrap().link_layer(), ibverbs::LinkLayer::UNSPECIFIED);
    let endpoint = builder(&pd, &cq).build().unwrap().endpoint().unwrap();
    assert_eq!(endpoint.gid(), Some(ctx.query_gid(1, 0).unwrap()));
    let datagrams = pd.create_qp::<Ud>(&cq, &cq, 1).unwrap().build().unwrap();
    assert!(datagrams.endpoint().unwrap().gid().is_some());
}

#[test]
fn a_port_of_infiniband_is_reached_without_an_address() {
    let null = null();
    null.configure(|config| {
        let link_layer = ffi::IBV_LINK_LAYER_INFINIBAND as u8;
        config.edit_port_attr = Some(Box::new(move |attr| attr.link_layer = link_layer));
    });
    let Parts { pd, cq, .. } = parts();
    let endpoint = pd.create_qp::<Ud>(&cq, &cq, 1).unwrap().build().unwrap().endpoint().unwrap();
    assert_eq!(endpoint.gid(), None);
}

#[test]
fn there_are_no_connections() {
    let null = efa();
    let Parts { pd, cq, .. } = parts();
    let result = pd.create_qp::<ibverbs::Rc>(&cq, &cq, 1).unwrap().build();
    expect_unsupported(result, "EFA has datagrams only");
    assert_eq!(null.live(Kind::Qp), 0);
}

#[test]
fn the_driver_does_not_compute_with_zero() {
    let _null = efa();
    let Parts { ctx, pd, cq } = parts();
    let prepared =
        builder(&pd, &cq).set_max_send_wr(0).set_max_recv_wr(0).set_max_recv_sge(0).build();
    let capacity = prepared.unwrap().capacity();
    assert_eq!((capacity.max_send_wr, capacity.max_recv_wr, capacity.max_recv_sge), (1, 1, 1));
    let datagrams = pd.create_qp::<Ud>(&cq, &cq, 1).unwrap();
    drop(datagrams.set_max_send_wr(0).set_max_recv_wr(0).set_max_recv_sge(0).build().unwrap());
    assert!(matches!(ctx.efa_max_recv_wr(0), Err(Error::InvalidArgument { value: 0, .. })));
}

#[test]
fn nothing_is_reset_that_may_have_completed() {
    let null = efa();
    let Parts { ctx, pd, cq } = parts();
    // Nothing completes before a queue pair is ready to receive.
    let prepared: PreparedQueuePair<Srd> = builder(&pd, &cq).build().unwrap();
    let mut init = prepared.init().unwrap();
    // SAFETY: the null provider never touches the memory of a scatter entry.
    unsafe { init.post_recv([RecvRequest::new(1, &[])]) }.unwrap();
    drop(init.reset().unwrap());
    let failed = srd(&ctx, &pd, &cq).reset().unwrap_err();
    expect_unsupported(Err::<(), _>(failed.error), "resetting a queue pair of EFA");
    failed.resource.close().unwrap();
    expect_unsupported(activated(&pd, &cq).reset().map_err(Error::from), "resetting");
    let mut manual = builder(&pd, &cq).build().unwrap().into_manual();
    for state in [QpState::INIT, QpState::RTR] {
        manual.modify(&QueuePairAttr::new().set_state(state)).unwrap();
    }
    let reset = QueuePairAttr::new().set_state(QpState::RESET);
    expect_unsupported(manual.modify(&reset), "resetting");
    manual.modify(&QueuePairAttr::new().set_state(QpState::ERR)).unwrap();
    expect_unsupported(manual.modify(&reset), "resetting");
    // One that could not be activated is taken back as far as possible.
    for step in 0..3 {
        null.fail_after(Verb::ModifyQp, step, libc::EIO);
        let failed = builder(&pd, &cq).build().unwrap().activate(QKEY).unwrap_err();
        null.succeed(Verb::ModifyQp);
        assert_eq!(failed.error.os_error(), Some(libc::EIO));
        assert_eq!(failed.resource.activate(QKEY).is_ok(), step < 2);
    }
}

#[test]
fn other_devices_are_reset_as_ever() {
    let _null = null();
    let Parts { pd, cq, .. } = parts();
    drop(activated(&pd, &cq).reset().unwrap().activate(QKEY).unwrap());
}

#[test]
fn queries_answer_what_the_device_does() {
    let null = efa();
    let Parts { ctx, pd, .. } = parts();
    let attr = ctx.query_efa_device().unwrap();
    assert_eq!((attr.max_sq_wr(), attr.max_rq_wr(), attr.max_rdma_size()), (512, 1024, 1 << 30));
    assert_eq!((attr.max_sq_sge(), attr.max_rq_sge(), attr.inline_buf_size()), (2, 3, 80));
    assert_eq!(attr.capabilities(), DeviceCaps::all());
    null.configure(|config| {
        config.edit_efa_attr = Some(Box::new(|attr| {
            // As an older library answers, and with what nobody has heard of.
            attr.inline_buf_size_ex = 0;
            attr.device_caps = 1 << 31;
        }));
    });
    let attr = ctx.query_efa_device().unwrap();
    assert_eq!((attr.inline_buf_size(), attr.capabilities().bits()), (32, 1 << 31));
    assert!(format!("{attr:?}").contains("inline_buf_size: 32"), "{attr:?}");
    null.configure(|config| config.edit_efa_attr = None);

    let shape = SendQueueShape { max_send_sge: 2, max_rdma_sge: 1, ..Default::default() };
    assert_eq!(ctx.efa_max_send_wr(&shape).unwrap(), 512);
    let long = SendQueueShape { max_inline_data: 33, ..shape };
    assert_eq!(ctx.efa_max_send_wr(&long).unwrap(), 256);
    let write = SendQueueShape { inline_write: true, ..shape };
    assert_eq!(ctx.efa_max_send_wr(&write).unwrap(), 256);
    for too_much in [
        SendQueueShape { max_send_sge: 3, ..shape },
        SendQueueShape { max_rdma_sge: 2, ..shape },
        SendQueueShape { max_inline_data: 81, ..shape },
    ] {
        let error = ctx.efa_max_send_wr(&too_much).unwrap_err();
        assert_eq!(error.os_error(), Some(libc::EINVAL));
    }
    assert_eq!(ctx.efa_max_recv_wr(2).unwrap(), 512);
    assert_eq!(ctx.efa_max_recv_wr(4).unwrap_err().os_error(), Some(libc::EINVAL));

    let (one, two) = (some_handle(&pd), some_handle(&pd));
    assert_ne!(one.efa_ahn().unwrap(), two.efa_ahn().unwrap());

    let region = pd.allocate(64, AccessFlags::LOCAL_WRITE).unwrap();
    let found = region.efa_interconnects().unwrap();
    assert_eq!((found.recv, found.rdma_read, found.rdma_recv), (None, None, None));
    for (valid, expected) in [
        (ffi::EFADV_MR_ATTR_VALIDITY_RECV_IC_ID, (Some(1), None, None)),
        (ffi::EFADV_MR_ATTR_VALIDITY_RDMA_READ_IC_ID, (None, Some(2), None)),
        (ffi::EFADV_MR_ATTR_VALIDITY_RDMA_RECV_IC_ID, (None, None, Some(3))),
    ] {
        null.configure(|config| {
            config.edit_efa_mr = Some(Box::new(move |attr| {
                attr.ic_id_validity = valid as u16;
                (attr.recv_ic_id, attr.rdma_read_ic_id, attr.rdma_recv_ic_id) = (1, 2, 3);
            }));
        });
        let found = region.efa_interconnects().unwrap();
        assert_eq!((found.recv, found.rdma_read, found.rdma_recv), expected);
    }
    null.fail(Verb::QueryEfa, libc::EIO);
    assert_eq!(region.efa_interconnects().unwrap_err().os_error(), Some(libc::EIO));
    assert_eq!(ctx.query_efa_device().unwrap_err().os_error(), Some(libc::EIO));
    assert_eq!(ctx.efa_max_recv_wr(1).unwrap_err().os_error(), Some(libc::EIO));
}

/// Completions of a queue pair that is gone, between some of one that is there.
fn mixed(null: &Null, cq: &CompletionQueue, alive: u32, gone: u32, numbers: &[(u64, bool)]) {
    for &(wr_id, is_alive) in numbers {
        let qp_num = if is_alive { alive } else { gone };
        null.complete(cq.as_raw(), Completion { wr_id, qp_num, ..Completion::default() });
    }
}

#[test]
fn what_is_left_of_a_destroyed_queue_pair_is_skipped() {
    let null = efa();
    let Parts { ctx, pd, cq } = parts();
    let (qp, gone) = (srd(&ctx, &pd, &cq), srd(&ctx, &pd, &cq));
    let numbers = (qp.qp_num(), gone.qp_num());
    gone.close().unwrap();
    let fill = |pattern: &[(u64, bool)]| mixed(&null, &cq, numbers.0, numbers.1, pattern);
    let polled = || {
        let mut wr_ids = Vec::new();
        while let Some(mut completions) = cq.poll().unwrap() {
            while let Some(wc) = completions.next() {
                wr_ids.push(wc.wr_id());
            }
        }
        wr_ids
    };
    fill(&[(1, false), (2, false), (3, true), (4, false), (5, true), (6, false)]);
    assert_eq!(polled(), [3, 5]);
    fill(&[(1, false), (2, false)]);
    assert_eq!(polled(), []);
    assert_eq!(polled(), []);

    let mut wcs = [ibverbs::Wc::default(); 4];
    fill(&[(1, false), (2, true), (3, true), (4, false), (5, true), (6, false)]);
    let mut copied = Vec::new();
    loop {
        let found = cq.poll_into(&mut wcs).unwrap();
        if found.is_empty() {
            break;
        }
        copied.extend(found.iter().map(ibverbs::Wc::wr_id));
    }
    assert_eq!(copied, [2, 3, 5]);
}

#[test]
fn why_a_poll_ended_is_told_past_what_is_left_of_a_destroyed_queue_pair() {
    let null = efa();
    let Parts { ctx, pd, cq } = parts();
    let (qp, gone) = (srd(&ctx, &pd, &cq), srd(&ctx, &pd, &cq));
    let numbers = (qp.qp_num(), gone.qp_num());
    gone.close().unwrap();
    mixed(&null, &cq, numbers.0, numbers.1, &[(1, true)]);
    null.fail_once(Verb::NextPoll, libc::EIO);
    let mut completions = cq.poll().unwrap().unwrap();
    while completions.next().is_some() {}
    drop(completions);
    mixed(&null, &cq, numbers.0, numbers.1, &[(2, false)]);
    assert_eq!(cq.poll().map(drop).unwrap_err().os_error(), Some(libc::EIO));
    assert!(cq.poll().unwrap().is_none());
}

#[test]
fn a_device_that_never_makes_sense_is_given_up() {
    let null = efa();
    let Parts { cq, .. } = parts();
    null.fail(Verb::StartPoll, libc::EINVAL);
    assert_eq!(cq.poll().unwrap_err().os_error(), Some(libc::EINVAL));
    null.fail(Verb::PollCq, libc::EINVAL);
    let mut wcs = [ibverbs::Wc::default()];
    assert_eq!(cq.poll_into(&mut wcs).unwrap_err().os_error(), Some(libc::EINVAL));
    // Something else is told at once.
    null.take_calls();
    null.fail(Verb::StartPoll, libc::EIO);
    assert_eq!(cq.poll().unwrap_err().os_error(), Some(libc::EIO));
    assert_eq!(null.count(Verb::StartPoll), 1);
    // As any code of another device is.
    null.configure(|config| config.is_efa = false);
    null.take_calls();
    null.fail(Verb::StartPoll, libc::EINVAL);
    assert_eq!(cq.poll().unwrap_err().os_error(), Some(libc::EINVAL));
    assert_eq!(null.count(Verb::StartPoll), 1);
    assert_eq!(cq.poll_into(&mut wcs).unwrap_err().os_error(), Some(libc::EINVAL));
    assert_eq!(null.count(Verb::PollCq), 1);
}

/// What a completion tells on EFA.
#[track_caller]
fn told(cq: &CompletionQueue) -> (Option<Gid>, Option<bool>) {
    let mut completions = cq.poll().unwrap().expect("a completion");
    let wc = completions.next().unwrap();
    (wc.efa_sender_gid(), wc.efa_is_unsolicited())
}

#[test]
fn completions_tell_what_was_asked_for_and_nothing_else() {
    let null = efa();
    let Parts { ctx, pd, cq } = parts();
    let gid = "fe80::1".parse::<Gid>().unwrap();
    let (both, none) = (WcFields::all(), WcFields::empty());
    null.take_calls();
    for (fields, expected) in [
        (none, (None, None)),
        (WcFields::SENDER_GID, (Some(gid), None)),
        (WcFields::IS_UNSOLICITED, (None, Some(true))),
        (both, (Some(gid), Some(true))),
    ] {
        let cq = ctx.create_cq(4).set_efa_wc_fields(fields).build().unwrap();
        assert_eq!(null.count(Verb::CreateEfaCq), usize::from(!fields.is_empty()));
        let qp = srd(&ctx, &pd, &cq);
        let completion = Completion {
            qp_num: qp.qp_num(),
            opcode: ffi::IBV_WC_RECV_RDMA_WITH_IMM,
            sender_gid: Some(gid.into()),
            unsolicited: true,
            ..Completion::default()
        };
        null.complete(cq.as_raw(), completion);
        assert_eq!(told(&cq), expected);
        // A sender that is known.
        null.complete(cq.as_raw(), Completion { sender_gid: None, ..completion });
        assert_eq!(told(&cq).0, None);
        // What was sent has no sender.
        null.complete(cq.as_raw(), Completion { opcode: ffi::IBV_WC_SEND, ..completion });
        assert_eq!(told(&cq).0, None);
        null.take_calls();
    }
    drop(cq);
}

#[test]
fn every_function_of_efas_fields_is_demanded_if_the_field_is() {
    let null = efa();
    let ctx = open(0);
    for (clear, field, name) in [
        (
            |cq: &mut ffi::efadv_cq| cq.wc_read_sgid = None,
            WcFields::SENDER_GID,
            "efadv_cq.wc_read_sgid",
        ),
        (
            |cq: &mut ffi::efadv_cq| cq.wc_is_unsolicited = None,
            WcFields::IS_UNSOLICITED,
            "efadv_cq.wc_is_unsolicited",
        ),
    ] as [(fn(&mut ffi::efadv_cq), WcFields, &str); 2]
    {
        null.configure(|config| config.edit_efa_cq = Some(Box::new(clear)));
        expect_unsupported(ctx.create_cq(1).set_efa_wc_fields(WcFields::all()).build(), name);
        assert_eq!(null.live(Kind::Cq), 0);
        drop(ctx.create_cq(1).set_efa_wc_fields(WcFields::all() - field).build().unwrap());
        drop(ctx.create_cq(1).build().unwrap());
    }
}

#[test]
fn fields_that_a_device_does_not_have_are_refused() {
    let null = efa();
    let ctx = open(0);
    let build = |fields| ctx.create_cq(1).set_efa_wc_fields(fields).build();
    without(&null, DeviceCaps::CQ_WITH_SGID);
    expect_unsupported(build(WcFields::SENDER_GID), "efadv_create_cq");
    drop(build(WcFields::IS_UNSOLICITED).unwrap());
    let unknown = build(WcFields::from_bits_retain(1 << 40));
    assert!(matches!(unknown, Err(Error::InvalidArgument { .. })), "{unknown:?}");
    null.configure(|config| config.is_efa = false);
    for field in WcFields::all() {
        expect_unsupported(build(field), "efadv_create_cq, of EFA devices only");
    }
    assert_eq!(null.live(Kind::Cq), 0);
}

#[test]
fn an_address_has_a_gid() {
    let null = efa();
    let Parts { pd, .. } = parts();
    let nowhere = AddressVector { grh: None, ..some_address() };
    expect_unsupported(pd.create_ah(&nowhere), "an address without a GID");
    assert_eq!(null.count(Verb::CreateAh), 0);
    some_handle(&pd).close().unwrap();
}
