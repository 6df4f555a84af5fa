//! Scalable reliable datagrams: whatever the link does, each message arrives once, whole and unchanged, in any order; or it fails.

use std::collections::HashSet;
use std::time::Duration;

use super::fixture::{PD, QKEY, RECV_CQ, SEND_CQ};
use super::host::{Record, Rights};
use super::link::Faults;
use super::network::{Network, Step};
use super::plan;
use super::rng::Rng;
use super::trace::{for_seeds, Trace};
use crate::transport::{
    Attributes, Completion, CompletionKind, Config, DatagramTarget, Payload, QueuePair,
    RecvRequest, RemoteAccess, SendOperation, SendRequest, Sge, SrdOperation, State, Status,
    SRD_MAX_SEND,
};
use crate::wire::Service;

const NODES: usize = 3;

/// The first identifiers of sends and of receives.
const SENDS: u64 = 0x5000;
const RECEIVES: u64 = 0x7000;

/// How much memory each request has for itself.
const ROOM: u64 = 16 << 10;

#[derive(Clone, Debug)]
struct Planned {
    to: usize,
    request: SendRequest,
    operation: SrdOperation,
    /// What is sent or written, or is to be read.
    data: Vec<u8>,
    /// Where a read puts it.
    into: u64,
    ended: Option<Status>,
}

impl Planned {
    fn imm(&self) -> Option<u32> {
        match self.operation {
            SrdOperation::Send { imm } | SrdOperation::Write { imm, .. } => imm,
            SrdOperation::Read { .. } => None,
        }
    }

    /// Whether it takes a receive.
    fn is_received(&self) -> bool {
        match self.operation {
            SrdOperation::Send { .. } => true,
            SrdOperation::Write { imm, .. } => imm.is_some(),
            SrdOperation::Read { .. } => false,
        }
    }
}

#[derive(Debug)]
struct Side {
    plan: Vec<Planned>,
    posted: usize,
    receives: Vec<RecvRequest>,
    receives_posted: usize,
    received: usize,
}

#[derive(Debug)]
struct World {
    net: Network,
    sides: Vec<Side>,
    /// Which requests have taken a receive: their sender, and their place there; and in which order.
    arrived: HashSet<(usize, usize)>,
    order: Vec<(usize, usize)>,
}

fn number(node: usize) -> u32 {
    0x100 + node as u32
}

fn attributes(mtu: u32, psn: crate::wire::Psn) -> Attributes {
    Attributes {
        pkey: 0xffff,
        qkey: QKEY,
        access: RemoteAccess::default(),
        path: None,
        path_mtu: mtu,
        dest_qp: 0,
        rq_psn: psn,
        sq_psn: psn,
        max_dest_rd_atomic: 0,
        max_rd_atomic: 0,
        min_rnr_timer: 0,
        timeout: 0,
        retry_count: 0,
        rnr_retry: 7,
    }
}

impl World {
    fn new(seed: u64, trace: &Trace, faults: Faults) -> World {
        let mut net = Network::new(seed, trace, &[faults; NODES]);
        let rng = &mut Rng::new(seed ^ 0x5d);
        let mtu = rng.pick(&[256, 1024, 4096]);
        let all = RemoteAccess { write: true, read: true, atomic: false };
        let rights = Rights { local_write: true, remote: all };
        // Of each device: memory of which every request of a peer has a part, memory for what it reads, and for its receives.
        let counts: Vec<u64> = (0..NODES).map(|_| rng.below(12)).collect();
        let mut memory = |net: &mut Network, node: usize| {
            let bytes = rng.bytes((NODES as u64 * 12 * ROOM) as usize);
            net.nodes[node].host.register(PD, bytes, rights)
        };
        let shared: Vec<_> = (0..NODES).map(|node| memory(&mut net, node)).collect();
        let own: Vec<_> = (0..NODES).map(|node| memory(&mut net, node)).collect();
        let mut sides: Vec<Side> = Vec::new();
        for node in 0..NODES {
            let config = Config {
                qp_num: number(node),
                service: Service::Srd,
                pd: PD,
                send_cq: SEND_CQ,
                recv_cq: RECV_CQ,
                srq: None,
                max_send_wr: 64,
                max_recv_wr: 64,
                signal_all: true,
            };
            net.add(node, QueuePair::new(config, rng.next() as u32));
            let psn = plan::draw_psn(rng);
            net.bring_up(node, 0, State::ReadyToSend, attributes(mtu, psn));
            let plan = (0..counts[node]).map(|index| {
                let to = (node + rng.between(1, 2) as usize) % NODES;
                let longest = u64::from(SRD_MAX_SEND);
                let len = rng.pick(&[0, 1, rng.clone().below(longest), mtu.into(), longest]);
                let place = (node as u64 * 12 + index) * ROOM;
                let (addr, rkey) = (shared[to].0 + place, shared[to].1);
                // What is short has immediate data by which it is known.
                let imm =
                    (len < 8 || rng.chance(400)).then_some((node as u64 * 100 + index) as u32);
                let operation = rng.pick(&[
                    SrdOperation::Send { imm },
                    SrdOperation::Send { imm },
                    SrdOperation::Write { addr, rkey, imm },
                    SrdOperation::Read { addr, rkey },
                ]);
                let into = own[node].0 + index * ROOM;
                let (data, payload) = match operation {
                    SrdOperation::Read { .. } => {
                        let data = net.nodes[to].host.peek(addr, len as usize);
                        let sge = Sge { addr: into, len: len as u32, lkey: own[node].1 };
                        (data, Payload::Sges(vec![sge]))
                    }
                    _ => {
                        let data = rng.bytes(len as usize);
                        (data.clone(), Payload::Inline(data))
                    }
                };
                let path = net.path(node, to);
                let to_queue = DatagramTarget { path, remote_qpn: number(to), qkey: QKEY };
                let request = SendRequest {
                    wr_id: SENDS + index,
                    operation: SendOperation::Srd { to: to_queue, operation },
                    payload,
                    signaled: true,
                    solicited: false,
                    fenced: false,
                };
                Planned { to, request, operation, data, into, ended: None }
            });
            let plan = plan.collect();
            sides.push(Side {
                plan,
                posted: 0,
                receives: Vec::new(),
                receives_posted: 0,
                received: 0,
            });
        }
        for node in 0..NODES {
            let all = sides.iter().flat_map(|side| &side.plan);
            let count = all.filter(|planned| planned.to == node && planned.is_received()).count();
            let receive = |index: u64| {
                let addr = own[node].0 + (12 + index) * ROOM;
                let sge = Sge { addr, len: SRD_MAX_SEND, lkey: own[node].1 };
                RecvRequest { wr_id: RECEIVES + index, sges: vec![sge] }
            };
            sides[node].receives = (0..count as u64).map(receive).collect();
        }
        World { net, sides, arrived: HashSet::new(), order: Vec::new() }
    }

    /// Posts some of what is left.
    fn post(&mut self, node: usize) {
        let (sends, receives) = (self.net.rng.below(4), self.net.rng.below(4));
        for _ in 0..receives {
            let side = &mut self.sides[node];
            let Some(receive) = side.receives.get(side.receives_posted) else { break };
            side.receives_posted += 1;
            self.net.post_recv(node, 0, receive.clone());
        }
        for _ in 0..sends {
            let side = &mut self.sides[node];
            let Some(planned) = side.plan.get(side.posted) else { break };
            side.posted += 1;
            self.net.post_send(node, 0, planned.request.clone());
        }
        let side = &self.sides[node];
        let left = side.plan.len() - side.posted + side.receives.len() - side.receives_posted;
        if left > 0 {
            let pause = self.net.rng.below(3_000_000);
            self.net.wake(node, Duration::from_nanos(pause));
        }
    }

    fn run(&mut self) {
        for node in 0..NODES {
            self.net.wake(node, Duration::ZERO);
        }
        loop {
            let step = self.net.step();
            if let Some(Step::Wake(node)) = step {
                self.post(node);
            }
            for node in 0..NODES {
                for record in self.net.nodes[node].host.take_log() {
                    match record {
                        Record::Complete(SEND_CQ, completion) => self.ended(node, completion),
                        Record::Complete(RECV_CQ, completion) => self.received(node, completion),
                        Record::LocalWrite { .. }
                        | Record::RemoteWrite { .. }
                        | Record::RemoteRead { .. } => {}
                        record => panic!("{node}: {record:?}"),
                    }
                }
            }
            if step.is_none() {
                return;
            }
        }
    }

    fn ended(&mut self, node: usize, completion: Completion) {
        let index = (completion.wr_id - SENDS) as usize;
        let planned = &mut self.sides[node].plan[index];
        assert_eq!(planned.ended.replace(completion.status), None, "{completion:?} ends twice");
        let kind = match planned.operation {
            SrdOperation::Write { .. } => CompletionKind::Write,
            _ => CompletionKind::Send,
        };
        assert_eq!(completion.kind, kind);
        if completion.status != Status::Success {
            return;
        }
        let planned = &self.sides[node].plan[index];
        let len = planned.data.len();
        match planned.operation {
            // Nobody else writes there.
            SrdOperation::Write { addr, .. } => {
                assert!(self.net.nodes[planned.to].host.peek(addr, len) == planned.data);
            }
            SrdOperation::Read { .. } => {
                assert!(self.net.nodes[node].host.peek(planned.into, len) == planned.data);
            }
            SrdOperation::Send { .. } => {}
        }
        if planned.is_received() {
            assert!(self.arrived.contains(&(node, index)), "{completion:?} has not arrived");
        }
    }

    fn received(&mut self, node: usize, completion: Completion) {
        let side = &mut self.sides[node];
        let receive = &side.receives[..side.receives_posted][side.received];
        side.received += 1;
        assert_eq!((completion.wr_id, completion.status), (receive.wr_id, Status::Success));
        assert!(!completion.grh && !completion.solicited);
        let is_write = completion.kind == CompletionKind::RecvWriteWithImm;
        let data = match is_write {
            true => Vec::new(),
            false => self.net.nodes[node].host.peek(receive.sges[0].addr, completion.len as usize),
        };
        let from = (completion.src_qp - number(0)) as usize;
        assert_eq!(completion.source, Some(self.net.nodes[from].addr));
        let sender = &self.sides[from];
        let index = sender.plan[..sender.posted].iter().position(|planned| {
            let fits = match planned.operation {
                SrdOperation::Write { addr, .. } => {
                    let host = &self.net.nodes[node].host;
                    let len = completion.len as usize;
                    is_write && host.peek(addr, len) == planned.data
                }
                SrdOperation::Send { .. } => !is_write && planned.data == data,
                SrdOperation::Read { .. } => false,
            };
            fits && planned.to == node
                && planned.data.len() == completion.len as usize
                && planned.imm() == completion.imm
        });
        let index = index.unwrap_or_else(|| panic!("nobody has sent {completion:?} to {node}"));
        assert!(self.arrived.insert((from, index)), "{completion:?} comes twice");
        self.order.push((from, index));
    }

    /// Everything has ended, and nothing is remembered as if it had not.
    fn check_end(&self) {
        for (node, side) in self.sides.iter().enumerate() {
            let qp = &self.net.nodes[node].endpoints[0].qp;
            assert_eq!((qp.state(), qp.send_room()), (State::ReadyToSend, 64));
            for planned in &side.plan {
                let status = planned.ended.expect("a request has not ended");
                let may_be =
                    [Status::Success, Status::Unresponsive, Status::Unreachable].contains(&status);
                assert!(may_be, "{status:?}");
            }
        }
    }

    fn has_overtaken(&self) -> bool {
        (0..NODES).any(|node| {
            let of_node = self.order.iter().filter(|(from, _)| *from == node);
            let places: Vec<usize> = of_node.map(|(_, index)| *index).collect();
            places.windows(2).any(|two| two[0] > two[1])
        })
    }
}

#[test]
fn each_arrives_once_or_fails() {
    for_seeds(400, |seed, trace| {
        let faults = plan::draw_faults(&mut Rng::new(seed ^ 0x45));
        let mut world = World::new(seed, trace, faults);
        world.run();
        world.check_end();
    });
}

#[test]
fn on_links_that_are_not_too_bad_all_arrive() {
    for_seeds(400, |seed, trace| {
        let faults = plan::draw_faults(&mut Rng::new(seed ^ 0x56)).at_most(100);
        let mut world = World::new(seed, trace, Faults { back_pressure: true, ..faults });
        world.run();
        world.check_end();
        let all = world.sides.iter().flat_map(|side| &side.plan);
        assert!(all.clone().all(|planned| planned.ended == Some(Status::Success)));
        assert_eq!(all.filter(|planned| planned.is_received()).count(), world.arrived.len());
    });
}

#[test]
fn messages_overtake_what_was_lost() {
    let overtaken = std::sync::atomic::AtomicU32::new(0);
    for_seeds(50, |seed, trace| {
        let faults = Faults {
            loss: 100,
            delay: Duration::from_micros(10),
            back_pressure: true,
            ..Faults::default()
        };
        let mut world = World::new(seed, trace, faults);
        world.run();
        world.check_end();
        overtaken.fetch_add(world.has_overtaken().into(), std::sync::atomic::Ordering::Relaxed);
    });
    assert!(overtaken.into_inner() > 10);
}
