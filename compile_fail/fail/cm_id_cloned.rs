//! An identifier has one owner.
//~ error[E0599]: no method named `clone` found for struct `CmId` in the current scope

use ibverbs::rdmacm::{CmId, EventChannel};

fn case(id: CmId, channel: EventChannel) {
    drop(id.clone());
    drop((id, channel));
}

fn main() {}
