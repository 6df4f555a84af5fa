//! What plain UDP does between the same processes, with datagrams as long as the device's.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Instant;

use anyhow::{ensure, Result};

use crate::peer::Lines;
use crate::{MESSAGE, OVERHEAD, PATIENCE, SIZE};

/// How many bytes of a message are in a datagram.
const PIECE: usize = 4096;
/// In how many datagrams a message is: one system call sends them.
const PIECES: usize = MESSAGE / PIECE;
/// What one of them takes of a socket's buffer, about.
const ROOM: usize = PIECE + 1024;
/// How many messages may be under way that the peer has not said it has.
const WINDOW: u64 = 32;

/// A socket that polls.
pub(crate) struct Datagrams {
    socket: UdpSocket,
    /// How many messages may be under way, so that the peer's socket can hold them.
    window: u64,
    pieces: Box<[[u8; PIECE + OVERHEAD]; PIECES]>,
}

impl Datagrams {
    /// Exchanges addresses with the peer.
    pub(crate) fn connect(peer: &mut impl Lines) -> Result<Datagrams> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_nonblocking(true)?;
        let buffer = receive_buffer(&socket)?;
        let line = peer.exchange(&format!("{} {buffer}", socket.local_addr()?))?;
        let (address, buffer) = line.split_once(' ').unwrap_or((&line, ""));
        socket.connect(address.parse::<SocketAddr>()?)?;
        let window = (buffer.parse::<usize>()? / (ROOM * PIECES)) as u64;
        let pieces = Box::new([[0; PIECE + OVERHEAD]; PIECES]);
        Ok(Datagrams { socket, window: window.clamp(1, WINDOW), pieces })
    }

    /// Sends a few bytes.
    pub(crate) fn send(&self, number: u64) -> Result<()> {
        let mut bytes = [0; SIZE + OVERHEAD];
        bytes[..SIZE].copy_from_slice(&number.to_le_bytes());
        self.socket.send(&bytes)?;
        Ok(())
    }

    /// Waits for a few bytes.
    pub(crate) fn receive(&self, number: u64) -> Result<()> {
        let mut bytes = [0; SIZE + OVERHEAD];
        patiently(|| self.socket.recv(&mut bytes))?;
        ensure!(bytes[..SIZE] == number.to_le_bytes(), "another datagram than {number} came");
        Ok(())
    }

    /// Sends messages, and returns when the peer has said that it has them all.
    pub(crate) fn stream(&mut self, messages: u64) -> Result<()> {
        let (mut sent, mut had) = (0, 0);
        while had < messages {
            if sent < messages && sent - had < self.window {
                let mut first = 0;
                while first < PIECES {
                    first += patiently(|| self.move_pieces(Direction::Out, first))?;
                }
                sent += 1;
            } else {
                let mut bytes = [0; 8];
                patiently(|| self.socket.recv(&mut bytes))?;
                had = u64::from_le_bytes(bytes);
            }
        }
        Ok(())
    }

    /// Takes messages, and says so with each.
    pub(crate) fn take_stream(&mut self, messages: u64) -> Result<()> {
        let (mut pieces, mut had) = (0, 0);
        while had < messages {
            pieces += patiently(|| self.move_pieces(Direction::In, 0))?;
            while pieces >= PIECES {
                pieces -= PIECES;
                had += 1;
                patiently(|| self.socket.send(&u64::to_le_bytes(had)))?;
            }
        }
        Ok(())
    }

    /// Sends the datagrams of a message from `first` on, or takes as many as there are. Returns how many were moved.
    fn move_pieces(&mut self, direction: Direction, first: usize) -> io::Result<usize> {
        let mut vectors = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; PIECES];
        // SAFETY: numbers, and pointers that may be null.
        let mut headers: [libc::mmsghdr; PIECES] = unsafe { std::mem::zeroed() };
        for ((piece, vector), header) in self.pieces.iter_mut().zip(&mut vectors).zip(&mut headers)
        {
            *vector = libc::iovec { iov_base: piece.as_mut_ptr().cast(), iov_len: piece.len() };
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
        }
        let headers = &mut headers[first..];
        let (fd, array, count) = (self.socket.as_raw_fd(), headers.as_mut_ptr(), headers.len());
        let moved = match direction {
            // SAFETY: `count` headers, each with one piece of memory, all of which outlive the call.
            Direction::Out => unsafe { libc::sendmmsg(fd, array, count as _, 0) },
            // SAFETY: as above, and nobody else has the memory; there is no time to wait for.
            Direction::In => unsafe {
                libc::recvmmsg(fd, array, count as _, 0, std::ptr::null_mut())
            },
        };
        usize::try_from(moved).map_err(|_| io::Error::last_os_error())
    }
}

#[derive(Clone, Copy)]
enum Direction {
    In,
    Out,
}

/// Tries again until it can be done.
fn patiently<T>(mut what: impl FnMut() -> io::Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match what() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                ensure!(start.elapsed() < PATIENCE, "a datagram was lost");
            }
            done => return Ok(done?),
        }
    }
}

/// Makes the buffer of a socket as large as that of the device, if the system allows it. Returns how large it is.
fn receive_buffer(socket: &UdpSocket) -> Result<usize> {
    use rustix::net::sockopt;
    const BUFFER: usize = 8 << 20;
    if sockopt::set_socket_recv_buffer_size_force(socket, BUFFER).is_err() {
        sockopt::set_socket_recv_buffer_size(socket, BUFFER)?;
    }
    Ok(sockopt::socket_recv_buffer_size(socket)?)
}
