//! Rule 14, as far as it concerns datagrams: a header that a stranger wrote leads back to him, or is refused.

use ibverbs::{ffi, DatagramSender, Error, Grh, ProtectionDomain, Result};
use null_provider::{Completion, Kind, Path};

use crate::common::{null, parts, Null, Parts};
use crate::random::Random;

/// The addresses of the device: its entries 0 and 1.
const LINK_LOCAL: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 1];
const V4: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1];

const UDP: u8 = 17;

fn sender(has_grh: bool) -> DatagramSender {
    DatagramSender { src_qp: 17, slid: 0x54321, service_level: 3, dlid_path_bits: 2, has_grh }
}

/// A header of IPv6.
fn v6(next: u8, from: [u8; 16], to: [u8; 16]) -> [u8; 40] {
    let mut header = [0; 40];
    header[..8].copy_from_slice(&[0x6a, 0xbc, 0xde, 0xf1, 0, 8, next, 64]);
    header[8..24].copy_from_slice(&from);
    header[24..].copy_from_slice(&to);
    header
}

/// A header of IPv4, without a checksum, behind 20 bytes of `fill`.
fn v4(fill: u8, from: [u8; 4], to: [u8; 4]) -> [u8; 40] {
    let mut header = [fill; 40];
    header[20..32].copy_from_slice(&[0x45, 0x20, 0, 60, 0, 0, 0x40, 0, 64, UDP, 0, 0]);
    header[32..36].copy_from_slice(&from);
    header[36..].copy_from_slice(&to);
    header
}

/// The path of the handle that goes back.
fn way_back(null: &Null, pd: &ProtectionDomain, received: &[u8]) -> Result<Path> {
    let before = null.paths().len();
    let made = pd.create_ah_from_wc(1, &sender(true), received);
    let paths = null.paths();
    assert_eq!(paths.len(), before + usize::from(made.is_ok()));
    made.map(|_| paths[before])
}

#[test]
fn the_way_back_is_the_way_that_it_came() {
    let null = null();
    let Parts { pd, .. } = parts();
    let from: [u8; 16] = std::array::from_fn(|n| 0xa0 + n as u8);
    let expected = Path {
        port: 1,
        dlid: 0x4321,
        sl: 3,
        src_path_bits: 2,
        static_rate: 0,
        dgid: from,
        flow_label: 0xc_def1,
        sgid_index: 0,
        hop_limit: 255,
        traffic_class: 0xab,
    };
    // With a message behind it, which may be anything.
    let received = [&v6(UDP, from, LINK_LOCAL)[..], &[0x45; 100]].concat();
    assert_eq!(way_back(&null, &pd, &received).unwrap(), expected);
    let mut dgid = V4;
    dgid[12..].copy_from_slice(&[192, 0, 2, 1]);
    let expected = Path { dgid, flow_label: 0, sgid_index: 1, traffic_class: 0x20, ..expected };
    for fill in [0, 0xff, 0x66] {
        let header = v4(fill, [192, 0, 2, 1], [10, 0, 0, 1]);
        if fill != 0x66 {
            assert_eq!(way_back(&null, &pd, &header).unwrap(), expected);
        } else {
            // Without a checksum nothing tells that it is not a header of IPv6, to an address that is not ours.
            assert!(matches!(way_back(&null, &pd, &header), Err(Error::NoGid { port: 1 })));
        }
    }
}

#[test]
fn a_message_to_a_group_is_answered_from_an_address_of_its_kind() {
    let null = null();
    let Parts { pd, .. } = parts();
    let mut group = LINK_LOCAL;
    group[..2].copy_from_slice(&[0xff, 0x0e]);
    assert_eq!(way_back(&null, &pd, &v6(UDP, [9; 16], group)).unwrap().sgid_index, 0);
    let header = v4(0, [192, 0, 2, 1], [239, 0, 0, 1]);
    assert_eq!(way_back(&null, &pd, &header).unwrap().sgid_index, 1);
}

#[test]
fn the_way_back_is_of_the_protocol_that_it_came_with() {
    let null = null();
    let Parts { pd, .. } = parts();
    const NEXT_IBA: u8 = 0x1b;
    // Only RoCE v2 is there.
    assert!(way_back(&null, &pd, &v6(NEXT_IBA, [9; 16], LINK_LOCAL)).is_err());
    null.configure(|config| {
        config.edit_gid_entry = Some(Box::new(|entry| {
            entry.gid.raw = LINK_LOCAL;
            if entry.gid_index == 1 {
                entry.gid_type = ffi::IBV_GID_TYPE_ROCE_V1;
            }
        }));
    });
    for (next, index) in [(UDP, 0), (NEXT_IBA, 1)] {
        let path = way_back(&null, &pd, &v6(next, [9; 16], LINK_LOCAL)).unwrap();
        assert_eq!(path.sgid_index, index);
    }
}

#[test]
fn a_message_without_a_header_is_answered_by_its_local_identifier() {
    let null = null();
    let Parts { pd, .. } = parts();
    // Not on Ethernet, where that is told.
    let error = pd.create_ah_from_wc(1, &sender(false), &[]).unwrap_err();
    assert!(matches!(error, Error::Route(_)), "{error}");
    assert_eq!(null.paths(), []);
}

#[test]
fn any_header_leads_back_or_is_refused() {
    let null = null();
    let Parts { pd, .. } = parts();
    let mut random = Random::new(3);
    let mut answered = 0;
    for _ in 0..if cfg!(miri) { 100 } else { 20_000 } {
        let mut bytes: Vec<u8> = (0..random.below(60)).map(|_| random.below(256) as u8).collect();
        // Closer to something valid.
        if bytes.len() >= 40 {
            match random.below(4) {
                0 => {
                    bytes[0] = 0x60 | bytes[0] & 0xf;
                    bytes[24..40].copy_from_slice(&LINK_LOCAL);
                }
                1 => {
                    bytes[20] = 0x45;
                    bytes[36..40].copy_from_slice(&V4[12..]);
                }
                2 => bytes[24..40].copy_from_slice(&[0xff; 16]),
                _ => {}
            }
        }
        match way_back(&null, &pd, &bytes) {
            Ok(path) => {
                answered += 1;
                let grh = Grh::from_bytes(&bytes[..40]).unwrap();
                assert_eq!(path.dgid, <[u8; 16]>::from(grh.sgid()));
                assert_eq!(path.flow_label, grh.flow_label());
                assert_eq!(path.traffic_class, grh.traffic_class());
                assert!(path.sgid_index < 2 && path.flow_label < 1 << 20);
            }
            Err(Error::InvalidBytes { .. }) => {
                assert!(bytes.len() < 40 || Grh::from_bytes(&bytes[..40]).is_err());
            }
            Err(Error::NoGid { port: 1 }) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert!(answered > 0, "the test must be able to fail");
    assert_eq!(null.live(Kind::Ah), 0);
}

#[test]
fn the_sender_is_what_the_completion_says() {
    let null = null();
    let Parts { cq, .. } = parts();
    for (flags, has_grh) in [(0, false), (ffi::IBV_WC_GRH, true), (u32::MAX, true)] {
        let completion = Completion {
            src_qp: u32::MAX,
            slid: 0x54321,
            sl: 255,
            dlid_path_bits: 254,
            wc_flags: flags,
            ..Completion::default()
        };
        null.complete(cq.as_raw(), completion);
        let mut completions = cq.poll().unwrap().unwrap();
        let expected = DatagramSender {
            src_qp: u32::MAX,
            slid: 0x54321,
            service_level: 255,
            dlid_path_bits: 254,
            has_grh,
        };
        assert_eq!(completions.next().unwrap().sender(), expected);
    }
}
