//! The devices that librdmacm has opened.
//!
//! librdmacm opens each device once, gives all its identifiers the same `ibv_context`, and closes it again when the
//! device was removed and no identifier uses it any more. So a [`Context`] of it takes a reference to it, with
//! `rdma_get_devices`, and not an identifier: a listener that is dropped gives its port free, whoever still has a
//! context of its device.
//!
//! The reference is kept until the process ends, as librdmacm keeps its devices open that long anyway
//! (rdma_get_devices(3)). To give it back is not safe: `rdma_free_devices` looks at a device that was removed after it
//! has freed it (librdmacm/cma.c of rdma-core 65).

use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::context::{Context, ContextInner, Origin};
use crate::error::{created, Error, Result};
use crate::ffi;
use crate::fork;
use crate::handle::Handle;

/// A context that is open until the process ends.
struct Device {
    raw: NonNull<ffi::ibv_context>,
    /// What holds the reference, so that it is not taken for lost memory.
    _references: NonNull<*mut ffi::ibv_context>,
    /// What identifiers of this device share, if there is one.
    context: Weak<Handle<ContextInner>>,
}

// SAFETY: verbs may be called with a context by any thread, as `handle.rs` argues; the list is not touched any more.
unsafe impl Send for Device {}

static DEVICES: Mutex<Vec<Device>> = Mutex::new(Vec::new());

/// The context that librdmacm has opened.
///
/// # Safety
///
/// librdmacm has opened `raw`, and keeps it open at least until this returns.
pub(super) unsafe fn context(raw: NonNull<ffi::ibv_context>) -> Result<Context> {
    let mut devices = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
    let known = devices.iter().position(|device| device.raw == raw);
    let place = match known {
        Some(place) => place,
        None => {
            let _references = refer_to(raw)?;
            devices.push(Device { raw, _references, context: Weak::new() });
            devices.len() - 1
        }
    };
    let device = &mut devices[place];
    if let Some(context) = device.context.upgrade() {
        return Ok(Context::from_handle(context));
    }
    // SAFETY: there is a reference to the device, so that the context is open until the process ends.
    let inner = unsafe { ContextInner::new(raw, Origin::Librdmacm, fork::turn()) };
    let context = Arc::new(Handle::new(inner));
    device.context = Arc::downgrade(&context);
    Ok(Context::from_handle(context))
}

/// Takes a reference to every open device. Fails if that of `context` is not among them, because it is being removed.
fn refer_to(context: NonNull<ffi::ibv_context>) -> Result<NonNull<*mut ffi::ibv_context>> {
    const VERB: &str = "rdma_get_devices";
    let mut len = 0;
    // SAFETY: the argument points to an `int`.
    let list = created(|| unsafe { ffi::rdma_get_devices(&mut len) });
    let list = list.map_err(|code| Error::from_code(VERB, code))?;
    let len = usize::try_from(len).unwrap_or(0);
    // SAFETY: rdma_get_devices(3): the list has this many contexts.
    let contexts = unsafe { std::slice::from_raw_parts(list.as_ptr(), len) };
    if contexts.contains(&context.as_ptr()) {
        Ok(list)
    } else {
        Err(Error::from_code(VERB, libc::ENODEV))
    }
}
