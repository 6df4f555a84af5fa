//! A packet as the bytes of a datagram.

use super::Dropped;
use crate::random::Random;
use crate::transport::{Path, Transmit};
use crate::wire::{Encapsulation, Headers, Packet, Trailer, UDP_PORT};

/// A datagram that is to be sent.
#[derive(Debug)]
pub(crate) struct Datagram {
    path: Path,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// The payload stays where it is until it is sent.
    Packet { headers: Headers, packet: Packet },
    /// As they are, for a datagram with the identification 0.
    Bytes(Vec<u8>),
}

impl Datagram {
    /// Nothing if the values of the packet contradict each other.
    pub(crate) fn new(transmit: Transmit) -> Option<Datagram> {
        let Transmit { path, packet } = transmit;
        let headers = packet.headers().ok()?;
        Some(Datagram { path, content: Content::Packet { headers, packet } })
    }

    pub(super) fn of_bytes(path: Path, bytes: Vec<u8>) -> Datagram {
        Datagram { path, content: Content::Bytes(bytes) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes there are.
    pub(super) fn len(&self) -> usize {
        match &self.content {
            Content::Packet { packet, .. } => packet.view().wire_len(),
            Content::Bytes(bytes) => bytes.len(),
        }
    }

    /// Whether it can have any identification.
    pub(super) fn is_free(&self) -> bool {
        matches!(self.content, Content::Packet { .. })
    }

    /// What comes last, which depends on the identification that the datagram gets.
    pub(super) fn trailer(&self, identification: u16) -> Trailer {
        match &self.content {
            Content::Packet { headers, packet } => {
                let path = self.path;
                let encapsulation = Encapsulation { path, source_port: UDP_PORT, identification };
                packet.view().trailer(&encapsulation, headers)
            }
            Content::Bytes(_) => Trailer::default(),
        }
    }

    /// The bytes, in parts, of which the trailer is one.
    pub(super) fn parts<'a>(&'a self, trailer: &'a Trailer) -> [&'a [u8]; 3] {
        match &self.content {
            Content::Packet { headers, packet } => [headers, &packet.payload, trailer],
            Content::Bytes(bytes) => [bytes, &[], &[]],
        }
    }

    /// The bytes of a datagram with the identification 0.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.parts(&self.trailer(0)).concat()
    }
}

/// The packet in a datagram, if there is one and its CRC is right.
pub(super) fn decode(
    bytes: &[u8],
    path: Path,
    source_port: u16,
    dropped: &mut Dropped,
) -> Option<(Path, Packet)> {
    if (Encapsulation { path, source_port, identification: 0 }).check(bytes).is_err() {
        dropped.corrupt += 1;
        return None;
    }
    let Ok(packet) = Packet::parse(bytes) else {
        dropped.malformed += 1;
        return None;
    };
    Some((path, packet))
}

/// Changes bits of a packet, so many and in such places that its CRC tells.
pub(super) fn corrupt(packet: &mut [u8], encapsulation: &Encapsulation, seed: u64) {
    let mut random = Random::from_seed(seed);
    // What has no bits is no packet, and its CRC is wrong already.
    let bits = (8 * packet.len() as u64).max(1);
    loop {
        let bit = random.next() % bits;
        if let Some(byte) = packet.get_mut(bit as usize / 8) {
            *byte ^= 1 << (bit % 8);
        }
        // Some bits may change on the way, and who receives a packet does not know all that the CRC is over.
        if random.next() % 2 == 0 && encapsulation.check(packet).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::test_packets::{all, path};

    #[test]
    fn the_crc_tells_of_all_corruption() {
        for (source, dest) in [("10.0.0.1", "10.0.0.2"), ("fd07::1", "fd07::2")] {
            let path = path(source, dest);
            let encapsulation = Encapsulation { path, source_port: UDP_PORT, identification: 0 };
            for (i, packet) in all().into_iter().enumerate() {
                let whole = Datagram::new(Transmit { path, packet }).unwrap().into_bytes();
                assert_eq!(encapsulation.check(&whole), Ok(0));
                for seed in 0..100 {
                    let damaged = || {
                        let mut bytes = whole.clone();
                        corrupt(&mut bytes, &encapsulation, seed);
                        bytes
                    };
                    assert!(encapsulation.check(&damaged()).is_err(), "packet {i}, seed {seed}");
                    assert!(damaged() == damaged());
                }
            }
        }
    }
}
