//! Rule 9, as far as it concerns multicast: a queue pair leaves its groups before it is destroyed, for Linux
//! destroys none that is in one.

use ibverbs::{Error, Failed, Gid, QueuePair, Ud};
use null_provider::{Kind, Verb};

use crate::common::{
    activated, complete, null, parts, prepared, some_handle, submit, Null, Parts, QKEY,
};

fn group(number: u8) -> Gid {
    std::net::Ipv4Addr::new(239, 0, 0, number).into()
}

/// A queue pair in this many groups.
fn member(null: &Null, parts: &Parts, groups: u8) -> QueuePair<Ud> {
    let mut qp = activated(&parts.pd, &parts.cq);
    for number in 0..groups {
        qp.attach_mcast(group(number), 0).unwrap();
    }
    null.take_calls();
    qp
}

#[test]
fn a_queue_pair_leaves_its_groups_when_it_is_closed_or_dropped() {
    let null = null();
    let parts = parts();
    for groups in [0, 1, 3] {
        for end in [drop, |qp: QueuePair<Ud>| qp.close().unwrap()] as [fn(QueuePair<Ud>); 2] {
            end(member(&null, &parts, groups));
            let mut expected = vec![Verb::DetachMcast; groups.into()];
            expected.push(Verb::DestroyQp);
            assert_eq!(null.verbs(), expected);
            assert_eq!(null.live(Kind::Qp), 0);
        }
    }
}

#[test]
fn attaching_twice_is_attaching_once() {
    let null = null();
    let parts = parts();
    let mut qp = member(&null, &parts, 1);
    qp.attach_mcast(group(0), 0).unwrap();
    qp.detach_mcast(group(0), 0).unwrap();
    let error = qp.detach_mcast(group(0), 0).unwrap_err();
    assert!(matches!(error, Error::NotAttached { lid: 0, .. }), "{error}");
    null.take_calls();
    drop(qp);
    assert_eq!(null.verbs(), [Verb::DestroyQp]);
}

#[test]
fn what_is_no_group_is_refused_before_the_device_is_asked() {
    let null = null();
    let parts = parts();
    let mut qp = member(&null, &parts, 1);
    for address in ["::", "::1", "fe80::1", "::ffff:10.0.0.1", "::ffff:240.0.0.0", "::239.0.0.1"] {
        let error = qp.attach_mcast(address.parse().unwrap(), 0).unwrap_err();
        assert!(matches!(error, Error::InvalidBytes { .. }), "{address}: {error}");
    }
    // A group has one local identifier: SoftRoCE and Linux count a second differently.
    let error = qp.attach_mcast(group(0), 0xc001).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { value: 0xc001, .. }), "{error}");
    null.expect_no_calls();
    qp.detach_mcast(group(0), 0).unwrap();
    qp.attach_mcast(group(0), 0xc001).unwrap();
    qp.attach_mcast("ff0e::1".parse().unwrap(), 0xc002).unwrap();
}

#[test]
fn a_device_without_multicast_says_so() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let mut qp = prepared(&pd, &cq);
    null.fail(Verb::AttachMcast, libc::EOPNOTSUPP);
    let error = qp.attach_mcast(group(1), 0).unwrap_err();
    assert!(matches!(error, Error::Unsupported { operation: "ibv_attach_mcast" }), "{error}");
    null.take_calls();
    // What was not attached is not detached.
    drop(qp);
    assert_eq!(null.verbs(), [Verb::DestroyQp]);
}

#[test]
fn a_group_that_could_not_be_left_is_tried_again() {
    let null = null();
    let parts = parts();
    let mut qp = member(&null, &parts, 3);
    null.fail(Verb::DetachMcast, libc::EIO);
    let error = qp.detach_mcast(group(0), 0).unwrap_err();
    assert_eq!(error.os_error(), Some(libc::EIO));
    null.fail_after(Verb::DetachMcast, 1, libc::EIO);
    let Failed { resource: qp, error } = qp.close().unwrap_err();
    assert!(matches!(error, Error::InUse { resource: "queue pair" }), "{error}");
    null.succeed(Verb::DetachMcast);
    null.take_calls();
    qp.close().unwrap();
    assert_eq!(null.verbs(), [Verb::DetachMcast, Verb::DetachMcast, Verb::DestroyQp]);
}

#[test]
fn a_queue_pair_whose_close_failed_is_in_no_group_and_works() {
    let null = null();
    let parts = parts();
    let qp = member(&null, &parts, 2);
    null.fail(Verb::DestroyQp, libc::EIO);
    let mut qp = qp.close().unwrap_err().resource;
    null.succeed(Verb::DestroyQp);
    assert!(qp.detach_mcast(group(0), 0).is_err());
    let ah = some_handle(&parts.pd);
    let mut batch = qp.start_send();
    batch.to(&ah, 0xff_ffff, QKEY).send(1, b"still here");
    submit(batch).unwrap();
    qp.attach_mcast(group(0), 0).unwrap();
}

#[test]
fn a_queue_pair_that_waits_for_a_poll_leaves_its_groups_after_it() {
    let null = null();
    let parts = parts();
    let qp = member(&null, &parts, 2);
    complete(&null, &parts.cq, [1]);
    let completions = parts.cq.poll().unwrap();
    null.take_calls();
    drop(qp);
    null.expect_no_calls();
    drop(completions);
    let leaving = [Verb::DetachMcast, Verb::DetachMcast, Verb::DestroyQp];
    assert_eq!(null.verbs(), [&[Verb::EndPoll][..], &leaving].concat());
}

#[test]
fn a_queue_pair_stays_in_its_groups_through_its_states() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let mut reset = prepared(&pd, &cq);
    reset.attach_mcast(group(1), 0).unwrap();
    let mut init = reset.init().unwrap();
    init.attach_mcast(group(2), 0).unwrap();
    let mut qp = init.activate(QKEY).unwrap();
    qp.detach_mcast(group(1), 0).unwrap();
    let mut manual = qp.reset().unwrap().into_manual();
    manual.attach_mcast(group(3), 0).unwrap();
    null.take_calls();
    drop(manual);
    assert_eq!(null.verbs(), [Verb::DetachMcast, Verb::DetachMcast, Verb::DestroyQp]);
}
