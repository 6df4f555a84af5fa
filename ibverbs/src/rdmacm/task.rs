//! Setting up connections in tasks of tokio.
//!
//! Timeouts are tokio's own: `tokio::time::timeout` around any of these.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use tokio::io::unix::AsyncFd;

use super::acceptor::{Acceptor, Incoming};
use super::channel::EventChannel;
use super::connection::Connection;
use super::connector::{Connector, FoundPeer, Resolved};
use super::event::CmEvent;
use super::id::CmId;
use super::params::ConnectionParams;
use super::port_space::{ConnectedSpace, DatagramSpace, PortSpace};
use super::step::Step;
use crate::error::{Error, Failed, Result};
use crate::qp::{QueuePair, Rc, Unconnected};
use crate::readiness::task::{next, watch};

const GET: &str = "rdma_get_cm_event";

impl EventChannel {
    /// Waits for the next event, in a task of tokio. Needs the feature `tokio`.
    ///
    /// Several tasks may wait; one of them gets the event.
    ///
    /// # Cancel safety
    ///
    /// No event is lost if the future is dropped before it is ready: an event is taken only in the poll of the future
    /// that returns it.
    ///
    /// # Panics
    ///
    /// If there is no current tokio runtime with its I/O driver enabled.
    ///
    /// # Errors
    ///
    /// Those of [`wait`](Self::wait), and [`Error::Verb`] if the runtime cannot watch the
    /// descriptor.
    pub async fn next_event(&self) -> Result<CmEvent> {
        next(GET, &watched(self)?, || self.poll_cm_event()).await
    }
}

/// The channel's descriptor, watched by the current runtime. A descriptor can be registered with it once, so that each
/// future needs its own.
fn watched(channel: &EventChannel) -> Result<AsyncFd<OwnedFd>> {
    let fd = channel.as_fd().try_clone_to_owned();
    watch(fd.map_err(|source| Error::Verb { verb: "dup", source })?)
}

impl CmId {
    /// Waits for the next event of this identifier, in a task of tokio. Needs the feature `tokio`.
    ///
    /// # Cancel safety
    ///
    /// No event is lost if the future is dropped before it is ready.
    ///
    /// # Panics
    ///
    /// If there is no current tokio runtime with its I/O driver enabled.
    ///
    /// # Errors
    ///
    /// Those of [`wait`](Self::wait), and [`Error::Verb`] if the runtime cannot watch the
    /// descriptor.
    pub async fn next_event(&mut self) -> Result<CmEvent> {
        next(GET, &watched(self.own_channel()?)?, || self.poll_cm_event()).await
    }

    async fn finish_async(&mut self, step: Step) -> Result<CmEvent> {
        loop {
            let event = self.next_event().await?;
            if !step.goes_on(&event) {
                return step.check(self, event);
            }
        }
    }
}

impl<P: PortSpace> Connector<P> {
    /// [`resolve`](Self::resolve), in a task of tokio. Needs the feature `tokio`. The kernel takes at most `timeout` for
    /// each of the address and the route.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, what was resolved is forgotten.
    ///
    /// # Panics
    ///
    /// If there is no current tokio runtime with its I/O driver enabled.
    ///
    /// # Errors
    ///
    /// Those of [`resolve`](Self::resolve); a timeout is told by the kernel, as [`Error::Connection`].
    pub async fn resolve_async(&self, peer: SocketAddr, timeout: Duration) -> Result<Resolved<P>> {
        let mut id = self.start(peer, timeout)?;
        id.finish_async(Step::ADDRESS).await?;
        id.resolve_route(timeout)?;
        id.finish_async(Step::ROUTE).await?;
        Resolved::new(self.port_space, id)
    }
}

impl<P: PortSpace> Resolved<P> {
    /// [`connect`](Self::connect), in a task of tokio. Needs the feature `tokio`.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing is connected: the peer's side fails, and the queue pair is gone.
    ///
    /// # Panics
    ///
    /// If there is no current tokio runtime with its I/O driver enabled.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Self::connect), but no [`Error::TimedOut`]: left alone, the kernel gives up after
    /// about a minute.
    pub async fn connect_async<S: Unconnected>(
        mut self,
        qp: QueuePair<Rc, S>,
        params: &ConnectionParams,
    ) -> Result<Connection, Failed<QueuePair<Rc, S>>>
    where
        P: ConnectedSpace,
    {
        let response = match self.request(&qp, params) {
            Ok(()) => self.id.finish_async(Step::CONNECT).await,
            Err(error) => Err(error),
        };
        let response = match response {
            Ok(response) => response,
            Err(error) => return Err(Failed { resource: qp, error }),
        };
        match self.confirm(qp, params) {
            Ok(qp) => Ok(self.into_connection(qp, &response)),
            Err(failed) if self.is_still_accepted() => Err(failed),
            Err(Failed { resource, error }) => {
                let told = self.id.finish_async(Step::CONNECT).await.err();
                Err(Failed { resource, error: told.unwrap_or(error) })
            }
        }
    }

    /// [`find_peer`](Self::find_peer), in a task of tokio. Needs the feature `tokio`.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the request is forgotten.
    ///
    /// # Panics
    ///
    /// If there is no current tokio runtime with its I/O driver enabled.
    ///
    /// # Errors
    ///
    /// Those of [`find_peer`](Self::find_peer), but no [`Error::TimedOut`].
    pub async fn find_peer_async(mut self, private_data: &[u8]) -> Result<FoundPeer>
    where
        P: DatagramSpace,
    {
        self.ask(private_data)?;
        FoundPeer::new(&self.id.finish_async(Step::FIND_PEER).await?)
    }
}

impl<P: PortSpace> Acceptor<P> {
    /// [`accept`](Self::accept), in a task of tokio. Needs the feature `tokio`.
    ///
    /// # Cancel safety
    ///
    /// No request is lost if the future is dropped before it is ready.
    ///
    /// # Panics
    ///
    /// If there is no current tokio runtime with its I/O driver enabled.
    ///
    /// # Errors
    ///
    /// Those of [`accept`](Self::accept).
    pub async fn accept_async(&mut self) -> Result<Incoming<P>> {
        loop {
            let event = self.id.next_event().await?;
            if let Some(incoming) = self.incoming(event)? {
                return Ok(incoming);
            }
        }
    }
}

impl<P: PortSpace> Incoming<P> {
    /// [`accept`](Self::accept), in a task of tokio. Needs the feature `tokio`.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the connection is ended, and the queue pair is gone.
    ///
    /// # Panics
    ///
    /// If there is no current tokio runtime with its I/O driver enabled.
    ///
    /// # Errors
    ///
    /// Those of [`accept`](Self::accept), but no [`Error::TimedOut`].
    pub async fn accept_async<S: Unconnected>(
        mut self,
        qp: QueuePair<Rc, S>,
        params: &ConnectionParams,
    ) -> Result<Connection, Failed<QueuePair<Rc, S>>>
    where
        P: ConnectedSpace,
    {
        let built = qp.config();
        let qp = self.respond(qp, params)?;
        match self.id.finish_async(Step::ACCEPT).await {
            Ok(_) => Ok(self.into_connection(qp)),
            Err(error) => Err(self.give_up(qp, built, error)),
        }
    }
}

impl Connection {
    /// Waits until the connection is over, in a task of tokio: [`wait_disconnected`](Self::wait_disconnected). Needs the
    /// feature `tokio`.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped before it is ready.
    ///
    /// # Panics
    ///
    /// If there is no current tokio runtime with its I/O driver enabled.
    ///
    /// # Errors
    ///
    /// Those of [`wait_disconnected`](Self::wait_disconnected).
    pub async fn disconnected(&mut self) -> Result<()> {
        while !self.is_over {
            let event = self.id.next_event().await?;
            self.note(event)?;
        }
        Ok(())
    }
}
