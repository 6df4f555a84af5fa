//! Reliable connections.

use std::collections::VecDeque;
use std::time::Instant;

use super::common::Common;
use super::work::{SendRequest, Status};
use super::{Host, Path, State, Transmit};
use crate::wire::Packet;

/// What an RC queue pair remembers.
#[derive(Debug, Default)]
pub(super) struct Rc {
    sends: VecDeque<SendRequest>,
}

impl Rc {
    pub(super) fn new() -> Rc {
        Rc::default()
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

    pub(super) fn handle_packet(
        &mut self,
        _common: &mut Common,
        _now: Instant,
        _arrived: &Path,
        _packet: Packet,
        _host: &mut impl Host,
    ) {
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        None
    }

    pub(super) fn handle_timeout(
        &mut self,
        _common: &mut Common,
        _now: Instant,
        _host: &mut impl Host,
    ) {
    }

    pub(super) fn hasten_acks(&mut self) {}

    pub(super) fn poll_transmit(
        &mut self,
        _common: &mut Common,
        _now: Instant,
        _host: &mut impl Host,
    ) -> Option<Transmit> {
        None
    }
}
