//! Address handles.

use std::ffi::c_int;

use ibverbs_sys as ffi;

use crate::controls::lock;
use crate::null;
use crate::objects::{Block, Data};
use crate::query::{GID_TABLE_LEN, PORT};
use crate::record::{Kind, Path, Verb};

pub(crate) unsafe extern "C" fn create_ah(
    pd: *mut ffi::ibv_pd,
    attr: *mut ffi::ibv_ah_attr,
) -> *mut ffi::ibv_ah {
    let mut state = lock();
    let address = pd as usize;
    state.call(Verb::CreateAh, address);
    if !state.expect_live(Verb::CreateAh, address, Kind::Pd) {
        return null(libc::EINVAL);
    }
    if let Err(code) = state.failure(Verb::CreateAh) {
        return null(code);
    }
    // SAFETY: it points to a whole structure (ibv_create_ah(3)).
    let attr = unsafe { attr.read() };
    // The port is one of Ethernet.
    let has_route = attr.is_global != 0 && usize::from(attr.grh.sgid_index) < GID_TABLE_LEN;
    if attr.port_num != PORT || !has_route {
        return null(libc::EINVAL);
    }
    state.paths.push(Path::new(&attr));
    // SAFETY: the domain is alive, as was checked above.
    let context = unsafe { (*pd).context };
    let ah = ffi::ibv_ah { context, pd, handle: state.next_number() };
    let block = Block::new(size_of_val(&ah));
    block.write_prefix(0, &ah);
    let raw = block.ptr().cast();
    state.insert(block, 0, vec![address], Data::Ah);
    raw
}

pub(crate) unsafe extern "C" fn destroy_ah(ah: *mut ffi::ibv_ah) -> c_int {
    let mut state = lock();
    let address = ah as usize;
    if let Err(code) = state.may_destroy(Verb::DestroyAh, address, Kind::Ah) {
        return code;
    }
    state.remove(address);
    0
}
