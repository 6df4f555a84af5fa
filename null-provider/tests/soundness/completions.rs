//! Rules 3 and 4: a completion is lent, a poll has one end, and fields that were not asked for are
//! `None`.

use std::mem::offset_of;
use std::panic::{catch_unwind, AssertUnwindSafe};

use ibverbs::{ffi, Error, Wc, WcError, WcFields, WcFlags, WcOpcode, WcStatus};
use null_provider::{Completion, Verb};

use crate::common::{complete, null, open, parts, poll_all, Parts};

#[test]
fn next_after_the_end_does_not_call_the_provider() {
    let null = null();
    let Parts { cq, .. } = parts();
    complete(&null, &cq, [1, 2]);
    let mut completions = cq.poll().unwrap().unwrap();
    assert_eq!(completions.next().unwrap().wr_id(), 1);
    assert_eq!(completions.next().unwrap().wr_id(), 2);
    assert!(completions.next().is_none());
    null.take_calls();
    for _ in 0..3 {
        assert!(completions.next().is_none());
    }
    null.expect_no_calls();
    drop(completions);
    assert_eq!(null.verbs(), [Verb::EndPoll]);
}

#[test]
fn a_poll_is_always_ended() {
    let null = null();
    let Parts { cq, .. } = parts();
    complete(&null, &cq, [1, 2, 3]);
    drop(cq.poll().unwrap());
    assert_eq!(null.count(Verb::EndPoll), 1);
    cq.poll().unwrap().unwrap().next();
    assert_eq!(null.count(Verb::EndPoll), 2);
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let _completions = cq.poll().unwrap().unwrap();
        std::panic::resume_unwind(Box::new(()));
    }));
    assert!(panic.is_err());
    assert_eq!(null.count(Verb::EndPoll), 3);
    assert_eq!(poll_all(&cq), []);
}

#[test]
fn an_error_of_next_poll_ends_the_poll_and_is_reported_by_the_next_one() {
    let null = null();
    let Parts { cq, .. } = parts();
    complete(&null, &cq, [1]);
    null.fail(Verb::NextPoll, libc::EIO);
    let mut completions = cq.poll().unwrap().unwrap();
    assert!(completions.next().is_some());
    assert!(completions.next().is_none());
    assert!(completions.next().is_none());
    assert_eq!(null.count(Verb::NextPoll), 1);
    drop(completions);
    assert_eq!(null.count(Verb::EndPoll), 1);
    let error = cq.poll().unwrap_err();
    assert_eq!(error.os_error(), Some(libc::EIO));
    null.succeed(Verb::NextPoll);
    assert!(cq.poll().unwrap().is_none());
}

#[test]
fn an_error_of_start_poll_opens_no_poll() {
    let null = null();
    let Parts { cq, .. } = parts();
    complete(&null, &cq, [1]);
    null.fail(Verb::StartPoll, libc::EINVAL);
    assert_eq!(cq.poll().unwrap_err().os_error(), Some(libc::EINVAL));
    assert_eq!(null.count(Verb::EndPoll), 0);
    // Some providers have failure codes of their own, which are no error numbers.
    null.fail(Verb::StartPoll, -2);
    assert_eq!(cq.poll().unwrap_err().os_error(), Some(libc::EIO));
    null.succeed(Verb::StartPoll);
    assert_eq!(poll_all(&cq), [1]);
}

const EVERYTHING: Completion = Completion {
    wr_id: u64::MAX,
    status: ffi::IBV_WC_SUCCESS,
    opcode: ffi::IBV_WC_RECV,
    vendor_err: 1,
    byte_len: 2,
    imm_data: 3u32.to_be(),
    qp_num: 4,
    src_qp: 5,
    wc_flags: ffi::IBV_WC_WITH_IMM | ffi::IBV_WC_GRH,
    slid: 6,
    sl: 7,
    dlid_path_bits: 8,
    completion_ts: 9,
    completion_wallclock_ns: 10,
    cvlan: 11,
    flow_tag: 12,
    tm_info: (13, 14),
    sender_gid: None,
    unsolicited: false,
    solicited: false,
};

#[test]
fn fields_that_were_not_asked_for_are_none() {
    let null = null();
    let Parts { cq, .. } = parts();
    null.complete(cq.as_raw(), EVERYTHING);
    let mut completions = cq.poll().unwrap().unwrap();
    let wc = completions.next().unwrap();
    null.take_calls();
    assert_eq!(wc.completion_timestamp(), None);
    assert_eq!(wc.completion_wallclock_ns(), None);
    assert_eq!(wc.cvlan(), None);
    assert_eq!(wc.flow_tag(), None);
    assert_eq!(wc.tag_matching_info(), None);
    null.expect_no_calls();
}

#[test]
fn each_field_that_was_asked_for_is_there_alone() {
    let null = null();
    let ctx = open(0);
    for field in WcFields::all().iter() {
        let cq = ctx.create_cq(1).set_wc_fields(field).build().unwrap();
        null.complete(cq.as_raw(), EVERYTHING);
        let mut completions = cq.poll().unwrap().unwrap();
        let wc = completions.next().unwrap();
        let has = |wanted: WcFields| field == wanted;
        let timestamp = has(WcFields::COMPLETION_TIMESTAMP).then_some(9);
        assert_eq!(wc.completion_timestamp(), timestamp);
        let wallclock = has(WcFields::COMPLETION_WALLCLOCK_NS).then_some(10);
        assert_eq!(wc.completion_wallclock_ns(), wallclock);
        assert_eq!(wc.cvlan(), has(WcFields::CVLAN).then_some(11));
        assert_eq!(wc.flow_tag(), has(WcFields::FLOW_TAG).then_some(12));
        let info = wc.tag_matching_info().map(|info| (info.tag, info.private_data));
        assert_eq!(info, has(WcFields::TM_INFO).then_some((13, 14)));
    }
}

#[test]
fn fields_without_a_name_are_not_asked_for() {
    let null = null();
    let ctx = open(0);
    for bits in [!0, 1 << 63, u64::from(ffi::IBV_WC_EX_WITH_IMM)] {
        let fields = WcFields::from_bits_retain(bits);
        let result = ctx.create_cq(1).set_wc_fields(fields).build();
        assert!(matches!(result, Err(Error::InvalidArgument { .. })), "{result:?}");
    }
    assert_eq!(null.count(Verb::CreateCq), 0);
}

#[test]
fn a_queue_of_an_older_library_ends_before_the_optional_fields() {
    let null = null();
    let Parts { ctx, .. } = parts();
    for len in [
        offset_of!(ffi::ibv_cq_ex, read_completion_ts),
        offset_of!(ffi::ibv_cq_ex, read_completion_wallclock_ns),
    ] {
        null.configure(|config| config.cq_ex_len = Some(len));
        let cq = ctx.create_cq(1).build().unwrap();
        null.complete(cq.as_raw(), EVERYTHING);
        let mut completions = cq.poll().unwrap().unwrap();
        let wc = completions.next().unwrap();
        assert_eq!((wc.wr_id(), wc.ok(), wc.len()), (u64::MAX, Ok(()), 2));
        assert_eq!((wc.opcode(), wc.imm_data()), (WcOpcode::RECV, Some(3)));
        assert_eq!((wc.qp_num(), wc.src_qp(), wc.slid()), (4, 5, 6));
        assert_eq!((wc.sl(), wc.dlid_path_bits(), wc.has_grh()), (7, 8, true));
        assert_eq!(wc.flags(), WcFlags::WITH_IMM | WcFlags::GRH);
        assert_eq!((wc.completion_timestamp(), wc.completion_wallclock_ns()), (None, None));
        assert_eq!((wc.cvlan(), wc.flow_tag()), (None, None));
        assert_eq!(wc.tag_matching_info(), None);
    }
}

#[test]
fn immediate_data_is_read_only_if_there_is_any() {
    let null = null();
    let Parts { cq, .. } = parts();
    null.complete(cq.as_raw(), Completion { wc_flags: 0, ..EVERYTHING });
    let mut completions = cq.poll().unwrap().unwrap();
    assert_eq!(completions.next().unwrap().imm_data(), None);
}

#[test]
fn a_key_that_was_invalidated_is_no_immediate_data() {
    let null = null();
    let Parts { cq, .. } = parts();
    let completion = Completion { wc_flags: ffi::IBV_WC_WITH_INV, imm_data: 77, ..EVERYTHING };
    null.complete(cq.as_raw(), completion);
    null.complete(cq.as_raw(), EVERYTHING);
    let mut completions = cq.poll().unwrap().unwrap();
    let wc = completions.next().unwrap();
    assert_eq!((wc.invalidated_rkey(), wc.imm_data()), (Some(77), None));
    let wc = completions.next().unwrap();
    assert_eq!((wc.invalidated_rkey(), wc.imm_data()), (None, Some(3)));
    drop(completions);
    null.complete(cq.as_raw(), completion);
    null.complete(cq.as_raw(), EVERYTHING);
    let mut wcs = [Wc::default(); 2];
    let found = cq.poll_into(&mut wcs).unwrap();
    assert_eq!((found[0].invalidated_rkey(), found[0].imm_data()), (Some(77), None));
    assert_eq!((found[1].invalidated_rkey(), found[1].imm_data()), (None, Some(3)));
}

#[test]
fn copies_have_the_standard_fields() {
    let null = null();
    let Parts { cq, .. } = parts();
    null.complete(cq.as_raw(), EVERYTHING);
    let mut wcs = [Wc::default(); 4];
    let [wc] = cq.poll_into(&mut wcs).unwrap() else { panic!("one completion") };
    assert_eq!((wc.wr_id(), wc.status(), wc.ok()), (u64::MAX, WcStatus::SUCCESS, Ok(())));
    assert_eq!((wc.opcode(), wc.len(), wc.imm_data()), (WcOpcode::RECV, 2, Some(3)));
    assert_eq!((wc.qp_num(), wc.src_qp(), wc.slid()), (4, 5, 6));
    assert_eq!((wc.sl(), wc.dlid_path_bits(), wc.has_grh()), (7, 8, true));
    assert_eq!(wc.flags(), WcFlags::WITH_IMM | WcFlags::GRH);
    assert_eq!(wc.as_raw().qp_num, 4);
    assert!(format!("{wc:?}").contains("qp_num: 4"), "{wc:?}");
    let status = ffi::IBV_WC_REM_ACCESS_ERR;
    null.complete(cq.as_raw(), Completion { status, vendor_err: 0x88, ..EVERYTHING });
    let error = cq.poll_into(&mut wcs).unwrap()[0].ok().unwrap_err();
    assert_eq!((error.status, error.vendor_err), (WcStatus::REM_ACCESS_ERR, 0x88));
    null.complete(cq.as_raw(), Completion { wc_flags: 0, ..EVERYTHING });
    assert!(!cq.poll_into(&mut wcs).unwrap()[0].has_grh());
}

#[test]
fn no_more_is_copied_than_there_is_room_for() {
    let null = null();
    let Parts { cq, .. } = parts();
    complete(&null, &cq, 0..5);
    let mut wcs = [Wc::default(); 2];
    for expected in [&[0, 1][..], &[2, 3], &[4], &[]] {
        let found: Vec<_> = cq.poll_into(&mut wcs).unwrap().iter().map(Wc::wr_id).collect();
        assert_eq!(found, expected);
    }
    complete(&null, &cq, [5]);
    assert!(cq.poll_into(&mut []).unwrap().is_empty());
    assert_eq!(poll_all(&cq), [5]);
}

#[test]
fn errors_of_copying_are_reported() {
    let null = null();
    let Parts { cq, .. } = parts();
    let mut wcs = [Wc::default()];
    for (code, expected) in [(libc::EINVAL, libc::EINVAL), (2, libc::EIO)] {
        null.fail(Verb::PollCq, code);
        assert_eq!(cq.poll_into(&mut wcs).unwrap_err().os_error(), Some(expected));
    }
    null.succeed(Verb::PollCq);
    // One that ended an earlier poll, too.
    complete(&null, &cq, [1]);
    null.fail(Verb::NextPoll, libc::EIO);
    let mut completions = cq.poll().unwrap().unwrap();
    while completions.next().is_some() {}
    drop(completions);
    assert_eq!(cq.poll_into(&mut wcs).unwrap_err().os_error(), Some(libc::EIO));
    assert!(cq.poll_into(&mut wcs).unwrap().is_empty());
}

#[test]
fn a_failure_tells_its_status_and_the_vendors_code() {
    let null = null();
    let Parts { cq, .. } = parts();
    let status = ffi::IBV_WC_REM_ACCESS_ERR;
    null.complete(cq.as_raw(), Completion { status, vendor_err: 0x88, ..EVERYTHING });
    let mut completions = cq.poll().unwrap().unwrap();
    let error = completions.next().unwrap().ok().unwrap_err();
    assert_eq!((error.status, error.vendor_err), (WcStatus::REM_ACCESS_ERR, 0x88));
    assert_eq!(error.to_string(), "remote access error (vendor error 0x88)");
    let without = WcError { vendor_err: 0, ..error };
    assert_eq!(without.to_string(), "remote access error");
}

#[test]
fn a_queue_with_a_broken_poll_can_still_be_closed() {
    let null = null();
    let Parts { cq, .. } = parts();
    null.fail(Verb::StartPoll, libc::EIO);
    assert!(matches!(cq.poll(), Err(Error::Verb { verb: "ibv_start_poll", .. })));
    cq.close().unwrap();
}
