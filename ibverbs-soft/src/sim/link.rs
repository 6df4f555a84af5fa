//! What a link does to packets.

use std::time::{Duration, Instant};

use super::rng::Rng;

/// What goes wrong on a link, in parts per thousand, and how long packets take.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// Packets that vanish.
    pub(crate) loss: u32,
    /// Packets that arrive twice.
    pub(crate) duplication: u32,
    /// Packets that are held back for a while, so that others overtake them.
    pub(crate) reordering: u32,
    /// Packets of which some bits change.
    pub(crate) corruption: u32,
    /// How long a packet travels.
    pub(crate) delay: Duration,
    /// How much longer at most, if it is held back.
    pub(crate) hold: Duration,
    /// How long the link takes for a byte.
    pub(crate) per_byte: Duration,
    /// How much can wait for the link: as long as it takes to send that.
    pub(crate) backlog: Duration,
    /// Whether senders wait for room, instead of losing what finds none.
    pub(crate) back_pressure: bool,
}

impl Faults {
    /// A link like this one on which nothing goes wrong.
    pub(crate) fn without_any(self) -> Faults {
        let (delay, per_byte) = (self.delay, self.per_byte);
        Faults { delay, per_byte, back_pressure: true, ..Faults::default() }
    }

    /// A link like this one on which nothing goes wrong more often, in parts per thousand.
    pub(crate) fn at_most(self, often: u32) -> Faults {
        Faults {
            loss: self.loss.min(often),
            duplication: self.duplication.min(often),
            reordering: self.reordering.min(often),
            corruption: self.corruption.min(often),
            ..self
        }
    }

    /// Whether nothing goes wrong.
    pub(crate) fn is_perfect(&self) -> bool {
        let often = self.loss + self.duplication + self.reordering + self.corruption;
        often == 0 && self.back_pressure
    }
}

/// One direction of a link.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) faults: Faults,
    /// When everything has been sent that waits.
    free_at: Instant,
}

/// When a copy of a packet arrives, and whether it is as it was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) at: Instant,
    pub(crate) corrupt: bool,
}

impl Link {
    pub(crate) fn new(now: Instant, faults: Faults) -> Link {
        Link { faults, free_at: now }
    }

    /// When the sender may go on, if it has to wait.
    pub(crate) fn blocked_until(&self, now: Instant) -> Option<Instant> {
        let room_at = self.free_at.checked_sub(self.faults.backlog)?;
        (self.faults.back_pressure && room_at > now).then_some(room_at)
    }

    /// Takes a packet of this many bytes. Returns when it arrives: never, once, or twice.
    pub(crate) fn send(&mut self, now: Instant, len: usize, rng: &mut Rng) -> Vec<Arrival> {
        let faults = self.faults;
        let start = self.free_at.max(now);
        if !faults.back_pressure && start - now > faults.backlog {
            return Vec::new();
        }
        self.free_at = start + faults.per_byte * len as u32;
        let copies = if rng.chance(faults.loss) {
            0
        } else if rng.chance(faults.duplication) {
            2
        } else {
            1
        };
        let mut arrivals = Vec::with_capacity(copies);
        for _ in 0..copies {
            let mut at = self.free_at + faults.delay;
            if rng.chance(faults.reordering) {
                at += Duration::from_nanos(rng.below(faults.hold.as_nanos() as u64 + 1));
            }
            arrivals.push(Arrival { at, corrupt: rng.chance(faults.corruption) });
        }
        arrivals
    }
}
