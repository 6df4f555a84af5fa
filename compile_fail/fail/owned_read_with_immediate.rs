//! A read carries no immediate data.
//~ error[E0599]: no method named `read` found for struct `OwnedOp<'_, '_, ibverbs::Rc, Imm>` in the current scope

use ibverbs::{Buffer, OwnedQueuePair, Rc, RemoteMemorySlice};

fn case(mut qp: OwnedQueuePair<Rc>, buffer: Buffer, remote: RemoteMemorySlice) {
    let mut batch = qp.start_send();
    batch.op().imm(7).read(1, buffer, 8, remote);
    let _ = batch.submit();
}

fn main() {}
