//! The identifier of a request is there once, and so is who takes it.

use ibverbs::rdmacm::{CmEvent, CmId};

fn case(event: &mut CmEvent) -> Option<CmId> {
    event.take_request()
}

fn main() {}
