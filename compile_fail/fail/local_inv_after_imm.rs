//! An invalidation carries no immediate data.
//~ error[E0277]: an operation that carries immediate data is a `send` or a `write`

use ibverbs::{Rc, SendBatch};

fn case(batch: &mut SendBatch<'_, Rc>, rkey: u32) {
    batch.op().imm(7).local_inv(1, rkey);
}

fn main() {}
