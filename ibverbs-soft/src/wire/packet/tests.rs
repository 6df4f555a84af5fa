use std::collections::HashSet;

use super::super::test_packets::{all, bth, datagram, path, Random};
use super::super::{
    Aeth, AtomicEth, Encapsulation, NakCode, Position, Reth, Service, Syndrome, MAX_PAYLOAD,
};
use super::*;

fn encapsulation() -> Encapsulation {
    Encapsulation { path: path("127.0.0.1", "127.0.0.2"), source_port: 0xc000, identification: 0 }
}

fn bytes(packet: &Packet) -> Vec<u8> {
    packet.view().to_bytes(&encapsulation()).unwrap()
}

#[test]
fn every_operation_is_read_as_it_was_written() {
    let mut opcodes = HashSet::new();
    for packet in all() {
        for len in 0..=packet.payload.len() {
            let packet = Packet { payload: packet.payload[..len].to_vec(), ..packet.clone() };
            let bytes = bytes(&packet);
            assert_eq!(bytes.len() % 4, 0);
            assert_eq!(bytes.len(), packet.view().wire_len());
            assert_eq!(Packet::parse(&bytes), Ok(packet));
            opcodes.insert(bytes[0]);
        }
    }
    // 23 of RC, 12 of UC, 2 of UD, 8 of SRD.
    assert_eq!(opcodes.len(), 45);
}

#[test]
fn other_opcodes_are_refused() {
    let opcodes: HashSet<u8> = all().iter().map(|packet| bytes(packet)[0]).collect();
    for opcode in (0..=u8::MAX).filter(|opcode| !opcodes.contains(opcode)) {
        let mut bytes = [0; 64];
        bytes[0] = opcode;
        assert_eq!(Packet::parse(&bytes), Err(ParseError::Opcode(opcode)));
    }
}

#[test]
fn what_is_too_short_is_refused() {
    for packet in all() {
        let packet = Packet { payload: Vec::new(), ..packet };
        let bytes = bytes(&packet);
        assert!(Packet::parse(&bytes).is_ok());
        for len in 0..bytes.len() {
            match Packet::parse(&bytes[..len]) {
                Err(ParseError::TooShort { len: short, needed }) => {
                    assert_eq!((short, len % 4), (len, 0));
                    assert!(len < needed && needed <= bytes.len(), "{len} < {needed}");
                }
                Err(ParseError::Unaligned(short)) => assert!(short == len && len % 4 != 0),
                other => panic!("{len}: {other:?}"),
            }
        }
    }
}

#[test]
fn headers_are_where_the_specification_has_them() {
    let mut write = all().swap_remove(0);
    write.bth.solicited = false;
    write.bth.ack_request = true;
    write.operation = Operation::Write {
        position: Position::Only,
        reth: Some(Reth { addr: 0x0102_0304_0506_0708, rkey: 0x090a_0b0c, len: 5 }),
        imm: Some(0x0d0e_0f10),
    };
    write.payload = vec![1, 2, 3, 4, 5];
    let expected = [
        0x0b, 0x70, 0xff, 0xff, 0x00, 0x12, 0x34, 0x56, 0x80, 0xfe, 0xdc, 0xba, // BTH
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0, 0, 5, // RETH
        13, 14, 15, 16, // ImmDt
        1, 2, 3, 4, 5, 0, 0, 0, // payload and padding
    ];
    assert_eq!(*write.headers().unwrap(), expected[..32]);
    assert_eq!(bytes(&write)[..40], expected);
    assert_eq!(bytes(&write).len(), 44);

    let datagram = bytes(&datagram(&[]));
    assert_eq!(datagram[..2], [0x64, 0xc0]);
    assert_eq!(datagram[12..20], [0x11, 0x11, 0x11, 0x11, 0, 0x65, 0x43, 0x21]);

    let with = |operation| bytes(&Packet { operation, payload: Vec::new(), ..write.clone() });
    let eth = AtomicEth { addr: 1, rkey: 2, swap_or_add: 3, compare: 4 };
    assert_eq!(
        with(Operation::CompareSwap(eth))[12..40],
        [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4]
    );
    let aeth = Aeth { syndrome: Syndrome::Nak(NakCode::InvalidRequest), msn: 0x01_0203 };
    assert_eq!(
        with(Operation::AtomicAcknowledge { aeth, original: 0x0405_0607_0809_0a0b })[12..24],
        [0x61, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    );
    let aeth = Aeth { syndrome: Syndrome::RnrNak(14), msn: 0 };
    assert_eq!(with(Operation::Acknowledge(aeth))[12..16], [0x2e, 0, 0, 0]);
}

#[test]
fn reserved_bits_are_ignored() {
    let packet = datagram(b"abc");
    let mut bytes = bytes(&packet);
    bytes[4] = 0xff;
    bytes[8] |= 0x7f;
    bytes[16] = 0xff;
    // Padding too.
    *bytes.iter_mut().rev().nth(4).unwrap() = 0xff;
    assert_eq!(Packet::parse(&bytes), Ok(packet));
}

#[test]
fn a_wrong_version_is_refused() {
    for version in 1..16 {
        let mut bytes = bytes(&datagram(&[]));
        bytes[1] |= version;
        assert_eq!(Packet::parse(&bytes), Err(ParseError::TransportVersion(version)));
    }
}

#[test]
fn more_padding_than_payload_is_refused() {
    let mut bytes = bytes(&datagram(&[]));
    bytes[1] |= 3 << 4;
    assert_eq!(Packet::parse(&bytes), Err(ParseError::TooShort { len: 24, needed: 27 }));
}

#[test]
fn a_payload_where_there_is_none_is_refused() {
    for packet in all() {
        let mut packet = Packet { payload: vec![0; 4], ..packet };
        let Err(error) = packet.headers() else { continue };
        assert_eq!(error, EmitError::UnexpectedPayload(4));
        packet.payload.clear();
        let mut bytes = bytes(&packet);
        let opcode = bytes[0];
        bytes.extend([0; 4]);
        for pad in 0..4 {
            bytes[1] = bytes[1] & 0xcf | pad << 4;
            assert_eq!(
                Packet::parse(&bytes),
                Err(ParseError::UnexpectedPayload { opcode, len: 4 })
            );
        }
    }
}

#[test]
fn a_payload_has_the_largest_mtu_at_most() {
    let packet = datagram(&[0; MAX_PAYLOAD]);
    let mut bytes = bytes(&packet);
    assert_eq!(Packet::parse(&bytes), Ok(packet));
    bytes.extend([0; 4]);
    assert_eq!(Packet::parse(&bytes), Err(ParseError::PayloadTooLong(MAX_PAYLOAD + 4)));
    // With padding, one byte too many.
    bytes[1] |= 3 << 4;
    assert_eq!(Packet::parse(&bytes), Err(ParseError::PayloadTooLong(MAX_PAYLOAD + 1)));
    let long = datagram(&[0; MAX_PAYLOAD + 1]);
    assert_eq!(long.headers().unwrap_err(), EmitError::PayloadTooLong(MAX_PAYLOAD + 1));
}

#[test]
fn reserved_syndromes_are_refused() {
    let aeth = Aeth { syndrome: Syndrome::Ack(0), msn: 0 };
    let packet = Packet {
        bth: bth(Service::Rc),
        deth: None,
        operation: Operation::Acknowledge(aeth),
        payload: Vec::new(),
    };
    for syndrome in [0x40, 0x65, 0x80] {
        let mut bytes = bytes(&packet);
        bytes[12] = syndrome;
        assert_eq!(Packet::parse(&bytes), Err(ParseError::Syndrome(syndrome)));
    }
}

#[test]
fn values_that_contradict_each_other_have_no_bytes() {
    use Position::{First, Last, Middle, Only};
    let reth = Some(Reth { addr: 0, rkey: 0, len: 0 });
    let ack = Aeth { syndrome: Syndrome::Ack(0), msn: 0 };
    let aeth = Some(ack);
    let send = |position, imm, invalidate| Operation::Send { position, imm, invalidate };
    let write = |position, reth, imm| Operation::Write { position, reth, imm };
    let response = |position, aeth| Operation::ReadResponse { position, aeth };
    let mut wrong = vec![
        (Service::Uc, send(Only, None, Some(1))),
        (Service::Uc, response(Middle, None)),
        (Service::Uc, Operation::Acknowledge(ack)),
        (Service::Ud, send(First, None, None)),
        (Service::Ud, send(Last, Some(1), None)),
        (Service::Ud, write(Only, reth, None)),
        (Service::Rc, response(Middle, aeth)),
    ];
    for position in [First, Middle] {
        wrong.push((Service::Rc, send(position, Some(1), None)));
        wrong.push((Service::Rc, send(position, None, Some(1))));
        wrong.push((Service::Rc, write(position, reth, Some(1))));
    }
    for position in [Last, Only] {
        wrong.push((Service::Rc, send(position, Some(1), Some(1))));
    }
    for position in [Middle, Last] {
        wrong.push((Service::Rc, write(position, reth, None)));
    }
    for position in [First, Only] {
        wrong.push((Service::Rc, write(position, None, None)));
    }
    for position in [First, Last, Only] {
        wrong.push((Service::Rc, response(position, None)));
    }
    for (service, operation) in wrong {
        let packet = Packet { bth: bth(service), operation, ..datagram(&[]) };
        let error = packet.headers().unwrap_err();
        assert_eq!(error, EmitError::Operation(service), "{operation:?}");
    }
    let stray = Packet { bth: bth(Service::Rc), ..datagram(&[]) };
    assert_eq!(stray.headers().unwrap_err(), EmitError::Datagram(Service::Rc));
    let lacking = Packet { deth: None, ..datagram(&[]) };
    assert_eq!(lacking.headers().unwrap_err(), EmitError::Datagram(Service::Ud));
}

#[test]
fn garbage_is_refused_or_read_the_same_again() {
    let mut random = Random(3);
    let mut read = 0;
    for _ in 0..100_000 {
        let words = random.next() % 16;
        let mut garbage: Vec<u8> = (0..words * 4).map(|_| random.next() as u8).collect();
        if let Some(flags) = garbage.get_mut(1) {
            *flags &= 0xf0;
        }
        if let Ok(packet) = Packet::parse(&garbage) {
            let bytes = bytes(&packet);
            assert_eq!(bytes.len(), garbage.len());
            assert_eq!(Packet::parse(&bytes), Ok(packet));
            read += 1;
        }
    }
    assert!(read > 5_000, "{read}");
}
