//! An echo server on tokio, with a task for each client, and a client that is many of them: connecting, accepting,
//! completions and the end of a connection are awaited.
//!
//! On the server's machine, and on another one, with the name or an address of the server's RDMA device:
//!
//! ```text
//! rdmacm_async
//! rdmacm_async server.example.com --clients 8
//! ```
//!
//! The server ends at Ctrl-C, or after as many clients as it was told.

use std::time::Instant;

use anyhow::{bail, ensure, Context as _, Result};
use clap::{value_parser, Parser};
use ibverbs::rdmacm::{Acceptor, ConnectionParams, Incoming, Tcp};
use ibverbs::{
    AccessFlags, AsyncCompletionQueue, CanReceive, Completions, Context, Init, MemoryRegion,
    QueuePair, Rc, RecvRequest,
};
use ibverbs_examples::{
    check, explain, fill, show, Addresses, Progress, Rate, Route, Served, PATIENCE, SET_UP,
};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Send messages to an echo server, and check every byte of what comes back.
///
/// The server is started without an argument, the client with the name or the address of the server's
/// machine.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    addresses: Addresses,

    /// How many clients at a time [default: 1]; after how many the server ends [default: at Ctrl-C]
    #[arg(short, long, value_parser = value_parser!(u32).range(1..))]
    clients: Option<u32>,

    /// Bytes per message; the client says it
    #[arg(short, long, default_value_t = 4096, value_parser = value_parser!(u32).range(1..=i64::from(MAX_SIZE)))]
    size: u32,

    /// How many messages each client sends
    #[arg(short = 'n', long, default_value_t = 1000, value_parser = value_parser!(u64).range(1..))]
    iters: u64,
}

/// The longest message: the server gives no client more memory.
const MAX_SIZE: u32 = 1 << 20;

/// How many messages of a client are under way.
const WINDOW: u32 = 4;

/// What a connection request begins with: a name, and a version. The size of messages follows.
const GREETING: [u8; 5] = *b"echo\x01";

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    if options.addresses.is_server() {
        serve(&options).await
    } else {
        call(&options).await
    }
}

async fn serve(options: &Options) -> Result<()> {
    let mut acceptor = options.addresses.listen(|address| Acceptor::bind(Tcp, address))?;
    let (mut clients, mut served) = (JoinSet::new(), Served::default());
    let is_over = |served: &Served| options.clients.is_some_and(|most| served.clients() >= most);
    while !is_over(&served) {
        tokio::select! {
            incoming = acceptor.accept_async() => drop(clients.spawn(answer(incoming?))),
            Some(ended) = clients.join_next() => {
                let (peer, result) = ended.context("a task panicked")?;
                served.add(&peer, result);
            }
            pressed = tokio::signal::ctrl_c() => {
                pressed.context("cannot wait for Ctrl-C")?;
                println!("{} clients are disconnected", clients.len());
                clients.shutdown().await;
                break;
            }
        }
    }
    served.result()
}

/// Serves a client; returns who that was, too.
async fn answer(incoming: Incoming<Tcp>) -> (String, Result<String>) {
    let peer = show(incoming.peer_addr());
    (peer, echo(incoming).await)
}

/// Sends a client back what it sends, from where it has arrived.
async fn echo(incoming: Incoming<Tcp>) -> Result<String> {
    let size = match size(incoming.peer_private_data()) {
        Ok(size) => size,
        Err(error) => {
            incoming.reject(error.to_string().as_bytes())?;
            return Err(error);
        }
    };
    // Declared before the queue pair, the memory is dropped after it.
    let (mut end, mut qp) = End::prepare(incoming.context(), incoming.port(), size, WINDOW)?;
    for slot in 0..WINDOW {
        end.post_recv(&mut qp, slot)?;
    }
    let accepted = timeout(SET_UP, incoming.accept_async(qp, &ConnectionParams::new())).await;
    let mut connection = accepted.context("the client does not confirm")?.map_err(explain)?;
    let mut echoed = 0;
    loop {
        let completed = tokio::select! {
            // First: what is still under way when the client has ended the connection fails.
            biased;
            ended = connection.disconnected() => {
                ended?;
                return Ok(format!("{echoed} messages of {size} bytes sent back"));
            }
            completions = end.cq.completions() => take(completions?)?,
        };
        for (slot, is_recv) in completed {
            if is_recv {
                end.post_send(&mut connection.queue_pair, slot)?;
                echoed += 1;
            } else {
                end.post_recv(&mut connection.queue_pair, slot)?;
            }
        }
    }
}

/// The size of messages that a client asks for.
fn size(private_data: &[u8]) -> Result<u32> {
    let rest = private_data.strip_prefix(&GREETING).context("this is an echo server")?;
    let size = u32::from_be_bytes(*rest.first_chunk().context("the size is cut off")?);
    ensure!((1..=MAX_SIZE).contains(&size), "{size} bytes per message are not 1 to {MAX_SIZE}");
    Ok(size)
}

async fn call(options: &Options) -> Result<()> {
    let (count, size, iters) = (options.clients.unwrap_or(1), options.size, options.iters);
    let (route, start) = (options.addresses.route()?, Instant::now());
    let mut clients: JoinSet<_> = (0..count).map(|_| client(route, size, iters)).collect();
    let mut progress = Progress::of(count.into(), "clients");
    for done in 1.. {
        let Some(ended) = clients.join_next().await else { break };
        ended.context("a task panicked")??;
        progress.step(done);
    }
    drop(progress);
    let messages = 2 * u64::from(count) * iters;
    let rate = Rate { messages, bytes: messages * u64::from(size), time: start.elapsed() };
    println!(
        "{count} clients got {iters} messages of {size} bytes back, connecting included: {rate}"
    );
    Ok(())
}

/// Sends messages, and checks what comes back.
async fn client(route: Route, size: u32, iters: u64) -> Result<()> {
    let resolved = route.connector().resolve_async(route.peer, SET_UP).await?;
    // For each message that is under way, one slot from which it is sent, and one for what comes back.
    let (mut end, qp) = End::prepare(resolved.context(), resolved.port(), size, 2 * WINDOW)?;
    let greeting = [&GREETING[..], &size.to_be_bytes()].concat();
    let params = ConnectionParams::new().set_private_data(greeting);
    let connected = timeout(SET_UP, resolved.connect_async(qp, &params)).await;
    let mut connection = connected.context("the server does not answer")?.map_err(explain)?;
    let (mut begun, mut sent, mut received) = (0, 0, 0);
    while sent < iters || received < iters {
        while begun < iters && begun < sent.min(received) + u64::from(WINDOW) {
            let slot = (begun % u64::from(WINDOW)) as u32;
            fill(end.slots[slot as usize].bytes_mut(), begun);
            end.post_recv(&mut connection.queue_pair, WINDOW + slot)?;
            end.post_send(&mut connection.queue_pair, slot)?;
            begun += 1;
        }
        let completed = tokio::select! {
            completions = timeout(PATIENCE, end.cq.completions()) => {
                take(completions.context("nothing completed")??)?
            }
            ended = connection.disconnected() => {
                ended?;
                bail!("the server has ended the connection");
            }
        };
        for (slot, is_recv) in completed {
            if is_recv {
                check(end.slots[slot as usize].bytes(), received)?;
                received += 1;
            } else {
                sent += 1;
            }
        }
    }
    connection.disconnect()?;
    Ok(timeout(PATIENCE, connection.disconnected()).await.context("the server does not end")??)
}

/// The completion queue and the memory of one end of a connection.
struct End {
    cq: AsyncCompletionQueue,
    slots: Vec<MemoryRegion>,
}

impl End {
    fn prepare(
        ctx: &Context,
        port: u8,
        size: u32,
        slots: u32,
    ) -> Result<(End, QueuePair<Rc, Init>)> {
        let pd = ctx.alloc_pd()?;
        let allocate = |_| pd.allocate(size as usize, AccessFlags::LOCAL_WRITE);
        let slots = (0..slots).map(allocate).collect::<Result<Vec<_>, _>>()?;
        let cq = ctx.create_cq(2 * WINDOW).build_async()?;
        let qp = pd.create_qp::<Rc>(cq.queue(), cq.queue(), port)?;
        let qp = qp.set_max_send_wr(WINDOW).set_max_recv_wr(WINDOW).build()?;
        Ok((End { cq, slots }, qp.init()?))
    }

    /// Posts a receive into a slot, of which nothing is under way.
    fn post_recv<S: CanReceive>(&self, qp: &mut QueuePair<Rc, S>, slot: u32) -> Result<()> {
        let to = [self.slots[slot as usize].slice(..)];
        // SAFETY: the slot stays registered until the queue pair is dropped. It is used again, or read, when its
        // receive has completed.
        Ok(unsafe { qp.post_recv([RecvRequest::new(slot.into(), &to)]) }?)
    }

    /// Sends what is in a slot, of which nothing is under way.
    fn post_send(&self, qp: &mut QueuePair<Rc>, slot: u32) -> Result<()> {
        let mut batch = qp.start_send();
        batch.op().signaled().send(slot.into(), &[self.slots[slot as usize].slice(..)]);
        // SAFETY: the slot stays registered until the queue pair is dropped. It is used again when the send has
        // completed, so that there are never more sends than slots, for which the send queue has room.
        Ok(unsafe { batch.submit() }?)
    }
}

/// The slots of which something has completed, and whether that was a receive. (Completions themselves must be gone before
/// a task waits again.)
fn take(mut completions: Completions<'_>) -> Result<Vec<(u32, bool)>> {
    let mut taken = Vec::new();
    while let Some(completion) = completions.next() {
        completion.ok().context("a work request failed")?;
        taken.push((completion.wr_id() as u32, completion.opcode().is_recv()));
    }
    Ok(taken)
}
