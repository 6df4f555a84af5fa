//! Posting buffers to receive into.

use std::ptr;

use super::buffer::Buffer;
use super::table::{Places, Position, Ring};
use crate::error::{Error, Failed, Result};
use crate::ffi;
use crate::post::{call_and_explain, Array, PostCall};

/// How many receives are posted by one call.
const MAX_CHAIN: usize = 32;

/// What the receives of a queue are posted from: its ring, and requests that are used again.
pub(super) struct Receives {
    pub(super) ring: Ring,
    /// Each is linked to the next one, and has one entry. So however many are posted, they are the last ones.
    chain: Array<ffi::ibv_recv_wr>,
}

// SAFETY: the pointer leads to its own array, and is followed only by whoever has borrowed it exclusively.
unsafe impl Send for Receives {}
// SAFETY: as above.
unsafe impl Sync for Receives {}

impl Receives {
    pub(super) fn new(ring: Ring) -> Receives {
        let chain = Array::<ffi::ibv_recv_wr>::new(MAX_CHAIN);
        for index in 0..MAX_CHAIN {
            // SAFETY: the request is one of the array, which nobody else knows.
            let request = unsafe { &mut *chain.at(index) };
            request.num_sge = 1;
            if index + 1 < MAX_CHAIN {
                request.next = chain.at(index + 1);
            }
        }
        Receives { ring, chain }
    }
}

/// That a queue which was granted `granted` scatter entries can take a buffer.
#[inline(always)]
fn check_entries(granted: u32) -> Result<()> {
    if granted == 0 {
        return Err(Error::TooManyScatterEntries { queue: "receive", entries: 1, granted });
    }
    Ok(())
}

/// The error of a buffer that is of another domain than the queue.
#[cold]
fn mismatch() -> Error {
    Error::ProtectionDomainMismatch { what: "buffer" }
}

/// The error of a receive queue without an empty place.
#[cold]
fn full(ring: &Ring) -> Error {
    Error::QueueFull { queue: "receive", capacity: ring.capacity() }
}

/// What is left in a `Vec` that does not count it any more.
struct Left {
    next: *mut (u64, Buffer),
    len: usize,
}

impl Left {
    /// Takes note that the next `count` were moved out.
    #[inline(always)]
    fn pass(&mut self, count: usize) {
        (self.next, self.len) = (self.next.wrapping_add(count), self.len - count);
    }
}

/// Puts back what is not posted, and what is left.
///
/// # Safety
///
/// What is left is in this `Vec`, was not moved out, and is not used after this.
#[cold]
#[inline(never)]
unsafe fn put_back(receives: &mut Vec<(u64, Buffer)>, mut rest: Vec<(u64, Buffer)>, left: Left) {
    for index in 0..left.len {
        // SAFETY: it is one of those that are left, by the caller's promise.
        rest.push(unsafe { left.next.wrapping_add(index).read() });
    }
    receives.extend(rest);
}

/// Moves a buffer into the place at this position, and describes it in a request. Returns the position behind it.
///
/// # Safety
///
/// As for [`Places::fill`]. The request is of the chain, and no provider knows of it now.
#[inline(always)]
unsafe fn stage(
    places: Places,
    at: Position,
    user: u64,
    buffer: Buffer,
    request: *mut ffi::ibv_recv_wr,
) -> Position {
    let (at, entry) = (Position::first(at.next), buffer.whole());
    // SAFETY: the caller's promise.
    let behind = unsafe { places.fill(at, true, user, buffer) };
    // SAFETY: as above.
    let request = unsafe { &mut *request };
    request.wr_id = at.next;
    request.sg_list = entry;
    behind
}

impl Receives {
    /// Posts one buffer to the queue of this ring, which is of the domain `domain` and was granted `granted` scatter entries.
    #[inline(always)]
    pub(super) fn post_one(
        &mut self,
        domain: usize,
        granted: u32,
        user: u64,
        buffer: Buffer,
        verb: &'static str,
        call: impl PostCall,
    ) -> Result<(), Failed<Option<Buffer>>> {
        if let Err(error) = check_entries(granted) {
            return Err(Failed { resource: Some(buffer), error });
        }
        if buffer.domain() != domain {
            return Err(Failed { resource: Some(buffer), error: mismatch() });
        }
        let Some(at) = self.ring.vacancy(self.ring.position()) else {
            return Err(Failed { resource: Some(buffer), error: full(&self.ring) });
        };
        let request = self.chain.at(MAX_CHAIN - 1);
        // SAFETY: the ring is borrowed exclusively, and the position is its vacancy; so is the chain.
        let behind = unsafe { stage(self.ring.places(), at, user, buffer, request) };
        self.ring.go_on(behind);
        call_and_explain(request, 1, verb, call).map_err(|error| {
            let resource = self.take_back(request, &error).pop();
            Failed { resource: resource.map(|(_, buffer)| buffer), error }
        })
    }

    /// Posts buffers to the queue of this ring, as [`post_one`](Self::post_one) does, and takes those out that are posted.
    #[inline(always)]
    pub(super) fn post_all(
        &mut self,
        domain: usize,
        granted: u32,
        receives: &mut Vec<(u64, Buffer)>,
        verb: &'static str,
        mut call: impl FnMut(*mut ffi::ibv_recv_wr, &mut *mut ffi::ibv_recv_wr) -> i32,
    ) -> Result<()> {
        let requested = receives.len();
        if requested > 0 {
            check_entries(granted)?;
        }
        let first = receives.as_mut_ptr();
        // They are moved out one by one. (If that panics, what is left leaks.)
        // SAFETY: none is no more than there are.
        unsafe { receives.set_len(0) };
        let mut left = Left { next: first, len: requested };
        while left.len > 0 {
            let posted = requested - left.len;
            // SAFETY: they are those that were not moved out.
            let result = unsafe { self.post_some(domain, &mut left, verb, &mut call) };
            if let Err((mut error, rest)) = result {
                if let Error::PostReceive { accepted, requested: of, .. } = &mut error {
                    (*accepted, *of) = (*accepted + posted, requested);
                }
                // SAFETY: as above.
                unsafe { put_back(receives, rest, left) };
                return Err(error);
            }
        }
        Ok(())
    }

    /// Posts as many of the buffers as go into one chain, and moves them out. Returns those that were moved out and are not
    /// posted with the error.
    ///
    /// # Safety
    ///
    /// What is left is there, was not moved out, and is in nobody else's use.
    #[inline(always)]
    unsafe fn post_some(
        &mut self,
        domain: usize,
        left: &mut Left,
        verb: &'static str,
        call: impl PostCall,
    ) -> Result<(), (Error, Vec<(u64, Buffer)>)> {
        let len = left.len.min(MAX_CHAIN);
        let (first, end) = (self.chain.at(MAX_CHAIN - len), self.chain.at(MAX_CHAIN));
        let (places, mut at) = (self.ring.places(), self.ring.position());
        let (mut request, mut next) = (first, left.next);
        let mut block_end = self.ring.block_end();
        while request != end {
            // SAFETY: it is one of the first `len` that are left, by the caller's promise, and read once: `next` is passed, and
            // `left` is told of it in the end.
            let (user, buffer) = unsafe { next.read() };
            // SAFETY: the table is the ring's, which is kept here.
            let is_empty = || unsafe { places.is_empty(at.next) };
            let is_of_domain = buffer.domain() == domain;
            let mut is_ready = is_of_domain && at.next != block_end && is_empty();
            if is_of_domain && !is_ready {
                if let Some(found) = self.ring.find_vacancy(at) {
                    (at, is_ready) = (found, true);
                }
                block_end = self.ring.block_end();
            }
            if !is_ready {
                let error = if is_of_domain { full(&self.ring) } else { mismatch() };
                self.ring.go_on(at);
                left.pass(self.count(first, request) + 1);
                return Err(self.post_before(first, request, (user, buffer), error, verb, call));
            }
            // SAFETY: the ring is borrowed exclusively, and the place is empty; so is the chain.
            at = unsafe { stage(places, at, user, buffer, request) };
            (request, next) = (request.wrapping_add(1), next.wrapping_add(1));
        }
        left.pass(len);
        self.ring.go_on(at);
        call_and_explain(first, len, verb, call).map_err(|error| {
            let rest = self.take_back(first, &error);
            (error, rest)
        })
    }

    /// Posts the requests from `first` on before `end`, since that cannot be posted, for this reason.
    #[cold]
    fn post_before(
        &mut self,
        first: *mut ffi::ibv_recv_wr,
        end: *mut ffi::ibv_recv_wr,
        refused: (u64, Buffer),
        error: Error,
        verb: &'static str,
        call: impl PostCall,
    ) -> (Error, Vec<(u64, Buffer)>) {
        let (mut result, mut rest) = (Ok(()), Vec::new());
        if first != end {
            let last = end.wrapping_sub(1);
            // SAFETY: it is a request of the chain, which is borrowed exclusively; no provider knows of it now.
            unsafe { (*last).next = ptr::null_mut() };
            result = call_and_explain(first, self.count(first, end), verb, call);
            // SAFETY: as above.
            unsafe { (*last).next = end };
        }
        if let Err(failed) = &result {
            rest = self.take_back(first, failed);
        }
        rest.push(refused);
        (result.err().unwrap_or(error), rest)
    }

    /// How many requests there are from `first` on before `end`.
    #[inline(always)]
    fn count(&self, first: *const ffi::ibv_recv_wr, end: *const ffi::ibv_recv_wr) -> usize {
        (end as usize - first as usize) / size_of::<ffi::ibv_recv_wr>()
    }

    /// Takes back those of the requests from `first` on, which were staged last, that the provider has not taken, after
    /// it has failed with this error.
    #[cold]
    #[inline(never)]
    fn take_back(&mut self, first: *mut ffi::ibv_recv_wr, error: &Error) -> Vec<(u64, Buffer)> {
        match *error {
            Error::PostReceive { accepted, requested, .. } if accepted < requested => {
                // SAFETY: it is one of the requests that were posted, of the chain, which is borrowed exclusively.
                let id = unsafe { (*first.wrapping_add(accepted)).wr_id };
                // SAFETY: the provider says that it has not taken this request, nor those behind it.
                unsafe { self.ring.unstage_from(id) }
            }
            _ => Vec::new(),
        }
    }
}
