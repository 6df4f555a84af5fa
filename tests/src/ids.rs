//! Identifiers of the connection manager, step by step.

use std::fmt::Debug;
use std::net::SocketAddr;

use ibverbs::rdmacm::{CmEvent, CmEventType, CmId, ConnectionParams, EventChannel, PortSpace, Tcp};
use ibverbs::{Rc, Transport};

use crate::device::Bed;
use crate::pair::{prepare, Prepared, Side};
use crate::wait::DEADLINE;

/// The address of the test device, with port 0; `None` if connections cannot be made there.
pub fn cm_address() -> Option<SocketAddr> {
    let gid = Bed::with_cm()?.gid().gid();
    let ip = gid.to_ipv4_mapped().expect("the tests' GID is one of IPv4");
    Some(SocketAddr::new(ip.into(), 0))
}

/// An identifier that listens on any free port of this address.
#[track_caller]
pub fn listening<P: PortSpace>(port_space: P, address: SocketAddr) -> CmId {
    listen(CmId::create(port_space).expect("no identifier"), address)
}

/// The same, on a channel that it shares.
#[track_caller]
pub fn listening_on<P: PortSpace>(
    channel: &EventChannel,
    port_space: P,
    address: SocketAddr,
) -> CmId {
    listen(CmId::create_on(channel, port_space).expect("no identifier"), address)
}

#[track_caller]
fn listen(mut id: CmId, address: SocketAddr) -> CmId {
    id.bind_addr(address).expect("cannot bind");
    id.listen(0).expect("cannot listen");
    id
}

/// The next event of an identifier.
#[track_caller]
pub fn next_event(id: &mut CmId) -> CmEvent {
    id.wait(Some(DEADLINE)).expect("the events cannot be read").expect("no event came in time")
}

/// The next event of a channel.
#[track_caller]
pub fn next_event_on(channel: &EventChannel) -> CmEvent {
    channel.wait(Some(DEADLINE)).expect("the events cannot be read").expect("no event in time")
}

/// The next event, which is of this type and tells of no failure.
#[track_caller]
pub fn expect_event(id: &mut CmId, event_type: CmEventType) -> CmEvent {
    let event = next_event(id);
    assert_eq!((event.event_type(), event.status()), (event_type, 0), "{event:?}");
    event
}

/// Checks that there is no event now.
#[track_caller]
pub fn assert_no_event(id: &mut CmId) {
    let event = id.poll_cm_event().expect("the events cannot be read");
    assert!(event.is_none(), "there should be no event: {event:?}");
}

/// An identifier that has its device and its route to a listener.
#[track_caller]
pub fn resolved<P: PortSpace>(port_space: P, to: SocketAddr) -> CmId {
    let mut id = CmId::create(port_space).expect("no identifier");
    resolve(&mut id, to);
    id
}

/// Resolves the address of a listener and the route to it.
#[track_caller]
pub fn resolve(id: &mut CmId, to: SocketAddr) {
    id.resolve_addr(None, to, DEADLINE).expect("the address cannot be resolved");
    expect_event(id, CmEventType::ADDR_RESOLVED);
    id.resolve_route(DEADLINE).expect("the route cannot be resolved");
    expect_event(id, CmEventType::ROUTE_RESOLVED);
}

/// Where an identifier listens.
#[track_caller]
pub fn place_of(listener: &CmId) -> SocketAddr {
    listener.local_addr().expect("it is bound")
}

/// A queue pair of the identifier's device.
#[track_caller]
pub fn prepare_for<T: Transport>(id: &CmId) -> Prepared<T> {
    let bed = Bed::on(id.context().expect("the identifier has a device"));
    prepare(&bed, |builder| builder.set_max_inline_data(64))
}

/// A client that has asked for a connection, and its queue pair; the request, and its event.
#[track_caller]
pub fn requested(
    listener: &mut CmId,
    params: ConnectionParams,
) -> ((CmId, Prepared<Rc>), (CmId, CmEvent)) {
    let mut client = resolved(Tcp, place_of(listener));
    let prepared = prepare_for(&client);
    client.connect(&params.for_queue_pair(&prepared.qp)).expect("cannot ask for a connection");
    let mut event = expect_event(listener, CmEventType::CONNECT_REQUEST);
    let request = event.take_request().expect("a request comes with an identifier");
    ((client, prepared), (request, event))
}

/// One end of a connection.
#[derive(Debug)]
pub struct End {
    /// Its identifier.
    pub id: CmId,
    /// Its queue pair.
    pub side: Side,
}

/// Makes an end with `bring_up`, which takes the queue pair.
#[track_caller]
fn brought_up(mut id: CmId, prepared: Prepared<Rc>) -> End {
    let Prepared { qp, send_cq, recv_cq, bed } = prepared;
    let qp = id.bring_up(qp).expect("the queue pair cannot be brought up");
    End { id, side: Side { qp, send_cq, recv_cq, bed } }
}

/// Accepts a request with a queue pair of its own. The peer has not confirmed yet.
#[track_caller]
pub fn accepted(request: CmId) -> End {
    let prepared = prepare_for(&request);
    let mut end = brought_up(request, prepared);
    let params = ConnectionParams::new().for_queue_pair(&end.side.qp);
    end.id.accept(&params).expect("cannot accept");
    end
}

/// Confirms a connection, when its response has come.
#[track_caller]
pub fn established(client: CmId, prepared: Prepared<Rc>) -> End {
    let mut end = brought_up(client, prepared);
    end.id.establish().expect("cannot confirm");
    end
}

/// Both ends of a connection: the client's, and the listener's.
#[track_caller]
pub fn ends(listener: &mut CmId) -> (End, End) {
    let ((mut client, prepared), (request, _)) = requested(listener, ConnectionParams::new());
    let mut server = accepted(request);
    expect_event(&mut client, CmEventType::CONNECT_RESPONSE);
    let client = established(client, prepared);
    expect_event(&mut server.id, CmEventType::ESTABLISHED);
    (client, server)
}

/// The error number of a call that is refused.
#[track_caller]
pub fn refused<R: Debug>(result: ibverbs::Result<R>) -> i32 {
    let error = result.expect_err("it should be refused");
    error.os_error().unwrap_or_else(|| panic!("there is no error number: {error}"))
}
