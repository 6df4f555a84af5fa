//! Whoever takes the events of an identifier has it for itself.

use ibverbs::rdmacm::{CmEvent, CmId};

fn case(id: &mut CmId) -> ibverbs::Result<Option<CmEvent>> {
    id.poll_cm_event()
}

fn main() {}
