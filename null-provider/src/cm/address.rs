//! Socket addresses, as C and as Rust have them.

use std::mem::offset_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use ibverbs_sys as ffi;

/// Where in an identifier the local address is, the remote one, and the GIDs of both.
pub(super) const SRC: usize = offset_of!(ffi::rdma_cm_id, route.addr.__bindgen_anon_1);
pub(super) const DST: usize = offset_of!(ffi::rdma_cm_id, route.addr.__bindgen_anon_2);
pub(super) const GIDS: usize = offset_of!(ffi::rdma_cm_id, route.addr.addr);

/// The address that a pointer points to; `None` if it is null, or not an address of IPv4 or IPv6.
///
/// # Safety
///
/// If it is not null, it points to an address that is as long as its family demands.
pub(super) unsafe fn read(from: *const libc::sockaddr) -> Option<SocketAddr> {
    if from.is_null() {
        return None;
    }
    // SAFETY: every address begins with its family.
    let family = unsafe { (*from).sa_family };
    match family.into() {
        libc::AF_INET => {
            // SAFETY: an address of this family is so long.
            let raw = unsafe { from.cast::<libc::sockaddr_in>().read() };
            let ip = Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(raw.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: an address of this family is so long.
            let raw = unsafe { from.cast::<libc::sockaddr_in6>().read() };
            let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            let port = u16::from_be(raw.sin6_port);
            Some(SocketAddrV6::new(ip, port, raw.sin6_flowinfo, raw.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// As C has it, and with its length.
pub(super) fn storage(addr: SocketAddr) -> (libc::sockaddr_storage, usize) {
    let mut both = ffi::rdma_addr__bindgen_ty_1::default();
    let len = match addr {
        SocketAddr::V4(addr) => {
            both.src_sin = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: addr.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*addr.ip()).to_be() },
                sin_zero: [0; 8],
            };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(addr) => {
            both.src_sin6 = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: addr.port().to_be(),
                sin6_flowinfo: addr.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: addr.ip().octets() },
                sin6_scope_id: addr.scope_id(),
            };
            size_of::<libc::sockaddr_in6>()
        }
    };
    // SAFETY: all bytes of the union were zero, and some were written after that.
    (unsafe { both.src_storage }, len)
}

/// The GID of an address.
pub(super) fn gid(ip: IpAddr) -> ffi::ibv_gid {
    let ip = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    ffi::ibv_gid { raw: ip.octets() }
}

/// The address of any interface, of the same family.
pub(super) fn any_like(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// The address of this number's device, of the same family.
pub(super) fn of_device_like(addr: SocketAddr, device: usize) -> IpAddr {
    if addr.ip().is_loopback() {
        return addr.ip();
    }
    match addr {
        SocketAddr::V4(_) => crate::query::ipv4(device).into(),
        SocketAddr::V6(_) => crate::query::ipv6(device).into(),
    }
}
