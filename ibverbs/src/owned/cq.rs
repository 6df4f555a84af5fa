//! Completion queues whose completions hand buffers back.

use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::Duration;

use super::buffer::Buffer;
use super::registry::{Index, Registry};
use super::table::{Places, Run};
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
    /// The generation of the registry at the last refresh.
    seen: Cell<u64>,
}

/// What finds the tables of completions.
struct Poller {
    registry: Arc<Registry>,
    /// While a poll is open, that one's.
    index: UnsafeCell<Index>,
}

impl Poller {
    /// As [`Index::look_up`].
    ///
    /// # Safety
    ///
    /// The caller is the poll that is open.
    // Not cold: where several queues complete in turns it is what finds theirs.
    #[inline(never)]
    unsafe fn look_up(&self, id: u64) -> Option<Places> {
        // SAFETY: while a poll is open it is that one's, and this is not kept.
        let index = unsafe { &mut *self.index.get() };
        index.look_up(&self.registry, id)
    }

    /// Looks for the request of this identifier, first in the table that is known: the program's number of its buffer, and what
    /// its completion tells to be done. `None` if it is not here.
    ///
    /// # Safety
    ///
    /// The caller is the poll that is open, `places` are those of the table that was found last, the completion was polled just now,
    /// and what the one before has told to be done was taken.
    #[inline(always)]
    unsafe fn find(&self, places: &mut Places, id: u64) -> Option<(u64, Run)> {
        // SAFETY: the index has the table, or what is stale, which it keeps until the poll ends. This is the one poller of
        // the one queue to which sends of this table complete; the rest is the caller's promise.
        let found = unsafe { places.find(id) };
        if found.is_some() {
            return found;
        }
        // SAFETY: passed on to the caller.
        *places = unsafe { self.look_up(id) }?;
        // SAFETY: as above.
        unsafe { places.find(id) }
    }
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
        Ok(OwnedCompletionQueue { queue, poller: Box::new(poller), seen: Cell::new(0) })
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
    #[inline(always)]
    pub fn poll(&self) -> Result<Option<OwnedCompletions<'_>>> {
        self.refresh_if_outdated();
        match self.queue.poll() {
            Ok(Some(completions)) => Ok(Some(self.begun(completions))),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits for completions, without using the processor. As [`CompletionQueue::wait`].
    ///
    /// # Errors
    ///
    /// Those of [`CompletionQueue::wait`].
    #[doc(alias = "ibv_get_cq_event")]
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Option<OwnedCompletions<'_>>> {
        self.refresh_if_outdated();
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

    #[inline(always)]
    fn begun<'cq>(&'cq self, completions: Completions<'cq>) -> OwnedCompletions<'cq> {
        // SAFETY: a poll is open, which was opened just now; until it ends nobody else reaches this: `refresh` refuses,
        // and there is no other poll. (If it is forgotten, it never ends.)
        let places = unsafe { &*self.poller.index.get() }.last();
        OwnedCompletions {
            queue: self,
            completions: ManuallyDrop::new(completions),
            is_unread: true,
            is_over: false,
            places,
            run: Run::NONE,
        }
    }

    /// Drops what is left of a run.
    ///
    /// # Safety
    ///
    /// The caller is the poll that is open; the run is what it has found last, and nothing of it is used after this.
    #[cold]
    #[inline(never)]
    unsafe fn give_back(&self, mut run: Run) {
        // SAFETY: while a poll is open it is that one's, and this is not kept.
        let places = unsafe { &*self.poller.index.get() }.last();
        // SAFETY: this is the table in which something was found last; the index keeps it while the poll is open. The rest is
        // the caller's promise.
        while let Some(buffer) = unsafe { run.take(places) } {
            drop(buffer);
        }
    }

    /// Ends a poll that has not come to its end.
    ///
    /// # Safety
    ///
    /// As for [`give_back`](Self::give_back), and nothing is used of the poll after this. If `is_unread`, no completion was
    /// looked at.
    #[cold]
    #[inline(never)]
    unsafe fn end_early(&self, is_unread: bool, run: Run) {
        let mut run = run;
        if is_unread {
            // The provider has taken the first out, and would not tell of it again.
            // SAFETY: the queue is alive; a poll of it is open, and this thread is the one that polls.
            let id = unsafe { (*self.queue.as_raw()).wr_id };
            // SAFETY: as in `give_back`.
            let mut places = unsafe { &*self.poller.index.get() }.last();
            // SAFETY: the completion was polled just now, and is the first; the table is the last that was found.
            if let Some((_, found)) = unsafe { self.poller.find(&mut places, id) } {
                run = found;
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.give_back(run) };
        // SAFETY: as above.
        unsafe { self.queue.end_poll() };
    }

    #[inline]
    fn refresh_if_outdated(&self) {
        if self.seen.get() != self.poller.registry.generation() {
            // If a poll is open, what comes next reports it.
            let _ = self.refresh();
        }
    }

    /// Lets go of the tables of queues that are no more.
    #[cold]
    #[inline(never)]
    pub(super) fn refresh(&self) -> Result<()> {
        if self.queue.handle().is_polling() {
            return Err(Error::PollInProgress);
        }
        // SAFETY: no poll is open, and this is the one thread that could open one, as the queue is not `Sync`.
        let index = unsafe { &mut *self.poller.index.get() };
        index.refresh(&self.poller.registry);
        self.seen.set(index.generation());
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
        let OwnedCompletionQueue { queue, poller, seen } = self;
        queue
            .close()
            .map_err(|failed| failed.map(|queue| OwnedCompletionQueue { queue, poller, seen }))
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

/// The completions of one [`poll`](OwnedCompletionQueue::poll). The poll ends when there are no more, or when this is
/// dropped. If no completion was looked at, the first is taken out of the queue all the same, and its buffer goes back to its
/// pool.
#[must_use = "dropping it ends the poll: the completions are still in the queue then, but for the first"]
pub struct OwnedCompletions<'cq> {
    queue: &'cq OwnedCompletionQueue,
    /// Ended when there are no more; then `is_over`.
    completions: ManuallyDrop<Completions<'cq>>,
    /// Whether no completion was looked at.
    is_unread: bool,
    is_over: bool,
    /// Those of the table of the last completion, which is the one that the index has found last.
    places: Places,
    /// What that has told to be done, and was not taken. It is in the table still: if the poll is forgotten, it stays there.
    run: Run,
}

impl OwnedCompletions<'_> {
    /// The next completion, or `None` when there are no more: then the poll has ended. Calling it again after that is
    /// harmless. Buffers that were not taken of the one before go back to their pools.
    #[allow(clippy::should_implement_trait)] // an iterator cannot lend
    #[doc(alias = "ibv_next_poll")]
    // Always: a loop that takes completions keeps what this reads in registers.
    #[inline(always)]
    pub fn next(&mut self) -> Option<OwnedCompletion<'_>> {
        if self.is_over {
            return None;
        }
        if self.run.is_any() {
            // SAFETY: this is the poll that is open; the run is the last, and not used any more.
            unsafe { self.queue.give_back(self.run) };
            self.run = Run::NONE;
        }
        loop {
            if self.is_unread {
                self.is_unread = false;
            // SAFETY: the poll is not over.
            } else if !unsafe { self.completions.advance() } {
                self.is_over = true;
                // Here, so that the drop of this has nothing to do and the compiler can keep it in registers.
                // SAFETY: this is done once, and `completions` is not used from here on.
                unsafe { ManuallyDrop::drop(&mut self.completions) };
                return None;
            }
            // SAFETY: there is one, and what is lent of it borrows this, and with it whoever could go on.
            let wc = unsafe { self.completions.at_hand() };
            let id = wc.wr_id();
            // SAFETY: this is the poll that is open; the completion was polled just now, and nothing is left of the run of
            // the one before, nor of one that was not here.
            let found = unsafe { self.queue.poller.find(&mut self.places, id) };
            if let Some((user, run)) = found {
                self.run = run;
                let OwnedCompletions { queue, places, run, .. } = self;
                let poller = &*queue.poller;
                return Some(OwnedCompletion { wc, user, poller, places: *places, run });
            }
        }
    }
}

impl Drop for OwnedCompletions<'_> {
    // It takes but one call, with values: in line it costs less than to have this in memory.
    #[inline(always)]
    fn drop(&mut self) {
        if !self.is_over {
            // SAFETY: the poll is open, and is being dropped.
            unsafe { self.queue.end_early(self.is_unread, self.run) };
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
/// [`qp_num`](Self::qp_num) mean anything. Buffers that are not taken go back to their pools when the next completion is
/// looked at, or the poll ends.
pub struct OwnedCompletion<'p> {
    wc: WorkCompletion<'p>,
    user: u64,
    poller: &'p Poller,
    places: Places,
    /// That of the poll, which drops what is left of it, also if this is forgotten.
    run: &'p mut Run,
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
        // SAFETY: while a poll is open it is that one's, and this is not kept.
        unsafe { &*self.poller.index.get() }.is_recv()
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
        // SAFETY: the run is that of this completion, of this table, which the poll's index keeps.
        unsafe { self.run.take(self.places) }
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

impl fmt::Debug for OwnedCompletion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedCompletion")
            .field("user", &self.user)
            .field("is_recv", &self.is_recv())
            .field("ok", &self.ok())
            .finish_non_exhaustive()
    }
}
