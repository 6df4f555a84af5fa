//! Which network interface has an address, and how long packets can be there.

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

/// A network interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) index: u32,
    /// The largest path MTU of RDMA that fits its packets.
    pub(crate) path_mtu: u32,
}

/// What RoCEv2 adds to a payload, at most: headers of IP, UDP and the transport, and the CRC.
const OVERHEAD: u32 = 96;

/// The largest path MTU that fits packets of `mtu` bytes; the smallest there is if none does.
fn path_mtu(mtu: u32) -> u32 {
    let fits = |path_mtu: &u32| path_mtu + OVERHEAD <= mtu;
    [4096, 2048, 1024, 512].into_iter().find(fits).unwrap_or(256)
}

/// A list of the addresses of all interfaces, given back to the C library when it is dropped.
struct Addresses(*mut libc::ifaddrs);

impl Addresses {
    fn new() -> io::Result<Addresses> {
        let mut first = std::ptr::null_mut();
        // SAFETY: the pointer is to where the list is to be put.
        match unsafe { libc::getifaddrs(&mut first) } {
            0 => Ok(Addresses(first)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The name of the interface that has an address.
    fn find(&self, addr: IpAddr) -> Option<&CStr> {
        let mut next = self.0;
        loop {
            // SAFETY: null, or an element of the list, which lives as long as `self`.
            let element = unsafe { next.as_ref() }?;
            // SAFETY: null, or an address of the family that it says.
            if unsafe { ip(element.ifa_addr) } == Some(addr) {
                // SAFETY: a string that belongs to the list.
                return Some(unsafe { CStr::from_ptr(element.ifa_name) });
            }
            next = element.ifa_next;
        }
    }
}

impl Drop for Addresses {
    fn drop(&mut self) {
        // SAFETY: the list that `new` was given.
        unsafe { libc::freeifaddrs(self.0) };
    }
}

/// The address of IPv4 or IPv6 in a socket address.
///
/// # Safety
///
/// The pointer must be null, or to a socket address that is as long as those of its family are.
pub(super) unsafe fn ip(addr: *const libc::sockaddr) -> Option<IpAddr> {
    if addr.is_null() {
        return None;
    }
    // SAFETY: a socket address begins with its family; the address of a member is computed, whatever its alignment.
    let family = unsafe { &raw const (*addr).sa_family };
    // SAFETY: as above.
    let family = unsafe { family.read_unaligned() };
    match i32::from(family) {
        libc::AF_INET => {
            // SAFETY: the family says that it is one of IPv4.
            let addr = unsafe { addr.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(u32::from_be(addr.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that it is one of IPv6.
            let addr = unsafe { addr.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(addr.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

/// The interface that has an address of this machine; the loopback interface if none says that it has it, as with 127.0.0.2.
pub(crate) fn find(socket: BorrowedFd<'_>, addr: IpAddr) -> io::Result<Interface> {
    let addresses = Addresses::new()?;
    let name = addresses.find(addr).unwrap_or(c"lo");
    // SAFETY: a string that ends with a zero.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Interface { index, path_mtu: path_mtu(mtu(socket, name)?) })
}

/// The MTU of the interface with this name.
fn mtu(socket: BorrowedFd<'_>, name: &CStr) -> io::Result<u32> {
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_mtu: 0 },
    };
    // The last place stays zero.
    for (to, from) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.to_bytes()) {
        *to = *from as libc::c_char;
    }
    // SAFETY: the request is one of this kind, which the kernel reads the name of and writes the MTU into.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU, &mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has written this member.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    Ok(u32::try_from(mtu).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn path_mtus_leave_room_for_headers() {
        let of = [65536, 9000, 4192, 4191, 1500, 1280, 576, 100, 0].map(path_mtu);
        assert_eq!(of, [4096, 4096, 4096, 2048, 1024, 1024, 256, 256, 256]);
    }

    #[test]
    fn loopback_addresses_are_on_the_loopback_interface() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let of = |addr: &str| find(socket.as_fd(), addr.parse().unwrap()).unwrap();
        let it = of("127.0.0.1");
        assert_eq!((it, it.path_mtu), (of("127.0.0.99"), 4096));
        assert_ne!(it.index, 0);
    }
}
