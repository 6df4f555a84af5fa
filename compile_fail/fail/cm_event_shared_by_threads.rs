//! An event, which may bring an identifier, is used by one thread at a time: it is sent to another, not shared.
//~ error[E0277]: `NonNull<rdma_cm_id>` cannot be shared between threads safely

use ibverbs::rdmacm::CmEvent;

fn send<T: Send>(_: T) {}

fn case(shared: CmEvent) {
    send(&shared);
}

fn main() {}
