//! What two processes say to each other that the connection manager has connected: the client writes a message into the
//! server's memory, the server another one into the client's, and so on. It does not say how either waits.

use anyhow::{ensure, Context as _, Result};
use ibverbs::rdmacm::ConnectionParams;
use ibverbs::{
    AccessFlags, CanReceive, CompletionQueue, Context, Init, MemoryRegion, Payload, QueuePair, Rc,
    RecvRequest, RemoteMemorySlice, WorkCompletion,
};

use crate::data::{check, fill};
use crate::inbox::Inbox;

/// What a connection request and its answer carry: which protocol this is, how many messages of which length there will
/// be each way, and where the peer may write them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Bytes per message.
    pub size: u32,
    /// How many messages each way.
    pub iters: u32,
    /// The memory for the peer's messages.
    pub inbox: RemoteMemorySlice,
}

impl Hello {
    /// The longest message: no more memory is given to whoever asks.
    pub const MAX_SIZE: u32 = 1 << 20;

    const MAGIC: [u8; 4] = *b"talk";
    const VERSION: u8 = 1;
    const BYTES: usize = 16 + RemoteMemorySlice::BYTES;

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&Self::MAGIC);
        bytes[4] = Self::VERSION;
        bytes[8..12].copy_from_slice(&self.size.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.iters.to_be_bytes());
        bytes[16..].copy_from_slice(&self.inbox.to_bytes());
        bytes
    }

    /// Reads what a peer has sent along, which may be anything.
    pub fn from_bytes(bytes: &[u8]) -> Result<Hello> {
        // Private data is filled up with zeros.
        let hello = bytes.get(..Self::BYTES).context("the greeting is too short")?;
        let word =
            |at: usize| hello[at..at + 4].iter().fold(0, |word, &byte| word << 8 | u32::from(byte));
        let (magic, version) = (&hello[..4], hello[4]);
        ensure!(magic == Self::MAGIC, "the peer is another program");
        ensure!(
            version == Self::VERSION,
            "version {} is spoken here, not {version}",
            Self::VERSION
        );
        let (size, iters) = (word(8), word(12));
        let inbox = RemoteMemorySlice::from_bytes(&hello[16..])?;
        ensure!((1..u32::MAX).contains(&iters), "{iters} messages are too few, or too many");
        ensure!(
            (1..=Self::MAX_SIZE).contains(&size),
            "{size} bytes per message are not 1 to {}",
            Self::MAX_SIZE
        );
        ensure!(
            inbox.len == size.into(),
            "a message has {size} bytes, and its place {}",
            inbox.len
        );
        Ok(Hello { size, iters, inbox })
    }
}

/// One side of the talk, with the memory of its messages.
///
/// It must outlive its queue pair, which may still use that memory: in a structure it stands below it, as a variable
/// it is declared before it.
pub struct Talk {
    is_server: bool,
    mine: Hello,
    /// Where messages go; a client learns it when it is connected.
    theirs: Option<RemoteMemorySlice>,
    out: MemoryRegion,
    inbox: Inbox,
    /// What arrived is checked here.
    copy: Vec<u8>,
    /// How many receives were posted, and how many have completed.
    posted: u32,
    received: u32,
    /// How many writes were posted, and how many have completed.
    begun: u32,
    written: u32,
}

impl Talk {
    /// The client's side, and its queue pair.
    pub fn client(
        (ctx, port): (&Context, u8),
        cq: &CompletionQueue,
        (size, iters): (u32, u32),
    ) -> Result<(Talk, QueuePair<Rc, Init>)> {
        Self::new((ctx, port), cq, (size, iters), None)
    }

    /// The server's side, and its queue pair, for a client that has sent this.
    pub fn server(
        (ctx, port): (&Context, u8),
        cq: &CompletionQueue,
        client: Hello,
    ) -> Result<(Talk, QueuePair<Rc, Init>)> {
        Self::new((ctx, port), cq, (client.size, client.iters), Some(client.inbox))
    }

    fn new(
        (ctx, port): (&Context, u8),
        cq: &CompletionQueue,
        (size, iters): (u32, u32),
        theirs: Option<RemoteMemorySlice>,
    ) -> Result<(Talk, QueuePair<Rc, Init>)> {
        let pd = ctx.alloc_pd()?;
        let out = pd.allocate(size as usize, AccessFlags::empty())?;
        let inbox = Inbox::new(&pd, size as usize)?;
        let mine = Hello { size, iters, inbox: inbox.remote() };
        let (is_server, copy) = (theirs.is_some(), vec![0; size as usize]);
        let mut talk = Talk {
            is_server,
            mine,
            theirs,
            out,
            inbox,
            copy,
            posted: 0,
            received: 0,
            begun: 0,
            written: 0,
        };
        let mut qp = pd.create_qp::<Rc>(cq, cq, port)?.build()?.init()?;
        // Once it is connected, the first message must find a receive.
        talk.post_receives(&mut qp)?;
        Ok((talk, qp))
    }

    /// What the connection request, or its answer, is to say.
    pub fn params(&self) -> ConnectionParams {
        ConnectionParams::new().set_private_data(self.mine.to_bytes())
    }

    /// Reads the server's answer to the connection request.
    pub fn answered(&mut self, private_data: &[u8]) -> Result<()> {
        let answer = Hello::from_bytes(private_data)?;
        let (agreed, asked) = ((answer.size, answer.iters), (self.mine.size, self.mine.iters));
        ensure!(agreed == asked, "the server agrees to {agreed:?}, but {asked:?} was asked for");
        self.theirs = Some(answer.inbox);
        Ok(())
    }

    /// Says what is to be said next, if it is this side's turn.
    pub fn go_on(&mut self, qp: &mut QueuePair<Rc>) -> Result<()> {
        self.post_receives(qp)?;
        let is_next = self.received + u32::from(!self.is_server) > self.begun;
        let is_free = self.written == self.begun;
        if !(is_next && is_free && self.begun < self.writes()) {
            return Ok(());
        }
        let message = self.number(self.begun, self.is_server);
        let theirs = self.theirs.context("the peer has not said where messages go")?;
        let mut batch = qp.start_send();
        let op = batch.op().signaled().imm(message as u32);
        if self.begun < self.mine.iters {
            fill(self.out.bytes_mut(), message);
            op.write(message, &[self.out.slice(..)], theirs);
        } else {
            op.write(message, Payload::EMPTY, theirs.slice(..0));
        }
        // SAFETY: the queue pair is dropped before the memory, as this structure demands. The memory is not written to
        // before this has completed: until then, it is not free. And there is a place for it, as for one at a time.
        unsafe { batch.submit() }?;
        self.begun += 1;
        Ok(())
    }

    /// Takes note of what has completed, and checks the message if one has arrived.
    pub fn note(&mut self, completion: &WorkCompletion<'_>) -> Result<()> {
        if !completion.opcode().is_recv() {
            self.written += 1;
            return Ok(());
        }
        let message = self.number(self.received, !self.is_server);
        let imm = completion.imm_data().context("a message came without its number")?;
        ensure!(imm == message as u32, "message {imm} came, and not {message}");
        if self.received < self.mine.iters {
            self.inbox.read(0, &mut self.copy);
            check(&self.copy, message)?;
        }
        self.received += 1;
        Ok(())
    }

    /// Whether all is said. A client then ends the connection.
    ///
    /// The server has been told by then that its last message has arrived. Whether that one completes here
    /// does not matter any more: the acknowledgement may be late.
    pub fn is_over(&self) -> bool {
        self.received == self.receives() && (self.is_server || self.written == self.writes())
    }

    /// Whether this is the server's side.
    pub fn is_server(&self) -> bool {
        self.is_server
    }

    /// What was said, to be printed at the end.
    pub fn summary(&self) -> String {
        let Hello { size, iters, .. } = self.mine;
        format!("{iters} messages of {size} bytes written each way and checked")
    }

    /// How many messages arrive: at the server also one without bytes, by which the client says that it has everything.
    fn receives(&self) -> u32 {
        self.mine.iters + u32::from(self.is_server)
    }

    fn writes(&self) -> u32 {
        self.mine.iters + u32::from(!self.is_server)
    }

    /// The number of the message that a side writes after `before` other ones.
    fn number(&self, before: u32, of_server: bool) -> u64 {
        2 * u64::from(before) + u64::from(of_server)
    }

    /// Posts receives: always one more than have completed, as long as there is something to come.
    fn post_receives<S: CanReceive>(&mut self, qp: &mut QueuePair<Rc, S>) -> Result<()> {
        while self.posted <= self.received && self.posted < self.receives() {
            // SAFETY: it has no memory.
            unsafe { qp.post_recv([RecvRequest::new(0, &[])]) }?;
            self.posted += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INBOX: RemoteMemorySlice = RemoteMemorySlice { addr: 1 << 40, len: 4096, rkey: 7 };
    const HELLO: Hello = Hello { size: 4096, iters: 1000, inbox: INBOX };

    fn refusal(change: impl FnOnce(&mut [u8])) -> String {
        let mut bytes = HELLO.to_bytes();
        change(&mut bytes);
        Hello::from_bytes(&bytes).unwrap_err().to_string()
    }

    #[test]
    fn a_greeting_arrives_filled_up_with_zeros() {
        let mut private_data = HELLO.to_bytes().to_vec();
        private_data.resize(56, 0);
        assert_eq!(Hello::from_bytes(&private_data).unwrap(), HELLO);
    }

    #[test]
    fn what_is_no_greeting_is_refused() {
        assert!(Hello::from_bytes(&[]).is_err());
        assert!(Hello::from_bytes(&[0; 56]).is_err());
        assert_eq!(refusal(|bytes| bytes[0] = b'T'), "the peer is another program");
        assert_eq!(refusal(|bytes| bytes[4] = 2), "version 1 is spoken here, not 2");
        assert!(refusal(|bytes| bytes[16] = 2).contains("remote memory slice"));
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        assert!(refusal(|bytes| bytes[8..12].fill(0xff)).contains("4294967295 bytes per message"));
        assert!(refusal(|bytes| bytes[8..12].fill(0)).contains("0 bytes per message"));
        assert!(refusal(|bytes| bytes[12..16].fill(0)).contains("too few"));
        assert_eq!(refusal(|bytes| bytes[11] = 1), "a message has 4097 bytes, and its place 4096");
    }
}
