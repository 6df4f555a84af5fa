//! Connections that the connection manager sets up, both sides in one process.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::panic::resume_unwind;
use std::thread;

use ibverbs::rdmacm::{
    Acceptor, Connection, ConnectionParams, Connector, Incoming, PortSpace, Resolved, Tcp,
};
use ibverbs::{
    CompletionQueue, GidEntry, GidType, QueuePair, QueuePairBuilder, Rc, RecvRequest, SendBatch,
};

use crate::device::{Bed, PORT};
use crate::memory::pattern;
use crate::pair::{post_recv, submit, unconnected, Prepared};
use crate::wait::{wait_one, DEADLINE};

/// The addresses of the test device, with port 0: those of its GIDs that are addresses of IP.
pub fn local_addrs(bed: &Bed) -> Vec<SocketAddr> {
    let table = bed.ctx().gid_table().expect("the GIDs cannot be listed");
    let here = |entry: &&GidEntry| entry.port() == PORT && entry.gid_type() != GidType::ROCE_V1;
    table.iter().filter(here).map(address).collect()
}

/// The address of the entry that the tests send from, with port 0.
pub fn local_addr(bed: &Bed) -> SocketAddr {
    address(&bed.gid())
}

/// An address of IPv6 that needs no scope, with port 0.
pub fn local_ipv6(bed: &Bed) -> Option<SocketAddr> {
    local_addrs(bed).into_iter().find(|address| address.is_ipv6() && scope(address) == 0)
}

/// An address of IPv6 that is valid on one network only, with its scope and port 0.
pub fn local_link_local(bed: &Bed) -> Option<SocketAddr> {
    local_addrs(bed).into_iter().find(|address| scope(address) != 0)
}

/// The network that an address is valid on; 0 for all.
pub fn scope(address: &SocketAddr) -> u32 {
    match address {
        SocketAddr::V6(address) => address.scope_id(),
        SocketAddr::V4(_) => 0,
    }
}

fn address(entry: &GidEntry) -> SocketAddr {
    let gid = entry.gid();
    match gid.to_ipv4_mapped() {
        Some(ip) => SocketAddr::new(ip.into(), 0),
        None if gid.is_link_local() => {
            let scope = entry.netdev_index().expect("a GID without a network interface");
            SocketAddrV6::new(gid.into(), 0, 0, scope).into()
        }
        None => SocketAddr::new(IpAddr::V6(gid.into()), 0),
    }
}

/// Runs what the server does in a thread of its own, and here what the client does.
#[track_caller]
pub fn both<S: Send, C>(server: impl FnOnce() -> S + Send, client: impl FnOnce() -> C) -> (S, C) {
    thread::scope(|scope| {
        let server = scope.spawn(server);
        let client = client();
        (server.join().unwrap_or_else(|panic| resume_unwind(panic)), client)
    })
}

/// Listens on the address that the tests send from, and tells where that is.
#[track_caller]
pub fn listen<P: PortSpace>(port_space: P, bed: &Bed) -> (Acceptor<P>, SocketAddr) {
    listen_on(port_space, local_addr(bed))
}

/// Listens on an address, and tells where that is.
#[track_caller]
pub fn listen_on<P: PortSpace>(port_space: P, address: SocketAddr) -> (Acceptor<P>, SocketAddr) {
    let acceptor = Acceptor::bind(port_space, address).expect("cannot listen");
    let address = acceptor.local_addr().expect("a listener has an address");
    (acceptor, address)
}

/// Waits for a request.
#[track_caller]
pub fn next_request<P: PortSpace>(acceptor: &mut Acceptor<P>) -> Incoming<P> {
    acceptor.accept(Some(DEADLINE)).expect("cannot take a request").expect("no request came")
}

/// Finds the way to a listener.
#[track_caller]
pub fn resolve<P: PortSpace>(port_space: P, to: SocketAddr) -> Resolved<P> {
    Connector::new(port_space).resolve(to, DEADLINE).expect("cannot find the way to the listener")
}

/// A side of a connection, with completion queues of its own.
#[derive(Debug)]
pub struct End {
    /// The connection with its queue pair.
    pub connection: Connection,
    /// Where its sends complete.
    pub send_cq: CompletionQueue,
    /// Where its receives complete.
    pub recv_cq: CompletionQueue,
    /// What keeps the memory registered for longer than the queue pair, which stands above.
    pub bed: Bed,
}

impl End {
    /// The queue pair.
    pub fn qp(&mut self) -> &mut QueuePair<Rc> {
        &mut self.connection.queue_pair
    }
}

/// Connects a queue pair.
#[track_caller]
pub fn dial(resolved: Resolved<Tcp>, prepared: Prepared, params: &ConnectionParams) -> End {
    let Prepared { qp, send_cq, recv_cq, bed } = prepared;
    let connection = resolved.connect(qp, params, DEADLINE).expect("cannot connect");
    End { connection, send_cq, recv_cq, bed }
}

/// Accepts a request with a queue pair.
#[track_caller]
pub fn accept(incoming: Incoming<Tcp>, prepared: Prepared, params: &ConnectionParams) -> End {
    let Prepared { qp, send_cq, recv_cq, bed } = prepared;
    let connection = incoming.accept(qp, params, DEADLINE).expect("cannot accept");
    End { connection, send_cq, recv_cq, bed }
}

/// A side that is to be.
#[derive(Debug)]
pub struct Plan<F = fn(QueuePairBuilder<'_, Rc>) -> QueuePairBuilder<'_, Rc>> {
    setup: F,
    params: ConnectionParams,
}

impl Plan {
    /// One whose queue pair is built for nothing special.
    pub fn plain() -> Plan {
        Plan { setup: |builder| builder, params: ConnectionParams::new() }
    }
}

impl<F> Plan<F>
where
    F: for<'b> FnOnce(QueuePairBuilder<'b, Rc>) -> QueuePairBuilder<'b, Rc>,
{
    /// One of whose queue pair `setup` changes the builder.
    pub fn new(setup: F) -> Plan<F> {
        Plan { setup, params: ConnectionParams::new() }
    }

    /// What it asks for.
    pub fn with(self, params: ConnectionParams) -> Plan<F> {
        Plan { params, ..self }
    }

    /// Connects, with the context that the connection manager has opened, in a protection domain of its own.
    #[track_caller]
    pub fn dial(self, resolved: Resolved<Tcp>) -> End {
        let prepared = unconnected(&Bed::on(resolved.context().clone()), self.setup);
        dial(resolved, prepared, &self.params)
    }

    /// Accepts, with the context that the connection manager has opened, in a protection domain of its own.
    #[track_caller]
    pub fn accept(self, incoming: Incoming<Tcp>) -> End {
        let prepared = unconnected(&Bed::on(incoming.context().clone()), self.setup);
        accept(incoming, prepared, &self.params)
    }
}

/// Two sides that are connected to each other: the client, which has connected, and the server.
#[track_caller]
pub fn connected_as<C, S>(bed: &Bed, client: Plan<C>, server: Plan<S>) -> (End, End)
where
    C: for<'b> FnOnce(QueuePairBuilder<'b, Rc>) -> QueuePairBuilder<'b, Rc>,
    S: for<'b> FnOnce(QueuePairBuilder<'b, Rc>) -> QueuePairBuilder<'b, Rc> + Send,
{
    let (mut acceptor, to) = listen(Tcp, bed);
    let (server, client) = both(
        move || server.accept(next_request(&mut acceptor)),
        move || client.dial(resolve(Tcp, to)),
    );
    (client, server)
}

/// Two sides that are connected to each other: the client, which has connected, and the server.
#[track_caller]
pub fn connected(bed: &Bed) -> (End, End) {
    connected_as(bed, Plan::plain(), Plan::plain())
}

/// Checks that data goes both ways.
#[track_caller]
pub fn assert_connected(a: &mut End, b: &mut End) {
    transfer(a, b, 1);
    transfer(b, a, 2);
}

/// Sends a message from one side to the other, and checks that it arrives.
#[track_caller]
pub fn transfer(from: &mut End, to: &mut End, seed: u64) {
    const LEN: usize = 3000;
    let (source, sink) = (from.bed.mem(LEN), to.bed.mem(LEN));
    source.write(0, &pattern(LEN, seed));
    post_recv(to.qp(), [RecvRequest::new(seed, &[sink.slice(..)])]).expect("cannot post");
    let send = |batch: &mut SendBatch<'_, Rc>| {
        batch.op().signaled().send(seed, &[source.slice(..)]);
    };
    submit(from.qp(), send).expect("cannot post");
    assert_eq!(wait_one(&from.send_cq, seed).ok, Ok(()));
    assert_eq!(wait_one(&to.recv_cq, seed).ok, Ok(()));
    assert_eq!(sink.read(..), pattern(LEN, seed));
}
