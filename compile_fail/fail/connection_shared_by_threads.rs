//! A connection is used by one thread at a time: it is sent to another, not shared.
//~ error[E0277]: `NonNull<rdma_cm_id>` cannot be shared between threads safely

use ibverbs::rdmacm::Connection;

fn send<T: Send>(_: T) {}

fn case(shared: Connection) {
    send(&shared);
}

fn main() {}
