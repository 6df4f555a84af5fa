//! Socket addresses, as C and as Rust have them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use ibverbs_sys as ffi;
use rustix::io::Errno;

use crate::device::Result;

/// The address that a pointer points to; nothing if it is null.
///
/// # Errors
///
/// `EINVAL` if it is not one of IPv4 or IPv6.
///
/// # Safety
///
/// If it is not null, it points to an address that is as long as its family demands.
pub(super) unsafe fn read(from: *const libc::sockaddr) -> Result<Option<SocketAddr>> {
    if from.is_null() {
        return Ok(None);
    }
    // SAFETY: every address begins with its family.
    let family = unsafe { (*from).sa_family };
    match family.into() {
        libc::AF_INET => {
            // SAFETY: by the caller's promise, an address of this family is there; it need not be aligned for it.
            let raw = unsafe { from.cast::<libc::sockaddr_in>().read_unaligned() };
            let ip = Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr));
            Ok(Some(SocketAddrV4::new(ip, u16::from_be(raw.sin_port)).into()))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let raw = unsafe { from.cast::<libc::sockaddr_in6>().read_unaligned() };
            let (ip, port) = (Ipv6Addr::from(raw.sin6_addr.s6_addr), u16::from_be(raw.sin6_port));
            Ok(Some(SocketAddrV6::new(ip, port, raw.sin6_flowinfo, raw.sin6_scope_id).into()))
        }
        _ => Err(Errno::INVAL),
    }
}

/// The address as C has it, with zeros behind.
pub(super) fn storage(addr: SocketAddr) -> libc::sockaddr_storage {
    let mut any = ffi::rdma_addr__bindgen_ty_1::default();
    match addr {
        SocketAddr::V4(addr) => {
            any.src_sin = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: addr.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*addr.ip()).to_be() },
                sin_zero: [0; 8],
            };
        }
        SocketAddr::V6(addr) => {
            any.src_sin6 = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: addr.port().to_be(),
                sin6_flowinfo: addr.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: addr.ip().octets() },
                sin6_scope_id: addr.scope_id(),
            };
        }
    }
    // SAFETY: all of the union was zero, of which some was written since.
    unsafe { any.src_storage }
}

/// The GID of an address.
pub(super) fn gid(ip: IpAddr) -> ffi::ibv_gid {
    let ip = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    ffi::ibv_gid { raw: ip.octets() }
}

/// The address that stands for all of the same family.
pub(super) fn any_like(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// The same address with this IP address.
pub(super) fn with_ip(mut addr: SocketAddr, ip: IpAddr) -> SocketAddr {
    addr.set_ip(ip);
    addr
}

pub(super) fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.segments()[0] & 0xffc0 == 0xfe80)
}

/// The network that a link-local address is valid on.
pub(super) fn scope(addr: SocketAddr) -> u32 {
    match addr {
        SocketAddr::V6(addr) => addr.scope_id(),
        SocketAddr::V4(_) => 0,
    }
}
