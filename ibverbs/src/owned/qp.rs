//! Queue pairs that buffers are moved to.

// One pointer larger than what a `QueuePair` hands back.
#![allow(clippy::result_large_err)]

use std::fmt;
use std::sync::Arc;

use super::batch::{send_one, OwnedBatch};
use super::buffer::Buffer;
use super::cq::OwnedCompletionQueue;
use super::recv::Receives;
use super::registry::Registry;
use super::sends::Sends;
use super::srq::OwnedSharedReceiveQueue;
use super::table::{Kind, Ring, Table};
use crate::ah::AddressVector;
use crate::error::{Error, Failed, Result};
use crate::ffi;
use crate::qp::{
    CanModify, CanReceive, CanSend, Connected, Core, Datagram, Init, Manual, QueuePair,
    QueuePairAttr, QueuePairAttrMask, QueuePairCapacity, QueuePairEndpoint, Reset, Rtr, Rts,
    SendOps, State, Transport, Unconnected,
};

/// A queue pair of the owned level: buffers are moved to it, and handed back with their completion.
///
/// A [`Buffer`] is an ordinary slice of bytes while the program has it; while it is posted, nobody has it. So nothing
/// has to be promised, and everything is safe. It is created by
/// [`create_owned_qp`](crate::ProtectionDomain::create_owned_qp), with completion queues of
/// [`build_owned`](crate::CompletionQueueBuilder::build_owned), and its transports, states and transitions are those of a
/// [`QueuePair`]. It has no inline data, atomics, windows and multicast groups, and the connection manager does not connect it.
///
/// Providers take locks when something is posted, some (mlx5 and hns with a full queue, ionic in any case) that of the completion
/// queue: post to the send queue when no poll of it is open, or the thread waits for itself. So collect what a poll hands out,
/// and send when it has ended.
///
/// Buffers come back
///
/// - with their own completion, whatever its status, by [`OwnedCompletion::take`](crate::OwnedCompletion::take);
/// - if they are not [signaled](crate::OwnedOp::unsignaled), with the next completion of the same send queue;
/// - by [`drain`](Self::drain), all that are left;
/// - to their pool, when the queue pair was [closed](Self::close), [reset](Self::reset) or dropped and its completion
///   queues are polled the next time, or are dropped; and when they are not taken from their completion.
///
/// Nothing is given back while the device may use it: what a queue pair has that was forgotten (`mem::forget`), or that
/// the device does not destroy, stays registered. The same holds for completions that were lost because their queue was
/// too small: their buffers are those of the queue pair until it is gone.
///
/// # Examples
///
/// ```no_run
/// # #![forbid(unsafe_code)]
/// # use ibverbs::{Context, Rc, Result};
/// # fn main() -> Result<()> { Ok(()) }
/// # fn talk(ctx: &Context) -> Result<()> {
/// let cq = ctx.create_cq(16).build_owned()?;
/// let pd = ctx.alloc_pd()?;
/// let pool = pd.buffer_pool(2, 4096)?;
/// let prepared = pd.create_owned_qp::<Rc>(&cq, &cq, 1)?.build()?;
/// let endpoint = prepared.endpoint()?; // here with itself
/// let mut qp = prepared.handshake(endpoint)?;
///
/// let (recv, mut send) = (pool.take().expect("two"), pool.take().expect("two"));
/// send[..5].copy_from_slice(b"hello");
/// qp.post_recv(1, recv)?;
/// qp.send(2, send, 5)?;
/// loop {
///     let Some(mut completions) = cq.poll()? else { continue };
///     while let Some(mut completion) = completions.next() {
///         completion.ok().expect("work request failed");
///         let len = completion.len();
///         let Some(buffer) = completion.take() else { continue };
///         if completion.is_recv() {
///             assert_eq!(&buffer[..len], b"hello");
///             return Ok(());
///         }
///     }
/// }
/// # }
/// ```
#[doc(alias = "ibv_qp")]
#[must_use = "dropping it destroys the queue pair"]
pub struct OwnedQueuePair<T: Transport, S: State = Rts> {
    /// Keeps the tables of the rings until it is destroyed.
    qp: QueuePair<T, S>,
    /// In a box, so that a queue pair is small to move, and so is what hands it back.
    rings: Box<Rings>,
}

/// The sides of a queue pair's tables that post.
pub(crate) struct Rings {
    send: Sends,
    /// `None` if it takes its receives from a shared receive queue.
    recv: Option<Receives>,
    /// How often the queue pair had been reset when they were made.
    resets: u32,
}

impl Rings {
    /// For a queue pair in this state of affairs.
    fn new<T: Transport>(core: &Core, has_srq: bool) -> Rings {
        let capacity = core.granted();
        let sends = if core.completes_in_order::<T>() { Kind::OrderedSends } else { Kind::Sends };
        let recv = || Receives::new(Ring::new(capacity.max_recv_wr, Kind::Receives));
        let mut send = Ring::new(capacity.max_send_wr, sends);
        if T::ALWAYS_SIGNALED {
            send = send.all_signaled();
        }
        Rings {
            send: Sends::new(send, capacity.max_send_wr),
            recv: (!has_srq).then(recv),
            resets: core.resets(),
        }
    }

    fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        let received = self.recv.as_ref().map(|receives| &receives.ring);
        [Some(&self.send.ring), received].into_iter().flatten().map(Ring::table)
    }
}

impl<T: Transport> OwnedQueuePair<T, Reset> {
    /// Of a queue pair that was created just now, and completes to these queues.
    pub(crate) fn new(
        mut qp: QueuePair<T, Reset>,
        send_cq: &OwnedCompletionQueue,
        recv_cq: &OwnedCompletionQueue,
        srq: Option<&OwnedSharedReceiveQueue>,
    ) -> Self {
        let core = qp.core_mut();
        let rings = Rings::new::<T>(core, srq.is_some());
        core.keep(rings.tables().cloned().collect());
        rings.send.ring.table().register(send_cq.registry());
        let received = rings.recv.as_ref().map(|receives| receives.ring.table());
        for table in received.into_iter().chain(srq.map(OwnedSharedReceiveQueue::table)) {
            table.register(recv_cq.registry());
        }
        OwnedQueuePair { qp, rings: Box::new(rings) }
    }
}

impl<T: Transport, S: State> OwnedQueuePair<T, S> {
    /// The queue pair in another state, when `step` has brought it there.
    fn into_state<Next: State>(
        self,
        step: impl FnOnce(QueuePair<T, S>) -> Result<QueuePair<T, Next>, Failed<QueuePair<T, S>>>,
    ) -> Result<OwnedQueuePair<T, Next>, Failed<Self>> {
        let OwnedQueuePair { qp, rings } = self;
        match step(qp) {
            Ok(qp) => Ok(OwnedQueuePair { qp, rings }.after_resets()),
            // A bring-up that fails steps back by a reset.
            Err(failed) => Err(failed.map(|qp| OwnedQueuePair { qp, rings }.after_resets())),
        }
    }

    fn after_resets(mut self) -> Self {
        self.replace_rings();
        self
    }

    /// Makes new tables, if the queue pair was reset: what the old ones have is not with the device any more, and will
    /// not complete.
    fn replace_rings(&mut self) {
        let core = self.qp.core_mut();
        if core.resets() == self.rings.resets {
            return;
        }
        let new = Rings::new::<T>(core, self.rings.recv.is_none());
        for (old, new) in self.rings.tables().zip(new.tables()) {
            old.registries().iter().for_each(|registry| new.register(registry));
        }
        core.keep(new.tables().cloned().collect());
        *self.rings = new;
    }

    /// As [`QueuePair::handshake`].
    ///
    /// # Errors
    ///
    /// Those of [`QueuePair::handshake`].
    #[doc(alias = "ibv_modify_qp")]
    pub fn handshake(self, remote: QueuePairEndpoint) -> Result<OwnedQueuePair<T>, Failed<Self>>
    where
        T: Connected,
        S: Unconnected,
    {
        self.into_state(|qp| qp.handshake(remote))
    }

    /// As [`QueuePair::activate`].
    ///
    /// # Errors
    ///
    /// Those of [`QueuePair::activate`].
    #[doc(alias = "ibv_modify_qp")]
    pub fn activate(self, qkey: u32) -> Result<OwnedQueuePair<T>, Failed<Self>>
    where
        T: Datagram,
        S: Unconnected,
    {
        self.into_state(|qp| qp.activate(qkey))
    }

    /// The number of the queue pair: 24 bits, unique on its device at any one time.
    pub fn qp_num(&self) -> u32 {
        self.qp.qp_num()
    }

    /// The capacities of its queues: what was granted, at least what was asked for.
    pub fn capacity(&self) -> QueuePairCapacity {
        self.qp.capacity()
    }

    /// The operations that it was built for: none if it has no send queue.
    pub fn send_ops(&self) -> SendOps {
        self.qp.send_ops()
    }

    /// What a peer must know to connect to it.
    ///
    /// # Errors
    ///
    /// Those of [`QueuePair::endpoint`].
    pub fn endpoint(&self) -> Result<QueuePairEndpoint> {
        self.qp.endpoint()
    }

    /// As [`QueuePair::address_of`].
    ///
    /// # Errors
    ///
    /// Those of [`QueuePair::address_of`].
    pub fn address_of(&self, remote: &QueuePairEndpoint) -> Result<AddressVector> {
        self.qp.address_of(remote)
    }

    /// As [`QueuePair::query`].
    ///
    /// # Errors
    ///
    /// Those of [`QueuePair::query`].
    #[doc(alias = "ibv_query_qp")]
    pub fn query(&mut self, mask: QueuePairAttrMask) -> Result<QueuePairAttr> {
        self.qp.query(mask)
    }

    /// As [`QueuePair::modify`]. Asked for [`ERR`](crate::QpState::ERR), it flushes all that is posted: each buffer comes
    /// back with a completion, but for unsignaled sends that were done before, which come with the next one.
    ///
    /// # Errors
    ///
    /// Those of [`QueuePair::modify`].
    #[doc(alias = "ibv_modify_qp")]
    pub fn modify(&mut self, attr: &QueuePairAttr) -> Result<()>
    where
        S: CanModify,
    {
        self.qp.modify(attr)?;
        self.replace_rings();
        Ok(())
    }

    /// Takes the queue pair back to the beginning. Buffers that are posted and have not completed go back to their pool;
    /// see [above](Self). To have them in hand, [`drain`](Self::drain) the queue pair and build another.
    ///
    /// # Errors
    ///
    /// Those of [`QueuePair::reset`].
    pub fn reset(self) -> Result<OwnedQueuePair<T, Reset>, Failed<Self>> {
        self.into_state(QueuePair::reset)
    }

    /// Destroys the queue pair. Buffers that are posted and have not completed go back to their pool; see
    /// [above](Self).
    ///
    /// # Errors
    ///
    /// Those of [`QueuePair::close`].
    #[doc(alias = "ibv_destroy_qp")]
    pub fn close(self) -> Result<(), Failed<Self>> {
        let OwnedQueuePair { qp, rings } = self;
        qp.close().map_err(|failed| failed.map(|qp| OwnedQueuePair { qp, rings }))
    }

    /// Destroys the queue pair, which proves it quiet, and returns all buffers that were posted to it and not handed out
    /// by a completion: first those of the send queue, then those of the receive queue, each in the order in which they
    /// were posted. Receives of a shared receive queue are that one's.
    ///
    /// What has completed but was not polled comes back here, and what became of it is not told. To know that as well,
    /// [fail](Self::modify) the queue pair, and poll before this.
    ///
    /// `queues` are the completion queues of the queue pair, if they are not dropped: whoever has them proves that nobody
    /// polls a completion at the same time.
    ///
    /// # Errors
    ///
    /// - [`Error::CompletionQueueNeeded`] if one of the queues is alive and not among `queues`.
    /// - Those of [`close`](Self::close).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use ibverbs::{OwnedCompletionQueue, OwnedQueuePair, Rc, Result};
    /// # fn end(qp: OwnedQueuePair<Rc>, cq: &OwnedCompletionQueue) -> Result<()> {
    /// for buffer in qp.drain(&[cq])? {
    ///     println!("{} bytes", buffer.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "ibv_destroy_qp")]
    pub fn drain(self, queues: &[&OwnedCompletionQueue]) -> Result<Vec<Buffer>, Failed<Self>> {
        if let Err(error) = check_queues(self.rings.tables(), queues) {
            return Err(Failed { resource: self, error });
        }
        let OwnedQueuePair { qp, rings } = self;
        match qp.close() {
            Ok(()) => {
                let Rings { send, recv, .. } = *rings;
                let received = recv.map(|receives| receives.ring);
                Ok(take_back([Some(send.ring), received].into_iter().flatten(), queues))
            }
            Err(failed) => Err(failed.map(|qp| OwnedQueuePair { qp, rings })),
        }
    }

    /// Posts a buffer to receive into. Its completion carries `user`, and hands it back.
    ///
    /// # Errors
    ///
    /// The buffer comes back with the error. (It is `None` if the provider says that it failed, but not that it has not
    /// taken the buffer; it comes back then as if it were posted.)
    ///
    /// - [`Error::QueueFull`] if as many are posted as the queue was granted.
    /// - [`Error::ProtectionDomainMismatch`] if the buffer is of another domain than the queue pair.
    /// - [`Error::NoReceiveQueue`] if the queue pair takes its receives from a shared receive queue.
    /// - [`Error::PostReceive`] if the device refuses.
    #[doc(alias = "ibv_post_recv")]
    #[inline]
    pub fn post_recv(&mut self, user: u64, buffer: Buffer) -> Result<(), Failed<Option<Buffer>>>
    where
        S: CanReceive,
    {
        let core = self.qp.core_mut();
        let (granted, receives) = match (core.prepare_recv(), &mut self.rings.recv) {
            (Ok(granted), Some(receives)) => (granted, receives),
            (Err(error), _) => return Err(Failed { resource: Some(buffer), error }),
            (_, None) => {
                return Err(Failed { resource: Some(buffer), error: Error::NoReceiveQueue })
            }
        };
        receives.post_one(core.domain(), granted, user, buffer, "ibv_post_recv", |first, bad| {
            // SAFETY: the queue pair is alive, and `ibv_qp_ex` begins with its `ibv_qp`; the chain is valid, as
            // `PostCall` says. The buffers are of the queue pair's domain, and in a table that it keeps until it is
            // destroyed or reset.
            unsafe { ffi::ibv_post_recv(core.raw().cast(), first, bad) }
        })
    }

    /// Posts buffers to receive into, with a call for every 32 of them: takes them out of `receives`, which has the
    /// number of the program with each. What is not posted stays there.
    ///
    /// # Errors
    ///
    /// As [`post_recv`](Self::post_recv); those before the one that failed are posted. (If the provider fails and does not say
    /// where, all that were part of that call are taken out, and come back as if they were posted.)
    #[doc(alias = "ibv_post_recv")]
    pub fn post_recv_all(&mut self, receives: &mut Vec<(u64, Buffer)>) -> Result<()>
    where
        S: CanReceive,
    {
        let core = self.qp.core_mut();
        let granted = core.prepare_recv()?;
        let ring = self.rings.recv.as_mut().ok_or(Error::NoReceiveQueue)?;
        ring.post_all(core.domain(), granted, receives, "ibv_post_recv", |first, bad| {
            // SAFETY: as in `post_recv`.
            unsafe { ffi::ibv_post_recv(core.raw().cast(), first, bad) }
        })
    }

    /// Starts a batch of operations that buffers are moved into: one doorbell for all of them. If another was forgotten, its
    /// buffers go back to their pool.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use ibverbs::{Buffer, OwnedQueuePair, Rc, RemoteMemorySlice, Result};
    /// # fn post(qp: &mut OwnedQueuePair<Rc>, data: Buffer, note: Buffer, to: RemoteMemorySlice) -> Result<()> {
    /// let mut batch = qp.start_send();
    /// batch.op().unsignaled().write(1, data, 4096, to);
    /// batch.op().imm(7).send(2, note, 16);
    /// batch.submit()?;
    /// // The completion of 2 hands back both.
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "ibv_post_send")]
    #[inline]
    pub fn start_send(&mut self) -> OwnedBatch<'_, T>
    where
        S: CanSend,
    {
        OwnedBatch::new(self.qp.core_mut(), &mut self.rings.send)
    }

    /// Sends the first `len` bytes of a buffer into a receive that the peer has posted. The completion carries `user`,
    /// and hands the buffer back.
    ///
    /// # Errors
    ///
    /// Those of [`OwnedBatch::submit`]. The buffer comes back with the error. (It is `None` if the provider says that it
    /// failed, but not that it has not taken the buffer; it comes back then as if it were posted.)
    #[doc(alias = "ibv_post_send")]
    #[inline]
    pub fn send(
        &mut self,
        user: u64,
        buffer: Buffer,
        len: usize,
    ) -> Result<(), Failed<Option<Buffer>>>
    where
        T: Connected,
        S: CanSend,
    {
        send_one::<T>(self.qp.core_mut(), &mut self.rings.send, user, buffer, len)
    }

    /// The C structure, as the extended interface has it.
    pub fn as_raw(&self) -> *mut ffi::ibv_qp_ex {
        self.qp.as_raw()
    }
}

/// That all completion queues which can be polled, and to which these tables' queues complete, are among `queues`.
pub(super) fn check_queues<'t>(
    tables: impl IntoIterator<Item = &'t Arc<Table>>,
    queues: &[&OwnedCompletionQueue],
) -> Result<()> {
    let is_here = |registry: &Arc<Registry>| {
        queues.iter().any(|queue| Arc::ptr_eq(queue.registry(), registry))
    };
    let all_here = tables.into_iter().all(|table| table.registries().iter().all(is_here));
    if !all_here {
        return Err(Error::CompletionQueueNeeded);
    }
    // Within a poll the tables are that one's.
    queues.iter().try_for_each(|queue| queue.refresh())
}

/// The buffers that the queues of these rings have left, which were destroyed.
pub(super) fn take_back(
    rings: impl IntoIterator<Item = Ring>,
    queues: &[&OwnedCompletionQueue],
) -> Vec<Buffer> {
    // Now that the queue is destroyed, only the pollers' copies of their registries still have the tables.
    for queue in queues {
        let refreshed = queue.refresh();
        debug_assert!(refreshed.is_ok(), "no poll was open, and this thread has the queue");
    }
    let tables = rings.into_iter().map(|ring| Arc::into_inner(ring.into_table()));
    tables.flatten().flat_map(Table::into_buffers).collect()
}

impl<T: Transport> OwnedQueuePair<T, Reset> {
    /// As [`QueuePair::into_manual`].
    pub fn into_manual(self) -> OwnedQueuePair<T, Manual> {
        let OwnedQueuePair { qp, rings } = self;
        OwnedQueuePair { qp: qp.into_manual(), rings }
    }

    /// As [`QueuePair::init`].
    ///
    /// # Errors
    ///
    /// Those of [`QueuePair::init`].
    #[doc(alias = "ibv_modify_qp")]
    pub fn init(self) -> Result<OwnedQueuePair<T, Init>, Failed<Self>> {
        self.into_state(QueuePair::init)
    }
}

impl<T: Transport> OwnedQueuePair<T, Init> {
    /// As [`QueuePair::ready_to_receive`].
    ///
    /// # Errors
    ///
    /// Those of [`QueuePair::ready_to_receive`].
    #[doc(alias = "ibv_modify_qp")]
    pub fn ready_to_receive(
        self,
        remote: QueuePairEndpoint,
    ) -> Result<OwnedQueuePair<T, Rtr>, Failed<Self>>
    where
        T: Connected,
    {
        self.into_state(|qp| qp.ready_to_receive(remote))
    }
}

impl<T: Transport> OwnedQueuePair<T, Rtr> {
    /// As [`QueuePair::ready_to_send`].
    ///
    /// # Errors
    ///
    /// Those of [`QueuePair::ready_to_send`].
    #[doc(alias = "ibv_modify_qp")]
    pub fn ready_to_send(self) -> Result<OwnedQueuePair<T>, Failed<Self>>
    where
        T: Connected,
    {
        self.into_state(QueuePair::ready_to_send)
    }
}

impl<T: Transport, S: State> fmt::Debug for OwnedQueuePair<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnedQueuePair").field(&self.qp).finish()
    }
}
