//! Posting receives on the checked data path.

use std::ffi::c_int;

use ibverbs_sys as ffi;

use crate::controls::{lock, State};
use crate::record::{Completion, Kind, Operation, Payload, Request, Verb};

/// The requests of a chain, with the address of each.
///
/// # Safety
///
/// The chain ends in null, and its requests and their lists can be read.
unsafe fn collect(first: *mut ffi::ibv_recv_wr) -> Vec<(*mut ffi::ibv_recv_wr, Request)> {
    let mut requests = Vec::new();
    let mut next = first;
    while !next.is_null() {
        // SAFETY: a request of the chain, by the caller's promise.
        let wr = unsafe { next.read() };
        let len = usize::try_from(wr.num_sge).unwrap_or(0);
        let list = wr.sg_list;
        // SAFETY: the list has `num_sge` entries, by the caller's promise.
        let entry = |index: usize| unsafe { list.wrapping_add(index).read() };
        let entries = (0..len).map(entry).map(|sge| (sge.addr, sge.length, sge.lkey));
        let payload = Payload::Scatter(entries.collect());
        let operation = Operation::Recv;
        requests.push((
            next,
            Request { qp_num: 0, wr_id: wr.wr_id, flags: 0, operation, address: None, payload },
        ));
        next = wr.next;
    }
    requests
}

/// A queue that takes receives.
struct Queue {
    verb: Verb,
    address: usize,
    max_sge: usize,
    /// The number of the queue pair; zero for a shared queue.
    qp_num: u32,
    /// Where receives complete at once, if they do.
    completes_to: Option<usize>,
}

/// Takes a chain, or as much of it as the configuration says.
///
/// # Safety
///
/// The chain is as ibv_post_recv(3) demands, and `bad_wr` points to a pointer.
unsafe fn take(
    state: &mut State,
    queue: &Queue,
    wr: *mut ffi::ibv_recv_wr,
    bad_wr: *mut *mut ffi::ibv_recv_wr,
) -> c_int {
    let Queue { verb, address, max_sge, qp_num, completes_to } = *queue;
    if let Err(code) = state.failure(verb) {
        // SAFETY: the caller's promise.
        unsafe { bad_wr.write(wr) };
        return code;
    }
    let limit = state.config.recv_limit;
    // SAFETY: the caller's promise.
    for (place, (wr, mut request)) in unsafe { collect(wr) }.into_iter().enumerate() {
        if let Some(limit) = limit.filter(|limit| place >= limit.accept) {
            if limit.set_bad_wr {
                // SAFETY: the caller's promise.
                unsafe { bad_wr.write(wr) };
            }
            return limit.code;
        }
        if matches!(&request.payload, Payload::Scatter(list) if list.len() > max_sge) {
            state.violation(format!("{verb:?}: it has more scatter entries than was granted"));
        }
        request.qp_num = qp_num;
        state.keep_work(address, &request.payload);
        if let Some(cq) = completes_to {
            let (wr_id, opcode) = (request.wr_id, ffi::IBV_WC_RECV);
            let completion = Completion { wr_id, qp_num, opcode, ..Completion::default() };
            state.complete(cq, completion);
        }
        state.requests.push(request);
    }
    0
}

pub(crate) unsafe extern "C" fn post_recv(
    qp: *mut ffi::ibv_qp,
    wr: *mut ffi::ibv_recv_wr,
    bad_wr: *mut *mut ffi::ibv_recv_wr,
) -> c_int {
    let mut state = lock();
    let (verb, address) = (Verb::PostRecv, qp as usize);
    state.call(verb, address);
    if !state.expect_live(verb, address, Kind::Qp) {
        return libc::EINVAL;
    }
    let Some(data) = state.qp(address) else { return libc::EINVAL };
    let completes_to = data.complete_receives.then_some(data.recv_cq);
    let queue =
        Queue { verb, address, max_sge: data.max_recv_sge, qp_num: data.qp_num, completes_to };
    // SAFETY: as ibv_post_recv(3) demands.
    unsafe { take(&mut state, &queue, wr, bad_wr) }
}

pub(crate) unsafe extern "C" fn post_srq_recv(
    srq: *mut ffi::ibv_srq,
    wr: *mut ffi::ibv_recv_wr,
    bad_wr: *mut *mut ffi::ibv_recv_wr,
) -> c_int {
    let mut state = lock();
    let (verb, address) = (Verb::PostSrqRecv, srq as usize);
    state.call(verb, address);
    if !state.expect_live(verb, address, Kind::Srq) {
        return libc::EINVAL;
    }
    let Some(data) = state.srq(address) else { return libc::EINVAL };
    let (max_sge, lost) = (data.max_sge as usize, data.lost);
    if lost {
        state.violation("PostSrqRecv: the queue has no memory".to_owned());
        return libc::EINVAL;
    }
    let queue = Queue { verb, address, max_sge, qp_num: 0, completes_to: None };
    // SAFETY: as ibv_post_srq_recv(3) demands, which is the same.
    unsafe { take(&mut state, &queue, wr, bad_wr) }
}
