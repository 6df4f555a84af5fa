//! The side that sends: what was posted, and the flows that carry it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::super::common::Common;
use super::super::rc::rnr_delay;
use super::super::segment::{packets, part};
use super::super::work::{DatagramTarget, SendOperation, SendRequest, SrdOperation, Status};
use super::super::{Host, Path, Payload, Transmit};
use super::flow::{Due, Flow};
use super::waiting::Waiting;
use super::{Peer, SRD_MAX_RDMA, SRD_MAX_SEND};
use crate::wire::{
    Bth, Deth, NakCode, Operation, Packet, Psn, Reth, Service, Srd as SrdHeader, SrdPart, Syndrome,
};

/// How many flows are remembered, with those in which nothing is under way.
const MAX_FLOWS: usize = 1024;

/// How many sends to a peer are looked at for one that can go on: more than can be under way in a flow.
const LOOKED_AT: usize = 128;

/// A queue key with this bit is privileged: the sending queue pair's own is used instead.
const PRIVILEGED: u32 = 1 << 31;

/// The number of retries that is without end.
const FOR_EVER: u8 = 7;

/// A request that is not done.
#[derive(Debug)]
struct Send {
    request: SendRequest,
    to: DatagramTarget,
    operation: SrdOperation,
    len: u64,
    mtu: u32,
    /// How many pieces have bytes.
    count: u64,
    /// How many pieces were begun.
    begun: u64,
    /// How many of those are under way.
    open: u64,
    /// The number of its first piece.
    first: Psn,
}

impl Send {
    fn peer(&self) -> Peer {
        let Path { source, dest, .. } = self.to.path;
        Peer { own: source, addr: dest, qp_num: self.to.remote_qpn }
    }

    /// The immediate data of a write: it comes as a piece of its own, after all others were carried out.
    fn end(&self) -> Option<u32> {
        match self.operation {
            SrdOperation::Write { imm, .. } => imm,
            _ => None,
        }
    }

    fn pieces(&self) -> u64 {
        self.count + u64::from(self.end().is_some())
    }

    /// Whether all of its pieces were begun.
    fn is_begun(&self) -> bool {
        self.begun == self.pieces()
    }

    /// Whether its next piece waits until all others were carried out.
    fn is_blocked(&self) -> bool {
        self.begun == self.count && self.open > 0
    }

    /// Whether the request can be carried out at all.
    fn check(&self, common: &Common, host: &impl Host) -> Result<(), Status> {
        let most = match self.operation {
            SrdOperation::Send { .. } => SRD_MAX_SEND,
            _ => SRD_MAX_RDMA,
        };
        if self.len > u64::from(most) {
            return Err(Status::LocalLength);
        }
        match (&self.request.payload, self.operation) {
            (Payload::Sges(sges), SrdOperation::Read { .. }) => sges
                .iter()
                .try_for_each(|sge| host.check_local(common.config.pd, sge, true))
                .map_err(|_| Status::LocalProtection),
            (payload, _) => common.check_payload(payload, host),
        }
    }

    /// What a piece asks for, and its bytes.
    fn piece(
        &self,
        index: u64,
        common: &Common,
        host: &impl Host,
    ) -> Result<(SrdPart, Vec<u8>), Status> {
        // Not more than the longest request.
        let len = self.len as u32;
        let (offset, bytes) = part(index, self.len, self.mtu);
        let part = match (self.operation, self.end()) {
            (SrdOperation::Send { imm }, _) => {
                SrdPart::Fragment { message: self.first, offset: offset as u32, len, imm }
            }
            (SrdOperation::Write { .. }, Some(imm)) if index == self.count => {
                return Ok((SrdPart::WriteEnd { len, imm }, Vec::new()));
            }
            (SrdOperation::Write { addr, rkey, .. }, _) => {
                SrdPart::Write { addr: addr.wrapping_add(offset), rkey }
            }
            (SrdOperation::Read { addr, rkey }, _) => {
                let reth = Reth { addr: addr.wrapping_add(offset), rkey, len: bytes as u32 };
                return Ok((SrdPart::Read(reth), Vec::new()));
            }
        };
        let gathered = common.gather(&self.request.payload, offset, bytes, host);
        Ok((part, gathered.map_err(|_| Status::LocalProtection)?))
    }
}

/// The sending side.
#[derive(Debug)]
pub(super) struct Requester {
    /// In the order in which they were posted.
    sends: BTreeMap<u64, Send>,
    next_send: u64,
    /// Those of which pieces are still to be begun.
    waiting: Waiting,
    flows: BTreeMap<Peer, Flow>,
    next_flow: u32,
    /// The flows in which something may have to be sent again.
    again: BTreeSet<Peer>,
    /// Nothing is due before.
    earliest: Option<Instant>,
}

impl Requester {
    pub(super) fn new(nonce: u32) -> Requester {
        Requester {
            sends: BTreeMap::new(),
            next_send: 0,
            waiting: Waiting::default(),
            flows: BTreeMap::new(),
            next_flow: nonce,
            again: BTreeSet::new(),
            earliest: None,
        }
    }

    pub(super) fn sends(&self) -> usize {
        self.sends.len()
    }

    /// Whether nothing was begun that is not finished.
    pub(super) fn is_idle(&self) -> bool {
        self.sends.values().all(|send| send.begun == 0)
    }

    pub(super) fn post(&mut self, common: &Common, request: SendRequest, host: &mut impl Host) {
        let SendOperation::Srd { to, operation } = request.operation else {
            return common.complete_send(&request, 0, Status::LocalQpOperation, host);
        };
        let (len, mtu) = (request.payload.len(), common.mtu());
        let count = packets(len, mtu);
        let first = Psn::default();
        let send = Send { request, to, operation, len, mtu, count, begun: 0, open: 0, first };
        self.waiting.push(send.peer(), self.next_send);
        self.sends.insert(self.next_send, send);
        self.next_send += 1;
    }

    /// Looks at all sends again: it may be that they can be begun now.
    pub(super) fn resume(&mut self) {
        self.waiting.make_all_ready();
    }

    pub(super) fn flush(&mut self, common: &Common, host: &mut impl Host) {
        for send in std::mem::take(&mut self.sends).into_values() {
            common.complete_send(&send.request, 0, Status::WorkRequestFlushed, host);
        }
        // The numbers of flows go on.
        *self = Requester { next_send: self.next_send, ..Requester::new(self.next_flow) };
    }

    /// Ends a send that has failed, alone.
    fn fail(&mut self, id: u64, status: Status, common: &Common, host: &mut impl Host) {
        let Some(send) = self.sends.remove(&id) else { return };
        let peer = send.peer();
        self.waiting.remove(peer, id);
        if let Some(flow) = self.flows.get_mut(&peer) {
            flow.abandon(id);
        }
        self.waiting.make_ready(peer);
        common.complete_send(&send.request, 0, status, host);
    }

    fn note_due(&mut self, due: Option<Instant>) {
        if let Some(due) = due {
            self.earliest = Some(self.earliest.map_or(due, |earliest| earliest.min(due)));
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.earliest
    }

    pub(super) fn handle_timeout(&mut self, common: &Common, now: Instant, host: &mut impl Host) {
        if self.earliest.is_none_or(|earliest| earliest > now) {
            return;
        }
        let mut failed = Vec::new();
        for (peer, flow) in &mut self.flows {
            let is_answered = flow.is_answered;
            while let Some(due) = flow.take_due(now) {
                match due {
                    Due::Again => drop(self.again.insert(*peer)),
                    Due::GivenUp(send) => {
                        flow.abandon(send);
                        failed.push((send, is_answered));
                    }
                }
            }
        }
        for (send, is_answered) in failed {
            let status = if is_answered { Status::Unresponsive } else { Status::Unreachable };
            self.fail(send, status, common, host);
        }
        self.earliest = self.flows.values().filter_map(Flow::next_due).min();
    }

    /// The next packet, if there is one.
    pub(super) fn poll_transmit(
        &mut self,
        common: &Common,
        now: Instant,
        host: &mut impl Host,
    ) -> Option<Transmit> {
        if matches!(common.state, super::State::ReadyToSend | super::State::SendQueueDrain) {
            self.poll_again(common, now, host).or_else(|| self.poll_new(common, now, host))
        } else {
            None
        }
    }

    /// A piece that is sent again.
    fn poll_again(
        &mut self,
        common: &Common,
        now: Instant,
        host: &mut impl Host,
    ) -> Option<Transmit> {
        while let Some(&peer) = self.again.first() {
            let flow = self.flows.get_mut(&peer);
            let Some((flow, (psn, id, index, due))) =
                flow.and_then(|flow| flow.take_again(now).map(|piece| (flow, piece)))
            else {
                self.again.remove(&peer);
                continue;
            };
            let header = (flow.id, flow.floor());
            self.note_due(Some(due));
            match self.transmit(id, index, psn, header, common, host) {
                Ok(transmit) => return Some(transmit),
                Err(status) => self.fail(id, status, common, host),
            }
        }
        None
    }

    /// The first piece that was not sent yet and can be.
    fn poll_new(
        &mut self,
        common: &Common,
        now: Instant,
        host: &mut impl Host,
    ) -> Option<Transmit> {
        while let Some(peer) = self.waiting.first_ready() {
            let transmit = self.poll_new_to(peer, common, now, host);
            if transmit.is_some() {
                return transmit;
            }
            self.waiting.end_turn();
        }
        None
    }

    /// The same to one peer.
    fn poll_new_to(
        &mut self,
        peer: Peer,
        common: &Common,
        now: Instant,
        host: &mut impl Host,
    ) -> Option<Transmit> {
        let mut place = 0;
        while let Some(id) = self.waiting.get(peer, place).filter(|_| place < LOOKED_AT) {
            match self.begin(id, common, now, host) {
                Ok(Some(transmit)) => {
                    if self.sends.get(&id).is_none_or(Send::is_begun) {
                        self.waiting.remove(peer, id);
                    }
                    return Some(transmit);
                }
                Ok(None) => place += 1,
                // It is not in this place any more.
                Err(status) => self.fail(id, status, common, host),
            }
        }
        None
    }

    /// Begins the next piece of a send, if it can be.
    fn begin(
        &mut self,
        id: u64,
        common: &Common,
        now: Instant,
        host: &impl Host,
    ) -> Result<Option<Transmit>, Status> {
        let Some(send) = self.sends.get_mut(&id) else { return Ok(None) };
        if send.is_blocked() || send.begun == 0 && !common.starts_sends() {
            return Ok(None);
        }
        if send.begun == 0 {
            send.check(common, host)?;
        }
        let peer = send.peer();
        if !self.flows.contains_key(&peer) {
            self.open_flow(peer, common);
        }
        let (Some(flow), Some(send)) = (self.flows.get_mut(&peer), self.sends.get_mut(&id)) else {
            return Ok(None);
        };
        if !flow.has_room() || flow.current.is_some_and(|current| current != id) {
            return Ok(None);
        }
        let (psn, index) = (flow.next_psn(), send.begun);
        if index == 0 {
            send.first = psn;
        }
        let header = (flow.id, flow.floor());
        let due = flow.begin(now, id, index);
        send.begun += 1;
        send.open += 1;
        let is_last = send.is_begun();
        let is_message = matches!(send.operation, SrdOperation::Send { .. });
        flow.current = (is_message && !is_last).then_some(id);
        self.note_due(Some(due));
        self.transmit(id, index, psn, header, common, host).map(Some)
    }

    fn open_flow(&mut self, peer: Peer, common: &Common) {
        if self.flows.len() >= MAX_FLOWS {
            // If something is under way in all of them, there is one more: at most as many as sends.
            if let Some(idle) = self.flows.iter().find(|(_, flow)| flow.is_idle()) {
                let idle = *idle.0;
                self.flows.remove(&idle);
            }
        }
        self.flows.insert(peer, Flow::new(self.next_flow, common.attributes.sq_psn));
        self.next_flow = self.next_flow.wrapping_add(1);
    }

    fn transmit(
        &self,
        id: u64,
        index: u64,
        psn: Psn,
        (flow, floor): (u32, Psn),
        common: &Common,
        host: &impl Host,
    ) -> Result<Transmit, Status> {
        let send = self.sends.get(&id).ok_or(Status::LocalQpOperation)?;
        let (part, payload) = send.piece(index, common, host)?;
        let DatagramTarget { path, remote_qpn, qkey } = send.to;
        let bth = Bth {
            service: Service::Srd,
            solicited: false,
            migrated: true,
            pkey: common.attributes.pkey,
            dest_qp: remote_qpn,
            ack_request: true,
            psn,
        };
        let qkey = if qkey & PRIVILEGED != 0 { common.attributes.qkey } else { qkey };
        let deth = Some(Deth { qkey, src_qp: common.config.qp_num });
        let operation = Operation::Srd(SrdHeader { flow, floor, part });
        Ok(Transmit { path, packet: Packet { bth, deth, operation, payload } })
    }

    pub(super) fn handle_response(
        &mut self,
        common: &Common,
        now: Instant,
        arrived: &Path,
        packet: &Packet,
        srd: &SrdHeader,
        host: &mut impl Host,
    ) {
        let Some(deth) = packet.deth else { return };
        let peer = Peer { own: arrived.dest, addr: arrived.source, qp_num: deth.src_qp };
        let Some(flow) = self.flows.get_mut(&peer).filter(|flow| flow.id == srd.flow) else {
            return;
        };
        flow.is_answered = true;
        let psn = packet.bth.psn;
        match srd.part {
            SrdPart::Ack { done } => {
                let bits = (0..u64::BITS).filter(|bit| done >> bit & 1 != 0);
                for psn in bits.map(|bit| srd.floor.add(bit)) {
                    self.acknowledge(peer, psn, common, host);
                }
            }
            SrdPart::Data => self.take_data(peer, psn, &packet.payload, common, host),
            SrdPart::Nak(Syndrome::RnrNak(timer)) => {
                let retry = common.attributes.rnr_retry;
                let retries = (retry < FOR_EVER).then(|| retry.into());
                match flow.postpone(now, psn, rnr_delay(timer), retries) {
                    Ok(due) => self.note_due(due),
                    Err(send) => self.fail(send, Status::RnrRetryExceeded, common, host),
                }
            }
            SrdPart::Nak(Syndrome::Nak(code)) => {
                let status = match code {
                    NakCode::InvalidRequest => Status::RemoteInvalidRequest,
                    NakCode::RemoteAccessError => Status::RemoteAccess,
                    NakCode::InvalidRdRequest => Status::RemoteInvalidRdRequest,
                    NakCode::RemoteOperationalError | NakCode::SequenceError => Status::BadResponse,
                };
                if let Some(send) = flow.piece(psn).map(|piece| piece.send) {
                    self.fail(send, status, common, host);
                }
            }
            _ => {}
        }
    }

    /// Ends a piece that was carried out, if it is not one that is answered with data.
    fn acknowledge(&mut self, peer: Peer, psn: Psn, common: &Common, host: &mut impl Host) {
        let Some(flow) = self.flows.get_mut(&peer) else { return };
        let send = flow.piece(psn).and_then(|piece| self.sends.get(&piece.send));
        if send.is_some_and(|send| !matches!(send.operation, SrdOperation::Read { .. })) {
            self.finish(peer, psn, common, host);
        }
    }

    /// Takes what a read has asked for.
    fn take_data(
        &mut self,
        peer: Peer,
        psn: Psn,
        bytes: &[u8],
        common: &Common,
        host: &mut impl Host,
    ) {
        let piece = self.flows.get(&peer).and_then(|flow| flow.piece(psn));
        let Some((id, index)) = piece.map(|piece| (piece.send, piece.index)) else { return };
        let Some(send) = self.sends.get(&id) else { return };
        let (offset, len) = part(index, send.len, send.mtu);
        let (SrdOperation::Read { .. }, Payload::Sges(sges)) =
            (send.operation, &send.request.payload)
        else {
            return;
        };
        if bytes.len() != len {
            self.fail(id, Status::BadResponse, common, host);
        } else if common.scatter(sges, offset, bytes, host).is_err() {
            self.fail(id, Status::LocalProtection, common, host);
        } else {
            self.finish(peer, psn, common, host);
        }
    }

    fn finish(&mut self, peer: Peer, psn: Psn, common: &Common, host: &mut impl Host) {
        let Some(flow) = self.flows.get_mut(&peer) else { return };
        if flow.note_passed(psn) {
            self.again.insert(peer);
        }
        let Some(piece) = flow.finish(psn) else { return };
        self.waiting.make_ready(peer);
        let Some(send) = self.sends.get_mut(&piece.send) else { return };
        send.open -= 1;
        if send.open > 0 || !send.is_begun() {
            return;
        }
        if let Some(send) = self.sends.remove(&piece.send) {
            common.complete_send(&send.request, send.len, Status::Success, host);
        }
    }
}
