//! What is measured of a device: a reliable connection between two processes, or of a queue pair with itself.

use std::time::Instant;

use anyhow::{ensure, Context as _, Result};
use ibverbs::{
    AccessFlags, CompletionQueue, PreparedQueuePair, QueuePair, QueuePairEndpoint, Rc, RecvRequest,
    RemoteMemorySlice, SharedRegion,
};

use crate::peer::Lines;
use crate::{MESSAGE, PATIENCE, SIZE};

const PORT: u8 = 1;
/// How many long writes are posted with one doorbell, the last of which is signaled; and how many such batches are under way.
const BATCH: u64 = 8;
const BATCHES: u32 = 4;
/// How many receives are posted, and as many again when half of them were taken.
const RECEIVES: u32 = 64;

/// What goes to and fro.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Send,
    WriteWithImm,
}

/// A queue pair with its memory, in which short messages are in front of the long ones.
pub(crate) struct End<Q = QueuePair<Rc>> {
    qp: Q,
    cq: CompletionQueue,
    ours: SharedRegion,
    theirs: SharedRegion,
    remote: RemoteMemorySlice,
    /// Signaled sends that have not completed.
    pending: u32,
    /// Receives that are posted.
    receives: u32,
    /// Messages that have come, and nobody has asked for yet.
    came: u32,
}

impl End<PreparedQueuePair<Rc>> {
    pub(crate) fn prepare() -> Result<Self> {
        let devices = ibverbs::devices()?;
        let context = devices.get(0).context("there is no device")?.open()?;
        let gid = context.routable_gid(PORT)?.context("no GID")?;
        let cq = context.create_cq(2 * RECEIVES).build()?;
        let pd = context.alloc_pd()?;
        let ours = pd.allocate_shared(MESSAGE, AccessFlags::LOCAL_WRITE)?;
        let access = AccessFlags::LOCAL_WRITE | AccessFlags::REMOTE_WRITE;
        let theirs = pd.allocate_shared(MESSAGE, access)?;
        let qp = pd
            .create_qp::<Rc>(&cq, &cq, PORT)?
            .set_gid_index(gid.index().try_into()?)
            .set_max_send_wr(2 * BATCH as u32 * BATCHES)
            .set_max_recv_wr(RECEIVES)
            .set_max_inline_data(SIZE as u32)
            .set_access(AccessFlags::REMOTE_WRITE)
            .build()?;
        let remote = theirs.remote();
        Ok(End { qp, cq, ours, theirs, remote, pending: 0, receives: 0, came: 0 })
    }

    /// Exchanges endpoints and memory with the peer, as lines.
    pub(crate) fn connect(self, peer: &mut impl Lines) -> Result<End> {
        let own = [&self.qp.endpoint()?.to_bytes()[..], &self.remote.to_bytes()].concat();
        let own: String = own.iter().map(|byte| format!("{byte:02x}")).collect();
        let line = peer.exchange(&own)?;
        let byte = |place| u8::from_str_radix(line.get(place..place + 2).unwrap_or(""), 16);
        let bytes: Vec<u8> = (0..line.len()).step_by(2).map(byte).collect::<Result<_, _>>()?;
        let middle = bytes.len().saturating_sub(RemoteMemorySlice::BYTES);
        let (endpoint, remote) = bytes.split_at(middle);
        let remote = RemoteMemorySlice::from_bytes(remote)?;
        let End { qp, cq, ours, theirs, pending, receives, came, .. } = self;
        let qp = qp.handshake(QueuePairEndpoint::from_bytes(endpoint)?)?;
        let mut end = End { qp, cq, ours, theirs, remote, pending, receives, came };
        end.post_receives()?;
        Ok(end)
    }
}

impl End {
    fn post_receives(&mut self) -> Result<()> {
        let slot = [self.theirs.slice(..SIZE)];
        let mut requests = [(); RECEIVES as usize].map(|()| RecvRequest::shared(0, &slot));
        self.qp.post_recv_shared(&mut requests[self.receives as usize..])?;
        self.receives = RECEIVES;
        Ok(())
    }

    /// Sends a number.
    pub(crate) fn send(&mut self, kind: Kind, number: u64) -> Result<()> {
        let bytes = number.to_le_bytes();
        let mut batch = self.qp.start_shared();
        match kind {
            Kind::Send => batch.op().signaled().send(number, &bytes),
            Kind::WriteWithImm => {
                let remote = self.remote.slice(..SIZE as u64);
                batch.op().imm(number as u32).signaled().write(number, &bytes, remote);
            }
        }
        batch.submit()?;
        self.pending += 1;
        Ok(())
    }

    /// Waits for a number that the peer sends.
    pub(crate) fn receive(&mut self, kind: Kind, number: u64) -> Result<()> {
        self.poll_until(|end| end.came > 0)?;
        self.came -= 1;
        let mut bytes = [0; SIZE];
        self.theirs.read_at(0, &mut bytes);
        let kind = if kind == Kind::Send { "send" } else { "write" };
        ensure!(bytes == number.to_le_bytes(), "another {kind} than {number} came");
        if self.receives < RECEIVES / 2 {
            self.post_receives()?;
        }
        Ok(())
    }

    /// Writes long messages, and returns when all have completed; then the peer is told.
    pub(crate) fn write(&mut self, messages: u64) -> Result<()> {
        let mut left = messages;
        while left > 0 {
            self.poll_until(|end| end.pending < BATCHES)?;
            let mut batch = self.qp.start_shared();
            let (count, message) = (left.min(BATCH), [self.ours.slice(..)]);
            for number in 1..=count {
                let op = batch.op();
                let op = if number == count { op.signaled() } else { op };
                op.write(number, &message, self.remote);
            }
            batch.submit()?;
            self.pending += 1;
            left -= count;
        }
        self.drain()?;
        self.send(Kind::Send, messages)?;
        self.drain()
    }

    /// Polls while the peer writes, until it says that it has.
    pub(crate) fn take_writes(&mut self) -> Result<()> {
        self.poll_until(|end| end.came > 0)?;
        self.came -= 1;
        self.post_receives()
    }

    /// Waits until all sends have completed.
    pub(crate) fn drain(&mut self) -> Result<()> {
        self.poll_until(|end| end.pending == 0)
    }

    fn poll_until(&mut self, is_enough: impl Fn(&Self) -> bool) -> Result<()> {
        let start = Instant::now();
        while !is_enough(self) {
            let Some(mut completions) = self.cq.poll()? else {
                ensure!(start.elapsed() < PATIENCE, "nothing completed for {PATIENCE:?}");
                continue;
            };
            while let Some(completion) = completions.next() {
                completion.ok()?;
                if completion.opcode().is_recv() {
                    self.came += 1;
                    self.receives -= 1;
                } else {
                    self.pending -= 1;
                }
            }
        }
        Ok(())
    }
}
