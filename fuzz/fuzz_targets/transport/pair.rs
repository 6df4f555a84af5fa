//! Two queue pairs, and the packets between them.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use ibverbs_soft::transport::{Attributes, Config, Path, QueuePair, RemoteAccess, State, Transmit};
use ibverbs_soft::wire::{Encapsulation, Packet, Psn, Service};

use crate::host::{FuzzHost, PD, RECV_CQ, SEND_CQ, SRQ};
use crate::input::{receive, way, Action, AnyState, Entry, Input, Request};

pub const NUMBERS: [u32; 2] = [0x11, 0x12_3456];

/// More packets than all that can be posted makes.
const MANY: usize = 100_000;

/// The way from a node to the other.
pub fn path(node: usize) -> Path {
    let addr = |node: usize| IpAddr::V4(Ipv4Addr::new(10, 0, 0, node as u8));
    Path {
        source: addr(node),
        dest: addr(1 - node),
        traffic_class: 0,
        hop_limit: 64,
        flow_label: 0,
    }
}

pub struct Pair {
    service: Service,
    now: Instant,
    nodes: [Node; 2],
    on_the_way: Vec<Transmit>,
    wr_id: u64,
}

struct Node {
    qp: QueuePair,
    host: FuzzHost,
    attributes: Attributes,
}

impl Pair {
    pub fn new(input: &Input) -> Pair {
        let service = input.service.into();
        let node = |node: usize| {
            let config = Config {
                qp_num: NUMBERS[node],
                service,
                pd: PD,
                send_cq: SEND_CQ,
                recv_cq: RECV_CQ,
                srq: input.shared[node].then_some(SRQ),
                max_send_wr: input.depths[0].into(),
                max_recv_wr: input.depths[1].into(),
                signal_all: true,
            };
            let times = &input.times;
            let attributes = Attributes {
                pkey: 0xffff,
                qkey: 0,
                access: match service {
                    // There, keys alone say what a peer may do.
                    Service::Srd => RemoteAccess { write: true, read: true, atomic: false },
                    _ => input.access[node].into(),
                },
                path: Some(path(node)),
                path_mtu: input.mtu.bytes(),
                dest_qp: NUMBERS[1 - node],
                rq_psn: Psn::new(input.psns[1 - node]),
                sq_psn: Psn::new(input.psns[node]),
                max_dest_rd_atomic: times.max_dest_rd_atomic,
                max_rd_atomic: times.max_rd_atomic,
                min_rnr_timer: times.min_rnr_timer & 0x1f,
                timeout: times.timeout & 0x1f,
                retry_count: times.retry_count & 7,
                rnr_retry: times.rnr_retry & 7,
            };
            let in_any_order = service == Service::Srd;
            let host = FuzzHost::new(NUMBERS[node], in_any_order);
            Node { qp: QueuePair::new(config, 0), host, attributes }
        };
        let mut pair = Pair {
            service,
            now: Instant::now(),
            nodes: [node(0), node(1)],
            on_the_way: Vec::new(),
            wr_id: 0,
        };
        for node in 0..2 {
            pair.modify(node, AnyState::Up);
        }
        pair
    }

    pub fn act(&mut self, action: Action, input: &Input) {
        match action {
            Action::Send { node, request } => self.send(node.into(), request),
            Action::Receive { node, entries } => self.receive(node.into(), &entries),
            Action::ReceiveShared { node, entries } => {
                let wr_id = self.next_wr_id();
                self.nodes[usize::from(node)].host.shared.push_back(receive(wr_id, &entries));
            }
            Action::Poll { node, count } => {
                self.poll(node.into(), count.into());
            }
            Action::Deliver { which, again } => {
                if let Some(which) = usize::from(which).checked_rem(self.on_the_way.len()) {
                    let transmit = if again {
                        self.on_the_way[which].clone()
                    } else {
                        self.on_the_way.remove(which)
                    };
                    self.deliver(transmit);
                }
            }
            Action::Lose { which } => {
                if let Some(which) = usize::from(which).checked_rem(self.on_the_way.len()) {
                    self.on_the_way.remove(which);
                }
            }
            Action::Settle => self.settle(),
            Action::Forge { node, forged } => {
                let node = usize::from(node);
                let psns = [0, 1].map(|node: usize| self.nodes[node].attributes.sq_psn);
                let mut arrived = path(1 - node);
                if forged.wrong_source {
                    arrived.source = Ipv4Addr::new(10, 9, 9, 9).into();
                }
                if let Some(packet) = forged.get(node, self.service, psns, input.mtu) {
                    self.arrive(node, &arrived, packet);
                }
            }
            Action::Wait { node } => {
                let node = &mut self.nodes[usize::from(node)];
                if let Some(due) = node.qp.next_timeout() {
                    self.now = self.now.max(due);
                    node.qp.handle_timeout(self.now, &mut node.host);
                }
            }
            Action::Hasten { node } => self.nodes[usize::from(node)].qp.hasten_acks(),
            Action::Modify { node, state } => self.modify(node.into(), state),
        }
        for node in &mut self.nodes {
            node.watch();
        }
    }

    /// In the end every request has completed, once.
    pub fn finish(mut self) {
        for node in 0..2 {
            if self.nodes[node].qp.state() != State::Reset {
                self.modify(node, AnyState::Error);
                self.poll(node, MANY);
            }
            let host = &self.nodes[node].host;
            assert!(host.sends.is_empty(), "sends that are lost: {:?}", host.sends);
            assert!(host.recvs.is_empty(), "receives that are lost: {:?}", host.recvs);
        }
    }

    fn next_wr_id(&mut self) -> u64 {
        self.wr_id += 1;
        self.wr_id
    }

    fn send(&mut self, node: usize, request: Request) {
        use State::*;
        let wr_id = self.next_wr_id();
        let Some(request) = request.get(wr_id, self.service, node) else { return };
        let Node { qp, host, .. } = &mut self.nodes[node];
        let may = matches!(qp.state(), ReadyToSend | SendQueueDrain | SendQueueError | Error);
        if may && qp.send_room() > 0 {
            host.sends.push_back(wr_id);
            qp.post_send(self.now, request, host);
        }
    }

    fn receive(&mut self, node: usize, entries: &[Entry]) {
        let wr_id = self.next_wr_id();
        let Node { qp, host, .. } = &mut self.nodes[node];
        if qp.config().srq.is_none() && qp.state() != State::Reset && qp.recv_room() > 0 {
            host.recvs.push_back(wr_id);
            qp.post_recv(receive(wr_id, entries), host);
        }
    }

    /// Asks for up to this many packets; how many there were.
    fn poll(&mut self, node: usize, count: usize) -> usize {
        let Node { qp, host, attributes } = &mut self.nodes[node];
        for sent in 0..count {
            let Some(transmit) = qp.poll_transmit(self.now, host) else { return sent };
            let Transmit { path, packet } = &transmit;
            assert!(packet.payload.len() <= attributes.path_mtu as usize);
            // The last that a peer hears is why it failed.
            let failed = qp.state() == State::Error;
            assert!(!failed || packet.operation.is_response(), "{packet:?}");
            let encapsulation =
                Encapsulation { path: *path, source_port: 0xc000, identification: 0 };
            let bytes = packet.view().to_bytes(&encapsulation).expect("it can be written");
            assert_eq!(Packet::parse(&bytes).as_ref(), Ok(packet));
            self.on_the_way.push(transmit);
        }
        assert!(count < MANY, "it never ends sending");
        count
    }

    fn deliver(&mut self, transmit: Transmit) {
        let to = usize::from(transmit.path.dest == path(0).dest);
        if transmit.packet.bth.dest_qp == NUMBERS[to] {
            self.arrive(to, &transmit.path, transmit.packet);
        }
    }

    fn arrive(&mut self, node: usize, arrived: &Path, packet: Packet) {
        let Node { qp, host, .. } = &mut self.nodes[node];
        qp.handle_packet(self.now, arrived, packet, host);
        self.nodes[node].watch();
    }

    /// Lets everything arrive, without that time passes.
    fn settle(&mut self) {
        for _ in 0..MANY {
            for transmit in std::mem::take(&mut self.on_the_way) {
                self.deliver(transmit);
            }
            self.poll(0, MANY);
            self.poll(1, MANY);
            if self.on_the_way.is_empty() {
                return;
            }
        }
        panic!("they never come to rest");
    }

    fn modify(&mut self, node: usize, to: AnyState) {
        let Node { qp, host, attributes } = &mut self.nodes[node];
        for state in way(qp.state(), to) {
            if state == State::Reset {
                // What was outstanding is forgotten.
                host.sends.clear();
                host.recvs.clear();
            }
            host.access = attributes.access;
            host.receives = false;
            host.answers = false;
            qp.modify(self.now, state, *attributes, host);
            assert_eq!(qp.state(), state);
        }
        self.nodes[node].watch();
    }
}

impl Node {
    /// Notes what the queue pair may do from now on.
    fn watch(&mut self) {
        let state = self.qp.state();
        self.host.receives = !matches!(state, State::Reset | State::Init | State::Error);
        self.host.answers |= self.host.receives;
    }
}
