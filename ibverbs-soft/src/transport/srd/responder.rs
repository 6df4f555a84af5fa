//! The side that is sent to: carries out each request once, and remembers what it must not do again.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::super::common::{Common, Received};
use super::super::work::{CompletionKind, Status};
use super::super::{Host, Path, RemoteAccess, Transmit};
use super::{Answer, Peer, SILENCE, SPAN, SRD_MAX_SEND};
use crate::wire::{NakCode, Packet, Psn, Reth, Srd as SrdHeader, SrdPart, Syndrome};

/// How many flows are remembered.
const MAX_FLOWS: usize = 4096;

/// How many messages of several packets can be incomplete.
const MAX_PARTIAL: usize = 256;

/// How many answers can wait for being sent; requests whose answers find no room are asked for again.
const MAX_ANSWERS: usize = 1024;

/// How long a peer is told to wait for a receive, if the queue pair was not told: 0.64 ms.
const RNR_TIMER: u8 = 12;

const READ: RemoteAccess = RemoteAccess { write: false, read: true, atomic: false };
const WRITE: RemoteAccess = RemoteAccess { write: true, read: false, atomic: false };

/// A flow of a peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Origin {
    peer: Peer,
    flow: u32,
}

/// What is remembered of a flow.
#[derive(Debug)]
struct Known {
    /// The peer is done with all numbers before this.
    floor: Psn,
    /// What was carried out, from there on: a bit for each.
    done: u64,
    /// What was refused, from there on.
    refused: Vec<(Psn, NakCode)>,
    /// Whether it stands among those that are owed an acknowledgement.
    is_owed: bool,
    /// When a request came last, and how.
    heard: Instant,
    arrived: Path,
}

impl Known {
    fn move_floor(&mut self, floor: Psn) {
        let Ok(by @ 1..) = u32::try_from(floor.since(self.floor)) else { return };
        self.floor = floor;
        self.done = self.done.checked_shr(by).unwrap_or(0);
        self.refused.retain(|(psn, _)| psn.since(floor) >= 0);
    }
}

/// A message of several packets that is not complete.
#[derive(Debug)]
struct Partial {
    bytes: Vec<u8>,
    got: usize,
    imm: Option<u32>,
    heard: Instant,
}

/// What is answered to a request.
enum Outcome {
    Done,
    /// There is no receive, or no room; it can be asked for again.
    NotReady,
    Refused(NakCode),
    Data(Vec<u8>),
}

/// The receiving side.
#[derive(Debug, Default)]
pub(super) struct Responder {
    flows: BTreeMap<Origin, Known>,
    /// By their flow and the number of their first packet.
    partial: BTreeMap<(Origin, u32), Partial>,
    answers: VecDeque<Transmit>,
    owed: VecDeque<Origin>,
}

impl Responder {
    /// Sends an answer as soon as possible.
    pub(super) fn answer(&mut self, answer: Option<Transmit>) {
        if self.answers.len() < MAX_ANSWERS {
            self.answers.extend(answer);
        }
    }

    pub(super) fn poll_answer(&mut self) -> Option<Transmit> {
        self.answers.pop_front()
    }

    /// An acknowledgement of all of a flow that was carried out.
    pub(super) fn poll_ack(&mut self, common: &Common) -> Option<Transmit> {
        loop {
            let origin = self.owed.pop_front()?;
            let Some(known) = self.flows.get_mut(&origin) else { continue };
            known.is_owed = false;
            let part = SrdPart::Ack { done: known.done };
            let srd = SrdHeader { flow: origin.flow, floor: known.floor, part };
            let dest_qp = origin.peer.qp_num;
            let answer = answer_of(common);
            return Some(answer.packet(&known.arrived, dest_qp, known.floor, srd, Vec::new()));
        }
    }

    pub(super) fn handle_request(
        &mut self,
        common: &mut Common,
        now: Instant,
        arrived: &Path,
        packet: &Packet,
        srd: &SrdHeader,
        host: &mut impl Host,
    ) {
        let Some(deth) = packet.deth else { return };
        let psn = packet.bth.psn;
        let peer = Peer { own: arrived.dest, addr: arrived.source, qp_num: deth.src_qp };
        let origin = Origin { peer, flow: srd.flow };
        if !self.flows.contains_key(&origin) && !self.make_room(now) {
            return;
        }
        let known = self.flows.entry(origin).or_insert_with(|| Known {
            floor: srd.floor,
            done: 0,
            refused: Vec::new(),
            is_owed: false,
            heard: now,
            arrived: *arrived,
        });
        known.heard = now;
        known.arrived = *arrived;
        if srd.floor.since(known.floor) > 0 {
            known.move_floor(srd.floor);
            let floor = known.floor;
            // Whose packets are all behind the floor: it will not be completed.
            self.partial.retain(|(other, message), _| {
                *other != origin || floor.since(Psn::new(*message)) < SPAN as i32
            });
        }
        let Some(bit) = u32::try_from(psn.since(known.floor)).ok().filter(|bit| *bit < u64::BITS)
        else {
            return;
        };
        let outcome = if known.done >> bit & 1 != 0 {
            Outcome::Done
        } else if let Some((_, code)) = known.refused.iter().find(|(other, _)| *other == psn) {
            Outcome::Refused(*code)
        } else {
            self.carry_out(common, now, origin, packet, srd, host)
        };
        let Some(known) = self.flows.get_mut(&origin) else { return };
        let part = match &outcome {
            Outcome::Done => {
                known.done |= 1 << bit;
                if !std::mem::replace(&mut known.is_owed, true) {
                    self.owed.push_back(origin);
                }
                return;
            }
            Outcome::NotReady => {
                let timer = common.attributes.min_rnr_timer;
                SrdPart::Nak(Syndrome::RnrNak(if timer == 0 { RNR_TIMER } else { timer }))
            }
            Outcome::Refused(code) => {
                if known.refused.iter().all(|(other, _)| *other != psn) {
                    known.refused.push((psn, *code));
                }
                SrdPart::Nak(Syndrome::Nak(*code))
            }
            Outcome::Data(_) => SrdPart::Data,
        };
        let payload = if let Outcome::Data(bytes) = outcome { bytes } else { Vec::new() };
        let header = SrdHeader { part, ..*srd };
        let answer = answer_of(common).packet(arrived, peer.qp_num, psn, header, payload);
        self.answer(Some(answer));
    }

    /// Forgets flows that are silent, if there are too many. Returns whether there is room for another one.
    fn make_room(&mut self, now: Instant) -> bool {
        if self.flows.len() < MAX_FLOWS {
            return true;
        }
        let is_heard = |heard: Instant| now.saturating_duration_since(heard) < SILENCE;
        self.flows.retain(|_, known| is_heard(known.heard));
        self.flows.len() < MAX_FLOWS
    }

    fn carry_out(
        &mut self,
        common: &mut Common,
        now: Instant,
        origin: Origin,
        packet: &Packet,
        srd: &SrdHeader,
        host: &mut impl Host,
    ) -> Outcome {
        let through = common.config.through();
        let payload = &packet.payload[..];
        match srd.part {
            SrdPart::Fragment { offset: 0, len, imm, .. } if len as usize == payload.len() => {
                deliver(common, origin, payload, imm, host)
            }
            SrdPart::Fragment { message, offset, len, imm } => {
                let piece = Piece { message, offset, len, imm, payload };
                self.assemble(common, now, origin, piece, host)
            }
            SrdPart::Write { addr, rkey } => {
                // Not more than a packet.
                let written = host
                    .check_remote(through, rkey, addr, payload.len() as u32, WRITE)
                    .and_then(|()| match payload {
                        [] => Ok(()),
                        _ => host.write_remote(through, rkey, addr, payload),
                    });
                match written {
                    Ok(()) => Outcome::Done,
                    Err(_) => Outcome::Refused(NakCode::RemoteAccessError),
                }
            }
            SrdPart::WriteEnd { len, imm } => {
                if common.receives.take(&common.config, host).is_none() {
                    return Outcome::NotReady;
                }
                let kind = CompletionKind::RecvWriteWithImm;
                common.complete_receive(received(origin, kind, len, Some(imm)), host);
                Outcome::Done
            }
            SrdPart::Read(Reth { addr, rkey, len }) => {
                if len > common.mtu() {
                    return Outcome::Refused(NakCode::InvalidRequest);
                }
                let mut bytes = vec![0; len as usize];
                let read = host.check_remote(through, rkey, addr, len, READ).and_then(|()| {
                    if bytes.is_empty() {
                        return Ok(());
                    }
                    host.read_remote(through, rkey, addr, &mut bytes)
                });
                match read {
                    Ok(()) => Outcome::Data(bytes),
                    Err(_) => Outcome::Refused(NakCode::RemoteAccessError),
                }
            }
            SrdPart::Data | SrdPart::Ack { .. } | SrdPart::Nak(_) => {
                Outcome::Refused(NakCode::InvalidRequest)
            }
        }
    }

    /// Puts a piece of a message where it belongs, and delivers the message if it was the last one.
    fn assemble(
        &mut self,
        common: &mut Common,
        now: Instant,
        origin: Origin,
        piece: Piece<'_>,
        host: &mut impl Host,
    ) -> Outcome {
        const INVALID: Outcome = Outcome::Refused(NakCode::InvalidRequest);
        let Piece { message, offset, len, imm, payload } = piece;
        let (start, len) = (offset as usize, len as usize);
        let end = start.saturating_add(payload.len());
        if len > SRD_MAX_SEND as usize || payload.is_empty() || end > len {
            return INVALID;
        }
        let key = (origin, message.get());
        if !self.partial.contains_key(&key) && self.partial.len() >= MAX_PARTIAL {
            let is_heard = |heard: Instant| now.saturating_duration_since(heard) < SILENCE;
            self.partial.retain(|_, partial| is_heard(partial.heard));
            if self.partial.len() >= MAX_PARTIAL {
                return Outcome::NotReady;
            }
        }
        let partial = self.partial.entry(key).or_insert_with(|| Partial {
            bytes: vec![0; len],
            got: 0,
            imm,
            heard: now,
        });
        partial.heard = now;
        let got = partial.got + payload.len();
        if partial.bytes.len() != len || partial.imm != imm || got > len {
            return INVALID;
        }
        // Without a receive the last piece is not taken, and comes again.
        if got == len && common.receives.take(&common.config, host).is_none() {
            return Outcome::NotReady;
        }
        partial.bytes[start..end].copy_from_slice(payload);
        partial.got = got;
        if got < len {
            return Outcome::Done;
        }
        match self.partial.remove(&key) {
            Some(partial) => deliver(common, origin, &partial.bytes, imm, host),
            None => INVALID,
        }
    }
}

/// A piece of a message.
struct Piece<'a> {
    message: Psn,
    offset: u32,
    len: u32,
    imm: Option<u32>,
    payload: &'a [u8],
}

fn answer_of(common: &Common) -> Answer {
    Answer { src_qp: common.config.qp_num, pkey: common.attributes.pkey }
}

fn received(origin: Origin, kind: CompletionKind, len: u32, imm: Option<u32>) -> Received {
    Received {
        kind,
        len,
        imm,
        invalidated: None,
        src_qp: origin.peer.qp_num,
        source: Some(origin.peer.addr),
        grh: false,
        solicited: false,
    }
}

/// Puts a message into a receive, from its first byte on.
fn deliver(
    common: &mut Common,
    origin: Origin,
    bytes: &[u8],
    imm: Option<u32>,
    host: &mut impl Host,
) -> Outcome {
    let Some(receive) = common.receives.take(&common.config, host) else {
        return Outcome::NotReady;
    };
    if bytes.len() as u64 > receive.room {
        common.fail_receive(Status::LocalLength, host);
        return Outcome::Refused(NakCode::InvalidRequest);
    }
    if common.scatter_received(0, bytes, host).is_err() {
        common.fail_receive(Status::LocalProtection, host);
        return Outcome::Refused(NakCode::RemoteOperationalError);
    }
    // Not more than the longest send.
    let received = received(origin, CompletionKind::Recv, bytes.len() as u32, imm);
    common.complete_receive(received, host);
    Outcome::Done
}
