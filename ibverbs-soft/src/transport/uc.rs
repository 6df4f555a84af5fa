//! Unreliable connections.

use std::collections::VecDeque;
use std::time::Instant;

use super::common::Common;
use super::work::{SendRequest, Status};
use super::{Host, Path, State, Transmit};
use crate::wire::Packet;

/// What a UC queue pair remembers.
#[derive(Debug, Default)]
pub(super) struct Uc {
    sends: VecDeque<SendRequest>,
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
        _common: &mut Common,
        _now: Instant,
        _from: State,
        _host: &mut impl Host,
    ) {
    }

    /// Flushes the sends, and goes to `Error`.
    pub(super) fn fail(&mut self, common: &mut Common, host: &mut impl Host) {
        for request in self.sends.drain(..) {
            common.complete_send(&request, 0, Status::WorkRequestFlushed, host);
        }
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
        self.sends.push_back(request);
    }

    /// Takes a packet of this service and partition, in a state in which packets are taken.
    pub(super) fn handle_packet(
        &mut self,
        _common: &mut Common,
        _now: Instant,
        _arrived: &Path,
        _packet: Packet,
        _host: &mut impl Host,
    ) {
    }

    /// The next packet, in any state.
    pub(super) fn poll_transmit(
        &mut self,
        _common: &mut Common,
        _now: Instant,
        _host: &mut impl Host,
    ) -> Option<Transmit> {
        None
    }
}
