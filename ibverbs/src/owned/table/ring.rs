//! The side of a table that posts.

use std::sync::Arc;

use super::super::buffer::Buffer;
use super::{Kind, Places, Table, NUMBERS, STEP};

/// The side of a table that posts.
pub(crate) struct Ring<B = Buffer> {
    /// As the table has them.
    places: Places<B>,
    /// Where it goes on. While a batch is open: where that began.
    at: Position,
    /// Behind the last identifier of the block.
    end: u64,
    /// Whether requests are staged that are neither posted nor taken back: those of a batch that is open or was forgotten.
    is_open: bool,
    /// How far apart a request and the first of its run may be, unless it is signaled.
    max_run: u64,
    table: Arc<Table<B>>,
}

/// Where a ring goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The identifier of the next request.
    pub(in super::super) next: u64,
    /// Less than that by as many steps as there are requests before it that its completion tells to be done.
    pub(super) run: u64,
}

impl Position {
    /// That of a request which is the first of its run.
    #[inline(always)]
    pub(in super::super) fn first(next: u64) -> Position {
        Position { next, run: next }
    }

    /// That of another identifier for the same place.
    fn renamed(self, next: u64) -> Position {
        Position { next, run: next - (self.next - self.run) }
    }
}

impl<B> Ring<B> {
    /// That of a new table with at least this many places, which nobody polls yet.
    pub(crate) fn new(places: u32, kind: Kind) -> Self {
        let table = Arc::new(Table::new(places, kind));
        // A queue of which nothing is signaled would be full for ever: so one is for every half. Where the order says nothing,
        // each is done with its own completion alone, and is signaled.
        let half = match kind {
            Kind::OrderedSends => table.places.len() as u64 / 2,
            Kind::Sends | Kind::Receives => 0,
        };
        let first = table.renew();
        Ring {
            places: table.places(),
            at: Position::first(first),
            end: first + NUMBERS,
            is_open: false,
            max_run: half * STEP,
            table,
        }
    }

    /// The same, for requests that are all signaled: there is no run that could be too long.
    pub(crate) fn all_signaled(mut self) -> Self {
        self.max_run = NUMBERS;
        self
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

    /// The places of its table, which are alive as long as this.
    #[inline(always)]
    pub(in super::super) fn places(&self) -> Places<B> {
        self.places
    }

    /// Where it goes on.
    #[inline(always)]
    pub(in super::super) fn position(&self) -> Position {
        self.at
    }

    /// Takes note that everything before this is posted.
    #[inline(always)]
    pub(in super::super) fn go_on(&mut self, at: Position) {
        self.at = at;
    }

    /// Whether a batch is open, or was forgotten.
    #[inline(always)]
    pub(in super::super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Takes note that a batch is open, or not any more.
    #[inline(always)]
    pub(in super::super) fn set_open(&mut self, is_open: bool) {
        self.is_open = is_open;
    }

    /// A position from this one on whose place is empty and whose identifier was not used, if there is one: this one, or,
    /// where requests complete in any order, one further on.
    #[inline(always)]
    pub(in super::super) fn vacancy(&mut self, at: Position) -> Option<Position> {
        // SAFETY: the table is kept here.
        if at.next != self.end && unsafe { self.places.is_empty(at.next) } {
            return Some(at);
        }
        self.find_vacancy(at)
    }

    /// Behind the last identifier of the block.
    #[inline(always)]
    pub(in super::super) fn block_end(&self) -> u64 {
        self.end
    }

    /// As [`vacancy`](Self::vacancy), for one whose place is not empty or whose identifier is beyond the block.
    #[cold]
    #[inline(never)]
    pub(in super::super) fn find_vacancy(&mut self, mut at: Position) -> Option<Position> {
        for _ in 0..self.capacity() {
            // SAFETY: the table is kept here.
            if unsafe { self.places.is_empty(at.next) } {
                // Not before there is one: the position before it stays where it is if there is none.
                return Some(if at.next < self.end { at } else { self.renewed(at) });
            }
            if self.table.kind == Kind::OrderedSends {
                return None;
            }
            at = Position::first(at.next + STEP);
        }
        None
    }

    /// The position in a new block that has the same place.
    #[cold]
    #[inline(never)]
    fn renewed(&mut self, at: Position) -> Position {
        let first = self.table.renew();
        self.end = first + NUMBERS;
        at.renamed(first + (at.next & self.places.mask))
    }

    /// Before which identifier the place alone need be looked at, from this position on, for a request that need not be signaled:
    /// at most `len` further.
    #[inline(always)]
    pub(in super::super) fn limit(&self, at: Position, len: usize) -> u64 {
        (at.next + len as u64 * STEP).min(self.end).min(at.run + self.max_run)
    }

    /// Takes back what was staged from this identifier on, after the ring was told to go on behind it.
    ///
    /// # Safety
    ///
    /// It was staged, and no device knows of these requests, nor will.
    pub(in super::super) unsafe fn unstage_from(&mut self, next: u64) -> Vec<(u64, B)> {
        let run = match self.table.kind {
            // SAFETY: the table is kept here.
            Kind::OrderedSends => unsafe { self.places.first_left(next) },
            Kind::Sends | Kind::Receives => next,
        };
        let at = Position { next, run };
        let end = std::mem::replace(&mut self.at, at);
        // SAFETY: passed on to the caller.
        unsafe { self.unstage(Some(end.next)) }
    }

    /// Takes back what was staged from where it goes on, in that order, and goes on with another identifier for the same
    /// place. `end` is the identifier that staging had come to, if that is known.
    ///
    /// # Safety
    ///
    /// No device knows of the requests, nor will.
    pub(in super::super) unsafe fn unstage(&mut self, end: Option<u64>) -> Vec<(u64, B)> {
        self.is_open = false;
        let from = self.at;
        let staged = end.map_or(u64::MAX, |end| (end - from.next) / STEP);
        let mut found = Vec::new();
        for step in 0..staged.min(self.capacity() as u64) {
            // Where the order says nothing, other requests may lie in between.
            let place = from.next.wrapping_add(step * STEP);
            // SAFETY: the table is kept here.
            let id = unsafe { self.places.id_at(place) };
            if id >= from.next {
                // SAFETY: as above; an identifier from there on was staged, and is not emptied by anybody else, for no
                // completion names it, nor a later one of this queue, by the caller's promise.
                found.push((id, unsafe { self.places.take(id) }));
            }
        }
        // Identifiers are not used again, also if the device makes up completions of what it was not given.
        self.at = match end {
            Some(end) => {
                let same_place = from.next.wrapping_sub(end) & self.places.mask;
                from.renamed(end + same_place)
            }
            None => self.renewed(from),
        };
        if self.at.next >= self.end {
            self.at = self.renewed(self.at);
        }
        found.sort_unstable_by_key(|(id, _)| *id);
        found.into_iter().map(|(_, staged)| staged).collect()
    }
}
