//! From an address vector to the path that packets take.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use ibverbs_sys as ffi;
use rustix::io::Errno;

use super::context::Shared;
use super::port::PORT;
use crate::device::Result;
use crate::transport::Path;

/// Where packets go to: RoCEv2's port.
const UDP_PORT: u16 = 4791;

/// The path to the port that an address vector names.
///
/// # Errors
///
/// As in the kernel: `EINVAL` for a vector that makes no sense, and what the kernel says of an address to which no route
/// leads.
pub(super) fn resolve(shared: &Shared, attr: &ffi::ibv_ah_attr) -> Result<Path> {
    let grh = &attr.grh;
    if shared.device.is_broken() {
        return Err(Errno::IO);
    }
    if attr.port_num != PORT || attr.is_global == 0 {
        return Err(Errno::INVAL);
    }
    let gids = shared.device.gids();
    let source = address(gids.get(usize::from(grh.sgid_index)).ok_or(Errno::INVAL)?);
    // SAFETY: every bit pattern is valid for the union's bytes.
    let dest = address(&unsafe { grh.dgid.raw });
    check_route(source, dest)?;
    const FLOW_LABEL: u32 = 0xf_ffff;
    const DEFAULT_HOP_LIMIT: u8 = 64;
    Ok(Path {
        source,
        dest,
        traffic_class: grh.traffic_class,
        hop_limit: if grh.hop_limit == 0 { DEFAULT_HOP_LIMIT } else { grh.hop_limit },
        flow_label: if source.is_ipv6() { grh.flow_label & FLOW_LABEL } else { 0 },
    })
}

/// The address that a GID is.
pub(super) fn address(gid: &[u8; 16]) -> IpAddr {
    Ipv6Addr::from(*gid).to_canonical()
}

/// The GID that an address is.
pub(super) fn gid(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// Whether packets get from one address to the other.
pub(super) fn check_route(source: IpAddr, dest: IpAddr) -> Result<()> {
    if dest == Ipv4Addr::BROADCAST {
        return Err(Errno::OPNOTSUPP);
    }
    if dest.is_unspecified() || dest.is_ipv4() != source.is_ipv4() {
        return Err(Errno::INVAL);
    }
    // What goes to a group leaves through the interface of the source, wherever the routes lead.
    if dest == source || dest.is_multicast() {
        return Ok(());
    }
    // The link-local address is made of the GUID: no interface has it.
    if is_link_local(source) || is_link_local(dest) {
        return Err(Errno::NETUNREACH);
    }
    // Connecting a socket sends nothing, and asks the kernel for a route.
    let found = UdpSocket::bind((source, 0)).and_then(|socket| socket.connect((dest, UDP_PORT)));
    found.map_err(|error| unreachable(source, &error))
}

fn unreachable(source: IpAddr, error: &io::Error) -> Errno {
    match Errno::from_io_error(error) {
        // A loopback address leads nowhere but to loopback addresses.
        Some(Errno::INVAL) if source.is_loopback() => Errno::NETUNREACH,
        Some(errno) => errno,
        None => Errno::NETUNREACH,
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.segments()[0] & 0xffc0 == 0xfe80)
}
