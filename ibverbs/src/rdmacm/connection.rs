//! A connection that stands.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use super::event::{CmEvent, CmEventType};
use super::id::CmId;
use super::step::Step;
use crate::error::Result;
use crate::qp::{QpState, QueuePair, QueuePairAttr, Rc};
use crate::readiness::deadline;

/// A connected queue pair: from [`Resolved::connect`](super::Resolved::connect) or
/// [`Incoming::accept`](super::Incoming::accept).
///
/// Dropping it disconnects: the peer is told at once, and what the queue pair has still to do is not waited for. The
/// message may be lost; [`disconnect`](Self::disconnect) repeats it.
#[must_use = "dropping it disconnects"]
pub struct Connection {
    // Dropped first: the peer learns of it from the connection manager, not from requests that fail.
    pub(super) id: CmId,
    /// The queue pair, ready to send.
    pub queue_pair: QueuePair<Rc>,
    peer_private_data: Vec<u8>,
    pub(super) is_over: bool,
}

impl Connection {
    pub(super) fn new(
        id: CmId,
        queue_pair: QueuePair<Rc>,
        peer_private_data: Vec<u8>,
    ) -> Connection {
        Connection { id, queue_pair, peer_private_data, is_over: false }
    }

    /// What the peer sent along when it connected or accepted, filled up with zeros: see
    /// [`CmEvent::private_data`]. It comes from the network: check it.
    pub fn peer_private_data(&self) -> &[u8] {
        &self.peer_private_data
    }

    /// The local address.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.id.local_addr()
    }

    /// The peer's address, as it says itself. A link-local one of IPv6 has its scope only on the side that connected.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.id.peer_addr()
    }

    /// The queue pair, and the identifier to go on with by oneself.
    pub fn into_parts(self) -> (QueuePair<Rc>, CmId) {
        (self.queue_pair, self.id)
    }

    /// Ends the connection: the queue pair is failed, so that what is posted is flushed, and the peer is told. Both sides
    /// have [disconnected](Self::wait_disconnected) when the peer has answered.
    ///
    /// # Errors
    ///
    /// Those of [`QueuePair::modify`] and of [`CmId::disconnect`].
    #[doc(alias = "rdma_disconnect")]
    pub fn disconnect(&mut self) -> Result<()> {
        self.queue_pair.modify(&QueuePairAttr::new().set_state(QpState::ERR))?;
        self.id.disconnect()
    }

    /// Waits until the connection is over, whoever ended it, and fails the queue pair, so that what is posted is flushed:
    /// `false` if it still stands after `timeout`. Without a
    /// timeout it waits for as long as it takes. A program that dies is disconnected by its kernel; that a host died, or
    /// a cable was cut, is noticed by requests that fail, and not here.
    ///
    /// # Errors
    ///
    /// [`Error::Connection`](crate::Error::Connection) if the device is being removed, or the peer's hardware address has
    /// changed. The connection is to be dropped then.
    pub fn wait_disconnected(&mut self, timeout: Option<Duration>) -> Result<bool> {
        self.disconnected_until(deadline(timeout))
    }

    /// Whether the connection is over. It never waits.
    ///
    /// # Errors
    ///
    /// Those of [`wait_disconnected`](Self::wait_disconnected).
    pub fn poll_disconnected(&mut self) -> Result<bool> {
        self.disconnected_until(Some(Instant::now()))
    }

    fn disconnected_until(&mut self, deadline: Option<Instant>) -> Result<bool> {
        while !self.is_over {
            let Some(event) = self.id.wait_until(deadline)? else { return Ok(false) };
            self.note(event)?;
        }
        Ok(true)
    }

    /// Takes note of an event. If it is the end of the connection, it is answered.
    pub(super) fn note(&mut self, event: CmEvent) -> Result<()> {
        match event.event_type() {
            // Its status may be that the peer did not answer. One that has ended it before it got the confirmation rejects it.
            CmEventType::DISCONNECTED | CmEventType::REJECTED => {
                // If the peer has ended it, it waits for an answer. If not, there is nothing to answer, and
                // nothing lost; the same holds for the queue pair, which has failed then already.
                let _ = self.disconnect();
                self.is_over = true;
                Ok(())
            }
            CmEventType::ADDR_CHANGE | CmEventType::TIMEWAIT_EXIT => Ok(()),
            _ => Err(Step::STAY.failed(&self.id, event)),
        }
    }
}

/// For `epoll` and the like: it can be read when something has happened to the connection. Do not read it, but call
/// [`Connection::poll_disconnected`].
impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.id.as_fd()
    }
}

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        self.id.as_raw_fd()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("id", &self.id)
            .field("queue_pair", &self.queue_pair)
            .finish_non_exhaustive()
    }
}
