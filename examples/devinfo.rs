//! Lists the RDMA devices of this machine with their attributes, ports and GIDs.

use std::fmt::{Debug, Display};

use anyhow::Result;
use clap::Parser;
use ibverbs::{Context, DeviceAttrEx, GidEntry, PortAttr};
use ibverbs_examples::{devices, find, row};

/// List the RDMA devices of this machine with their ports and GIDs.
#[derive(Parser)]
struct Options {
    /// Show this device only
    #[arg(short, long)]
    device: Option<String>,

    /// Show this port only
    #[arg(short, long)]
    port: Option<u8>,

    /// Show all limits and capabilities too
    #[arg(short, long)]
    verbose: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let devices = devices()?;
    match &options.device {
        Some(name) => show_device(&find(&devices, Some(name))?.open()?, &options),
        None => devices.iter().try_for_each(|device| show_device(&device.open()?, &options)),
    }
}

fn show_device(context: &Context, options: &Options) -> Result<()> {
    let attr = context.query_device_ex()?;
    let (device, base) = (context.device(), attr.base());
    println!("{}", device.name());
    row(2, "node, transport", format!("{}, {}", device.node_type(), device.transport_type()));
    row(2, "firmware", base.firmware_version());
    row(2, "node GUID", base.node_guid());
    row(2, "system image GUID", base.system_image_guid());
    row(2, "vendor, part", format!("{:#06x}, {}", base.vendor_id(), base.vendor_part_id()));
    row(2, "hardware version", format!("{:#x}", base.hardware_version()));
    if options.verbose {
        show_limits(&attr, context.num_comp_vectors());
        show_capabilities(&attr);
    }
    let gids = context.gid_table()?;
    for port in options.port.map_or(1..=base.num_ports(), |port| port..=port) {
        show_port(&context.query_port(port)?, options.verbose);
        show_gids(gids.iter().filter(|gid| gid.port() == port));
    }
    Ok(())
}

fn show_limits(attr: &DeviceAttrEx, comp_vectors: u32) {
    let base = attr.base();
    row(2, "max memory region", format!("{:#x} bytes", base.max_mr_size()));
    row(2, "page sizes", format!("{:#x}", base.page_size_cap()));
    for (name, limit) in [
        ("max queue pairs", base.max_qp()),
        ("max work requests", base.max_qp_wr()),
        ("max scatter entries", base.max_sge()),
        ("max read scatter entries", base.max_sge_rd()),
        ("max completion queues", base.max_cq()),
        ("max completions", base.max_cqe()),
        ("max memory regions", base.max_mr()),
        ("max memory windows", base.max_mw()),
        ("max protection domains", base.max_pd()),
        ("max address handles", base.max_ah()),
        ("max incoming reads and atomics per QP", base.max_qp_rd_atom()),
        ("max outstanding reads and atomics per QP", base.max_qp_init_rd_atom()),
        ("max incoming reads and atomics", base.max_res_rd_atom()),
        ("max shared receive queues", base.max_srq()),
        ("max shared receives", base.max_srq_wr()),
        ("max shared scatter entries", base.max_srq_sge()),
        ("max multicast groups", base.max_mcast_grp()),
        ("max members of a group", base.max_mcast_qp_attach()),
        ("max members of all groups", base.max_total_mcast_qp_attach()),
        ("max partition keys", base.max_pkeys().into()),
        ("completion vectors", comp_vectors),
    ] {
        row(2, name, limit);
    }
    row(2, "max device memory", format!("{} bytes", attr.max_dm_size()));
    row(2, "acknowledgement delay", format!("{:?}", base.local_ca_ack_delay()));
}

fn show_capabilities(attr: &DeviceAttrEx) {
    let odp = attr.odp_caps();
    row(2, "capabilities", attr.capabilities());
    row(2, "atomic operations", attr.base().atomic_cap());
    row(2, "atomic operations over PCI", optional(attr.pci_atomic_caps()));
    row(2, "on-demand paging", odp.general);
    for (name, transport) in [("RC", odp.rc), ("UC", odp.uc), ("UD", odp.ud), ("XRC", odp.xrc)] {
        row(2, &format!("on-demand paging, {name}"), transport);
    }
    let mask = attr.timestamp_mask().map_or("none".into(), |mask| format!("{mask:#x}"));
    row(2, "timestamp mask", mask);
    row(2, "core clock", known(attr.core_clock_khz(), " kHz"));
    row(2, "raw packets", attr.raw_packet_caps());
    row(2, "TCP segmentation", optional(attr.tso_caps()));
    row(2, "receive-side scaling", optional(attr.rss_caps()));
    row(2, "packet pacing", optional(attr.packet_pacing_caps()));
    row(2, "tag matching", optional(attr.tag_matching_caps()));
    row(2, "completion moderation", optional(attr.cq_moderation_caps()));
}

fn show_port(attr: &PortAttr, verbose: bool) {
    println!("  port {}", attr.port());
    row(4, "state, link", format!("{}, {}", attr.state(), attr.physical_state()));
    row(4, "link layer", attr.link_layer());
    let (width, speed) = (attr.active_width(), attr.active_speed());
    row(4, "speed", format!("{} ({width} {speed})", known(attr.gbps(), " Gb/s")));
    row(4, "MTU", format!("{}, at most {}", attr.active_mtu(), attr.max_mtu()));
    row(4, "LID, LMC", format!("{}, {}", attr.lid(), attr.lmc()));
    row(4, "LID, SL of subnet manager", format!("{}, {}", attr.sm_lid(), attr.sm_sl()));
    if verbose {
        row(4, "max message", format!("{} bytes", attr.max_msg_size()));
        row(4, "capabilities", attr.capabilities());
        row(4, "capabilities 2", attr.capabilities2());
        row(4, "max virtual lanes", known(attr.max_virtual_lanes(), ""));
        row(4, "subnet timeout", format!("{:?}", attr.subnet_timeout()));
        row(4, "GRH required", attr.grh_required());
        row(4, "P_Key table entries", attr.pkey_table_len());
        let wrong = (attr.bad_pkey_counter(), attr.qkey_violation_counter());
        row(4, "packets with wrong P_Key, Q_Key", format!("{}, {}", wrong.0, wrong.1));
        row(4, "GID table entries", attr.gid_table_len());
    }
}

fn show_gids<'a>(entries: impl Iterator<Item = &'a GidEntry>) {
    println!("    {:>5}  {:<7}  {:<39}  {:<15}  interface", "index", "type", "GID", "IPv4");
    for entry in entries {
        let (index, gid_type, gid) = (entry.index(), entry.gid_type(), entry.gid());
        let ipv4 = gid.to_ipv4_mapped().map_or(String::new(), |address| address.to_string());
        let netdev = entry.netdev_name().unwrap_or_default();
        println!("    {index:>5}  {gid_type:<7}  {gid:#}  {ipv4:<15}  {netdev}");
    }
}

fn known(value: Option<impl Display>, unit: &str) -> String {
    value.map_or("unknown".into(), |value| format!("{value}{unit}"))
}

fn optional(caps: Option<impl Debug>) -> String {
    caps.map_or("none".into(), |caps| format!("{caps:?}"))
}
