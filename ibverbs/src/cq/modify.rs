//! Changing a completion queue: how much it holds, and how often it raises events.

use std::ffi::c_int;
use std::io;
use std::time::Duration;

use super::events::Events;
use super::CompletionQueue;
use crate::context::Context;
use crate::error::{at_least_one, error_number, Error, Result};
use crate::ffi;

impl CompletionQueue {
    /// Makes the queue hold at least `min_entries` completions: more than before, or fewer. What is in it
    /// stays. There must still be room for what is posted and has not completed.
    ///
    /// # Errors
    ///
    /// - [`Error::PollInProgress`] if a poll of it was forgotten.
    /// - [`Error::InvalidArgument`] if the number of entries is zero.
    /// - [`Error::Capacity`] if the device has no queue of so many entries.
    /// - [`Error::Unsupported`] if the device does not resize: hns, ionic and EFA do not.
    /// - [`Error::Resize`] if the kernel refuses, for instance because there are more completions in the
    ///   queue than it is to hold. It is as it was then, with one exception: SoftRoCE maps the new queue
    ///   after it has given up the old one. If the process may not map more memory, the queue is lost, and polling
    ///   it says [`Error::CompletionQueueLost`].
    #[doc(alias = "ibv_resize_cq")]
    pub fn resize(&mut self, min_entries: u32) -> Result<()> {
        check_entries(min_entries)?;
        self.inner.check_idle()?;
        let capacity = self.capacity();
        // Where sizes are powers of two there is nothing to do. SoftRoCE would replace the queue by one that
        // is as large; if it lost it, nothing would show that, as it does below.
        if (u64::from(min_entries) + 1).next_power_of_two() == u64::from(capacity) + 1 {
            return Ok(());
        }
        let code = match c_int::try_from(min_entries) {
            // SAFETY: the queue is alive. No poll of it is open, and none is opened meanwhile: `&mut self`.
            Ok(entries) => unsafe { ffi::ibv_resize_cq(self.inner.as_raw(), entries) },
            Err(_) => libc::EINVAL,
        };
        if code == 0 {
            // Whether it is still armed is for the device to know.
            if let Events::Private(private) = &self.inner.events {
                private.disarm();
            }
            return Ok(());
        }
        let code = error_number(code);
        // The library takes note of the new size when the kernel has agreed, and providers/rxe maps it after
        // that. If it cannot, it goes on with a null pointer.
        if self.capacity() != capacity {
            self.inner.set_lost();
        }
        Err(self.resize_error(min_entries, capacity, code))
    }

    #[cold]
    fn resize_error(&self, requested: u32, capacity: u32, code: i32) -> Error {
        const VERB: &str = "ibv_resize_cq";
        match code {
            libc::EOPNOTSUPP | libc::ENOSYS => Error::Unsupported { operation: VERB },
            _ => over_capacity(&self.context(), VERB, requested, code).unwrap_or_else(|| {
                let source = io::Error::from_raw_os_error(code);
                Error::Resize { verb: VERB, requested, capacity, source }
            }),
        }
    }

    /// Moderates events: the device holds one back until there are `count` completions, or the first of them
    /// is as old as `period`, whichever comes first. The period is rounded up to microseconds. Zero for both raises
    /// events at once, as a new queue does.
    ///
    /// [`DeviceAttrEx::cq_moderation_caps`](crate::DeviceAttrEx::cq_moderation_caps) has the limits.
    ///
    /// # Errors
    ///
    /// - [`Error::Capacity`] if the device cannot hold events back for so many completions, or so long.
    /// - [`Error::Unsupported`] if the device does not moderate: SoftRoCE does not.
    /// - [`Error::Verb`] if the kernel refuses for another reason.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # fn moderate(cq: &ibverbs::CompletionQueue) -> ibverbs::Result<()> {
    /// // One event for 16 completions, or 50 microseconds after the first of fewer.
    /// cq.set_moderation(16, Duration::from_micros(50))
    /// # }
    /// ```
    #[doc(alias = "ibv_modify_cq")]
    pub fn set_moderation(&self, count: u16, period: Duration) -> Result<()> {
        let micros = period.as_nanos().div_ceil(1000);
        let code = match u16::try_from(micros) {
            Ok(cq_period) => {
                let moderate = ffi::ibv_moderate_cq { cq_count: count, cq_period };
                let mut attr =
                    ffi::ibv_modify_cq_attr { attr_mask: ffi::IBV_CQ_ATTR_MODERATE, moderate };
                // SAFETY: the queue is alive, and the attributes are what the mask says.
                unsafe { ffi::ibv_modify_cq(self.inner.as_raw(), &mut attr) }
            }
            Err(_) => libc::EINVAL,
        };
        if code == 0 {
            return Ok(());
        }
        Err(self.moderation_error(count, micros, error_number(code)))
    }

    #[cold]
    fn moderation_error(&self, count: u16, micros: u128, code: i32) -> Error {
        const VERB: &str = "ibv_modify_cq";
        let Ok(device) = self.context().query_device_ex() else {
            return Error::from_code(VERB, code);
        };
        let Some(caps) = device.cq_moderation_caps() else {
            return Error::Unsupported { operation: VERB };
        };
        let period = caps.max_period.as_micros();
        let (what, requested, available) = if micros > period {
            ("microseconds for which an event is held back", micros, period)
        } else if count > caps.max_count {
            ("completions for which an event is held back", count.into(), caps.max_count.into())
        } else {
            return Error::from_code(VERB, code);
        };
        Error::Capacity {
            verb: VERB,
            what,
            requested: u64::try_from(requested).unwrap_or(u64::MAX),
            available: u64::try_from(available).unwrap_or(u64::MAX),
            source: Some(io::Error::from_raw_os_error(code)),
        }
    }
}

/// Refuses a queue of no entries.
pub(super) fn check_entries(min_entries: u32) -> Result<()> {
    at_least_one("the number of entries of a completion queue", min_entries)
}

/// Why a queue of so many entries was refused, if it is because the device has none.
#[cold]
pub(super) fn over_capacity(
    context: &Context,
    verb: &'static str,
    requested: u32,
    code: i32,
) -> Option<Error> {
    let available = context.query_device().ok()?.max_cqe();
    (requested > available).then(|| Error::Capacity {
        verb,
        what: "completion queue entries",
        requested: u64::from(requested),
        available: u64::from(available),
        source: Some(io::Error::from_raw_os_error(code)),
    })
}
