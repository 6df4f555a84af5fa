//! The invariant CRC confirms what was sent with any identification, and nothing else.
#![no_main]

use std::net::IpAddr;

use ibverbs_soft::transport::Path;
use ibverbs_soft::wire::{Encapsulation, PacketView};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    source: IpAddr,
    dest: IpAddr,
    traffic_class: u8,
    hop_limit: u8,
    flow_label: u32,
    source_port: u16,
    identification: u16,
    expected_identification: u16,
    damage: u32,
    damaged_byte: u16,
    bytes: &'a [u8],
}

fuzz_target!(|input: Input| {
    let path = Path {
        source: input.source,
        dest: input.dest,
        traffic_class: input.traffic_class,
        hop_limit: input.hop_limit,
        flow_label: input.flow_label,
    };
    let sent = Encapsulation {
        path,
        source_port: input.source_port,
        identification: input.identification,
    };
    // Of any bytes it says something.
    let _ = sent.check(input.bytes);

    let Ok(packet) = PacketView::parse(input.bytes) else { return };
    let mut bytes = packet.to_bytes(&sent).expect("what was read can be written");
    // What routers change.
    let on_the_way = Path { traffic_class: 0, hop_limit: 1, flow_label: 0, ..path };
    let expected = input.expected_identification;
    let arrived = Encapsulation { path: on_the_way, identification: expected, ..sent };
    let is_v4 = input.source.is_ipv4() && input.dest.is_ipv4();
    // In a header of IPv6 there is no identification.
    assert_eq!(arrived.check(&bytes), Ok(if is_v4 { input.identification } else { expected }));

    // A CRC notices every damage within 32 bits; one of 65536 is mistaken for an identification.
    let at = usize::from(input.damaged_byte) % (bytes.len() - 3);
    let damage = input.damage.to_be_bytes();
    for (byte, damage) in bytes[at..].iter_mut().zip(damage) {
        *byte ^= damage;
    }
    let reserved = 4;
    let harmless = damage.iter().enumerate().all(|(i, damage)| *damage == 0 || at + i == reserved);
    if !is_v4 {
        assert_eq!(arrived.check(&bytes).is_ok(), harmless);
    }
});
