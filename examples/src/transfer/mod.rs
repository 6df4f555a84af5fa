//! What the two processes of `file_copy` say to each other. Messages and credits are sent, and what is in the file is
//! written, in chunks, into a ring in the receiver's memory. For each place in it there is one credit.

mod message;

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{bail, ensure, Context as _, Result};
use ibverbs::rdmacm::{Connection, ConnectionParams, Incoming, Resolved, Tcp};
use ibverbs::{
    AccessFlags, CanReceive, CompletionQueue, Context, Init, MemoryRegion, Payload,
    ProtectionDomain, QueuePair, Rc, RecvRequest, WcOpcode,
};

use message::GREETING;
pub use message::{Message, Ring, MAX_CHUNK, SLOTS};

use crate::cm::{explain, printable, wait_connected, PATIENCE, SET_UP};

/// What has arrived.
#[derive(Debug)]
pub enum Arrived {
    /// A message.
    Message(Message),
    /// So many places in the ring are free again.
    Credits(u32),
    /// A chunk: how many came before, as far as 32 bits tell, and its length.
    Chunk(u32, u32),
}

/// A connection to the other process.
///
/// The queue pair, which is in the connection, is dropped before the memory that it may use.
pub struct Wire {
    connection: Connection,
    ends: Ends,
    /// What has arrived and was not looked at.
    arrived: VecDeque<Arrived>,
    /// How many messages and credits are being sent. They are complete in this order.
    sending: u32,
    /// The sender's part of the ring, and how many chunks were written to it, and how many completely.
    staging: Option<(Ring, MemoryRegion)>,
    begun: u64,
    written: u64,
}

/// The completion queue and the memory of messages.
struct Ends {
    cq: CompletionQueue,
    pd: ProtectionDomain,
    /// Each is a receive, whose identifier is its index.
    incoming: Vec<MemoryRegion>,
    outgoing: MemoryRegion,
}

/// Identifiers of requests that are no receives.
const SEND: u64 = 1 << 32;
const WRITE: u64 = 2 << 32;

impl Ends {
    /// The queue pair, that everything that may arrive finds a receive at.
    fn prepare(ctx: &Context, port: u8) -> Result<(Ends, QueuePair<Rc, Init>)> {
        // Credits or chunks, and two messages: the last one, or the one that says why it does not come.
        let receives = SLOTS + 2;
        let pd = ctx.alloc_pd()?;
        let allocate = |_| pd.allocate(Message::BYTES, AccessFlags::LOCAL_WRITE);
        let incoming = (0..receives).map(allocate).collect::<Result<Vec<_>, _>>()?;
        let outgoing = pd.allocate(Message::BYTES, AccessFlags::empty())?;
        let cq = ctx.create_cq(receives + 2 * SLOTS).set_private_channel().build()?;
        let qp = pd.create_qp::<Rc>(&cq, &cq, port)?;
        let qp = qp.set_max_recv_wr(receives).set_max_send_wr(2 * SLOTS).build()?;
        let (ends, mut qp) = (Ends { cq, pd, incoming, outgoing }, qp.init()?);
        for index in 0..ends.incoming.len() {
            ends.post(&mut qp, index)?;
        }
        Ok((ends, qp))
    }

    /// Posts a receive. The one before into the same memory has completed.
    fn post<S: CanReceive>(&self, qp: &mut QueuePair<Rc, S>, index: usize) -> Result<()> {
        let to = [self.incoming[index].slice(..)];
        // SAFETY: the memory stays registered until the queue pair is dropped. It is referred to only where the receive
        // has completed, before the next one is posted.
        Ok(unsafe { qp.post_recv([RecvRequest::new(index as u64, &to)]) }?)
    }
}

impl Wire {
    /// Connects to a receiver, which says where chunks go.
    pub fn connect(resolved: Resolved<Tcp>) -> Result<(Wire, Ring)> {
        let (ends, qp) = Ends::prepare(resolved.context(), resolved.port())?;
        let params = ConnectionParams::new().set_private_data(GREETING);
        let connection = resolved.connect(qp, &params, SET_UP).map_err(explain)?;
        let ring = Ring::from_bytes(connection.peer_private_data())?;
        let mut wire = Wire::new(connection, ends);
        let staging = wire.ends.pd.allocate((SLOTS * ring.chunk) as usize, AccessFlags::empty())?;
        wire.staging = Some((ring, staging));
        Ok((wire, ring))
    }

    /// Accepts a sender, for which `ring` makes the memory.
    pub fn accept(
        incoming: Incoming<Tcp>,
        ring: impl FnOnce(&ProtectionDomain) -> Result<Ring>,
    ) -> Result<Wire> {
        if !incoming.peer_private_data().starts_with(&GREETING) {
            incoming.reject(b"this is file_copy")?;
            bail!("the client is another program");
        }
        let (ends, qp) = Ends::prepare(incoming.context(), incoming.port())?;
        let params = ConnectionParams::new().set_private_data(ring(&ends.pd)?.to_bytes());
        let connection = incoming.accept(qp, &params, SET_UP).map_err(explain)?;
        Ok(Wire::new(connection, ends))
    }

    fn new(connection: Connection, ends: Ends) -> Wire {
        let arrived = VecDeque::new();
        Wire { connection, ends, arrived, sending: 0, staging: None, begun: 0, written: 0 }
    }

    /// Sends a message.
    pub fn send(&mut self, message: &Message) -> Result<()> {
        while self.sending > 0 {
            self.progress(PATIENCE)?;
        }
        let bytes = message.to_bytes();
        self.ends.outgoing.bytes_mut()[..bytes.len()].copy_from_slice(&bytes);
        let mut batch = self.connection.queue_pair.start_send();
        batch.op().signaled().send(SEND, &[self.ends.outgoing.slice(..bytes.len())]);
        // SAFETY: the memory stays registered until the queue pair is dropped, and is written to only when nothing is
        // being sent. Of all places for requests, writes take at most half.
        unsafe { batch.submit() }?;
        self.sending += 1;
        Ok(())
    }

    /// Tells the peer why there is nothing more, if it is still there.
    pub fn fail(&mut self, error: &anyhow::Error) {
        let mut told = self.send(&Message::Failed(format!("{error:#}")));
        while told.is_ok() && self.sending > 0 {
            told = self.progress(PATIENCE);
        }
    }

    /// Gives the sender a place in the ring back.
    pub fn send_credit(&mut self) -> Result<()> {
        while self.sending >= SLOTS {
            self.progress(PATIENCE)?;
        }
        let mut batch = self.connection.queue_pair.start_send();
        batch.op().signaled().imm(1).send(SEND, Payload::EMPTY);
        // SAFETY: it has no memory. Writes take half of all places for requests, and this finds one in the other half.
        unsafe { batch.submit() }?;
        self.sending += 1;
        Ok(())
    }

    /// Writes the next chunk of the file, of `len` bytes, which `fill` fills. There is a place for it in the ring.
    pub fn write(&mut self, len: u32, fill: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<()> {
        while self.begun - self.written >= u64::from(SLOTS) {
            self.progress(PATIENCE)?;
        }
        let (ring, staging) = self.staging.as_mut().context("it is the receiver that writes")?;
        let start = self.begun % u64::from(SLOTS) * u64::from(ring.chunk);
        let (end, number) = (start + u64::from(len), self.begun as u32);
        let place = start as usize..end as usize;
        fill(&mut staging.bytes_mut()[place.clone()])?;
        let mut batch = self.connection.queue_pair.start_send();
        let op = batch.op().signaled().imm(number);
        op.write(WRITE, &[staging.slice(place)], ring.memory.slice(start..end));
        // SAFETY: the memory stays registered until the queue pair is dropped. This part of it is written to again when
        // fewer than SLOTS writes are incomplete, which fit into half of the send queue: then this older one is complete.
        unsafe { batch.submit() }?;
        self.begun += 1;
        Ok(())
    }

    /// What has arrived; waits for it as long as the connection stands, but not longer than `patience`.
    pub fn next(&mut self, patience: Duration) -> Result<Arrived> {
        loop {
            match self.arrived.pop_front() {
                Some(Arrived::Message(Message::Failed(text))) => {
                    bail!("the peer says: {}", printable(&text));
                }
                Some(arrived) => return Ok(arrived),
                None => self.progress(patience)?,
            }
        }
    }

    /// Ends the connection, or waits until the peer does.
    pub fn end(mut self, is_first: bool) -> Result<()> {
        if is_first {
            self.connection.disconnect()?;
        }
        ensure!(self.connection.wait_disconnected(Some(PATIENCE))?, "the peer does not end");
        Ok(())
    }

    /// Waits until something has completed.
    fn progress(&mut self, patience: Duration) -> Result<()> {
        let Wire { connection, ends, arrived, sending, written, .. } = self;
        let mut free = Vec::new();
        wait_connected(connection, &ends.cq, patience, |completion| {
            match completion.wr_id() {
                SEND => *sending -= 1,
                WRITE => *written += 1,
                index => {
                    let (imm, len) = (completion.imm_data(), completion.len());
                    let bytes = &ends.incoming[index as usize].bytes();
                    arrived.push_back(match imm {
                        None => Arrived::Message(Message::from_bytes(&bytes[..len as usize])?),
                        Some(imm) if completion.opcode() == WcOpcode::RECV => Arrived::Credits(imm),
                        Some(imm) => Arrived::Chunk(imm, len),
                    });
                    free.push(index as usize);
                }
            }
            Ok(())
        })?;
        free.into_iter().try_for_each(|index| ends.post(&mut connection.queue_pair, index))
    }
}
