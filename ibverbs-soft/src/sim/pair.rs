//! Two programs that talk to each other.

use std::time::{Duration, Instant};

use super::host::Record;
use super::network::{Network, Step};
use super::plan::{Memory, Planned};
use crate::transport::{RecvRequest, Sge, SrqId, State};
use crate::wire::Service;

/// How a program goes about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// The most sends that are posted at a time.
    pub(crate) sends: u64,
    /// The most receives that are posted at a time. All are posted before anything is sent, if it is [`Pace::ALL`].
    pub(crate) receives: u64,
    /// The longest pause until the next ones.
    pub(crate) pause: Duration,
}

impl Pace {
    pub(crate) const ALL: u64 = 1 << 32;
}

/// Who checks what is done to the devices, as it is done.
pub(crate) trait Observer {
    fn observe(&mut self, pair: &mut Pair, node: usize, record: Record);
}

/// One of the programs.
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
        }
    }
}

/// Two programs, each with queue pair 0 of its device.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) net: Network,
    pub(crate) sides: [Side; 2],
    /// How often in a row a program woke up and could not post anything, while nothing else happened.
    idle: u32,
}

impl Pair {
    pub(crate) fn new(net: Network, sides: [Side; 2]) -> Pair {
        Pair { net, sides, idle: 0 }
    }

    /// Lets both programs run until nothing happens any more.
    pub(crate) fn run(&mut self, observer: &mut impl Observer) {
        self.begin();
        while self.step(observer) {}
    }

    /// Lets both programs begin.
    pub(crate) fn begin(&mut self) {
        for node in 0..2 {
            if self.sides[node].pace.receives == Pace::ALL {
                self.post_receives(node, Pace::ALL);
            }
            self.net.wake(node, Duration::ZERO);
        }
    }

    /// Goes on to the next thing that happens. Returns whether there was one.
    pub(crate) fn step(&mut self, observer: &mut impl Observer) -> bool {
        let step = self.net.step();
        match step {
            Some(Step::Wake(node)) => self.post(node),
            _ => self.idle = 0,
        }
        for node in 0..2 {
            for record in self.net.nodes[node].host.take_log() {
                if self.net.trace.is_on() && !matches!(record, Record::LocalWrite { .. }) {
                    let mut what = format!("{record:?}");
                    what.truncate(200);
                    self.net.trace.line(self.net.elapsed(), format_args!("{node} ** {what}"));
                }
                observer.observe(self, node, record);
            }
        }
        step.is_some()
    }

    pub(crate) fn state(&self, node: usize) -> State {
        self.net.nodes[node].endpoints[0].qp.state()
    }

    /// Takes a queue pair to another state.
    pub(crate) fn modify(&mut self, node: usize, state: State) {
        let attributes = *self.net.nodes[node].endpoints[0].qp.attributes();
        self.net.modify(node, 0, state, attributes);
    }

    /// Posts some of what is left.
    fn post(&mut self, node: usize) {
        let failed = self.state(node) == State::Error;
        let side = &self.sides[node];
        let pace = side.pace;
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
        self.post_receives(node, receives);
        let side = &mut self.sides[node];
        if failed {
            side.plan.truncate(side.posted.len());
            side.receives.truncate(side.receives_posted);
        }
        let after =
            side.plan.len() - side.posted.len() + side.receives.len() - side.receives_posted;
        if after == before {
            side.blocked += 1;
            self.idle += 1;
        } else {
            side.blocked = 0;
            self.idle = 0;
        }
        if after > 0 {
            // Whoever waits for long looks less often.
            let pause = (pace.pause * (1 << side.blocked.min(12))).min(Duration::from_millis(5));
            let pause = self.net.rng.below(pause.as_nanos() as u64 + 1);
            self.net.wake(node, Duration::from_nanos(pause));
        }
    }

    fn post_receives(&mut self, node: usize, count: u64) {
        for _ in 0..count {
            let qp = &self.net.nodes[node].endpoints[0].qp;
            let has_room = qp.recv_room() > 0;
            let is_reliable = qp.config().service == Service::Rc;
            let peer = &self.sides[1 - node];
            let peer_is_done = !is_reliable && peer.posted.len() == peer.plan.len();
            let peer_failed = self.state(1 - node) == State::Error;
            let is_stuck = self.idle > 200 && self.net.is_quiet();
            let side = &mut self.sides[node];
            let Some(next) = side.receives.get(side.receives_posted) else { break };
            let request = next.clone();
            match side.srq {
                Some(srq) => self.net.nodes[node].host.post_srq_recv(srq, request),
                None if has_room => self.net.post_recv(node, 0, request),
                None => {
                    if peer_failed || peer_is_done || is_stuck {
                        // There never will be.
                        side.receives.truncate(side.receives_posted);
                    }
                    break;
                }
            }
            self.sides[node].receives_posted += 1;
        }
    }

    /// The bytes where a receive, a read or an atomic operation puts its result.
    pub(crate) fn scattered(&self, node: usize, sges: &[Sge]) -> Vec<u8> {
        let host = &self.net.nodes[node].host;
        sges.iter().flat_map(|sge| host.peek(sge.addr, sge.len as usize)).collect()
    }
}
