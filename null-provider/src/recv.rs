//! Posting receives on the checked data path.

use std::ffi::c_int;

use ibverbs_sys as ffi;

use crate::controls::lock;
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

pub(crate) unsafe extern "C" fn post_recv(
    qp: *mut ffi::ibv_qp,
    wr: *mut ffi::ibv_recv_wr,
    bad_wr: *mut *mut ffi::ibv_recv_wr,
) -> c_int {
    let mut state = lock();
    let address = qp as usize;
    state.call(Verb::PostRecv, address);
    if !state.expect_live(Verb::PostRecv, address, Kind::Qp) {
        return libc::EINVAL;
    }
    let limit = state.config.recv_limit;
    let Some(data) = state.qp(address) else { return libc::EINVAL };
    let (qp_num, recv_cq) = (data.qp_num, data.recv_cq);
    let (max_sge, complete) = (data.max_recv_sge, data.complete_receives);
    // SAFETY: the chain is as ibv_post_recv(3) demands.
    for (place, (wr, mut request)) in unsafe { collect(wr) }.into_iter().enumerate() {
        if let Some(limit) = limit.filter(|limit| place >= limit.accept) {
            if limit.set_bad_wr {
                // SAFETY: it points to a pointer (ibv_post_recv(3)).
                unsafe { bad_wr.write(wr) };
            }
            return limit.code;
        }
        if matches!(&request.payload, Payload::Scatter(list) if list.len() > max_sge) {
            state.violation("PostRecv: it has more scatter entries than was granted".to_owned());
        }
        request.qp_num = qp_num;
        if complete {
            let (wr_id, opcode) = (request.wr_id, ffi::IBV_WC_RECV);
            let completion = Completion { wr_id, qp_num, opcode, ..Completion::default() };
            state.complete(recv_cq, completion);
        }
        state.requests.push(request);
    }
    0
}
