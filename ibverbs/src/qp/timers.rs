//! How long a reliable queue pair waits.

use std::fmt;
use std::time::Duration;

/// How long to wait for an acknowledgement before a packet is sent again: 4.096 µs × 2ⁿ.
///
/// Devices may wait up to four times as long. A dead peer is noticed after this time multiplied by the
/// number of retries.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AckTimeout(u8);

impl AckTimeout {
    /// Waits for ever.
    pub const INFINITE: AckTimeout = AckTimeout(0);

    /// About 67 ms: the default.
    pub const DEFAULT: AckTimeout = AckTimeout(14);

    const MAX_EXPONENT: u8 = 31;

    /// The shortest timeout that is at least this long. Beyond 8796 seconds that is
    /// [`INFINITE`](Self::INFINITE).
    pub const fn at_least(duration: Duration) -> AckTimeout {
        let mut exponent = 1;
        while exponent <= Self::MAX_EXPONENT {
            if exponent_time(exponent).as_nanos() >= duration.as_nanos() {
                return AckTimeout(exponent);
            }
            exponent += 1;
        }
        Self::INFINITE
    }

    /// The timeout of 4.096 µs × 2ⁿ; `n` is 0 for infinite and at most 31, else this is `None`.
    pub const fn from_exponent(n: u8) -> Option<AckTimeout> {
        if n <= Self::MAX_EXPONENT {
            Some(AckTimeout(n))
        } else {
            None
        }
    }

    /// The exponent, as verbs encode it.
    pub const fn exponent(self) -> u8 {
        self.0
    }

    /// How long it is; `None` if infinite.
    pub const fn duration(self) -> Option<Duration> {
        match self.0 {
            0 => None,
            exponent => Some(exponent_time(exponent)),
        }
    }
}

/// 4.096 µs × 2ⁿ, which is how the specification encodes times; `n` has five bits.
pub(crate) const fn exponent_time(n: u8) -> Duration {
    Duration::from_nanos(4096 << (n & 31))
}

impl Default for AckTimeout {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Debug for AckTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.duration() {
            None => f.write_str("AckTimeout(infinite)"),
            Some(duration) => write!(f, "AckTimeout({duration:?})"),
        }
    }
}

/// How long a peer that found no receive posted here should wait before it tries again.
///
/// There are 32 values, from 10 µs to 655.36 ms.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RnrTimer(u8);

/// The times in units of 10 µs, by code (InfiniBand Architecture Specification, volume 1, table 46).
const RNR_TIMES: [u32; 32] = [
    65536, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536,
    2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152,
];

impl RnrTimer {
    /// 0.64 ms: the default.
    pub const DEFAULT: RnrTimer = RnrTimer(12);

    /// 655.36 ms: the longest there is.
    pub const MAX: RnrTimer = RnrTimer(0);

    /// The shortest timer that is at least this long, or [`MAX`](Self::MAX) if none is.
    pub const fn at_least(duration: Duration) -> RnrTimer {
        let mut code = 1;
        while code < RNR_TIMES.len() {
            if RNR_TIMES[code] as u128 * 10_000 >= duration.as_nanos() {
                return RnrTimer(code as u8);
            }
            code += 1;
        }
        Self::MAX
    }

    /// The timer of this code, 0 to 31; else `None`.
    pub const fn from_code(code: u8) -> Option<RnrTimer> {
        if (code as usize) < RNR_TIMES.len() {
            Some(RnrTimer(code))
        } else {
            None
        }
    }

    /// The code, as verbs encode it.
    pub const fn code(self) -> u8 {
        self.0
    }

    /// How long it is.
    pub const fn duration(self) -> Duration {
        Duration::from_micros(RNR_TIMES[self.0 as usize] as u64 * 10)
    }
}

impl Default for RnrTimer {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Debug for RnrTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RnrTimer({:?})", self.duration())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ack_timeout_is_rounded_up() {
        assert_eq!(AckTimeout::at_least(Duration::ZERO).exponent(), 1);
        assert_eq!(AckTimeout::at_least(Duration::from_nanos(8192)).exponent(), 1);
        assert_eq!(AckTimeout::at_least(Duration::from_nanos(8193)).exponent(), 2);
        assert_eq!(AckTimeout::at_least(Duration::from_millis(67)).exponent(), 14);
        assert_eq!(AckTimeout::at_least(Duration::from_secs(8796)).exponent(), 31);
        assert_eq!(AckTimeout::at_least(Duration::from_secs(8797)), AckTimeout::INFINITE);
        assert_eq!(AckTimeout::at_least(Duration::MAX), AckTimeout::INFINITE);
    }

    #[test]
    fn an_ack_timeout_has_five_bits() {
        assert_eq!(AckTimeout::from_exponent(0), Some(AckTimeout::INFINITE));
        assert_eq!(AckTimeout::from_exponent(31).map(AckTimeout::exponent), Some(31));
        assert_eq!(AckTimeout::from_exponent(32), None);
        assert_eq!(AckTimeout::INFINITE.duration(), None);
        assert_eq!(AckTimeout::DEFAULT.duration(), Some(Duration::from_nanos(67_108_864)));
    }

    #[test]
    fn an_rnr_timer_is_rounded_up() {
        assert_eq!(RnrTimer::at_least(Duration::ZERO).code(), 1);
        assert_eq!(RnrTimer::at_least(Duration::from_micros(640)), RnrTimer::DEFAULT);
        assert_eq!(RnrTimer::at_least(Duration::from_micros(641)).code(), 13);
        assert_eq!(RnrTimer::at_least(Duration::from_micros(491_520)).code(), 31);
        assert_eq!(RnrTimer::at_least(Duration::from_micros(491_521)), RnrTimer::MAX);
        assert_eq!(RnrTimer::at_least(Duration::MAX), RnrTimer::MAX);
        assert_eq!(RnrTimer::MAX.duration(), Duration::from_micros(655_360));
    }

    #[test]
    fn an_rnr_timer_has_five_bits() {
        assert_eq!(RnrTimer::from_code(31).map(RnrTimer::code), Some(31));
        assert_eq!(RnrTimer::from_code(32), None);
    }
}
