//! A port space is what the crate says it is.

use ibverbs::rdmacm::{ConnectedSpace, Udp};

struct Mine<P: ConnectedSpace>(P, Udp);

fn main() {}
