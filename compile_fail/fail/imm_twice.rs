//! An operation carries immediate data once.
//~ error[E0277]: an operation that carries immediate data is a `send` or a `write`

use ibverbs::{Rc, SendBatch};

fn case(batch: &mut SendBatch<'_, Rc>) {
    batch.op().imm(7).imm(8).send(1, b"hello");
}

fn main() {}
