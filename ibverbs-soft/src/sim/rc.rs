//! Reliable connections: whatever the link does, every message arrives once, in order and unchanged, or the queue pair fails
//! with the right status within the time that its timers allow.

use std::time::Duration;

use super::link::Faults;
use super::network::Driver;
use super::pair::{Pair, Side};
use super::reliable::{Failure, Reliable};
use super::rng::Rng;
use super::scenario::Scenario;
use super::trace::{for_seeds, Trace};
use crate::transport::{Attributes, SendOperation, State, Status};
use crate::wire::{Psn, Service};

/// The longest time that the receivers of this simulation ask to wait: that of timer 20.
const LONGEST_WAIT: Duration = Duration::from_micros(10_240);

/// How long a request can be tried again at most after the last answer, and after it was posted.
fn patience(attributes: &Attributes, scenario: &Scenario) -> Duration {
    // The specification allows four times what was asked for; it is never less than four milliseconds.
    let timeout = Duration::from_nanos(4096 << attributes.timeout) * 4;
    let each = timeout + scenario.driver.lateness + Duration::from_millis(5);
    LONGEST_WAIT + each * (u32::from(attributes.retry_count) + 1)
}

/// Whether the first error of a side is one that this connection can have, and came in time.
fn check_failure(pair: &Pair, seen: &Reliable, node: usize, scenario: &Scenario) {
    let Some(failure) = seen.views[node].failure else { return };
    let Failure { index, status, at } = failure;
    let side = &pair.sides[node];
    let endpoint = &pair.net.nodes[node].endpoints[0];
    let attributes = endpoint.qp.attributes();
    if seen.stopped == Some(node) && status == Status::WorkRequestFlushed {
        return;
    }
    if let Some(poison) = seen.poison {
        if poison.side == node {
            assert!(index <= poison.index, "{failure:?} came after {poison:?}");
            if index == poison.index && status == poison.status {
                return;
            }
        } else if poison.fails_peer && status == Status::WorkRequestFlushed {
            // This side has failed by what the other asked for, not by its own requests.
            return;
        }
    }
    match status {
        Status::RetryExceeded => {
            let tries =
                packets_of(side, index, attributes).map(|psn| endpoint.seen.tries_of(psn)).max();
            let least = u32::from(attributes.retry_count) + 1;
            assert!(tries >= Some(least), "{node}: failed after {tries:?} tries of {least}");
            let heard = endpoint.seen.heard.unwrap_or(side.posted[index]);
            let begun = seen.modified.max(Some(side.posted[index].max(heard)));
            let begun = begun.map_or(at, |begun| begun.min(at));
            let patience = patience(attributes, scenario);
            let took = at - begun;
            assert!(took <= patience, "{node}: failed after {took:?}, more than {patience:?}");
        }
        Status::RnrRetryExceeded => {
            assert!(side.plan[index].takes_receive());
            let most = attributes.rnr_retry;
            assert!(most < 7, "{node}: gave up, but was to wait for ever");
            assert!(endpoint.seen.not_ready > u32::from(most), "{node}: gave up too early");
        }
        status => panic!("{node}: {status:?} of request {index}"),
    }
}

/// The sequence numbers of the packets of a request, or of the answer to it.
fn packets_of(side: &Side, index: usize, attributes: &Attributes) -> impl Iterator<Item = Psn> {
    let mtu = u64::from(attributes.path_mtu);
    let packets = |index: usize| {
        let request = &side.plan[index].request;
        match request.operation {
            SendOperation::CompareSwap { .. } | SendOperation::FetchAdd { .. } => 1,
            operation if operation.is_local() => 0,
            _ => request.payload.len().div_ceil(mtu).max(1) as u32,
        }
    };
    let first = attributes.sq_psn.add((0..index).map(packets).sum());
    (0..packets(index)).map(move |packet| first.add(packet))
}

/// Checks what must hold when nothing happens any more.
pub(crate) fn check(pair: &mut Pair, mut seen: Reliable, scenario: &Scenario) {
    for node in 0..2 {
        check_failure(pair, &seen, node, scenario);
    }
    seen.check_end(pair);
    let now = pair.net.now();
    for node in 0..2 {
        let (endpoint, host) = pair.net.endpoint(node, 0);
        assert_eq!(endpoint.qp.poll_transmit(now, host), None, "nothing was done to it");
    }
}

pub(crate) fn scenario(seed: u64) -> Scenario {
    Scenario::draw(&mut Rng::new(seed ^ 0x11), Service::Rc)
}

fn run(seed: u64, trace: &Trace, scenario: &Scenario) {
    let (mut pair, poison) = scenario.build(seed, trace);
    let mut seen = Reliable { poison, ..Reliable::default() };
    pair.run(&mut seen);
    check(&mut pair, seen, scenario);
}

#[test]
fn messages_arrive_once_in_order_and_unchanged_or_the_queue_pair_fails() {
    for_seeds(20_000, |seed, trace| run(seed, trace, &scenario(seed)));
}

/// Runs what must not fail.
fn run_to_success(seed: u64, trace: &Trace, scenario: &Scenario) -> Pair {
    let (mut pair, _) = scenario.build(seed, trace);
    let mut seen = Reliable::default();
    pair.run(&mut seen);
    let failures = seen.views.each_ref().map(|view| view.failure);
    assert!(failures.iter().all(Option::is_none), "{failures:?}");
    check(&mut pair, seen, scenario);
    pair
}

#[test]
fn nothing_fails_if_nothing_goes_wrong() {
    for_seeds(500, |seed, trace| {
        let mut scenario = Scenario { ready: true, ..scenario(seed) };
        scenario.faults = scenario.faults.map(Faults::without_any);
        scenario.driver = Driver::default();
        let pair = run_to_success(seed, trace, &scenario);
        for node in &pair.net.nodes {
            let seen = &node.endpoints[0].seen;
            // A packet that did not ask for an acknowledgement is sent again to ask for one.
            assert!(seen.again * 4 <= seen.requests, "{} of {}", seen.again, seen.requests);
        }
    });
}

#[test]
fn nothing_fails_on_a_bad_link_if_it_is_tried_often() {
    for_seeds(6000, |seed, trace| {
        let mut scenario = Scenario { patient: true, ..scenario(seed) };
        scenario.faults = scenario.faults.map(|faults| faults.at_most(50));
        run_to_success(seed, trace, &scenario);
    });
}

#[test]
fn a_request_that_cannot_be_carried_out_fails_as_it_must_and_nothing_after_it_is_done() {
    for_seeds(6000, |seed, trace| run(seed, trace, &Scenario { poison: true, ..scenario(seed) }));
}

#[test]
fn windows_are_bound_and_withdrawn_once_and_in_order() {
    for_seeds(6000, |seed, trace| run(seed, trace, &Scenario { windows: true, ..scenario(seed) }));
}

#[test]
fn nothing_about_windows_fails_on_a_bad_link_if_it_is_tried_often() {
    for_seeds(3000, |seed, trace| {
        let mut scenario = Scenario { patient: true, windows: true, ..scenario(seed) };
        scenario.faults = scenario.faults.map(|faults| faults.at_most(50));
        run_to_success(seed, trace, &scenario);
    });
}

#[test]
fn what_cannot_be_bound_or_withdrawn_fails_as_it_must_and_nothing_after_it_is_done() {
    for_seeds(6000, |seed, trace| {
        let scenario = Scenario { poison: true, windows: true, ..scenario(seed) };
        run(seed, trace, &scenario);
    });
}

/// Lets both programs run for a while.
fn run_for(pair: &mut Pair, seen: &mut Reliable, rng: &mut Rng) {
    let most = rng.pick(&[10_000, 1_000_000, 100_000_000]);
    let end = Duration::from_nanos(rng.below(most));
    pair.begin();
    while pair.net.elapsed() < end && pair.step(seen) {}
}

#[test]
fn work_towards_a_peer_that_is_gone_fails_in_time() {
    for_seeds(6000, |seed, trace| {
        let scenario = scenario(seed);
        let (mut pair, _) = scenario.build(seed, trace);
        let mut seen = Reliable::default();
        let mut rng = Rng::new(seed ^ 0xdead);
        // Nothing gets through any more, or nothing in one of the directions.
        let gone = rng.pick(&[[true, true], [true, false], [false, true]]);
        run_for(&mut pair, &mut seen, &mut rng);
        for (link, gone) in pair.net.links.iter_mut().zip(gone) {
            if gone {
                link.faults.loss = 1000;
            }
        }
        while pair.step(&mut seen) {}
        check(&mut pair, seen, &scenario);
    });
}

#[test]
fn a_queue_pair_that_is_stopped_flushes_everything_and_its_peer_fails_in_time() {
    for_seeds(3000, |seed, trace| {
        let scenario = Scenario { windows: seed % 2 == 0, ..scenario(seed) };
        let (mut pair, _) = scenario.build(seed, trace);
        let mut rng = Rng::new(seed ^ 0x570b);
        let node = rng.below(2) as usize;
        let mut seen = Reliable { stopped: Some(node), ..Reliable::default() };
        run_for(&mut pair, &mut seen, &mut rng);
        pair.modify(node, State::Error);
        while pair.step(&mut seen) {}
        assert_eq!(pair.state(node), State::Error);
        check(&mut pair, seen, &scenario);
    });
}

#[test]
fn draining_finishes_what_was_begun_and_begins_nothing() {
    for_seeds(3000, |seed, trace| {
        let scenario = Scenario { windows: seed % 2 == 0, ..scenario(seed) };
        let (mut pair, _) = scenario.build(seed, trace);
        let mut seen = Reliable::default();
        let mut rng = Rng::new(seed ^ 0xd7a1);
        let node = rng.below(2) as usize;
        run_for(&mut pair, &mut seen, &mut rng);
        if pair.state(node) == State::ReadyToSend {
            pair.modify(node, State::SendQueueDrain);
            seen.modified = Some(pair.net.now());
            let is_draining = |pair: &Pair| pair.net.nodes[node].endpoints[0].qp.is_draining();
            while is_draining(&pair) && pair.step(&mut seen) {}
            assert!(!is_draining(&pair), "{node}: what was begun is not finished");
            let requests = pair.net.nodes[node].endpoints[0].seen.requests;
            for _ in 0..rng.between(1, 100) {
                pair.step(&mut seen);
            }
            let after = pair.net.nodes[node].endpoints[0].seen.requests;
            assert_eq!(requests, after, "{node}: something was begun");
            if pair.state(node) == State::SendQueueDrain {
                assert_eq!(seen.take_drained(node), 1);
                pair.modify(node, State::ReadyToSend);
                seen.modified = Some(pair.net.now());
            }
        }
        while pair.step(&mut seen) {}
        check(&mut pair, seen, &scenario);
    });
}
