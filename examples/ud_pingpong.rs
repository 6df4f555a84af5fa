//! Two queue pairs that send datagrams to each other. One that is lost is sent again. Only the client knows
//! where to send to; the server learns it from the datagrams that it receives.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context as _, Result};
use clap::Parser;
use ibverbs::{AccessFlags, AddressHandle, CompletionQueue, Grh, MemoryRegion, ProtectionDomain};
use ibverbs::{QueuePair, RecvRequest, Ud, Wc};
use ibverbs_examples::{check, fill, wait, Common, Opened, Rate};

/// Send datagrams, which fit into a packet each, to and fro, and check every byte.
#[derive(Parser)]
#[command(mut_arg("size", |size| size.default_value("1024")))]
struct Options {
    #[command(flatten)]
    common: Common,
}

/// A queue pair receives only what is sent with its key.
const QKEY: u32 = 0x1bad_cafe;
/// How many datagrams may arrive before the first of them is looked at. The next ones are lost.
const RECEIVES: u32 = 4;
/// How long to wait for an answer before the datagram is sent again, and how often to send it.
const TIMEOUT: Duration = Duration::from_millis(500);
const ATTEMPTS: u64 = 20;

fn main() -> Result<()> {
    let Options { common } = Options::parse();
    let (size, iters) = (common.size, common.iters);
    let opened = common.open()?;
    let mtu = opened.context.query_port(opened.port)?.active_mtu();
    ensure!(Some(size) <= mtu.bytes(), "--size {size} is more than a packet has: {mtu}");

    let pd = opened.context.alloc_pd()?;
    let mut client = End::new(&opened, &pd, size as usize)?;
    let mut server = End::new(&opened, &pd, size as usize)?;
    let address = client.qp.address_of(&server.qp.endpoint()?)?;
    let to_server = (pd.create_ah(&address)?, server.qp.qp_num());
    let mut to_client = None;

    let (start, mut sent) = (Instant::now(), 0);
    for round in 0..iters {
        let serve = || answer(&mut server, &mut to_client, &pd, opened.port);
        sent += ask(&mut client, &to_server, round as u32, serve)?;
    }
    let (messages, time) = (2 * iters, start.elapsed());
    let rate = Rate { messages, bytes: messages * u64::from(size), time };
    println!("{iters} datagrams of {size} bytes sent, answered and checked: {rate}");
    println!("    {} were sent again", sent - iters);
    Ok(())
}

/// Sends a datagram and waits for the answer. Returns how often it was sent.
fn ask(end: &mut End, to: &To, number: u32, mut serve: impl FnMut() -> Result<()>) -> Result<u64> {
    for sent in 1..=ATTEMPTS {
        end.send(to, number, 2 * u64::from(number))?;
        let deadline = Instant::now() + TIMEOUT;
        while Instant::now() < deadline {
            serve()?;
            let Some(wc) = end.receive()? else { continue };
            // Else it is a late answer to a datagram that was sent again.
            let is_answer = wc.imm_data() == Some(number);
            if is_answer {
                check(&end.received(&wc)[Grh::BYTES..], 2 * u64::from(number) + 1)?;
            }
            end.post_recv(wc.wr_id())?;
            if is_answer {
                return Ok(sent);
            }
        }
    }
    bail!("datagram {number} was sent {ATTEMPTS} times and not answered")
}

/// Answers a datagram, if one has arrived.
fn answer(end: &mut End, client: &mut Option<To>, pd: &ProtectionDomain, port: u8) -> Result<()> {
    let Some(wc) = end.receive()? else { return Ok(()) };
    let received = end.received(&wc);
    let number = wc.imm_data().context("a datagram without a number")?;
    check(&received[Grh::BYTES..], 2 * u64::from(number))?;
    if client.is_none() {
        // All come from one client. A server of many has an address handle for each.
        let ah = pd.create_ah_from_wc(port, &wc.sender(), received)?;
        *client = Some((ah, wc.src_qp()));
    }
    end.post_recv(wc.wr_id())?;
    let client = client.as_ref().context("no client")?;
    end.send(client, number, 2 * u64::from(number) + 1)
}

/// Where to send to: the way to a port, and the number of a queue pair there.
type To = (AddressHandle, u32);

/// A queue pair with its memory. It stands above that, and is dropped first.
struct End {
    qp: QueuePair<Ud>,
    send_cq: CompletionQueue,
    recv_cq: CompletionQueue,
    send: MemoryRegion,
    /// The memory of each receive, whose identifier is the index.
    recvs: Vec<MemoryRegion>,
}

impl End {
    fn new(opened: &Opened, pd: &ProtectionDomain, size: usize) -> Result<End> {
        let send_cq = opened.context.create_cq(1).build()?;
        let recv_cq = opened.context.create_cq(RECEIVES).build()?;
        let builder = pd.create_qp::<Ud>(&send_cq, &recv_cq, opened.port)?;
        let qp = builder.set_gid_index(opened.gid_index).build()?.activate(QKEY)?;
        let send = pd.allocate(size, AccessFlags::empty())?;
        // A receive begins with room for the global route header.
        let recv = |_| pd.allocate(Grh::BYTES + size, AccessFlags::LOCAL_WRITE);
        let recvs = (0..RECEIVES).map(recv).collect::<Result<_, _>>()?;
        let mut end = End { qp, send_cq, recv_cq, send, recvs };
        (0..RECEIVES.into()).try_for_each(|index| end.post_recv(index))?;
        Ok(end)
    }

    /// Posts a receive that is not posted.
    fn post_recv(&mut self, index: u64) -> Result<()> {
        let memory = [self.recvs[index as usize].slice(..)];
        // SAFETY: the memory is dropped after the queue pair. Nobody refers to it before `receive` returns
        // the completion.
        Ok(unsafe { self.qp.post_recv([RecvRequest::new(index, &memory)]) }?)
    }

    fn receive(&mut self) -> Result<Option<Wc>> {
        let mut wcs = [Wc::default()];
        let wc = self.recv_cq.poll_into(&mut wcs)?.first().copied();
        wc.map_or(Ok(()), |wc| wc.ok())?;
        Ok(wc)
    }

    /// What was received, with the room for its header.
    fn received(&self, wc: &Wc) -> &[u8] {
        &self.recvs[wc.wr_id() as usize].bytes()[..wc.len() as usize]
    }

    fn send(&mut self, to: &To, number: u32, message: u64) -> Result<()> {
        fill(self.send.bytes_mut(), message);
        let mut batch = self.qp.start_send();
        let op = batch.to(&to.0, to.1, QKEY).signaled();
        op.imm(number).send(0, &[self.send.slice(..)]);
        // SAFETY: the memory is dropped after the queue pair, and not written to before this is complete.
        unsafe { batch.submit() }?;
        wait(&self.send_cq, 1, |_| Ok(()))
    }
}
