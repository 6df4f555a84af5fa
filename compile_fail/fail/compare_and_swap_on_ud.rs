//! A datagram transport has no atomic operations.
//~ error[E0277]: transport `Ud` has no atomic operations

use ibverbs::{LocalMemorySlice, RemoteMemorySlice, SendOp};

type Op<'b> = SendOp<'b, ibverbs::Ud>;

fn case(op: Op<'_>, slice: LocalMemorySlice, remote: RemoteMemorySlice) {
    op.atomic_cmp_swap(1, slice, remote, 2, 3);
}

fn main() {}
