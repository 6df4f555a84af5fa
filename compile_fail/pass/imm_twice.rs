//! An operation carries immediate data once.

use ibverbs::{Rc, SendBatch};

fn case(batch: &mut SendBatch<'_, Rc>) {
    batch.op().imm(7).send(1, b"hello");
}

fn main() {}
