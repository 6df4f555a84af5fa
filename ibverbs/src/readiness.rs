//! Descriptors of events: reading them never blocks, and waiting for them has a deadline.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

#[cfg(feature = "tokio")]
pub(crate) mod task;

/// Waits until `fd` can be read: `false` if the deadline comes first. What was there may be gone again
/// when it is read.
///
/// # Errors
///
/// [`Error::Verb`] with `EIO`, in the name of `verb`, if nothing will ever come again: the device is gone.
pub(crate) fn wait_readable(
    verb: &'static str,
    fd: BorrowedFd<'_>,
    deadline: Option<Instant>,
) -> Result<bool> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let timeout = left.map(timespec);
        let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the first argument points to one entry, as the second says, and the others are null or
        // point to a time that outlives the call (ppoll(2)).
        match unsafe { libc::ppoll(&mut entry, 1, timeout, std::ptr::null()) } {
            0 if left.is_some_and(|left| left.is_zero()) => return Ok(false),
            0 => {} // the time was longer than the kernel can wait at once
            -1 => {
                let source = io::Error::last_os_error();
                if source.kind() != io::ErrorKind::Interrupted {
                    return Err(Error::Verb { verb: "ppoll", source });
                }
            }
            _ if entry.revents & libc::POLLIN != 0 => return Ok(true),
            _ => return Err(Error::from_code(verb, libc::EIO)),
        }
    }
}

/// The time as the kernel wants it, or the longest that it can wait.
fn timespec(time: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: time.subsec_nanos() as _,
    }
}

/// Makes reading the descriptor return `EAGAIN` where it would have to wait.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the descriptor is open, and this command takes no argument (fcntl(2)).
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    if flags == -1 {
        return Err(Error::last_os_error("fcntl"));
    }
    // SAFETY: the descriptor is open, and this command takes an int (fcntl(2)).
    match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) } {
        -1 => Err(Error::last_os_error("fcntl")),
        _ => Ok(()),
    }
}

/// When a timeout that begins now is over: never, if that is beyond what the clock can tell.
pub(crate) fn deadline(timeout: Option<Duration>) -> Option<Instant> {
    timeout.and_then(|timeout| Instant::now().checked_add(timeout))
}
