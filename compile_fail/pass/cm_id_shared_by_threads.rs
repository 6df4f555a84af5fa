//! An identifier is used by one thread at a time: it is sent to another, not shared.

use ibverbs::rdmacm::CmId;

fn send<T: Send>(_: T) {}

fn case(shared: CmId) {
    send(shared);
}

fn main() {}
