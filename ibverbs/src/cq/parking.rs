//! Queue pairs that were dropped while their completion queue was being polled.
//!
//! Providers (mlx5 and EFA among them) take the completion queue's lock when a queue pair is destroyed. If
//! the dropping thread has a poll open, it holds that lock itself and would wait for ever. So the queue pair
//! waits with the completion queue until the poll ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{CqHandle, CqInner};
use crate::handle::Handle;
use crate::qp::QpInner;

/// The queue pairs that wait for the end of a poll.
#[derive(Default)]
pub(super) struct Parked {
    occupied: AtomicBool,
    waiting: Mutex<Vec<Handle<QpInner>>>,
}

impl Parked {
    /// Whether there may be something to release. A queue pair that another thread parks at this
    /// moment can be missed; the end of the next poll, or the drop of the completion queue, finds it.
    #[inline]
    pub(super) fn is_occupied(&self) -> bool {
        self.occupied.load(Ordering::Relaxed)
    }

    /// Destroys what waits, now that no poll of `cq` is open.
    #[cold]
    pub(super) fn release(&self, cq: &CqInner) {
        debug_assert!(!cq.is_polling());
        let waiting = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            self.occupied.store(false, Ordering::Relaxed);
            std::mem::take(&mut *waiting)
        };
        // The lock is free again: a queue pair's other completion queue may be polled, and then it is
        // parked there.
        waiting.into_iter().for_each(drop_or_park);
    }

    /// Keeps the queue pair if a poll of `cq` is open, else gives it back.
    fn park(&self, cq: &CqInner, qp: Handle<QpInner>) -> Option<Handle<QpInner>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: the drop of the completion queue takes it after its last poll, so that
        // whoever comes later sees that no poll is open.
        if !cq.is_polling() {
            return Some(qp);
        }
        waiting.push(qp);
        self.occupied.store(true, Ordering::Relaxed);
        None
    }
}

/// Destroys a queue pair, now or when the polls of its completion queues have ended.
pub(crate) fn drop_or_park(qp: Handle<QpInner>) {
    let queues: [CqHandle; 2] = [qp.send_cq().clone(), qp.recv_cq().clone()];
    let mut qp = qp;
    for cq in &queues {
        match cq.parked.park(cq, qp) {
            Some(back) => qp = back,
            None => return,
        }
    }
    drop(qp);
}
