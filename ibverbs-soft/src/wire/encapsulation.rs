//! The headers of IP and UDP in front of a packet: the kernel writes and reads them, but the invariant CRC, the global route
//! header and captures need them too.

use std::net::IpAddr;

use zerocopy::big_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes, Unaligned};

use crate::transport::Path;

/// The UDP port that receives RoCEv2.
pub const UDP_PORT: u16 = 4791;

/// How a packet travels: what its IP and UDP headers are made of.
///
/// If one address is of IPv4 and one of IPv6, the former is mapped into IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encapsulation {
    /// From where to where.
    pub path: Path,
    /// The UDP port that it is sent from.
    pub source_port: u16,
    /// The identification in an IPv4 header: 0 on a socket that is not connected and forbids fragmentation, *i* in segment *i*
    /// of a datagram that the kernel cuts.
    pub identification: u16,
}

/// The header of IPv4, without options.
#[derive(Clone, Copy, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Ipv4Bytes {
    version_and_words: u8,
    pub(super) type_of_service: u8,
    total_len: U16,
    identification: U16,
    fragment: U16,
    pub(super) time_to_live: u8,
    protocol: u8,
    pub(super) checksum: U16,
    source: [u8; 4],
    dest: [u8; 4],
}

/// The header of IPv6.
#[derive(Clone, Copy, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Ipv6Bytes {
    /// Version, traffic class and flow label.
    pub(super) version_class_flow: U32,
    payload_len: U16,
    next_header: u8,
    pub(super) hop_limit: u8,
    source: [u8; 16],
    dest: [u8; 16],
}

impl Ipv6Bytes {
    /// What the checksum of UDP covers of it: addresses, length and protocol, whose upper bytes are 0.
    pub(super) fn pseudo(&self) -> [u8; 36] {
        let mut bytes = [0; 36];
        let (addresses, rest) = bytes.split_at_mut(32);
        addresses[..16].copy_from_slice(&self.source);
        addresses[16..].copy_from_slice(&self.dest);
        rest[..2].copy_from_slice(self.payload_len.as_bytes());
        rest[3] = self.next_header;
        bytes
    }
}

/// The header of UDP.
#[derive(Clone, Copy, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct UdpBytes {
    source_port: U16,
    dest_port: U16,
    len: U16,
    pub(super) checksum: U16,
}

/// The header of IP, of either version.
#[derive(Clone, Copy)]
pub(super) enum IpBytes {
    V4(Ipv4Bytes),
    V6(Ipv6Bytes),
}

const UDP: u8 = 17;
const FLOW_LABEL: u32 = 0xf_ffff;
/// No fragmentation.
const DONT_FRAGMENT: u16 = 1 << 14;

impl Encapsulation {
    /// The header of IP in front of a datagram with this much payload.
    pub(super) fn ip(&self, len: usize) -> IpBytes {
        let Path { source, dest, traffic_class, hop_limit, flow_label } = self.path;
        let udp_len = len + size_of::<UdpBytes>();
        if let (IpAddr::V4(source), IpAddr::V4(dest)) = (source, dest) {
            let mut header = Ipv4Bytes {
                version_and_words: 0x45,
                type_of_service: traffic_class,
                total_len: length(size_of::<Ipv4Bytes>() + udp_len),
                identification: self.identification.into(),
                fragment: DONT_FRAGMENT.into(),
                time_to_live: hop_limit,
                protocol: UDP,
                checksum: U16::ZERO,
                source: source.octets(),
                dest: dest.octets(),
            };
            header.checksum = checksum(&[header.as_bytes()]).into();
            return IpBytes::V4(header);
        }
        let octets = |address| match address {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        };
        let version_class_flow = 6 << 28 | u32::from(traffic_class) << 20 | flow_label & FLOW_LABEL;
        IpBytes::V6(Ipv6Bytes {
            version_class_flow: version_class_flow.into(),
            payload_len: length(udp_len),
            next_header: UDP,
            hop_limit,
            source: octets(source),
            dest: octets(dest),
        })
    }

    /// The header of UDP in front of this much payload, without a checksum.
    pub(super) fn udp(&self, len: usize) -> UdpBytes {
        UdpBytes {
            source_port: self.source_port.into(),
            dest_port: UDP_PORT.into(),
            len: length(size_of::<UdpBytes>() + len),
            checksum: U16::ZERO,
        }
    }
}

/// A length as headers have it. Longer ones cannot be sent at all.
fn length(len: usize) -> U16 {
    u16::try_from(len).unwrap_or(u16::MAX).into()
}

/// The checksum of IP and UDP over parts of which all but the last have an even length.
pub(super) fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)])))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}
