//! The side of a reliable connection that carries out the peer's requests.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::answers::{Answer, Answers, Content, ACK};
use super::numbers;
use crate::transport::common::Common;
use crate::transport::incoming::{Fault, Incoming};
use crate::transport::segment::{packets, MAX_MESSAGE};
use crate::transport::work::Status;
use crate::transport::{Host, QpEvent, RemoteAccess};
use crate::wire::{Aeth, AtomicEth, NakCode, Operation, Packet, Reth, Syndrome};

/// How long an acknowledgement waits for more to acknowledge.
const ACK_DELAY: Duration = Duration::from_micros(500);

/// How many packets wait for an acknowledgement at most.
const ACK_EVERY: u64 = 8;

const READ: RemoteAccess = RemoteAccess { write: false, read: true, atomic: false };

/// A request was refused for good, and the queue pair has failed.
#[derive(Debug)]
pub(super) struct Failed;

#[derive(Debug, Default)]
pub(super) struct Responder {
    /// The first packet of the connection.
    start: u64,
    /// The packet that comes next.
    expected: u64,
    /// How many messages were completed.
    msn: u32,
    incoming: Incoming,
    answers: Answers,
    /// What the last atomic operations found, by their packets.
    atomics: VecDeque<(u64, u64)>,
    /// Why the expected packet is refused, after all answers.
    refusal: Option<Syndrome>,
    /// Whether the peer knows or will be told that the expected packet must come again, so that what follows it says nothing.
    told: bool,
    /// When an acknowledgement is to be sent.
    ack: Option<Instant>,
    /// Whether it does not wait for that.
    hastened: bool,
    /// One after the last packet that was acknowledged.
    acked: u64,
}

impl Responder {
    /// Begins with a sequence number.
    pub(super) fn start(&mut self, common: &Common) {
        let first = numbers::first(common.attributes.rq_psn);
        *self = Responder { start: first, expected: first, acked: first, ..Responder::default() };
    }

    /// The queue pair has failed, and not by a request of the peer. What is done is still acknowledged.
    pub(super) fn close(&mut self) {
        if !self.answers.is_empty() {
            self.ack = None;
        }
        self.answers.clear();
        self.refusal = None;
        self.hastened = true;
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.ack
    }

    pub(super) fn hasten_acks(&mut self) {
        self.hastened = true;
    }

    /// Takes a request of the peer.
    ///
    /// # Errors
    ///
    /// If the queue pair fails by it.
    pub(super) fn handle_request(
        &mut self,
        common: &mut Common,
        now: Instant,
        packet: &Packet,
        host: &mut impl Host,
    ) -> Result<(), Failed> {
        match numbers::distance(packet.bth.psn, self.expected) {
            0 => {
                self.refusal = None;
                self.told = false;
                self.carry_out(common, now, packet, host)
            }
            1.. => {
                if !self.told {
                    self.told = true;
                    self.refusal = Some(Syndrome::Nak(NakCode::SequenceError));
                }
                Ok(())
            }
            behind => {
                let number = self.expected - u64::from(behind.unsigned_abs());
                if number >= self.start {
                    self.repeat(common, now, number, packet, host);
                }
                Ok(())
            }
        }
    }

    /// Carries out the request that is expected.
    fn carry_out(
        &mut self,
        common: &mut Common,
        now: Instant,
        packet: &Packet,
        host: &mut impl Host,
    ) -> Result<(), Failed> {
        let done = match packet.operation {
            Operation::ReadRequest(reth) => self.read(common, reth, host),
            Operation::CompareSwap(eth) | Operation::FetchAdd(eth) => {
                self.atomic(common, &packet.operation, eth, host)
            }
            _ => self.incoming.accept(common, packet, host).map(|ends| {
                self.expected += 1;
                if ends {
                    self.count_message();
                }
            }),
        };
        match done {
            Ok(()) => {
                if packet.bth.ack_request && self.ack.is_none() {
                    self.ack = Some(now + ACK_DELAY);
                    self.hastened = false;
                }
                Ok(())
            }
            Err(fault) => self.refuse(common, fault, host),
        }
    }

    fn count_message(&mut self) {
        self.msn = (self.msn + 1) & 0xff_ffff;
    }

    /// Whether a read or atomic may begin now.
    fn check_answerable(&self, common: &Common, allowed: bool) -> Result<(), Fault> {
        let limit = usize::from(common.attributes.max_dest_rd_atomic);
        if self.incoming.is_open() || !allowed || self.answers.new_requests() >= limit {
            return Err(Fault::Invalid);
        }
        Ok(())
    }

    fn read(&mut self, common: &Common, reth: Reth, host: &impl Host) -> Result<(), Fault> {
        self.check_answerable(common, common.attributes.access.read)?;
        if u64::from(reth.len) > MAX_MESSAGE {
            return Err(Fault::Invalid);
        }
        check_read(common, reth, host)?;
        self.answer(packets(u64::from(reth.len), common.mtu()), Content::Read(reth));
        Ok(())
    }

    fn atomic(
        &mut self,
        common: &Common,
        operation: &Operation,
        eth: AtomicEth,
        host: &impl Host,
    ) -> Result<(), Fault> {
        self.check_answerable(common, common.attributes.access.atomic)?;
        let AtomicEth { addr, rkey, swap_or_add, compare } = eth;
        if addr % 8 != 0 {
            return Err(Fault::Invalid);
        }
        let through = common.config.through();
        let found = match operation {
            Operation::CompareSwap(_) => {
                host.compare_swap(through, rkey, addr, compare, swap_or_add)
            }
            _ => host.fetch_add(through, rkey, addr, swap_or_add),
        };
        let original = found.map_err(|_| Fault::RemoteAccess)?;
        while self.atomics.len() >= usize::from(common.attributes.max_dest_rd_atomic) {
            self.atomics.pop_front();
        }
        self.atomics.push_back((self.expected, original));
        self.answer(1, Content::Atomic(original));
        Ok(())
    }

    /// Has the request that is expected answered.
    fn answer(&mut self, packets: u64, content: Content) {
        self.count_message();
        let (first, msn) = (self.expected, self.msn);
        self.answers.push(Answer { first, packets, sent: 0, msn, is_new: true, content });
        self.expected += packets;
    }

    /// Refuses the request that is expected.
    fn refuse(
        &mut self,
        common: &mut Common,
        fault: Fault,
        host: &mut impl Host,
    ) -> Result<(), Failed> {
        self.told = true;
        let (code, event) = match fault {
            Fault::NotReady => {
                self.refusal = Some(Syndrome::RnrNak(common.attributes.min_rnr_timer));
                return Ok(());
            }
            Fault::Invalid => (NakCode::InvalidRequest, Some(QpEvent::RequestError)),
            Fault::RemoteAccess => (NakCode::RemoteAccessError, Some(QpEvent::AccessError)),
            Fault::TooLong => {
                common.fail_receive(Status::LocalLength, host);
                (NakCode::InvalidRequest, None)
            }
            Fault::LocalProtection => {
                common.fail_receive(Status::LocalProtection, host);
                (NakCode::RemoteOperationalError, None)
            }
            Fault::Invalidation => {
                common.fail_receive(Status::RemoteInvalidRequest, host);
                (NakCode::InvalidRequest, None)
            }
        };
        self.refusal = Some(Syndrome::Nak(code));
        self.ack = None;
        if let Some(event) = event {
            host.raise(common.config.qp_num, event);
        }
        Err(Failed)
    }

    /// Answers a request that was carried out before. What cannot be one is not answered.
    fn repeat(
        &mut self,
        common: &Common,
        now: Instant,
        first: u64,
        packet: &Packet,
        host: &impl Host,
    ) {
        let (packets, content) = match packet.operation {
            Operation::ReadRequest(reth) => {
                let packets = packets(u64::from(reth.len), common.mtu());
                let allowed = common.attributes.access.read && first + packets <= self.expected;
                if !allowed || check_read(common, reth, host).is_err() {
                    return;
                }
                (packets, Content::Read(reth))
            }
            Operation::CompareSwap(_) | Operation::FetchAdd(_) => {
                match self.atomics.iter().find(|&&(number, _)| number == first) {
                    Some(&(_, original)) => (1, Content::Atomic(original)),
                    None => return,
                }
            }
            _ => {
                self.ack = Some(now);
                return;
            }
        };
        let msn = self.msn;
        self.answers.repeat(Answer { first, packets, sent: 0, msn, is_new: false, content });
    }

    /// Whether answers or a refusal are to be sent, which do not wait.
    pub(super) fn is_urgent(&self) -> bool {
        !self.answers.is_empty() || self.refusal.is_some()
    }

    /// The next answer, or the refusal after the last one.
    ///
    /// # Errors
    ///
    /// If the queue pair fails because memory cannot be read any more.
    pub(super) fn poll_answer(
        &mut self,
        common: &mut Common,
        host: &mut impl Host,
    ) -> Result<Option<Packet>, Failed> {
        while let Some(number) = self.answers.next() {
            if let Ok(packet) = self.answers.packet(common, host) {
                self.note_acked(number + 1);
                return Ok(packet);
            }
            if !self.answers.drop_repeated() {
                self.answers.clear();
                // The peer is told at the packet that it waits for, not at the one after the last that it sent.
                self.expected = number;
                self.refuse(common, Fault::RemoteAccess, host)?;
            }
        }
        let Some(syndrome) = self.refusal.take() else { return Ok(None) };
        self.note_acked(self.expected);
        Ok(Some(self.acknowledge(common, self.expected, syndrome)))
    }

    /// The acknowledgement, if it is due.
    pub(super) fn poll_ack(&mut self, common: &Common, now: Instant) -> Option<Packet> {
        let due = self.ack?;
        let many = self.expected - self.acked >= ACK_EVERY;
        if now < due && !self.hastened && !many {
            return None;
        }
        self.note_acked(self.expected);
        Some(self.acknowledge(common, self.expected - 1, ACK))
    }

    /// Everything before this packet is acknowledged with what is sent now.
    fn note_acked(&mut self, to: u64) {
        self.acked = self.acked.max(to);
        if to == self.expected {
            self.ack = None;
        }
    }

    fn acknowledge(&self, common: &Common, number: u64, syndrome: Syndrome) -> Packet {
        let operation = Operation::Acknowledge(Aeth { syndrome, msn: self.msn });
        Packet { bth: common.bth(numbers::psn(number)), deth: None, operation, payload: Vec::new() }
    }
}

/// Checks what a read asks for.
fn check_read(common: &Common, reth: Reth, host: &impl Host) -> Result<(), Fault> {
    if reth.len == 0 {
        return Ok(());
    }
    host.check_remote(common.config.through(), reth.rkey, reth.addr, reth.len, READ)
        .map_err(|_| Fault::RemoteAccess)
}
