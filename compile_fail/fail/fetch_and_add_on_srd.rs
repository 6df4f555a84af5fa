//! SRD has writes and reads, but no atomic operations.
//~ error[E0277]: transport `Srd` has no atomic operations

use ibverbs::{LocalMemorySlice, RemoteMemorySlice, SendOp};

type Op<'b> = SendOp<'b, ibverbs::Srd>;

fn case(op: Op<'_>, slice: LocalMemorySlice, remote: RemoteMemorySlice) {
    op.atomic_fetch_add(1, slice, remote, 2);
}

fn main() {}
