//! Tables with a model of a device: what was staged comes out once, under its own identifier, and never while it is posted.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread;

use super::super::registry::{Index, Registry};
use super::{block_of, Kind, Places, Position, Ring, Run, NUMBERS, STEP};

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

/// Stages a value where the ring has come to, as a batch does. Returns its identifier, and the position behind it.
fn stage<B>(
    ring: &mut Ring<B>,
    at: Position,
    is_signaled: bool,
    user: u64,
    value: B,
) -> Result<(u64, Position), B> {
    let Some(at) = ring.vacancy(at) else { return Err(value) };
    // SAFETY: it is the vacancy of the ring.
    Ok((at.next, unsafe { ring.places().fill(at, is_signaled, user, value) }))
}

/// What a poller does with a completion: the number, and the rest of the run when its own value was taken.
///
/// # Safety
///
/// That of `find`.
unsafe fn claim<B>(places: Places<B>, id: u64) -> Option<(u64, B, Run)> {
    // SAFETY: passed on to the caller.
    let (user, mut run) = unsafe { places.find(id) }?;
    // SAFETY: it was found just now.
    let value = unsafe { run.take(places) }.expect("its own is there");
    Some((user, value, run))
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

    /// Stages a value at this position. Nothing is staged where there is no place.
    fn stage(&mut self, at: Position, is_signaled: bool) -> Option<(u64, u64, Position)> {
        let value = self.next_value;
        match stage(&mut self.ring, at, is_signaled, value + 1000, value) {
            Ok((id, behind)) => {
                self.next_value += 1;
                assert!(self.ids.insert(id), "{id:#x} was used before");
                assert!(self.out.insert(value));
                Some((id, value, behind))
            }
            Err(back) => {
                assert_eq!(back, value);
                assert!(self.out.len() >= if self.is_ordered() { 1 } else { self.ring.capacity() });
                None
            }
        }
    }

    /// Whether a request at this position must be signaled.
    fn needs_signal(&self, at: Position) -> bool {
        self.ring.limit(at, 1) <= at.next && at.next < self.ring.block_end()
    }

    fn post(&mut self, is_signaled: bool) -> Option<u64> {
        let at = self.ring.position();
        let is_signaled = is_signaled || self.needs_signal(at);
        let (id, value, behind) = self.stage(at, is_signaled)?;
        self.ring.go_on(behind);
        self.posted.push_back((id, value, is_signaled));
        Some(id)
    }

    /// Stages some as a batch, of which the device takes the first; or which is given up, or forgotten.
    fn post_in_part(&mut self, random: &mut Random) {
        let mut at = self.ring.position();
        let mut staged = Vec::new();
        self.ring.set_open(true);
        for _ in 0..random.below(5) {
            let is_signaled = !self.is_ordered() || self.needs_signal(at) || random.below(2) == 0;
            let Some((id, value, behind)) = self.stage(at, is_signaled) else { break };
            staged.push((id, value, is_signaled));
            at = behind;
        }
        let submit = random.below(3);
        let accepted = if submit == 0 { random.below(staged.len() + 1) } else { 0 };
        let refused = &staged[accepted..];
        let back = match submit {
            0 => {
                self.ring.set_open(false);
                self.ring.go_on(at);
                match refused.first() {
                    // SAFETY: the device has not taken them.
                    Some((id, ..)) => unsafe { self.ring.unstage_from(*id) },
                    None => Vec::new(),
                }
            }
            // SAFETY: the device was not told of them.
            1 => unsafe { self.ring.unstage(Some(at.next)) },
            // SAFETY: as above.
            _ => unsafe { self.ring.unstage(None) },
        };
        assert!(!self.ring.is_open());
        assert!(back
            .iter()
            .copied()
            .eq(refused.iter().map(|(_, value, _)| (value + 1000, *value))));
        for (_, value, _) in refused {
            assert!(self.out.remove(value));
        }
        self.posted.extend(&staged[..accepted]);
    }

    /// Completes a request that is posted, if there is one, and polls it.
    fn complete(&mut self, random: &mut Random) {
        let place = match self.is_ordered() {
            // The first that is signaled: those before it are done as well. Or one that fails, which need not be.
            true if random.below(4) > 0 => self.posted.iter().position(|posted| posted.2),
            true => self.posted.iter().position(|posted| posted.2 || random.below(3) == 0),
            false if self.posted.is_empty() => None,
            false => Some(random.below(self.posted.len())),
        };
        let Some(place) = place else { return };
        let (id, value, _) = self.posted[place];
        match self.kind {
            Kind::OrderedSends => drop(self.posted.drain(..=place)),
            _ => drop(self.posted.remove(place)),
        }
        let places = self.index.look_up(&self.registry, id);
        let places = places.expect("a table has every identifier that is posted");
        // SAFETY: it has completed just now, and this is the one poller.
        let (user, claimed, mut run) = unsafe { claim(places, id) }.expect("it is posted");
        assert_eq!((user, claimed), (value + 1000, value));
        assert!(self.out.remove(&value));
        // SAFETY: as above.
        while let Some(value) = unsafe { run.take(places) } {
            assert!(self.out.remove(&value), "{value} came back twice");
            let is_posted = self.posted.iter().any(|posted| posted.1 == value);
            assert!(!is_posted, "{value} came back while the device has it");
        }
        // SAFETY: as above.
        assert!(unsafe { places.find(id) }.is_none(), "once");
        // Nothing is left that is not with the device.
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
        let at = self.ring.position();
        let round = self.ring.capacity() as u64 * STEP;
        let end = (block_of(at.next) + 1) * NUMBERS;
        if at.next < self.ring.block_end() && at.next < end - 2 * round {
            let jump = end - 2 * round - at.next / round * round;
            self.ring.go_on(Position { next: at.next + jump, run: at.run + jump });
        }
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
                    6..=8 => model.complete(&mut random),
                    9 => model.jump(),
                    10 => model.index.refresh(&model.registry),
                    _ if random.below(4) == 0 => model.reset(),
                    _ => model.complete(&mut random),
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
            assert!(model.post(true).is_some());
        }
        assert_eq!(model.post(true), None);
        // The place of one that completes out of order is found.
        let mut random = Random(7);
        model.complete(&mut random);
        assert!(model.post(true).is_some());
        assert_eq!(model.out.len(), 8);
        model.reset();
    }
}

#[test]
fn an_identifier_is_compared_whole() {
    let mut model = Model::new(Kind::Receives);
    let id = model.post(true).unwrap();
    let places = model.ring.places();
    let round = model.ring.capacity() as u64 * STEP;
    for wrong in [0, 1, id + round, id - round, id ^ (1 << 63), id ^ NUMBERS, id + 1, id + STEP] {
        // SAFETY: nothing is found, so that nothing need have completed.
        assert!(unsafe { places.find(wrong) }.is_none(), "{wrong:#x}");
    }
    // SAFETY: it completes, and this is the poller.
    assert!(unsafe { claim(places, id) }.is_some_and(|(user, value, _)| user == value + 1000));
    // SAFETY: as above.
    assert!(unsafe { places.find(id) }.is_none());
}

#[test]
fn a_table_is_found_by_each_block_that_is_in_use() {
    let mut model = Model::new(Kind::Sends);
    let mut blocks = BTreeMap::new();
    for _ in 0..6 {
        let id = model.post(true).unwrap();
        blocks.insert(block_of(id), id);
        model.jump();
        let end = model.ring.block_end();
        model.ring.go_on(Position { next: end, run: end });
    }
    assert!(blocks.len() >= 6, "{blocks:x?}");
    model.index.refresh(&model.registry);
    assert!(blocks.values().all(|id| model.index.find(*id).is_some()));
    let others: Vec<_> = (0..20).map(|_| Ring::<u64>::new(1, Kind::Sends)).collect();
    others.iter().for_each(|ring| ring.table().register(&model.registry));
    model.index.refresh(&model.registry);
    for ring in &others {
        let found = model.index.find(ring.position().next).expect("it was registered");
        assert!(std::ptr::eq(found, &**ring.table()));
    }
    assert!(blocks.values().all(|id| model.index.find(*id).is_some()));
    others[0].table().close();
    model.index.refresh(&model.registry);
    assert!(model.index.find(others[0].position().next).is_none());
    model.reset();
}

#[test]
fn a_block_that_ends_does_not_go_on_in_that_of_another_table() {
    let mut rings: Vec<_> = (0..4).map(|_| Ring::<u64>::new(4, Kind::Sends)).collect();
    let mut ids = HashSet::new();
    for round in 0..3 {
        for ring in &mut rings {
            let last = ring.block_end() - STEP;
            ring.go_on(Position { next: last, run: last });
            for value in 0..3 {
                let at = ring.position();
                let (id, behind) = stage(ring, at, true, value, value).unwrap();
                ring.go_on(behind);
                assert!(ids.insert(id), "{id:#x} was used before, in round {round}");
                assert!(ring.table().registered().blocks.contains(&block_of(id)), "{id:#x}");
                // SAFETY: no device knows of it.
                assert!(unsafe { claim(ring.places(), id) }.is_some());
            }
        }
    }
}

#[test]
fn a_queue_that_is_full_at_the_end_of_a_block_goes_on_in_another() {
    for kind in [Kind::OrderedSends, Kind::Sends, Kind::Receives] {
        let (mut model, mut random) = (Model::new(kind), Random(7));
        // So the block behind the model's is not the model's.
        let other = Ring::<u64>::new(1, kind);
        model.jump();
        let end = model.ring.block_end();
        while model.ring.position().next != end {
            if model.post(true).is_none() {
                model.complete(&mut random);
            }
        }
        while model.post(true).is_some() {}
        assert_eq!(model.posted.len(), model.ring.capacity());
        // Nor does a batch go on beyond it.
        let at = model.ring.position();
        assert!(model.ring.limit(at, 1000) <= model.ring.block_end());
        for _ in 0..2 * model.ring.capacity() {
            assert_eq!(model.post(true), None);
            model.complete(&mut random);
            let id = model.post(true).expect("there is a place");
            assert_ne!(block_of(id), block_of(end));
        }
        drop(other);
        model.reset();
    }
}

/// The device hands identifiers from the thread that posts to the one that polls; it orders nothing else.
#[test]
fn what_another_thread_posts_is_whole_when_it_is_claimed() {
    let rounds: u64 = if cfg!(miri) { 30 } else { 20_000 };
    let mut ring = Ring::new(4, Kind::Receives);
    let table = ring.table().clone();
    let places = table.places();
    let device: [AtomicU64; 4] = Default::default();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for value in 0..rounds {
                let mut boxed = Box::new(value);
                let id = loop {
                    let at = ring.position();
                    match stage(&mut ring, at, true, value, boxed) {
                        Ok((id, behind)) => {
                            ring.go_on(behind);
                            break id;
                        }
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
                match unsafe { claim(places, id) } {
                    Some((user, boxed, _)) => break (user, boxed),
                    None => thread::yield_now(),
                }
            };
            assert_eq!((user, *boxed), (value, value));
        }
    });
    assert!(is_over.load(Ordering::Relaxed));
}
