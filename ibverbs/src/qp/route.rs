//! Why the route to a peer could not be resolved.

use std::{fmt, io};

use crate::ah::AddressVector;
use crate::attr::{LinkLayer, PortState};
use crate::context::ContextInner;
use crate::gid::Gid;

/// Why the route to a remote port could not be resolved, as far as the addresses tell.
#[derive(Debug)]
pub struct RouteFailure {
    verb: &'static str,
    port: u8,
    gid_index: Option<u8>,
    local: Option<Gid>,
    remote: Option<Gid>,
    reason: &'static str,
    source: io::Error,
}

impl RouteFailure {
    /// Looks for the reason why `verb` failed with `code` for this address. `None` if nothing is wrong with
    /// the addresses.
    pub(crate) fn diagnose(
        context: &ContextInner,
        verb: &'static str,
        address: &AddressVector,
        code: i32,
    ) -> Option<RouteFailure> {
        let port = address.port;
        let from = Port::query(context, port);
        let gid_index = address.grh.map(|grh| grh.gid_index);
        let remote = address.grh.map(|grh| grh.dgid);
        let local = gid_index.and_then(|index| context.query_gid(port, u32::from(index)).ok());
        let reason = reason(from, local, remote, code)?;
        let source = io::Error::from_raw_os_error(code);
        Some(RouteFailure { verb, port, gid_index, local, remote, reason, source })
    }

    /// The local port.
    pub fn port(&self) -> u8 {
        self.port
    }

    /// The index of the local GID, if one is used.
    pub fn gid_index(&self) -> Option<u8> {
        self.gid_index
    }

    /// The local GID.
    pub fn local_gid(&self) -> Option<Gid> {
        self.local
    }

    /// The remote GID.
    pub fn remote_gid(&self) -> Option<Gid> {
        self.remote
    }

    /// What is wrong, in words.
    pub fn reason(&self) -> &'static str {
        self.reason
    }
}

/// What the reason may depend on of the local port.
#[derive(Clone, Copy)]
struct Port {
    active: bool,
    ethernet: bool,
}

impl Port {
    fn query(context: &ContextInner, port: u8) -> Port {
        match context.query_port(port) {
            Ok(attr) => Port {
                active: attr.state() == PortState::ACTIVE,
                ethernet: attr.link_layer() == LinkLayer::ETHERNET,
            },
            // Not the port's fault, as far as is known.
            Err(_) => Port { active: true, ethernet: false },
        }
    }
}

fn reason(from: Port, local: Option<Gid>, remote: Option<Gid>, code: i32) -> Option<&'static str> {
    let unreachable = matches!(
        code,
        libc::ENETUNREACH
            | libc::EHOSTUNREACH
            | libc::ETIMEDOUT
            | libc::ENODEV
            | libc::EADDRNOTAVAIL
    );
    // Of an empty entry of the GID table the kernel says ENODATA.
    if !(unreachable || matches!(code, libc::EINVAL | libc::ENODATA)) {
        return None;
    }
    if !from.active {
        return Some("the local port is down");
    }
    if from.ethernet && remote.is_none() {
        return Some("the port is one of Ethernet, where an address needs a global route");
    }
    if remote.is_some_and(is_unspecified) {
        return Some("the remote GID is the unspecified address, which is no port's");
    }
    if let (Some(local), Some(remote)) = (local, remote) {
        if local.is_reserved() {
            return Some("the local GID's table entry is empty: the address was removed");
        }
        if local.is_ipv4_mapped() != remote.is_ipv4_mapped() {
            return Some(
                "one GID is of an IPv4 address and the other is not: choose GIDs of one kind",
            );
        }
        if local.is_link_local() != remote.is_link_local() {
            return Some(
                "one GID is link-local and the other is not: choose a routable one on both sides",
            );
        }
    }
    match code {
        libc::ETIMEDOUT => Some("the remote address did not answer the neighbour discovery"),
        libc::ENODEV => Some("the local GID's network device is gone"),
        _ if unreachable => Some("there is no route to the remote address"),
        _ => None,
    }
}

fn is_unspecified(gid: Gid) -> bool {
    gid.is_reserved() || gid.to_ipv4_mapped().is_some_and(|address| address.is_unspecified())
}

impl fmt::Display for RouteFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |gid: Option<Gid>| gid.map_or("none".to_owned(), |gid| gid.to_string());
        write!(f, "{}: no route from port {}, ", self.verb, self.port)?;
        if let Some(index) = self.gid_index {
            write!(f, "GID index {index}, ")?;
        }
        write!(f, "GID {} to GID {}: {}", show(self.local), show(self.remote), self.reason)
    }
}

impl std::error::Error for RouteFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const UP: Port = Port { active: true, ethernet: true };
    const DOWN: Port = Port { active: false, ..UP };

    fn v4() -> Option<Gid> {
        Some(Gid::from(Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped()))
    }

    fn v6(address: &str) -> Option<Gid> {
        Some(Gid::from(address.parse::<Ipv6Addr>().unwrap()))
    }

    #[test]
    fn the_most_telling_reason_comes_first() {
        let einval = libc::EINVAL;
        assert_eq!(reason(DOWN, v4(), v4(), einval), Some("the local port is down"));
        assert!(reason(UP, v4(), v6("2001:db8::1"), einval).unwrap().contains("IPv4"));
        assert!(reason(UP, v6("fe80::1"), v6("2001:db8::1"), einval)
            .unwrap()
            .contains("link-local"));
        for code in [einval, libc::ENODATA] {
            assert!(reason(UP, v6("::"), v6("2001:db8::1"), code).unwrap().contains("empty"));
        }
        assert!(reason(UP, None, None, einval).unwrap().contains("needs a global route"));
        assert!(reason(UP, v4(), v6("::ffff:0.0.0.0"), libc::ENODEV)
            .unwrap()
            .contains("unspecified"));
        assert!(reason(UP, v4(), v6("::"), libc::EINVAL).unwrap().contains("unspecified"));
        assert!(reason(UP, v4(), v4(), libc::ENETUNREACH).unwrap().contains("no route"));
        assert!(reason(UP, v4(), v4(), libc::ETIMEDOUT).unwrap().contains("did not answer"));
        assert!(reason(UP, v4(), v4(), libc::ENODEV).unwrap().contains("device is gone"));
    }

    #[test]
    fn a_failure_tells_its_port() {
        let source = io::Error::from_raw_os_error(libc::ENODEV);
        let (verb, port, gid_index, reason) = ("ibv_create_ah", 2, Some(3), "reason");
        let (local, remote) = (v4(), v6("fe80::1"));
        let failure = RouteFailure { verb, port, gid_index, local, remote, reason, source };
        assert_eq!((failure.port(), failure.gid_index()), (2, Some(3)));
        assert_eq!((failure.local_gid(), failure.remote_gid()), (local, remote));
    }

    #[test]
    fn an_error_of_another_kind_is_no_route_failure() {
        assert_eq!(reason(UP, v4(), v4(), libc::EINVAL), None);
        let infiniband = Port { ethernet: false, ..UP };
        assert_eq!(reason(infiniband, None, None, libc::EINVAL), None);
        assert_eq!(reason(DOWN, v4(), v4(), libc::ENOMEM), None);
    }
}
