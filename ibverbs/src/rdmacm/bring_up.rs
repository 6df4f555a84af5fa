//! Queue pairs for connections: brought up as the two sides have agreed.

use super::device;
use super::id::CmId;
use super::params::ConnectionParams;
use crate::error::{Error, Failed, Result};
use crate::ffi;
use crate::qp::{
    Address, Init, QpState, QueuePair, QueuePairAttr, QueuePairAttrMask, Reliable, Reset, Rtr, Rts,
    State, Transport, Ud, Unconnected,
};

/// Bringing up the queue pair. What it takes for that is known after a connection request, or after `CONNECT_RESPONSE`.
///
/// Of its builder's settings, these stay as they are: the access rights, the timeout, the counts of retries, the RNR
/// timer, and the depths of reads and atomics, if the peer does not offer less. The port, the partition, the path with
/// its MTU, and the packet sequence numbers are those that the connection manager has agreed on.
impl CmId {
    /// The attributes that lead a queue pair to a state, as the connection manager says: for those who
    /// [`modify`](QueuePair::modify) a queue pair themselves. It grants the peer all access rights, or none, and
    /// knows nothing of what the queue pair was built for.
    ///
    /// # Errors
    ///
    /// - [`Error::NotBound`] if the identifier has no device yet.
    /// - [`Error::Verb`] with `EINVAL` if the connection has not got that far.
    #[doc(alias = "rdma_init_qp_attr")]
    pub fn qp_attr(&mut self, state: QpState) -> Result<QueuePairAttr> {
        self.check_device()?;
        let mut attr = ffi::ibv_qp_attr { qp_state: state.0, ..Default::default() };
        let mut mask = 0;
        self.verb("rdma_init_qp_attr", |id| {
            // SAFETY: the identifier is alive, the attributes are a whole structure, and the mask is an `int`.
            unsafe { ffi::rdma_init_qp_attr(id, &mut attr, &mut mask) }
        })?;
        // Some kernels set bits that are not for user space (`ucma_modify_qp_rtr` in librdmacm/cma.c).
        let mask = QueuePairAttrMask::from_bits_truncate(mask as u32);
        Ok(QueuePairAttr::from_raw(attr, mask))
    }

    /// Initialises the queue pair: receives can be posted from now on.
    ///
    /// # Errors
    ///
    /// Those of [`bring_up`](Self::bring_up).
    pub fn init<T: Reliable>(
        &mut self,
        qp: QueuePair<T, Reset>,
    ) -> Result<QueuePair<T, Init>, Failed<QueuePair<T, Reset>>> {
        self.check_queue_pair(qp)?.init_agreed(|state| self.qp_attr(state))
    }

    /// Makes the queue pair answer its peer.
    ///
    /// # Errors
    ///
    /// Those of [`bring_up`](Self::bring_up).
    pub fn ready_to_receive<T: Reliable>(
        &mut self,
        qp: QueuePair<T, Init>,
    ) -> Result<QueuePair<T, Rtr>, Failed<QueuePair<T, Init>>> {
        self.check_queue_pair(qp)?.ready_to_receive_agreed(|state| self.qp_attr(state))
    }

    /// Makes the queue pair send.
    ///
    /// # Errors
    ///
    /// Those of [`bring_up`](Self::bring_up).
    pub fn ready_to_send<T: Reliable>(
        &mut self,
        qp: QueuePair<T, Rtr>,
    ) -> Result<QueuePair<T, Rts>, Failed<QueuePair<T, Rtr>>> {
        self.check_queue_pair(qp)?.ready_to_send_agreed(|state| self.qp_attr(state))
    }

    /// Makes the queue pair ready to send, in one call.
    ///
    /// A client calls this after `CONNECT_RESPONSE` and before [`establish`](Self::establish), a server before
    /// [`accept`](Self::accept).
    ///
    /// # Errors
    ///
    /// - [`Error::NotBound`] if the identifier has no device yet.
    /// - [`Error::DeviceMismatch`] if the queue pair is of another device.
    /// - [`Error::PortSpaceMismatch`] if the identifier's port space is one of datagrams.
    /// - [`Error::Verb`], [`Error::Transition`] or [`Error::Route`] if the connection has not got that far, or the
    ///   device refuses. The queue pair comes back in the state that it had, as from
    ///   [`handshake`](QueuePair::handshake).
    pub fn bring_up<T: Reliable, S: Unconnected>(
        &mut self,
        qp: QueuePair<T, S>,
    ) -> Result<QueuePair<T>, Failed<QueuePair<T, S>>> {
        self.bring_up_for(qp, &ConnectionParams::new())
    }

    /// The same, with what these parameters ask for.
    pub(super) fn bring_up_for<T: Reliable, S: Unconnected>(
        &mut self,
        qp: QueuePair<T, S>,
        params: &ConnectionParams,
    ) -> Result<QueuePair<T>, Failed<QueuePair<T, S>>> {
        let depths = params.depths_for(&qp);
        self.check_queue_pair(qp)?.bring_up_agreed(depths, |state| self.qp_attr(state))
    }

    /// Makes a datagram queue pair ready, in one call, with the queue key of the port space.
    ///
    /// # Errors
    ///
    /// Those of [`bring_up`](Self::bring_up); [`Error::PortSpaceMismatch`] if the identifier's port space is one of
    /// connections.
    pub fn activate<S: Unconnected>(
        &mut self,
        qp: QueuePair<Ud, S>,
    ) -> Result<QueuePair<Ud>, Failed<QueuePair<Ud, S>>> {
        self.check_queue_pair(qp)?.activate_agreed(|state| self.qp_attr(state))
    }

    /// Hands the queue pair back if it is not for this identifier.
    pub(super) fn check_queue_pair<T: Transport, S: State>(
        &self,
        qp: QueuePair<T, S>,
    ) -> Result<QueuePair<T, S>, Failed<QueuePair<T, S>>> {
        match self.check_use(&qp) {
            Ok(()) => Ok(qp),
            Err(error) => Err(Failed { resource: qp, error }),
        }
    }

    /// That the queue pair is of the identifier's device and kind.
    pub(super) fn check_use<T: Transport, S: State>(&self, qp: &QueuePair<T, S>) -> Result<()> {
        if !device::is_same(&qp.device_context().device(), &self.device()?) {
            return Err(Error::DeviceMismatch { what: "queue pair" });
        }
        self.check_port_space(T::Address::ADDRESSED)
    }
}
