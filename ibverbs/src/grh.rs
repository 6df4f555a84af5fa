//! The global route header: where a datagram came from.

use std::array;
use std::net::Ipv4Addr;

use crate::error::{Error, Result};
use crate::gid::Gid;

/// The header that a device puts into the first 40 bytes of the receive of a datagram, if the completion
/// [says so](crate::WorkCompletion::has_grh).
///
/// On InfiniBand and RoCE v1 it is a global route header, on RoCE v2 the packet's IPv6 header, or its IPv4
/// header in the last 20 of the bytes. Whoever sends the packet can write into it what he likes.
///
/// # Examples
///
/// ```no_run
/// # fn received(buffer: &[u8]) -> ibverbs::Result<()> {
/// let grh = ibverbs::Grh::from_bytes(&buffer[..ibverbs::Grh::BYTES])?;
/// println!("from {}: {:?}", grh.sgid(), &buffer[ibverbs::Grh::BYTES..]);
/// # Ok(())
/// # }
/// ```
#[doc(alias = "ibv_grh")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grh {
    sgid: Gid,
    dgid: Gid,
    traffic_class: u8,
    flow_label: u32,
    hop_limit: u8,
    roce_v2: bool,
}

/// What the header says comes next: a base transport header, as on InfiniBand and RoCE v1.
const NEXT_IBA: u8 = 0x1b;
const IPV4_HEADER: usize = 20;

impl Grh {
    /// How many bytes of the receive it takes.
    pub const BYTES: usize = 40;

    /// Reads the header from the beginning of a receive.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidBytes`] if there are less or more than 40 bytes, or if they are neither an IPv6 or
    /// global route header nor end in an IPv4 header.
    pub fn from_bytes(bytes: &[u8]) -> Result<Grh> {
        let invalid = |reason| Error::InvalidBytes { what: "global route header", reason };
        let bytes: &[u8; Self::BYTES] =
            bytes.try_into().map_err(|_| invalid("they must be exactly 40 bytes"))?;
        let v4: &[u8; IPV4_HEADER] = &array::from_fn(|index| bytes[IPV4_HEADER + index]);
        // The first 20 bytes of an IPv4 packet's header are undefined, and its checksum is not filled in by
        // every software device; but 16 bits that happen to be one are rarer than 12 bits that happen to
        // be a version and a length.
        match (bytes[0] >> 4 == 6, v4[0] == 0x45) {
            (true, true) if checksum(v4) == 0xffff => Ok(Grh::from_v4(v4)),
            (true, _) => Ok(Grh::from_v6(bytes)),
            (false, true) => Ok(Grh::from_v4(v4)),
            (false, false) => {
                Err(invalid("they have neither the version of IPv6 nor that of IPv4"))
            }
        }
    }

    fn from_v4(bytes: &[u8; IPV4_HEADER]) -> Grh {
        let address = |at: usize| {
            Gid::from(Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]))
        };
        Grh {
            sgid: address(12),
            dgid: address(16),
            traffic_class: bytes[1],
            flow_label: 0,
            hop_limit: bytes[8],
            roce_v2: true,
        }
    }

    fn from_v6(bytes: &[u8; Self::BYTES]) -> Grh {
        let word = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let address = |at: usize| {
            let octets: [u8; 16] = array::from_fn(|index| bytes[at + index]);
            Gid::from(octets)
        };
        Grh {
            sgid: address(8),
            dgid: address(24),
            traffic_class: (word >> 20) as u8,
            flow_label: word & 0xf_ffff,
            hop_limit: bytes[7],
            roce_v2: bytes[6] != NEXT_IBA,
        }
    }

    /// The GID that it was sent from, as the sender says.
    pub fn sgid(&self) -> Gid {
        self.sgid
    }

    /// The GID that it was sent to: one of the port, or of a multicast group.
    pub fn dgid(&self) -> Gid {
        self.dgid
    }

    /// The traffic class; on RoCE v2 over IPv4 the type of service.
    pub fn traffic_class(&self) -> u8 {
        self.traffic_class
    }

    /// The flow label, 20 bits; over IPv4 zero.
    pub fn flow_label(&self) -> u32 {
        self.flow_label
    }

    /// The hop limit that was left; over IPv4 the time to live.
    pub fn hop_limit(&self) -> u8 {
        self.hop_limit
    }

    /// Whether the packet came over RoCE v2, with a header of IP.
    pub fn is_roce_v2(&self) -> bool {
        self.roce_v2
    }
}

/// The sum of IPv4: all ones if the header's own checksum is right.
fn checksum(header: &[u8; IPV4_HEADER]) -> u16 {
    let words =
        header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    /// A header of IPv4 from 10.7.0.1 to 10.7.0.2 with a right checksum, behind 20 bytes of `fill`.
    fn v4(fill: u8) -> [u8; 40] {
        let mut bytes = [fill; 40];
        bytes[20..].copy_from_slice(&[
            0x45, 0x20, 0, 60, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 7, 0, 1, 10, 7, 0, 2,
        ]);
        let sum = !checksum(bytes[20..].try_into().unwrap());
        bytes[30..32].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    fn v6(next: u8) -> [u8; 40] {
        let mut bytes = [0; 40];
        bytes[..8].copy_from_slice(&[0x6a, 0xb1, 0x23, 0x45, 0, 40, next, 61]);
        bytes[8..24].copy_from_slice(&"fd07::1".parse::<Ipv6Addr>().unwrap().octets());
        bytes[24..].copy_from_slice(&"fd07::2".parse::<Ipv6Addr>().unwrap().octets());
        bytes
    }

    #[test]
    fn a_header_of_ipv4_is_read() {
        for fill in [0, 0xff] {
            let grh = Grh::from_bytes(&v4(fill)).unwrap();
            assert_eq!(grh.sgid(), "::ffff:10.7.0.1".parse().unwrap());
            assert_eq!(grh.dgid(), "::ffff:10.7.0.2".parse().unwrap());
            assert_eq!((grh.traffic_class(), grh.flow_label(), grh.hop_limit()), (0x20, 0, 64));
            assert!(grh.is_roce_v2());
        }
    }

    #[test]
    fn an_undefined_beginning_that_looks_like_ipv6_does_not_hide_ipv4() {
        let mut bytes = v4(0x66);
        assert!(Grh::from_bytes(&bytes).unwrap().sgid().is_ipv4_mapped());
        // With a wrong checksum it is an address of IPv6 whose bytes happen to be 0x45.
        bytes[31] ^= 1;
        assert!(!Grh::from_bytes(&bytes).unwrap().sgid().is_ipv4_mapped());
    }

    /// The sums are worked out by hand: what is beyond 16 bits is added to them, and once more if that carries.
    #[test]
    fn the_sum_of_ipv4_carries() {
        let sum = |words: &[u16]| {
            let mut header = [0; IPV4_HEADER];
            for (bytes, word) in header.chunks_exact_mut(2).zip(words) {
                bytes.copy_from_slice(&word.to_be_bytes());
            }
            checksum(&header)
        };
        assert_eq!(sum(&[0x1234, 0x4321]), 0x5555);
        assert_eq!(sum(&[0xffff, 0x0002]), 0x0002);
        assert_eq!(sum(&[0x8000, 0x8000, 0xffff, 0x0002]), 0x0003);
        assert_eq!(sum(&[0xffff, 0xffff, 0x0001]), 0x0001);
        assert_eq!(sum(&[0xffff; 10]), 0xffff);
        assert_eq!(v4(0)[30..32], [0x26, 0x81]);
    }

    #[test]
    fn a_header_of_ipv4_without_a_checksum_is_read() {
        let mut bytes = v4(0);
        bytes[30..32].fill(0);
        assert!(Grh::from_bytes(&bytes).unwrap().sgid().is_ipv4_mapped());
    }

    #[test]
    fn a_header_of_ipv6_is_read() {
        for (next, roce_v2) in [(17, true), (NEXT_IBA, false)] {
            let grh = Grh::from_bytes(&v6(next)).unwrap();
            assert_eq!(grh.sgid(), "fd07::1".parse().unwrap());
            assert_eq!(grh.dgid(), "fd07::2".parse().unwrap());
            assert_eq!(
                (grh.traffic_class(), grh.flow_label(), grh.hop_limit()),
                (0xab, 0x1_2345, 61)
            );
            assert_eq!(grh.is_roce_v2(), roce_v2);
        }
    }

    #[test]
    fn garbage_is_refused() {
        for bytes in [&[0; 40][..], &[0xff; 40], &[], &v4(0)[..39], &[0x60; 41]] {
            assert!(matches!(Grh::from_bytes(bytes), Err(Error::InvalidBytes { .. })), "{bytes:?}");
        }
    }

    #[test]
    fn any_forty_bytes_are_read_or_refused() {
        let mut state = 1u64;
        for _ in 0..if cfg!(miri) { 50 } else { 20_000 } {
            let mut bytes = [0; 40];
            for byte in &mut bytes {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (state >> 56) as u8;
            }
            if let Ok(grh) = Grh::from_bytes(&bytes) {
                assert!(grh.flow_label() <= 0xf_ffff);
            }
        }
    }
}
