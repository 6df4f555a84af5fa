//! Registered memory: what it is, what is refused, and slices of it.

use std::panic::{catch_unwind, AssertUnwindSafe};

use ibverbs::{AccessFlags, Error, OdpGeneralCaps};
use ibverbs_tests::Bed;

#[test]
fn memory_is_zeroed_page_aligned_and_as_long_as_asked_for() {
    let Some(bed) = Bed::new() else { return };
    for len in [1, 2, 4095, 4096, 4097, 1 << 20] {
        let mut region = bed.pd().allocate(len, AccessFlags::PERMISSIVE).unwrap();
        assert_eq!((region.len(), region.bytes().len(), region.is_empty()), (len, len, false));
        assert!(region.bytes().iter().all(|&byte| byte == 0));
        assert_eq!(region.bytes().as_ptr() as usize % 4096, 0);
        assert_eq!(region.access(), AccessFlags::PERMISSIVE);
        region.bytes_mut()[len - 1] = 7;
        assert_eq!(region.bytes()[len - 1], 7);
        let slice = region.slice(..);
        assert_eq!(slice.addr(), region.bytes().as_ptr() as u64);
        assert_eq!((slice.len() as usize, slice.lkey()), (len, region.lkey()));
    }
}

#[test]
fn memory_keeps_its_address_when_it_moves() {
    let Some(bed) = Bed::new() else { return };
    let mut region = bed.pd().allocate(64, AccessFlags::PERMISSIVE).unwrap();
    region.bytes_mut().copy_from_slice(&[9; 64]);
    let before = region.slice(..).addr();
    let mut kept = vec![region];
    kept.reserve(100);
    let boxed = Box::new(kept.remove(0));
    assert_eq!(boxed.slice(..).addr(), before);
    let moved = std::thread::spawn(move || *boxed).join().unwrap();
    assert_eq!((moved.slice(..).addr(), moved.bytes()), (before, &[9; 64][..]));
}

#[test]
fn no_memory_is_refused() {
    let Some(bed) = Bed::new() else { return };
    let error = bed.pd().allocate(0, AccessFlags::PERMISSIVE).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { value: 0, .. }), "{error}");
}

#[test]
fn more_memory_than_there_is_is_refused() {
    let Some(bed) = Bed::new() else { return };
    for len in [1 << 46, isize::MAX as usize, usize::MAX] {
        let error = bed.pd().allocate(len, AccessFlags::LOCAL_WRITE).unwrap_err();
        match error {
            Error::InvalidArgument { value, .. } => assert_eq!(value, len as u64),
            Error::Allocate { .. } | Error::Register { .. } => {
                assert_eq!(error.os_error(), Some(libc::ENOMEM), "{error}")
            }
            _ => panic!("{error}"),
        }
    }
}

#[test]
fn remote_rights_to_write_need_the_local_one() {
    let Some(bed) = Bed::new() else { return };
    for wrong in [AccessFlags::REMOTE_WRITE, AccessFlags::REMOTE_ATOMIC] {
        let error = bed.pd().allocate(64, wrong).unwrap_err();
        assert!(matches!(error, Error::InvalidAccess { access, .. } if access == wrong), "{error}");
        assert!(error.to_string().contains("LOCAL_WRITE"), "{error}");
        bed.pd().allocate(64, wrong | AccessFlags::LOCAL_WRITE).unwrap();
    }
}

#[test]
fn on_demand_paging_is_refused_by_a_device_without_it() {
    let Some(bed) = Bed::new() else { return };
    let access = AccessFlags::LOCAL_WRITE | AccessFlags::ON_DEMAND;
    let caps = bed.ctx().query_device_ex().unwrap().odp_caps();
    if caps.general.contains(OdpGeneralCaps::SUPPORT) {
        bed.pd().allocate(4096, access).unwrap();
        return;
    }
    let error = bed.pd().allocate(4096, access).unwrap_err();
    let Error::Register { access: told, hint, .. } = &error else { panic!("{error}") };
    assert_eq!(*told, access);
    assert!(hint.contains("does not have one of these access flags"), "{error}");
    assert!(error.os_error().is_some(), "{error:?}");
}

#[test]
fn a_flag_without_a_name_does_not_reach_the_device() {
    let Some(bed) = Bed::new() else { return };
    // IBV_ACCESS_ZERO_BASED would change what an address means.
    let access = AccessFlags::from_bits_retain(AccessFlags::PERMISSIVE.bits() | 1 << 5);
    let error = bed.pd().allocate(64, access).unwrap_err();
    assert!(
        matches!(error, Error::InvalidAccess { access: told, .. } if told == access),
        "{error}"
    );
}

#[track_caller]
fn assert_panics<T>(f: impl FnOnce() -> T) {
    assert!(catch_unwind(AssertUnwindSafe(f)).is_err(), "it should have panicked");
}

#[test]
fn slices_stay_within_the_region() {
    let Some(bed) = Bed::new() else { return };
    let region = bed.pd().allocate(100, AccessFlags::PERMISSIVE).unwrap();
    let base = region.slice(..).addr();
    for (slice, start, len) in [
        (region.slice(..), 0, 100),
        (region.slice(10..), 10, 90),
        (region.slice(..10), 0, 10),
        (region.slice(10..=10), 10, 1),
        (region.slice(100..), 100, 0),
        (region.slice(50..50), 50, 0),
    ] {
        assert_eq!((slice.addr() - base, slice.len()), (start, len));
        assert_eq!(slice.is_empty(), len == 0);
    }
    assert_panics(|| region.slice(..101));
    assert_panics(|| region.slice(101..));
    #[allow(clippy::reversed_empty_ranges)] // that is what is refused
    assert_panics(|| region.slice(11..10));
    assert_panics(|| region.slice(..=100));
    assert_panics(|| region.slice(usize::MAX..));
    assert_panics(|| region.slice(..=usize::MAX));
}

#[test]
fn remote_slices_stay_within_the_region() {
    let Some(bed) = Bed::new() else { return };
    let mem = bed.mem(100);
    let remote = mem.remote();
    assert_eq!((remote.addr, remote.len), (mem.slice(..).addr(), 100));
    let part = remote.slice(10..60).slice(5..=6);
    assert_eq!((part.addr, part.len, part.rkey), (remote.addr + 15, 2, remote.rkey));
    assert_panics(|| remote.slice(..101));
    assert_panics(|| remote.slice(101..));
    assert_panics(|| remote.slice(..=u64::MAX));
}

#[test]
fn the_buffer_outlives_its_registration() {
    let Some(bed) = Bed::new() else { return };
    let mut region = bed.pd().allocate(64, AccessFlags::PERMISSIVE).unwrap();
    region.bytes_mut().copy_from_slice(&[5; 64]);
    // SAFETY: no peer learns of it.
    unsafe { region.remote() }.unwrap();
    let buffer = region.into_inner().unwrap();
    assert_eq!(buffer[..], [5; 64]);
}

#[test]
fn many_regions_have_keys_of_their_own() {
    let Some(bed) = Bed::new() else { return };
    let regions: Vec<_> =
        (0..50).map(|_| bed.pd().allocate(64, AccessFlags::PERMISSIVE).unwrap()).collect();
    let mut keys: Vec<u32> = regions.iter().map(|region| region.lkey()).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 50);
    for region in regions {
        region.close().unwrap();
    }
}
