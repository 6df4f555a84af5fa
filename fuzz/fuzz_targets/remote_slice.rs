//! Any bytes are a remote slice that is written as these bytes, or refused; what is cut from one lies within it.
#![no_main]

use ibverbs::RemoteMemorySlice;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    start: u64,
    end: u64,
    bytes: &'a [u8],
}

fuzz_target!(|input: Input| {
    let Ok(slice) = RemoteMemorySlice::from_bytes(input.bytes) else { return };
    assert_eq!(slice.to_bytes(), input.bytes);
    let end = slice.addr.checked_add(slice.len).expect("it does not go beyond the address space");
    if input.start <= input.end && input.end <= slice.len {
        let part = slice.slice(input.start..input.end);
        assert_eq!((part.len, part.rkey), (input.end - input.start, slice.rkey));
        assert!(slice.addr <= part.addr && part.addr + part.len <= end);
    }
});
