//! Shared receive queues.

use std::collections::VecDeque;

use rustix::io::Errno;

use super::{limits, AsyncEvent, Owner, Result};
use crate::transport::{PdId, RecvRequest};

/// A shared receive queue.
#[derive(Debug)]
pub(crate) struct SharedReceiveQueue {
    pub(crate) pd: PdId,
    requests: VecDeque<RecvRequest>,
    max_wr: u32,
    /// With fewer requests than this an event is raised; 0 when none is waited for.
    limit: u32,
    owner: Owner,
    /// How many queue pairs take from it.
    pub(crate) users: usize,
}

/// Whether a queue can be of this size, and told to watch this limit.
fn check(max_wr: u32, limit: u32) -> Result<()> {
    if max_wr == 0 || max_wr > limits::MAX_SRQ_WR || limit > max_wr {
        return Err(Errno::INVAL);
    }
    Ok(())
}

impl SharedReceiveQueue {
    pub(crate) fn new(
        pd: PdId,
        max_wr: u32,
        limit: u32,
        owner: Owner,
    ) -> Result<SharedReceiveQueue> {
        check(max_wr, limit)?;
        Ok(SharedReceiveQueue { pd, requests: VecDeque::new(), max_wr, limit, owner, users: 0 })
    }

    pub(crate) fn post(&mut self, request: RecvRequest) -> Result<()> {
        if self.requests.len() >= self.max_wr as usize {
            return Err(Errno::NOMEM);
        }
        self.requests.push_back(request);
        Ok(())
    }

    /// Takes the next request; raises the event if fewer than the limit are left.
    pub(crate) fn take(&mut self) -> Option<RecvRequest> {
        let request = self.requests.pop_front()?;
        if self.requests.len() < self.limit as usize {
            self.limit = 0;
            self.owner.async_queue.push(AsyncEvent::SrqLimit(self.owner.token));
        }
        Some(request)
    }

    /// `None` leaves one as it is. A size below what is posted is refused, and a limit above the size.
    pub(crate) fn modify(&mut self, max_wr: Option<u32>, limit: Option<u32>) -> Result<()> {
        let (max_wr, limit) = (max_wr.unwrap_or(self.max_wr), limit.unwrap_or(self.limit));
        check(max_wr, limit)?;
        if self.requests.len() > max_wr as usize {
            return Err(Errno::INVAL);
        }
        (self.max_wr, self.limit) = (max_wr, limit);
        Ok(())
    }

    /// The size, and the limit.
    pub(crate) fn query(&self) -> (u32, u32) {
        (self.max_wr, self.limit)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::AsyncQueue;
    use super::*;

    fn queue(max_wr: u32, limit: u32) -> (SharedReceiveQueue, Arc<AsyncQueue>) {
        let async_queue = Arc::new(AsyncQueue::new().unwrap());
        let owner = Owner { token: 9, async_queue: Arc::clone(&async_queue) };
        (SharedReceiveQueue::new(PdId(0), max_wr, limit, owner).unwrap(), async_queue)
    }

    fn request(wr_id: u64) -> RecvRequest {
        RecvRequest { wr_id, sges: Vec::new() }
    }

    /// How many events there are; it takes them.
    fn events(queue: &AsyncQueue) -> u32 {
        queue.push(AsyncEvent::CqError(0));
        while queue.take().unwrap() == AsyncEvent::SrqLimit(9) {}
        queue.take_back(9)
    }

    #[test]
    fn takes_as_many_as_it_has_room_for_and_gives_them_in_order() {
        let (mut queue, _) = queue(2, 0);
        assert_eq!(queue.post(request(1)), Ok(()));
        assert_eq!(queue.post(request(2)), Ok(()));
        assert_eq!(queue.post(request(3)), Err(Errno::NOMEM));
        assert_eq!(
            [queue.take(), queue.take(), queue.take()],
            [Some(request(1)), Some(request(2)), None]
        );
    }

    #[test]
    fn the_limit_is_told_once_when_there_are_fewer() {
        let (mut queue, async_queue) = queue(4, 2);
        for i in 0..4 {
            queue.post(request(i)).unwrap();
        }
        queue.take();
        queue.take();
        assert_eq!((events(&async_queue), queue.query()), (0, (4, 2)));
        queue.take();
        assert_eq!((events(&async_queue), queue.query()), (1, (4, 0)));
        queue.take();
        assert_eq!(events(&async_queue), 0);
    }

    #[test]
    fn sizes_and_limits_are_checked() {
        let owner = || Owner { token: 0, async_queue: Arc::new(AsyncQueue::new().unwrap()) };
        for (max_wr, limit) in [(0, 0), (limits::MAX_SRQ_WR + 1, 0), (4, 5)] {
            assert!(SharedReceiveQueue::new(PdId(0), max_wr, limit, owner()).is_err());
        }
        let (mut queue, _) = queue(4, 0);
        queue.post(request(1)).unwrap();
        queue.post(request(2)).unwrap();
        assert_eq!(queue.modify(Some(1), None), Err(Errno::INVAL));
        assert_eq!(queue.modify(None, Some(5)), Err(Errno::INVAL));
        assert_eq!(queue.modify(Some(2), Some(2)), Ok(()));
        assert_eq!(queue.query(), (2, 2));
        assert_eq!(queue.post(request(3)), Err(Errno::NOMEM));
    }
}
