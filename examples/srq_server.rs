//! Several clients, and a server whose queue pairs share one receive queue. It sends each request back from
//! where it arrived. When few receives are left the device raises an event, and free ones are posted.

use std::collections::HashMap;
use std::sync::mpsc::{channel, Sender};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use ibverbs::{AccessFlags, CompletionQueue, EventType, LocalMemorySlice, MemoryRegion};
use ibverbs::{QueuePair, Rc, RecvRequest};
use ibverbs_examples::{check, fill, wait, Common, Rate};

/// Send requests of several clients to one server, which sends them back, and check every byte.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: Common,
}

const CLIENTS: usize = 4;
/// How many receives the server has for all clients together.
const RECEIVES: usize = 16;
/// The event comes when fewer than these are left.
const LIMIT: u32 = 8;
/// When to post free receives if no event comes. (SoftRoCE raises it when a receive is taken, and not if all
/// were taken before the event was asked for.)
const TICK: Duration = Duration::from_millis(100);

fn main() -> Result<()> {
    let Options { common } = Options::parse();
    let (size, iters) = (common.size as usize, common.iters);
    let opened = common.open()?;

    let pd = opened.context.alloc_pd()?;
    let memory = pd.allocate(RECEIVES * size, AccessFlags::LOCAL_WRITE)?;
    let slot = |slot| [memory.slice(slot * size..(slot + 1) * size)];
    let slots: Vec<_> = (0..RECEIVES).map(slot).collect();
    let receive = |slot: usize| RecvRequest::new(slot as u64, &slots[slot]);
    let srq = pd.create_srq(RECEIVES as u32).build()?;
    // SAFETY: the memory is dropped after the queue and its queue pairs. Nobody refers to it.
    unsafe { srq.post_recv((0..RECEIVES).map(receive).collect::<Vec<_>>()) }?;
    let (free, freed) = channel();
    let cq = opened.context.create_cq(2 * RECEIVES as u32).build()?;
    let mut server = Server { qps: HashMap::new(), cq, slots: slots.clone(), free };
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let cq = opened.context.create_cq(2).build()?;
        let create_qp = |cq| pd.create_qp::<Rc>(cq, cq, opened.port);
        let ours = create_qp(&cq)?.set_gid_index(opened.gid_index).build()?;
        let theirs = create_qp(&server.cq)?.set_gid_index(opened.gid_index).set_srq(&srq);
        let theirs = theirs.set_max_send_wr(RECEIVES as u32).build()?;
        let (from, to) = (ours.endpoint()?, theirs.endpoint()?);
        server.qps.insert(theirs.qp_num(), theirs.handshake(from)?);
        let send = pd.allocate(size, AccessFlags::empty())?;
        let recv = pd.allocate(size, AccessFlags::LOCAL_WRITE)?;
        clients.push(Client { qp: ours.handshake(to)?, cq, send, recv });
    }

    let start = Instant::now();
    let events = std::thread::scope(|scope| {
        let serving = scope.spawn(|| server.run(iters));
        let running: Vec<_> = (0..)
            .zip(&mut clients)
            .map(|(first, client)| scope.spawn(move || client.run(first, iters)))
            .collect();
        let mut events = 0;
        while !serving.is_finished() {
            srq.set_limit(LIMIT)?;
            let event =
                opened.context.wait_async_event(Some(TICK))?.map(|event| event.event_type());
            events += u64::from(event == Some(EventType::SRQ_LIMIT_REACHED));
            // SAFETY: as above; what was in these slots has been sent.
            unsafe { srq.post_recv(freed.try_iter().map(receive).collect::<Vec<_>>()) }?;
        }
        for client in running {
            client.join().expect("a client panicked")?;
        }
        serving.join().expect("the server panicked").map(|()| events)
    })?;
    let rate = Rate { messages: 2 * iters, bytes: 2 * iters * size as u64, time: start.elapsed() };
    println!("{iters} requests of {size} bytes by {CLIENTS} clients sent back and checked: {rate}");
    println!("    {events} times less than {LIMIT} of {RECEIVES} receives were left");
    Ok(())
}

struct Server {
    /// By their numbers.
    qps: HashMap<u32, QueuePair<Rc>>,
    cq: CompletionQueue,
    /// The memory of each receive, whose identifier is the index.
    slots: Vec<[LocalMemorySlice; 1]>,
    /// Takes the slots that may be posted again.
    free: Sender<usize>,
}

impl Server {
    fn run(&mut self, requests: u64) -> Result<()> {
        let mut answered = 0;
        while answered < requests {
            let mut arrived = Vec::new();
            wait(&self.cq, 1, |completion| {
                let slot = completion.wr_id() as usize;
                if completion.opcode().is_recv() {
                    arrived.push((slot, completion.qp_num()));
                    return Ok(());
                }
                answered += 1;
                self.free.send(slot).context("nobody takes free receives")
            })?;
            for (slot, qp_num) in arrived {
                let qp = self.qps.get_mut(&qp_num).context("a request to another queue pair")?;
                let mut batch = qp.start_send();
                batch.op().signaled().send(slot as u64, &self.slots[slot]);
                // SAFETY: the memory is dropped after the queue pair, and posted again when this is
                // complete. There is a place for each receive in the send queue.
                unsafe { batch.submit() }?;
            }
        }
        Ok(())
    }
}

/// The queue pair stands above the memory: it is dropped first.
struct Client {
    qp: QueuePair<Rc>,
    cq: CompletionQueue,
    send: MemoryRegion,
    recv: MemoryRegion,
}

impl Client {
    /// Sends each request from `first` on that no other client sends.
    fn run(&mut self, first: u64, iters: u64) -> Result<()> {
        for request in (first..iters).step_by(CLIENTS) {
            fill(self.send.bytes_mut(), request);
            // SAFETY: the memory is dropped after the queue pair, and not touched until both requests have
            // completed below.
            unsafe { self.qp.post_recv([RecvRequest::new(0, &[self.recv.slice(..)])]) }?;
            let mut batch = self.qp.start_send();
            batch.op().signaled().send(0, &[self.send.slice(..)]);
            // SAFETY: as above.
            unsafe { batch.submit() }?;
            wait(&self.cq, 2, |_| Ok(()))?;
            check(self.recv.bytes(), request)?;
        }
        Ok(())
    }
}
