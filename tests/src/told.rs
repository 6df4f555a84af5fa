//! What the environment tells the tests beside the device.

use std::env::{self, VarError};
use std::net::{SocketAddr, ToSocketAddrs};

use ibverbs::rdmacm::{Connector, PortSpace};

use crate::device::{promised, say_skipped};

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

/// From where to where connections go: addresses, as programs take them.
#[derive(Clone, Debug)]
pub struct Route {
    /// The address that the server listens on.
    pub server: String,
    /// The address that the client comes from, if it must be told.
    pub client: Option<String>,
}

impl Route {
    /// All that the tests were told of: from the device to itself, by each kind of address, and between two devices.
    pub fn all() -> Vec<Route> {
        let others = ["IBVERBS_TEST_ADDR6", "IBVERBS_TEST_LINK_LOCAL"].map(Route::to_itself);
        Route::ipv4().into_iter().chain(others.into_iter().flatten()).collect()
    }

    /// Those by addresses of IPv4: from the device to itself, and between two devices.
    pub fn ipv4() -> Vec<Route> {
        [Route::to_itself("IBVERBS_TEST_ADDR"), Route::between_devices()]
            .into_iter()
            .flatten()
            .collect()
    }

    fn to_itself(variable: &str) -> Option<Route> {
        told(variable).map(|server| Route { server, client: None })
    }

    fn between_devices() -> Option<Route> {
        let wire = told("IBVERBS_TEST_WIRE")?;
        let (server, client) = wire.split_once(',').expect("IBVERBS_TEST_WIRE has no comma");
        Some(Route { server: server.into(), client: Some(client.into()) })
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
