//! Arming a completion queue, and waiting for it: the order in which no completion is missed.

use std::ffi::c_int;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::channel::{ChannelHandle, ChannelInner, CompletionChannel, CompletionEvent};
use super::{CompletionQueue, Completions, WorkCompletion};
use crate::context::Context;
use crate::error::{check, Error, Result};
use crate::ffi;
use crate::readiness::deadline;

/// How many completions [`CompletionQueue::poll_armed`] hands out before it returns their places.
const BATCH: usize = 16;

/// Where a queue raises its events.
pub(super) enum Events {
    /// Nowhere.
    None,
    /// On a channel of the program, which gets them.
    Shared(ChannelHandle),
    /// On a channel that no other queue has, and that the program does not see.
    Private(PrivateChannel),
}

impl Events {
    /// The channel for the provider; null if there is none.
    pub(super) fn as_raw(&self) -> *mut ffi::ibv_comp_channel {
        match self {
            Events::None => ptr::null_mut(),
            Events::Shared(channel) => channel.as_raw(),
            Events::Private(private) => private.channel.as_raw(),
        }
    }
}

/// A channel that one queue has for itself.
pub(super) struct PrivateChannel {
    pub(super) channel: ChannelHandle,
    /// Whether an event is on its way, or there to be taken: then the queue must not be armed once more, or
    /// events would pile up in the kernel. Written and read by the one poller.
    armed: AtomicBool,
    /// Whether only solicited completions, and failed ones, raise events.
    solicited_only: bool,
}

impl PrivateChannel {
    pub(super) fn create(context: &Context, solicited_only: bool) -> Result<PrivateChannel> {
        let channel = CompletionChannel::create(context)?.handle().clone();
        Ok(PrivateChannel { channel, armed: AtomicBool::new(false), solicited_only })
    }

    /// Takes note of an event, if there is one.
    pub(super) fn took(&self, event: Option<CompletionEvent>) -> bool {
        if event.is_some() {
            self.disarm();
        }
        event.is_some()
    }

    /// The queue is armed anew when it is found empty the next time.
    pub(super) fn disarm(&self) {
        self.armed.store(false, Ordering::Relaxed);
    }
}

impl CompletionQueue {
    /// Arms the queue: the next completion raises one event on its channel, or the next *solicited* one, which
    /// is one whose sender [marked](crate::SendOp::solicited) it, or that failed. (SoftRoCE raises none for a
    /// send that failed.) After that the queue is silent until it is armed again.
    ///
    /// A completion that is in the queue already raises no event on most devices: poll after arming, as
    /// [`poll_armed`](Self::poll_armed) does.
    ///
    /// # Errors
    ///
    /// - [`Error::NoCompletionChannel`] if the queue was built without
    ///   [`set_comp_channel`](super::CompletionQueueBuilder::set_comp_channel).
    /// - [`Error::PollInProgress`] if a poll is open, or was forgotten.
    /// - [`Error::Unsupported`] if `solicited_only` is asked of a device that cannot tell, such as EFA.
    /// - [`Error::Verb`] if the device refuses.
    #[doc(alias = "ibv_req_notify_cq")]
    pub fn req_notify(&self, solicited_only: bool) -> Result<()> {
        self.arm(self.shared_channel()?, solicited_only)
    }

    /// Hands out all completions, arms the queue, and hands out what has completed meanwhile. Returns how many
    /// there were.
    ///
    /// For a queue that raises its events on a [`CompletionChannel`]: call it once at the start, and then
    /// after each event of this queue. Whatever completes after it has returned raises an event.
    ///
    /// It returns when the queue is empty: `f` should not wait for long, nor start more work than it sees
    /// completing. A failure is carried out of `f` in a variable that it borrows. Who wants to stop earlier, so that
    /// one busy queue does not keep others waiting, polls, calls `req_notify` and polls again by hand. It is called within a [poll](Self::poll), and every 16 completions the device gets their
    /// places back; so the queue needs room for 16 more if `f` posts.
    ///
    /// # Errors
    ///
    /// - Those of [`req_notify`](Self::req_notify). Without a channel, nothing is handed out.
    /// - Those of [`poll`](Self::poll).
    ///
    /// # Examples
    ///
    /// See [`CompletionChannel`].
    #[doc(alias = "ibv_req_notify_cq")]
    pub fn poll_armed(
        &self,
        solicited_only: bool,
        mut f: impl FnMut(WorkCompletion<'_>),
    ) -> Result<usize> {
        let channel = self.shared_channel()?;
        let before = self.drain(&mut f)?;
        self.arm(channel, solicited_only)?;
        Ok(before + self.drain(&mut f)?)
    }

    /// Waits for completions, without using the processor: `None` if there were none within `timeout`. Without
    /// a timeout it waits for as long as it takes.
    ///
    /// For a queue with a channel of its own
    /// ([`set_private_channel`](super::CompletionQueueBuilder::set_private_channel)). To wait for several
    /// queues at a time, let them share a [`CompletionChannel`].
    ///
    /// A queue that overflows completes nothing any more: only an asynchronous event of the device tells.
    ///
    /// # Errors
    ///
    /// - [`Error::NoCompletionChannel`] if the queue has no channel of its own.
    /// - [`Error::Verb`] with `EIO` if the device was removed, or if the device cannot be armed.
    /// - Those of [`poll`](Self::poll).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn wait(ctx: &ibverbs::Context) -> ibverbs::Result<()> {
    /// use std::time::Duration;
    ///
    /// let cq = ctx.create_cq(64).set_private_channel().build()?;
    /// // ... create queue pairs, post ...
    /// match cq.wait(Some(Duration::from_secs(1)))? {
    ///     None => println!("nothing has completed for a second"),
    ///     Some(mut completions) => {
    ///         while let Some(wc) = completions.next() {
    ///             println!("{}: {:?}", wc.wr_id(), wc.ok());
    ///         }
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "ibv_get_cq_event")]
    #[doc(alias = "ibv_req_notify_cq")]
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Option<Completions<'_>>> {
        let private = self.private_channel()?;
        let deadline = deadline(timeout);
        loop {
            if let Some(completions) = self.poll_or_arm(private)? {
                return Ok(Some(completions));
            }
            if !private.took(private.channel.wait(deadline)?) {
                return Ok(None);
            }
        }
    }

    /// Polls; and if nothing is there, makes sure that there will be an event when something is.
    pub(super) fn poll_or_arm(&self, private: &PrivateChannel) -> Result<Option<Completions<'_>>> {
        if let Some(completions) = self.poll()? {
            return Ok(Some(completions));
        }
        if private.armed.load(Ordering::Relaxed) {
            return Ok(None);
        }
        self.arm(&private.channel, private.solicited_only)?;
        private.armed.store(true, Ordering::Relaxed);
        self.poll()
    }

    fn arm(&self, channel: &ChannelInner, solicited_only: bool) -> Result<()> {
        // Some providers (irdma) take the lock of the queue, which an open poll holds.
        self.inner.check_idle()?;
        let _turn = channel.turn();
        let solicited_only = c_int::from(solicited_only);
        // SAFETY: the queue is alive and has a channel, and no event of it is being taken, since this has the
        // turn. Every provider has the operation (`ibv_context_ops` is filled with ones that refuse).
        let code = unsafe { ffi::ibv_req_notify_cq(self.inner.as_raw(), solicited_only) };
        check("ibv_req_notify_cq", code)
    }

    /// Hands out completions until there are none.
    fn drain(&self, f: &mut impl FnMut(WorkCompletion<'_>)) -> Result<usize> {
        let mut count = 0;
        while let Some(mut completions) = self.poll()? {
            for _ in 0..BATCH {
                let Some(wc) = completions.next() else { break };
                f(wc);
                count += 1;
            }
        }
        Ok(count)
    }

    fn shared_channel(&self) -> Result<&ChannelInner> {
        match &self.inner.events {
            Events::Shared(channel) => Ok(channel),
            _ => Err(Error::NoCompletionChannel { setter: "set_comp_channel" }),
        }
    }

    pub(super) fn private_channel(&self) -> Result<&PrivateChannel> {
        match &self.inner.events {
            Events::Private(private) => Ok(private),
            _ => Err(Error::NoCompletionChannel { setter: "set_private_channel" }),
        }
    }
}
