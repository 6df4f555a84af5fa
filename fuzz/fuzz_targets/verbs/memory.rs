//! Memory that programs register, between pages that are not there.

use std::ptr::{null_mut, NonNull};
use std::sync::OnceLock;

const PAGE: usize = 4096;
/// How much of it is registered.
pub const LEN: usize = 1 << 16;
/// What is behind that and never registered: whoever writes here writes where he may not.
pub const WATCHED: usize = PAGE;
const FILL: u8 = 0xa5;

/// The address of the memory.
pub fn base() -> usize {
    static MEMORY: OnceLock<usize> = OnceLock::new();
    *MEMORY.get_or_init(|| {
        let len = LEN + WATCHED;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping has no effect on others.
        let outer =
            unsafe { libc::mmap(null_mut(), len + 2 * PAGE, libc::PROT_NONE, flags, -1, 0) };
        assert_ne!(outer, libc::MAP_FAILED);
        let inner = outer.wrapping_byte_add(PAGE);
        // SAFETY: the pages belong to the mapping above, which nobody else knows.
        let result = unsafe { libc::mprotect(inner, len, libc::PROT_READ | libc::PROT_WRITE) };
        assert_eq!(result, 0);
        let watched = inner.wrapping_byte_add(LEN);
        // SAFETY: so many bytes can be written there.
        unsafe { watched.cast::<u8>().write_bytes(FILL, WATCHED) };
        inner as usize
    })
}

/// Whether nobody has written behind what was registered.
pub fn is_intact() -> bool {
    let watched = NonNull::new((base() + LEN) as *mut [u8; WATCHED]).expect("it is mapped");
    // SAFETY: so many bytes can be read.
    let bytes = unsafe { watched.read_volatile() };
    bytes == [FILL; WATCHED]
}
