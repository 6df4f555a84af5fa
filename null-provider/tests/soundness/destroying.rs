//! Rule 9: destroying can fail. Then nothing that the device may still use is freed.

use ibverbs::{AccessFlags, Error};
use null_provider::{Kind, Verb};

use crate::common::{complete, connected, null, open, parts, submit, Parts};

#[test]
fn what_is_in_use_is_not_closed_and_stays_usable() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    let region = pd.allocate(8, AccessFlags::LOCAL_WRITE).unwrap();
    let qp = connected(&pd, &cq);
    null.take_calls();
    let failed = ctx.close().unwrap_err();
    assert!(matches!(failed.error, Error::InUse { resource: "device context" }));
    let ctx = failed.resource;
    let failed = pd.close().unwrap_err();
    assert!(matches!(failed.error, Error::InUse { resource: "protection domain" }));
    let pd = failed.resource;
    let failed = cq.close().unwrap_err();
    assert!(matches!(failed.error, Error::InUse { resource: "completion queue" }));
    let cq = failed.resource;
    null.expect_no_calls();
    qp.close().unwrap();
    cq.close().unwrap();
    region.close().unwrap();
    pd.close().unwrap();
    ctx.query_port(1).unwrap();
    ctx.close().unwrap();
}

#[test]
fn busy_is_in_use() {
    let null = null();
    let ctx = open(0);
    null.fail(Verb::CloseDevice, libc::EBUSY);
    let failed = ctx.close().unwrap_err();
    assert!(matches!(failed.error, Error::InUse { .. }), "{:?}", failed.error);
    null.succeed(Verb::CloseDevice);
    failed.resource.close().unwrap();
}

#[test]
fn a_region_with_a_window_is_in_use_whichever_code_says_so() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let mut region = pd.allocate(8, AccessFlags::LOCAL_WRITE | AccessFlags::MW_BIND).unwrap();
    // SoftRoCE says EINVAL, others EBUSY.
    for code in [libc::EBUSY, libc::EINVAL, -libc::EINVAL] {
        null.fail(Verb::DeregMr, code);
        let failed = region.close().unwrap_err();
        let expected = matches!(failed.error, Error::InUse { resource: "memory region" });
        assert!(expected, "{:?}", failed.error);
        region = failed.resource;
    }
    null.succeed(Verb::DeregMr);
    region.close().unwrap();
    // Of anything else EINVAL is no such thing.
    null.fail(Verb::DestroyCq, libc::EINVAL);
    let failed = cq.close().unwrap_err();
    assert_eq!(failed.error.os_error(), Some(libc::EINVAL), "{:?}", failed.error);
    null.succeed(Verb::DestroyCq);
    failed.resource.close().unwrap();
}

#[test]
fn a_close_that_fails_gives_the_object_back() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    let mut region = pd.allocate(8, AccessFlags::LOCAL_WRITE).unwrap();
    let mut qp = connected(&pd, &cq);
    for verb in
        [Verb::DestroyQp, Verb::DeregMr, Verb::DestroyCq, Verb::DeallocPd, Verb::CloseDevice]
    {
        null.fail(verb, libc::EIO);
    }

    let failed = qp.close().unwrap_err();
    assert_eq!(failed.error.os_error(), Some(libc::EIO));
    qp = failed.resource;
    let mut batch = qp.start_send();
    batch.op().send(1, b"still here");
    submit(batch).unwrap();
    null.succeed(Verb::DestroyQp);
    qp.close().unwrap();

    region = region.close().map_err(|failed| failed.resource).unwrap_err();
    region.bytes_mut().fill(7);
    region = region.into_inner().map_err(|failed| failed.resource).unwrap_err();
    assert_eq!(region.bytes(), [7; 8]);
    assert_eq!(region.slice(..).len(), 8);
    null.succeed(Verb::DeregMr);
    assert_eq!(region.into_inner().unwrap()[..], [7; 8]);

    let cq = cq.close().map_err(|failed| failed.resource).unwrap_err();
    complete(&null, &cq, [3]);
    assert_eq!(crate::common::poll_all(&cq), [3]);
    null.succeed(Verb::DestroyCq);
    cq.close().unwrap();

    let pd = pd.close().map_err(|failed| failed.resource).unwrap_err();
    drop(pd.allocate(8, AccessFlags::LOCAL_WRITE).unwrap());
    null.succeed(Verb::DeallocPd);
    pd.close().unwrap();

    let ctx = ctx.close().map_err(|failed| failed.resource).unwrap_err();
    ctx.query_device().unwrap();
    null.succeed(Verb::CloseDevice);
    ctx.close().unwrap();
}

#[test]
fn a_region_of_which_one_registration_could_not_be_undone_can_be_closed_again() {
    let null = null();
    let Parts { pd, .. } = parts();
    let region = pd.allocate(8, AccessFlags::PERMISSIVE).unwrap();
    // SAFETY: there is no peer.
    let first = unsafe { region.remote() }.unwrap();
    null.fail(Verb::DeregMr, libc::EIO);
    let region = region.close().unwrap_err().resource;
    assert_eq!(null.live(Kind::Mr), 2);
    // SAFETY: there is no peer.
    assert_eq!(unsafe { region.remote() }.unwrap(), first);
    null.succeed(Verb::DeregMr);
    region.close().unwrap();
    assert_eq!(null.live(Kind::Mr), 0);
}

#[test]
fn a_registration_that_was_undone_is_not_undone_again() {
    let null = null();
    let Parts { pd, .. } = parts();
    let region = pd.allocate(8, AccessFlags::PERMISSIVE).unwrap();
    // SAFETY: there is no peer.
    let first = unsafe { region.remote() }.unwrap();
    null.fail_after(Verb::DeregMr, 1, libc::EIO);
    let region = region.close().unwrap_err().resource;
    assert_eq!(null.live(Kind::Mr), 1);
    null.succeed(Verb::DeregMr);
    // It can be given away anew, under another key.
    // SAFETY: there is no peer.
    let second = unsafe { region.remote() }.unwrap();
    assert_ne!(first.rkey, second.rkey);
    null.fail_after(Verb::DeregMr, 1, libc::EIO);
    let region = region.close().unwrap_err().resource;
    null.succeed(Verb::DeregMr);
    region.close().unwrap();
}

#[test]
fn everything_is_destroyed_once_whatever_is_dropped_first() {
    let null = null();
    for order in 0..6 {
        let Parts { ctx, pd, cq } = parts();
        let region = pd.allocate(8, AccessFlags::PERMISSIVE).unwrap();
        let qp = connected(&pd, &cq);
        let mut things: Vec<Box<dyn std::any::Any>> =
            vec![Box::new(ctx), Box::new(pd), Box::new(cq), Box::new(region), Box::new(qp)];
        things.rotate_left(order % 5);
        if order == 5 {
            things.reverse();
        }
        things.into_iter().for_each(drop);
        assert_eq!(null.all_live(), []);
    }
}
