//! A ring of messages in remote memory. One thread writes them there, each with immediate data that says
//! where it is and how long; another one reads them, and gives credits back for their places.

use std::collections::VecDeque;
use std::time::Instant;

use anyhow::{ensure, Context as _, Result};
use clap::Parser;
use ibverbs::{AccessFlags, CompletionQueue, MemoryRegion, Payload, QueuePair, Rc};
use ibverbs::{RecvRequest, RemoteMemorySlice};
use ibverbs_examples::{check, fill, wait, Common, Progress, Rate};

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
    let cq = opened.context.create_cq(2 * SLOTS as u32).build()?;
    let peer_cq = opened.context.create_cq(2 * SLOTS as u32).build()?;
    let (qp, peer) = opened.pair(&pd, [&cq, &peer_cq])?;
    let (mut sender, mut receiver) = (End::new(qp, cq)?, End::new(peer, peer_cq)?);

    let start = Instant::now();
    // The threads borrow: both queue pairs stay until the last message and the last credit have arrived.
    let (sent, received) = std::thread::scope(|scope| {
        let receiving = scope.spawn(|| receive(&mut receiver, &ring, iters));
        let sent = send(&mut sender, &mut staging, remote, iters);
        (sent, receiving.join().expect("the receiver panicked"))
    });
    let (bytes, stalls) = (received?, sent?);
    let rate = Rate { messages: iters, bytes, time: start.elapsed() };
    println!("{iters} messages of 1 to {size} bytes written into {SLOTS} slots, read and checked: {rate}");
    println!("    the sender waited {stalls} times for a slot to be read");
    Ok(())
}

/// The length of a message. The receiver knows it only so that it can check what it is told.
fn length(message: u64, size: u64) -> u64 {
    1 + message.wrapping_mul(0x9e37_79b9) % size
}

/// Returns how often it had to wait for a credit.
fn send(
    end: &mut End,
    local: &mut MemoryRegion,
    ring: RemoteMemorySlice,
    iters: u64,
) -> Result<u64> {
    let (size, mut granted, mut stalls) = (ring.len / SLOTS, SLOTS, 0);
    for message in 0..iters {
        if message >= granted {
            granted += u64::from(end.next()?);
            stalls += 1;
        }
        end.wait_until_incomplete(SLOTS - 1)?;
        let (slot, length) = (message % SLOTS, length(message, size));
        let to = ring.slice(slot * size..slot * size + length);
        let place = (slot * size) as usize..(slot * size + length) as usize;
        fill(&mut local.bytes_mut()[place.clone()], message);
        let mut batch = end.qp.start_send();
        let op = batch.op().signaled().imm((slot << LENGTH_BITS | length) as u32);
        op.write(message, &[local.slice(place)], to);
        // SAFETY: `local` is dropped after the queue pair. This slot of it is written to again when fewer
        // than SLOTS messages are incomplete: then this one, which is older, is complete.
        unsafe { batch.submit() }?;
        end.posted += 1;
    }
    end.wait_until_incomplete(0)?;
    Ok(stalls)
}

/// Returns how many bytes the messages had.
fn receive(end: &mut End, ring: &MemoryRegion, iters: u64) -> Result<u64> {
    let (size, mut bytes) = (ring.len() as u64 / SLOTS, 0);
    let mut progress = Progress::new(iters);
    for message in 0..iters {
        let imm = u64::from(end.next()?);
        let (slot, len) = (imm >> LENGTH_BITS, imm & ((1 << LENGTH_BITS) - 1));
        ensure!(slot == message % SLOTS, "message {message} is in slot {slot}");
        ensure!(len == length(message, size), "message {message} has {len} bytes");
        let slice = ring.slice((slot * size) as usize..(slot * size + len) as usize);
        let (start, len) = (slice.addr() as *const u8, slice.len() as usize);
        // SAFETY: the slice lies in the ring, which has initialised bytes and is borrowed. The sender has
        // written it, for its immediate data is here, and does not write there before it has the credit.
        check(unsafe { std::slice::from_raw_parts(start, len) }, message)?;
        bytes += len as u64;
        if (message + 1) % CREDIT == 0 {
            end.wait_until_incomplete(SLOTS - 1)?;
            let mut batch = end.qp.start_send();
            batch.op().signaled().imm(CREDIT as u32).send(message, Payload::EMPTY);
            // SAFETY: it has no memory, and the send queue has more than SLOTS places.
            unsafe { batch.submit() }?;
            end.posted += 1;
        }
        progress.step(message + 1);
    }
    end.wait_until_incomplete(0)?;
    Ok(bytes)
}

/// One end of the connection.
struct End {
    qp: QueuePair<Rc>,
    cq: CompletionQueue,
    /// Immediate data that was not looked at yet.
    arrived: VecDeque<u32>,
    /// How many sends were posted, and how many of them are complete.
    posted: u64,
    completed: u64,
}

impl End {
    /// Posts a receive for all that may be under way to here.
    fn new(mut qp: QueuePair<Rc>, cq: CompletionQueue) -> Result<End> {
        // SAFETY: they have no memory.
        unsafe { qp.post_recv([RecvRequest::new(0, &[]); SLOTS as usize]) }?;
        Ok(End { qp, cq, arrived: VecDeque::new(), posted: 0, completed: 0 })
    }

    /// The immediate data that arrives next; its receive is replaced.
    fn next(&mut self) -> Result<u32> {
        loop {
            if let Some(imm) = self.arrived.pop_front() {
                // SAFETY: it has no memory.
                unsafe { self.qp.post_recv([RecvRequest::new(0, &[])]) }?;
                return Ok(imm);
            }
            self.wait()?;
        }
    }

    /// Waits until at most this many sends are incomplete.
    fn wait_until_incomplete(&mut self, most: u64) -> Result<()> {
        while self.posted - self.completed > most {
            self.wait()?;
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<()> {
        wait(&self.cq, 1, |completion| {
            if completion.opcode().is_recv() {
                self.arrived.push_back(completion.imm_data().context("immediate data is missing")?);
            } else {
                self.completed += 1;
            }
            Ok(())
        })
    }
}
