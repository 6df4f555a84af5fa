//! Events of the connection manager: which channel they come on, when, and that none is lost or comes too late.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel as queue;
use std::thread;
use std::time::Duration;

use ibverbs::rdmacm::{
    CmEvent, CmEventType, CmId, ConnectionParams, EventChannel, RejectReason, Tcp, Udp,
};
use ibverbs::{Error, Rc};
use ibverbs_tests::ids::{
    accepted, assert_no_event, cm_address, ends, established, expect_event, listening,
    listening_on, next_event, next_event_on, place_of, prepare_for, requested, resolve, resolved,
    End,
};
use ibverbs_tests::{eventually, within_deadline, Prepared, DEADLINE};

/// Long enough to be sure that nothing comes.
const SILENCE: Duration = Duration::from_millis(100);

/// Whether there is an event to read, after waiting for one for so many milliseconds.
fn is_readable(channel: &impl AsFd, milliseconds: i32) -> bool {
    let fd = channel.as_fd().as_raw_fd();
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: the first argument points to one entry, as the second says.
    let ready = unsafe { libc::poll(&mut entry, 1, milliseconds) };
    assert!(ready >= 0, "poll: {}", std::io::Error::last_os_error());
    entry.revents & libc::POLLIN != 0
}

#[track_caller]
fn assert_silent(channel: &EventChannel) {
    let event = channel.wait(Some(SILENCE)).unwrap();
    assert!(event.is_none(), "there should be no event: {event:?}");
}

/// What the peer of a request that nobody took sees.
#[track_caller]
fn assert_rejected(client: &mut CmId) {
    let event = next_event(client);
    assert_eq!(event.event_type(), CmEventType::REJECTED, "{event}");
    assert_eq!(event.reject_reason(), Some(RejectReason::CONSUMER_DEFINED), "{event}");
}

/// A client that asks for a connection.
#[track_caller]
fn asking(listener: &CmId) -> (CmId, Prepared<Rc>) {
    let mut client = resolved(Tcp, place_of(listener));
    let prepared = prepare_for(&client);
    client.connect(&ConnectionParams::new().for_queue_pair(&prepared.qp)).unwrap();
    (client, prepared)
}

/// One end of each connection, in an event loop.
enum Progress {
    Resolving(CmId),
    Connecting(CmId, Prepared<Rc>),
    Connected(End),
    Over,
}

/// A server and its clients in one thread, on one channel.
struct EventLoop {
    ends: Vec<Progress>,
    connected: usize,
    over: usize,
}

impl EventLoop {
    fn handle(&mut self, mut event: CmEvent) {
        let number = event.context() as usize;
        let state = match self.ends.get_mut(number) {
            Some(state) => std::mem::replace(state, Progress::Over),
            None => panic!("an event of nobody's: {event:?}"),
        };
        let end = match (event.event_type(), state) {
            (CmEventType::ADDR_RESOLVED, Progress::Resolving(mut id)) => {
                id.resolve_route(DEADLINE).unwrap();
                Progress::Resolving(id)
            }
            (CmEventType::ROUTE_RESOLVED, Progress::Resolving(mut id)) => {
                let prepared = prepare_for(&id);
                id.connect(&ConnectionParams::new().for_queue_pair(&prepared.qp)).unwrap();
                Progress::Connecting(id, prepared)
            }
            // The listener's, which has the number 0.
            (CmEventType::CONNECT_REQUEST, listener) => {
                let mut request = event.take_request().expect("an identifier");
                request.set_context(self.ends.len() as u64);
                self.ends.push(Progress::Connected(accepted(request)));
                listener
            }
            (CmEventType::CONNECT_RESPONSE, Progress::Connecting(id, prepared)) => {
                self.connected += 1;
                Progress::Connected(established(id, prepared))
            }
            (CmEventType::ESTABLISHED, Progress::Connected(mut end)) => {
                self.connected += 1;
                // The server ends it again.
                end.id.disconnect().unwrap();
                Progress::Connected(end)
            }
            (CmEventType::DISCONNECTED, Progress::Connected(mut end)) => {
                end.id.disconnect().unwrap();
                self.over += 1;
                // With its identifier goes the end of its time of waiting.
                Progress::Over
            }
            (event_type, _) => panic!("{event_type} out of order: {event:?}"),
        };
        self.ends[number] = end;
    }
}

#[test]
fn one_loop_serves_a_hundred_connections() {
    const CONNECTIONS: usize = 100;
    let Some(address) = cm_address() else { return };
    let channel = EventChannel::create().unwrap();
    let listener = listening_on(&channel, Tcp, address);
    let to = place_of(&listener);
    let mut event_loop =
        EventLoop { ends: vec![Progress::Resolving(listener)], connected: 0, over: 0 };
    for number in 1..=CONNECTIONS {
        let mut client = CmId::create_on(&channel, Tcp).unwrap();
        client.set_context(number as u64);
        client.resolve_addr(None, to, DEADLINE).unwrap();
        event_loop.ends.push(Progress::Resolving(client));
    }
    while event_loop.over < 2 * CONNECTIONS {
        assert!(is_readable(&channel, DEADLINE.as_millis() as i32), "no event came in time");
        while let Some(event) = channel.poll_cm_event().unwrap() {
            event_loop.handle(event);
        }
    }
    assert_eq!(event_loop.connected, 2 * CONNECTIONS);
    assert_silent(&channel);
}

#[test]
fn a_descriptor_tells_whether_there_is_an_event() {
    let Some(address) = cm_address() else { return };
    let mut id = CmId::create(Tcp).unwrap();
    assert!(!is_readable(&id, 0));
    assert_no_event(&mut id);
    assert!(id.wait(Some(Duration::ZERO)).unwrap().is_none());
    assert!(id.wait(Some(SILENCE)).unwrap().is_none());
    id.resolve_addr(None, address, DEADLINE).unwrap();
    assert!(is_readable(&id, DEADLINE.as_millis() as i32));
    expect_event(&mut id, CmEventType::ADDR_RESOLVED);
    assert!(!is_readable(&id, 0));
}

#[test]
fn a_shared_channel_is_asked_for_the_events_of_all() {
    let Some(address) = cm_address() else { return };
    let channel = EventChannel::create().unwrap();
    let mut listener = listening_on(&channel, Tcp, address);
    listener.set_context(7);
    let shared = |result: ibverbs::Result<Option<CmEvent>>| {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::SharedEventChannel), "{error}");
    };
    shared(listener.poll_cm_event());
    shared(listener.wait(Some(Duration::ZERO)));
    let (mut client, _prepared) = asking(&listener);
    let mut event = next_event_on(&channel);
    assert_eq!((event.event_type(), event.context()), (CmEventType::CONNECT_REQUEST, 7));
    let mut request = event.take_request().unwrap();
    shared(request.poll_cm_event());
    // It is not the only one, even if the others are gone.
    drop(listener);
    shared(request.poll_cm_event());
    request.migrate_to_own_channel().unwrap();
    assert_no_event(&mut request);
    let mut server = accepted(request);
    expect_event(&mut client, CmEventType::CONNECT_RESPONSE);
    drop(client);
    let event = next_event(&mut server.id);
    assert_eq!(event.event_type(), CmEventType::REJECTED, "{event}");
    assert_silent(&channel);
}

#[test]
fn a_request_has_a_channel_of_its_own_if_its_listener_has() {
    let Some(address) = cm_address() else { return };
    let mut listener = listening(Tcp, address);
    let ((client, _prepared), (request, _)) = requested(&mut listener, ConnectionParams::new());
    assert_ne!(request.as_raw_fd(), listener.as_raw_fd());
    let mut server = accepted(request);
    drop(client);
    let event = next_event(&mut server.id);
    assert_eq!(event.event_type(), CmEventType::REJECTED, "{event}");
    assert_no_event(&mut listener);
}

#[test]
fn a_request_that_nobody_takes_is_rejected() {
    let Some(address) = cm_address() else { return };
    let channel = EventChannel::create().unwrap();
    let mut own = listening(Tcp, address);
    let shared = listening_on(&channel, Tcp, address);

    let (mut client, _prepared) = asking(&own);
    drop(expect_event(&mut own, CmEventType::CONNECT_REQUEST));
    assert_rejected(&mut client);

    let (mut client, _prepared) = asking(&shared);
    drop(next_event_on(&channel));
    assert_rejected(&mut client);

    let (mut client, _prepared) = asking(&own);
    let mut event = expect_event(&mut own, CmEventType::CONNECT_REQUEST);
    drop(event.take_request());
    assert_rejected(&mut client);
    drop(event);

    // Not even the event is taken.
    let (mut client, _prepared) = asking(&own);
    assert!(is_readable(&own, DEADLINE.as_millis() as i32));
    drop(own);
    assert_rejected(&mut client);

    let (mut client, _prepared) = asking(&shared);
    assert!(is_readable(&channel, DEADLINE.as_millis() as i32));
    drop(shared);
    assert_rejected(&mut client);
    assert_silent(&channel);
}

#[test]
fn a_request_outlives_its_listener_and_its_event() {
    let Some(address) = cm_address() else { return };
    let mut listener = listening(Tcp, address);
    let ((mut client, prepared), (request, event)) =
        requested(&mut listener, ConnectionParams::new());
    drop((listener, event));
    let mut server = accepted(request);
    expect_event(&mut client, CmEventType::CONNECT_RESPONSE);
    let client = established(client, prepared);
    expect_event(&mut server.id, CmEventType::ESTABLISHED);
    drop(client);
    expect_event(&mut server.id, CmEventType::DISCONNECTED);
}

#[test]
fn what_is_gone_reports_nothing() {
    let Some(address) = cm_address() else { return };
    let channel = EventChannel::create().unwrap();
    let mut ids: Vec<_> = (0..20)
        .map(|number| {
            let mut id = CmId::create_on(&channel, Tcp).unwrap();
            id.set_context(number);
            id.resolve_addr(None, address, DEADLINE).unwrap();
            id
        })
        .collect();
    assert!(is_readable(&channel, DEADLINE.as_millis() as i32));
    // Some of them have reported, some perhaps not yet.
    for number in [19, 0, 5] {
        drop(ids.remove(number));
    }
    drop(ids.split_off(10));
    let mut reported: Vec<_> = ids.iter().map(|_| next_event_on(&channel).context()).collect();
    reported.sort_unstable();
    assert!(reported.iter().copied().eq(ids.iter().map(CmId::context_value)), "{reported:?}");
    assert_silent(&channel);
    drop(ids);
    assert_silent(&channel);
}

#[test]
fn identifiers_keep_their_channel() {
    let Some(address) = cm_address() else { return };
    let channel = EventChannel::create().unwrap();
    let mut one = CmId::create_on(&channel, Tcp).unwrap();
    let other = CmId::create_on(&channel, Udp).unwrap();
    one.resolve_addr(None, address, DEADLINE).unwrap();
    drop(channel);
    drop(other);
    // Its event waits there.
    one.migrate_to_own_channel().unwrap();
    expect_event(&mut one, CmEventType::ADDR_RESOLVED);
    one.resolve_route(DEADLINE).unwrap();
    expect_event(&mut one, CmEventType::ROUTE_RESOLVED);
}

#[test]
fn events_move_with_their_identifier() {
    let Some(address) = cm_address() else { return };
    let (first, second) = (EventChannel::create().unwrap(), EventChannel::create().unwrap());
    let mut id = CmId::create(Tcp).unwrap();
    id.set_context(9);
    let mut stays = CmId::create_on(&first, Tcp).unwrap();
    stays.set_context(1);
    stays.resolve_addr(None, address, DEADLINE).unwrap();
    id.resolve_addr(None, address, DEADLINE).unwrap();
    assert!(is_readable(&id, DEADLINE.as_millis() as i32));
    id.migrate(&first).unwrap();
    assert!(matches!(id.poll_cm_event(), Err(Error::SharedEventChannel)));
    // To where it is, and on.
    id.migrate(&first).unwrap();
    id.migrate(&second).unwrap();
    assert_eq!(id.as_raw_fd(), second.as_raw_fd());
    let event = next_event_on(&second);
    assert_eq!((event.event_type(), event.context()), (CmEventType::ADDR_RESOLVED, 9));
    id.resolve_route(DEADLINE).unwrap();
    assert!(is_readable(&second, DEADLINE.as_millis() as i32));
    id.migrate_to_own_channel().unwrap();
    let own = id.as_raw_fd();
    id.migrate_to_own_channel().unwrap();
    assert_eq!(id.as_raw_fd(), own, "it has one already");
    let event = expect_event(&mut id, CmEventType::ROUTE_RESOLVED);
    assert_eq!(event.context(), 9);
    // The other one's event is where it was, and nothing else.
    assert_eq!(next_event_on(&first).context(), 1);
    assert_silent(&first);
    assert_silent(&second);
}

#[test]
fn a_connection_moves_to_another_channel() {
    let Some(address) = cm_address() else { return };
    let mut listener = listening(Tcp, address);
    let (client, mut server) = ends(&mut listener);
    let channel = EventChannel::create().unwrap();
    server.id.set_context(3);
    server.id.migrate(&channel).unwrap();
    drop(client);
    let event = next_event_on(&channel);
    assert_eq!((event.event_type(), event.context()), (CmEventType::DISCONNECTED, 3));
    server.id.disconnect().unwrap();
}

#[test]
fn a_listener_moves_to_another_channel() {
    let Some(address) = cm_address() else { return };
    let channel = EventChannel::create().unwrap();
    let mut listener = listening(Tcp, address);
    listener.set_context(4);
    // Not with requests that wait: the kernel leaves those behind, and librdmacm loses memory over it.
    listener.migrate(&channel).unwrap();
    let (mut client, _prepared) = asking(&listener);
    let mut event = next_event_on(&channel);
    assert_eq!((event.event_type(), event.context()), (CmEventType::CONNECT_REQUEST, 4));
    let _server = accepted(event.take_request().unwrap());
    expect_event(&mut client, CmEventType::CONNECT_RESPONSE);
}

/// Identifiers of a connection, in each order of being dropped, on this thread and on others.
#[test]
fn identifiers_are_dropped_in_every_order() {
    let Some(address) = cm_address() else { return };
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for shared in [false, true] {
            let channel = EventChannel::create().unwrap();
            let mut listener = listening(Tcp, address);
            let (mut client, mut server) = ends(&mut listener);
            if shared {
                for id in [&mut listener, &mut client.id, &mut server.id] {
                    id.migrate(&channel).unwrap();
                }
            }
            drop(channel);
            let (of_client, of_server) = (client.side, server.side);
            let mut ids = [Some(listener), Some(client.id), Some(server.id)];
            for place in order {
                let id = ids[place].take();
                if place == 1 {
                    drop(id);
                } else {
                    thread::spawn(move || drop(id)).join().unwrap();
                }
            }
            // The queue pairs are no part of it.
            of_client.qp.close().unwrap();
            of_server.qp.close().unwrap();
        }
    }
}

#[test]
fn one_of_several_threads_gets_an_event() {
    const EVENTS: usize = 50;
    let Some(address) = cm_address() else { return };
    let channel = EventChannel::create().unwrap();
    let taken = AtomicUsize::new(0);
    let mut ids = VecDeque::new();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while taken.load(Ordering::SeqCst) < EVENTS {
                    if channel.wait(Some(Duration::from_millis(20))).unwrap().is_some() {
                        taken.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
        for _ in 0..EVENTS {
            let mut id = CmId::create_on(&channel, Tcp).unwrap();
            id.resolve_addr(None, address, DEADLINE).unwrap();
            ids.push_back(id);
        }
    });
    assert_eq!(taken.into_inner(), EVENTS);
    assert_silent(&channel);
}

/// Two threads create, resolve, move and drop identifiers, while a third takes their events.
#[test]
fn identifiers_come_and_go_while_events_are_taken() {
    const EACH: usize = 150;
    let Some(address) = cm_address() else { return };
    within_deadline(move || {
        let channel = EventChannel::create().unwrap();
        let listener = listening_on(&channel, Tcp, address);
        let to = place_of(&listener);
        let clock = AtomicUsize::new(1);
        let gone: Vec<_> = (0..=2 * EACH).map(|_| AtomicUsize::new(0)).collect();
        let done = AtomicBool::new(false);
        let (sender, receiver) = queue::<CmId>();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut events = 0;
                while !done.load(Ordering::SeqCst) {
                    let now = clock.load(Ordering::SeqCst);
                    let Some(event) = channel.wait(Some(Duration::from_millis(10))).unwrap() else {
                        continue;
                    };
                    events += 1;
                    let when = gone[event.context() as usize].load(Ordering::SeqCst);
                    assert!(when == 0 || when > now, "it was gone before: {event:?}");
                    // A request that comes is dropped here, and is rejected.
                }
                assert!(events > 0);
            });
            let workers: Vec<_> = (0..2)
                .map(|worker| {
                    let (sender, channel, clock, gone) = (sender.clone(), &channel, &clock, &gone);
                    scope.spawn(move || {
                        for turn in 0..EACH {
                            let number = 1 + worker * EACH + turn;
                            let mut id = CmId::create_on(channel, Tcp).unwrap();
                            id.set_context(number as u64);
                            id.resolve_addr(None, to, DEADLINE).unwrap();
                            match turn % 4 {
                                0 => {}
                                1 => eventually("it has a device", || id.port().is_some()),
                                2 => {
                                    eventually("it has a device", || id.port().is_some());
                                    eventually("it has a route", || {
                                        id.resolve_route(DEADLINE).is_ok()
                                    });
                                    eventually("it connects", || {
                                        id.connect(&ConnectionParams::new().set_qp_num(5)).is_ok()
                                    });
                                }
                                _ => {
                                    id.migrate_to_own_channel().unwrap();
                                    id.migrate(channel).unwrap();
                                    // Dropped on another thread.
                                    sender.send(id).unwrap();
                                    continue;
                                }
                            }
                            drop(id);
                            let now = clock.fetch_add(1, Ordering::SeqCst) + 1;
                            gone[number].store(now, Ordering::SeqCst);
                        }
                    })
                })
                .collect();
            drop(sender);
            for id in receiver {
                let number = id.context_value() as usize;
                drop(id);
                let now = clock.fetch_add(1, Ordering::SeqCst) + 1;
                gone[number].store(now, Ordering::SeqCst);
            }
            for worker in workers {
                worker.join().unwrap();
            }
            done.store(true, Ordering::SeqCst);
        });
        drop(listener);
        assert_silent(&channel);
    });
}

#[test]
fn the_number_of_an_identifier_may_change_at_any_time() {
    let Some(address) = cm_address() else { return };
    let channel = EventChannel::create().unwrap();
    let mut id = CmId::create_on(&channel, Tcp).unwrap();
    assert_eq!(id.context_value(), 0);
    id.resolve_addr(None, address, DEADLINE).unwrap();
    assert!(is_readable(&channel, DEADLINE.as_millis() as i32));
    id.set_context(u64::MAX);
    assert_eq!(next_event_on(&channel).context(), u64::MAX);
    id.migrate_to_own_channel().unwrap();
    assert_eq!(id.context_value(), u64::MAX);
    let mut id = CmId::create(Tcp).unwrap();
    resolve(&mut id, address);
}
