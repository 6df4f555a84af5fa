//! What programs of IP put in front of the private data of requests: who asks whom.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::big_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// How many bytes of a request's private data it takes.
pub const ADDRESSING_LEN: usize = size_of::<AddressingBytes>();

/// Who asks whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addressing {
    /// The address of the asker.
    pub source: IpAddr,
    /// Its port.
    pub port: u16,
    /// The address that is asked.
    pub dest: IpAddr,
}

/// Its bytes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct AddressingBytes {
    version: u8,
    /// The version of IP (4 bits), and 4 that are reserved.
    ip_version: u8,
    port: U16,
    source: [u8; 16],
    dest: [u8; 16],
}

fn octets(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(addr) => {
            let mut octets = [0; 16];
            octets[12..].copy_from_slice(&addr.octets());
            octets
        }
        IpAddr::V6(addr) => addr.octets(),
    }
}

impl Addressing {
    /// Its bytes, then the program's own, then zeros; nothing if they do not fit.
    pub fn emit<const N: usize>(&self, data: &[u8]) -> Option<[u8; N]> {
        let version = if self.source.is_ipv4() { 4 } else { 6 };
        let header = AddressingBytes {
            version: 0,
            ip_version: version << 4,
            port: self.port.into(),
            source: octets(self.source),
            dest: octets(self.dest),
        };
        let mut bytes = [0; N];
        let (front, back) = bytes.split_at_mut_checked(ADDRESSING_LEN)?;
        front.copy_from_slice(header.as_bytes());
        back.get_mut(..data.len())?.copy_from_slice(data);
        Some(bytes)
    }

    /// Takes private data apart; nothing if it does not begin with this.
    pub fn parse(private_data: &[u8]) -> Option<(Addressing, &[u8])> {
        let (header, data) = AddressingBytes::ref_from_prefix(private_data).ok()?;
        let addr = |bytes: &[u8; 16]| match header.ip_version >> 4 {
            4 => bytes.last_chunk().map(|last: &[u8; 4]| Ipv4Addr::from(*last).into()),
            6 => Some(Ipv6Addr::from(*bytes).into()),
            _ => None,
        };
        if header.version != 0 {
            return None;
        }
        let (source, dest) = (addr(&header.source)?, addr(&header.dest)?);
        Some((Addressing { source, port: header.port.get(), dest }, data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(source: &str, dest: &str) -> Addressing {
        Addressing { source: source.parse().unwrap(), port: 0x1d2f, dest: dest.parse().unwrap() }
    }

    #[test]
    fn addresses_of_ipv4_are_in_the_last_bytes() {
        let bytes: [u8; 40] = of("10.7.0.1", "10.7.0.2").emit(b"data").unwrap();
        assert_eq!(bytes[..4], [0x00, 0x40, 0x1d, 0x2f]);
        assert_eq!(bytes[4..16], [0; 12]);
        assert_eq!(bytes[16..20], [10, 7, 0, 1]);
        assert_eq!(bytes[32..], *b"\x0a\x07\x00\x02data");
    }

    #[test]
    fn what_is_put_in_is_read_again() {
        for it in [of("127.0.0.1", "127.0.0.2"), of("fd07::1", "fe80::2")] {
            let bytes: [u8; 92] = it.emit(b"data").unwrap();
            let (read, data) = Addressing::parse(&bytes).unwrap();
            assert_eq!((read, &data[..5]), (it, &b"data\0"[..]));
            assert_eq!(data.len(), 56);
        }
    }

    #[test]
    fn what_is_too_long_or_nonsense_is_refused() {
        let it = of("127.0.0.1", "127.0.0.2");
        assert!(it.emit::<92>(&[1; 56]).is_some());
        assert!(it.emit::<92>(&[1; 57]).is_none());
        assert!(it.emit::<35>(&[]).is_none());
        let good: [u8; 36] = it.emit(&[]).unwrap();
        assert!(Addressing::parse(&good[..35]).is_none());
        for (place, value) in [(0, 1), (1, 0x50), (1, 0)] {
            let mut bad = good;
            bad[place] = value;
            assert!(Addressing::parse(&bad).is_none());
        }
    }
}
