//! Registered memory: what it is, what is refused, and slices of it.

use std::ffi::c_int;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::panic::{catch_unwind, AssertUnwindSafe};

use ibverbs::{
    ffi, AccessFlags, Advice, AdviseFlags, DeviceCaps, Error, MemoryRegion, OdpTransportCaps, Rc,
    RecvRequest, SendBatch,
};
use ibverbs_tests::{pair, post_recv, say_skipped, submit, wait_one, Ability, Bed};

#[test]
fn memory_is_zeroed_page_aligned_and_as_long_as_asked_for() {
    let bed = Bed::new();
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
    let bed = Bed::new();
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
    let bed = Bed::new();
    let error = bed.pd().allocate(0, AccessFlags::PERMISSIVE).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { value: 0, .. }), "{error}");
}

#[test]
fn more_memory_than_there_is_is_refused() {
    let bed = Bed::new();
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
    let bed = Bed::new();
    for wrong in [AccessFlags::REMOTE_WRITE, AccessFlags::REMOTE_ATOMIC] {
        let error = bed.pd().allocate(64, wrong).unwrap_err();
        assert!(matches!(error, Error::InvalidAccess { access, .. } if access == wrong), "{error}");
        assert!(error.to_string().contains("LOCAL_WRITE"), "{error}");
        bed.pd().allocate(64, wrong | AccessFlags::LOCAL_WRITE).unwrap();
    }
}

#[test]
fn on_demand_paging_is_refused_by_a_device_without_it() {
    let bed = Bed::new();
    let access = AccessFlags::LOCAL_WRITE | AccessFlags::ON_DEMAND;
    if bed.can(Ability::OnDemandPaging) {
        bed.pd().allocate(4096, access).unwrap();
        return;
    }
    let error = bed.pd().allocate(4096, access).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
    assert!(error.to_string().contains("AccessFlags::ON_DEMAND"), "{error}");
}

#[test]
fn a_right_to_flush_is_refused_by_a_device_without_it() {
    let bed = Bed::new();
    let caps = bed.ctx().query_device_ex().unwrap().capabilities();
    for (flag, cap, name) in [
        (AccessFlags::FLUSH_GLOBAL, DeviceCaps::FLUSH_GLOBAL, "AccessFlags::FLUSH_GLOBAL"),
        (
            AccessFlags::FLUSH_PERSISTENT,
            DeviceCaps::FLUSH_PERSISTENT,
            "AccessFlags::FLUSH_PERSISTENT",
        ),
    ] {
        // It is a right of peers, which becomes real when it is given away.
        let region = bed.pd().allocate(4096, AccessFlags::PERMISSIVE | flag).unwrap();
        // SAFETY: no peer learns of it.
        let result = unsafe { region.remote() };
        match result {
            Ok(_) => assert!(caps.contains(cap), "{name}"),
            Err(Error::Unsupported { operation }) => {
                assert!(operation.contains(name) && !caps.contains(cap), "{operation}");
            }
            Err(error) => {
                let Error::Register { hint, .. } = &error else { panic!("{error:?}") };
                assert!(hint.contains("not persistent") && caps.contains(cap), "{error}");
                assert_eq!(flag, AccessFlags::FLUSH_PERSISTENT, "{error}");
            }
        }
    }
}

#[test]
fn huge_pages_that_are_pinned_need_no_flag() {
    let bed = Bed::new();
    // SoftRoCE refuses the flag since Linux 6.12 at the latest, and ignores it in 6.1.
    if let Err(error) = bed.pd().allocate(4096, AccessFlags::LOCAL_WRITE | AccessFlags::HUGETLB) {
        assert!(matches!(error, Error::InvalidAccess { .. }), "{error:?}");
        assert!(error.to_string().contains("HUGETLB goes with ON_DEMAND"), "{error}");
    }
}

#[test]
fn a_flag_without_a_name_does_not_reach_the_device() {
    let bed = Bed::new();
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
    let bed = Bed::new();
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
    let bed = Bed::new();
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
    let bed = Bed::new();
    let mut region = bed.pd().allocate(64, AccessFlags::PERMISSIVE).unwrap();
    region.bytes_mut().copy_from_slice(&[5; 64]);
    // SAFETY: no peer learns of it.
    unsafe { region.remote() }.unwrap();
    let buffer = region.into_inner().unwrap();
    assert_eq!(buffer[..], [5; 64]);
}

#[test]
fn many_regions_have_keys_of_their_own() {
    let bed = Bed::new();
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

/// Memory that the program maps itself: a file in memory, which can be read behind the mapping's back.
struct Mapping {
    file: File,
    ptr: *mut u8,
    len: usize,
}

impl Mapping {
    fn new(len: usize, protection: c_int) -> Mapping {
        // SAFETY: the name is a C string.
        let fd = unsafe { libc::memfd_create(c"ibverbs-tests".as_ptr(), libc::MFD_CLOEXEC) };
        assert_ne!(fd, -1, "{}", std::io::Error::last_os_error());
        // SAFETY: the descriptor was made above, and nobody else knows of it.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(len as u64).unwrap();
        let (place, fd) = (std::ptr::null_mut(), file.as_raw_fd());
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let ptr = unsafe { libc::mmap(place, len, protection, libc::MAP_SHARED, fd, 0) };
        assert_ne!(ptr, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Mapping { file, ptr: ptr.cast(), len }
    }

    fn writable(len: usize) -> Mapping {
        Mapping::new(len, libc::PROT_READ | libc::PROT_WRITE)
    }

    fn register(&self, bed: &Bed, access: AccessFlags) -> ibverbs::Result<MemoryRegion<()>> {
        // SAFETY: the memory stays mapped until `unmap`, which is called after the region was closed.
        unsafe { bed.pd().register_from_raw(self.ptr, self.len, access) }
    }

    fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, offset as u64).unwrap();
        bytes
    }

    /// To be called when nobody uses the memory any more.
    fn unmap(self) {
        // SAFETY: it was mapped in `new` with this length, and nobody uses it any more.
        let code = unsafe { libc::munmap(self.ptr.cast(), self.len) };
        assert_eq!(code, 0);
    }
}

#[test]
fn memory_of_the_program_is_received_into_sent_from_and_written_by_a_peer() {
    let bed = Bed::new();
    let mapping = Mapping::writable(8192);
    let region = mapping.register(&bed, AccessFlags::PERMISSIVE).unwrap();
    assert_eq!((region.len(), region.slice(..).addr()), (8192, mapping.ptr as u64));
    let (mut a, mut b) = pair(&bed);
    let mem = bed.mem(16);
    mem.write(0, b"over the network");

    // SAFETY: the memory is mapped and registered until the queue pair has completed all requests, and
    // there are no references to it.
    let posted = unsafe { b.qp.post_recv([RecvRequest::new(1, &[region.slice(4090..5000)])]) };
    posted.unwrap();
    submit(&mut a.qp, |batch| batch.op().signaled().send(2, &[mem.slice(..)])).unwrap();
    assert_eq!(wait_one(&a.send_cq, 2).ok, Ok(()));
    assert_eq!(wait_one(&b.recv_cq, 1).ok, Ok(()));
    assert_eq!(mapping.read(4090, 16), b"over the network");

    // SAFETY: there are no references to the memory.
    let remote = unsafe { region.remote() }.unwrap();
    let write = |batch: &mut SendBatch<'_, Rc>| {
        batch.op().signaled().write(3, &[mem.slice(..4)], remote.slice(8188..));
    };
    submit(&mut a.qp, write).unwrap();
    assert_eq!(wait_one(&a.send_cq, 3).ok, Ok(()));
    assert_eq!(mapping.read(8188, 4), b"over");

    post_recv(&mut a.qp, [RecvRequest::new(4, &[mem.slice(..)])]).unwrap();
    let mut batch = b.qp.start_send();
    batch.op().signaled().send(5, &[region.slice(4095..4106)]);
    // SAFETY: as above.
    unsafe { batch.submit() }.unwrap();
    assert_eq!(wait_one(&b.send_cq, 5).ok, Ok(()));
    assert_eq!(wait_one(&a.recv_cq, 4).len, 11);
    assert_eq!(mem.read(..11), b"the network");

    region.close().unwrap();
    mapping.unmap();
}

#[test]
fn huge_pages_are_registered_where_the_system_has_some() {
    let bed = Bed::new();
    const LEN: usize = 2 << 20;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB;
    // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
    let ptr = unsafe { libc::mmap(std::ptr::null_mut(), LEN, protection, flags, -1, 0) };
    if ptr == libc::MAP_FAILED {
        return say_skipped("the system has no huge pages");
    }
    // SAFETY: the memory is unmapped below, after the region was closed.
    let region =
        unsafe { bed.pd().register_from_raw(ptr.cast(), LEN, AccessFlags::PERMISSIVE) }.unwrap();
    // SAFETY: there are no references to the memory.
    let remote = unsafe { region.remote() }.unwrap();
    let (mut a, _b) = pair(&bed);
    let mem = bed.mem(8);
    mem.write(0, b"enormous");
    let write = |batch: &mut SendBatch<'_, Rc>| {
        batch.op().signaled().write(1, &[mem.slice(..)], remote.slice(LEN as u64 - 8..));
    };
    submit(&mut a.qp, write).unwrap();
    assert_eq!(wait_one(&a.send_cq, 1).ok, Ok(()));
    let last = ptr.cast::<[u8; 8]>().wrapping_byte_add(LEN - 8);
    // SAFETY: the last eight bytes of the mapping, to which the peer has completed its write.
    assert_eq!(&unsafe { last.read() }, b"enormous");
    region.close().unwrap();
    // SAFETY: it was mapped above with this length, and nobody uses it any more.
    assert_eq!(unsafe { libc::munmap(ptr, LEN) }, 0);
}

#[test]
fn memory_that_is_read_only_is_sent_from_and_not_written() {
    let bed = Bed::new();
    let mapping = Mapping::new(4096, libc::PROT_READ);
    let error = mapping.register(&bed, AccessFlags::PERMISSIVE).unwrap_err();
    let Error::Register { verb: "ibv_reg_mr", hint, .. } = error else { panic!("{error:?}") };
    assert!(hint.contains("not writable"), "{hint}");
    let region = match mapping.register(&bed, AccessFlags::REMOTE_READ) {
        // Linux 6.1 pins shared memory as if it were to be written.
        Err(error) if error.os_error() == Some(libc::EFAULT) => return,
        result => result.unwrap(),
    };
    // SAFETY: there are no references to the memory.
    let remote = unsafe { region.remote() }.unwrap();
    mapping.file.write_all_at(b"read only", 7).unwrap();
    let (mut a, _b) = pair(&bed);
    let mem = bed.mem(16);
    let read = |batch: &mut SendBatch<'_, Rc>| {
        batch.op().signaled().read(1, &[mem.slice(..9)], remote.slice(7..16));
    };
    submit(&mut a.qp, read).unwrap();
    assert_eq!(wait_one(&a.send_cq, 1).ok, Ok(()));
    assert_eq!(mem.read(..9), b"read only");
    region.close().unwrap();
    mapping.unmap();
}

#[test]
fn a_region_of_memory_of_the_program_can_be_made_again_and_again() {
    let bed = Bed::new();
    let mapping = Mapping::writable(4096);
    let regions: Vec<_> =
        (0..10).map(|_| mapping.register(&bed, AccessFlags::PERMISSIVE).unwrap()).collect();
    for region in regions {
        region.into_inner().unwrap();
    }
    drop(mapping.register(&bed, AccessFlags::PERMISSIVE).unwrap());
    mapping.unmap();
}

#[test]
fn what_is_no_dmabuf_is_refused() {
    let bed = Bed::new();
    let file = File::open("/dev/zero").unwrap();
    let error = bed.pd().register_dmabuf(&file, 0, 4096, 0, AccessFlags::PERMISSIVE).unwrap_err();
    match error {
        Error::Unsupported { operation } => assert_eq!(operation, "ibv_reg_dmabuf_mr"),
        Error::Register { hint, .. } => assert!(hint.contains("not one of a dma-buf"), "{hint}"),
        error => panic!("{error:?}"),
    }
    // Before the device is asked:
    let error = bed.pd().register_dmabuf(&file, 0, 4096, 1, AccessFlags::PERMISSIVE).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { value: 1, .. }), "{error:?}");
    let access = AccessFlags::LOCAL_WRITE | AccessFlags::ON_DEMAND;
    let error = bed.pd().register_dmabuf(&file, 0, 4096, 0, access).unwrap_err();
    assert!(matches!(error, Error::InvalidAccess { .. }), "{error:?}");
}

#[test]
fn advice_is_followed_by_a_device_with_on_demand_paging() {
    let Some(bed) = Bed::with([Ability::OnDemandPaging]) else { return };
    let caps = bed.ctx().query_device_ex().unwrap().odp_caps();
    let mem = bed.mem_with(1 << 16, AccessFlags::PERMISSIVE | AccessFlags::ON_DEMAND);
    for given_away in [false, true] {
        if given_away {
            mem.remote();
        }
        for advice in [Advice::PREFETCH, Advice::PREFETCH_WRITE, Advice::PREFETCH_NO_FAULT] {
            for flags in [AdviseFlags::empty(), AdviseFlags::FLUSH] {
                match mem.region().advise(advice, flags, 100..9000) {
                    Ok(()) => {}
                    Err(Error::Unsupported { operation }) => assert_eq!(operation, "ibv_advise_mr"),
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
    }
    if caps.rc.contains(OdpTransportCaps::SEND | OdpTransportCaps::RECV) {
        let (mut a, mut b) = pair(&bed);
        mem.write(0, b"on demand");
        // At the beginnings of pages: SoftRoCE takes every address for that of its page.
        post_recv(&mut b.qp, [RecvRequest::new(1, &[mem.slice(4096..8192)])]).unwrap();
        submit(&mut a.qp, |batch| batch.op().signaled().send(2, &[mem.slice(..9)])).unwrap();
        assert_eq!(wait_one(&a.send_cq, 2).ok, Ok(()));
        assert_eq!(wait_one(&b.recv_cq, 1).ok, Ok(()));
        assert_eq!(mem.read(4096..4105), b"on demand");
    }
}

#[test]
fn advice_about_pinned_memory_is_refused() {
    let bed = Bed::new();
    let region = bed.pd().allocate(4096, AccessFlags::PERMISSIVE).unwrap();
    let error = region.advise(Advice::PREFETCH, AdviseFlags::FLUSH, ..).unwrap_err();
    assert!(matches!(error, Error::InvalidAccess { .. }), "{error:?}");
    let error = region.advise(Advice::PREFETCH, AdviseFlags::FLUSH, 4000..4097).unwrap_err();
    assert!(matches!(error, Error::OutOfBounds { .. }), "{error:?}");
}

#[test]
fn a_region_with_a_memory_window_is_in_use() {
    let Some(bed) = Bed::with([Ability::WindowsOfType1]) else { return };
    let access = AccessFlags::PERMISSIVE | AccessFlags::MW_BIND;
    let region = bed.pd().allocate(4096, access).unwrap();
    let (a, _b) = pair(&bed);
    // SAFETY: the domain is alive.
    let window = unsafe { ffi::ibv_alloc_mw(bed.pd().as_raw(), ffi::IBV_MW_TYPE_1) };
    assert!(!window.is_null(), "{}", std::io::Error::last_os_error());
    let mut bind = ffi::ibv_mw_bind {
        wr_id: 1,
        send_flags: ffi::IBV_SEND_SIGNALED,
        bind_info: ffi::ibv_mw_bind_info {
            mr: region.as_raw(),
            addr: region.slice(..).addr(),
            length: 4096,
            mw_access_flags: ffi::IBV_ACCESS_REMOTE_READ,
        },
    };
    // SAFETY: queue pair, window and region are alive and of one domain, and no batch is open.
    let code = unsafe { ffi::ibv_bind_mw(a.qp.as_raw().cast(), window, &mut bind) };
    assert_eq!(code, 0);
    assert_eq!(wait_one(&a.send_cq, 1).ok, Ok(()));
    let failed = region.close().unwrap_err();
    let expected = matches!(failed.error, Error::InUse { resource: "memory region" });
    assert!(expected, "{:?}", failed.error);
    // SAFETY: the window is alive, and nobody uses it after this.
    assert_eq!(unsafe { ffi::ibv_dealloc_mw(window) }, 0);
    failed.resource.close().unwrap();
}
