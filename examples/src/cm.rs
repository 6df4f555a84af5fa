//! What the examples share that connect through the connection manager.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure, Context as _, Result};
use ibverbs::rdmacm::{Connection, Connector, EventChannel, Resolved, Tcp};
use ibverbs::{CompletionQueue, WorkCompletion};

use crate::device::choose_provider;

/// How long to wait for a peer that does not answer, or a completion that does not come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long finding the way to a peer may take, and its answer.
pub const SET_UP: Duration = Duration::from_secs(5);

/// How often whoever waits for completions looks whether the peer is still there.
const ROUND: Duration = Duration::from_millis(100);

/// Why nothing more completes, if the peer has ended the connection.
const ENDED: &str = "the peer has ended the connection: look at what it said";

/// The options that say who connects to whom.
#[derive(clap::Args)]
pub struct Addresses {
    /// Local address: a server listens on it, a client connects from it [default: any]
    #[arg(short, long, value_name = "ADDRESS")]
    bind: Option<String>,

    /// Port of the server
    #[arg(short, long, default_value_t = 7471)]
    port: u16,

    /// Name or address of the server; without it, this is the server
    server: Option<String>,
}

impl Addresses {
    /// Whether this process is to be the server.
    pub fn is_server(&self) -> bool {
        self.server.is_none()
    }

    /// Does with the server's address what makes it listen, and says where it does.
    pub fn listen<R>(&self, listen: impl Fn(SocketAddr) -> ibverbs::Result<R>) -> Result<R> {
        choose_provider()?;
        let port = self.port;
        let addresses = match &self.bind {
            // Not every machine has IPv6; one that has takes IPv4 clients with it as well.
            None => {
                vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()]
            }
            Some(host) => look_up(host, port)?,
        };
        let mut result = Err(None);
        for address in addresses {
            result = listen(address).map_err(Some);
            if result.is_ok() {
                println!("listening on {address}");
                break;
            }
        }
        result.map_err(|error| match error {
            Some(error) => error.into(),
            None => anyhow!("there is no address to listen on"),
        })
    }

    /// Where a client connects to, and from, if that matters.
    pub fn route(&self) -> Result<Route> {
        choose_provider()?;
        let host = self.server.as_deref().context("no server is named")?;
        let source = match &self.bind {
            Some(host) => look_up(host, 0)?.first().copied(),
            None => None,
        };
        let peers = look_up(host, self.port)?;
        // Both must be of IPv4, or of IPv6.
        let is_alike = |peer: &&SocketAddr| source.is_none_or(|s| s.is_ipv4() == peer.is_ipv4());
        let peer = peers.iter().find(is_alike);
        let peer = *peer.with_context(|| format!("{host} has no address of the kind of --bind"))?;
        Ok(Route { source, peer })
    }
}

/// Opens an event channel.
pub fn event_channel() -> Result<EventChannel> {
    choose_provider()?;
    Ok(EventChannel::create()?)
}

/// Where a client connects to, and from where.
#[derive(Clone, Copy)]
pub struct Route {
    /// The local address, if it matters.
    pub source: Option<SocketAddr>,
    /// The server's address.
    pub peer: SocketAddr,
}

impl Route {
    /// What connects from there.
    pub fn connector(&self) -> Connector<Tcp> {
        let connector = Connector::new(Tcp);
        match self.source {
            Some(source) => connector.set_source(source),
            None => connector,
        }
    }

    /// Finds the device that leads to the server.
    pub fn resolve(&self) -> Result<Resolved<Tcp>> {
        Ok(self.connector().resolve(self.peer, SET_UP)?)
    }
}

/// The addresses of a host, with a port.
fn look_up(host: &str, port: u16) -> Result<Vec<SocketAddr>> {
    let addresses = (host, port).to_socket_addrs();
    let addresses: Vec<_> = addresses.with_context(|| format!("cannot look up {host}"))?.collect();
    ensure!(!addresses.is_empty(), "{host} has no address of IP");
    Ok(addresses)
}

/// An address that may be unknown, to be printed.
pub fn show(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| "an unknown address".into(), |address| address.to_string())
}

/// The text in private data, which is filled up with zeros.
pub fn text(private_data: &[u8]) -> String {
    let end = private_data.iter().position(|&byte| byte == 0).unwrap_or(private_data.len());
    printable(&String::from_utf8_lossy(&private_data[..end]))
}

/// What a peer says, without what would do something to a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// That a connection could not be set up; with what the peer said, if it rejected with a text.
pub fn explain(error: impl Into<ibverbs::Error>) -> anyhow::Error {
    let error = error.into();
    let said = match &error {
        ibverbs::Error::Connection(failure) => text(failure.private_data()),
        _ => String::new(),
    };
    match said.as_str() {
        "" => error.into(),
        said => anyhow::Error::new(error).context(format!("the peer says: {said}")),
    }
}

/// The clients that a server has served.
#[derive(Default)]
pub struct Served {
    clients: u32,
    failed: u32,
}

impl Served {
    /// How many there were.
    pub fn clients(&self) -> u32 {
        self.clients
    }

    /// One more, and what came of it.
    pub fn add(&mut self, peer: &str, result: Result<String>) {
        self.clients += 1;
        match result {
            Ok(summary) => println!("{peer}: {summary}"),
            Err(error) => {
                self.failed += 1;
                eprintln!("{peer}: {error:#}");
            }
        }
    }

    /// An error if any of them failed.
    pub fn result(&self) -> Result<()> {
        ensure!(self.failed == 0, "{} of {} clients failed", self.failed, self.clients);
        Ok(())
    }
}

/// Waits until something has completed, and passes each completion to `each`. The queue has a channel of its own.
///
/// It is an error if a request failed, if the connection has ended, or if nothing completes within `patience`.
pub fn wait_connected(
    connection: &mut Connection,
    cq: &CompletionQueue,
    patience: Duration,
    mut each: impl FnMut(&WorkCompletion<'_>) -> Result<()>,
) -> Result<()> {
    let start = Instant::now();
    loop {
        let ended = connection.poll_disconnected()?;
        // What arrived before the end is there now.
        if let Some(mut completions) = cq.wait(Some(if ended { Duration::ZERO } else { ROUND }))? {
            let mut is_first = true;
            while let Some(completion) = completions.next() {
                match completion.ok() {
                    Ok(()) => each(&completion)?,
                    // That there is nothing more is told the next time: what came may have been all.
                    Err(_) if ended && !is_first => break,
                    Err(error) => {
                        let ended = connection.wait_disconnected(Some(ROUND))?;
                        let why = if ended { ENDED } else { "a work request failed" };
                        return Err(anyhow::Error::new(error).context(why));
                    }
                }
                is_first = false;
            }
            return Ok(());
        }
        ensure!(!ended, ENDED);
        ensure!(start.elapsed() < patience, "nothing completed for {patience:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_ends_with_the_zeros_and_has_no_control_characters() {
        assert_eq!(text(b"version 1\0\0"), "version 1");
        assert_eq!(text(b"\x1b[2J\xff"), "\u{fffd}[2J\u{fffd}");
        assert_eq!(text(&[]), "");
    }
}
