//! Taking a port down, where that harms nobody.

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ibverbs::{Context, Gid, PortState};

use crate::device::{other_context, say_skipped, PORT};
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
    /// The link of another device than `ctx`, so that what runs on that one is not disturbed, with a context
    /// of it. `None`, with a line that says so, if there is no other device, its interface is no dummy one,
    /// or this process may not change it.
    pub fn beside(ctx: &Context) -> Option<Link> {
        static SERIAL: Mutex<()> = Mutex::new(());
        let serial = SERIAL.lock().unwrap_or_else(PoisonError::into_inner);
        let other = other_context(ctx);
        if other.device().name() == ctx.device().name() {
            return skip("there is one device only");
        }
        let gid = other.routable_gid(PORT).expect("the GIDs cannot be listed");
        let interface = gid.and_then(|gid| gid.netdev_name()).unwrap_or_default();
        let details = ip(&["-details", "link", "show", "dev", &interface]).unwrap_or_default();
        if !details.split_whitespace().any(|word| word == "dummy") {
            return skip(&format!("{other:?} is on {interface:?}, which is no dummy interface"));
        }
        if ip(&["link", "set", "dev", &interface, "up"]).is_none() {
            return skip(&format!("{interface} may not be changed"));
        }
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

fn skip(reason: &str) -> Option<Link> {
    say_skipped(&format!("no port goes down, {reason}"));
    None
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
