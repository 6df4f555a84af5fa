//! The send queue of services that wait for no answers.

use std::collections::VecDeque;

use super::common::Common;
use super::work::{SendRequest, Status};
use super::{Host, State};

/// The sends that were posted and are not sent.
#[derive(Debug, Default)]
pub(super) struct SendQueue {
    requests: VecDeque<SendRequest>,
}

impl SendQueue {
    /// How many are outstanding.
    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    /// Adds one.
    pub(super) fn push(&mut self, request: SendRequest) {
        self.requests.push_back(request);
    }

    /// The oldest.
    pub(super) fn front(&self) -> Option<&SendRequest> {
        self.requests.front()
    }

    /// Ends the oldest: all of it was sent.
    pub(super) fn finish(&mut self, common: &Common, host: &mut impl Host) {
        if let Some(request) = self.requests.pop_front() {
            common.complete_send(&request, request.payload.len(), Status::Success, host);
        }
    }

    /// Ends the oldest with an error, and flushes the others. Nothing is sent until the queue pair is told so again.
    pub(super) fn fail(&mut self, status: Status, common: &mut Common, host: &mut impl Host) {
        if let Some(request) = self.requests.pop_front() {
            common.complete_send(&request, 0, status, host);
        }
        self.flush(common, host);
        common.state = State::SendQueueError;
        common.draining = false;
    }

    /// Flushes all.
    pub(super) fn flush(&mut self, common: &Common, host: &mut impl Host) {
        for request in self.requests.drain(..) {
            common.complete_send(&request, 0, Status::WorkRequestFlushed, host);
        }
    }
}
