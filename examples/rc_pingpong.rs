//! Two processes that send messages to and fro. They exchange the endpoints of their queue pairs over TCP.

use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use clap::Parser;
use ibverbs::{AccessFlags, CompletionQueue, QueuePairEndpoint, Rc, RecvRequest};
use ibverbs_examples::{check, fill, wait_while, Common, Peer, Progress, Rate, Terms};

/// Send messages to another process, which sends others back, and check every byte.
///
/// The server is started without an argument, the client with the name or the address of the server's
/// machine. Both have the same --size and --iters.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: Common,

    /// The port on which the server waits for its client
    #[arg(short, long, default_value_t = 18515)]
    tcp_port: u16,

    /// The machine of the server; without it, this is the server
    server: Option<String>,
}

/// The steps at which both sides wait for each other.
const CONNECTED: u8 = 1;
const DONE: u8 = 2;

fn main() -> Result<()> {
    let Options { common, tcp_port, server } = Options::parse();
    let (size, iters) = (common.size, common.iters);
    let is_client = server.is_some();
    let opened = common.open()?;
    let mtu = opened.context.query_port(opened.port)?.active_mtu();
    let mut peer = Peer::connect(server.as_deref(), tcp_port)?;
    let terms = peer.agree(Terms { size, iters, mtu })?;

    let cq = opened.context.create_cq(4).build()?;
    let pd = opened.context.alloc_pd()?;
    let allocate = |access| pd.allocate(size as usize, access);
    let mut send = allocate(AccessFlags::empty())?;
    // Two: while one message is checked, the next one already has its place.
    let recvs = [allocate(AccessFlags::LOCAL_WRITE)?, allocate(AccessFlags::LOCAL_WRITE)?];
    let prepared = pd
        .create_qp::<Rc>(&cq, &cq, opened.port)?
        .set_gid_index(opened.gid_index)
        .set_path_mtu(terms.mtu)
        .build()?;
    let endpoint = peer.exchange(&prepared.endpoint()?.to_bytes())?;
    let mut qp = prepared.init()?;
    // SAFETY: the memory outlives the queue pair, which was created later. It is not referred to before
    // its completion is polled below.
    unsafe { qp.post_recv([RecvRequest::new(0, &[recvs[0].slice(..)])]) }?;
    let mut qp = qp.handshake(QueuePairEndpoint::from_bytes(&endpoint)?)?;
    // From here on, whoever sends finds a peer that is ready, with a receive.
    peer.meet(CONNECTED)?;

    let mut done = Done { cq: &cq, peer: &peer, size, sends: 0, receives: 0 };
    let mut progress = Progress::new(iters);
    let mut time = Duration::ZERO;
    for round in 0..iters {
        let (ping, pong) = (2 * round, 2 * round + 1);
        let (ours, theirs) = if is_client { (ping, pong) } else { (pong, ping) };
        let (this, next) = (&recvs[(round % 2) as usize], &recvs[((round + 1) % 2) as usize]);
        fill(send.bytes_mut(), ours);
        // SAFETY: as above; the message that was in it was checked in the round before.
        unsafe { qp.post_recv([RecvRequest::new(round, &[next.slice(..)])]) }?;
        let start = Instant::now();
        if !is_client {
            done.wait_until(round, round + 1)?;
        }
        let mut batch = qp.start_send();
        batch.op().signaled().send(round, &[send.slice(..)]);
        // SAFETY: the memory outlives the queue pair. It is not written to before its completion is polled.
        unsafe { batch.submit() }?;
        if is_client {
            done.wait_until(round, round + 1)?;
        }
        time += start.elapsed();
        done.wait_until(round + 1, round + 1)?;
        check(this.bytes(), theirs)?;
        progress.step(round + 1);
    }
    // The queue pair of a peer that has not yet heard that its last message arrived needs this one.
    peer.meet(DONE)?;
    if is_client {
        let rate = Rate { messages: 2 * iters, bytes: 2 * iters * u64::from(size), time };
        println!("{iters} messages of {size} bytes sent, answered and checked: {rate}");
    } else {
        println!("{iters} messages of {size} bytes received, checked and answered");
    }
    Ok(())
}

/// What has completed so far.
struct Done<'a> {
    cq: &'a CompletionQueue,
    peer: &'a Peer,
    size: u32,
    sends: u64,
    receives: u64,
}

impl Done<'_> {
    /// Waits for so many sends and receives, as long as the peer is there.
    fn wait_until(&mut self, sends: u64, receives: u64) -> Result<()> {
        while self.sends < sends || self.receives < receives {
            let peer = self.peer;
            wait_while(
                self.cq,
                1,
                || peer.is_waiting().map(drop),
                |completion| {
                    if completion.opcode().is_recv() {
                        let (came, size) = (completion.len(), self.size);
                        ensure!(came == size, "{came} of {size} bytes came");
                        self.receives += 1;
                    } else {
                        self.sends += 1;
                    }
                    Ok(())
                },
            )?;
        }
        Ok(())
    }
}
