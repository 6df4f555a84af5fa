//! A software device: its tables and queues, and what moves packets for it.

use std::net::IpAddr;
use std::sync::Arc;

use rustix::io::Errno;

use crate::options::Options;
use crate::transport::{
    Attributes, Completion, Config, CqId, PdId, QpEvent, RecvRequest, SendRequest, SrqId, State,
};

pub(crate) type Result<T> = std::result::Result<T, Errno>;

/// Says what the devices are like, before any is opened. What is said first counts.
pub(crate) fn configure(options: Options) {
    let _ = options;
    todo!()
}

/// How many devices there are.
pub(crate) fn count() -> usize {
    todo!()
}

/// A completion, with the time at which it was put into its queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) completion: Completion,
    /// Nanoseconds of the device's clock (`CLOCK_MONOTONIC`).
    pub(crate) timestamp: u64,
}

/// Where completion queues raise events: what is behind `ibv_comp_channel`. A token says which queue it was.
#[derive(Debug)]
pub(crate) struct Channel;

impl Channel {
    pub(crate) fn new() -> Result<Channel> {
        todo!()
    }
    /// A semaphore eventfd: one count for each event in the queue.
    pub(crate) fn as_raw_fd(&self) -> i32 {
        todo!()
    }
    /// Takes an event: blocks on the descriptor as its flags say (EAGAIN, EINTR).
    pub(crate) fn take(&self) -> Result<usize> {
        todo!()
    }
    /// Takes back the events of a queue that were not taken by anybody, and forgets the token. Returns how many of its events
    /// were taken: whoever destroys the queue waits until so many are acknowledged.
    pub(crate) fn take_back(&self, token: usize) -> u32 {
        let _ = token;
        todo!()
    }
}

/// What an asynchronous event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AsyncEvent {
    /// A queue pair, by its token.
    Qp(usize, QpEvent),
    /// A completion queue has overflown, by its token.
    CqError(usize),
    /// A shared receive queue has reached its limit, by its token.
    SrqLimit(usize),
    /// The device has failed.
    DeviceFatal,
}

/// The asynchronous events of one context; descriptor and taking as those of `Channel`.
#[derive(Debug)]
pub(crate) struct AsyncQueue;

impl AsyncQueue {
    pub(crate) fn new() -> Result<AsyncQueue> {
        todo!()
    }
    pub(crate) fn as_raw_fd(&self) -> i32 {
        todo!()
    }
    pub(crate) fn take(&self) -> Result<AsyncEvent> {
        todo!()
    }
    /// Takes back the events about an object that were not taken by anybody, and forgets the token. Returns how many of its
    /// events were taken.
    pub(crate) fn take_back(&self, token: usize) -> u32 {
        let _ = token;
        todo!()
    }
}

/// Rights of a memory region (`enum ibv_access_flags`, but for the optional ones).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) local_write: bool,
    pub(crate) remote_write: bool,
    pub(crate) remote_read: bool,
    pub(crate) remote_atomic: bool,
}

/// Where a completion queue tells what happens to it.
#[derive(Clone, Debug)]
pub(crate) struct CqOwner {
    pub(crate) token: usize,
    pub(crate) channel: Option<Arc<Channel>>,
    pub(crate) async_queue: Arc<AsyncQueue>,
}

/// Where a queue pair or a shared receive queue tells what happens to it.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub(crate) token: usize,
    pub(crate) async_queue: Arc<AsyncQueue>,
}

/// Limits that the device reports and enforces.
pub(crate) mod limits {
    pub(crate) const MAX_QP: u32 = 16_384;
    pub(crate) const MAX_QP_WR: u32 = 16_384;
    pub(crate) const MAX_SGE: u32 = 32;
    pub(crate) const MAX_INLINE: u32 = 1024;
    pub(crate) const MAX_CQ: u32 = 16_384;
    pub(crate) const MAX_CQE: u32 = 1 << 20;
    pub(crate) const MAX_MR: u32 = 1 << 16;
    pub(crate) const MAX_MR_SIZE: u64 = 1 << 47;
    pub(crate) const MAX_PD: u32 = 16_384;
    pub(crate) const MAX_AH: u32 = 1 << 16;
    pub(crate) const MAX_SRQ: u32 = 16_384;
    pub(crate) const MAX_SRQ_WR: u32 = 16_384;
    pub(crate) const MAX_RD_ATOMIC: u8 = 16;
    pub(crate) const COMP_VECTORS: u32 = 2;
}

/// An opened device, one for each address, shared by all contexts of the process.
#[derive(Debug)]
pub(crate) struct Device;

/// Where in a list of requests one was refused, and why. Those before it were taken.
pub(crate) type Posted = std::result::Result<(), (usize, Errno)>;

#[allow(unused_variables)]
impl Device {
    /// Opens the device with this place in the list, or joins those who have it open. Binds the socket; starts the engine.
    pub(crate) fn open(index: usize) -> Result<Arc<Device>> {
        todo!()
    }
    /// Whether this is a child of the process that opened it: all calls fail with `EIO`, and none waits for a lock.
    pub(crate) fn is_dead(&self) -> bool {
        todo!()
    }
    /// The device's address: its GID at index 1 (index 0 is link-local, made of the GUID).
    pub(crate) fn addr(&self) -> IpAddr {
        todo!()
    }
    pub(crate) fn gids(&self) -> [[u8; 16]; 2] {
        todo!()
    }
    pub(crate) fn guid(index: usize) -> u64 {
        todo!()
    }
    /// The largest path MTU in bytes: 256 to 4096.
    pub(crate) fn mtu(&self) -> u32 {
        todo!()
    }
    /// The network interface that has the address.
    pub(crate) fn netdev_index(&self) -> u32 {
        todo!()
    }
    /// Nanoseconds of the device's clock.
    pub(crate) fn clock(&self) -> u64 {
        todo!()
    }

    pub(crate) fn alloc_pd(&self) -> Result<PdId> {
        todo!()
    }
    /// `EBUSY` while anything refers to it.
    pub(crate) fn dealloc_pd(&self, pd: PdId) -> Result<()> {
        todo!()
    }
    /// Registers memory; returns its key, local and remote. `EFAULT` for what is not mapped.
    pub(crate) fn register(
        &self,
        pd: PdId,
        addr: u64,
        len: u64,
        iova: u64,
        access: Access,
    ) -> Result<u32> {
        todo!()
    }
    /// Returns when no copy into the region is running.
    pub(crate) fn deregister(&self, key: u32) -> Result<()> {
        todo!()
    }

    pub(crate) fn create_cq(&self, entries: u32, owner: CqOwner) -> Result<CqId> {
        todo!()
    }
    /// `EBUSY` while a queue pair refers to it.
    pub(crate) fn destroy_cq(&self, cq: CqId) -> Result<()> {
        todo!()
    }
    /// `EINVAL` if more are in it.
    pub(crate) fn resize_cq(&self, cq: CqId, entries: u32) -> Result<()> {
        todo!()
    }
    /// Arms the queue: the next completion (or the next solicited or failed one) raises an event.
    pub(crate) fn arm_cq(&self, cq: CqId, solicited_only: bool) -> Result<()> {
        todo!()
    }
    /// Takes the oldest completion. If there is none, receives and answers what is on the socket, and looks again.
    /// `EOVERFLOW` if completions were lost.
    pub(crate) fn poll_cq(&self, cq: CqId) -> Result<Option<Entry>> {
        todo!()
    }
    /// Takes the oldest completion that is there now, without looking at the socket.
    pub(crate) fn poll_more(&self, cq: CqId) -> Result<Option<Entry>> {
        todo!()
    }

    pub(crate) fn create_srq(
        &self,
        pd: PdId,
        max_wr: u32,
        limit: u32,
        owner: Owner,
    ) -> Result<SrqId> {
        todo!()
    }
    pub(crate) fn destroy_srq(&self, srq: SrqId) -> Result<()> {
        todo!()
    }
    /// `None` leaves one as it is.
    pub(crate) fn modify_srq(
        &self,
        srq: SrqId,
        max_wr: Option<u32>,
        limit: Option<u32>,
    ) -> Result<()> {
        todo!()
    }
    /// The size, and the limit, which is 0 when it was reached or never set.
    pub(crate) fn query_srq(&self, srq: SrqId) -> Result<(u32, u32)> {
        todo!()
    }
    pub(crate) fn post_srq_recv(
        &self,
        srq: SrqId,
        requests: &mut dyn Iterator<Item = Result<RecvRequest>>,
    ) -> Posted {
        todo!()
    }

    /// The number in `config` is chosen by the device, and returned.
    pub(crate) fn create_qp(&self, config: Config, owner: Owner) -> Result<u32> {
        todo!()
    }
    /// Completions of the queue pair are taken out of its queues.
    pub(crate) fn destroy_qp(&self, qp_num: u32) -> Result<()> {
        todo!()
    }
    /// Calls `change` with the state and the attributes; it returns the state to go to, or why it refuses.
    pub(crate) fn modify_qp(
        &self,
        qp_num: u32,
        change: &mut dyn FnMut(State, &mut Attributes) -> Result<State>,
    ) -> Result<()> {
        todo!()
    }
    /// The state, whether it is draining, and the attributes.
    pub(crate) fn query_qp(&self, qp_num: u32) -> Result<(State, bool, Attributes)> {
        todo!()
    }
    /// Posts all, or none (`ENOMEM`, or `EINVAL` in a state that does not take sends).
    pub(crate) fn post_send_all(&self, qp_num: u32, requests: Vec<SendRequest>) -> Result<()> {
        todo!()
    }
    /// Posts one after the other.
    pub(crate) fn post_send(
        &self,
        qp_num: u32,
        requests: &mut dyn Iterator<Item = Result<SendRequest>>,
    ) -> Posted {
        todo!()
    }
    pub(crate) fn post_recv(
        &self,
        qp_num: u32,
        requests: &mut dyn Iterator<Item = Result<RecvRequest>>,
    ) -> Posted {
        todo!()
    }
}
