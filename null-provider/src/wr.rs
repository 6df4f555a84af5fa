//! Posting sends on the checked data path.

use std::ffi::{c_int, c_void};

use ibverbs_sys as ffi;

use crate::controls::{lock, State};
use crate::mw;
use crate::objects::{Batch, Lacks};
use crate::record::{Address, Completion, Kind, Operation, Payload, Request, Verb};

pub(crate) unsafe extern "C" fn wr_start(qp: *mut ffi::ibv_qp_ex) {
    let mut state = lock();
    let address = qp as usize;
    state.call(Verb::WrStart, address);
    if !state.expect_live(Verb::WrStart, address, Kind::Qp) {
        return;
    }
    // SAFETY: the queue pair is alive, as was checked above.
    let qp_state = unsafe { (*qp).qp_base.state };
    let Some(data) = state.qp(address) else { return };
    if data.batch.replace(Batch::default()).is_some() {
        state.violation("WrStart: dead-lock, a batch of the queue pair is open".to_owned());
    }
    // Some providers count what is begun now as posted, and execute it once the state is reached.
    if matches!(qp_state, ffi::IBV_QPS_RESET | ffi::IBV_QPS_INIT | ffi::IBV_QPS_RTR) {
        state.violation(format!("WrStart: the queue pair is in state {qp_state}"));
    }
}

pub(crate) unsafe extern "C" fn wr_abort(qp: *mut ffi::ibv_qp_ex) {
    let mut state = lock();
    let address = qp as usize;
    state.call(Verb::WrAbort, address);
    if !state.expect_live(Verb::WrAbort, address, Kind::Qp) {
        return;
    }
    if state.qp(address).is_some_and(|data| data.batch.take().is_none()) {
        state.violation("WrAbort: no batch is open".to_owned());
    }
}

pub(crate) unsafe extern "C" fn wr_complete(qp: *mut ffi::ibv_qp_ex) -> c_int {
    let mut state = lock();
    let address = qp as usize;
    state.call(Verb::WrComplete, address);
    if !state.expect_live(Verb::WrComplete, address, Kind::Qp) {
        return libc::EINVAL;
    }
    let failure = state.failure(Verb::WrComplete);
    let Some(data) = state.qp(address) else { return libc::EINVAL };
    let Some(batch) = data.batch.take() else {
        state.violation("WrComplete: no batch is open".to_owned());
        return libc::EINVAL;
    };
    if batch.lacks != Lacks::Nothing {
        state.violation(format!("WrComplete: the last request lacks its {:?}", batch.lacks));
    }
    if let Err(code) = failure {
        return code;
    }
    carry_out(&mut state, address, batch.requests);
    0
}

/// Takes requests into the send queue of a queue pair.
pub(crate) fn carry_out(state: &mut State, qp: usize, requests: Vec<Request>) {
    let Some(data) = state.qp(qp) else { return };
    let (send_cq, complete) = (data.send_cq, data.complete_sends);
    for request in &requests {
        let signaled = request.flags & ffi::IBV_SEND_SIGNALED != 0;
        if signaled && complete {
            let opcode = request.operation.wc_opcode();
            let Request { wr_id, qp_num, .. } = *request;
            let completion = Completion { wr_id, qp_num, opcode, ..Completion::default() };
            state.complete(send_cq, completion);
        }
    }
    for request in &requests {
        mw::execute(state, request.operation, qp);
        state.keep_work(qp, &request.payload);
    }
    state.requests.extend(requests);
}

/// Adds a request to the open batch. Where a datagram goes and what it carries come with further calls.
fn begin(qp: *mut ffi::ibv_qp_ex, operation: Operation) {
    let mut state = lock();
    let address = qp as usize;
    state.call(Verb::WrOperation, address);
    if !state.expect_live(Verb::WrOperation, address, Kind::Qp) {
        return;
    }
    // SAFETY: the queue pair is alive, as was checked above.
    let wr_id = unsafe { (*qp).wr_id };
    // SAFETY: as above.
    let flags = unsafe { (*qp).wr_flags };
    let Some(data) = state.qp(address) else { return };
    // Some providers write to the queue before they look whether there is one.
    let granted = data.send_ops & operation.grant() != 0 && data.max_send_wr > 0;
    let payload = Payload::Scatter(Vec::new());
    let request = Request { qp_num: data.qp_num, wr_id, flags, operation, address: None, payload };
    let datagram = matches!(data.qp_type, ffi::IBV_QPT_UD | ffi::IBV_QPT_DRIVER);
    let lacks = match (datagram, operation.has_payload()) {
        (true, _) => Lacks::Address,
        (false, true) => Lacks::Payload,
        (false, false) => Lacks::Nothing,
    };
    let problem = match &mut data.batch {
        None => Some("no batch is open".to_owned()),
        Some(batch) => {
            let before = std::mem::replace(&mut batch.lacks, lacks);
            batch.requests.push(request);
            (before != Lacks::Nothing)
                .then(|| format!("the request before it lacks its {before:?}"))
        }
    };
    if let Some(problem) = problem {
        state.violation(format!("WrOperation: {operation:?}: {problem}"));
    }
    if !granted {
        state.violation(format!("WrOperation: {operation:?} was not granted"));
    }
}

pub(crate) unsafe extern "C" fn wr_set_ud_addr(
    qp: *mut ffi::ibv_qp_ex,
    ah: *mut ffi::ibv_ah,
    remote_qpn: u32,
    qkey: u32,
) {
    let mut state = lock();
    let (address, ah) = (qp as usize, ah as usize);
    state.call(Verb::WrAddress, address);
    if !state.expect_live(Verb::WrAddress, address, Kind::Qp)
        || !state.expect_live(Verb::WrAddress, ah, Kind::Ah)
    {
        return;
    }
    let Some(data) = state.qp(address) else { return };
    let pd = data.pd;
    let waiting = match &mut data.batch {
        Some(batch) if batch.lacks == Lacks::Address => {
            batch.lacks = Lacks::Payload;
            batch.requests.last_mut()
        }
        _ => None,
    };
    let expected = waiting.is_some();
    if let Some(request) = waiting {
        request.address = Some(Address { ah, remote_qpn, qkey });
    }
    if !expected {
        state.violation("WrAddress: no request waits for its address".to_owned());
    }
    if !state.refers_to(ah, pd) {
        state.violation("WrAddress: the address handle is of another domain".to_owned());
    }
}

/// Gives the last request what it carries.
fn carry(qp: *mut ffi::ibv_qp_ex, payload: Payload) {
    let mut state = lock();
    let address = qp as usize;
    state.call(Verb::WrPayload, address);
    if !state.expect_live(Verb::WrPayload, address, Kind::Qp) {
        return;
    }
    let Some(data) = state.qp(address) else { return };
    let fits = match &payload {
        Payload::Scatter(list) => list.len() <= data.max_send_sge,
        Payload::Inline(bytes) => bytes.len() <= data.max_inline,
    };
    let waiting = match &mut data.batch {
        Some(batch) if batch.lacks == Lacks::Payload => {
            batch.lacks = Lacks::Nothing;
            batch.requests.last_mut()
        }
        _ => None,
    };
    let expected = waiting.is_some();
    if let Some(request) = waiting {
        request.payload = payload;
    }
    if !expected {
        state.violation("WrPayload: no request waits for its payload".to_owned());
    }
    if !fits {
        state.violation("WrPayload: it is more than was granted".to_owned());
    }
}

pub(crate) unsafe extern "C" fn wr_send(qp: *mut ffi::ibv_qp_ex) {
    begin(qp, Operation::Send { imm: None });
}

pub(crate) unsafe extern "C" fn wr_send_imm(qp: *mut ffi::ibv_qp_ex, imm: ffi::__be32) {
    begin(qp, Operation::Send { imm: Some(imm) });
}

pub(crate) unsafe extern "C" fn wr_rdma_write(qp: *mut ffi::ibv_qp_ex, rkey: u32, addr: u64) {
    begin(qp, Operation::Write { rkey, addr, imm: None });
}

pub(crate) unsafe extern "C" fn wr_rdma_write_imm(
    qp: *mut ffi::ibv_qp_ex,
    rkey: u32,
    addr: u64,
    imm: ffi::__be32,
) {
    begin(qp, Operation::Write { rkey, addr, imm: Some(imm) });
}

pub(crate) unsafe extern "C" fn wr_rdma_read(qp: *mut ffi::ibv_qp_ex, rkey: u32, addr: u64) {
    begin(qp, Operation::Read { rkey, addr });
}

pub(crate) unsafe extern "C" fn wr_atomic_cmp_swp(
    qp: *mut ffi::ibv_qp_ex,
    rkey: u32,
    addr: u64,
    compare: u64,
    swap: u64,
) {
    begin(qp, Operation::CompareSwap { rkey, addr, compare, swap });
}

pub(crate) unsafe extern "C" fn wr_atomic_fetch_add(
    qp: *mut ffi::ibv_qp_ex,
    rkey: u32,
    addr: u64,
    add: u64,
) {
    begin(qp, Operation::FetchAdd { rkey, addr, add });
}

pub(crate) unsafe extern "C" fn wr_send_inv(qp: *mut ffi::ibv_qp_ex, rkey: u32) {
    begin(qp, Operation::SendInv { rkey });
}

pub(crate) unsafe extern "C" fn wr_bind_mw(
    qp: *mut ffi::ibv_qp_ex,
    mw: *mut ffi::ibv_mw,
    rkey: u32,
    info: *const ffi::ibv_mw_bind_info,
) {
    // SAFETY: it points to a whole structure (ibv_wr_post(3)).
    let info = unsafe { info.read() };
    // SAFETY: what is alive is what it is said to be (ibv_wr_post(3)).
    let operation =
        unsafe { mw::bind(&mut lock(), Verb::WrOperation, qp as usize, mw, &info, rkey) };
    if let Some(operation) = operation {
        begin(qp, operation);
    }
}

pub(crate) unsafe extern "C" fn wr_local_inv(qp: *mut ffi::ibv_qp_ex, rkey: u32) {
    begin(qp, Operation::LocalInv { rkey });
}

pub(crate) unsafe extern "C" fn wr_flush(
    qp: *mut ffi::ibv_qp_ex,
    rkey: u32,
    addr: u64,
    length: usize,
    placement: u8,
    level: u8,
) {
    begin(qp, Operation::Flush { rkey, addr, length, placement, level });
}

pub(crate) unsafe extern "C" fn wr_atomic_write(
    qp: *mut ffi::ibv_qp_ex,
    rkey: u32,
    addr: u64,
    value: *const c_void,
) {
    // SAFETY: it points to eight bytes (ibv_wr_post(3)).
    let value = unsafe { value.cast::<[u8; 8]>().read() };
    begin(qp, Operation::AtomicWrite { rkey, addr, value });
}

pub(crate) unsafe extern "C" fn wr_set_sge(
    qp: *mut ffi::ibv_qp_ex,
    lkey: u32,
    addr: u64,
    length: u32,
) {
    carry(qp, Payload::Scatter(vec![(addr, length, lkey)]));
}

pub(crate) unsafe extern "C" fn wr_set_sge_list(
    qp: *mut ffi::ibv_qp_ex,
    len: usize,
    list: *const ffi::ibv_sge,
) {
    // SAFETY: the list has `len` entries (ibv_wr_set_sge_list in ibv_wr_post(3)).
    let entry = |index: usize| unsafe { list.wrapping_add(index).read() };
    let entries = (0..len).map(entry).map(|sge| (sge.addr, sge.length, sge.lkey));
    carry(qp, Payload::Scatter(entries.collect()));
}

/// The bytes of an inline buffer.
///
/// # Safety
///
/// `len` bytes can be read at `addr`; it may be anything if `len` is zero.
pub(crate) unsafe fn read_inline(addr: *const c_void, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    // SAFETY: the buffer has `len` bytes by the caller's promise, and the vector has as many.
    unsafe { std::ptr::copy_nonoverlapping(addr.cast::<u8>(), bytes.as_mut_ptr(), len) };
    bytes
}

pub(crate) unsafe extern "C" fn wr_set_inline_data(
    qp: *mut ffi::ibv_qp_ex,
    addr: *mut c_void,
    len: usize,
) {
    // SAFETY: the buffer has `len` bytes (ibv_wr_post(3)).
    carry(qp, Payload::Inline(unsafe { read_inline(addr, len) }));
}

pub(crate) unsafe extern "C" fn wr_set_inline_data_list(
    qp: *mut ffi::ibv_qp_ex,
    len: usize,
    list: *const ffi::ibv_data_buf,
) {
    let mut bytes = Vec::new();
    for index in 0..len {
        // SAFETY: the list has `len` entries (ibv_wr_post(3)).
        let buffer = unsafe { list.wrapping_add(index).read() };
        // SAFETY: each names a buffer of so many bytes (ibv_wr_post(3)).
        bytes.extend(unsafe { read_inline(buffer.addr, buffer.length) });
    }
    carry(qp, Payload::Inline(bytes));
}
