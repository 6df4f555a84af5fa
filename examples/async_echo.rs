//! Two tasks on tokio: a client that sends messages, and a server that sends them back. Every byte is checked.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use ibverbs::{
    AccessFlags, AsyncCompletionQueue, MemoryRegion, PreparedQueuePair, ProtectionDomain,
    QueuePair, QueuePairEndpoint, Rc, RecvRequest,
};
use ibverbs_examples::{check, fill, Common, Opened, Progress, Rate};

/// Echo messages between two tasks, and check every byte.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: Common,
}

const RECV: u64 = 1;
const SEND: u64 = 2;

/// How long to wait for a completion that does not come.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<()> {
    let Options { common } = Options::parse();
    let (size, iters) = (common.size, common.iters);
    let opened = common.open()?;
    let pd = opened.context.alloc_pd()?;
    let (client, server) = (Prepared::new(&opened, &pd)?, Prepared::new(&opened, &pd)?);
    // Two programs would exchange their endpoints over a connection of another kind: see rc_pingpong.
    let (of_client, of_server) = (client.qp.endpoint()?, server.qp.endpoint()?);
    let client = client.connect(of_server, &pd, size)?;
    let mut server = server.connect(of_client, &pd, size)?;

    // The first message must find a receive.
    server.post_recv()?;
    let begin = Instant::now();
    let (client, server) = (tokio::spawn(call(client, iters)), tokio::spawn(serve(server, iters)));
    client.await??;
    server.await??;
    let (messages, bytes) = (2 * iters, 2 * iters * u64::from(size));
    let rate = Rate { messages, bytes, time: begin.elapsed() };
    println!("{iters} messages of {size} bytes sent and echoed, checking included: {rate}");
    Ok(())
}

/// Sends messages, and checks what comes back.
async fn call(mut end: End, iters: u64) -> Result<()> {
    let mut progress = Progress::new(iters);
    for message in 0..iters {
        fill(end.send.bytes_mut(), message);
        end.post_recv()?;
        end.post_send()?;
        while end.received <= message || end.sent <= message {
            end.progress().await?;
        }
        check(end.recv.bytes(), message)?;
        progress.step(message + 1);
    }
    Ok(())
}

/// Sends back what it receives.
async fn serve(mut end: End, iters: u64) -> Result<()> {
    for message in 0..iters {
        // The message is there, and the answer to the one before is out of its buffer.
        while end.received <= message || end.sent < message {
            end.progress().await?;
        }
        end.send.bytes_mut().copy_from_slice(end.recv.bytes());
        end.post_recv()?;
        end.post_send()?;
    }
    while end.sent < iters {
        end.progress().await?;
    }
    Ok(())
}

/// An end that is not connected yet.
struct Prepared {
    qp: PreparedQueuePair<Rc>,
    cq: AsyncCompletionQueue,
}

/// One end of the connection, with a buffer for each direction. The queue pair stands first, so that it is
/// dropped before the memory that it may use.
struct End {
    qp: QueuePair<Rc>,
    cq: AsyncCompletionQueue,
    send: MemoryRegion,
    recv: MemoryRegion,
    /// How many requests have completed.
    sent: u64,
    received: u64,
}

impl Prepared {
    fn new(opened: &Opened, pd: &ProtectionDomain) -> Result<Prepared> {
        let cq = opened.context.create_cq(16).build_async()?;
        let qp = pd.create_qp::<Rc>(cq.queue(), cq.queue(), opened.port)?;
        Ok(Prepared { qp: qp.set_gid_index(opened.gid_index).build()?, cq })
    }

    fn connect(self, peer: QueuePairEndpoint, pd: &ProtectionDomain, size: u32) -> Result<End> {
        let send = pd.allocate(size as usize, AccessFlags::empty())?;
        let recv = pd.allocate(size as usize, AccessFlags::LOCAL_WRITE)?;
        Ok(End { qp: self.qp.handshake(peer)?, cq: self.cq, send, recv, sent: 0, received: 0 })
    }
}

impl End {
    fn post_recv(&mut self) -> Result<()> {
        let to = [self.recv.slice(..)];
        // SAFETY: `recv` stays registered, and is read only after the receive has completed.
        Ok(unsafe { self.qp.post_recv([RecvRequest::new(RECV, &to)]) }?)
    }

    fn post_send(&mut self) -> Result<()> {
        let mut batch = self.qp.start_send();
        batch.op().signaled().send(SEND, &[self.send.slice(..)]);
        // SAFETY: `send` stays registered, and is written to only after the send has completed.
        Ok(unsafe { batch.submit() }?)
    }

    /// Waits until something has completed.
    async fn progress(&mut self) -> Result<()> {
        let completions = tokio::time::timeout(PATIENCE, self.cq.completions()).await;
        let mut completions = completions.context("nothing completed")??;
        while let Some(completion) = completions.next() {
            let what = if completion.wr_id() == RECV { "receive" } else { "send" };
            completion.ok().with_context(|| format!("a {what} failed"))?;
            match completion.wr_id() {
                RECV => self.received += 1,
                _ => self.sent += 1,
            }
        }
        Ok(())
    }
}
