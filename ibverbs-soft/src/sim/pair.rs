//! Two programs that talk over a connection, and an observer who knows what must come of it.

use std::time::{Duration, Instant};

use super::fixture::{RECV_CQ, SEND_CQ};
use super::host::Record;
use super::network::{Network, Step};
use super::plan::{Memory, Planned};
use crate::transport::{
    Completion, CompletionKind, Payload, QpEvent, RecvRequest, SendOperation, SrqId, State, Status,
};

/// How a program goes about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// The most sends, and the most receives, that are posted at a time.
    pub(crate) sends: u64,
    pub(crate) receives: u64,
    /// The longest pause until the next ones.
    pub(crate) pause: Duration,
}

/// The first error of a send queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    /// The request's place in the plan.
    pub(crate) index: usize,
    pub(crate) status: Status,
    pub(crate) at: Instant,
}

/// One of the programs, and what was seen of it.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) plan: Vec<Planned>,
    pub(crate) receives: Vec<RecvRequest>,
    pub(crate) memory: Memory,
    pub(crate) srq: Option<SrqId>,
    pub(crate) pace: Pace,
    /// How many sends and receives were posted, and when.
    pub(crate) posted: Vec<Instant>,
    pub(crate) receives_posted: usize,
    /// How often in a row it could not post anything.
    blocked: u32,
    /// All sends before this one are known to be done.
    pub(crate) completed: usize,
    pub(crate) failure: Option<Failure>,
    /// How many receives have completed.
    pub(crate) received: usize,
    /// Which operation of the peer is carried out next, and how much of it, if it is a write, has been.
    pub(crate) executed: usize,
    written: usize,
    /// The events that it was told.
    pub(crate) events: Vec<QpEvent>,
}

impl Side {
    pub(crate) fn new(
        plan: Vec<Planned>,
        receives: Vec<RecvRequest>,
        memory: Memory,
        srq: Option<SrqId>,
        pace: Pace,
    ) -> Side {
        Side {
            plan,
            receives,
            memory,
            srq,
            pace,
            posted: Vec::new(),
            receives_posted: 0,
            blocked: 0,
            completed: 0,
            failure: None,
            received: 0,
            executed: 0,
            written: 0,
            events: Vec::new(),
        }
    }
}

/// Two programs, each with queue pair 0 of its device.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) net: Network,
    pub(crate) sides: [Side; 2],
}

impl Pair {
    /// Lets both programs run until nothing happens any more.
    pub(crate) fn run(&mut self) {
        self.begin();
        while self.step() {}
    }

    /// Lets both programs begin.
    pub(crate) fn begin(&mut self) {
        self.net.wake(0, Duration::ZERO);
        self.net.wake(1, Duration::ZERO);
    }

    /// Goes on to the next thing that happens. Returns whether there was one.
    pub(crate) fn step(&mut self) -> bool {
        let Some(step) = self.net.step() else { return false };
        match step {
            Step::Wake(node) => self.post(node),
            Step::Device(_) | Step::Other => {}
        }
        self.observe(0);
        self.observe(1);
        true
    }

    pub(crate) fn state(&self, node: usize) -> State {
        self.net.nodes[node].endpoints[0].qp.state()
    }

    /// Posts some of what is left.
    fn post(&mut self, node: usize) {
        let failed = self.state(node) == State::Error;
        let peer_failed = self.state(1 - node) == State::Error;
        let side = &self.sides[node];
        let (pace, srq) = (side.pace, side.srq);
        let mut sends = self.net.rng.below(pace.sends + 1);
        let mut receives = self.net.rng.below(pace.receives + 1);
        let left = side.plan.len() - side.posted.len();
        let left_receives = side.receives.len() - side.receives_posted;
        let before = left + left_receives;
        if failed {
            // A few more, to be flushed, and no others.
            sends = left.min(2) as u64;
            receives = left_receives.min(2) as u64;
        }
        for _ in 0..sends {
            let side = &mut self.sides[node];
            let Some(next) = side.plan.get(side.posted.len()) else { break };
            if self.net.nodes[node].endpoints[0].qp.send_room() == 0 {
                break;
            }
            side.posted.push(self.net.now());
            let request = next.request.clone();
            self.net.post_send(node, 0, request);
        }
        for _ in 0..receives {
            let side = &mut self.sides[node];
            let Some(next) = side.receives.get(side.receives_posted) else { break };
            let request = next.clone();
            match srq {
                Some(srq) => self.net.nodes[node].host.post_srq_recv(srq, request),
                None if self.net.nodes[node].endpoints[0].qp.recv_room() == 0 => {
                    if peer_failed {
                        // There never will be.
                        side.receives.truncate(side.receives_posted);
                    }
                    break;
                }
                None => self.net.post_recv(node, 0, request),
            }
            side.receives_posted += 1;
        }
        let side = &mut self.sides[node];
        if failed {
            side.plan.truncate(side.posted.len());
            side.receives.truncate(side.receives_posted);
        }
        let after =
            side.plan.len() - side.posted.len() + side.receives.len() - side.receives_posted;
        side.blocked = if after == before { side.blocked + 1 } else { 0 };
        if after > 0 {
            // Whoever waits for long looks less often.
            let pause = (pace.pause * (1 << side.blocked.min(12))).min(Duration::from_millis(5));
            let pause = self.net.rng.below(pause.as_nanos() as u64 + 1);
            self.net.wake(node, Duration::from_nanos(pause));
        }
    }

    /// Checks what was done to a device since the last time.
    pub(crate) fn observe(&mut self, node: usize) {
        for record in self.net.nodes[node].host.take_log() {
            if self.net.trace.is_on() && !matches!(record, Record::LocalWrite { .. }) {
                let mut what = format!("{record:?}");
                what.truncate(200);
                self.net.trace.line(self.net.elapsed(), format_args!("{node} ** {what}"));
            }
            match record {
                Record::Complete(SEND_CQ, completion) => self.send_completed(node, completion),
                Record::Complete(RECV_CQ, completion) => self.receive_completed(node, completion),
                Record::Complete(cq, _) => panic!("a completion in {cq:?}"),
                Record::RemoteWrite { addr, bytes } => self.written(node, addr, &bytes),
                Record::Atomic { addr, original, .. } => self.changed(node, addr, original),
                Record::Event(_, event) => self.sides[node].events.push(event),
                Record::LocalWrite { .. } | Record::RemoteRead { .. } | Record::SrqLimit(_) => {}
            }
        }
    }

    fn send_completed(&mut self, node: usize, completion: Completion) {
        let now = self.net.now();
        let signal_all = self.net.nodes[node].endpoints[0].qp.config().signal_all;
        let peer_executed = self.skip_unmarked(1 - node);
        let side = &mut self.sides[node];
        let index = completion.wr_id.wrapping_sub(0x5000) as usize;
        assert!(index < side.posted.len(), "{completion:?} was never posted");
        if side.failure.is_some() {
            assert_eq!(index, side.completed, "flushed in another order");
            assert_eq!(completion.status, Status::WorkRequestFlushed, "after an error");
            side.completed += 1;
            return;
        }
        assert!(index >= side.completed, "{completion:?} completes again");
        for skipped in &side.plan[side.completed..index] {
            assert!(
                !skipped.request.signaled && !signal_all,
                "{completion:?} overtakes {skipped:?}"
            );
        }
        side.completed = index + 1;
        if completion.status != Status::Success {
            side.failure = Some(Failure { index, status: completion.status, at: now });
            return;
        }
        let planned = &self.sides[node].plan[index];
        assert!(planned.request.signaled || signal_all, "{completion:?} is unsignaled");
        assert!(peer_executed > index, "{completion:?} before it was carried out");
        let (kind, len) = match planned.request.operation {
            SendOperation::Send { .. } | SendOperation::Datagram { .. } => {
                (CompletionKind::Send, None)
            }
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
        match planned.request.operation {
            SendOperation::Read { .. } => self.check_read(node, index),
            _ => {
                if let Some(original) = planned.original {
                    let bytes = self.scattered(node, &planned.request.payload);
                    let found = u64::from_ne_bytes(bytes.try_into().expect("8 bytes"));
                    assert_eq!(found, original, "what {completion:?} tells of the value before");
                }
            }
        }
    }

    /// The bytes where a read or an atomic operation puts its result.
    fn scattered(&self, node: usize, payload: &Payload) -> Vec<u8> {
        let Payload::Sges(sges) = payload else { panic!("a result in {payload:?}") };
        let host = &self.net.nodes[node].host;
        sges.iter().flat_map(|sge| host.peek(sge.addr, sge.len as usize)).collect()
    }

    /// Checks what a read has brought: each byte is what the last write before it has left there, or what a later one that may
    /// overtake it has put there.
    fn check_read(&self, node: usize, index: usize) {
        let plan = &self.sides[node].plan;
        let read = &plan[index];
        let SendOperation::Read { addr: start, .. } = read.request.operation else { return };
        let found = self.scattered(node, &read.request.payload);
        let mut suspects = Vec::new();
        let mut expected = vec![None; found.len()];
        let writes = |planned: &Planned| match planned.request.operation {
            SendOperation::Write { addr, .. } => Some(addr),
            _ => None,
        };
        let covered = |addr: u64, len: usize| {
            (0..len).filter_map(move |i| {
                let place = (addr + i as u64).checked_sub(start)?;
                Some((i, place as usize))
            })
        };
        for planned in &plan[..index] {
            let Some(addr) = writes(planned) else { continue };
            for (i, place) in covered(addr, planned.data.len()) {
                if let Some(byte) = expected.get_mut(place) {
                    *byte = Some(planned.data[i]);
                }
            }
        }
        for (place, (&found, &expected)) in found.iter().zip(&expected).enumerate() {
            if expected.is_some_and(|expected| expected != found) {
                suspects.push((place, found));
            }
        }
        for planned in &plan[index + 1..] {
            if suspects.is_empty() || planned.request.fenced {
                break;
            }
            let Some(addr) = writes(planned) else { continue };
            suspects.retain(|&(place, byte)| {
                let at = (start + place as u64).checked_sub(addr).map(|at| at as usize);
                at.and_then(|at| planned.data.get(at)) != Some(&byte)
            });
        }
        assert!(suspects.is_empty(), "read {index} has wrong bytes at {suspects:?}");
    }

    fn receive_completed(&mut self, node: usize, completion: Completion) {
        let failed = self.state(node) == State::Error;
        let executed = self.skip_unmarked(node);
        let [this, other] = self.both(node);
        let receive = &this.receives[..this.receives_posted].get(this.received);
        let receive = receive.unwrap_or_else(|| panic!("no receive for {completion:?}"));
        assert_eq!(completion.wr_id, receive.wr_id, "receives complete in another order");
        this.received += 1;
        if completion.status != Status::Success {
            assert_eq!(completion.status, Status::WorkRequestFlushed);
            assert!(failed, "{completion:?} while nothing has failed");
            return;
        }
        let planned = other.plan[..other.posted.len()].get(executed);
        let planned = planned.unwrap_or_else(|| panic!("nobody has sent {completion:?}"));
        assert!(planned.takes_receive(), "{completion:?} before {planned:?}");
        assert_eq!(completion.imm, planned.imm());
        assert_eq!(completion.len as usize, planned.data.len());
        assert_eq!(completion.solicited, planned.request.solicited);
        let kind = match planned.request.operation {
            SendOperation::Send { .. } => CompletionKind::Recv,
            _ => CompletionKind::RecvWriteWithImm,
        };
        assert_eq!(completion.kind, kind);
        match kind {
            CompletionKind::Recv => {
                let payload = Payload::Sges(receive.sges.clone());
                let data = planned.data.clone();
                let bytes = self.scattered(node, &payload);
                assert_eq!(bytes[..data.len()], data, "receive {}", completion.wr_id);
            }
            _ => assert_eq!(this.written, planned.data.len(), "completed before it was written"),
        }
        self.sides[node].executed += 1;
        self.sides[node].written = 0;
    }

    /// A peer has written the memory of this device.
    fn written(&mut self, node: usize, addr: u64, bytes: &[u8]) {
        let executed = self.skip_unmarked(node);
        let [this, other] = self.both(node);
        let planned = other.plan[..other.posted.len()].get(executed);
        let planned = planned.unwrap_or_else(|| panic!("nobody has written {addr:#x}"));
        let SendOperation::Write { addr: start, imm, .. } = planned.request.operation else {
            panic!("a write of {} bytes at {addr:#x} before {planned:?}", bytes.len());
        };
        let at = this.written;
        assert_eq!(addr, start + at as u64, "where operation {executed} writes");
        let part = planned.data.get(at..at + bytes.len());
        assert_eq!(part, Some(bytes), "what operation {executed} writes from {at} on");
        this.written += bytes.len();
        if this.written == planned.data.len() && imm.is_none() {
            this.executed += 1;
            this.written = 0;
        }
    }

    /// A peer has changed 8 bytes of this device.
    fn changed(&mut self, node: usize, addr: u64, original: u64) {
        let executed = self.skip_unmarked(node);
        let [this, other] = self.both(node);
        let planned = other.plan[..other.posted.len()].get(executed);
        let planned = planned.unwrap_or_else(|| panic!("nobody has changed {addr:#x}"));
        match planned.request.operation {
            SendOperation::CompareSwap { addr: place, .. }
            | SendOperation::FetchAdd { addr: place, .. } => assert_eq!(addr, place),
            _ => panic!("an atomic operation before {planned:?}"),
        }
        assert_eq!(Some(original), planned.original, "an operation was carried out twice, or none");
        this.executed += 1;
    }

    /// Passes over what leaves no mark at this device. Returns which operation of the peer is the next.
    fn skip_unmarked(&mut self, node: usize) -> usize {
        let [this, other] = self.both(node);
        while other.plan.get(this.executed).is_some_and(|planned| !planned.leaves_a_mark()) {
            this.executed += 1;
        }
        this.executed
    }

    /// A side and its peer.
    fn both(&mut self, node: usize) -> [&mut Side; 2] {
        let [a, b] = &mut self.sides;
        match node {
            0 => [a, b],
            _ => [b, a],
        }
    }

    /// Checks that nothing is left when nothing happens any more.
    pub(crate) fn check_end(&mut self) {
        for node in 0..2 {
            let failed = self.state(node) == State::Error;
            let peer_failed = self.state(1 - node) == State::Error;
            let peer_executed = self.skip_unmarked(1 - node);
            let side = &self.sides[node];
            let qp = &self.net.nodes[node].endpoints[0].qp;
            let plan = side.posted.len();
            if failed {
                assert_eq!(side.completed, plan, "{node}: not all sends were flushed");
                if side.srq.is_none() {
                    assert_eq!(side.received, side.receives_posted, "{node}: not all flushed");
                }
                let last = QpEvent::LastRequestReached;
                let told = side.events.iter().filter(|&&event| event == last).count();
                assert_eq!(told, usize::from(side.srq.is_some()), "{node}: {:?}", side.events);
            } else {
                assert_eq!(self.state(node), State::ReadyToSend);
                assert!(side.failure.is_none(), "{node}: {:?}", side.failure);
                assert_eq!(plan, side.plan.len());
                let signal_all = qp.config().signal_all;
                for planned in &side.plan[side.completed..] {
                    let unsignaled = !planned.request.signaled && !signal_all;
                    assert!(unsignaled, "{node}: {planned:?} has not completed");
                }
                assert!(peer_executed >= plan, "{node}: not all was carried out");
                let room = qp.config().max_send_wr as usize;
                assert_eq!(qp.send_room(), room, "{node}: sends are outstanding");
                if !peer_failed {
                    let messages = &self.sides[1 - node].plan;
                    let messages =
                        messages.iter().filter(|planned| planned.takes_receive()).count();
                    assert_eq!(side.received, messages, "{node}: messages received");
                }
            }
            assert_eq!(qp.next_timeout(), None);
        }
    }

    /// Fails if a queue pair wants to send something now: nothing was done to it.
    pub(crate) fn check_silence(&mut self) {
        let now = self.net.now();
        for node in 0..2 {
            let (endpoint, host) = self.net.endpoint(node, 0);
            assert_eq!(endpoint.qp.poll_transmit(now, host), None);
        }
    }
}
