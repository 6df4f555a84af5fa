//! What a device says about itself, compared with what the kernel says in `/sys` if it knows the device.

use std::path::PathBuf;
use std::time::Duration;

use ibverbs::{
    AtomicCap, Context, DeviceCaps, Error, Gid, GidType, Guid, LinkLayer, Mtu, NodeType,
    PhysicalState, PortState, TransportType,
};
use ibverbs_tests::{eventually, test_context, test_context_with, Ability, PORT};

/// A file of the device in `/sys`; `None` if there is none of this name, or it cannot be read now.
fn sys(ctx: &Context, file: &str) -> Option<String> {
    let mut path = PathBuf::from("/sys/class/infiniband");
    path.extend([ctx.device().name(), file]);
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn port_file(ctx: &Context, file: &str) -> Option<String> {
    sys(ctx, &format!("ports/{PORT}/{file}"))
}

/// The number before the colon, as in `4: ACTIVE`.
fn number(text: &str) -> u32 {
    let digits = text.split(':').next().unwrap_or("").trim();
    digits.parse().unwrap_or_else(|_| panic!("no number in {text:?}"))
}

#[test]
fn the_list_names_every_device_that_the_kernel_has_a_driver_for() {
    let Some(ctx) = test_context_with([Ability::Kernel]) else { return };
    let devices = ibverbs::devices().unwrap();
    assert_eq!((devices.len(), devices.is_empty()), (devices.iter().count(), false));
    assert_eq!(devices.iter().len(), devices.len());
    for (index, device) in (&devices).into_iter().enumerate() {
        let same = devices.get(index).unwrap();
        assert_eq!((same.name(), same.guid()), (device.name(), device.guid()));
        let path = PathBuf::from("/sys/class/infiniband").join(device.name());
        assert!(path.exists(), "{device:?}");
    }
    assert!(devices.get(devices.len()).is_none());
    assert!(devices.iter().any(|device| device.name() == ctx.device().name()));
    let debug = format!("{devices:?}");
    assert!(debug.contains(ctx.device().name()), "{debug}");
}

#[test]
fn an_opened_device_outlives_the_list_that_it_came_from() {
    let ctx = test_context();
    let name = ctx.device().name().to_owned();
    for _ in 0..10 {
        drop(ibverbs::devices().unwrap());
    }
    assert_eq!(ctx.device().name(), name);
    assert!(ctx.query_device().is_ok());
}

#[test]
fn the_device_s_identity_is_that_of_the_kernel() {
    let Some(ctx) = test_context_with([Ability::Kernel]) else { return };
    let device = ctx.device();
    let attr = ctx.query_device().unwrap();
    assert_eq!(Some(device.guid().to_string()), sys(&ctx, "node_guid"));
    assert_eq!(device.guid(), attr.node_guid());
    assert_eq!(Some(attr.system_image_guid().to_string()), sys(&ctx, "sys_image_guid"));
    assert!(!device.guid().is_reserved());
    assert_eq!(u64::from(device.guid().oui()), device.guid().to_u64() >> 40);
    assert_eq!(Guid::new(device.guid().to_u64()), device.guid());
    // SoftRoCE has none, for which its provider says 0.0.0.
    if let Some(firmware) = sys(&ctx, "fw_ver").filter(|text| !text.is_empty()) {
        assert_eq!(attr.firmware_version(), firmware);
    }
    let node_type = sys(&ctx, "node_type").map(|text| number(&text));
    assert_eq!(u32::try_from(device.node_type().0).ok(), node_type);
    if device.node_type() == NodeType::CA {
        assert_eq!(device.transport_type(), TransportType::IB);
    }
    assert!(device.index().is_some(), "Linux 6.1 knows the index");
    let debug = format!("{ctx:?}");
    assert!(debug.contains(device.name()), "{debug}");
}

#[test]
fn the_device_s_limits_make_sense() {
    let ctx = test_context();
    let attr = ctx.query_device().unwrap();
    for (name, limit) in [
        ("ports", attr.num_ports().into()),
        ("queue pairs", attr.max_qp()),
        ("requests", attr.max_qp_wr()),
        ("scatter entries", attr.max_sge()),
        ("scatter entries of a read", attr.max_sge_rd()),
        ("completion queues", attr.max_cq()),
        ("completions", attr.max_cqe()),
        ("regions", attr.max_mr()),
        ("domains", attr.max_pd()),
        ("partitions", attr.max_pkeys().into()),
    ] {
        assert!(limit > 0, "no {name}: {attr:?}");
    }
    assert!(attr.max_mr_size() >= 1 << 20, "{attr:?}");
    assert_ne!(attr.page_size_cap() & 4096, 0, "{attr:?}");
    assert!(attr.max_qp_rd_atom() > 0 && attr.max_qp_init_rd_atom() > 0, "{attr:?}");
    assert!(attr.max_res_rd_atom() >= attr.max_qp_rd_atom(), "{attr:?}");
    assert!(attr.local_ca_ack_delay() < Duration::from_secs(10), "{attr:?}");
    assert!([AtomicCap::NONE, AtomicCap::HCA, AtomicCap::GLOB].contains(&attr.atomic_cap()));
    let raw = attr.as_raw();
    assert_eq!(raw.max_qp_wr as u32, attr.max_qp_wr());
}

#[test]
fn the_extended_attributes_contain_the_basic_ones() {
    let ctx = test_context();
    let (attr, ex) = (ctx.query_device().unwrap(), ctx.query_device_ex().unwrap());
    assert_eq!(format!("{attr:?}"), format!("{:?}", ex.base()));
    assert!(ex.capabilities().contains(attr.capabilities()));
    assert_eq!(ex.num_ports(), attr.num_ports().into());
    if ctx.device().node_type() == NodeType::CA {
        assert!(attr.capabilities().contains(DeviceCaps::RC_RNR_NAK_GEN), "{attr:?}");
    }
}

#[test]
fn the_port_s_state_is_that_of_the_kernel() {
    let Some(ctx) = test_context_with([Ability::Kernel]) else { return };
    let port = ctx.query_port(PORT).unwrap();
    assert_eq!(port.port(), PORT);
    assert_eq!(Some(port.state().0), port_file(&ctx, "state").map(|text| number(&text)));
    assert_eq!(port.state(), PortState::ACTIVE, "the tests need a port that works");
    let physical = port_file(&ctx, "phys_state").map(|text| number(&text));
    assert_eq!(Some(u32::from(port.physical_state().0)), physical);
    assert_eq!(port.physical_state(), PhysicalState::LINK_UP);
    let link_layer = port_file(&ctx, "link_layer").unwrap();
    assert_eq!(port.link_layer().to_string(), link_layer);
    assert!([LinkLayer::ETHERNET, LinkLayer::INFINIBAND].contains(&port.link_layer()));
    let lid = port_file(&ctx, "lid").unwrap();
    assert_eq!(format!("{:#x}", port.lid()), lid);
}

#[test]
fn the_port_s_rate_is_that_of_the_kernel() {
    let Some(ctx) = test_context_with([Ability::Kernel]) else { return };
    let port = ctx.query_port(PORT).unwrap();
    // As in `2.5 Gb/sec (1X SDR)`.
    let text = port_file(&ctx, "rate").unwrap();
    let Some(gbps) = port.gbps() else { panic!("{text}: {port:?}") };
    let rate: f64 = text.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(gbps, rate, "{text}");
    assert!(text.contains(port.active_width().name().unwrap()), "{text}: {port:?}");
    if let Some(speed) = text.split([' ', ')']).nth(3).filter(|name| !name.is_empty()) {
        assert_eq!(port.active_speed().name(), Some(speed), "{text}");
    }
}

#[test]
fn the_port_s_mtu_fits_its_network_device() {
    let ctx = test_context();
    let port = ctx.query_port(PORT).unwrap();
    assert!(port.active_mtu() <= port.max_mtu(), "{port:?}");
    let bytes = port.active_mtu().bytes().expect("an MTU with a name");
    assert_eq!(Mtu::from_bytes(bytes), Some(port.active_mtu()));
    assert!(port.max_msg_size() >= bytes);
    if port.link_layer() == LinkLayer::ETHERNET {
        let gid = ctx.routable_gid(PORT).unwrap().expect("a GID");
        let netdev = gid.netdev_name().expect("a network device");
        let path = format!("/sys/class/net/{netdev}/mtu");
        let mtu: u32 = std::fs::read_to_string(path).unwrap().trim().parse().unwrap();
        assert!(bytes < mtu, "{bytes} bytes in frames of {mtu}");
    }
}

#[test]
fn the_gid_table_is_that_of_the_kernel() {
    let Some(ctx) = test_context_with([Ability::Kernel]) else { return };
    let length = ctx.query_port(PORT).unwrap().gid_table_len();
    let table = ctx.gid_table().unwrap();
    let mut used = 0;
    for index in 0..length {
        let text = port_file(&ctx, &format!("gids/{index}"));
        let expected = text.and_then(|text| text.parse::<Gid>().ok()).filter(|g| !g.is_reserved());
        let entry = table.iter().find(|entry| (entry.port(), entry.index()) == (PORT, index));
        assert_eq!(entry.map(|entry| entry.gid()), expected, "index {index}");
        let queried = ctx.query_gid(PORT, index).unwrap();
        assert_eq!(Some(queried).filter(|gid| !gid.is_reserved()), expected, "index {index}");
        let Some(entry) = entry else { continue };
        used += 1;
        let type_name = port_file(&ctx, &format!("gid_attrs/types/{index}")).unwrap();
        let expected = match type_name.as_str() {
            "RoCE v2" => GidType::ROCE_V2,
            // The kernel's file does not tell the two apart.
            "IB/RoCE v1" if entry.netdev_index().is_some() => GidType::ROCE_V1,
            "IB/RoCE v1" => GidType::IB,
            _ => panic!("{type_name}"),
        };
        assert_eq!(entry.gid_type(), expected);
        let netdev = port_file(&ctx, &format!("gid_attrs/ndevs/{index}"));
        assert_eq!(entry.netdev_name(), netdev);
    }
    assert!(used > 0, "the tests need a GID");
    assert_eq!(used, table.iter().filter(|entry| entry.port() == PORT).count());
}

#[test]
fn the_routable_gid_is_one_of_the_table_and_the_best_of_it() {
    let ctx = test_context();
    let best = ctx.routable_gid(PORT).unwrap().expect("a GID");
    let table = ctx.gid_table().unwrap();
    assert!(table.contains(&best), "{best:?}");
    let routable = |gid: Gid| !gid.is_link_local() && !gid.is_loopback() && !gid.is_multicast();
    if best.gid_type() != GidType::IB && !routable(best.gid()) {
        let better = table.iter().find(|entry| entry.port() == PORT && routable(entry.gid()));
        assert_eq!(better, None);
    }
}

#[test]
fn the_partition_keys_are_those_of_the_kernel() {
    let Some(ctx) = test_context_with([Ability::Kernel]) else { return };
    let length = ctx.query_port(PORT).unwrap().pkey_table_len();
    assert!(length > 0);
    for index in 0..length.min(16) {
        let expected = port_file(&ctx, &format!("pkeys/{index}")).unwrap();
        assert_eq!(format!("{:#06x}", ctx.query_pkey(PORT, index).unwrap()), expected);
    }
}

#[test]
fn a_partition_key_is_found_where_it_stands() {
    let ctx = test_context();
    let length = ctx.query_port(PORT).unwrap().pkey_table_len();
    let keys: Vec<_> = (0..length).map(|index| ctx.query_pkey(PORT, index).unwrap()).collect();
    for (index, &key) in (0..).zip(&keys) {
        let found = ctx.pkey_index(PORT, key).unwrap().expect("it is in the table");
        assert!(found <= index && keys[usize::from(found)] == key);
    }
    let absent = (0..=u16::MAX).find(|key| !keys.contains(key)).expect("the table is short");
    assert_eq!(ctx.pkey_index(PORT, absent).unwrap(), None);
    assert!(matches!(ctx.pkey_index(99, keys[0]), Err(Error::InvalidPort { port: 99, .. })));
}

#[test]
fn the_port_s_speed_in_effect_is_told_or_said_to_be_unknown() {
    let ctx = test_context();
    match ctx.query_port_speed(PORT) {
        Ok(speed) => assert!(speed > 0),
        Err(Error::Unsupported { operation }) => assert_eq!(operation, "ibv_query_port_speed"),
        Err(error) => panic!("{error}"),
    }
    assert!(matches!(ctx.query_port_speed(99), Err(Error::InvalidPort { port: 99, .. })));
}

#[test]
fn the_clock_runs_or_is_unsupported() {
    let ctx = test_context();
    let read = || ctx.query_rt_values_ex().map(|values| values.raw_clock());
    match read() {
        Err(Error::Unsupported { operation }) => assert_eq!(operation, "ibv_query_rt_values_ex"),
        Err(other) => panic!("{other:?}"),
        Ok(before) => {
            assert_ne!(ctx.query_device_ex().unwrap().core_clock_khz(), None);
            eventually("the clock runs", || read().unwrap() != before);
        }
    }
}

#[test]
fn contexts_of_threads_ask_at_the_same_time() {
    let ctx = test_context();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let ctx = ctx.clone();
            std::thread::spawn(move || {
                for _ in 0..20 {
                    ctx.query_device().unwrap();
                    ctx.query_port(PORT).unwrap();
                    ctx.gid_table().unwrap();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    ctx.close().unwrap();
}
