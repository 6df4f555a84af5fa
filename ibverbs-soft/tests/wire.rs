//! The same traffic as in `memory.rs`, over the wire.

#[allow(dead_code)]
mod c;
mod traffic;

use ibverbs_soft::{Loopback, Options};

fn options() -> Options {
    Options { loopback: Loopback::Wire, ..Options::default() }
}
