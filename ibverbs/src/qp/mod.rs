//! Queue pairs: the ends of a connection.

mod attr;
mod bring_up;
mod builder;
#[cfg(feature = "rdmacm")]
mod connection;
mod core;
mod endpoint;
mod functions;
mod gate;
mod limits;
mod multicast;
mod nowhere;
mod open;
mod queues;
mod route;
mod state;
mod timers;
mod transition;
mod transport;

use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;

use bitflags::bitflags;

pub use attr::{QueuePairAttr, QueuePairAttrMask};
#[cfg(feature = "efa")]
pub(crate) use builder::capacity_error;
pub use builder::QueuePairBuilder;
#[cfg(feature = "rdmacm")]
pub(crate) use connection::Depths;
pub(crate) use core::Core;
pub use endpoint::QueuePairEndpoint;
pub(crate) use limits::{Demand, Lacks, Limits};
pub(crate) use open::{OpenBatch, OpenShared};
pub use queues::QueueLevel;
pub use route::RouteFailure;
pub use state::{
    CanModify, CanReceive, CanSend, Init, Manual, QpState, Reset, Rtr, Rts, State, Unconnected,
};
pub(crate) use timers::exponent_time;
pub use timers::{AckTimeout, RnrTimer};
pub use transition::TransitionFailure;
#[cfg(feature = "efa")]
pub(crate) use transport::sealed::TransportSpec;
pub(crate) use transport::{Address, DatagramAddress, Peer};
pub use transport::{
    Atomic, Connected, Datagram, Rc, RdmaRead, RdmaWrite, Reliable, RnrRetry, SendOps, Transport,
    Uc, Ud,
};

use crate::context::ContextHandle;
use crate::cq::CqHandle;
use crate::error::{Error, Failed, Result};
use crate::ffi;
use crate::handle::Destroy;
use crate::mw::BoundWindows;
use crate::owned::KeptTables;
use crate::pd::PdUser;
use crate::post::Requests;
use crate::srq::SrqHandle;
pub(crate) use builder::QpConfig;

/// A queue pair of transport `T`, in state `S`.
///
/// What it can do depends on both: a transition consumes it and returns it in the next state. The
/// type says which state was asked for last; the device may move it to an error state by itself.
///
/// It keeps its protection domain and its completion queues alive. Dropping it destroys it, or leaves that
/// to the end of a poll of one of its completion queues, if one is open; what was posted and is not complete
/// then will never be. [`close`](Self::close) tells whether it is gone.
#[doc(alias = "ibv_qp")]
#[must_use = "dropping it destroys the queue pair"]
pub struct QueuePair<T: Transport, S: State = Rts> {
    core: Core,
    _type: PhantomData<fn() -> (T, S)>,
}

/// A queue pair that was created and not yet brought up.
pub type PreparedQueuePair<T> = QueuePair<T, Reset>;

/// The C object, and what it refers to.
pub(crate) struct QpInner {
    raw: NonNull<ffi::ibv_qp>,
    config: QpConfig,
    posting: functions::Posting,
    send_cq: CqHandle,
    recv_cq: CqHandle,
    _srq: Option<SrqHandle>,
    groups: Vec<multicast::Group>,
    windows: BoundWindows,
    /// What shared batches are made of.
    requests: Requests,
    /// Why the batch that is being filled is refused, if it is. One that was dropped may have left it.
    refusal: Option<Box<Error>>,
    obstacle: core::Obstacle,
    /// The same as in `Core`, for errors.
    limits: Limits,
    /// That of `Core` if nothing stands in the way.
    gate: gate::Gate,
    /// Where batches go that could not be begun, once there was one.
    nowhere: Option<nowhere::Nowhere>,
    resets: u32,
    /// The buffers that are posted, on the owned level.
    tables: KeptTables,
    pd: PdUser,
}

// SAFETY: as for `Core`.
unsafe impl Send for QpInner {}

impl Destroy for QpInner {
    const RESOURCE: &'static str = "queue pair";
    const VERB: &'static str = "ibv_destroy_qp";

    unsafe fn destroy(&mut self) -> i32 {
        self.detach_all();
        let failure = self.windows.free();
        if failure != 0 {
            return failure;
        }
        // SAFETY: the queue pair came from `ibv_create_qp_ex`, and is destroyed once as the caller promises.
        unsafe { ffi::ibv_destroy_qp(self.raw.as_ptr()) }
    }
}

impl QpInner {
    pub(crate) fn send_cq(&self) -> &CqHandle {
        &self.send_cq
    }

    pub(crate) fn recv_cq(&self) -> &CqHandle {
        &self.recv_cq
    }

    fn config(&self) -> &QpConfig {
        &self.config
    }

    fn context(&self) -> &ContextHandle {
        self.pd.context()
    }

    /// Whether a poll of one of the completion queues is open. Destroying or resetting the queue pair
    /// could wait for it then, and for ever if this thread has opened it.
    fn is_polling(&self) -> bool {
        self.send_cq.is_polling() || self.recv_cq.is_polling()
    }
}

impl<T: Transport, S: State> QueuePair<T, S> {
    fn new(core: Core) -> Self {
        QueuePair { core, _type: PhantomData }
    }

    #[inline]
    pub(crate) fn core_mut(&mut self) -> &mut Core {
        &mut self.core
    }

    /// The number of the queue pair: 24 bits, unique on its device at any one time.
    #[doc(alias = "ibv_qp_ex.qp_base.qp_num")]
    pub fn qp_num(&self) -> u32 {
        // SAFETY: the queue pair is alive; its number is not written after its creation.
        unsafe { (*self.core.inner.raw.as_ptr()).qp_num }
    }

    /// The capacities of its queues: what was granted, at least what was asked for.
    pub fn capacity(&self) -> QueuePairCapacity {
        *self.core.granted()
    }

    /// The operations that it was built for: none if it has no send queue.
    pub fn send_ops(&self) -> SendOps {
        self.core.granted_ops()
    }

    /// What a peer must know to connect to it.
    ///
    /// # Errors
    ///
    /// [`Error::Verb`], [`Error::InvalidPort`] or [`Error::InvalidIndex`] if the port or its GID cannot be
    /// read any more.
    pub fn endpoint(&self) -> Result<QueuePairEndpoint> {
        let config = self.core.inner.config();
        let context = self.core.inner.context();
        let lid = context.query_port(config.port)?.lid();
        let gid = match config.gid_index {
            Some(index) => Some(context.query_gid(config.port, u32::from(index))?),
            None => None,
        };
        QueuePairEndpoint::new(self.qp_num(), config.first_psn, lid, gid)
    }

    /// Asks the device for attributes.
    ///
    /// It takes `&mut self`, because the library also stores the state into its own structure. A rate limit can be
    /// set, but not asked for.
    ///
    /// # Errors
    ///
    /// [`Error::Verb`] if the device does not answer.
    #[doc(alias = "ibv_query_qp")]
    pub fn query(&mut self, mask: QueuePairAttrMask) -> Result<QueuePairAttr> {
        self.core.query(mask)
    }

    /// How far the data of one message is written in order, so that its end can be waited for in memory
    /// instead of in the completion queue. Of reads, that is those of this queue pair; of writes and sends,
    /// those of its peer.
    ///
    /// It does not hold for regions with [`AccessFlags::RELAXED_ORDERING`](crate::AccessFlags), nor for memory
    /// that is not read by the processor. A device or a library that does not know says nothing.
    #[doc(alias = "ibv_query_qp_data_in_order")]
    pub fn data_in_order(&self, operation: DataOperation) -> DataInOrder {
        let (qp, flags) = (self.core.raw().cast(), ffi::IBV_QUERY_QP_DATA_IN_ORDER_RETURN_CAPS);
        // SAFETY: the queue pair is alive. The provider reads what it is and asks the device.
        let caps = unsafe { ffi::ibv_query_qp_data_in_order(qp, operation as u32, flags) };
        DataInOrder::from_bits_retain(caps as u32)
    }

    /// Takes the queue pair back to the beginning. What was posted and is not complete will never be,
    /// and its buffers are free again. As to polls by other threads, see [`close`](Self::close).
    ///
    /// # Errors
    ///
    /// - [`Error::PollInProgress`] if a poll of one of its completion queues is open.
    /// - [`Error::Transition`] or [`Error::Verb`] if the device refuses.
    /// - [`Error::Unsupported`] on EFA, if the queue pair was ready to receive: its driver corrupts its memory when
    ///   it finds a completion from before the reset.
    pub fn reset(self) -> Result<QueuePair<T, Reset>, Failed<Self>> {
        self.into_state(|qp| qp.core.modify(&QueuePairAttr::new().set_state(QpState::RESET)))
    }

    /// Destroys the queue pair. Dropping does the same, but cannot tell what went wrong; and if a poll
    /// of one of its completion queues is open, the queue pair is destroyed when that ends.
    ///
    /// If another thread opens a poll at the same moment, this may wait until that poll ends. So do not
    /// wait within a poll for a thread that does this.
    ///
    /// # Errors
    ///
    /// - [`Error::PollInProgress`] if a poll of one of its completion queues is open.
    /// - [`Error::Verb`] if the device refuses, or does not free a window that the queue pair has bound; one that was
    ///   unplugged answers `EIO`.
    #[doc(alias = "ibv_destroy_qp")]
    pub fn close(self) -> Result<(), Failed<Self>> {
        self.core.close().map_err(|failed| failed.map(QueuePair::new))
    }

    /// The C structure, as the extended interface has it.
    pub fn as_raw(&self) -> *mut ffi::ibv_qp_ex {
        self.core.raw()
    }
}

impl<T: Transport, S: State> fmt::Debug for QueuePair<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |path: &'static str| path.rsplit("::").next().unwrap_or(path);
        f.debug_struct("QueuePair")
            .field("transport", &format_args!("{}", name(std::any::type_name::<T>())))
            .field("state", &format_args!("{}", name(std::any::type_name::<S>())))
            .field("qp_num", &format_args!("{:#08x}", self.qp_num()))
            .field("device", &self.core.inner.context().device().name())
            .finish_non_exhaustive()
    }
}

/// An operation that moves data, for [`QueuePair::data_in_order`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum DataOperation {
    /// RDMA reads of this queue pair.
    RdmaRead = ffi::IBV_WR_RDMA_READ,
    /// RDMA writes of the peer.
    RdmaWrite = ffi::IBV_WR_RDMA_WRITE,
    /// Sends of the peer.
    Send = ffi::IBV_WR_SEND,
}

bitflags! {
    /// How far data is written in order (`enum ibv_query_qp_data_in_order_caps`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct DataInOrder: u32 {
        /// From the first byte of a message to its last.
        const WHOLE_MESSAGE = ffi::IBV_QUERY_QP_DATA_IN_ORDER_WHOLE_MSG;
        /// Within each block of 128 bytes that is aligned to its size.
        const ALIGNED_128_BYTES = ffi::IBV_QUERY_QP_DATA_IN_ORDER_ALIGNED_128_BYTES;
    }
}

/// How much fits into the queues of a queue pair (`struct ibv_qp_cap`).
#[doc(alias = "ibv_qp_cap")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuePairCapacity {
    /// How many sends may be posted and not yet completed.
    pub max_send_wr: u32,
    /// How many receives may be posted and not yet completed.
    pub max_recv_wr: u32,
    /// How many scatter entries a send may have.
    pub max_send_sge: u32,
    /// How many scatter entries a receive may have.
    pub max_recv_sge: u32,
    /// How many bytes a send may carry inline.
    pub max_inline_data: u32,
}

impl QueuePairCapacity {
    fn to_raw(self) -> ffi::ibv_qp_cap {
        ffi::ibv_qp_cap {
            max_send_wr: self.max_send_wr,
            max_recv_wr: self.max_recv_wr,
            max_send_sge: self.max_send_sge,
            max_recv_sge: self.max_recv_sge,
            max_inline_data: self.max_inline_data,
        }
    }

    fn from_raw(raw: &ffi::ibv_qp_cap) -> QueuePairCapacity {
        QueuePairCapacity {
            max_send_wr: raw.max_send_wr,
            max_recv_wr: raw.max_recv_wr,
            max_send_sge: raw.max_send_sge,
            max_recv_sge: raw.max_recv_sge,
            max_inline_data: raw.max_inline_data,
        }
    }
}
