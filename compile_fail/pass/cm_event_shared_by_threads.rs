//! An event, which may bring an identifier, is used by one thread at a time: it is sent to another, not shared.

use ibverbs::rdmacm::CmEvent;

fn send<T: Send>(_: T) {}

fn case(shared: CmEvent) {
    send(shared);
}

fn main() {}
