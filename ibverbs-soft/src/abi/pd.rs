//! Protection domains.

use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::sync::Arc;

use ibverbs_sys as ffi;
use rustix::io::Errno;

use super::context::{shared, Shared};
use super::object::{object, reclaim, unless_dead, Object, Place};
use super::{code, pointer};
use crate::device::Result;
use crate::transport::PdId;

/// A protection domain.
#[repr(C)]
pub(super) struct Pd {
    raw: UnsafeCell<ffi::ibv_pd>,
    domain: Arc<Domain>,
}

// SAFETY: `repr(C)`, and the structure for C comes first, in an `UnsafeCell`. The domain is `Sync`, and the pointer to it is
// never written.
unsafe impl Object for Pd {
    type Raw = ffi::ibv_pd;
}

/// What belongs to a domain keeps this.
pub(super) struct Domain {
    pub(super) id: PdId,
    pub(super) shared: Arc<Shared>,
}

/// The domain behind a pointer of C.
///
/// # Safety
///
/// It is alive, and stays so for as long as the reference is used.
pub(super) unsafe fn domain<'a>(pd: *mut ffi::ibv_pd) -> &'a Arc<Domain> {
    // SAFETY: by the caller's promise.
    &unsafe { object::<Pd>(pd) }.domain
}

/// The context that a domain was allocated from.
///
/// # Safety
///
/// The domain is alive.
pub(super) unsafe fn context_of(pd: *mut ffi::ibv_pd) -> *mut ffi::ibv_context {
    // SAFETY: by the caller's promise; the field is never written.
    unsafe { (*pd).context }
}

pub(super) unsafe extern "C" fn alloc_pd(context: *mut ffi::ibv_context) -> *mut ffi::ibv_pd {
    // SAFETY: the device is open (ibv_alloc_pd(3)).
    let shared = unsafe { shared(context) };
    pointer(alloc(context, shared))
}

fn alloc(context: *mut ffi::ibv_context, shared: &Arc<Shared>) -> Result<*mut ffi::ibv_pd> {
    let id = shared.device.alloc_pd()?;
    let raw = UnsafeCell::new(ffi::ibv_pd { context, handle: id.0 as u32 });
    let domain = Arc::new(Domain { id, shared: shared.clone() });
    Ok(Place::new().fill(Pd { raw, domain }))
}

pub(super) unsafe extern "C" fn dealloc_pd(pd: *mut ffi::ibv_pd) -> c_int {
    // SAFETY: the domain is alive (ibv_dealloc_pd(3)).
    let domain = unsafe { domain(pd) };
    if Arc::strong_count(domain) > 1 {
        return code(Err(Errno::BUSY));
    }
    let result = unless_dead(domain.shared.device.dealloc_pd(domain.id));
    if result.is_ok() {
        // SAFETY: the domain is not used any more (ibv_dealloc_pd(3)), and nothing refers to it.
        drop(unsafe { reclaim::<Pd>(pd) });
    }
    code(result)
}
