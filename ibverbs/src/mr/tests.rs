use super::*;

fn remote() -> RemoteMemorySlice {
    RemoteMemorySlice { addr: 0x1122_3344_5566_7788, len: 0x1000, rkey: 0x99aa_bbcc }
}

#[test]
fn a_remote_slice_round_trips() {
    assert_eq!(RemoteMemorySlice::from_bytes(&remote().to_bytes()).unwrap(), remote());
}

#[test]
fn the_wire_format_does_not_change() {
    let expected = [
        1, 0, 0, 0, 0x99, 0xaa, 0xbb, 0xcc, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0, 0,
        0, 0, 0, 0, 0x10, 0,
    ];
    assert_eq!(remote().to_bytes(), expected);
}

#[test]
fn garbage_is_refused() {
    let good = remote().to_bytes();
    let with = |index: usize, value: u8| {
        let mut bytes = good;
        bytes[index] = value;
        RemoteMemorySlice::from_bytes(&bytes)
    };
    assert!(with(0, 0).is_err(), "version");
    assert!(with(2, 1).is_err(), "reserved");
    assert!(with(16, 0xff).is_err(), "beyond the address space");
    assert!(RemoteMemorySlice::from_bytes(&good[..23]).is_err(), "too short");
    assert!(RemoteMemorySlice::from_bytes(&[good.as_slice(), &[0]].concat()).is_err(), "too long");
}

#[test]
fn a_remote_slice_is_sliced() {
    let slice = remote().slice(0x10..0x20);
    assert_eq!((slice.addr, slice.len), (remote().addr + 0x10, 0x10));
    assert_eq!(remote().slice(..), remote());
    assert_eq!(remote().slice(..=0xf).len, 0x10);
    assert_eq!(remote().slice(0x1000..).len, 0);
}

#[test]
#[should_panic(expected = "range 0..4097 is out of range for memory of 4096 bytes")]
fn a_remote_slice_does_not_grow() {
    let _ = remote().slice(..0x1001);
}

#[test]
fn a_range_is_resolved() {
    assert_eq!(slice::resolve(.., 10), (0, 10));
    assert_eq!(slice::resolve(3.., 10), (3, 7));
    assert_eq!(slice::resolve(3..=4, 10), (3, 2));
    assert_eq!(slice::resolve(10.., 10), (10, 0));
}

#[test]
#[should_panic(expected = "range 4..3 is out of range")]
fn a_range_does_not_run_backwards() {
    slice::resolve((std::ops::Bound::Included(4), std::ops::Bound::Excluded(3)), 10);
}

#[test]
#[should_panic(expected = "out of range")]
fn the_end_of_a_range_does_not_overflow() {
    slice::resolve(..=usize::MAX, 10);
}

#[test]
#[should_panic(expected = "of 4294967296 bytes is too long for a scatter entry")]
fn a_slice_longer_than_a_scatter_entry_is_refused() {
    slice::resolve(5.., u32::MAX as usize + 6);
}

#[test]
fn a_range_is_resolved_or_refused() {
    assert_eq!(try_resolve(3..=4, 10, "thing").unwrap(), (3, 2));
    assert_eq!(try_resolve(10.., 10, "thing").unwrap(), (10, 0));
    #[allow(clippy::reversed_empty_ranges)] // that is what is refused
    for (range, expected) in [(5..11, (5, 11)), (11..11, (11, 11)), (4..3, (4, 3))] {
        match try_resolve(range, 10, "thing").unwrap_err() {
            Error::OutOfBounds { what: "thing", start, end, len: 10 } => {
                assert_eq!((start, end), expected);
            }
            error => panic!("{error:?}"),
        }
    }
    assert!(try_resolve(..=usize::MAX, 10, "thing").is_err());
}

#[test]
fn a_page_buffer_is_zeroed_aligned_and_writable() {
    let mut buf = PageBuf::new(5000).unwrap();
    assert_eq!(buf.ptr().as_ptr() as usize % 4096, 0);
    assert!(buf.iter().all(|&byte| byte == 0));
    buf[4999] = 7;
    assert_eq!((buf.len(), buf[4999]), (5000, 7));
}

#[test]
fn an_empty_page_buffer_is_refused() {
    assert!(matches!(PageBuf::new(0), Err(Error::InvalidArgument { value: 0, .. })));
    assert!(PageBuf::new(usize::MAX).is_err());
}
