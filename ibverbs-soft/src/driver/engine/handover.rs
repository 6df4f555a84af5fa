//! What is handed to those who send and receive without the lock, one each at a time, and comes back from them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::Engine;
use crate::driver::datagram::decode;
use crate::driver::receive::{Receiver, Unread};
use crate::driver::socket::Listener;
use crate::driver::{Datagram, Report};
use crate::options::Loopback;
use crate::transport::Path;

impl Engine {
    /// What is to be sent now, if nobody sends. Whoever gets it says when it was.
    pub(in crate::driver) fn begin_sending(&mut self) -> Option<VecDeque<Datagram>> {
        if self.is_sending || self.queues.outgoing.is_empty() {
            return None;
        }
        self.is_sending = true;
        let room = std::mem::take(&mut self.spare);
        Some(std::mem::replace(&mut self.queues.outgoing, room))
    }

    /// It was sent, but for what is left: then the socket is full.
    pub(in crate::driver) fn end_sending(&mut self, mut left: VecDeque<Datagram>, report: Report) {
        self.is_sending = false;
        if !self.is_port_up() {
            left.clear();
        }
        self.is_stuck = !left.is_empty();
        self.take_report(report);
        if self.is_stuck {
            // What was made meanwhile comes after it.
            left.append(&mut self.queues.outgoing);
            self.queues.outgoing = left;
        } else {
            self.spare = left;
        }
        let now = self.parts.now();
        self.settle(now);
    }

    /// Leaves to the engine's thread what is still to be sent.
    pub(in crate::driver) fn leave_sending(&mut self) {
        if self.waits_for_sender() {
            self.wake_up();
        }
    }

    pub(super) fn waits_for_sender(&self) -> bool {
        !(self.is_sending || self.is_stuck || self.queues.outgoing.is_empty())
    }

    /// Whether nothing is left to be sent.
    pub(crate) fn has_sent(&self) -> bool {
        !self.is_sending && self.queues.outgoing.is_empty()
    }

    /// Takes note of what was lost, and lets the connection manager know where there is nobody any more.
    pub(super) fn take_report(&mut self, report: Report) {
        self.queues.dropped.add(report.dropped);
        for addr in report.gone {
            self.cm.handle_gone(self.parts.now(), addr);
        }
    }

    /// Who receives, if nobody does so now. Whoever gets it brings it back.
    pub(in crate::driver) fn begin_receiving(&mut self) -> Option<Box<Receiver>> {
        self.receiver.take()
    }

    /// Whether nobody receives now. If somebody does, the engine's thread is woken afterwards.
    pub(in crate::driver) fn can_receive(&mut self) -> bool {
        self.wants_receiver = self.receiver.is_none();
        !self.wants_receiver
    }

    /// The sockets of multicast groups.
    pub(in crate::driver) fn listeners(&self) -> Vec<Arc<Listener>> {
        self.groups.listeners()
    }

    /// Whether datagrams are wanted as they came: something may happen to them first.
    pub(in crate::driver) fn wants_unread(&self) -> bool {
        self.line.is_some()
    }

    /// Wakes the engine's thread if it has waited until somebody has received.
    pub(super) fn take_wish(&mut self) {
        if std::mem::take(&mut self.wants_receiver) {
            self.wake_up();
        }
    }

    /// Lets queue pairs have what was received.
    pub(in crate::driver) fn end_receiving(&mut self, mut receiver: Box<Receiver>) {
        if receiver.is_empty() {
            self.receiver = Some(receiver);
            self.take_wish();
            return;
        }
        // Not the time of before: others may have gone on since.
        let now = self.parts.tick();
        let own = self.socket.addr();
        let in_memory = self.loopback == Loopback::Memory;
        // What this device has sent to a group is there, too, also if it was delivered in memory.
        let is_echo = |path: &Path| in_memory && path.dest.is_multicast() && path.source == own;
        self.take_report(std::mem::take(&mut receiver.report));
        let queues = &mut self.queues;
        for Unread { bytes, path, port } in receiver.unread.drain(..) {
            match &mut self.line {
                _ if is_echo(&path) => {}
                // What comes from the device itself has gone through when it was sent.
                Some(line) if path.source != own || line.is_down() => {
                    line.receive(now, &bytes, path, port, queues);
                }
                _ => queues.incoming.extend(decode(&bytes, path, port, &mut queues.dropped)),
            }
        }
        if self.line.as_ref().is_some_and(|line| line.is_down()) {
            receiver.packets.clear();
        }
        let packets = receiver.packets.drain(..);
        queues.incoming.extend(packets.filter(|(path, _)| !is_echo(path)));
        self.receiver = Some(receiver);
        self.take_wish();
        self.deliver(now);
    }

    /// Lets queue pairs have the packets that were read from the socket.
    pub(super) fn deliver(&mut self, now: Instant) {
        while let Some((path, packet)) = self.queues.incoming.pop_front() {
            let Some(qp_num) = self.dispatch(now, &path, packet) else { continue };
            if let Some(slot) = self.qps.get_mut(qp_num).filter(|slot| !slot.owes) {
                slot.owes = true;
                self.owing.push(qp_num);
            }
        }
    }
}
