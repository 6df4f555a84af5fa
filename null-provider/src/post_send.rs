//! Posting sends through the classic interface, on the checked data path.

use std::ffi::c_int;

use ibverbs_sys as ffi;

use crate::controls::{lock, State};
use crate::objects::Data;
use crate::record::{Address, Kind, Operation, Payload, Request, Verb};
use crate::wr::{carry_out, read_inline};

pub(crate) unsafe extern "C" fn post_send(
    qp: *mut ffi::ibv_qp,
    wr: *mut ffi::ibv_send_wr,
    bad_wr: *mut *mut ffi::ibv_send_wr,
) -> c_int {
    let mut state = lock();
    let (verb, address) = (Verb::PostSend, qp as usize);
    state.call(verb, address);
    if !state.expect_live(verb, address, Kind::Qp) {
        return libc::EINVAL;
    }
    // SAFETY: the queue pair is alive, as was checked above.
    let qp_state = unsafe { (*qp).state };
    if qp_state != ffi::IBV_QPS_RTS {
        state.violation(format!("PostSend: the queue pair is in state {qp_state}"));
    }
    if state.qp(address).is_some_and(|data| data.batch.is_some()) {
        state.violation("PostSend: dead-lock, a batch of the queue pair is open".to_owned());
    }
    let limit = state.config.send_limit;
    let (mut next, mut requests, mut code) = (wr, Vec::new(), 0);
    while !next.is_null() {
        if let Some(limit) = limit.filter(|limit| requests.len() >= limit.accept) {
            if limit.set_bad_wr {
                // SAFETY: there is room for a pointer (ibv_post_send(3)).
                unsafe { bad_wr.write(next) };
            }
            code = limit.code;
            break;
        }
        // SAFETY: a request of the chain (ibv_post_send(3)).
        let wr = unsafe { next.read() };
        // SAFETY: as above.
        let Some(request) = (unsafe { read(&mut state, address, &wr) }) else {
            return libc::EINVAL;
        };
        requests.push(request);
        next = wr.next;
    }
    carry_out(&mut state, address, requests);
    code
}

/// Reads and checks a request.
///
/// # Safety
///
/// It is one of `ibv_post_send`.
unsafe fn read(state: &mut State, qp: usize, wr: &ffi::ibv_send_wr) -> Option<Request> {
    let len = usize::try_from(wr.num_sge).ok()?;
    let list = wr.sg_list;
    // SAFETY: the list has so many entries, by the caller's promise.
    let entry = |index: usize| unsafe { list.wrapping_add(index).read() };
    let entries: Vec<_> = (0..len).map(entry).collect();
    let data = state.qp(qp)?;
    let (pd, qp_num, qp_type) = (data.pd, data.qp_num, data.qp_type);
    let (max_sge, max_inline, granted) = (data.max_send_sge, data.max_inline, data.send_ops);
    let inline = wr.send_flags & ffi::IBV_SEND_INLINE != 0;
    let payload = if inline {
        let mut bytes = Vec::new();
        for entry in &entries {
            // The interface has a number where it means a pointer.
            let addr = std::ptr::with_exposed_provenance(entry.addr as usize);
            // SAFETY: what is to be sent inline can be read, by the caller's promise.
            bytes.extend(unsafe { read_inline(addr, entry.length as usize) });
        }
        Payload::Inline(bytes)
    } else {
        for entry in &entries {
            if !is_registered(state, pd, entry) {
                state.violation(format!("PostSend: {entry:?} is not registered"));
            }
        }
        Payload::Scatter(entries.iter().map(|e| (e.addr, e.length, e.lkey)).collect())
    };
    let fits = match &payload {
        Payload::Scatter(list) => list.len() <= max_sge,
        Payload::Inline(bytes) => bytes.len() <= max_inline,
    };
    if !fits {
        state.violation("PostSend: it is more than was granted".to_owned());
    }
    let Some(operation) = operation(wr) else {
        state.violation(format!("PostSend: opcode {}", wr.opcode));
        return None;
    };
    if granted & operation.grant() == 0 {
        state.violation(format!("PostSend: {operation:?} was not granted"));
    }
    let mut address = None;
    if matches!(qp_type, ffi::IBV_QPT_UD | ffi::IBV_QPT_DRIVER) {
        // SAFETY: every bit pattern is valid for these numbers, used or not.
        let ud = unsafe { wr.wr.ud };
        let ah = ud.ah as usize;
        if !state.expect_live(Verb::PostSend, ah, Kind::Ah) {
            return None;
        }
        if !state.refers_to(ah, pd) {
            state.violation("PostSend: the address handle is of another domain".to_owned());
        }
        address = Some(Address { ah, remote_qpn: ud.remote_qpn, qkey: ud.remote_qkey });
    }
    let flags = wr.send_flags;
    Some(Request { qp_num, wr_id: wr.wr_id, flags, operation, address, payload })
}

/// Whether there is a region of the domain with this key, which the entry lies in.
fn is_registered(state: &State, pd: usize, entry: &ffi::ibv_sge) -> bool {
    state.objects.iter().any(|(&address, object)| {
        if !matches!(object.data, Data::Mr) || !object.refers_to.contains(&pd) {
            return false;
        }
        // SAFETY: a region is alive there.
        let mr = unsafe { state.pointer::<ffi::ibv_mr>(address).read() };
        let within = entry.addr.checked_sub(mr.addr as u64);
        let within = within.and_then(|at| at.checked_add(entry.length.into()));
        mr.lkey == entry.lkey && within.is_some_and(|end| end <= mr.length as u64)
    })
}

/// What a request is to do; `None` if that is unheard of.
fn operation(wr: &ffi::ibv_send_wr) -> Option<Operation> {
    // SAFETY: every bit pattern is valid for a number, used or not.
    let imm = unsafe { wr.__bindgen_anon_1.imm_data };
    // SAFETY: as above.
    let rdma = unsafe { wr.wr.rdma };
    // SAFETY: as above.
    let atomic = unsafe { wr.wr.atomic };
    let (rkey, addr) = (rdma.rkey, rdma.remote_addr);
    Some(match wr.opcode {
        ffi::IBV_WR_SEND => Operation::Send { imm: None },
        ffi::IBV_WR_SEND_WITH_IMM => Operation::Send { imm: Some(imm) },
        ffi::IBV_WR_RDMA_WRITE => Operation::Write { rkey, addr, imm: None },
        ffi::IBV_WR_RDMA_WRITE_WITH_IMM => Operation::Write { rkey, addr, imm: Some(imm) },
        ffi::IBV_WR_RDMA_READ => Operation::Read { rkey, addr },
        ffi::IBV_WR_ATOMIC_CMP_AND_SWP => Operation::CompareSwap {
            rkey: atomic.rkey,
            addr: atomic.remote_addr,
            compare: atomic.compare_add,
            swap: atomic.swap,
        },
        ffi::IBV_WR_ATOMIC_FETCH_AND_ADD => Operation::FetchAdd {
            rkey: atomic.rkey,
            addr: atomic.remote_addr,
            add: atomic.compare_add,
        },
        _ => return None,
    })
}
