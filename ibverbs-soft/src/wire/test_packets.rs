//! Packets for tests.

use super::{
    Aeth, AtomicEth, Bth, Deth, NakCode, Operation, Packet, Position, Psn, Reth, Service, Srd,
    SrdPart, Syndrome,
};
use crate::transport::Path;

/// Numbers that are the same each time (xorshift).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }
}

/// A path between two addresses.
pub(crate) fn path(source: &str, dest: &str) -> Path {
    Path {
        source: source.parse().unwrap(),
        dest: dest.parse().unwrap(),
        traffic_class: 0x2a,
        hop_limit: 61,
        flow_label: 0x5_4321,
    }
}

/// A base transport header.
pub(super) fn bth(service: Service) -> Bth {
    Bth {
        service,
        solicited: true,
        migrated: true,
        pkey: 0xffff,
        dest_qp: 0x12_3456,
        ack_request: false,
        psn: Psn::new(0xfe_dcba),
    }
}

/// A datagram.
pub(super) fn datagram(payload: &[u8]) -> Packet {
    Packet {
        bth: bth(Service::Ud),
        deth: Some(Deth { qkey: 0x1111_1111, src_qp: 0x65_4321 }),
        operation: Operation::Send { position: Position::Only, imm: None, invalidate: None },
        payload: payload.to_vec(),
    }
}

/// A packet of each opcode of scalable reliable datagrams.
fn srd() -> impl Iterator<Item = Packet> {
    let reth = Reth { addr: 0x0123_4567_89ab_cdef, rkey: 0x0bad_cafe, len: 0x1000 };
    let fragment = |imm| {
        let message = Psn::new(0xfe_dcb0);
        SrdPart::Fragment { message, offset: 0x1000, len: 0x2345, imm }
    };
    let parts = [
        (fragment(None), &b"fragment"[..]),
        (fragment(Some(7)), b"fragment"),
        (SrdPart::Write { addr: u64::MAX - 9, rkey: 0x0bad_cafe }, b"write"),
        (SrdPart::WriteEnd { len: 0x8765_4321, imm: 8 }, b""),
        (SrdPart::Read(reth), b""),
        (SrdPart::Data, b"data"),
        (SrdPart::Ack { done: 0x8000_0000_0000_0005 }, b""),
        (SrdPart::Nak(Syndrome::Nak(NakCode::InvalidRdRequest)), b""),
    ];
    parts.into_iter().map(|(part, payload)| {
        let srd = Srd { flow: 0x1357_9bdf, floor: Psn::new(0xfe_dc00), part };
        let deth = Deth { qkey: 0x2222_2222, src_qp: 0x65_4321 };
        Packet {
            bth: bth(Service::Srd),
            deth: Some(deth),
            operation: Operation::Srd(srd),
            payload: payload.to_vec(),
        }
    })
}

/// A packet of each opcode that there is.
pub(crate) fn all() -> Vec<Packet> {
    use Position::{First, Last, Middle, Only};
    let reth = Reth { addr: 0x0123_4567_89ab_cdef, rkey: 0x0bad_cafe, len: 0x8765_4321 };
    let atomic =
        AtomicEth { addr: 0x10, rkey: 0xdead_beef, swap_or_add: u64::MAX - 1, compare: 0x77 };
    let aeth = Aeth { syndrome: Syndrome::Ack(31), msn: 0xab_cdef };
    let nak = Aeth { syndrome: Syndrome::Nak(NakCode::RemoteAccessError), msn: 1 };
    let send = |position, imm, invalidate| Operation::Send { position, imm, invalidate };
    let write = |position, reth, imm| Operation::Write { position, reth, imm };
    let response = |position, aeth| Operation::ReadResponse { position, aeth };
    let unreliable = [
        send(First, None, None),
        send(Middle, None, None),
        send(Last, None, None),
        send(Last, Some(1), None),
        send(Only, None, None),
        send(Only, Some(0xffff_fffe), None),
        write(First, Some(reth), None),
        write(Middle, None, None),
        write(Last, None, None),
        write(Last, None, Some(2)),
        write(Only, Some(reth), None),
        write(Only, Some(reth), Some(3)),
    ];
    let with_payload = [
        send(Last, None, Some(4)),
        send(Only, None, Some(5)),
        response(First, Some(aeth)),
        response(Middle, None),
        response(Last, Some(aeth)),
        response(Only, Some(aeth)),
    ];
    let without = [
        Operation::ReadRequest(reth),
        Operation::Acknowledge(nak),
        Operation::AtomicAcknowledge { aeth, original: 0x8877_6655_4433_2211 },
        Operation::CompareSwap(atomic),
        Operation::FetchAdd(atomic),
    ];
    let packet = |service, operation, payload: &[u8]| Packet {
        bth: bth(service),
        deth: None,
        operation,
        payload: payload.to_vec(),
    };
    let mut packets: Vec<Packet> = unreliable
        .iter()
        .flat_map(|operation| {
            [Service::Rc, Service::Uc].map(|service| packet(service, *operation, b"payload"))
        })
        .collect();
    packets.extend(with_payload.map(|operation| packet(Service::Rc, operation, &[9; 4])));
    packets.extend(without.map(|operation| packet(Service::Rc, operation, &[])));
    packets.push(datagram(b"datagram"));
    packets.extend(srd());
    let mut immediate = datagram(&[]);
    immediate.operation = send(Only, Some(6), None);
    packets.push(immediate);
    packets
}
