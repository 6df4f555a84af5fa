//! What the environment tells the tests beside the device.

use std::env::{self, VarError};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicU8, Ordering};

use ibverbs::rdmacm::{Connector, PortSpace};

use crate::device::{promised, say_skipped};
use crate::ids::cm_address;

/// What a variable of the environment says. `None` if it says nothing: the tests that need it are skipped then, with
/// a line that says so. Where a device was promised, it must be set, if only to nothing.
#[track_caller]
pub(crate) fn told(variable: &str) -> Option<String> {
    match env::var(variable) {
        Ok(value) if !value.is_empty() => return Some(value),
        Err(VarError::NotUnicode(value)) => panic!("{variable} is not UTF-8: {value:?}"),
        Err(VarError::NotPresent) if promised().is_some() => panic!(
            "{variable} is not set (see CONTRIBUTING.md; if it is empty, what needs it is skipped)"
        ),
        Ok(_) | Err(VarError::NotPresent) => {}
    }
    say_skipped(&format!("there is no {variable}"));
    None
}

/// What the other program is to the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// It asks.
    Client,
    /// It listens.
    Server,
}

/// From where to where connections go, of which the other program has one end: addresses, as programs take them.
#[derive(Clone, Debug)]
pub struct Route {
    /// The address that the server listens on.
    pub server: String,
    /// The address that the client comes from, if it must be told.
    pub client: Option<String>,
    /// The address of the software device that the other program has.
    pub(crate) device: Option<IpAddr>,
}

impl Route {
    /// All that the tests were told of: from the device to itself, by each kind of address, and between two devices. Between
    /// software devices there is one.
    pub fn all(peer: Peer) -> Vec<Route> {
        let mut routes = Route::ipv4(peer);
        if promised().is_some() {
            let others = ["IBVERBS_TEST_ADDR6", "IBVERBS_TEST_LINK_LOCAL"].map(Route::to_itself);
            routes.extend(others.into_iter().flatten());
        }
        routes
    }

    /// Those by addresses of IPv4: from the device to itself, and between two devices.
    pub fn ipv4(peer: Peer) -> Vec<Route> {
        if promised().is_none() {
            return vec![Route::between_processes(peer)];
        }
        [Route::to_itself("IBVERBS_TEST_ADDR"), Route::between_devices()]
            .into_iter()
            .flatten()
            .collect()
    }

    fn to_itself(variable: &str) -> Option<Route> {
        told(variable).map(|server| Route { server, client: None, device: None })
    }

    fn between_devices() -> Option<Route> {
        let wire = told("IBVERBS_TEST_WIRE")?;
        let (server, client) = wire.split_once(',').expect("IBVERBS_TEST_WIRE has no comma");
        Some(Route { server: server.into(), client: Some(client.into()), device: None })
    }

    /// Each process has a software device of its own. That of the other program has an address that no other one has.
    fn between_processes(peer: Peer) -> Route {
        static LAST: AtomicU8 = AtomicU8::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let [high, low] = (std::process::id() as u16).to_be_bytes();
        let other = IpAddr::from(Ipv4Addr::new(127, 0x80 | high, low, number));
        let own = cm_address().expect("software devices have the connection manager").ip();
        let (server, client) = match peer {
            Peer::Client => (own, other),
            Peer::Server => (other, own),
        };
        let (server, client) = (server.to_string(), Some(client.to_string()));
        Route { server, client, device: Some(other) }
    }

    /// The server's address, with a port.
    #[track_caller]
    pub fn server_addr(&self, port: u16) -> SocketAddr {
        address(&self.server, port)
    }

    /// The client's address, with any port.
    #[track_caller]
    pub fn client_addr(&self) -> Option<SocketAddr> {
        self.client.as_ref().map(|client| address(client, 0))
    }

    /// What connects from the client's address.
    #[track_caller]
    pub fn connector<P: PortSpace>(&self, port_space: P) -> Connector<P> {
        let connector = Connector::new(port_space);
        self.client_addr().map_or(connector, |client| connector.set_source(client))
    }
}

#[track_caller]
fn address(host: &str, port: u16) -> SocketAddr {
    let found = (host, port).to_socket_addrs();
    let found = found.unwrap_or_else(|error| panic!("{host} is no address: {error}"));
    found.into_iter().next().expect("a host that was found has an address")
}
