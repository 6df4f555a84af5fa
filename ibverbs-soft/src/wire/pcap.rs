//! Captures of packets, for tcpdump and its kin.

use std::io::{Result, Write};
use std::time::Duration;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes, Unaligned};

use super::encapsulation::{checksum, Encapsulation, IpBytes};

/// Writes packets in the format of libpcap, with times in nanoseconds and the headers of IP and UDP in front.
#[derive(Debug)]
pub struct PcapWriter<W> {
    out: W,
}

/// What a file begins with.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct FileHeader {
    magic: U32,
    major: U16,
    minor: U16,
    zone: U32,
    accuracy: U32,
    max_len: U32,
    link_type: U32,
}

/// What a packet begins with.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct RecordHeader {
    seconds: U32,
    nanoseconds: U32,
    captured_len: U32,
    len: U32,
}

const NANOSECONDS: u32 = 0xa1b2_3c4d;
/// `LINKTYPE_RAW`: packets begin with the header of IP.
const RAW_IP: u32 = 101;

impl<W: Write> PcapWriter<W> {
    /// Begins a capture.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn new(mut out: W) -> Result<PcapWriter<W>> {
        let header = FileHeader {
            magic: NANOSECONDS.into(),
            major: 2.into(),
            minor: 4.into(),
            zone: U32::ZERO,
            accuracy: U32::ZERO,
            max_len: u32::from(u16::MAX).into(),
            link_type: RAW_IP.into(),
        };
        out.write_all(header.as_bytes())?;
        Ok(PcapWriter { out })
    }

    /// Adds a packet: the payload of a UDP datagram, sent at this time.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write(
        &mut self,
        at: Duration,
        encapsulation: &Encapsulation,
        packet: &[u8],
    ) -> Result<()> {
        let ip = encapsulation.ip(packet.len());
        let mut udp = encapsulation.udp(packet.len());
        let ip = match &ip {
            IpBytes::V4(header) => header.as_bytes(),
            IpBytes::V6(header) => {
                // Over IPv4, there may be none.
                udp.checksum = checksum(&[&header.pseudo(), udp.as_bytes(), packet]).into();
                header.as_bytes()
            }
        };
        let len = U32::new((ip.len() + size_of_val(&udp) + packet.len()) as u32);
        let header = RecordHeader {
            seconds: U32::new(at.as_secs() as u32),
            nanoseconds: at.subsec_nanos().into(),
            captured_len: len,
            len,
        };
        for part in [header.as_bytes(), ip, udp.as_bytes(), packet] {
            self.out.write_all(part)?;
        }
        Ok(())
    }

    /// What is written to.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Gives back what was written to.
    pub fn into_inner(self) -> W {
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_packets::path;
    use super::*;

    fn capture(source: &str, dest: &str) -> Vec<u8> {
        let encapsulation =
            Encapsulation { path: path(source, dest), source_port: 0xc000, identification: 1 };
        let mut writer = PcapWriter::new(Vec::new()).unwrap();
        writer.write(Duration::new(3, 4), &encapsulation, &[1, 2, 3]).unwrap();
        let bytes = writer.into_inner();
        assert_eq!(bytes[..4], [0x4d, 0x3c, 0xb2, 0xa1]);
        assert_eq!(
            bytes[4..24],
            [2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 101, 0, 0, 0]
        );
        assert_eq!(bytes[24..32], [3, 0, 0, 0, 4, 0, 0, 0]);
        bytes[32..].to_vec()
    }

    #[test]
    fn a_packet_over_ipv4_is_captured_with_its_headers() {
        let record = capture("10.0.0.1", "10.0.0.2");
        assert_eq!(record[..8], [31, 0, 0, 0, 31, 0, 0, 0]);
        let packet = &record[8..];
        assert_eq!(packet[..8], [0x45, 0x2a, 0, 31, 0, 1, 0x40, 0]);
        assert_eq!(checksum(&[&packet[..20]]), 0);
        assert_eq!(packet[20..], [0xc0, 0, 0x12, 0xb7, 0, 11, 0, 0, 1, 2, 3]);
    }

    #[test]
    fn a_packet_over_ipv6_has_the_checksum_that_it_needs() {
        let record = capture("fd07::1", "fd07::2");
        let packet = &record[8..];
        assert_eq!(packet.len(), 51);
        assert_eq!(packet[40..46], [0xc0, 0, 0x12, 0xb7, 0, 11]);
        // Addresses, length and protocol, then the datagram.
        assert_eq!(checksum(&[&packet[8..40], &[0, 11, 0, 17], &packet[40..]]), 0);
    }
}
