//! Answers to reads and atomic operations that are still to be sent, in the order of their packets.

use std::collections::VecDeque;

use super::numbers;
use crate::transport::common::Common;
use crate::transport::segment::{part, position};
use crate::transport::{Host, MemoryError};
use crate::wire::{Aeth, Operation, Packet, Position, Reth, Syndrome};

/// Credits are not counted.
pub(super) const ACK: Syndrome = Syndrome::Ack(31);

/// How many repeated requests can wait beside the new ones.
const REPEATED: usize = 32;

/// The answer to a request whose first packet has the number `first`.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) first: u64,
    pub(super) packets: u64,
    /// How many packets were sent.
    pub(super) sent: u64,
    pub(super) msn: u32,
    /// Whether the request came for the first time.
    pub(super) is_new: bool,
    pub(super) content: Content,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Content {
    /// Memory, read as packets are made.
    Read(Reth),
    /// What an atomic operation has found.
    Atomic(u64),
}

impl Answer {
    fn end(&self) -> u64 {
        self.first + self.packets
    }
}

#[derive(Debug, Default)]
pub(super) struct Answers {
    queue: VecDeque<Answer>,
    /// How many of them are new.
    new: usize,
}

impl Answers {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// How many new requests wait for their answer.
    pub(super) fn new_requests(&self) -> usize {
        self.new
    }

    pub(super) fn clear(&mut self) {
        *self = Answers::default();
    }

    /// Adds the answer to a new request.
    pub(super) fn push(&mut self, answer: Answer) {
        self.new += usize::from(answer.is_new);
        self.queue.push_back(answer);
    }

    /// Adds the answer to a repeated request where it belongs. If the answer is being sent now, it begins again where the
    /// repetition begins. A request that overlaps others otherwise is none that was made before, and is not answered.
    pub(super) fn repeat(&mut self, mut answer: Answer) {
        let is_full = self.queue.len() >= self.new + REPEATED;
        let place = self.queue.partition_point(|other| other.end() <= answer.first);
        match self.queue.get_mut(place) {
            Some(other) if other.first <= answer.first => {
                if other.end() == answer.end() {
                    answer.is_new = other.is_new;
                    *other = answer;
                }
            }
            Some(other) if other.first < answer.end() => {}
            _ if is_full => {}
            _ => self.queue.insert(place, answer),
        }
    }

    /// The number of the packet that is next.
    pub(super) fn next(&self) -> Option<u64> {
        self.queue.front().map(|answer| answer.first + answer.sent)
    }

    /// Drops the next answer if its request was a repeated one. Returns whether it was.
    pub(super) fn drop_repeated(&mut self) -> bool {
        let repeated = self.queue.front().is_some_and(|answer| !answer.is_new);
        if repeated {
            self.queue.pop_front();
        }
        repeated
    }

    /// Makes the next packet.
    ///
    /// # Errors
    ///
    /// If its memory cannot be read.
    pub(super) fn packet(
        &mut self,
        common: &Common,
        host: &impl Host,
    ) -> Result<Option<Packet>, MemoryError> {
        let Some(answer) = self.queue.front_mut() else { return Ok(None) };
        let aeth = Aeth { syndrome: ACK, msn: answer.msn };
        let bth = common.bth(numbers::psn(answer.first + answer.sent));
        let (operation, payload) = match answer.content {
            Content::Read(reth) => {
                let (offset, len) = part(answer.sent, u64::from(reth.len), common.mtu());
                let mut payload = vec![0; len];
                if len > 0 {
                    let addr = reth.addr.wrapping_add(offset);
                    host.read_remote(common.config.through(), reth.rkey, addr, &mut payload)?;
                }
                let position = position(answer.sent, answer.packets);
                let aeth = (position != Position::Middle).then_some(aeth);
                (Operation::ReadResponse { position, aeth }, payload)
            }
            Content::Atomic(original) => {
                (Operation::AtomicAcknowledge { aeth, original }, Vec::new())
            }
        };
        answer.sent += 1;
        if answer.sent == answer.packets {
            self.new -= usize::from(answer.is_new);
            self.queue.pop_front();
        }
        Ok(Some(Packet { bth, deth: None, operation, payload }))
    }
}
