//! Unreliable datagrams.

use std::time::Instant;

use super::common::{Common, Received};
use super::send_queue::SendQueue;
use super::work::{CompletionKind, SendOperation, SendRequest, Status};
use super::{Host, Path, State, Transmit};
use crate::wire::{grh, Bth, Deth, Operation, Packet, Position, Psn, Service};

/// What a UD queue pair remembers.
#[derive(Debug, Default)]
pub(super) struct Ud {
    sends: SendQueue,
    /// The sequence number of the next datagram.
    next_psn: Psn,
}

/// A queue key with this bit is privileged: the sending queue pair's own is used instead.
const PRIVILEGED: u32 = 1 << 31;

impl Ud {
    pub(super) fn new() -> Ud {
        Ud::default()
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
            (State::ReadyToReceive, State::ReadyToSend) => self.next_psn = common.attributes.sq_psn,
            // A datagram is one packet: none is ever begun and not finished.
            (_, State::SendQueueDrain) => common.drained(host),
            _ => {}
        }
    }

    /// Flushes the sends, and goes to `Error`.
    pub(super) fn fail(&mut self, common: &mut Common, host: &mut impl Host) {
        self.sends.flush(common, host);
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
        let Operation::Send { position: Position::Only, imm, invalidate: None } = packet.operation
        else {
            return;
        };
        let Some(deth) = packet.deth.filter(|deth| deth.qkey == common.attributes.qkey) else {
            return;
        };
        let grh = grh(arrived, &packet.view());
        let len = grh.len() as u64 + packet.payload.len() as u64;
        let Some(receive) = common.receives.take(&common.config, host) else { return };
        if len > receive.room {
            common.fail_receive(Status::LocalLength, host);
            return;
        }
        let scattered = common
            .scatter_received(0, &grh, host)
            .and_then(|()| common.scatter_received(grh.len() as u64, &packet.payload, host));
        if scattered.is_err() {
            common.fail_receive(Status::LocalProtection, host);
            return;
        }
        let received = Received {
            kind: CompletionKind::Recv,
            // Not more than a packet and a header.
            len: len as u32,
            imm,
            invalidated: None,
            src_qp: deth.src_qp,
            source: None,
            grh: true,
            solicited: packet.bth.solicited,
        };
        common.complete_receive(received, host);
    }

    /// The next packet, in any state.
    pub(super) fn poll_transmit(
        &mut self,
        common: &mut Common,
        _now: Instant,
        host: &mut impl Host,
    ) -> Option<Transmit> {
        if !common.starts_sends() {
            return None;
        }
        let request = self.sends.front()?;
        match self.datagram(common, request, host) {
            Ok(transmit) => {
                self.next_psn = self.next_psn.add(1);
                self.sends.finish(common, host);
                Some(transmit)
            }
            Err(status) => {
                self.sends.fail(status, common, host);
                None
            }
        }
    }

    fn datagram(
        &self,
        common: &Common,
        request: &SendRequest,
        host: &impl Host,
    ) -> Result<Transmit, Status> {
        let SendOperation::Datagram { path, remote_qpn, qkey, imm } = request.operation else {
            return Err(Status::LocalQpOperation);
        };
        let len = request.payload.len();
        if len > u64::from(common.mtu()) {
            return Err(Status::LocalLength);
        }
        common.check_payload(&request.payload, host)?;
        let payload = common
            .gather(&request.payload, 0, len as usize, host)
            .map_err(|_| Status::LocalProtection)?;
        let bth = Bth {
            service: Service::Ud,
            solicited: request.solicited,
            migrated: true,
            pkey: common.attributes.pkey,
            dest_qp: remote_qpn,
            ack_request: false,
            psn: self.next_psn,
        };
        let qkey = if qkey & PRIVILEGED != 0 { common.attributes.qkey } else { qkey };
        let deth = Some(Deth { qkey, src_qp: common.config.qp_num });
        let operation = Operation::Send { position: Position::Only, imm, invalidate: None };
        Ok(Transmit { path, packet: Packet { bth, deth, operation, payload } })
    }
}

#[cfg(test)]
mod tests;
