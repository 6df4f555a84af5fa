//! Any bytes are a packet or refused, and a packet is the bytes that it came from.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use ibverbs_soft::transport::Path;
use ibverbs_soft::wire::{Encapsulation, Operation, Packet, SrdPart};
use libfuzzer_sys::fuzz_target;

const ICRC_LEN: usize = 4;

/// The bytes without what is not read: reserved bits, the contents of the padding, and the CRC.
fn normal(bytes: &[u8], packet: &Packet) -> Vec<u8> {
    let pad = packet.payload.len().wrapping_neg() % 4;
    let mut bytes = bytes[..bytes.len() - ICRC_LEN - pad].to_vec();
    // The congestion bits, and those beside the request for an acknowledgement.
    bytes[4] = 0;
    bytes[8] &= 0x80;
    if packet.deth.is_some() {
        bytes[16] = 0;
    }
    if let Operation::Srd(srd) = packet.operation {
        bytes[24] = 0;
        match srd.part {
            SrdPart::Fragment { .. } => bytes[28] = 0,
            // Nothing is counted there.
            SrdPart::Nak(_) => bytes[29..32].fill(0),
            _ => {}
        }
    }
    bytes
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(packet) = Packet::parse(bytes) else { return };
    let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let path =
        Path { source: localhost, dest: localhost, traffic_class: 0, hop_limit: 64, flow_label: 0 };
    let encapsulation = Encapsulation { path, source_port: 0xc000, identification: 0 };
    let again = packet.view().to_bytes(&encapsulation).expect("what was read can be written");
    assert_eq!(encapsulation.check(&again), Ok(0));
    assert_eq!(Packet::parse(&again).as_ref(), Ok(&packet));
    assert_eq!(normal(&again, &packet), normal(bytes, &packet));
});
