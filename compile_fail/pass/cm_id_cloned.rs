//! An identifier has one owner.

use ibverbs::rdmacm::{CmId, EventChannel};

fn case(id: CmId, channel: EventChannel) {
    drop(channel.clone());
    drop((id, channel));
}

fn main() {}
