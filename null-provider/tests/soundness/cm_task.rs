//! Rules 10 and 15 for tasks: connections that are set up on tokio, and futures of it that are dropped.

use std::future::{poll_fn, Future};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use ibverbs::rdmacm::{
    Acceptor, CmEventType, CmId, Connection, ConnectionParams, Connector, EventChannel,
    RejectReason, Tcp, Udp,
};
use ibverbs::{Error, Rc, Ud};
use null_provider::{CmReplies, Kind, Verb};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::cm_common::*;
use crate::common::null;

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(TIMEOUT, future).await.expect("something came")
}

/// That nothing comes for a moment. The future is dropped then.
async fn expect_pending<T>(future: impl Future<Output = T>) {
    assert!(timeout(Duration::from_millis(5), future).await.is_err(), "something came");
}

/// Polls a future twice, and drops it. By the second time, the runtime knows that there is something to take.
async fn polled_twice<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..2 {
        let poll = poll_fn(|task| Poll::Ready(future.as_mut().poll(task)));
        if let Poll::Ready(output) = poll.await {
            return Some(output);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    None
}

/// Both ends of a connection. `spawn` demands that the futures be `Send`.
async fn connected() -> (Acceptor<Tcp>, Connection, Connection) {
    let mut acceptor = Acceptor::bind(Tcp, address(0)).unwrap();
    let server = tokio::spawn(async move {
        let incoming = acceptor.accept_async().await.unwrap();
        let qp = prepared::<Rc>(incoming.context());
        let server = incoming.accept_async(qp, &ConnectionParams::new()).await.unwrap();
        (acceptor, server)
    });
    let client = tokio::spawn(async {
        let way = Connector::new(Tcp).resolve_async(address(0), TIMEOUT).await.unwrap();
        let qp = prepared::<Rc>(way.context());
        way.connect_async(qp, &ConnectionParams::new()).await.unwrap()
    });
    let (acceptor, server) = soon(server).await.unwrap();
    (acceptor, soon(client).await.unwrap(), server)
}

#[test]
#[cfg_attr(miri, ignore = "tokio needs more of epoll than Miri has")]
fn tasks_connect_and_hear_of_the_end() {
    let null = null();
    runtime().block_on(async {
        let (acceptor, mut client, mut server) = connected().await;
        expect_pending(client.disconnected()).await;
        // Nothing was lost by that.
        server.disconnect().unwrap();
        soon(client.disconnected()).await.unwrap();
        soon(server.disconnected()).await.unwrap();
        soon(client.disconnected()).await.unwrap();
        drop((acceptor, client, server));
    });
    assert_eq!(null.count(Verb::DestroyCmId), 3);
}

#[test]
#[cfg_attr(miri, ignore = "tokio needs more of epoll than Miri has")]
fn a_future_of_a_channel_that_is_dropped_loses_no_event() {
    let null = null();
    runtime().block_on(async {
        let channel = EventChannel::create().unwrap();
        let id = CmId::create_on(&channel, Tcp).unwrap();
        expect_pending(channel.next_event()).await;
        for kind in [CmEventType::ADDR_CHANGE, CmEventType::TIMEWAIT_EXIT] {
            raise(&null, &id, plain(kind));
        }
        // One that is never polled takes nothing either.
        drop(channel.next_event());
        let event = soon(channel.next_event()).await.unwrap();
        assert_eq!(event.event_type(), CmEventType::ADDR_CHANGE);
        assert_eq!(null.count(Verb::AckCmEvent), 1);
        let event = soon(channel.next_event()).await.unwrap();
        assert_eq!(event.event_type(), CmEventType::TIMEWAIT_EXIT);
        expect_pending(channel.next_event()).await;
    });
}

#[test]
#[cfg_attr(miri, ignore = "tokio needs more of epoll than Miri has")]
fn several_tasks_take_the_events_of_a_channel() {
    let null = null();
    runtime().block_on(async {
        let channel = EventChannel::create().unwrap();
        let id = CmId::create_on(&channel, Tcp).unwrap();
        let tasks: Vec<_> = (0..3)
            .map(|_| {
                let channel = channel.clone();
                tokio::spawn(async move {
                    let mut taken = 0;
                    while soon(channel.next_event()).await.unwrap().status() == 0 {
                        taken += 1;
                    }
                    taken
                })
            })
            .collect();
        for _ in 0..50 {
            raise(&null, &id, plain(CmEventType::ADDR_CHANGE));
            tokio::task::yield_now().await;
        }
        for _ in 0..3 {
            let mut last = plain(CmEventType::ADDR_CHANGE);
            last.status = 1;
            raise(&null, &id, last);
        }
        let mut taken = 0;
        for task in tasks {
            taken += task.await.unwrap();
        }
        assert_eq!(taken, 50);
    });
}

#[test]
#[cfg_attr(miri, ignore = "tokio needs more of epoll than Miri has")]
fn a_future_of_an_acceptor_that_is_dropped_loses_no_request() {
    let null = null();
    runtime().block_on(async {
        let mut acceptor = Acceptor::bind(Tcp, address(0)).unwrap();
        expect_pending(acceptor.accept_async()).await;
        let mut client = resolved(Tcp, 0);
        client.connect(&ConnectionParams::new()).unwrap();
        drop(acceptor.accept_async());
        assert_eq!(null.live(Kind::CmId), 2, "nobody has taken the request");
        let incoming = soon(acceptor.accept_async()).await.unwrap();
        expect_pending(acceptor.accept_async()).await;
        drop(incoming);
        next(&mut client, CmEventType::REJECTED);
    });
}

#[test]
#[cfg_attr(miri, ignore = "tokio needs more of epoll than Miri has")]
fn an_event_is_taken_in_the_poll_that_returns_it() {
    const EVENTS: usize = 5;
    let null = null();
    runtime().block_on(soon(async {
        let channel = EventChannel::create().unwrap();
        let shared = CmId::create_on(&channel, Tcp).unwrap();
        let mut own = CmId::create(Tcp).unwrap();
        let mut acceptor = Acceptor::bind(Tcp, address(0)).unwrap();
        let mut clients = Vec::new();
        for _ in 0..EVENTS {
            raise(&null, &shared, plain(CmEventType::ADDR_CHANGE));
            raise(&null, &own, plain(CmEventType::ADDR_CHANGE));
            let mut client = resolved(Tcp, 0);
            client.connect(&ConnectionParams::new()).unwrap();
            clients.push(client);
        }
        let mut taken = [0; 3];
        while taken != [EVENTS; 3] {
            taken[0] += usize::from(polled_twice(channel.next_event()).await.is_some());
            taken[1] += usize::from(polled_twice(own.next_event()).await.is_some());
            taken[2] += usize::from(polled_twice(acceptor.accept_async()).await.is_some());
        }
    }));
}

#[test]
#[cfg_attr(miri, ignore = "tokio needs more of epoll than Miri has")]
fn connecting_that_is_dropped_leaves_nothing_behind() {
    let null = null();
    runtime().block_on(async {
        let mut listener = listening(Tcp, 0);
        let way = Connector::new(Tcp).resolve_async(address(0), TIMEOUT).await.unwrap();
        let qp = prepared::<Rc>(way.context());
        expect_pending(way.connect_async(qp, &ConnectionParams::new())).await;
        assert_eq!((null.live(Kind::Qp), null.live(Kind::CmId)), (0, 1));
        assert_eq!(null.live(Kind::CmDevices), 0);
        // Whoever accepts that hears of it.
        let mut server = request(&mut listener);
        let qp = server.bring_up(prepared_for::<Rc>(&server)).unwrap();
        assert!(server.accept(&ConnectionParams::new().for_queue_pair(&qp)).is_err());
    });
}

#[test]
#[cfg_attr(miri, ignore = "tokio needs more of epoll than Miri has")]
fn accepting_that_is_dropped_leaves_nothing_behind() {
    let null = null();
    null.configure(|config| {
        config.cm.replies = CmReplies { establish: false, ..CmReplies::default() };
    });
    runtime().block_on(async {
        let Asked { listener, mut client, client_qp } = asked();
        let acceptor = Acceptor::from_id(Tcp, listener);
        let mut acceptor = acceptor.map_err(|failed| failed.error).unwrap();
        let incoming = soon(acceptor.accept_async()).await.unwrap();
        let qp = prepared::<Rc>(incoming.context());
        expect_pending(incoming.accept_async(qp, &ConnectionParams::new())).await;
        assert_eq!((null.live(Kind::Qp), null.live(Kind::CmId)), (1, 2));
        next(&mut client, CmEventType::CONNECT_RESPONSE);
        let event = next(&mut client, CmEventType::REJECTED);
        assert_eq!(event.reject_reason(), Some(RejectReason::CONSUMER_DEFINED));
        drop(client_qp);
    });
}

#[test]
#[cfg_attr(miri, ignore = "tokio needs more of epoll than Miri has")]
fn resolving_that_is_dropped_leaves_nothing_behind() {
    let null = null();
    runtime().block_on(async {
        for replies in [
            CmReplies { resolve_addr: false, ..CmReplies::default() },
            CmReplies { resolve_route: false, ..CmReplies::default() },
        ] {
            null.configure(|config| config.cm.replies = replies);
            expect_pending(Connector::new(Tcp).resolve_async(address(0), TIMEOUT)).await;
            assert_eq!(null.all_live(), []);
        }
        null.configure(|config| config.cm.replies = CmReplies::default());
        let way = Connector::new(Udp).resolve_async(address(0), TIMEOUT).await.unwrap();
        let _listener = listening(Udp, 0);
        expect_pending(way.find_peer_async(b"hello")).await;
        assert_eq!(null.live(Kind::CmId), 1);
    });
}

#[test]
#[cfg_attr(miri, ignore = "tokio needs more of epoll than Miri has")]
fn a_queue_pair_comes_back_from_a_task() {
    let null = null();
    runtime().block_on(async {
        for (verb, at) in [(Verb::Connect, 0), (Verb::Establish, 0), (Verb::ModifyQp, 5)] {
            let mut acceptor = Acceptor::bind(Tcp, address(0)).unwrap();
            let way = Connector::new(Tcp).resolve_async(address(0), TIMEOUT).await.unwrap();
            let qp = prepared::<Rc>(way.context());
            null.fail_once_after(verb, at, libc::EACCES);
            let server = tokio::spawn(async move {
                let incoming = acceptor.accept_async().await.unwrap();
                let qp = prepared::<Rc>(incoming.context());
                let failed = incoming.accept_async(qp, &ConnectionParams::new()).await;
                drop(failed.unwrap_err().resource.init().unwrap());
            });
            let failed = soon(way.connect_async(qp, &ConnectionParams::new())).await.unwrap_err();
            assert_eq!(failed.error.os_error(), Some(libc::EACCES), "{verb:?}");
            drop(failed.resource.init().unwrap());
            match verb {
                Verb::Connect => {
                    server.abort();
                    // It has given its port free by then.
                    assert!(soon(server).await.unwrap_err().is_cancelled());
                }
                _ => soon(server).await.unwrap(),
            }
        }
    });
}

#[test]
#[cfg_attr(miri, ignore = "tokio needs more of epoll than Miri has")]
fn a_datagram_peer_is_found_in_a_task() {
    let _null = null();
    runtime().block_on(async {
        let mut acceptor = Acceptor::bind(Udp, address(0)).unwrap();
        let server = tokio::spawn(async move {
            let mut incoming = acceptor.accept_async().await.unwrap();
            let qp = incoming.activate(prepared::<Ud>(incoming.context())).unwrap();
            incoming.answer(&qp, b"here").unwrap();
            qp
        });
        let way = Connector::new(Udp).resolve_async(address(0), TIMEOUT).await.unwrap();
        let found = soon(way.find_peer_async(b"where?")).await.unwrap();
        let qp = soon(server).await.unwrap();
        assert_eq!((found.peer.qp_num, &found.private_data[..4]), (qp.qp_num(), &b"here"[..]));
    });
}

#[test]
#[cfg_attr(miri, ignore = "tokio needs more of epoll than Miri has")]
fn an_identifier_on_a_shared_channel_is_not_awaited() {
    let _null = null();
    runtime().block_on(async {
        let channel = EventChannel::create().unwrap();
        let mut id = CmId::create_on(&channel, Tcp).unwrap();
        assert!(matches!(id.next_event().await, Err(Error::SharedEventChannel)));
        id.migrate_to_own_channel().unwrap();
        expect_pending(id.next_event()).await;
    });
}
