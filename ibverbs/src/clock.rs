//! The device's clock.

use crate::context::Context;
use crate::error::{check, Error, Result};
use crate::ffi;

const VERB: &str = "ibv_query_rt_values_ex";

impl Context {
    /// Reads the device's clock: the one that counts completion timestamps.
    ///
    /// In rdma-core 65 the drivers mlx4 and mlx5 can do it.
    ///
    /// # Errors
    ///
    /// - [`Error::Unsupported`] if the device or its driver cannot.
    /// - [`Error::Verb`] if the device does not answer.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn microseconds_since(ctx: &ibverbs::Context, timestamp: u64) -> ibverbs::Result<Option<u64>> {
    /// // How long ago something completed.
    /// let attr = ctx.query_device_ex()?;
    /// let now = ctx.query_rt_values_ex()?.raw_clock();
    /// let (Some(khz), Some(mask)) = (attr.core_clock_khz(), attr.timestamp_mask()) else {
    ///     return Ok(None);
    /// };
    /// let ticks = now.wrapping_sub(timestamp) & mask;
    /// # Ok(
    /// Some(ticks * 1000 / khz)
    /// # )
    /// # }
    /// ```
    #[doc(alias = "ibv_query_rt_values_ex")]
    pub fn query_rt_values_ex(&self) -> Result<RtValues> {
        let mut raw =
            ffi::ibv_values_ex { comp_mask: ffi::IBV_VALUES_MASK_RAW_CLOCK, ..Default::default() };
        // SAFETY: the context is open, and the last argument points to a whole `ibv_values_ex`.
        check(VERB, unsafe { ffi::ibv_query_rt_values_ex(self.as_raw(), &mut raw) })?;
        if raw.comp_mask & ffi::IBV_VALUES_MASK_RAW_CLOCK == 0 {
            return Err(Error::Unsupported { operation: VERB });
        }
        Ok(RtValues { raw })
    }
}

/// What a device says about the moment; from [`Context::query_rt_values_ex`].
#[doc(alias = "ibv_values_ex")]
#[derive(Clone, Copy)]
pub struct RtValues {
    raw: ffi::ibv_values_ex,
}

impl RtValues {
    /// The device's clock in ticks, of which
    /// [`DeviceAttrEx::core_clock_khz`](crate::DeviceAttrEx::core_clock_khz) go into a millisecond.
    ///
    /// It counts what a completion's timestamp counts; that may have fewer bits, as
    /// [`DeviceAttrEx::timestamp_mask`](crate::DeviceAttrEx::timestamp_mask) tells. When it began is not
    /// told: only differences mean something.
    pub fn raw_clock(&self) -> u64 {
        // A count of ticks in spite of the field's name; mlx4 and mlx5 leave the seconds zero.
        self.raw.raw_clock.tv_nsec as u64
    }

    /// The C structure.
    pub fn as_raw(&self) -> &ffi::ibv_values_ex {
        &self.raw
    }
}

impl std::fmt::Debug for RtValues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RtValues").field("raw_clock", &self.raw_clock()).finish()
    }
}
