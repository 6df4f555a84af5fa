//! Receiving: many datagrams with one system call.

use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use rustix::io::Errno;

use super::control::{Control, Fields};
use super::datagram::decode;
use super::message::message;
use super::socket::{last_errno, Listener, Socket, SocketAddr, BATCH};
use super::{Dropped, Report};
use crate::transport::Path;
use crate::wire::{Headers, Packet, Trailer, MAX_PAYLOAD};

/// Room for the longest packet; what is longer is cut, and then has no valid CRC.
const MAX_PACKET: usize = Headers::MAX + MAX_PAYLOAD + Trailer::MAX;

type Buffers = [[u8; MAX_PACKET]; BATCH];

/// Who reads the sockets, and what was read: there is one for each device, so that packets stay in order.
#[derive(Debug)]
pub(super) struct Receiver {
    /// How many datagrams the next look asks for: one, as long as there are not more at a time.
    batch: usize,
    buffers: Box<Buffers>,
    /// Packets whose CRC is right.
    pub(super) packets: Vec<(Path, Packet)>,
    /// Datagrams as they came, if nothing was to be asked of them.
    pub(super) unread: Vec<Unread>,
    pub(super) report: Report,
}

/// A datagram as it came.
#[derive(Debug)]
pub(super) struct Unread {
    pub(super) bytes: Vec<u8>,
    pub(super) path: Path,
    /// The port that it was sent from.
    pub(super) port: u16,
}

impl Receiver {
    pub(super) fn new() -> io::Result<Box<Receiver>> {
        let buffers = vec![[0; MAX_PACKET]; BATCH].into_boxed_slice();
        let buffers = buffers.try_into().map_err(|_| io::ErrorKind::OutOfMemory)?;
        let (packets, unread, report) = (Vec::new(), Vec::new(), Report::default());
        Ok(Box::new(Receiver { batch: 1, buffers, packets, unread, report }))
    }

    /// Whether there is nothing to take in or to tell.
    pub(super) fn is_empty(&self) -> bool {
        let Report { dropped, gone } = &self.report;
        let is_quiet = *dropped == Dropped::default() && gone.is_empty();
        is_quiet && self.packets.is_empty() && self.unread.is_empty()
    }

    /// Takes datagrams off the device's socket and those of its groups without waiting, and returns how many there were. It reads
    /// them, too, if they are not to be left `unread`.
    pub(super) fn receive(
        &mut self,
        socket: &Socket,
        listeners: &[Arc<Listener>],
        unread: bool,
    ) -> usize {
        let Receiver { batch, buffers, packets, unread: raw, report } = self;
        let Report { dropped, gone } = report;
        let mut take = |bytes: &[u8], path: Path, port: u16| {
            if unread {
                raw.push(Unread { bytes: bytes.to_vec(), path, port });
            } else {
                packets.extend(decode(bytes, path, port, dropped));
            }
        };
        let fd = socket.fd().as_fd();
        let count = match *batch {
            1 => receive_batch::<1>(fd, socket.addr(), buffers, &mut take),
            _ => receive_batch::<BATCH>(fd, socket.addr(), buffers, &mut take),
        };
        let count = count.unwrap_or_else(|error| {
            if error != Errno::AGAIN {
                socket.take_errors(gone);
            }
            0
        });
        *batch = if count > *batch / 2 { BATCH } else { 1 };
        let mut receive_from = |listener: &Arc<Listener>| {
            let fd = listener.as_fd();
            receive_batch::<BATCH>(fd, listener.group(), buffers, &mut take).unwrap_or(0)
        };
        count + listeners.iter().map(&mut receive_from).sum::<usize>()
    }
}

/// Takes datagrams for `dest` off a socket, and returns how many there were. `take` gets the bytes of each, the way it came, and the port
/// that it was sent from.
fn receive_batch<const N: usize>(
    fd: BorrowedFd<'_>,
    dest: IpAddr,
    buffers: &mut Buffers,
    take: &mut impl FnMut(&[u8], Path, u16),
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
