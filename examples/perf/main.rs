//! Measures latency and bandwidth, as `ib_send_lat`, `ib_write_bw` and the like of perftest do: between two processes, or
//! in this one.
//!
//! `plan` is what is measured, `exchange` how both sides agree on it, `queues` what they connect. `latency` and
//! `bandwidth` measure, over any transport and with any operation that it has (`verbs`). `report` and `plot` tell the
//! results.
//!
//! All is posted on the shared level: nothing here is `unsafe`. Beside the driver and the device, what the levels differ
//! in cannot be measured (`docs/cost.md`), and memory that a peer writes to while this side looks at it, as in the latency of
//! writes, is what that level is for. While something is measured, nothing is allocated.

mod args;
mod bandwidth;
mod exchange;
mod latency;
mod pace;
mod plan;
mod plot;
mod queues;
mod report;
mod session;
mod verbs;
mod watch;

use std::path::Path;

use anyhow::{anyhow, Context as _, Result};
use clap::Parser;
use ibverbs_examples::{Listener, Local, Opened, Peer};

use args::{Command, Common, Options, Serve};
use plan::{Extent, Flow, Kind, Operation, Plan, Sizes, Transport};
use report::Report;
use session::{Client, Role};

fn main() -> Result<()> {
    let Options { local, command } = Options::parse();
    if cfg!(debug_assertions) {
        eprintln!("this was built without --release: it is slower than it need be");
    }
    match command {
        None => show(&local),
        Some(Command::Serve(serve)) => serve_clients(&serve),
        Some(Command::Latency(latency)) => {
            measure(&latency.common, latency.full, |opened| latency.plan(mtu(opened)?))
        }
        Some(Command::Bandwidth(bandwidth)) => {
            measure(&bandwidth.common, false, |opened| bandwidth.plan(mtu(opened)?))
        }
    }
}

fn mtu(opened: &Opened) -> Result<ibverbs::Mtu> {
    Ok(opened.context.query_port(opened.port)?.active_mtu())
}

/// The server.
fn serve_clients(serve: &Serve) -> Result<()> {
    let opened = serve.local.open()?;
    println!("{opened}");
    let listener = Listener::bind(serve.tcp_port)?;
    println!("waiting for a client on TCP port {}", listener.port()?);
    let (mut served, mut failed) = (0, 0);
    while serve.clients == 0 || served < serve.clients {
        let mut peer = listener.accept()?;
        let address = peer.address()?;
        let mut tell = |agreed: &exchange::Agreed| {
            println!("{address}, {}: {}", agreed.peer, agreed.plan);
        };
        if let Err(error) = session::run(&mut peer, &opened, Role::Server(&mut tell)) {
            eprintln!("{address}: {error:#}");
            failed += 1;
        }
        served += 1;
    }
    if failed > 0 {
        return Err(anyhow!("{failed} of {served} clients failed"));
    }
    Ok(())
}

/// Measures what the command line says, as the client or as both sides.
fn measure(
    common: &Common,
    is_full: bool,
    plan: impl FnOnce(&Opened) -> Result<Plan>,
) -> Result<()> {
    let opened = common.local.open()?;
    let plan = plan(&opened)?;
    let to_stdout = |path: &Option<_>| path.as_deref() == Some(Path::new("-"));
    let is_quiet = to_stdout(&common.json) || to_stdout(&common.svg);
    if !is_quiet {
        println!("{opened}");
    }
    let extent = common.extent(plan.kind);
    let report = match &common.server {
        Some(host) => {
            let mut peer = Peer::connect(Some(host), common.tcp_port)?;
            as_client(&mut peer, &opened, plan, extent, is_full, is_quiet)?
        }
        None => as_both(&opened, plan, extent, is_full, is_quiet)?,
    };
    if let Some(path) = &common.json {
        report::write(path, &report.json())?;
    }
    if let Some(path) = &common.svg {
        report::write(path, &report.svg())?;
    }
    Ok(())
}

/// What is measured if nothing is said: a little of everything.
fn show(local: &Local) -> Result<()> {
    let opened = local.open()?;
    println!("{opened}");
    println!("both sides are in this process; perf --help says how to measure between two, and other things");
    let limits = exchange::Limits::of(&opened)?;
    let flow = Flow { window: 128, batch: 16, signal_every: 16, queue_pairs: 1 };
    for (kind, operation, size, iterations) in [
        (Kind::Latency, Operation::Send, 8, 1000),
        (Kind::Latency, Operation::Write, 8, 1000),
        (Kind::Latency, Operation::Read, 8, 1000),
        (Kind::Latency, Operation::FetchAdd, 8, 1000),
        (Kind::Bandwidth(flow), Operation::Send, 65536, 500),
        (Kind::Bandwidth(flow), Operation::Write, 65536, 500),
        (Kind::Bandwidth(flow), Operation::Read, 65536, 500),
    ] {
        let inline = if kind == Kind::Latency { 64 } else { 0 };
        let (transport, sizes) = (Transport::Rc, Sizes::one(size));
        let plan = Plan { kind, operation, transport, sizes, inline, warmup: 100 };
        if operation.is_atomic() && limits.check(&plan, limits.mtu).is_err() {
            continue;
        }
        println!();
        as_both(&opened, plan, Extent::Iterations(iterations), false, false)?;
    }
    Ok(())
}

/// Measures, with a thread of this process as the server.
fn as_both(
    opened: &Opened,
    plan: Plan,
    extent: Extent,
    is_full: bool,
    is_quiet: bool,
) -> Result<Report> {
    let (mut here, mut there) = Peer::pair()?;
    let server = opened.clone();
    let server =
        std::thread::spawn(move || session::run(&mut there, &server, Role::Server(&mut |_| ())));
    let result = as_client(&mut here, opened, plan, extent, is_full, is_quiet);
    drop(here);
    let served = server.join().map_err(|_| anyhow!("the server's thread has panicked"))?;
    if let (Err(_), Err(served)) = (&result, served) {
        // Each may have failed because the other has.
        eprintln!("the other side: {served:#}");
    }
    result
}

/// Measures, and prints each result as soon as it is there.
fn as_client(
    peer: &mut Peer,
    opened: &Opened,
    plan: Plan,
    extent: Extent,
    is_full: bool,
    is_quiet: bool,
) -> Result<Report> {
    let device = opened.context.device().name().to_owned();
    let mut report: Option<Report> = None;
    let mut tell = |agreed: &exchange::Agreed, measured| {
        if report.is_none() && !is_quiet {
            println!("{}", Report::new(agreed, &device, is_full).head());
        }
        let report = report.get_or_insert_with(|| Report::new(agreed, &device, is_full));
        report.add(&measured);
        if !is_quiet {
            println!("{}", report.line());
        }
        Ok(())
    };
    let client = Client { plan, extent, report: &mut tell };
    session::run(peer, opened, Role::Client(client))?;
    report.context("nothing was measured")
}
