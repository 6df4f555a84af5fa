//! What must come of the requests of a reliable connection.

use std::time::Instant;

use super::fixture::{RECV_CQ, SEND_CQ};
use super::host::Record;
use super::pair::{Observer, Pair};
use super::plan::{Planned, Poison};
use crate::transport::{
    Completion, CompletionKind, Payload, QpEvent, SendOperation, State, Status,
};

/// The first error of a send queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    /// The request's place in the plan.
    pub(crate) index: usize,
    pub(crate) status: Status,
    pub(crate) at: Instant,
}

/// What was seen of one side.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// All its sends before this one are known to be done.
    completed: usize,
    pub(crate) failure: Option<Failure>,
    /// How many receives have completed.
    received: usize,
    /// Which operation of the peer is carried out next, and how much of it, if it is a write, has been.
    executed: usize,
    written: usize,
    /// All of its requests before this one that are done at this side were carried out.
    done_here: usize,
    /// The events that it was told.
    events: Vec<QpEvent>,
}

/// Knows what each operation must leave in memory, and in which order.
#[derive(Debug, Default)]
pub(crate) struct Reliable {
    pub(crate) views: [View; 2],
    /// A request that must fail.
    pub(crate) poison: Option<Poison>,
    /// When a side was last taken to another state, which allows all retries again.
    pub(crate) modified: Option<Instant>,
    /// The side that was taken to `Error`.
    pub(crate) stopped: Option<usize>,
}

impl Observer for Reliable {
    fn observe(&mut self, pair: &mut Pair, node: usize, record: Record) {
        match record {
            Record::Complete(SEND_CQ, completion) => self.send_completed(pair, node, completion),
            Record::Complete(RECV_CQ, completion) => self.receive_completed(pair, node, completion),
            Record::Complete(cq, _) => panic!("a completion in {cq:?}"),
            Record::RemoteWrite { addr, bytes } => self.written(pair, node, addr, &bytes),
            Record::Atomic { addr, original, .. } => self.changed(pair, node, addr, original),
            Record::Bind(key) => self.done_here(pair, node, |planned| planned.binds(key)),
            Record::Invalidate(key) => self.withdrawn(pair, node, key),
            Record::Event(_, event) => self.views[node].events.push(event),
            Record::LocalWrite { .. } | Record::RemoteRead { .. } | Record::SrqLimit(_) => {}
        }
    }
}

impl Reliable {
    fn send_completed(&mut self, pair: &Pair, node: usize, completion: Completion) {
        let signal_all = pair.net.nodes[node].endpoints[0].qp.config().signal_all;
        let peer_executed = self.skip_unmarked(pair, 1 - node);
        let side = &pair.sides[node];
        let view = &mut self.views[node];
        let index = completion.wr_id.wrapping_sub(0x5000) as usize;
        assert!(index < side.posted.len(), "{completion:?} was never posted");
        if view.failure.is_some() {
            assert_eq!(index, view.completed, "flushed in another order");
            assert_eq!(completion.status, Status::WorkRequestFlushed, "after an error");
            view.completed += 1;
            return;
        }
        assert!(index >= view.completed, "{completion:?} completes again");
        for skipped in &side.plan[view.completed..index] {
            let unsignaled = !skipped.request.signaled && !signal_all;
            assert!(unsignaled, "{completion:?} overtakes {skipped:?}");
        }
        view.completed = index + 1;
        let planned = &side.plan[index];
        if completion.status != Status::Success {
            let at = pair.net.now();
            view.failure = Some(Failure { index, status: completion.status, at });
            return;
        }
        assert!(planned.request.signaled || signal_all, "{completion:?} is unsignaled");
        assert!(peer_executed > index, "{completion:?} before it was carried out");
        self.check_unpoisoned(node, index);
        if planned.request.operation.is_local() {
            assert!(self.views[node].done_here > index, "{completion:?} before it was done");
        }
        let (kind, len) = match planned.request.operation {
            SendOperation::Send { .. }
            | SendOperation::SendWithInvalidate { .. }
            | SendOperation::Datagram { .. }
            | SendOperation::Srd { .. } => (CompletionKind::Send, None),
            SendOperation::Bind(_) => (CompletionKind::Bind, Some(0)),
            SendOperation::LocalInvalidate { .. } => (CompletionKind::LocalInvalidate, Some(0)),
            SendOperation::Write { .. } => (CompletionKind::Write, None),
            SendOperation::Read { .. } => {
                (CompletionKind::Read, Some(planned.request.payload.len() as u32))
            }
            SendOperation::CompareSwap { .. } => (CompletionKind::CompareSwap, Some(8)),
            SendOperation::FetchAdd { .. } => (CompletionKind::FetchAdd, Some(8)),
        };
        assert_eq!(completion.kind, kind);
        if let Some(len) = len {
            assert_eq!(completion.len, len, "{completion:?}");
        }
        if let (Some(original), Payload::Sges(sges)) = (planned.original, &planned.request.payload)
        {
            let found = pair.scattered(node, sges);
            assert_eq!(found, original.to_ne_bytes(), "the value before {completion:?}");
        }
        check_read(pair, node, index);
    }

    fn receive_completed(&mut self, pair: &Pair, node: usize, completion: Completion) {
        let executed = self.skip_unmarked(pair, node);
        let side = &pair.sides[node];
        let view = &mut self.views[node];
        let receive = side.receives[..side.receives_posted].get(view.received);
        let receive = receive.unwrap_or_else(|| panic!("no receive for {completion:?}"));
        assert_eq!(completion.wr_id, receive.wr_id, "receives complete in another order");
        view.received += 1;
        if completion.status != Status::Success {
            assert_eq!(pair.state(node), State::Error, "{completion:?} while nothing has failed");
            let poisoned = self.poison.is_some_and(|poison| {
                poison.side != node
                    && poison.index == executed
                    && poison.receive == Some(completion.status)
            });
            assert!(poisoned || completion.status == Status::WorkRequestFlushed, "{completion:?}");
            return;
        }
        let planned = self.executing(pair, node, executed);
        assert!(planned.takes_receive(), "{completion:?} before {planned:?}");
        assert_eq!(completion.imm, planned.imm());
        assert_eq!(completion.invalidated, planned.withdraws());
        assert_eq!(completion.len as usize, planned.data.len());
        assert_eq!(completion.solicited, planned.request.solicited);
        let view = &mut self.views[node];
        if completion.kind == CompletionKind::Recv {
            let is_send = matches!(
                planned.request.operation,
                SendOperation::Send { .. } | SendOperation::SendWithInvalidate { .. }
            );
            assert!(is_send, "{completion:?} of {planned:?}");
            let bytes = pair.scattered(node, &receive.sges);
            assert_eq!(bytes[..planned.data.len()], planned.data, "receive {}", receive.wr_id);
        } else {
            assert_eq!(completion.kind, CompletionKind::RecvWriteWithImm);
            assert!(matches!(planned.request.operation, SendOperation::Write { .. }));
            assert_eq!(view.written, planned.data.len(), "completed before it was written");
        }
        view.executed += 1;
        view.written = 0;
        self.check_unpoisoned(1 - node, executed);
    }

    /// A peer has written the memory of this device.
    fn written(&mut self, pair: &Pair, node: usize, addr: u64, bytes: &[u8]) {
        let executed = self.skip_unmarked(pair, node);
        let planned = self.executing(pair, node, executed);
        let SendOperation::Write { addr: start, imm, .. } = planned.request.operation else {
            panic!("a write of {} bytes at {addr:#x} before {planned:?}", bytes.len());
        };
        let view = &mut self.views[node];
        let at = view.written;
        assert_eq!(addr, start + at as u64, "where operation {executed} writes");
        let part = planned.data.get(at..at + bytes.len());
        assert_eq!(part, Some(bytes), "what operation {executed} writes from {at} on");
        view.written += bytes.len();
        if view.written == planned.data.len() && imm.is_none() {
            view.executed += 1;
            view.written = 0;
            self.check_unpoisoned(1 - node, executed);
        }
    }

    /// A peer has changed 8 bytes of this device.
    fn changed(&mut self, pair: &Pair, node: usize, addr: u64, original: u64) {
        let executed = self.skip_unmarked(pair, node);
        let planned = self.executing(pair, node, executed);
        match planned.request.operation {
            SendOperation::CompareSwap { addr: place, .. }
            | SendOperation::FetchAdd { addr: place, .. } => assert_eq!(addr, place),
            _ => panic!("an atomic operation before {planned:?}"),
        }
        assert_eq!(Some(original), planned.original, "an operation was carried out twice, or none");
        self.views[node].executed += 1;
        self.check_unpoisoned(1 - node, executed);
    }

    /// A request of this side has bound or withdrawn a key of this side.
    fn done_here(&mut self, pair: &Pair, node: usize, is_it: impl Fn(&Planned) -> bool) {
        let side = &pair.sides[node];
        let view = &mut self.views[node];
        let left = side.plan[..side.posted.len()].iter().enumerate().skip(view.done_here);
        let mut left = left.filter(|(_, planned)| planned.request.operation.is_local());
        let (index, planned) = left.next().expect("there is a request for that");
        assert!(is_it(planned), "{node}: something else is done than {planned:?}");
        view.done_here = index + 1;
        // What the peer is going to refuse does not hold up what is done here.
        if self.poison.is_some_and(|poison| !poison.fails_peer) {
            self.check_unpoisoned(node, index);
        }
    }

    /// A key of this device was withdrawn: by a request of this side, or by the peer with the key that it was lent.
    fn withdrawn(&mut self, pair: &Pair, node: usize, key: u32) {
        if !pair.sides[node].memory.is_lent(key) {
            self.done_here(pair, node, |planned| planned.withdraws_here(key));
            return;
        }
        let executed = self.skip_unmarked(pair, node);
        let planned = self.executing(pair, node, executed);
        assert_eq!(planned.withdraws(), Some(key), "withdrawn before {planned:?}");
    }

    /// The operation of the peer that is carried out here.
    fn executing<'a>(&self, pair: &'a Pair, node: usize, index: usize) -> &'a Planned {
        let peer = &pair.sides[1 - node];
        let planned = peer.plan[..peer.posted.len()].get(index);
        planned.unwrap_or_else(|| panic!("{node} does what nobody has asked for"))
    }

    /// Passes over what leaves no mark at this device. Returns which operation of the peer is the next.
    fn skip_unmarked(&mut self, pair: &Pair, node: usize) -> usize {
        let plan = &pair.sides[1 - node].plan;
        let view = &mut self.views[node];
        while plan.get(view.executed).is_some_and(|planned| !planned.leaves_a_mark()) {
            view.executed += 1;
        }
        view.executed
    }

    /// A request was carried out: was it one that can be?
    fn check_unpoisoned(&self, side: usize, index: usize) {
        if let Some(poison) = self.poison.filter(|poison| poison.side == side) {
            assert!(index < poison.index, "{index} was carried out in spite of {poison:?}");
        }
    }

    /// Takes the events that tell that a side has finished what was begun; how many there were.
    pub(crate) fn take_drained(&mut self, node: usize) -> usize {
        let events = &mut self.views[node].events;
        let before = events.len();
        events.retain(|&event| event != QpEvent::SendQueueDrained);
        before - events.len()
    }

    /// Checks that nothing is left when nothing happens any more.
    pub(crate) fn check_end(&mut self, pair: &Pair) {
        for node in 0..2 {
            let failed = pair.state(node) == State::Error;
            let peer_failed = pair.state(1 - node) == State::Error;
            let peer_executed = self.skip_unmarked(pair, 1 - node);
            let (side, view) = (&pair.sides[node], &self.views[node]);
            let qp = &pair.net.nodes[node].endpoints[0].qp;
            assert_eq!(qp.next_timeout(), None);
            let room = qp.config().max_send_wr as usize;
            assert_eq!(qp.send_room(), room, "{node}: sends are outstanding");
            if view.failure.is_some() {
                assert!(failed);
                assert_eq!(view.completed, side.posted.len(), "{node}: not all sends were flushed");
            } else {
                let signal_all = qp.config().signal_all;
                for planned in &side.plan[view.completed..side.posted.len()] {
                    let unsignaled = !planned.request.signaled && !signal_all;
                    assert!(unsignaled, "{node}: {planned:?} has not completed");
                }
                assert!(peer_executed >= side.posted.len(), "{node}: not all was carried out");
                let here = side.plan[..side.posted.len()].iter().skip(view.done_here);
                let left = here.filter(|planned| planned.request.operation.is_local()).count();
                assert_eq!(left, 0, "{node}: not all was done here");
            }
            if let Some(srq) = side.srq {
                let left = pair.net.nodes[node].host.srq_len(srq);
                // One that a message has begun to fill is lent to the queue pair.
                let lent = side.receives_posted - view.received - left;
                assert!(lent <= usize::from(!failed), "{node}: {lent} shared receives are lost");
            }
            if failed {
                if side.srq.is_none() {
                    assert_eq!(view.received, side.receives_posted, "{node}: not all flushed");
                }
                let told = |wanted| view.events.iter().filter(|&&event| event == wanted).count();
                let last = usize::from(side.srq.is_some());
                assert_eq!(told(QpEvent::LastRequestReached), last, "{node}: {:?}", view.events);
                continue;
            }
            assert_eq!(pair.state(node), State::ReadyToSend);
            assert!(view.events.is_empty(), "{node}: {:?}", view.events);
            assert_eq!(side.posted.len(), side.plan.len());
            if !peer_failed {
                let messages = pair.sides[1 - node].plan.iter();
                let messages = messages.filter(|planned| planned.takes_receive()).count();
                assert_eq!(view.received, messages, "{node}: messages received");
            }
        }
    }
}

/// Checks what a read has brought: each byte is what the last write before it has left there, or what a later one that may
/// overtake it has put there.
fn check_read(pair: &Pair, node: usize, index: usize) {
    let plan = &pair.sides[node].plan;
    let read = &plan[index].request;
    let (SendOperation::Read { addr: start, .. }, Payload::Sges(sges)) =
        (&read.operation, &read.payload)
    else {
        return;
    };
    let found = pair.scattered(node, sges);
    // The byte of a write that is put where this byte of the read comes from.
    let put = |planned: &'_ Planned, place: usize| match planned.request.operation {
        SendOperation::Write { addr, .. } => {
            let at = (start + place as u64).checked_sub(addr)?;
            planned.data.get(at as usize).copied()
        }
        _ => None,
    };
    for (place, &found) in found.iter().enumerate() {
        let before = plan[..index].iter().rev().find_map(|planned| put(planned, place));
        if before.is_none_or(|before| before == found) {
            continue;
        }
        let mut later = plan[index + 1..].iter().take_while(|planned| !planned.request.fenced);
        let overtaken = later.any(|planned| put(planned, place) == Some(found));
        assert!(overtaken, "read {index} has {found:#x} at {place}, not {before:?}");
    }
}
