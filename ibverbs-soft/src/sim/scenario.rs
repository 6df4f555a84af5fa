//! Two connected queue pairs, drawn at random.

use std::time::Duration;

use super::fixture::{NUMBERS, PD, RECV_CQ, SEND_CQ};
use super::link::Faults;
use super::network::{Driver, Network};
use super::pair::{Pace, Pair, Side};
use super::plan::{self, Memory, Mixture, Poison, Sizes};
use super::rng::Rng;
use super::trace::Trace;
use crate::transport::{Config, QueuePair, State};
use crate::wire::Service;

/// What of a connection is chosen; the rest is drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) service: Service,
    pub(crate) faults: [Faults; 2],
    /// The most requests of a side.
    pub(crate) operations: u64,
    pub(crate) driver: Driver,
    /// Whether all receives are there before anything is sent.
    pub(crate) ready: bool,
    /// Whether as many retries are allowed as can be.
    pub(crate) patient: bool,
    /// Whether nobody waits for a receive for ever.
    pub(crate) impatient: bool,
    /// Whether a request cannot be carried out.
    pub(crate) poison: bool,
    /// Whether memory windows are bound and withdrawn, too.
    pub(crate) windows: bool,
}

impl Scenario {
    pub(crate) fn draw(rng: &mut Rng, service: Service) -> Scenario {
        let faults = [plan::draw_faults(rng), plan::draw_faults(rng)];
        let driver = Driver {
            lateness: Duration::from_nanos(rng.pick(&[0, 0, 5_000, 500_000])),
            needless: rng.pick(&[0, 0, 200]),
        };
        let operations = rng.pick(&[3, 10, 10, 40]);
        Scenario {
            service,
            faults,
            operations,
            driver,
            ready: false,
            impatient: false,
            patient: false,
            poison: false,
            windows: false,
        }
    }

    /// Two connected queue pairs, what their programs are going to do, and which request must fail.
    pub(crate) fn build(&self, seed: u64, trace: &Trace) -> (Pair, Option<Poison>) {
        let mut net = Network::new(seed, trace, &self.faults);
        net.driver = self.driver;
        let mut rng = Rng::new(seed ^ 0x7c15);
        let rng = &mut rng;
        let path_mtu = rng.pick(&[256, 256, 512, 1024, 4096]);
        // Some are longer than what is under way at a time.
        let packets = if path_mtu == 256 { rng.pick(&[1, 2, 4, 50]) } else { rng.pick(&[1, 2, 4]) };
        let max_len = path_mtu * packets + rng.pick(&[0, 3]);
        let sizes = Sizes { operations: self.operations, max_len };
        let mixture = match self.service {
            Service::Rc if self.windows => Mixture::Windows,
            Service::Rc => Mixture::Reliable,
            _ => Mixture::Unreliable,
        };

        let mut memories = [0, 1].map(|node| Memory::new(&mut net.nodes[node].host, rng, &sizes));
        if self.windows {
            for node in 0..2 {
                memories[node].lend(&mut net.nodes[node].host, NUMBERS[node]);
            }
        }
        let [a, b] = &mut memories;
        let hosts = [&net.nodes[0].host, &net.nodes[1].host];
        let mut plans = [
            plan::draw(rng, &sizes, mixture, (hosts[0], a), (hosts[1], b)),
            plan::draw(rng, &sizes, mixture, (hosts[1], b), (hosts[0], a)),
        ];
        let rooms = [0, 1].map(|_| if self.ready { 1024 } else { rng.pick(&[1, 4, 64]) });
        let mut receives = [0, 1].map(|node: usize| {
            let limits = (max_len, rooms[node]);
            plan::draw_receives(rng, &mut memories[node], &plans[1 - node], limits)
        });
        let side = rng.below(2) as usize;
        let poison = if self.poison {
            plan::poison(rng, side, &mut plans[side], &mut receives[1 - side])
        } else {
            None
        };

        let psns = [plan::draw_psn(rng), plan::draw_psn(rng)];
        let mut attributes = [0, 1].map(|node: usize| {
            let other = 1 - node;
            let path = net.path(node, other);
            let psns = (psns[node], psns[other]);
            plan::draw_attributes(rng, path, NUMBERS[other], path_mtu, psns)
        });
        for node in 0..2 {
            let most = attributes[1 - node].max_rd_atomic;
            attributes[node].max_dest_rd_atomic = rng.pick(&[most, 16]);
            if self.patient {
                attributes[node].retry_count = 7;
                attributes[node].rnr_retry = 7;
            }
            if self.impatient {
                attributes[node].rnr_retry %= 7;
            }
        }
        let mut work = plans.into_iter().zip(receives);
        let sides = [0, 1].map(|node: usize| {
            let host = &mut net.nodes[node].host;
            let srq = rng.chance(300).then(|| host.create_srq(rng.below(4) as usize));
            let config = Config {
                qp_num: NUMBERS[node],
                service: self.service,
                pd: PD,
                send_cq: SEND_CQ,
                recv_cq: RECV_CQ,
                srq,
                max_send_wr: rng.pick(&[1, 2, 8, 64]),
                max_recv_wr: if srq.is_some() { 0 } else { rooms[node] },
                signal_all: rng.chance(200),
            };
            net.add(node, QueuePair::new(config, 0));
            net.bring_up(node, 0, State::ReadyToSend, attributes[node]);
            let pace = Pace {
                sends: rng.pick(&[1, 4, 64]),
                receives: if self.ready { Pace::ALL } else { rng.pick(&[1, 4, 64, 64]) },
                pause: Duration::from_nanos(rng.pick(&[100, 10_000, 100_000, 5_000_000])),
            };
            let (plan, receives) = work.next().expect("there are two sides");
            Side::new(plan, receives, memories[node], srq, pace)
        });
        (Pair::new(net, sides), poison)
    }
}
