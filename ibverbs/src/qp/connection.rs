//! Bringing a queue pair up with the attributes that the connection manager has agreed on.
//!
//! They are not all that a queue pair needs, nor all that it was built for. The connection manager knows the route,
//! the numbers of both sides and how many reads and atomics may be under way. But it leaves access rights out before
//! the connection is asked for, and grants them all after that; it sets the RNR timer to 655 ms; and its timeouts and
//! counts of retries are what the peer suggested, whatever the builder was told.

use super::attr::QueuePairAttr;
use super::builder::QpConfig;
use super::state::{Init, QpState, Reset, Rtr, Rts, State, Unconnected};
use super::{Core, QueuePair, Reliable, Transport, Ud};
use crate::context::ContextInner;
use crate::error::{Error, Failed, Result};
use crate::mr::AccessFlags;

/// How many reads and atomics may be under way from and towards a queue pair.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Depths {
    pub(crate) max_rd_atomic: u8,
    pub(crate) max_dest_rd_atomic: u8,
}

/// Asks the connection manager for the attributes that lead to a state.
pub(crate) trait Agreed: FnMut(QpState) -> Result<QueuePairAttr> {}
impl<F: FnMut(QpState) -> Result<QueuePairAttr>> Agreed for F {}

impl Core {
    fn enter_agreed_init(&mut self, agreed: &mut impl Agreed) -> Result<()> {
        let attr = agreed(QpState::INIT)?;
        let access = self.inner.config.access.intersection(AccessFlags::REMOTE);
        self.enter_init_with(&attr.set_access(access))
    }

    fn enter_init_with(&mut self, attr: &QueuePairAttr) -> Result<()> {
        self.modify(attr)?;
        let config = &mut self.inner.config;
        config.pkey_index = attr.pkey_index().unwrap_or(config.pkey_index);
        config.port = attr.port().unwrap_or(config.port);
        Ok(())
    }

    /// Takes these steps; if one fails, the queue pair is what it was built for again.
    fn agree(&mut self, steps: impl FnOnce(&mut Core) -> Result<()>) -> Result<()> {
        let built = self.inner.config;
        let result = steps(self);
        if result.is_err() {
            self.inner.config = built;
        }
        result
    }

    fn enter_agreed_rtr(&mut self, agreed: &mut impl Agreed) -> Result<()> {
        let attr = agreed(QpState::RTR)?;
        let config = self.inner.config;
        let granted = attr.max_dest_rd_atomic().unwrap_or(0).min(config.max_dest_rd_atomic);
        self.modify(&attr.set_max_dest_rd_atomic(granted).set_min_rnr_timer(config.min_rnr_timer))?;
        let config = &mut self.inner.config;
        config.max_dest_rd_atomic = granted;
        config.path_mtu = attr.path_mtu().unwrap_or(config.path_mtu);
        if let Some(address) = attr.address() {
            config.service_level = address.service_level;
            config.gid_index = address.grh.map(|grh| grh.gid_index);
        }
        Ok(())
    }

    fn enter_agreed_rts(&mut self, agreed: &mut impl Agreed) -> Result<()> {
        let attr = agreed(QpState::RTS)?;
        let config = self.inner.config;
        let granted = attr.max_rd_atomic().unwrap_or(0).min(config.max_rd_atomic);
        self.modify(
            &attr
                .set_max_rd_atomic(granted)
                .set_timeout(config.timeout)
                .set_retry_count(config.retry_count)
                .set_rnr_retry(config.rnr_retries()),
        )?;
        let config = &mut self.inner.config;
        config.max_rd_atomic = granted;
        config.first_psn = attr.sq_psn().unwrap_or(config.first_psn);
        Ok(())
    }

    fn limit(&mut self, depths: Depths) {
        let config = &mut self.inner.config;
        config.max_rd_atomic = config.max_rd_atomic.min(depths.max_rd_atomic);
        config.max_dest_rd_atomic = config.max_dest_rd_atomic.min(depths.max_dest_rd_atomic);
    }
}

impl<T: Reliable, S: State> QueuePair<T, S> {
    /// Whether its receives are those of a shared receive queue.
    pub(crate) fn has_srq(&self) -> bool {
        // SAFETY: the queue pair is alive; the field is not written after its creation.
        unsafe { !(*self.core.inner.raw.as_ptr()).srq.is_null() }
    }

    /// Makes the queue pair ready to send. If that fails it comes back in its state, and as it was built.
    pub(crate) fn bring_up_agreed(
        self,
        depths: Depths,
        mut agreed: impl Agreed,
    ) -> Result<QueuePair<T>, Failed<Self>>
    where
        S: Unconnected,
    {
        self.bring_up(|core| {
            core.agree(|core| {
                core.limit(depths);
                core.enter_agreed_init(&mut agreed)?;
                core.enter_agreed_rtr(&mut agreed)?;
                core.enter_agreed_rts(&mut agreed)
            })
        })
    }
}

impl<T: Reliable> QueuePair<T, Rts> {
    /// Takes back what `bring_up_agreed` did, as far as the device lets us: the queue pair was built as `built` says.
    pub(crate) fn back_to<S: Unconnected>(mut self, built: QpConfig) -> QueuePair<T, S> {
        self.core.inner.config = built;
        let mut qp = QueuePair::new(self.core);
        qp.step_back();
        qp
    }
}

impl<T: Reliable> QueuePair<T, Reset> {
    pub(crate) fn init_agreed(
        self,
        mut agreed: impl Agreed,
    ) -> Result<QueuePair<T, Init>, Failed<Self>> {
        self.into_state(|qp| qp.core.enter_agreed_init(&mut agreed))
    }
}

impl<T: Reliable> QueuePair<T, Init> {
    pub(crate) fn ready_to_receive_agreed(
        self,
        mut agreed: impl Agreed,
    ) -> Result<QueuePair<T, Rtr>, Failed<Self>> {
        self.into_state(|qp| qp.core.enter_agreed_rtr(&mut agreed))
    }
}

impl<T: Reliable> QueuePair<T, Rtr> {
    pub(crate) fn ready_to_send_agreed(
        self,
        mut agreed: impl Agreed,
    ) -> Result<QueuePair<T, Rts>, Failed<Self>> {
        self.into_state(|qp| qp.core.enter_agreed_rts(&mut agreed))
    }
}

impl<S: State> QueuePair<Ud, S> {
    /// Makes the queue pair ready to send, with the port, the partition and the queue key that are agreed on.
    pub(crate) fn activate_agreed(
        self,
        mut agreed: impl Agreed,
    ) -> Result<QueuePair<Ud>, Failed<Self>>
    where
        S: Unconnected,
    {
        self.bring_up(|core| {
            core.agree(|core| {
                let attr = agreed(QpState::INIT)?;
                let qkey = attr.qkey().ok_or(Error::Unsupported { operation: "a queue key" })?;
                core.enter_init_with(&attr)?;
                core.activate(qkey)
            })
        })
    }
}

impl<T: Transport, S: State> QueuePair<T, S> {
    /// What it was built for, and connected with.
    pub(crate) fn config(&self) -> QpConfig {
        *self.core.inner.config()
    }

    /// The device that the queue pair is of.
    pub(crate) fn device_context(&self) -> &ContextInner {
        self.core.inner.context()
    }
}
