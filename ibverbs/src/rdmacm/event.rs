//! Events of the connection manager, as values.

use std::fmt;
use std::ptr::NonNull;

use super::channel::EventChannel;
use super::failure::{ConnectionFailure, DatagramRefusal, RejectReason};
use super::id::CmId;
use super::params::{DatagramPeer, PeerParams};
use crate::c_enum::c_enum;
use crate::error::Error;
use crate::ffi;

c_enum! {
    /// What happened (`enum rdma_cm_event_type`).
    #[doc(alias = "rdma_cm_event_type")]
    #[doc(alias = "rdma_event_str")]
    pub struct CmEventType: u32 {
        /// The address is resolved: the identifier has a device, and the route can be resolved.
        ADDR_RESOLVED = ffi::RDMA_CM_EVENT_ADDR_RESOLVED, "ADDR_RESOLVED";
        /// The address could not be resolved.
        ADDR_ERROR = ffi::RDMA_CM_EVENT_ADDR_ERROR, "ADDR_ERROR";
        /// The route is resolved: a connection can be asked for.
        ROUTE_RESOLVED = ffi::RDMA_CM_EVENT_ROUTE_RESOLVED, "ROUTE_RESOLVED";
        /// The route could not be resolved.
        ROUTE_ERROR = ffi::RDMA_CM_EVENT_ROUTE_ERROR, "ROUTE_ERROR";
        /// A peer asks the listening identifier for a connection. It comes with an identifier of its own.
        CONNECT_REQUEST = ffi::RDMA_CM_EVENT_CONNECT_REQUEST, "CONNECT_REQUEST";
        /// The peer accepted: bring the queue pair up, and confirm with [`CmId::establish`].
        CONNECT_RESPONSE = ffi::RDMA_CM_EVENT_CONNECT_RESPONSE, "CONNECT_RESPONSE";
        /// The connection could not be set up.
        CONNECT_ERROR = ffi::RDMA_CM_EVENT_CONNECT_ERROR, "CONNECT_ERROR";
        /// The peer did not answer; of datagrams also that it refused. Of a connection that stands, that the peer's hardware
        /// address has changed (Linux 6.0 and newer): it should be dropped.
        UNREACHABLE = ffi::RDMA_CM_EVENT_UNREACHABLE, "UNREACHABLE";
        /// The peer refused.
        REJECTED = ffi::RDMA_CM_EVENT_REJECTED, "REJECTED";
        /// The connection stands; of datagrams, that the peer told its queue pair.
        ESTABLISHED = ffi::RDMA_CM_EVENT_ESTABLISHED, "ESTABLISHED";
        /// The connection is over. If the peer ended it, [`CmId::disconnect`] answers.
        DISCONNECTED = ffi::RDMA_CM_EVENT_DISCONNECTED, "DISCONNECTED";
        /// The device is being removed. Nothing of it can be used any more.
        DEVICE_REMOVAL = ffi::RDMA_CM_EVENT_DEVICE_REMOVAL, "DEVICE_REMOVAL";
        /// The multicast group is joined.
        MULTICAST_JOIN = ffi::RDMA_CM_EVENT_MULTICAST_JOIN, "MULTICAST_JOIN";
        /// The multicast group could not be joined, or the membership was lost.
        MULTICAST_ERROR = ffi::RDMA_CM_EVENT_MULTICAST_ERROR, "MULTICAST_ERROR";
        /// The network device of the address changed its hardware address, as bonding does.
        ADDR_CHANGE = ffi::RDMA_CM_EVENT_ADDR_CHANGE, "ADDR_CHANGE";
        /// No packets of the old connection can arrive any more: its queue pair may be used again.
        TIMEWAIT_EXIT = ffi::RDMA_CM_EVENT_TIMEWAIT_EXIT, "TIMEWAIT_EXIT";
        /// Addresses are resolved by `rdma_resolve_addrinfo`, which is not wrapped here.
        ADDRINFO_RESOLVED = ffi::RDMA_CM_EVENT_ADDRINFO_RESOLVED, "ADDRINFO_RESOLVED";
        /// Addresses could not be resolved by `rdma_resolve_addrinfo`, which is not wrapped here.
        ADDRINFO_ERROR = ffi::RDMA_CM_EVENT_ADDRINFO_ERROR, "ADDRINFO_ERROR";
        /// An event that the program wrote itself with `rdma_write_cm_event`, which is not wrapped here.
        USER = ffi::RDMA_CM_EVENT_USER, "USER";
    }
}

/// An event of the connection manager.
///
/// It is a copy, acknowledged already, and refers to nothing: the identifier that it is of may be gone by now.
/// Dropping the event of a connection request whose [identifier](Self::take_request) was not taken rejects the
/// request.
#[doc(alias = "rdma_cm_event")]
pub struct CmEvent {
    report: Report,
    context: u64,
    peer: Peer,
    request: Option<CmId>,
}

/// What an event says of how something ended.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) event_type: CmEventType,
    pub(super) status: i32,
    pub(super) private_data: Vec<u8>,
}

impl Report {
    pub(super) fn reject_reason(&self) -> Option<RejectReason> {
        (self.event_type == CmEventType::REJECTED && self.status > 0)
            .then_some(RejectReason(self.status))
    }

    pub(super) fn datagram_refusal(&self) -> Option<DatagramRefusal> {
        (self.event_type == CmEventType::UNREACHABLE && self.status > 0)
            .then_some(DatagramRefusal(self.status))
    }
}

/// What an event tells of the peer, beside its private data.
#[derive(Clone, Copy, Debug)]
enum Peer {
    None,
    Connection(PeerParams),
    Datagram(DatagramPeer),
}

impl CmEvent {
    /// What happened.
    pub fn event_type(&self) -> CmEventType {
        self.report.event_type
    }

    /// Zero, or why: a negative error number, or with [`REJECTED`](CmEventType::REJECTED) and
    /// [`UNREACHABLE`](CmEventType::UNREACHABLE) perhaps a positive reason of the transport.
    pub fn status(&self) -> i32 {
        self.report.status
    }

    /// What the identifier was given with [`CmId::set_context`]. With a connection request, that is the listening one.
    pub fn context(&self) -> u64 {
        self.context
    }

    /// Why the peer rejected the connection, if it did.
    pub fn reject_reason(&self) -> Option<RejectReason> {
        self.report.reject_reason()
    }

    /// Why the peer did not tell a queue pair for datagrams, if it answered so.
    pub fn datagram_refusal(&self) -> Option<DatagramRefusal> {
        self.report.datagram_refusal()
    }

    /// What the peer offers and asks for, with a connection request or response.
    pub fn connection(&self) -> Option<PeerParams> {
        match self.peer {
            Peer::Connection(params) => Some(params),
            _ => None,
        }
    }

    /// The peer's queue pair of datagrams and the way to it, with [`ESTABLISHED`](CmEventType::ESTABLISHED); or the
    /// multicast group, with [`MULTICAST_JOIN`](CmEventType::MULTICAST_JOIN).
    pub fn datagram(&self) -> Option<DatagramPeer> {
        match self.peer {
            Peer::Datagram(peer) => Some(peer),
            _ => None,
        }
    }

    /// What the peer sent along, with a request, its answer or its refusal; else empty.
    ///
    /// InfiniBand and RoCE do not carry its length: it is filled up with zeros to what such a message can carry, also if the
    /// peer sent nothing.
    pub fn private_data(&self) -> &[u8] {
        &self.report.private_data
    }

    /// The identifier of a connection request, to [`accept`](CmId::accept) or [`reject`](CmId::reject) it. It is
    /// there once, with [`CONNECT_REQUEST`](CmEventType::CONNECT_REQUEST).
    ///
    /// It is on the listening identifier's channel, if that is a shared one; else it has a channel of its own.
    pub fn take_request(&mut self) -> Option<CmId> {
        self.request.take()
    }

    /// The error of what was tried, if this event is not what it should have ended with. `step` says what that was, and
    /// completes "cannot ...".
    ///
    /// ```no_run
    /// # use ibverbs::rdmacm::{CmEvent, CmEventType, CmId};
    /// # fn next(id: &CmId, event: CmEvent) -> ibverbs::Result<()> {
    /// match event.event_type() {
    ///     CmEventType::CONNECT_RESPONSE => Ok(()),
    ///     _ => Err(event.into_error("connect", id)),
    /// }
    /// # }
    /// ```
    pub fn into_error(self, step: &'static str, id: &CmId) -> Error {
        let failure = ConnectionFailure::new(step, id.peer_addr(), self.report);
        Error::Connection(Box::new(failure))
    }

    pub(super) fn request_mut(&mut self) -> Option<&mut CmId> {
        self.request.as_mut()
    }
}

impl fmt::Display for CmEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.report.fmt(f)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.event_type.fmt(f)?;
        if let Some(reason) = self.reject_reason() {
            return write!(f, ": {reason}");
        }
        if let Some(refusal) = self.datagram_refusal() {
            return write!(f, ": {refusal}");
        }
        match self.status {
            0 => Ok(()),
            ..0 => {
                write!(f, ": {}", std::io::Error::from_raw_os_error(self.status.saturating_neg()))
            }
            status => write!(f, ": status {status}"),
        }
    }
}

impl fmt::Debug for CmEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CmEvent")
            .field("report", &self.report)
            .field("context", &self.context)
            .field("peer", &self.peer)
            .field("request", &self.request)
            .finish()
    }
}

/// An event that librdmacm returned and that is not acknowledged yet.
pub(super) struct RawEvent(NonNull<ffi::rdma_cm_event>);

impl RawEvent {
    /// # Safety
    ///
    /// `event` came from `rdma_get_cm_event`, which has reported success, and was not acknowledged; its
    /// identifiers are alive, and it is the caller's turn to use them until this is acknowledged.
    pub(super) unsafe fn new(event: *mut ffi::rdma_cm_event) -> RawEvent {
        // SAFETY: a successful `rdma_get_cm_event` stored a pointer to an event (rdma_get_cm_event(3)).
        RawEvent(unsafe { NonNull::new_unchecked(event) })
    }

    /// Copies the event out, and acknowledges it before anybody sees it. `channel` is where it came from.
    pub(super) fn copy_and_acknowledge(self, channel: &EventChannel) -> CmEvent {
        // SAFETY: the event is not acknowledged, so that it is there, and nobody writes to it.
        let raw = unsafe { self.0.as_ref() };
        let (event_type, status) = (CmEventType(raw.event), status(raw.status));
        // With a connection request, `id` is the new one.
        let subject = if raw.listen_id.is_null() { raw.id } else { raw.listen_id };
        // SAFETY: the identifier of an event that is not acknowledged is alive, and nobody else uses it now.
        let context = unsafe { (*subject).context } as u64;
        // SAFETY: as above.
        let is_datagram = unsafe { (*subject).qp_type } == ffi::IBV_QPT_UD;
        let (peer, private_data) = copy_params(raw, event_type, is_datagram);
        let event = CmEvent {
            report: Report { event_type, status, private_data },
            context,
            peer,
            request: (event_type == CmEventType::CONNECT_REQUEST).then(|| {
                // SAFETY: librdmacm has made this identifier for the request, of this channel, and leaves it to
                // whoever takes the event (rdma_get_cm_event(3)). That is here, once.
                unsafe { CmId::from_request(raw.id, channel) }
            }),
        };
        // SAFETY: the event came from `rdma_get_cm_event` and is acknowledged once, as self is consumed. The
        // borrow of it has ended, and what it pointed to was copied.
        unsafe { ffi::rdma_ack_cm_event(self.0.as_ptr()) };
        event
    }
}

/// The status of an event that was taken just now. Where librdmacm has failed itself, it is -1, and the reason in `errno`.
fn status(status: i32) -> i32 {
    match (status, std::io::Error::last_os_error().raw_os_error()) {
        (-1, Some(errno @ 1..)) => -errno,
        _ => status,
    }
}

/// Copies what the event says of the peer. Which member of the union that is depends on the kind of the event
/// and of the identifier (`rdma_get_cm_event` in librdmacm/cma.c).
fn copy_params(
    raw: &ffi::rdma_cm_event,
    event_type: CmEventType,
    is_datagram: bool,
) -> (Peer, Vec<u8>) {
    match event_type {
        CmEventType::MULTICAST_JOIN => {
            // SAFETY: librdmacm has filled this member of the union, which is numbers and a pointer.
            let ud = unsafe { raw.param.ud };
            // Its pointer to private data is the context of the membership, and no data.
            (Peer::Datagram(DatagramPeer::from_raw(&ud)), Vec::new())
        }
        // A rejection is told as one of a connection even of datagrams.
        CmEventType::CONNECT_REQUEST
        | CmEventType::ESTABLISHED
        | CmEventType::UNREACHABLE
        | CmEventType::CONNECT_ERROR
            if is_datagram =>
        {
            // SAFETY: as above.
            let ud = unsafe { raw.param.ud };
            // SAFETY: librdmacm has set the two, and the event is not acknowledged.
            let data = unsafe { copy_private_data(ud.private_data.cast(), ud.private_data_len) };
            let is_peer = event_type == CmEventType::ESTABLISHED;
            (if is_peer { Peer::Datagram(DatagramPeer::from_raw(&ud)) } else { Peer::None }, data)
        }
        CmEventType::CONNECT_REQUEST
        | CmEventType::CONNECT_RESPONSE
        | CmEventType::CONNECT_ERROR
        | CmEventType::UNREACHABLE
        | CmEventType::REJECTED
        | CmEventType::ESTABLISHED
        | CmEventType::DISCONNECTED => {
            // SAFETY: as above.
            let conn = unsafe { raw.param.conn };
            // SAFETY: librdmacm has set the two, and the event is not acknowledged.
            let data =
                unsafe { copy_private_data(conn.private_data.cast(), conn.private_data_len) };
            let is_offer =
                matches!(event_type, CmEventType::CONNECT_REQUEST | CmEventType::CONNECT_RESPONSE);
            (
                if is_offer { Peer::Connection(PeerParams::from_raw(&conn)) } else { Peer::None },
                data,
            )
        }
        _ => (Peer::None, Vec::new()),
    }
}

/// # Safety
///
/// `data` is null, or points to `len` bytes that nobody writes to.
unsafe fn copy_private_data(data: *const u8, len: u8) -> Vec<u8> {
    if data.is_null() {
        return Vec::new();
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(data, usize::from(len)) }.to_vec()
}
