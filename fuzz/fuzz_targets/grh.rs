//! Any bytes are a global route header or refused, and the software device's are read as what they were made of.
#![no_main]

use std::net::IpAddr;

use ibverbs::{Gid, Grh};
use ibverbs_soft::transport::Path;
use ibverbs_soft::wire::{grh, PacketView};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    source: IpAddr,
    dest: IpAddr,
    traffic_class: u8,
    hop_limit: u8,
    flow_label: u32,
    bytes: &'a [u8],
}

fn gid(address: IpAddr) -> Gid {
    Gid::from(match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    })
}

fuzz_target!(|input: Input| {
    if let Ok(grh) = Grh::from_bytes(input.bytes) {
        assert_eq!(input.bytes.len(), Grh::BYTES);
        assert!(grh.flow_label() < 1 << 20);
    }

    let Input { source, dest, traffic_class, hop_limit, flow_label, bytes } = input;
    let Ok(packet) = PacketView::parse(bytes) else { return };
    let path = Path { source, dest, traffic_class, hop_limit, flow_label };
    let header = grh(&path, &packet);
    let read = Grh::from_bytes(&header).expect("it is a global route header");
    let is_v4 = source.is_ipv4() && dest.is_ipv4();
    assert_eq!((read.sgid(), read.dgid()), (gid(source), gid(dest)));
    assert_eq!((read.traffic_class(), read.hop_limit()), (traffic_class, hop_limit));
    assert_eq!(read.flow_label(), if is_v4 { 0 } else { flow_label & 0xf_ffff });
    assert!(read.is_roce_v2());
});
