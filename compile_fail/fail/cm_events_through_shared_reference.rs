//! Whoever takes the events of an identifier has it for itself.
//~ error[E0596]: cannot borrow `*id` as mutable, as it is behind a `&` reference

use ibverbs::rdmacm::{CmEvent, CmId};

fn case(id: &CmId) -> ibverbs::Result<Option<CmEvent>> {
    id.poll_cm_event()
}

fn main() {}
