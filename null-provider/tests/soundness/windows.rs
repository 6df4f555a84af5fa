//! Rules 1, 5 and 9 for memory windows: of one domain, bound only as may be, and freed before what they refer to.

use ibverbs::{
    ffi, AccessFlags, CanSend, Error, MemoryRegion, MemoryWindow, ProtectionDomain, QpState,
    QueuePair, QueuePairAttr, Rc, RemoteMemorySlice, Result, SendOps, WindowType1, WindowType2,
};
use null_provider::{Kind, Operation, Verb};

use crate::common::{
    bind, complete, connected, expect_poll_in_progress, null, open, parts, submit, with_windows,
    Parts,
};

const READ: AccessFlags = AccessFlags::REMOTE_READ;
const BINDABLE: AccessFlags = AccessFlags::LOCAL_WRITE.union(AccessFlags::MW_BIND);

fn region(pd: &ProtectionDomain) -> MemoryRegion {
    pd.allocate(64, BINDABLE).unwrap()
}

fn window(pd: &ProtectionDomain) -> MemoryWindow {
    pd.alloc_window().unwrap()
}

/// Tries to bind a window to a region, in a batch.
fn try_bind(
    qp: &mut QueuePair<Rc>,
    window: &mut MemoryWindow,
    region: &MemoryRegion,
) -> Result<()> {
    let mut batch = qp.start_send();
    // SAFETY: there is no peer.
    unsafe { batch.op().bind_window(1, window, region, .., READ) };
    submit(batch)
}

/// Binds a window of type 1 to a region.
fn bind_1(
    qp: &mut QueuePair<Rc>,
    window: &mut MemoryWindow<WindowType1>,
    region: &MemoryRegion,
) -> Result<RemoteMemorySlice> {
    // SAFETY: there is no peer.
    unsafe { qp.bind_window(1, window, region, 8..24, READ) }
}

/// Unbinds one.
fn unbind_1(
    qp: &mut QueuePair<Rc, impl CanSend>,
    window: &mut MemoryWindow<WindowType1>,
    region: &MemoryRegion,
) -> Result<()> {
    // SAFETY: the null provider always has room.
    unsafe { qp.unbind_window(2, window, region) }
}

#[test]
fn windows_and_regions_of_another_domain_are_refused() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    let other_pds =
        [ctx.alloc_pd().unwrap(), open(0).alloc_pd().unwrap(), open(1).alloc_pd().unwrap()];
    let mut qp = with_windows(&pd, &cq);
    for other_pd in &other_pds {
        let regions = [region(&pd), region(other_pd)];
        let mut type_2 = [window(&pd), window(other_pd)];
        let mut type_1 = [&pd, other_pd].map(|pd| pd.alloc_window::<WindowType1>().unwrap());
        null.take_calls();
        for (which, of) in [(0, 1), (1, 0), (1, 1)] {
            let (window, region) = (&mut type_2[which], &regions[of]);
            let key = window.rkey();
            let result = try_bind(&mut qp, window, region);
            assert!(matches!(result, Err(Error::ProtectionDomainMismatch { .. })), "{result:?}");
            assert_eq!(window.rkey(), key);
            assert_eq!(null.verbs(), [Verb::WrStart, Verb::WrAbort]);
            let window = &mut type_1[which];
            let result = bind_1(&mut qp, window, region);
            assert!(matches!(result, Err(Error::ProtectionDomainMismatch { .. })), "{result:?}");
            let result = unbind_1(&mut qp, window, region);
            assert!(matches!(result, Err(Error::ProtectionDomainMismatch { .. })), "{result:?}");
            null.expect_no_calls();
        }
    }
}

#[test]
fn windows_are_bound_only_as_their_region_allows() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let mut qp = with_windows(&pd, &cq);
    let mut type_1 = pd.alloc_window::<WindowType1>().unwrap();
    let mut type_2 = window(&pd);
    let (write, atomic) = (AccessFlags::REMOTE_WRITE, AccessFlags::REMOTE_ATOMIC);
    let regions = [
        pd.allocate(64, AccessFlags::PERMISSIVE).unwrap(),
        pd.allocate(64, AccessFlags::MW_BIND).unwrap(),
        region(&pd),
    ];
    for (region, access, allowed) in [
        (0, READ, false),
        (1, READ, true),
        (1, write, false),
        (1, atomic, false),
        (2, READ | write | atomic, true),
        (2, AccessFlags::empty(), true),
        (2, READ | AccessFlags::LOCAL_WRITE, false),
        (2, AccessFlags::FLUSH_GLOBAL, false),
        (2, AccessFlags::MW_BIND, false),
        (2, AccessFlags::from_bits_retain(ffi::IBV_ACCESS_ZERO_BASED), false),
    ] {
        let region = &regions[region];
        null.take_calls();
        let mut batch = qp.start_send();
        // SAFETY: there is no peer.
        unsafe { batch.op().bind_window(1, &mut type_2, region, .., access) };
        batch.op().local_inv(2, type_2.rkey());
        let result = submit(batch);
        assert_eq!(result.is_ok(), allowed, "{access:?}: {result:?}");
        // SAFETY: as above.
        let result = unsafe { qp.bind_window(1, &mut type_1, region, .., access) };
        assert_eq!(result.is_ok(), allowed, "{access:?}: {result:?}");
        if !allowed {
            assert!(matches!(result, Err(Error::InvalidAccess { .. })), "{result:?}");
            let calls = null.verbs();
            assert!(!calls.contains(&Verb::BindMw) && !calls.contains(&Verb::WrComplete));
        }
    }
    unbind_1(&mut qp, &mut type_1, &regions[2]).unwrap();
}

#[test]
fn a_window_of_type_1_is_bound_and_unbound_with_a_region() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let region = region(&pd);
    let mut qp = with_windows(&pd, &cq);
    let mut window = pd.alloc_window::<WindowType1>().unwrap();
    let old = window.rkey();
    null.take_calls();
    let remote = bind_1(&mut qp, &mut window, &region).unwrap();
    assert_eq!(
        (remote.addr, remote.len, remote.rkey),
        (region.slice(8..).addr(), 16, window.rkey())
    );
    assert_ne!(remote.rkey, old);
    // Many providers look into the region when there is nothing to bind to as well.
    unbind_1(&mut qp, &mut window, &region).unwrap();
    assert_ne!(window.rkey(), remote.rkey);
    assert_eq!(null.verbs(), [Verb::BindMw; 2]);
    let lengths: Vec<_> = null
        .take_requests()
        .iter()
        .map(|request| match request.operation {
            Operation::Bind { length, .. } => (request.wr_id, request.flags, length),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(lengths, [(1, ffi::IBV_SEND_SIGNALED, 16), (2, ffi::IBV_SEND_SIGNALED, 0)]);
    // SAFETY: there is no peer.
    let result = unsafe { qp.bind_window(1, &mut window, &region, 8..8, READ) };
    assert!(matches!(result, Err(Error::InvalidArgument { value: 0, .. })), "{result:?}");
    region.close().unwrap();
}

#[test]
fn a_forgotten_batch_is_aborted_by_binding_a_window_of_type_1() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let region = region(&pd);
    let mut qp = with_windows(&pd, &cq);
    let mut window = pd.alloc_window::<WindowType1>().unwrap();
    for bound in [true, false] {
        std::mem::forget(qp.start_send());
        null.take_calls();
        match bound {
            true => drop(bind_1(&mut qp, &mut window, &region).unwrap()),
            false => unbind_1(&mut qp, &mut window, &region).unwrap(),
        }
        assert_eq!(null.verbs(), [Verb::WrAbort, Verb::BindMw]);
    }
}

#[test]
fn a_queue_pair_that_cannot_send_binds_nothing() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let region = region(&pd);
    let mut type_1 = pd.alloc_window::<WindowType1>().unwrap();
    let mut type_2 = window(&pd);
    let keys = (type_1.rkey(), type_2.rkey());
    let builder = || pd.create_qp::<Rc>(&cq, &cq, 1).unwrap().set_send_ops(SendOps::all());
    // One that is not ready yet, and one that never will be.
    let manual = builder().build().unwrap().into_manual();
    let no_queue = builder().set_max_send_wr(0).build().unwrap().into_manual();
    for (mut qp, ready) in [(manual, false), (no_queue, true)] {
        if ready {
            for state in [QpState::INIT, QpState::RTR, QpState::RTS] {
                qp.modify(&QueuePairAttr::new().set_state(state)).unwrap();
            }
        }
        null.take_calls();
        // SAFETY: there is no peer.
        let bound = unsafe { qp.bind_window(1, &mut type_1, &region, .., READ) }.map(drop);
        for result in [bound, unbind_1(&mut qp, &mut type_1, &region)] {
            match result {
                Err(Error::NotReadyToSend) => assert!(!ready),
                Err(Error::OperationNotGranted { .. }) => assert!(ready),
                other => panic!("{other:?}"),
            }
        }
        let mut batch = qp.start_send();
        // SAFETY: as above.
        unsafe { batch.op().bind_window(1, &mut type_2, &region, .., READ) };
        assert!(submit(batch).is_err());
        let calls = null.verbs();
        assert!(!calls.contains(&Verb::BindMw) && !calls.contains(&Verb::WrOperation), "{calls:?}");
    }
    assert_eq!((type_1.rkey(), type_2.rkey()), keys);
}

#[test]
fn a_queue_pair_that_was_not_built_for_it_binds_no_window_of_type_1() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let region = region(&pd);
    let mut qp = connected(&pd, &cq);
    let mut window = pd.alloc_window::<WindowType1>().unwrap();
    null.take_calls();
    let bound = bind_1(&mut qp, &mut window, &region).map(drop);
    for result in [bound, unbind_1(&mut qp, &mut window, &region)] {
        let bind = SendOps::BIND_MW;
        let expected = matches!(result, Err(Error::OperationNotGranted { operation, .. }) if operation == bind);
        assert!(expected, "{result:?}");
    }
    null.expect_no_calls();
}

#[test]
fn a_key_that_a_window_cannot_have_had_is_not_put_back() {
    let null = null();
    let Parts { pd, .. } = parts();
    let (mut first, second) = (window(&pd), window(&pd));
    let key = first.rkey();
    for wrong in [second.rkey(), key ^ 1 << 8, !key] {
        match first.set_rkey(wrong) {
            Err(Error::InvalidArgument { value, .. }) => assert_eq!(value, wrong.into()),
            other => panic!("{other:?}"),
        }
        assert_eq!(first.rkey(), key);
    }
    for right in [key ^ 0xff, key] {
        first.set_rkey(right).unwrap();
        assert_eq!(first.rkey(), right);
    }
    drop((first, second));
    assert_eq!(null.count(Verb::DeallocMw), 2);
}

#[test]
fn binding_a_window_of_type_1_fails_cleanly() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let region = region(&pd);
    let mut qp = with_windows(&pd, &cq);
    let mut window = pd.alloc_window::<WindowType1>().unwrap();
    let key = window.rkey();
    null.fail(Verb::BindMw, libc::ENOMEM);
    let error = bind_1(&mut qp, &mut window, &region).unwrap_err();
    assert!(matches!(error, Error::PostSend { .. }), "{error}");
    assert!(error.to_string().contains("full"), "{error}");
    null.fail(Verb::BindMw, libc::EOPNOTSUPP);
    let error = unbind_1(&mut qp, &mut window, &region).unwrap_err();
    assert!(matches!(error, Error::Unsupported { operation: "ibv_bind_mw" }), "{error}");
    assert_eq!(window.rkey(), key);
}

#[test]
fn windows_that_a_device_does_not_have_are_unsupported() {
    let null = null();
    let Parts { pd, .. } = parts();
    for code in [libc::EINVAL, libc::EOPNOTSUPP, libc::ENOSYS] {
        null.fail(Verb::AllocMw, code);
        let results = [
            pd.alloc_window::<WindowType1>().map(drop),
            pd.alloc_window::<WindowType2>().map(drop),
        ];
        for result in results {
            assert!(matches!(result, Err(Error::Unsupported { .. })), "{code}: {result:?}");
        }
    }
    null.fail(Verb::AllocMw, libc::ENOMEM);
    assert_eq!(pd.alloc_window::<WindowType2>().unwrap_err().os_error(), Some(libc::ENOMEM));
}

/// What ends a queue pair.
type End = fn(QueuePair<Rc>);

#[test]
fn windows_are_freed_before_the_queue_pair_that_has_bound_them() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let endings: [End; 2] = [|qp| qp.close().unwrap(), drop];
    for end in endings {
        let region = region(&pd);
        let mut windows = [(); 3].map(|()| window(&pd));
        let mut qp = with_windows(&pd, &cq);
        for window in &mut windows {
            bind(&mut qp, window, &region);
        }
        // Bound again by the same one.
        let mut batch = qp.start_send();
        batch.op().local_inv(1, windows[0].rkey());
        submit(batch).unwrap();
        bind(&mut qp, &mut windows[0], &region);
        let [first, mut second, third] = windows;
        null.take_calls();
        third.close().unwrap();
        end(qp);
        let freed = [Verb::DeallocMw; 3].into_iter().chain([Verb::DestroyQp]);
        assert_eq!(null.verbs(), freed.collect::<Vec<_>>());
        assert_eq!(null.live(Kind::Mw), 0);

        assert!(first.as_raw().is_null() && second.as_raw().is_null());
        let key = second.rkey();
        second.set_rkey(ffi::ibv_inc_rkey(key)).unwrap();
        let mut other = with_windows(&pd, &cq);
        let result = try_bind(&mut other, &mut second, &region);
        assert!(matches!(result, Err(Error::WindowFreed)), "{result:?}");
        null.take_calls();
        first.close().unwrap();
        drop(second);
        null.expect_no_calls();
        region.close().unwrap();
    }
}

#[test]
fn a_window_that_another_queue_pair_has_bound_since_is_not_freed() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let (region, mut window) = (region(&pd), window(&pd));
    let mut first = with_windows(&pd, &cq);
    let mut second = with_windows(&pd, &cq);
    bind(&mut first, &mut window, &region);
    let mut batch = first.start_send();
    batch.op().local_inv(1, window.rkey());
    submit(batch).unwrap();
    let remote = bind(&mut second, &mut window, &region);
    drop(first);
    assert_eq!(window.rkey(), remote.rkey);
    assert_eq!(null.count(Verb::DeallocMw), 0);
    drop(second);
    assert!(window.as_raw().is_null());
    assert_eq!(null.count(Verb::DeallocMw), 1);
}

#[test]
fn a_queue_pair_that_waits_for_a_poll_frees_its_windows_when_it_is_destroyed() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let (region, mut window) = (region(&pd), window(&pd));
    let mut qp = with_windows(&pd, &cq);
    bind(&mut qp, &mut window, &region);
    complete(&null, &cq, [1]);
    let completions = cq.poll().unwrap();
    let qp = match qp.close() {
        Err(failed) if matches!(failed.error, Error::PollInProgress) => failed.resource,
        other => panic!("{other:?}"),
    };
    expect_poll_in_progress(cq.poll());
    drop(qp);
    assert!(!window.as_raw().is_null());
    null.take_calls();
    drop(completions);
    assert_eq!(null.verbs(), [Verb::EndPoll, Verb::DeallocMw, Verb::DestroyQp]);
    assert!(window.as_raw().is_null());
}

#[test]
fn a_queue_pair_that_could_not_be_destroyed_has_no_windows_any_more() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let (region, mut window) = (region(&pd), window(&pd));
    let mut qp = with_windows(&pd, &cq);
    bind(&mut qp, &mut window, &region);
    null.fail(Verb::DestroyQp, libc::EIO);
    let mut qp = qp.close().unwrap_err().resource;
    assert!(window.as_raw().is_null());
    assert!(matches!(try_bind(&mut qp, &mut window, &region), Err(Error::WindowFreed)));
    window = self::window(&pd);
    bind(&mut qp, &mut window, &region);
    null.succeed(Verb::DestroyQp);
    qp.close().unwrap();
    assert!(window.as_raw().is_null());
}

#[test]
fn windows_and_their_queue_pair_can_be_dropped_by_two_threads() {
    let _null = null();
    let Parts { pd, cq, .. } = parts();
    let region = region(&pd);
    for _ in 0..if cfg!(miri) { 5 } else { 200 } {
        let mut windows: Vec<_> = (0..4).map(|_| window(&pd)).collect();
        let mut qp = with_windows(&pd, &cq);
        for window in &mut windows {
            bind(&mut qp, window, &region);
        }
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for mut window in windows {
                    let key = window.rkey();
                    window.set_rkey(key).unwrap();
                    drop(window);
                }
            });
            scope.spawn(move || drop(qp));
        });
    }
    region.close().unwrap();
}

#[test]
fn windows_that_are_gone_are_not_freed_again() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let region = region(&pd);
    let mut qp = with_windows(&pd, &cq);
    for _ in 0..if cfg!(miri) { 20 } else { 2000 } {
        let mut window = window(&pd);
        bind(&mut qp, &mut window, &region);
        drop(window);
        null.take_requests();
    }
    null.take_calls();
    drop(qp);
    assert_eq!(null.verbs(), [Verb::DestroyQp]);
}
