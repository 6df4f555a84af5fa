//! The side of a reliable connection that makes requests: what it sends, and when it sends it again.
//!
//! Everything before `acked` is done, everything before `end` was sent at least once, and `next` is where sending goes on: it
//! goes back to `acked` when something was lost.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::numbers;
use super::times::ack_timeout;
use crate::transport::common::Common;
use crate::transport::outgoing;
use crate::transport::segment::{packets, part, MAX_MESSAGE};
use crate::transport::work::{Payload, SendOperation, SendRequest, Status};
use crate::transport::{Host, State};
use crate::wire::{AtomicEth, Operation, Packet, Reth};

/// How many packets, responses included, may be under way: a socket's buffer must hold them.
const WINDOW: u64 = 32;

/// An acknowledgement is asked for at least this often: several times in a window.
const ASK_EVERY: u64 = 8;

/// How many packets a read asks for at once. A longer one is several, so that its responses have a window, too. Where they
/// begin does not depend on what was lost: to the peer, a repeated request is a part of one that it knows.
pub(super) const READ_PACKETS: u64 = 16;

/// A send, and the numbers of its packets.
#[derive(Debug)]
pub(super) struct Send {
    pub(super) request: SendRequest,
    pub(super) len: u64,
    pub(super) first: u64,
    /// None, of one that is done here.
    pub(super) packets: u64,
    /// Whether it is one that is done here, and was.
    carried_out: bool,
}

impl Send {
    /// One after the last packet.
    pub(super) fn end(&self) -> u64 {
        self.first + self.packets
    }

    /// Whether the peer answers it, and does not just acknowledge it.
    pub(super) fn has_response(&self) -> bool {
        matches!(
            self.request.operation,
            SendOperation::Read { .. }
                | SendOperation::CompareSwap { .. }
                | SendOperation::FetchAdd { .. }
        )
    }

    /// Up to which packet a read request goes that begins with the packet of this index.
    pub(super) fn read_end(&self, index: u64) -> u64 {
        (index / READ_PACKETS * READ_PACKETS + READ_PACKETS).min(self.packets)
    }
}

#[derive(Debug, Default)]
pub(super) struct Requester {
    pub(super) sends: VecDeque<Send>,
    /// What the next request that is posted begins with.
    tail: u64,
    /// The oldest packet that is not done.
    pub(super) acked: u64,
    /// What is sent next.
    next: u64,
    /// The place in the queue of the request that `next` belongs to.
    current: usize,
    /// One after the last packet that was ever sent.
    pub(super) end: u64,
    /// One after the last packet that asks for an answer.
    asked: u64,
    /// One after the last packet of each read or atomic request that is under way.
    reads: VecDeque<u64>,
    /// The request that cannot be carried out here, by its first packet. It fails when all before it are done.
    broken: Option<(u64, Status)>,
    /// When an acknowledgement is missed.
    timer: Option<Instant>,
    /// Until when nothing is sent, for the peer has no receive.
    pub(super) wait: Option<Instant>,
    retries: u8,
    rnr_retries: u8,
    /// Whether a missing response has been asked for again since the last progress.
    asked_again: bool,
}

impl Requester {
    /// Begins with a sequence number.
    pub(super) fn start(&mut self, common: &Common) {
        let first = numbers::first(common.attributes.sq_psn);
        *self = Requester {
            tail: first,
            acked: first,
            next: first,
            end: first,
            asked: first,
            ..Requester::default()
        };
        self.refill(common);
    }

    /// Allows all retries again.
    pub(super) fn refill(&mut self, common: &Common) {
        self.retries = common.attributes.retry_count;
        self.rnr_retries = common.attributes.rnr_retry;
        self.asked_again = false;
    }

    pub(super) fn post(&mut self, common: &Common, request: SendRequest) {
        let len = request.payload.len();
        let first = self.tail;
        let mut send = Send { request, len, first, packets: 1, carried_out: false };
        let atomic =
            send.has_response() && !matches!(send.request.operation, SendOperation::Read { .. });
        if send.request.operation.is_local() {
            send.packets = 0;
        } else if !atomic && len <= MAX_MESSAGE {
            send.packets = packets(len, common.mtu());
        }
        self.tail = send.end();
        self.sends.push_back(send);
    }

    /// Flushes all that is left.
    pub(super) fn flush(&mut self, common: &Common, host: &mut impl Host) {
        for send in std::mem::take(self).sends {
            common.complete_send(&send.request, 0, Status::WorkRequestFlushed, host);
        }
    }

    /// Whether nothing was begun that is not finished.
    pub(super) fn is_idle(&self) -> bool {
        self.sends.front().is_none_or(|send| send.first >= self.end)
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        match (self.timer, self.wait) {
            (Some(timer), Some(wait)) => Some(timer.min(wait)),
            (timer, wait) => timer.or(wait),
        }
    }

    /// Repeats what was not acknowledged in time.
    ///
    /// # Errors
    ///
    /// If that was done as often as it may be.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Result<(), Status> {
        if self.timer.is_some_and(|timer| timer <= now) {
            self.asked_again = false;
            self.retry()?;
        }
        Ok(())
    }

    /// Goes back to the oldest packet that is not done.
    ///
    /// # Errors
    ///
    /// If that was done as often as it may be without any progress.
    pub(super) fn retry(&mut self) -> Result<(), Status> {
        self.retries = self.retries.checked_sub(1).ok_or(Status::RetryExceeded)?;
        self.go_back();
        Ok(())
    }

    /// Like [`retry`](Self::retry), for a response that is missing: but once until there is progress, for what follows it tells
    /// the same again and again.
    pub(super) fn retry_response(&mut self) -> Result<(), Status> {
        if std::mem::replace(&mut self.asked_again, true) {
            return Ok(());
        }
        self.retry()
    }

    /// Waits until the peer may have a receive, and then goes back.
    ///
    /// # Errors
    ///
    /// If that was done as often as it may be.
    pub(super) fn wait_for_receive(
        &mut self,
        common: &Common,
        now: Instant,
        delay: Duration,
    ) -> Result<(), Status> {
        const FOR_EVER: u8 = 7;
        if common.attributes.rnr_retry != FOR_EVER {
            self.rnr_retries = self.rnr_retries.checked_sub(1).ok_or(Status::RnrRetryExceeded)?;
        }
        // The peer has answered. However long it lets us wait, packets that get lost meanwhile do not add up.
        self.retries = common.attributes.retry_count;
        self.go_back();
        self.wait = Some(now + delay);
        Ok(())
    }

    fn go_back(&mut self) {
        self.next = self.acked;
        self.current = 0;
        self.asked = self.acked;
        self.reads.clear();
        self.timer = None;
    }

    /// Whether anything that is not done was sent since it went back.
    pub(super) fn has_sent(&self) -> bool {
        self.next > self.acked
    }

    /// Marks everything before `to` as done, which is in the first request or at its end; takes that out at its end.
    pub(super) fn advance(&mut self, to: u64) -> Option<Send> {
        self.acked = to;
        let done = self.sends.front().is_some_and(|send| to >= send.end());
        let done = if done { self.sends.pop_front() } else { None };
        if done.is_some() {
            self.current = self.current.saturating_sub(1);
        }
        if self.next < to {
            self.next = to;
            self.current = 0;
        }
        done
    }

    /// Takes note of progress.
    ///
    /// # Errors
    ///
    /// If the next request is one that cannot be carried out.
    pub(super) fn progressed(&mut self, common: &Common, now: Instant) -> Result<(), Status> {
        self.refill(common);
        while self.reads.front().is_some_and(|&end| end <= self.acked) {
            self.reads.pop_front();
        }
        let timeout = ack_timeout(common.attributes.timeout).filter(|_| self.has_sent());
        self.timer = timeout.map(|timeout| now + timeout);
        match (self.broken, self.sends.front()) {
            (Some((first, status)), Some(send)) if send.first == first => Err(status),
            _ => Ok(()),
        }
    }

    /// The next packet, if there is one now.
    ///
    /// # Errors
    ///
    /// If the oldest request cannot be carried out.
    pub(super) fn poll_transmit(
        &mut self,
        common: &Common,
        now: Instant,
        host: &mut impl Host,
    ) -> Result<Option<Packet>, Status> {
        if !matches!(common.state, State::ReadyToSend | State::SendQueueDrain) {
            return Ok(None);
        }
        if self.wait.is_some_and(|wait| now < wait) {
            return Ok(None);
        }
        self.wait = None;
        self.carry_out(common, host)?;
        if self.stops_at(common, self.current) && !self.ask_again() {
            return Ok(None);
        }
        let Some(send) = self.sends.get(self.current) else { return Ok(None) };
        if send.packets == 0 || !self.may_send(common, send) {
            return Ok(None);
        }
        match self.packet(common, send, host) {
            Ok((packet, count)) => Ok(Some(self.note_sent(common, now, packet, count))),
            Err(status) if self.current == 0 => Err(status),
            Err(status) => {
                self.next = send.first;
                self.broken = Some((send.first, status));
                // What is before it may not have asked for an acknowledgement.
                self.poll_transmit(common, now, host)
            }
        }
    }

    /// Carries out what comes next and is done here.
    ///
    /// # Errors
    ///
    /// If the oldest request cannot be carried out.
    fn carry_out(&mut self, common: &Common, host: &mut impl Host) -> Result<(), Status> {
        while !self.stops_at(common, self.current) {
            let Some(send) = self.sends.get_mut(self.current) else { break };
            if !send.request.operation.is_local() {
                break;
            }
            if !send.carried_out {
                if send.request.fenced && !self.reads.is_empty() {
                    break;
                }
                if let Err(status) = common.carry_out(&send.request, host) {
                    if self.current == 0 {
                        return Err(status);
                    }
                    self.broken = Some((send.first, status));
                    break;
                }
                send.carried_out = true;
            }
            self.current += 1;
            self.complete_local(common, host);
        }
        Ok(())
    }

    /// Completes what is done here and was, if all before it is done.
    pub(super) fn complete_local(&mut self, common: &Common, host: &mut impl Host) {
        while self.sends.front().is_some_and(|send| send.carried_out) {
            let Some(send) = self.sends.pop_front() else { break };
            self.current = self.current.saturating_sub(1);
            common.complete_send(&send.request, 0, Status::Success, host);
        }
    }

    /// Whether the request at this place of the queue is done here.
    fn is_local(&self, place: usize) -> bool {
        self.sends.get(place).is_some_and(|send| send.request.operation.is_local())
    }

    /// Whether sending does not go on with the request at this place of the queue.
    fn stops_at(&self, common: &Common, place: usize) -> bool {
        self.sends.get(place).is_none_or(|send| {
            self.broken.is_some_and(|(first, _)| first == send.first)
                || (send.first >= self.end && !common.starts_sends())
        })
    }

    /// Where sending stops, goes back by one packet if the last one did not ask for an acknowledgement.
    fn ask_again(&mut self) -> bool {
        let Some(send) = self.sends.get(self.current) else { return false };
        let silent = self.asked < send.first && self.acked < send.first && self.current > 0;
        if silent {
            self.next = send.first - 1;
            self.current -= 1;
        }
        silent
    }

    /// Whether the next packet, which is of this request, can be sent now.
    fn may_send(&self, common: &Common, send: &Send) -> bool {
        let index = self.next - send.first;
        let under_way = self.next - self.acked;
        if index == 0 && send.request.fenced && !self.reads.is_empty() {
            return false;
        }
        if send.has_response() {
            let limit = usize::from(common.attributes.max_rd_atomic.max(1));
            let count = send.read_end(index) - index;
            self.reads.len() < limit && under_way + count <= WINDOW
        } else {
            under_way < WINDOW
        }
    }

    /// Makes the next packet, which is of this request; with how many numbers it takes.
    ///
    /// # Errors
    ///
    /// If the request cannot be carried out.
    fn packet(
        &self,
        common: &Common,
        send: &Send,
        host: &impl Host,
    ) -> Result<(Packet, u64), Status> {
        let index = self.next - send.first;
        if index == 0 {
            check(common, send, host)?;
        }
        let psn = numbers::psn(self.next);
        let (operation, count) = match send.request.operation {
            SendOperation::Read { addr, rkey } => {
                let end = send.read_end(index);
                let offset = part(index, send.len, common.mtu()).0;
                let rest = part(end, send.len, common.mtu()).0.min(send.len) - offset;
                let addr = addr.wrapping_add(offset);
                // No longer than a message.
                (Operation::ReadRequest(Reth { addr, rkey, len: rest as u32 }), end - index)
            }
            SendOperation::CompareSwap { addr, rkey, compare, swap } => {
                (Operation::CompareSwap(AtomicEth { addr, rkey, swap_or_add: swap, compare }), 1)
            }
            SendOperation::FetchAdd { addr, rkey, add } => {
                (Operation::FetchAdd(AtomicEth { addr, rkey, swap_or_add: add, compare: 0 }), 1)
            }
            _ => {
                let place = (send.len, send.packets, index);
                let packet = outgoing::packet(common, &send.request, place, psn, host)
                    .map_err(|_| Status::LocalProtection)?
                    .ok_or(Status::LocalQpOperation)?;
                return Ok((packet, 1));
            }
        };
        let bth = common.bth(psn);
        Ok((Packet { bth, deth: None, operation, payload: Vec::new() }, count))
    }

    /// Counts a packet that is sent now, and decides whether it asks for an acknowledgement.
    fn note_sent(
        &mut self,
        common: &Common,
        now: Instant,
        mut packet: Packet,
        count: u64,
    ) -> Packet {
        let send = &self.sends[self.current];
        let has_response = send.has_response();
        let next = self.next + count;
        let is_last = next == send.end();
        let wanted = send.request.signaled || common.config.signal_all;
        self.next = next;
        if is_last {
            self.current += 1;
        }
        // What is done here asks for nothing, and completes after this.
        let before_local = self.is_local(self.current);
        packet.bth.ack_request = !has_response
            && ((is_last && (wanted || self.stops_at(common, self.current) || before_local))
                || next - self.asked >= ASK_EVERY);
        if has_response {
            self.reads.push_back(next);
        }
        if has_response || packet.bth.ack_request {
            self.asked = next;
        }
        self.end = self.end.max(next);
        if self.timer.is_none() {
            self.timer = ack_timeout(common.attributes.timeout).map(|time| now + time);
        }
        packet
    }
}

/// Checks what can be known before a request is begun.
fn check(common: &Common, send: &Send, host: &impl Host) -> Result<(), Status> {
    let is_atomic = matches!(
        send.request.operation,
        SendOperation::CompareSwap { .. } | SendOperation::FetchAdd { .. }
    );
    if send.len > MAX_MESSAGE || (is_atomic && send.len != 8) {
        return Err(Status::LocalLength);
    }
    if send.has_response() {
        let Payload::Sges(sges) = &send.request.payload else {
            return Err(Status::LocalQpOperation);
        };
        if common.attributes.max_rd_atomic == 0 {
            return Err(Status::LocalQpOperation);
        }
        for sge in sges.iter().filter(|sge| sge.len > 0) {
            host.check_local(common.config.pd, sge, true).map_err(|_| Status::LocalProtection)?;
        }
    }
    Ok(())
}
