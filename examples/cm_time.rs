//! Measures how long it takes to set connections up: the rate, and how the times of each phase are distributed, as
//! rdma-core's `cmtime` does.
//!
//! On the server's machine, and on another one, with the name or an address of the server's RDMA device:
//!
//! ```text
//! cm_time
//! cm_time server.example.com --connections 10000
//! ```
//!
//! Both sides serve all their connections from one event channel, in one thread. With `--parallel`, many are set up at a
//! time: then the rate tells what the machines can do, while the times also have in them how long each event waited for its
//! turn. With `--parallel 1` they are those of a connection that is alone.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{bail, Context as _, Result};
use clap::{value_parser, Parser};
use hdrhistogram::Histogram;
use ibverbs::rdmacm::{CmEvent, CmEventType, CmId, ConnectionParams, EventChannel, Tcp};
use ibverbs::{CompletionQueue, PreparedQueuePair, ProtectionDomain, QueuePair, Rc};
use ibverbs_examples::{
    event_channel, explain, show, Addresses, Progress, Route, PATIENCE, SET_UP,
};

/// Measure how long it takes to set up connections.
///
/// The server is started without an argument, the client with the name or the address of the server's
/// machine. The server ends with its client.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    addresses: Addresses,

    /// How many connections to set up
    #[arg(short = 'n', long, default_value_t = 1000, value_parser = value_parser!(u32).range(1..))]
    connections: u32,

    /// How many of them at a time
    #[arg(short = 'j', long, default_value_t = 32, value_parser = value_parser!(u32).range(1..))]
    parallel: u32,
}

/// What the request of a client begins with: a name, and a version. How many connections there will be follows.
const GREETING: [u8; 8] = *b"cm_time\x01";

fn main() -> Result<()> {
    let options = Options::parse();
    if options.addresses.is_server() {
        serve(&options)
    } else {
        measure(&options)
    }
}

/// What queue pairs are made of. No request is ever posted to them.
struct Parts {
    pd: ProtectionDomain,
    cq: CompletionQueue,
}

impl Parts {
    fn of(id: &CmId) -> Result<Parts> {
        let ctx = id.context()?;
        Ok(Parts { pd: ctx.alloc_pd()?, cq: ctx.create_cq(1).build()? })
    }

    fn create(&self, id: &CmId) -> Result<PreparedQueuePair<Rc>> {
        let port = id.port().context("the connection has no port")?;
        let qp = self.pd.create_qp::<Rc>(&self.cq, &self.cq, port)?;
        Ok(qp.set_max_send_wr(1).set_max_recv_wr(1).build()?)
    }
}

/// Accepts connections until the client has ended all of them.
fn serve(options: &Options) -> Result<()> {
    let channel = event_channel()?;
    let _listener = options.addresses.listen(|address| {
        let mut id = CmId::create_on(&channel, Tcp)?;
        id.bind_addr(address)?;
        id.listen(0).map(|()| id)
    })?;
    let mut connections: HashMap<u64, (CmId, QueuePair<Rc>)> = HashMap::new();
    let (mut expected, mut accepted, mut ended, mut parts) = (None, 0, 0, None);
    while expected.is_none_or(|expected| ended < expected) {
        // The first client may come late.
        let patience = expected.map(|_| PATIENCE);
        let Some(mut event) = channel.wait(patience)? else {
            bail!("nothing happened for {PATIENCE:?}, and {ended} connections have ended");
        };
        match event.event_type() {
            CmEventType::CONNECT_REQUEST => {
                let mut id = event.take_request().context("a request without an identifier")?;
                let Some(count) = count(event.private_data()) else {
                    eprintln!("{}: another program", show(id.peer_addr()));
                    id.reject(b"this is cm_time")?;
                    continue;
                };
                expected.get_or_insert(count);
                accepted += 1;
                id.set_context(accepted);
                let parts = match &parts {
                    Some(parts) => parts,
                    None => parts.insert(Parts::of(&id)?),
                };
                let qp = id.bring_up(parts.create(&id)?)?;
                id.accept(&ConnectionParams::new().for_queue_pair(&qp))?;
                connections.insert(accepted, (id, qp));
            }
            CmEventType::ESTABLISHED | CmEventType::TIMEWAIT_EXIT => {}
            CmEventType::DISCONNECTED => {
                if let Some((mut id, _)) = connections.remove(&event.context()) {
                    // The client waits for the answer.
                    id.disconnect()?;
                    ended += 1;
                }
            }
            _ => bail!("a client's connection failed: {event}"),
        }
    }
    println!("{ended} connections accepted and ended");
    Ok(())
}

/// How many connections a client says that there will be.
fn count(private_data: &[u8]) -> Option<u32> {
    let rest = private_data.strip_prefix(&GREETING)?;
    Some(u32::from_be_bytes(*rest.first_chunk()?)).filter(|&count| count > 0)
}

/// Sets the connections up, then ends them, and prints what that took.
fn measure(options: &Options) -> Result<()> {
    let mut client = Client::new(options)?;
    let set_up = client.run("connected", options, Client::start)?;
    let ended = client.run("disconnected", options, Client::end)?;
    let (count, seconds) = (options.connections, set_up.as_secs_f64());
    println!("{count} connections, {} at a time, in {seconds:.3} s:", options.parallel);
    println!("{:.0} connections/s", f64::from(count) / seconds);
    println!("{:.0} disconnections/s", f64::from(count) / ended.as_secs_f64());
    println!();
    println!("{:20}{:>10}{:>10}{:>10}{:>10}{:>10}", "ms", "min", "median", "90 %", "99 %", "max");
    for (phase, name) in Phase::ALL {
        let times = &client.times[phase as usize];
        print!("{name:20}");
        for quantile in [0.0, 0.5, 0.9, 0.99, 1.0] {
            print!("{:10.3}", times.value_at_quantile(quantile) as f64 / 1e3);
        }
        println!();
    }
    Ok(())
}

/// What is measured.
#[derive(Clone, Copy)]
enum Phase {
    Address,
    Route,
    QueuePair,
    Connect,
    SetUp,
    Disconnect,
}

impl Phase {
    const ALL: [(Phase, &'static str); 6] = [
        (Phase::Address, "resolve address"),
        (Phase::Route, "resolve route"),
        (Phase::QueuePair, "create queue pair"),
        (Phase::Connect, "connect"),
        (Phase::SetUp, "all of these"),
        (Phase::Disconnect, "disconnect"),
    ];
}

/// How long each phase took, in microseconds.
type Times = [Histogram<u64>; Phase::ALL.len()];

/// The client's side.
struct Client {
    channel: EventChannel,
    route: Route,
    greeting: ConnectionParams,
    connections: Vec<Connection>,
    parts: Option<Parts>,
    times: Times,
    /// Whether all connections are set up, and being ended.
    is_ending: bool,
}

/// One of the connections.
struct Connection {
    id: CmId,
    /// Before the server has answered.
    waiting: Option<PreparedQueuePair<Rc>>,
    /// Afterwards.
    qp: Option<QueuePair<Rc>>,
    /// When all of it was begun, and the phase that it is in.
    start: Instant,
    phase: Instant,
}

impl Client {
    fn new(options: &Options) -> Result<Client> {
        let greeting = [&GREETING[..], &options.connections.to_be_bytes()].concat();
        let histogram = Histogram::new(3)?;
        Ok(Client {
            channel: event_channel()?,
            route: options.addresses.route()?,
            greeting: ConnectionParams::new().set_private_data(greeting),
            connections: Vec::new(),
            parts: None,
            times: std::array::from_fn(|_| histogram.clone()),
            is_ending: false,
        })
    }

    /// Begins something with each connection, with some at a time, and waits until each is done with it.
    fn run(
        &mut self,
        what: &'static str,
        options: &Options,
        begin: fn(&mut Client, usize) -> Result<()>,
    ) -> Result<Duration> {
        let (count, parallel) = (options.connections as usize, options.parallel as usize);
        let (mut begun, mut done) = (0, 0);
        let (start, mut progress) = (Instant::now(), Progress::of(count as u64, what));
        while done < count {
            while begun < count && begun - done < parallel {
                begin(self, begun)?;
                begun += 1;
            }
            let event = self.channel.wait(Some(PATIENCE))?;
            let event = event.with_context(|| {
                format!("nothing happened for {PATIENCE:?}, and {done} of {count} are {what}")
            })?;
            done += usize::from(self.step(event)?);
            progress.step(done as u64);
        }
        Ok(start.elapsed())
    }

    /// Begins to set a connection up.
    fn start(&mut self, number: usize) -> Result<()> {
        let now = Instant::now();
        let mut id = CmId::create_on(&self.channel, Tcp)?;
        id.set_context(number as u64);
        id.resolve_addr(self.route.source, self.route.peer, SET_UP)?;
        self.connections.push(Connection { id, waiting: None, qp: None, start: now, phase: now });
        Ok(())
    }

    /// Begins to end a connection.
    fn end(&mut self, number: usize) -> Result<()> {
        self.is_ending = true;
        let connection = &mut self.connections[number];
        connection.phase = Instant::now();
        Ok(connection.id.disconnect()?)
    }

    /// Takes the next step with the connection that the event is of. Returns whether it is set up, or ended.
    fn step(&mut self, event: CmEvent) -> Result<bool> {
        let number = usize::try_from(event.context())?;
        let connection = self.connections.get_mut(number).context("an event of no connection")?;
        match event.event_type() {
            CmEventType::ADDR_RESOLVED => {
                connection.ends(Phase::Address, &mut self.times)?;
                connection.id.resolve_route(SET_UP)?;
            }
            CmEventType::ROUTE_RESOLVED => {
                connection.ends(Phase::Route, &mut self.times)?;
                let parts = match &self.parts {
                    Some(parts) => parts,
                    None => self.parts.insert(Parts::of(&connection.id)?),
                };
                let qp = parts.create(&connection.id)?;
                connection.ends(Phase::QueuePair, &mut self.times)?;
                connection.id.connect(&self.greeting.clone().for_queue_pair(&qp))?;
                connection.waiting = Some(qp);
            }
            CmEventType::CONNECT_RESPONSE => {
                let qp = connection.waiting.take().context("an answer to no request")?;
                connection.qp = Some(connection.id.bring_up(qp)?);
                connection.id.establish()?;
                connection.ends(Phase::Connect, &mut self.times)?;
                connection.ends(Phase::SetUp, &mut self.times)?;
                return Ok(true);
            }
            CmEventType::DISCONNECTED if self.is_ending => {
                connection.ends(Phase::Disconnect, &mut self.times)?;
                return Ok(true);
            }
            CmEventType::TIMEWAIT_EXIT | CmEventType::ADDR_CHANGE => {}
            _ => return Err(explain(event.into_error("connect", &connection.id))),
        }
        Ok(false)
    }
}

impl Connection {
    /// The phase ends here, and the next one begins.
    fn ends(&mut self, phase: Phase, times: &mut Times) -> Result<()> {
        let since = if let Phase::SetUp = phase { self.start } else { self.phase };
        times[phase as usize].record(since.elapsed().as_micros() as u64)?;
        self.phase = Instant::now();
        Ok(())
    }
}
