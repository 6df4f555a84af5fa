use std::time::Duration;

use super::super::test_packets::{self, path, Random};
use super::super::{Packet, PcapWriter};
use super::*;

fn encapsulation(source: &str, dest: &str, source_port: u16, identification: u16) -> Encapsulation {
    Encapsulation { path: path(source, dest), source_port, identification }
}

/// The CRC of a whole packet from the header of IP on, bit by bit, as the supplement on RoCEv2 describes it.
fn reference(packet: &[u8]) -> u32 {
    let mut masked = packet[..packet.len() - 4].to_vec();
    let udp = match packet[0] >> 4 {
        4 => {
            for at in [1, 8, 10, 11] {
                masked[at] = 0xff;
            }
            20
        }
        6 => {
            masked[0] |= 0x0f;
            for at in [1, 2, 3, 7] {
                masked[at] = 0xff;
            }
            40
        }
        version => panic!("version {version}"),
    };
    for at in [udp + 6, udp + 7, udp + 8 + 4] {
        masked[at] = 0xff;
    }
    let mut crc = u32::MAX;
    for byte in [0xff; 8].into_iter().chain(masked) {
        for bit in 0..8 {
            let out = crc ^ u32::from(byte >> bit);
            crc = crc >> 1 ^ if out & 1 == 1 { 0xedb8_8320 } else { 0 };
        }
    }
    !crc
}

/// The packet from the header of IP on, as it is captured.
fn captured(encapsulation: &Encapsulation, packet: &[u8]) -> Vec<u8> {
    let mut writer = PcapWriter::new(Vec::new()).unwrap();
    writer.write(Duration::from_nanos(1_000_000_002), encapsulation, packet).unwrap();
    writer.into_inner().split_off(24 + 16)
}

/// Which is at the end of the packet.
fn crc(packet: &[u8]) -> u32 {
    u32::from_le_bytes(*packet.last_chunk().unwrap())
}

#[test]
fn the_crc_is_that_of_a_capture_of_an_adapter() {
    // A congestion notification of a ConnectX-4 Lx, from the tests of scapy.
    let packet = [
        0x81, 0x00, 0xff, 0xff, 0x40, 0x00, 0x01, 0x18, 0, 0, 0, 0, //
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, //
        0x82, 0xfd, 0x00, 0x2a,
    ];
    let mut encapsulation = encapsulation("10.0.17.1", "10.0.18.1", 0, 0x718c);
    assert_eq!(encapsulation.check(&packet), Ok(0x718c));
    encapsulation.identification = 0;
    assert_eq!(encapsulation.check(&packet), Ok(0x718c));
    encapsulation.source_port = 1;
    assert!(encapsulation.check(&packet).is_err());
}

#[test]
fn the_crc_is_that_of_a_send() {
    // A send over an unreliable connection, from the same tests.
    let packet = [
        0x24, 0x60, 0xff, 0xff, 0x00, 0x00, 0x00, 0xd3, 0x00, 0xcf, 0x17, 0x10, //
        b'F', b'0', 0x81, 0x8b, 0xe2, 0x89, b'5', 0xd9, 0x0e, 0x9a, //
        0x95, b'P', b'T', 0x01, 0xbe, 0x88, b'^', b'P', 0x00, 0x00, //
        0x78, 0xf3, 0x53, 0xf3,
    ];
    let encapsulation = encapsulation("192.168.0.7", "192.168.0.7", 49152, 1144);
    assert_eq!(encapsulation.check(&packet), Ok(1144));
    let parsed = Packet::parse(&packet).unwrap();
    assert_eq!(parsed.payload, packet[12..30]);
    assert_eq!(parsed.view().to_bytes(&encapsulation).unwrap(), packet);
}

#[test]
fn the_crc_is_that_of_the_specification_for_both_versions_of_ip() {
    let v4 = encapsulation("127.0.0.1", "127.0.0.2", 0xc123, 77);
    let v6 = encapsulation("fd07::1", "fe80::f0:0d", 0xc123, 0);
    for encapsulation in [v4, v6] {
        for packet in test_packets::all() {
            for len in [packet.payload.len(), packet.payload.len() / 2] {
                let packet = Packet { payload: packet.payload[..len].to_vec(), ..packet.clone() };
                let bytes = packet.view().to_bytes(&encapsulation).unwrap();
                let captured = captured(&encapsulation, &bytes);
                assert_eq!(captured[captured.len() - bytes.len()..], bytes);
                assert_eq!(crc(&bytes), reference(&captured), "{packet:?}");
                assert_eq!(encapsulation.check(&bytes), Ok(encapsulation.identification));
            }
        }
    }
}

#[test]
fn what_changes_on_the_way_does_not_change_the_crc() {
    for (source, dest) in [("10.0.0.1", "10.0.0.2"), ("fd07::1", "fd07::2")] {
        let sent = encapsulation(source, dest, 0xc000, 0);
        let mut bytes = test_packets::datagram(b"12345").view().to_bytes(&sent).unwrap();
        let mut arrived = sent;
        arrived.path.traffic_class = 3;
        arrived.path.hop_limit = 1;
        arrived.path.flow_label = 0;
        bytes[4] = 0xc0;
        assert_eq!(arrived.check(&bytes), Ok(0));
    }
}

#[test]
fn any_identification_is_found() {
    let mut random = Random(1);
    for words in [4, 5, 16, 17, 250, MAX_WORDS - 1, MAX_WORDS] {
        for _ in 0..100 {
            let mut bytes: Vec<u8> = (0..words * 4).map(|_| random.next() as u8).collect();
            let identification = random.next() as u16;
            let sent = encapsulation("192.168.1.2", "10.1.2.3", 4791, identification);
            let crc = reference(&captured(&sent, &bytes));
            *bytes.last_chunk_mut().unwrap() = crc.to_le_bytes();
            for expected in [0, identification, random.next() as u16] {
                let arrived = Encapsulation { identification: expected, ..sent };
                assert_eq!(arrived.check(&bytes), Ok(identification));
            }
        }
    }
}

#[test]
fn one_of_65536_damaged_packets_passes_over_ipv4_and_none_over_ipv6() {
    const TRIES: u32 = 1 << 18;
    let v4 = encapsulation("127.0.0.1", "127.0.0.2", 0xc000, 0);
    let v6 = encapsulation("::1", "::1", 0xc000, 0);
    let mut random = Random(2);
    let mut bytes = test_packets::datagram(b"x").view().to_bytes(&v4).unwrap();
    let mut passed = 0;
    for _ in 0..TRIES {
        *bytes.last_chunk_mut().unwrap() = (random.next() as u32).to_le_bytes();
        passed += u32::from(v4.check(&bytes).is_ok());
        assert!(v6.check(&bytes).is_err());
    }
    // Four are to be expected; the numbers are the same each time.
    assert!((1..=12).contains(&passed), "{passed}");
}

#[test]
fn every_single_damaged_bit_is_noticed() {
    for (source, dest) in [("10.0.0.1", "10.0.0.2"), ("fd07::1", "fd07::2")] {
        let sent = encapsulation(source, dest, 0xc000, 0);
        let good = test_packets::datagram(&[0x5a; 64]).view().to_bytes(&sent).unwrap();
        for bit in (0..good.len() * 8).filter(|bit| bit / 8 != 4) {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let wrong = matches!(sent.check(&bytes), Err(IcrcError::Mismatch { .. }));
            assert!(wrong, "bit {bit} of {}", good.len() * 8);
        }
    }
}

#[test]
fn what_has_not_the_length_of_a_packet_is_refused() {
    let encapsulation = encapsulation("10.0.0.1", "10.0.0.2", 0xc000, 0);
    for len in [0, 1, 3, 4, 12, 15, 17, 18, 19, MAX_WORDS * 4 + 4, 65_507, 70_000] {
        assert_eq!(encapsulation.check(&vec![0; len]), Err(IcrcError::Length(len)));
    }
}

#[test]
fn the_powers_of_x_are_inverses() {
    for (words, quotient) in QUOTIENTS.iter().enumerate() {
        let mut power = ONE;
        for _ in 0..8 * (22 + 4 * words) {
            power = multiply_by_x(power);
        }
        assert_eq!(multiply(power, *quotient), ONE, "{words} words");
    }
}
