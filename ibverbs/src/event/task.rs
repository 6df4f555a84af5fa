//! Awaiting asynchronous events on tokio.

use std::fmt;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;
use tokio::io::Interest;

use super::{AsyncEvent, GET};
use crate::context::Context;
use crate::error::{Error, Result};

impl Context {
    /// The asynchronous events of this context, to be awaited on tokio. Needs the feature `tokio`.
    ///
    /// Several of them, and threads that poll or wait, share the context's queue: each event comes to one.
    ///
    /// # Panics
    ///
    /// If there is no current tokio runtime with its I/O driver enabled.
    ///
    /// # Errors
    ///
    /// Those of [`poll_async_event`](Self::poll_async_event), and [`Error::Verb`] if the descriptor cannot
    /// be duplicated or registered.
    pub fn async_events(&self) -> Result<AsyncEvents> {
        // A descriptor can be registered with a runtime once, so that each needs its own.
        let fd = self.async_event_fd()?.try_clone_to_owned();
        let fd = fd.map_err(|source| Error::Verb { verb: "dup", source })?;
        // Its unsafe successor came with tokio 1.53.3. What that demands holds for an `OwnedFd`: it stays open,
        // and is always the same descriptor.
        #[allow(deprecated)]
        let fd = AsyncFd::with_interest(fd, INTEREST);
        let fd = fd.map_err(|source| Error::Verb { verb: "epoll_ctl", source })?;
        Ok(AsyncEvents { fd, context: self.clone() })
    }
}

/// A device that was removed makes its descriptor report an error, and nothing else.
const INTEREST: Interest = Interest::READABLE.add(Interest::ERROR);

/// The asynchronous events of a context as something to await; from [`Context::async_events`].
///
/// It is `Send`, and so is a task that owns one. It keeps the context open.
pub struct AsyncEvents {
    fd: AsyncFd<OwnedFd>,
    context: Context,
}

impl AsyncEvents {
    /// Waits for the next event.
    ///
    /// # Cancel safety
    ///
    /// No event is lost if the future is dropped before it is ready: an event is taken from the context
    /// only in the poll of the future that returns it.
    ///
    /// # Errors
    ///
    /// Those of [`Context::wait_async_event`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn watch(ctx: &ibverbs::Context) -> ibverbs::Result<()> {
    /// let mut events = ctx.async_events()?;
    /// loop {
    ///     println!("{}", events.next().await?);
    /// }
    /// # }
    /// ```
    pub async fn next(&mut self) -> Result<AsyncEvent> {
        loop {
            let ready = self.fd.ready(INTEREST).await;
            let mut ready = ready.map_err(|source| Error::Verb { verb: "epoll_wait", source })?;
            if let Some(event) = self.context.poll_async_event()? {
                return Ok(event);
            }
            // The kernel reports an error; a descriptor of another provider may be closed instead.
            if ready.ready().is_error() || ready.ready().is_read_closed() {
                return Err(Error::from_code(GET, libc::EIO));
            }
            ready.clear_ready();
        }
    }
}

impl fmt::Debug for AsyncEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncEvents").field("context", &self.context).finish_non_exhaustive()
    }
}
