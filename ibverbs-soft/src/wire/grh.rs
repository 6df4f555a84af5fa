//! The global route header that the receiver of a datagram finds in front of it.

use zerocopy::IntoBytes;

use super::encapsulation::{Encapsulation, IpBytes, Ipv4Bytes};
use super::PacketView;
use crate::transport::Path;

/// How many bytes of a receive it takes.
pub const GRH_LEN: usize = 40;

/// The header for a packet that came along this path: its IPv6 header, or its IPv4 header in the last 20 of the bytes.
pub fn grh(path: &Path, packet: &PacketView<'_>) -> [u8; GRH_LEN] {
    // The identification has not been seen, and the ports do not appear.
    let encapsulation = Encapsulation { path: *path, source_port: 0, identification: 0 };
    let mut bytes = [0; GRH_LEN];
    match encapsulation.ip(packet.wire_len()) {
        IpBytes::V4(header) => {
            bytes[GRH_LEN - size_of::<Ipv4Bytes>()..].copy_from_slice(header.as_bytes());
        }
        IpBytes::V6(header) => bytes.copy_from_slice(header.as_bytes()),
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::super::encapsulation::checksum;
    use super::super::test_packets::{datagram, path};
    use super::*;

    #[test]
    fn a_header_of_ipv4_is_in_the_last_half() {
        let packet = datagram(&[7; 5]);
        let bytes = grh(&path("127.0.0.1", "127.0.0.2"), &packet.view());
        assert_eq!(bytes[..20], [0; 20]);
        let header = &bytes[20..];
        // 20 of IP, 8 of UDP, 12 + 8 of headers, 5 + 3 of payload, 4 of CRC.
        assert_eq!(header[..10], [0x45, 0x2a, 0, 60, 0, 0, 0x40, 0, 61, 17]);
        assert_eq!(header[12..], [127, 0, 0, 1, 127, 0, 0, 2]);
        assert_eq!(checksum(&[header]), 0);
    }

    #[test]
    fn a_header_of_ipv6_is_all_of_it() {
        let packet = datagram(&[]);
        let bytes = grh(&path("fd07::1", "fd07::2"), &packet.view());
        assert_eq!(bytes[..8], [0x62, 0xa5, 0x43, 0x21, 0, 32, 17, 61]);
        assert_eq!(bytes[8..24], "fd07::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
        assert_eq!(bytes[24..], "fd07::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
    }

    #[test]
    fn an_address_of_ipv4_among_ones_of_ipv6_is_mapped() {
        let bytes = grh(&path("127.0.0.1", "fd07::2"), &datagram(&[]).view());
        let source: [u8; 16] = bytes[8..24].try_into().unwrap();
        assert_eq!(IpAddr::from(source).to_canonical(), IpAddr::from([127, 0, 0, 1]));
    }
}
