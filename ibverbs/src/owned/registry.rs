//! Which tables the completions of one queue may name.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::table::{block_of, Table};

/// The tables of the queues that complete to one completion queue, with the blocks of their identifiers. Whoever polls
/// has a copy, so that the lock is taken only when something has changed.
#[derive(Default)]
pub(crate) struct Registry {
    tables: Mutex<Vec<Entry>>,
    /// Whether the poller should look again.
    changed: AtomicBool,
}

impl Registry {
    fn tables(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a table known by these blocks, and by no others.
    pub(super) fn set(&self, table: &Arc<Table>, blocks: &[u64]) {
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
type Entry = (u64, Arc<Table>);

/// The poller's copy of a registry: a table for each block, at the place that the block's lowest bits say, or behind it.
#[derive(Default)]
pub(super) struct Index {
    entries: Box<[Option<Entry>]>,
    /// Tables that were found removed while a poll was open: memory is not deregistered under the provider's locks.
    stale: Vec<Arc<Table>>,
}

impl Index {
    /// The table of the block that the identifier is of.
    #[inline]
    pub(super) fn find(&self, id: u64) -> Option<&Arc<Table>> {
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
    pub(super) fn extend(&mut self, registry: &Registry) {
        let old = std::mem::take(&mut self.entries).into_vec();
        self.stale.extend(old.into_iter().flatten().map(|(_, table)| table));
        self.copy(registry);
    }

    /// Looks at the registry again, and lets go of what is not there any more.
    #[cold]
    pub(super) fn refresh(&mut self, registry: &Registry) {
        self.extend(registry);
        self.stale.clear();
    }

    fn copy(&mut self, registry: &Registry) {
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
