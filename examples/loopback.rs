//! Sends messages from a queue pair to itself, through the device and back, and checks every byte.

use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use clap::Parser;
use ibverbs::{AccessFlags, RecvRequest};
use ibverbs_examples::{check, fill, wait, Common, Progress, Rate};

/// Send messages from a queue pair to itself, one after the other, and check every byte.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: Common,
}

const RECV: u64 = 1;
const SEND: u64 = 2;

fn main() -> Result<()> {
    let Options { common } = Options::parse();
    let (size, iters) = (common.size, common.iters);
    let opened = common.open()?;

    let cq = opened.context.create_cq(16).build()?;
    let pd = opened.context.alloc_pd()?;
    let recv = pd.allocate(size as usize, AccessFlags::LOCAL_WRITE)?;
    let mut send = pd.allocate(size as usize, AccessFlags::empty())?;
    let prepared = pd
        .create_qp::<ibverbs::Rc>(&cq, &cq, opened.port)?
        .set_gid_index(opened.gid_index)
        .build()?;
    // Two programs would exchange their endpoints over a connection of another kind: see rc_pingpong.
    let endpoint = prepared.endpoint()?;
    let mut qp = prepared.handshake(endpoint)?;

    let mut progress = Progress::new(iters);
    let mut time = Duration::ZERO;
    for message in 0..iters {
        fill(send.bytes_mut(), message);
        let start = Instant::now();
        let (from, to) = ([send.slice(..)], [recv.slice(..)]);
        // SAFETY: `recv` stays registered and untouched until its completion is polled below or,
        // should something fail, the queue pair is destroyed: created later, it is dropped earlier.
        unsafe { qp.post_recv([RecvRequest::new(RECV, &to)]) }?;
        let mut batch = qp.start_send();
        batch.op().signaled().send(SEND, &from);
        // SAFETY: `send` stays registered and is not written to for just as long.
        unsafe { batch.submit() }?;
        wait(&cq, 2, |completion| {
            if completion.wr_id() == RECV {
                ensure!(completion.len() == size, "{} of {size} bytes came", completion.len());
            }
            Ok(())
        })?;
        time += start.elapsed();
        check(recv.bytes(), message)?;
        progress.step(message + 1);
    }
    let rate = Rate { messages: iters, bytes: iters * u64::from(size), time };
    println!("{iters} messages of {size} bytes sent, received and checked: {rate}");
    Ok(())
}
