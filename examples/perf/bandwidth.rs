//! How much can be done with many operations under way.
//!
//! Each queue pair has a window: so many operations may be posted that are not known to have completed. They are posted
//! in batches, with one doorbell each, and one of several is signaled: its completion tells of those before it. The time
//! is that from the first post to the last completion. On a reliable connection an operation that has completed has been
//! done; on others it has left, and what arrives the peer has to say.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ibverbs::{CompletionQueue, RemoteMemorySlice};
use ibverbs_examples::Peer;

use crate::exchange::too_early;
use crate::pace::Pace;
use crate::plan::{Extent, Flow};
use crate::queues::{receives, Queues, FAILED, REFILL};
use crate::verbs::{Load, Verb, Way};
use crate::watch::{Quiet, Watch};

/// Which part of an identifier is the queue pair's index; the rest is how many were posted on it.
const INDEX_SHIFT: u32 = 48;
const POSTED: u64 = (1 << INDEX_SHIFT) - 1;

/// How long nothing more comes of what was sent before it is taken for lost.
const SILENCE: Duration = Duration::from_millis(100);

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Amount {
    pub(crate) operations: u64,
    pub(crate) time: Duration,
}

/// The state of one queue pair.
#[derive(Clone, Copy, Default)]
struct Lane {
    /// How many were posted before this measurement.
    before: u64,
    posted: u64,
    completed: u64,
    /// The last one that is signaled.
    signaled: u64,
}

/// What posts and polls.
pub(crate) struct Pump<'q, T: Way, V> {
    queues: &'q mut Queues<T>,
    lanes: Vec<Lane>,
    flow: Flow,
    size: usize,
    /// What is sent inline, if that is short enough.
    inline: Vec<u8>,
    verb: V,
}

impl<'q, T: Way, V: Verb<T>> Pump<'q, T, V> {
    pub(crate) fn new(queues: &'q mut Queues<T>, flow: Flow) -> Self {
        let lanes = vec![Lane::default(); queues.ends.len()];
        Pump { lanes, queues, flow, size: 1, inline: Vec::new(), verb: V::default() }
    }

    /// From now on messages have this size, and those of up to `inline` bytes are sent inline.
    pub(crate) fn set_size(&mut self, size: u32, inline: u32) {
        self.size = size as usize;
        self.inline = if size <= inline { vec![0; self.size] } else { Vec::new() };
    }

    /// Carries out operations.
    pub(crate) fn measure(&mut self, peer: &Peer, extent: Extent) -> Result<Amount> {
        for lane in &mut self.lanes {
            lane.before = lane.posted;
        }
        let mut watch = Watch::new(peer);
        let mut pace = Pace::new(extent, self.lanes.len() as u64);
        loop {
            let mut all_posted = true;
            for index in 0..self.lanes.len() {
                all_posted &= self.advance(index, &pace)?;
            }
            if all_posted && self.lanes.iter().all(|lane| lane.completed == lane.posted) {
                break;
            }
            match self.poll()? {
                0 => match watch.quiet()? {
                    Quiet::Still | Quiet::Lost => {}
                    Quiet::PeerWaits => return Err(too_early()),
                },
                completed => {
                    watch.reset();
                    if pace.add(completed) && watch.busy()? == Quiet::PeerWaits {
                        return Err(too_early());
                    }
                }
            }
        }
        let time = pace.start().elapsed();
        let operations = self.lanes.iter().map(|lane| lane.posted - lane.before).sum();
        Ok(Amount { operations, time })
    }

    /// Posts a batch on a queue pair if there is room for one. Returns whether there is nothing more to post.
    #[inline]
    fn advance(&mut self, index: usize, pace: &Pace) -> Result<bool> {
        let Flow { window, batch, .. } = self.flow;
        let lane = self.lanes[index];
        let room = u64::from(window) - (lane.posted - lane.completed);
        let left = pace.left(lane.posted - lane.before, Instant::now);
        match u64::from(batch).min(left) {
            // The last one is always signaled, or it would not be known to have completed.
            0 if lane.signaled < lane.posted => {
                if room > 0 {
                    self.post(index, 1, lane.posted + 1)?;
                }
                Ok(false)
            }
            0 => Ok(true),
            count if count <= room => {
                self.post(index, count, lane.posted.saturating_add(left))?;
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    /// Posts so many operations with one doorbell. The one that makes `last` is signaled in any case.
    #[inline]
    fn post(&mut self, index: usize, count: u64, last: u64) -> Result<()> {
        let Queues { ends, memory, .. } = &mut *self.queues;
        let (end, lane) = (&mut ends[index], &mut self.lanes[index]);
        let start = memory.start(index);
        let load = Load {
            memory: [memory.ours.slice(start..start + self.size)],
            inline: &self.inline,
            remote: RemoteMemorySlice { len: self.size as u64, ..end.remote },
        };
        let mut batch = end.qp.start_shared();
        for number in lane.posted + 1..=lane.posted + count {
            let mut op = T::op(&mut batch, &end.to);
            let every = u64::from(self.flow.signal_every);
            if (number - lane.before) % every == 0 || number == last {
                op = op.signaled();
                lane.signaled = number;
            }
            let id = (index as u64) << INDEX_SHIFT | (number & POSTED);
            self.verb.add(op, id, &load, number - 1);
        }
        batch.submit()?;
        lane.posted += count;
        Ok(())
    }

    /// Takes what has completed; returns how many operations that tells of.
    #[inline]
    fn poll(&mut self) -> Result<u64> {
        let Some(mut completions) = self.queues.cq.poll()? else { return Ok(0) };
        let mut all = 0;
        while let Some(completion) = completions.next() {
            completion.ok().context(FAILED)?;
            let id = completion.wr_id();
            let lane = &mut self.lanes[(id >> INDEX_SHIFT) as usize];
            all += (id & POSTED) - lane.completed;
            lane.completed = id & POSTED;
        }
        Ok(all)
    }
}

/// What receives messages.
pub(crate) struct Drain<'q, T: Way> {
    queues: &'q mut Queues<T>,
    /// How many receives of each queue pair were taken and not posted again.
    taken: Vec<usize>,
}

impl<'q, T: Way> Drain<'q, T> {
    pub(crate) fn new(queues: &'q mut Queues<T>) -> Self {
        Drain { taken: vec![0; queues.ends.len()], queues }
    }

    /// What atomics have counted in the memory of this side.
    pub(crate) fn counted(&self) -> u64 {
        self.queues.memory.counted(self.taken.len())
    }

    /// Receives until the peer has sent all and waits; returns how many came.
    pub(crate) fn receive(&mut self, peer: &Peer) -> Result<u64> {
        let (mut watch, mut came) = (Watch::new(peer), 0);
        loop {
            match self.poll()? {
                0 if watch.quiet()? == Quiet::PeerWaits => return Ok(came),
                0 => {}
                more => {
                    watch.reset();
                    came += more;
                }
            }
        }
    }

    /// Receives what was sent and may have arrived, but has not been taken yet. Returns how many came.
    pub(crate) fn receive_rest(&mut self, rest: u64) -> Result<u64> {
        let (mut came, mut last) = (0, Instant::now());
        while came < rest && last.elapsed() < SILENCE {
            match self.poll()? {
                0 => std::thread::yield_now(),
                more => {
                    last = Instant::now();
                    came += more;
                }
            }
        }
        Ok(came)
    }

    /// Takes what has come, and posts receives for more.
    #[inline]
    fn poll(&mut self) -> Result<u64> {
        let came = take(&self.queues.cq, &mut self.taken)?;
        if came > 0 {
            let Queues { ends, memory, .. } = &mut *self.queues;
            for (index, (end, taken)) in ends.iter_mut().zip(&mut self.taken).enumerate() {
                while *taken >= REFILL {
                    end.qp.post_recv_shared(receives(index, &memory.slot(index)))?;
                    *taken -= REFILL;
                }
            }
        }
        Ok(came)
    }
}

/// Takes the completions of receives, and counts them by queue pair.
#[inline]
fn take(cq: &CompletionQueue, taken: &mut [usize]) -> Result<u64> {
    let Some(mut completions) = cq.poll()? else { return Ok(0) };
    let mut came = 0;
    while let Some(completion) = completions.next() {
        completion.ok().context(FAILED)?;
        taken[completion.wr_id() as usize] += 1;
        came += 1;
    }
    Ok(came)
}
