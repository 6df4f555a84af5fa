//! Two processes that exchange scalable reliable datagrams (SRD), and then write and read the memory of one of
//! them. This needs two EFA adapters, or one twice: EC2 instances that have EFA, with a security group that lets all
//! traffic of its own pass, and libefa. Or the software device, which is like one with `IBVERBS_SOFT_EFA=1`. On any
//! other device it ends with an error that says so.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Result};
use clap::Parser;
use ibverbs::efa::DeviceAttr;
use ibverbs::{
    AccessFlags, AddressHandle, CompletionQueue, Error, MemoryRegion, QueuePair, QueuePairEndpoint,
    RecvRequest, RemoteMemorySlice, SendBatch, SendOps, Srd,
};
use ibverbs_examples::{check, fill, wait_while, Common, Opened, Peer, Progress, Rate, Terms};

/// Send messages to another process over SRD, which sends others back, and check every byte; then write and read its
/// memory, if both adapters can.
///
/// This needs EFA, the adapter of Amazon EC2, or the software device with IBVERBS_SOFT_EFA=1. The server is started
/// without an argument, the client with the name or the address of the server's machine. Both have the same --size and
/// --iters.
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

/// A queue pair receives only what is sent with its key.
const QKEY: u32 = 0x1bad_cafe;

/// The steps at which both sides wait for each other.
const READY: u8 = 1;
const SENT: u8 = 2;
const WRITTEN: u8 = 3;
const DONE: u8 = 4;

fn main() -> Result<()> {
    let Options { common, tcp_port, server } = Options::parse();
    let (size, iters) = (common.size, common.iters);
    let is_client = server.is_some();
    let opened = common.open()?;
    let attr = efa(&opened)?;
    let mtu = opened.context.query_port(opened.port)?.active_mtu();
    let mut peer = Peer::connect(server.as_deref(), tcp_port)?;
    peer.agree(Terms { size, iters, mtu })?;
    let [theirs] = peer.exchange(&[attr.send_ops().bits() as u8])?;
    let ops = attr.send_ops() & SendOps::from_bits_retain(theirs.into());

    let cq = opened.context.create_cq(8).build()?;
    let pd = opened.context.alloc_pd()?;
    let allocate = |access| pd.allocate(size as usize, access);
    let mut send = allocate(AccessFlags::empty())?;
    // Two: while one message is checked, the next one already has its place.
    let recvs = [allocate(AccessFlags::LOCAL_WRITE)?, allocate(AccessFlags::LOCAL_WRITE)?];
    // The server's, to be read and written; the client's, where it puts what it has read.
    let mut shared = allocate(AccessFlags::LOCAL_WRITE | remote_rights(ops))?;
    let builder = pd.create_srd_qp(&cq, &cq, opened.port)?;
    let qp = builder.set_send_ops(ops).build()?.activate(QKEY)?;
    let theirs = QueuePairEndpoint::from_bytes(&peer.exchange(&qp.endpoint()?.to_bytes())?)?;
    let ah = pd.create_ah(&qp.address_of(&theirs)?)?;
    let to = (ah, theirs.qp_num());
    let mut end = End { qp, cq, to, size, sends: 0, receives: 0 };
    // SAFETY: the queue pair is dropped first. The memory is not referred to before its completion is polled below.
    unsafe { end.post_recv(&recvs[0]) }?;
    // From here on, whoever sends finds a peer with a receive.
    peer.meet(READY)?;

    let mut progress = Progress::new(iters);
    let mut time = Duration::ZERO;
    for round in 0..iters {
        let (ping, pong) = (2 * round, 2 * round + 1);
        let (ours, theirs) = if is_client { (ping, pong) } else { (pong, ping) };
        let (this, next) = (&recvs[(round % 2) as usize], &recvs[((round + 1) % 2) as usize]);
        fill(send.bytes_mut(), ours);
        // SAFETY: as above; the message that was in it was checked in the round before.
        unsafe { end.post_recv(next) }?;
        let start = Instant::now();
        if !is_client {
            end.wait_until(&peer, round, round + 1)?;
        }
        let describe = |batch: &mut SendBatch<'_, Srd>, (ah, number): &To| {
            batch.to(ah, *number, QKEY).send(round, &[send.slice(..)]);
        };
        // SAFETY: the memory outlives the queue pair. It is written to again when all that was sent is complete.
        unsafe { end.post(describe) }?;
        // In any order: that a message was answered does not tell that its send has completed.
        end.wait_until(&peer, round + 1, round + 1)?;
        time += start.elapsed();
        check(this.bytes(), theirs)?;
        progress.step(round + 1);
    }
    peer.meet(SENT)?;
    if is_client {
        let rate = Rate { messages: 2 * iters, bytes: 2 * iters * u64::from(size), time };
        println!("{iters} messages of {size} bytes sent, answered and checked: {rate}");
    } else {
        println!("{iters} messages of {size} bytes received, checked and answered");
    }

    if is_client {
        access_memory(&mut end, &mut peer, &mut send, &shared, ops)?;
    } else {
        offer_memory(&mut peer, &mut shared, ops)?;
    }
    peer.meet(DONE)
}

/// What the device says of itself, if it is one of EFA.
fn efa(opened: &Opened) -> Result<DeviceAttr> {
    match opened.context.query_efa_device() {
        Err(Error::Unsupported { .. }) => {
            let device = opened.context.device();
            bail!(
                "{} is no EFA device, which SRD needs: see --device, on an EC2 instance with EFA; or IBVERBS_SOFT_EFA=1, \
                 with which the software device is like one",
                device.name()
            )
        }
        attr => Ok(attr?),
    }
}

/// What a peer may do to memory that it accesses with these operations.
fn remote_rights(ops: SendOps) -> AccessFlags {
    let mut rights = AccessFlags::empty();
    rights.set(AccessFlags::REMOTE_READ, ops.contains(SendOps::RDMA_READ));
    rights.set(AccessFlags::REMOTE_WRITE, ops.contains(SendOps::RDMA_WRITE));
    rights
}

/// The message in the server's memory at first, and the one that the client writes there.
const FIRST: u64 = 100;
const SECOND: u64 = 101;

/// The client's part: reads what is in the server's memory, and writes something else.
fn access_memory(
    end: &mut End,
    peer: &mut Peer,
    send: &mut MemoryRegion,
    read: &MemoryRegion,
    ops: SendOps,
) -> Result<()> {
    if remote_rights(ops).is_empty() {
        println!("these adapters have neither RDMA reads nor writes");
        return Ok(());
    }
    let nothing = [0; RemoteMemorySlice::BYTES];
    let remote = RemoteMemorySlice::from_bytes(&peer.exchange(&nothing)?)?;
    if ops.contains(SendOps::RDMA_READ) {
        let describe = |batch: &mut SendBatch<'_, Srd>, (ah, number): &To| {
            batch.to(ah, *number, QKEY).read(0, &[read.slice(..)], remote);
        };
        // SAFETY: the memory outlives the queue pair. It is referred to when the read is complete.
        unsafe { end.post(describe) }?;
        end.wait_until(peer, end.sends + 1, end.receives)?;
        check(read.bytes(), FIRST)?;
        println!("{} bytes of the server's memory read and checked", read.len());
    }
    if ops.contains(SendOps::RDMA_WRITE) {
        fill(send.bytes_mut(), SECOND);
        let describe = |batch: &mut SendBatch<'_, Srd>, (ah, number): &To| {
            batch.to(ah, *number, QKEY).write(0, &[send.slice(..)], remote);
        };
        // SAFETY: the memory outlives the queue pair, and is not written to any more.
        unsafe { end.post(describe) }?;
        end.wait_until(peer, end.sends + 1, end.receives)?;
        println!("{} bytes written into the server's memory", send.len());
    }
    peer.meet(WRITTEN)
}

/// The server's part: gives away its memory, and checks what the client has written there.
fn offer_memory(peer: &mut Peer, shared: &mut MemoryRegion, ops: SendOps) -> Result<()> {
    if remote_rights(ops).is_empty() {
        println!("these adapters have neither RDMA reads nor writes");
        return Ok(());
    }
    fill(shared.bytes_mut(), FIRST);
    // SAFETY: the client accesses it before it comes to the step WRITTEN. Until that it is not referred to here.
    let remote = unsafe { shared.remote() }?;
    peer.exchange(&remote.to_bytes())?;
    peer.meet(WRITTEN)?;
    if ops.contains(SendOps::RDMA_WRITE) {
        check(shared.bytes(), SECOND)?;
        println!("{} bytes were written into this memory, and are checked", shared.len());
    }
    Ok(())
}

/// Where to send to: the way to the peer's port, and the number of its queue pair.
type To = (AddressHandle, u32);

/// A queue pair, where it sends to, and what has completed so far.
struct End {
    qp: QueuePair<Srd>,
    cq: CompletionQueue,
    to: To,
    size: u32,
    sends: u64,
    receives: u64,
}

impl End {
    /// Posts a receive.
    ///
    /// # Safety
    ///
    /// The memory outlives the queue pair, and nobody refers to it before the receive completes.
    unsafe fn post_recv(&mut self, memory: &MemoryRegion) -> Result<()> {
        // SAFETY: passed on to the caller.
        Ok(unsafe { self.qp.post_recv([RecvRequest::new(0, &[memory.slice(..)])]) }?)
    }

    /// Posts what `describe` adds to a batch.
    ///
    /// # Safety
    ///
    /// The memory outlives the queue pair, and before the operations complete nobody writes what they read, or refers
    /// to what they write. They fit into the send queue.
    unsafe fn post(&mut self, describe: impl FnOnce(&mut SendBatch<'_, Srd>, &To)) -> Result<()> {
        let mut batch = self.qp.start_send();
        describe(&mut batch, &self.to);
        // SAFETY: passed on to the caller.
        Ok(unsafe { batch.submit() }?)
    }

    /// Waits for so many sends and receives in all, as long as the peer is there.
    fn wait_until(&mut self, peer: &Peer, sends: u64, receives: u64) -> Result<()> {
        while self.sends < sends || self.receives < receives {
            wait_while(
                &self.cq,
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
