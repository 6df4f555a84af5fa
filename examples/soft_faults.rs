//! What a program can be tested for with the software device: a link that loses, corrupts, doubles and reorders packets, memory that
//! cannot be registered, a port that goes down, and a capture of all packets for Wireshark.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context as _, Result};
use clap::{value_parser, Parser};
use ibverbs::soft::{faults, Link};
use ibverbs::{
    AccessFlags, AckTimeout, CompletionQueue, Context, EventType, MemoryRegion, ProtectionDomain,
    QueuePair, Rc, RecvRequest, WcStatus,
};
use ibverbs_examples::{check, fill, wait, Rate};

/// Send messages over links of the software device that get worse and worse, and look what happens when the port goes down.
#[derive(Parser)]
struct Options {
    /// Bytes per message
    #[arg(short, long, default_value_t = 10_000, value_parser = value_parser!(u32).range(1..))]
    size: u32,

    /// How many messages to send over each link
    #[arg(short = 'n', long, default_value_t = 1000, value_parser = value_parser!(u64).range(1..))]
    iters: u64,

    /// What the link's decisions come from
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Capture all packets in this file
    #[arg(long, value_name = "FILE")]
    capture: Option<PathBuf>,
}

const PORT: u8 = 1;
const RECV: u64 = 1;
const SEND: u64 = 2;
/// How probable each of the things is that go wrong, link by link.
const LINKS: [f64; 4] = [0.0, 0.01, 0.03, 0.1];

fn main() -> Result<()> {
    let options = Options::parse();
    ibverbs::soft::install()?;
    let context = ibverbs::devices()?.get(0).context("there is always one")?.open()?;
    let faults = faults(&context)?;
    let capture = options.capture.as_ref().map(|path| faults.capture(path)).transpose()?;

    let pd = context.alloc_pd()?;
    faults.fail_registrations(1, NO_MEMORY)?;
    let Err(error) = pd.allocate(options.size as usize, AccessFlags::LOCAL_WRITE) else {
        bail!("a registration has not failed that should")
    };
    println!("the first registration: {error}");

    let mut ends = Ends::connect(&context, &pd, options.size)?;
    for probability in LINKS {
        let link = Link::new()
            .set_loss(probability)
            .set_corruption(probability)
            .set_duplication(probability)
            .set_reordering(probability, Duration::from_micros(200))
            .set_seed(options.seed);
        faults.set_link(link)?;
        let start = Instant::now();
        for message in 0..options.iters {
            ends.send(message)?;
        }
        let bytes = options.iters * u64::from(options.size);
        let rate = Rate { messages: options.iters, bytes, time: start.elapsed() };
        println!("{:.0} % of all packets go wrong in each way: {rate}", 100.0 * probability);
        println!("    so far: {:?}", faults.link_counts()?);
    }
    faults.set_link(Link::new())?;

    faults.port_down()?;
    let status = ends.fail()?;
    ensure!(status == WcStatus::RETRY_EXC_ERR, "without a port, a send has ended with {status}");
    let event = context.wait_async_event(Some(Duration::from_secs(1)))?;
    let event = event.context("the port is down, and no event says so")?;
    ensure!(event.event_type() == EventType::PORT_ERR, "an event that nobody expects: {event}");
    println!("{event}: {status}");
    if let Some(capture) = capture {
        println!("{} packets captured", capture.finish()?);
    }
    Ok(())
}

/// `ENOMEM`.
const NO_MEMORY: i32 = 12;

/// Two queue pairs that are connected to each other. They stand above the memory that they use, and are dropped first.
struct Ends {
    sender: QueuePair<Rc>,
    receiver: QueuePair<Rc>,
    cq: CompletionQueue,
    from: MemoryRegion,
    to: MemoryRegion,
}

impl Ends {
    fn connect(context: &Context, pd: &ProtectionDomain, size: u32) -> Result<Ends> {
        let cq = context.create_cq(16).build()?;
        let gid = context.routable_gid(PORT)?.context("the software device has an address")?;
        let gid_index = gid.index().try_into()?;
        let prepare = || {
            let timeout = AckTimeout::at_least(Duration::from_millis(4));
            let builder = pd.create_qp::<Rc>(&cq, &cq, PORT)?.set_gid_index(gid_index);
            builder.set_timeout(timeout).set_retry_count(7).build()
        };
        let (sender, receiver) = (prepare()?, prepare()?);
        let (of_sender, of_receiver) = (sender.endpoint()?, receiver.endpoint()?);
        Ok(Ends {
            sender: sender.handshake(of_receiver)?,
            receiver: receiver.handshake(of_sender)?,
            cq,
            from: pd.allocate(size as usize, AccessFlags::empty())?,
            to: pd.allocate(size as usize, AccessFlags::LOCAL_WRITE)?,
        })
    }

    fn post(&mut self, message: u64) -> Result<()> {
        fill(self.from.bytes_mut(), message);
        let (from, to) = ([self.from.slice(..)], [self.to.slice(..)]);
        // SAFETY: `to` stays registered and untouched until the completion is polled, or the queue pair is destroyed: it is dropped
        // earlier.
        unsafe { self.receiver.post_recv([RecvRequest::new(RECV, &to)]) }?;
        let mut batch = self.sender.start_send();
        batch.op().signaled().send(SEND, &from);
        // SAFETY: `from` stays registered and is not written to for just as long.
        unsafe { batch.submit() }?;
        Ok(())
    }

    /// Sends a message, and checks that it arrives unchanged.
    fn send(&mut self, message: u64) -> Result<()> {
        self.post(message)?;
        wait(&self.cq, 2, |_| Ok(()))?;
        check(self.to.bytes(), message)
    }

    /// Sends a message that cannot arrive, and returns what becomes of it.
    fn fail(&mut self) -> Result<WcStatus> {
        self.post(0)?;
        loop {
            if let Some(mut completions) = self.cq.poll()? {
                let completion = completions.next().context("a poll that succeeds has one")?;
                return Ok(completion.ok().err().map_or(WcStatus::SUCCESS, |error| error.status));
            }
        }
    }
}
