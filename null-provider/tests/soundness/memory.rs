//! Rule 11: memory of which safe code gets references has no remote rights until it is given away.

use ibverbs::{ffi, AccessFlags, Error};
use null_provider::{Kind, Verb};

use crate::common::{null, parts, Parts};

const REMOTE_RIGHTS: u32 = ffi::IBV_ACCESS_REMOTE_READ
    | ffi::IBV_ACCESS_REMOTE_WRITE
    | ffi::IBV_ACCESS_REMOTE_ATOMIC
    | ffi::IBV_ACCESS_FLUSH_GLOBAL
    | ffi::IBV_ACCESS_FLUSH_PERSISTENT;

/// All flags that there are.
const FLAGS: [u32; 10] = [
    ffi::IBV_ACCESS_LOCAL_WRITE,
    ffi::IBV_ACCESS_REMOTE_WRITE,
    ffi::IBV_ACCESS_REMOTE_READ,
    ffi::IBV_ACCESS_REMOTE_ATOMIC,
    ffi::IBV_ACCESS_MW_BIND,
    ffi::IBV_ACCESS_ON_DEMAND,
    ffi::IBV_ACCESS_HUGETLB,
    ffi::IBV_ACCESS_FLUSH_GLOBAL,
    ffi::IBV_ACCESS_FLUSH_PERSISTENT,
    ffi::IBV_ACCESS_RELAXED_ORDERING,
];

#[test]
#[cfg_attr(miri, ignore = "it is slow, and proves nothing more there")]
fn a_region_is_registered_without_remote_rights_whatever_was_asked_for() {
    let null = null();
    let Parts { pd, .. } = parts();
    let flags: Vec<AccessFlags> = FLAGS.into_iter().map(AccessFlags::from_bits_retain).collect();
    assert_eq!(flags.iter().copied().collect::<AccessFlags>(), AccessFlags::all());
    for choice in 0..1 << flags.len() {
        let chosen = (0..flags.len()).filter(|place| choice >> place & 1 != 0);
        let access: AccessFlags = chosen.map(|place| flags[place]).collect();
        let before = null.registrations().len();
        if pd.allocate(8, access).is_ok() {
            let made = null.registrations().split_off(before);
            assert_eq!(made.len(), 1);
            assert_eq!(made[0].access & REMOTE_RIGHTS, 0, "{access:?}");
        }
    }
    assert!(!null.registrations().is_empty());
}

#[test]
fn remote_rights_come_with_a_second_registration_at_their_first_use() {
    let null = null();
    let Parts { pd, .. } = parts();
    let region = pd.allocate(100, AccessFlags::PERMISSIVE).unwrap();
    let local = null.registrations()[0];
    assert_eq!((local.length, local.key), (100, region.lkey()));
    assert_eq!(region.slice(..).lkey(), local.key);
    assert_eq!(null.count(Verb::RegMr), 1);
    // SAFETY: there is no peer.
    let remote = unsafe { region.remote() }.unwrap();
    let second = null.registrations()[1];
    let wanted =
        ffi::IBV_ACCESS_REMOTE_READ | ffi::IBV_ACCESS_REMOTE_WRITE | ffi::IBV_ACCESS_REMOTE_ATOMIC;
    assert_eq!(second.access & REMOTE_RIGHTS, wanted);
    assert_eq!((second.addr, second.length), (local.addr, local.length));
    assert_eq!((remote.addr, remote.len), (second.addr as u64, 100));
    assert_eq!(remote.rkey, second.key);
    // The key that safe code has, and that is the remote key as well on many adapters, is the other.
    assert_ne!(region.lkey(), remote.rkey);
    // SAFETY: there is no peer.
    assert_eq!(unsafe { region.remote() }.unwrap(), remote);
    assert_eq!(null.count(Verb::RegMr), 2);
    drop(region);
    assert_eq!(null.live(Kind::Mr), 0);
}

#[test]
fn a_region_without_remote_rights_is_not_given_away() {
    let null = null();
    let Parts { pd, .. } = parts();
    let region = pd.allocate(8, AccessFlags::LOCAL_WRITE).unwrap();
    // SAFETY: there is no peer.
    let result = unsafe { region.remote() };
    assert!(matches!(result, Err(Error::InvalidAccess { .. })));
    assert_eq!(null.count(Verb::RegMr), 1);
}

#[test]
fn flags_without_a_name_are_refused() {
    let null = null();
    let Parts { pd, .. } = parts();
    // It would change what an address means.
    let zero_based = AccessFlags::from_bits_retain(ffi::IBV_ACCESS_ZERO_BASED);
    let result = pd.allocate(8, AccessFlags::LOCAL_WRITE | zero_based);
    assert!(matches!(result, Err(Error::InvalidAccess { .. })), "{result:?}");
    assert_eq!(null.count(Verb::RegMr), 0);
}

#[test]
fn a_region_does_not_move() {
    let null = null();
    let Parts { pd, .. } = parts();
    let region = pd.allocate(8, AccessFlags::LOCAL_WRITE).unwrap();
    let regions = vec![region];
    let mut moved = regions.into_iter().next().unwrap();
    moved.bytes_mut().fill(1);
    assert_eq!(null.registrations()[0].addr, moved.bytes().as_ptr() as usize);
    assert_eq!(moved.slice(2..).addr(), moved.bytes()[2..].as_ptr() as u64);
}

#[test]
fn registrations_that_fail_leave_nothing() {
    let null = null();
    let Parts { pd, .. } = parts();
    let region = pd.allocate(8, AccessFlags::PERMISSIVE).unwrap();
    null.fail(Verb::RegMr, libc::ENOMEM);
    assert_eq!(pd.allocate(8, AccessFlags::PERMISSIVE).unwrap_err().os_error(), Some(libc::ENOMEM));
    // SAFETY: there is no peer.
    assert_eq!(unsafe { region.remote() }.unwrap_err().os_error(), Some(libc::ENOMEM));
    null.succeed(Verb::RegMr);
    assert_eq!(null.live(Kind::Mr), 1);
    // SAFETY: there is no peer.
    unsafe { region.remote() }.unwrap();
}
