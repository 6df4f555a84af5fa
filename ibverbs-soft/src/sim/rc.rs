//! Reliable connections: whatever the link does, every message arrives once, in order and unchanged, or the queue pair fails
//! with the right status within the time that its timers allow.

use std::time::Duration;

use super::fixture::{NUMBERS, PD, RECV_CQ, SEND_CQ};
use super::link::Faults;
use super::network::{Driver, Network};
use super::pair::{Pace, Pair, Side};
use super::plan::{self, Memory, Mixture, Sizes};
use super::rng::Rng;
use super::trace::{for_seeds, Trace};
use crate::transport::{Attributes, Config, QueuePair, SendOperation, State, Status};
use crate::wire::{Psn, Service};

/// The times to which a receiver's timer refers, in hundredths of a millisecond.
const RNR_TIMERS: [u64; 32] = [
    65536, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536,
    2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152,
];

/// What of a connection is chosen; the rest is drawn.
#[derive(Clone, Copy, Debug)]
struct Choice {
    faults: [Faults; 2],
    operations: u64,
    driver: Driver,
}

impl Choice {
    fn draw(rng: &mut Rng) -> Choice {
        let faults = [plan::draw_faults(rng), plan::draw_faults(rng)];
        let driver = Driver {
            lateness: Duration::from_nanos(rng.pick(&[0, 0, 5_000, 500_000])),
            needless: rng.pick(&[0, 0, 200]),
        };
        Choice { faults, operations: rng.pick(&[3, 10, 10, 40]), driver }
    }
}

/// Two connected queue pairs, and what their programs are going to do.
fn pair(seed: u64, trace: &Trace, choice: &Choice) -> Pair {
    let mut net = Network::new(seed, trace, &choice.faults);
    net.driver = choice.driver;
    let mut rng = Rng::new(seed ^ 0x7c15);
    let path_mtu = rng.pick(&[256, 256, 512, 1024, 4096]);
    // Some are longer than what is under way at a time.
    let packets = if path_mtu == 256 { rng.pick(&[1, 2, 4, 50]) } else { rng.pick(&[1, 2, 4]) };
    let sizes =
        Sizes { operations: choice.operations, max_len: path_mtu * packets + rng.pick(&[0, 3]) };
    let mut memories = [0, 1].map(|node| Memory::new(&mut net.nodes[node].host, &mut rng, &sizes));
    let psns = [plan::draw_psn(&mut rng), plan::draw_psn(&mut rng)];
    let [a, b] = &mut memories;
    let hosts = [&net.nodes[0].host, &net.nodes[1].host];
    let plans = [
        plan::draw(&mut rng, &sizes, Mixture::Reliable, (hosts[0], a), (hosts[1], b)),
        plan::draw(&mut rng, &sizes, Mixture::Reliable, (hosts[1], b), (hosts[0], a)),
    ];
    let mut attributes = [0, 1].map(|node: usize| {
        let other = 1 - node;
        let path = net.path(node, other);
        let psns = (psns[node], psns[other]);
        plan::draw_attributes(&mut rng, path, NUMBERS[other], path_mtu, psns)
    });
    for node in 0..2 {
        let most = attributes[1 - node].max_rd_atomic;
        attributes[node].max_dest_rd_atomic = rng.pick(&[most, 16]);
    }
    let sides = [0, 1].map(|node: usize| {
        let mut memory = memories[node];
        let host = &mut net.nodes[node].host;
        let srq = rng.chance(300).then(|| host.create_srq(rng.below(4) as usize));
        let room = rng.pick(&[1, 4, 64]);
        let plan = &plans[1 - node];
        let receives = plan::draw_receives(&mut rng, &mut memory, plan, (sizes.max_len, room));
        let config = Config {
            qp_num: NUMBERS[node],
            service: Service::Rc,
            pd: PD,
            send_cq: SEND_CQ,
            recv_cq: RECV_CQ,
            srq,
            max_send_wr: rng.pick(&[1, 2, 8, 64]),
            max_recv_wr: if srq.is_some() { 0 } else { room },
            signal_all: rng.chance(200),
        };
        net.add(node, QueuePair::new(config));
        net.bring_up(node, 0, State::ReadyToSend, attributes[node]);
        let pace = Pace {
            sends: rng.pick(&[1, 4, 64]),
            receives: rng.pick(&[1, 4, 64, 64]),
            pause: Duration::from_nanos(rng.pick(&[100, 10_000, 100_000, 5_000_000])),
        };
        Side::new(plans[node].clone(), receives, memory, srq, pace)
    });
    Pair { net, sides }
}

/// How long a request can be tried again at most after the last answer, and after it was posted.
fn patience(attributes: &Attributes, peer: &Attributes, choice: &Choice) -> Duration {
    // The specification allows four times what was asked for; it is never less than a millisecond.
    let timeout = Duration::from_nanos(4096 << attributes.timeout) * 4;
    let each = timeout + choice.driver.lateness + Duration::from_millis(2);
    let not_ready = Duration::from_micros(10 * RNR_TIMERS[usize::from(peer.min_rnr_timer & 31)]);
    not_ready + each * (u32::from(attributes.retry_count) + 1)
}

/// Whether the first error of a side is one that this connection can have, and came in time.
fn check_failure(pair: &Pair, node: usize, choice: &Choice) {
    let side = &pair.sides[node];
    let Some(failure) = side.failure else { return };
    let endpoint = &pair.net.nodes[node].endpoints[0];
    let attributes = endpoint.qp.attributes();
    let peer = pair.net.nodes[1 - node].endpoints[0].qp.attributes();
    match failure.status {
        Status::RetryExceeded => {
            let tries = packets_of(side, failure.index, attributes)
                .map(|psn| endpoint.seen.tries_of(psn))
                .max();
            let least = u32::from(attributes.retry_count) + 1;
            assert!(tries >= Some(least), "{node}: failed after {tries:?} tries of {least}");
            let begun = side.posted[failure.index].max(endpoint.seen.heard.unwrap_or(failure.at));
            let begun = begun.min(failure.at);
            let took = failure.at - begun;
            let patience = patience(attributes, peer, choice);
            assert!(took <= patience, "{node}: failed after {took:?}, more than {patience:?}");
        }
        Status::RnrRetryExceeded => {
            assert!(side.plan[failure.index].takes_receive());
            let most = attributes.rnr_retry;
            assert!(most < 7, "{node}: gave up, but was to wait for ever");
            assert!(endpoint.seen.not_ready > u32::from(most), "{node}: gave up too early");
        }
        status => panic!("{node}: {status:?} of request {}", failure.index),
    }
}

/// The sequence numbers of the packets of a request, or of the answer to it.
fn packets_of(side: &Side, index: usize, attributes: &Attributes) -> impl Iterator<Item = Psn> {
    let mtu = u64::from(attributes.path_mtu);
    let packets = |index: usize| {
        let request = &side.plan[index].request;
        match request.operation {
            SendOperation::CompareSwap { .. } | SendOperation::FetchAdd { .. } => 1,
            _ => request.payload.len().div_ceil(mtu).max(1) as u32,
        }
    };
    let first = attributes.sq_psn.add((0..index).map(packets).sum());
    (0..packets(index)).map(move |packet| first.add(packet))
}

fn holds(seed: u64, trace: &Trace) {
    let choice = Choice::draw(&mut Rng::new(seed ^ 0x11));
    let mut pair = pair(seed, trace, &choice);
    pair.run();
    for node in 0..2 {
        check_failure(&pair, node, &choice);
    }
    pair.check_end();
    pair.check_silence();
}

#[test]
fn messages_arrive_once_in_order_and_unchanged_or_the_queue_pair_fails() {
    for_seeds(2000, holds);
}
