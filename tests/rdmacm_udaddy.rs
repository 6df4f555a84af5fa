//! Datagrams to and from `udaddy`, librdmacm's test of them: each of its queue pairs finds one of the peer's. The client
//! sends, and then the server, to the number that comes as immediate data. Its port cannot be chosen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ibverbs::rdmacm::{FoundPeer, Udp};
use ibverbs::{AddressHandle, Context, QueuePair, Reset, Ud};
use ibverbs_tests::{
    listen_on, next_request, pattern, post_pieces, submit, unconnected, wait_ok, Bed, Mem, Peer,
    Prepared, Program, Route, Running, Side, Wc, DEADLINE, GRH, PORT,
};

/// The port that the program listens on, and connects to.
const UDADDY_PORT: u16 = 7174;

/// The queue key of this port space (`RDMA_UDP_QKEY`).
const UDP_QKEY: u32 = 0x0123_4567;

/// How many queue pairs the program has.
const PEERS: usize = 3;

/// The program, while nobody else uses its port.
struct Udaddy {
    program: Program,
    _one_at_a_time: MutexGuard<'static, ()>,
}

impl Udaddy {
    fn new() -> Option<Udaddy> {
        static SERIAL: Mutex<()> = Mutex::new(());
        let serial = SERIAL.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Udaddy { program: Program::udaddy()?, _one_at_a_time: serial })
    }

    /// Starts it; `who` says where it listens, or where it sends to.
    #[track_caller]
    fn start(&self, route: &Route, plan: Plan, who: &str) -> Running {
        let Plan { count, size } = plan;
        self.program.start(route, &format!("{who} -c {PEERS} -C {count} -S {size}"))
    }
}

/// How many messages go each way between two queue pairs.
#[derive(Clone, Copy)]
struct Plan {
    count: usize,
    /// In bytes, of each.
    size: usize,
}

const PLANS: [Plan; 3] =
    [Plan { count: 10, size: 100 }, Plan { count: 1, size: 1 }, Plan { count: 3, size: 1000 }];

/// Our queue pair, which all of the program's send to.
struct Post {
    side: Side<Ud>,
    plan: Plan,
    inbox: Mem,
}

impl Post {
    #[track_caller]
    fn new(
        ctx: &Context,
        plan: Plan,
        activate: impl FnOnce(QueuePair<Ud, Reset>) -> QueuePair<Ud>,
    ) -> Post {
        let Prepared { qp, send_cq, recv_cq, bed } =
            unconnected::<Ud>(&Bed::on(ctx.clone()), |builder| builder);
        let inbox = bed.mem(PEERS * plan.count * (GRH + plan.size));
        let mut qp = activate(qp);
        post_pieces(&mut qp, &inbox, PEERS * plan.count, GRH + plan.size).unwrap();
        Post { side: Side { qp, send_cq, recv_cq, bed }, plan, inbox }
    }

    /// Sends all messages to a peer, with our number. Returns the last.
    #[track_caller]
    fn send(&mut self, ah: &AddressHandle, (qp_num, qkey): (u32, u32)) -> Vec<u8> {
        let Plan { count, size } = self.plan;
        let mem = self.side.bed.mem(count * size);
        let data = pattern(count * size, qp_num.into());
        mem.write(0, &data);
        let own = self.side.qp.qp_num();
        submit(&mut self.side.qp, |batch| {
            for n in 0..count {
                let piece = mem.slice(n * size..(n + 1) * size);
                batch.to(ah, qp_num, qkey).signaled().imm(own).send(n as u64, &[piece]);
            }
        })
        .unwrap();
        wait_ok(&self.side.send_cq, count);
        data[data.len() - size..].to_vec()
    }

    /// Waits for all messages: by the numbers of who sent them, with their headers.
    #[track_caller]
    fn receive(&mut self) -> BTreeMap<u32, Vec<(Wc, Vec<u8>)>> {
        let Plan { count, size } = self.plan;
        let mut received: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        for wc in wait_ok(&self.side.recv_cq, PEERS * count) {
            assert_eq!(wc.len as usize, GRH + size);
            assert_eq!(wc.imm, Some(wc.sender.src_qp));
            let place = wc.wr_id as usize * (GRH + size);
            let bytes = self.inbox.read(place..place + GRH + size);
            received.entry(wc.sender.src_qp).or_default().push((wc, bytes));
        }
        assert!(received.values().map(Vec::len).eq([count; PEERS]), "{received:?}");
        received
    }
}

#[test]
fn its_client_is_answered() {
    let Some(udaddy) = Udaddy::new() else { return };
    for route in Route::all(Peer::Client) {
        for plan in PLANS {
            let (mut acceptor, _) = listen_on(Udp, route.server_addr(UDADDY_PORT));
            let source = route.client.as_ref().map_or(String::new(), |from| format!("-b {from}"));
            let program = udaddy.start(&route, plan, &format!("-s {} {source}", route.server));
            let mut first = next_request(&mut acceptor);
            let ctx = first.context().clone();
            let mut post = Post::new(&ctx, plan, |qp| first.activate(qp).unwrap());
            first.answer(&post.side.qp, &[]).unwrap();
            for _ in 1..PEERS {
                next_request(&mut acceptor).answer(&post.side.qp, &[]).unwrap();
            }
            for (peer, messages) in post.receive() {
                let (wc, bytes) = &messages[0];
                let back = post.side.bed.pd().create_ah_from_wc(PORT, &wc.sender, bytes).unwrap();
                post.send(&back, (peer, UDP_QKEY));
            }
            let ended = program.finish();
            ended.assert_success();
            assert!(ended.stdout.contains("data transfers complete"), "{ended:#?}");
        }
    }
}

#[test]
fn its_server_is_found() {
    let Some(udaddy) = Udaddy::new() else { return };
    for route in Route::all(Peer::Server) {
        let (connector, to) = (route.connector(Udp), route.server_addr(UDADDY_PORT));
        for plan in PLANS {
            let mut program = udaddy.start(&route, plan, &format!("-b {}", route.server));
            let mut resolved = connector.resolve(to, DEADLINE).unwrap();
            let ctx = resolved.context().clone();
            let mut post = Post::new(&ctx, plan, |qp| resolved.activate(qp).unwrap());
            let found: Vec<FoundPeer> = (0..PEERS)
                .map(|_| {
                    program.once_listening(|| {
                        connector.resolve(to, DEADLINE)?.find_peer(&[], DEADLINE)
                    })
                })
                .collect();
            let numbers: BTreeSet<u32> = found.iter().map(|found| found.peer.qp_num).collect();
            assert_eq!(numbers.len(), PEERS, "{found:?}");
            let mut last = BTreeMap::new();
            for FoundPeer { peer, .. } in found {
                assert_eq!(peer.qkey, UDP_QKEY);
                let ah = peer.create_ah(post.side.bed.pd()).unwrap();
                last.insert(peer.qp_num, post.send(&ah, (peer.qp_num, peer.qkey)));
            }
            // It receives all messages in the same place, and answers with what is there: a header, and the beginning of
            // the last one.
            let end = plan.size.saturating_sub(GRH);
            for (peer, messages) in post.receive() {
                for (_, bytes) in messages {
                    assert!(bytes[GRH..].ends_with(&last[&peer][..end]));
                }
            }
            let ended = program.finish();
            ended.assert_success();
            assert!(ended.stdout.contains("data transfers complete"), "{ended:#?}");
        }
    }
}
