//! Completion queues whose completions hand buffers back.

use std::cell::UnsafeCell;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::buffer::Buffer;
use super::registry::{Index, Registry};
use super::table::{Earlier, Kind};
use crate::ah::DatagramSender;
use crate::cq::{
    CompletionQueue, CompletionQueueBuilder, Completions, WcError, WcFlags, WcOpcode,
    WorkCompletion,
};
use crate::error::{Error, Failed, Result};

/// A completion queue for queue pairs of the owned level: its completions hand back the buffers that were posted.
///
/// Like a [`CompletionQueue`] it is `Send` but not `Sync`, and queue pairs keep it alive. It cannot be resized or moderated,
/// nor awaited. If it is dropped before its queue pairs, what completes then is lost, and buffers come back when their queue
/// pair is destroyed.
///
/// The identifiers of its completions are the crate's own, and each is used once: what is left in it of a queue pair
/// that was destroyed or reset is taken for nothing else. It is passed over.
#[doc(alias = "ibv_cq")]
pub struct OwnedCompletionQueue {
    queue: CompletionQueue,
    /// In a box, so that a queue is small to move, and so is what hands it back.
    poller: Box<Poller>,
}

/// What finds the tables of completions.
struct Poller {
    registry: Arc<Registry>,
    /// While a poll is open, that one's.
    index: UnsafeCell<Index>,
}

impl Drop for Poller {
    fn drop(&mut self) {
        *self.index.get_mut() = Index::default();
        // Before the registry can be found gone, by which others know that nobody polls.
        self.registry.clear();
    }
}

impl CompletionQueueBuilder<'_> {
    /// Creates a queue for queue pairs of the owned level ([`OwnedQueuePair`](crate::OwnedQueuePair)).
    ///
    /// # Errors
    ///
    /// Those of [`build`](Self::build).
    #[doc(alias = "ibv_create_cq_ex")]
    pub fn build_owned(self) -> Result<OwnedCompletionQueue> {
        let queue = self.build()?;
        let poller = Poller { registry: Arc::default(), index: UnsafeCell::default() };
        Ok(OwnedCompletionQueue { queue, poller: Box::new(poller) })
    }
}

impl OwnedCompletionQueue {
    pub(crate) fn queue(&self) -> &CompletionQueue {
        &self.queue
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.poller.registry
    }

    /// Looks for completions: `None` if there are none. As [`CompletionQueue::poll`].
    ///
    /// # Errors
    ///
    /// Those of [`CompletionQueue::poll`].
    #[doc(alias = "ibv_start_poll")]
    #[doc(alias = "ibv_poll_cq")]
    #[inline]
    pub fn poll(&self) -> Result<Option<OwnedCompletions<'_>>> {
        self.refresh()?;
        match self.queue.poll()? {
            Some(completions) => Ok(Some(self.begun(completions))),
            None => Ok(None),
        }
    }

    /// Waits for completions, without using the processor. As [`CompletionQueue::wait`].
    ///
    /// # Errors
    ///
    /// Those of [`CompletionQueue::wait`].
    #[doc(alias = "ibv_get_cq_event")]
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Option<OwnedCompletions<'_>>> {
        self.refresh()?;
        let completions = self.queue.wait(timeout)?;
        Ok(completions.map(|completions| self.begun(completions)))
    }

    /// Arms the queue. As [`CompletionQueue::req_notify`].
    ///
    /// # Errors
    ///
    /// Those of [`CompletionQueue::req_notify`].
    #[doc(alias = "ibv_req_notify_cq")]
    pub fn req_notify(&self, solicited_only: bool) -> Result<()> {
        self.queue.req_notify(solicited_only)
    }

    #[inline]
    fn begun<'cq>(&'cq self, completions: Completions<'cq>) -> OwnedCompletions<'cq> {
        // SAFETY: a poll is open, which was opened just now; until it ends nobody else reaches the index: `refresh`
        // refuses, and there is no other poll. (If it is forgotten, it never ends.)
        let index = unsafe { &mut *self.poller.index.get() };
        OwnedCompletions { completions, index, registry: &self.poller.registry }
    }

    /// Lets go of the tables of queues that are no more.
    #[inline]
    pub(super) fn refresh(&self) -> Result<()> {
        if self.queue.handle().is_polling() {
            return Err(Error::PollInProgress);
        }
        // SAFETY: no poll is open, and this is the one thread that could open one, as the queue is not `Sync`.
        let index = unsafe { &mut *self.poller.index.get() };
        if index.is_outdated(&self.poller.registry) {
            index.refresh(&self.poller.registry);
        }
        Ok(())
    }

    /// How many completions the queue can hold: what was granted, at least what was asked for.
    pub fn capacity(&self) -> u32 {
        self.queue.capacity()
    }

    /// The number that its builder was [given](CompletionQueueBuilder::set_context), by which events name it.
    pub fn context_value(&self) -> u64 {
        self.queue.context_value()
    }

    /// Destroys the queue. Dropping does the same, but cannot tell what went wrong.
    ///
    /// # Errors
    ///
    /// Those of [`CompletionQueue::close`].
    #[doc(alias = "ibv_destroy_cq")]
    pub fn close(self) -> Result<(), Failed<Self>> {
        let OwnedCompletionQueue { queue, poller } = self;
        queue.close().map_err(|failed| failed.map(|queue| OwnedCompletionQueue { queue, poller }))
    }

    /// The C structure, as the extended interface has it.
    pub fn as_raw(&self) -> *mut crate::ffi::ibv_cq_ex {
        self.queue.as_raw()
    }
}

impl fmt::Debug for OwnedCompletionQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnedCompletionQueue").field(&self.queue).finish()
    }
}

/// The completions of one [`poll`](OwnedCompletionQueue::poll). Dropping it ends the poll. If no completion was looked at,
/// the first is taken out of the queue all the same, and its buffer goes back to its pool.
#[must_use = "dropping it ends the poll: the completions are still in the queue then, but for the first"]
pub struct OwnedCompletions<'cq> {
    completions: Completions<'cq>,
    index: &'cq mut Index,
    registry: &'cq Registry,
}

impl OwnedCompletions<'_> {
    /// The next completion, or `None` when there are no more. Calling it again after that is harmless.
    #[allow(clippy::should_implement_trait)] // an iterator cannot lend
    #[doc(alias = "ibv_next_poll")]
    #[inline]
    pub fn next(&mut self) -> Option<OwnedCompletion<'_>> {
        let claimed = self.claim_next()?;
        let Claimed { user, buffer, is_recv, earlier } = claimed;
        let wc = self.completions.at_hand()?;
        Some(OwnedCompletion {
            wc,
            user,
            buffer: Some(buffer),
            is_recv,
            earlier,
            index: self.index,
        })
    }

    /// Goes on to the next completion of a buffer that is here.
    #[inline]
    fn claim_next(&mut self) -> Option<Claimed> {
        loop {
            let id = self.completions.next()?.wr_id();
            if self.index.find(id).is_none() {
                // Of a queue that was made after the poll was opened; or of one that is no more.
                self.index.extend(self.registry);
            }
            let Some(table) = self.index.find(id) else { continue };
            // SAFETY: the completion was polled just now, by the one poller of the one queue to which this request
            // completes.
            let Some((user, buffer)) = (unsafe { table.claim(id) }) else { continue };
            let is_recv = table.kind() == Kind::Receives;
            // SAFETY: as above; other tables than those of sends, which are one poller's, tell of none.
            let earlier = unsafe { table.earlier(id) };
            return Some(Claimed { user, buffer, is_recv, earlier });
        }
    }
}

/// What a completion has told to be done.
struct Claimed {
    user: u64,
    buffer: Buffer,
    is_recv: bool,
    earlier: Earlier,
}

impl Drop for OwnedCompletions<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.completions.is_unread() {
            // The provider has taken it out, and would not tell of it again.
            drop(self.next());
        }
    }
}

impl fmt::Debug for OwnedCompletions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedCompletions").finish_non_exhaustive()
    }
}

/// What became of a buffer that was posted, and the buffer.
///
/// On an error only [`user`](Self::user), [`is_recv`](Self::is_recv), [`ok`](Self::ok), [`take`](Self::take) and
/// [`qp_num`](Self::qp_num) mean anything. Buffers that are not taken go back to their pools.
pub struct OwnedCompletion<'p> {
    wc: WorkCompletion<'p>,
    user: u64,
    buffer: Option<Buffer>,
    is_recv: bool,
    earlier: Earlier,
    index: &'p Index,
}

impl OwnedCompletion<'_> {
    /// The number that the program posted it with.
    #[inline]
    pub fn user(&self) -> u64 {
        self.user
    }

    /// Whether it was a receive; otherwise it was a send, a write or a read. It is known on an error as well.
    #[inline]
    pub fn is_recv(&self) -> bool {
        self.is_recv
    }

    /// How it ended.
    ///
    /// # Errors
    ///
    /// The status, and the vendor's number for it, if it did not succeed.
    #[inline]
    pub fn ok(&self) -> Result<(), WcError> {
        self.wc.ok()
    }

    /// The buffer; and after it, one by one, those of unsignaled operations that were posted before it to the same
    /// send queue, from the first, and are done therefore. On a failure they have succeeded.
    #[inline]
    pub fn take(&mut self) -> Option<Buffer> {
        match self.buffer.take() {
            None if self.earlier.is_pending() => self.take_earlier(),
            buffer => buffer,
        }
    }

    #[cold]
    fn take_earlier(&mut self) -> Option<Buffer> {
        let table = self.index.find(self.earlier.id())?;
        // SAFETY: it is the table of this completion, which the poller has, as whoever has this is.
        unsafe { self.earlier.next(table) }
    }

    /// How many bytes were received, from the first of the buffer on; or read. Means nothing for a send.
    #[allow(clippy::len_without_is_empty)] // a count of bytes, not of elements
    #[inline]
    pub fn len(&self) -> usize {
        self.wc.len() as usize
    }

    /// What the request did; of a receive, what the peer did.
    #[inline]
    pub fn opcode(&self) -> WcOpcode {
        self.wc.opcode()
    }

    /// The 32 bits that came with the message, in host order, if any did.
    #[inline]
    pub fn imm_data(&self) -> Option<u32> {
        self.wc.imm_data()
    }

    /// The number of the local queue pair.
    #[inline]
    pub fn qp_num(&self) -> u32 {
        self.wc.qp_num()
    }

    /// What else is known of it.
    #[inline]
    pub fn flags(&self) -> WcFlags {
        self.wc.flags()
    }

    /// Whether the first 40 bytes of the buffer are a global route header ([`Grh`](crate::Grh)). Means something for
    /// received datagrams only.
    #[inline]
    pub fn has_grh(&self) -> bool {
        self.wc.has_grh()
    }

    /// Who sent the datagram, for [`create_ah_from_wc`](crate::ProtectionDomain::create_ah_from_wc).
    pub fn sender(&self) -> DatagramSender {
        self.wc.sender()
    }

    /// When it completed, in cycles of the device's clock, if
    /// [`WcFields::COMPLETION_TIMESTAMP`](crate::WcFields::COMPLETION_TIMESTAMP) was asked for.
    #[inline]
    pub fn completion_timestamp(&self) -> Option<u64> {
        self.wc.completion_timestamp()
    }
}

impl Drop for OwnedCompletion<'_> {
    #[inline]
    fn drop(&mut self) {
        while self.earlier.is_pending() && self.take_earlier().is_some() {}
    }
}

impl fmt::Debug for OwnedCompletion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedCompletion")
            .field("user", &self.user)
            .field("is_recv", &self.is_recv)
            .field("ok", &self.ok())
            .finish_non_exhaustive()
    }
}
