//! Times that attributes and syndromes encode.

use std::time::Duration;

/// No acknowledgement is missed in less: it may wait for more to acknowledge, for the peer's clock to tick, and for the peer's
/// turn on the processor.
const LEAST_TIMEOUT: Duration = Duration::from_millis(4);

/// How long an acknowledgement is waited for; not at all for 0.
pub(super) fn ack_timeout(encoded: u8) -> Option<Duration> {
    let nanos = 4096_u64 << (encoded & 0x1f);
    (encoded & 0x1f != 0).then(|| Duration::from_nanos(nanos).max(LEAST_TIMEOUT))
}

/// How long a receiver that is not ready asks to wait (table 45), in units of 10 us.
const RNR_TIMES: [u32; 32] = [
    65536, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536,
    2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152,
];

/// How long a receiver that is not ready asks to wait.
pub(in crate::transport) fn rnr_delay(encoded: u8) -> Duration {
    Duration::from_micros(10) * RNR_TIMES[usize::from(encoded & 0x1f)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_tables() {
        assert_eq!(ack_timeout(0), None);
        assert_eq!(ack_timeout(1), Some(LEAST_TIMEOUT));
        assert_eq!(ack_timeout(14), Some(Duration::from_nanos(67_108_864)));
        assert_eq!(ack_timeout(31), Some(Duration::from_nanos(4096 << 31)));
        assert_eq!(rnr_delay(0), Duration::from_micros(655_360));
        assert_eq!(rnr_delay(1), Duration::from_micros(10));
        assert_eq!(rnr_delay(31), Duration::from_micros(491_520));
        // Every second one from 3 on is the double of the one two before it.
        for encoded in 4..31 {
            assert_eq!(rnr_delay(encoded + 1), rnr_delay(encoded - 1) * 2, "{encoded}");
        }
    }
}
