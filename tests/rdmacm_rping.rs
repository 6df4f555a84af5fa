//! Connections to `rping`, librdmacm's ping: its client sends where its data is, and the server reads it and writes it
//! back.

use ibverbs::rdmacm::{Acceptor, Connection, ConnectionParams, Incoming, RejectReason, Tcp};
use ibverbs::{
    AccessFlags, Context, Failed, Init, QueuePair, Rc, RecvRequest, RemoteMemorySlice, Result,
    WcStatus,
};
use ibverbs_tests::{
    listen_on, next_request, post_pieces, post_recv, submit, unconnected, wait, wait_ok, wait_one,
    Bed, End, Ended, Mem, Peer, Prepared, Program, Route, Running, DEADLINE,
};

/// How many bytes a message of either side has: an address, a key and a length, of which the client reads none.
const MESSAGE: usize = 16;

/// How many of the peer's messages may be under way.
const RECEIVES: usize = 2;

/// How many pings there are, and of how many bytes.
const SIZES: [(usize, usize); 3] = [(70, 27), (3, 4097), (1, 65535)];

/// What the client's data is in the ping of this number, as text without the zero at its end.
fn text(number: usize, size: usize) -> String {
    let letters = (b'A'..=b'z').cycle().skip(number % 58).map(char::from);
    format!("rdma-ping-{number}: ").chars().chain(letters).take(size - 1).collect()
}

/// The data itself.
fn data(number: usize, size: usize) -> Vec<u8> {
    let mut data = text(number, size).into_bytes();
    data.push(0);
    data
}

/// Checks that the program has done what it was to do.
///
/// Older ones (rdma-core 44) close their event channel while a thread of theirs may be reading it. If that fails the
/// program ends with an error, which means nothing: everything was done before.
#[track_caller]
fn assert_done(ended: &Ended) {
    const CLOSED: &str = "rdma_get_cm_event: Bad file descriptor\n";
    let is_late = ended.stderr.ends_with(CLOSED) && !ended.stderr.contains("failed");
    if ended.code != Some(255) || !is_late {
        ended.assert_success();
    }
}

/// Checks that the program has printed the data of each ping.
#[track_caller]
fn assert_printed(ended: &Ended, before: &str, count: usize, size: usize) {
    let lines: Vec<&str> = ended.stdout.lines().collect();
    let expected: Vec<String> = (0..count).map(|n| format!("{before}{}", text(n, size))).collect();
    assert!(lines == expected, "{ended:#?}");
}

/// One side of a connection to `rping`.
struct Talk {
    end: End,
    /// Where the peer's messages arrive.
    inbox: Mem,
}

impl Talk {
    /// Makes a queue pair that can receive two messages, and connects it.
    fn new(
        ctx: &Context,
        connect: impl FnOnce(QueuePair<Rc, Init>) -> Result<Connection, Failed<QueuePair<Rc, Init>>>,
    ) -> Result<Talk> {
        let bed = Bed::on(ctx.clone());
        let inbox = bed.mem(RECEIVES * MESSAGE);
        let prepared =
            unconnected::<Rc>(&bed, |builder| builder.set_max_inline_data(MESSAGE as u32));
        let Prepared { qp, send_cq, recv_cq, bed } = prepared;
        let mut qp = qp.init().unwrap();
        post_pieces(&mut qp, &inbox, RECEIVES, MESSAGE)?;
        let end = End { connection: connect(qp)?, send_cq, recv_cq, bed };
        Ok(Talk { end, inbox })
    }

    fn accept(incoming: Incoming<Tcp>) -> Talk {
        let ctx = incoming.context().clone();
        Talk::new(&ctx, |qp| incoming.accept(qp, &ConnectionParams::new(), DEADLINE)).unwrap()
    }

    /// Connects when the program listens.
    #[track_caller]
    fn dial(rping: &mut Running, route: &Route, port: u16) -> Talk {
        let (connector, to) = (route.connector(Tcp), route.server_addr(port));
        rping.once_listening(|| {
            let resolved = connector.resolve(to, DEADLINE)?;
            let ctx = resolved.context().clone();
            Talk::new(&ctx, |qp| resolved.connect(qp, &ConnectionParams::new(), DEADLINE))
        })
    }

    /// The next message of the peer.
    #[track_caller]
    fn receive(&mut self) -> [u8; MESSAGE] {
        let received = wait_ok(&self.end.recv_cq, 1).remove(0);
        assert_eq!((received.len as usize, received.imm), (MESSAGE, None));
        let place = received.wr_id as usize * MESSAGE..(received.wr_id as usize + 1) * MESSAGE;
        let message = self.inbox.read(place.clone()).try_into().unwrap();
        let slice = self.inbox.slice(place);
        post_recv(self.end.qp(), [RecvRequest::new(received.wr_id, &[slice])]).unwrap();
        message
    }

    /// Where the client tells to read or write.
    #[track_caller]
    fn receive_place(&mut self, size: usize) -> RemoteMemorySlice {
        let message = self.receive();
        let (addr, rest) = message.split_at(8);
        let (rkey, len) = rest.split_at(4);
        let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
        assert_eq!(number(len) as usize, size);
        let addr = u64::from_be_bytes(addr.try_into().unwrap());
        RemoteMemorySlice { addr, len: number(len).into(), rkey: number(rkey) }
    }

    /// Tells the client to go on. That this completes means nothing: after the last ping, the client may be gone before
    /// it has acknowledged.
    #[track_caller]
    fn tell_to_go_on(&mut self) {
        submit(self.end.qp(), |batch| batch.op().send(0, &[0; MESSAGE])).unwrap();
    }

    /// Reads what the client has, and checks it.
    #[track_caller]
    fn read(&mut self, number: usize, mem: &Mem, size: usize) {
        let source = self.receive_place(size);
        mem.write(0, &vec![0xee; size]);
        submit(self.end.qp(), |batch| batch.op().signaled().read(1, &[mem.slice(..)], source))
            .unwrap();
        assert_eq!(wait_one(&self.end.send_cq, 1).ok, Ok(()));
        assert!(mem.read(..) == data(number, size), "ping {number} of {size} bytes");
    }

    /// Serves so many pings.
    #[track_caller]
    fn serve(&mut self, count: usize, size: usize) {
        let mem = self.end.bed.mem(size);
        for number in 0..count {
            self.read(number, &mem, size);
            self.tell_to_go_on();
            let sink = self.receive_place(size);
            submit(self.end.qp(), |batch| batch.op().signaled().write(2, &[mem.slice(..)], sink))
                .unwrap();
            assert_eq!(wait_one(&self.end.send_cq, 2).ok, Ok(()));
            self.tell_to_go_on();
        }
    }

    /// Tells the server where to read or write, and waits until it has.
    #[track_caller]
    fn offer(&mut self, place: RemoteMemorySlice) {
        let message: Vec<u8> = [
            place.addr.to_be_bytes().as_slice(),
            &place.rkey.to_be_bytes(),
            &(place.len as u32).to_be_bytes(),
        ]
        .concat();
        submit(self.end.qp(), |batch| batch.op().signaled().send(3, message.as_slice())).unwrap();
        assert_eq!(wait_one(&self.end.send_cq, 3).ok, Ok(()));
        self.receive();
    }

    /// Has the server read and write back, so many times.
    #[track_caller]
    fn ping(&mut self, count: usize, size: usize) {
        let source = self.end.bed.mem_with(size, AccessFlags::REMOTE_READ);
        let sink =
            self.end.bed.mem_with(size, AccessFlags::LOCAL_WRITE | AccessFlags::REMOTE_WRITE);
        for number in 0..count {
            let data = data(number, size);
            source.write(0, &data);
            self.offer(source.remote());
            self.offer(sink.remote());
            assert!(sink.read(..) == data, "ping {number} of {size} bytes");
        }
    }

    /// The peer was killed. Of a software device nobody says so, unless it is sent to.
    #[track_caller]
    fn assert_killed(mut self) {
        self.tell_to_go_on();
        self.assert_ended();
    }

    /// Checks that the peer ends the connection, which flushes the receives.
    #[track_caller]
    fn assert_ended(mut self) {
        assert!(self.end.connection.wait_disconnected(Some(DEADLINE)).unwrap());
        let flushed = wait(&self.end.recv_cq, RECEIVES);
        assert!(flushed.iter().all(|wc| wc.status() == WcStatus::WR_FLUSH_ERR), "{flushed:?}");
    }

    /// Ends the connection.
    #[track_caller]
    fn disconnect(mut self) {
        self.end.connection.disconnect().unwrap();
        assert!(self.end.connection.wait_disconnected(Some(DEADLINE)).unwrap());
    }
}

/// A listener for `rping`, on the route's address.
fn listen(route: &Route) -> (Acceptor<Tcp>, u16) {
    let (acceptor, to) = listen_on(Tcp, route.server_addr(0));
    (acceptor, to.port())
}

/// Starts `rping` as a client.
fn client(rping: &Program, route: &Route, port: u16, options: &str) -> Running {
    let source = route.client.as_ref().map_or(String::new(), |client| format!("-I {client}"));
    rping.start(route, &format!("-c -a {} {source} -p {port} {options}", route.server))
}

/// Starts `rping` as a server.
fn server(rping: &Program, route: &Route, port: u16, options: &str) -> Running {
    rping.start(route, &format!("-s -a {} -p {port} {options}", route.server))
}

/// Checks that the connection goes along the route.
#[track_caller]
fn assert_along(route: &Route, connection: &Connection) {
    let peer = connection.peer_addr().unwrap();
    if let Some(client) = route.client_addr() {
        assert_eq!(peer.ip(), client.ip());
    }
    assert_eq!(connection.local_addr().unwrap().ip(), route.server_addr(0).ip());
}

#[test]
fn its_client_is_served() {
    let Some(rping) = Program::rping() else { return };
    for route in Route::all(Peer::Client) {
        let (mut acceptor, port) = listen(&route);
        for (count, size) in SIZES {
            let options = format!("-v -V -C {count} -S {size}");
            let rping = client(&rping, &route, port, &options);
            let mut talk = Talk::accept(next_request(&mut acceptor));
            assert_along(&route, &talk.end.connection);
            talk.serve(count, size);
            talk.assert_ended();
            let ended = rping.finish();
            assert_done(&ended);
            assert_printed(&ended, "ping data: ", count, size);
        }
    }
}

#[test]
fn its_server_answers() {
    const PORT: u16 = 7510;
    let Some(rping) = Program::rping() else { return };
    for route in Route::all(Peer::Server) {
        for (count, size) in SIZES {
            let mut rping = server(&rping, &route, PORT, &format!("-v -S {size}"));
            let mut talk = Talk::dial(&mut rping, &route, PORT);
            talk.ping(count, size);
            talk.disconnect();
            let ended = rping.finish();
            assert_done(&ended);
            assert_printed(&ended, "server ping data: ", count, size);
        }
    }
}

#[test]
fn its_own_queue_pairs_are_as_good_as_librdmacm_s() {
    const PORT: u16 = 7511;
    let Some(rping) = Program::rping() else { return };
    for route in Route::ipv4(Peer::Client) {
        let (mut acceptor, port) = listen(&route);
        let client = client(&rping, &route, port, "-q -V -C 3 -S 100");
        let mut talk = Talk::accept(next_request(&mut acceptor));
        talk.serve(3, 100);
        talk.assert_ended();
        assert_done(&client.finish());
    }
    for route in Route::ipv4(Peer::Server) {
        let mut server = server(&rping, &route, PORT, "-q -S 100");
        let mut talk = Talk::dial(&mut server, &route, PORT);
        talk.ping(3, 100);
        talk.disconnect();
        assert_done(&server.finish());
    }
}

/// Checks that the program could not connect, for this reason.
#[track_caller]
fn assert_rejected(ended: &Ended, reason: RejectReason) {
    assert_eq!(ended.code, Some(255), "{ended:#?}");
    let line = format!("cma event RDMA_CM_EVENT_REJECTED, error {}\n", reason.0);
    assert!(ended.stderr.contains(&line), "{ended:#?}");
}

#[test]
fn its_client_is_told_of_a_refusal() {
    let Some(rping) = Program::rping() else { return };
    for route in Route::ipv4(Peer::Client) {
        let (mut acceptor, port) = listen(&route);
        let refused = client(&rping, &route, port, "-C 1");
        next_request(&mut acceptor).reject(b"not today").unwrap();
        assert_rejected(&refused.finish(), RejectReason::CONSUMER_DEFINED);
        let not_answered = client(&rping, &route, port, "-C 1");
        drop(next_request(&mut acceptor));
        assert_rejected(&not_answered.finish(), RejectReason::CONSUMER_DEFINED);
    }
}

#[test]
fn its_client_is_told_that_nobody_listens() {
    const PORT: u16 = 7512;
    let Some(rping) = Program::rping() else { return };
    for route in Route::ipv4(Peer::Client) {
        // A software device is there for as long as something is at it.
        let (_at_another_port, _) = listen(&route);
        let ended = client(&rping, &route, PORT, "-C 1").finish();
        assert_rejected(&ended, RejectReason::INVALID_SERVICE_ID);
    }
}

#[test]
fn the_end_of_a_server_that_is_killed_is_told() {
    const PORT: u16 = 7513;
    let Some(rping) = Program::rping() else { return };
    for route in Route::ipv4(Peer::Server) {
        let mut rping = server(&rping, &route, PORT, "");
        let mut talk = Talk::dial(&mut rping, &route, PORT);
        talk.ping(2, 64);
        let source = talk.end.bed.mem(64);
        talk.offer(source.remote());
        rping.kill();
        talk.assert_killed();
    }
}

#[test]
fn a_listener_survives_a_client_that_is_killed() {
    let Some(rping) = Program::rping() else { return };
    for route in Route::ipv4(Peer::Client) {
        let (mut acceptor, port) = listen(&route);
        let killed = client(&rping, &route, port, "");
        let mut talk = Talk::accept(next_request(&mut acceptor));
        talk.serve(2, 64);
        let mem = talk.end.bed.mem(64);
        talk.read(2, &mem, 64);
        killed.kill();
        talk.assert_killed();

        let next = client(&rping, &route, port, "-V -C 2");
        let mut talk = Talk::accept(next_request(&mut acceptor));
        talk.serve(2, 64);
        talk.assert_ended();
        assert_done(&next.finish());
    }
}
