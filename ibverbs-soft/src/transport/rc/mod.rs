//! Reliable connections (InfiniBand Architecture Specification, volume 1, 9.7; errors: 9.9).
//!
//! A queue pair is two machines that share a path: the *requester* sends what is posted (`requester`) and understands the answers
//! (`completer`); the *responder* carries out what the peer requests (`responder`) and sends answers (`answers`).
//!
//! What the specification leaves open is done so that sockets, whose buffers are small and push nothing back, lose little:
//!
//! - A window of packets is under way, and the answers to reads are counted in it before they are there. A long read is requested
//!   in parts for that.
//! - Acknowledgements wait for each other for half a millisecond at most, or until somebody hastens them.
//! - What was lost is sent again from there on, by whole packets, also in the middle of a message or of an answer.
//!
//! A queue pair that has failed still sends what it owes: acknowledgements of what it has completed, and the refusal that it
//! failed by.

mod answers;
mod completer;
mod numbers;
mod requester;
mod responder;
mod times;

#[cfg(test)]
mod tests;

use std::time::Instant;

use requester::Requester;
use responder::{Failed, Responder};
pub(super) use times::rnr_delay;

use super::common::Common;
use super::work::{SendRequest, Status};
use super::{Host, Path, State, Transmit};
use crate::wire::Packet;

/// What an RC queue pair remembers.
#[derive(Debug, Default)]
pub(super) struct Rc {
    requester: Requester,
    responder: Responder,
    /// Whether the requester sent last.
    requested: bool,
}

impl Rc {
    pub(super) fn new() -> Rc {
        Rc::default()
    }

    /// How many sends are outstanding.
    pub(super) fn sends(&self) -> usize {
        self.requester.sends.len()
    }

    /// The state, which is neither `Reset` nor `Error`, and the attributes were changed.
    pub(super) fn modified(
        &mut self,
        common: &mut Common,
        _now: Instant,
        from: State,
        host: &mut impl Host,
    ) {
        match (from, common.state) {
            (State::Init, State::ReadyToReceive) => self.responder.start(common),
            (State::ReadyToReceive, State::ReadyToSend) => self.requester.start(common),
            _ => self.requester.refill(common),
        }
        self.check_drained(common, host);
    }

    /// Flushes the sends, and goes to `Error`.
    pub(super) fn fail(&mut self, common: &mut Common, host: &mut impl Host) {
        self.responder.close();
        self.flush(common, host);
    }

    fn flush(&mut self, common: &mut Common, host: &mut impl Host) {
        self.requester.flush(common, host);
        common.fail(host);
    }

    /// Posts a send, in a state that is not `Error`.
    pub(super) fn post_send(
        &mut self,
        common: &mut Common,
        _now: Instant,
        request: SendRequest,
        _host: &mut impl Host,
    ) {
        self.requester.post(common, request);
    }

    /// Takes a packet of this service and partition, in a state in which packets are taken.
    pub(super) fn handle_packet(
        &mut self,
        common: &mut Common,
        now: Instant,
        arrived: &Path,
        packet: Packet,
        host: &mut impl Host,
    ) {
        if !common.is_from_peer(arrived) {
            return;
        }
        if packet.operation.is_response() {
            let result = self.requester.handle_response(common, now, &packet, host);
            self.settle(common, result, host);
            self.check_drained(common, host);
        } else {
            common.note_arrival(host);
            if let Err(Failed) = self.responder.handle_request(common, now, &packet, host) {
                self.flush(common, host);
            }
        }
    }

    /// If the oldest request has failed, so has the queue pair.
    fn settle(&mut self, common: &mut Common, result: Result<(), Status>, host: &mut impl Host) {
        if let Err(status) = result {
            if let Some(send) = self.requester.sends.pop_front() {
                common.complete_send(&send.request, 0, status, host);
            }
            self.fail(common, host);
        }
    }

    fn check_drained(&mut self, common: &mut Common, host: &mut impl Host) {
        if common.draining && self.requester.is_idle() {
            common.drained(host);
        }
    }

    /// When something is due.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        match (self.requester.next_timeout(), self.responder.next_timeout()) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// Does what is due.
    pub(super) fn handle_timeout(
        &mut self,
        common: &mut Common,
        now: Instant,
        host: &mut impl Host,
    ) {
        let result = self.requester.handle_timeout(now);
        self.settle(common, result, host);
    }

    /// Lets an acknowledgement that waits go.
    pub(super) fn hasten_acks(&mut self) {
        self.responder.hasten_acks();
    }

    /// The next packet, in any state. Requests and answers take turns; acknowledgements come after them.
    pub(super) fn poll_transmit(
        &mut self,
        common: &mut Common,
        now: Instant,
        host: &mut impl Host,
    ) -> Option<Transmit> {
        let packet = if self.requested {
            self.poll_answer(common, host).or_else(|| self.poll_request(common, now, host))
        } else {
            self.poll_request(common, now, host).or_else(|| self.poll_answer(common, host))
        };
        let packet = packet.or_else(|| self.responder.poll_ack(common, now));
        common.to_peer(packet?)
    }

    fn poll_request(
        &mut self,
        common: &mut Common,
        now: Instant,
        host: &mut impl Host,
    ) -> Option<Packet> {
        let polled = self.requester.poll_transmit(common, now, host);
        let packet = polled.unwrap_or_else(|status| {
            self.settle(common, Err(status), host);
            None
        })?;
        self.requested = true;
        Some(packet)
    }

    fn poll_answer(&mut self, common: &mut Common, host: &mut impl Host) -> Option<Packet> {
        if !self.responder.is_urgent() {
            return None;
        }
        self.requested = false;
        loop {
            match self.responder.poll_answer(common, host) {
                Ok(packet) => return packet,
                // There is the refusal to be sent now.
                Err(Failed) => self.flush(common, host),
            }
        }
    }
}
