//! Sends messages from a queue pair to itself, through the device and back, and checks every byte.

use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _, Result};
use clap::{value_parser, Parser};
use ibverbs::{AccessFlags, CompletionQueue, RecvRequest};
use ibverbs_examples::Local;

/// Send messages from a queue pair to itself and check every byte.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    local: Local,

    /// Bytes per message
    #[arg(short, long, default_value_t = 4096, value_parser = value_parser!(u32).range(1..))]
    size: u32,

    /// How many messages to send, one after the other
    #[arg(short = 'n', long, default_value_t = 1000, value_parser = value_parser!(u64).range(1..))]
    iters: u64,
}

const RECV: u64 = 1;
const SEND: u64 = 2;

fn main() -> Result<()> {
    let Options { local, size, iters } = Options::parse();
    let opened = local.open()?;
    println!("{opened}");
    let longest = opened.context.query_port(opened.port)?.max_msg_size();
    ensure!(size <= longest, "--size {size} is more than the port can send at once: {longest}");

    let cq = opened.context.create_cq(16).build()?;
    let pd = opened.context.alloc_pd()?;
    let recv = pd.allocate(size as usize, AccessFlags::LOCAL_WRITE)?;
    let mut send = pd.allocate(size as usize, AccessFlags::empty())?;
    let prepared = pd
        .create_qp::<ibverbs::Rc>(&cq, &cq, opened.port)?
        .set_gid_index(opened.gid_index)
        .build()?;
    // Two programs would exchange their endpoints over a connection of another kind.
    let endpoint = prepared.endpoint()?;
    let mut qp = prepared.handshake(endpoint)?;

    let mut progress = Progress::new(iters);
    let mut moving = Duration::ZERO;
    for iteration in 0..iters {
        fill(send.bytes_mut(), iteration);
        let start = Instant::now();
        let (from, to) = ([send.slice(..)], [recv.slice(..)]);
        // SAFETY: `recv` stays registered and untouched until its completion is polled below or,
        // should something fail, the queue pair is destroyed: created later, it is dropped earlier.
        unsafe { qp.post_recv([RecvRequest::new(RECV, &to)]) }?;
        let mut batch = qp.start_send();
        batch.op().signaled().send(SEND, &from);
        // SAFETY: `send` stays registered and is not written to for just as long.
        unsafe { batch.submit() }?;
        wait_for_both(&cq, size)?;
        moving += start.elapsed();
        check(recv.bytes(), iteration)?;
        progress.step(iteration + 1);
    }
    report(size, iters, moving);
    Ok(())
}

/// Polls until the send and the receive have completed.
fn wait_for_both(cq: &CompletionQueue, size: u32) -> Result<()> {
    let mut pending = 2;
    while pending > 0 {
        let Some(mut completions) = cq.poll()? else { continue };
        while let Some(completion) = completions.next() {
            let what = if completion.wr_id() == RECV { "receive" } else { "send" };
            completion.ok().with_context(|| format!("the {what} failed"))?;
            if completion.wr_id() == RECV {
                ensure!(completion.len() == size, "{} of {size} bytes came", completion.len());
            }
            pending -= 1;
        }
    }
    Ok(())
}

/// The byte that message number `iteration` has at `offset`: another one than the message before.
fn pattern(iteration: u64, offset: usize) -> u8 {
    (iteration as usize ^ offset ^ offset >> 8 ^ offset >> 16) as u8
}

fn fill(bytes: &mut [u8], iteration: u64) {
    for (offset, byte) in bytes.iter_mut().enumerate() {
        *byte = pattern(iteration, offset);
    }
}

fn check(bytes: &[u8], iteration: u64) -> Result<()> {
    for (offset, &byte) in bytes.iter().enumerate() {
        let sent = pattern(iteration, offset);
        ensure!(byte == sent, "message {iteration}: byte {offset} is {byte:#04x}, not {sent:#04x}");
    }
    Ok(())
}

/// Says every five seconds how far it is.
struct Progress {
    iters: u64,
    said: Instant,
}

impl Progress {
    fn new(iters: u64) -> Progress {
        Progress { iters, said: Instant::now() }
    }

    fn step(&mut self, done: u64) {
        if self.said.elapsed() >= Duration::from_secs(5) && done < self.iters {
            eprintln!("{done} of {} messages", self.iters);
            self.said = Instant::now();
        }
    }
}

/// Says what was moved and how fast, not counting the time that filling and checking took.
fn report(size: u32, iters: u64, moving: Duration) {
    let seconds = moving.as_secs_f64();
    let bytes = iters * u64::from(size);
    println!(
        "{iters} messages of {size} bytes sent, received and checked: {bytes} bytes in {seconds:.3} s, \
         {:.0} messages/s, {:.3} GiB/s, {:.1} us per message",
        iters as f64 / seconds,
        bytes as f64 / seconds / f64::from(1 << 30),
        seconds * 1e6 / iters as f64,
    );
}
