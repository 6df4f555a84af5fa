//! Memory regions.

use std::ffi::{c_int, c_uint, c_void};

use ibverbs_sys as ffi;

use crate::controls::lock;
use crate::null;
use crate::objects::{Block, Data};
use crate::record::{Kind, Registration, Verb};

pub(crate) unsafe extern "C" fn reg_mr(
    pd: *mut ffi::ibv_pd,
    addr: *mut c_void,
    length: usize,
    access: c_int,
) -> *mut ffi::ibv_mr {
    // SAFETY: the contract of the two functions is the same; this one has no address of its own.
    unsafe { reg_mr_iova2(pd, addr, length, addr as u64, access as c_uint) }
}

pub(crate) unsafe extern "C" fn reg_mr_iova2(
    pd: *mut ffi::ibv_pd,
    addr: *mut c_void,
    length: usize,
    _iova: u64,
    access: c_uint,
) -> *mut ffi::ibv_mr {
    let mut state = lock();
    let address = pd as usize;
    state.call(Verb::RegMr, address);
    if !state.expect_live(Verb::RegMr, address, Kind::Pd) {
        return null(libc::EINVAL);
    }
    if let Err(code) = state.failure(Verb::RegMr) {
        return null(code);
    }
    let writes = ffi::IBV_ACCESS_REMOTE_WRITE | ffi::IBV_ACCESS_REMOTE_ATOMIC;
    if access & writes != 0 && access & ffi::IBV_ACCESS_LOCAL_WRITE == 0 {
        return null(libc::EINVAL);
    }
    // SAFETY: the domain is alive, as was checked above.
    let context = unsafe { (*pd).context };
    let handle = state.next_number();
    // On many adapters the two keys are one number: whoever knows one knows the other.
    let key = handle << 8;
    let mr = ffi::ibv_mr { context, pd, addr, length, handle, lkey: key, rkey: key };
    state.registrations.push(Registration { addr: addr as usize, length, access, key });
    let block = Block::new(size_of_val(&mr));
    block.write_prefix(0, &mr);
    let raw = block.ptr().cast();
    state.insert(block, 0, vec![address], Data::Mr);
    raw
}

pub(crate) unsafe extern "C" fn dereg_mr(mr: *mut ffi::ibv_mr) -> c_int {
    let mut state = lock();
    let address = mr as usize;
    if let Err(code) = state.may_destroy(Verb::DeregMr, address, Kind::Mr) {
        return code;
    }
    state.remove(address);
    0
}
