//! The side that connects.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::event::CmEvent;
use super::id::CmId;
use super::params::{ConnectionParams, DatagramPeer};
use super::port_space::{ConnectedSpace, DatagramSpace, PortSpace};
use super::step::Step;
use crate::context::Context;
use crate::error::{Error, Failed, Result};
use crate::qp::AckTimeout;
use crate::qp::{QueuePair, Rc, Ud, Unconnected};
use crate::readiness::deadline;

/// Connects to listeners: finds out which device leads to an address, as a first step.
///
/// # Examples
///
/// ```no_run
/// # fn main() -> ibverbs::Result<()> {
/// use std::time::Duration;
///
/// use ibverbs::rdmacm::{ConnectionParams, Connector, Tcp};
/// use ibverbs::Rc;
///
/// let second = Duration::from_secs(1);
/// let resolved = Connector::new(Tcp).resolve("10.7.0.1:7471".parse().expect("an address"), second)?;
/// let ctx = resolved.context();
/// let (cq, pd) = (ctx.create_cq(16).build()?, ctx.alloc_pd()?);
/// let qp = pd.create_qp::<Rc>(&cq, &cq, resolved.port())?.build()?;
/// let params = ConnectionParams::new().set_private_data(*b"version 2");
/// let mut connection = resolved.connect(qp, &params, 5 * second)?;
/// println!("{:?}", connection.peer_private_data());
/// let batch = connection.queue_pair.start_send();
/// # drop(batch);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "nothing is resolved before `resolve`"]
pub struct Connector<P: PortSpace> {
    pub(super) port_space: P,
    source: Option<SocketAddr>,
    type_of_service: Option<u8>,
    ack_timeout: Option<AckTimeout>,
}

impl<P: PortSpace> Connector<P> {
    /// A connector for listeners of this port space.
    pub fn new(port_space: P) -> Connector<P> {
        Connector { port_space, source: None, type_of_service: None, ack_timeout: None }
    }

    /// The local address to connect from; with port 0, any port. Default: what the routing table says.
    pub fn set_source(mut self, source: SocketAddr) -> Self {
        self.source = Some(source);
        self
    }

    /// The type of service of the connection's packets: see [`CmId::set_type_of_service`].
    pub fn set_type_of_service(mut self, type_of_service: u8) -> Self {
        self.type_of_service = Some(type_of_service);
        self
    }

    /// How long the peer should wait for an acknowledgement: see [`CmId::set_ack_timeout`].
    pub fn set_ack_timeout(mut self, timeout: AckTimeout) -> Self {
        self.ack_timeout = Some(timeout);
        self
    }

    /// Finds the device and the route that lead to a listener, which is not asked for anything yet. To a link-local
    /// address of IPv6, the scope says which network.
    ///
    /// # Errors
    ///
    /// - [`Error::Connection`] if the address or the route could not be resolved.
    /// - [`Error::TimedOut`] if that took longer than `timeout`.
    /// - [`Error::Resolve`] if no RDMA device leads there, as to `127.0.0.1`.
    /// - Those of [`CmId::create`], [`CmId::resolve_addr`] and [`CmId::resolve_route`].
    pub fn resolve(&self, peer: SocketAddr, timeout: Duration) -> Result<Resolved<P>> {
        let deadline = deadline(Some(timeout));
        let mut id = self.start(peer, most_of(timeout))?;
        id.finish(Step::ADDRESS, deadline, timeout)?;
        id.resolve_route(most_of(left(deadline)))?;
        id.finish(Step::ROUTE, deadline, timeout)?;
        Resolved::new(self.port_space, id)
    }

    /// Begins to resolve the address.
    pub(super) fn start(&self, peer: SocketAddr, timeout: Duration) -> Result<CmId> {
        let mut id = CmId::create(self.port_space)?;
        if let Some(type_of_service) = self.type_of_service {
            id.set_type_of_service(type_of_service)?;
        }
        if let Some(timeout) = self.ack_timeout {
            id.set_ack_timeout(timeout)?;
        }
        id.resolve_addr(self.source, peer, timeout)?;
        Ok(id)
    }
}

/// The time for the kernel, whose own answer is to come before the deadline: it tells more than that there was none.
fn most_of(time: Duration) -> Duration {
    time - time / 4
}

/// What is left of a time; the longest there is if there is no deadline.
fn left(deadline: Option<Instant>) -> Duration {
    deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()))
}

/// The way to a listener: from [`Connector::resolve`]. Create a queue pair of its device, and connect.
pub struct Resolved<P: PortSpace> {
    _port_space: P,
    pub(super) id: CmId,
    context: Context,
    port: u8,
}

impl<P: PortSpace> Resolved<P> {
    pub(super) fn new(port_space: P, id: CmId) -> Result<Resolved<P>> {
        let (context, port) = (id.context()?, id.port().ok_or(Error::NotBound)?);
        Ok(Resolved { _port_space: port_space, id, context, port })
    }

    /// The device that leads to the listener: see [`CmId::context`].
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The port of the device, for [`create_qp`](crate::ProtectionDomain::create_qp).
    pub fn port(&self) -> u8 {
        self.port
    }

    /// The local address that the connection will have.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.id.local_addr()
    }

    /// The listener's address.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.id.peer_addr()
    }

    /// The identifier, to go on step by step.
    pub fn into_id(self) -> CmId {
        self.id
    }

    /// Connects the queue pair. Receives can have been posted to it before, if it is in state
    /// [`Init`](crate::Init). It is brought up as [`CmId::bring_up`] says.
    ///
    /// # Errors
    ///
    /// - [`Error::Connection`] if the peer rejects, even if it has accepted before, with its reason and its private data;
    ///   if nobody listens there, which is told at once; or if it does not answer.
    /// - [`Error::TimedOut`] if there is no answer within `timeout`. The kernel alone would go on for about a minute, or
    ///   longer.
    /// - [`Error::DeviceMismatch`] if the queue pair is of another device.
    /// - [`Error::PrivateDataTooLong`], and the others of [`CmId::connect`], [`CmId::bring_up`] and
    ///   [`CmId::establish`].
    ///
    /// The queue pair comes back in its state, as from [`handshake`](QueuePair::handshake); receives that were posted
    /// before may be gone.
    pub fn connect<S: Unconnected>(
        mut self,
        qp: QueuePair<Rc, S>,
        params: &ConnectionParams,
        timeout: Duration,
    ) -> Result<Connection, Failed<QueuePair<Rc, S>>>
    where
        P: ConnectedSpace,
    {
        let deadline = deadline(Some(timeout));
        let response = self
            .request(&qp, params)
            .and_then(|()| self.id.finish(Step::CONNECT, deadline, timeout));
        let response = match response {
            Ok(response) => response,
            Err(error) => return Err(Failed { resource: qp, error }),
        };
        match self.confirm(qp, params) {
            Ok(qp) => Ok(self.into_connection(qp, &response)),
            Err(failed) if self.is_still_accepted() => Err(failed),
            Err(Failed { resource, error }) => {
                let told = self.id.finish(Step::CONNECT, deadline, timeout).err();
                Err(Failed { resource, error: told.unwrap_or(error) })
            }
        }
    }

    /// Asks the listener for a connection.
    pub(super) fn request<S: Unconnected>(
        &mut self,
        qp: &QueuePair<Rc, S>,
        params: &ConnectionParams,
    ) -> Result<()> {
        self.id.check_use(qp)?;
        self.id.connect(&params.clone().for_queue_pair(qp))
    }

    /// Brings the queue pair up as the listener has answered, and confirms the connection.
    pub(super) fn confirm<S: Unconnected>(
        &mut self,
        qp: QueuePair<Rc, S>,
        params: &ConnectionParams,
    ) -> Result<QueuePair<Rc>, Failed<QueuePair<Rc, S>>> {
        let built = qp.config();
        let qp = self.id.bring_up_for(qp, params)?;
        match self.id.establish() {
            Ok(()) => Ok(qp),
            Err(error) => Err(Failed { resource: qp.back_to(built), error }),
        }
    }

    /// Whether what the listener has answered still holds. If it has rejected the connection since, its event is about to
    /// come, and says more than that the connection cannot be confirmed.
    pub(super) fn is_still_accepted(&mut self) -> bool {
        self.id.check_answerable().is_ok()
    }

    pub(super) fn into_connection(self, qp: QueuePair<Rc>, response: &CmEvent) -> Connection {
        Connection::new(self.id, qp, response.private_data().to_vec())
    }

    /// Makes a queue pair ready for this port space: see [`CmId::activate`].
    ///
    /// # Errors
    ///
    /// Those of [`CmId::activate`].
    pub fn activate<S: Unconnected>(
        &mut self,
        qp: QueuePair<Ud, S>,
    ) -> Result<QueuePair<Ud>, Failed<QueuePair<Ud, S>>>
    where
        P: DatagramSpace,
    {
        self.id.activate(qp)
    }

    /// Asks the listener for its queue pair. Datagrams go there with
    /// [`create_ah`](DatagramPeer::create_ah), and no connection is kept.
    ///
    /// # Errors
    ///
    /// - [`Error::Connection`] if the peer refuses, nobody listens there, or it does not answer.
    /// - [`Error::TimedOut`] if there is no answer within `timeout`.
    /// - [`Error::PrivateDataTooLong`] if the request does not carry that much.
    pub fn find_peer(mut self, private_data: &[u8], timeout: Duration) -> Result<FoundPeer>
    where
        P: DatagramSpace,
    {
        let deadline = deadline(Some(timeout));
        self.ask(private_data)?;
        let answer = self.id.finish(Step::FIND_PEER, deadline, timeout)?;
        FoundPeer::new(&answer)
    }

    pub(super) fn ask(&mut self, private_data: &[u8]) -> Result<()> {
        self.id.connect(&ConnectionParams::new().set_private_data(private_data))
    }
}

/// A peer's queue pair of datagrams, and what came with it: from [`Resolved::find_peer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundPeer {
    /// Where its datagrams go.
    pub peer: DatagramPeer,
    /// What the peer sent along, filled up with zeros: see [`CmEvent::private_data`].
    pub private_data: Vec<u8>,
}

impl FoundPeer {
    pub(super) fn new(answer: &CmEvent) -> Result<FoundPeer> {
        let peer = answer.datagram().ok_or(Error::InvalidBytes {
            what: "answer to a request for a datagram queue pair",
            reason: "there is no queue pair in it",
        })?;
        Ok(FoundPeer { peer, private_data: answer.private_data().to_vec() })
    }
}

impl<P: PortSpace> fmt::Debug for Resolved<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolved")
            .field("id", &self.id)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}
