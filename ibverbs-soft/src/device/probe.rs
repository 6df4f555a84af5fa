//! Asks the kernel whether memory is mapped, and writable, before it is registered.

use rustix::io::Errno;

const PAGE: u64 = 4096;

/// What a futex is compared with; any value would do.
const UNLIKELY: u32 = 0x5eed_0df5;

/// Checks that every page of a range can be read, or written if `write` is set. As with memory that is pinned for an adapter, pages
/// that were never touched are made; nothing is changed.
///
/// # Errors
///
/// `EFAULT` if a page is not mapped, or does not allow it.
pub(crate) fn probe(addr: u64, len: u64, write: bool) -> Result<(), Errno> {
    // Miri knows no such system calls, and no memory that is not mapped.
    if cfg!(miri) || len == 0 {
        return Ok(());
    }
    let last = addr.checked_add(len - 1).ok_or(Errno::INVAL)? / PAGE;
    (addr / PAGE..=last).try_for_each(|page| probe_page(page * PAGE, write))
}

/// Lets the kernel read the first word of a page, or add nothing to it: both tell of a page that does not allow it.
fn probe_page(addr: u64, write: bool) -> Result<(), Errno> {
    let word = addr as *const u32;
    let own = UNLIKELY;
    let none = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let answer = if write {
        let add_nothing = (libc::FUTEX_OP_ADD << 28) | (libc::FUTEX_OP_CMP_EQ << 24);
        let operation = libc::FUTEX_WAKE_OP | libc::FUTEX_PRIVATE_FLAG;
        // SAFETY: the kernel wakes nobody (both counts are 0), takes `own` for an address only, adds 0 to the word at `word` as one
        // atomic operation, so that its value is the same at every moment, and answers EFAULT if it may not.
        unsafe {
            libc::syscall(libc::SYS_futex, &raw const own, operation, 0, 0_usize, word, add_nothing)
        }
    } else {
        let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        // SAFETY: the kernel reads the word at `word`, or answers EFAULT if it may not; it waits until `none` is over, that is, not at
        // all. `none` is a timespec that outlives the call.
        unsafe { libc::syscall(libc::SYS_futex, word, operation, UNLIKELY, &raw const none) }
    };
    // Everything else that it answers (EAGAIN, ETIMEDOUT, EINTR) it answers after the access.
    if answer == -1 && Errno::from_io_error(&std::io::Error::last_os_error()) == Some(Errno::FAULT)
    {
        return Err(Errno::FAULT);
    }
    Ok(())
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    /// Three pages of which the middle one has the rights `prot`, or is not there.
    struct Pages(*mut libc::c_void);

    impl Pages {
        fn new(prot: Option<libc::c_int>) -> Pages {
            let all = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            // SAFETY: a new mapping where the kernel likes it.
            let at =
                unsafe { libc::mmap(std::ptr::null_mut(), 3 * PAGE as usize, all, flags, -1, 0) };
            assert_ne!(at, libc::MAP_FAILED);
            // SAFETY: within the mapping.
            let middle = unsafe { at.byte_add(PAGE as usize) };
            let changed = match prot {
                // SAFETY: a page of this test's own.
                Some(prot) => unsafe { libc::mprotect(middle, PAGE as usize, prot) },
                // SAFETY: as above.
                None => unsafe { libc::munmap(middle, PAGE as usize) },
            };
            assert_eq!(changed, 0);
            Pages(at)
        }

        fn probe(&self, offset: u64, len: u64, write: bool) -> Result<(), Errno> {
            probe(self.0 as u64 + offset, len, write)
        }
    }

    impl Drop for Pages {
        fn drop(&mut self) {
            // SAFETY: the mapping that `new` made, or what is left of it.
            unsafe { libc::munmap(self.0, 3 * PAGE as usize) };
        }
    }

    const FAULT: Result<(), Errno> = Err(Errno::FAULT);

    #[test]
    fn pages_must_be_mapped() {
        let pages = Pages::new(None);
        for write in [false, true] {
            assert_eq!(pages.probe(0, PAGE, write), Ok(()));
            assert_eq!(pages.probe(1, PAGE, write), FAULT);
            assert_eq!(pages.probe(PAGE - 1, PAGE + 2, write), FAULT);
            assert_eq!(pages.probe(2 * PAGE, PAGE, write), Ok(()));
            assert_eq!(pages.probe(2 * PAGE + 7, 1, write), Ok(()));
        }
        assert_eq!([probe(0, 8, false), probe(0, 8, true)], [FAULT; 2]);
        assert_eq!(probe(u64::MAX - 8192, 64, true), FAULT);
        assert_eq!(probe(u64::MAX, 2, true), Err(Errno::INVAL));
    }

    #[test]
    fn pages_must_allow_it() {
        let pages = Pages::new(Some(libc::PROT_READ));
        assert_eq!(pages.probe(0, 3 * PAGE, false), Ok(()));
        assert_eq!(pages.probe(0, 3 * PAGE, true), FAULT);
        let pages = Pages::new(Some(libc::PROT_NONE));
        assert_eq!([pages.probe(0, 3 * PAGE, false), pages.probe(0, 3 * PAGE, true)], [FAULT; 2]);
    }

    #[test]
    fn nothing_is_changed() {
        let mut memory = vec![0xa5_u8; 3 * PAGE as usize];
        assert_eq!(probe(memory.as_mut_ptr() as u64, memory.len() as u64, true), Ok(()));
        assert!(memory.iter().all(|&byte| byte == 0xa5));
        let equal = [UNLIKELY; 2048];
        assert_eq!(probe(equal.as_ptr() as u64, size_of_val(&equal) as u64, false), Ok(()));
    }
}
