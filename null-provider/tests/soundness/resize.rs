//! Resizing and moderating completion queues: limits, and a provider that loses the queue.

use std::time::Duration;

use ibverbs::{CompletionQueue, Error, Wc};
use null_provider::Verb;

use crate::common::{complete, connected, null, parts, poll_all, Parts};

#[test]
fn a_queue_keeps_its_completions_when_it_is_resized() {
    let null = null();
    let Parts { mut cq, .. } = parts();
    complete(&null, &cq, 0..10);
    for (entries, capacity) in [(100, 128), (16, 16), (10, 16)] {
        cq.resize(entries).unwrap();
        assert_eq!(cq.capacity(), capacity);
    }
    assert!(poll_all(&cq).into_iter().eq(0..10));
}

#[test]
fn a_size_that_the_queue_has_already_is_not_asked_for() {
    let null = null();
    null.configure(|config| config.edit_cq = Some(Box::new(|cq| cq.cqe = 63)));
    let Parts { mut cq, .. } = parts();
    null.take_calls();
    for entries in [32, 40, 63] {
        cq.resize(entries).unwrap();
    }
    null.expect_no_calls();
    cq.resize(64).unwrap();
    assert_eq!(null.verbs(), [Verb::ResizeCq]);
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let null = null();
    let Parts { mut cq, .. } = parts();
    complete(&null, &cq, 0..10);
    null.take_calls();
    assert!(matches!(cq.resize(0), Err(Error::InvalidArgument { value: 0, .. })));
    null.expect_no_calls();
    for entries in [(1 << 16) + 1, i32::MAX as u32, 1 << 31, u32::MAX] {
        match cq.resize(entries) {
            Err(Error::Capacity { verb: "ibv_resize_cq", requested, available, .. }) => {
                assert_eq!((requested, available), (u64::from(entries), 1 << 16));
            }
            other => panic!("{other:?}"),
        }
    }
    // Fewer than there are completions.
    let error = cq.resize(5).unwrap_err();
    assert!(matches!(error, Error::Resize { requested: 5, capacity: 16, .. }), "{error:?}");
    assert_eq!(error.os_error(), Some(libc::EINVAL));
    assert!(error.to_string().contains("take completions"), "{error}");
    null.fail(Verb::ResizeCq, libc::EOPNOTSUPP);
    assert!(matches!(cq.resize(100), Err(Error::Unsupported { operation: "ibv_resize_cq" })));
    null.fail(Verb::ResizeCq, libc::ENOMEM);
    assert!(matches!(cq.resize(100), Err(Error::Resize { .. })));
    // As many as the device has are not too many.
    assert!(matches!(cq.resize(1 << 16), Err(Error::Resize { .. })));
    // After all that it is as it was.
    assert_eq!(cq.capacity(), 16);
    assert!(poll_all(&cq).into_iter().eq(0..10));
}

fn expect_lost<T>(result: ibverbs::Result<T>) {
    assert!(matches!(result.map(drop), Err(Error::CompletionQueueLost)));
}

#[test]
fn a_queue_that_its_provider_has_lost_is_never_polled_again() {
    let null = null();
    let Parts { ctx, pd, .. } = parts();
    let channel = ctx.create_comp_channel().unwrap();
    let shared = ctx.create_cq(16).set_comp_channel(&channel).build().unwrap();
    let private = ctx.create_cq(16).set_private_channel().build().unwrap();
    let lose = |mut cq: CompletionQueue| {
        let qp = connected(&pd, &cq);
        complete(&null, &cq, [1]);
        null.configure(|config| config.resize_loses = true);
        let error = cq.resize(100).unwrap_err();
        assert_eq!(error.os_error(), Some(libc::ENOMEM));
        null.take_calls();
        expect_lost(cq.poll());
        expect_lost(cq.poll_into(&mut [Wc::default()]));
        expect_lost(cq.resize(1000));
        null.expect_no_calls();
        (qp, cq)
    };
    let (qp, cq) = lose(shared);
    expect_lost(cq.req_notify(false));
    expect_lost(cq.poll_armed(false, |_| ()));
    null.expect_no_calls();
    // Everything can still be destroyed, by name and by dropping it.
    qp.close().unwrap();
    cq.close().unwrap();
    let (_qp, cq) = lose(private);
    expect_lost(cq.wait(None));
    null.expect_no_calls();
}

#[test]
fn moderation_is_rounded_up_to_microseconds() {
    let null = null();
    let Parts { cq, .. } = parts();
    cq.set_moderation(16, Duration::from_nanos(1001)).unwrap();
    cq.set_moderation(1000, Duration::from_micros(4095)).unwrap();
    cq.set_moderation(0, Duration::ZERO).unwrap();
    assert_eq!(null.moderations(), [(16, 2), (1000, 4095), (0, 0)]);
}

#[test]
fn moderation_beyond_the_device_says_what_there_is() {
    let null = null();
    let Parts { ctx, cq, .. } = parts();
    let caps = ctx.query_device_ex().unwrap().cq_moderation_caps().unwrap();
    assert_eq!((caps.max_count, caps.max_period), (1000, Duration::from_micros(4095)));
    let limit = |count, period| match cq.set_moderation(count, period) {
        Err(Error::Capacity { verb: "ibv_modify_cq", requested, available, .. }) => {
            (requested, available)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(limit(1001, Duration::ZERO), (1001, 1000));
    assert_eq!(limit(1, Duration::from_micros(4096)), (4096, 4095));
    assert_eq!(limit(1, Duration::from_micros(65536)), (65536, 4095));
    assert_eq!(limit(1, Duration::MAX), (u64::MAX, 4095));
    null.fail(Verb::ModifyCq, libc::EIO);
    // As much as there is of both is not too much: it is refused for another reason.
    for (count, micros) in [(1, 0), (1000, 4095)] {
        let error = cq.set_moderation(count, Duration::from_micros(micros)).unwrap_err();
        assert!(matches!(error, Error::Verb { .. }), "{error:?}");
        assert_eq!(error.os_error(), Some(libc::EIO));
    }
    // What the device does not have.
    null.succeed(Verb::ModifyCq);
    null.configure(|config| {
        config.edit_device_attr_ex = Some(Box::new(|attr| attr.cq_mod_caps = Default::default()));
    });
    let error = cq.set_moderation(1001, Duration::ZERO).unwrap_err();
    assert!(matches!(error, Error::Unsupported { operation: "ibv_modify_cq" }), "{error}");
    assert_eq!(null.moderations(), []);
}
