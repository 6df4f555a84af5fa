//! Two queue pairs over a perfect link, for tests of what happens packet by packet.

use super::host::{Record, Rights};
use super::link::Faults;
use super::network::Network;
use super::trace::Trace;
use crate::transport::{
    Attributes, Completion, Config, CqId, Payload, PdId, QpEvent, QueuePair, RecvRequest,
    RemoteAccess, SendOperation, SendRequest, Sge, State, Status,
};
use crate::wire::{Operation, Packet, Psn, Service};

/// Two devices with a queue pair each, ready to send, and 64 KiB of memory each that may be used for anything.
#[derive(Debug)]
pub(crate) struct Fixture {
    pub(crate) net: Network,
    /// The address and the key.
    pub(crate) memory: [(u64, u32); 2],
    /// The attributes that they were brought up with.
    pub(crate) attributes: [Attributes; 2],
    log: [Vec<Record>; 2],
}

/// The domain of everything.
pub(crate) const PD: PdId = PdId(0);
/// Where sends complete.
pub(crate) const SEND_CQ: CqId = CqId(1);
/// Where receives complete.
pub(crate) const RECV_CQ: CqId = CqId(2);
/// The numbers of the queue pairs.
pub(crate) const NUMBERS: [u32; 2] = [0x11, 0x22];
/// The path MTU.
pub(crate) const MTU: u32 = 256;
/// The first sequence numbers.
pub(crate) const PSNS: [Psn; 2] = [Psn::new(0xff_fffe), Psn::new(100)];
/// The queue key.
pub(crate) const QKEY: u32 = 0x1234;

impl Fixture {
    pub(crate) fn new(service: Service) -> Fixture {
        let faults = Faults { delay: std::time::Duration::from_micros(1), ..Faults::default() };
        let mut net = Network::new(0, &Trace::default(), &[faults; 2]);
        let all = RemoteAccess { write: true, read: true, atomic: true };
        let bytes: Vec<u8> = (0..64 << 10).map(|i: u32| (i * 7 + i / 256) as u8).collect();
        let rights = Rights { local_write: true, remote: all };
        let memory =
            [0, 1].map(|node: usize| net.nodes[node].host.register(PD, bytes.clone(), rights));
        let attributes = [0, 1].map(|node: usize| Attributes {
            pkey: 0xffff,
            qkey: QKEY,
            access: all,
            path: Some(net.path(node, 1 - node)),
            path_mtu: MTU,
            dest_qp: NUMBERS[1 - node],
            rq_psn: PSNS[1 - node],
            sq_psn: PSNS[node],
            max_dest_rd_atomic: 4,
            max_rd_atomic: 4,
            min_rnr_timer: 1,
            timeout: 8,
            retry_count: 3,
            rnr_retry: 3,
        });
        for node in 0..2 {
            let config = Config {
                qp_num: NUMBERS[node],
                service,
                pd: PD,
                send_cq: SEND_CQ,
                recv_cq: RECV_CQ,
                srq: None,
                max_send_wr: 16,
                max_recv_wr: 16,
                signal_all: true,
            };
            net.add(node, QueuePair::new(config, 0));
            net.bring_up(node, 0, State::ReadyToSend, attributes[node]);
        }
        Fixture { net, memory, attributes, log: Default::default() }
    }

    /// A piece of a device's memory.
    pub(crate) fn sge(&self, node: usize, offset: u64, len: u32) -> Sge {
        Sge { addr: self.memory[node].0 + offset, len, lkey: self.memory[node].1 }
    }

    /// What is in a device's memory.
    pub(crate) fn bytes(&self, node: usize, offset: u64, len: usize) -> Vec<u8> {
        self.net.nodes[node].host.peek(self.memory[node].0 + offset, len)
    }

    /// Posts a request of device 0 and sends it.
    pub(crate) fn send(&mut self, wr_id: u64, operation: SendOperation, payload: Vec<Sge>) {
        self.post(wr_id, operation, payload);
        self.settle();
    }

    /// Posts a request of device 0.
    pub(crate) fn post(&mut self, wr_id: u64, operation: SendOperation, payload: Vec<Sge>) {
        let request = SendRequest {
            wr_id,
            operation,
            payload: Payload::Sges(payload),
            signaled: true,
            solicited: false,
            fenced: false,
        };
        self.net.post_send(0, 0, request);
    }

    /// Posts a receive of device 1.
    pub(crate) fn receive(&mut self, wr_id: u64, sges: Vec<Sge>) {
        self.net.post_recv(1, 0, RecvRequest { wr_id, sges });
    }

    /// A packet as device 0 could send it to device 1.
    pub(crate) fn packet(&mut self, psn: Psn, operation: Operation, payload: &[u8]) -> Packet {
        let service = self.net.nodes[0].endpoints[0].qp.config().service;
        let bth = crate::wire::Bth {
            service,
            solicited: false,
            migrated: true,
            pkey: 0xffff,
            dest_qp: NUMBERS[1],
            ack_request: false,
            psn,
        };
        let deth =
            service.is_datagram().then_some(crate::wire::Deth { qkey: QKEY, src_qp: NUMBERS[0] });
        Packet { bth, deth, operation, payload: payload.to_vec() }
    }

    /// Lets a packet arrive at device 1, as if device 0 had sent it.
    pub(crate) fn inject(&mut self, packet: Packet) {
        let path = self.net.path(0, 1);
        self.net.inject(path, &packet);
        self.settle();
    }

    /// Lets everything happen that is to happen.
    pub(crate) fn settle(&mut self) {
        while self.net.step().is_some() {}
        for (node, log) in self.log.iter_mut().enumerate() {
            log.append(&mut self.net.nodes[node].host.take_log());
        }
    }

    /// Takes a queue pair to another state.
    pub(crate) fn modify(&mut self, node: usize, state: State) {
        let attributes = self.attributes[node];
        self.net.modify(node, 0, state, attributes);
    }

    pub(crate) fn state(&self, node: usize) -> State {
        self.net.nodes[node].endpoints[0].qp.state()
    }

    /// The completions of a device since the last call.
    pub(crate) fn completions(&mut self, node: usize) -> Vec<Completion> {
        self.settle();
        let completions = |record: &Record| match record {
            Record::Complete(_, completion) => Some(*completion),
            _ => None,
        };
        let found = self.log[node].iter().filter_map(completions).collect();
        self.log[node].retain(|record| !matches!(record, Record::Complete(..)));
        found
    }

    /// The requests that have completed at a device since the last call, and how.
    pub(crate) fn ended(&mut self, node: usize) -> Vec<(u64, Status)> {
        let completions = self.completions(node);
        completions.into_iter().map(|completion| (completion.wr_id, completion.status)).collect()
    }

    /// The events of a device.
    pub(crate) fn events(&self, node: usize) -> Vec<QpEvent> {
        let events = |record: &Record| match record {
            Record::Event(_, event) => Some(*event),
            _ => None,
        };
        self.log[node].iter().filter_map(events).collect()
    }

    /// Whether a peer has changed the memory of a device.
    pub(crate) fn is_written(&self, node: usize) -> bool {
        self.log[node]
            .iter()
            .any(|record| matches!(record, Record::RemoteWrite { .. } | Record::Atomic { .. }))
    }
}
