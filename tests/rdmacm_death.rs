//! Peers whose process is killed, at each step of a connection: the other side learns of it, and soon.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ibverbs::rdmacm::{CmEventType, ConnectionFailure, ConnectionParams, Tcp};
use ibverbs::{AckTimeout, Error, Rc, WcStatus};
use ibverbs_tests::{
    accept, assert_connected, both, dial, hear, listen, next_request, resolve, role, submit, tell,
    unconnected, wait, wait_for_death, Ability, Bed, End, PeerProcess, Plan, Prepared, DEADLINE,
};

/// Well below what the kernel takes to give a peer up, and enough for a slow machine.
const PROMPT: Duration = Duration::from_secs(10);

/// How long a peer gets to go as far as it can.
const WHILE: Duration = Duration::from_millis(200);

/// How the end of a process shows that has not said anything about it. A kernel ends its connections; of a device in the process,
/// only that nobody answers any more.
fn silence(bed: &Bed) -> CmEventType {
    match bed.can(Ability::Kernel) {
        true => CmEventType::REJECTED,
        false => CmEventType::UNREACHABLE,
    }
}

#[track_caller]
fn failure(error: &Error) -> &ConnectionFailure {
    match error {
        Error::Connection(failure) => failure,
        error => panic!("{error}"),
    }
}

/// In the peer's process: connects to the address that is told, and stays connected.
fn be_client() -> ! {
    let to: SocketAddr = hear().parse().unwrap();
    let resolved = resolve(Tcp, to);
    tell("connecting");
    let _end = Plan::plain().dial(resolved);
    tell("connected");
    wait_for_death()
}

/// In the peer's process: listens, tells where, and takes a request when it is told to.
fn be_server(bed: &Bed) -> ! {
    let (mut acceptor, address) = listen(Tcp, bed);
    tell(&address.to_string());
    hear();
    let incoming = next_request(&mut acceptor);
    tell("taken");
    hear();
    let _end = Plan::plain().accept(incoming);
    tell("accepted");
    wait_for_death()
}

/// Checks that a queue pair that came back can be connected, and that the listener takes others.
#[track_caller]
fn assert_usable(prepared: Prepared) {
    let (mut acceptor, to) = listen(Tcp, &prepared.bed);
    let (mut server, mut client) = both(
        || Plan::plain().accept(next_request(&mut acceptor)),
        || dial(resolve(Tcp, to), prepared, &ConnectionParams::new()),
    );
    assert_connected(&mut client, &mut server);
}

#[test]
fn a_client_dies_before_its_request_is_accepted() {
    let Some(bed) = Bed::with_cm() else { return };
    if role().is_some() {
        be_client();
    }
    let name = "a_client_dies_before_its_request_is_accepted";
    // Before the request is taken, and after that.
    for taken in [false, true] {
        let (mut acceptor, to) = listen(Tcp, &bed);
        let mut peer = PeerProcess::start(name, "client");
        peer.tell(&to.to_string());
        assert_eq!(peer.hear(), "connecting");
        let incoming = if taken {
            let incoming = next_request(&mut acceptor);
            drop(peer);
            incoming
        } else {
            std::thread::sleep(WHILE);
            drop(peer);
            match acceptor.accept(Some(WHILE)).unwrap() {
                Some(incoming) => incoming,
                // It was killed before it had asked.
                None => continue,
            }
        };
        let Prepared { qp, send_cq, recv_cq, bed } = unconnected::<Rc>(&bed, |builder| builder);
        let start = Instant::now();
        let failed = incoming.accept(qp, &ConnectionParams::new(), DEADLINE).unwrap_err();
        assert!(start.elapsed() < PROMPT, "{failed}");
        match bed.can(Ability::Kernel) {
            true => assert!(matches!(failed.error, Error::NothingToAnswer { .. }), "{failed}"),
            false => assert_eq!(failure(&failed.error).event_type(), silence(&bed)),
        }
        assert_usable(Prepared { qp: failed.resource, send_cq, recv_cq, bed });
    }
}

#[test]
fn a_client_dies_before_it_confirms() {
    let Some(bed) = Bed::with_cm() else { return };
    if role().is_some() {
        be_client();
    }
    let (mut acceptor, to) = listen(Tcp, &bed);
    let mut peer = PeerProcess::start("a_client_dies_before_it_confirms", "client");
    peer.tell(&to.to_string());
    assert_eq!(peer.hear(), "connecting");
    let incoming = next_request(&mut acceptor);
    // The answer will find nobody who confirms it.
    peer.stop();
    let Prepared { qp, send_cq, recv_cq, bed } = unconnected::<Rc>(&bed, |builder| builder);
    let ((failed, end), killed) = both(
        || {
            let failed = incoming.accept(qp, &ConnectionParams::new(), DEADLINE).unwrap_err();
            (failed, Instant::now())
        },
        || {
            std::thread::sleep(WHILE);
            let killed = Instant::now();
            drop(peer);
            killed
        },
    );
    assert!(end >= killed, "it was accepted too soon, or not at all: {failed}");
    assert!(end.duration_since(killed) < PROMPT, "{failed}");
    assert_eq!(failure(&failed.error).event_type(), silence(&bed));
    assert_usable(Prepared { qp: failed.resource, send_cq, recv_cq, bed });
}

#[test]
fn a_server_dies_before_it_accepts() {
    let Some(bed) = Bed::with_cm() else { return };
    if role().is_some() {
        be_server(&bed);
    }
    // Before it has taken the request, and after that.
    for taken in [false, true] {
        let mut peer = PeerProcess::start("a_server_dies_before_it_accepts", "server");
        let to: SocketAddr = peer.hear().parse().unwrap();
        let Prepared { qp, send_cq, recv_cq, bed } = unconnected::<Rc>(&bed, |builder| builder);
        let (killed, (failed, end)) = both(
            || {
                if taken {
                    peer.tell("take it");
                    assert_eq!(peer.hear(), "taken");
                } else {
                    std::thread::sleep(WHILE);
                }
                let killed = Instant::now();
                drop(peer);
                killed
            },
            || {
                let connected = resolve(Tcp, to).connect(qp, &ConnectionParams::new(), DEADLINE);
                (connected.unwrap_err(), Instant::now())
            },
        );
        assert!(end.saturating_duration_since(killed) < PROMPT, "{failed}");
        let failure = failure(&failed.error);
        assert_eq!(failure.event_type(), silence(&bed), "{failure}");
        assert_eq!(failure.peer_addr(), Some(to));
        assert_usable(Prepared { qp: failed.resource, send_cq, recv_cq, bed });
    }
}

/// Checks that the survivor of a connection notices, by what it sends and by being told.
#[track_caller]
fn assert_left_alone(mut survivor: End, peer: PeerProcess) {
    assert!(!survivor.connection.poll_disconnected().unwrap());
    drop(peer);
    let start = Instant::now();
    for id in [1, 2] {
        submit(survivor.qp(), |batch| batch.op().signaled().send(id, b"anybody?")).unwrap();
    }
    let sent: Vec<_> = wait(&survivor.send_cq, 2).iter().map(|wc| wc.status()).collect();
    assert_eq!(sent, [WcStatus::RETRY_EXC_ERR, WcStatus::WR_FLUSH_ERR]);
    assert!(survivor.connection.wait_disconnected(Some(DEADLINE)).unwrap());
    assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
}

#[test]
fn a_connected_peer_dies() {
    let Some(bed) = Bed::with_cm() else { return };
    match role().as_deref() {
        Some("client") => be_client(),
        Some(_) => be_server(&bed),
        None => (),
    }
    let name = "a_connected_peer_dies";
    let params = ConnectionParams::new();
    let impatient = || {
        let timeout = AckTimeout::at_least(Duration::from_millis(60));
        unconnected::<Rc>(&bed, |builder| {
            builder.set_timeout(timeout).set_retry_count(3).set_max_inline_data(8)
        })
    };
    let (mut acceptor, to) = listen(Tcp, &bed);
    let mut peer = PeerProcess::start(name, "client");
    peer.tell(&to.to_string());
    let survivor = accept(next_request(&mut acceptor), impatient(), &params);
    assert_eq!(peer.hear(), "connecting");
    assert_eq!(peer.hear(), "connected");
    assert_left_alone(survivor, peer);

    let mut peer = PeerProcess::start(name, "server");
    let to = peer.hear().parse().unwrap();
    let resolved = resolve(Tcp, to);
    peer.tell("take it");
    peer.tell("accept it");
    let survivor = dial(resolved, impatient(), &params);
    assert_eq!(peer.hear(), "taken");
    assert_eq!(peer.hear(), "accepted");
    assert_left_alone(survivor, peer);
    assert_usable(impatient());
}
