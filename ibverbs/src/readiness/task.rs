//! Descriptors of events in tasks of tokio.

use std::os::fd::AsRawFd;

use tokio::io::unix::AsyncFd;
use tokio::io::Interest;

use crate::error::{Error, Result};

/// What tasks wait for. A device that was removed makes its descriptors report an error, and nothing else.
pub(crate) const INTEREST: Interest = Interest::READABLE.add(Interest::ERROR);

/// Registers a descriptor with the current runtime. It can be registered once.
pub(crate) fn watch<T: AsRawFd>(fd: T) -> Result<AsyncFd<T>> {
    // Its unsafe successor came with tokio 1.53.3. What that demands holds for all that are passed here: they own or
    // borrow their descriptor, which stays open and the same for as long.
    #[allow(deprecated)]
    let fd = AsyncFd::with_interest(fd, INTEREST);
    fd.map_err(|source| Error::Verb { verb: "epoll_ctl", source })
}

/// Waits until there is something to take. Nothing is taken but in the poll of the future that returns it.
///
/// # Errors
///
/// [`Error::Verb`] with `EIO`, in the name of `verb`, if nothing will ever come again: the device is gone.
pub(crate) async fn next<T: AsRawFd, R>(
    verb: &'static str,
    fd: &AsyncFd<T>,
    mut take: impl FnMut() -> Result<Option<R>>,
) -> Result<R> {
    loop {
        let ready = fd.ready(INTEREST).await;
        let mut ready = ready.map_err(|source| Error::Verb { verb: "epoll_wait", source })?;
        if let Some(taken) = take()? {
            return Ok(taken);
        }
        // The kernel reports an error; a descriptor of another provider may be closed instead.
        if ready.ready().is_error() || ready.ready().is_read_closed() {
            return Err(Error::from_code(verb, libc::EIO));
        }
        ready.clear_ready();
    }
}
