//! An unreliable connection has no RDMA read.
//~ error[E0277]: transport `Uc` has no RDMA read

use ibverbs::{LocalMemorySlice, RemoteMemorySlice, SendBatch};

type Batch<'qp> = SendBatch<'qp, ibverbs::Uc>;

fn case(batch: &mut Batch<'_>, slices: &[LocalMemorySlice], remote: RemoteMemorySlice) {
    batch.op().read(1, slices, remote);
}

fn main() {}
