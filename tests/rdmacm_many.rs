//! Many connections at once.

use std::collections::HashSet;
use std::sync::Mutex;
use std::thread;

use ibverbs::rdmacm::{Connection, ConnectionParams, Tcp};
use ibverbs::{CompletionQueue, Rc, RecvRequest};
use ibverbs_tests::{
    both, eventually, listen, next_request, post_recv, resolve, submit, wait_ok, Bed, Numbers,
    DEADLINE, PORT,
};

const CONNECTIONS: u64 = 100;
const THREADS: u64 = 8;

/// A queue pair that shares its completion queue with others.
fn queue_pair(bed: &Bed, cq: &CompletionQueue) -> ibverbs::PreparedQueuePair<Rc> {
    let builder = bed.pd().create_qp::<Rc>(cq, cq, PORT).unwrap();
    builder.set_max_send_wr(4).set_max_recv_wr(4).build().unwrap()
}

fn numbered(number: u64) -> ConnectionParams {
    ConnectionParams::new().set_private_data(number.to_be_bytes())
}

fn number(connection: &Connection) -> u64 {
    u64::from_be_bytes(connection.peer_private_data()[..8].try_into().unwrap())
}

#[test]
fn a_hundred_clients_connect_at_once() {
    let Some(bed) = Bed::with_cm() else { return };
    let (mut acceptor, to) = listen(Tcp, &bed);
    let (of_server, of_clients) = (
        bed.ctx().create_cq(4 * CONNECTIONS as u32).build().unwrap(),
        bed.ctx().create_cq(4 * CONNECTIONS as u32).build().unwrap(),
    );
    let in_order = |mut connections: Vec<Connection>| {
        connections.sort_by_key(number);
        let numbers: Vec<u64> = connections.iter().map(number).collect();
        assert!(numbers.iter().copied().eq(0..CONNECTIONS), "{numbers:?}");
        connections
    };
    let [for_server, for_clients] = [&of_server, &of_clients]
        .map(|cq| (0..CONNECTIONS).map(|n| (n, queue_pair(&bed, cq))).collect::<Vec<_>>());
    let (server, clients) = both(
        || {
            let accept = |(_, qp)| {
                let incoming = next_request(&mut acceptor);
                let number = incoming.peer_private_data()[..8].try_into().unwrap();
                let params = numbered(u64::from_be_bytes(number));
                incoming.accept(qp, &params, DEADLINE).unwrap()
            };
            in_order(for_server.into_iter().map(accept).collect())
        },
        || {
            let clients = Mutex::new(Vec::new());
            let waiting = Mutex::new(for_clients);
            let connect = || {
                while let Some((n, qp)) = { waiting.lock().unwrap().pop() } {
                    let connected = resolve(Tcp, to).connect(qp, &numbered(n), DEADLINE);
                    clients.lock().unwrap().push(connected.unwrap());
                }
            };
            thread::scope(|scope| (0..THREADS).for_each(|_| drop(scope.spawn(connect))));
            in_order(clients.into_inner().unwrap())
        },
    );
    assert!(acceptor.poll().unwrap().is_none());

    // Each is connected to its own peer.
    let mem = bed.mem(8 * CONNECTIONS as usize);
    let place = |n: u64| 8 * n as usize..8 * n as usize + 8;
    let (mut server, mut clients) = (server, clients);
    for (n, connection) in (0..).zip(&mut server) {
        let receive = [mem.slice(place(n))];
        post_recv(&mut connection.queue_pair, [RecvRequest::new(n, &receive)]).unwrap();
    }
    let from = bed.mem(8 * CONNECTIONS as usize);
    for (n, connection) in (0..).zip(&mut clients) {
        from.write_u64(place(n).start, n + 1000);
        let send = [from.slice(place(n))];
        submit(&mut connection.queue_pair, |batch| batch.op().signaled().send(n, &send)).unwrap();
    }
    for cq in [&of_server, &of_clients] {
        let done: HashSet<u64> =
            wait_ok(cq, CONNECTIONS as usize).iter().map(|wc| wc.wr_id).collect();
        assert_eq!(done.len(), CONNECTIONS as usize);
    }
    for n in 0..CONNECTIONS {
        assert_eq!(mem.read_u64(place(n).start), n + 1000);
    }

    // Half of them end at the client, the others at the server; each other side learns of it.
    let (end_clients, end_server) = (clients.split_off(50), server.drain(..50).collect::<Vec<_>>());
    let mut numbers = Numbers::seeded(1);
    let (mut left_clients, mut left_server) = (clients, server);
    both(|| Numbers::seeded(2).drop_all(end_server), || numbers.drop_all(end_clients));
    for connection in left_clients.iter_mut().chain(&mut left_server) {
        eventually("the connection ends", || connection.poll_disconnected().unwrap());
    }
    numbers.drop_all(left_clients.into_iter().chain(left_server).collect());
}

#[test]
fn clients_connect_in_one_thread_while_many_accept() {
    let Some(bed) = Bed::with_cm() else { return };
    let (acceptor, to) = listen(Tcp, &bed);
    let acceptor = Mutex::new(acceptor);
    let cq = bed.ctx().create_cq(4).build().unwrap();
    let queue_pairs = (0..20).map(|_| queue_pair(&bed, &cq));
    let waiting: Mutex<Vec<_>> = Mutex::new(queue_pairs.collect());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(qp) = { waiting.lock().unwrap().pop() } {
                    let incoming = next_request(&mut acceptor.lock().unwrap());
                    // Others take requests while this one is being accepted.
                    let accepted = incoming.accept(qp, &ConnectionParams::new(), DEADLINE);
                    let mut connection = accepted.unwrap();
                    assert!(connection.wait_disconnected(Some(DEADLINE)).unwrap());
                }
            });
        }
        for _ in 0..20 {
            let cq = bed.ctx().create_cq(4).build().unwrap();
            let qp = queue_pair(&bed, &cq);
            drop(resolve(Tcp, to).connect(qp, &ConnectionParams::new(), DEADLINE).unwrap());
        }
    });
}
