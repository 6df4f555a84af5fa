//! Completion queues.

use std::collections::VecDeque;

use rustix::io::Errno;

use super::{AsyncEvent, CqOwner, Entry, Result};
use crate::transport::{Completion, Status};

/// Which completion raises the next event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Armed {
    No,
    Solicited,
    Next,
}

/// A completion queue.
#[derive(Debug)]
pub(crate) struct CompletionQueue {
    entries: VecDeque<Entry>,
    capacity: usize,
    overflown: bool,
    armed: Armed,
    owner: CqOwner,
    /// How many queue pairs complete here; one that does so for sends and for receives counts twice.
    pub(crate) users: usize,
}

impl CompletionQueue {
    pub(crate) fn new(capacity: u32, owner: CqOwner) -> CompletionQueue {
        CompletionQueue {
            entries: VecDeque::new(),
            capacity: capacity as usize,
            overflown: false,
            armed: Armed::No,
            owner,
            users: 0,
        }
    }

    /// Puts a completion in, and raises an event if it is waited for. One for which there is no room is lost, and so is the queue: an
    /// asynchronous event tells so, once.
    pub(crate) fn push(&mut self, completion: Completion, timestamp: u64) {
        if self.entries.len() == self.capacity {
            if !self.overflown {
                self.overflown = true;
                self.owner.async_queue.push(AsyncEvent::CqError(self.owner.token));
            }
            return;
        }
        let waited_for = match self.armed {
            Armed::No => false,
            Armed::Solicited => completion.solicited || completion.status != Status::Success,
            Armed::Next => true,
        };
        self.entries.push_back(Entry { completion, timestamp });
        if waited_for {
            self.armed = Armed::No;
            if let Some(channel) = &self.owner.channel {
                channel.push(self.owner.token);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes the oldest completion. When there is none any more and some were lost, it fails, and does so for ever.
    #[inline]
    pub(crate) fn pop(&mut self) -> Result<Option<Entry>> {
        match self.entries.pop_front() {
            None if self.overflown => Err(Errno::OVERFLOW),
            entry => Ok(entry),
        }
    }

    /// Arms the queue; a request for any completion is not weakened by one for solicited ones.
    pub(crate) fn arm(&mut self, solicited_only: bool) {
        if !solicited_only {
            self.armed = Armed::Next;
        } else if self.armed == Armed::No {
            self.armed = Armed::Solicited;
        }
    }

    pub(crate) fn resize(&mut self, capacity: u32) -> Result<()> {
        if self.entries.len() > capacity as usize {
            return Err(Errno::INVAL);
        }
        self.capacity = capacity as usize;
        Ok(())
    }

    /// Takes out what is of a queue pair.
    pub(crate) fn clean(&mut self, qp_num: u32) {
        self.entries.retain(|entry| entry.completion.qp_num != qp_num);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{AsyncQueue, Channel};
    use super::*;
    use crate::transport::CompletionKind;

    const TOKEN: usize = 77;

    fn completion(wr_id: u64) -> Completion {
        Completion {
            wr_id,
            status: Status::Success,
            kind: CompletionKind::Recv,
            qp_num: wr_id as u32 % 2,
            len: 0,
            imm: None,
            invalidated: None,
            src_qp: 0,
            source: None,
            vendor_error: 0,
            grh: false,
            solicited: false,
        }
    }

    fn queue(capacity: u32) -> (CompletionQueue, Arc<Channel>, Arc<AsyncQueue>) {
        let channel = Arc::new(Channel::new().unwrap());
        let async_queue = Arc::new(AsyncQueue::new().unwrap());
        let owner = CqOwner {
            token: TOKEN,
            channel: Some(Arc::clone(&channel)),
            async_queue: Arc::clone(&async_queue),
        };
        (CompletionQueue::new(capacity, owner), channel, async_queue)
    }

    fn ids(queue: &mut CompletionQueue) -> Vec<u64> {
        std::iter::from_fn(|| queue.pop().unwrap()).map(|entry| entry.completion.wr_id).collect()
    }

    /// How many events there are; it takes them.
    fn events(channel: &Channel) -> u32 {
        channel.push(0);
        while channel.take().unwrap() == TOKEN {}
        channel.take_back(TOKEN)
    }

    #[test]
    fn completions_come_in_their_order_with_their_times() {
        let (mut queue, ..) = queue(3);
        queue.push(completion(5), 100);
        queue.push(completion(6), 101);
        let entry = queue.pop().unwrap().unwrap();
        assert_eq!((entry.completion.wr_id, entry.timestamp), (5, 100));
        assert_eq!(ids(&mut queue), [6]);
        assert!(queue.pop().unwrap().is_none());
    }

    #[test]
    fn what_does_not_fit_is_told_once_and_spoils_the_queue() {
        let (mut queue, _, async_queue) = queue(2);
        for i in 0..5 {
            queue.push(completion(i), i);
        }
        assert_eq!(queue.pop().unwrap().unwrap().completion.wr_id, 0);
        assert_eq!(queue.pop().unwrap().unwrap().completion.wr_id, 1);
        assert_eq!(queue.pop().err(), Some(Errno::OVERFLOW));
        assert_eq!(queue.pop().err(), Some(Errno::OVERFLOW));
        async_queue.push(AsyncEvent::CqError(0));
        assert_eq!(async_queue.take(), Ok(AsyncEvent::CqError(TOKEN)));
        assert_eq!(async_queue.take(), Ok(AsyncEvent::CqError(0)));
    }

    #[test]
    fn an_armed_queue_raises_one_event() {
        let (mut queue, channel, _) = queue(10);
        queue.push(completion(1), 0);
        assert_eq!(events(&channel), 0);
        queue.arm(false);
        queue.arm(true);
        assert_eq!(events(&channel), 0);
        queue.push(completion(2), 0);
        queue.push(completion(3), 0);
        assert_eq!(events(&channel), 1);
    }

    #[test]
    fn armed_for_solicited_ones_it_waits_for_those_and_for_failures() {
        for (solicited, status) in [(true, Status::Success), (false, Status::RetryExceeded)] {
            let (mut queue, channel, _) = queue(10);
            queue.arm(true);
            queue.push(completion(1), 0);
            assert_eq!(events(&channel), 0);
            queue.push(Completion { solicited, status, ..completion(2) }, 0);
            assert_eq!(events(&channel), 1);
        }
    }

    #[test]
    fn resizing_keeps_what_is_in_it() {
        let (mut queue, _, async_queue) = queue(2);
        queue.push(completion(1), 0);
        queue.push(completion(2), 0);
        assert_eq!(queue.resize(1), Err(Errno::INVAL));
        assert_eq!(queue.resize(3), Ok(()));
        queue.push(completion(3), 0);
        assert_eq!(ids(&mut queue), [1, 2, 3]);
        assert_eq!(queue.resize(1), Ok(()));
        queue.push(completion(4), 0);
        queue.push(completion(5), 0);
        assert_eq!(async_queue.take(), Ok(AsyncEvent::CqError(TOKEN)));
    }

    #[test]
    fn cleaning_takes_out_one_queue_pair() {
        let (mut queue, ..) = queue(10);
        for i in 0..6 {
            queue.push(completion(i), 0);
        }
        queue.clean(1);
        assert_eq!(ids(&mut queue), [0, 2, 4]);
    }
}
