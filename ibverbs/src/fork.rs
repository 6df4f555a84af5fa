//! What a program that forks must know, and the one verb that is not safe to call from two threads.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::c_enum::c_enum;
use crate::error::{check, Error, Result};
use crate::{ffi, provider};

/// Whether a device was opened. `ibv_fork_init` takes no lock, and lets others see its table of memory
/// ranges before it is filled (libibverbs/memory.c, `mm_root`); the table is read by every registration,
/// and a first `ibv_get_device_list` may call `ibv_fork_init` itself. So these calls, and the opening of
/// devices, without which there is no registration, take turns.
static OPENED: Mutex<bool> = Mutex::new(false);

/// Held around what must not run at the same time as `ibv_fork_init`.
pub(crate) struct Turn(MutexGuard<'static, bool>);

pub(crate) fn turn() -> Turn {
    Turn(OPENED.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Turn {
    /// Takes note that a device was opened, so that there may be registrations from now on, and returns
    /// what is done about `fork`.
    pub(crate) fn opened(&mut self) -> ForkStatus {
        *self.0 = true;
        self.status()
    }

    fn status(&self) -> ForkStatus {
        // SAFETY: ibv_is_fork_initialized(3) reads the library's own state, which nothing writes while it is
        // our turn, and asks the kernel.
        ForkStatus(unsafe { ffi::ibv_is_fork_initialized() })
    }
}

/// Prepares the process for `fork` ([`Context::fork_status`](crate::Context::fork_status) tells whether
/// that is needed).
///
/// Call it before any device is opened, and before an event channel of the connection manager, which may open
/// some. Without it, on kernels before 5.12, a child that touches memory
/// which its parent had registered can make the parent's own pages move away under the device: the
/// parent then reads stale bytes. With it, registered memory is absent in the child.
///
/// In either case a child must not use RDMA objects that its parent created: they share one connection
/// to the kernel. It may open the device anew, or `exec`.
///
/// # Errors
///
/// - [`Error::ForkInitTooLate`] if a device was opened, and neither has an earlier call done this nor
///   does the kernel make it unneeded.
/// - [`Error::Verb`] if memory was registered by other means.
/// - [`Error::Unsupported`] if the kernel cannot keep memory from a child.
/// - [`Error::Provider`] if libibverbs is not installed.
/// - Those of the [choice of the provider](crate#the-provider-of-the-verbs).
#[doc(alias = "ibv_fork_init")]
pub fn fork_init() -> Result<()> {
    const VERB: &str = "ibv_fork_init";
    provider::verbs()?;
    let turn = turn();
    if *turn.0 {
        return match turn.status() {
            ForkStatus::ENABLED | ForkStatus::UNNEEDED => Ok(()),
            _ => Err(Error::ForkInitTooLate),
        };
    }
    // SAFETY: nothing else runs that reads what this call sets up, since it is our turn and no device
    // was opened through this crate.
    check(VERB, unsafe { ffi::ibv_fork_init() })
}

c_enum! {
    /// Whether registered memory is safe from `fork` (`enum ibv_fork_status`); see [`fork_init`].
    pub struct ForkStatus: u32 {
        /// A child's writes can take pages away from the device: do not touch registered memory in a
        /// child, or call [`fork_init`] first.
        DISABLED = ffi::IBV_FORK_DISABLED, "disabled";
        /// `fork_init` was called: registered memory is absent in the child.
        ENABLED = ffi::IBV_FORK_ENABLED, "enabled";
        /// The kernel copies such pages for the child; nothing needs to be done.
        UNNEEDED = ffi::IBV_FORK_UNNEEDED, "unneeded";
    }
}
