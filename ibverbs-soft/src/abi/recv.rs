//! Posting receives.

use std::ffi::c_int;

use ibverbs_sys as ffi;
use rustix::io::Errno;

use super::object::object;
use super::qp::Qp;
use super::send::{chain, sges_of, tell};
use super::srq::Srq;
use crate::device::{Posted, Result};
use crate::transport::RecvRequest;

/// The operation of `ibv_context`.
pub(super) unsafe extern "C" fn post_recv(
    qp: *mut ffi::ibv_qp,
    wr: *mut ffi::ibv_recv_wr,
    bad_wr: *mut *mut ffi::ibv_recv_wr,
) -> c_int {
    // SAFETY: the queue pair is alive (ibv_post_recv(3)).
    let qp = unsafe { object::<Qp>(qp.cast()) };
    // Its receives come from the shared queue.
    if !qp.init.srq.is_null() {
        // SAFETY: the chain is valid, and there is room for a pointer (ibv_post_recv(3)).
        return unsafe { tell(Err((0, Errno::INVAL)), wr, bad_wr) };
    }
    let post = |requests: &mut dyn Iterator<Item = Result<RecvRequest>>| {
        qp.device().post_recv(qp.number, requests)
    };
    // SAFETY: as ibv_post_recv(3) demands.
    unsafe { post_chain(wr, qp.cap().max_recv_sge, bad_wr, post) }
}

/// The operation of `ibv_context`.
pub(super) unsafe extern "C" fn post_srq_recv(
    srq: *mut ffi::ibv_srq,
    wr: *mut ffi::ibv_recv_wr,
    bad_wr: *mut *mut ffi::ibv_recv_wr,
) -> c_int {
    // SAFETY: the queue is alive (ibv_post_srq_recv(3)).
    let queue = &unsafe { object::<Srq>(srq) }.queue;
    let post = |requests: &mut dyn Iterator<Item = Result<RecvRequest>>| {
        queue.domain.shared.device.post_srq_recv(queue.id, requests)
    };
    // SAFETY: as ibv_post_srq_recv(3) demands.
    unsafe { post_chain(wr, queue.max_sge, bad_wr, post) }
}

/// Posts the requests of a chain.
///
/// # Safety
///
/// The chain is valid, the lists of its requests are as long as they say, and there is room for a pointer.
unsafe fn post_chain(
    wr: *mut ffi::ibv_recv_wr,
    max_sge: u32,
    bad_wr: *mut *mut ffi::ibv_recv_wr,
    post: impl FnOnce(&mut dyn Iterator<Item = Result<RecvRequest>>) -> Posted,
) -> c_int {
    // SAFETY: by the caller's promise.
    let mut requests = unsafe { chain(wr) }.map(|wr| {
        // SAFETY: it is a request of the chain.
        let wr = unsafe { wr.read() };
        let len = usize::try_from(wr.num_sge).map_err(|_| Errno::INVAL)?;
        // SAFETY: by the caller's promise.
        let sges = unsafe { sges_of(wr.sg_list, len, max_sge) }?;
        Ok(RecvRequest { wr_id: wr.wr_id, sges })
    });
    let posted = post(&mut requests);
    // SAFETY: it is the same chain, and there is room for a pointer.
    unsafe { tell(posted, wr, bad_wr) }
}
