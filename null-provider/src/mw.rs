//! Memory windows. As with SoftRoCE, a window that is bound refers to its region, and if it is of type 2 to the
//! queue pair that has bound it.

use std::ffi::c_int;

use ibverbs_sys as ffi;

use crate::controls::{lock, State};
use crate::null;
use crate::objects::{Block, Data, MwData, Object};
use crate::record::{Completion, Kind, Operation, Payload, Request, Verb};

pub(crate) unsafe extern "C" fn alloc_mw(
    pd: *mut ffi::ibv_pd,
    type_: ffi::ibv_mw_type,
) -> *mut ffi::ibv_mw {
    let mut state = lock();
    let address = pd as usize;
    state.call(Verb::AllocMw, address);
    if !state.expect_live(Verb::AllocMw, address, Kind::Pd) {
        return null(libc::EINVAL);
    }
    if let Err(code) = state.failure(Verb::AllocMw) {
        return null(code);
    }
    if !matches!(type_, ffi::IBV_MW_TYPE_1 | ffi::IBV_MW_TYPE_2) {
        return null(libc::EINVAL);
    }
    // SAFETY: the domain is alive, as was checked above.
    let context = unsafe { (*pd).context };
    let handle = state.next_number();
    let mw = ffi::ibv_mw { context, pd, rkey: handle << 8, handle, type_ };
    let block = Block::new(size_of_val(&mw));
    block.write_prefix(0, &mw);
    let raw = block.ptr().cast();
    let data = MwData { pd: address, rkey: mw.rkey, bound_to: None };
    state.insert(block, 0, vec![address], Data::Mw(data));
    raw
}

pub(crate) unsafe extern "C" fn dealloc_mw(mw: *mut ffi::ibv_mw) -> c_int {
    let mut state = lock();
    let address = mw as usize;
    if let Err(code) = state.may_destroy(Verb::DeallocMw, address, Kind::Mw) {
        // A queue pair that may have bound it cannot be destroyed either.
        let pd = state.mw(address).map(|data| data.pd);
        let is_user = |(_, object): &(&usize, &Object)| {
            object.data.kind() == Kind::Qp && object.refers_to.iter().any(|&to| Some(to) == pd)
        };
        let users: Vec<_> = state.objects.iter().filter(is_user).map(|(&user, _)| user).collect();
        state.refused.extend(users);
        return code;
    }
    state.remove(address);
    0
}

/// What a bind names, if it is alive and of one domain.
///
/// # Safety
///
/// If `qp`, `mw` and the region in `info` are alive, they are what they are said to be.
pub(crate) unsafe fn bind(
    state: &mut State,
    verb: Verb,
    qp: usize,
    mw: *mut ffi::ibv_mw,
    info: &ffi::ibv_mw_bind_info,
    rkey: u32,
) -> Option<Operation> {
    let (window, region) = (mw as usize, info.mr as usize);
    // Most providers look into the region even if there are no bytes.
    if !state.expect_live(verb, window, Kind::Mw) || !state.expect_live(verb, region, Kind::Mr) {
        return None;
    }
    let pd = state.mw(window)?.pd;
    if !state.refers_to(qp, pd) || !state.refers_to(region, pd) {
        state.violation(format!("{verb:?}: the window or the region is of another domain"));
        return None;
    }
    // SAFETY: the window is alive, as was checked above.
    let old_rkey = unsafe { (*mw).rkey };
    let (addr, length, access) = (info.addr, info.length, info.mw_access_flags);
    Some(Operation::Bind { window, region, old_rkey, rkey, addr, length, access })
}

/// Carries out what a request does to windows.
pub(crate) fn execute(state: &mut State, operation: Operation, qp: usize) {
    match operation {
        Operation::Bind { window, region, old_rkey, rkey, length, .. } => {
            let Some(data) = state.mw(window) else { return };
            // A real device fails the request.
            if data.rkey != old_rkey {
                return;
            }
            data.rkey = rkey;
            data.bound_to = (length > 0).then_some((region, qp));
        }
        Operation::LocalInv { rkey } => {
            if let Some(data) = state.windows().find(|data| data.rkey == rkey) {
                data.bound_to = None;
            }
        }
        _ => {}
    }
}

pub(crate) unsafe extern "C" fn bind_mw(
    qp: *mut ffi::ibv_qp,
    mw: *mut ffi::ibv_mw,
    bind_: *mut ffi::ibv_mw_bind,
) -> c_int {
    let mut state = lock();
    let address = qp as usize;
    state.call(Verb::BindMw, address);
    if !state.expect_live(Verb::BindMw, address, Kind::Qp) {
        return libc::EINVAL;
    }
    if let Err(code) = state.failure(Verb::BindMw) {
        return code;
    }
    // SAFETY: it points to a whole structure (ibv_bind_mw(3)).
    let ffi::ibv_mw_bind { wr_id, send_flags: flags, bind_info } = unsafe { bind_.read() };
    // SAFETY: the window is alive (ibv_bind_mw(3)).
    let rkey = ffi::ibv_inc_rkey(unsafe { (*mw).rkey });
    // SAFETY: what is alive is what it is said to be (ibv_bind_mw(3)).
    let operation = unsafe { bind(&mut state, Verb::BindMw, address, mw, &bind_info, rkey) };
    let Some(operation) = operation else { return libc::EINVAL };
    // SAFETY: the queue pair is alive, as was checked above.
    let qp_state = unsafe { (*qp).state };
    if qp_state != ffi::IBV_QPS_RTS {
        state.violation(format!("BindMw: the queue pair is in state {qp_state}"));
    }
    let Some(data) = state.qp(address) else { return libc::EINVAL };
    let (qp_num, send_cq, complete) = (data.qp_num, data.send_cq, data.complete_sends);
    if data.batch.is_some() {
        state.violation("BindMw: dead-lock, a batch of the queue pair is open".to_owned());
    }
    // SAFETY: the window is alive, and nobody else accesses the field meanwhile (ibv_bind_mw(3)).
    unsafe { (*mw).rkey = rkey };
    execute(&mut state, operation, 0);
    if complete {
        let opcode = operation.wc_opcode();
        state.complete(send_cq, Completion { wr_id, qp_num, opcode, ..Completion::default() });
    }
    let payload = Payload::Scatter(Vec::new());
    state.requests.push(Request { qp_num, wr_id, flags, operation, address: None, payload });
    0
}
