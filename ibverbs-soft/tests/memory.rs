//! Traffic of a device with itself, in memory.

#[allow(dead_code)]
mod c;
mod traffic;

use ibverbs_soft::Options;

fn options() -> Options {
    Options::default()
}
