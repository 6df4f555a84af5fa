//! Transports as types, and what each of them can do.
//!
//! | marker | | send | write | read | atomics | delivery |
//! |---|---|---|---|---|---|---|
//! | [`Rc`] | reliable connection | yes | yes | yes | yes | in order, acknowledged |
//! | [`Uc`] | unreliable connection | yes | yes | no | no | in order, or lost |
//! | [`Ud`] | unreliable datagram | one packet | no | no | no | in any order, or lost |
//! | `Srd` (feature `efa`) | scalable reliable datagram | one packet | on some | on some | no | in any order, acknowledged |

use bitflags::bitflags;

use crate::attr::DeviceCaps;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::ffi;

bitflags! {
    /// The operations that a queue pair can post (`enum ibv_qp_create_send_ops_flags`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct SendOps: u64 {
        /// Send.
        const SEND = ffi::IBV_QP_EX_WITH_SEND as u64;
        /// Send with immediate data.
        const SEND_WITH_IMM = ffi::IBV_QP_EX_WITH_SEND_WITH_IMM as u64;
        /// RDMA write.
        const RDMA_WRITE = ffi::IBV_QP_EX_WITH_RDMA_WRITE as u64;
        /// RDMA write with immediate data.
        const RDMA_WRITE_WITH_IMM = ffi::IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM as u64;
        /// RDMA read.
        const RDMA_READ = ffi::IBV_QP_EX_WITH_RDMA_READ as u64;
        /// Atomic compare and swap.
        const ATOMIC_CMP_AND_SWP = ffi::IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP as u64;
        /// Atomic fetch and add.
        const ATOMIC_FETCH_AND_ADD = ffi::IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD as u64;
        /// Invalidation of a memory window of this side.
        const LOCAL_INV = ffi::IBV_QP_EX_WITH_LOCAL_INV as u64;
        /// Binding of a memory window.
        const BIND_MW = ffi::IBV_QP_EX_WITH_BIND_MW as u64;
        /// Send that invalidates a memory window of the peer.
        const SEND_WITH_INV = ffi::IBV_QP_EX_WITH_SEND_WITH_INV as u64;
        /// Flush of the peer's memory.
        const FLUSH = ffi::IBV_QP_EX_WITH_FLUSH as u64;
        /// Write of eight bytes at once.
        const ATOMIC_WRITE = ffi::IBV_QP_EX_WITH_ATOMIC_WRITE as u64;
    }
}

impl SendOps {
    /// Both atomic operations.
    pub const ATOMICS: SendOps = SendOps::ATOMIC_CMP_AND_SWP.union(SendOps::ATOMIC_FETCH_AND_ADD);

    /// What memory windows of type 2 take: binding, and invalidation from both sides.
    pub const WINDOWS: SendOps =
        SendOps::BIND_MW.union(SendOps::LOCAL_INV).union(SendOps::SEND_WITH_INV);

    /// Fails if the device does not have one of the operations that few devices have, and that SoftRoCE's provider
    /// grants although an older kernel (6.1) does not have them: they would fail when they are carried out.
    pub(crate) fn check_capabilities(self, context: &Context) -> Result<()> {
        let flush = DeviceCaps::FLUSH_GLOBAL | DeviceCaps::FLUSH_PERSISTENT;
        for (op, caps, operation) in [
            (SendOps::FLUSH, flush, "a flush (SendOps::FLUSH)"),
            (
                SendOps::ATOMIC_WRITE,
                DeviceCaps::ATOMIC_WRITE,
                "an atomic write (SendOps::ATOMIC_WRITE)",
            ),
        ] {
            if self.contains(op) && !context.query_device_ex()?.capabilities().intersects(caps) {
                return Err(Error::Unsupported { operation });
            }
        }
        Ok(())
    }

    pub(crate) const SENDS: SendOps = SendOps::SEND.union(SendOps::SEND_WITH_IMM);
    pub(crate) const WRITES: SendOps = SendOps::RDMA_WRITE.union(SendOps::RDMA_WRITE_WITH_IMM);
}

pub(crate) mod sealed {
    use std::fmt::Debug;

    use super::SendOps;
    use crate::context::Context;
    use crate::error::{Error, Result};
    use crate::ffi;
    use crate::qp::{QpConfig, QueuePairCapacity};

    /// What the crate knows of a transport. Only the crate's own markers implement it.
    pub trait TransportSpec {
        const QP_TYPE: ffi::ibv_qp_type;
        /// The operations that are demanded when a queue pair is created, unless its builder says
        /// otherwise.
        const SEND_OPS: SendOps;
        /// The other operations that the transport may have: demanded if its builder says so.
        const OPTIONAL_OPS: SendOps;
        /// The operations that the classic interface for posting has as well.
        const CLASSIC_OPS: SendOps = SendOps::all();
        /// Where an operation goes: known to the queue pair, or part of each operation.
        type Address: Address;
        /// The verb that creates its queue pairs.
        const CREATE: &'static str = "ibv_create_qp_ex";
        /// Whether every operation completes, also one that was not told to: where they complete in any order, a
        /// completion tells nothing about those before it.
        const ALWAYS_SIGNALED: bool = false;

        /// Finds out what the device has, as far as creating the queue pair would not tell.
        fn prepare(_: &Context, _: &mut QpConfig) -> Result<()> {
            Ok(())
        }

        /// Calls [`Self::CREATE`].
        ///
        /// # Safety
        ///
        /// That of `ibv_create_qp_ex`.
        unsafe fn create(
            context: *mut ffi::ibv_context,
            attr: &mut ffi::ibv_qp_init_attr_ex,
            _: &QpConfig,
        ) -> *mut ffi::ibv_qp {
            // SAFETY: passed on to the caller.
            unsafe { ffi::ibv_create_qp_ex(context, attr) }
        }

        /// Why [`Self::CREATE`] refused this with `code`, if the transport knows more than the device's ordinary
        /// attributes tell.
        fn explain(
            _: &Context,
            _: &QpConfig,
            _asked: &QueuePairCapacity,
            _code: i32,
        ) -> Option<Error> {
            None
        }

        /// What a write or a read may carry, if that is less than what was granted for sends.
        #[inline]
        fn rdma_capacity(_: &QpConfig, _granted: &QueuePairCapacity) -> Option<QueuePairCapacity> {
            None
        }
    }

    /// The address of an operation.
    pub trait Address: Copy {
        /// Whether operations are addressed, for which the provider has a function of its own.
        const ADDRESSED: bool;

        /// Whether the provider may be given it.
        fn is_usable(self) -> bool;

        /// Gives the address to the request that was begun last.
        ///
        /// # Safety
        ///
        /// `qp` is alive, a batch is open in which a request was begun just now, the builder checked the
        /// function, and the address [is usable](Self::is_usable) and its handle alive.
        unsafe fn set(self, qp: *mut ffi::ibv_qp_ex);

        /// Writes the address into a request of the classic interface.
        fn describe(self, request: &mut ffi::ibv_send_wr);
    }

    /// The queue pair knows its peer.
    #[derive(Clone, Copy, Debug)]
    pub struct Peer;

    impl Address for Peer {
        const ADDRESSED: bool = false;

        #[inline]
        fn is_usable(self) -> bool {
            true
        }

        #[inline]
        unsafe fn set(self, _: *mut ffi::ibv_qp_ex) {}

        #[inline]
        fn describe(self, _: &mut ffi::ibv_send_wr) {}
    }

    /// The remote queue pair of one datagram.
    #[derive(Clone, Copy, Debug)]
    pub struct DatagramAddress {
        /// Null if the handle is of another protection domain than the queue pair.
        pub(crate) ah: *mut ffi::ibv_ah,
        pub(crate) remote_qpn: u32,
        pub(crate) qkey: u32,
    }

    impl Address for DatagramAddress {
        const ADDRESSED: bool = true;

        #[inline]
        fn is_usable(self) -> bool {
            !self.ah.is_null()
        }

        #[inline]
        unsafe fn set(self, qp: *mut ffi::ibv_qp_ex) {
            // SAFETY: passed on to the caller.
            unsafe { ffi::ibv_wr_set_ud_addr(qp, self.ah, self.remote_qpn, self.qkey) }
        }

        #[inline]
        fn describe(self, request: &mut ffi::ibv_send_wr) {
            request.wr.ud.ah = self.ah;
            request.wr.ud.remote_qpn = self.remote_qpn;
            request.wr.ud.remote_qkey = self.qkey;
        }
    }
}
pub(crate) use sealed::{Address, DatagramAddress, Peer};

/// A transport: the type of a queue pair. Sealed.
#[diagnostic::on_unimplemented(message = "`{Self}` is not an RDMA transport")]
pub trait Transport: sealed::TransportSpec + Sized + 'static {}

/// A transport whose queue pairs are connected to one other. Sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not connected: address each operation with `.to(&ah, qpn, qkey)`",
    note = "a datagram queue pair is brought up with `activate`, and has no peer of its own"
)]
pub trait Connected: Transport + sealed::TransportSpec<Address = Peer> {}

/// A transport whose every message is addressed. Sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no datagram transport: its queue pairs are connected with `handshake`, and an \
               operation begins with `.op()`"
)]
pub trait Datagram: Transport + sealed::TransportSpec<Address = DatagramAddress> {}

/// A connected transport that acknowledges and repeats. Sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no reliable connection: it has no timers, retries or fences to set, and the \
               connection manager does not connect it"
)]
pub trait Reliable: Connected {}

/// A transport that sends again to a peer that was not ready to receive. Sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not send again to a peer that was not ready to receive"
)]
pub trait RnrRetry: Transport {}

/// A transport that has RDMA write. Sealed.
#[diagnostic::on_unimplemented(message = "transport `{Self}` has no RDMA write")]
pub trait RdmaWrite: Transport {}

/// A transport that has RDMA read. Sealed.
#[diagnostic::on_unimplemented(message = "transport `{Self}` has no RDMA read")]
pub trait RdmaRead: Transport {}

/// A transport that has atomic operations. Sealed.
#[diagnostic::on_unimplemented(message = "transport `{Self}` has no atomic operations")]
pub trait Atomic: Transport {}

/// Reliable connection: every message arrives once, in order, or the queue pair fails.
#[derive(Clone, Copy, Debug)]
pub enum Rc {}

impl sealed::TransportSpec for Rc {
    const QP_TYPE: ffi::ibv_qp_type = ffi::IBV_QPT_RC;
    const SEND_OPS: SendOps =
        SendOps::SENDS.union(SendOps::WRITES).union(SendOps::RDMA_READ).union(SendOps::ATOMICS);
    const OPTIONAL_OPS: SendOps =
        SendOps::WINDOWS.union(SendOps::FLUSH).union(SendOps::ATOMIC_WRITE);
    type Address = sealed::Peer;
}
impl Transport for Rc {}
impl Connected for Rc {}
impl Reliable for Rc {}
impl RnrRetry for Rc {}
impl RdmaWrite for Rc {}
impl RdmaRead for Rc {}
impl Atomic for Rc {}

/// Unreliable connection: messages arrive in order and unchanged, or not at all.
#[derive(Clone, Copy, Debug)]
pub enum Uc {}

impl sealed::TransportSpec for Uc {
    const QP_TYPE: ffi::ibv_qp_type = ffi::IBV_QPT_UC;
    const SEND_OPS: SendOps = SendOps::SENDS.union(SendOps::WRITES);
    const OPTIONAL_OPS: SendOps = SendOps::WINDOWS;
    type Address = sealed::Peer;
}
impl Transport for Uc {}
impl Connected for Uc {}
impl RdmaWrite for Uc {}

/// Unreliable datagram: one queue pair sends to and receives from any number of others, one packet a
/// message. A message arrives unchanged, once, or not at all; two may overtake each other.
///
/// A receive needs 40 bytes more than the message: the packet's global route header comes first (see
/// [`Grh`](crate::Grh)).
///
/// What is lost is told to nobody. A message that is longer than the port's
/// [`active_mtu`](crate::PortAttr::active_mtu) may be completed with success and not be sent (SoftRoCE), and one for
/// which the next receive is too small may be dropped while the receive stays where it is, in the way of all later
/// ones of that length.
///
/// # Examples
///
/// ```no_run
/// # use ibverbs::{AccessFlags, CompletionQueue, Grh, ProtectionDomain, QueuePairEndpoint, RecvRequest, Result, Ud};
/// # fn talk(
/// #     pd: &ProtectionDomain, cq: &CompletionQueue, exchange: impl Fn(QueuePairEndpoint) -> QueuePairEndpoint,
/// # ) -> Result<()> {
/// const QKEY: u32 = 0x1234_5678; // of both sides
/// let recv = pd.allocate(Grh::BYTES + 1024, AccessFlags::LOCAL_WRITE)?;
/// let builder = pd.create_qp::<Ud>(cq, cq, 1)?.set_max_inline_data(5);
/// let mut qp = builder.build()?.activate(QKEY)?;
/// // SAFETY: the region is dropped after the queue pair, and not touched before the receive has completed.
/// unsafe { qp.post_recv([RecvRequest::new(1, &[recv.slice(..)])]) }?;
///
/// let peer = exchange(qp.endpoint()?); // over a socket, for example
/// let ah = pd.create_ah(&qp.address_of(&peer)?)?;
/// let mut batch = qp.start_send();
/// batch.to(&ah, peer.qp_num(), QKEY).signaled().send(2, b"hello");
/// // SAFETY: inline data has no conditions, and the send queue is empty.
/// unsafe { batch.submit() }?;
///
/// // Again and again, but not for ever: what the peer sends may be lost.
/// if let Some(mut completions) = cq.poll()? {
///     while let Some(wc) = completions.next() {
///         wc.ok().expect("work request failed");
///         if wc.opcode().is_recv() {
///             println!("{:?}", &recv.bytes()[Grh::BYTES..wc.len() as usize]);
///         }
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub enum Ud {}

impl sealed::TransportSpec for Ud {
    const QP_TYPE: ffi::ibv_qp_type = ffi::IBV_QPT_UD;
    const SEND_OPS: SendOps = SendOps::SENDS;
    const OPTIONAL_OPS: SendOps = SendOps::empty();
    type Address = DatagramAddress;
}
impl Transport for Ud {}
impl Datagram for Ud {}
