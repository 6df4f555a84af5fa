//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{ensure, Result};
use clap::{Args, Parser, Subcommand};
use ibverbs::Mtu;
use ibverbs_examples::Local;

use crate::plan::{parse_size, Extent, Flow, Kind, Operation, Plan, Sizes, Transport};

/// Measure the latency and the bandwidth of RDMA operations, between two processes or in this one.
///
/// The server is started with `perf serve`. The client's command line says what is measured, with the name or the
/// address of the server's machine at its end; without it, both sides are in this process. Without any argument a few
/// things are measured in this process.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) local: Local,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// How long one operation takes, with no other under way
    ///
    /// Sends and writes go to and fro; half of the round trip is told. Reads and atomics are timed from the post to the
    /// completion.
    #[command(visible_alias = "lat")]
    Latency(Latency),

    /// How much can be done with many operations under way
    #[command(visible_alias = "bw")]
    Bandwidth(Bandwidth),

    /// Be the server, which does what its clients say
    Serve(Serve),
}

#[derive(Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) local: Local,

    /// The port on which to wait for clients
    #[arg(long, default_value_t = TCP_PORT)]
    pub(crate) tcp_port: u16,

    /// How many clients to serve, one after the other; 0: without end
    #[arg(short, long, default_value_t = 1)]
    pub(crate) clients: u64,
}

const TCP_PORT: u16 = 18516;

/// The options of every measurement.
#[derive(Args)]
pub(crate) struct Common {
    #[command(flatten)]
    pub(crate) local: Local,

    /// The operation
    operation: Operation,

    /// The machine of the server; without it, both sides are in this process
    pub(crate) server: Option<String>,

    /// The port on which the server waits
    #[arg(long, default_value_t = TCP_PORT)]
    pub(crate) tcp_port: u16,

    /// What carries the operation
    #[arg(short, long, value_enum, default_value_t = Transport::Rc)]
    transport: Transport,

    /// Bytes per message, also as 64K or 1M [default: 8 for latency and atomics, 64K for bandwidth; at most the MTU for
    /// datagrams]
    #[arg(short, long, value_parser = parse_size, conflicts_with = "sizes")]
    size: Option<u32>,

    /// All powers of two between these, such as 2..65536
    #[arg(long, value_parser = Sizes::parse, value_name = "FIRST..LAST")]
    sizes: Option<Sizes>,

    /// How many operations to measure with each size, on each queue pair [default: 1000 for latency, 5000 for bandwidth]
    #[arg(short = 'n', long, value_parser = clap::value_parser!(u64).range(1..))]
    iters: Option<u64>,

    /// Seconds to measure with each size, instead of a number of operations
    #[arg(long, value_parser = seconds, value_name = "SECONDS", conflicts_with = "iters")]
    duration: Option<Duration>,

    /// How many operations come before those that are measured
    #[arg(short, long, default_value_t = 100)]
    warmup: u64,

    /// Messages of up to so many bytes are sent inline [default: 64 for latency, 0 for bandwidth]
    #[arg(short, long, value_name = "BYTES")]
    inline: Option<u32>,

    /// Write the results to this file as JSON; to the standard output instead of the table if it is -
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Draw the results into this file
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Latency {
    #[command(flatten)]
    pub(crate) common: Common,

    /// Tell the whole round trip of sends and writes, and not half of it
    #[arg(short, long)]
    pub(crate) full: bool,
}

#[derive(Args)]
pub(crate) struct Bandwidth {
    #[command(flatten)]
    pub(crate) common: Common,

    /// How many operations may be under way, on each queue pair
    #[arg(long, default_value_t = 128, value_name = "N")]
    window: u32,

    /// How many operations to post with one doorbell [default: 16, or the window if that is smaller]
    #[arg(short, long, value_name = "N")]
    batch: Option<u32>,

    /// Ask for a completion of every n-th operation [default: as many as a batch has]
    #[arg(long, value_name = "N")]
    signal_every: Option<u32>,

    /// How many queue pairs
    #[arg(short, long, default_value_t = 1, value_name = "N")]
    qps: u32,
}

fn seconds(text: &str) -> Result<Duration> {
    let seconds = Duration::try_from_secs_f64(text.parse()?)?;
    ensure!(!seconds.is_zero(), "nothing is done in no time");
    Ok(seconds)
}

impl Latency {
    /// What is to be measured; the port's MTU is this.
    pub(crate) fn plan(&self, mtu: Mtu) -> Result<Plan> {
        const INLINE: u32 = 64;
        self.common.plan(Kind::Latency, INLINE, 8, mtu)
    }
}

impl Bandwidth {
    /// What is to be measured; the port's MTU is this.
    pub(crate) fn plan(&self, mtu: Mtu) -> Result<Plan> {
        const BATCH: u32 = 16;
        const SIZE: u32 = 1 << 16;
        let batch = self.batch.unwrap_or(BATCH.min(self.window));
        let signal_every = self.signal_every.unwrap_or(batch);
        let flow = Flow { window: self.window, batch, signal_every, queue_pairs: self.qps };
        self.common.plan(Kind::Bandwidth(flow), 0, SIZE, mtu)
    }
}

impl Common {
    fn plan(&self, kind: Kind, inline: u32, size: u32, mtu: Mtu) -> Result<Plan> {
        let size = match (self.operation.is_atomic(), self.transport) {
            (true, _) => 8,
            (false, Transport::Ud) => size.min(mtu.bytes().unwrap_or(size)),
            (false, _) => size,
        };
        let plan = Plan {
            kind,
            operation: self.operation,
            transport: self.transport,
            sizes: self.sizes.unwrap_or(Sizes::one(self.size.unwrap_or(size))),
            inline: self.inline.unwrap_or(inline),
            warmup: self.warmup,
        };
        plan.check()?;
        Ok(plan)
    }

    /// When it ends.
    pub(crate) fn extent(&self, kind: Kind) -> Extent {
        let iters = match kind {
            Kind::Latency => 1000,
            Kind::Bandwidth(_) => 5000,
        };
        match self.duration {
            Some(duration) => Extent::Time(duration),
            None => Extent::Iterations(self.iters.unwrap_or(iters)),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// What these words plan, at an MTU of 1024.
    fn plan(words: &str) -> Result<(Plan, Extent)> {
        let options =
            Options::try_parse_from(["perf"].into_iter().chain(words.split_whitespace()))?;
        match options.command {
            Some(Command::Latency(latency)) => {
                let plan = latency.plan(Mtu::B1024)?;
                Ok((plan, latency.common.extent(plan.kind)))
            }
            Some(Command::Bandwidth(bandwidth)) => {
                let plan = bandwidth.plan(Mtu::B1024)?;
                Ok((plan, bandwidth.common.extent(plan.kind)))
            }
            _ => anyhow::bail!("nothing is measured"),
        }
    }

    fn flow(words: &str) -> Flow {
        match plan(words).unwrap().0.kind {
            Kind::Bandwidth(flow) => flow,
            Kind::Latency => unreachable!("it is bandwidth"),
        }
    }

    #[test]
    fn the_command_line_is_a_valid_one() {
        Options::command().debug_assert();
    }

    #[test]
    fn what_is_left_open_fits_the_operation() {
        let size = |words| plan(words).unwrap().0.sizes.last();
        assert_eq!(size("latency send"), 8);
        assert_eq!(size("bandwidth write"), 65536);
        assert_eq!(size("bandwidth send --transport ud"), 1024);
        assert_eq!(size("bandwidth fetch-add"), 8);
        assert_eq!(size("lat send --size 2K"), 2048);
        assert_eq!(size("bw read --sizes 2..64K"), 65536);
        let extent = |words| plan(words).unwrap().1;
        assert_eq!(extent("lat read"), Extent::Iterations(1000));
        assert_eq!(extent("bw read -n 7"), Extent::Iterations(7));
        assert_eq!(extent("bw read --duration 0.5"), Extent::Time(Duration::from_millis(500)));
    }

    #[test]
    fn a_batch_fits_into_its_window() {
        let of = |window, batch, signal_every| Flow { window, batch, signal_every, queue_pairs: 1 };
        assert_eq!(flow("bw send"), of(128, 16, 16));
        assert_eq!(flow("bw send --window 5"), of(5, 5, 5));
        assert_eq!(flow("bw send --window 5 --batch 2"), of(5, 2, 2));
        assert_eq!(flow("bw send --signal-every 100"), of(128, 16, 100));
        assert!(plan("bw send --window 16 --signal-every 64").is_err());
        assert!(plan("bw send --window 0").is_err());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for words in [
            "lat send --size 0",
            "lat send --size 8 --sizes 2..4",
            "lat send --iters 0",
            "lat send --iters 1 --duration 1",
            "lat send --duration 0",
            "lat send --duration -1",
            "lat send --duration inf",
            "lat read --transport uc",
            "lat --window 4 send",
            "--device x lat send",
        ] {
            assert!(plan(words).is_err(), "{words}");
        }
    }
}
