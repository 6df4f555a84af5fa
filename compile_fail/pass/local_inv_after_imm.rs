//! An invalidation carries no immediate data.

use ibverbs::{Rc, SendBatch};

fn case(batch: &mut SendBatch<'_, Rc>, rkey: u32) {
    batch.op().local_inv(1, rkey);
}

fn main() {}
