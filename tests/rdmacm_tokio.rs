//! Setting connections up in tasks of tokio.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use ibverbs::rdmacm::{
    Acceptor, CmEventType, CmId, Connection, ConnectionParams, Connector, EventChannel, Incoming,
    RejectReason, Resolved, Tcp, Udp,
};
use ibverbs::{
    AsyncCompletionQueue, Context, Error, PreparedQueuePair, QpState, QueuePairAttrMask, Rc,
    RecvRequest, Ud,
};
use ibverbs_tests::ids::cm_address;
use ibverbs_tests::{
    listen_on, post_pieces, post_recv, prepare, submit, within_deadline, Bed, DEADLINE,
};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Long enough to be sure that nothing happens.
const SILENCE: Duration = Duration::from_millis(100);

/// A runtime with several threads.
fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap()
}

/// Runs the future in a runtime of one thread, or of several; fails if it takes too long.
fn run<T>(threads: bool, future: impl Future<Output = T>) -> T {
    let runtime = match threads {
        true => runtime(),
        false => Builder::new_current_thread().enable_all().build().unwrap(),
    };
    // It may have many steps, each of which has this time.
    let limit = 4 * DEADLINE;
    runtime.block_on(async { timeout(limit, future).await.expect("it did not end in time") })
}

/// A step, which has its time.
async fn in_time<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("it did not end in time")
}

/// A queue pair with a queue for everything.
struct Ready {
    qp: PreparedQueuePair<Rc>,
    cq: AsyncCompletionQueue,
    bed: Bed,
}

fn ready(ctx: &Context, port: u8) -> Ready {
    let bed = Bed::on(ctx.clone());
    let cq = ctx.create_cq(16).build_async().unwrap();
    let builder = bed.pd().create_qp::<Rc>(cq.queue(), cq.queue(), port).unwrap();
    let qp = builder.set_max_inline_data(8).build().unwrap();
    Ready { qp, cq, bed }
}

async fn resolved(to: SocketAddr) -> Resolved<Tcp> {
    Connector::new(Tcp).resolve_async(to, DEADLINE).await.unwrap()
}

async fn connected(to: SocketAddr) -> (Connection, AsyncCompletionQueue, Bed) {
    let resolved = resolved(to).await;
    let Ready { qp, cq, bed } = ready(resolved.context(), resolved.port());
    let connection = resolved.connect_async(qp, &ConnectionParams::new()).await.unwrap();
    (connection, cq, bed)
}

async fn accepted(incoming: Incoming<Tcp>) -> (Connection, AsyncCompletionQueue, Bed) {
    let Ready { qp, cq, bed } = ready(incoming.context(), incoming.port());
    let connection = incoming.accept_async(qp, &ConnectionParams::new()).await.unwrap();
    (connection, cq, bed)
}

/// That the peer gave up before it was answered, or after that.
#[track_caller]
fn assert_gave_up(error: &Error) {
    assert!(matches!(error, Error::NothingToAnswer { .. } | Error::Connection(_)), "{error}");
}

/// Awaits one completion.
async fn done(cq: &mut AsyncCompletionQueue) {
    let mut completions = cq.completions().await.unwrap();
    completions.next().expect("a completion").ok().unwrap();
}

/// What the client says when it waits for nothing any more.
const BYE: [u8; 8] = [0; 8];

/// A client that sends a number, gets an answer, says that it has it, and waits for the end of the connection.
async fn be_client(to: SocketAddr, number: u64) {
    let resolved = resolved(to).await;
    let Ready { qp, mut cq, bed } = ready(resolved.context(), resolved.port());
    let mem = bed.mem(8);
    let mut qp = qp.init().unwrap();
    post_recv(&mut qp, [RecvRequest::new(1, &[mem.slice(..)])]).unwrap();
    let params = ConnectionParams::new().set_private_data(number.to_be_bytes());
    let mut connection = resolved.connect_async(qp, &params).await.unwrap();
    assert!(connection.peer_private_data().starts_with(&number.to_be_bytes()));
    let text = number.to_ne_bytes();
    submit(&mut connection.queue_pair, |batch| {
        batch.op().signaled().send(2, text.as_slice());
    })
    .unwrap();
    done(&mut cq).await;
    done(&mut cq).await;
    assert_eq!(mem.read_u64(0), !number);
    submit(&mut connection.queue_pair, |batch| batch.op().send(3, &BYE)).unwrap();
    connection.disconnected().await.unwrap();
}

/// What the server does for one client.
async fn serve(incoming: Incoming<Tcp>) -> u64 {
    let hello = incoming.peer_private_data()[..8].to_vec();
    let number = u64::from_be_bytes(hello.as_slice().try_into().unwrap());
    let Ready { qp, mut cq, bed } = ready(incoming.context(), incoming.port());
    let mem = bed.mem(16);
    let mut qp = qp.init().unwrap();
    post_pieces(&mut qp, &mem, 2, 8).unwrap();
    let params = ConnectionParams::new().set_private_data(hello);
    let mut connection = incoming.accept_async(qp, &params).await.unwrap();
    done(&mut cq).await;
    assert_eq!(mem.read_u64(0), number);
    let answer = (!number).to_ne_bytes();
    submit(&mut connection.queue_pair, |batch| {
        batch.op().signaled().send(2, answer.as_slice());
    })
    .unwrap();
    // The answer has arrived, and the client has said that it has all: it would otherwise wait in vain for an
    // acknowledgement that was lost, for a queue pair that has failed gives it no other.
    done(&mut cq).await;
    done(&mut cq).await;
    connection.disconnect().unwrap();
    connection.disconnected().await.unwrap();
    number
}

#[test]
fn fifty_connections_are_set_up_by_tasks() {
    const CONNECTIONS: u64 = 50;
    let Some(address) = cm_address() else { return };
    run(true, async {
        let (mut acceptor, to) = listen_on(Tcp, address);
        let mut clients = JoinSet::new();
        for number in 0..CONNECTIONS {
            clients.spawn(be_client(to, number));
        }
        let mut servers = JoinSet::new();
        for _ in 0..CONNECTIONS {
            servers.spawn(serve(acceptor.accept_async().await.unwrap()));
        }
        let mut served = servers.join_all().await;
        clients.join_all().await;
        served.sort_unstable();
        assert!(served.into_iter().eq(0..CONNECTIONS));
        assert!(timeout(SILENCE, acceptor.accept_async()).await.is_err());
    });
}

#[test]
fn one_thread_does_for_both_sides() {
    let Some(address) = cm_address() else { return };
    run(false, async {
        let (mut acceptor, to) = listen_on(Tcp, address);
        for number in 0..3 {
            let server = async { serve(acceptor.accept_async().await.unwrap()).await };
            assert_eq!(tokio::join!(server, be_client(to, number)).0, number);
        }
    });
}

#[test]
fn accepting_that_is_cancelled_loses_no_request() {
    const CONNECTIONS: u64 = 20;
    let Some(address) = cm_address() else { return };
    run(true, async {
        let (mut acceptor, to) = listen_on(Tcp, address);
        let mut clients = JoinSet::new();
        for number in 0..CONNECTIONS {
            clients.spawn(be_client(to, number));
        }
        let mut servers = JoinSet::new();
        let mut cancelled = 0;
        while servers.len() < CONNECTIONS as usize {
            // At all sorts of moments: before it was polled, while it waits, when it is woken.
            drop(acceptor.accept_async());
            tokio::select! {
                biased;
                () = sleep(Duration::from_micros(cancelled * 37 % 1500)) => cancelled += 1,
                incoming = acceptor.accept_async() => { servers.spawn(serve(incoming.unwrap())); }
            }
        }
        let mut served = servers.join_all().await;
        clients.join_all().await;
        served.sort_unstable();
        assert!(served.into_iter().eq(0..CONNECTIONS), "{cancelled} cancelled");
    });
}

#[test]
fn an_identifier_is_driven_by_its_events() {
    let Some(address) = cm_address() else { return };
    run(true, async {
        let mut id = CmId::create(Tcp).unwrap();
        assert!(timeout(SILENCE, id.next_event()).await.is_err());
        id.resolve_addr(None, address, DEADLINE).unwrap();
        for _ in 0..20 {
            drop(id.next_event());
        }
        let event = id.next_event().await.unwrap();
        assert_eq!(event.event_type(), CmEventType::ADDR_RESOLVED);
        id.resolve_route(DEADLINE).unwrap();
        // Moved to a task, and back.
        let (id, event) = tokio::spawn(async move {
            let event = id.next_event().await;
            (id, event)
        })
        .await
        .unwrap();
        assert_eq!(event.unwrap().event_type(), CmEventType::ROUTE_RESOLVED);

        let mut id = id;
        let channel = EventChannel::create().unwrap();
        id.migrate(&channel).unwrap();
        assert!(matches!(id.next_event().await, Err(Error::SharedEventChannel)));
    });
}

#[test]
fn one_of_several_tasks_gets_an_event() {
    const EVENTS: usize = 60;
    let Some(address) = cm_address() else { return };
    run(true, async {
        let channel = EventChannel::create().unwrap();
        let mut takers = JoinSet::new();
        for _ in 0..2 {
            let channel = channel.clone();
            takers.spawn(async move {
                let mut taken = Vec::new();
                // One ends when the other has got the last event.
                while let Ok(event) = timeout(10 * SILENCE, channel.next_event()).await {
                    taken.push(event.unwrap().context());
                }
                taken
            });
        }
        let mut ids = Vec::new();
        for number in 0..EVENTS {
            let mut id = CmId::create_on(&channel, Tcp).unwrap();
            id.set_context(number as u64);
            id.resolve_addr(None, address, DEADLINE).unwrap();
            ids.push(id);
            tokio::task::yield_now().await;
        }
        let mut taken = takers.join_all().await.concat();
        while taken.len() < EVENTS {
            taken.push(channel.next_event().await.unwrap().context());
        }
        taken.sort_unstable();
        assert!(taken.into_iter().eq(0..EVENTS as u64));
        assert!(channel.poll_cm_event().unwrap().is_none());
    });
}

#[test]
fn a_listener_that_never_answers_is_given_up() {
    let Some(address) = cm_address() else { return };
    run(true, async {
        let (mut acceptor, to) = listen_on(Tcp, address);
        assert!(timeout(3 * SILENCE, connected(to)).await.is_err(), "nobody has answered");
        // Whether it has got as far as asking or not.
        while let Ok(incoming) = timeout(SILENCE, acceptor.accept_async()).await {
            drop(incoming.unwrap());
        }
        let client = tokio::spawn(connected(to));
        let incoming = acceptor.accept_async().await.unwrap();
        sleep(SILENCE).await;
        assert!(!client.is_finished(), "nobody has answered");
        client.abort();
        drop(client.await);
        // The request is there, and can be answered no more.
        let Ready { qp, .. } = ready(incoming.context(), incoming.port());
        let failed =
            in_time(incoming.accept_async(qp, &ConnectionParams::new())).await.unwrap_err();
        assert_gave_up(&failed.error);
        // It can be tried again, with the same queue pair.
        let endpoint = failed.resource.endpoint().unwrap();
        failed.resource.handshake(endpoint).unwrap().close().unwrap();
        let server = async { accepted(acceptor.accept_async().await.unwrap()).await };
        let (_server, _client) = tokio::join!(server, connected(to));
    });
}

#[test]
fn a_client_that_is_cancelled_leaves_no_connection() {
    let Some(address) = cm_address() else { return };
    run(true, async {
        let (mut acceptor, to) = listen_on(Tcp, address);
        for step in 0..25 {
            let client = tokio::spawn(connected(to));
            let incoming = acceptor.accept_async().await.unwrap();
            let Ready { qp, .. } = ready(incoming.context(), incoming.port());
            let server =
                tokio::spawn(
                    async move { incoming.accept_async(qp, &ConnectionParams::new()).await },
                );
            // At all sorts of moments: before the answer comes, while it is confirmed, when it stands.
            sleep(Duration::from_micros(step * 150)).await;
            client.abort();
            drop(client.await);
            match in_time(server).await.unwrap() {
                Ok(mut connection) => in_time(connection.disconnected()).await.unwrap(),
                Err(failed) => {
                    assert_gave_up(&failed.error);
                    failed.resource.close().unwrap();
                }
            }
        }
    });
}

#[test]
fn a_client_that_is_cancelled_before_it_asks_is_not_heard_of() {
    let Some(address) = cm_address() else { return };
    run(true, async {
        let (mut acceptor, to) = listen_on(Tcp, address);
        for step in 0..25 {
            drop(timeout(Duration::from_micros(step * 40), resolved(to)).await);
        }
        drop(resolved(to));
        assert!(timeout(SILENCE, acceptor.accept_async()).await.is_err());
        assert_eq!(
            tokio::join!(
                async { serve(acceptor.accept_async().await.unwrap()).await },
                be_client(to, 1)
            )
            .0,
            1
        );
    });
}

#[test]
fn a_server_that_is_cancelled_leaves_no_connection() {
    let Some(address) = cm_address() else { return };
    run(true, async {
        let (mut acceptor, to) = listen_on(Tcp, address);
        for step in 0..25 {
            let client = tokio::spawn(async move {
                let resolved = resolved(to).await;
                let Ready { qp, .. } = ready(resolved.context(), resolved.port());
                resolved.connect_async(qp, &ConnectionParams::new()).await
            });
            let incoming = acceptor.accept_async().await.unwrap();
            drop(timeout(Duration::from_micros(step * 200), accepted(incoming)).await);
            match in_time(client).await.unwrap() {
                Ok(mut connection) => in_time(connection.disconnected()).await.unwrap(),
                Err(failed) => {
                    assert!(matches!(failed.error, Error::Connection(_)), "{}", failed.error);
                    failed.resource.close().unwrap();
                }
            }
        }
    });
}

#[test]
fn the_end_of_a_connection_is_awaited() {
    let Some(address) = cm_address() else { return };
    run(true, async {
        let (mut acceptor, to) = listen_on(Tcp, address);
        let server = async { accepted(acceptor.accept_async().await.unwrap()).await };
        let ((mut server, ..), (mut client, ..)) = tokio::join!(server, connected(to));
        assert!(timeout(SILENCE, client.disconnected()).await.is_err(), "it stands");
        for _ in 0..20 {
            drop(server.disconnected());
        }
        client.disconnect().unwrap();
        server.disconnected().await.unwrap();
        // It is over for good.
        server.disconnected().await.unwrap();
        client.disconnected().await.unwrap();

        let server = async { accepted(acceptor.accept_async().await.unwrap()).await };
        let ((server, ..), (mut client, ..)) = tokio::join!(server, connected(to));
        let waits = tokio::spawn(async move { client.disconnected().await });
        sleep(SILENCE).await;
        drop(server);
        waits.await.unwrap().unwrap();
    });
}

#[test]
fn failures_are_told() {
    let Some(address) = cm_address() else { return };
    run(false, async {
        let (mut acceptor, to) = listen_on(Tcp, address);
        let rejects = async {
            let incoming = acceptor.accept_async().await.unwrap();
            incoming.reject(b"no").unwrap();
        };
        let client = async {
            let resolved = resolved(to).await;
            let Ready { qp, .. } = ready(resolved.context(), resolved.port());
            resolved.connect_async(qp, &ConnectionParams::new()).await.unwrap_err()
        };
        let ((), failed) = tokio::join!(rejects, client);
        let Error::Connection(failure) = failed.error else { panic!("{}", failed.error) };
        assert_eq!(failure.reject_reason(), Some(RejectReason::CONSUMER_DEFINED));
        assert!(failure.private_data().starts_with(b"no\0"));

        drop(acceptor);
        let resolved = resolved(to).await;
        let failed = resolved.connect_async(failed.resource, &ConnectionParams::new()).await;
        let Error::Connection(failure) = failed.unwrap_err().error else { panic!("not refused") };
        assert_eq!(failure.reject_reason(), Some(RejectReason::INVALID_SERVICE_ID));

        let nowhere = "[::1]:7471".parse().unwrap();
        let error = Connector::new(Tcp).resolve_async(nowhere, DEADLINE).await.unwrap_err();
        assert_eq!(error.os_error(), Some(libc::ENODEV), "{error}");
    });
}

#[test]
fn peers_of_datagrams_are_found() {
    let Some(address) = cm_address() else { return };
    run(true, async {
        let (mut acceptor, to) = listen_on(Udp, address);
        let server = tokio::spawn(async move {
            let mut incoming: Incoming<Udp> = acceptor.accept_async().await.unwrap();
            assert!(incoming.peer_private_data().starts_with(b"who\0"));
            let prepared = prepare::<Ud>(&Bed::on(incoming.context().clone()), |builder| builder);
            let qp = incoming.activate(prepared.qp).unwrap();
            incoming.answer(&qp, b"me").unwrap();
            qp.qp_num()
        });
        let resolved = Connector::new(Udp).resolve_async(to, DEADLINE).await.unwrap();
        let found = resolved.find_peer_async(b"who").await.unwrap();
        assert!(found.private_data.starts_with(b"me\0"));
        assert_eq!(found.peer.qp_num, server.await.unwrap());
    });
}

/// Futures that are dropped with their runtime leave nothing behind that waits.
#[test]
fn a_runtime_that_ends_takes_its_connections_along() {
    let Some(address) = cm_address() else { return };
    within_deadline(move || {
        let (acceptor, to) = listen_on(Tcp, address);
        let first = runtime();
        first.spawn(be_client(to, 1));
        first.spawn(async move {
            let mut acceptor: Acceptor<Tcp> = acceptor;
            let _kept = acceptor.accept_async().await.unwrap();
            std::future::pending::<()>().await
        });
        std::thread::sleep(SILENCE);
        drop(first);
        // Its port is free, and identifiers go from one runtime to another.
        let (acceptor, to) = listen_on(Tcp, to);
        let second = runtime();
        let (mut acceptor, first) = second.block_on(async move {
            let mut acceptor = acceptor;
            assert!(timeout(SILENCE, acceptor.accept_async()).await.is_err());
            (acceptor, tokio::spawn(be_client(to, 2)))
        });
        let third = runtime();
        assert_eq!(
            third.block_on(async { serve(acceptor.accept_async().await.unwrap()).await }),
            2
        );
        second.block_on(first).unwrap();
    });
}

#[test]
fn an_identifier_of_a_connection_goes_on_by_itself() {
    let Some(address) = cm_address() else { return };
    run(true, async {
        let (mut acceptor, to) = listen_on(Tcp, address);
        let server = async { accepted(acceptor.accept_async().await.unwrap()).await };
        let ((server, ..), (client, ..)) = tokio::join!(server, connected(to));
        let (mut qp, mut id) = client.into_parts();
        assert_eq!(qp.query(QueuePairAttrMask::STATE).unwrap().state(), Some(QpState::RTS));
        drop(server);
        assert_eq!(id.next_event().await.unwrap().event_type(), CmEventType::DISCONNECTED);
        id.disconnect().unwrap();
        qp.close().unwrap();
    });
}
