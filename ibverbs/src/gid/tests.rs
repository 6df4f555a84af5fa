use super::*;

fn gid(text: &str) -> Gid {
    text.parse().unwrap()
}

fn entry(index: u32, gid_type: GidType, text: &str) -> GidEntry {
    GidEntry { gid: gid(text), index, port: 1, gid_type, netdev_index: None }
}

#[test]
fn converts_both_ways() {
    let bytes: [u8; 16] = std::array::from_fn(|i| i as u8);
    assert_eq!(<[u8; 16]>::from(Gid::from(bytes)), bytes);
    let address = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    assert_eq!(Ipv6Addr::from(Gid::from(address)), address);
    let address = Ipv4Addr::new(10, 7, 0, 1);
    assert_eq!(Gid::from(address), gid("::ffff:10.7.0.1"));
    assert_eq!(Gid::from(address).to_ipv4_mapped(), Some(address));
    assert_eq!(gid("2001:db8::1").to_ipv4_mapped(), None);
}

#[test]
fn splits_into_prefix_and_interface() {
    let gid = gid("fe80::5054:ff:fe12:3456");
    assert_eq!(gid.subnet_prefix(), 0xfe80_0000_0000_0000);
    assert_eq!(gid.interface_id(), 0x5054_00ff_fe12_3456);
}

#[test]
fn prints_short_and_in_full() {
    let gid = gid("fe80::5054:ff:fe12:3456");
    assert_eq!(gid.to_string(), "fe80::5054:ff:fe12:3456");
    assert_eq!(format!("{gid:#}"), "fe80:0000:0000:0000:5054:00ff:fe12:3456");
    assert_eq!(format!("{gid:?}"), "Gid(fe80::5054:ff:fe12:3456)");
    assert_eq!(format!("{:>8}|{:<8}|", self::gid("::1"), self::gid("::1")), "     ::1|::1     |");
    assert_eq!(format!("{gid:#}").parse(), Ok(gid));
    assert!("10.7.0.1".parse::<Gid>().is_err());
}

#[test]
fn classifies() {
    assert!(gid("::ffff:10.7.0.1").is_ipv4_mapped());
    assert!(!gid("::fffe:10.7.0.1").is_ipv4_mapped());
    assert!(!gid("::1:ffff:a07:1").is_ipv4_mapped());
    for local in ["fe80::1", "febf::1", "::ffff:169.254.1.1"] {
        assert!(gid(local).is_link_local(), "{local}");
    }
    for other in ["fec0::1", "fe7f::1", "::ffff:169.253.1.1", "2001:db8::1"] {
        assert!(!gid(other).is_link_local(), "{other}");
    }
    for loopback in ["::1", "::ffff:127.0.0.1", "::ffff:127.255.255.255"] {
        assert!(gid(loopback).is_loopback(), "{loopback}");
    }
    assert!(!gid("::2").is_loopback());
    assert!(!gid("::ffff:128.0.0.1").is_loopback());
    assert!(gid("ff02::1").is_multicast());
    assert!(!gid("fe80::1").is_multicast());
    assert!(gid("::").is_reserved());
    assert!(!gid("::1").is_reserved());
}

#[test]
fn ranks_by_reach() {
    let best_first = [
        entry(9, GidType::ROCE_V2, "::ffff:10.7.0.1"),
        entry(8, GidType::ROCE_V2, "2001:db8::1"),
        entry(7, GidType::IB, "fe80::1"),
        entry(6, GidType::ROCE_V1, "::ffff:10.7.0.1"),
        entry(5, GidType::ROCE_V1, "2001:db8::1"),
        entry(4, GidType(7), "2001:db8::1"),
        entry(3, GidType::ROCE_V2, "::ffff:127.0.0.1"),
        entry(2, GidType::ROCE_V2, "::ffff:169.254.0.1"),
        entry(1, GidType::ROCE_V2, "fe80::1"),
        entry(0, GidType::ROCE_V1, "fe80::1"),
    ];
    let mut entries = best_first.to_vec();
    entries.reverse();
    for expected in best_first {
        assert_eq!(best_of_port(&entries, 1), Some(expected));
        assert_eq!(entries.pop(), Some(expected));
    }
    assert_eq!(best_of_port(&entries, 1), None);
}

#[test]
fn prefers_the_lower_index_among_equals() {
    let entries = [
        entry(5, GidType::ROCE_V2, "::ffff:10.7.0.1"),
        entry(3, GidType::ROCE_V2, "::ffff:10.8.0.1"),
    ];
    assert_eq!(best_of_port(&entries, 1).map(|entry| entry.index()), Some(3));
}

#[test]
fn never_ranks_what_cannot_send() {
    let entries = [
        entry(0, GidType::ROCE_V2, "::"),
        entry(1, GidType::ROCE_V2, "ff02::1"),
        entry(256, GidType::ROCE_V2, "::ffff:10.7.0.1"),
    ];
    assert_eq!(best_of_port(&entries, 1), None);
}

#[test]
fn looks_at_one_port() {
    let other = GidEntry { port: 2, ..entry(0, GidType::ROCE_V2, "::ffff:10.7.0.1") };
    let local = entry(0, GidType::ROCE_V1, "fe80::1");
    assert_eq!(best_of_port(&[other, local], 1), Some(local));
    assert_eq!(best_of_port(&[other, local], 2), Some(other));
    assert_eq!(best_of_port(&[other, local], 3), None);
}

#[test]
fn reads_what_c_wrote() {
    let raw = ffi::ibv_gid_entry {
        gid: ffi::ibv_gid { raw: gid("::ffff:10.7.0.1").into() },
        gid_index: 3,
        port_num: 2,
        gid_type: 99,
        ndev_ifindex: 0,
    };
    let entry = GidEntry::new(&raw).unwrap();
    assert_eq!((entry.gid(), entry.index(), entry.port()), (gid("::ffff:10.7.0.1"), 3, 2));
    assert_eq!((entry.gid_type().name(), entry.gid_type()), (None, GidType(99)));
    assert_eq!((entry.netdev_index(), entry.netdev_name()), (None, None));
    assert_eq!(GidEntry::new(&ffi::ibv_gid_entry { port_num: 256, ..raw }), None);
}

#[test]
#[cfg_attr(miri, ignore = "Miri knows no network devices")]
fn names_the_network_device() {
    // Every network namespace has the loopback device, and gives it the index 1.
    let lo = GidEntry { netdev_index: Some(1), ..entry(0, GidType::ROCE_V2, "::1") };
    assert_eq!(lo.netdev_name().as_deref(), Some("lo"));
    let none = GidEntry { netdev_index: Some(u32::MAX), ..lo };
    assert_eq!(none.netdev_name(), None);
}
