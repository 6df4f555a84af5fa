//! What a requester makes of the answers.

use std::time::Instant;

use super::numbers;
use super::requester::Requester;
use super::times::rnr_delay;
use crate::transport::common::Common;
use crate::transport::segment::part;
use crate::transport::work::{Payload, SendOperation, Status};
use crate::transport::Host;
use crate::wire::{Aeth, NakCode, Operation, Packet, Position, Syndrome};

impl Requester {
    /// Takes an answer of the peer.
    ///
    /// # Errors
    ///
    /// How the oldest request fails.
    pub(super) fn handle_response(
        &mut self,
        common: &Common,
        now: Instant,
        packet: &Packet,
        host: &mut impl Host,
    ) -> Result<(), Status> {
        let ahead = numbers::distance(packet.bth.psn, self.acked);
        // What was done before is told again, and what was not sent cannot be answered: neither means anything.
        let Ok(ahead) = u64::try_from(ahead) else { return Ok(()) };
        let number = self.acked + ahead;
        if number >= self.end {
            return Ok(());
        }
        match packet.operation {
            Operation::Acknowledge(Aeth { syndrome: Syndrome::Ack(_), .. }) => {
                self.acknowledge(common, now, number + 1, host)
            }
            Operation::Acknowledge(Aeth { syndrome, .. }) => {
                self.acknowledge(common, now, number, host)?;
                if self.acked != number {
                    return Ok(());
                }
                self.refused(common, now, syndrome)
            }
            Operation::ReadResponse { position, aeth } => {
                self.acknowledge(common, now, number, host)?;
                if self.acked != number {
                    return Ok(());
                }
                if aeth.is_some_and(|aeth| !matches!(aeth.syndrome, Syndrome::Ack(_))) {
                    return Err(Status::BadResponse);
                }
                self.take_read(common, position, &packet.payload, host)?;
                self.done(common, number + 1, host);
                self.progressed(common, now)
            }
            Operation::AtomicAcknowledge { original, .. } => {
                self.acknowledge(common, now, number, host)?;
                if self.acked != number {
                    return Ok(());
                }
                self.take_atomic(common, original, host)?;
                self.done(common, number + 1, host);
                self.progressed(common, now)
            }
            _ => Ok(()),
        }
    }

    /// Completes what was acknowledged: all packets before `to`, but for those that a response must end. If one of these is
    /// missing, it is asked for again.
    fn acknowledge(
        &mut self,
        common: &Common,
        now: Instant,
        to: u64,
        host: &mut impl Host,
    ) -> Result<(), Status> {
        let before = self.acked;
        let mut missing = false;
        while self.acked < to {
            let Some(send) = self.sends.front() else { break };
            if send.has_response() {
                missing = true;
                break;
            }
            let end = send.end().min(to);
            self.done(common, end, host);
        }
        if self.acked > before {
            self.progressed(common, now)?;
        }
        if missing {
            self.retry_response()?;
        }
        Ok(())
    }

    /// Marks all packets before `to` as done, and completes their request if they end it.
    fn done(&mut self, common: &Common, to: u64, host: &mut impl Host) {
        if let Some(send) = self.advance(to) {
            common.complete_send(&send.request, send.len, Status::Success, host);
            self.complete_local(common, host);
        }
    }

    /// The oldest packet was refused.
    fn refused(&mut self, common: &Common, now: Instant, syndrome: Syndrome) -> Result<(), Status> {
        match syndrome {
            Syndrome::Ack(_) => Ok(()),
            // It is on its way again already, or about to be: this was said of what was sent before.
            Syndrome::RnrNak(_) | Syndrome::Nak(NakCode::SequenceError) if !self.has_sent() => {
                Ok(())
            }
            Syndrome::RnrNak(time) => self.wait_for_receive(common, now, rnr_delay(time)),
            Syndrome::Nak(NakCode::SequenceError) => self.retry(),
            Syndrome::Nak(NakCode::InvalidRequest | NakCode::InvalidRdRequest) => {
                Err(Status::RemoteInvalidRequest)
            }
            Syndrome::Nak(NakCode::RemoteAccessError) => Err(Status::RemoteAccess),
            Syndrome::Nak(NakCode::RemoteOperationalError) => Err(Status::RemoteOperation),
        }
    }

    /// Puts a packet of a read's response where it belongs: it is the one that is expected.
    fn take_read(
        &mut self,
        common: &Common,
        position: Position,
        bytes: &[u8],
        host: &impl Host,
    ) -> Result<(), Status> {
        let send = self.sends.front().ok_or(Status::BadResponse)?;
        let (SendOperation::Read { .. }, Payload::Sges(sges)) =
            (&send.request.operation, &send.request.payload)
        else {
            return Err(Status::BadResponse);
        };
        let index = self.acked - send.first;
        let (offset, len) = part(index, send.len, common.mtu());
        let ends = index + 1 == send.read_end(index);
        if bytes.len() != len || position.ends() != ends {
            return Err(Status::BadResponse);
        }
        common.scatter(sges, offset, bytes, host).map_err(|_| Status::LocalProtection)
    }

    /// Puts what an atomic operation has returned where it belongs.
    fn take_atomic(
        &mut self,
        common: &Common,
        original: u64,
        host: &impl Host,
    ) -> Result<(), Status> {
        let send = self.sends.front().ok_or(Status::BadResponse)?;
        let (
            SendOperation::CompareSwap { .. } | SendOperation::FetchAdd { .. },
            Payload::Sges(sges),
        ) = (&send.request.operation, &send.request.payload)
        else {
            return Err(Status::BadResponse);
        };
        common.scatter(sges, 0, &original.to_ne_bytes(), host).map_err(|_| Status::LocalProtection)
    }
}
