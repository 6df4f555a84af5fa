//! The ports that identifiers have, by port space.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use ibverbs_sys as ffi;
use rustix::io::Errno;

use super::registry::Registry;
use crate::device::Result;
use crate::random::Random;

/// Who has what.
pub(super) struct Ports {
    bound: HashMap<(ffi::rdma_port_space, u16), Vec<Bound>>,
    random: Random,
    /// The number of the next one.
    next: u64,
}

/// An identifier that has a port.
struct Bound {
    number: u64,
    addr: IpAddr,
    how: Sharing,
}

/// What an identifier says about others at its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sharing {
    /// Others may be there, too, if all say so and none listens.
    pub(super) reuse: bool,
    /// The wildcard address does not stand for the other family.
    pub(super) family_only: bool,
}

/// A port that an identifier has, until this is dropped.
pub(super) struct Lease {
    registry: &'static Registry,
    space: ffi::rdma_port_space,
    pub(super) port: u16,
    number: u64,
}

/// The ports that are given to those who do not care.
const FIRST: u64 = 32_768;
const COUNT: u64 = 28_232;

impl Ports {
    pub(super) fn new() -> Ports {
        Ports { bound: HashMap::new(), random: Random::new(), next: 0 }
    }

    /// A port that nobody has.
    fn free(&mut self, space: ffi::rdma_port_space) -> Result<u16> {
        let first = self.random.next() % COUNT;
        let mut ports = (0..COUNT).map(|n| (FIRST + (first + n) % COUNT) as u16);
        ports.find(|port| !self.bound.contains_key(&(space, *port))).ok_or(Errno::ADDRNOTAVAIL)
    }

    /// Whether somebody may be at a port with the others that are.
    fn check(
        &self,
        at: (ffi::rdma_port_space, u16),
        number: u64,
        addr: IpAddr,
        how: Sharing,
    ) -> Result<()> {
        for other in self.bound.get(&at).into_iter().flatten() {
            let is_of_other_family = addr.is_ipv4() != other.addr.is_ipv4();
            if other.number == number
                || how.reuse && other.how.reuse
                || how.family_only && other.how.family_only && is_of_other_family
            {
                continue;
            }
            if addr.is_unspecified() || other.addr.is_unspecified() {
                return Err(Errno::ADDRNOTAVAIL);
            }
            if addr == other.addr {
                return Err(Errno::ADDRINUSE);
            }
        }
        Ok(())
    }
}

impl Lease {
    /// Gets the port of this address, or any if that is 0.
    pub(super) fn new(
        space: ffi::rdma_port_space,
        addr: SocketAddr,
        how: Sharing,
    ) -> Result<Lease> {
        let registry = Registry::of_this_process();
        let mut ports = registry.ports();
        let port = match addr.port() {
            0 => ports.free(space)?,
            port => port,
        };
        let number = ports.next;
        ports.check((space, port), number, addr.ip(), how)?;
        ports.next += 1;
        let bound = Bound { number, addr: addr.ip(), how };
        ports.bound.entry((space, port)).or_default().push(bound);
        Ok(Lease { registry, space, port, number })
    }

    /// Changes what is said about others; nothing is checked.
    pub(super) fn set_sharing(&self, how: Sharing) {
        let mut ports = self.registry.ports();
        let all = ports.bound.get_mut(&(self.space, self.port)).into_iter().flatten();
        for bound in all.filter(|bound| bound.number == self.number) {
            bound.how = how;
        }
    }

    /// Whether this is the only one at its port and address, as it must be to listen.
    pub(super) fn check_alone(&self, addr: IpAddr, how: Sharing) -> Result<()> {
        let how = Sharing { reuse: false, ..how };
        self.registry.ports().check((self.space, self.port), self.number, addr, how)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.registry.is_dead() {
            return;
        }
        let mut ports = self.registry.ports();
        let at = (self.space, self.port);
        if let Some(all) = ports.bound.get_mut(&at) {
            all.retain(|bound| bound.number != self.number);
            if all.is_empty() {
                ports.bound.remove(&at);
            }
        }
    }
}
