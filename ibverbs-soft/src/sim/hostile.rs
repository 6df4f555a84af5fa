//! Packets that nobody has sent: those that come from elsewhere change nothing, and those that seem to come from the peer do no
//! more than a peer can.

use super::fixture::{RECV_CQ, SEND_CQ};
use super::forgery::forge;
use super::host::Record;
use super::pair::{Observer, Pair};
use super::rc;
use super::reliable::Reliable;
use super::rng::Rng;
use super::scenario::Scenario;
use super::trace::{for_seeds, Trace};
use crate::transport::{Completion, Payload, RemoteAccess, Sge, State, Status};
use crate::wire::Service;

/// Lets a packet in between arrive from time to time, until there were this many.
fn attack(pair: &mut Pair, rng: &mut Rng, source: Option<[u8; 4]>, left: &mut u32) {
    for _ in 0..rng.pick(&[0, 0, 1, 4]) {
        let dest = rng.below(2) as usize;
        let Some(packet) = forge(rng, pair, dest) else { continue };
        let mut path = pair.net.path(1 - dest, dest);
        if let Some(source) = source {
            path.source = source.into();
        }
        *left = left.saturating_sub(1);
        if *left > 0 {
            pair.net.inject(path, &packet);
        }
    }
}

#[test]
fn packets_from_elsewhere_change_nothing() {
    for_seeds(3000, |seed, trace| {
        let scenario = rc::scenario(seed);
        let (mut pair, _) = scenario.build(seed, trace);
        let mut rng = Rng::new(seed ^ 0xbad);
        let mut seen = Reliable::default();
        let mut left = 300;
        pair.begin();
        while pair.step(&mut seen) {
            attack(&mut pair, &mut rng, Some([10, 0, 0, 9]), &mut left);
        }
        rc::check(&mut pair, seen, &scenario);
    });
}

/// What was seen of one side.
#[derive(Debug, Default)]
struct View {
    sent: usize,
    failed: bool,
    received: usize,
}

/// Checks that no more is done than was allowed.
#[derive(Debug, Default)]
struct Guard([View; 2]);

impl Observer for Guard {
    fn observe(&mut self, pair: &mut Pair, node: usize, record: Record) {
        let side = &pair.sides[node];
        let view = &mut self.0[node];
        let access = pair.net.nodes[node].endpoints[0].qp.attributes().access;
        let (start, len) = side.memory.shared();
        let is_shared = |addr: u64, count: usize| {
            addr >= start && addr.saturating_add(count as u64) <= start + len
        };
        match record {
            Record::Complete(SEND_CQ, completion) => view.send_completed(pair, node, completion),
            Record::Complete(RECV_CQ, completion) => {
                let receive = &side.receives[..side.receives_posted][view.received];
                assert_eq!(completion.wr_id, receive.wr_id, "{completion:?}");
                view.received += 1;
            }
            Record::LocalWrite { addr, len } => {
                let sends = side.plan[view.sent..side.posted.len()].iter();
                let results = sends.filter_map(|planned| match &planned.request.payload {
                    Payload::Sges(sges) if planned.takes_result() => Some(sges),
                    _ => None,
                });
                let receives = side.receives[view.received..side.receives_posted].iter();
                let places = results.chain(receives.map(|receive| &receive.sges)).flatten();
                let within = |sge: &Sge| {
                    sge.addr <= addr && addr + u64::from(len) <= sge.addr + u64::from(sge.len)
                };
                assert!(places.into_iter().any(within), "{node}: {len} bytes at {addr:#x}");
            }
            Record::RemoteWrite { addr, bytes } => {
                assert!(access.write && is_shared(addr, bytes.len()));
            }
            Record::RemoteRead { addr, len } => {
                assert!(access.read && is_shared(addr, len as usize));
            }
            Record::Atomic { addr, .. } => assert!(access.atomic && is_shared(addr, 8)),
            Record::Bind(key) => assert!(!side.memory.is_lent(key), "{node}: {key:#x}"),
            Record::Invalidate(key) => {
                let own = side.plan[..side.posted.len()].iter().any(|it| it.withdraws_here(key));
                assert!(own || side.memory.is_lent(key), "{node}: {key:#x}");
            }
            Record::Event(..) | Record::SrqLimit(_) | Record::Complete(..) => {}
        }
    }
}

impl View {
    fn send_completed(&mut self, pair: &Pair, node: usize, completion: Completion) {
        let index = completion.wr_id.wrapping_sub(0x5000) as usize;
        let posted = pair.sides[node].posted.len();
        assert!((self.sent..posted).contains(&index), "{completion:?} completes again");
        if self.failed {
            assert_eq!((index, completion.status), (self.sent, Status::WorkRequestFlushed));
        }
        self.failed |= completion.status != Status::Success;
        self.sent = index + 1;
    }
}

/// A peer that says anything at all.
fn run(seed: u64, trace: &Trace, service: Service) {
    let mut scenario = Scenario::draw(&mut Rng::new(seed ^ 0x66), service);
    scenario.impatient = true;
    scenario.windows = service == Service::Rc && seed % 2 == 0;
    let (mut pair, _) = scenario.build(seed, trace);
    let mut rng = Rng::new(seed ^ 0xbad);
    for node in 0..2 {
        let mut attributes = *pair.net.nodes[node].endpoints[0].qp.attributes();
        let mut allowed = || rng.chance(700);
        attributes.access = RemoteAccess { write: allowed(), read: allowed(), atomic: allowed() };
        pair.net.modify(node, 0, State::ReadyToSend, attributes);
    }
    let mut guard = Guard::default();
    let mut left = rng.pick(&[5, 50, 300]);
    pair.begin();
    while pair.step(&mut guard) {
        attack(&mut pair, &mut rng, None, &mut left);
    }
    for node in 0..2 {
        let side = &pair.sides[node];
        let qp = &pair.net.nodes[node].endpoints[0].qp;
        assert_eq!(qp.next_timeout(), None);
        assert_eq!(qp.send_room(), qp.config().max_send_wr as usize, "{node}: work is left");
        if guard.0[node].failed {
            assert_eq!(guard.0[node].sent, side.posted.len(), "{node}: not all flushed");
        }
        if qp.state() == State::Error && side.srq.is_none() {
            assert_eq!(guard.0[node].received, side.receives_posted, "{node}: not all flushed");
        }
    }
}

#[test]
fn a_reliable_peer_that_says_anything_does_what_it_may_only() {
    for_seeds(5000, |seed, trace| run(seed, trace, Service::Rc));
}

#[test]
fn an_unreliable_peer_that_says_anything_does_what_it_may_only() {
    for_seeds(1000, |seed, trace| run(seed, trace, Service::Uc));
}
