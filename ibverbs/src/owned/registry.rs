//! Which tables the completions of one queue may name.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::buffer::Buffer;
use super::table::{block_of, Table};

/// The tables of the queues that complete to one completion queue, with the blocks of their identifiers. Whoever polls
/// has a copy, so that the lock is taken only when something has changed.
pub(crate) struct Registry<B = Buffer> {
    tables: Mutex<Vec<Entry<B>>>,
    /// Whether the poller should look again.
    changed: AtomicBool,
}

impl<B> Default for Registry<B> {
    fn default() -> Self {
        Registry { tables: Mutex::new(Vec::new()), changed: AtomicBool::new(false) }
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
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Whether a table was added or removed since the poller has looked.
    #[inline]
    pub(super) fn has_changed(&self) -> bool {
        self.changed.load(Ordering::Relaxed)
    }
}

/// A block, and the table that has it.
type Entry<B> = (u64, Arc<Table<B>>);

/// The poller's copy of a registry: a table for each block, at the place that the block's lowest bits say, or behind it.
pub(super) struct Index<B = Buffer> {
    entries: Box<[Option<Entry<B>>]>,
    /// Tables that were found removed while a poll was open: memory is not deregistered under the provider's locks.
    stale: Vec<Arc<Table<B>>>,
}

impl<B> Default for Index<B> {
    fn default() -> Self {
        Index { entries: Box::default(), stale: Vec::new() }
    }
}

impl<B> Index<B> {
    /// The table of the block that the identifier is of.
    #[inline]
    pub(super) fn find(&self, id: u64) -> Option<&Arc<Table<B>>> {
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

    /// Looks at the registry again, while a poll is open: nothing is dropped.
    #[cold]
    pub(super) fn extend(&mut self, registry: &Registry<B>) {
        let old = std::mem::take(&mut self.entries).into_vec();
        self.stale.extend(old.into_iter().flatten().map(|(_, table)| table));
        self.copy(registry);
    }

    /// Looks at the registry again, and lets go of what is not there any more.
    #[cold]
    pub(super) fn refresh(&mut self, registry: &Registry<B>) {
        self.extend(registry);
        self.stale.clear();
    }

    fn copy(&mut self, registry: &Registry<B>) {
        let tables = registry.tables();
        registry.changed.store(false, Ordering::Relaxed);
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
