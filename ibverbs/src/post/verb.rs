//! The operations, as the two interfaces for posting have them.
//!
//! The extended one (`ibv_wr_*`) has a function for each, the classic one (`ibv_post_send`) a structure for all.

use crate::ffi;
use crate::mr::RemoteMemorySlice;
use crate::qp::SendOps;

/// An operation that takes a payload.
///
/// # Safety
///
/// `begin` calls the provider's function for an operation of `OP`, which takes a payload, and nothing else.
pub unsafe trait Verb {
    /// What a queue pair must be built for.
    const OP: SendOps;

    /// Begins a request of the open batch.
    ///
    /// # Safety
    ///
    /// The queue pair is alive, a batch is open on it, and it was granted the operation.
    unsafe fn begin(&self, qp: *mut ffi::ibv_qp_ex);
}

/// An operation that the classic interface has as well.
pub trait Classic: Verb {
    /// What it is called there.
    const OPCODE: ffi::ibv_wr_opcode;

    /// Writes what is its own into a request; the rest may be anything.
    fn describe(&self, request: &mut ffi::ibv_send_wr);
}

/// Implements [`Verb`] by a function with these arguments.
macro_rules! verb {
    ($verb:ident($self:ident) = $op:ident: $function:ident $(, $argument:expr)*) => {
        // SAFETY: the function is that of the operation, which takes a payload.
        unsafe impl Verb for $verb {
            const OP: SendOps = SendOps::$op;

            #[inline(always)]
            unsafe fn begin(&$self, qp: *mut ffi::ibv_qp_ex) {
                // SAFETY: passed on to the caller; the builder checked the function, since the operation was granted.
                unsafe { ffi::$function(qp $(, $argument)*) }
            }
        }
    };
}

/// Immediate data is in network byte order in all of these.
pub(crate) struct Send;
pub(crate) struct SendImm(pub(crate) u32);
pub(crate) struct SendInv(pub(crate) u32);
pub(crate) struct Write(pub(crate) RemoteMemorySlice);
pub(crate) struct WriteImm(pub(crate) RemoteMemorySlice, pub(crate) u32);
pub(crate) struct Read(pub(crate) RemoteMemorySlice);
pub(crate) struct CompareSwap {
    pub(crate) remote: RemoteMemorySlice,
    pub(crate) compare: u64,
    pub(crate) swap: u64,
}
pub(crate) struct FetchAdd {
    pub(crate) remote: RemoteMemorySlice,
    pub(crate) add: u64,
}

verb!(Send(self) = SEND: ibv_wr_send);
verb!(SendImm(self) = SEND_WITH_IMM: ibv_wr_send_imm, self.0);
verb!(SendInv(self) = SEND_WITH_INV: ibv_wr_send_inv, self.0);
verb!(Write(self) = RDMA_WRITE: ibv_wr_rdma_write, self.0.rkey, self.0.addr);
verb!(WriteImm(self) = RDMA_WRITE_WITH_IMM: ibv_wr_rdma_write_imm, self.0.rkey, self.0.addr, self.1);
verb!(Read(self) = RDMA_READ: ibv_wr_rdma_read, self.0.rkey, self.0.addr);
verb!(
    CompareSwap(self) = ATOMIC_CMP_AND_SWP: ibv_wr_atomic_cmp_swp,
    self.remote.rkey, self.remote.addr, self.compare, self.swap
);
verb!(
    FetchAdd(self) = ATOMIC_FETCH_AND_ADD: ibv_wr_atomic_fetch_add,
    self.remote.rkey, self.remote.addr, self.add
);

impl Classic for Send {
    const OPCODE: ffi::ibv_wr_opcode = ffi::IBV_WR_SEND;

    #[inline]
    fn describe(&self, _: &mut ffi::ibv_send_wr) {}
}

impl Classic for SendImm {
    const OPCODE: ffi::ibv_wr_opcode = ffi::IBV_WR_SEND_WITH_IMM;

    #[inline]
    fn describe(&self, request: &mut ffi::ibv_send_wr) {
        request.__bindgen_anon_1.imm_data = self.0;
    }
}

impl Classic for Write {
    const OPCODE: ffi::ibv_wr_opcode = ffi::IBV_WR_RDMA_WRITE;

    #[inline]
    fn describe(&self, request: &mut ffi::ibv_send_wr) {
        describe_remote(request, self.0);
    }
}

impl Classic for WriteImm {
    const OPCODE: ffi::ibv_wr_opcode = ffi::IBV_WR_RDMA_WRITE_WITH_IMM;

    #[inline]
    fn describe(&self, request: &mut ffi::ibv_send_wr) {
        describe_remote(request, self.0);
        request.__bindgen_anon_1.imm_data = self.1;
    }
}

impl Classic for Read {
    const OPCODE: ffi::ibv_wr_opcode = ffi::IBV_WR_RDMA_READ;

    #[inline]
    fn describe(&self, request: &mut ffi::ibv_send_wr) {
        describe_remote(request, self.0);
    }
}

impl Classic for CompareSwap {
    const OPCODE: ffi::ibv_wr_opcode = ffi::IBV_WR_ATOMIC_CMP_AND_SWP;

    #[inline]
    fn describe(&self, request: &mut ffi::ibv_send_wr) {
        describe_atomic(request, self.remote, self.compare, self.swap);
    }
}

impl Classic for FetchAdd {
    const OPCODE: ffi::ibv_wr_opcode = ffi::IBV_WR_ATOMIC_FETCH_AND_ADD;

    #[inline]
    fn describe(&self, request: &mut ffi::ibv_send_wr) {
        describe_atomic(request, self.remote, self.add, 0);
    }
}

#[inline]
fn describe_remote(request: &mut ffi::ibv_send_wr, remote: RemoteMemorySlice) {
    request.wr.rdma.remote_addr = remote.addr;
    request.wr.rdma.rkey = remote.rkey;
}

#[inline]
fn describe_atomic(
    request: &mut ffi::ibv_send_wr,
    remote: RemoteMemorySlice,
    compare_add: u64,
    swap: u64,
) {
    request.wr.atomic.remote_addr = remote.addr;
    request.wr.atomic.compare_add = compare_add;
    request.wr.atomic.swap = swap;
    request.wr.atomic.rkey = remote.rkey;
}
