//! The socket of a device: datagrams out and in, with the fields of their IP headers.

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;

use super::control::{Control, Fields, HOP_LIMIT};
use super::interface::{self, Interface};
use super::{Datagram, Dropped};
use crate::transport::Path;
use crate::wire::{Headers, Trailer, MAX_PAYLOAD, UDP_PORT};

/// How many datagrams a system call carries at most.
pub(super) const BATCH: usize = 32;

/// Room for the longest packet; what is longer is cut, and then has no valid CRC.
const MAX_PACKET: usize = Headers::MAX + MAX_PAYLOAD + Trailer::MAX;

/// What a socket can hold before datagrams are lost, if the system allows it.
const BUFFER: libc::c_int = 8 << 20;

/// A UDP socket at the port of RoCEv2 and an address, that is not connected: datagrams of a connected one are numbered.
pub(crate) struct Socket {
    fd: Arc<OwnedFd>,
    addr: IpAddr,
    /// The interface; link-local addresses need it.
    interface: Interface,
    /// How many datagrams the next look asks for: one, as long as there are not more at a time.
    batch: usize,
    /// Addresses at which there is no device, as the network has said, that nobody has asked for.
    gone: Vec<IpAddr>,
    buffers: Box<[[u8; MAX_PACKET]; BATCH]>,
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
        let buffers = vec![[0; MAX_PACKET]; BATCH].into_boxed_slice();
        let buffers = buffers.try_into().map_err(|_| io::ErrorKind::OutOfMemory)?;
        Ok(Socket { fd: Arc::new(fd), addr, interface, batch: 1, gone: Vec::new(), buffers })
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

    /// Sends datagrams, and takes them out of the queue. What cannot get to where it is to go is dropped, as the network would.
    ///
    /// # Errors
    ///
    /// If the socket's buffer is full; the rest is still in the queue.
    pub(crate) fn send(
        &mut self,
        queue: &mut VecDeque<Datagram>,
        dropped: &mut Dropped,
    ) -> Result<(), Errno> {
        while !queue.is_empty() {
            let sent = match queue.len() {
                1 => self.send_batch::<1>(queue),
                _ => self.send_batch::<BATCH>(queue),
            };
            match sent {
                Ok(count) => drop(queue.drain(..count)),
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => return Err(Errno::AGAIN),
                Err(Errno::INTR) => {}
                // What was reported is about datagrams that were sent before: this one has not been sent.
                Err(_) if self.take_errors() => {}
                Err(_) => {
                    queue.pop_front();
                    dropped.unsendable += 1;
                }
            }
        }
        Ok(())
    }

    /// Sends the first `N` datagrams, or as many as there are, and returns how many were sent. It fails if the first one does.
    fn send_batch<const N: usize>(&self, queue: &VecDeque<Datagram>) -> Result<usize, Errno> {
        let mut names = [const { MaybeUninit::<SocketAddr>::uninit() }; N];
        let mut pieces = [const { MaybeUninit::<[libc::iovec; 3]>::uninit() }; N];
        let mut controls = [const { MaybeUninit::<Control>::uninit() }; N];
        let mut messages = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; N];
        let mut count = 0;
        for (i, datagram) in queue.iter().take(N).enumerate() {
            let path = datagram.path();
            let name = SocketAddr::new(path.dest, UDP_PORT, self.interface.index);
            let name = names[i].write(name);
            let pieces = pieces[i].write(datagram.parts().map(|part| libc::iovec {
                iov_base: part.as_ptr().cast_mut().cast(),
                iov_len: part.len(),
            }));
            let control = controls[i].write(Control::for_path(path));
            let control_len = control.len();
            messages[i].write(message(name, pieces, control, control_len));
            count += 1;
        }
        // SAFETY: the first `count` messages were written above. Their addresses, pieces and control data are in the arrays, which
        // outlive the call, and in the datagrams, which are borrowed; the kernel reads them, and writes the messages' lengths.
        let sent = unsafe {
            libc::sendmmsg(
                self.fd.as_raw_fd(),
                messages.as_mut_ptr().cast(),
                count,
                libc::MSG_NOSIGNAL,
            )
        };
        usize::try_from(sent).map_err(|_| last_errno())
    }

    /// Takes datagrams off the socket without waiting, and returns how many there were. `take` gets the bytes of each, the way it came,
    /// and the port that it was sent from.
    pub(crate) fn receive(&mut self, take: impl FnMut(&[u8], Path, u16)) -> usize {
        let (fd, buffers) = (self.fd.as_fd(), &mut self.buffers);
        let count = match self.batch {
            1 => receive_batch::<1>(fd, self.addr, buffers, take),
            _ => receive_batch::<BATCH>(fd, self.addr, buffers, take),
        };
        let count = count.unwrap_or_else(|error| {
            if error != Errno::AGAIN {
                self.take_errors();
            }
            0
        });
        self.batch = if count > self.batch / 2 { BATCH } else { 1 };
        count
    }

    /// An address at which there is no device, as the network has said.
    pub(crate) fn next_gone(&mut self) -> Option<IpAddr> {
        self.gone.pop()
    }

    /// Takes what the network has reported off the socket; says whether there was anything. As long as it is there, the socket
    /// looks as if there were something to read.
    fn take_errors(&mut self) -> bool {
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
                if !self.gone.contains(&addr) {
                    self.gone.push(addr);
                }
            }
        }
    }

    /// Takes datagrams off the socket of a group, in the same way.
    pub(crate) fn receive_from(
        &mut self,
        listener: &Listener,
        take: impl FnMut(&[u8], Path, u16),
    ) -> usize {
        let Listener { fd, group } = listener;
        receive_batch::<BATCH>(fd.as_fd(), *group, &mut self.buffers, take).unwrap_or(0)
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

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Takes packets off a socket at which datagrams for `dest` arrive.
fn receive_batch<const N: usize>(
    fd: BorrowedFd<'_>,
    dest: IpAddr,
    buffers: &mut [[u8; MAX_PACKET]; BATCH],
    mut take: impl FnMut(&[u8], Path, u16),
) -> Result<usize, Errno> {
    let mut names = [SocketAddr::NONE; N];
    let mut controls = [Control::new(); N];
    let mut pieces = [const { MaybeUninit::<libc::iovec>::uninit() }; N];
    let mut messages = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; N];
    for (i, buffer) in buffers.iter_mut().take(N).enumerate() {
        let base = buffer.as_mut_ptr().cast();
        let piece = pieces[i].write(libc::iovec { iov_base: base, iov_len: buffer.len() });
        let pieces = std::slice::from_mut(piece);
        messages[i].write(message(&mut names[i], pieces, &mut controls[i], Control::SIZE));
    }
    // SAFETY: all `N` messages were written above, as `N` is not more than there are buffers. They point to the arrays and the
    // buffers, which outlive the call and are as long as is said; any bytes are valid in what the kernel writes.
    let count = unsafe {
        libc::recvmmsg(
            fd.as_raw_fd(),
            messages.as_mut_ptr().cast(),
            N as libc::c_uint,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
        )
    };
    // Nothing there, a signal, or an error that the network has reported: none of them stays.
    let count = usize::try_from(count).map_err(|_| last_errno())?;
    for (i, message) in messages.iter().take(count).enumerate() {
        // SAFETY: written above, and updated by the kernel.
        let message = unsafe { message.assume_init_ref() };
        let bytes = buffers[i].get(..message.msg_len as usize).unwrap_or(&[]);
        let Some((source, port)) = names[i].get() else { continue };
        let fields = controls[i].fields(message.msg_hdr.msg_controllen);
        let Fields { traffic_class, hop_limit } = fields;
        take(bytes, Path { source, dest, traffic_class, hop_limit, flow_label: 0 }, port);
    }
    Ok(count)
}

/// A message of one datagram, whose pieces and other parts are elsewhere.
fn message(
    name: &mut SocketAddr,
    pieces: &mut [libc::iovec],
    control: &mut Control,
    control_len: usize,
) -> libc::mmsghdr {
    // SAFETY: all members may be zero: numbers, and pointers that may be null. (There is no other way to make one: on some
    // platforms it has padding by name.)
    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_namelen = name.len();
    message.msg_hdr.msg_name = (&raw mut name.0).cast();
    message.msg_hdr.msg_iov = pieces.as_mut_ptr();
    message.msg_hdr.msg_iovlen = pieces.len() as _;
    message.msg_hdr.msg_control = control.as_mut_ptr();
    message.msg_hdr.msg_controllen = control_len as _;
    message
}

fn last_errno() -> Errno {
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
struct SocketAddr(libc::sockaddr_in6);

impl SocketAddr {
    /// No address, and room for one: those of IPv6 are the longest that a socket of IP has.
    const NONE: SocketAddr = SocketAddr(libc::sockaddr_in6 {
        sin6_family: libc::AF_UNSPEC as libc::sa_family_t,
        sin6_port: 0,
        sin6_flowinfo: 0,
        sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
        sin6_scope_id: 0,
    });

    fn new(addr: IpAddr, port: u16, interface: u32) -> SocketAddr {
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

    fn as_ptr(&self) -> *const libc::sockaddr {
        (&raw const self.0).cast()
    }

    fn len(&self) -> libc::socklen_t {
        let is_v4 = i32::from(self.0.sin6_family) == libc::AF_INET;
        let len = if is_v4 { size_of::<libc::sockaddr_in>() } else { size_of_val(self) };
        len as libc::socklen_t
    }

    /// The address and the port, which is at the same place for both families.
    fn get(&self) -> Option<(IpAddr, u16)> {
        // SAFETY: long enough for either family.
        let addr = unsafe { interface::ip(self.as_ptr()) }?;
        Some((addr, u16::from_be(self.0.sin6_port)))
    }
}
