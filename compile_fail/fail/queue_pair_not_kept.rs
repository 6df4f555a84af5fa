//! A queue pair that is not kept is destroyed.
//~ error: unused `QueuePair` that must be used

#![deny(unused_must_use)]

use ibverbs::{QueuePairBuilder, Rc};

fn case(builder: QueuePairBuilder<'_, Rc>) -> ibverbs::Result<()> {
    builder.build()?;
    Ok(())
}

fn main() {}
