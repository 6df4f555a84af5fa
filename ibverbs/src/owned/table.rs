//! What of one queue the device may use: a place for each buffer that is posted.
//!
//! Two sides use a table: the [`Ring`] that posts, of which there is one, and whoever polls a completion queue to which
//! the queue completes. A place is empty, and then the ring's, or has an identifier, and then belongs to whoever polls
//! the completion with this identifier. The identifier is stored last with release, and loaded with acquire, so that no
//! lock is needed.
//!
//! An identifier is a block, which is a table's alone, and a number within the block, whose lowest bits are the place.
//! None is ever used twice in a process, not by another queue either: the completion of a queue that is gone, or of a
//! request from before a reset, names none that is posted.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::buffer::Buffer;
use super::registry::Registry;

/// How many bits of an identifier count within its block.
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
    assert!(block < BLOCKS, "this process has used up the identifiers of work requests");
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
    places: Box<[Place<B>]>,
    /// One less than the number of places, which is a power of two.
    mask: usize,
    kind: Kind,
    /// Of ordered sends, the place behind the last one that is known to be done. Written and read by the one poller.
    swept_to: AtomicUsize,
    registered: Mutex<Registered<B>>,
}

struct Place<B> {
    /// Zero if it is empty.
    id: AtomicU64,
    content: UnsafeCell<MaybeUninit<Content<B>>>,
}

struct Content<B> {
    user: u64,
    is_signaled: bool,
    buffer: B,
}

/// Where completions find the table.
struct Registered<B> {
    blocks: Vec<u64>,
    registries: Vec<Weak<Registry<B>>>,
}

// SAFETY: the contents, which are `Send`, move in and out by the protocol above: only the one ring writes to a place that
// is empty, and only the one who has polled its completion, or owns the table, empties one.
unsafe impl<B: Send> Sync for Table<B> {}

impl<B> Table<B> {
    fn new(places: u32, kind: Kind) -> Self {
        let place =
            || Place { id: AtomicU64::new(0), content: UnsafeCell::new(MaybeUninit::uninit()) };
        let places = (places.max(1) as usize).next_power_of_two();
        // So that the place of an identifier is that of the one before it, plus one, also from block to block.
        assert!(places as u64 <= NUMBERS, "no device has a queue of {places} places");
        Table {
            places: (0..places).map(|_| place()).collect(),
            mask: places - 1,
            kind,
            swept_to: AtomicUsize::new(0),
            registered: Mutex::new(Registered { blocks: Vec::new(), registries: Vec::new() }),
        }
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// The place of an identifier.
    #[inline]
    fn index(&self, id: u64) -> usize {
        id as usize & self.mask
    }

    #[inline]
    fn place(&self, id: u64) -> &Place<B> {
        // SAFETY: the mask is one less than the number of places.
        unsafe { self.places.get_unchecked(self.index(id)) }
    }

    /// Empties the place of this identifier, if it has it.
    ///
    /// # Safety
    ///
    /// Nobody else may empty the place while it has this identifier: the caller has polled the completion that proves
    /// the request done; or the request is not known to a device, nor will be.
    #[inline]
    pub(super) unsafe fn claim(&self, id: u64) -> Option<(u64, B)> {
        let place = self.place(id);
        if id == 0 || place.id.load(Ordering::Acquire) != id {
            return None;
        }
        // SAFETY: a place with an identifier has a content, which was written before it, and it is the caller's.
        let content = unsafe { place.content.get().cast::<Content<B>>().read() };
        place.id.store(0, Ordering::Release);
        Some((content.user, content.buffer))
    }

    /// The places of sends that the completion of `id` tells to be done, before its own.
    ///
    /// # Safety
    ///
    /// The caller is the one poller of the table, and has polled this completion.
    #[inline]
    pub(super) unsafe fn earlier(&self, id: u64) -> Earlier {
        let end = self.index(id);
        let place = match self.kind {
            Kind::OrderedSends => self.swept_to.load(Ordering::Relaxed),
            _ => return Earlier { place: end, end, id },
        };
        if place == end {
            self.sweep_to(end);
        }
        Earlier { place, end, id }
    }

    /// Takes note that the sends up to this place are done.
    #[inline]
    fn sweep_to(&self, place: usize) {
        self.swept_to.store((place + 1) & self.mask, Ordering::Relaxed);
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
            (id != 0).then(|| (id, unsafe { place.content.get_mut().assume_init_read() }.buffer))
        })
    }
}

impl<B> Drop for Table<B> {
    fn drop(&mut self) {
        // The device is done with them, or was never told: the queue keeps the table until it is destroyed.
        self.take_all().for_each(drop);
    }
}

/// Places that the completion of an ordered send tells to be done.
#[derive(Default)]
pub(super) struct Earlier {
    place: usize,
    end: usize,
    /// That of the completion.
    id: u64,
}

impl Earlier {
    /// Whether there may be any left.
    #[inline]
    pub(super) fn is_pending(&self) -> bool {
        self.place != self.end
    }

    /// That of the completion.
    #[inline]
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// The buffer of the next.
    ///
    /// # Safety
    ///
    /// The table is the one that this is of, and the caller its one poller.
    pub(super) unsafe fn next<B>(&mut self, table: &Table<B>) -> Option<B> {
        while self.place != self.end {
            let place = table.place(self.place as u64);
            self.place = (self.place + 1) & table.mask;
            if self.place == self.end {
                table.sweep_to(self.end);
            }
            let id = place.id.load(Ordering::Acquire);
            // Only what was posted before: identifiers grow.
            if id == 0 || id >= self.id {
                continue;
            }
            // SAFETY: a place with an identifier has a content, which nobody writes before it is emptied; only this
            // poller could do that, for the request was posted.
            if unsafe { (*place.content.get().cast::<Content<B>>()).is_signaled } {
                // It has a completion of its own.
                continue;
            }
            // SAFETY: the request was posted before the one that has completed, in an ordered queue; so it is done. It
            // was not signaled, so that it has no completion, or one that failed and was polled before this.
            if let Some((_, buffer)) = unsafe { table.claim(id) } {
                return Some(buffer);
            }
        }
        None
    }
}

/// The side of a table that posts.
pub(crate) struct Ring<B = Buffer> {
    table: Arc<Table<B>>,
    /// The identifier of the next request.
    next: u64,
    /// How many requests were staged since the last one that is signaled.
    unsignaled: usize,
}

impl<B> Ring<B> {
    /// That of a new table with at least this many places, which nobody polls yet.
    pub(crate) fn new(places: u32, kind: Kind) -> Self {
        let table = Arc::new(Table::new(places, kind));
        let next = table.renew();
        Ring { table, next, unsignaled: 0 }
    }

    pub(crate) fn table(&self) -> &Arc<Table<B>> {
        &self.table
    }

    pub(crate) fn into_table(self) -> Arc<Table<B>> {
        self.table
    }

    /// How many buffers it has places for.
    pub(crate) fn capacity(&self) -> usize {
        self.table.places.len()
    }

    /// Puts a buffer into a place, and returns its identifier; or gives it back if there is none.
    ///
    /// `is_signaled`: whether its completion tells that it is done, and not a later one.
    #[inline]
    pub(crate) fn stage(&mut self, user: u64, is_signaled: bool, buffer: B) -> Result<u64, B> {
        let mut id = self.next;
        let mut place = self.table.place(id);
        if place.id.load(Ordering::Acquire) != 0 {
            match self.find_empty() {
                Some(other) => id = other,
                None => return Err(buffer),
            }
            place = self.table.place(id);
        }
        // SAFETY: the place is empty, and then nobody but this ring, which is borrowed exclusively, looks at its content.
        unsafe {
            place.content.get().cast::<Content<B>>().write(Content { user, is_signaled, buffer })
        };
        place.id.store(id, Ordering::Release);
        self.next = self.after(id, 1);
        self.unsignaled = if is_signaled { 0 } else { self.unsignaled + 1 };
        Ok(id)
    }

    /// Whether the next request must be signaled: the places of those before it would never be free, should all of the
    /// table not be signaled.
    #[inline]
    pub(crate) fn needs_signal(&self) -> bool {
        self.unsignaled + 1 >= self.capacity() / 2
    }

    /// The identifier `count` further on.
    #[inline]
    fn after(&self, id: u64, count: u64) -> u64 {
        let next = id + count;
        if block_of(next) != block_of(id) {
            return self.renewed(next);
        }
        next
    }

    /// The identifier in a new block that has the place of `next`.
    #[cold]
    #[inline(never)]
    fn renewed(&self, next: u64) -> u64 {
        self.table.renew() + self.table.index(next) as u64
    }

    /// The identifier of an empty place beyond the next, where requests complete in any order.
    #[cold]
    #[inline(never)]
    fn find_empty(&mut self) -> Option<u64> {
        if self.table.kind == Kind::OrderedSends {
            return None;
        }
        for _ in 1..self.table.places.len() {
            self.next = self.after(self.next, 1);
            let place = self.table.place(self.next);
            if place.id.load(Ordering::Acquire) == 0 {
                return Some(self.next);
            }
        }
        None
    }

    /// Takes back what was staged under these identifiers, in the order in which it was.
    ///
    /// # Safety
    ///
    /// They are the last that were staged, or were taken back before. No device knows of the requests, nor will.
    pub(crate) unsafe fn unstage(&mut self, ids: impl IntoIterator<Item = u64>) -> Vec<(u64, B)> {
        let mut ids = ids.into_iter().peekable();
        let first = ids.peek().copied();
        // SAFETY: by the caller's promise no completion names them, nor a later one of this queue.
        let back: Vec<_> = ids.filter_map(|id| unsafe { self.table.claim(id) }).collect();
        if let (Some(first), false) = (first, back.is_empty()) {
            // The place of the first is the next one, where the order counts, and the identifiers are not used again.
            self.next = self.after(first, self.table.places.len() as u64);
            self.unsignaled = self.table.places.len();
        }
        back
    }
}

#[cfg(test)]
mod tests;
