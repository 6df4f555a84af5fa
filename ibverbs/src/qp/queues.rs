//! What a queue pair is built with, on each posting level.

use std::fmt::Debug;

use crate::cq::CompletionQueue;
use crate::owned::{Owned, OwnedCompletionQueue, OwnedSharedReceiveQueue};
use crate::post::Raw;
use crate::srq::SharedReceiveQueue;

pub(crate) mod sealed {
    use super::{CompletionQueue, SharedReceiveQueue};

    /// What is inside of the queues. Only the crate's own levels implement it.
    pub trait Sealed {
        fn completion_queue(queue: &Self::CompletionQueue) -> &CompletionQueue
        where
            Self: super::QueueLevel;

        fn shared_receive_queue(queue: &Self::SharedReceiveQueue) -> &SharedReceiveQueue
        where
            Self: super::QueueLevel;
    }
}

/// What a queue pair is built with: queues of the [`Raw`] level, which the shared one has as well, or of the [`Owned`]
/// one. Sealed.
pub trait QueueLevel: sealed::Sealed + Copy + Debug + 'static {
    /// Where its completions go.
    type CompletionQueue: Debug;

    /// Where it may take its receives from.
    type SharedReceiveQueue: Debug;
}

impl QueueLevel for Raw {
    type CompletionQueue = CompletionQueue;
    type SharedReceiveQueue = SharedReceiveQueue;
}

impl sealed::Sealed for Raw {
    fn completion_queue(queue: &CompletionQueue) -> &CompletionQueue {
        queue
    }

    fn shared_receive_queue(queue: &SharedReceiveQueue) -> &SharedReceiveQueue {
        queue
    }
}

impl QueueLevel for Owned {
    type CompletionQueue = OwnedCompletionQueue;
    type SharedReceiveQueue = OwnedSharedReceiveQueue;
}

impl sealed::Sealed for Owned {
    fn completion_queue(queue: &OwnedCompletionQueue) -> &CompletionQueue {
        queue.queue()
    }

    fn shared_receive_queue(queue: &OwnedSharedReceiveQueue) -> &SharedReceiveQueue {
        queue.queue()
    }
}
