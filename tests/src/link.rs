//! Taking a port down, where that harms nobody.

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ibverbs::{Context, Gid, PortState};

use crate::ability::Ability;
use crate::device::{other_context, test_context_with, PORT};
use crate::wait::eventually;

/// The network interface under a device's port: a dummy one, which carries nobody's traffic. It comes back
/// up when this is dropped.
#[derive(Debug)]
pub struct Link {
    ctx: Context,
    interface: String,
    /// What taking it down takes away: the IPv6 addresses of its own, and the GIDs.
    addresses: Vec<String>,
    gids: Vec<Gid>,
    _one_at_a_time: MutexGuard<'static, ()>,
}

impl Link {
    /// Whether there is another device than that of `ctx`, on a dummy interface that this process may change.
    pub(crate) fn is_beside(ctx: &Context) -> bool {
        let (other, interface) = beside(ctx);
        let details = ip(&["-details", "link", "show", "dev", &interface]).unwrap_or_default();
        other.device().name() != ctx.device().name()
            && details.split_whitespace().any(|word| word == "dummy")
            && ip(&["link", "set", "dev", &interface, "up"]).is_some()
    }

    /// The link of another device than that of the tests, so that what runs on that one is not disturbed, with a context of
    /// it. `None`, with a line that says so, if the test device lacks [`Ability::PortDown`].
    pub fn beside() -> Option<Link> {
        static SERIAL: Mutex<()> = Mutex::new(());
        let serial = SERIAL.lock().unwrap_or_else(PoisonError::into_inner);
        let ctx = test_context_with([Ability::PortDown])?;
        let (other, interface) = beside(&ctx);
        let list = ip(&["-6", "-oneline", "address", "show", "scope", "global", "dev", &interface]);
        // As in `3: dummy1    inet6 fd07:1::1/64 scope global`.
        let addresses = list.iter().flat_map(|list| list.lines());
        let addresses = addresses.filter_map(|line| line.split_whitespace().nth(3));
        let addresses = addresses.map(str::to_owned).collect();
        let gids = gids(&other);
        Some(Link { ctx: other, interface, addresses, gids, _one_at_a_time: serial })
    }

    /// The device.
    pub fn ctx(&self) -> &Context {
        &self.ctx
    }

    /// Takes the link down.
    #[track_caller]
    pub fn down(&self) {
        assert!(self.set("down"), "{} does not go down", self.interface);
    }

    /// Brings the link up, and waits until the port is what it was.
    #[track_caller]
    pub fn up(&self) {
        assert!(self.restore(), "{} does not come up", self.interface);
        eventually("the port is active", || {
            self.ctx.query_port(PORT).is_ok_and(|port| port.state() == PortState::ACTIVE)
        });
        eventually("the port has its GIDs", || {
            let now = gids(&self.ctx);
            self.gids.iter().all(|gid| now.contains(gid))
        });
    }

    fn set(&self, state: &str) -> bool {
        ip(&["link", "set", "dev", &self.interface, state]).is_some()
    }

    fn restore(&self) -> bool {
        let add = |address| {
            ip(&["-6", "address", "replace", address, "dev", &self.interface, "nodad"]).is_some()
        };
        self.set("up") && self.addresses.iter().all(|address| add(address))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // A test that failed must not leave the port down.
        self.restore();
    }
}

/// The other device, and the network interface under its port.
fn beside(ctx: &Context) -> (Context, String) {
    let other = other_context(ctx);
    let gid = other.routable_gid(PORT).expect("the GIDs cannot be listed");
    let interface = gid.and_then(|gid| gid.netdev_name()).unwrap_or_default();
    (other, interface)
}

fn gids(ctx: &Context) -> Vec<Gid> {
    let table = ctx.gid_table().expect("the GIDs cannot be listed");
    table.iter().map(|entry| entry.gid()).collect()
}

/// What `ip` printed; `None` if it failed or is not installed.
fn ip(arguments: &[&str]) -> Option<String> {
    let output = Command::new("ip").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
