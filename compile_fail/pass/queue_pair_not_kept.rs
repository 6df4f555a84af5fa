//! A queue pair that is not kept is destroyed.

#![deny(unused_must_use)]

use ibverbs::{QueuePairBuilder, Rc};

fn case(builder: QueuePairBuilder<'_, Rc>) -> ibverbs::Result<()> {
    builder.build()?.close()?;
    Ok(())
}

fn main() {}
