//! Moving queue pairs from state to state.

use super::attr::{QueuePairAttr, QueuePairAttrMask};
use super::state::{CanModify, Init, Manual, QpState, Reset, Rtr, Rts, State, Unconnected};
use super::{
    Connected, Core, Datagram, QueuePair, QueuePairEndpoint, RouteFailure, TransitionFailure,
    Transport,
};
use crate::ah::{AddressVector, GlobalRoute};
use crate::error::{check, error_number, Error, Failed, Result};
use crate::ffi;
use crate::gid::Gid;
use crate::mr::AccessFlags;

impl Core {
    pub(super) fn query(&mut self, mask: QueuePairAttrMask) -> Result<QueuePairAttr> {
        self.end_forgotten_batch();
        let mut attr = ffi::ibv_qp_attr::default();
        let mut init_attr = ffi::ibv_qp_init_attr::default();
        let raw = self.inner.raw.as_ptr();
        // libibverbs refuses to ask for a rate limit.
        let mask = mask - QueuePairAttrMask::RATE_LIMIT;
        let bits = mask.bits() as i32;
        // SAFETY: the queue pair is alive, and the two structures are whole. The call stores the state
        // into the queue pair: `&mut self` keeps everybody else away from it.
        let code = unsafe { ffi::ibv_query_qp(raw, &mut attr, bits, &mut init_attr) };
        check("ibv_query_qp", code)?;
        Ok(QueuePairAttr::from_raw(attr, mask))
    }

    pub(super) fn modify(&mut self, attr: &QueuePairAttr) -> Result<()> {
        // Resetting removes the queue pair's completions, for which providers lock their queues.
        if attr.state() == Some(QpState::RESET) {
            if self.inner.is_polling() {
                return Err(Error::PollInProgress);
            }
            self.check_reset()?;
        }
        self.end_forgotten_batch();
        let mut raw = *attr.as_raw();
        let mask = attr.mask().bits() as i32;
        // SAFETY: the queue pair is alive, and the attributes are a whole structure. Concerning memory
        // there is nothing more to demand: the kernel checks states and values.
        let code = unsafe { ffi::ibv_modify_qp(self.inner.raw.as_ptr(), &mut raw, mask) };
        if code != 0 {
            return Err(self.explain(attr, error_number(code)));
        }
        if let Some(state) = attr.state() {
            self.set_state(state);
        }
        Ok(())
    }

    /// That the driver gets over a reset. That of EFA does as long as nothing can have completed.
    fn check_reset(&mut self) -> Result<()> {
        if !self.inner.config().is_efa {
            return Ok(());
        }
        match self.query(QueuePairAttrMask::STATE)?.state() {
            Some(QpState::RESET | QpState::INIT) => Ok(()),
            _ => Err(Error::Unsupported {
                operation:
                    "resetting a queue pair of EFA that was ready to receive (build another one)",
            }),
        }
    }

    /// Why the device refused this.
    #[cold]
    fn explain(&mut self, attr: &QueuePairAttr, code: i32) -> Error {
        let state = self.query(QueuePairAttrMask::STATE).ok().and_then(|attr| attr.state());
        // The kernel believes a caller who names the current state.
        let Some(from) = attr.cur_state().or(state) else {
            return Error::from_code("ibv_modify_qp", code);
        };
        let to = attr.state().unwrap_or(from);
        let source = std::io::Error::from_raw_os_error(code);
        let qp_type = self.inner.config().qp_type;
        let failure = TransitionFailure::new(qp_type, from, to, attr.mask(), source);
        if failure.is_well_formed() {
            if let Some(address) = attr.address() {
                let context = self.inner.context();
                let route = RouteFailure::diagnose(context, "ibv_modify_qp", &address, code);
                if let Some(route) = route {
                    return Error::Route(Box::new(route));
                }
            }
            if code != libc::EINVAL {
                return Error::from_code("ibv_modify_qp", code);
            }
        }
        Error::Transition(Box::new(failure))
    }

    fn is_reliable(&self) -> bool {
        self.inner.config().qp_type == ffi::IBV_QPT_RC
    }

    fn enter_init(&mut self) -> Result<()> {
        let config = self.inner.config();
        let attr = QueuePairAttr::new()
            .set_state(QpState::INIT)
            .set_pkey_index(config.pkey_index)
            .set_port(config.port);
        self.modify(&match config.qp_type {
            // The key that counts is that of `activate`.
            ffi::IBV_QPT_UD | ffi::IBV_QPT_DRIVER => attr.set_qkey(0),
            _ => attr.set_access(config.access.intersection(AccessFlags::REMOTE)),
        })
    }

    pub(super) fn activate(&mut self, qkey: u32) -> Result<()> {
        let attr = QueuePairAttr::new().set_state(QpState::RTR).set_qkey(qkey);
        self.modify(&attr)?;
        let config = *self.inner.config();
        let mut attr = QueuePairAttr::new().set_state(QpState::RTS).set_sq_psn(config.first_psn);
        if let Some(rnr_retry) = config.rnr_retry {
            attr = attr.set_rnr_retry(rnr_retry);
        }
        self.modify(&attr)
    }

    fn enter_rtr(&mut self, remote: &QueuePairEndpoint) -> Result<()> {
        let config = *self.inner.config();
        let mut attr = QueuePairAttr::new()
            .set_state(QpState::RTR)
            .set_address(self.address_of(remote)?)
            .set_path_mtu(config.path_mtu)
            .set_dest_qp_num(remote.qp_num())
            .set_rq_psn(remote.psn());
        if self.is_reliable() {
            attr = attr
                .set_max_dest_rd_atomic(config.max_dest_rd_atomic)
                .set_min_rnr_timer(config.min_rnr_timer);
        }
        self.modify(&attr)
    }

    fn enter_rts(&mut self) -> Result<()> {
        let config = *self.inner.config();
        let mut attr = QueuePairAttr::new().set_state(QpState::RTS).set_sq_psn(config.first_psn);
        if self.is_reliable() {
            attr = attr
                .set_timeout(config.timeout)
                .set_retry_count(config.retry_count)
                .set_rnr_retry(config.rnr_retries())
                .set_max_rd_atomic(config.max_rd_atomic);
        }
        self.modify(&attr)
    }

    fn address_of(&self, remote: &QueuePairEndpoint) -> Result<AddressVector> {
        let config = self.inner.config();
        let grh = match (config.gid_index, remote.gid()) {
            (Some(gid_index), Some(dgid)) if dgid != Gid::from([0; 16]) => Some(GlobalRoute {
                dgid,
                flow_label: config.flow_label,
                gid_index,
                hop_limit: config.hop_limit,
                traffic_class: config.traffic_class,
            }),
            (Some(gid_index), _) => {
                return Err(Error::InvalidArgument {
                    what: "the local GID index",
                    value: u64::from(gid_index),
                    expected: "the peer's endpoint has no GID: both sides must use one, or neither",
                })
            }
            (None, _) => None,
        };
        Ok(AddressVector {
            port: config.port,
            dlid: remote.lid(),
            service_level: config.service_level,
            src_path_bits: 0,
            static_rate: 0,
            grh,
        })
    }
}

/// The first step of a bring-up, unless it was taken.
fn enter_init_from<S: State>(core: &mut Core) -> Result<()> {
    if S::IS_RESET {
        core.enter_init()?;
    }
    Ok(())
}

impl<T: Transport> QueuePair<T, Reset> {
    /// Hands the states over to the program: see [`modify`](QueuePair::modify). A send that is begun
    /// before the queue pair was asked for RTS is refused when its batch is submitted.
    pub fn into_manual(self) -> QueuePair<T, Manual> {
        QueuePair::new(self.core)
    }

    /// Initialises the queue pair: receives can be posted from now on.
    ///
    /// # Errors
    ///
    /// [`Error::Transition`] or [`Error::Verb`] if the device refuses.
    #[doc(alias = "ibv_modify_qp")]
    pub fn init(self) -> Result<QueuePair<T, Init>, Failed<Self>> {
        self.into_state(|qp| qp.core.enter_init())
    }
}

impl<T: Transport, S: State> QueuePair<T, S> {
    /// Connects the queue pair to a remote one, in one call: through all states to ready to send. The
    /// peer must do the same with this one's [`endpoint`](Self::endpoint).
    ///
    /// A reliable peer that is not ready yet refuses what arrives, and is tried again.
    ///
    /// # Errors
    ///
    /// - [`Error::Route`] if the route to the peer cannot be resolved.
    /// - [`Error::InvalidArgument`] if only one of the sides uses a GID.
    /// - [`Error::Transition`] or [`Error::Verb`] if the device refuses.
    ///
    /// The queue pair comes back in the state that it had; if the last step failed, receives that were
    /// posted before are gone. (If a poll of one of its completion queues is open it cannot be taken back,
    /// and the next transition reports that.)
    ///
    /// # Examples
    ///
    /// Both sides do this, over a TCP connection:
    ///
    /// ```no_run
    /// # use std::io::{Read, Write};
    /// # use ibverbs::{PreparedQueuePair, QueuePair, QueuePairEndpoint, Rc};
    /// # fn connect(
    /// #     prepared: PreparedQueuePair<Rc>, mut peer: std::net::TcpStream,
    /// # ) -> Result<QueuePair<Rc>, Box<dyn std::error::Error>> {
    /// peer.write_all(&prepared.endpoint()?.to_bytes())?;
    /// let mut remote = [0; QueuePairEndpoint::BYTES];
    /// peer.read_exact(&mut remote)?;
    /// let qp = prepared.handshake(QueuePairEndpoint::from_bytes(&remote)?)?;
    /// # Ok(qp)
    /// # }
    /// ```
    #[doc(alias = "ibv_modify_qp")]
    pub fn handshake(self, remote: QueuePairEndpoint) -> Result<QueuePair<T>, Failed<Self>>
    where
        T: Connected,
        S: Unconnected,
    {
        self.bring_up(|core| {
            enter_init_from::<S>(core)?;
            core.enter_rtr(&remote)?;
            core.enter_rts()
        })
    }

    /// Makes a datagram queue pair ready, in one call: through all states to ready to send. It receives what
    /// is sent with this `qkey`, and nothing else.
    ///
    /// A key whose highest bit is set is a privileged one.
    ///
    /// # Errors
    ///
    /// [`Error::Transition`] or [`Error::Verb`] if the device refuses; with `EPERM` if the key is privileged and
    /// the user is not. The queue pair comes back in the state that it had, as from
    /// [`handshake`](Self::handshake).
    #[doc(alias = "ibv_modify_qp")]
    pub fn activate(self, qkey: u32) -> Result<QueuePair<T>, Failed<Self>>
    where
        T: Datagram,
        S: Unconnected,
    {
        self.bring_up(|core| {
            enter_init_from::<S>(core)?;
            core.activate(qkey)
        })
    }

    /// Goes from the state that the type says to ready to send, which is what `steps` does. If that fails, the
    /// queue pair is in the state of the type again, as far as the device lets us.
    pub(super) fn bring_up(
        self,
        steps: impl FnOnce(&mut Core) -> Result<()>,
    ) -> Result<QueuePair<T>, Failed<Self>> {
        self.into_state(|qp| {
            let result = steps(&mut qp.core);
            if result.is_err() {
                qp.step_back();
            }
            result
        })
    }

    /// The queue pair in another state, when `step` has brought it there.
    pub(super) fn into_state<Next: State>(
        mut self,
        step: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<QueuePair<T, Next>, Failed<Self>> {
        match step(&mut self) {
            Ok(()) => Ok(QueuePair::new(self.core)),
            Err(error) => Err(Failed { resource: self, error }),
        }
    }

    /// What sending to a remote queue pair takes beside its number, as this queue pair's builder says (the
    /// local GID, the service level and the like): for
    /// [`ProtectionDomain::create_ah`](crate::ProtectionDomain::create_ah).
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if only one of the sides uses a GID.
    pub fn address_of(&self, remote: &QueuePairEndpoint) -> Result<AddressVector> {
        self.core.address_of(remote)
    }

    /// After a failed `bring_up`: back to the state that the type says, as far as the device lets us.
    /// If it does not, the next transition reports that.
    pub(super) fn step_back(&mut self) {
        let state = self.core.query(QueuePairAttrMask::STATE).ok().and_then(|attr| attr.state());
        if state != Some(QpState::INIT) || S::IS_RESET {
            let reset = QueuePairAttr::new().set_state(QpState::RESET);
            if self.core.modify(&reset).is_err() {
                return;
            }
        }
        if !S::IS_RESET {
            // Also if it is initialised: the connection manager may have done so with a port of its own.
            let _ = self.core.enter_init();
        }
    }
}

impl<T: Transport> QueuePair<T, Init> {
    /// Makes the queue pair answer its peer.
    ///
    /// # Errors
    ///
    /// As [`handshake`](Self::handshake).
    #[doc(alias = "ibv_modify_qp")]
    pub fn ready_to_receive(
        self,
        remote: QueuePairEndpoint,
    ) -> Result<QueuePair<T, Rtr>, Failed<Self>>
    where
        T: Connected,
    {
        self.into_state(|qp| qp.core.enter_rtr(&remote))
    }
}

impl<T: Transport> QueuePair<T, Rtr> {
    /// Makes the queue pair send.
    ///
    /// # Errors
    ///
    /// [`Error::Transition`] or [`Error::Verb`] if the device refuses.
    #[doc(alias = "ibv_modify_qp")]
    pub fn ready_to_send(self) -> Result<QueuePair<T, Rts>, Failed<Self>>
    where
        T: Connected,
    {
        self.into_state(|qp| qp.core.enter_rts())
    }
}

impl<T: Transport, S: State> QueuePair<T, S> {
    /// Changes attributes, and the state if one is set. Which transitions there are, and which
    /// attributes they take, is at [`TransitionFailure`](crate::TransitionFailure).
    ///
    /// A [`Manual`] queue pair can be asked for any state. One that is ready to send may stay so, be
    /// drained ([`QpState::SQD`]) or be failed ([`QpState::ERR`]), which flushes what is posted; its type
    /// stays the same, and after draining it is made ready to send by this function as well.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidState`] if a queue pair that is ready to send is asked for another state: use
    ///   [`reset`](Self::reset), or drive the states with [`into_manual`](QueuePair::into_manual).
    /// - [`Error::Transition`] if the device refuses, with what was missing and what was too much.
    /// - [`Error::Route`] if the route to the peer cannot be resolved.
    /// - [`Error::PollInProgress`] if it is to be reset while a poll of a completion queue of it is open.
    #[doc(alias = "ibv_modify_qp")]
    pub fn modify(&mut self, attr: &QueuePairAttr) -> Result<()>
    where
        S: CanModify,
    {
        match attr.state() {
            Some(state) if !S::may_ask_for(state) => Err(Error::InvalidState { state }),
            _ => self.core.modify(attr),
        }
    }
}
