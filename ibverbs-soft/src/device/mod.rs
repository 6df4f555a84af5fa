//! A software device: its tables and queues. What moves packets for it is in the driver.

mod atomic;
mod calls;
mod cm;
mod completions;
mod events;
mod faults;
mod fork;
mod memory;
mod numbers;
mod open;
mod parts;
mod probe;
mod shared_receives;
mod windows;

use std::sync::Arc;

use rustix::io::Errno;

use crate::transport::Completion;

pub(crate) use cm::{CmChannel, CmEvent, CmOwner, Happened};
pub(crate) use events::{AsyncEvent, AsyncQueue, Channel};
pub(crate) use fork::{Generation, PerProcess};
pub(crate) use numbers::Numbered;
pub(crate) use open::{configure, count, is_efa, Device};
pub(crate) use parts::Parts;
pub(crate) use windows::WindowType;

pub(crate) type Result<T> = std::result::Result<T, Errno>;

/// A completion, with the time at which it was put into its queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) completion: Completion,
    /// Nanoseconds of the device's clock (`CLOCK_MONOTONIC`).
    pub(crate) timestamp: u64,
}

/// Rights of a memory region (`enum ibv_access_flags`, but for the optional ones).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) local_write: bool,
    pub(crate) remote_write: bool,
    pub(crate) remote_read: bool,
    pub(crate) remote_atomic: bool,
    /// Memory windows may be bound to it.
    pub(crate) windows: bool,
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
    /// Of writes and reads of reliable datagrams.
    pub(crate) const MAX_SRD_RDMA_SGE: u32 = 1;
    pub(crate) const MAX_INLINE: u32 = 1024;
    pub(crate) const MAX_CQ: u32 = 16_384;
    pub(crate) const MAX_CQE: u32 = 1 << 20;
    pub(crate) const MAX_MR: u32 = 1 << 16;
    pub(crate) const MAX_MW: u32 = 1 << 14;
    pub(crate) const MAX_MR_SIZE: u64 = 1 << 47;
    pub(crate) const MAX_PD: u32 = 16_384;
    pub(crate) const MAX_AH: u32 = 1 << 16;
    pub(crate) const MAX_SRQ: u32 = 16_384;
    pub(crate) const MAX_SRQ_WR: u32 = 16_384;
    /// Each takes a descriptor.
    pub(crate) const MAX_MCAST_GRP: u32 = 128;
    pub(crate) const MAX_MCAST_QP_ATTACH: u32 = 256;
    pub(crate) const MAX_RD_ATOMIC: u8 = 16;
    pub(crate) const COMP_VECTORS: u32 = 2;
}

/// Where in a list of requests one was refused, and why. Those before it were taken.
pub(crate) type Posted = std::result::Result<(), (usize, Errno)>;

#[cfg(test)]
mod tests;
