//! How verbs report failures: by the value that they return, or null, and `errno`.

use std::io;
use std::ptr::NonNull;

use super::{Error, Result};

/// The `errno` value that a verb's failure code means: most return the value itself, some return -1 and
/// set `errno`, some (ionic) the negative value; and -2 from a poll is how mlx5 and hns say that they
/// cannot make sense of a completion.
pub(crate) fn error_number(code: i32) -> i32 {
    match code {
        -1 => last_errno(),
        -2 => libc::EIO,
        _ => code.saturating_abs(),
    }
}

/// The operating system's error for a verb's failure code.
pub(crate) fn os_error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(error_number(code))
}

/// The calling thread's `errno`; `EIO` if the failing call did not set one.
pub(crate) fn last_errno() -> i32 {
    match io::Error::last_os_error().raw_os_error() {
        None | Some(0) => libc::EIO,
        Some(code) => code,
    }
}

/// What a verb created, or the reason why it returned null.
///
/// Some providers return null without a reason (mlx5 and hns for an address handle, among others): then it is
/// `EIO`, and not what some other call has failed for before.
pub(crate) fn created<T>(create: impl FnOnce() -> *mut T) -> Result<NonNull<T>, i32> {
    clear_errno();
    NonNull::new(create()).ok_or_else(last_errno)
}

/// Forgets what has failed before, for a call that may fail without saying why.
pub(crate) fn clear_errno() {
    // SAFETY: the function has no preconditions.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: it returned the address of this thread's `errno`.
    unsafe { errno.write(0) };
}

/// Refuses zero, for which no queue or memory is built.
pub(crate) fn at_least_one(what: &'static str, value: u32) -> Result<()> {
    if value == 0 {
        return Err(Error::InvalidArgument { what, value: 0, expected: "it must be at least 1" });
    }
    Ok(())
}

/// `Ok` if a verb returned zero.
#[inline]
pub(crate) fn check(verb: &'static str, code: i32) -> Result<()> {
    if code == 0 {
        Ok(())
    } else {
        Err(Error::from_code(verb, code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_without_a_reason_is_not_what_failed_before() {
        // What another call has left.
        // SAFETY: the call looks whether the number is a descriptor, and this one is none.
        assert_eq!(unsafe { libc::fcntl(-1, libc::F_GETFD) }, -1);
        assert_eq!(last_errno(), libc::EBADF);
        assert_eq!(created(std::ptr::null_mut::<u8>), Err(libc::EIO));
    }
}
