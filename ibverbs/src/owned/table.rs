//! What of one queue the device may use: a place for each buffer that is posted.
//!
//! Two sides use a table: the [`Ring`] that posts, of which there is one, and whoever polls a completion queue to which
//! the queue completes. A place is empty, and then the ring's, or has an identifier, and then belongs to whoever polls
//! the completion that tells it done. The identifier is stored last with release, and loaded with acquire, so that no
//! lock is needed; to empty a place, zero is stored in the same way.
//!
//! An identifier is a block, which is a table's alone, and a number within the block, whose lowest bits are the place:
//! how many bytes it lies behind the first. None is ever used twice in a process, not by another queue either: the
//! completion of a queue that is gone, or of a request from before a reset, names none that is posted.
//!
//! A completion tells a *run* of requests done: its own, and the ordered sends right before it that were not signaled.
//! The ring fills the places of ordered sends in their order, and never goes past one that is not empty. So those of a
//! run lie side by side, and were all filled when its last was; and the last of each knows
//! the first. Whoever has
//! polled a completion empties all that is left of its run up to it, before the next completion is looked at: what is
//! empty of a run is its beginning.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::buffer::Buffer;
use super::registry::Registry;

mod ring;

pub(crate) use ring::{Position, Ring};

/// How far apart identifiers are: the size of a place, so that one leads to its place without a multiplication.
pub(super) const STEP: u64 = 32;
/// How many bits of an identifier are within its block.
const NUMBER_BITS: u32 = 28;
const NUMBERS: u64 = 1 << NUMBER_BITS;
const BLOCKS: u64 = 1 << (u64::BITS - NUMBER_BITS);

/// The block of the table that is made next. Not 0: an empty place has the identifier 0.
static NEXT_BLOCK: AtomicU64 = AtomicU64::new(1);

/// The block that an identifier is of.
#[inline]
pub(super) fn block_of(id: u64) -> u64 {
    id >> NUMBER_BITS
}

fn new_block() -> u64 {
    let block = NEXT_BLOCK.fetch_add(1, Ordering::Relaxed);
    // (Two less, so that what is computed beyond a block is a number still.)
    assert!(block < BLOCKS - 2, "this process has used up the identifiers of work requests");
    block
}

/// The requests of one queue: in which order they complete, and on which side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Sends that complete in the order in which they were posted. One that is not signaled is done when a later one
    /// has completed.
    OrderedSends,
    /// Sends that complete in any order.
    Sends,
    /// Receives, which complete in any order if several queue pairs take them.
    Receives,
}

/// (What is in it is a parameter for the tests.)
pub(crate) struct Table<B = Buffer> {
    /// Their number is a power of two.
    places: Box<[Place<B>]>,
    kind: Kind,
    registered: Mutex<Registered<B>>,
}

#[repr(C, align(32))]
struct Place<B> {
    /// Zero if it is empty.
    id: AtomicU64,
    content: UnsafeCell<Content<B>>,
}

/// Only what is of a request that is posted means anything.
struct Content<B> {
    user: u64,
    /// Of a request that is signaled: less than its identifier by as many steps as there are requests before it in its run. (It
    /// is the identifier of the first of them, unless a block came to its end in between. The place is that one's in any
    /// case.) Otherwise what an earlier request has left, or [`NO_RUN`].
    first: u64,
    buffer: MaybeUninit<B>,
}

/// No identifier, nor what is in an empty place.
const NO_RUN: u64 = 1;

/// Where completions find the table.
struct Registered<B> {
    blocks: Vec<u64>,
    registries: Vec<Weak<Registry<B>>>,
}

// SAFETY: the contents, which are `Send`, move in and out by the protocol above: only the one ring writes to a place that
// is empty, and only the one who has polled its completion, or owns the table, empties one.
unsafe impl<B: Send> Sync for Table<B> {}

/// The places of a table: two words that a loop keeps in registers. Whoever has them sees to it that the table is alive.
pub(super) struct Places<B = Buffer> {
    first: NonNull<Place<B>>,
    /// The bits of an identifier that say how many bytes its place is behind the first.
    mask: u64,
}

impl<B> Clone for Places<B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for Places<B> {}

// SAFETY: it is followed only where the caller promises that the table is alive, and that may be shared.
unsafe impl<B: Send> Send for Places<B> {}
// SAFETY: as above.
unsafe impl<B: Send> Sync for Places<B> {}

impl<B> Places<B> {
    /// The place of an identifier.
    ///
    /// # Safety
    ///
    /// The table is alive for `'t`.
    #[inline(always)]
    unsafe fn at<'t>(self, id: u64) -> &'t Place<B> {
        // SAFETY: the mask has no bits below those of `STEP`, which is the size of a place, and its number is that of the
        // last: so this is one of the table's places.
        let place = unsafe { self.first.byte_add((id & self.mask) as usize) };
        // SAFETY: it is alive, by the caller's promise, and shared as the table is.
        unsafe { place.as_ref() }
    }

    /// Looks for the request of this identifier: the number of its buffer, and what its completion tells to be done. `None`
    /// if it is not here.
    ///
    /// # Safety
    ///
    /// The table is alive. The caller has polled the completion of this identifier, and has taken all that the
    /// completions before it have told to be done; if there may be others who poll completions of this table, it is one
    /// of receives.
    #[inline(always)]
    pub(super) unsafe fn find(self, id: u64) -> Option<(u64, Run)> {
        // SAFETY: passed on to the caller.
        let place = unsafe { self.at(id) };
        if place.id.load(Ordering::Acquire) != id || id == 0 {
            return None;
        }
        let content = place.content.get();
        // SAFETY: a place with an identifier has a content, which was written before it; and until the caller empties
        // it, nobody writes it.
        let user = unsafe { (*content).user };
        // SAFETY: as above.
        let first = unsafe { (*content).first };
        // SAFETY: passed on to the caller.
        let is_there = || unsafe { self.id_at(first) } == first;
        let next = if first == id || (self.is_within(first, id) && is_there()) {
            first
        } else {
            // SAFETY: passed on to the caller.
            unsafe { self.first_left(id) }
        };
        Some((user, Run { next, last: id, has_last: true }))
    }

    /// Whether `first` is of this request, which is signaled then, and was not left by an earlier one: the identifiers that a
    /// place has had are at least a whole round apart.
    #[inline(always)]
    fn is_within(self, first: u64, id: u64) -> bool {
        id.wrapping_sub(first) <= self.mask
    }

    /// What is left of the run of a request, before it: less than its identifier by as many steps as there are requests.
    ///
    /// # Safety
    ///
    /// The table is alive, and one of ordered sends. The caller is its poller, as in [`find`](Self::find); or its ring,
    /// which has staged the request.
    #[cold]
    #[inline(never)]
    unsafe fn first_left(self, id: u64) -> u64 {
        let mut left = id;
        // (As many as there may be.)
        for _ in 0..self.mask / STEP {
            let before = left - STEP;
            // SAFETY: passed on to the caller.
            let place = unsafe { self.at(before) };
            let found = place.id.load(Ordering::Acquire);
            // What is empty is the beginning of the run, or before it. It may have been filled again: identifiers grow.
            if found == 0 || found > id {
                break;
            }
            // SAFETY: only the ring writes it, when the place is empty. The place does not become so meanwhile, if the caller
            // is the poller.
            let first = unsafe { (*place.content.get()).first };
            if self.is_within(first, found) {
                break;
            }
            left = before;
        }
        left
    }

    /// Moves out what is in the place of this request, and empties it.
    ///
    /// # Safety
    ///
    /// The table is alive. The place is that of a request whose end was proved to the caller, and nobody has emptied it.
    #[inline(always)]
    unsafe fn take(self, id: u64) -> (u64, B) {
        // SAFETY: passed on to the caller.
        let place = unsafe { self.at(id) };
        // SAFETY: a place that is not empty has a content, written before its identifier, which the caller has loaded with
        // acquire, or a later one of the same ring; and it is the caller's. It is read once, for the place is empty then.
        let Content { user, buffer, .. } = unsafe { place.content.get().read() };
        place.id.store(0, Ordering::Release);
        // SAFETY: as above.
        (user, unsafe { buffer.assume_init() })
    }

    /// Fills an empty place: from here on the request is found by its identifier, `at.next`. Returns the position behind it.
    ///
    /// # Safety
    ///
    /// The table is alive, and the caller is its ring. The position is that of a [vacancy](Ring::vacancy), or one whose
    /// place was seen empty and whose identifier was not used.
    #[inline(always)]
    pub(super) unsafe fn fill(
        self,
        at: Position,
        is_signaled: bool,
        user: u64,
        buffer: B,
    ) -> Position {
        // SAFETY: passed on to the caller.
        let place = unsafe { self.at(at.next) };
        let content = place.content.get();
        // SAFETY: the place is empty, and then nobody but the ring looks at its content.
        unsafe { (*content).user = user };
        // SAFETY: as above.
        unsafe { (*content).buffer = MaybeUninit::new(buffer) };
        let mut behind = Position { next: at.next + STEP, ..at };
        if is_signaled {
            // SAFETY: as above.
            unsafe { (*content).first = at.run };
            behind.run = behind.next;
        }
        place.id.store(at.next, Ordering::Release);
        behind
    }

    /// What is in the place of an identifier: another one for the same place, or zero.
    ///
    /// # Safety
    ///
    /// The table is alive.
    #[inline(always)]
    unsafe fn id_at(self, id: u64) -> u64 {
        // SAFETY: passed on to the caller.
        let place = unsafe { self.at(id) };
        place.id.load(Ordering::Acquire)
    }

    /// Whether the place of an identifier is empty.
    ///
    /// # Safety
    ///
    /// The table is alive.
    #[inline(always)]
    pub(super) unsafe fn is_empty(self, id: u64) -> bool {
        // SAFETY: passed on to the caller.
        unsafe { self.id_at(id) == 0 }
    }
}

/// What a completion has told to be done, and is not taken yet.
#[derive(Clone, Copy)]
pub(super) struct Run {
    /// Less than `last` by as many steps as there are left of those before the completion's own.
    next: u64,
    /// The completion's own.
    last: u64,
    /// Whether that is still there.
    has_last: bool,
}

impl Run {
    pub(super) const NONE: Run = Run { next: 0, last: 0, has_last: false };

    /// Whether there is something left.
    #[inline(always)]
    pub(super) fn is_any(&self) -> bool {
        self.has_last || self.next != self.last
    }

    /// Takes the next buffer out: that of the completion itself, and then those before it, from the first.
    ///
    /// # Safety
    ///
    /// It is what [`find`](Places::find) of these places has returned, or [`NONE`](Self::NONE), and what was taken since was
    /// taken by this; the table is alive.
    #[inline(always)]
    pub(super) unsafe fn take<B>(&mut self, places: Places<B>) -> Option<B> {
        let id = if self.has_last {
            self.has_last = false;
            self.last
        } else if self.next != self.last {
            let id = self.next;
            self.next = id + STEP;
            id
        } else {
            return None;
        };
        // SAFETY: the completion of `last` was polled. This is its request, or of those before it in its run, which are
        // done as well, one that is not empty: at first none from `next` on was. Nobody else empties them, by
        // the promise of `find`'s caller; and the ring does not fill what is empty of them beyond `next`, since it would
        // have to go past the others.
        Some(unsafe { places.take(id) }.1)
    }
}

impl<B> Table<B> {
    fn new(places: u32, kind: Kind) -> Self {
        const { assert!(size_of::<Place<B>>() as u64 == STEP, "identifiers lead to places") };
        let place = || {
            let content = Content { user: 0, first: NO_RUN, buffer: MaybeUninit::uninit() };
            Place { id: AtomicU64::new(0), content: UnsafeCell::new(content) }
        };
        let places = (places.max(1) as usize).next_power_of_two();
        // So that the place of an identifier is the one behind that of the one before it, also from block to block.
        assert!(places as u64 <= NUMBERS / STEP, "no device has a queue of {places} places");
        Table {
            places: (0..places).map(|_| place()).collect(),
            kind,
            registered: Mutex::new(Registered { blocks: Vec::new(), registries: Vec::new() }),
        }
    }

    /// One in which nothing is, nor ever will be.
    pub(super) fn empty() -> Arc<Self> {
        Arc::new(Table::new(1, Kind::Receives))
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn places(&self) -> Places<B> {
        let mask = (self.places.len() as u64 - 1) * STEP;
        Places { first: NonNull::from(&*self.places).cast(), mask }
    }

    fn registered(&self) -> MutexGuard<'_, Registered<B>> {
        self.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the table known to those who poll the queue of this registry.
    pub(crate) fn register(self: &Arc<Self>, registry: &Arc<Registry<B>>) {
        let mut registered = self.registered();
        let weak = Arc::downgrade(registry);
        registered.registries.retain(|other| other.strong_count() > 0);
        if !registered.registries.iter().any(|other| other.ptr_eq(&weak)) {
            registry.set(self, &registered.blocks);
            registered.registries.push(weak);
        }
    }

    /// The registries of queues that somebody can poll.
    pub(super) fn registries(&self) -> Vec<Arc<Registry<B>>> {
        self.registered().registries.iter().filter_map(Weak::upgrade).collect()
    }

    /// Takes a new block, and returns its first identifier.
    fn renew(self: &Arc<Self>) -> u64 {
        let block = new_block();
        let mut registered = self.registered();
        // What was posted with an older one and is still here is found by it, as before.
        let is_used = |block: &u64| {
            self.places.iter().any(|place| block_of(place.id.load(Ordering::Relaxed)) == *block)
        };
        registered.blocks.retain(is_used);
        registered.blocks.push(block);
        for registry in registered.registries.iter().filter_map(Weak::upgrade) {
            registry.set(self, &registered.blocks);
        }
        block << NUMBER_BITS
    }

    /// Takes note that no device uses the buffers any more: whoever polls lets go of the table, and the last one who
    /// does drops them.
    pub(crate) fn close(self: &Arc<Self>) {
        for registry in self.registered().registries.drain(..).filter_map(|weak| weak.upgrade()) {
            registry.set(self, &[]);
        }
    }

    /// The buffers that are in it, in the order in which they were posted.
    pub(super) fn into_buffers(mut self) -> Vec<B> {
        let mut found: Vec<_> = self.take_all().collect();
        found.sort_by_key(|(id, _)| *id);
        found.into_iter().map(|(_, buffer)| buffer).collect()
    }

    fn take_all(&mut self) -> impl Iterator<Item = (u64, B)> + '_ {
        self.places.iter_mut().filter_map(|place| {
            let id = std::mem::take(place.id.get_mut());
            // SAFETY: a place with an identifier has a content, which is this one's: the table is borrowed exclusively.
            // The identifier is gone now, so that it is read once.
            (id != 0).then(|| (id, unsafe { place.content.get_mut().buffer.assume_init_read() }))
        })
    }
}

impl<B> Drop for Table<B> {
    fn drop(&mut self) {
        // The device is done with them, or was never told: the queue keeps the table until it is destroyed.
        self.take_all().for_each(drop);
    }
}

#[cfg(test)]
mod tests;
