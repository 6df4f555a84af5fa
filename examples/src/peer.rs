//! What two processes tell each other over TCP, before and after they use RDMA.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context as _, Result};
use ibverbs::Mtu;

/// How long the peer may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a server may take to start that is not there yet.
const START: Duration = Duration::from_secs(5);

/// The version of what is told.
const VERSION: u8 = 1;

/// A TCP connection to the same program in another process.
///
/// A message on it is its length, in two bytes, and its bytes.
pub struct Peer {
    stream: TcpStream,
}

/// What both sides must do in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Bytes per message.
    pub size: u32,
    /// How many messages.
    pub iters: u64,
    /// The longest packet: that of the side whose port can do less.
    pub mtu: Mtu,
}

/// Where a server waits for its clients.
pub struct Listener {
    listener: TcpListener,
}

impl Listener {
    /// Waits on this port for clients of any network.
    pub fn bind(port: u16) -> Result<Listener> {
        // Not every machine has IPv6; one that has takes IPv4 clients with it as well.
        let any: [SocketAddr; 2] =
            [(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()];
        let listener = TcpListener::bind(&any[..])
            .with_context(|| format!("cannot listen on TCP port {port}"))?;
        Ok(Listener { listener })
    }

    /// The port.
    pub fn port(&self) -> Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }

    /// The next client.
    pub fn accept(&self) -> Result<Peer> {
        Peer::new(self.listener.accept().context("no client could be accepted")?.0)
    }
}

impl Peer {
    /// Connects to the server on `host`, or without one is the server and waits for a client.
    pub fn connect(host: Option<&str>, port: u16) -> Result<Peer> {
        match host {
            Some(host) => Self::new(find_server(host, port)?),
            None => {
                let listener = Listener::bind(port)?;
                println!("waiting for a client on TCP port {}", listener.port()?);
                listener.accept()
            }
        }
    }

    /// Two ends of one connection, for two threads of this process.
    pub fn pair() -> Result<(Peer, Peer)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let here = TcpStream::connect(listener.local_addr()?)?;
        loop {
            let (there, address) = listener.accept()?;
            // Anybody on this machine can connect.
            if address == here.local_addr()? {
                return Ok((Self::new(here)?, Self::new(there)?));
            }
        }
    }

    /// The address of the other side.
    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.stream.peer_addr()?)
    }

    fn new(stream: TcpStream) -> Result<Peer> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Peer { stream })
    }

    /// Sends a message and receives one of the same length.
    pub fn exchange<const N: usize>(&mut self, message: &[u8; N]) -> Result<[u8; N]> {
        let length = u16::try_from(N)?.to_be_bytes();
        self.stream.write_all(&[&length, &message[..]].concat()).map_err(explain)?;
        let mut received = [0; 2];
        self.stream.read_exact(&mut received).map_err(explain)?;
        let received = u16::from_be_bytes(received);
        ensure!(
            usize::from(received) == N,
            "the peer sent {received} bytes where {N} are due: is it the same program?"
        );
        let mut answer = [0; N];
        self.stream.read_exact(&mut answer).map_err(explain)?;
        Ok(answer)
    }

    /// Agrees on what is to be done. It is an error if the peer was told something else.
    pub fn agree(&mut self, mine: Terms) -> Result<Terms> {
        let mut message = [0; 17];
        message[0] = VERSION;
        message[1..5].copy_from_slice(&mine.size.to_be_bytes());
        message[5..13].copy_from_slice(&mine.iters.to_be_bytes());
        message[13..].copy_from_slice(&mine.mtu.bytes().unwrap_or_default().to_be_bytes());
        let answer = self.exchange(&message)?;
        let [version, s0, s1, s2, s3, iters @ .., m0, m1, m2, m3] = answer;
        ensure!(version == VERSION, "the peer speaks version {version}, not {VERSION}");
        let (size, iters) = (u32::from_be_bytes([s0, s1, s2, s3]), u64::from_be_bytes(iters));
        ensure!(
            (size, iters) == (mine.size, mine.iters),
            "the peer has --size {size} --iters {iters}, not --size {} --iters {} as here",
            mine.size,
            mine.iters,
        );
        let mtu = u32::from_be_bytes([m0, m1, m2, m3]);
        let mtu = Mtu::from_bytes(mtu).with_context(|| format!("the peer has an MTU of {mtu}"))?;
        Ok(Terms { mtu: mtu.min(mine.mtu), ..mine })
    }

    /// Waits until the peer has come to the same step. The steps are numbered.
    pub fn meet(&mut self, step: u8) -> Result<()> {
        let [theirs] = self.exchange(&[step])?;
        ensure!(theirs == step, "the peer is at step {theirs}, and this side at {step}");
        Ok(())
    }

    /// Whether the peer waits for an exchange or a meeting. It is an error if the peer has closed the
    /// connection, as its end does, whatever the reason.
    pub fn is_waiting(&self) -> Result<bool> {
        self.stream.set_nonblocking(true)?;
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false)?;
        match peeked {
            Ok(0) => Err(explain(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(explain(error)),
        }
    }
}

fn find_server(host: &str, port: u16) -> Result<TcpStream> {
    let start = Instant::now();
    loop {
        match TcpStream::connect((host, port)) {
            Ok(stream) => return Ok(stream),
            Err(error)
                if error.kind() == io::ErrorKind::ConnectionRefused && start.elapsed() < START =>
            {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) => bail!("no server answers at {host}, TCP port {port}: {error}"),
        }
    }
}

fn explain(error: io::Error) -> anyhow::Error {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
    let what = match error.kind() {
        UnexpectedEof | ConnectionReset | BrokenPipe => "the peer has ended: look at what it said",
        WouldBlock | TimedOut => "the peer does not answer",
        _ => "the connection to the peer failed",
    };
    anyhow::Error::new(error).context(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms { size: 4096, iters: 1000, mtu: Mtu::B1024 };

    /// Two connected peers: this side, and the other one, which is a plain stream.
    fn pair() -> (Peer, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let peer = Peer::connect(Some("127.0.0.1"), port).unwrap();
        (peer, listener.accept().unwrap().0)
    }

    /// What this side says of a peer that agrees to other terms.
    fn agree(theirs: Terms) -> Result<Terms> {
        let (mut here, there) = pair();
        let there = std::thread::spawn(move || Peer::new(there).unwrap().agree(theirs));
        let result = here.agree(TERMS);
        assert_eq!(result.is_ok(), there.join().unwrap().is_ok(), "only one side noticed");
        result
    }

    /// What this side says of a peer that sends these bytes.
    fn answer(bytes: &[u8]) -> String {
        let (mut here, mut there) = pair();
        there.write_all(bytes).unwrap();
        here.agree(TERMS).unwrap_err().to_string()
    }

    #[test]
    fn the_shorter_packet_is_taken() {
        assert_eq!(agree(TERMS).unwrap(), TERMS);
        assert_eq!(agree(Terms { mtu: Mtu::B4096, ..TERMS }).unwrap(), TERMS);
        let shorter = Terms { mtu: Mtu::B256, ..TERMS };
        assert_eq!(agree(shorter).unwrap(), shorter);
    }

    #[test]
    fn both_sides_notice_other_terms() {
        let expected = "the peer has --size 1 --iters 1000, not --size 4096 --iters 1000 as here";
        assert_eq!(agree(Terms { size: 1, ..TERMS }).unwrap_err().to_string(), expected);
        let expected = "the peer has --size 4096 --iters 7, not --size 4096 --iters 1000 as here";
        assert_eq!(agree(Terms { iters: 7, ..TERMS }).unwrap_err().to_string(), expected);
    }

    #[test]
    fn garbage_is_refused() {
        assert_eq!(
            answer(b"GET / HTTP/1.1\r\n\r\n"),
            "the peer sent 18245 bytes where 17 are due: is it the same program?"
        );
        let good = [0, 17, 1, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 3, 232, 0, 0, 4, 0];
        let with = |place: usize, value| {
            let mut bytes = good;
            bytes[place] = value;
            answer(&bytes)
        };
        assert_eq!(with(2, 9), "the peer speaks version 9, not 1");
        assert_eq!(with(18, 1), "the peer has an MTU of 1025");
    }

    #[test]
    fn a_peer_that_has_ended_is_noticed() {
        let (mut here, mut there) = pair();
        assert!(!here.is_waiting().unwrap());
        there.write_all(&[0, 1, 5]).unwrap();
        while !here.is_waiting().unwrap() {}
        here.meet(5).unwrap();
        drop(there);
        let ended = "the peer has ended: look at what it said";
        assert_eq!(here.is_waiting().unwrap_err().to_string(), ended);
        assert_eq!(here.meet(6).unwrap_err().to_string(), ended);
    }

    #[test]
    fn a_peer_at_another_step_is_noticed() {
        let (mut here, mut there) = pair();
        there.write_all(&[0, 1, 2]).unwrap();
        assert_eq!(
            here.meet(1).unwrap_err().to_string(),
            "the peer is at step 2, and this side at 1"
        );
    }
}
