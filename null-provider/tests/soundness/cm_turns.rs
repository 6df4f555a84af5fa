//! Rules 15 and 16: whoever takes events from a channel, and whoever uses an identifier of it, take turns. The
//! provider notices if two threads are in one identifier at once, and if one waits for ever.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use ibverbs::rdmacm::{CmEventType, CmId, ConnectionParams, EventChannel, Tcp, Udp};
use ibverbs::QpState;
use null_provider::{Controls, Verb};

use crate::cm_common::*;
use crate::common::{null, Null};

const ROUNDS: usize = if cfg!(miri) { 3 } else { 200 };
const SEEDS: u64 = if cfg!(miri) { 2 } else { 24 };

/// Lets calls take as long as the seed says: some let others run, some do not.
fn unevenly(null: &Null, seed: u64) {
    let calls = AtomicUsize::new(0);
    let during = move |_| {
        let call = calls.fetch_add(1, Ordering::Relaxed) as u64;
        let mut random = (seed << 32 | call).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        random ^= random >> 29;
        for _ in 0..random % 5 {
            thread::yield_now();
        }
    };
    null.configure(|config| config.cm.during = Some(Arc::new(during)));
}

/// Begins the second while the first is in the middle of this function: it has to wait for its turn.
#[track_caller]
pub(crate) fn take_turns(
    null: &Null,
    verb: Verb,
    first: impl FnOnce() + Send,
    second: impl FnOnce(),
    has_begun: impl Fn(&Controls) -> bool + Send + Sync + 'static,
) {
    let inside = Arc::new(AtomicBool::new(false));
    let overlapped = Arc::new(AtomicBool::new(false));
    let during = {
        let (inside, overlapped, controls) = (inside.clone(), overlapped.clone(), null.controls());
        move |begun| {
            if begun == verb && !inside.swap(true, Ordering::Relaxed) {
                // Without a turn to wait for, it would begin by then.
                let patience = if cfg!(miri) { 30 } else { 3000 };
                let has_begun = (0..patience).any(|_| {
                    thread::yield_now();
                    has_begun(controls)
                });
                overlapped.store(has_begun, Ordering::Relaxed);
            }
        }
    };
    null.configure(|config| config.cm.during = Some(Arc::new(during)));
    thread::scope(|scope| {
        let first = scope.spawn(first);
        while !inside.load(Ordering::Relaxed) {
            assert!(!first.is_finished(), "{verb:?} was not called");
            thread::yield_now();
        }
        second();
    });
    null.configure(|config| config.cm.during = None);
    assert!(!overlapped.load(Ordering::Relaxed), "the second did not wait for its turn");
}

#[test]
fn an_event_is_not_taken_during_a_call_on_its_identifier() {
    let null = null();
    let channel = EventChannel::create().unwrap();
    let mut id = CmId::create_on(&channel, Tcp).unwrap();
    id.resolve_addr(None, address(0), TIMEOUT).unwrap();
    null.take_calls();
    take_turns(
        &null,
        Verb::SetCmOption,
        || id.set_type_of_service(8).unwrap(),
        || drop(next_on(&channel, CmEventType::ADDR_RESOLVED)),
        |controls| controls.count(Verb::GetCmEvent) > 0,
    );
}

#[test]
fn no_call_begins_while_an_event_of_the_identifier_is_taken() {
    let null = null();
    let channel = EventChannel::create().unwrap();
    let mut id = CmId::create_on(&channel, Tcp).unwrap();
    id.resolve_addr(None, address(0), TIMEOUT).unwrap();
    take_turns(
        &null,
        Verb::GetCmEvent,
        || drop(next_on(&channel, CmEventType::ADDR_RESOLVED)),
        || id.set_type_of_service(8).unwrap(),
        |controls| controls.count(Verb::SetCmOption) > 0,
    );
}

#[test]
fn an_identifier_is_not_looked_at_while_an_event_of_it_is_taken() {
    let null = null();
    let channel = EventChannel::create().unwrap();
    let mut id = CmId::create_on(&channel, Tcp).unwrap();
    id.resolve_addr(None, address(0), TIMEOUT).unwrap();
    let looked = Arc::new(AtomicBool::new(false));
    let saw = looked.clone();
    take_turns(
        &null,
        Verb::GetCmEvent,
        || drop(next_on(&channel, CmEventType::ADDR_RESOLVED)),
        || {
            let (addr, port) = (id.local_addr(), id.port());
            looked.store(true, Ordering::Relaxed);
            assert_eq!((addr.unwrap().ip(), port), (address(0).ip(), Some(1)));
        },
        move |_| saw.load(Ordering::Relaxed),
    );
}

#[test]
fn an_identifier_is_not_destroyed_while_an_event_of_it_is_taken() {
    let null = null();
    let channel = EventChannel::create().unwrap();
    let mut id = CmId::create_on(&channel, Tcp).unwrap();
    id.resolve_addr(None, address(0), TIMEOUT).unwrap();
    take_turns(
        &null,
        Verb::GetCmEvent,
        || drop(next_on(&channel, CmEventType::ADDR_RESOLVED)),
        move || drop(id),
        |controls| controls.count(Verb::DestroyCmId) > 0,
    );
}

#[test]
fn an_identifier_does_not_move_while_an_event_of_it_is_taken() {
    let null = null();
    let channels = [EventChannel::create().unwrap(), EventChannel::create().unwrap()];
    for (from, to) in [(0, 1), (1, 0)] {
        let (from, to) = (&channels[from], &channels[to]);
        let mut id = CmId::create_on(from, Tcp).unwrap();
        id.resolve_addr(None, address(0), TIMEOUT).unwrap();
        null.take_calls();
        take_turns(
            &null,
            Verb::GetCmEvent,
            || drop(next_on(from, CmEventType::ADDR_RESOLVED)),
            || id.migrate(to).unwrap(),
            |controls| controls.count(Verb::MigrateCmId) > 0,
        );
    }
}

/// Neither where it comes from, nor where it goes to.
#[test]
fn no_event_is_taken_while_an_identifier_moves() {
    let null = null();
    let channels = [EventChannel::create().unwrap(), EventChannel::create().unwrap()];
    for (from, to) in [(0, 1), (1, 0)] {
        for place in [from, to] {
            let mut id = CmId::create_on(&channels[from], Tcp).unwrap();
            let other = CmId::create_on(&channels[place], Tcp).unwrap();
            raise(&null, &other, plain(CmEventType::ADDR_CHANGE));
            null.take_calls();
            take_turns(
                &null,
                Verb::MigrateCmId,
                || id.migrate(&channels[to]).unwrap(),
                || drop(next_on(&channels[place], CmEventType::ADDR_CHANGE)),
                |controls| controls.count(Verb::GetCmEvent) > 0,
            );
        }
    }
}

#[test]
fn identifiers_come_and_go_while_another_thread_takes_their_events() {
    for seed in 0..SEEDS {
        let null = null();
        unevenly(&null, seed);
        let channel = EventChannel::create().unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let users: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        for round in 0..ROUNDS / 8 + 1 {
                            let mut id = CmId::create_on(&channel, Tcp).unwrap();
                            id.set_context(round as u64);
                            id.resolve_addr(None, address(round % 2), TIMEOUT).unwrap();
                            while id.port().is_none() {
                                thread::yield_now();
                            }
                            id.set_type_of_service(8).unwrap();
                            let _ = id.resolve_route(TIMEOUT);
                            assert!(id.qp_attr(QpState::INIT).is_ok());
                            assert_eq!(id.peer_addr(), Some(address(round % 2)));
                            assert_eq!(id.context_value(), round as u64);
                            drop(id.context().unwrap());
                            let _ = format!("{id:?}");
                        }
                    })
                })
                .collect();
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    match channel.poll_cm_event().unwrap() {
                        Some(event) => assert_eq!(event.status(), 0, "{event}"),
                        None => thread::yield_now(),
                    }
                }
            });
            let results: Vec<_> = users.into_iter().map(|user| user.join()).collect();
            done.store(true, Ordering::Relaxed);
            results.into_iter().for_each(|result| result.unwrap());
        });
        null.configure(|config| config.cm.during = None);
    }
}

#[test]
fn requests_are_dropped_by_one_thread_while_another_takes_events() {
    for seed in 0..SEEDS {
        let null = null();
        unevenly(&null, seed);
        let channel = EventChannel::create().unwrap();
        let mut listener = CmId::create_on(&channel, Tcp).unwrap();
        listener.bind_addr(address(0)).unwrap();
        listener.listen(0).unwrap();
        let rounds = ROUNDS / 16 + 1;
        let taken = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while taken.load(Ordering::Relaxed) < rounds {
                        match channel.poll_cm_event().unwrap() {
                            Some(mut event) => {
                                taken.fetch_add(1, Ordering::Relaxed);
                                // Rejected by word, by leaving, or with the event.
                                match taken.load(Ordering::Relaxed) % 3 {
                                    0 => drop(event.take_request().unwrap().reject(b"")),
                                    1 => drop(event.take_request()),
                                    _ => drop(event),
                                }
                            }
                            None => thread::yield_now(),
                        }
                    }
                });
            }
            for _ in 0..rounds {
                let mut client = resolved(Tcp, 0);
                client.connect(&ConnectionParams::new()).unwrap();
                let event = loop {
                    match client.poll_cm_event().unwrap() {
                        Some(event) => break event,
                        None => thread::yield_now(),
                    }
                };
                assert_eq!(event.event_type(), CmEventType::REJECTED);
            }
        });
        null.configure(|config| config.cm.during = None);
    }
}

#[test]
fn identifiers_move_between_two_channels_in_both_directions() {
    for seed in 0..SEEDS {
        let null = null();
        unevenly(&null, seed);
        let channels = [EventChannel::create().unwrap(), EventChannel::create().unwrap()];
        let begin = Barrier::new(2);
        let done = AtomicUsize::new(0);
        thread::scope(|scope| {
            for way in 0..2 {
                let (channels, begin, done) = (&channels, &begin, &done);
                scope.spawn(move || {
                    let mut id = CmId::create_on(&channels[way], Udp).unwrap();
                    id.resolve_addr(None, address(0), TIMEOUT).unwrap();
                    begin.wait();
                    for round in 1..=ROUNDS {
                        id.migrate(&channels[(way + round) % 2]).unwrap();
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                });
            }
            scope.spawn(|| {
                while done.load(Ordering::Relaxed) < 2 {
                    for channel in &channels {
                        drop(channel.poll_cm_event().unwrap());
                    }
                    thread::yield_now();
                }
            });
        });
        null.configure(|config| config.cm.during = None);
    }
}

#[test]
fn an_identifier_takes_its_events_along() {
    let _null = null();
    let (from, to) = (EventChannel::create().unwrap(), EventChannel::create().unwrap());
    let mut id = CmId::create_on(&from, Tcp).unwrap();
    id.resolve_addr(None, address(0), TIMEOUT).unwrap();
    assert!(id.poll_cm_event().is_err(), "its channel is a shared one");
    id.migrate(&to).unwrap();
    assert!(from.poll_cm_event().unwrap().is_none());
    // To where it is already.
    id.migrate(&to).unwrap();
    next_on(&to, CmEventType::ADDR_RESOLVED);
    id.resolve_route(TIMEOUT).unwrap();
    id.migrate_to_own_channel().unwrap();
    id.migrate_to_own_channel().unwrap();
    assert!(to.poll_cm_event().unwrap().is_none());
    drop((from, to));
    next(&mut id, CmEventType::ROUTE_RESOLVED);
}

#[test]
fn a_thread_takes_an_identifier_along() {
    let _null = null();
    let mut id = CmId::create(Tcp).unwrap();
    id.resolve_addr(None, address(0), TIMEOUT).unwrap();
    let mut id = thread::spawn(move || {
        next(&mut id, CmEventType::ADDR_RESOLVED);
        id.resolve_route(TIMEOUT).unwrap();
        id
    })
    .join()
    .unwrap();
    let event = next(&mut id, CmEventType::ROUTE_RESOLVED);
    thread::spawn(move || drop((event, id))).join().unwrap();
}

#[test]
#[cfg_attr(miri, ignore = "no ppoll")]
fn each_event_is_for_one_of_those_who_wait() {
    let null = null();
    let channel = EventChannel::create().unwrap();
    let id = CmId::create_on(&channel, Tcp).unwrap();
    let seen = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while channel.wait(Some(TIMEOUT)).unwrap().unwrap().status() == 0 {
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..ROUNDS {
            raise(&null, &id, plain(CmEventType::ADDR_CHANGE));
        }
        for _ in 0..3 {
            let mut last = plain(CmEventType::ADDR_CHANGE);
            last.status = 1;
            raise(&null, &id, last);
        }
    });
    assert_eq!(seen.load(Ordering::Relaxed), ROUNDS);
}
