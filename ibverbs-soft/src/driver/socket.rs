//! The sockets of a device, and addresses as they have them.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use rustix::io::Errno;

use super::control::{Control, HOP_LIMIT};
use super::interface::{self, Interface};
use super::message::message;
use crate::wire::UDP_PORT;

/// How many datagrams a system call carries at most.
pub(super) const BATCH: usize = 32;

/// What a socket can hold before datagrams are lost, if the system allows it.
const BUFFER: libc::c_int = 8 << 20;

/// A UDP socket at the port of RoCEv2 and an address, that is not connected: datagrams of a connected one are numbered.
pub(crate) struct Socket {
    fd: Arc<OwnedFd>,
    addr: IpAddr,
    /// The interface; link-local addresses need it.
    interface: Interface,
    cuts: AtomicBool,
}

impl Socket {
    /// Binds a socket to an address of this machine.
    ///
    /// # Errors
    ///
    /// `EADDRINUSE` if another device is there, or `EADDRNOTAVAIL` if there is no such address.
    pub(crate) fn bind(addr: IpAddr) -> io::Result<Socket> {
        let fd = new_socket(addr)?;
        let interface = interface::find(fd.as_fd(), addr)?;
        bind(&fd, addr, interface)?;
        enlarge(&fd, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF)?;
        enlarge(&fd, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)?;
        tell_fields(&fd, addr)?;
        let hop_limit = i32::from(HOP_LIMIT);
        let index = interface.index as libc::c_int;
        if addr.is_ipv4() {
            let ip = libc::IPPROTO_IP;
            set(&fd, ip, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO)?;
            set(&fd, ip, libc::IP_TTL, hop_limit)?;
            set(&fd, ip, libc::IP_RECVERR, 1)?;
            set(&fd, ip, libc::IP_MULTICAST_TTL, hop_limit)?;
            set_to(&fd, ip, libc::IP_MULTICAST_IF, &of_interface(None, index))?;
        } else {
            let ipv6 = libc::IPPROTO_IPV6;
            set(&fd, ipv6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO)?;
            set(&fd, ipv6, libc::IPV6_UNICAST_HOPS, hop_limit)?;
            set(&fd, ipv6, libc::IPV6_RECVERR, 1)?;
            set(&fd, ipv6, libc::IPV6_MULTICAST_HOPS, hop_limit)?;
            set(&fd, ipv6, libc::IPV6_MULTICAST_IF, index)?;
        }
        // Linux 4.18 or later; nothing is cut unless a datagram asks for it.
        let cuts = AtomicBool::new(set(&fd, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok());
        Ok(Socket { fd: Arc::new(fd), addr, interface, cuts })
    }

    /// A socket at an address of this machine that nobody else has.
    #[cfg(test)]
    pub(super) fn bind_anywhere() -> Socket {
        let free = (1..=254).find_map(|last| Socket::bind([127, 0, 0, last].into()).ok());
        free.expect("there are free addresses")
    }

    pub(crate) fn addr(&self) -> IpAddr {
        self.addr
    }

    pub(crate) fn interface(&self) -> Interface {
        self.interface
    }

    pub(crate) fn fd(&self) -> &Arc<OwnedFd> {
        &self.fd
    }

    /// Whether the kernel cuts what is sent into datagrams, if it is asked.
    pub(super) fn cuts(&self) -> bool {
        self.cuts.load(Ordering::Relaxed)
    }

    /// Notes that it does not, after all.
    pub(super) fn set_uncut(&self) {
        self.cuts.store(false, Ordering::Relaxed);
    }

    /// Takes what the network has reported off the socket, and notes where there is no device; says whether there was anything. As
    /// long as it is there, the socket looks as if there were something to read.
    pub(super) fn take_errors(&self, gone: &mut Vec<IpAddr>) -> bool {
        let mut any = false;
        loop {
            let mut name = SocketAddr::NONE;
            let mut control = Control::new();
            let mut whole = message(&mut name, &mut [], &mut control, Control::SIZE);
            let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
            // SAFETY: the message has room for a name and control data, as long as it says, and for nothing else.
            let answer =
                unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut whole.msg_hdr, flags) };
            if answer < 0 {
                return any;
            }
            any = true;
            // The name is where the datagram was to go.
            let error = control.error(whole.msg_hdr.msg_controllen);
            if let (Some(libc::ECONNREFUSED), Some((addr, UDP_PORT))) = (error, name.get()) {
                if !gone.contains(&addr) {
                    gone.push(addr);
                }
            }
        }
    }
}

/// A socket that hears what is sent to a multicast group through one interface. There can be any number for each group.
#[derive(Debug)]
pub(crate) struct Listener {
    fd: OwnedFd,
    group: IpAddr,
}

impl Listener {
    /// Joins a group.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(crate) fn join(group: IpAddr, interface: Interface) -> io::Result<Listener> {
        let fd = new_socket(group)?;
        set(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        bind(&fd, group, interface)?;
        enlarge(&fd, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF)?;
        tell_fields(&fd, group)?;
        let index = interface.index;
        match group {
            IpAddr::V4(group) => {
                let ip = libc::IPPROTO_IP;
                // Only what comes through this interface, whatever others have joined.
                set(&fd, ip, libc::IP_MULTICAST_ALL, 0)?;
                let membership = of_interface(Some(group), index as libc::c_int);
                set_to(&fd, ip, libc::IP_ADD_MEMBERSHIP, &membership)?;
            }
            IpAddr::V6(group) => {
                let ipv6 = libc::IPPROTO_IPV6;
                set(&fd, ipv6, libc::IPV6_MULTICAST_ALL, 0)?;
                let membership = libc::ipv6_mreq {
                    ipv6mr_multiaddr: libc::in6_addr { s6_addr: group.octets() },
                    ipv6mr_interface: index,
                };
                set_to(&fd, ipv6, libc::IPV6_ADD_MEMBERSHIP, &membership)?;
            }
        }
        Ok(Listener { fd, group })
    }
}

impl Listener {
    pub(super) fn group(&self) -> IpAddr {
        self.group
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

pub(super) fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

fn check(answer: libc::c_int) -> io::Result<libc::c_int> {
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(answer)
}

/// A new socket for addresses of this kind.
fn new_socket(addr: IpAddr) -> io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no memory is involved.
    let fd = check(unsafe { libc::socket(family, kind, 0) })?;
    // SAFETY: a new descriptor, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Binds a socket to the port of RoCEv2.
fn bind(fd: &OwnedFd, addr: IpAddr, interface: Interface) -> io::Result<()> {
    let addr = SocketAddr::new(addr, UDP_PORT, interface.index);
    // SAFETY: the address is as long as is said.
    check(unsafe { libc::bind(fd.as_raw_fd(), addr.as_ptr(), addr.len()) }).map(|_| ())
}

/// Enlarges a buffer of a socket: beyond the limit of the system only with privileges, up to it for everybody.
fn enlarge(fd: &OwnedFd, forced: i32, option: i32) -> io::Result<()> {
    if set(fd, libc::SOL_SOCKET, forced, BUFFER).is_err() {
        set(fd, libc::SOL_SOCKET, option, BUFFER)?;
    }
    Ok(())
}

/// Lets the kernel tell with each datagram what its IP header says.
fn tell_fields(fd: &OwnedFd, addr: IpAddr) -> io::Result<()> {
    if addr.is_ipv4() {
        set(fd, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?;
        return set(fd, libc::IPPROTO_IP, libc::IP_RECVTTL, 1);
    }
    set(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)?;
    set(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, 1)?;
    // The kernel's SoftRoCE sends without checksums, as the CRC is there.
    set(fd, libc::IPPROTO_UDP, libc::UDP_NO_CHECK6_RX, 1)
}

/// Sets an option that is a number.
fn set(fd: &OwnedFd, level: i32, option: i32, value: libc::c_int) -> io::Result<()> {
    set_to(fd, level, option, &value)
}

/// Sets an option.
fn set_to<T: Copy>(fd: &OwnedFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    let len = size_of_val(value) as libc::socklen_t;
    let value = (&raw const *value).cast();
    // SAFETY: the value is as long as is said.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, value, len) }).map(|_| ())
}

/// A group, or none, and the interface with this index.
fn of_interface(group: Option<Ipv4Addr>, index: libc::c_int) -> libc::ip_mreqn {
    libc::ip_mreqn {
        imr_multiaddr: libc::in_addr { s_addr: group.map_or(0, |group| u32::from(group).to_be()) },
        imr_address: libc::in_addr { s_addr: 0 },
        imr_ifindex: index,
    }
}

/// An address with a port, as the kernel has it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct SocketAddr(libc::sockaddr_in6);

impl SocketAddr {
    /// No address, and room for one: those of IPv6 are the longest that a socket of IP has.
    pub(super) const NONE: SocketAddr = SocketAddr(libc::sockaddr_in6 {
        sin6_family: libc::AF_UNSPEC as libc::sa_family_t,
        sin6_port: 0,
        sin6_flowinfo: 0,
        sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
        sin6_scope_id: 0,
    });

    pub(super) fn new(addr: IpAddr, port: u16, interface: u32) -> SocketAddr {
        let mut it = SocketAddr::NONE;
        match addr {
            IpAddr::V4(addr) => {
                let addr = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: port.to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from(addr).to_be() },
                    sin_zero: [0; 8],
                };
                // SAFETY: addresses of IPv4 are shorter and not more aligned than those of IPv6.
                unsafe { (&raw mut it.0).cast::<libc::sockaddr_in>().write(addr) };
            }
            IpAddr::V6(addr) => {
                it.0.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                it.0.sin6_port = port.to_be();
                it.0.sin6_addr.s6_addr = addr.octets();
                // Link-local addresses, and groups that do not leave the link or the interface.
                let first = addr.segments()[0];
                if first & 0xffc0 == 0xfe80 || matches!(first & 0xff0f, 0xff01 | 0xff02) {
                    it.0.sin6_scope_id = interface;
                }
            }
        }
        it
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut libc::sockaddr {
        (&raw mut self.0).cast()
    }

    fn as_ptr(&self) -> *const libc::sockaddr {
        (&raw const self.0).cast()
    }

    pub(super) fn len(&self) -> libc::socklen_t {
        let is_v4 = i32::from(self.0.sin6_family) == libc::AF_INET;
        let len = if is_v4 { size_of::<libc::sockaddr_in>() } else { size_of_val(self) };
        len as libc::socklen_t
    }

    /// The address and the port, which is at the same place for both families.
    pub(super) fn get(&self) -> Option<(IpAddr, u16)> {
        // SAFETY: long enough for either family.
        let addr = unsafe { interface::ip(self.as_ptr()) }?;
        Some((addr, u16::from_be(self.0.sin6_port)))
    }
}
