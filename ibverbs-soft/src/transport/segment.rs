//! How a message is cut into packets.

use crate::wire::Position;

/// The longest message.
pub(super) const MAX_MESSAGE: u64 = 1 << 31;

/// How many packets carry `len` bytes: a message of none takes one.
pub(super) fn packets(len: u64, mtu: u32) -> u64 {
    len.div_ceil(u64::from(mtu)).max(1)
}

/// Where the packet with this index stands among `count`.
pub(super) fn position(index: u64, count: u64) -> Position {
    match (index == 0, index + 1 >= count) {
        (true, true) => Position::Only,
        (true, false) => Position::First,
        (false, true) => Position::Last,
        (false, false) => Position::Middle,
    }
}

/// The offset and the length of what the packet with this index carries of `len` bytes.
pub(super) fn part(index: u64, len: u64, mtu: u32) -> (u64, usize) {
    let offset = index * u64::from(mtu);
    (offset, len.saturating_sub(offset).min(u64::from(mtu)) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_cut_at_multiples_of_the_mtu() {
        for (len, count) in [(0, 1), (1, 1), (256, 1), (257, 2), (512, 2), (513, 3)] {
            assert_eq!(packets(len, 256), count, "{len}");
            let parts: Vec<_> = (0..count).map(|index| part(index, len, 256)).collect();
            assert_eq!(parts.iter().map(|part| part.1 as u64).sum::<u64>(), len);
            for (index, &(offset, bytes)) in parts.iter().enumerate() {
                assert_eq!(offset, index as u64 * 256);
                assert_eq!(position(index as u64, count).begins(), index == 0);
                assert_eq!(position(index as u64, count).ends(), offset + bytes as u64 == len);
            }
        }
        assert_eq!(packets(MAX_MESSAGE, 256), 1 << 23);
    }
}
