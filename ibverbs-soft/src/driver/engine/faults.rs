//! What is made to go wrong.

use std::sync::Arc;
use std::time::Instant;

use super::{Engine, Line};
use crate::driver::Tape;
use crate::faults::{Link, LinkCounts};
use crate::transport::State;

impl Engine {
    fn line(&mut self) -> &mut Line {
        self.line.get_or_insert_with(|| Box::new(Line::new()))
    }

    /// From here on, packets go through this link.
    pub(crate) fn set_link(&mut self, link: Link) {
        self.line().set_link(link);
        self.leave_out_line();
    }

    pub(crate) fn link_counts(&self) -> LinkCounts {
        self.queues.counts
    }

    /// From here on, packets are captured.
    pub(crate) fn capture(&mut self, tape: Arc<Tape>) {
        self.line().add_tape(tape);
    }

    pub(crate) fn is_port_up(&self) -> bool {
        !self.line.as_ref().is_some_and(|line| line.is_down())
    }

    /// Lets packets through no more, or again. What is on its way is lost. Returns whether it was otherwise before.
    pub(crate) fn set_port(&mut self, is_up: bool) -> bool {
        let changes = self.is_port_up() != is_up;
        if changes {
            self.line().set_down(!is_up);
            self.queues.outgoing.clear();
            self.is_stuck = false;
            self.queues.looped.clear();
            self.leave_out_line();
        }
        changes
    }

    /// Moves all queue pairs that are in use into the error state, where their work is flushed; no packet gets through any more.
    pub(crate) fn fail(&mut self) {
        let now = self.parts.tick();
        self.set_port(false);
        for qp_num in self.qps.numbers() {
            let Ok((qp, parts)) = self.qp_and_parts(qp_num) else { continue };
            if qp.state() != State::Reset {
                let attributes = *qp.attributes();
                qp.modify(now, State::Error, attributes, parts);
                self.touch(qp_num);
            }
        }
        self.work(now);
        self.settle(now);
    }

    /// Lets packets arrive that were delayed.
    pub(super) fn arrive_late(&mut self, now: Instant) {
        if let Some(line) = &mut self.line {
            line.arrive_late(now, &mut self.queues);
        }
        self.deliver(now);
        self.leave_out_line();
    }

    /// Lets packets that are delayed leave before the device is closed.
    pub(in crate::driver) fn leave_early(&mut self) {
        if let Some(line) = &mut self.line {
            line.leave_early(&mut self.queues);
        }
    }

    fn leave_out_line(&mut self) {
        if self.line.as_ref().is_some_and(|line| line.is_idle()) {
            self.line = None;
        }
    }
}
