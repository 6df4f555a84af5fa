//! Copies between registered memory and a buffer of one's own.
//!
//! A device, a peer or another thread may read and write registered memory at any time, so that nothing may be a Rust
//! reference to it. What is here counts, for the memory model, as relaxed atomic accesses of single bytes, and so is
//! no data race with atomic accesses of others. A device in software and a library that lets programs look into such
//! memory copy through this module both, so that they agree on how it is accessed.
//!
//! ThreadSanitizer sees atomic accesses and not assembly: with `--cfg ibverbs_bytewise`, and under Miri, the copies are
//! made byte by byte.

/// Copies from registered memory.
///
/// # Safety
///
/// `from` must be readable for `to.len()` bytes, and stay so during the call.
#[inline]
pub unsafe fn from_registered(from: *const u8, to: &mut [u8]) {
    // SAFETY: the caller vouches for `from`; `to` is an exclusive reference to as many bytes.
    unsafe { copy::<true>(to.as_mut_ptr(), from, to.len()) }
}

/// Copies into registered memory.
///
/// # Safety
///
/// `to` must be readable and writable for `from.len()` bytes, and stay so during the call.
#[inline]
pub unsafe fn to_registered(to: *mut u8, from: &[u8]) {
    // SAFETY: the caller vouches for `to`; `from` is a reference to as many bytes.
    unsafe { copy::<false>(to, from.as_ptr(), from.len()) }
}

/// Copies `len` bytes. Which side is registered memory, only the portable form needs to know.
///
/// # Safety
///
/// `to` must be writable and `from` readable for `len` bytes; the side that is not registered memory must not be
/// accessed by others during the call.
#[cfg(all(target_arch = "x86_64", not(any(miri, ibverbs_bytewise))))]
#[inline]
unsafe fn copy<const FROM_REGISTERED: bool>(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: the instruction reads `len` bytes at `from` and writes as many at `to`, which the caller vouches for; it
    // uses the three registers that are named, and the direction flag, which is clear by the ABI. It runs outside of
    // what the compiler knows about memory, as relaxed accesses of bytes would: each byte is read once and written
    // once, in an order that nobody may rely on.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags)
        );
    }
}

/// Copies `len` bytes by atomic accesses of the registered side, in words where it is aligned to them. With
/// `--cfg ibverbs_bytewise` (for ThreadSanitizer, which sees these and not assembly) and under Miri, byte by byte.
///
/// # Safety
///
/// As above.
#[cfg(not(all(target_arch = "x86_64", not(any(miri, ibverbs_bytewise)))))]
unsafe fn copy<const FROM_REGISTERED: bool>(to: *mut u8, from: *const u8, len: usize) {
    use std::sync::atomic::{AtomicU64, AtomicU8, Ordering};

    const WORD: usize = size_of::<u64>();
    // The tests of this module alone have words under Miri, which sees whether they are aligned.
    let words = !cfg!(any(all(miri, not(test)), ibverbs_bytewise));
    let registered = if FROM_REGISTERED { from as usize } else { to as usize };
    let mut at = 0;
    while at < len {
        // SAFETY: `at` is below `len`, for which both are valid.
        let to = unsafe { to.add(at) };
        // SAFETY: as for `to`.
        let from = unsafe { from.add(at) };
        if words && (registered + at) % WORD == 0 && len - at >= WORD {
            if FROM_REGISTERED {
                // SAFETY: aligned, as was just checked, and valid for a word, as the caller says.
                let word = unsafe { AtomicU64::from_ptr(from.cast_mut().cast()) };
                let word = word.load(Ordering::Relaxed);
                // SAFETY: a word is left, and nobody else accesses this side.
                unsafe { to.cast::<u64>().write_unaligned(word) };
            } else {
                // SAFETY: a word is left, and nobody writes to this side.
                let word = unsafe { from.cast::<u64>().read_unaligned() };
                // SAFETY: aligned, as was just checked, and valid for a word, as the caller says.
                let at = unsafe { AtomicU64::from_ptr(to.cast()) };
                at.store(word, Ordering::Relaxed);
            }
            at += WORD;
        } else {
            if FROM_REGISTERED {
                // SAFETY: a byte is always aligned, and the caller vouches for the rest.
                let byte = unsafe { AtomicU8::from_ptr(from.cast_mut()) };
                let byte = byte.load(Ordering::Relaxed);
                // SAFETY: valid for a byte, and nobody else accesses this side.
                unsafe { to.write(byte) };
            } else {
                // SAFETY: valid for a byte, and nobody writes to this side.
                let byte = unsafe { from.read() };
                // SAFETY: a byte is always aligned, and the caller vouches for the rest.
                let at = unsafe { AtomicU8::from_ptr(to) };
                at.store(byte, Ordering::Relaxed);
            }
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_any_length_at_any_offset_and_nothing_else() {
        for len in [0, 1, 7, 8, 9, 63, 64, 65, 300] {
            for offset in 0..9 {
                let source: Vec<u8> = (0..len).map(|i| (i * 7 + 1) as u8).collect();
                let mut memory = vec![0xee_u8; len + 32];
                let base = memory.as_mut_ptr();
                // SAFETY: within the vector, whose length is larger.
                let at = unsafe { base.add(offset) };
                // SAFETY: `len` bytes of the vector, which nobody else has.
                unsafe { to_registered(at, &source) };
                let mut back = vec![0; len];
                // SAFETY: as above.
                unsafe { from_registered(at, &mut back) };
                assert_eq!(back, source);
                assert_eq!(memory[offset..offset + len], source);
                assert!(memory[..offset].iter().chain(&memory[offset + len..]).all(|&b| b == 0xee));
            }
        }
    }
}
