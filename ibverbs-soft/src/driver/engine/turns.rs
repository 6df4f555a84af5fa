//! Who sees to a device's packets and when: those who poll, and the engine's thread in turns, which sleeps in between.

use std::time::{Duration, Instant};

use super::Engine;
use crate::device::Result;
use crate::transport::CqId;

/// How often a call that looks at the socket does so at most.
pub(in crate::driver) const LOOKS_PER_CALL: usize = 4;

/// After so many looks in vain, it is not worth looking at the socket with every poll.
const EAGER_LOOKS: u32 = 1000;

/// With which of the polls then.
const LAZY_LOOKS: u32 = 8;

/// With so many empty polls between two turns of the engine, somebody waits by polling. So it is if a poll has found packets.
const SPINNING: u32 = 32;

/// How often the engine looks while somebody polls, and how soon it tries again to send when the socket is full.
const TICK: Duration = Duration::from_millis(1);

/// What the engine's thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sleep {
    /// It is awake, or about to be woken, and will look at everything before it sleeps.
    No,
    /// It sleeps until this time, or until something happens on the socket.
    Until(Option<Instant>),
    /// Somebody polls, and does everything: it sleeps until the next tick.
    Tick,
}

impl Engine {
    /// Takes note of a poll that has found nothing, and says whether to look further.
    pub(crate) fn note_empty_poll(&mut self) -> bool {
        self.polls = self.polls.saturating_add(1);
        self.vain_looks = self.vain_looks.wrapping_add(1);
        !self.owing.is_empty()
            || self.has_work()
            || self.vain_looks < EAGER_LOOKS
            || self.vain_looks % LAZY_LOOKS == 0
    }

    /// Does what is due before somebody looks at the socket, and makes what has waited.
    pub(in crate::driver) fn begin_look(&mut self) {
        let now = self.parts.tick();
        self.handle_timers(now);
        self.make_rest(now);
    }

    /// Notes that a look has found packets, and answers them.
    pub(in crate::driver) fn note_find(&mut self) {
        self.vain_looks = 0;
        self.polls = self.polls.max(SPINNING);
        let now = self.parts.now();
        self.work(now);
    }

    /// Arms a completion queue: who does so is going to wait, and leaves the socket to the engine.
    pub(crate) fn arm_cq(&mut self, cq: CqId, solicited_only: bool) -> Result<()> {
        self.parts.cq(cq)?.arm(solicited_only);
        self.polls = 0;
        // If it is awake, it may have begun to leave the socket to those who poll.
        if !matches!(self.sleep, Sleep::Until(_)) {
            self.wake_up();
        }
        Ok(())
    }

    pub(super) fn wake_up(&mut self) {
        self.sleep = Sleep::No;
        self.wakes = true;
    }

    /// Whether the engine's thread is to be woken, which is asked once.
    pub(in crate::driver) fn take_wake_up(&mut self) -> bool {
        std::mem::take(&mut self.wakes)
    }

    /// When the engine has something to do again.
    pub(super) fn next_time(&self, now: Instant) -> Option<Instant> {
        let timer = self.timers.first().map(|(time, _)| *time);
        let late = self.line.as_ref().and_then(|line| line.next_time());
        let of_cm = self.cm.manager.next_timeout();
        let first = timer.into_iter().chain(late).chain(of_cm).min();
        if self.is_stuck || self.is_full() {
            return Some(first.unwrap_or(now + TICK).min(now + TICK));
        }
        if self.has_work() {
            return Some(now);
        }
        first
    }

    /// To be called when something was changed: wakes the engine's thread if it sleeps for too long now.
    pub(in crate::driver) fn settle(&mut self, now: Instant) {
        if let Sleep::Until(until) = self.sleep {
            let next = self.next_time(now);
            if next.is_some_and(|next| until.is_none_or(|until| next < until)) {
                self.wake_up();
            }
        }
    }

    /// Begins a turn of the engine's thread.
    pub(in crate::driver) fn begin_turn(&mut self) -> Turn {
        let now = self.parts.tick();
        #[cfg(test)]
        {
            self.turns += 1;
        }
        self.sleep = Sleep::No;
        let is_spinning = std::mem::take(&mut self.polls) >= SPINNING;
        self.handle_timers(now);
        Turn { listens: !is_spinning || self.stops, ends: self.stops }
    }

    /// Says what the engine's thread waits for.
    pub(in crate::driver) fn end_turn(&mut self, listens: bool) -> Wait {
        // Something has come up since this turn began: somebody is going to wait, perhaps.
        if self.take_wake_up() || self.waits_for_sender() {
            return Wait { listens, time: Some(Duration::ZERO) };
        }
        if !listens {
            self.sleep = Sleep::Tick;
            return Wait { listens, time: Some(TICK) };
        }
        let now = self.parts.tick();
        let next = self.next_time(now);
        self.sleep = Sleep::Until(next);
        let time = next.map(|next| next.saturating_duration_since(Instant::now()));
        Wait { listens, time }
    }

    /// Makes what must be sent before the process or the device ends.
    pub(crate) fn finish(&mut self) {
        let now = self.parts.tick();
        self.cm.manager.finish(now);
        self.make_rest(now);
        self.leave_early();
    }

    /// Makes what can be sent, late acknowledgements too.
    pub(in crate::driver) fn make_rest(&mut self, now: Instant) {
        self.work(now);
        self.send_late_acks(now);
    }

    /// Ends the engine's thread.
    pub(crate) fn stop(&mut self) {
        self.stops = true;
        self.wake_up();
    }
}

/// What the engine's thread is to do in a turn.
#[derive(Clone, Copy, Debug)]
pub(in crate::driver) struct Turn {
    /// It looks at the socket.
    pub(in crate::driver) listens: bool,
    /// It is the last one.
    pub(in crate::driver) ends: bool,
}

/// What the engine's thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    /// Packets on the socket.
    pub(crate) listens: bool,
    /// Not longer than this.
    pub(crate) time: Option<Duration>,
}
