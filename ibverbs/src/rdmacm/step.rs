//! The steps of setting up a connection: what is asked for, and the event that it should end with.

use std::time::{Duration, Instant};

use super::event::{CmEvent, CmEventType};
use super::id::CmId;
use crate::error::{Error, Result};

/// A step, of which the identifier reports how it ended.
#[derive(Clone, Copy)]
pub(super) struct Step {
    /// What is tried, in words: "cannot ...".
    name: &'static str,
    /// The event with which it has succeeded.
    ends_with: CmEventType,
}

impl Step {
    pub(super) const ADDRESS: Step =
        Step { name: "resolve the address", ends_with: CmEventType::ADDR_RESOLVED };
    pub(super) const ROUTE: Step =
        Step { name: "resolve the route", ends_with: CmEventType::ROUTE_RESOLVED };
    pub(super) const CONNECT: Step =
        Step { name: "connect", ends_with: CmEventType::CONNECT_RESPONSE };
    pub(super) const ACCEPT: Step =
        Step { name: "accept the connection", ends_with: CmEventType::ESTABLISHED };
    pub(super) const FIND_PEER: Step =
        Step { name: "find the peer's queue pair", ends_with: CmEventType::ESTABLISHED };
    pub(super) const LISTEN: Step =
        Step { name: "listen any longer", ends_with: CmEventType::CONNECT_REQUEST };
    pub(super) const STAY: Step =
        Step { name: "stay connected", ends_with: CmEventType::DISCONNECTED };

    /// Whether the event is of no concern: a bond may have gone over to another port meanwhile.
    pub(super) fn goes_on(self, event: &CmEvent) -> bool {
        event.event_type() == CmEventType::ADDR_CHANGE
    }

    /// Whether the kernel's own timeout for this step, which is a little shorter, was first.
    fn has_timed_out(self, event: &CmEvent) -> bool {
        matches!(event.event_type(), CmEventType::ADDR_ERROR | CmEventType::ROUTE_ERROR)
            && event.status() == -libc::ETIMEDOUT
    }

    /// The event that the step should end with, or what it says instead.
    pub(super) fn check(self, id: &CmId, event: CmEvent) -> Result<CmEvent> {
        if event.event_type() == self.ends_with && event.status() == 0 {
            return Ok(event);
        }
        Err(self.failed(id, event))
    }

    /// That the step has ended with this event instead.
    pub(super) fn failed(self, id: &CmId, event: CmEvent) -> Error {
        event.into_error(self.name, id)
    }
}

impl CmId {
    /// Waits for the end of a step that may take until the deadline, which is `timeout` after its beginning.
    pub(super) fn finish(
        &mut self,
        step: Step,
        deadline: Option<Instant>,
        timeout: Duration,
    ) -> Result<CmEvent> {
        loop {
            match self.wait_until(deadline)? {
                Some(event) if step.goes_on(&event) => {}
                Some(event) if step.has_timed_out(&event) => break,
                Some(event) => return step.check(self, event),
                None => break,
            }
        }
        let peer = match self.peer_addr() {
            Some(address) => address.to_string(),
            None => "unknown".to_owned(),
        };
        Err(Error::TimedOut { step: step.name, peer: peer.into(), timeout })
    }
}
