//! Event channels.

use std::cell::UnsafeCell;
use std::sync::{Arc, Mutex};

use ibverbs_sys as ffi;
use rustix::io::Errno;

use crate::abi::object::{locked, object, Object, Place};
use crate::abi::pointer;
use crate::device::{CmChannel, PerProcess, Result};

/// An event channel.
#[repr(C)]
struct EventChannel {
    raw: UnsafeCell<ffi::rdma_event_channel>,
    /// None if it was destroyed.
    queue: Mutex<Option<Arc<CmChannel>>>,
}

// SAFETY: `repr(C)`, and the structure for C comes first, in an `UnsafeCell`. The rest is `Sync`.
unsafe impl Object for EventChannel {
    type Raw = ffi::rdma_event_channel;
}

/// One that was destroyed. Its memory is not given back, but is that of a new one some time: programs destroy channels which a thread
/// of theirs is about to read (`rping` of rdma-core 44 does). With librdmacm, that thread is told that there is no such descriptor.
struct Destroyed(*mut ffi::rdma_event_channel);

// SAFETY: it may be used by any thread.
unsafe impl Send for Destroyed {}

fn destroyed() -> &'static Mutex<Vec<Destroyed>> {
    static CURRENT: PerProcess<Mutex<Vec<Destroyed>>> = PerProcess::new();
    CURRENT.get(|_| Mutex::default())
}

pub(super) fn create() -> Result<*mut ffi::rdma_event_channel> {
    let queue = Arc::new(CmChannel::new()?);
    let fd = queue.as_raw_fd();
    let Some(Destroyed(again)) = locked(destroyed()).pop() else {
        let raw = UnsafeCell::new(ffi::rdma_event_channel { fd });
        return Ok(Place::new().fill(EventChannel { raw, queue: Mutex::new(Some(queue)) }));
    };
    // SAFETY: the memory of channels is not given back.
    let channel = unsafe { object::<EventChannel>(again) };
    // SAFETY: the program does not read it: it has no channel here.
    unsafe { (*channel.raw.get()).fd = fd };
    *locked(&channel.queue) = Some(queue);
    Ok(again)
}

/// The queue of a channel.
///
/// # Errors
///
/// `EBADF` if it was destroyed.
///
/// # Safety
///
/// It is, or was, a channel.
pub(super) unsafe fn queue(channel: *mut ffi::rdma_event_channel) -> Result<Arc<CmChannel>> {
    // SAFETY: by the caller's promise; and the memory of channels is not given back.
    let channel = unsafe { object::<EventChannel>(channel) };
    locked(&channel.queue).clone().ok_or(Errno::BADF)
}

pub(super) unsafe extern "C" fn create_event_channel() -> *mut ffi::rdma_event_channel {
    pointer(create())
}

pub(super) unsafe extern "C" fn destroy_event_channel(raw: *mut ffi::rdma_event_channel) {
    // SAFETY: it is a channel (rdma_destroy_event_channel(3)), and the memory of channels is not given back.
    let channel = unsafe { object::<EventChannel>(raw) };
    let queue = locked(&channel.queue).take();
    if queue.is_some() {
        locked(destroyed()).push(Destroyed(raw));
    }
}
