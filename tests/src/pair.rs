//! Connected queue pairs, and posting to them.

use ibverbs::{
    CanReceive, CanSend, CompletionQueue, Connected, PreparedQueuePair, QueuePair,
    QueuePairBuilder, Rc, RecvRequest, Result, SendBatch, SharedReceiveQueue, Transport,
};

use crate::device::{Bed, PORT};
use crate::memory::Mem;

/// Entries of the completion queues: enough for two full queues of the default depth.
const ENTRIES: u32 = 256;

/// A queue pair that is not connected yet, with completion queues of its own.
#[derive(Debug)]
pub struct Prepared<T: Transport = Rc> {
    /// The queue pair.
    pub qp: PreparedQueuePair<T>,
    /// Where its sends complete.
    pub send_cq: CompletionQueue,
    /// Where its receives complete.
    pub recv_cq: CompletionQueue,
    /// What keeps the memory registered for longer than the queue pair, which stands above.
    pub bed: Bed,
}

/// A connected queue pair, with completion queues of its own.
#[derive(Debug)]
pub struct Side<T: Transport = Rc> {
    /// The queue pair.
    pub qp: QueuePair<T>,
    /// Where its sends complete.
    pub send_cq: CompletionQueue,
    /// Where its receives complete.
    pub recv_cq: CompletionQueue,
    /// What keeps the memory registered for longer than the queue pair, which stands above.
    pub bed: Bed,
}

/// Creates a queue pair on the bed's GID; `setup` changes its builder.
#[track_caller]
pub fn prepare<T: Transport>(
    bed: &Bed,
    setup: impl for<'b> FnOnce(QueuePairBuilder<'b, T>) -> QueuePairBuilder<'b, T>,
) -> Prepared<T> {
    unconnected(bed, |builder| setup(builder.set_gid_index(bed.gid_index())))
}

/// Creates a queue pair that knows nothing of the network; `setup` changes its builder.
#[track_caller]
pub fn unconnected<T: Transport>(
    bed: &Bed,
    setup: impl for<'b> FnOnce(QueuePairBuilder<'b, T>) -> QueuePairBuilder<'b, T>,
) -> Prepared<T> {
    let send_cq = bed.ctx().create_cq(ENTRIES).build().expect("no completion queue");
    let recv_cq = bed.ctx().create_cq(ENTRIES).build().expect("no completion queue");
    let builder = bed.pd().create_qp::<T>(&send_cq, &recv_cq, PORT).expect("no builder");
    let qp = setup(builder).build().expect("no queue pair");
    Prepared { qp, send_cq, recv_cq, bed: bed.clone() }
}

/// Creates a queue pair on the bed's GID that takes its receives from the shared queue.
#[track_caller]
pub fn prepare_on<T: Transport>(bed: &Bed, srq: &SharedReceiveQueue) -> Prepared<T> {
    let send_cq = bed.ctx().create_cq(ENTRIES).build().expect("no completion queue");
    let recv_cq = bed.ctx().create_cq(ENTRIES).build().expect("no completion queue");
    let builder = bed.pd().create_qp::<T>(&send_cq, &recv_cq, PORT).expect("no builder");
    let qp = builder.set_gid_index(bed.gid_index()).set_srq(srq).build().expect("no queue pair");
    Prepared { qp, send_cq, recv_cq, bed: bed.clone() }
}

/// Connects two queue pairs to each other.
#[track_caller]
pub fn connect<T: Connected>(a: Prepared<T>, b: Prepared<T>) -> (Side<T>, Side<T>) {
    let (of_a, of_b) = (a.qp.endpoint().expect("endpoint"), b.qp.endpoint().expect("endpoint"));
    let side = |prepared: Prepared<T>, remote| {
        let Prepared { qp, send_cq, recv_cq, bed } = prepared;
        Side { qp: qp.handshake(remote).expect("cannot connect"), send_cq, recv_cq, bed }
    };
    (side(a, of_b), side(b, of_a))
}

/// Two queue pairs that are connected to each other; `setup` changes both builders.
#[track_caller]
pub fn pair_with<T: Connected>(
    bed: &Bed,
    setup: impl for<'b> Fn(QueuePairBuilder<'b, T>) -> QueuePairBuilder<'b, T>,
) -> (Side<T>, Side<T>) {
    connect(prepare(bed, &setup), prepare(bed, &setup))
}

/// Two reliable queue pairs that are connected to each other, with room for a few scatter entries and
/// some inline data.
#[track_caller]
pub fn pair(bed: &Bed) -> (Side, Side) {
    pair_with(bed, |builder| {
        builder.set_max_send_sge(4).set_max_recv_sge(4).set_max_inline_data(64)
    })
}

/// Posts a batch that `fill` fills, with slices of the queue pair's own bed.
///
/// # Errors
///
/// Those of [`SendBatch::submit`].
pub fn submit<T: Transport, S: CanSend>(
    qp: &mut QueuePair<T, S>,
    fill: impl FnOnce(&mut SendBatch<'_, T>),
) -> Result<()> {
    let mut batch = qp.start_send();
    fill(&mut batch);
    // SAFETY: in this package, slices come from a `Mem`. Its bed keeps it registered for longer than
    // the queue pair lives, and there are no references to its bytes. No test adds an operation while
    // the send queue is full.
    unsafe { batch.submit() }
}

/// Posts receives into slices of the queue pair's own bed.
///
/// # Errors
///
/// Those of [`QueuePair::post_recv`].
pub fn post_recv<'a, T: Transport, S: CanReceive>(
    qp: &mut QueuePair<T, S>,
    requests: impl AsMut<[RecvRequest<'a>]>,
) -> Result<()> {
    // SAFETY: in this package, slices come from a `Mem`. Its bed keeps it registered for longer than
    // the queue pair lives, and there are no references to its bytes.
    unsafe { qp.post_recv(requests) }
}

/// Posts receives one by one, into pieces of this memory of the queue pair's own bed: `count` of `size` bytes, which are
/// numbered by their place.
///
/// # Errors
///
/// Those of [`QueuePair::post_recv`].
pub fn post_pieces<T: Transport, S: CanReceive>(
    qp: &mut QueuePair<T, S>,
    mem: &Mem,
    count: usize,
    size: usize,
) -> Result<()> {
    (0..count).try_for_each(|n| {
        let piece = mem.slice(n * size..(n + 1) * size);
        post_recv(qp, [RecvRequest::new(n as u64, &[piece])])
    })
}
