//! What batches save: the same number of RDMA writes, with a doorbell and a completion for each, and
//! with one of both for 32.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use clap::Parser;
use ibverbs::{AccessFlags, CompletionQueue, MemoryRegion, QueuePair, Rc};
use ibverbs::{RecvRequest, RemoteMemorySlice};
use ibverbs_examples::{check, fill, wait, Common, Progress, Rate};

/// Write messages into remote memory, with one doorbell for each and with one for 32, and compare.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: Common,
}

/// How many messages are written before their data is checked, and so the most per doorbell.
const ROUND: u64 = 32;

fn main() -> Result<()> {
    let Options { common } = Options::parse();
    let (size, iters) = (u64::from(common.size), common.iters);
    let opened = common.open()?;

    let pd = opened.context.alloc_pd()?;
    let [(qp, cq), (peer, peer_cq)] = opened.pair(&pd)?;
    let len = usize::try_from(ROUND * size)?;
    let source = pd.allocate(len, AccessFlags::empty())?;
    let target = pd.allocate(len, AccessFlags::LOCAL_WRITE | AccessFlags::REMOTE_WRITE)?;
    // SAFETY: only `qp` is told of the memory. `Writer::round` refers to it when all writes are done.
    let remote = unsafe { target.remote() }?;
    let mut writer = Writer { qp, peer, cq, peer_cq, source, target, remote, size };

    // The second series has other messages, so that what the first one left would show.
    for (first, per_doorbell) in [(0, 1), (iters, ROUND)] {
        let mut progress = Progress::new(iters);
        let mut total = Cost::default();
        for done in (0..iters).step_by(ROUND as usize) {
            let end = iters.min(done + ROUND);
            let cost = writer.round(first + done..first + end, per_doorbell)?;
            total.doorbells += cost.doorbells;
            total.completions += cost.completions;
            total.time += cost.time;
            progress.step(end);
        }
        println!(
            "{iters} messages of {size} bytes written and checked, {per_doorbell} per doorbell:"
        );
        println!("    {} doorbells, {} completions", total.doorbells, total.completions);
        println!("    {}", Rate { messages: iters, bytes: iters * size, time: total.time });
    }
    Ok(())
}

/// What messages cost.
#[derive(Default)]
struct Cost {
    doorbells: u64,
    completions: u64,
    time: Duration,
}

/// Writes from `source` into `target`. The queue pairs stand above the memory: they are dropped first.
struct Writer {
    qp: QueuePair<Rc>,
    peer: QueuePair<Rc>,
    cq: CompletionQueue,
    peer_cq: CompletionQueue,
    source: MemoryRegion,
    target: MemoryRegion,
    remote: RemoteMemorySlice,
    size: u64,
}

impl Writer {
    /// Writes and checks some messages, at most `ROUND`.
    fn round(&mut self, messages: Range<u64>, per_doorbell: u64) -> Result<Cost> {
        let (size, count) = (self.size as usize, messages.end - messages.start);
        for (bytes, message) in self.source.bytes_mut().chunks_mut(size).zip(messages.clone()) {
            fill(bytes, message);
        }
        let mut cost = Cost::default();
        let start = Instant::now();
        // SAFETY: it has no memory.
        unsafe { self.peer.post_recv([RecvRequest::new(0, &[])]) }?;
        for first in (0..count).step_by(per_doorbell as usize) {
            let last = count.min(first + per_doorbell) - 1;
            let mut batch = self.qp.start_send();
            for slot in first..=last {
                let piece = slot * self.size..(slot + 1) * self.size;
                let from = [self.source.slice(piece.start as usize..piece.end as usize)];
                let to = self.remote.slice(piece);
                // One completion tells that the earlier requests are complete too.
                let op = if slot == last { batch.op().signaled() } else { batch.op() };
                // A peer does not notice writes. Immediate data consumes one of its receives, and when
                // that completes, all earlier writes have arrived too.
                if slot + 1 == count {
                    op.imm(count as u32).write(slot, &from, to);
                } else {
                    op.write(slot, &from, to);
                }
            }
            // SAFETY: `source` stays registered and is not written to until the last completion is polled
            // below or, should something fail, the queue pair is destroyed, for `main` then drops it. The
            // queue has a place for each message.
            unsafe { batch.submit() }?;
            cost.doorbells += 1;
        }
        wait(&self.cq, count.div_ceil(per_doorbell) as usize, |_| {
            cost.completions += 1;
            Ok(())
        })?;
        wait(&self.peer_cq, 1, |completion| {
            let told = completion.imm_data();
            ensure!(
                told == Some(count as u32),
                "the peer was told of {told:?} messages, not {count}"
            );
            Ok(())
        })?;
        cost.time = start.elapsed();
        for (bytes, message) in self.target.bytes().chunks(size).zip(messages) {
            check(bytes, message)?;
        }
        Ok(cost)
    }
}
