//! The devices of identifiers.
//!
//! librdmacm opens the devices itself. What it has opened is not used here: it closes a device that was removed when its
//! last identifier is gone, whoever else still uses it; it shares the `ibv_context` with whatever else in the process uses
//! librdmacm; and it opens it at any time, without the checks of [`Device::open`](crate::Device::open). Since librdmacm never
//! learns of the queue pairs, they may as well be of another context of the same device, which is opened here.

use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::context::{Context, ContextInner};
use crate::device::Device;
use crate::error::Result;
use crate::ffi;
use crate::handle::Handle;

/// The contexts that were opened for identifiers, so that those of one device share one: each with the address of its
/// `ibv_device`, which is there for as long as the context is.
static CONTEXTS: Mutex<Vec<(usize, Weak<Handle<ContextInner>>)>> = Mutex::new(Vec::new());

/// A context of the device.
pub(super) fn context(device: &Device<'_>) -> Result<Context> {
    let mut contexts = CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    contexts.retain(|(_, context)| context.strong_count() > 0);
    let address = device.as_raw() as usize;
    let mut known = contexts.iter().filter(|(known, _)| *known == address);
    if let Some(context) = known.find_map(|(_, context)| context.upgrade()) {
        return Ok(Context::from_handle(context));
    }
    let context = device.open()?;
    contexts.push((address, Arc::downgrade(context.handle())));
    Ok(context)
}

/// The device of a context.
///
/// # Safety
///
/// `context` is open for as long as `'a`.
pub(super) unsafe fn of_context<'a>(context: NonNull<ffi::ibv_context>) -> Device<'a> {
    // SAFETY: the context is open; the field is not written after that.
    let device = unsafe { (*context.as_ptr()).device };
    // SAFETY: an open context points to its device.
    let device = unsafe { NonNull::new_unchecked(device) };
    // SAFETY: an open context holds a reference to its device.
    unsafe { Device::from_raw(device) }
}

/// Whether both are one device. A device that was renamed has a new `ibv_device`, and the old index.
pub(super) fn is_same(one: &Device<'_>, other: &Device<'_>) -> bool {
    one.as_raw() == other.as_raw() || (one.index().is_some() && one.index() == other.index())
}
