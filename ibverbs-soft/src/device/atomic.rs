//! Atomic operations of peers on registered memory.

use std::sync::atomic::AtomicU64;

/// Changes 8 bytes of registered memory, as one atomic operation.
///
/// # Safety
///
/// `at` must be a multiple of 8, readable and writable for 8 bytes, and stay so during the call.
pub(crate) unsafe fn change<T>(at: *mut u8, change: impl FnOnce(&AtomicU64) -> T) -> T {
    // SAFETY: the caller vouches for alignment and validity. That other threads access the bytes by other means at the
    // same time is ruled out as far as it can be: the device's copies are atomic, and programs are told to use atomic
    // operations here.
    change(unsafe { AtomicU64::from_ptr(at.cast()) })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn changes_a_word_atomically() {
        let mut word = 5_u64;
        let at: *mut u8 = (&raw mut word).cast();
        // SAFETY: an aligned word of this test's own.
        let swapped = unsafe { change(at, |word| word.swap(9, Ordering::SeqCst)) };
        // SAFETY: as above.
        let added = unsafe { change(at, |word| word.fetch_add(u64::MAX, Ordering::SeqCst)) };
        assert_eq!((swapped, added, word), (5, 9, 8));
    }
}
