//! Awaiting completions on tokio.

use std::fmt;

use tokio::io::unix::AsyncFd;

use super::channel::CompletionChannel;
use super::{CompletionQueue, CompletionQueueBuilder, Completions};
use crate::error::{Error, Result};
use crate::readiness::task::{watch, INTEREST};

/// A completion queue whose completions are awaited on tokio; from [`CompletionQueueBuilder::build_async`].
///
/// It is `Send`, and so is a task that owns one: its methods take `&mut self`, because a completion queue cannot
/// be shared by threads. [What it finds](Self::completions) and a [batch](crate::SendBatch) are not `Send`: each ends
/// in a block or a function of its own before the next `.await`.
///
/// # Examples
///
/// ```no_run
/// # use ibverbs::{Context, ProtectionDomain, QueuePairEndpoint, Rc, Result};
/// # fn is_send<T: Send>(_: T) {}
/// # fn spawn(ctx: Context, pd: ProtectionDomain, peer: QueuePairEndpoint) { is_send(ping(ctx, pd, peer)) }
/// # async fn ping(ctx: Context, pd: ProtectionDomain, peer: QueuePairEndpoint) -> Result<()> {
/// let mut cq = ctx.create_cq(64).build_async()?;
/// let builder = pd.create_qp::<Rc>(cq.queue(), cq.queue(), 1)?.set_max_inline_data(4);
/// let mut qp = builder.build()?.handshake(peer)?;
/// {
///     let mut batch = qp.start_send();
///     batch.op().signaled().send(1, b"ping");
///     // SAFETY: inline data has no conditions, and the send queue is empty.
///     unsafe { batch.submit() }?;
/// }
/// let mut completions = cq.completions().await?;
/// while let Some(wc) = completions.next() {
///     println!("{}: {:?}", wc.wr_id(), wc.ok());
/// }
/// # Ok(())
/// # }
/// ```
pub struct AsyncCompletionQueue {
    channel: AsyncFd<CompletionChannel>,
    queue: CompletionQueue,
}

impl CompletionQueueBuilder<'_> {
    /// Creates a queue whose completions are awaited, in a task of the current tokio runtime. It has a channel of
    /// its own.
    ///
    /// # Panics
    ///
    /// If there is no current tokio runtime, or one without its I/O driver.
    ///
    /// # Errors
    ///
    /// - [`Error::TwoCompletionChannels`] if it was given a channel.
    /// - [`Error::Verb`] if the channel cannot be registered with the runtime (`epoll_ctl`).
    /// - Those of [`build`](Self::build).
    pub fn build_async(self) -> Result<AsyncCompletionQueue> {
        let queue = self.set_private_channel().build()?;
        let channel = CompletionChannel::from_handle(queue.private_channel()?.channel.clone());
        Ok(AsyncCompletionQueue { channel: watch(channel)?, queue })
    }
}

impl AsyncCompletionQueue {
    /// Waits until there is at least one completion.
    ///
    /// What it returns is an open [poll](CompletionQueue::poll), which is not `Send`: drop it before the next
    /// `.await`. It does not give way to other tasks if there are completions already; a task whose queue never runs
    /// empty must do that itself.
    ///
    /// # Cancel safety
    ///
    /// No completion is lost if the future is dropped before it is ready: completions stay in the queue until
    /// they are taken out of what it returns.
    ///
    /// # Errors
    ///
    /// - [`Error::Verb`] with `EIO` if the device was removed, if the device cannot be armed, or if the runtime is
    ///   shutting down.
    /// - Those of [`poll`](CompletionQueue::poll).
    pub async fn completions(&mut self) -> Result<Completions<'_>> {
        loop {
            if let Some(completions) = self.queue.poll_or_arm(self.queue.private_channel()?)? {
                return Ok(completions);
            }
            let ready = self.channel.ready(INTEREST).await;
            let mut ready = ready.map_err(|source| Error::Verb { verb: "epoll_wait", source })?;
            let event = self.channel.get_ref().get_event()?;
            // Only when there is nothing more, for the runtime is told of changes only.
            if !self.queue.private_channel()?.took(event) {
                ready.clear_ready();
            }
        }
    }

    /// The queue, to create queue pairs with, or to poll without waiting.
    pub fn queue(&self) -> &CompletionQueue {
        &self.queue
    }

    /// Makes the queue hold at least `min_entries` completions; see [`CompletionQueue::resize`].
    ///
    /// # Errors
    ///
    /// Those of [`CompletionQueue::resize`].
    #[doc(alias = "ibv_resize_cq")]
    pub fn resize(&mut self, min_entries: u32) -> Result<()> {
        self.queue.resize(min_entries)
    }

    /// The queue alone: it leaves the runtime. [`CompletionQueue::wait`] still waits for it.
    pub fn into_inner(self) -> CompletionQueue {
        self.queue
    }
}

impl fmt::Debug for AsyncCompletionQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncCompletionQueue").field("queue", &self.queue).finish()
    }
}
