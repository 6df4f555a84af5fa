//! Queue pairs: the ends of a connection.

mod attr;
mod bring_up;
mod builder;
mod endpoint;
mod route;
mod state;
mod timers;
mod transition;
mod transport;

use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

pub use attr::{QueuePairAttr, QueuePairAttrMask};
pub use builder::QueuePairBuilder;
pub use endpoint::QueuePairEndpoint;
pub use route::RouteFailure;
pub use state::{
    CanModify, CanReceive, CanSend, Init, Manual, QpState, Reset, Rtr, Rts, State, Unconnected,
};
pub use timers::{AckTimeout, RnrTimer};
pub use transition::TransitionFailure;
pub use transport::{Atomic, Connected, Rc, RdmaRead, RdmaWrite, Reliable, SendOps, Transport, Uc};

use crate::context::ContextHandle;
use crate::cq::{drop_or_park, CqHandle};
use crate::error::{Error, Failed, Result};
use crate::ffi;
use crate::handle::{Destroy, Handle};
use crate::pd::PdHandle;
use builder::QpConfig;

/// A queue pair of transport `T`, in state `S`.
///
/// What it can do depends on both: a transition consumes it and returns it in the next state. The
/// type says which state was asked for last; the device may move it to an error state by itself.
///
/// It keeps its protection domain and its completion queues alive. Dropping it destroys it, or leaves that
/// to the end of a poll of one of its completion queues, if one is open; what was posted and is not complete
/// then will never be. [`close`](Self::close) tells whether it is gone.
#[must_use = "dropping it destroys the queue pair"]
pub struct QueuePair<T: Transport, S: State = Rts> {
    core: Core,
    _type: PhantomData<fn() -> (T, S)>,
}

/// A queue pair that was created and not yet brought up.
pub type PreparedQueuePair<T> = QueuePair<T, Reset>;

/// What the queue pair's type does not change: what posting needs, and the rest behind a pointer.
pub(crate) struct Core {
    raw: NonNull<ffi::ibv_qp_ex>,
    /// What can be posted now: what was granted, but nothing before the queue pair is ready to send.
    ops: SendOps,
    granted: QueuePairCapacity,
    batch: Batch,
    inner: ManuallyDrop<Box<Handle<QpInner>>>,
}

/// What stands in the way of the next batch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Batch {
    /// Nothing.
    Closed,
    /// A batch was started and neither submitted nor aborted: the provider holds a lock.
    Open,
    /// The queue pair was not asked for a state in which it sends. Some providers count a request that
    /// is begun before that as posted, so that they are not called at all.
    NotReady,
}

// SAFETY: verbs may be called by any thread, as `handle.rs` argues. Through a shared reference nothing is written: posting, `modify` and `query`, which store into the C structure, take
// `&mut self`.
unsafe impl Send for Core {}
// SAFETY: as above.
unsafe impl Sync for Core {}

/// The C object, and what it refers to.
pub(crate) struct QpInner {
    raw: NonNull<ffi::ibv_qp>,
    config: QpConfig,
    send_cq: CqHandle,
    recv_cq: CqHandle,
    pd: PdHandle,
}

// SAFETY: as for `Core`.
unsafe impl Send for QpInner {}

impl Destroy for QpInner {
    const RESOURCE: &'static str = "queue pair";
    const VERB: &'static str = "ibv_destroy_qp";

    unsafe fn destroy(&mut self) -> i32 {
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

impl Core {
    /// The core of a queue pair that was created just now.
    fn new(
        raw: NonNull<ffi::ibv_qp_ex>,
        granted: QueuePairCapacity,
        inner: Handle<QpInner>,
    ) -> Core {
        let inner = ManuallyDrop::new(Box::new(inner));
        Core { raw, ops: SendOps::empty(), granted, batch: Batch::NotReady, inner }
    }

    /// Takes note that the queue pair was moved to a state in which it sends, or does not.
    fn set_ready(&mut self, ready: bool) {
        (self.ops, self.batch) = if ready {
            (self.granted_ops(), Batch::Closed)
        } else {
            (SendOps::empty(), Batch::NotReady)
        };
    }

    /// The operations that the queue pair was built for.
    pub(crate) fn granted_ops(&self) -> SendOps {
        // Without a send queue there is nothing to post to, and providers do not check.
        if self.granted.max_send_wr == 0 {
            return SendOps::empty();
        }
        self.inner.config.send_ops
    }

    #[inline]
    pub(crate) fn raw(&self) -> *mut ffi::ibv_qp_ex {
        self.raw.as_ptr()
    }

    /// The operations that can be posted now.
    #[inline]
    pub(crate) fn ops(&self) -> SendOps {
        self.ops
    }

    #[inline]
    pub(crate) fn granted(&self) -> &QueuePairCapacity {
        &self.granted
    }

    /// Opens a batch, and first aborts one that was forgotten. `false` if the queue pair is not ready to
    /// send: then there is no batch.
    #[inline]
    pub(crate) fn start_batch(&mut self) -> bool {
        if self.batch != Batch::Closed && !self.clear_batch() {
            return false;
        }
        self.batch = Batch::Open;
        // SAFETY: the queue pair is alive and no batch is open; the builder checked that the function
        // is there.
        unsafe { ffi::ibv_wr_start(self.raw()) };
        true
    }

    #[cold]
    fn clear_batch(&mut self) -> bool {
        self.abort_batch();
        self.batch == Batch::Closed
    }

    /// Posts the open batch; returns zero or an `errno` value.
    #[inline]
    pub(crate) fn complete_batch(&mut self) -> i32 {
        debug_assert!(self.batch == Batch::Open);
        self.batch = Batch::Closed;
        // SAFETY: the queue pair is alive and a batch is open; the builder checked that the function
        // is there. What it posts is the promise of whoever filled the batch.
        unsafe { ffi::ibv_wr_complete(self.raw()) }
    }

    /// Takes the open batch back, if there is one.
    #[cold]
    pub(crate) fn abort_batch(&mut self) {
        if self.batch == Batch::Open {
            self.batch = Batch::Closed;
            // SAFETY: the queue pair is alive and a batch is open; the builder checked that the
            // function is there.
            unsafe { ffi::ibv_wr_abort(self.raw()) }
        }
    }

    fn close(mut self) -> Result<(), Failed<Core>> {
        if self.inner.is_polling() {
            return Err(Failed { resource: self, error: Error::PollInProgress });
        }
        self.abort_batch();
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is not dropped, and its `inner` is not used again.
        let inner = unsafe { ManuallyDrop::take(&mut this.inner) };
        let Core { raw, ops, granted, batch, .. } = *this;
        inner.close().map_err(|failed| {
            failed.map(|inner| {
                let inner = ManuallyDrop::new(Box::new(inner));
                Core { raw, ops, granted, batch, inner }
            })
        })
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.abort_batch();
        // SAFETY: self is being dropped, and `inner` is not used again.
        drop_or_park(*unsafe { ManuallyDrop::take(&mut self.inner) });
    }
}

impl<T: Transport, S: State> QueuePair<T, S> {
    fn new(core: Core) -> Self {
        QueuePair { core, _type: PhantomData }
    }

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
        self.core.granted
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
    /// It takes `&mut self`, because the library also stores the state into its own structure.
    ///
    /// # Errors
    ///
    /// [`Error::Verb`] if the device does not answer.
    #[doc(alias = "ibv_query_qp")]
    pub fn query(&mut self, mask: QueuePairAttrMask) -> Result<QueuePairAttr> {
        self.core.query(mask)
    }

    /// Takes the queue pair back to the beginning. What was posted and is not complete will never be,
    /// and its buffers are free again. As to polls by other threads, see [`close`](Self::close).
    ///
    /// # Errors
    ///
    /// - [`Error::PollInProgress`] if a poll of one of its completion queues is open.
    /// - [`Error::Transition`] or [`Error::Verb`] if the device refuses.
    pub fn reset(mut self) -> Result<QueuePair<T, Reset>, Failed<Self>> {
        match self.core.modify(&QueuePairAttr::new().set_state(QpState::RESET)) {
            Ok(()) => Ok(QueuePair::new(self.core)),
            Err(error) => Err(Failed { resource: self, error }),
        }
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
    /// - [`Error::InUse`] if it is attached to a multicast group.
    /// - [`Error::Verb`] if the device refuses; one that was unplugged answers `EIO`.
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

/// How much fits into the queues of a queue pair (`struct ibv_qp_cap`).
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
