//! A ring of messages in remote memory. One thread writes them there, each with immediate data that says
//! where it is and how long; another one reads them, and gives credits back for their places.

use std::collections::VecDeque;
use std::time::Instant;

use anyhow::{ensure, Context as _, Result};
use clap::Parser;
use ibverbs::{AccessFlags, CompletionQueue, MemoryRegion, Payload, QueuePair, Rc};
use ibverbs::{RecvRequest, RemoteMemorySlice};
use ibverbs_examples::{check, fill, wait, Common, Rate};

/// Write messages of 1 to --size bytes into a ring in remote memory, and check every byte there.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: Common,
}

/// How many messages the ring holds.
const SLOTS: u64 = 16;
/// How many of them are read before their slots are given back, all at once.
const CREDIT: u64 = SLOTS / 2;
/// Immediate data has the length in this many bits, and the slot above them.
const LENGTH_BITS: u32 = 24;

fn main() -> Result<()> {
    let Options { common } = Options::parse();
    let (size, iters) = (u64::from(common.size), common.iters);
    ensure!(size >> LENGTH_BITS == 0, "--size must be less than {}", 1 << LENGTH_BITS);
    let opened = common.open()?;

    let pd = opened.context.alloc_pd()?;
    let len = (SLOTS * size) as usize;
    let mut staging = pd.allocate(len, AccessFlags::empty())?;
    let ring = pd.allocate(len, AccessFlags::LOCAL_WRITE | AccessFlags::REMOTE_WRITE)?;
    // SAFETY: neither `bytes` nor `bytes_mut` of the ring is ever called.
    let remote = unsafe { ring.remote() }?;
    let [one, other] = opened.pair(&pd)?;
    let (mut sender, mut receiver) = (End::new(one)?, End::new(other)?);

    let start = Instant::now();
    // The threads borrow: both queue pairs stay until the last message and the last credit have arrived.
    let waits = std::thread::scope(|scope| {
        let receiving = scope.spawn(|| receive(&mut receiver, &ring, iters));
        let sent = send(&mut sender, &mut staging, remote, iters);
        receiving.join().expect("the receiver panicked").and(sent)
    })?;
    let bytes = (0..iters).map(|message| length(message, size)).sum();
    let rate = Rate { messages: iters, bytes, time: start.elapsed() };
    println!("{iters} messages of 1 to {size} bytes written into {SLOTS} slots, read and checked: {rate}");
    println!("    the sender waited {waits} times for a slot to be read");
    Ok(())
}

/// The length of a message. The receiver knows it only so that it can check what it is told.
fn length(message: u64, size: u64) -> u64 {
    1 + message.wrapping_mul(0x9e37_79b9) % size
}

/// Returns how often it waited for a credit.
fn send(end: &mut End, mem: &mut MemoryRegion, ring: RemoteMemorySlice, iters: u64) -> Result<u64> {
    let (size, mut granted, mut waits) = (ring.len / SLOTS, SLOTS, 0);
    for message in 0..iters {
        if message == granted {
            granted += u64::from(end.next()?);
            waits += 1;
        }
        end.wait_while(|end| end.incomplete >= SLOTS)?;
        let (slot, length) = (message % SLOTS, length(message, size));
        let to = ring.slice(slot * size..slot * size + length);
        let place = (slot * size) as usize..(slot * size + length) as usize;
        fill(&mut mem.bytes_mut()[place.clone()], message);
        let mut batch = end.qp.start_send();
        let op = batch.op().signaled().imm((slot << LENGTH_BITS | length) as u32);
        op.write(message, &[mem.slice(place)], to);
        // SAFETY: `mem` is dropped after the queue pair. This slot of it is written to again when fewer than
        // SLOTS messages, which fit into the send queue, are incomplete: then this older one is complete.
        unsafe { batch.submit() }?;
        end.incomplete += 1;
    }
    end.wait_while(|end| end.incomplete > 0)?;
    Ok(waits)
}

fn receive(end: &mut End, ring: &MemoryRegion, iters: u64) -> Result<()> {
    let size = ring.len() as u64 / SLOTS;
    for message in 0..iters {
        let imm = u64::from(end.next()?);
        let (slot, len) = (imm >> LENGTH_BITS, imm & ((1 << LENGTH_BITS) - 1));
        let expected = (message % SLOTS, length(message, size));
        ensure!((slot, len) == expected, "{len} bytes in slot {slot} are not message {message}");
        let slice = ring.slice((slot * size) as usize..(slot * size + len) as usize);
        let (start, len) = (slice.addr() as *const u8, slice.len() as usize);
        // SAFETY: the slice lies in the ring, which has initialised bytes and is borrowed. The sender has
        // written it, for its immediate data is here, and does not write there before it has the credit.
        check(unsafe { std::slice::from_raw_parts(start, len) }, message)?;
        if (message + 1) % CREDIT == 0 {
            end.wait_while(|end| end.incomplete >= SLOTS)?;
            let mut batch = end.qp.start_send();
            batch.op().signaled().imm(CREDIT as u32).send(message, Payload::EMPTY);
            // SAFETY: it has no memory, and fits into the send queue.
            unsafe { batch.submit() }?;
            end.incomplete += 1;
        }
    }
    end.wait_while(|end| end.incomplete > 0)
}

/// One end of the connection.
struct End {
    qp: QueuePair<Rc>,
    cq: CompletionQueue,
    /// Immediate data that was not looked at yet.
    arrived: VecDeque<u32>,
    /// How many sends are not complete.
    incomplete: u64,
}

impl End {
    /// Posts a receive for all that may be under way to here.
    fn new((mut qp, cq): (QueuePair<Rc>, CompletionQueue)) -> Result<End> {
        // SAFETY: they have no memory.
        unsafe { qp.post_recv([RecvRequest::new(0, &[]); SLOTS as usize]) }?;
        Ok(End { qp, cq, arrived: VecDeque::new(), incomplete: 0 })
    }

    /// The immediate data that arrives next. The receive that it came with is replaced.
    fn next(&mut self) -> Result<u32> {
        self.wait_while(|end| end.arrived.is_empty())?;
        // SAFETY: it has no memory.
        unsafe { self.qp.post_recv([RecvRequest::new(0, &[])]) }?;
        self.arrived.pop_front().context("nothing arrived")
    }

    fn wait_while(&mut self, unmet: impl Fn(&End) -> bool) -> Result<()> {
        while unmet(self) {
            wait(&self.cq, 1, |completion| {
                if completion.opcode().is_recv() {
                    self.arrived.push_back(completion.imm_data().context("no immediate data")?);
                } else {
                    self.incomplete -= 1;
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}
