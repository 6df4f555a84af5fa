//! Protection domains.

use std::ffi::c_int;

use ibverbs_sys as ffi;

use crate::controls::lock;
use crate::null;
use crate::objects::{Block, Data};
use crate::record::{Kind, Verb};

pub(crate) unsafe extern "C" fn alloc_pd(context: *mut ffi::ibv_context) -> *mut ffi::ibv_pd {
    let mut state = lock();
    let address = context as usize;
    state.call(Verb::AllocPd, address);
    if !state.expect_live(Verb::AllocPd, address, Kind::Context) {
        return null(libc::EINVAL);
    }
    if let Err(code) = state.failure(Verb::AllocPd) {
        return null(code);
    }
    let pd = ffi::ibv_pd { context, handle: state.next_number() };
    let block = Block::new(size_of_val(&pd));
    block.write_prefix(0, &pd);
    let raw = block.ptr().cast();
    state.insert(block, 0, vec![address], Data::Pd);
    raw
}

pub(crate) unsafe extern "C" fn dealloc_pd(pd: *mut ffi::ibv_pd) -> c_int {
    let mut state = lock();
    let address = pd as usize;
    if let Err(code) = state.may_destroy(Verb::DeallocPd, address, Kind::Pd) {
        return code;
    }
    state.remove(address);
    0
}
