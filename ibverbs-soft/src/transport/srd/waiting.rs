//! Sends of which pieces are still to be begun: a queue for each queue pair that they go to, so that none waits for another's.

use std::collections::{BTreeMap, VecDeque};

use super::Peer;

/// Sends of which pieces are still to be begun.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    queues: BTreeMap<Peer, Queue>,
    /// To whom something can perhaps be begun.
    ready: VecDeque<Peer>,
}

#[derive(Debug, Default)]
struct Queue {
    /// In the order in which they were posted.
    sends: VecDeque<u64>,
    /// Whether the peer stands among those that are ready.
    is_ready: bool,
}

impl Waiting {
    /// Adds a send behind the others to this peer.
    pub(super) fn push(&mut self, peer: Peer, send: u64) {
        self.queues.entry(peer).or_default().sends.push_back(send);
        self.make_ready(peer);
    }

    /// Takes a send out.
    pub(super) fn remove(&mut self, peer: Peer, send: u64) {
        let Some(Queue { sends, .. }) = self.queues.get_mut(&peer) else { return };
        if let Some(place) = sends.iter().position(|waiting| *waiting == send) {
            sends.remove(place);
        }
    }

    /// The send in this place of those to a peer.
    pub(super) fn get(&self, peer: Peer, place: usize) -> Option<u64> {
        self.queues.get(&peer)?.sends.get(place).copied()
    }

    /// Notes that something to this peer can perhaps be begun now.
    pub(super) fn make_ready(&mut self, peer: Peer) {
        if let Some(queue) = self.queues.get_mut(&peer) {
            if !std::mem::replace(&mut queue.is_ready, true) {
                self.ready.push_back(peer);
            }
        }
    }

    /// The same of all peers.
    pub(super) fn make_all_ready(&mut self) {
        for (peer, queue) in &mut self.queues {
            if !std::mem::replace(&mut queue.is_ready, true) {
                self.ready.push_back(*peer);
            }
        }
    }

    /// The peer whose turn it is.
    pub(super) fn first_ready(&self) -> Option<Peer> {
        self.ready.front().copied()
    }

    /// Ends the turn of that peer: nothing more can be begun now.
    pub(super) fn end_turn(&mut self) {
        let Some(peer) = self.ready.pop_front() else { return };
        if self.queues.get(&peer).is_some_and(|queue| queue.sends.is_empty()) {
            self.queues.remove(&peer);
        } else if let Some(queue) = self.queues.get_mut(&peer) {
            queue.is_ready = false;
        }
    }
}
