//! What a link does to packets, as a seed decides.

use std::io;
use std::time::Duration;

use crate::random::Random;

/// What goes wrong on the link between a device and the network. [`Link::new`] is one on which nothing does.
///
/// It is for each packet that the device sends, and each that it receives from another one; a packet to itself passes
/// once. A probability is from 0 (never) to 1 (always).
///
/// Decisions come from the seed: what becomes of the *n*th packet that is sent since the link was set, or received, is the
/// same for the same seed, whatever the packet is. Which packet is the *n*th is up to the program, and to time: acknowledgements
/// are counted, too, and so is what is sent once more.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Link {
    loss: f64,
    duplication: f64,
    corruption: f64,
    reordering: f64,
    hold: Duration,
    delay: Duration,
    seed: u64,
}

impl Link {
    /// How long a packet can be delayed, and how long held back besides.
    pub const MAX_DELAY: Duration = Duration::from_secs(60);

    /// How many packets can be on the way because they are delayed; more are lost.
    pub const MAX_DELAYED: usize = 1 << 16;

    /// A link on which nothing goes wrong, with the seed 0.
    pub fn new() -> Link {
        Link::default()
    }

    /// How probable it is that a packet is lost.
    pub fn set_loss(mut self, probability: f64) -> Link {
        self.loss = probability;
        self
    }

    /// How probable it is that a packet that is not lost arrives twice.
    pub fn set_duplication(mut self, probability: f64) -> Link {
        self.duplication = probability;
        self
    }

    /// How probable it is that some bits of a packet change. The packet's CRC tells: whoever receives it drops it.
    pub fn set_corruption(mut self, probability: f64) -> Link {
        self.corruption = probability;
        self
    }

    /// How probable it is that a packet is held back, and for how long at most, so that others overtake it. Up to
    /// [`MAX_DELAY`](Self::MAX_DELAY).
    pub fn set_reordering(mut self, probability: f64, hold: Duration) -> Link {
        self.reordering = probability;
        self.hold = hold;
        self
    }

    /// How long each packet takes, in addition to what it takes without this. Up to [`MAX_DELAY`](Self::MAX_DELAY). Shorter
    /// times than some ten microseconds are not kept exactly.
    pub fn set_delay(mut self, delay: Duration) -> Link {
        self.delay = delay;
        self
    }

    /// What the decisions come from.
    pub fn set_seed(mut self, seed: u64) -> Link {
        self.seed = seed;
        self
    }

    /// Whether nothing goes wrong.
    pub fn is_perfect(&self) -> bool {
        Link { seed: 0, ..*self } == Link::new()
    }

    /// Whether the values are possible.
    ///
    /// # Errors
    ///
    /// `InvalidInput`, with the value that is not.
    pub fn check(&self) -> io::Result<()> {
        let invalid = |message| Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        for (what, value) in [
            ("loss", self.loss),
            ("duplication", self.duplication),
            ("corruption", self.corruption),
            ("reordering", self.reordering),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return invalid(format!(
                    "the probability of {what} is {value}, but it can be from 0 to 1"
                ));
            }
        }
        let max = Link::MAX_DELAY;
        for (what, value) in [("delay", self.delay), ("hold", self.hold)] {
            if value > max {
                return invalid(format!("the {what} is {value:?}, but it can be up to {max:?}"));
            }
        }
        Ok(())
    }
}

/// What a link has done to packets.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounts {
    /// Packets that were lost.
    pub lost: u64,
    /// Packets that arrived twice.
    pub duplicated: u64,
    /// Packets, or copies of them, of which some bits have changed.
    pub corrupted: u64,
    /// Packets, or copies of them, that were held back.
    pub held: u64,
}

/// What becomes of a packet, or of a copy of it, that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// How much later than without the link.
    pub(crate) delay: Duration,
    /// What decides which bits change, if any do.
    pub(crate) corruption: Option<u64>,
}

/// The decisions about the packets in one direction.
#[derive(Clone, Debug)]
pub(crate) struct Decisions {
    link: Link,
    random: Random,
}

impl Decisions {
    /// Those of direction 0 have nothing to do with those of direction 1.
    pub(crate) fn new(link: Link, direction: u64) -> Decisions {
        let mut seeds = Random::from_seed(link.seed);
        let seed = (0..=direction).fold(0, |_, _| seeds.next());
        Decisions { link, random: Random::from_seed(seed) }
    }

    /// What becomes of the next packet: it arrives not at all, once, or twice. As many numbers are drawn for each packet, so that
    /// what is decided about one does not depend on what was about others.
    pub(crate) fn next(&mut self, counts: &mut LinkCounts) -> [Option<Arrival>; 2] {
        let link = self.link;
        let mut draw = || self.random.next();
        let (lost, doubled) = (draw(), draw());
        let [one, other] = [(); 2].map(|()| [(); 4].map(|()| draw()));
        let is_lost = happens(lost, link.loss);
        let is_doubled = !is_lost && happens(doubled, link.duplication);
        counts.lost += u64::from(is_lost);
        counts.duplicated += u64::from(is_doubled);
        let mut arrival = |[held, hold, corrupt, bits]: [u64; 4]| {
            let is_held = happens(held, link.reordering);
            let is_corrupt = happens(corrupt, link.corruption);
            counts.held += u64::from(is_held);
            counts.corrupted += u64::from(is_corrupt);
            let hold = if is_held { link.hold.mul_f64(fraction(hold)) } else { Duration::ZERO };
            Arrival { delay: link.delay + hold, corruption: is_corrupt.then_some(bits) }
        };
        [(!is_lost).then(|| arrival(one)), is_doubled.then(|| arrival(other))]
    }
}

/// A number from 0 up to 1, which it is not.
fn fraction(draw: u64) -> f64 {
    const BITS: u32 = f64::MANTISSA_DIGITS;
    (draw >> (u64::BITS - BITS)) as f64 / (1_u64 << BITS) as f64
}

fn happens(draw: u64, probability: f64) -> bool {
    fraction(draw) < probability
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(link: Link, direction: u64) -> (Vec<[Option<Arrival>; 2]>, LinkCounts) {
        let mut decisions = Decisions::new(link, direction);
        let mut counts = LinkCounts::default();
        ((0..10_000).map(|_| decisions.next(&mut counts)).collect(), counts)
    }

    fn bad(seed: u64) -> Link {
        Link::new()
            .set_loss(0.1)
            .set_duplication(0.2)
            .set_corruption(0.3)
            .set_reordering(0.4, Duration::from_millis(3))
            .set_delay(Duration::from_millis(2))
            .set_seed(seed)
    }

    #[test]
    fn decisions_come_from_the_seed_and_the_direction() {
        assert!(fates(bad(7), 0) == fates(bad(7), 0));
        assert!(fates(bad(7), 0) != fates(bad(8), 0));
        assert!(fates(bad(7), 0) != fates(bad(7), 1));
    }

    #[test]
    fn what_is_lost_does_not_depend_on_what_else_goes_wrong() {
        let lost = |link| fates(link, 0).0.iter().map(|fate| fate[0].is_none()).collect::<Vec<_>>();
        assert!(lost(bad(7)) == lost(Link::new().set_loss(0.1).set_seed(7)));
    }

    #[test]
    fn it_happens_as_often_as_is_said() {
        let (fates, counts) = fates(bad(3), 0);
        let near =
            |count: u64, expected: u64| assert!(count.abs_diff(expected) < 200, "{counts:?}");
        near(counts.lost, 1000);
        near(counts.duplicated, 1800);
        near(counts.corrupted, (9000 + 1800) * 3 / 10);
        near(counts.held, (9000 + 1800) * 4 / 10);
        let arrivals: Vec<Arrival> = fates.iter().flatten().flatten().copied().collect();
        assert_eq!(arrivals.len() as u64, 10_000 - counts.lost + counts.duplicated);
        let (least, most) = (Duration::from_millis(2), Duration::from_millis(5));
        assert!(arrivals.iter().all(|arrival| (least..most).contains(&arrival.delay)));
    }

    #[test]
    fn never_and_always_are_possible() {
        let (all, counts) = fates(Link::new(), 0);
        let whole = Arrival { delay: Duration::ZERO, corruption: None };
        assert!(all.iter().all(|fate| *fate == [Some(whole), None]));
        assert_eq!(counts, LinkCounts::default());
        assert!(fates(Link::new().set_loss(1.0), 0).0.iter().all(|fate| *fate == [None; 2]));
        let doubled = fates(Link::new().set_duplication(1.0), 0).0;
        assert!(doubled.iter().all(|fate| *fate == [Some(whole); 2]));
    }

    #[test]
    fn what_is_not_possible_is_told() {
        assert!(bad(1).check().is_ok() && !bad(1).is_perfect());
        assert!(Link::new().set_seed(9).is_perfect());
        let second = Duration::from_secs(1);
        for (link, word) in [
            (Link::new().set_loss(-0.1), "loss"),
            (Link::new().set_duplication(1.1), "duplication"),
            (Link::new().set_corruption(f64::NAN), "corruption"),
            (Link::new().set_reordering(f64::INFINITY, second), "reordering"),
            (Link::new().set_reordering(0.5, Link::MAX_DELAY + second), "hold"),
            (Link::new().set_delay(Duration::MAX), "delay"),
        ] {
            let error = link.check().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
