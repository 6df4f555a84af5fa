//! The receive side of a queue pair's queues.

use std::collections::VecDeque;

use super::{Config, Host, RecvRequest};

/// A receive into which a message is going, or will go next.
#[derive(Debug)]
pub(super) struct Current {
    /// The request.
    pub(super) request: RecvRequest,
    /// How many bytes fit.
    pub(super) room: u64,
}

/// The receives that were posted, and the one that is in use. Those of a shared queue are with the host until they are taken.
#[derive(Debug, Default)]
pub(super) struct ReceiveQueue {
    waiting: VecDeque<RecvRequest>,
    current: Option<Current>,
}

impl ReceiveQueue {
    /// How many are outstanding.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + usize::from(self.current.is_some())
    }

    /// Adds one.
    pub(super) fn push(&mut self, request: RecvRequest) {
        self.waiting.push_back(request);
    }

    /// Takes the next receive into use, if none is: the one that is in use now, or nothing if there is none.
    pub(super) fn take(&mut self, config: &Config, host: &mut impl Host) -> Option<&Current> {
        if self.current.is_none() {
            let request = match config.srq {
                Some(srq) => host.take_shared_receive(srq),
                None => self.waiting.pop_front(),
            }?;
            let room = request.sges.iter().map(|sge| u64::from(sge.len)).sum();
            self.current = Some(Current { request, room });
        }
        self.current.as_ref()
    }

    /// The receive that is in use.
    pub(super) fn current(&self) -> Option<&Current> {
        self.current.as_ref()
    }

    /// Takes the receive that is in use out, to complete it.
    pub(super) fn finish(&mut self) -> Option<RecvRequest> {
        self.current.take().map(|current| current.request)
    }

    /// Takes out the oldest, in use or not.
    pub(super) fn pop(&mut self) -> Option<RecvRequest> {
        self.finish().or_else(|| self.waiting.pop_front())
    }
}
