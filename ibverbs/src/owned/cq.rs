//! Completion queues whose completions hand buffers back.

use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use super::buffer::Buffer;
use super::registry::{Index, Registry};
use super::table::{Earlier, Kind, Table};
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
    found: UnsafeCell<Found>,
}

/// What a poll goes by, and what it has found. (Not in the poll itself, which would be large to move.)
#[derive(Default)]
struct Found {
    index: Index,
    /// What the completion that was lent last has told to be done, and was not taken.
    left: Left,
}

impl Drop for Poller {
    fn drop(&mut self) {
        *self.found.get_mut() = Found::default();
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
        let poller = Poller { registry: Arc::default(), found: UnsafeCell::default() };
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
        let found = unsafe { &mut *self.poller.found.get() };
        OwnedCompletions { completions, found, registry: &self.poller.registry }
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
        let found = unsafe { &mut *self.poller.found.get() };
        found.index.refresh(&self.poller.registry);
        self.seen.set(found.index.generation());
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

/// The completions of one [`poll`](OwnedCompletionQueue::poll). Dropping it ends the poll. If no completion was looked at,
/// the first is taken out of the queue all the same, and its buffer goes back to its pool.
#[must_use = "dropping it ends the poll: the completions are still in the queue then, but for the first"]
pub struct OwnedCompletions<'cq> {
    completions: Completions<'cq>,
    found: &'cq mut Found,
    registry: &'cq Registry,
}

/// What a completion has told to be done, and was not taken.
#[derive(Default)]
struct Left {
    buffer: Option<Buffer>,
    earlier: Earlier,
}

impl OwnedCompletions<'_> {
    /// The next completion, or `None` when there are no more. Calling it again after that is harmless. Buffers that were
    /// not taken of the one before go back to their pools.
    #[allow(clippy::should_implement_trait)] // an iterator cannot lend
    #[doc(alias = "ibv_next_poll")]
    // Always: a loop that takes completions keeps what this reads in registers.
    #[inline(always)]
    pub fn next(&mut self) -> Option<OwnedCompletion<'_>> {
        if self.found.left.is_any() {
            self.found.give_back();
        }
        let (user, table) = self.claim_next()?;
        // SAFETY: the index has the table, and is not changed while the completion, which borrows it, is lent.
        let table = unsafe { table.as_ref() };
        let wc = self.completions.at_hand()?;
        Some(OwnedCompletion { wc, user, table, left: &mut self.found.left })
    }

    /// Goes on to the next completion of a buffer that is here. Returns the program's number, and the table.
    #[inline(always)]
    fn claim_next(&mut self) -> Option<(u64, NonNull<Table>)> {
        loop {
            let id = self.completions.next()?.wr_id();
            // SAFETY: the completion was polled just now.
            if let Some(claimed) = unsafe { self.claim(id) } {
                return Some(claimed);
            }
        }
    }

    /// Takes note of what the completion of this identifier tells to be done, if its buffer is here.
    ///
    /// # Safety
    ///
    /// The completion was polled just now.
    #[inline(always)]
    unsafe fn claim(&mut self, id: u64) -> Option<(u64, NonNull<Table>)> {
        let found = match self.found.index.find(id) {
            Some(table) => NonNull::from(table),
            None => self.found.find_again(self.registry, id)?,
        };
        // SAFETY: the index has the table, and is not changed before the end.
        let table = unsafe { found.as_ref() };
        // SAFETY: the completion was polled just now, by the one poller of the one queue to which this request completes.
        let (user, buffer) = unsafe { table.claim(id) }?;
        // SAFETY: as above; other tables than those of sends, which are one poller's, tell of none.
        self.found.left.earlier = unsafe { table.earlier(id) };
        // There is none: nothing to be dropped.
        std::mem::forget(self.found.left.buffer.replace(buffer));
        Some((user, found))
    }
}

impl Found {
    /// The table of an identifier that is of a queue that was made after the poll was opened; or `None`, if it is of one
    /// that is no more.
    #[cold]
    #[inline(never)]
    fn find_again(&mut self, registry: &Registry, id: u64) -> Option<NonNull<Table>> {
        self.index.extend(registry);
        self.index.find(id).map(NonNull::from)
    }

    /// Drops what was not taken of the last completion.
    #[cold]
    #[inline(never)]
    fn give_back(&mut self) {
        self.left.buffer = None;
        while self.left.earlier.is_pending() {
            let Some(table) = self.index.find(self.left.earlier.id()) else { break };
            // SAFETY: it is the table of the last completion, and this is the poller.
            if unsafe { self.left.earlier.next(table) }.is_none() {
                break;
            }
        }
        self.left = Left::default();
    }
}

impl Left {
    #[inline]
    fn is_any(&self) -> bool {
        self.buffer.is_some() || self.earlier.is_pending()
    }
}

impl Drop for OwnedCompletions<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.completions.is_unread() {
            // The provider has taken the first out, and would not tell of it again.
            if let Some(id) = self.completions.next().map(|wc| wc.wr_id()) {
                // SAFETY: the completion was polled just now.
                let _ = unsafe { self.claim(id) };
            }
        }
        if self.found.left.is_any() {
            self.found.give_back();
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
    table: &'p Table,
    left: &'p mut Left,
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
        self.table.kind() == Kind::Receives
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
        let Left { buffer, earlier } = &mut *self.left;
        match buffer.take() {
            None if earlier.is_pending() => {
                // SAFETY: it is the table of this completion, and whoever has that is the poller.
                unsafe { earlier.next(self.table) }
            }
            buffer => buffer,
        }
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
