//! Which tables the completions of one queue may name.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::buffer::Buffer;
use super::table::{block_of, Kind, Places, Table};

/// The tables of the queues that complete to one completion queue, with the blocks of their identifiers. Whoever polls
/// has a copy, so that the lock is taken only when something has changed.
pub(crate) struct Registry<B = Buffer> {
    tables: Mutex<Vec<Entry<B>>>,
    /// How often it has changed.
    generation: AtomicU64,
}

impl<B> Default for Registry<B> {
    fn default() -> Self {
        Registry { tables: Mutex::new(Vec::new()), generation: AtomicU64::new(0) }
    }
}

impl<B> Registry<B> {
    fn tables(&self) -> MutexGuard<'_, Vec<Entry<B>>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a table known by these blocks, and by no others.
    pub(super) fn set(&self, table: &Arc<Table<B>>, blocks: &[u64]) {
        let mut tables = self.tables();
        tables.retain(|(_, other)| !Arc::ptr_eq(other, table));
        tables.extend(blocks.iter().map(|block| (*block, table.clone())));
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it has changed.
    #[inline]
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Forgets all tables: nobody polls any more.
    pub(super) fn clear(&self) {
        let tables = std::mem::take(&mut *self.tables());
        // Buffers are dropped, and not under the lock.
        drop(tables);
    }
}

/// A block, and the table that has it.
type Entry<B> = (u64, Arc<Table<B>>);

/// The poller's copy of a registry: a table for each block, at the place that the block's lowest bits say, or behind it.
pub(super) struct Index<B = Buffer> {
    entries: Box<[Option<Entry<B>>]>,
    /// What was replaced while a poll was open: tables are not dropped, with all that they have, under the provider's
    /// locks.
    stale: Vec<Arc<Table<B>>>,
    /// The generation of the registry that it is a copy of.
    generation: u64,
    /// The places of the table that was found last: one of the entries, or stale, or `none`.
    last: Places<B>,
    /// Whether that is one of receives.
    is_recv: bool,
    /// An empty table, in which nothing is found.
    none: Arc<Table<B>>,
}

impl<B> Default for Index<B> {
    fn default() -> Self {
        let none = Table::empty();
        let (last, is_recv) = (none.places(), false);
        Index { entries: Box::default(), stale: Vec::new(), generation: 0, last, is_recv, none }
    }
}

impl<B> Index<B> {
    /// The table that was found last, in which the next identifier probably is.
    #[inline(always)]
    pub(super) fn last(&self) -> Places<B> {
        self.last
    }

    /// Whether the table that was found last is one of receives.
    #[inline]
    pub(super) fn is_recv(&self) -> bool {
        self.is_recv
    }

    /// The table of an identifier, also of a queue that was made after the poll was opened; `None` if it is of one that is no
    /// more.
    pub(super) fn look_up(&mut self, registry: &Registry<B>, id: u64) -> Option<Places<B>> {
        if self.find(id).is_none() {
            self.extend(registry);
        }
        let table = self.find(id)?;
        (self.last, self.is_recv) = (table.places(), table.kind() == Kind::Receives);
        Some(self.last)
    }

    /// The table of the block that the identifier is of.
    #[inline]
    pub(super) fn find(&self, id: u64) -> Option<&Table<B>> {
        let block = block_of(id);
        let mask = self.entries.len().wrapping_sub(1);
        let mut place = block as usize & mask;
        // It ends: at least half of the entries are empty.
        loop {
            match self.entries.get(place)? {
                Some((other, table)) if *other == block => return Some(table),
                Some(_) => place = (place + 1) & mask,
                None => return None,
            }
        }
    }

    /// Looks at the registry again, if that has changed, while a poll is open: nothing is dropped.
    #[cold]
    pub(super) fn extend(&mut self, registry: &Registry<B>) {
        if registry.generation() == self.generation {
            return;
        }
        let old = std::mem::take(&mut self.entries).into_vec();
        self.stale.extend(old.into_iter().flatten().map(|(_, table)| table));
        self.copy(registry);
    }

    /// Looks at the registry again, and lets go of what is not there any more.
    #[cold]
    pub(super) fn refresh(&mut self, registry: &Registry<B>) {
        self.extend(registry);
        self.last = self.none.places();
        self.stale.clear();
    }

    /// The generation of the registry that it is a copy of.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    fn copy(&mut self, registry: &Registry<B>) {
        let tables = registry.tables();
        self.generation = registry.generation();
        let len = (tables.len() * 2).next_power_of_two().max(2);
        let mut entries: Box<[_]> = (0..len).map(|_| None).collect();
        for (block, table) in tables.iter() {
            let mut place = *block as usize & (len - 1);
            while entries[place].is_some() {
                place = (place + 1) & (len - 1);
            }
            entries[place] = Some((*block, table.clone()));
        }
        self.entries = entries;
    }
}
