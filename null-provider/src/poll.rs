//! Polling on the checked data path.

use std::ffi::c_int;
use std::thread;

use ibverbs_sys as ffi;

use crate::controls::{lock, release_cq, wait_for_cq};
use crate::objects::Poll;
use crate::record::{Completion, Kind, Verb};

/// Puts the two fields into the queue that are read without a function.
///
/// # Safety
///
/// The queue is alive, and the caller is the one who polls it.
unsafe fn show(cq: *mut ffi::ibv_cq_ex, completion: &Completion) {
    // SAFETY: the queue is alive and, until the poll is over, nobody else accesses the field.
    unsafe { (*cq).wr_id = completion.wr_id };
    // SAFETY: as above.
    unsafe { (*cq).status = completion.status };
}

pub(crate) unsafe extern "C" fn start_poll(
    cq: *mut ffi::ibv_cq_ex,
    _attr: *mut ffi::ibv_poll_cq_attr,
) -> c_int {
    let mut state = lock();
    let address = cq as usize;
    state.call(Verb::StartPoll, address);
    if !state.expect_live(Verb::StartPoll, address, Kind::Cq) {
        return libc::EINVAL;
    }
    let (mut state, free) = wait_for_cq(state, Verb::StartPoll, address);
    if !free {
        return libc::EDEADLK;
    }
    if let Err(code) = state.failure(Verb::StartPoll) {
        return code;
    }
    let Some(data) = state.cq(address) else { return libc::EINVAL };
    if data.lost {
        state.violation("StartPoll: the memory of the queue is gone".to_owned());
        return libc::EINVAL;
    }
    let Some(completion) = data.queue.pop_front() else { return libc::ENOENT };
    if state.is_stale(completion.qp_num) {
        return libc::EINVAL;
    }
    let Some(data) = state.cq(address) else { return libc::EINVAL };
    data.owner = Some(thread::current().id());
    data.poll = Poll::At(completion);
    // SAFETY: the queue is alive, as was checked above, and its lock belongs to this poll now.
    unsafe { show(cq, &completion) };
    0
}

pub(crate) unsafe extern "C" fn next_poll(cq: *mut ffi::ibv_cq_ex) -> c_int {
    let mut state = lock();
    let address = cq as usize;
    state.call(Verb::NextPoll, address);
    if !state.expect_live(Verb::NextPoll, address, Kind::Cq) {
        return libc::EINVAL;
    }
    let failure = state.failure(Verb::NextPoll);
    let Some(data) = state.cq(address) else { return libc::EINVAL };
    if !matches!(data.poll, Poll::At(_)) {
        state.violation("NextPoll: no poll is open, or its end was reached before".to_owned());
        return libc::EINVAL;
    }
    let next = match failure {
        Ok(()) => data.queue.pop_front().ok_or(libc::ENOENT),
        Err(code) => Err(code),
    };
    let next = next.and_then(|completion| match state.is_stale(completion.qp_num) {
        true => Err(libc::EINVAL),
        false => Ok(completion),
    });
    let Some(data) = state.cq(address) else { return libc::EINVAL };
    match next {
        Ok(completion) => {
            data.poll = Poll::At(completion);
            // SAFETY: the queue is alive, and its lock belongs to this poll, as was checked above.
            unsafe { show(cq, &completion) };
            0
        }
        Err(code) => {
            data.poll = Poll::Ended;
            code
        }
    }
}

pub(crate) unsafe extern "C" fn end_poll(cq: *mut ffi::ibv_cq_ex) {
    let mut state = lock();
    let address = cq as usize;
    state.call(Verb::EndPoll, address);
    if !state.expect_live(Verb::EndPoll, address, Kind::Cq) {
        return;
    }
    if let Some(data) = state.cq(address) {
        data.poll = Poll::Closed;
    }
    if !release_cq(&mut state, address) {
        state.violation("EndPoll: no poll is open".to_owned());
    }
}

/// The operation of `ibv_context`.
pub(crate) unsafe extern "C" fn poll_cq(
    cq: *mut ffi::ibv_cq,
    len: c_int,
    wc: *mut ffi::ibv_wc,
) -> c_int {
    let mut state = lock();
    let address = cq as usize;
    state.call(Verb::PollCq, address);
    if !state.expect_live(Verb::PollCq, address, Kind::Cq) {
        return -libc::EINVAL;
    }
    let (mut state, free) = wait_for_cq(state, Verb::PollCq, address);
    if !free {
        return -libc::EDEADLK;
    }
    if let Err(code) = state.failure(Verb::PollCq) {
        return -code;
    }
    let Some(data) = state.cq(address) else { return -libc::EINVAL };
    if data.lost {
        state.violation("PollCq: the memory of the queue is gone".to_owned());
        return -libc::EINVAL;
    }
    let mut found = 0;
    while found < usize::try_from(len).unwrap_or(0) {
        let Some(completion) = state.cq(address).and_then(|cq| cq.queue.pop_front()) else { break };
        if state.is_stale(completion.qp_num) {
            return if found > 0 { found as c_int } else { -libc::EINVAL };
        }
        let to = wc.wrapping_add(found);
        // SAFETY: the array has `len` entries (ibv_poll_cq(3)), and this is one of them.
        unsafe { to.write(completion.plain()) };
        found += 1;
    }
    found as c_int
}

/// The completion at hand; an empty one, and a violation, if there is none.
fn current(cq: *mut ffi::ibv_cq_ex) -> Completion {
    let mut state = lock();
    let address = cq as usize;
    state.call(Verb::ReadField, address);
    if !state.expect_live(Verb::ReadField, address, Kind::Cq) {
        return Completion::default();
    }
    match state.cq(address).map(|cq| cq.poll) {
        Some(Poll::At(completion)) => completion,
        _ => {
            state.violation("ReadField: no completion is at hand".to_owned());
            Completion::default()
        }
    }
}

pub(crate) unsafe extern "C" fn read_tm_info(
    cq: *mut ffi::ibv_cq_ex,
    to: *mut ffi::ibv_wc_tm_info,
) {
    let (tag, priv_) = current(cq).tm_info;
    // SAFETY: it points to a whole structure (ibv_create_cq_ex(3)).
    unsafe { to.write(ffi::ibv_wc_tm_info { tag, priv_ }) };
}

macro_rules! readers {
    ($($name:ident: $field:ident, $type:ty;)*) => {
        $(
            pub(crate) unsafe extern "C" fn $name(cq: *mut ffi::ibv_cq_ex) -> $type {
                current(cq).$field
            }
        )*
    };
}

readers! {
    read_opcode: opcode, ffi::ibv_wc_opcode;
    read_vendor_err: vendor_err, u32;
    read_byte_len: byte_len, u32;
    read_imm_data: imm_data, u32;
    read_qp_num: qp_num, u32;
    read_src_qp: src_qp, u32;
    read_wc_flags: wc_flags, u32;
    read_slid: slid, u32;
    read_sl: sl, u8;
    read_dlid_path_bits: dlid_path_bits, u8;
    read_completion_ts: completion_ts, u64;
    read_completion_wallclock_ns: completion_wallclock_ns, u64;
    read_cvlan: cvlan, u16;
    read_flow_tag: flow_tag, u32;
}
