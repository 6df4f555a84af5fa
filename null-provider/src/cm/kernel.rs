//! What the kernel does for librdmacm: the states of identifiers, and the messages between them.

use std::ffi::c_int;
use std::net::SocketAddr;

use ibverbs_sys as ffi;

use super::address;
use super::channel::{Queued, Request};
use super::id::IdData;
use super::values::{CmConn, CmDatagrams, CmEvent};
use crate::controls::State;
use crate::device::DEVICES;
use crate::query::{ipv4, ipv6, PORT};

/// How many bytes of private data the messages of a connection carry. Whoever receives one gets all of them,
/// whatever was sent.
const REQUEST_LEN: usize = 56;
const REPLY_LEN: usize = 196;
const REJECT_LEN: usize = 148;
/// Those of a datagram service.
const DATAGRAMS_REQUEST_LEN: usize = 180;
const DATAGRAMS_REPLY_LEN: usize = 136;

/// Why a request is refused that nobody listens to.
const INVALID_SERVICE_ID: c_int = 8;
const DATAGRAMS_UNSUPPORTED: c_int = 1;
/// Why it is refused by a program, or because a program went away.
pub(super) const CONSUMER_DEFINED: c_int = 28;
const DATAGRAMS_REJECTED: c_int = 2;

/// The first port that is given away, and how many there are.
const FIRST_PORT: u16 = 49152;
const PORTS: u16 = 16384;

/// Where an identifier is on its way to a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    #[default]
    Idle,
    Bound,
    Listening,
    ResolvingAddr,
    AddrResolved,
    ResolvingRoute,
    RouteResolved,
    Connecting,
    Disconnected,
    DeviceRemoved,
}

/// Where its connection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Connection {
    #[default]
    None,
    RequestSent,
    RequestReceived,
    ReplySent,
    ReplyReceived,
    Established,
    Closed,
}

/// The other end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Peer {
    /// The test.
    #[default]
    Test,
    /// The identifier at this address.
    Id(usize),
    /// None any more.
    Gone,
}

/// Makes private data as long as the message that carries it, if it fits.
fn fit(mut data: Vec<u8>, len: usize) -> Result<Vec<u8>, c_int> {
    if data.len() > len {
        return Err(libc::EINVAL);
    }
    data.resize(len, 0);
    Ok(data)
}

/// As the other side sees it.
fn swapped(conn: CmConn) -> CmConn {
    CmConn {
        responder_resources: conn.initiator_depth,
        initiator_depth: conn.responder_resources,
        ..conn
    }
}

impl State {
    /// The identifier, if the kernel still serves it.
    pub(super) fn served(&mut self, address: usize) -> Result<&mut IdData, c_int> {
        match self.cm_id(address) {
            Some(id) if id.stage == Stage::DeviceRemoved => Err(libc::EIO),
            Some(id) => Ok(id),
            None => Err(libc::EINVAL),
        }
    }

    /// The number of the device that an address is one of.
    pub(super) fn device_of(&self, addr: SocketAddr) -> usize {
        let is_of =
            |number: &usize| [ipv4(*number).into(), ipv6(*number).into()].contains(&addr.ip());
        self.config.cm.device.or_else(|| (0..DEVICES).find(is_of)).unwrap_or(0)
    }

    /// Binds an identifier to a local address.
    pub(super) fn bind(&mut self, address: usize, mut addr: SocketAddr) -> Result<(), c_int> {
        let ps = self.served(address)?.ps;
        if self.served(address)?.stage != Stage::Idle {
            return Err(libc::EINVAL);
        }
        if addr.port() == 0 {
            addr.set_port(FIRST_PORT + self.cm.ports % PORTS);
            self.cm.ports = self.cm.ports.wrapping_add(1);
        }
        let collides = |id: &IdData| {
            let is_bound = id.ps == ps && !id.is_of_request;
            let Some(other) = id.src.filter(|_| is_bound) else { return false };
            let any = addr.ip().is_unspecified() || other.ip().is_unspecified();
            other.port() == addr.port() && (any || other.ip() == addr.ip())
        };
        if self.cm_ids().any(|(_, id)| collides(id)) {
            return Err(libc::EADDRINUSE);
        }
        let device = (!addr.ip().is_unspecified()).then(|| self.device_of(addr));
        let id = self.served(address)?;
        (id.stage, id.src, id.device) = (Stage::Bound, Some(addr), device);
        Ok(())
    }

    /// Finishes the resolution of an address: the identifier is on a device from now on.
    fn choose_device(&mut self, address: usize) {
        let Some(id) = self.cm_id(address) else { return };
        let (device, src, dst) = (id.device, id.src, id.dst);
        let Some(near) = src.filter(|src| !src.ip().is_unspecified()).or(dst).or(src) else {
            return;
        };
        let device = device.unwrap_or_else(|| self.device_of(near));
        let src = src.map(|src| match src.ip().is_unspecified() {
            true => SocketAddr::new(address::of_device_like(near, device), src.port()),
            false => src,
        });
        if let Some(id) = self.cm_id(address) {
            (id.device, id.src) = (Some(device), src);
        }
    }

    /// Something happens to an identifier, and is reported. What happens to one of a request before it was
    /// accepted is not.
    pub(super) fn happen(&mut self, address: usize, event: CmEvent, group: Option<u32>) {
        let Some(id) = self.cm_id(address) else { return };
        match event.event {
            ffi::RDMA_CM_EVENT_ADDR_RESOLVED => id.stage = Stage::AddrResolved,
            ffi::RDMA_CM_EVENT_ADDR_ERROR => id.stage = Stage::Bound,
            ffi::RDMA_CM_EVENT_ROUTE_RESOLVED => id.stage = Stage::RouteResolved,
            ffi::RDMA_CM_EVENT_ROUTE_ERROR => id.stage = Stage::AddrResolved,
            ffi::RDMA_CM_EVENT_CONNECT_RESPONSE => {
                (id.connection, id.remote_qp_num) = (Connection::ReplyReceived, event.conn.qp_num);
                id.conn.responder_resources = event.conn.responder_resources;
                id.conn.initiator_depth = event.conn.initiator_depth;
                id.conn.rnr_retry_count = event.conn.rnr_retry_count;
            }
            // Datagrams have no connection.
            ffi::RDMA_CM_EVENT_ESTABLISHED if id.is_ud() => id.connection = Connection::Closed,
            ffi::RDMA_CM_EVENT_ESTABLISHED => id.connection = Connection::Established,
            ffi::RDMA_CM_EVENT_CONNECT_ERROR
            | ffi::RDMA_CM_EVENT_UNREACHABLE
            | ffi::RDMA_CM_EVENT_REJECTED => {
                (id.connection, id.peer) = (Connection::Closed, Peer::Gone);
            }
            ffi::RDMA_CM_EVENT_DISCONNECTED => {
                id.stage = Stage::Disconnected;
                (id.connection, id.peer) = (Connection::Closed, Peer::Gone);
            }
            ffi::RDMA_CM_EVENT_DEVICE_REMOVAL => id.stage = Stage::DeviceRemoved,
            _ => {}
        }
        let reports = id.reports;
        if event.event == ffi::RDMA_CM_EVENT_ADDR_RESOLVED {
            self.choose_device(address);
        }
        if reports {
            self.push_event(Queued { id: address, event, request: None, group });
        }
    }

    /// A simple event.
    pub(super) fn happen_plain(&mut self, address: usize, event: ffi::rdma_cm_event_type) {
        self.happen(address, CmEvent { event, ..CmEvent::default() }, None);
    }

    /// Sends a connect request to whoever listens.
    pub(super) fn send_request(
        &mut self,
        address: usize,
        conn: CmConn,
        private_data: Vec<u8>,
    ) -> Result<(), c_int> {
        let id = self.served(address)?;
        let is_ud = id.is_ud();
        let len = if is_ud { DATAGRAMS_REQUEST_LEN } else { REQUEST_LEN };
        let private_data = fit(private_data, len)?;
        if id.stage != Stage::RouteResolved {
            return Err(libc::EINVAL);
        }
        (id.stage, id.connection, id.conn) = (Stage::Connecting, Connection::RequestSent, conn);
        let (Some(src), Some(dst)) = (id.src, id.dst) else { return Err(libc::EINVAL) };
        let (ps, ece) = (id.ps, id.local_ece);
        if !self.config.cm.replies.connect {
            return Ok(());
        }
        let hears = |id: &IdData| {
            id.stage == Stage::Listening
                && id.ps == ps
                && id.src.is_some_and(|own| {
                    let ip = own.ip();
                    own.port() == dst.port() && (ip.is_unspecified() || ip == dst.ip())
                })
        };
        let listener = self.cm_ids().find(|(_, id)| hears(id)).map(|(listener, _)| listener);
        let Some(listener) = listener else {
            self.refuse(address, is_ud, (INVALID_SERVICE_ID, DATAGRAMS_UNSUPPORTED), Vec::new());
            return Ok(());
        };
        let event = CmEvent {
            event: ffi::RDMA_CM_EVENT_CONNECT_REQUEST,
            conn: swapped(conn),
            private_data,
            ece,
            ..CmEvent::default()
        };
        let request = Request { peer: Peer::Id(address), src: dst, dst: src };
        self.push_event(Queued { id: listener, event, request: Some(request), group: None });
        Ok(())
    }

    /// Tells an identifier that its request is refused.
    fn refuse(&mut self, address: usize, is_ud: bool, why: (c_int, c_int), data: Vec<u8>) {
        let len = if is_ud { DATAGRAMS_REPLY_LEN } else { REJECT_LEN };
        let (event, status) = match is_ud {
            true => (ffi::RDMA_CM_EVENT_UNREACHABLE, why.1),
            false => (ffi::RDMA_CM_EVENT_REJECTED, why.0),
        };
        let private_data = fit(data, len).unwrap_or_default();
        self.happen(address, CmEvent { event, status, private_data, ..CmEvent::default() }, None);
    }

    /// Accepts a request.
    pub(super) fn send_reply(
        &mut self,
        address: usize,
        conn: CmConn,
        private_data: Vec<u8>,
    ) -> Result<(), c_int> {
        let id = self.served(address)?;
        let is_ud = id.is_ud();
        let len = if is_ud { DATAGRAMS_REPLY_LEN } else { REPLY_LEN };
        let private_data = fit(private_data, len)?;
        let expected = (Stage::Connecting, Connection::RequestReceived);
        if (id.stage, id.connection) != expected || id.peer == Peer::Gone {
            return Err(libc::EINVAL);
        }
        id.conn = CmConn { retry_count: id.conn.retry_count, ..conn };
        id.reports = true;
        id.connection = if is_ud { Connection::Closed } else { Connection::ReplySent };
        let ece = (id.remote_ece.0, id.local_ece.1);
        let (peer, dst) = (id.peer, id.dst);
        let (Peer::Id(peer), true) = (peer, self.config.cm.replies.accept) else { return Ok(()) };
        let event = match is_ud {
            true => ffi::RDMA_CM_EVENT_ESTABLISHED,
            false => ffi::RDMA_CM_EVENT_CONNECT_RESPONSE,
        };
        let datagrams = CmDatagrams {
            ah_attr: self.way_to(dst),
            qp_num: conn.qp_num,
            qkey: ffi::RDMA_UDP_QKEY,
        };
        let mut conn = swapped(conn);
        conn.retry_count = 0;
        let event = CmEvent { event, conn, datagrams, private_data, ece, ..CmEvent::default() };
        self.happen(peer, event, None);
        Ok(())
    }

    /// Who has sent the request that an identifier came with.
    pub(super) fn client_of(&mut self, address: usize) -> Option<&mut IdData> {
        match self.cm_id(address)?.peer {
            Peer::Id(client) => self.cm_id(client),
            Peer::Test | Peer::Gone => None,
        }
    }

    /// The way to an address.
    pub(super) fn way_to(&self, addr: Option<SocketAddr>) -> ffi::ibv_ah_attr {
        let mut attr = ffi::ibv_ah_attr { is_global: 1, port_num: PORT, ..Default::default() };
        attr.grh.sgid_index = 1;
        attr.grh.hop_limit = 64;
        if let Some(addr) = addr {
            attr.grh.dgid = address::gid(addr.ip());
        }
        attr
    }

    /// Rejects a request, or a reply.
    pub(super) fn send_reject(
        &mut self,
        address: usize,
        reason: c_int,
        private_data: Vec<u8>,
    ) -> Result<(), c_int> {
        let id = self.served(address)?;
        let is_ud = id.is_ud();
        fit(private_data.clone(), if is_ud { DATAGRAMS_REPLY_LEN } else { REJECT_LEN })?;
        if matches!(id.connection, Connection::None | Connection::Established | Connection::Closed)
        {
            return Err(libc::EINVAL);
        }
        let peer = id.peer;
        (id.connection, id.peer) = (Connection::Closed, Peer::Gone);
        if let (Peer::Id(peer), true) = (peer, self.config.cm.replies.reject) {
            self.refuse(peer, is_ud, (reason, DATAGRAMS_REJECTED), private_data);
        }
        Ok(())
    }

    /// Tells the accepting side that the connection is established.
    pub(super) fn send_ready(&mut self, address: usize) -> Result<(), c_int> {
        let id = self.served(address)?;
        if id.connection != Connection::ReplyReceived {
            return Err(libc::EINVAL);
        }
        id.connection = Connection::Established;
        let peer = id.peer;
        if let (Peer::Id(peer), true) = (peer, self.config.cm.replies.establish) {
            self.happen_plain(peer, ffi::RDMA_CM_EVENT_ESTABLISHED);
        }
        Ok(())
    }

    /// Disconnects both sides. That there is no connection any more is no error.
    pub(super) fn send_disconnect(&mut self, address: usize) -> Result<(), c_int> {
        let id = self.served(address)?;
        let peer = id.peer;
        match id.connection {
            Connection::None => return Err(libc::EINVAL),
            Connection::Established => {}
            _ => return Ok(()),
        }
        id.connection = Connection::Closed;
        if !self.config.cm.replies.disconnect {
            return Ok(());
        }
        if let Peer::Id(peer) = peer {
            self.happen_plain(peer, ffi::RDMA_CM_EVENT_DISCONNECTED);
        }
        self.happen_plain(address, ffi::RDMA_CM_EVENT_DISCONNECTED);
        Ok(())
    }

    /// Before an identifier goes: the other end hears of it.
    pub(super) fn hang_up(&mut self, address: usize) {
        let replies = self.config.cm.replies;
        for request in self.requests().filter(|request| request.peer == Peer::Id(address)) {
            request.peer = Peer::Gone;
        }
        let Some(id) = self.cm_id(address) else { return };
        let (is_ud, connection) = (id.is_ud(), id.connection);
        let Peer::Id(peer) = std::mem::replace(&mut id.peer, Peer::Gone) else { return };
        match connection {
            Connection::Established if replies.disconnect => {
                self.happen_plain(peer, ffi::RDMA_CM_EVENT_DISCONNECTED);
            }
            Connection::RequestSent
            | Connection::RequestReceived
            | Connection::ReplySent
            | Connection::ReplyReceived
                if replies.reject =>
            {
                let why = (CONSUMER_DEFINED, DATAGRAMS_REJECTED);
                self.refuse(peer, is_ud, why, Vec::new());
            }
            _ => {}
        }
        if let Some(peer) = self.cm_id(peer) {
            peer.peer = Peer::Gone;
        }
    }

    /// A listener goes: requests that nobody has read are refused.
    pub(super) fn refuse_unread(&mut self, unread: Vec<Queued>) {
        for Request { peer, .. } in unread.into_iter().filter_map(|queued| queued.request) {
            self.cm.unread_requests += 1;
            let (Peer::Id(peer), true) = (peer, self.config.cm.replies.reject) else { continue };
            let is_ud = self.cm_id(peer).is_some_and(|id| id.is_ud());
            self.refuse(peer, is_ud, (CONSUMER_DEFINED, DATAGRAMS_REJECTED), Vec::new());
        }
    }
}
