//! The end of a connection: who ends it, who notices, and what is left.

use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use ibverbs::rdmacm::{CmEventType, ConnectionParams, Tcp};
use ibverbs::{QpState, QueuePairAttrMask, Rc, RecvRequest, WcStatus};
use ibverbs_tests::{
    assert_connected, both, connected, eventually, is_readable, listen, next_request, post_recv,
    resolve, submit, transfer, wait_one, Bed, End, Plan, DEADLINE,
};

/// How long nothing is waited for.
const SHORT: Duration = Duration::from_millis(100);

/// Checks that a connection ends and stays ended, and that its queue pair has failed.
#[track_caller]
fn assert_ends(end: &mut End) {
    assert!(end.connection.wait_disconnected(Some(DEADLINE)).unwrap(), "it still stands");
    assert!(end.connection.poll_disconnected().unwrap());
    assert!(end.connection.wait_disconnected(None).unwrap());
    assert_eq!(state(end), QpState::ERR);
}

fn state(end: &mut End) -> QpState {
    end.qp().query(QueuePairAttrMask::STATE).unwrap().state().unwrap()
}

#[test]
fn a_connection_stands_until_somebody_ends_it() {
    let Some(bed) = Bed::with_cm() else { return };
    let (mut client, mut server) = connected(&bed);
    for end in [&mut client, &mut server] {
        assert!(!end.connection.poll_disconnected().unwrap());
        let start = Instant::now();
        assert!(!end.connection.wait_disconnected(Some(SHORT)).unwrap());
        assert!(start.elapsed() >= SHORT);
        assert!(!end.connection.wait_disconnected(Some(Duration::ZERO)).unwrap());
        assert_eq!(end.connection.as_fd().as_raw_fd(), end.connection.as_raw_fd());
    }
    assert_connected(&mut client, &mut server);
}

#[test]
fn either_side_ends_it() {
    let Some(bed) = Bed::with_cm() else { return };
    for by_client in [true, false] {
        let (client, server) = connected(&bed);
        let (mut one, mut other) = if by_client { (client, server) } else { (server, client) };
        one.connection.disconnect().unwrap();
        assert_eq!(state(&mut one), QpState::ERR);
        assert_ends(&mut other);
        assert_ends(&mut one);
    }
}

#[test]
fn both_sides_end_it_at_once() {
    let Some(bed) = Bed::with_cm() else { return };
    for _ in 0..10 {
        let (mut client, mut server) = connected(&bed);
        both(
            || server.connection.disconnect().unwrap(),
            || client.connection.disconnect().unwrap(),
        );
        both(|| assert_ends(&mut server), || assert_ends(&mut client));
    }
}

#[test]
fn ending_it_twice_does_no_harm() {
    let Some(bed) = Bed::with_cm() else { return };
    let (mut client, mut server) = connected(&bed);
    client.connection.disconnect().unwrap();
    client.connection.disconnect().unwrap();
    assert_ends(&mut server);
    server.connection.disconnect().unwrap();
    assert_ends(&mut client);
    client.connection.disconnect().unwrap();
}

#[test]
fn what_was_posted_is_flushed() {
    let Some(bed) = Bed::with_cm() else { return };
    let (mut client, mut server) = connected(&bed);
    for (end, id) in [(&mut client, 1), (&mut server, 2)] {
        let mem = end.bed.mem(8);
        post_recv(end.qp(), [RecvRequest::new(id, &[mem.slice(..)])]).unwrap();
    }
    client.connection.disconnect().unwrap();
    assert_eq!(wait_one(&client.recv_cq, 1).status(), WcStatus::WR_FLUSH_ERR);
    assert_ends(&mut server);
    assert_eq!(wait_one(&server.recv_cq, 2).status(), WcStatus::WR_FLUSH_ERR);
}

#[test]
fn a_connection_that_is_dropped_ends() {
    let Some(bed) = Bed::with_cm() else { return };
    for by_client in [true, false] {
        let (client, server) = connected(&bed);
        let (one, mut other) = if by_client { (client, server) } else { (server, client) };
        let start = Instant::now();
        drop(one);
        assert_ends(&mut other);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        // It can be ended by the other side, too.
        drop(other);
    }
    // Both at once.
    let (client, server) = connected(&bed);
    both(|| drop(server), || drop(client));
}

#[test]
fn requests_and_ends_show_on_descriptors() {
    let Some(bed) = Bed::with_cm() else { return };
    let (mut acceptor, to) = listen(Tcp, &bed);
    assert!(acceptor.poll().unwrap().is_none());
    assert!(!is_readable(&acceptor));
    let (mut server, client) = both(
        || {
            eventually("a request comes", || is_readable(&acceptor));
            let incoming = acceptor.poll().unwrap().unwrap();
            assert!(!is_readable(&acceptor));
            assert!(acceptor.accept(Some(SHORT)).unwrap().is_none());
            Plan::plain().accept(incoming)
        },
        || Plan::plain().dial(resolve(Tcp, to)),
    );
    assert!(!is_readable(&server.connection));
    drop(client);
    eventually("the connection ends", || is_readable(&server.connection));
    eventually("it is said", || server.connection.poll_disconnected().unwrap());
}

#[test]
fn the_parts_go_on_by_themselves() {
    let Some(bed) = Bed::with_cm() else { return };
    let (client, mut server) = connected(&bed);
    let End { connection, send_cq, recv_cq, bed: clients } = client;
    let (mut qp, mut id) = connection.into_parts();
    let (from, to) = (clients.mem(8), server.bed.mem(8));
    from.write(0, b"in parts");
    post_recv(server.qp(), [RecvRequest::new(1, &[to.slice(..)])]).unwrap();
    submit(&mut qp, |batch| batch.op().signaled().send(2, &[from.slice(..)])).unwrap();
    assert_eq!(wait_one(&send_cq, 2).ok, Ok(()));
    assert_eq!(wait_one(&server.recv_cq, 1).ok, Ok(()));
    assert_eq!(to.read(..), b"in parts");
    // The identifier ends the connection, and the queue pair stays as it is.
    id.disconnect().unwrap();
    assert_ends(&mut server);
    let event = id.wait(Some(DEADLINE)).unwrap().unwrap();
    assert_eq!(event.event_type(), CmEventType::DISCONNECTED);
    id.close().unwrap();
    assert_eq!(qp.query(QueuePairAttrMask::STATE).unwrap().state(), Some(QpState::RTS));
    qp.close().unwrap();
    drop((send_cq, recv_cq));
}

#[test]
fn a_listener_may_be_gone_before_its_connections() {
    let Some(bed) = Bed::with_cm() else { return };
    // Those of `connected` are dropped with their listener.
    let (mut client, mut server) = connected(&bed);
    transfer(&mut client, &mut server, 1);
    let (mut acceptor, to) = listen(Tcp, &bed);
    let (server, client) = both(
        || Plan::plain().accept(next_request(&mut acceptor)),
        || Plan::plain().dial(resolve(Tcp, to)),
    );
    drop((client, server));
    assert!(acceptor.poll().unwrap().is_none());
}

/// All orders of `n` things.
fn orders(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![vec![]];
    }
    let mut all = Vec::new();
    for order in orders(n - 1) {
        for at in 0..n {
            let mut order = order.clone();
            order.insert(at, n - 1);
            all.push(order);
        }
    }
    all
}

#[test]
fn everything_is_dropped_in_every_order() {
    let Some(bed) = Bed::with_cm() else { return };
    let params = ConnectionParams::new();
    for order in orders(5) {
        let (mut acceptor, to) = listen(Tcp, &bed);
        let (server, client) = both(
            || Plan::plain().accept(next_request(&mut acceptor)),
            || {
                let resolved = resolve(Tcp, to);
                let ctx = resolved.context().clone();
                let (cq, pd) = (ctx.create_cq(4).build().unwrap(), ctx.alloc_pd().unwrap());
                let builder = pd.create_qp::<Rc>(&cq, &cq, resolved.port()).unwrap();
                let qp = builder.build().unwrap();
                (resolved.connect(qp, &params, DEADLINE).unwrap(), cq, pd)
            },
        );
        let (connection, cq, pd) = client;
        let mut server = Some(server);
        let mut objects: [Option<Box<dyn std::any::Any>>; 5] = [
            Some(Box::new(acceptor)),
            Some(Box::new(connection)),
            Some(Box::new(cq)),
            Some(Box::new(pd)),
            None,
        ];
        for object in order {
            match objects[object].take() {
                Some(object) => drop(object),
                None => drop(server.take()),
            }
        }
    }
}
