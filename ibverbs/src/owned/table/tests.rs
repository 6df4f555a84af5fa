//! Tables with a model of a device: what was staged comes out once, under its own identifier, and never while it is posted.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread;

use super::super::registry::{Index, Registry};
use super::{block_of, Kind, Ring, NUMBERS};

/// Random numbers that are the same each time (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// A queue, its device and its poller.
struct Model {
    ring: Ring<u64>,
    kind: Kind,
    registry: Arc<Registry<u64>>,
    index: Index<u64>,
    /// What is posted, in order: identifier, what was staged, and whether it is signaled.
    posted: VecDeque<(u64, u64, bool)>,
    /// What was staged and is not back.
    out: HashSet<u64>,
    ids: HashSet<u64>,
    next_value: u64,
}

impl Model {
    fn new(kind: Kind) -> Model {
        let (ring, registry) = (Ring::new(5, kind), Arc::new(Registry::default()));
        ring.table().register(&registry);
        Model {
            ring,
            kind,
            registry,
            index: Index::default(),
            posted: VecDeque::new(),
            out: HashSet::new(),
            ids: HashSet::new(),
            next_value: 1,
        }
    }

    fn is_ordered(&self) -> bool {
        self.kind == Kind::OrderedSends
    }

    /// Stages a value. Nothing is staged where there is no place.
    fn stage(&mut self, is_signaled: bool) -> Option<(u64, u64)> {
        let value = self.next_value;
        match self.ring.stage(value + 1000, is_signaled, value) {
            Ok(id) => {
                self.next_value += 1;
                assert!(self.ids.insert(id), "{id:#x} was used before");
                assert!(self.out.insert(value));
                Some((id, value))
            }
            Err(back) => {
                assert_eq!(back, value);
                assert!(self.out.len() >= if self.is_ordered() { 1 } else { self.ring.capacity() });
                None
            }
        }
    }

    fn post(&mut self, is_signaled: bool) {
        let is_signaled = is_signaled || self.ring.needs_signal();
        if let Some((id, value)) = self.stage(is_signaled) {
            self.posted.push_back((id, value, is_signaled));
        }
    }

    /// Stages some, of which the device takes the first.
    fn post_in_part(&mut self, random: &mut Random) {
        let staged: Vec<_> = (0..random.below(5)).map_while(|_| self.stage(true)).collect();
        let accepted = random.below(staged.len() + 1);
        let refused = &staged[accepted..];
        // SAFETY: the device has not taken them.
        let back = unsafe { self.ring.unstage(refused.iter().map(|(id, _)| *id)) };
        assert!(back.iter().copied().eq(refused.iter().map(|(_, value)| (value + 1000, *value))));
        for (_, value) in refused {
            assert!(self.out.remove(value));
        }
        self.posted.extend(staged[..accepted].iter().map(|&(id, value)| (id, value, true)));
    }

    /// Completes a request that is posted, if there is one, and polls it.
    fn complete(&mut self, random: &mut Random, forget: bool) {
        let place = match self.is_ordered() {
            // The first that is signaled: those before it are done as well.
            true => self.posted.iter().position(|posted| posted.2),
            false if self.posted.is_empty() => None,
            false => Some(random.below(self.posted.len())),
        };
        let Some(place) = place else { return };
        let (id, value, _) = self.posted[place];
        // Where the order counts, those before it are done as well; they may be handed out later.
        match self.kind {
            Kind::OrderedSends => drop(self.posted.drain(..=place)),
            _ => drop(self.posted.remove(place)),
        }
        if self.index.find(id).is_none() {
            self.index.extend(&self.registry);
        }
        let table = self.index.find(id).expect("a table has every identifier that is posted");
        // SAFETY: it has completed just now, and this is the one poller.
        let claimed = unsafe { table.claim(id) };
        assert_eq!(claimed, Some((value + 1000, value)));
        assert!(self.out.remove(&value));
        // SAFETY: as above.
        assert_eq!(unsafe { table.claim(id) }, None, "once");
        // SAFETY: as above.
        let mut earlier = unsafe { table.earlier(id) };
        if forget {
            return;
        }
        // SAFETY: as above.
        while let Some(value) = unsafe { earlier.next(table) } {
            assert!(self.out.remove(&value), "{value} came back twice");
            let is_posted = self.posted.iter().any(|posted| posted.1 == value);
            assert!(!is_posted, "{value} came back while the device has it");
        }
        // Nothing is left that is not with the device, of this completion or of one that was forgotten before.
        let posted: HashSet<u64> = self.posted.iter().map(|posted| posted.1).collect();
        assert_eq!(self.out, posted);
    }

    /// Resets the queue: the old table goes, with all that it has.
    fn reset(&mut self) {
        let old = std::mem::replace(&mut self.ring, Ring::new(5, self.kind)).into_table();
        old.registries().iter().for_each(|registry| self.ring.table().register(registry));
        old.close();
        self.index.refresh(&self.registry);
        for (id, ..) in self.posted.drain(..) {
            assert!(self.index.find(id).is_none());
        }
        let old = Arc::into_inner(old).expect("nobody else has it");
        let values = old.into_buffers();
        assert!(values.windows(2).all(|pair| pair[0] < pair[1]), "in their order: {values:?}");
        for value in values {
            assert!(self.out.remove(&value));
        }
        assert!(self.out.is_empty(), "lost: {:?}", self.out);
    }

    /// Goes close to the end of the block.
    fn jump(&mut self) {
        let place = self.ring.table.index(self.ring.next) as u64;
        let end = (block_of(self.ring.next) + 1) * NUMBERS;
        let next = end - 2 * self.ring.capacity() as u64 + place;
        self.ring.next = self.ring.next.max(next);
    }
}

#[test]
fn everything_that_is_posted_comes_back_once() {
    let seeds = if cfg!(miri) { 4 } else { 500 };
    for kind in [Kind::OrderedSends, Kind::Sends, Kind::Receives] {
        for seed in 1..=seeds {
            let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
            let mut model = Model::new(kind);
            for _ in 0..200 {
                match random.below(12) {
                    0..=3 => {
                        let is_signaled = kind != Kind::OrderedSends || random.below(3) == 0;
                        model.post(is_signaled);
                    }
                    4 | 5 => model.post_in_part(&mut random),
                    6..=8 => model.complete(&mut random, false),
                    9 => model.jump(),
                    10 => model.index.refresh(&model.registry),
                    _ if random.below(4) == 0 => model.reset(),
                    _ => model.complete(&mut random, true),
                }
            }
            model.reset();
        }
    }
}

#[test]
fn a_full_table_takes_as_many_as_it_has_places() {
    for kind in [Kind::OrderedSends, Kind::Sends, Kind::Receives] {
        let mut model = Model::new(kind);
        for _ in 0..8 {
            assert!(model.stage(true).is_some_and(|(id, value)| {
                model.posted.push_back((id, value, true));
                true
            }));
        }
        assert_eq!(model.stage(true), None);
        // The place of one that completes out of order is found.
        let mut random = Random(7);
        model.complete(&mut random, false);
        model.post(true);
        assert_eq!(model.out.len(), 8);
        model.reset();
    }
}

#[test]
fn an_identifier_is_compared_whole() {
    let mut model = Model::new(Kind::Receives);
    let (id, value) = model.stage(true).unwrap();
    let table = model.ring.table().clone();
    for wrong in [0, id + 8, id ^ (1 << 63), id ^ NUMBERS, id + 1] {
        // SAFETY: nothing is posted, so that nothing completes.
        assert_eq!(unsafe { table.claim(wrong) }, None, "{wrong:#x}");
    }
    // SAFETY: as above.
    assert_eq!(unsafe { table.claim(id) }, Some((value + 1000, value)));
    // SAFETY: as above.
    assert_eq!(unsafe { table.claim(id) }, None);
}

#[test]
fn a_table_is_found_by_each_block_that_is_in_use() {
    let mut model = Model::new(Kind::Sends);
    let mut blocks = BTreeMap::new();
    for _ in 0..6 {
        let (id, _) = model.stage(true).unwrap();
        blocks.insert(block_of(id), id);
        model.ring.next = model.ring.after(block_of(id) * NUMBERS + NUMBERS - 1, 1);
    }
    assert!(blocks.len() >= 6, "{blocks:x?}");
    model.index.refresh(&model.registry);
    assert!(blocks.values().all(|id| model.index.find(*id).is_some()));
    let others: Vec<_> = (0..20).map(|_| Ring::<u64>::new(1, Kind::Sends)).collect();
    others.iter().for_each(|ring| ring.table().register(&model.registry));
    model.index.refresh(&model.registry);
    for ring in &others {
        let found = model.index.find(ring.next).expect("it was registered");
        assert!(std::ptr::eq(found, &**ring.table()));
    }
    assert!(blocks.values().all(|id| model.index.find(*id).is_some()));
    others[0].table().close();
    model.index.refresh(&model.registry);
    assert!(model.index.find(others[0].next).is_none());
    model.reset();
}

#[test]
fn a_block_that_ends_does_not_go_on_in_that_of_another_table() {
    let mut rings: Vec<_> = (0..4).map(|_| Ring::<u64>::new(4, Kind::Sends)).collect();
    let mut ids = HashSet::new();
    for round in 0..3 {
        for ring in &mut rings {
            let block = block_of(ring.next);
            ring.next = block * NUMBERS + NUMBERS - 1;
            for value in 0..3 {
                let id = ring.stage(value, true, value).unwrap();
                assert!(ids.insert(id), "{id:#x} was used before, in round {round}");
                assert!(ring.table().registered().blocks.contains(&block_of(id)), "{id:#x}");
                // The next is in the same block, unless that has ended.
                assert!(value == 0 || block_of(ring.next) == block_of(id));
                // SAFETY: no device knows of it.
                assert!(unsafe { ring.table().claim(id) }.is_some());
            }
        }
    }
}

/// The device hands identifiers from the thread that posts to the one that polls; it orders nothing else.
#[test]
fn what_another_thread_posts_is_whole_when_it_is_claimed() {
    let rounds: u64 = if cfg!(miri) { 30 } else { 20_000 };
    let mut ring = Ring::new(4, Kind::Receives);
    let table = ring.table().clone();
    let device: [AtomicU64; 4] = Default::default();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for value in 0..rounds {
                let mut boxed = Box::new(value);
                let id = loop {
                    match ring.stage(value, true, boxed) {
                        Ok(id) => break id,
                        Err(back) => boxed = back,
                    }
                    thread::yield_now();
                };
                device[value as usize % 4].store(id, Ordering::Relaxed);
            }
            is_over.store(true, Ordering::Relaxed);
        });
        for value in 0..rounds {
            let place = &device[value as usize % 4];
            let (user, boxed) = loop {
                let id = place.load(Ordering::Relaxed);
                // SAFETY: this is the one poller, and the identifier is posted.
                match unsafe { table.claim(id) } {
                    Some(claimed) => break claimed,
                    None => thread::yield_now(),
                }
            };
            assert_eq!((user, *boxed), (value, value));
        }
    });
    assert!(is_over.load(Ordering::Relaxed));
}
