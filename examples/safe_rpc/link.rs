//! A connection: a queue pair, its buffers and its credits, and the TCP connection that it was made over.
//!
//! All buffers have a place. Receives are posted, or have arrived and are handed out; what they held is looked at
//! there, and they are given back to be posted again. Buffers to send are free, or being filled, or posted. Moves
//! between them are moves in Rust, so that no promise about memory is needed anywhere.
//!
//! The TCP connection stays open. The kernel closes it when a process dies, however it does; a queue pair that waits
//! for a message would not notice. And a peer that ends the connection because of what it was sent says so there.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{anyhow, Context as _, Result};
use ibverbs::{
    AckTimeout, Buffer, Init, Mtu, OwnedCompletionQueue, OwnedCompletions, OwnedQueuePair,
    ProtectionDomain, QueuePairEndpoint, Rc, WcStatus,
};
use ibverbs_examples::Opened;

use crate::credits::Credits;
use crate::trouble::Trouble;
use crate::wire::{set_credits, Head, Message, HEADER};

/// How long whoever waits looks for completions itself, before it sleeps until the device wakes it.
const SPIN: Duration = Duration::from_micros(50);

/// How often whoever sleeps looks whether the peer is there.
const ROUND: Duration = Duration::from_millis(20);

/// How long to wait for an acknowledgement. That a peer has died is told by TCP sooner.
const TIMEOUT: AckTimeout = AckTimeout::at_least(Duration::from_millis(250));

/// How many receives each side has, and how long its messages are.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) ours: u16,
    pub(crate) theirs: u16,
    /// The longest payload.
    pub(crate) payload: usize,
    /// The longest packet that both ports have.
    pub(crate) mtu: Mtu,
}

/// A queue pair that is not connected, whose receives are posted.
pub(crate) struct Prepared {
    qp: OwnedQueuePair<Rc, Init>,
    cq: OwnedCompletionQueue,
    free: Vec<Buffer>,
    credits: Credits,
}

impl Prepared {
    pub(crate) fn new(opened: &Opened, pd: &ProtectionDomain, sizes: Sizes) -> Result<Prepared> {
        let (receives, sends) = (u32::from(sizes.ours), u32::from(sizes.theirs));
        let cq = opened.context.create_cq(receives + sends);
        let cq = cq.set_private_channel().build_owned()?;
        let prepared = pd
            .create_owned_qp::<Rc>(&cq, &cq, opened.port)?
            .set_gid_index(opened.gid_index)
            .set_path_mtu(sizes.mtu)
            .set_timeout(TIMEOUT)
            .set_max_send_wr(sends)
            .set_max_recv_wr(receives)
            // A message that finds no receive ends the connection: credits are there so that none does.
            .set_rnr_retry(0)
            .build()?;
        let pool = pd.buffer_pool((receives + sends) as usize, HEADER + sizes.payload)?;
        let mut free: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        let mut received: Vec<_> =
            free.drain(..receives as usize).map(|buffer| (0, buffer)).collect();
        let mut qp = prepared.init()?;
        qp.post_recv_all(&mut received)?;
        Ok(Prepared { qp, cq, free, credits: Credits::new(sizes.ours, sizes.theirs) })
    }

    pub(crate) fn endpoint(&self) -> Result<QueuePairEndpoint> {
        Ok(self.qp.endpoint()?)
    }

    /// Connects to the peer that is at the other end of `tcp`, and tells it so with these words.
    pub(crate) fn connect(
        self,
        remote: QueuePairEndpoint,
        mut tcp: TcpStream,
        words: &[u8],
    ) -> Result<Link> {
        let Prepared { qp, cq, free, credits } = self;
        let qp = qp.ready_to_receive(remote)?.ready_to_send()?;
        tcp.write_all(words)?;
        tcp.set_nonblocking(true)?;
        Ok(Link { qp, cq, free, credits, tcp, read: Vec::new(), staged: Vec::new() })
    }
}

/// A message that has arrived, and must be [given back](Link::give_back).
pub(crate) struct Arrived {
    buffer: Buffer,
    len: usize,
}

impl Arrived {
    /// What it says.
    pub(crate) fn message(&self) -> Result<Message<'_>, Trouble> {
        Message::read(&self.buffer[..self.len]).map_err(Trouble::Wrong)
    }
}

/// A connection.
pub(crate) struct Link {
    qp: OwnedQueuePair<Rc>,
    cq: OwnedCompletionQueue,
    /// Buffers to send from.
    free: Vec<Buffer>,
    /// Those of messages that were read, to be posted again.
    read: Vec<(u64, Buffer)>,
    /// Messages to be sent with the next doorbell, and how long they are.
    staged: Vec<(Buffer, usize)>,
    credits: Credits,
    tcp: TcpStream,
}

impl Link {
    /// Stages a message, if it may be sent now: there are credits, and a buffer. `fill` writes its payload, and says
    /// how long that is. Returns whether it is.
    pub(crate) fn stage(&mut self, head: Head, fill: impl FnOnce(&mut [u8]) -> usize) -> bool {
        if self.free.is_empty() || !self.credits.take() {
            return false;
        }
        self.stage_last(head, fill);
        true
    }

    /// As [`stage`](Self::stage), for a message whose credit was taken.
    fn stage_last(&mut self, head: Head, fill: impl FnOnce(&mut [u8]) -> usize) {
        if let Some(mut buffer) = self.free.pop() {
            let (header, payload) = buffer.split_at_mut(HEADER);
            let len = fill(payload);
            head.write(header, len);
            self.staged.push((buffer, HEADER + len));
        }
    }

    /// A message that has arrived was read.
    pub(crate) fn give_back(&mut self, arrived: Arrived) {
        self.read.push((0, arrived.buffer));
    }

    /// Posts receives again, and sends what is staged; or credits alone, if there are many.
    pub(crate) fn flush(&mut self) -> Result<(), Trouble> {
        let count = self.read.len();
        self.qp.post_recv_all(&mut self.read)?;
        self.credits.posted(count);
        if self.staged.is_empty() && !self.free.is_empty() && self.credits.take_last() {
            self.stage_last(Head::Credits, |_| 0);
        }
        let Some(last) = self.staged.len().checked_sub(1) else { return Ok(()) };
        set_credits(&mut self.staged[0].0, self.credits.tell());
        let mut batch = self.qp.start_send();
        for (index, (buffer, len)) in self.staged.drain(..).enumerate() {
            // The last one's completion hands back the buffers of all.
            let op = batch.op();
            let op = if index == last { op } else { op.unsignaled() };
            op.send(0, buffer, len);
        }
        batch.submit().map_err(|failed| Trouble::Lost(failed.error.into()))
    }

    /// Waits until something completes, and adds the messages that have arrived. It may be that none has: then some
    /// were sent, or it has taken long.
    pub(crate) fn wait(&mut self, arrived: &mut Vec<Arrived>) -> Result<(), Trouble> {
        let begin = Instant::now();
        let completed = loop {
            let polled = self.cq.poll()?;
            if polled.is_some() || begin.elapsed() >= SPIN {
                break polled;
            }
            std::hint::spin_loop();
        };
        let completed = match completed {
            None => self.cq.wait(Some(ROUND))?,
            some => some,
        };
        let Some(completions) = completed else { return self.check_peer() };
        note(completions, &mut self.free, &mut self.credits, arrived).or_else(|failure| {
            // The peer may have said why.
            self.check_peer()?;
            Err(failure)
        })
    }

    /// An error if the peer is gone, or has said why it ends the connection.
    fn check_peer(&self) -> Result<(), Trouble> {
        match self.tcp.peek(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(Trouble::Lost(anyhow!(error).context("the peer is gone"))),
            Ok(_) => Err(farewell(&self.tcp, b"")),
        }
    }
}

/// What the peer has said at the end of the connection, of which these are the first bytes.
pub(crate) fn farewell(tcp: &TcpStream, first: &[u8]) -> Trouble {
    let mut words = first.to_vec();
    // What does not come in time is not waited for; what came before is looked at in any case.
    let _ = tcp.take(1000).read_to_end(&mut words);
    if words.is_empty() {
        return Trouble::Lost(anyhow!("the peer has ended"));
    }
    let words = String::from_utf8_lossy(&words);
    Trouble::Wrong(anyhow!("the peer says: {}", words.escape_debug()))
}

/// Takes what has completed: buffers that were sent are free, messages that were received have arrived.
fn note(
    mut completions: OwnedCompletions<'_>,
    free: &mut Vec<Buffer>,
    credits: &mut Credits,
    arrived: &mut Vec<Arrived>,
) -> Result<(), Trouble> {
    let mut result = Ok(());
    while let Some(mut completion) = completions.next() {
        if let Err(error) = completion.ok() {
            let is_ready = error.status != WcStatus::RNR_RETRY_EXC_ERR;
            let error = anyhow!(error).context("the connection has failed");
            // The first one says why, the others are flushed.
            result = result.and(Err(match is_ready {
                true => Trouble::Lost(error),
                false => {
                    Trouble::Wrong(error.context("the peer has no receive that it gave credit for"))
                }
            }));
        } else if completion.is_recv() {
            let len = completion.len();
            let Some(buffer) = completion.take() else { continue };
            let message = Arrived { buffer, len };
            let told = message.message().map(|message| message.credits);
            let told = told.and_then(|told| credits.told(told).map_err(Trouble::Wrong));
            result = result.and(told);
            arrived.push(message);
        } else {
            free.extend(std::iter::from_fn(|| completion.take()));
        }
    }
    result
}

/// Reads from a peer that may say anything, or nothing.
pub(crate) fn read_within<const N: usize>(
    tcp: &mut TcpStream,
    deadline: Instant,
) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut count = 0;
    while count < N {
        let left = deadline.saturating_duration_since(Instant::now());
        tcp.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match tcp.read(&mut bytes[count..]) {
            Ok(0) => return Err(anyhow!("the peer has ended")),
            Ok(more) => count += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("the peer does not answer"),
        }
    }
    Ok(bytes)
}
