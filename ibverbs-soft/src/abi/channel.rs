//! Completion channels and their events.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;

use ibverbs_sys as ffi;
use rustix::io::Errno;

use super::context::{shared, Shared};
use super::cq::Cq;
use super::object::{by_token, object, reclaim, Object, Place};
use super::{code, minus_one, pointer};
use crate::device::{Channel, Result};

/// A completion channel.
#[repr(C)]
pub(super) struct CompChannel {
    raw: UnsafeCell<ffi::ibv_comp_channel>,
    pub(super) used: Arc<Used>,
}

// SAFETY: `repr(C)`, and the structure for C comes first, in an `UnsafeCell`. The rest is `Sync`, and the pointer to it is
// never written.
unsafe impl Object for CompChannel {
    type Raw = ffi::ibv_comp_channel;
}

/// Every completion queue of a channel keeps this.
pub(super) struct Used {
    pub(super) channel: Arc<Channel>,
    /// Keeps the context open.
    _shared: Arc<Shared>,
}

pub(super) unsafe extern "C" fn create_comp_channel(
    context: *mut ffi::ibv_context,
) -> *mut ffi::ibv_comp_channel {
    // SAFETY: the device is open (ibv_create_comp_channel(3)).
    let shared = unsafe { shared(context) };
    pointer(create(context, shared))
}

fn create(
    context: *mut ffi::ibv_context,
    shared: &Arc<Shared>,
) -> Result<*mut ffi::ibv_comp_channel> {
    let channel = Arc::new(Channel::new()?);
    let raw = ffi::ibv_comp_channel { context, fd: channel.as_raw_fd(), refcnt: 0 };
    let used = Arc::new(Used { channel, _shared: shared.clone() });
    Ok(Place::new().fill(CompChannel { raw: UnsafeCell::new(raw), used }))
}

pub(super) unsafe extern "C" fn destroy_comp_channel(channel: *mut ffi::ibv_comp_channel) -> c_int {
    // SAFETY: the channel is alive (ibv_destroy_comp_channel(3)).
    let used = &unsafe { object::<CompChannel>(channel) }.used;
    if Arc::strong_count(used) > 1 {
        return code(Err(Errno::BUSY));
    }
    // SAFETY: the channel is not used any more (ibv_destroy_comp_channel(3)), and nothing refers to it.
    drop(unsafe { reclaim::<CompChannel>(channel) });
    0
}

pub(super) unsafe extern "C" fn get_cq_event(
    channel: *mut ffi::ibv_comp_channel,
    to_cq: *mut *mut ffi::ibv_cq,
    to_context: *mut *mut c_void,
) -> c_int {
    // SAFETY: as ibv_get_cq_event(3) demands.
    minus_one(unsafe { get(channel, to_cq, to_context) })
}

/// # Safety
///
/// The channel is alive, and the others point to pointers.
unsafe fn get(
    channel: *mut ffi::ibv_comp_channel,
    to_cq: *mut *mut ffi::ibv_cq,
    to_context: *mut *mut c_void,
) -> Result<()> {
    // SAFETY: by the caller's promise.
    let token = unsafe { object::<CompChannel>(channel) }.used.channel.take()?;
    let cq = by_token::<Cq>(token).cast::<ffi::ibv_cq>();
    // SAFETY: whoever destroys the queue waits until this event is acknowledged, so that it is alive; the field is never
    // written.
    let cq_context = unsafe { (*cq).cq_context };
    // SAFETY: by the caller's promise.
    unsafe { to_cq.write(cq) };
    // SAFETY: by the caller's promise.
    unsafe { to_context.write(cq_context) };
    Ok(())
}

pub(super) unsafe extern "C" fn ack_cq_events(cq: *mut ffi::ibv_cq, count: c_uint) {
    // SAFETY: the queue is alive (ibv_get_cq_event(3)).
    unsafe { object::<Cq>(cq.cast()) }.comp_events.add(count);
}
