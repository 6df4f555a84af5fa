//! The devices that librdmacm has opened.
//!
//! librdmacm opens each device once, gives all its identifiers the same `ibv_context`, and closes it again when the
//! device was removed and no identifier uses it any more. A [`Context`] of it keeps it open with
//! `rdma_get_devices`, which takes a reference to every open device, and not with an identifier: a listener that
//! is dropped gives its port free, whoever still has a context of its device.

use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::context::{Context, ContextHandle, ContextInner, Origin};
use crate::error::{created, Error, Result};
use crate::ffi;
use crate::fork;
use crate::handle::Handle;

/// The list of the devices that were open when it was taken. It keeps them open.
pub(crate) struct DeviceReferences(NonNull<*mut ffi::ibv_context>);

// SAFETY: the list is not written to after its creation, and librdmacm takes a lock to count references.
unsafe impl Send for DeviceReferences {}
// SAFETY: as above.
unsafe impl Sync for DeviceReferences {}

impl DeviceReferences {
    /// Fails if the device of `context` is not among them, because it is being removed.
    fn take(context: NonNull<ffi::ibv_context>) -> Result<DeviceReferences> {
        let mut len = 0;
        // SAFETY: the argument points to an `int`.
        let list = created(|| unsafe { ffi::rdma_get_devices(&mut len) });
        let list = list.map_err(|code| Error::from_code("rdma_get_devices", code))?;
        let references = DeviceReferences(list);
        let len = usize::try_from(len).unwrap_or(0);
        // SAFETY: rdma_get_devices(3): the list has this many contexts.
        let contexts = unsafe { std::slice::from_raw_parts(list.as_ptr(), len) };
        if !contexts.contains(&context.as_ptr()) {
            return Err(Error::from_code("rdma_get_devices", libc::ENODEV));
        }
        Ok(references)
    }
}

impl Drop for DeviceReferences {
    fn drop(&mut self) {
        // SAFETY: the list came from `rdma_get_devices`, and is freed once. Whoever used a context because of it has
        // ended to.
        unsafe { ffi::rdma_free_devices(self.0.as_ptr()) }
    }
}

/// The contexts that there are, so that identifiers of one device have the same.
static CONTEXTS: Mutex<Vec<Weak<Handle<ContextInner>>>> = Mutex::new(Vec::new());

/// The context that librdmacm has opened.
///
/// # Safety
///
/// librdmacm has opened `raw`, and keeps it open at least until this returns.
pub(super) unsafe fn context(raw: NonNull<ffi::ibv_context>) -> Result<Context> {
    let mut contexts = CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    contexts.retain(|context| context.strong_count() > 0);
    let known = contexts.iter().filter_map(Weak::upgrade);
    if let Some(context) = known.into_iter().find(|context| context.as_raw() == raw.as_ptr()) {
        return Ok(Context::from_handle(context));
    }
    let references = DeviceReferences::take(raw)?;
    // SAFETY: the context is open for as long as the references are there, which are part of the structure.
    let inner = unsafe {
        ContextInner::new(raw, Origin::Librdmacm { _references: references }, fork::turn())
    };
    let context: ContextHandle = Arc::new(Handle::new(inner));
    contexts.push(Arc::downgrade(&context));
    Ok(Context::from_handle(context))
}
