//! How long the software device takes for a few bytes: between two processes, beside plain UDP in the same run, and from a
//! queue pair to itself.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _, Result};
use clap::{value_parser, Parser};
use ibverbs::soft::{Loopback, SoftDevices};
use ibverbs::{
    AccessFlags, CompletionQueue, Context, MemoryRegion, PreparedQueuePair, ProtectionDomain,
    QueuePair, QueuePairEndpoint, Rc, RecvRequest,
};

/// Measure round trips of the software device, between processes that poll.
///
/// It needs two processors that have nothing else to do, and to be built with --release.
#[derive(Parser)]
struct Options {
    /// How many round trips are measured of each kind
    #[arg(short = 'n', long, default_value_t = 20_000, value_parser = value_parser!(u64).range(100..))]
    iters: u64,

    /// What this process starts to have a peer
    #[arg(long, hide = true)]
    peer: bool,
}

/// What is sent: one number.
const SIZE: usize = 8;
/// The same in a datagram, with what RoCE adds: the base transport header and the checksum.
const DATAGRAM: usize = SIZE + 12 + 4;
/// Both kinds are measured in turns, so that what else the machine does is shared.
const TURNS: u64 = 10;
const PORT: u8 = 1;
/// Longer than any round trip takes.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> Result<()> {
    let Options { iters, peer } = Options::parse();
    SoftDevices::new().set_loopback(Loopback::Memory).install()?;
    let turn = iters / TURNS;
    if peer {
        return serve(turn);
    }
    if cfg!(debug_assertions) {
        eprintln!("this was built without --release: it is slower than it need be");
    }
    let (mut udp, mut rc) = (Vec::new(), Vec::new());
    let mut peer = Peer::start(iters)?;
    let datagrams = Datagrams::connect(|line| peer.exchange(line))?;
    let mut connection = End::prepare()?.connect(|line| peer.exchange(line))?;
    peer.exchange("connected")?;
    for _ in 0..TURNS {
        for number in 0..turn {
            udp.push(timed(|| datagrams.send(number).and_then(|()| datagrams.receive(number)))?);
        }
        for number in 0..turn {
            rc.push(timed(|| connection.send(number).and_then(|()| connection.receive(number)))?);
            connection.post_recv()?;
        }
    }
    // The peer's last acknowledgement may not have come.
    connection.drain()?;
    peer.exchange("done")?;
    drop(connection);
    let itself = to_itself(iters)?;

    let (udp, rc, itself) = (median(udp), median(rc), median(itself));
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    println!("{SIZE} bytes to and fro between two processes that poll, median of {iters}:");
    println!("    plain UDP            {:6.2} us", micros(udp));
    let times = rc.as_secs_f64() / udp.as_secs_f64();
    println!("    reliable connection  {:6.2} us, {times:.2} times as long", micros(rc));
    println!("{SIZE} bytes from a queue pair to itself, in memory:");
    println!("    reliable connection  {:6.2} us", micros(itself));
    Ok(())
}

/// What the peer does: the same, the other way round.
fn serve(turn: u64) -> Result<()> {
    let mut lines = std::io::stdin().lock();
    let mut exchange = |line: &str| -> Result<String> {
        println!("{line}");
        read_line(&mut lines)
    };
    let datagrams = Datagrams::connect(&mut exchange)?;
    let mut connection = End::prepare()?.connect(&mut exchange)?;
    exchange("connected")?;
    for _ in 0..TURNS {
        for number in 0..turn {
            datagrams.receive(number)?;
            datagrams.send(number)?;
        }
        for number in 0..turn {
            connection.receive(number)?;
            connection.post_recv()?;
            connection.send(number)?;
        }
    }
    connection.drain()?;
    exchange("done")?;
    Ok(())
}

/// Sends to a queue pair's own receives, and waits for both completions.
fn to_itself(iters: u64) -> Result<Vec<Duration>> {
    let mut end = End::prepare()?.connect(|own| Ok(own.to_owned()))?;
    let mut times = Vec::new();
    for number in 0..iters {
        times.push(timed(|| end.send(number).and_then(|()| end.receive(number)))?);
        end.drain()?;
        end.post_recv()?;
    }
    Ok(times)
}

fn timed(trip: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    trip()?;
    Ok(start.elapsed())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// The other process.
struct Peer {
    process: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Peer {
    fn start(iters: u64) -> Result<Peer> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["--peer", "--iters", &iters.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the peer cannot be started")?;
        let output = BufReader::new(process.stdout.take().context("it is piped")?);
        Ok(Peer { process, output })
    }

    /// Tells the peer a line, and hears one.
    fn exchange(&mut self, line: &str) -> Result<String> {
        writeln!(self.process.stdin.as_mut().context("it is piped")?, "{line}")?;
        read_line(&mut self.output)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn read_line(from: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    ensure!(from.read_line(&mut line)? > 0, "the other process has ended");
    Ok(line.trim().to_owned())
}

/// A socket of plain UDP.
struct Datagrams {
    socket: UdpSocket,
    peer: SocketAddr,
}

impl Datagrams {
    /// Exchanges addresses with the peer.
    fn connect(exchange: impl FnOnce(&str) -> Result<String>) -> Result<Datagrams> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_nonblocking(true)?;
        let peer = exchange(&socket.local_addr()?.to_string())?.parse()?;
        Ok(Datagrams { socket, peer })
    }

    fn send(&self, number: u64) -> Result<()> {
        let mut bytes = [0; DATAGRAM];
        bytes[..SIZE].copy_from_slice(&number.to_le_bytes());
        self.socket.send_to(&bytes, self.peer)?;
        Ok(())
    }

    fn receive(&self, number: u64) -> Result<()> {
        let mut bytes = [0; DATAGRAM];
        let start = Instant::now();
        loop {
            match self.socket.recv_from(&mut bytes) {
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    ensure!(start.elapsed() < PATIENCE, "datagram {number} was lost");
                }
                Err(error) => return Err(error.into()),
            }
        }
        ensure!(bytes[..SIZE] == number.to_le_bytes(), "another datagram than {number} came");
        Ok(())
    }
}

/// A queue pair with its memory. It stands above that, and is dropped first.
struct End<Q> {
    qp: Q,
    cq: CompletionQueue,
    memory: MemoryRegion,
    /// Sends that have not completed.
    pending: u32,
    _pd: ProtectionDomain,
    _context: Context,
}

impl End<PreparedQueuePair<Rc>> {
    fn prepare() -> Result<Self> {
        let devices = ibverbs::devices()?;
        let context = devices.get(0).context("there is always a software device")?.open()?;
        let gid = context.routable_gid(PORT)?.context("no GID")?;
        let cq = context.create_cq(64).build()?;
        let pd = context.alloc_pd()?;
        let memory = pd.allocate(SIZE, AccessFlags::LOCAL_WRITE)?;
        let qp = pd
            .create_qp::<Rc>(&cq, &cq, PORT)?
            .set_gid_index(gid.index().try_into()?)
            .set_max_inline_data(SIZE as u32)
            .build()?;
        Ok(End { qp, cq, memory, pending: 0, _pd: pd, _context: context })
    }

    /// Exchanges endpoints with the peer, as lines.
    fn connect(self, exchange: impl FnOnce(&str) -> Result<String>) -> Result<End<QueuePair<Rc>>> {
        let own = self.qp.endpoint()?.to_bytes();
        let own: String = own.iter().map(|byte| format!("{byte:02x}")).collect();
        let remote = exchange(&own)?;
        let byte = |place| u8::from_str_radix(remote.get(place..place + 2).unwrap_or(""), 16);
        let bytes: Vec<u8> = (0..remote.len()).step_by(2).map(byte).collect::<Result<_, _>>()?;
        let End { qp, cq, memory, pending, _pd, _context } = self;
        let qp = qp.handshake(QueuePairEndpoint::from_bytes(&bytes)?)?;
        let mut end = End { qp, cq, memory, pending, _pd, _context };
        end.post_recv()?;
        Ok(end)
    }
}

impl End<QueuePair<Rc>> {
    fn post_recv(&mut self) -> Result<()> {
        let memory = [self.memory.slice(..)];
        // SAFETY: the memory is dropped after the queue pair, and looked at only while no receive is posted.
        Ok(unsafe { self.qp.post_recv([RecvRequest::new(0, &memory)]) }?)
    }

    fn send(&mut self, number: u64) -> Result<()> {
        let mut batch = self.qp.start_send();
        batch.op().signaled().send(number, &number.to_le_bytes());
        // SAFETY: inline data is copied; there is nothing else to keep.
        unsafe { batch.submit() }?;
        self.pending += 1;
        Ok(())
    }

    /// Waits for what the peer sends.
    fn receive(&mut self, number: u64) -> Result<()> {
        let mut has_come = false;
        self.poll_until(|_, received| {
            has_come |= received;
            has_come
        })?;
        ensure!(self.memory.bytes() == number.to_le_bytes(), "another message than {number} came");
        Ok(())
    }

    /// Waits until all sends have completed.
    fn drain(&mut self) -> Result<()> {
        self.poll_until(|pending, _| pending == 0)
    }

    /// Polls until it is enough, which is asked with the number of sends that have not completed, and whether a message has
    /// come.
    fn poll_until(&mut self, mut is_enough: impl FnMut(u32, bool) -> bool) -> Result<()> {
        let start = Instant::now();
        while !is_enough(self.pending, false) {
            let Some(mut completions) = self.cq.poll()? else {
                ensure!(start.elapsed() < PATIENCE, "nothing completed for {PATIENCE:?}");
                continue;
            };
            while let Some(completion) = completions.next() {
                completion.ok()?;
                if completion.opcode().is_recv() {
                    is_enough(self.pending, true);
                } else {
                    self.pending -= 1;
                }
            }
        }
        Ok(())
    }
}
