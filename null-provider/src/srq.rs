//! Shared receive queues.

use std::ffi::c_int;

use ibverbs_sys as ffi;

use crate::controls::lock;
use crate::event::settle;
use crate::null;
use crate::objects::{Block, Data, SrqData};
use crate::query::{MAX_SGE, MAX_WR};
use crate::record::{Kind, Verb};

pub(crate) unsafe extern "C" fn create_srq(
    pd: *mut ffi::ibv_pd,
    attr: *mut ffi::ibv_srq_init_attr,
) -> *mut ffi::ibv_srq {
    let mut state = lock();
    let address = pd as usize;
    state.call(Verb::CreateSrq, address);
    if !state.expect_live(Verb::CreateSrq, address, Kind::Pd) {
        return null(libc::EINVAL);
    }
    if let Err(code) = state.failure(Verb::CreateSrq) {
        return null(code);
    }
    // SAFETY: it points to a structure that may be changed (ibv_create_srq(3)).
    let attr = unsafe { &mut *attr };
    let asked = attr.attr;
    if asked.max_wr == 0 || asked.max_wr > MAX_WR || asked.max_sge > MAX_SGE {
        return null(libc::EINVAL);
    }
    let max_wr = asked.max_wr.next_power_of_two();
    let data = SrqData { max_wr, max_sge: asked.max_sge, limit: 0, lost: false };
    attr.attr = data.attr();
    if let Some(edit) = &state.config.edit_srq_attr {
        edit(&mut attr.attr);
    }
    // SAFETY: the domain is alive, as was checked above.
    let context = unsafe { (*pd).context };
    let srq_context = attr.srq_context;
    let srq = ffi::ibv_srq {
        context,
        srq_context,
        pd,
        handle: state.next_number(),
        ..Default::default()
    };
    let block = Block::new(size_of_val(&srq));
    block.write_prefix(0, &srq);
    let raw = block.ptr().cast();
    state.insert(block, 0, vec![address, context as usize], Data::Srq(data));
    raw
}

pub(crate) unsafe extern "C" fn modify_srq(
    srq: *mut ffi::ibv_srq,
    attr: *mut ffi::ibv_srq_attr,
    mask: c_int,
) -> c_int {
    let mut state = lock();
    let address = srq as usize;
    state.call(Verb::ModifySrq, address);
    if !state.expect_live(Verb::ModifySrq, address, Kind::Srq) {
        return libc::EINVAL;
    }
    if let Err(code) = state.failure(Verb::ModifySrq) {
        return code;
    }
    let lost = state.config.resize_loses;
    let Some(data) = state.srq(address) else { return libc::EINVAL };
    // SAFETY: it points to a whole structure (ibv_modify_srq(3)).
    let attr = unsafe { attr.read() };
    match mask as u32 {
        ffi::IBV_SRQ_MAX_WR if (1..=MAX_WR).contains(&attr.max_wr) => {
            data.max_wr = attr.max_wr.next_power_of_two();
            data.lost = lost;
            if lost {
                return libc::ENOMEM;
            }
        }
        ffi::IBV_SRQ_LIMIT if attr.srq_limit <= data.max_wr => data.limit = attr.srq_limit,
        _ => return libc::EINVAL,
    }
    0
}

pub(crate) unsafe extern "C" fn query_srq(
    srq: *mut ffi::ibv_srq,
    attr: *mut ffi::ibv_srq_attr,
) -> c_int {
    let mut state = lock();
    let address = srq as usize;
    state.call(Verb::QuerySrq, address);
    if !state.expect_live(Verb::QuerySrq, address, Kind::Srq) {
        return libc::EINVAL;
    }
    if let Err(code) = state.failure(Verb::QuerySrq) {
        return code;
    }
    let Some(data) = state.srq(address) else { return libc::EINVAL };
    let mut answer = data.attr();
    if let Some(edit) = &state.config.edit_srq_attr {
        edit(&mut answer);
    }
    // SAFETY: it points to a whole structure (ibv_query_srq(3)).
    unsafe { attr.write(answer) };
    0
}

pub(crate) unsafe extern "C" fn destroy_srq(srq: *mut ffi::ibv_srq) -> c_int {
    let mut state = lock();
    let address = srq as usize;
    if let Err(code) = state.may_destroy(Verb::DestroySrq, address, Kind::Srq) {
        return code;
    }
    settle(state, Verb::DestroySrq, address).remove(address);
    0
}
