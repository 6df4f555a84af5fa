//! Device memory: bounds, words and the functions that a provider may not have set. Rules 1, 4, 6, 9 and 11 for it.

use std::sync::atomic::{AtomicBool, Ordering};

use ibverbs::{ffi, AccessFlags, Context, DeviceMemory, Error};
use null_provider::{Kind, Memory, Verb};

use crate::common::{null, open, parts, Parts};

const LEN: usize = 64;

fn device_memory(ctx: &Context) -> DeviceMemory {
    ctx.alloc_dm(LEN, 3).unwrap()
}

#[test]
fn what_is_written_is_read_again() {
    let null = null();
    let memory = device_memory(&open(0));
    assert_eq!((memory.len(), memory.is_empty()), (LEN, false));
    memory.write_at(0, &[1; LEN]).unwrap();
    memory.write_at(8, &[2; 4]).unwrap();
    let mut bytes = [0; LEN];
    memory.read_at(0, &mut bytes).unwrap();
    assert_eq!(
        (&bytes[..8], &bytes[8..12], &bytes[12..]),
        (&[1; 8][..], &[2; 4][..], &[1; 52][..])
    );
    memory.read_at(8, &mut bytes[..4]).unwrap();
    assert_eq!(bytes[..4], [2; 4]);
    memory.close().unwrap();
    assert_eq!(null.live(Kind::Dm), 0);
}

#[test]
fn copies_stay_within_the_memory() {
    let null = null();
    let memory = device_memory(&open(0));
    let mut bytes = [0; LEN + 4];
    null.take_calls();
    for (offset, len) in [
        (0, LEN + 4),
        (4, LEN),
        (LEN, 4),
        (LEN + 4, 0),
        // The sum is 60, if it overflows.
        (usize::MAX - 3, LEN),
        (usize::MAX, 1),
    ] {
        for result in
            [memory.write_at(offset, &bytes[..len]), memory.read_at(offset, &mut bytes[..len])]
        {
            let Err(Error::OutOfBounds { start, len, .. }) = result else { panic!("{result:?}") };
            assert_eq!((start, len), (offset as u64, LEN as u64));
        }
    }
    assert_eq!(bytes, [0; LEN + 4]);
    memory.write_at(LEN, &[]).unwrap();
    memory.read_at(LEN, &mut []).unwrap();
    // There is nothing to copy, and no bytes that could be aligned.
    null.expect_no_calls();
}

#[test]
fn bytes_that_are_not_aligned_are_copied_through_some_that_are() {
    let _null = null();
    let memory = device_memory(&open(0));
    let from: Vec<u8> = (0..LEN as u8 + 4).collect();
    // The provider reports words that are not aligned, of which these are three quarters.
    for shift in 0..4 {
        memory.write_at(0, &from[shift..][..LEN]).unwrap();
        for shift_back in 0..4 {
            let mut to = [0xff; LEN + 4];
            memory.read_at(0, &mut to[shift_back..][..LEN]).unwrap();
            assert_eq!(to[shift_back..][..LEN], from[shift..][..LEN]);
            let around = LEN + 4 - to.iter().filter(|&&byte| byte != 0xff).count();
            assert_eq!(around, 4);
        }
    }
}

#[test]
fn a_device_that_copies_words_says_so() {
    let _null = null();
    let memory = device_memory(&open(0));
    let expect = |result, expected: u64| match result {
        Err(Error::InvalidArgument { value, .. }) => assert_eq!(value, expected),
        other => panic!("{other:?}"),
    };
    expect(memory.write_at(2, &[0; 4]), 2);
    expect(memory.write_at(4, &[0; 5]), 5);
    expect(memory.read_at(0, &mut [0; 7]), 7);
}

#[test]
fn functions_that_are_not_there_are_not_called() {
    let null = null();
    null.configure(|config| {
        config.edit_dm = Some(Box::new(|dm| (dm.memcpy_to_dm, dm.memcpy_from_dm) = (None, None)));
    });
    let memory = device_memory(&open(0));
    let result = memory.write_at(0, &[0; 4]);
    assert!(matches!(result, Err(Error::Unsupported { operation: "ibv_memcpy_to_dm" })));
    let result = memory.read_at(0, &mut [0; 4]);
    assert!(matches!(result, Err(Error::Unsupported { operation: "ibv_memcpy_from_dm" })));
}

#[test]
fn functions_that_the_provider_leaves_uninitialised_are_not_called() {
    let null = null();
    // Those of Microsoft's adapters are whatever was in the memory before.
    null.configure(|config| {
        config.edit_device_attr = Some(Box::new(|attr| attr.vendor_id = 0x1414));
    });
    let Parts { ctx, pd, .. } = parts();
    let memory = device_memory(&ctx);
    let result = memory.write_at(0, &[0; 4]);
    assert!(matches!(result, Err(Error::Unsupported { operation: "ibv_memcpy_to_dm" })));
    let result = memory.read_at(0, &mut [0; 4]);
    assert!(matches!(result, Err(Error::Unsupported { operation: "ibv_memcpy_from_dm" })));
    assert_eq!(null.count(Verb::CopyDm), 0);
    // Everything else can be done with it.
    pd.register_dm(&memory, .., AccessFlags::LOCAL_WRITE).unwrap();
}

#[test]
fn a_copy_that_fails_says_why() {
    let null = null();
    let memory = device_memory(&open(0));
    null.fail(Verb::CopyDm, libc::EIO);
    assert_eq!(memory.write_at(0, &[0; 4]).unwrap_err().os_error(), Some(libc::EIO));
    assert_eq!(memory.read_at(0, &mut [0; 4]).unwrap_err().os_error(), Some(libc::EIO));
}

#[test]
fn threads_may_copy_at_a_time() {
    let _null = null();
    let memory = device_memory(&open(0));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                memory.read_at(0, &mut [0; LEN]).unwrap();
            }
        });
        for byte in 0..20 {
            memory.write_at(0, &[byte; LEN]).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn what_the_device_cannot_allocate_is_explained() {
    let null = null();
    let ctx = open(0);
    let result = ctx.alloc_dm(0, 0);
    assert!(matches!(result, Err(Error::InvalidArgument { value: 0, .. })), "{result:?}");
    assert_eq!(null.count(Verb::AllocDm), 0);
    let result = ctx.alloc_dm(100_000, 0);
    let Err(Error::Capacity { requested, available, .. }) = &result else { panic!("{result:?}") };
    assert_eq!((*requested, *available), (100_000, 65536));
    assert_eq!(result.unwrap_err().os_error(), Some(libc::EINVAL));
    let result = ctx.alloc_dm(64, 40);
    assert!(matches!(result, Err(Error::InvalidArgument { value: 40, .. })), "{result:?}");
    null.fail(Verb::AllocDm, libc::ENOMEM);
    assert_eq!(ctx.alloc_dm(64, 0).unwrap_err().os_error(), Some(libc::ENOMEM));
    assert_eq!(null.live(Kind::Dm), 0);
}

#[test]
fn a_device_without_memory_does_not_support_it() {
    let null = null();
    let refused = |ctx: &Context| match ctx.alloc_dm(64, 0) {
        Err(Error::Unsupported { operation }) => assert_eq!(operation, "ibv_alloc_dm"),
        other => panic!("{other:?}"),
    };
    null.fail(Verb::AllocDm, libc::EOPNOTSUPP);
    refused(&open(0));
    // A device of mlx5 that has none says that nothing fits into it.
    null.fail(Verb::AllocDm, libc::EINVAL);
    null.configure(|config| {
        config.edit_device_attr_ex = Some(Box::new(|attr| attr.max_dm_size = 0));
    });
    refused(&open(0));
    null.succeed(Verb::AllocDm);
    null.configure(|config| {
        config.edit_context = Some(Box::new(|context| context.alloc_dm = None));
    });
    refused(&open(0));
}

#[test]
fn a_region_of_device_memory_counts_from_zero() {
    let null = null();
    let Parts { ctx, pd, .. } = parts();
    let memory = device_memory(&ctx);
    let region = pd.register_dm(&memory, 16..48, AccessFlags::PERMISSIVE).unwrap();
    let local = null.registrations()[0];
    let place = Memory::Device { dm: memory.as_raw() as usize, offset: 16 };
    assert_eq!((local.length, local.memory), (32, place));
    assert_ne!(local.access & ffi::IBV_ACCESS_ZERO_BASED, 0);
    assert_eq!(region.len(), 32);
    let slice = region.slice(8..);
    assert_eq!((slice.addr(), slice.len(), slice.lkey()), (8, 24, local.key));
    // SAFETY: there is no peer.
    let remote = unsafe { region.remote() }.unwrap();
    let second = null.registrations()[1];
    assert_eq!((remote.addr, remote.len, remote.rkey), (0, 32, second.key));
    assert_eq!((second.length, second.memory), (32, place));
    assert_ne!(second.access & ffi::IBV_ACCESS_ZERO_BASED, 0);
}

#[test]
fn a_region_lies_within_its_memory() {
    let null = null();
    let Parts { ctx, pd, .. } = parts();
    let memory = device_memory(&ctx);
    let flags = AccessFlags::LOCAL_WRITE;
    for result in [
        pd.register_dm(&memory, ..LEN + 1, flags),
        pd.register_dm(&memory, LEN + 1.., flags),
        pd.register_dm(&memory, ..=usize::MAX, flags),
    ] {
        assert!(matches!(result, Err(Error::OutOfBounds { len: 64, .. })), "{result:?}");
    }
    let result = pd.register_dm(&memory, LEN.., flags);
    assert!(matches!(result, Err(Error::InvalidArgument { value: 0, .. })), "{result:?}");
    assert_eq!(null.count(Verb::RegDmMr), 0);
    pd.register_dm(&memory, LEN - 1.., flags).unwrap();
}

#[test]
fn memory_of_another_context_is_not_registered() {
    let null = null();
    let own = open(0);
    let pd = own.alloc_pd().unwrap();
    // A second context of the same device is another one as well: its handles count anew.
    for other in [open(1), open(0)] {
        let memory = device_memory(&other);
        match pd.register_dm(&memory, .., AccessFlags::LOCAL_WRITE) {
            Err(Error::DeviceMismatch { what }) => assert_eq!(what, "device memory"),
            result => panic!("{result:?}"),
        }
    }
    assert_eq!(null.count(Verb::RegDmMr), 0);
    pd.register_dm(&device_memory(&pd.context()), .., AccessFlags::LOCAL_WRITE).unwrap();
}

#[test]
fn regions_keep_the_memory() {
    let null = null();
    let Parts { ctx, pd, .. } = parts();
    let memory = device_memory(&ctx);
    let region = pd.register_dm(&memory, .., AccessFlags::PERMISSIVE).unwrap();
    let failed = memory.close().unwrap_err();
    assert!(matches!(failed.error, Error::InUse { resource: "device memory" }));
    failed.resource.write_at(0, &[7; 4]).unwrap();
    drop(failed.resource);
    assert_eq!((null.count(Verb::FreeDm), null.live(Kind::Dm)), (0, 1));
    // SAFETY: there is no peer.
    unsafe { region.remote() }.unwrap();
    region.close().unwrap();
    assert_eq!(null.live(Kind::Dm), 0);
}

#[test]
fn memory_that_is_closed_in_vain_stays_usable() {
    let null = null();
    let ctx = open(0);
    null.fail(Verb::FreeDm, libc::EIO);
    let failed = device_memory(&ctx).close().unwrap_err();
    assert_eq!(failed.error.os_error(), Some(libc::EIO));
    failed.resource.write_at(0, &[7; 4]).unwrap();
    assert!(matches!(ctx.close().unwrap_err().error, Error::InUse { .. }));
    null.succeed(Verb::FreeDm);
    failed.resource.close().unwrap();
}
