//! Unreliable connections: messages arrive whole, or not at all, and nobody is told.

use std::time::Instant;

use super::common::Common;
use super::incoming::{Fault, Incoming};
use super::outgoing;
use super::segment::{packets, MAX_MESSAGE};
use super::send_queue::SendQueue;
use super::work::{SendOperation, SendRequest, Status};
use super::{Host, Path, State, Transmit};
use crate::wire::{Operation, Packet, Psn};

/// What a UC queue pair remembers.
#[derive(Debug, Default)]
pub(super) struct Uc {
    sends: SendQueue,
    /// How many packets of the oldest send are sent.
    sent: u64,
    /// The sequence number of the next packet to send.
    next_psn: Psn,
    incoming: Incoming,
    /// The sequence number with which the message goes on that has begun to come in.
    expected: Psn,
}

impl Uc {
    pub(super) fn new() -> Uc {
        Uc::default()
    }

    /// How many sends are outstanding.
    pub(super) fn sends(&self) -> usize {
        self.sends.len()
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
            (State::Init, State::ReadyToReceive) => self.expected = common.attributes.rq_psn,
            (State::ReadyToReceive, State::ReadyToSend) => self.next_psn = common.attributes.sq_psn,
            (_, State::SendQueueDrain) if self.sent == 0 => common.drained(host),
            _ => {}
        }
    }

    /// Flushes the sends, and goes to `Error`.
    pub(super) fn fail(&mut self, common: &mut Common, host: &mut impl Host) {
        self.sends.flush(common, host);
        self.sent = 0;
        self.incoming.abandon();
        common.fail(host);
    }

    /// Posts a send, in a state that is not `Error`.
    pub(super) fn post_send(
        &mut self,
        _common: &mut Common,
        _now: Instant,
        request: SendRequest,
        _host: &mut impl Host,
    ) {
        self.sends.push(request);
    }

    /// Takes a packet of this service and partition, in a state in which packets are taken.
    pub(super) fn handle_packet(
        &mut self,
        common: &mut Common,
        _now: Instant,
        arrived: &Path,
        packet: Packet,
        host: &mut impl Host,
    ) {
        let (Operation::Send { position, .. } | Operation::Write { position, .. }) =
            packet.operation
        else {
            return;
        };
        if !common.is_from_peer(arrived) {
            return;
        }
        common.note_arrival(host);
        let psn = packet.bth.psn;
        if position.begins() {
            // A new message, whatever was lost before it. What had come of another one is given up.
            self.incoming.abandon();
        } else if !self.incoming.is_open() || psn.since(self.expected) < 0 {
            // It has no beginning, or it came before.
            return;
        } else if psn != self.expected {
            self.incoming.abandon();
            return;
        }
        self.expected = psn.add(1);
        let Err(fault) = self.incoming.accept(common, &packet, host) else { return };
        self.incoming.abandon();
        let status = match fault {
            // The message is dropped, and nobody is told.
            Fault::NotReady | Fault::Invalid | Fault::RemoteAccess | Fault::Invalidation => return,
            Fault::TooLong => Status::LocalLength,
            Fault::LocalProtection => Status::LocalProtection,
        };
        common.fail_receive(status, host);
        self.fail(common, host);
    }

    /// The next packet, in any state.
    pub(super) fn poll_transmit(
        &mut self,
        common: &mut Common,
        _now: Instant,
        host: &mut impl Host,
    ) -> Option<Transmit> {
        if !common.starts_sends() && (common.state != State::SendQueueDrain || self.sent == 0) {
            return None;
        }
        while let Some(request) = self.sends.front().filter(|it| it.operation.is_local()) {
            match common.carry_out(request, host) {
                Ok(()) => self.sends.finish(common, host),
                Err(status) => {
                    self.sends.fail(status, common, host);
                    return None;
                }
            }
        }
        let request = self.sends.front()?;
        let len = request.payload.len();
        let count = packets(len, common.mtu());
        match self.packet(common, request, (len, count), host) {
            Ok(transmit) => {
                self.next_psn = self.next_psn.add(1);
                self.sent += 1;
                if self.sent >= count {
                    self.sent = 0;
                    self.sends.finish(common, host);
                    common.drained(host);
                }
                Some(transmit)
            }
            Err(status) => {
                self.sent = 0;
                self.sends.fail(status, common, host);
                None
            }
        }
    }

    /// The next packet of a request, which has `len` bytes in `count` packets.
    fn packet(
        &self,
        common: &Common,
        request: &SendRequest,
        (len, count): (u64, u64),
        host: &impl Host,
    ) -> Result<Transmit, Status> {
        if !matches!(request.operation, SendOperation::Send { .. } | SendOperation::Write { .. }) {
            return Err(Status::LocalQpOperation);
        }
        if len > MAX_MESSAGE {
            return Err(Status::LocalLength);
        }
        if self.sent == 0 {
            common.check_payload(&request.payload, host)?;
        }
        let place = (len, count, self.sent);
        let packet = outgoing::packet(common, request, place, self.next_psn, host)
            .map_err(|_| Status::LocalProtection)?;
        packet.and_then(|packet| common.to_peer(packet)).ok_or(Status::LocalQpOperation)
    }
}

#[cfg(test)]
mod tests;
