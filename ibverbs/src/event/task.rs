//! Awaiting asynchronous events on tokio.

use std::fmt;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

use super::{AsyncEvent, GET};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::readiness::task::{next, watch};

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
        Ok(AsyncEvents { fd: watch(fd)?, context: self.clone() })
    }
}

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
        next(GET, &self.fd, || self.context.poll_async_event()).await
    }
}

impl fmt::Debug for AsyncEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncEvents").field("context", &self.context).finish_non_exhaustive()
    }
}
