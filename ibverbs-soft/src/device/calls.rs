//! What can be asked of an open device.

use std::net::IpAddr;
use std::sync::Arc;

use rustix::io::Errno;

use super::memory::Region;
use super::{
    limits, parts, probe, Access, AsyncQueue, CqOwner, Device, Entry, Owner, Posted, Result,
    WindowType,
};
use crate::transport::{
    Attributes, Config, CqId, PdId, QueuePair, RecvRequest, SendRequest, SrqId, State,
};

impl Device {
    /// Nanoseconds of the device's clock.
    pub(crate) fn clock(&self) -> u64 {
        parts::nanos()
    }

    pub(crate) fn alloc_pd(&self) -> Result<PdId> {
        self.lock()?.parts.alloc_pd()
    }

    /// `EBUSY` while anything refers to it.
    pub(crate) fn dealloc_pd(&self, pd: PdId) -> Result<()> {
        self.lock_anyhow()?.parts.dealloc_pd(pd)
    }

    /// Registers memory; returns its key, local and remote. `EFAULT` for what is not mapped.
    ///
    /// # Safety
    ///
    /// The memory must stay mapped, with the rights that it has, until it is deregistered. (An adapter keeps the pages for itself;
    /// this device has the program's.) What the program does with it meanwhile must take into account that the device reads
    /// and writes it.
    pub(crate) unsafe fn register(
        &self,
        pd: PdId,
        addr: u64,
        len: u64,
        iova: u64,
        access: Access,
    ) -> Result<u32> {
        let region = Region { pd, addr, len, iova, access };
        region.check()?;
        // Not under the lock: it may take long.
        probe::probe(addr, len, access.writes())?;
        // SAFETY: the kernel has just said that the memory is there and allows it, and the caller leaves it so.
        unsafe { self.lock()?.parts.register(region) }
    }

    /// Returns when no copy into the region is running. `EBUSY` while a window is bound to it.
    pub(crate) fn deregister(&self, key: u32) -> Result<()> {
        // All copies are made under the lock.
        self.lock_anyhow()?.parts.deregister(key)
    }

    /// Allocates a memory window that is bound to nothing; returns its key.
    pub(crate) fn alloc_window(&self, pd: PdId, kind: WindowType) -> Result<u32> {
        self.lock()?.parts.alloc_window(pd, kind)
    }

    /// Frees the window that has this key or had it. Its key is withdrawn when this returns, and no copy is running by it.
    pub(crate) fn free_window(&self, key: u32) -> Result<()> {
        self.lock_anyhow()?.parts.free_window(key)
    }

    pub(crate) fn create_cq(&self, entries: u32, owner: CqOwner) -> Result<CqId> {
        self.lock()?.parts.create_cq(entries, owner)
    }

    /// `EBUSY` while a queue pair refers to it.
    pub(crate) fn destroy_cq(&self, cq: CqId) -> Result<()> {
        self.lock_anyhow()?.parts.destroy_cq(cq)
    }

    /// `EINVAL` if more are in it.
    pub(crate) fn resize_cq(&self, cq: CqId, entries: u32) -> Result<()> {
        self.lock()?.parts.resize_cq(cq, entries)
    }

    /// Arms the queue: the next completion (or the next solicited or failed one) raises an event.
    pub(crate) fn arm_cq(&self, cq: CqId, solicited_only: bool) -> Result<()> {
        self.lock_anyhow()?.arm_cq(cq, solicited_only)
    }

    /// Takes the oldest completion. If there is none, receives and answers what is on the socket, and looks again.
    /// `EOVERFLOW` if completions were lost.
    pub(crate) fn poll_cq(&self, cq: CqId) -> Result<Option<Entry>> {
        let mut engine = self.lock_anyhow()?;
        let entry = engine.parts.cq(cq)?.pop()?;
        if entry.is_some() || !engine.note_empty_poll() {
            return Ok(entry);
        }
        engine.look(|parts| parts.cq(cq).is_ok_and(|cq| !cq.is_empty()));
        engine.parts.cq(cq)?.pop()
    }

    /// Takes the oldest completion that is there now, without looking at the socket.
    pub(crate) fn poll_more(&self, cq: CqId) -> Result<Option<Entry>> {
        self.lock_anyhow()?.parts.cq(cq)?.pop()
    }

    pub(crate) fn create_srq(
        &self,
        pd: PdId,
        max_wr: u32,
        limit: u32,
        owner: Owner,
    ) -> Result<SrqId> {
        self.lock()?.parts.create_srq(pd, max_wr, limit, owner)
    }

    /// `EBUSY` while a queue pair refers to it.
    pub(crate) fn destroy_srq(&self, srq: SrqId) -> Result<()> {
        self.lock_anyhow()?.parts.destroy_srq(srq)
    }

    /// `None` leaves one as it is.
    pub(crate) fn modify_srq(
        &self,
        srq: SrqId,
        max_wr: Option<u32>,
        limit: Option<u32>,
    ) -> Result<()> {
        self.lock()?.parts.srq(srq)?.modify(max_wr, limit)
    }

    /// The size, and the limit, which is 0 when it was reached or never set.
    pub(crate) fn query_srq(&self, srq: SrqId) -> Result<(u32, u32)> {
        Ok(self.lock()?.parts.srq(srq)?.query())
    }

    pub(crate) fn post_srq_recv(
        &self,
        srq: SrqId,
        requests: &mut dyn Iterator<Item = Result<RecvRequest>>,
    ) -> Posted {
        let mut engine = self.lock().map_err(|error| (0, error))?;
        let srq = engine.parts.srq(srq).map_err(|error| (0, error))?;
        one_after_the_other(requests, |request| srq.post(request))
    }

    /// The number in `config` is chosen by the device, and returned.
    pub(crate) fn create_qp(&self, config: Config, owner: Owner) -> Result<u32> {
        if config.max_send_wr > limits::MAX_QP_WR || config.max_recv_wr > limits::MAX_QP_WR {
            return Err(Errno::INVAL);
        }
        self.lock()?.create_qp(config, owner)
    }

    /// Attaches a queue pair to a multicast group; once more is as once.
    pub(crate) fn attach(&self, qp_num: u32, group: IpAddr) -> Result<()> {
        self.lock()?.attach(qp_num, group)
    }

    /// Detaches a queue pair from a multicast group; `EINVAL` if it is not attached.
    pub(crate) fn detach(&self, qp_num: u32, group: IpAddr) -> Result<()> {
        self.lock_anyhow()?.detach(qp_num, group)
    }

    /// Has the device in a multicast group, whatever is attached, until it leaves as often.
    pub(crate) fn join(&self, group: IpAddr) -> Result<()> {
        self.lock()?.join(group)
    }

    /// Undoes one `join`; `EINVAL` if there is none.
    pub(crate) fn leave(&self, group: IpAddr) -> Result<()> {
        self.lock_anyhow()?.leave(group)
    }

    /// Completions of the queue pair are taken out of its queues. `EBUSY` while it is attached to a multicast group.
    pub(crate) fn destroy_qp(&self, qp_num: u32) -> Result<()> {
        self.lock_anyhow()?.destroy_qp(qp_num)
    }

    /// Destroys all queue pairs whose events go to this queue, whatever they are attached to.
    pub(crate) fn destroy_qps_of(&self, async_queue: &Arc<AsyncQueue>) -> Result<()> {
        let mut engine = self.lock_anyhow()?;
        engine.parts.qps_of(async_queue).into_iter().try_for_each(|qp| engine.abandon_qp(qp))
    }

    /// Calls `change` with the state and the attributes; it returns the state to go to, or why it refuses.
    pub(crate) fn modify_qp(
        &self,
        qp_num: u32,
        change: &mut dyn FnMut(State, &mut Attributes) -> Result<State>,
    ) -> Result<()> {
        let mut engine = self.lock()?;
        let now = engine.parts.tick();
        let (qp, parts) = engine.qp_and_parts(qp_num)?;
        let mut attributes = *qp.attributes();
        let state = change(qp.state(), &mut attributes)?;
        qp.modify(now, state, attributes, parts);
        if state == State::Reset {
            let config = *qp.config();
            parts.clean_qp(&config)?;
        }
        engine.move_packets_of(qp_num);
        Ok(())
    }

    /// The state, whether it is draining, and the attributes.
    pub(crate) fn query_qp(&self, qp_num: u32) -> Result<(State, bool, Attributes)> {
        let mut engine = self.lock()?;
        let qp = engine.qp(qp_num)?;
        Ok((qp.state(), qp.is_draining(), *qp.attributes()))
    }

    /// Posts all, or none (`ENOMEM`, or `EINVAL` in a state that does not take sends).
    pub(crate) fn post_send_all(&self, qp_num: u32, requests: Vec<SendRequest>) -> Result<()> {
        let mut engine = self.lock()?;
        let now = engine.parts.tick();
        let (qp, parts) = engine.qp_and_parts(qp_num)?;
        check_sends(qp, requests.len())?;
        for request in requests {
            qp.post_send(now, request, parts);
        }
        engine.move_packets_of(qp_num);
        Ok(())
    }

    /// Posts one after the other.
    pub(crate) fn post_send(
        &self,
        qp_num: u32,
        requests: &mut dyn Iterator<Item = Result<SendRequest>>,
    ) -> Posted {
        let mut engine = self.lock().map_err(|error| (0, error))?;
        let now = engine.parts.tick();
        let (qp, parts) = engine.qp_and_parts(qp_num).map_err(|error| (0, error))?;
        let posted = one_after_the_other(requests, |request| {
            check_sends(qp, 1)?;
            qp.post_send(now, request, parts);
            Ok(())
        });
        engine.move_packets_of(qp_num);
        posted
    }

    pub(crate) fn post_recv(
        &self,
        qp_num: u32,
        requests: &mut dyn Iterator<Item = Result<RecvRequest>>,
    ) -> Posted {
        let mut engine = self.lock().map_err(|error| (0, error))?;
        engine.parts.tick();
        let (qp, parts) = engine.qp_and_parts(qp_num).map_err(|error| (0, error))?;
        one_after_the_other(requests, |request| {
            if qp.config().srq.is_some() || qp.state() == State::Reset {
                return Err(Errno::INVAL);
            }
            if qp.recv_room() == 0 {
                return Err(Errno::NOMEM);
            }
            qp.post_recv(request, parts);
            Ok(())
        })
    }
}

/// Whether so many sends can be posted now.
fn check_sends(qp: &QueuePair, count: usize) -> Result<()> {
    match qp.state() {
        State::Reset | State::Init | State::ReadyToReceive => Err(Errno::INVAL),
        _ if qp.send_room() < count => Err(Errno::NOMEM),
        _ => Ok(()),
    }
}

/// Posts requests until one is refused, and says which.
fn one_after_the_other<R>(
    requests: &mut dyn Iterator<Item = Result<R>>,
    mut post: impl FnMut(R) -> Result<()>,
) -> Posted {
    for (place, request) in requests.enumerate() {
        request.and_then(&mut post).map_err(|error| (place, error))?;
    }
    Ok(())
}
