//! Scalable reliable datagrams, as adapters of EFA have them: each message arrives once or fails, in any order.
//!
//! What those adapters send is not public, so the packets are this device's own ([`crate::wire::Srd`]). A request is cut into pieces of one
//! packet each, and every piece is asked for, answered and, where need be, asked for again by itself: a part of a send or of a write, a read
//! of one packet, the end of a write with immediate data. Nothing waits for what was lost but the message that it belongs to.
//!
//! - The *requester* (`requester`) has a *flow* (`flow`) to each queue pair that it sends to, which numbers the pieces. A flow has a number
//!   that no earlier flow of the queue pair had. A window of pieces is under way in each.
//! - The *responder* (`responder`) remembers of each flow which numbers of the window it has carried out: so that nothing is done
//!   twice. What it remembers is bounded, and a flow that has been silent for longer than any requester tries is forgotten first.
//!
//! A send that fails ends alone: the queue pair goes on, and so do the sends behind it.

mod flow;
mod requester;
mod responder;
mod waiting;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use requester::Requester;
use responder::Responder;

use super::common::Common;
use super::work::{SendRequest, Status};
use super::{Host, Path, State, Transmit};
use crate::wire::{
    Bth, Deth, NakCode, Operation, Packet, Psn, Service, Srd as SrdHeader, SrdPart, Syndrome,
};

/// The longest send, which is that of EFA.
pub const SRD_MAX_SEND: u32 = 8928;

/// The longest write or read.
pub const SRD_MAX_RDMA: u32 = 1 << 30;

/// How many numbers of a flow can be under way: a bit of an acknowledgement for each.
const SPAN: usize = u64::BITS as usize;

/// For how long a flow must have been silent to be forgotten: for much longer than a requester tries.
const SILENCE: Duration = Duration::from_secs(10);

/// The other end of a flow: from which address of ours to which address and queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Peer {
    own: IpAddr,
    addr: IpAddr,
    qp_num: u32,
}

/// What an SRD queue pair remembers.
#[derive(Debug)]
pub(super) struct Srd {
    requester: Requester,
    responder: Responder,
}

impl Srd {
    /// `nonce` is the number of the first flow.
    pub(super) fn new(nonce: u32) -> Srd {
        Srd { requester: Requester::new(nonce), responder: Responder::default() }
    }

    /// How many sends are outstanding.
    pub(super) fn sends(&self) -> usize {
        self.requester.sends()
    }

    /// The state, which is neither `Reset` nor `Error`, and the attributes were changed.
    pub(super) fn modified(
        &mut self,
        common: &mut Common,
        _now: Instant,
        _from: State,
        host: &mut impl Host,
    ) {
        self.requester.resume();
        self.check_drained(common, host);
    }

    /// Flushes the sends, and goes to `Error`.
    pub(super) fn fail(&mut self, common: &mut Common, host: &mut impl Host) {
        self.requester.flush(common, host);
        common.fail(host);
    }

    /// Posts a send, in a state that is not `Error`.
    pub(super) fn post_send(
        &mut self,
        common: &mut Common,
        _now: Instant,
        request: SendRequest,
        host: &mut impl Host,
    ) {
        self.requester.post(common, request, host);
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
        let (Operation::Srd(srd), Some(deth)) = (packet.operation, packet.deth) else { return };
        if srd.part.is_response() {
            self.requester.handle_response(common, now, arrived, &packet, &srd, host);
            self.check_drained(common, host);
        } else if deth.qkey == common.attributes.qkey {
            self.responder.handle_request(common, now, arrived, &packet, &srd, host);
        } else {
            self.responder.answer(refuse(arrived, &packet));
        }
    }

    fn check_drained(&mut self, common: &mut Common, host: &mut impl Host) {
        if common.draining && self.requester.is_idle() {
            common.drained(host);
        }
    }

    /// When something is due.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.requester.next_timeout()
    }

    /// Does what is due.
    pub(super) fn handle_timeout(
        &mut self,
        common: &mut Common,
        now: Instant,
        host: &mut impl Host,
    ) {
        self.requester.handle_timeout(common, now, host);
        self.check_drained(common, host);
    }

    /// The next packet, in any state: answers, then requests, then acknowledgements, of which one is for all that has come by then.
    pub(super) fn poll_transmit(
        &mut self,
        common: &mut Common,
        now: Instant,
        host: &mut impl Host,
    ) -> Option<Transmit> {
        if let Some(answer) = self.responder.poll_answer() {
            return Some(answer);
        }
        let request = self.requester.poll_transmit(common, now, host);
        self.check_drained(common, host);
        request.or_else(|| self.responder.poll_ack(common))
    }
}

/// The code of EFA for what has happened to a request (`enum efa_io_comp_status`).
pub(super) const fn vendor_error(status: Status) -> u32 {
    match status {
        Status::Success => 0,
        Status::WorkRequestFlushed => 1,
        Status::LocalProtection => 5,
        Status::LocalLength => 6,
        Status::RemoteAccess => 7,
        Status::RemoteInvalidRdRequest => 9,
        Status::RnrRetryExceeded => 10,
        Status::RemoteInvalidRequest => 11,
        Status::BadResponse => 12,
        Status::Unresponsive => 13,
        Status::Unreachable => 15,
        // An error of the queue pair's own.
        _ => 2,
    }
}

/// The answer to a request that nobody here is going to carry out: there is no such queue pair, or it does not take packets. Nothing for
/// other packets.
pub fn refuse(arrived: &Path, packet: &Packet) -> Option<Transmit> {
    let Operation::Srd(srd) = packet.operation else { return None };
    let part = SrdPart::Nak(Syndrome::Nak(NakCode::InvalidRdRequest));
    let answer = Answer { src_qp: packet.bth.dest_qp, pkey: packet.bth.pkey };
    let dest_qp = packet.deth?.src_qp;
    let header = SrdHeader { part, ..srd };
    (!srd.part.is_response())
        .then(|| answer.packet(arrived, dest_qp, packet.bth.psn, header, Vec::new()))
}

/// Who answers.
#[derive(Clone, Copy, Debug)]
struct Answer {
    src_qp: u32,
    pkey: u16,
}

impl Answer {
    /// A packet for whoever has sent what arrived in this way.
    fn packet(
        self,
        arrived: &Path,
        dest_qp: u32,
        psn: Psn,
        srd: SrdHeader,
        payload: Vec<u8>,
    ) -> Transmit {
        const HOP_LIMIT: u8 = 64;
        let path =
            Path { source: arrived.dest, dest: arrived.source, hop_limit: HOP_LIMIT, ..*arrived };
        let bth = Bth {
            service: Service::Srd,
            solicited: false,
            migrated: true,
            pkey: self.pkey,
            dest_qp,
            ack_request: false,
            psn,
        };
        // Answers are known by their flow.
        let deth = Some(Deth { qkey: 0, src_qp: self.src_qp });
        Transmit { path, packet: Packet { bth, deth, operation: Operation::Srd(srd), payload } }
    }
}

#[cfg(test)]
mod tests;
