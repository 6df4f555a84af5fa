//! A way to a listener is used by one thread at a time: it is sent to another, not shared.

use ibverbs::rdmacm::{Resolved, Tcp};

fn send<T: Send>(_: T) {}

fn case(shared: Resolved<Tcp>) {
    send(shared);
}

fn main() {}
