//! Devices and links between them in simulated time.
//!
//! A queue pair is called as its interface says and no more often: `poll_transmit` after something was done to it and as far as
//! the link has room, `handle_timeout` at the time of its `next_timeout`. So one that forgets a timer stands still, and is found.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use super::host::SimHost;
use super::link::{Faults, Link};
use super::rng::Rng;
use super::trace::Trace;
use crate::transport::{Attributes, Path, QueuePair, RecvRequest, SendRequest, State, Transmit};
use crate::wire::{EmitError, Encapsulation, Operation, Packet, Psn, Syndrome};

/// A queue pair and what was seen of it.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) qp: QueuePair,
    pub(crate) seen: Seen,
    /// Whether something was done to it, so that it may have something to send.
    touched: bool,
}

/// What an observer on the link sees of a queue pair.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Packets sent: requests, requests sent again, responses.
    pub(crate) requests: u64,
    pub(crate) again: u64,
    pub(crate) responses: u64,
    /// How often each PSN was sent, or its answer asked for.
    pub(crate) tries: BTreeMap<u32, u32>,
    /// When a response last arrived here.
    pub(crate) heard: Option<Instant>,
    /// How many times the peer said here that it is not ready.
    pub(crate) not_ready: u32,
}

/// A device.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) addr: IpAddr,
    pub(crate) host: SimHost,
    pub(crate) endpoints: Vec<Endpoint>,
}

/// What happened in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The time came for which a program had asked.
    Wake(usize),
    /// Something was done to a queue pair of this device.
    Device(usize),
    /// Nothing of interest.
    Other,
}

#[derive(Debug)]
enum Event {
    Wake(usize),
    Arrival(Datagram),
}

/// What a packet is on the wire.
#[derive(Clone, Debug)]
struct Datagram {
    path: Path,
    bytes: Vec<u8>,
}

impl Datagram {
    fn new(path: Path, packet: &Packet) -> Result<Datagram, EmitError> {
        let bytes = packet.view().to_bytes(&Datagram::encapsulation(&path))?;
        Ok(Datagram { path, bytes })
    }

    fn encapsulation(path: &Path) -> Encapsulation {
        Encapsulation { path: *path, source_port: 0xc000, identification: 0 }
    }

    /// The packet, if its CRC confirms it.
    fn parse(&self) -> Option<Packet> {
        // A number that nobody has put there is damage, too.
        let intact = Datagram::encapsulation(&self.path).check(&self.bytes) == Ok(0);
        intact.then(|| Packet::parse(&self.bytes).ok()).flatten()
    }

    /// Changes some bits, or the length.
    fn corrupt(&mut self, rng: &mut Rng) {
        if rng.chance(100) {
            self.bytes.truncate(rng.below(self.bytes.len() as u64) as usize);
            return;
        }
        for _ in 0..rng.between(1, 8) {
            let place = rng.below(self.bytes.len() as u64) as usize;
            self.bytes[place] ^= 1 << rng.below(8);
        }
    }
}

#[derive(Debug)]
struct Scheduled {
    at: Instant,
    order: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Scheduled) -> bool {
        self.order == other.order
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Scheduled) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Scheduled) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// How late the driver is, and how often it asks without need.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Driver {
    /// How much later than it was asked it calls `handle_timeout`, at most.
    pub(crate) lateness: Duration,
    /// How often in a thousand steps it calls something that is not due.
    pub(crate) needless: u32,
}

/// Everything there is.
#[derive(Debug)]
pub(crate) struct Network {
    start: Instant,
    now: Instant,
    pub(crate) rng: Rng,
    pub(crate) trace: Trace,
    pub(crate) nodes: Vec<Node>,
    /// What each device sends with.
    pub(crate) links: Vec<Link>,
    pub(crate) driver: Driver,
    scheduled: BinaryHeap<Reverse<Scheduled>>,
    order: u64,
    steps: u64,
    /// How often nothing but timers ran at the same instant.
    standing: u32,
    /// The last packets that have arrived, and where.
    overheard: VecDeque<(usize, Packet)>,
}

impl Network {
    /// Devices that send with these faults.
    pub(crate) fn new(seed: u64, trace: &Trace, faults: &[Faults]) -> Network {
        let start = Instant::now();
        let node = |index: usize| Node {
            addr: Ipv4Addr::new(10, 0, 0, index as u8 + 1).into(),
            host: SimHost::default(),
            endpoints: Vec::new(),
        };
        Network {
            start,
            now: start,
            rng: Rng::new(seed),
            trace: trace.clone(),
            nodes: (0..faults.len()).map(node).collect(),
            links: faults.iter().map(|&faults| Link::new(start, faults)).collect(),
            driver: Driver::default(),
            scheduled: BinaryHeap::new(),
            order: 0,
            steps: 0,
            standing: 0,
            overheard: VecDeque::new(),
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    /// How much time has passed.
    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// The way between two devices.
    pub(crate) fn path(&self, from: usize, to: usize) -> Path {
        Path {
            source: self.nodes[from].addr,
            dest: self.nodes[to].addr,
            traffic_class: 0,
            hop_limit: 64,
            flow_label: 0,
        }
    }

    pub(crate) fn add(&mut self, node: usize, qp: QueuePair) -> usize {
        let endpoints = &mut self.nodes[node].endpoints;
        endpoints.push(Endpoint { qp, seen: Seen::default(), touched: false });
        endpoints.len() - 1
    }

    /// Brings a queue pair to `ReadyToSend`, or as far as `last`.
    pub(crate) fn bring_up(&mut self, node: usize, qp: usize, last: State, attributes: Attributes) {
        for state in [State::Init, State::ReadyToReceive, State::ReadyToSend] {
            self.modify(node, qp, state, attributes);
            if state == last {
                break;
            }
        }
    }

    pub(crate) fn modify(&mut self, node: usize, qp: usize, state: State, attributes: Attributes) {
        let now = self.now;
        let (endpoint, host) = self.endpoint(node, qp);
        endpoint.qp.modify(now, state, attributes, host);
    }

    pub(crate) fn post_send(&mut self, node: usize, qp: usize, request: SendRequest) {
        self.trace.line(self.elapsed(), format_args!("{node} posts {request:?}"));
        let now = self.now;
        let (endpoint, host) = self.endpoint(node, qp);
        endpoint.qp.post_send(now, request, host);
    }

    pub(crate) fn post_recv(&mut self, node: usize, qp: usize, request: RecvRequest) {
        self.trace.line(self.elapsed(), format_args!("{node} posts {request:?}"));
        let (endpoint, host) = self.endpoint(node, qp);
        endpoint.qp.post_recv(request, host);
    }

    /// Puts a packet on the wire that nobody has sent, to arrive now. One that contradicts itself has no bytes, and is left out.
    pub(crate) fn inject(&mut self, path: Path, packet: &Packet) {
        if let Ok(datagram) = Datagram::new(path, packet) {
            self.trace.line(self.elapsed(), format_args!("forged {}", describe(packet)));
            self.schedule(self.now, Event::Arrival(datagram));
        }
    }

    /// The last packets that have arrived, and at which device.
    pub(crate) fn overheard(&self) -> &VecDeque<(usize, Packet)> {
        &self.overheard
    }

    /// Wakes the program of a device after this time.
    pub(crate) fn wake(&mut self, node: usize, after: Duration) {
        self.schedule(self.now + after, Event::Wake(node));
    }

    /// A queue pair that something is about to be done to, and its device.
    pub(crate) fn endpoint(&mut self, node: usize, qp: usize) -> (&mut Endpoint, &mut SimHost) {
        let node = &mut self.nodes[node];
        let endpoint = &mut node.endpoints[qp];
        endpoint.touched = true;
        (endpoint, &mut node.host)
    }

    /// Goes on to the next thing that happens, if anything ever does.
    pub(crate) fn step(&mut self) -> Option<Step> {
        self.steps += 1;
        assert!(self.steps < 2_000_000, "it does not come to an end");
        self.transmit();
        let timer = self.next_timer();
        let event = self.scheduled.peek().map(|Reverse(scheduled)| scheduled.at);
        let by_timer = match (timer, event) {
            (None, None) => return None,
            (Some((timer, ..)), Some(event)) if timer == event => self.rng.chance(500),
            (Some((timer, ..)), Some(event)) => timer < event,
            (timer, None) => timer.is_some(),
            (None, Some(_)) => false,
        };
        if let (true, Some((at, node, qp))) = (by_timer, timer) {
            return Some(self.fire(at, node, qp));
        }
        self.standing = 0;
        let Reverse(scheduled) = self.scheduled.pop()?;
        self.now = self.now.max(scheduled.at);
        match scheduled.event {
            Event::Wake(node) => Some(Step::Wake(node)),
            Event::Arrival(arrived) => Some(self.arrive(&arrived)),
        }
    }

    /// Whether nothing is on its way, and no timer runs.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let only_wakes = |event: &Event| matches!(event, Event::Wake(_));
        self.next_timer().is_none()
            && self.scheduled.iter().all(|Reverse(scheduled)| only_wakes(&scheduled.event))
    }

    fn schedule(&mut self, at: Instant, event: Event) {
        self.order += 1;
        self.scheduled.push(Reverse(Scheduled { at, order: self.order, event }));
    }

    /// The earliest timer, and whose it is.
    fn next_timer(&mut self) -> Option<(Instant, usize, usize)> {
        let mut earliest: Option<(Instant, usize, usize)> = None;
        for (number, node) in self.nodes.iter().enumerate() {
            let blocked = self.links[number].blocked_until(self.now);
            for (qp, endpoint) in node.endpoints.iter().enumerate() {
                let timeout = endpoint.qp.next_timeout();
                // One that waits for the link is asked again when there is room.
                let room = blocked.filter(|_| endpoint.touched);
                let at = match (timeout, room) {
                    (Some(timeout), Some(room)) if timeout <= self.now => room,
                    (Some(timeout), Some(room)) => timeout.min(room),
                    (timeout, room) => match timeout.or(room) {
                        Some(at) => at,
                        None => continue,
                    },
                };
                if earliest.is_none_or(|(other, ..)| at < other) {
                    earliest = Some((at, number, qp));
                }
            }
        }
        earliest
    }

    fn fire(&mut self, at: Instant, node: usize, qp: usize) -> Step {
        if at > self.now {
            self.standing = 0;
        }
        self.standing += 1;
        assert!(
            self.standing < 1000,
            "the timers stand still: {:?} of {node} wants {at:?} again and again",
            self.nodes[node].endpoints[qp].qp.next_timeout()
        );
        let lateness = self.driver.lateness.as_nanos() as u64;
        let late = if lateness > 0 { self.rng.below(lateness) } else { 0 };
        self.now = self.now.max(at + Duration::from_nanos(late));
        // What is late must not run ahead of what arrives in the meantime.
        if let Some(Reverse(next)) = self.scheduled.peek() {
            self.now = self.now.min(next.at.max(at));
        }
        self.trace.line(self.elapsed(), format_args!("{node} timer"));
        let now = self.now;
        let (endpoint, host) = self.endpoint(node, qp);
        endpoint.qp.handle_timeout(now, host);
        Step::Device(node)
    }

    fn arrive(&mut self, datagram: &Datagram) -> Step {
        let path = datagram.path;
        let Some(packet) = datagram.parse() else { return Step::Other };
        let Some(node) = self.nodes.iter().position(|node| node.addr == path.dest) else {
            return Step::Other;
        };
        let number = packet.bth.dest_qp;
        let mut endpoints = self.nodes[node].endpoints.iter();
        let Some(qp) = endpoints.position(|endpoint| endpoint.qp.config().qp_num == number) else {
            return Step::Other;
        };
        self.trace.line(self.elapsed(), format_args!("{node} <- {}", describe(&packet)));
        self.overheard.truncate(7);
        self.overheard.push_front((node, packet.clone()));
        let now = self.now;
        let needless = self.rng.chance(self.driver.needless);
        let (endpoint, host) = self.endpoint(node, qp);
        let peer = endpoint.qp.attributes().path.map(|path| path.dest);
        if packet.operation.is_response() && peer == Some(path.source) {
            endpoint.seen.heard = Some(now);
            if let Operation::Acknowledge(aeth) = packet.operation {
                if matches!(aeth.syndrome, Syndrome::RnrNak(_)) {
                    endpoint.seen.not_ready += 1;
                }
            }
        }
        endpoint.qp.handle_packet(now, &path, packet, host);
        if needless {
            endpoint.qp.handle_timeout(now, host);
            endpoint.qp.hasten_acks();
        }
        Step::Device(node)
    }

    /// Lets those send to whom something was done.
    fn transmit(&mut self) {
        for node in 0..self.nodes.len() {
            for qp in 0..self.nodes[node].endpoints.len() {
                while self.nodes[node].endpoints[qp].touched {
                    if self.links[node].blocked_until(self.now).is_some() {
                        break;
                    }
                    let now = self.now;
                    let (endpoint, host) = self.endpoint(node, qp);
                    match endpoint.qp.poll_transmit(now, host) {
                        Some(transmit) => {
                            let mtu = endpoint.qp.attributes().path_mtu;
                            endpoint.seen.sent(&transmit.packet, mtu);
                            self.send(node, transmit);
                        }
                        None => endpoint.touched = false,
                    }
                }
            }
        }
    }

    fn send(&mut self, node: usize, transmit: Transmit) {
        let Transmit { path, packet } = transmit;
        assert_eq!(path.source, self.nodes[node].addr, "a packet from somebody else");
        let datagram = Datagram::new(path, &packet)
            .unwrap_or_else(|error| panic!("{node} sends {packet:?}: {error}"));
        // With the headers of Ethernet, IP and UDP.
        let len = datagram.bytes.len() + 42;
        let arrivals = self.links[node].send(self.now, len, &mut self.rng);
        if self.trace.is_on() {
            let encapsulation = Datagram::encapsulation(&path);
            self.trace.capture(self.elapsed(), &encapsulation, &datagram.bytes);
            let fate: Vec<_> = arrivals
                .iter()
                .map(|arrival| (arrival.at - self.start, arrival.corrupt.then_some("corrupt")))
                .collect();
            let what = describe(&packet);
            self.trace.line(self.elapsed(), format_args!("{node} -> {what}  {fate:?}"));
        }
        for arrival in arrivals {
            let mut copy = datagram.clone();
            if arrival.corrupt {
                copy.corrupt(&mut self.rng);
                assert!(
                    copy.parse().is_none_or(|parsed| parsed == packet),
                    "damage goes unnoticed: {:?} was {:?}",
                    copy.bytes,
                    datagram.bytes
                );
            }
            self.schedule(arrival.at, Event::Arrival(copy));
        }
    }
}

impl Seen {
    fn sent(&mut self, packet: &Packet, mtu: u32) {
        if packet.operation.is_response() {
            self.responses += 1;
            return;
        }
        self.requests += 1;
        // A read has as many numbers as its answer has packets.
        let count = match packet.operation {
            Operation::ReadRequest(reth) => reth.len.div_ceil(mtu).max(1),
            _ => 1,
        };
        for number in 0..count {
            let tries = self.tries.entry(packet.bth.psn.add(number).get()).or_default();
            *tries += 1;
            self.again += u64::from(number == 0 && *tries > 1);
        }
    }

    /// How often the request with this PSN was sent.
    pub(crate) fn tries_of(&self, psn: Psn) -> u32 {
        self.tries.get(&psn.get()).copied().unwrap_or(0)
    }
}

/// A packet in a line.
pub(crate) fn describe(packet: &Packet) -> String {
    let bth = &packet.bth;
    let ask = if bth.ack_request { " ack?" } else { "" };
    let len = packet.payload.len();
    format!("{:#x} {:?} {:?}{ask} +{len}", bth.dest_qp, bth.psn, packet.operation)
}
