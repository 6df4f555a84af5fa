//! What the sends of a queue pair are posted from: its ring, and requests that are used again by each batch.

use super::buffer::Buffer;
use super::table::{Position, Ring, STEP};
use crate::error::{os_error, Error, Failed};
use crate::ffi;
use crate::post::{Array, Refusal};
use crate::qp::Core;

/// How many requests there are at first, and at least before more are made.
const FIRST: usize = 16;

pub(super) struct Sends {
    pub(super) ring: Ring,
    /// The requests of batches, each linked to the next one.
    chain: Array<ffi::ibv_send_wr>,
    /// How many a batch has at most.
    max_len: usize,
    /// A request that is posted alone: a signaled send of one entry.
    single: Array<ffi::ibv_send_wr>,
    /// Why the batch that is open is refused.
    refusal: Option<Box<Error>>,
    /// The buffers of its operations that were refused, in the order in which they were added.
    refused: Vec<Buffer>,
}

// SAFETY: the pointers lead to its own arrays, and are followed only by whoever has borrowed it exclusively.
unsafe impl Send for Sends {}
// SAFETY: as above.
unsafe impl Sync for Sends {}

/// The requests of a batch, by the identifiers that they are staged with: in registers all that changes from one to the next is
/// the identifier.
#[derive(Clone, Copy)]
pub(super) struct Requests {
    /// As far before the request of an identifier as `OFFSET` says.
    base: *mut ffi::ibv_send_wr,
    /// Before this identifier, nothing need be prepared but that the place is empty. Zero if the batch is refused.
    pub(super) end: u64,
}

// SAFETY: the pointer is followed by the batch alone, which has borrowed the requests, and may be sent as those may.
unsafe impl Send for Requests {}
// SAFETY: as above.
unsafe impl Sync for Requests {}

/// How many bytes requests are apart, for each by which identifiers are.
const OFFSET: u64 = size_of::<ffi::ibv_send_wr>() as u64 / STEP;

impl Requests {
    /// Those from `request` on, for the identifiers from `next` on.
    #[inline(always)]
    fn new(request: *mut ffi::ibv_send_wr, next: u64, end: u64) -> Requests {
        Requests { base: request.wrapping_byte_sub(next.wrapping_mul(OFFSET) as usize), end }
    }

    /// The request of an identifier.
    #[inline(always)]
    pub(super) fn at(self, id: u64) -> *mut ffi::ibv_send_wr {
        self.base.wrapping_byte_add(id.wrapping_mul(OFFSET) as usize)
    }
}

/// Where the next operation of a batch goes.
pub(super) struct Prepared {
    pub(super) requests: Requests,
    pub(super) at: Position,
    /// Those of the operation, which may have to be signaled.
    pub(super) flags: u32,
}

impl Sends {
    /// For a queue that was granted `max_len` requests.
    pub(super) fn new(ring: Ring, max_len: u32) -> Sends {
        let single = Array::<ffi::ibv_send_wr>::new(1);
        // SAFETY: it is the one request of the array, which nobody else knows.
        let request = unsafe { &mut *single.at(0) };
        request.opcode = ffi::IBV_WR_SEND;
        request.send_flags = ffi::IBV_SEND_SIGNALED;
        Sends {
            ring,
            chain: Array::new(0),
            max_len: max_len as usize,
            single,
            refusal: None,
            refused: Vec::new(),
        }
    }

    /// The request that is posted alone. But for its identifier and its list it stays as it is.
    #[inline(always)]
    pub(super) fn single(&self) -> *mut ffi::ibv_send_wr {
        self.single.at(0)
    }

    /// The first request of a batch.
    #[inline(always)]
    pub(super) fn first(&self) -> *mut ffi::ibv_send_wr {
        self.chain.at(0)
    }

    /// Begins a batch, and first takes back what is left of one that was forgotten.
    #[inline(always)]
    pub(super) fn begin(&mut self) -> Requests {
        if self.ring.is_open() {
            self.take_back_left();
        }
        self.ring.set_open(true);
        let at = self.ring.position();
        Requests::new(self.first(), at.next, self.ring.limit(at, self.chain.len()))
    }

    /// Takes back what a batch has left that was forgotten, or is given up: its buffers go to their pool.
    #[cold]
    #[inline(never)]
    pub(super) fn take_back_left(&mut self) {
        // SAFETY: what is staged from there on is in a batch that was not submitted, nor will be: whoever begins another
        // has borrowed the queue pair.
        drop(unsafe { self.ring.unstage(None) });
        self.refusal = None;
        self.refused.clear();
    }

    /// Prepares for an operation, if the batch is not refused; `at` is where the ring has come to, and `request` where its
    /// requests end. Otherwise it returns why not, unless it was refused before.
    #[cold]
    #[inline(never)]
    pub(super) fn prepare(
        &mut self,
        request: *mut ffi::ibv_send_wr,
        at: Position,
        flags: u32,
    ) -> Result<Prepared, Option<Refusal>> {
        if self.refusal.is_some() {
            return Err(None);
        }
        let filled = self.count(request);
        if filled == self.chain.len() && !self.grow() {
            return Err(Some(Refusal::QueueFull(self.max_len)));
        }
        let full = Refusal::QueueFull(self.ring.capacity());
        let at = self.ring.vacancy(at).ok_or(Some(full))?;
        let mut end = self.ring.limit(at, self.chain.len() - filled);
        let mut flags = flags;
        if end <= at.next {
            // The run is as long as it may be. What is signaled is the last of one.
            flags |= ffi::IBV_SEND_SIGNALED;
            end = at.next + STEP;
        }
        Ok(Prepared { requests: Requests::new(self.chain.at(filled), at.next, end), at, flags })
    }

    /// Makes room for more requests, when all are filled. Returns whether there may be more.
    fn grow(&mut self) -> bool {
        let filled = self.chain.len();
        let len = self.max_len.min((filled * 2).max(FIRST));
        if len <= filled {
            return false;
        }
        let chain = Array::<ffi::ibv_send_wr>::new(len);
        chain.copy_from(&self.chain);
        for index in 0..len {
            // SAFETY: the request is one of the array, which nobody else knows. (The last one's next is not followed: it ends
            // the chain whenever it is posted.)
            unsafe { (*chain.at(index)).next = chain.at(index + 1) };
        }
        self.chain = chain;
        true
    }

    /// How many requests there are before this one.
    fn count(&self, request: *const ffi::ibv_send_wr) -> usize {
        (request as usize).wrapping_sub(self.first() as usize) / size_of::<ffi::ibv_send_wr>()
    }

    /// Refuses the batch that is open, for an operation with this buffer. The first reason counts; there is none if it
    /// was refused before.
    #[cold]
    #[inline(never)]
    pub(super) fn refuse(&mut self, core: &Core, why: Option<Refusal>, buffer: Option<Buffer>) {
        if let (None, Some(why)) = (&self.refusal, why) {
            self.refusal = Some(Box::new(core.explain_refusal(why)));
        }
        self.refused.extend(buffer);
    }

    /// Refuses the batch that is open for this reason.
    #[cold]
    #[inline(never)]
    pub(super) fn refuse_all(&mut self, error: Box<Error>) {
        self.refusal = Some(error);
    }

    /// Whether the batch that is open is refused.
    #[inline(always)]
    pub(super) fn is_refused(&self) -> bool {
        self.refusal.is_some()
    }

    /// What is told of a batch that is refused, and has come to this identifier.
    #[cold]
    #[inline(never)]
    pub(super) fn give_back(&mut self, next: u64) -> Failed<Vec<Buffer>> {
        let error = self.refusal.take().map_or(Error::NotReadyToSend, |error| *error);
        Failed { resource: self.take_back(next), error }
    }

    /// Gives up the batch that is open, which has come to this identifier.
    #[cold]
    #[inline(never)]
    pub(super) fn abandon(&mut self, next: u64) {
        drop(self.take_back(next));
    }

    /// The buffers of the batch that is open, which has come to this identifier and is given up.
    fn take_back(&mut self, next: u64) -> Vec<Buffer> {
        self.refusal = None;
        // SAFETY: the batch is given up, so that no device will know of its requests.
        let staged = unsafe { self.ring.unstage(Some(next)) };
        let staged = staged.into_iter().map(|(_, buffer)| buffer);
        staged.chain(self.refused.drain(..)).collect()
    }

    /// What is told of a batch that ended before `end` and of which the provider has refused `bad` and what follows it.
    #[cold]
    #[inline(never)]
    pub(super) fn explain(
        &mut self,
        code: i32,
        bad: *mut ffi::ibv_send_wr,
        end: *mut ffi::ibv_send_wr,
    ) -> Failed<Vec<Buffer>> {
        let requested = self.count(end);
        // If the provider does not say which one it refused, it may have taken any of them.
        let accepted = if bad.is_null() { requested } else { self.count(bad).min(requested) };
        let error = Error::PostShared { accepted, requested, source: os_error(code) };
        let mut resource = Vec::new();
        if accepted < requested {
            // SAFETY: it is one of the batch's requests, which lie side by side in the array.
            let id = unsafe { (*self.chain.at(accepted)).wr_id };
            // SAFETY: the provider says that it has not taken this request, nor those behind it, which were staged last.
            let back = unsafe { self.ring.unstage_from(id) };
            resource.extend(back.into_iter().map(|(_, buffer)| buffer));
        }
        Failed { resource, error }
    }

    /// What is told of the one send that was posted last, under this identifier, and that the provider has refused; or has
    /// taken, and failed all the same.
    #[cold]
    #[inline(never)]
    pub(super) fn explain_one(
        &mut self,
        code: i32,
        is_taken: bool,
        id: u64,
    ) -> Failed<Option<Buffer>> {
        let accepted = usize::from(is_taken);
        let error = Error::PostShared { accepted, requested: 1, source: os_error(code) };
        if is_taken {
            return Failed { resource: None, error };
        }
        // SAFETY: the provider says that it has not taken the request, which was staged last.
        let back = unsafe { self.ring.unstage_from(id) }.pop();
        Failed { resource: back.map(|(_, buffer)| buffer), error }
    }
}
