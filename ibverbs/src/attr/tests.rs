use std::time::Duration;

use super::*;
use crate::ffi;

fn zeroed<T>() -> T {
    // SAFETY: the tests ask for the C attribute structures only, which are numbers all the way
    // down.
    unsafe { std::mem::zeroed() }
}

#[test]
fn limits_are_never_negative() {
    assert_eq!(limit(-1), 0);
    assert_eq!(limit(i32::MAX), 0x7fff_ffff);
}

#[test]
fn mtu_counts_bytes() {
    for (mtu, bytes) in [
        (Mtu::B256, 256),
        (Mtu::B512, 512),
        (Mtu::B1024, 1024),
        (Mtu::B2048, 2048),
        (Mtu::B4096, 4096),
    ] {
        assert_eq!(mtu.bytes(), Some(bytes));
        assert_eq!(Mtu::from_bytes(bytes), Some(mtu));
        assert_eq!(mtu.to_string(), format!("{bytes} bytes"));
    }
    assert_eq!(Mtu(6).bytes(), None);
    assert_eq!(Mtu::from_bytes(1500), None);
    assert!(Mtu::B256 < Mtu::B4096);
}

#[test]
fn port_speed_is_rate_times_lanes() {
    let mut raw: ffi::ibv_port_attr = zeroed();
    let speed = |raw| PortAttr::new(1, raw).gbps();
    assert_eq!(speed(raw), None);
    raw.active_speed = 32;
    raw.active_width = 2;
    assert_eq!(speed(raw), Some(100.0));
    raw.active_width = 8;
    raw.active_speed = 128;
    assert_eq!(speed(raw), Some(1200.0));
    // What does not fit into eight bits stands in the later field, whatever the older one says.
    raw.active_speed_ex = 256;
    raw.active_width = 2;
    assert_eq!(speed(raw), Some(800.0));
    assert_eq!(PortAttr::new(1, raw).active_speed(), LinkSpeed::XDR);
    raw.active_width = 3;
    assert_eq!(speed(raw), None);
}

#[test]
fn port_attributes_read_well() {
    let raw = ffi::ibv_port_attr {
        state: ffi::IBV_PORT_ACTIVE,
        active_mtu: ffi::IBV_MTU_1024,
        max_mtu: 77,
        gid_tbl_len: -5,
        port_cap_flags: ffi::IBV_PORT_CM_SUP | ffi::IBV_PORT_IP_BASED_GIDS | 1 << 31,
        pkey_tbl_len: 64,
        max_vl_num: 5,
        subnet_timeout: 18,
        phys_state: 5,
        link_layer: 2,
        flags: 1,
        active_speed: 1,
        active_width: 1,
        ..zeroed()
    };
    let attr = PortAttr::new(3, raw);
    assert_eq!((attr.port(), attr.gid_table_len(), attr.pkey_table_len()), (3, 0, 64));
    assert_eq!((attr.max_virtual_lanes(), attr.grh_required()), (Some(15), true));
    assert_eq!(attr.subnet_timeout(), Duration::from_nanos(4096 << 18));
    assert_eq!(attr.as_raw().subnet_timeout, 18);
    let text = format!("{attr:?}");
    for part in [
        "PortAttr { port: 3, state: PortState::ACTIVE, physical_state: PhysicalState::LINK_UP",
        "link_layer: LinkLayer::ETHERNET, max_mtu: Mtu(77), active_mtu: Mtu::B1024",
        "active_speed: LinkSpeed::SDR, active_width: LinkWidth::X1, gbps: Some(2.5)",
        "capabilities: PortCaps(CM_SUP | IP_BASED_GIDS | 0x80000000)",
        "capabilities2: PortCaps2(0x0)",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[test]
fn flags_print_their_names() {
    assert_eq!(DeviceCaps::empty().to_string(), "none");
    assert_eq!((DeviceCaps::XRC | DeviceCaps::SRQ_RESIZE).to_string(), "SRQ_RESIZE | XRC");
    let unknown = PortCaps2::from_bits_retain(1 << 15) | PortCaps2::VIRT_SUP;
    assert_eq!(unknown.to_string(), "VIRT_SUP | 0x8000");
}

#[test]
fn device_attributes_read_well() {
    let mut raw: ffi::ibv_device_attr = zeroed();
    for (to, from) in raw.fw_ver.iter_mut().zip(b"20.31.1014\0rest") {
        *to = *from as _;
    }
    raw.node_guid = 0x5054_00ff_fe12_3456_u64.to_be();
    raw.vendor_id = 0x02c9;
    raw.page_size_cap = 0xffff_f000;
    raw.device_cap_flags = ffi::IBV_DEVICE_XRC | 1 << 15;
    raw.atomic_cap = ffi::IBV_ATOMIC_HCA;
    raw.max_qp = 262_144;
    raw.max_sge = -1;
    raw.local_ca_ack_delay = 16;
    raw.phys_port_cnt = 2;
    let attr = DeviceAttr::new(raw);
    assert_eq!(attr.firmware_version(), "20.31.1014");
    assert_eq!((attr.max_qp(), attr.max_sge(), attr.num_ports()), (262_144, 0, 2));
    assert_eq!(attr.node_guid().to_u64(), 0x5054_00ff_fe12_3456);
    assert_eq!(attr.local_ca_ack_delay(), Duration::from_nanos(4096 << 16));
    let text = format!("{attr:?}");
    for part in [
        r#"DeviceAttr { firmware_version: "20.31.1014", node_guid: Guid(5054:00ff:fe12:3456)"#,
        "vendor_id: 0x2c9",
        "capabilities: DeviceCaps(XRC | 0x8000), atomic_cap: AtomicCap::HCA",
        "page_size_cap: 0xfffff000, max_qp: 262144",
        "local_ca_ack_delay: 268.435456ms }",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[test]
fn firmware_version_may_fill_its_field() {
    let mut raw: ffi::ibv_device_attr = zeroed();
    raw.fw_ver.fill(b'9' as _);
    assert_eq!(DeviceAttr::new(raw).firmware_version(), "9".repeat(64));
}

#[test]
fn what_a_kernel_did_not_fill_is_none() {
    let attr = DeviceAttrEx::new(zeroed());
    assert_eq!(attr.num_ports(), 0);
    assert_eq!((attr.timestamp_mask(), attr.core_clock_khz()), (None, None));
    assert_eq!((attr.tso_caps(), attr.rss_caps(), attr.packet_pacing_caps()), (None, None, None));
    assert_eq!((attr.tag_matching_caps(), attr.cq_moderation_caps()), (None, None));
    assert_eq!(attr.pci_atomic_caps(), None);
    assert_eq!((attr.max_dm_size(), attr.max_wq_type_rq()), (0, 0));
    assert!(attr.odp_caps().general.is_empty() && attr.odp_caps().rc.is_empty());
    assert!(attr.raw_packet_caps().is_empty() && attr.capabilities().is_empty());
}

#[test]
fn extended_attributes_read_well() {
    let mut raw: ffi::ibv_device_attr_ex = zeroed();
    raw.orig_attr.device_cap_flags = ffi::IBV_DEVICE_XRC;
    raw.orig_attr.phys_port_cnt = 1;
    raw.device_cap_flags_ex = ffi::IBV_DEVICE_RAW_SCATTER_FCS;
    raw.phys_port_cnt_ex = 300;
    raw.completion_timestamp_mask = 0x7fff_ffff_ffff_ffff;
    raw.hca_core_clock = 156_250;
    raw.odp_caps.general_caps = 3;
    raw.odp_caps.per_transport_caps.rc_odp_caps = 0b11;
    raw.xrc_odp_caps = 1 << 5;
    raw.tso_caps.max_tso = 262_144;
    raw.tso_caps.supported_qpts = 1 << ffi::IBV_QPT_RAW_PACKET;
    raw.rss_caps.supported_qpts = 1 << ffi::IBV_QPT_RAW_PACKET;
    raw.rss_caps.rx_hash_fields_mask = 1 << 31 | 1;
    raw.rss_caps.rx_hash_function = 1;
    raw.packet_pacing_caps.qp_rate_limit_max = 100_000_000;
    raw.packet_pacing_caps.supported_qpts = 1 << ffi::IBV_QPT_RC;
    raw.tm_caps.max_num_tags = 127;
    raw.cq_mod_caps.max_cq_count = 65_535;
    raw.cq_mod_caps.max_cq_period = 4095;
    raw.pci_atomic_caps.fetch_add = 0b10;
    let attr = DeviceAttrEx::new(raw);
    assert_eq!(attr.capabilities(), DeviceCaps::XRC | DeviceCaps::RAW_SCATTER_FCS);
    assert_eq!((attr.num_ports(), attr.base().num_ports()), (300, 1));
    let rss = attr.rss_caps().unwrap();
    assert_eq!(rss.hash_fields, RxHashFields::INNER | RxHashFields::SRC_IPV4);
    assert_eq!(rss.hash_functions, RxHashFunctions::TOEPLITZ);
    assert_eq!(attr.tag_matching_caps().map(|caps| caps.max_num_tags), Some(127));
    let text = format!("{attr:?}");
    for part in [
        "DeviceAttrEx { base: DeviceAttr {",
        "general: OdpGeneralCaps(SUPPORT | SUPPORT_IMPLICIT), rc: OdpTransportCaps(SEND | RECV)",
        "xrc: OdpTransportCaps(SRQ_RECV)",
        "timestamp_mask: Some(0x7fffffffffffffff), core_clock_khz: Some(156250)",
        "TsoCaps { max_tso: 262144, queue_pair_types: QueuePairTypes(RAW_PACKET) }",
        "max_rate_kbps: 100000000, queue_pair_types: QueuePairTypes(RC)",
        "CqModerationCaps { max_count: 65535, max_period: 4.095ms }",
        "PciAtomicCaps { fetch_add: PciAtomicSizes(BYTES_8), swap: PciAtomicSizes(0x0)",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}
