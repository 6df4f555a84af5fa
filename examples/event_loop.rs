//! Serves several completion queues, and the events of the device, from one epoll descriptor: the program
//! sleeps while there is nothing to do.

use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure, Result};
use clap::{value_parser, Parser};
use ibverbs::{
    AccessFlags, CompletionChannel, CompletionQueue, MemoryRegion, ProtectionDomain, QueuePair, Rc,
    RecvRequest,
};
use ibverbs_examples::{check, fill, Common, Opened, Progress, Rate};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

/// Send messages on several queue pairs at a time, and sleep until something has completed.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: Common,

    /// How many completion queues, with a queue pair each
    #[arg(short, long, default_value_t = 4, value_parser = value_parser!(u16).range(1..=1000))]
    queues: u16,
}

/// How long to wait for a completion that does not come.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> Result<()> {
    let Options { common, queues } = Options::parse();
    let (size, iters) = (common.size, common.iters);
    let opened = common.open()?;
    let ctx = &opened.context;
    let pd = ctx.alloc_pd()?;
    let channel = ctx.create_comp_channel()?;
    let lanes = (0..queues).map(|number| Lane::new(&opened, &pd, &channel, number, size));
    let mut lanes = lanes.collect::<Result<Vec<_>>>()?;

    let mut epoll = Poll::new()?;
    for fd in [channel.as_raw_fd(), ctx.async_event_fd()?.as_raw_fd()] {
        epoll.registry().register(&mut SourceFd(&fd), Token(0), Interest::READABLE)?;
    }

    let (begin, mut progress) = (Instant::now(), Progress::new(iters));
    let (mut messages, mut done) = (0..iters, 0);
    for lane in &mut lanes {
        // Every queue is armed once at the beginning, and then whenever it has raised an event.
        lane.serve()?;
        if let Some(message) = messages.next() {
            lane.start(message)?;
        }
    }
    let mut ready = Events::with_capacity(2);
    while done < iters {
        match epoll.poll(&mut ready, Some(PATIENCE)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        ensure!(!ready.is_empty(), "nothing completed for {PATIENCE:?}");
        // A descriptor is reported once: what is there must be taken until there is no more.
        while let Some(event) = ctx.poll_async_event()? {
            println!("the device says: {event}");
        }
        while let Some(event) = channel.get_event()? {
            let lane = &mut lanes[usize::try_from(event.context())?];
            if lane.serve()? {
                if let Some(message) = messages.next() {
                    lane.start(message)?;
                }
                done += 1;
                progress.step(done);
            }
        }
    }
    let rate = Rate { messages: iters, bytes: iters * u64::from(size), time: begin.elapsed() };
    println!("{iters} messages of {size} bytes through {queues} queues, checking included: {rate}");
    Ok(())
}

/// A queue pair that is connected to itself, with a completion queue and memory of its own.
struct Lane {
    qp: QueuePair<Rc>,
    cq: CompletionQueue,
    send: MemoryRegion,
    recv: MemoryRegion,
    /// The message on its way, and how many of its two requests have not completed.
    message: u64,
    pending: u32,
}

impl Lane {
    fn new(
        opened: &Opened,
        pd: &ProtectionDomain,
        channel: &CompletionChannel,
        number: u16,
        size: u32,
    ) -> Result<Lane> {
        let cq = opened.context.create_cq(16).set_comp_channel(channel);
        let cq = cq.set_context(number.into()).build()?;
        let qp = pd.create_qp::<Rc>(&cq, &cq, opened.port)?;
        let qp = qp.set_gid_index(opened.gid_index).build()?;
        let endpoint = qp.endpoint()?;
        Ok(Lane {
            qp: qp.handshake(endpoint)?,
            cq,
            send: pd.allocate(size as usize, AccessFlags::empty())?,
            recv: pd.allocate(size as usize, AccessFlags::LOCAL_WRITE)?,
            message: 0,
            pending: 0,
        })
    }

    /// Sends a message. The one before has arrived.
    fn start(&mut self, message: u64) -> Result<()> {
        fill(self.send.bytes_mut(), message);
        let (from, to) = ([self.send.slice(..)], [self.recv.slice(..)]);
        // SAFETY: `recv` stays registered and untouched until both requests have completed or, should
        // something fail, the queue pair is destroyed: it stands above the memory and is dropped first.
        unsafe { self.qp.post_recv([RecvRequest::new(0, &to)]) }?;
        let mut batch = self.qp.start_send();
        batch.op().signaled().send(1, &from);
        // SAFETY: `send` stays registered and is not written to for just as long.
        unsafe { batch.submit() }?;
        (self.message, self.pending) = (message, 2);
        Ok(())
    }

    /// Takes what has completed, and arms the queue. Returns whether a message has arrived.
    fn serve(&mut self) -> Result<bool> {
        let mut result = Ok(());
        let count = self.cq.poll_armed(false, |wc| {
            self.pending -= 1;
            if let Err(error) = wc.ok() {
                result = Err(anyhow!(error).context(format!("message {} failed", self.message)));
            }
        })?;
        result?;
        // An event may be left over from completions that were taken before.
        let arrived = count > 0 && self.pending == 0;
        if arrived {
            check(self.recv.bytes(), self.message)?;
        }
        Ok(arrived)
    }
}
