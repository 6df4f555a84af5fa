//! Connections to `ucmatose`, librdmacm's test of many connections at once. All stand before the first message goes; then
//! the server sends, then the client, and the server ends the connections.

use std::collections::BTreeSet;

use ibverbs::rdmacm::{CmEventType, CmId, ConnectionParams, EventChannel, Tcp};
use ibverbs::{CompletionQueue, Context, Init, QueuePair, Rc, WcStatus};
use ibverbs_tests::ids::{listening_on, next_event_on, place_of};
use ibverbs_tests::{
    pattern, post_pieces, submit, unconnected, wait, wait_ok, Bed, Mem, Peer, Prepared, Program,
    Route, Running, DEADLINE,
};

/// How many connections there are.
const CONNECTIONS: usize = 5;

/// How many messages go each way on each connection.
#[derive(Clone, Copy)]
struct Plan {
    count: usize,
    /// In bytes, of each.
    size: usize,
}

const PLANS: [Plan; 4] = [
    Plan { count: 10, size: 100 },
    Plan { count: 1, size: 1 },
    Plan { count: 3, size: 70_000 },
    Plan { count: 0, size: 0 },
];

impl Plan {
    fn bytes(self) -> usize {
        self.count * self.size
    }

    /// Starts the program; `who` says where it listens, or where it connects to.
    #[track_caller]
    fn start(self, ucmatose: &Program, route: &Route, who: &str, port: u16) -> Running {
        let Plan { count, size } = self;
        ucmatose.start(route, &format!("{who} -p {port} -c {CONNECTIONS} -C {count} -S {size}"))
    }

    /// A queue pair that has its receives: the program sends each message once.
    #[track_caller]
    fn prepare(self, ctx: &Context) -> (Line, QueuePair<Rc, Init>) {
        let Prepared { qp, send_cq, recv_cq, bed } =
            unconnected::<Rc>(&Bed::on(ctx.clone()), |builder| builder);
        let [inbox, outbox] = [(); 2].map(|()| bed.mem(self.bytes().max(1)));
        let line = Line { plan: self, send_cq, recv_cq, inbox, outbox, _bed: bed };
        let mut qp = qp.init().unwrap();
        post_pieces(&mut qp, &line.inbox, self.count, self.size).unwrap();
        (line, qp)
    }
}

/// What a connection has beside its queue pair, which must be dropped before.
struct Line {
    plan: Plan,
    send_cq: CompletionQueue,
    recv_cq: CompletionQueue,
    inbox: Mem,
    outbox: Mem,
    _bed: Bed,
}

impl Line {
    /// Sends all messages. Returns the last.
    #[track_caller]
    fn send(&self, qp: &mut QueuePair<Rc>, seed: u64) -> Vec<u8> {
        let Plan { count, size } = self.plan;
        let data = pattern(self.plan.bytes(), seed);
        self.outbox.write(0, &data);
        submit(qp, |batch| {
            for n in 0..count {
                let piece = self.outbox.slice(n * size..(n + 1) * size);
                batch.op().signaled().send(n as u64, &[piece]);
            }
        })
        .unwrap();
        data[data.len() - size..].to_vec()
    }

    /// Waits for all messages.
    #[track_caller]
    fn receive(&self) -> Vec<u8> {
        let received = wait_ok(&self.recv_cq, self.plan.count);
        assert!(received.iter().map(|wc| wc.wr_id).eq(0..self.plan.count as u64), "{received:?}");
        assert!(received.iter().all(|wc| wc.len as usize == self.plan.size), "{received:?}");
        self.inbox.read(..self.plan.bytes())
    }
}

/// A connection of the server's.
struct Client {
    id: CmId,
    qp: QueuePair<Rc>,
    line: Line,
}

/// A server of many connections, with one channel for all events.
struct Server {
    clients: Vec<Client>,
    plan: Plan,
    listener: CmId,
    channel: EventChannel,
}

impl Server {
    #[track_caller]
    fn listen(route: &Route, plan: Plan) -> Server {
        let channel = EventChannel::create().unwrap();
        let listener = listening_on(&channel, Tcp, route.server_addr(0));
        Server { clients: Vec::new(), plan, listener, channel }
    }

    /// Takes events, until each connection has had one of this type.
    #[track_caller]
    fn run_until_all(&mut self, last: CmEventType) {
        let mut reached = BTreeSet::new();
        while reached.len() < CONNECTIONS {
            let mut event = next_event_on(&self.channel);
            assert_eq!(event.status(), 0, "{event:?}");
            match event.event_type() {
                CmEventType::CONNECT_REQUEST => self.accept(event.take_request().unwrap()),
                found => {
                    assert_eq!(found, last, "{event:?}");
                    assert!(reached.insert(event.context()), "{event:?}");
                }
            }
        }
        assert!(reached.into_iter().eq(1..=CONNECTIONS as u64));
    }

    #[track_caller]
    fn accept(&mut self, mut id: CmId) {
        let (line, qp) = self.plan.prepare(&id.context().unwrap());
        let qp = id.bring_up(qp).unwrap();
        id.accept(&ConnectionParams::new().for_queue_pair(&qp)).unwrap();
        id.set_context(self.clients.len() as u64 + 1);
        self.clients.push(Client { id, qp, line });
    }

    /// Sends first. The program receives all messages in the same place, and answers with what is there: the last one.
    #[track_caller]
    fn exchange(&mut self) {
        let numbered = (0..).zip(&mut self.clients);
        let last: Vec<_> = numbered.map(|(n, Client { qp, line, .. })| line.send(qp, n)).collect();
        for (Client { line, .. }, last) in self.clients.iter().zip(last) {
            wait_ok(&line.send_cq, self.plan.count);
            assert!(line.receive() == last.repeat(self.plan.count));
        }
    }
}

#[test]
fn its_connections_are_served_by_one_channel() {
    let Some(ucmatose) = Program::ucmatose() else { return };
    for route in Route::all(Peer::Client) {
        for plan in PLANS {
            let mut server = Server::listen(&route, plan);
            let source = route.client.as_ref().map_or(String::new(), |from| format!("-b {from}"));
            let to = format!("-s {} {source}", route.server);
            let program = plan.start(&ucmatose, &route, &to, place_of(&server.listener).port());
            server.run_until_all(CmEventType::ESTABLISHED);
            server.exchange();
            for client in &mut server.clients {
                client.id.disconnect().unwrap();
            }
            server.run_until_all(CmEventType::DISCONNECTED);
            let ended = program.finish();
            ended.assert_success();
            assert!(ended.stdout.contains("test complete"), "{ended:#?}");
        }
    }
}

#[test]
fn its_server_takes_many_connections() {
    const PORT: u16 = 7520;
    let Some(ucmatose) = Program::ucmatose() else { return };
    let params = ConnectionParams::new();
    for route in Route::all(Peer::Server) {
        let connector = route.connector(Tcp);
        for plan in PLANS {
            let mut program = plan.start(&ucmatose, &route, &format!("-b {}", route.server), PORT);
            let mut connections: Vec<_> = (0..CONNECTIONS)
                .map(|_| {
                    program.once_listening(|| {
                        let resolved = connector.resolve(route.server_addr(PORT), DEADLINE)?;
                        let (line, qp) = plan.prepare(resolved.context());
                        Ok((resolved.connect(qp, &params, DEADLINE)?, line))
                    })
                })
                .collect();
            for (n, (connection, line)) in (0..).zip(&mut connections) {
                // What the program sends is not initialised.
                line.receive();
                line.send(&mut connection.queue_pair, n);
            }
            for (connection, line) in &mut connections {
                assert!(connection.wait_disconnected(Some(DEADLINE)).unwrap());
                // The program has received everything, but may be gone before it has acknowledged the last.
                for wc in wait(&line.send_cq, plan.count) {
                    assert!(
                        [WcStatus::SUCCESS, WcStatus::WR_FLUSH_ERR].contains(&wc.status()),
                        "{wc:?}"
                    );
                }
            }
            let ended = program.finish();
            ended.assert_success();
            assert!(ended.stdout.contains("test complete"), "{ended:#?}");
        }
    }
}
