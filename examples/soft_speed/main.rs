//! How fast the software device is: a few bytes to and fro, and the bandwidth of long writes; between two processes, beside plain
//! UDP in the same run, and from a queue pair to itself. The same can be measured of the installed library's first device.
//!
//! `peer` is the other process, `udp` what is measured of plain sockets, `rdma` what is measured of a device.

mod peer;
mod rdma;
mod udp;

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{value_parser, Parser};
use ibverbs::soft::{Loopback, SoftDevices};

use peer::{Lines, Peer};
use rdma::{End, Kind};
use udp::Datagrams;

/// Measure the software device between processes that poll, beside plain UDP.
///
/// It needs two processors that have nothing else to do, and to be built with --release.
#[derive(Parser)]
struct Options {
    /// How many round trips are measured of each kind
    #[arg(short = 'n', long, default_value_t = 20_000, value_parser = value_parser!(u64).range(100..))]
    iters: u64,

    /// How many messages of 64 KiB are sent to measure a bandwidth
    #[arg(short, long, default_value_t = 10_000, value_parser = value_parser!(u64).range(100..))]
    messages: u64,

    /// Measure the first device of the installed library instead: SoftRoCE, for instance
    #[arg(long)]
    installed: bool,

    /// What this process starts to have a peer
    #[arg(long, hide = true)]
    peer: bool,
}

/// What is sent to and fro: one number.
const SIZE: usize = 8;
/// What a bandwidth is measured with.
const MESSAGE: usize = 64 << 10;
/// What RoCE adds to a datagram: the base transport header and the checksum.
const OVERHEAD: usize = 12 + 4;
/// The kinds are measured in turns, so that what else the machine does is shared.
const TURNS: u64 = 10;
/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much is done in a turn.
#[derive(Clone, Copy)]
struct Turn {
    trips: u64,
    messages: u64,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if !options.installed {
        SoftDevices::new().set_loopback(Loopback::Memory).install()?;
    }
    let turn = Turn { trips: options.iters / TURNS, messages: options.messages / TURNS };
    if options.peer {
        return serve(turn);
    }
    if cfg!(debug_assertions) {
        eprintln!("this was built without --release: it is slower than it need be");
    }
    let mut processes = Figures::default();
    let mut udp = Figures::default();
    let mut peer = Peer::start(&options)?;
    let mut datagrams = Datagrams::connect(&mut peer)?;
    let mut end = End::prepare()?.connect(&mut peer)?;
    peer.exchange("connected")?;
    for _ in 0..TURNS {
        for number in 0..turn.trips {
            let trip = || datagrams.send(number).and_then(|()| datagrams.receive(number));
            udp.sends.add(trip)?;
        }
        for kind in [Kind::Send, Kind::WriteWithImm] {
            for number in 0..turn.trips {
                let trip = || end.send(kind, number).and_then(|()| end.receive(kind, number));
                processes.of(kind).add(trip)?;
            }
        }
        udp.transfers.add(|| datagrams.stream(turn.messages))?;
        processes.transfers.add(|| end.write(turn.messages))?;
        // What the peer has not done yet is not measured.
        peer.exchange("next")?;
    }
    drop((end, datagrams));
    peer.exchange("done")?;
    drop(peer);
    let itself = to_itself(turn)?;

    let device = if options.installed { "installed device" } else { "software device" };
    println!("medians of {} round trips of {SIZE} bytes, and of {TURNS} transfers:", options.iters);
    println!("{:32}{:>12}{:>12}{:>16}", "", "send", "write, imm", "64 KiB writes");
    udp.print("plain UDP, two processes", turn);
    processes.print(&format!("{device}, two processes"), turn);
    itself.print(&format!("{device}, to itself"), turn);
    println!(
        "between two processes: {:.2} times the round trip of UDP, {:.2} times its bandwidth",
        processes.sends.median().as_secs_f64() / udp.sends.median().as_secs_f64(),
        udp.transfers.median().as_secs_f64() / processes.transfers.median().as_secs_f64(),
    );
    Ok(())
}

/// What the peer does: the same, the other way round.
fn serve(turn: Turn) -> Result<()> {
    let mut parent = peer::Parent::new();
    let mut datagrams = Datagrams::connect(&mut parent)?;
    let mut end = End::prepare()?.connect(&mut parent)?;
    parent.exchange("connected")?;
    for _ in 0..TURNS {
        for number in 0..turn.trips {
            datagrams.receive(number)?;
            datagrams.send(number)?;
        }
        for kind in [Kind::Send, Kind::WriteWithImm] {
            for number in 0..turn.trips {
                end.receive(kind, number)?;
                end.send(kind, number)?;
            }
        }
        datagrams.take_stream(turn.messages)?;
        end.take_writes()?;
        end.drain()?;
        parent.exchange("next")?;
    }
    parent.exchange("done")?;
    Ok(())
}

/// A queue pair with itself as its peer.
fn to_itself(turn: Turn) -> Result<Figures> {
    let mut itself = Figures::default();
    let mut end = End::prepare()?.connect(&mut peer::Echo)?;
    for _ in 0..TURNS {
        for kind in [Kind::Send, Kind::WriteWithImm] {
            for number in 0..turn.trips {
                let trip = || end.send(kind, number).and_then(|()| end.receive(kind, number));
                itself.of(kind).add(trip)?;
                end.drain()?;
            }
        }
        itself.transfers.add(|| end.write(turn.messages))?;
        end.take_writes()?;
    }
    Ok(itself)
}

/// How long each has taken.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn add(&mut self, what: impl FnOnce() -> Result<()>) -> Result<()> {
        let start = Instant::now();
        what()?;
        self.0.push(start.elapsed());
        Ok(())
    }

    fn median(&self) -> Duration {
        let mut times = self.0.clone();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }
}

/// What was measured in one way.
#[derive(Default)]
struct Figures {
    sends: Times,
    writes: Times,
    transfers: Times,
}

impl Figures {
    fn of(&mut self, kind: Kind) -> &mut Times {
        match kind {
            Kind::Send => &mut self.sends,
            Kind::WriteWithImm => &mut self.writes,
        }
    }

    fn print(&self, name: &str, turn: Turn) {
        let micros = |times: &Times| match times.median().as_secs_f64() * 1e6 {
            0.0 => "-".to_owned(),
            time => format!("{time:.2} us"),
        };
        let bytes = (turn.messages * MESSAGE as u64) as f64;
        let rate = bytes / self.transfers.median().as_secs_f64() / 1e6;
        println!(
            "{name:32}{:>12}{:>12}{rate:>11.0} MB/s",
            micros(&self.sends),
            micros(&self.writes)
        );
    }
}
