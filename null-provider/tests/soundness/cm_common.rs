//! What tests of the connection manager need: identifiers, and both ends of a connection in one thread.

use std::net::SocketAddr;
use std::time::Duration;

use ibverbs::rdmacm::{
    CmEvent, CmEventType, CmId, ConnectionParams, EventChannel, PortSpace, Tcp, Udp,
};
use ibverbs::{Context, PreparedQueuePair, QueuePair, Rc, Transport};
use null_provider::{CmArgs, CmEvent as Raised, Verb};

use crate::common::Null;

/// Long enough.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// An address of a device.
pub(crate) fn address(device: usize) -> SocketAddr {
    ([10, 0, 0, 1 + device as u8], 7471).into()
}

/// Some group.
pub(crate) fn group(number: u8) -> SocketAddr {
    ([239, 7, 7, number], 0).into()
}

/// The next event of the identifier, which is there and of this kind.
#[track_caller]
pub(crate) fn next(id: &mut CmId, event_type: CmEventType) -> CmEvent {
    let event = id.poll_cm_event().unwrap().expect("an event");
    assert_eq!(event.event_type(), event_type);
    event
}

/// The same of a channel.
#[track_caller]
pub(crate) fn next_on(channel: &EventChannel, event_type: CmEventType) -> CmEvent {
    let event = channel.poll_cm_event().unwrap().expect("an event");
    assert_eq!(event.event_type(), event_type);
    event
}

/// Lets something happen to an identifier.
pub(crate) fn raise(null: &Null, id: &CmId, event: Raised) {
    null.cm_event(id.as_raw(), event);
}

/// An event of this kind, of which nothing else is said.
pub(crate) fn plain(event_type: CmEventType) -> Raised {
    Raised { event: event_type.0, ..Raised::default() }
}

/// Bound to an address of this device.
pub(crate) fn bound(port_space: impl PortSpace, device: usize) -> CmId {
    let mut id = CmId::create(port_space).unwrap();
    id.bind_addr(SocketAddr::new(address(device).ip(), 0)).unwrap();
    id
}

pub(crate) fn listening(port_space: impl PortSpace, device: usize) -> CmId {
    let mut id = CmId::create(port_space).unwrap();
    id.bind_addr(address(device)).unwrap();
    id.listen(0).unwrap();
    id
}

/// On the way to a listener on this device.
pub(crate) fn resolved(port_space: impl PortSpace, device: usize) -> CmId {
    let mut id = CmId::create(port_space).unwrap();
    id.resolve_addr(None, address(device), TIMEOUT).unwrap();
    next(&mut id, CmEventType::ADDR_RESOLVED);
    id.resolve_route(TIMEOUT).unwrap();
    next(&mut id, CmEventType::ROUTE_RESOLVED);
    id
}

/// A queue pair that is to be connected, of this context.
pub(crate) fn prepared<T: Transport>(ctx: &Context) -> PreparedQueuePair<T> {
    let (pd, cq) = (ctx.alloc_pd().unwrap(), ctx.create_cq(4).build().unwrap());
    pd.create_qp::<T>(&cq, &cq, 1).unwrap().build().unwrap()
}

/// One of the identifier's own context.
pub(crate) fn prepared_for<T: Transport>(id: &CmId) -> PreparedQueuePair<T> {
    prepared(&id.context().unwrap())
}

/// Takes the identifier of a connection request.
#[track_caller]
pub(crate) fn request(listener: &mut CmId) -> CmId {
    next(listener, CmEventType::CONNECT_REQUEST).take_request().expect("a request")
}

/// A listener, and who asks it for a connection.
pub(crate) struct Asked {
    pub(crate) listener: CmId,
    pub(crate) client: CmId,
    pub(crate) client_qp: PreparedQueuePair<Rc>,
}

pub(crate) fn asked() -> Asked {
    let listener = listening(Tcp, 0);
    let mut client = resolved(Tcp, 0);
    let client_qp = prepared_for(&client);
    client.connect(&ConnectionParams::new().for_queue_pair(&client_qp)).unwrap();
    Asked { listener, client, client_qp }
}

/// The same of datagrams.
pub(crate) fn asked_for_datagrams() -> (CmId, CmId) {
    let listener = listening(Udp, 0);
    let mut client = resolved(Udp, 0);
    client.connect(&ConnectionParams::new()).unwrap();
    (listener, client)
}

/// Both ends of a connection.
pub(crate) struct Ends {
    pub(crate) listener: CmId,
    pub(crate) client: CmId,
    pub(crate) client_qp: QueuePair<Rc>,
    pub(crate) server: CmId,
    pub(crate) server_qp: QueuePair<Rc>,
}

pub(crate) fn ends() -> Ends {
    let Asked { mut listener, mut client, client_qp } = asked();
    let mut server = request(&mut listener);
    let server_qp = server.bring_up(prepared_for::<Rc>(&server)).unwrap();
    server.accept(&ConnectionParams::new().for_queue_pair(&server_qp)).unwrap();
    next(&mut client, CmEventType::CONNECT_RESPONSE);
    let client_qp = client.bring_up(client_qp).unwrap();
    client.establish().unwrap();
    next(&mut server, CmEventType::ESTABLISHED);
    Ends { listener, client, client_qp, server, server_qp }
}

/// A member of a group, which has heard that it is.
pub(crate) fn member(number: u8) -> CmId {
    let mut id = bound(Udp, 0);
    id.join_multicast(group(number), Default::default()).unwrap();
    next(&mut id, CmEventType::MULTICAST_JOIN);
    id
}

impl Null {
    /// The arguments of the last call of this function since the last look, if there was one.
    pub(crate) fn args(&self, verb: Verb) -> Option<CmArgs> {
        let calls = self.take_cm_calls().into_iter();
        calls.rev().find(|call| call.verb == verb).map(|call| call.args)
    }
}
