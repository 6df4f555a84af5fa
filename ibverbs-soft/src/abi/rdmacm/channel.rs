//! Event channels.

use std::cell::UnsafeCell;
use std::sync::Arc;

use ibverbs_sys as ffi;

use crate::abi::object::{object, reclaim, Object, Place};
use crate::abi::pointer;
use crate::device::{CmChannel, Result};

/// An event channel.
#[repr(C)]
pub(super) struct EventChannel {
    raw: UnsafeCell<ffi::rdma_event_channel>,
    pub(super) queue: Arc<CmChannel>,
}

// SAFETY: `repr(C)`, and the structure for C comes first, in an `UnsafeCell`. The rest is `Sync`, and the pointer to it is never
// written.
unsafe impl Object for EventChannel {
    type Raw = ffi::rdma_event_channel;
}

pub(super) fn create() -> Result<*mut ffi::rdma_event_channel> {
    let queue = Arc::new(CmChannel::new()?);
    let raw = UnsafeCell::new(ffi::rdma_event_channel { fd: queue.as_raw_fd() });
    Ok(Place::new().fill(EventChannel { raw, queue }))
}

/// The queue of a channel.
///
/// # Safety
///
/// It is alive.
pub(super) unsafe fn queue(channel: *mut ffi::rdma_event_channel) -> Arc<CmChannel> {
    // SAFETY: by the caller's promise.
    Arc::clone(&unsafe { object::<EventChannel>(channel) }.queue)
}

pub(super) unsafe extern "C" fn create_event_channel() -> *mut ffi::rdma_event_channel {
    pointer(create())
}

pub(super) unsafe extern "C" fn destroy_event_channel(channel: *mut ffi::rdma_event_channel) {
    // SAFETY: the channel is not used any more (rdma_destroy_event_channel(3)).
    drop(unsafe { reclaim::<EventChannel>(channel) });
}
