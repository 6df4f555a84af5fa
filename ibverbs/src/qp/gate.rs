//! Whether a batch can begin.

use super::limits::{Lacks, Limits};
use super::transport::SendOps;

/// What is looked at when a batch begins, in one number, so that it takes one instruction to look at it and to write down
/// that a batch is open. It is zero if nothing stands in the way and the queue pair lacks nothing of what is usual; and one
/// less while a batch is open, which may be forgotten.
#[derive(Clone, Copy)]
pub(super) struct Gate(u32);

impl Gate {
    /// These bits are set while a batch is open, but for the lowest ones if another batch has begun then.
    const OPEN: u32 = 0xFF;
    /// The queue pair lacks [short inline data](Lacks::short) of the greatest length that may have.
    const LACKS_SHORT: u32 = 1 << 8;
    /// It lacks an operation that is usual, or a scatter entry.
    const LACKS_USUAL: u32 = 1 << 9;
    /// `QpInner` knows why there is to be no batch.
    const OBSTACLE: u32 = 1 << 10;

    /// That of a queue pair on which no batch is open, if nothing stands in the way.
    pub(super) fn new(limits: &Limits, usual: SendOps) -> Gate {
        let lacks = |asked| limits.lacks.include(asked);
        let short = if lacks(Lacks::short(Lacks::MAX_SHORT)) { Self::LACKS_SHORT } else { 0 };
        let usual = Lacks::of(usual).and(Lacks::ENTRY);
        Gate(if lacks(usual) { short | Self::LACKS_USUAL } else { short })
    }

    /// The same, if something may stand in the way.
    #[inline]
    pub(super) fn with_obstacle(self, there_is: bool) -> Gate {
        if there_is {
            Gate(self.0 | Self::OBSTACLE)
        } else {
            self
        }
    }

    /// That of a queue pair on which a batch is open, from that of one on which none is.
    #[inline]
    pub(super) fn entered(self) -> Gate {
        Gate(self.0.wrapping_sub(1))
    }

    /// Begins a batch. Returns whether nothing stands in the way, and nothing is lacking.
    #[inline(always)]
    pub(super) fn enter(&mut self) -> bool {
        let was_zero;
        (self.0, was_zero) = self.0.overflowing_sub(1);
        was_zero
    }

    /// What the gate was before a batch was [begun](Self::enter).
    #[inline(always)]
    pub(super) fn before(&self) -> Gate {
        Gate(self.now().0.wrapping_add(1))
    }

    /// Ends a batch. It is written as if it were a device's, or the compiler would keep what it was in a register meanwhile.
    #[inline(always)]
    pub(super) fn leave(&mut self) {
        let entered = &raw mut self.0;
        // SAFETY: it is a field of this.
        let value = unsafe { entered.read_volatile() };
        // SAFETY: as above.
        unsafe { entered.write_volatile(value.wrapping_add(1)) }
    }

    /// The same number. It is read again, so that it need not be loaded where nobody asks.
    #[inline(always)]
    pub(super) fn now(&self) -> Gate {
        let gate = &raw const self.0;
        // SAFETY: it is a field of this.
        Gate(unsafe { gate.read_volatile() })
    }

    /// Whether no batch is open, and nothing stands in the way of the next one.
    #[inline(always)]
    pub(super) fn is_free(self) -> bool {
        self.0 & (Self::OPEN | Self::OBSTACLE) == 0
    }

    /// Whether it is free, and lacks nothing.
    #[inline(always)]
    pub(super) fn is_clear(self) -> bool {
        self.0 == 0
    }

    /// Whether the queue pair lacks something that is usual, if it is free.
    #[inline]
    pub(super) fn lacks_usual(self) -> bool {
        self.0 & Self::LACKS_USUAL != 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::QueuePairCapacity;
    use super::*;

    fn gate(ops: SendOps, max_send_sge: u32, max_inline_data: u32) -> Gate {
        let granted = QueuePairCapacity {
            max_send_wr: 1,
            max_recv_wr: 0,
            max_send_sge,
            max_recv_sge: 0,
            max_inline_data,
        };
        Gate::new(&Limits::new(ops, granted), SendOps::SENDS)
    }

    #[test]
    fn a_batch_that_was_forgotten_is_noticed_whatever_the_queue_pair_lacks() {
        for (ops, entries, inline) in [
            (SendOps::SENDS, 1, 64),
            (SendOps::SENDS, 1, 63),
            (SendOps::SENDS, 0, 64),
            (SendOps::SEND, 1, 0),
        ] {
            let mut gate = gate(ops, entries, inline);
            let lacks_usual = entries == 0 || ops != SendOps::SENDS;
            assert!(gate.is_free() && gate.lacks_usual() == lacks_usual);
            for _ in 0..3 {
                assert_eq!(gate.enter(), !lacks_usual && inline == 64);
                assert!(gate.before().is_free() && gate.before().lacks_usual() == lacks_usual);
                assert!(!gate.is_free());
                gate.leave();
                assert!(gate.is_free() && gate.lacks_usual() == lacks_usual);
            }
            gate.enter();
            assert!(!gate.enter() && !gate.before().is_free());
        }
    }

    #[test]
    fn no_batch_begins_at_once_if_something_stands_in_the_way() {
        let free = gate(SendOps::SENDS, 1, 64);
        let mut gate = free.with_obstacle(true);
        assert!(!gate.is_free() && !gate.enter() && !gate.before().is_free());
        gate = free.with_obstacle(true).entered();
        gate.leave();
        assert!(!gate.is_free());
    }
}
