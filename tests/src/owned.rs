//! Queue pairs of the owned level, and waiting for buffers.

use std::time::Instant;

use ibverbs::{
    Buffer, BufferPool, Connected, Owned, OwnedCompletionQueue, OwnedQueuePair, QueuePairBuilder,
    Rc, Reset, Transport, WcError, WcStatus,
};

use crate::device::{Bed, PORT};
use crate::wait::DEADLINE;

/// A queue pair of the owned level, with one completion queue of its own.
#[derive(Debug)]
pub struct OwnedSide<T: Transport = Rc> {
    /// The queue pair.
    pub qp: OwnedQueuePair<T>,
    /// Where all completes.
    pub cq: OwnedCompletionQueue,
}

/// What a completion said and gave back.
#[derive(Debug)]
pub struct Done {
    /// The number that it was posted with.
    pub user: u64,
    /// Whether it was a receive.
    pub is_recv: bool,
    /// How it ended.
    pub ok: Result<(), WcError>,
    /// How many bytes were received.
    pub len: usize,
    /// The immediate data.
    pub imm: Option<u32>,
    /// The buffers: its own, and then earlier ones.
    pub buffers: Vec<Buffer>,
}

impl Done {
    /// The status of the operation.
    pub fn status(&self) -> WcStatus {
        self.ok.err().map_or(WcStatus::SUCCESS, |error| error.status)
    }

    /// The bytes that were received.
    pub fn bytes(&self) -> &[u8] {
        &self.buffers[0][..self.len]
    }
}

/// Creates a queue pair on the bed's GID, which completes to this queue; `setup` changes its builder.
#[track_caller]
pub fn prepare_owned<T: Transport>(
    bed: &Bed,
    cq: &OwnedCompletionQueue,
    setup: impl for<'b> FnOnce(QueuePairBuilder<'b, T, Owned>) -> QueuePairBuilder<'b, T, Owned>,
) -> OwnedQueuePair<T, Reset> {
    let builder = bed.pd().create_owned_qp::<T>(cq, cq, PORT).expect("no builder");
    setup(builder.set_gid_index(bed.gid_index())).build().expect("no queue pair")
}

/// A completion queue with room for two full queues of the default depth.
#[track_caller]
pub fn owned_cq(bed: &Bed) -> OwnedCompletionQueue {
    bed.ctx().create_cq(256).build_owned().expect("no completion queue")
}

/// Two queue pairs that are connected to each other; `setup` changes both builders.
#[track_caller]
pub fn owned_pair_with<T: Connected>(
    bed: &Bed,
    setup: impl for<'b> Fn(QueuePairBuilder<'b, T, Owned>) -> QueuePairBuilder<'b, T, Owned>,
) -> (OwnedSide<T>, OwnedSide<T>) {
    let queues = [owned_cq(bed), owned_cq(bed)];
    let [a, b] = [0, 1].map(|side| prepare_owned(bed, &queues[side], &setup));
    let (of_a, of_b) = (a.endpoint().expect("endpoint"), b.endpoint().expect("endpoint"));
    let a = a.handshake(of_b).expect("cannot connect");
    let b = b.handshake(of_a).expect("cannot connect");
    let [cq_of_a, cq_of_b] = queues;
    (OwnedSide { qp: a, cq: cq_of_a }, OwnedSide { qp: b, cq: cq_of_b })
}

/// Two reliable queue pairs that are connected to each other.
#[track_caller]
pub fn owned_pair(bed: &Bed) -> (OwnedSide, OwnedSide) {
    owned_pair_with(bed, |builder| builder)
}

/// A buffer that begins with these bytes.
#[track_caller]
pub fn filled(pool: &BufferPool, bytes: &[u8]) -> Buffer {
    let mut buffer = pool.take().expect("the pool is empty");
    buffer[..bytes.len()].copy_from_slice(bytes);
    buffer
}

/// What is in the queue now.
#[track_caller]
pub fn poll_owned(cq: &OwnedCompletionQueue) -> Vec<Done> {
    let mut found = Vec::new();
    if let Some(mut completions) = cq.poll().expect("the completion queue cannot be polled") {
        while let Some(mut completion) = completions.next() {
            let ok = completion.ok();
            let is_recv = completion.is_recv();
            let (mut len, mut imm) = (0, None);
            if is_recv && ok.is_ok() {
                (len, imm) = (completion.len(), completion.imm_data());
            }
            let buffers = std::iter::from_fn(|| completion.take()).collect();
            found.push(Done { user: completion.user(), is_recv, ok, len, imm, buffers });
        }
    }
    found
}

/// Waits for exactly `count` completions, in order.
#[track_caller]
pub fn wait_owned(cq: &OwnedCompletionQueue, count: usize) -> Vec<Done> {
    let mut found = Vec::new();
    let end = Instant::now() + DEADLINE;
    while found.len() < count {
        assert!(Instant::now() < end, "only {} of {count} completions came", found.len());
        found.extend(poll_owned(cq));
        // Other tests share the processors.
        std::thread::yield_now();
    }
    assert_eq!(found.len(), count, "too many completions came: {found:?}");
    found
}
