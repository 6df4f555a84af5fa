//! Unreliable connections: whatever the link does, messages arrive whole and unchanged, or not at all.

use super::fixture::{RECV_CQ, SEND_CQ};
use super::host::Record;
use super::link::Faults;
use super::pair::{Observer, Pair};
use super::rng::Rng;
use super::scenario::Scenario;
use super::trace::{for_seeds, Trace};
use crate::transport::{Completion, CompletionKind, SendOperation, State, Status};
use crate::wire::Service;

/// A write of the peer that may be the one that comes in, and how much of it has.
#[derive(Clone, Copy, Debug)]
struct Begun {
    index: usize,
    written: usize,
}

/// What was seen of one side.
#[derive(Debug, Default)]
struct View {
    /// All its sends before this one are known to be done.
    completed: usize,
    /// How many receives have completed.
    received: usize,
    /// What the last bytes that a peer has written can belong to.
    begun: Vec<Begun>,
    /// The last message of the peer that was received, and how many were.
    last: Option<usize>,
    messages: usize,
    /// How many bytes the peer has written.
    written: usize,
}

/// Knows what the peers have sent.
#[derive(Debug, Default)]
struct Unreliable {
    views: [View; 2],
    /// Whether packets overtake each other, or come twice.
    disorder: bool,
}

impl Observer for Unreliable {
    fn observe(&mut self, pair: &mut Pair, node: usize, record: Record) {
        match record {
            Record::Complete(SEND_CQ, completion) => self.send_completed(pair, node, completion),
            Record::Complete(RECV_CQ, completion) => self.receive_completed(pair, node, completion),
            Record::Complete(cq, _) => panic!("a completion in {cq:?}"),
            Record::RemoteWrite { addr, bytes } => self.written(pair, node, addr, &bytes),
            Record::LocalWrite { .. } | Record::SrqLimit(_) => {}
            record => panic!("{node}: {record:?}"),
        }
    }
}

impl Unreliable {
    fn send_completed(&mut self, pair: &Pair, node: usize, completion: Completion) {
        let side = &pair.sides[node];
        let view = &mut self.views[node];
        let index = completion.wr_id.wrapping_sub(0x5000) as usize;
        assert!((view.completed..side.posted.len()).contains(&index), "{completion:?}");
        assert_eq!(completion.status, Status::Success);
        view.completed = index + 1;
    }

    fn receive_completed(&mut self, pair: &Pair, node: usize, completion: Completion) {
        let (side, peer) = (&pair.sides[node], &pair.sides[1 - node]);
        let view = &mut self.views[node];
        let receive = side.receives[..side.receives_posted].get(view.received);
        let receive = receive.unwrap_or_else(|| panic!("no receive for {completion:?}"));
        assert_eq!((completion.wr_id, completion.status), (receive.wr_id, Status::Success));
        view.received += 1;
        let sent = &peer.plan[..peer.posted.len()];
        let len = completion.len as usize;
        let fits = |index: &usize| {
            let planned = &sent[*index];
            completion.imm == planned.imm()
                && completion.solicited == planned.request.solicited
                && len == planned.data.len()
        };
        let bytes = pair.scattered(node, &receive.sges);
        let mut candidates: Vec<_> = match completion.kind {
            CompletionKind::Recv => (0..sent.len())
                .filter(fits)
                .filter(|&index| {
                    matches!(sent[index].request.operation, SendOperation::Send { .. })
                        && bytes[..len] == sent[index].data
                })
                .collect(),
            // All of it has just been written, if there was anything to write.
            _ if len > 0 => {
                let whole = view.begun.iter().filter(|begun| begun.written == len);
                whole.map(|begun| begun.index).filter(fits).collect()
            }
            _ => (0..sent.len())
                .filter(fits)
                .filter(|&index| {
                    matches!(sent[index].request.operation, SendOperation::Write { .. })
                })
                .collect(),
        };
        if !self.disorder {
            candidates.retain(|&index| view.last.is_none_or(|last| index > last));
        }
        assert!(!candidates.is_empty(), "nobody has sent {completion:?}");
        view.last = candidates.first().copied();
        view.messages += 1;
    }

    /// A peer has written the memory of this device.
    fn written(&mut self, pair: &Pair, node: usize, addr: u64, bytes: &[u8]) {
        let peer = &pair.sides[1 - node];
        let mtu = pair.net.nodes[node].endpoints[0].qp.attributes().path_mtu as usize;
        let goes_on = |begun: Begun| {
            let planned = &peer.plan[begun.index];
            let SendOperation::Write { addr: start, .. } = planned.request.operation else {
                return None;
            };
            let rest = &planned.data[begun.written..];
            let here = start + begun.written as u64 == addr && !rest.is_empty();
            let written = begun.written + bytes.len();
            (here && bytes == &rest[..rest.len().min(mtu)]).then_some(Begun { written, ..begun })
        };
        let view = &mut self.views[node];
        let first = (0..peer.posted.len()).map(|index| Begun { index, written: 0 });
        let begun = view.begun.iter().copied().chain(first).filter_map(goes_on).collect();
        view.begun = begun;
        view.written += bytes.len();
        assert!(!view.begun.is_empty(), "{node}: {} bytes at {addr:#x}", bytes.len());
    }

    fn check_end(&self, pair: &Pair, all_arrives: bool) {
        for node in 0..2 {
            let (side, view) = (&pair.sides[node], &self.views[node]);
            let endpoint = &pair.net.nodes[node].endpoints[0];
            assert_eq!(endpoint.qp.state(), State::ReadyToSend);
            assert_eq!(endpoint.qp.send_room(), endpoint.qp.config().max_send_wr as usize);
            assert_eq!(side.posted.len(), side.plan.len());
            assert_eq!(endpoint.seen.again + endpoint.seen.responses, 0);
            if all_arrives {
                let sent = pair.sides[1 - node].plan.iter();
                let written = sent.clone().filter(|planned| {
                    matches!(planned.request.operation, SendOperation::Write { .. })
                });
                let written: usize = written.map(|planned| planned.data.len()).sum();
                assert_eq!(view.written, written, "{node}: not all was written");
                let messages = sent.filter(|planned| planned.takes_receive()).count();
                assert_eq!(view.messages, messages, "{node}: not all was received");
            }
        }
    }
}

fn run(seed: u64, trace: &Trace, scenario: &Scenario) {
    let (mut pair, _) = scenario.build(seed, trace);
    let disorder = scenario.faults.iter().any(|faults| faults.reordering + faults.duplication > 0);
    let mut seen = Unreliable { disorder, ..Unreliable::default() };
    pair.run(&mut seen);
    let is_perfect = scenario.faults.iter().all(Faults::is_perfect);
    seen.check_end(&pair, is_perfect && scenario.ready);
}

#[test]
fn messages_arrive_whole_and_unchanged_or_not_at_all() {
    for_seeds(5000, |seed, trace| {
        run(seed, trace, &Scenario::draw(&mut Rng::new(seed ^ 0x22), Service::Uc));
    });
}

#[test]
fn all_messages_arrive_if_nothing_goes_wrong() {
    for_seeds(500, |seed, trace| {
        let mut scenario = Scenario::draw(&mut Rng::new(seed ^ 0x33), Service::Uc);
        scenario.faults = scenario.faults.map(Faults::without_any);
        scenario.ready = true;
        run(seed, trace, &scenario);
    });
}
