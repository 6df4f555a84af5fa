//! The identifier of a request is there once, and so is who takes it.
//~ error[E0596]: cannot borrow `*event` as mutable, as it is behind a `&` reference

use ibverbs::rdmacm::{CmEvent, CmId};

fn case(event: &CmEvent) -> Option<CmId> {
    event.take_request()
}

fn main() {}
