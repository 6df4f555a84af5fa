//! A connection is used by one thread at a time: it is sent to another, not shared.

use ibverbs::rdmacm::Connection;

fn send<T: Send>(_: T) {}

fn case(shared: Connection) {
    send(shared);
}

fn main() {}
