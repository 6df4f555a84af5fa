//! Two queue pairs, a clock variable, and packets that a test can lose, repeat and forge.

mod answers;
mod errors;
mod requests;
mod retries;
mod states;
mod windows;

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use crate::sim::host::{Record, Rights, SimHost};
use crate::transport::{
    Attributes, Completion, CompletionKind, Config, CqId, Path, Payload, PdId, QpEvent, QueuePair,
    RecvRequest, RemoteAccess, SendOperation, SendRequest, Sge, State, Status,
};
use crate::wire::{Aeth, Bth, NakCode, Operation, Packet, Position, Psn, Reth, Service, Syndrome};

const PD: PdId = PdId(0);
const SEND_CQ: CqId = CqId(1);
const RECV_CQ: CqId = CqId(2);
const MTU: u32 = 256;
const MEMORY: usize = 1 << 16;
const ALL: RemoteAccess = RemoteAccess { write: true, read: true, atomic: true };
/// A timeout of 4.096 us * 2^10.
const TIMEOUT: Duration = Duration::from_nanos(4096 << 10);
/// A timer of 0.64 ms.
const RNR_TIMER: (u8, Duration) = (12, Duration::from_micros(640));

fn path(source: u8, dest: u8) -> Path {
    let addr = |last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
    Path { source: addr(source), dest: addr(dest), traffic_class: 0, hop_limit: 64, flow_label: 0 }
}

/// A queue pair, its device, and memory that it has registered with all rights.
struct Side {
    qp: QueuePair,
    host: SimHost,
    addr: u64,
    key: u32,
    log: Vec<Record>,
}

impl Side {
    fn new(qp_num: u32, srq: bool) -> Side {
        let mut host = SimHost::default();
        let rights = Rights { local_write: true, remote: ALL };
        let (addr, key) =
            host.register(PD, (0..MEMORY).map(|i| (i * 7 / 3) as u8).collect(), rights);
        let srq = srq.then(|| host.create_srq(0));
        let config = Config {
            qp_num,
            service: Service::Rc,
            pd: PD,
            send_cq: SEND_CQ,
            recv_cq: RECV_CQ,
            srq,
            max_send_wr: 128,
            max_recv_wr: 128,
            signal_all: false,
        };
        Side { qp: QueuePair::new(config, 0), host, addr, key, log: Vec::new() }
    }

    fn sge(&self, offset: u64, len: u32) -> Sge {
        Sge { addr: self.addr + offset, len, lkey: self.key }
    }

    fn bytes(&self, offset: u64, len: usize) -> Vec<u8> {
        self.host.peek(self.addr + offset, len)
    }

    fn look(&mut self) {
        self.log.extend(self.host.take_log());
    }

    /// What has completed since the last call, on both queues in their order.
    fn completions(&mut self) -> Vec<(u64, Status)> {
        self.full_completions().iter().map(|done| (done.wr_id, done.status)).collect()
    }

    fn full_completions(&mut self) -> Vec<Completion> {
        self.look();
        let mut found = Vec::new();
        self.log.retain(|record| match record {
            Record::Complete(_, completion) => {
                found.push(*completion);
                false
            }
            _ => true,
        });
        found
    }

    fn events(&mut self) -> Vec<QpEvent> {
        self.look();
        let mut found = Vec::new();
        self.log.retain(|record| match record {
            Record::Event(_, event) => {
                found.push(*event);
                false
            }
            _ => true,
        });
        found
    }

    /// How often atomics have changed memory.
    fn atomics(&mut self) -> usize {
        self.look();
        self.log.iter().filter(|record| matches!(record, Record::Atomic { .. })).count()
    }

    fn recv(&mut self, wr_id: u64, sges: &[Sge]) {
        let request = RecvRequest { wr_id, sges: sges.to_vec() };
        match self.qp.config().srq {
            Some(srq) => self.host.post_srq_recv(srq, request),
            None => self.qp.post_recv(request, &mut self.host),
        }
    }
}

/// Two connected queue pairs.
struct Bed {
    sides: [Side; 2],
    now: Instant,
}

const A: usize = 0;
const B: usize = 1;

fn attributes(me: usize) -> Attributes {
    let other = 1 - me;
    Attributes {
        pkey: 0xffff,
        qkey: 0,
        access: ALL,
        path: Some(path(me as u8 + 1, other as u8 + 1)),
        path_mtu: MTU,
        dest_qp: 0x10 + other as u32,
        rq_psn: psn(other, 0),
        sq_psn: psn(me, 0),
        max_dest_rd_atomic: 4,
        max_rd_atomic: 4,
        min_rnr_timer: RNR_TIMER.0,
        timeout: 10,
        retry_count: 3,
        rnr_retry: 2,
    }
}

/// The number of the packet with this index that a side sends: A's pass the end of the circle soon.
fn psn(side: usize, index: u32) -> Psn {
    Psn::new([0xff_fffe, 1000][side]).add(index)
}

impl Bed {
    fn new() -> Bed {
        Bed::with(|_, _| ())
    }

    fn with(change: impl Fn(usize, &mut Attributes)) -> Bed {
        Bed::with_queues([false; 2], change)
    }

    fn with_queues(srq: [bool; 2], change: impl Fn(usize, &mut Attributes)) -> Bed {
        let mut sides = [Side::new(0x10, srq[0]), Side::new(0x11, srq[1])];
        let now = Instant::now();
        for (me, side) in sides.iter_mut().enumerate() {
            let mut attributes = attributes(me);
            change(me, &mut attributes);
            for state in [State::Init, State::ReadyToReceive, State::ReadyToSend] {
                side.qp.modify(now, state, attributes, &mut side.host);
            }
        }
        Bed { sides, now }
    }

    fn a(&mut self) -> &mut Side {
        &mut self.sides[A]
    }

    fn b(&mut self) -> &mut Side {
        &mut self.sides[B]
    }

    fn post(&mut self, side: usize, request: SendRequest) {
        let Side { qp, host, .. } = &mut self.sides[side];
        qp.post_send(self.now, request, host);
    }

    /// The next packet of a side, with the acknowledgements that wait if it has nothing else.
    fn next(&mut self, side: usize) -> Option<Packet> {
        let Side { qp, host, .. } = &mut self.sides[side];
        let sent = qp.poll_transmit(self.now, host)?;
        assert_eq!(sent.path, path(side as u8 + 1, 2 - side as u8));
        Some(sent.packet)
    }

    /// All packets that a side wants to send now.
    fn sent(&mut self, side: usize) -> Vec<Packet> {
        std::iter::from_fn(|| self.next(side)).collect()
    }

    /// All packets that a side has to send, late acknowledgements included.
    fn sent_at_once(&mut self, side: usize) -> Vec<Packet> {
        self.sides[side].qp.hasten_acks();
        self.sent(side)
    }

    fn deliver(&mut self, to: usize, packet: Packet) {
        let Side { qp, host, .. } = &mut self.sides[to];
        qp.handle_packet(self.now, &path(2 - to as u8, to as u8 + 1), packet, host);
    }

    fn deliver_all(&mut self, to: usize, packets: impl IntoIterator<Item = Packet>) {
        for packet in packets {
            self.deliver(to, packet);
        }
    }

    /// Lets both talk until they have nothing to say now.
    fn settle(&mut self) {
        loop {
            let from_a = self.sent_at_once(A);
            self.deliver_all(B, from_a.clone());
            let from_b = self.sent_at_once(B);
            self.deliver_all(A, from_b.clone());
            if from_a.is_empty() && from_b.is_empty() {
                break;
            }
        }
    }

    /// Lets time pass for a side, and whatever is due happen.
    fn pass(&mut self, side: usize, time: Duration) {
        self.now += time;
        let Side { qp, host, .. } = &mut self.sides[side];
        qp.handle_timeout(self.now, host);
    }

    fn modify(&mut self, side: usize, state: State, change: impl FnOnce(&mut Attributes)) {
        let Side { qp, host, .. } = &mut self.sides[side];
        let mut attributes = *qp.attributes();
        change(&mut attributes);
        qp.modify(self.now, state, attributes, host);
    }

    fn state(&self, side: usize) -> State {
        self.sides[side].qp.state()
    }

    /// A packet to a side, as its peer would send it.
    fn forge(&self, to: usize, psn: Psn, operation: Operation, payload: Vec<u8>) -> Packet {
        let bth = Bth {
            service: Service::Rc,
            solicited: false,
            migrated: true,
            pkey: 0xffff,
            dest_qp: 0x10 + to as u32,
            ack_request: true,
            psn,
        };
        Packet { bth, deth: None, operation, payload }
    }

    /// An acknowledgement to A of the packet with this index.
    fn answer(&self, index: u32, syndrome: Syndrome) -> Packet {
        let operation = Operation::Acknowledge(Aeth { syndrome, msn: 0 });
        self.forge(A, psn(A, index), operation, Vec::new())
    }
}

const ACK: Syndrome = Syndrome::Ack(31);
const SEQUENCE: Syndrome = Syndrome::Nak(NakCode::SequenceError);

/// A signaled request of a side's memory.
fn request(wr_id: u64, operation: SendOperation, sges: &[Sge]) -> SendRequest {
    let payload = Payload::Sges(sges.to_vec());
    SendRequest { wr_id, operation, payload, signaled: true, solicited: false, fenced: false }
}

fn send(wr_id: u64, sges: &[Sge]) -> SendRequest {
    request(wr_id, SendOperation::Send { imm: None }, sges)
}

fn unsignaled(request: SendRequest) -> SendRequest {
    SendRequest { signaled: false, ..request }
}

/// The indices of the packets that a side has sent.
fn indices(side: usize, packets: &[Packet]) -> Vec<i32> {
    packets.iter().map(|packet| packet.bth.psn.since(psn(side, 0))).collect()
}

/// What acknowledgements say: the index of the peer's packet, and how it was received.
fn syndromes(peer: usize, packets: &[Packet]) -> Vec<(i32, Syndrome)> {
    let syndrome = |packet: &Packet| match packet.operation {
        Operation::Acknowledge(aeth) => (packet.bth.psn.since(psn(peer, 0)), aeth.syndrome),
        other => panic!("{other:?} is no acknowledgement"),
    };
    packets.iter().map(syndrome).collect()
}

const OK: Status = Status::Success;
const FLUSHED: Status = Status::WorkRequestFlushed;
