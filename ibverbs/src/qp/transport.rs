//! Transports as types, and what each of them can do.
//!
//! | marker | | send | write | read | atomics | delivery |
//! |---|---|---|---|---|---|---|
//! | [`Rc`] | reliable connection | yes | yes | yes | yes | in order, acknowledged |
//! | [`Uc`] | unreliable connection | yes | yes | no | no | in order, or lost |

use bitflags::bitflags;

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
    }
}

impl SendOps {
    /// Both atomic operations.
    pub const ATOMICS: SendOps = SendOps::ATOMIC_CMP_AND_SWP.union(SendOps::ATOMIC_FETCH_AND_ADD);
}

pub(crate) mod sealed {
    use super::SendOps;
    use crate::ffi;

    /// What the crate knows of a transport. Only the crate's own markers implement it.
    pub trait TransportSpec {
        const QP_TYPE: ffi::ibv_qp_type;
        /// The operations that the posting interface has for this transport: all of them are
        /// demanded when a queue pair is created, unless its builder leaves some out.
        const SEND_OPS: SendOps;
    }
}

/// A transport: the type of a queue pair. Sealed.
#[diagnostic::on_unimplemented(message = "`{Self}` is not an RDMA transport")]
pub trait Transport: sealed::TransportSpec + Sized + 'static {}

/// A transport whose queue pairs are connected to one other. Sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not connected: address each operation with `.to(&ah, qpn, qkey)`"
)]
pub trait Connected: Transport {}

/// A connected transport that acknowledges and repeats. Sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not reliable: it has no acknowledgements, timers, retries or fences"
)]
pub trait Reliable: Connected {}

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
    const SEND_OPS: SendOps = SendOps::all();
}
impl Transport for Rc {}
impl Connected for Rc {}
impl Reliable for Rc {}
impl RdmaWrite for Rc {}
impl RdmaRead for Rc {}
impl Atomic for Rc {}

/// Unreliable connection: messages arrive in order and unchanged, or not at all.
#[derive(Clone, Copy, Debug)]
pub enum Uc {}

impl sealed::TransportSpec for Uc {
    const QP_TYPE: ffi::ibv_qp_type = ffi::IBV_QPT_UC;
    const SEND_OPS: SendOps = SendOps::SEND
        .union(SendOps::SEND_WITH_IMM)
        .union(SendOps::RDMA_WRITE)
        .union(SendOps::RDMA_WRITE_WITH_IMM);
}
impl Transport for Uc {}
impl Connected for Uc {}
impl RdmaWrite for Uc {}
