//! What a device has besides queue pairs: domains, memory, completion queues, shared receive queues, and where to tell of events.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Instant;

use rustix::io::Errno;
use rustix::time::{clock_gettime, ClockId};
use slab::Slab;

use super::completions::CompletionQueue;
use super::memory::{Checked, Memory, Region, Right, Who};
use super::shared_receives::SharedReceiveQueue;
use super::{limits, AsyncEvent, AsyncQueue, CqOwner, Owner, Result, WindowType};
use crate::transport::{
    Bind, Completion, Config, CqId, Host, MemoryError, PdId, QpEvent, RecvRequest, RemoteAccess,
    Sge, SrqId, Through,
};

/// The tables of a device, and the time.
#[derive(Debug)]
pub(crate) struct Parts {
    /// How many things refer to a domain.
    pds: Slab<usize>,
    memory: Memory,
    cqs: Slab<CompletionQueue>,
    srqs: Slab<SharedReceiveQueue>,
    /// Whom to tell about queue pairs.
    qp_owners: HashMap<u32, Owner>,
    /// Whom to tell about the device.
    watchers: Vec<Weak<AsyncQueue>>,
    /// How many registrations are to fail, and with what.
    failing: (u32, Errno),
    clock: Clock,
    now: Instant,
}

/// Relates the times of this program to those of `CLOCK_MONOTONIC`, which they are taken from.
#[derive(Clone, Copy, Debug)]
struct Clock {
    instant: Instant,
    nanos: u64,
}

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub(crate) fn nanos() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

impl Clock {
    /// Reads both clocks, a few times: those that were read within the shortest time belong together.
    fn new() -> Clock {
        let read = || {
            let instant = Instant::now();
            let nanos = nanos();
            (instant.elapsed(), Clock { instant, nanos })
        };
        let all = [(); 16].map(|()| read());
        all.into_iter().min_by_key(|(took, _)| *took).map_or_else(|| read().1, |(_, clock)| clock)
    }

    fn nanos(self, instant: Instant) -> u64 {
        self.nanos + instant.saturating_duration_since(self.instant).as_nanos() as u64
    }
}

/// Puts something into a table, if there is room.
fn insert<T>(table: &mut Slab<T>, max: u32, thing: T) -> Result<usize> {
    if table.len() >= max as usize {
        return Err(Errno::NOMEM);
    }
    Ok(table.insert(thing))
}

impl Parts {
    pub(crate) fn new() -> Parts {
        Parts {
            pds: Slab::new(),
            memory: Memory::new(),
            cqs: Slab::new(),
            srqs: Slab::new(),
            qp_owners: HashMap::new(),
            watchers: Vec::new(),
            failing: (0, Errno::NOMEM),
            clock: Clock::new(),
            now: Instant::now(),
        }
    }

    /// Looks at the clock: from here on, it is this time.
    pub(crate) fn tick(&mut self) -> Instant {
        self.now = Instant::now();
        self.now
    }

    /// The time of the last tick.
    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    pub(crate) fn watch(&mut self, queue: &Arc<AsyncQueue>) {
        self.watchers.retain(|queue| queue.strong_count() > 0);
        self.watchers.push(Arc::downgrade(queue));
    }

    /// Tells everybody what has happened to the device.
    pub(crate) fn tell(&self, event: AsyncEvent) {
        for queue in self.watchers.iter().filter_map(Weak::upgrade) {
            queue.push(event);
        }
    }

    /// Lets so many registrations fail.
    pub(crate) fn fail_registrations(&mut self, count: u32, errno: Errno) {
        self.failing = (count, errno);
    }

    pub(crate) fn alloc_pd(&mut self) -> Result<PdId> {
        insert(&mut self.pds, limits::MAX_PD, 0).map(PdId)
    }

    pub(crate) fn dealloc_pd(&mut self, pd: PdId) -> Result<()> {
        match self.pds.get(pd.0) {
            None => Err(Errno::INVAL),
            Some(0) => {
                self.pds.remove(pd.0);
                Ok(())
            }
            Some(_) => Err(Errno::BUSY),
        }
    }

    fn pd_users(&mut self, pd: PdId) -> Result<&mut usize> {
        self.pds.get_mut(pd.0).ok_or(Errno::INVAL)
    }

    /// # Safety
    ///
    /// As for [`Memory::insert`].
    pub(crate) unsafe fn register(&mut self, region: Region) -> Result<u32> {
        self.pd_users(region.pd)?;
        if let (count @ 1.., errno) = self.failing {
            self.failing.0 = count - 1;
            return Err(errno);
        }
        // SAFETY: the caller keeps what is asked for.
        let key = unsafe { self.memory.insert(region) }?;
        *self.pd_users(region.pd)? += 1;
        Ok(key)
    }

    pub(crate) fn deregister(&mut self, key: u32) -> Result<()> {
        let region = self.memory.remove(key)?;
        *self.pd_users(region.pd)? -= 1;
        Ok(())
    }

    pub(crate) fn alloc_window(&mut self, pd: PdId, kind: WindowType) -> Result<u32> {
        self.pd_users(pd)?;
        let key = self.memory.alloc_window(pd, kind)?;
        *self.pd_users(pd)? += 1;
        Ok(key)
    }

    pub(crate) fn free_window(&mut self, key: u32) -> Result<()> {
        let pd = self.memory.free_window(key)?;
        *self.pd_users(pd)? -= 1;
        Ok(())
    }

    pub(crate) fn create_cq(&mut self, entries: u32, owner: CqOwner) -> Result<CqId> {
        check_entries(entries)?;
        insert(&mut self.cqs, limits::MAX_CQ, CompletionQueue::new(entries, owner)).map(CqId)
    }

    pub(crate) fn cq(&mut self, cq: CqId) -> Result<&mut CompletionQueue> {
        self.cqs.get_mut(cq.0).ok_or(Errno::INVAL)
    }

    pub(crate) fn destroy_cq(&mut self, cq: CqId) -> Result<()> {
        if self.cq(cq)?.users > 0 {
            return Err(Errno::BUSY);
        }
        self.cqs.remove(cq.0);
        Ok(())
    }

    pub(crate) fn resize_cq(&mut self, cq: CqId, entries: u32) -> Result<()> {
        check_entries(entries)?;
        self.cq(cq)?.resize(entries)
    }

    pub(crate) fn create_srq(
        &mut self,
        pd: PdId,
        max_wr: u32,
        limit: u32,
        owner: Owner,
    ) -> Result<SrqId> {
        self.pd_users(pd)?;
        let srq = SharedReceiveQueue::new(pd, max_wr, limit, owner)?;
        let srq = insert(&mut self.srqs, limits::MAX_SRQ, srq)?;
        *self.pd_users(pd)? += 1;
        Ok(SrqId(srq))
    }

    pub(crate) fn srq(&mut self, srq: SrqId) -> Result<&mut SharedReceiveQueue> {
        self.srqs.get_mut(srq.0).ok_or(Errno::INVAL)
    }

    pub(crate) fn destroy_srq(&mut self, srq: SrqId) -> Result<()> {
        let it = self.srq(srq)?;
        if it.users > 0 {
            return Err(Errno::BUSY);
        }
        let pd = it.pd;
        self.srqs.remove(srq.0);
        *self.pd_users(pd)? -= 1;
        Ok(())
    }

    /// Checks that there is everything that a queue pair refers to.
    pub(crate) fn check_qp(&mut self, config: &Config) -> Result<()> {
        self.pd_users(config.pd)?;
        self.cq(config.send_cq)?;
        self.cq(config.recv_cq)?;
        if let Some(srq) = config.srq {
            self.srq(srq)?;
        }
        Ok(())
    }

    /// Keeps what a queue pair refers to, and whom to tell about it.
    pub(crate) fn add_qp(&mut self, config: &Config, owner: Owner) -> Result<()> {
        self.check_qp(config)?;
        self.qp_owners.insert(config.qp_num, owner);
        self.count_qp(config, |users| *users += 1)
    }

    /// The numbers of the queue pairs whose events go to this queue.
    pub(crate) fn qps_of(&self, async_queue: &Arc<AsyncQueue>) -> Vec<u32> {
        let is_its = |owner: &Owner| Arc::ptr_eq(&owner.async_queue, async_queue);
        self.qp_owners.iter().filter(|(_, owner)| is_its(owner)).map(|(qp, _)| *qp).collect()
    }

    /// Gives up what a queue pair refers to, withdraws the keys of its windows, and takes its completions away.
    pub(crate) fn remove_qp(&mut self, config: &Config) -> Result<()> {
        self.qp_owners.remove(&config.qp_num);
        self.memory.invalidate_all_of(config.qp_num);
        self.clean_qp(config)?;
        self.count_qp(config, |users| *users -= 1)
    }

    fn count_qp(&mut self, config: &Config, count: impl Fn(&mut usize)) -> Result<()> {
        count(self.pd_users(config.pd)?);
        count(&mut self.cq(config.send_cq)?.users);
        count(&mut self.cq(config.recv_cq)?.users);
        if let Some(srq) = config.srq {
            count(&mut self.srq(srq)?.users);
        }
        Ok(())
    }

    /// Takes a queue pair's completions out of its queues.
    pub(crate) fn clean_qp(&mut self, config: &Config) -> Result<()> {
        self.cq(config.send_cq)?.clean(config.qp_num);
        self.cq(config.recv_cq)?.clean(config.qp_num);
        Ok(())
    }
}

fn check_entries(entries: u32) -> Result<()> {
    if (1..=limits::MAX_CQE).contains(&entries) {
        Ok(())
    } else {
        Err(Errno::INVAL)
    }
}

/// The address of a byte of a scatter entry.
fn within(sge: &Sge, offset: u32) -> Checked<u64> {
    sge.addr.checked_add(u64::from(offset)).ok_or(MemoryError)
}

impl Host for Parts {
    fn read_local(&self, pd: PdId, sge: &Sge, offset: u32, to: &mut [u8]) -> Checked<()> {
        self.memory.read(Who::Program(pd), sge.lkey, within(sge, offset)?, to)
    }

    fn write_local(&self, pd: PdId, sge: &Sge, offset: u32, from: &[u8]) -> Checked<()> {
        self.memory.write(Who::Program(pd), sge.lkey, within(sge, offset)?, from)
    }

    fn check_local(&self, pd: PdId, sge: &Sge, write: bool) -> Checked<()> {
        let right = if write { Right::LocalWrite } else { Right::LocalRead };
        self.memory.check(Who::Program(pd), right, sge.lkey, sge.addr, sge.len)
    }

    fn check_remote(
        &self,
        through: Through,
        rkey: u32,
        addr: u64,
        len: u32,
        access: RemoteAccess,
    ) -> Checked<()> {
        self.memory.check(Who::Peer(through), Right::Remote(access), rkey, addr, len)
    }

    fn read_remote(&self, through: Through, rkey: u32, addr: u64, to: &mut [u8]) -> Checked<()> {
        self.memory.read(Who::Peer(through), rkey, addr, to)
    }

    fn write_remote(&self, through: Through, rkey: u32, addr: u64, from: &[u8]) -> Checked<()> {
        self.memory.write(Who::Peer(through), rkey, addr, from)
    }

    fn compare_swap(
        &self,
        through: Through,
        rkey: u32,
        addr: u64,
        compare: u64,
        swap: u64,
    ) -> Checked<u64> {
        let order = Ordering::SeqCst;
        self.memory.change(through, rkey, addr, |word| {
            word.compare_exchange(compare, swap, order, order).unwrap_or_else(|before| before)
        })
    }

    fn fetch_add(&self, through: Through, rkey: u32, addr: u64, add: u64) -> Checked<u64> {
        self.memory.change(through, rkey, addr, |word| word.fetch_add(add, Ordering::SeqCst))
    }

    fn bind_window(&mut self, through: Through, bind: &Bind) -> Checked<()> {
        self.memory.bind(through, bind)
    }

    fn invalidate(&mut self, through: Through, rkey: u32) -> Checked<()> {
        self.memory.invalidate(through, rkey)
    }

    fn complete(&mut self, cq: CqId, completion: Completion) {
        let timestamp = self.clock.nanos(self.now);
        if let Ok(cq) = self.cq(cq) {
            cq.push(completion, timestamp);
        }
    }

    fn take_shared_receive(&mut self, srq: SrqId) -> Option<RecvRequest> {
        self.srq(srq).ok()?.take()
    }

    fn raise(&mut self, qp_num: u32, event: QpEvent) {
        if let Some(owner) = self.qp_owners.get(&qp_num) {
            owner.async_queue.push(AsyncEvent::Qp(owner.token, event));
        }
    }
}
