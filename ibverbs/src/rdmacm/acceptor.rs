//! The side that accepts.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::event::{CmEvent, CmEventType};
use super::id::CmId;
use super::params::{ConnectionParams, PeerParams};
use super::port_space::{self, ConnectedSpace, DatagramSpace, PortSpace};
use super::step::Step;
use crate::context::Context;
use crate::error::{Error, Failed, Result};
use crate::qp::{CanReceive, QpConfig, QueuePair, Rc, Ud, Unconnected};
use crate::readiness::deadline;

/// Listens for connection requests.
///
/// # Examples
///
/// ```no_run
/// # fn main() -> ibverbs::Result<()> {
/// use std::time::Duration;
///
/// use ibverbs::rdmacm::{Acceptor, ConnectionParams, Tcp};
/// use ibverbs::Rc;
///
/// let mut acceptor = Acceptor::bind(Tcp, "0.0.0.0:7471".parse().expect("an address"))?;
/// while let Some(incoming) = acceptor.accept(None)? {
///     if !incoming.peer_private_data().starts_with(b"version 2") {
///         incoming.reject(b"version 2 is spoken here")?;
///         continue;
///     }
///     let ctx = incoming.context();
///     let (cq, pd) = (ctx.create_cq(16).build()?, ctx.alloc_pd()?);
///     let qp = pd.create_qp::<Rc>(&cq, &cq, incoming.port())?.build()?;
///     let connection = incoming.accept(qp, &ConnectionParams::new(), Duration::from_secs(5))?;
///     println!("connected to {:?}", connection.peer_addr());
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping it ends listening, and rejects the requests that wait"]
pub struct Acceptor<P: PortSpace> {
    port_space: P,
    pub(super) id: CmId,
}

impl<P: PortSpace> Acceptor<P> {
    /// Listens on a local address, which may be a wildcard. With port 0, any that is free:
    /// [`local_addr`](Self::local_addr) tells which.
    ///
    /// As many requests may wait as the kernel allows (1024). For other settings, listen with a [`CmId`], and use
    /// [`from_id`](Self::from_id).
    ///
    /// # Errors
    ///
    /// Those of [`CmId::create`], [`CmId::bind_addr`] and [`CmId::listen`].
    pub fn bind(port_space: P, address: SocketAddr) -> Result<Acceptor<P>> {
        let mut id = CmId::create(port_space)?;
        id.bind_addr(address)?;
        id.listen(0)?;
        Ok(Acceptor { port_space, id })
    }

    /// Takes the requests of an identifier that [listens](CmId::listen) on a channel of its own.
    ///
    /// # Errors
    ///
    /// [`Error::PortSpaceMismatch`] if the identifier is of another port space. The identifier comes back.
    pub fn from_id(port_space: P, id: CmId) -> Result<Acceptor<P>, Failed<CmId>> {
        if id.is_of(port_space) {
            return Ok(Acceptor { port_space, id });
        }
        let expected = port_space::name(P::RAW);
        let error = Error::PortSpaceMismatch { port_space: id.port_space(), expected };
        Err(Failed { resource: id, error })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.id.local_addr()
    }

    /// The identifier.
    pub fn into_id(self) -> CmId {
        self.id
    }

    /// Waits for a request: `None` if none came within `timeout`. Without a timeout it waits for as long as it takes.
    ///
    /// # Errors
    ///
    /// - [`Error::Connection`] if the device is being removed: no more requests will come.
    /// - [`Error::SharedEventChannel`] if it was made from an identifier that shares its channel.
    /// - [`Error::EventChannel`], [`Error::OpenDevice`], [`Error::NotBound`] or [`Error::Verb`] if this request could not be
    ///   taken, mostly for want of file descriptors. It was rejected, and others may come.
    pub fn accept(&mut self, timeout: Option<Duration>) -> Result<Option<Incoming<P>>> {
        self.accept_until(deadline(timeout))
    }

    /// Takes a request, if there is one. It never waits.
    ///
    /// # Errors
    ///
    /// Those of [`accept`](Self::accept).
    pub fn poll(&mut self) -> Result<Option<Incoming<P>>> {
        self.accept_until(Some(Instant::now()))
    }

    fn accept_until(&mut self, deadline: Option<Instant>) -> Result<Option<Incoming<P>>> {
        loop {
            let Some(event) = self.id.wait_until(deadline)? else { return Ok(None) };
            if let Some(incoming) = self.incoming(event)? {
                return Ok(Some(incoming));
            }
        }
    }

    /// The request that the event is of; `None` if it is of no concern.
    pub(super) fn incoming(&self, event: CmEvent) -> Result<Option<Incoming<P>>> {
        match event.event_type() {
            CmEventType::ADDR_CHANGE => Ok(None),
            _ => Incoming::new(self.port_space, Step::LISTEN.check(&self.id, event)?),
        }
    }
}

/// For `epoll` and the like. Do not read it, but call [`Acceptor::poll`] until that returns `None`.
impl<P: PortSpace> AsFd for Acceptor<P> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.id.as_fd()
    }
}

impl<P: PortSpace> AsRawFd for Acceptor<P> {
    fn as_raw_fd(&self) -> RawFd {
        self.id.as_raw_fd()
    }
}

impl<P: PortSpace> fmt::Debug for Acceptor<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("id", &self.id).finish()
    }
}

/// A request: from [`Acceptor::accept`]. Create a queue pair of its device and accept, or reject it.
///
/// Dropping it rejects it.
#[must_use = "dropping it rejects the request"]
pub struct Incoming<P: PortSpace> {
    _port_space: P,
    pub(super) id: CmId,
    context: Context,
    port: u8,
    private_data: Vec<u8>,
    params: Option<PeerParams>,
}

impl<P: PortSpace> Incoming<P> {
    fn new(port_space: P, mut event: CmEvent) -> Result<Option<Incoming<P>>> {
        let Some(id) = event.take_request() else { return Ok(None) };
        Ok(Some(Incoming {
            _port_space: port_space,
            context: id.context()?,
            port: id.port().ok_or(Error::NotBound)?,
            id,
            private_data: event.private_data().to_vec(),
            params: event.connection(),
        }))
    }

    /// The device that the request came to: see [`CmId::context`].
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The port of the device, for [`create_qp`](crate::ProtectionDomain::create_qp).
    pub fn port(&self) -> u8 {
        self.port
    }

    /// What the peer sent along, filled up with zeros: see [`CmEvent::private_data`]. It comes from the network: check
    /// it.
    pub fn peer_private_data(&self) -> &[u8] {
        &self.private_data
    }

    /// The local address that the request came to.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.id.local_addr()
    }

    /// The peer's address, as it says itself. A link-local one of IPv6 has its scope only on the side that connected.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.id.peer_addr()
    }

    /// The identifier, to go on step by step.
    pub fn into_id(self) -> CmId {
        self.id
    }

    /// Rejects the request, with a message for the peer.
    ///
    /// # Errors
    ///
    /// Those of [`CmId::reject`]; then the request is rejected without a message.
    #[doc(alias = "rdma_reject")]
    pub fn reject(mut self, private_data: &[u8]) -> Result<()> {
        self.id.reject(private_data)
    }

    /// What the peer offers and asks for.
    pub fn peer_params(&self) -> Option<PeerParams>
    where
        P: ConnectedSpace,
    {
        self.params
    }

    /// Accepts the request with this queue pair, and waits for the peer's confirmation. Receives can have been posted to
    /// it before, if it is in state [`Init`](crate::Init). It is brought up as [`CmId::bring_up`] says.
    ///
    /// # Errors
    ///
    /// - [`Error::NothingToAnswer`] if the peer has given up before it was answered, [`Error::Connection`] if after that.
    /// - [`Error::TimedOut`] if it does not confirm within `timeout`.
    /// - [`Error::DeviceMismatch`] if the queue pair is of another device.
    /// - [`Error::PrivateDataTooLong`], and the others of [`CmId::accept`] and [`CmId::bring_up`].
    ///
    /// The request is rejected then. The queue pair comes back in its state, as from
    /// [`handshake`](QueuePair::handshake); receives that were posted before may be gone.
    #[doc(alias = "rdma_accept")]
    pub fn accept<S: Unconnected>(
        mut self,
        qp: QueuePair<Rc, S>,
        params: &ConnectionParams,
        timeout: Duration,
    ) -> Result<Connection, Failed<QueuePair<Rc, S>>>
    where
        P: ConnectedSpace,
    {
        let deadline = deadline(Some(timeout));
        let built = qp.config();
        let qp = self.respond(qp, params)?;
        match self.id.finish(Step::ACCEPT, deadline, timeout) {
            Ok(_) => Ok(self.into_connection(qp)),
            Err(error) => Err(self.give_up(qp, built, error)),
        }
    }

    /// Ends what was begun: the peer first, so that it learns of it from this and not from its requests.
    pub(super) fn give_up<S: Unconnected>(
        self,
        qp: QueuePair<Rc>,
        built: QpConfig,
        error: Error,
    ) -> Failed<QueuePair<Rc, S>> {
        drop(self);
        Failed { resource: qp.back_to(built), error }
    }

    /// Brings the queue pair up, and tells the peer.
    pub(super) fn respond<S: Unconnected>(
        &mut self,
        qp: QueuePair<Rc, S>,
        params: &ConnectionParams,
    ) -> Result<QueuePair<Rc>, Failed<QueuePair<Rc, S>>> {
        let built = qp.config();
        let answered = self.id.bring_up_for(qp, params).and_then(|qp| {
            match self.id.accept(&params.clone().for_queue_pair(&qp)) {
                Ok(()) => Ok(qp),
                Err(error) => Err(Failed { resource: qp.back_to(built), error }),
            }
        });
        answered.map_err(|failed| self.id.explain(failed))
    }

    pub(super) fn into_connection(self, qp: QueuePair<Rc>) -> Connection {
        Connection::new(self.id, qp, self.private_data)
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

    /// Tells the peer to send its datagrams to this queue pair: one that was [activated](Self::activate) for this port
    /// space. Many peers can be told the same.
    ///
    /// # Errors
    ///
    /// - [`Error::DeviceMismatch`] if the queue pair is of another device.
    /// - [`Error::PrivateDataTooLong`], and the others of [`CmId::accept`].
    #[doc(alias = "rdma_accept")]
    pub fn answer<S: CanReceive>(mut self, qp: &QueuePair<Ud, S>, private_data: &[u8]) -> Result<()>
    where
        P: DatagramSpace,
    {
        self.id.check_use(qp)?;
        let params = ConnectionParams::new().set_private_data(private_data);
        self.id.accept(&params.set_qp_num(qp.qp_num()))
    }
}

impl<P: PortSpace> fmt::Debug for Incoming<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("id", &self.id)
            .field("private_data", &self.private_data)
            .field("params", &self.params)
            .finish_non_exhaustive()
    }
}
