//! An unreliable connection has no RDMA read.

use ibverbs::{LocalMemorySlice, RemoteMemorySlice, SendBatch};

type Batch<'qp> = SendBatch<'qp, ibverbs::Rc>;

fn case(batch: &mut Batch<'_>, slices: &[LocalMemorySlice], remote: RemoteMemorySlice) {
    batch.op().read(1, slices, remote);
}

fn main() {}
