//! Rule 11: memory of which safe code gets references has no remote rights until it is given away. Wherever
//! the memory is, it is given away by registering the same memory a second time.

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use ibverbs::{ffi, AccessFlags, Advice, AdviseFlags, Error, MemoryRegion};
use null_provider::{Advised, Kind, Memory, Verb};

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

/// A file that stands for a dma-buf: the provider does not look closer.
fn file() -> File {
    File::open("/dev/null").unwrap()
}

fn file_id(file: &File) -> (u64, u64) {
    let metadata = file.metadata().unwrap();
    (metadata.dev(), metadata.ino())
}

#[test]
#[cfg_attr(miri, ignore = "it is slow, and proves nothing more there")]
fn a_region_is_registered_without_remote_rights_whatever_was_asked_for() {
    let null = null();
    let Parts { ctx, pd, .. } = parts();
    let flags: Vec<AccessFlags> = FLAGS.into_iter().map(AccessFlags::from_bits_retain).collect();
    assert_eq!(flags.iter().copied().collect::<AccessFlags>(), AccessFlags::all());
    let mut bytes = [0u8; 8];
    let memory = ctx.alloc_dm(8, 0).unwrap();
    for choice in 0..1 << flags.len() {
        let chosen = (0..flags.len()).filter(|place| choice >> place & 1 != 0);
        let access: AccessFlags = chosen.map(|place| flags[place]).collect();
        let before = null.registrations().len();
        // SAFETY: the memory outlives the region.
        let raw = unsafe { pd.register_from_raw(bytes.as_mut_ptr(), 8, access) };
        let dmabuf = pd.register_dmabuf(file(), 0, 8, 0, access);
        let device = pd.register_dm(&memory, .., access);
        let made = usize::from(pd.allocate(8, access).is_ok())
            + [raw, dmabuf, device].iter().filter(|result| result.is_ok()).count();
        let registrations = null.registrations().split_off(before);
        assert_eq!(registrations.len(), made);
        for registration in registrations {
            assert_eq!(registration.access & REMOTE_RIGHTS, 0, "{access:?}");
        }
    }
    for kind in 0..4 {
        assert!(null.registrations().iter().any(|made| kind
            == match made.memory {
                Memory::Process if made.addr == bytes.as_ptr() as usize => 0,
                Memory::Process => 1,
                Memory::Dmabuf { .. } => 2,
                Memory::Device { .. } => 3,
            }));
    }
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

#[test]
fn memory_of_the_program_is_registered_where_it_is() {
    let null = null();
    let Parts { pd, .. } = parts();
    let mut bytes = vec![0u8; 100];
    let ptr = bytes.as_mut_ptr();
    // SAFETY: the memory outlives the region.
    let region: MemoryRegion<()> =
        unsafe { pd.register_from_raw(ptr, 100, AccessFlags::PERMISSIVE) }.unwrap();
    let local = null.registrations()[0];
    let place = (ptr as usize, 100, Memory::Process);
    assert_eq!((local.addr, local.length, local.memory), place);
    assert_eq!((region.slice(10..).addr(), region.len()), (ptr as u64 + 10, 100));
    // SAFETY: there is no peer.
    let remote = unsafe { region.remote() }.unwrap();
    let second = null.registrations()[1];
    assert_eq!((second.addr, second.length, second.memory), place);
    assert_eq!((remote.addr, remote.len, remote.rkey), (ptr as u64, 100, second.key));
    region.close().unwrap();
    // The memory is the program's: it was not freed.
    bytes.fill(1);
}

#[test]
fn memory_of_the_program_that_is_none_is_refused() {
    let null = null();
    let Parts { pd, .. } = parts();
    let mut byte = 0;
    for (ptr, len) in [(std::ptr::null_mut(), 8), (&raw mut byte, 0), (&raw mut byte, usize::MAX)] {
        // SAFETY: it is refused before it is looked at.
        let result = unsafe { pd.register_from_raw(ptr, len, AccessFlags::LOCAL_WRITE) };
        assert!(matches!(result, Err(Error::InvalidArgument { .. })), "{result:?}");
    }
    assert_eq!(null.count(Verb::RegMr), 0);
}

#[test]
#[cfg_attr(miri, ignore = "it opens a file")]
fn a_dmabuf_is_given_away_after_its_descriptor_was_closed() {
    let null = null();
    let Parts { pd, .. } = parts();
    let (dmabuf, iova) = (file(), 0x7000_1000);
    let place = Memory::Dmabuf { file: file_id(&dmabuf), offset: 0x3000 };
    let region = pd.register_dmabuf(&dmabuf, 0x3000, 500, iova, AccessFlags::PERMISSIVE).unwrap();
    let local = null.registrations()[0];
    assert_eq!((local.addr as u64, local.length, local.memory), (iova, 500, place));
    let slice = region.slice(1..);
    assert_eq!((slice.addr(), slice.len(), slice.lkey()), (iova + 1, 499, local.key));
    drop(dmabuf);
    // What takes the place of the descriptor is not what was registered.
    let _other = File::open("/dev/zero").unwrap();
    // SAFETY: there is no peer.
    let remote = unsafe { region.remote() }.unwrap();
    let second = null.registrations()[1];
    assert_eq!((second.addr as u64, second.length, second.memory), (iova, 500, place));
    assert_eq!((remote.addr, remote.len, remote.rkey), (iova, 500, second.key));
    assert_eq!((null.count(Verb::RegDmabufMr), null.count(Verb::RegMr)), (2, 0));
}

#[test]
#[cfg_attr(miri, ignore = "it opens a file")]
fn ranges_of_a_dmabuf_do_not_wrap_around() {
    let null = null();
    let Parts { pd, .. } = parts();
    let end = u64::MAX - 0xfff;
    for (offset, len, iova) in
        [(end, 0x1000, 0), (0, 0x1000, end), (0, 0, 0), (0x10, 8, 0x11), (0, 8, 0x800)]
    {
        let result = pd.register_dmabuf(file(), offset, len, iova, AccessFlags::LOCAL_WRITE);
        assert!(matches!(result, Err(Error::InvalidArgument { .. })), "{result:?}");
    }
    assert_eq!(null.count(Verb::RegDmabufMr), 0);
    let region = pd.register_dmabuf(file(), 0, 0xfff, end, AccessFlags::LOCAL_WRITE).unwrap();
    assert_eq!(region.slice(0xfff..).addr(), u64::MAX);
}

#[test]
#[cfg_attr(miri, ignore = "it opens a file")]
fn what_is_not_in_the_process_has_fewer_flags() {
    let null = null();
    let Parts { ctx, pd, .. } = parts();
    let memory = ctx.alloc_dm(8, 0).unwrap();
    for flag in [
        AccessFlags::MW_BIND,
        AccessFlags::ON_DEMAND,
        AccessFlags::HUGETLB,
        AccessFlags::FLUSH_GLOBAL,
        AccessFlags::FLUSH_PERSISTENT,
        AccessFlags::from_bits_retain(ffi::IBV_ACCESS_ZERO_BASED),
    ] {
        for result in [
            pd.register_dmabuf(file(), 0, 8, 0, AccessFlags::LOCAL_WRITE | flag),
            pd.register_dm(&memory, .., AccessFlags::LOCAL_WRITE | flag),
        ] {
            assert!(matches!(result, Err(Error::InvalidAccess { .. })), "{result:?}");
        }
    }
    assert_eq!(null.registrations(), []);
}

#[test]
#[cfg_attr(miri, ignore = "it asks for the file system of a descriptor")]
fn a_dmabuf_that_is_refused_says_why() {
    let null = null();
    let Parts { pd, .. } = parts();
    let refused = |code| {
        null.fail(Verb::RegDmabufMr, code);
        let error = pd.register_dmabuf(file(), 0, 8, 0, AccessFlags::LOCAL_WRITE).unwrap_err();
        let text = error.to_string();
        (error, text)
    };
    for code in [libc::EOPNOTSUPP, libc::ENOSYS, libc::EPROTONOSUPPORT] {
        let (error, text) = refused(code);
        let expected = matches!(error, Error::Unsupported { operation: "ibv_reg_dmabuf_mr" });
        assert!(expected, "{text}");
    }
    let (error, text) = refused(libc::EINVAL);
    assert!(text.contains("not one of a dma-buf") && text.contains("ibv_reg_dmabuf_mr"), "{text}");
    assert_eq!(error.os_error(), Some(libc::EINVAL));
}

/// The error of a registration with this access that the provider refuses with `code`.
fn refusal(null: &crate::common::Null, access: AccessFlags, code: i32) -> Error {
    let Parts { pd, .. } = parts();
    null.fail(Verb::RegMr, code);
    let error = pd.allocate(8, access).unwrap_err();
    null.succeed(Verb::RegMr);
    error
}

#[test]
fn a_flag_that_the_device_does_not_have_is_named() {
    let null = null();
    null.configure(|config| {
        config.edit_device_attr = Some(Box::new(|attr| attr.device_cap_flags = 0));
        config.edit_device_attr_ex = Some(Box::new(|attr| attr.device_cap_flags_ex = 0));
    });
    for code in [libc::EINVAL, libc::EOPNOTSUPP] {
        for (flag, name) in [
            (AccessFlags::ON_DEMAND, "ON_DEMAND"),
            (AccessFlags::ON_DEMAND | AccessFlags::HUGETLB, "ON_DEMAND"),
            (AccessFlags::MW_BIND, "MW_BIND"),
            (AccessFlags::FLUSH_GLOBAL, "FLUSH_GLOBAL"),
            (AccessFlags::FLUSH_PERSISTENT, "FLUSH_PERSISTENT"),
        ] {
            let error = refusal(&null, AccessFlags::PERMISSIVE | flag, code);
            assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
            assert!(error.to_string().contains(name), "{error}");
        }
        let error = refusal(&null, AccessFlags::HUGETLB, code);
        assert!(matches!(error, Error::InvalidAccess { .. }), "{error:?}");
        // The device has these: it must be something else.
        let error = refusal(&null, AccessFlags::PERMISSIVE, code);
        assert!(matches!(error, Error::Register { .. }), "{error:?}");
        assert_eq!(error.os_error(), Some(code));
    }
    null.configure(|config| {
        config.edit_device_attr = Some(Box::new(|attr| attr.atomic_cap = ffi::IBV_ATOMIC_NONE));
    });
    let error = refusal(&null, AccessFlags::PERMISSIVE, libc::EOPNOTSUPP);
    assert!(error.to_string().contains("REMOTE_ATOMIC"), "{error}");
    let error = refusal(&null, AccessFlags::ON_DEMAND, libc::ENOMEM);
    assert!(matches!(error, Error::Register { .. }), "{error:?}");
}

#[test]
fn memory_that_is_not_registered_says_why() {
    let null = null();
    let persistent = AccessFlags::PERMISSIVE | AccessFlags::FLUSH_PERSISTENT;
    for (access, code, why) in [
        (AccessFlags::PERMISSIVE, libc::ENOMEM, "ulimit -l"),
        (AccessFlags::PERMISSIVE, libc::EFAULT, "is not mapped"),
        (AccessFlags::PERMISSIVE, libc::EINVAL, "one of these access flags"),
        (persistent, libc::EINVAL, "is not persistent"),
        (persistent, libc::EFAULT, "is not mapped"),
        (AccessFlags::PERMISSIVE, libc::EIO, "the device or the kernel refused"),
    ] {
        let error = refusal(&null, access, code);
        assert!(matches!(error, Error::Register { .. }), "{error:?}");
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[test]
fn advice_is_about_both_registrations() {
    let null = null();
    let Parts { pd, .. } = parts();
    let region = pd.allocate(100, AccessFlags::PERMISSIVE | AccessFlags::ON_DEMAND).unwrap();
    let addr = region.slice(..).addr();
    region.advise(Advice::PREFETCH, AdviseFlags::empty(), 50..).unwrap();
    // SAFETY: there is no peer.
    unsafe { region.remote() }.unwrap();
    region.advise(Advice::PREFETCH_WRITE, AdviseFlags::FLUSH, ..=9).unwrap();
    let keys: Vec<u32> = null.registrations().iter().map(|made| made.key).collect();
    let read = Advised { advice: 0, flags: 0, ranges: vec![(addr + 50, 50, keys[0])] };
    let ranges = vec![(addr, 10, keys[0]), (addr, 10, keys[1])];
    let write = Advised { advice: 1, flags: 1, ranges };
    assert_eq!(null.advised(), [read, write]);
    // There is nothing to advise about.
    region.advise(Advice::PREFETCH, AdviseFlags::empty(), 100..).unwrap();
    assert_eq!(null.count(Verb::AdviseMr), 2);
}

#[test]
#[cfg_attr(miri, ignore = "it maps more memory than there is")]
fn advice_about_much_memory_is_given_in_pieces() {
    let null = null();
    let Parts { pd, .. } = parts();
    const LEN: usize = 5 << 30;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
    let ptr = unsafe { libc::mmap(std::ptr::null_mut(), LEN, libc::PROT_NONE, flags, -1, 0) };
    assert_ne!(ptr, libc::MAP_FAILED);
    let access = AccessFlags::LOCAL_WRITE | AccessFlags::ON_DEMAND;
    // SAFETY: the memory stays mapped.
    let region = unsafe { pd.register_from_raw(ptr.cast(), LEN, access) }.unwrap();
    region.advise(Advice::PREFETCH, AdviseFlags::empty(), 1..).unwrap();
    let mut expected = ptr as u64 + 1;
    for (addr, len, key) in null.advised().remove(0).ranges {
        assert_eq!((addr, key), (expected, region.lkey()));
        expected += u64::from(len);
    }
    assert_eq!(expected, ptr as u64 + LEN as u64);
}

/// The kernel counts the bytes of the list with 16 bits.
#[test]
fn a_list_of_advice_is_as_long_as_the_kernel_takes() {
    let null = null();
    let Parts { pd, .. } = parts();
    const MOST: usize = u16::MAX as usize / size_of::<ffi::ibv_sge>();
    const PIECE: usize = 1 << 31;
    let ptr = std::ptr::without_provenance_mut(1 << 20);
    let access = AccessFlags::LOCAL_WRITE | AccessFlags::ON_DEMAND;
    // SAFETY: there is no memory, but the null provider never touches it.
    let region = unsafe { pd.register_from_raw(ptr, (MOST + 1) * PIECE, access) }.unwrap();
    region.advise(Advice::PREFETCH, AdviseFlags::empty(), ..).unwrap();
    let lens: Vec<_> = null.advised().iter().map(|advised| advised.ranges.len()).collect();
    assert_eq!(lens, [MOST, 1]);
}

#[test]
#[cfg_attr(miri, ignore = "it opens a file")]
fn advice_about_pinned_memory_does_not_reach_the_provider() {
    let null = null();
    let Parts { ctx, pd, .. } = parts();
    let memory = ctx.alloc_dm(8, 0).unwrap();
    let pinned = pd.allocate(8, AccessFlags::LOCAL_WRITE).unwrap();
    let device = pd.register_dm(&memory, .., AccessFlags::LOCAL_WRITE).unwrap();
    let dmabuf = pd.register_dmabuf(file(), 0, 8, 0, AccessFlags::LOCAL_WRITE).unwrap();
    let read_only = pd.allocate(8, AccessFlags::ON_DEMAND).unwrap();
    let (write, flags) = (Advice::PREFETCH_WRITE, AdviseFlags::FLUSH);
    for result in [
        pinned.advise(Advice::PREFETCH, flags, ..),
        device.advise(Advice::PREFETCH, flags, ..),
        dmabuf.advise(Advice::PREFETCH, flags, ..),
        read_only.advise(write, flags, ..),
    ] {
        assert!(matches!(result, Err(Error::InvalidAccess { .. })), "{result:?}");
    }
    let result = read_only.advise(Advice::PREFETCH, flags, ..9);
    assert!(matches!(result, Err(Error::OutOfBounds { end: 9, len: 8, .. })), "{result:?}");
    assert_eq!(null.count(Verb::AdviseMr), 0);
}

#[test]
fn advice_that_is_refused_says_why() {
    let null = null();
    let Parts { pd, .. } = parts();
    let region = pd.allocate(8, AccessFlags::ON_DEMAND).unwrap();
    let refused = |code| {
        null.fail(Verb::AdviseMr, code);
        region.advise(Advice(77), AdviseFlags::empty(), ..).unwrap_err()
    };
    for (code, why) in [
        (libc::EFAULT, "is not mapped"),
        (libc::EINVAL, "does not know"),
        (libc::EIO, "the kernel refused"),
    ] {
        let error = refused(code);
        assert!(matches!(error, Error::Advise { advice: Advice(77), .. }), "{error:?}");
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(error.os_error(), Some(code));
    }
    let error = refused(libc::EOPNOTSUPP);
    assert!(matches!(error, Error::Unsupported { operation: "ibv_advise_mr" }), "{error:?}");
}
