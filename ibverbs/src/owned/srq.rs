//! Shared receive queues that buffers are moved to.

use std::fmt;
use std::sync::Arc;

use super::buffer::Buffer;
use super::cq::OwnedCompletionQueue;
use super::qp::{check_queues, take_back};
use super::recv::Receives;
use super::table::{Kind, Ring, Table};
use crate::error::{Failed, Result};
use crate::ffi;
use crate::pd::identity;
use crate::srq::{SharedReceiveQueue, SharedReceiveQueueAttr, SharedReceiveQueueBuilder};

/// A shared receive queue of the owned level: buffers are moved to it, and handed back with the completion of the queue
/// pair that took them.
///
/// Queue pairs get it by [`set_srq`](crate::QueuePairBuilder::set_srq). One thread posts to it, unlike to a
/// [`SharedReceiveQueue`]; put it in a `Mutex` for more. It cannot be resized.
///
/// Its buffers are its own, not those of the queue pair that takes one. If a queue pair is destroyed that was receiving
/// a message, or whose completions were not polled, their buffers come back when the queue is [drained](Self::drain) or
/// gone. So before you destroy a queue pair of a shared receive queue, fail it, wait for the event
/// [`QP_LAST_WQE_REACHED`](crate::EventType::QP_LAST_WQE_REACHED), and poll what has completed.
#[doc(alias = "ibv_srq")]
pub struct OwnedSharedReceiveQueue {
    /// Keeps the table of the ring until it is destroyed.
    srq: SharedReceiveQueue,
    /// In a box, so that a queue is small to move, and so is what hands it back.
    receives: Box<Receives>,
}

impl SharedReceiveQueueBuilder<'_> {
    /// Creates a queue for queue pairs of the owned level ([`OwnedQueuePair`](crate::OwnedQueuePair)). A receive has one
    /// scatter entry, whatever was asked for.
    ///
    /// # Errors
    ///
    /// Those of [`build`](Self::build).
    #[doc(alias = "ibv_create_srq")]
    pub fn build_owned(self) -> Result<OwnedSharedReceiveQueue> {
        let places = self.max_wr();
        let make = || {
            let ring = Ring::new(places, Kind::Receives);
            let tables = [ring.table().clone()].into_iter().collect();
            (ring, tables)
        };
        let (srq, ring) = self.set_max_sge(1).build_with(make)?;
        Ok(OwnedSharedReceiveQueue { srq, receives: Box::new(Receives::new(ring)) })
    }
}

impl OwnedSharedReceiveQueue {
    pub(crate) fn queue(&self) -> &SharedReceiveQueue {
        &self.srq
    }

    pub(crate) fn table(&self) -> &Arc<Table> {
        self.receives.ring.table()
    }

    /// Posts a buffer to receive into. Its completion carries `user`, and hands it back.
    ///
    /// # Errors
    ///
    /// Those of [`post_recv`](crate::OwnedQueuePair::post_recv) of a queue pair.
    #[doc(alias = "ibv_post_srq_recv")]
    #[inline]
    pub fn post_recv(&mut self, user: u64, buffer: Buffer) -> Result<(), Failed<Option<Buffer>>> {
        let domain = identity(self.srq.handle().pd());
        self.receives.post_one(
            domain,
            self.srq.max_sge(),
            user,
            buffer,
            "ibv_post_srq_recv",
            |first, bad| {
                // SAFETY: the queue is alive; the chain is valid, as `PostCall` says. The buffers are of the queue's domain,
                // and in a table that it keeps until it is destroyed.
                unsafe { ffi::ibv_post_srq_recv(self.srq.as_raw(), first, bad) }
            },
        )
    }

    /// Posts buffers to receive into: as [`post_recv_all`](crate::OwnedQueuePair::post_recv_all) of a queue pair.
    ///
    /// # Errors
    ///
    /// Those of a queue pair.
    #[doc(alias = "ibv_post_srq_recv")]
    pub fn post_recv_all(&mut self, receives: &mut Vec<(u64, Buffer)>) -> Result<()> {
        let domain = identity(self.srq.handle().pd());
        self.receives.post_all(
            domain,
            self.srq.max_sge(),
            receives,
            "ibv_post_srq_recv",
            |first, bad| {
                // SAFETY: as in `post_recv`.
                unsafe { ffi::ibv_post_srq_recv(self.srq.as_raw(), first, bad) }
            },
        )
    }

    /// As [`SharedReceiveQueue::query`].
    ///
    /// # Errors
    ///
    /// Those of [`SharedReceiveQueue::query`].
    #[doc(alias = "ibv_query_srq")]
    pub fn query(&self) -> Result<SharedReceiveQueueAttr> {
        self.srq.query()
    }

    /// As [`SharedReceiveQueue::set_limit`].
    ///
    /// # Errors
    ///
    /// Those of [`SharedReceiveQueue::set_limit`].
    #[doc(alias = "ibv_modify_srq")]
    #[doc(alias = "IBV_SRQ_LIMIT")]
    pub fn set_limit(&self, limit: u32) -> Result<()> {
        self.srq.set_limit(limit)
    }

    /// Destroys the queue. Buffers that are posted go back to their pool, when the completion queues of its queue pairs
    /// are polled the next time, or are dropped.
    ///
    /// # Errors
    ///
    /// Those of [`SharedReceiveQueue::close`].
    #[doc(alias = "ibv_destroy_srq")]
    pub fn close(self) -> Result<(), Failed<Self>> {
        let OwnedSharedReceiveQueue { srq, receives } = self;
        srq.close().map_err(|failed| failed.map(|srq| OwnedSharedReceiveQueue { srq, receives }))
    }

    /// Destroys the queue, which proves it quiet, and returns all buffers that were posted to it and not handed out by a
    /// completion, in the order in which they were posted.
    ///
    /// `queues` are the completion queues of all queue pairs that it had, if they are not dropped.
    ///
    /// # Errors
    ///
    /// - [`Error::CompletionQueueNeeded`](crate::Error::CompletionQueueNeeded) if one of the completion queues is alive
    ///   and not among `queues`.
    /// - Those of [`close`](Self::close).
    #[doc(alias = "ibv_destroy_srq")]
    pub fn drain(self, queues: &[&OwnedCompletionQueue]) -> Result<Vec<Buffer>, Failed<Self>> {
        if let Err(error) = check_queues([self.table()], queues) {
            return Err(Failed { resource: self, error });
        }
        let OwnedSharedReceiveQueue { srq, receives } = self;
        match srq.close() {
            Ok(()) => Ok(take_back([receives.ring], queues)),
            Err(failed) => Err(failed.map(|srq| OwnedSharedReceiveQueue { srq, receives })),
        }
    }

    /// The C structure.
    pub fn as_raw(&self) -> *mut ffi::ibv_srq {
        self.srq.as_raw()
    }
}

impl fmt::Debug for OwnedSharedReceiveQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnedSharedReceiveQueue").field(&self.srq).finish()
    }
}
