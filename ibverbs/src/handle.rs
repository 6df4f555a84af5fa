//! How everything that a verb created is destroyed: once, in order, and leaked rather than freed
//! under a device that may still use it.
//!
//! # Threads
//!
//! The `Send` and `Sync` of the objects rest on this. Verbs may be called by any thread, on different
//! objects at the same time: what libibverbs itself shares is under its own locks (`dev_list_lock` in
//! libibverbs/device.c for devices, `mm_mutex` in libibverbs/memory.c for registered ranges), what a
//! provider shares is under its (in providers/mlx5, `qp_table_mutex` and `srq_table_mutex`
//! of the context and a spin lock in each queue), and the kernel serialises calls on one of its objects
//! (drivers/infiniband/core/rdma_core.c). The exceptions are kept apart here: `ibv_fork_init` takes no
//! lock (`fork.rs` does), `ibv_query_qp` and `ibv_modify_qp` write into their queue pair (they take
//! `&mut self`), `ibv_get_async_event` may write into the context (`event.rs` takes a lock), and environment
//! variables that remove locks are refused (`context.rs`, `event.rs`).
//!
//! A lock that a forgotten poll or batch still holds may be released by another thread. In providers it
//! is a pthread spin lock; these have no owner, in glibc and in musl.

use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::error::{Error, Failed};

/// An object of the C library, with everything that it refers to.
///
/// The implementing structure has no `Drop` of its own: its fields are what must outlive the C object.
pub(crate) trait Destroy {
    /// What the object is called in an error.
    const RESOURCE: &'static str;
    /// The verb that destroys it.
    const VERB: &'static str;
    /// The failure codes that mean that something still uses the object.
    const IN_USE: &'static [i32] = &[libc::EBUSY];

    /// Calls [`Self::VERB`] and returns what it returned: zero, or a failure code.
    ///
    /// # Safety
    ///
    /// After it has returned zero the C object is gone: neither this nor anything else of the
    /// structure that uses the C object may be called again.
    unsafe fn destroy(&mut self) -> i32;
}

/// Owns a [`Destroy`]: drops its fields after the C object is destroyed, and leaks them if that fails.
pub(crate) struct Handle<T: Destroy>(ManuallyDrop<T>);

impl<T: Destroy> Handle<T> {
    pub(crate) fn new(object: T) -> Handle<T> {
        Handle(ManuallyDrop::new(object))
    }

    /// Destroys the C object and hands out what it referred to.
    pub(crate) fn into_parts(self) -> Result<T, Failed<Self>> {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `self` was consumed and its `Drop` is disabled, so that this is the only call
        // unless it fails.
        match unsafe { this.0.destroy() } {
            // SAFETY: `this` is never used again, nor dropped.
            0 => Ok(unsafe { ManuallyDrop::take(&mut this.0) }),
            code => {
                let error = Error::from_destroy(T::VERB, T::RESOURCE, T::IN_USE, code);
                Err(Failed { resource: ManuallyDrop::into_inner(this), error })
            }
        }
    }

    pub(crate) fn close(self) -> Result<(), Failed<Self>> {
        self.into_parts().map(drop)
    }

    /// Closes an object that others may refer to as well: it is in use then.
    pub(crate) fn close_shared(shared: Arc<Self>) -> Result<(), Failed<Arc<Self>>> {
        match Arc::try_unwrap(shared) {
            Ok(handle) => handle.close().map_err(|failed| failed.map(Arc::new)),
            Err(resource) => {
                Err(Failed { resource, error: Error::InUse { resource: T::RESOURCE } })
            }
        }
    }
}

impl<T: Destroy> Drop for Handle<T> {
    fn drop(&mut self) {
        // SAFETY: a handle is dropped once, and `into_parts` disables this drop.
        if unsafe { self.0.destroy() } == 0 {
            // SAFETY: `self` is being dropped, so that nobody uses the structure after this.
            unsafe { ManuallyDrop::drop(&mut self.0) }
        }
        // Otherwise the device may still reach the object (one that was pulled out answers EIO), so
        // that what the object refers to must stay: it is leaked.
    }
}

impl<T: Destroy> Deref for Handle<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Destroy> DerefMut for Handle<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}
