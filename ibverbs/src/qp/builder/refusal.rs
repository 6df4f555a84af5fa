//! Why a queue pair was refused.

use std::io;

use super::{QueueLevel, QueuePairBuilder};
use crate::cq::drop_or_park;
use crate::error::Error;
use crate::qp::{Address, QueuePairCapacity, SendOps, Transport};

impl<T: Transport, L: QueueLevel> QueuePairBuilder<'_, T, L> {
    /// Finds out what was too much. The device does not say: the attributes that it publishes are
    /// compared first, and inline data, which has none, is tried.
    #[cold]
    pub(super) fn explain(&self, code: i32) -> Error {
        let (asked, limits) = (self.capacity, self.limits);
        if let Some(error) = T::explain(&self.pd.context(), &self.config, &asked, code) {
            return error;
        }
        for (what, requested, available) in [
            ("send requests", asked.max_send_wr, limits.qp_wr),
            ("receive requests", asked.max_recv_wr, limits.qp_wr),
            ("send scatter entries", asked.max_send_sge, limits.sge),
            ("receive scatter entries", asked.max_recv_sge, limits.sge),
        ] {
            if requested > available {
                return capacity_error(T::CREATE, what, requested, available, Some(code));
            }
        }
        if code == libc::EOPNOTSUPP {
            let operation = if self.config.is_efa && !T::Address::ADDRESSED {
                "a connection of queue pairs (EFA has datagrams only: `Ud` and, with the feature `efa`, `Srd`)"
            } else if !self.atomics && self.config.send_ops.intersects(SendOps::ATOMICS) {
                "an atomic operation (leave them out with `set_send_ops`)"
            } else {
                "the extended posting interface (ibv_create_qp_ex), or one of the operations,"
            };
            return Error::Unsupported { operation };
        }
        match self.inline_limit() {
            Some(available) => {
                let requested = asked.max_inline_data;
                let what = "bytes of inline data";
                capacity_error(T::CREATE, what, requested, available, Some(code))
            }
            None => Error::from_code(T::CREATE, code),
        }
    }

    /// The most inline bytes that a queue pair like this one can have, if they are the reason why it
    /// was refused.
    fn inline_limit(&self) -> Option<u32> {
        let fits = |max_inline_data: u32| match self
            .create(QueuePairCapacity { max_inline_data, ..self.capacity })
        {
            Ok(trial) => {
                drop_or_park(trial);
                true
            }
            Err(_) => false,
        };
        let mut too_much = self.capacity.max_inline_data;
        if too_much == 0 || !fits(0) {
            return None;
        }
        let mut most = 0;
        while too_much - most > 1 {
            let middle = most + (too_much - most) / 2;
            if fits(middle) {
                most = middle;
            } else {
                too_much = middle;
            }
        }
        Some(most)
    }
}

#[cold]
pub(crate) fn capacity_error(
    verb: &'static str,
    what: &'static str,
    requested: u32,
    available: u32,
    code: Option<i32>,
) -> Error {
    Error::Capacity {
        verb,
        what,
        requested: u64::from(requested),
        available: u64::from(available),
        source: code.map(io::Error::from_raw_os_error),
    }
}
