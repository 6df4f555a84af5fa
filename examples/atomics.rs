//! A counter and a lock in remote memory. Several threads, each with a queue pair of its own, draw numbers
//! with fetch and add, and for each take the lock with compare and swap to change a record that it guards.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Result};
use clap::Parser;
use ibverbs::{AccessFlags, CompletionQueue, MemoryRegion, QueuePair, Rc, RemoteMemorySlice};
use ibverbs_examples::{check, fill, wait, Common, Rate};

/// Let threads change --size bytes in remote memory under a lock, --iters times in all.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: Common,
}

const THREADS: u64 = 4;

/// The remote memory: the counter, the lock, and the record, which is the number of its changes and the
/// bytes that belong to this number. Each number has eight bytes.
const COUNTER: usize = 0;
const LOCK: usize = 8;
const RECORD: usize = 16;
const NUMBER: usize = 8;

/// What the lock holds while no thread has it. Else that is the thread's number, from 1.
const FREE: u64 = 0;
/// How often to try to take it.
const ATTEMPTS: u64 = 100_000;

fn main() -> Result<()> {
    let Options { common } = Options::parse();
    let (size, iters) = (common.size as usize, common.iters);
    let opened = common.open()?;

    let pd = opened.context.alloc_pd()?;
    let mut memory = pd.allocate(RECORD + NUMBER + size, AccessFlags::PERMISSIVE)?;
    fill(&mut memory.bytes_mut()[RECORD + NUMBER..], 0);
    // SAFETY: only the clients are told of the memory. It is looked at here when their threads have ended,
    // with each request complete or its queue pair destroyed.
    let remote = unsafe { memory.remote() }?;
    let mut clients = Vec::new();
    for number in 1..=THREADS {
        let [(qp, cq), (peer, _)] = opened.pair(&pd)?;
        let local = pd.allocate(2 * NUMBER + size, AccessFlags::LOCAL_WRITE)?;
        clients.push(Client { qp, _peer: peer, cq, local, remote, number });
    }

    let start = Instant::now();
    let attempts = std::thread::scope(|scope| {
        let run = |client: Client| scope.spawn(move || client.run(iters));
        let threads: Vec<_> = clients.into_iter().map(run).collect();
        threads.into_iter().map(|thread| thread.join().expect("panic")).sum::<Result<u64>>()
    })?;
    let rate = Rate { messages: iters, bytes: 2 * iters * size as u64, time: start.elapsed() };
    let found = [COUNTER, LOCK, RECORD].map(|at| number(&memory.bytes()[at..]));
    let expected = [iters + THREADS, FREE, iters]; // each thread's last number was too high
    ensure!(found == expected, "counter, lock and changes are {found:?}, not {expected:?}");
    check(&memory.bytes()[RECORD + NUMBER..], iters)?;
    println!("{THREADS} threads read, checked and wrote {size} bytes {iters} times: {rate}");
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
    _peer: QueuePair<Rc>,
    cq: CompletionQueue,
    /// The result of an atomic operation, then a copy of the record.
    local: MemoryRegion,
    remote: RemoteMemorySlice,
    number: u64,
}

impl Client {
    /// Returns how often it tried to take the lock.
    fn run(mut self, iters: u64) -> Result<u64> {
        let mut attempts = 0;
        while self.draw()? < iters {
            attempts += self.lock()?;
            self.change_and_unlock()?;
        }
        Ok(attempts)
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

    /// Returns how many attempts it took.
    fn lock(&mut self) -> Result<u64> {
        let (result, lock) = (self.local.slice(..NUMBER), self.remote.slice(LOCK as u64..));
        for attempt in 1..=ATTEMPTS {
            let mut batch = self.qp.start_send();
            batch.op().signaled().atomic_cmp_swap(0, result, lock, FREE, self.number);
            // SAFETY: as in `draw`.
            unsafe { batch.submit() }?;
            if self.result()? == FREE {
                return Ok(attempt);
            }
            // Less and less often: each attempt slows down the thread that has the lock.
            std::thread::sleep(Duration::from_micros(1 << attempt.min(10)));
        }
        bail!("thread {} keeps the lock", number(self.local.bytes()))
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
