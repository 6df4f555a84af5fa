//! A counter and a lock in remote memory. Several threads, each with a queue pair of its own, draw numbers
//! with fetch and add, and for each take the lock with compare and swap to change a record that it guards.

use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use clap::Parser;
use ibverbs::{AccessFlags, CompletionQueue, MemoryRegion, QueuePair, Rc, RemoteMemorySlice};
use ibverbs_examples::{check, fill, wait, Common, Rate};

/// Let threads change --size bytes in remote memory under a lock, --iters times in all.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: Common,

    /// How many threads contend for the lock
    #[arg(short, long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
    threads: u64,
}

/// The remote memory: the counter, the lock, and the record, which is the number of its changes and the
/// bytes that belong to this number.
const COUNTER: usize = 0;
const LOCK: usize = 8;
const RECORD: usize = 16;
/// The length of each number.
const NUMBER: usize = 8;

/// What the lock holds while no thread has it. Else that is the thread's number, from 1.
const FREE: u64 = 0;
/// How long to wait for the lock.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest pause between two attempts to take it.
const MAX_PAUSE: Duration = Duration::from_millis(1);

fn main() -> Result<()> {
    let Options { common, threads } = Options::parse();
    let (size, iters) = (common.size as usize, common.iters);
    let opened = common.open()?;

    let pd = opened.context.alloc_pd()?;
    let mut memory = pd.allocate(RECORD + NUMBER + size, AccessFlags::PERMISSIVE)?;
    fill(&mut memory.bytes_mut()[RECORD + NUMBER..], 0);
    // SAFETY: only the clients are told of the memory. It is looked at here when their threads have ended,
    // with each request complete or its queue pair destroyed.
    let remote = unsafe { memory.remote() }?;
    let peer_cq = opened.context.create_cq(1).build()?;
    let (mut clients, mut peers) = (Vec::new(), Vec::new());
    for number in 1..=threads {
        let cq = opened.context.create_cq(1).build()?;
        let (qp, peer) = opened.pair(&pd, [&cq, &peer_cq])?;
        let local = pd.allocate(2 * NUMBER + size, AccessFlags::LOCAL_WRITE)?;
        clients.push(Client { qp, cq, local, remote, number, attempts: 0 });
        peers.push(peer);
    }

    let start = Instant::now();
    let results: Vec<_> = std::thread::scope(|scope| {
        let start = |client: Client| scope.spawn(move || client.run(iters));
        let running: Vec<_> = clients.into_iter().map(start).collect();
        running.into_iter().map(|thread| thread.join().expect("a thread panicked")).collect()
    });
    let time = start.elapsed();
    let (mut drawn, mut attempts) = (Vec::new(), 0);
    for result in results {
        let (numbers, tries) = result?;
        drawn.extend(numbers);
        attempts += tries;
    }

    drawn.sort_unstable();
    ensure!(drawn.into_iter().eq(0..iters), "a number was drawn twice, or not at all");
    let number_at = |offset| number(&memory.bytes()[offset..]);
    // The last number that each thread drew was too high.
    let (counter, expected) = (number_at(COUNTER), iters + threads);
    ensure!(counter == expected, "the counter is {counter}, not {expected}");
    ensure!(number_at(LOCK) == FREE, "thread {} still has the lock", number_at(LOCK));
    ensure!(number_at(RECORD) == iters, "{} of {iters} changes were made", number_at(RECORD));
    check(&memory.bytes()[RECORD + NUMBER..], iters)?;
    let rate = Rate { messages: iters, bytes: 2 * iters * size as u64, time };
    println!("{threads} threads read, checked and wrote {size} bytes {iters} times: {rate}");
    println!("    it took {attempts} attempts to take the lock");
    Ok(())
}

/// The number that the bytes begin with. Atomics have it in host order.
fn number(bytes: &[u8]) -> u64 {
    u64::from_ne_bytes(bytes[..NUMBER].try_into().expect("the length of a number"))
}

/// A thread's queue pair. It stands above the memory that it uses, and is dropped first.
struct Client {
    qp: QueuePair<Rc>,
    cq: CompletionQueue,
    /// The result of an atomic operation, then a copy of the record.
    local: MemoryRegion,
    remote: RemoteMemorySlice,
    number: u64,
    attempts: u64,
}

impl Client {
    /// Returns the numbers that it has drawn, and how often it tried to take the lock.
    fn run(mut self, iters: u64) -> Result<(Vec<u64>, u64)> {
        let mut drawn = Vec::new();
        loop {
            let number = self.draw()?;
            if number >= iters {
                return Ok((drawn, self.attempts));
            }
            drawn.push(number);
            self.lock()?;
            self.change_and_unlock()?;
        }
    }

    fn draw(&mut self) -> Result<u64> {
        let (result, counter) = (self.local.slice(..NUMBER), self.remote.slice(COUNTER as u64..));
        let mut batch = self.qp.start_send();
        batch.op().signaled().atomic_fetch_add(0, result, counter, 1);
        // SAFETY: `local` is not touched until the completion is polled, by `result`, or `run` has failed
        // and drops the queue pair.
        unsafe { batch.submit() }?;
        self.result()
    }

    fn lock(&mut self) -> Result<()> {
        let start = Instant::now();
        let (result, lock) = (self.local.slice(..NUMBER), self.remote.slice(LOCK as u64..));
        let mut pause = Duration::from_micros(1);
        loop {
            self.attempts += 1;
            let mut batch = self.qp.start_send();
            batch.op().signaled().atomic_cmp_swap(0, result, lock, FREE, self.number);
            // SAFETY: as in `draw`.
            unsafe { batch.submit() }?;
            match self.result()? {
                FREE => return Ok(()),
                owner => ensure!(start.elapsed() < PATIENCE, "thread {owner} keeps the lock"),
            }
            // Each attempt takes a part of the link and of the device from whoever has the lock.
            std::thread::sleep(pause);
            pause = MAX_PAUSE.min(2 * pause);
        }
    }

    fn change_and_unlock(&mut self) -> Result<()> {
        let (result, lock) = (self.local.slice(..NUMBER), self.remote.slice(LOCK as u64..));
        let (copy, record) = ([self.local.slice(NUMBER..)], self.remote.slice(RECORD as u64..));
        let mut batch = self.qp.start_send();
        batch.op().signaled().read(0, &copy, record);
        // SAFETY: as in `draw`, with the completion polled in the next line.
        unsafe { batch.submit() }?;
        wait(&self.cq, 1, |_| Ok(()))?;
        let (changes, bytes) = self.local.bytes_mut()[NUMBER..].split_at_mut(NUMBER);
        let count = number(changes);
        check(bytes, count)?;
        changes.copy_from_slice(&(count + 1).to_ne_bytes());
        fill(bytes, count + 1);
        // One doorbell and one completion: requests of a queue pair are carried out in order.
        let mut batch = self.qp.start_send();
        batch.op().write(0, &copy, record);
        batch.op().signaled().atomic_cmp_swap(0, result, lock, self.number, FREE);
        // SAFETY: as in `draw`.
        unsafe { batch.submit() }?;
        let owner = self.result()?;
        ensure!(owner == self.number, "{owner} had the lock of thread {}", self.number);
        Ok(())
    }

    /// Waits for an atomic operation, and returns the number that was there before it.
    fn result(&self) -> Result<u64> {
        wait(&self.cq, 1, |_| Ok(()))?;
        Ok(number(self.local.bytes()))
    }
}
