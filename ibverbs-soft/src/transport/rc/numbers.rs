//! Packets are counted in 64 bits, so that they are compared as numbers are: the lower 24 are the sequence number.

use crate::wire::Psn;

/// The number of a connection's first packet. There are numbers before it.
pub(super) fn first(psn: Psn) -> u64 {
    (1 << 24) + u64::from(psn.get())
}

/// The sequence number of a packet.
pub(super) fn psn(number: u64) -> Psn {
    // The upper bits are left out on purpose.
    Psn::new(number as u32)
}

/// How far a sequence number is behind that of a packet: negative if it comes before it.
pub(super) fn distance(psn: Psn, from: u64) -> i32 {
    psn.since(self::psn(from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_where_sequence_numbers_begin_again() {
        for start in [0, 5, 0xff_ffff] {
            let number = first(Psn::new(start));
            assert_eq!(psn(number), Psn::new(start));
            for step in [0, 1, 7, 0x7f_ffff] {
                assert_eq!(distance(psn(number + step), number), step as i32);
                assert_eq!(distance(psn(number - step), number), -(step as i32));
            }
        }
    }
}
