//! Unreliable datagrams: whatever the link does, they arrive whole and unchanged, and at those who have their key, or not at all.

use std::collections::HashMap;
use std::time::Duration;

use super::fixture::{PD, RECV_CQ, SEND_CQ};
use super::host::{Record, Rights};
use super::link::Faults;
use super::network::{Network, Step};
use super::plan;
use super::rng::Rng;
use super::trace::{for_seeds, Trace};
use crate::transport::{
    Attributes, Completion, Config, Payload, QueuePair, RecvRequest, RemoteAccess, SendOperation,
    SendRequest, Sge, State, Status,
};
use crate::wire::{Service, GRH_LEN};

const NODES: usize = 3;

/// A datagram that is to be sent.
#[derive(Clone, Debug)]
struct Planned {
    to: usize,
    request: SendRequest,
    data: Vec<u8>,
    imm: Option<u32>,
    /// Whether its key is that of the receiver.
    key_fits: bool,
}

#[derive(Debug)]
struct Side {
    plan: Vec<Planned>,
    receives: Vec<RecvRequest>,
    posted: usize,
    receives_posted: usize,
    completed: usize,
    received: usize,
    /// How often each datagram has arrived, by its sender and its place there.
    arrived: HashMap<(usize, usize), u32>,
}

#[derive(Debug)]
struct World {
    net: Network,
    sides: Vec<Side>,
    mtu: u32,
}

/// The number of a device's queue pair.
fn number(node: usize) -> u32 {
    0x100 + node as u32
}

impl World {
    fn new(seed: u64, trace: &Trace, faults: Faults, is_ready: bool) -> World {
        let mut net = Network::new(seed, trace, &[faults; NODES]);
        let rng = &mut Rng::new(seed ^ 0xd6);
        let mtu = rng.pick(&[256, 1024, 4096]);
        let keys = [0x11, 0x22, rng.pick(&[0x11, 0x8000_0001])];
        let sides = (0..NODES).map(|node| World::side(rng, &mut net, node, mtu, keys, is_ready));
        let sides = sides.collect();
        World { net, sides, mtu }
    }

    fn side(
        rng: &mut Rng,
        net: &mut Network,
        node: usize,
        mtu: u32,
        keys: [u32; NODES],
        is_ready: bool,
    ) -> Side {
        let config = Config {
            qp_num: number(node),
            service: Service::Ud,
            pd: PD,
            send_cq: SEND_CQ,
            recv_cq: RECV_CQ,
            srq: None,
            max_send_wr: 64,
            max_recv_wr: 64,
            signal_all: true,
        };
        net.add(node, QueuePair::new(config, 0));
        let attributes = Attributes {
            pkey: 0xffff,
            qkey: keys[node],
            access: RemoteAccess::default(),
            path: None,
            path_mtu: mtu,
            dest_qp: 0,
            rq_psn: plan::draw_psn(rng),
            sq_psn: plan::draw_psn(rng),
            max_dest_rd_atomic: 0,
            max_rd_atomic: 0,
            min_rnr_timer: 0,
            timeout: 0,
            retry_count: 0,
            rnr_retry: 0,
        };
        net.bring_up(node, 0, State::ReadyToSend, attributes);
        let plan = (0..rng.below(20)).map(|index| {
            let to = (node + rng.between(1, 2) as usize) % NODES;
            let own = rng.chance(300);
            let qkey = if own { 0x8000_0000 } else { keys[rng.below(3) as usize] };
            // A privileged key stands for the sender's own.
            let sent = if qkey >> 31 == 1 { keys[node] } else { qkey };
            let len = rng.pick(&[0, 1, rng.clone().below(mtu.into()), mtu.into()]);
            let data = rng.bytes(len as usize);
            let imm = rng.chance(300).then(|| rng.next() as u32);
            let path = net.path(node, to);
            let remote_qpn = number(to);
            let request = SendRequest {
                wr_id: 0x5000 + index,
                operation: SendOperation::Datagram { path, remote_qpn, qkey, imm },
                payload: Payload::Inline(data.clone()),
                signaled: true,
                solicited: rng.chance(200),
                fenced: false,
            };
            Planned { to, request, data, imm, key_fits: sent == keys[to] }
        });
        let plan = plan.collect();
        let room = GRH_LEN as u32 + mtu;
        let count = if is_ready { 40 } else { rng.below(40) };
        let rights = Rights { local_write: true, ..Rights::default() };
        let memory = net.nodes[node].host.register(PD, vec![0; (count * 5000) as usize], rights);
        let receives = (0..count).map(|index| {
            let is_short = !is_ready && rng.chance(100);
            let len = if is_short { rng.below(room.into()) as u32 } else { room };
            let sge = Sge { addr: memory.0 + index * 5000, len, lkey: memory.1 };
            RecvRequest { wr_id: 0x7000 + index, sges: vec![sge] }
        });
        let receives = receives.collect();
        let arrived = HashMap::new();
        Side { plan, receives, posted: 0, receives_posted: 0, completed: 0, received: 0, arrived }
    }

    /// Posts some of what is left.
    fn post(&mut self, node: usize, receives: u64) {
        for _ in 0..receives {
            let side = &mut self.sides[node];
            let Some(receive) = side.receives.get(side.receives_posted) else { break };
            side.receives_posted += 1;
            self.net.post_recv(node, 0, receive.clone());
        }
        let side = &mut self.sides[node];
        if let Some(planned) = side.plan.get(side.posted) {
            side.posted += 1;
            self.net.post_send(node, 0, planned.request.clone());
            let pause = self.net.rng.below(30_000);
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
                let receives = self.net.rng.below(5);
                self.post(node, receives);
            }
            for node in 0..NODES {
                for record in self.net.nodes[node].host.take_log() {
                    match record {
                        Record::Complete(SEND_CQ, completion) => {
                            let side = &mut self.sides[node];
                            let wr_id = 0x5000 + side.completed as u64;
                            let ended = (completion.wr_id, completion.status);
                            assert_eq!(ended, (wr_id, Status::Success));
                            side.completed += 1;
                        }
                        Record::Complete(RECV_CQ, completion) => self.received(node, completion),
                        Record::LocalWrite { .. } => {}
                        record => panic!("{node}: {record:?}"),
                    }
                }
            }
            if step.is_none() {
                return;
            }
        }
    }

    fn received(&mut self, node: usize, completion: Completion) {
        let side = &mut self.sides[node];
        let receive = &side.receives[..side.receives_posted][side.received];
        side.received += 1;
        assert_eq!(completion.wr_id, receive.wr_id);
        let sge = receive.sges[0];
        if completion.status != Status::Success {
            assert_eq!(completion.status, Status::LocalLength);
            assert!(sge.len < GRH_LEN as u32 + self.mtu, "{completion:?} in {sge:?}");
            return;
        }
        assert!(completion.grh);
        let bytes = self.net.nodes[node].host.peek(sge.addr, completion.len as usize);
        let (grh, data) = bytes.split_at(GRH_LEN);
        let found = (0..NODES).find_map(|from| {
            let sender = &self.sides[from];
            let index = sender.plan[..sender.posted].iter().position(|planned| {
                planned.to == node
                    && planned.key_fits
                    && planned.data == data
                    && planned.imm == completion.imm
                    && planned.request.solicited == completion.solicited
                    && completion.src_qp == number(from)
            })?;
            Some((from, index))
        });
        let found = found.unwrap_or_else(|| panic!("nobody has sent {completion:?} to {node}"));
        assert_eq!(grh[32..], [10, 0, 0, found.0 as u8 + 1, 10, 0, 0, node as u8 + 1]);
        *self.sides[node].arrived.entry(found).or_default() += 1;
    }

    fn check_end(&self) {
        for (node, side) in self.sides.iter().enumerate() {
            assert_eq!(side.completed, side.plan.len());
            assert_eq!(self.net.nodes[node].endpoints[0].qp.state(), State::ReadyToSend);
        }
    }
}

#[test]
fn datagrams_arrive_whole_and_where_they_are_meant_to_or_not_at_all() {
    for_seeds(1000, |seed, trace| {
        let faults = plan::draw_faults(&mut Rng::new(seed ^ 0x44));
        let mut world = World::new(seed, trace, faults, false);
        world.run();
        world.check_end();
    });
}

#[test]
fn all_datagrams_arrive_if_nothing_goes_wrong() {
    for_seeds(300, |seed, trace| {
        let faults = plan::draw_faults(&mut Rng::new(seed ^ 0x55)).without_any();
        let mut world = World::new(seed, trace, faults, true);
        for node in 0..NODES {
            world.post(node, u64::MAX);
        }
        world.run();
        world.check_end();
        for (node, side) in world.sides.iter().enumerate() {
            let senders = world.sides.iter().flat_map(|sender| &sender.plan);
            let meant = senders.filter(|planned| planned.to == node && planned.key_fits).count();
            assert_eq!(side.arrived.values().sum::<u32>() as usize, meant, "{node}");
        }
    });
}
