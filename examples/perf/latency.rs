//! How long one operation takes, with no other under way.
//!
//! Sends and writes go to and fro: the peer answers each with one of its own as soon as it has noticed it, and the round
//! trip is timed. A send is noticed by the completion of the receive that it took, a write by a look at its last byte,
//! which is another one each time. Reads and atomics are timed from their posting until their completion is polled.
//!
//! What may be lost is done again by whoever waits for long. A datagram carries its number as immediate data, by which
//! one that comes twice is known; a write that is done twice changes nothing.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use ibverbs::{CompletionQueue, RemoteMemorySlice, SharedAtomicU64, SharedSlice};
use ibverbs_examples::Peer;

use crate::exchange::too_early;
use crate::pace::Pace;
use crate::plan::Extent;
use crate::queues::{receives, End, Memory, Queues, FAILED, REFILL};
use crate::verbs::{Load, Notice, Verb, Way};
use crate::watch::{Quiet, Watch};

/// The longest time that is told from longer ones.
const LONGEST: Duration = Duration::from_secs(60);

/// How many digits of a time are kept.
const DIGITS: u8 = 3;

/// How long operations took.
pub(crate) struct Times {
    /// In nanoseconds, of those that were not lost.
    pub(crate) histogram: Histogram<u64>,
    /// How many operations there were.
    pub(crate) done: u64,
    /// How often one was done again, for it or its answer did not arrive.
    pub(crate) lost: u64,
}

/// One side. Both sides count alike, from the first message to the last one, of whatever size.
pub(crate) struct Line<'q, T: Way, V> {
    end: &'q mut End<T>,
    cq: &'q CompletionQueue,
    memory: &'q Memory,
    /// What is sent, or filled.
    piece: [SharedSlice<'q>; 1],
    /// The same, if it is short enough to be sent inline.
    inline: Vec<u8>,
    /// Where messages arrive.
    slot: [SharedSlice<'q>; 1],
    /// The number in which the last byte of a write arrives, and how far that is shifted.
    word: SharedAtomicU64<'q>,
    shift: u32,
    verb: V,
    /// How many operations there were, to and fro.
    number: u64,
    /// How many operations of this side have not completed, and how many have.
    pending: u32,
    done: u64,
    /// How many messages have come.
    came: u64,
    /// How many receives were taken and not posted again.
    taken: usize,
}

impl<'q, T: Way, V: Verb<T>> Line<'q, T, V> {
    pub(crate) fn new(queues: &'q mut Queues<T>) -> Result<Self> {
        let Queues { ends, cq, memory } = queues;
        Ok(Line {
            end: ends.first_mut().context("there is no queue pair")?,
            cq,
            piece: [memory.ours.slice(..1)],
            inline: Vec::new(),
            slot: memory.slot(0),
            word: memory.theirs.atomic_u64(0),
            shift: 0,
            memory,
            verb: V::default(),
            number: 0,
            pending: 0,
            done: 0,
            came: 0,
            taken: 0,
        })
    }

    /// From now on messages have this size, and those of up to `inline` bytes are sent inline. Both sides do this before
    /// they meet, and nothing is posted before they have.
    pub(crate) fn set_size(&mut self, size: u32, inline: u32) {
        let (size, last) = (size as usize, size as usize - 1);
        self.piece = [self.memory.ours.slice(..size)];
        self.inline = if size <= inline as usize { vec![0; size] } else { Vec::new() };
        if V::NOTICE == Notice::Memory {
            // The region consists of whole cache lines: there is such a number around any byte.
            self.word = self.memory.theirs.atomic_u64(last & !7);
            let byte = last as u32 % 8;
            self.shift = 8 * if cfg!(target_endian = "little") { byte } else { 7 - byte };
            // What larger messages have left there could be taken for the next one.
            let before = Self::mark(self.number.wrapping_sub(1));
            self.word.store(u64::from_ne_bytes([before; 8]), Ordering::Relaxed);
        }
    }

    /// What atomics have counted in the memory of this side.
    pub(crate) fn counted(&self) -> u64 {
        self.memory.counted(1)
    }

    /// The last byte of write `number`: another one than that of the write before.
    fn mark(number: u64) -> u8 {
        number as u8
    }

    /// Posts operation `number`, perhaps once more.
    #[inline]
    fn post(&mut self, number: u64) -> Result<()> {
        while self.pending == self.end.qp.capacity().max_send_wr {
            self.poll()?;
        }
        if V::NOTICE == Notice::Memory {
            match self.inline.last_mut() {
                Some(last) => *last = Self::mark(number),
                None => {
                    let last = self.piece[0].len() as usize - 1;
                    self.memory.ours.write_at(last, &[Self::mark(number)]);
                }
            }
        }
        let remote = RemoteMemorySlice { len: self.piece[0].len().into(), ..self.end.remote };
        let load = Load { memory: self.piece, inline: &self.inline, remote };
        let mut batch = self.end.qp.start_shared();
        let op = T::op(&mut batch, &self.end.to).signaled();
        self.verb.add(op, 0, &load, number);
        batch.submit()?;
        self.pending += 1;
        Ok(())
    }

    /// Whether what is to come after the post of `number` has come: the peer's operation of this number, or the
    /// completion of this side's.
    #[inline]
    fn has_come(&mut self, number: u64) -> Result<bool> {
        if V::NOTICE == Notice::Memory {
            let word = self.word.load(Ordering::Acquire);
            if (word >> self.shift) as u8 == Self::mark(number) {
                return Ok(true);
            }
        }
        // Also if it is memory that is looked at: own completions are to be taken in any case, and a device in software
        // may have the program's thread do its work while that polls.
        self.poll()?;
        Ok(match V::NOTICE {
            Notice::Receive => self.came > number,
            Notice::Memory => false,
            Notice::Completion => self.done > number,
        })
    }

    /// Takes what has completed.
    #[inline]
    fn poll(&mut self) -> Result<()> {
        let Some(mut completions) = self.cq.poll()? else { return Ok(()) };
        while let Some(completion) = completions.next() {
            completion.ok().context(FAILED)?;
            if completion.opcode().is_recv() {
                self.taken += 1;
                // Else it is one that has come before.
                let is_next = T::IS_RELIABLE || completion.imm_data() == Some(self.came as u32);
                self.came += u64::from(is_next);
            } else {
                self.pending -= 1;
                self.done += 1;
            }
        }
        Ok(())
    }

    /// Posts receives for those that were taken.
    #[inline]
    fn refill(&mut self) -> Result<()> {
        while self.taken >= REFILL {
            self.end.qp.post_recv_shared(receives(0, &self.slot))?;
            self.taken -= REFILL;
        }
        Ok(())
    }

    /// Carries out the next operation. Returns how often it was lost.
    #[inline]
    fn trip(&mut self, watch: &mut Watch<'_>) -> Result<u64> {
        let (number, mut lost) = (self.number, 0);
        self.number += 1;
        self.post(number)?;
        while !self.has_come(number)? {
            match watch.quiet()? {
                Quiet::Lost if !T::IS_RELIABLE => {
                    lost += 1;
                    self.post(number)?;
                }
                Quiet::Still | Quiet::Lost => {}
                Quiet::PeerWaits => return Err(too_early()),
            }
        }
        watch.reset();
        Ok(lost)
    }

    /// Times operations.
    pub(crate) fn measure(&mut self, peer: &Peer, extent: Extent) -> Result<Times> {
        let histogram = Histogram::new_with_bounds(1, LONGEST.as_nanos() as u64, DIGITS)?;
        let mut times = Times { histogram, done: 0, lost: 0 };
        let mut watch = Watch::new(peer);
        let mut pace = Pace::new(extent, 1);
        let mut now = pace.start();
        while pace.left(times.done, || now) > 0 {
            let start = Instant::now();
            let lost = self.trip(&mut watch)?;
            now = Instant::now();
            if lost == 0 {
                times.histogram.saturating_record(now.duration_since(start).as_nanos() as u64);
            }
            times.lost += lost;
            self.refill()?;
            times.done += 1;
            pace.add(1);
        }
        Ok(times)
    }

    /// Answers the peer's operations until it waits. Returns how many it was.
    pub(crate) fn answer(&mut self, peer: &Peer) -> Result<u64> {
        let mut watch = Watch::new(peer);
        let first = self.number;
        loop {
            let number = self.number;
            while !self.has_come(number)? {
                match watch.quiet()? {
                    // Perhaps it was the last answer that did not arrive.
                    Quiet::Lost if !T::IS_RELIABLE && number > 0 => self.post(number - 1)?,
                    Quiet::Still | Quiet::Lost => {}
                    Quiet::PeerWaits => return Ok(number - first),
                }
            }
            watch.reset();
            self.post(number)?;
            self.number += 1;
            self.refill()?;
        }
    }
}
