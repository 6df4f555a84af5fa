//! A queue pair of any service.

use std::time::Instant;

use super::{Attributes, Config, Host, Path, RecvRequest, SendRequest, State};
use crate::wire::Packet;

/// A packet that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// From where to where.
    pub path: Path,
    /// What.
    pub packet: Packet,
}

/// A queue pair: its state, its queues, and what its service remembers of the peer.
#[derive(Debug)]
pub struct QueuePair {
    config: Config,
}

impl QueuePair {
    /// A queue pair in `Reset`.
    pub fn new(config: Config) -> QueuePair {
        QueuePair { config }
    }

    /// What it was created with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The state that it is in: also one into which it went by itself.
    pub fn state(&self) -> State {
        todo!()
    }

    /// Whether it is in `SendQueueDrain`, and something that was begun is not finished.
    pub fn is_draining(&self) -> bool {
        todo!()
    }

    /// The attributes in force.
    pub fn attributes(&self) -> &Attributes {
        todo!()
    }

    /// Moves to a state, with these attributes. The caller has checked that the transition exists and takes what changed.
    pub fn modify(
        &mut self,
        now: Instant,
        state: State,
        attributes: Attributes,
        host: &mut impl Host,
    ) {
        let _ = (now, state, attributes, host);
        todo!()
    }

    /// How many sends can be posted.
    pub fn send_room(&self) -> usize {
        todo!()
    }

    /// How many receives can be posted.
    pub fn recv_room(&self) -> usize {
        todo!()
    }

    /// Posts a send, for which there is room, in a state in which that is allowed (RTS, SQD, SQE and ERR; in the last two it is
    /// flushed).
    pub fn post_send(&mut self, now: Instant, request: SendRequest, host: &mut impl Host) {
        let _ = (now, request, host);
        todo!()
    }

    /// Posts a receive, for which there is room, in any state but `Reset` (in `Error` it is flushed).
    pub fn post_recv(&mut self, request: RecvRequest, host: &mut impl Host) {
        let _ = (request, host);
        todo!()
    }

    /// Takes a packet that has arrived for this queue pair, its CRC checked. `arrived` is how it came: `source` is the peer.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        arrived: &Path,
        packet: Packet,
        host: &mut impl Host,
    ) {
        let _ = (now, arrived, packet, host);
        todo!()
    }

    /// When `handle_timeout` is to be called, or `poll_transmit` has something more to say.
    pub fn next_timeout(&self) -> Option<Instant> {
        todo!()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant, host: &mut impl Host) {
        let _ = (now, host);
        todo!()
    }

    /// Lets acknowledgements that wait for more go with the next `poll_transmit`.
    pub fn hasten_acks(&mut self) {
        todo!()
    }

    /// The next packet to send, if there is one now. Requests come before acknowledgements.
    pub fn poll_transmit(&mut self, now: Instant, host: &mut impl Host) -> Option<Transmit> {
        let _ = (now, host);
        todo!()
    }
}
