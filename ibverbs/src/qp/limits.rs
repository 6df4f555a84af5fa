//! What can be posted to a queue pair.

use super::transport::SendOps;
use super::QueuePairCapacity;
use crate::post::Refusal;

/// What can be posted.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(super) lacks: Lacks,
    pub(crate) granted: QueuePairCapacity,
}

/// What operations ask for and a queue pair does not have: [`SendOps`], [`ENTRY`](Lacks::ENTRY), and
/// [what is inline](Lacks::short). Bits that must not be set are looked for together, by one instruction where they are.
/// (Half as long as `SendOps`, for errors in which a queue pair is handed back.)
#[derive(Clone, Copy)]
pub(crate) struct Lacks(u32);

impl Lacks {
    pub(crate) const NOTHING: Lacks = Lacks(0);
    pub(crate) const EVERYTHING: Lacks = Lacks(u32::MAX);
    /// A scatter entry.
    pub(crate) const ENTRY: Lacks = Lacks(1 << 31);
    /// The longest of the lengths of inline data, all of them powers of two, that a bit tells of.
    pub(crate) const MAX_SHORT: usize = 1 << (Self::MIN_SHORT_LOG2 + 3);
    const MIN_SHORT_LOG2: u32 = 3;
    /// The bit of the shortest.
    const SHORT: u32 = 1 << 27;

    pub(crate) const fn of(ops: SendOps) -> Lacks {
        Lacks(ops.bits() as u32)
    }

    /// Room for so many bytes inline, no more than [`MAX_SHORT`](Self::MAX_SHORT), or some more than that.
    #[inline]
    pub(crate) const fn short(bytes: usize) -> Lacks {
        let log2 = bytes.next_power_of_two().trailing_zeros();
        Lacks(Self::SHORT << log2.saturating_sub(Self::MIN_SHORT_LOG2))
    }

    #[inline]
    pub(crate) const fn and(self, other: Lacks) -> Lacks {
        Lacks(self.0 | other.0)
    }

    #[inline]
    pub(crate) const fn include(self, asked: Lacks) -> bool {
        self.0 & asked.0 != 0
    }
}

/// What a payload takes.
#[derive(Clone, Copy)]
pub(crate) enum Demand {
    /// So many scatter entries.
    Entries(usize),
    /// So many bytes inline.
    Bytes(usize),
    /// The same, if it is no more than [`Lacks::MAX_SHORT`] and the compiler knows it.
    Short(usize),
}

impl Demand {
    pub(crate) const NOTHING: Demand = Demand::Entries(0);

    /// What it asks for that there is a bit for.
    #[inline(always)]
    pub(super) fn asked(self) -> Lacks {
        match self {
            Demand::Entries(1) => Lacks::ENTRY,
            Demand::Short(bytes) => Lacks::short(bytes),
            _ => Lacks::NOTHING,
        }
    }

    #[inline(always)]
    pub(super) fn is_short(self) -> bool {
        matches!(self, Demand::Short(_))
    }

    /// Whether it is more than was granted, if no bit tells that.
    #[inline(always)]
    pub(super) fn is_beyond(self, granted: &QueuePairCapacity) -> bool {
        match self {
            Demand::Entries(1) | Demand::Short(_) => false,
            Demand::Entries(entries) => entries > granted.max_send_sge as usize,
            Demand::Bytes(bytes) => bytes > granted.max_inline_data as usize,
        }
    }

    #[inline(always)]
    pub(super) fn entries(self) -> usize {
        match self {
            Demand::Entries(entries) => entries,
            Demand::Bytes(_) | Demand::Short(_) => 0,
        }
    }

    #[inline(always)]
    pub(super) fn bytes(self) -> usize {
        match self {
            Demand::Entries(_) => 0,
            Demand::Bytes(bytes) | Demand::Short(bytes) => bytes,
        }
    }
}

const _: () = assert!(SendOps::all().bits() < Lacks::SHORT as u64);

impl Limits {
    /// What a queue pair that was built for these operations and granted this can post.
    pub(super) fn new(ops: SendOps, granted: QueuePairCapacity) -> Limits {
        // Without a send queue there is nothing to post to, and providers do not check.
        let ops = if granted.max_send_wr > 0 { ops } else { SendOps::empty() };
        let mut lacks = Lacks::of(SendOps::all().difference(ops));
        if granted.max_send_sge == 0 {
            lacks = lacks.and(Lacks::ENTRY);
        }
        let mut bytes = Lacks::MAX_SHORT;
        while bytes >> Lacks::MIN_SHORT_LOG2 > 0 {
            if (granted.max_inline_data as usize) < bytes {
                lacks = lacks.and(Lacks::short(bytes));
            }
            bytes /= 2;
        }
        Limits { lacks, granted }
    }

    /// Those of a queue pair that cannot post anything.
    pub(super) fn nothing() -> Limits {
        let granted = QueuePairCapacity {
            max_send_wr: 0,
            max_recv_wr: 0,
            max_send_sge: 0,
            max_recv_sge: 0,
            max_inline_data: 0,
        };
        Limits { lacks: Lacks::EVERYTHING, granted }
    }

    pub(crate) fn ops(&self) -> SendOps {
        SendOps::all().difference(SendOps::from_bits_retain(self.lacks.0.into()))
    }

    /// Whether an operation of `op` can be posted.
    #[inline]
    pub(crate) fn check(&self, op: SendOps) -> Result<(), Refusal> {
        if self.lacks.include(Lacks::of(op)) {
            Err(Refusal::NotGranted(op))
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_that_a_bit_allows_was_granted() {
        for max_inline_data in 0..1100 {
            let granted = QueuePairCapacity {
                max_send_wr: 1,
                max_recv_wr: 0,
                max_send_sge: 0,
                max_recv_sge: 0,
                max_inline_data,
            };
            let limits = Limits::new(SendOps::SEND, granted);
            for bytes in 0..=Lacks::MAX_SHORT {
                let lacks = limits.lacks.include(Lacks::short(bytes));
                assert!(lacks || bytes <= max_inline_data as usize, "{bytes}, {max_inline_data}");
                // What is a power of two is told exactly.
                let exact = bytes.is_power_of_two() && bytes >= 8;
                assert!(!exact || lacks == (bytes > max_inline_data as usize));
            }
        }
    }

    #[test]
    fn what_is_asked_for_is_looked_for_in_what_is_lacking() {
        let granted = QueuePairCapacity {
            max_send_wr: 1,
            max_recv_wr: 0,
            max_send_sge: 0,
            max_recv_sge: 0,
            max_inline_data: 0,
        };
        let limits = Limits::new(SendOps::SEND, granted);
        assert_eq!(limits.ops(), SendOps::SEND);
        assert!(limits.lacks.include(Lacks::ENTRY));
        for op in SendOps::all() {
            assert_eq!(limits.lacks.include(Lacks::of(op)), op != SendOps::SEND);
            assert_eq!(limits.check(op).is_ok(), op == SendOps::SEND);
        }
        let none = Limits::new(SendOps::SEND, QueuePairCapacity { max_send_wr: 0, ..granted });
        assert_eq!(none.ops(), SendOps::empty());
        let one = Limits::new(SendOps::SEND, QueuePairCapacity { max_send_sge: 1, ..granted });
        assert!(!one.lacks.include(Lacks::ENTRY));
    }
}
