//! The queue pairs of one side, their completion queue and their memory.

use std::sync::atomic::Ordering;

use anyhow::{Context as _, Result};
use ibverbs::{
    AccessFlags, CompletionQueue, Init, Mtu, ProtectionDomain, QueuePair, RecvRequest,
    RemoteMemorySlice, Shared, SharedRegion, SharedSlice,
};
use ibverbs_examples::{Opened, Peer};

use crate::exchange::{both, exchange_ends, Agreed};
use crate::plan::{Kind, Plan};
use crate::verbs::{Notice, Verb, Way};

/// Why there is nothing more, most often.
pub(crate) const FAILED: &str = "an operation failed, as they do when the peer has ended";

/// How many receives are posted at a time.
pub(crate) const REFILL: usize = 16;

/// How many places the queues of a measurement of latency have: one side or the other waits.
const LATENCY_PLACES: u32 = 64;

/// Each piece of memory begins a cache line.
const LINE: usize = 64;

/// What one side has.
///
/// All queue pairs complete to one queue. Each has a piece of both regions, in which all its messages are: where they
/// come from or go to is not what is measured.
pub(crate) struct Queues<T: Way> {
    pub(crate) ends: Vec<End<T>>,
    pub(crate) cq: CompletionQueue,
    pub(crate) memory: Memory,
}

/// A queue pair that is connected.
pub(crate) struct End<T: Way> {
    pub(crate) qp: QueuePair<T>,
    pub(crate) to: T::To,
    /// What the peer has for this queue pair.
    pub(crate) remote: RemoteMemorySlice,
}

/// The memory of one side.
pub(crate) struct Memory {
    /// What is sent, and what reads and atomics return.
    pub(crate) ours: SharedRegion,
    /// What the peer sends to, writes to and reads.
    pub(crate) theirs: SharedRegion,
    /// How far the pieces of the queue pairs are from each other.
    stride: usize,
    /// How long they are.
    len: usize,
    header: usize,
}

impl Memory {
    fn new<T: Way, V: Verb<T>>(pd: &ProtectionDomain, plan: &Plan) -> Result<Memory> {
        let (len, header) = (plan.sizes.last() as usize, T::HEADER);
        let stride = (header + len).next_multiple_of(LINE);
        let bytes = stride
            .checked_mul(plan.queue_pairs() as usize)
            .context("so much memory cannot be addressed")?;
        // The device requires the local right of whoever writes.
        let theirs = AccessFlags::LOCAL_WRITE | V::RIGHTS;
        Ok(Memory {
            ours: pd.allocate_shared(bytes, AccessFlags::LOCAL_WRITE)?,
            theirs: pd.allocate_shared(bytes, theirs)?,
            stride,
            len,
            header,
        })
    }

    /// Where the piece of a queue pair begins.
    pub(crate) fn start(&self, index: usize) -> usize {
        index * self.stride
    }

    /// Where a queue pair's messages arrive.
    pub(crate) fn slot(&self, index: usize) -> [SharedSlice<'_>; 1] {
        let start = self.start(index);
        [self.theirs.slice(start..start + self.header + self.len)]
    }

    /// What atomics have counted in the pieces of so many queue pairs.
    pub(crate) fn counted(&self, queue_pairs: usize) -> u64 {
        let count = |index| self.theirs.atomic_u64(self.start(index)).load(Ordering::Acquire);
        (0..queue_pairs).map(count).sum()
    }

    fn remote(&self, index: usize) -> RemoteMemorySlice {
        let start = self.start(index) as u64;
        self.theirs.remote().slice(start..start + self.len as u64)
    }
}

/// Receives into one place, all alike.
pub(crate) fn receives<'s>(
    index: usize,
    slot: &'s [SharedSlice<'s>; 1],
) -> [RecvRequest<'s, Shared>; REFILL] {
    [(); REFILL].map(|()| RecvRequest::shared(index as u64, slot))
}

/// The depths of a queue pair's send queue and receive queue: what the plan says; and that many receives, and as many
/// more, that new ones are posted before the last are taken.
fn depths<T: Way, V: Verb<T>>(plan: &Plan) -> (u32, u32) {
    let sends = match plan.kind {
        Kind::Latency => LATENCY_PLACES,
        Kind::Bandwidth(flow) => flow.window,
    };
    let receives = match V::NOTICE {
        Notice::Receive => sends.saturating_mul(2).max(LATENCY_PLACES),
        // None is posted, but not every device has an empty queue.
        Notice::Memory | Notice::Completion => 1,
    };
    (sends, receives)
}

impl<T: Way> Queues<T> {
    /// Creates and connects what both sides have agreed on.
    pub(crate) fn connect<V: Verb<T>>(
        peer: &mut Peer,
        opened: &Opened,
        agreed: &Agreed,
    ) -> Result<Queues<T>> {
        let plan = &agreed.plan;
        let prepared = Prepared::new::<V>(opened, plan, agreed.mtu);
        let Prepared { pd, qps, cq, memory } = both(peer, prepared)?;
        let mut remotes = Vec::with_capacity(qps.len());
        for (index, qp) in qps.iter().enumerate() {
            remotes.push(exchange_ends(peer, &qp.endpoint()?, &memory.remote(index))?);
        }
        let connect = |(qp, (endpoint, remote))| -> Result<End<T>> {
            let (qp, to) = T::connect(&pd, qp, endpoint)?;
            Ok(End { qp, to, remote })
        };
        let ends = qps.into_iter().zip(remotes).map(connect).collect();
        // From here on, whoever sends finds a peer that is ready.
        Ok(Queues { ends: both(peer, ends)?, cq, memory })
    }
}

/// Queue pairs that know no peer yet.
struct Prepared<T: Way> {
    qps: Vec<QueuePair<T, Init>>,
    cq: CompletionQueue,
    memory: Memory,
    pd: ProtectionDomain,
}

impl<T: Way> Prepared<T> {
    fn new<V: Verb<T>>(opened: &Opened, plan: &Plan, mtu: Mtu) -> Result<Prepared<T>> {
        let (sends, receives_each) = depths::<T, V>(plan);
        let each = u64::from(sends) + u64::from(receives_each);
        let entries = u32::try_from(each * u64::from(plan.queue_pairs()));
        let entries = entries.context("there is no completion queue for so many operations")?;
        let pd = opened.context.alloc_pd()?;
        let cq = opened.context.create_cq(entries).build()?;
        let memory = Memory::new::<T, V>(&pd, plan)?;
        let mut qps = Vec::new();
        for index in 0..plan.queue_pairs() as usize {
            let builder = pd
                .create_qp::<T>(&cq, &cq, opened.port)?
                .set_gid_index(opened.gid_index)
                .set_send_ops(V::OPS)
                .set_max_send_wr(sends)
                .set_max_recv_wr(receives_each)
                .set_max_inline_data(plan.inline);
            let qp = T::set_mtu(builder, mtu).build();
            let qp =
                qp.with_context(|| format!("queue pair {} of {}", index + 1, plan.queue_pairs()));
            let mut qp = qp?.init()?;
            let slot = memory.slot(index);
            for _ in 0..receives_each as usize / REFILL {
                qp.post_recv_shared(receives(index, &slot))?;
            }
            qps.push(qp);
        }
        Ok(Prepared { qps, cq, memory, pd })
    }
}
