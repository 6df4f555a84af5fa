//! Device memory, which here is memory of the process like any other.

use std::ffi::{c_int, c_uint, c_void};

use ibverbs_sys as ffi;

use crate::controls::lock;
use crate::mr::{self, NewMr};
use crate::null;
use crate::objects::{Block, Data};
use crate::query::{MAX_DM_SIZE, MAX_LOG_ALIGN};
use crate::record::{Kind, Memory, Verb};

/// The size of the words that are copied, as with mlx5.
const WORD: usize = 4;

pub(crate) unsafe extern "C" fn alloc_dm(
    context: *mut ffi::ibv_context,
    attr: *mut ffi::ibv_alloc_dm_attr,
) -> *mut ffi::ibv_dm {
    let mut state = lock();
    let address = context as usize;
    state.call(Verb::AllocDm, address);
    if !state.expect_live(Verb::AllocDm, address, Kind::Context) {
        return null(libc::EINVAL);
    }
    if let Err(code) = state.failure(Verb::AllocDm) {
        return null(code);
    }
    // SAFETY: it points to a whole structure (ibv_alloc_dm(3)).
    let attr = unsafe { attr.read() };
    if attr.length > MAX_DM_SIZE || attr.log_align_req > MAX_LOG_ALIGN || attr.comp_mask != 0 {
        return null(libc::EINVAL);
    }
    let mut dm = ffi::ibv_dm {
        context,
        memcpy_to_dm: Some(memcpy_to_dm),
        memcpy_from_dm: Some(memcpy_from_dm),
        comp_mask: 0,
        handle: state.next_number(),
    };
    if let Some(edit) = &state.config.edit_dm {
        edit(&mut dm);
    }
    let block = Block::new(size_of_val(&dm));
    block.write_prefix(0, &dm);
    let raw = block.ptr().cast();
    state.insert(block, 0, vec![address], Data::Dm(vec![0xdd; attr.length]));
    raw
}

pub(crate) unsafe extern "C" fn free_dm(dm: *mut ffi::ibv_dm) -> c_int {
    let mut state = lock();
    let address = dm as usize;
    if let Err(code) = state.may_destroy(Verb::FreeDm, address, Kind::Dm) {
        return code;
    }
    state.remove(address);
    0
}

pub(crate) unsafe extern "C" fn reg_dm_mr(
    pd: *mut ffi::ibv_pd,
    dm: *mut ffi::ibv_dm,
    offset: u64,
    length: usize,
    access: c_uint,
) -> *mut ffi::ibv_mr {
    let mut state = lock();
    let address = dm as usize;
    state.call(Verb::RegDmMr, pd as usize);
    if !state.expect_live(Verb::RegDmMr, address, Kind::Dm) {
        return null(libc::EINVAL);
    }
    if access & ffi::IBV_ACCESS_ZERO_BASED == 0 {
        return null(libc::EINVAL);
    }
    let len = state.dm(address).map_or(0, |memory| memory.len() as u64);
    if offset.checked_add(length as u64).is_none_or(|end| end > len) {
        return null(libc::EINVAL);
    }
    let memory = Memory::Device { dm: address, offset };
    // A region of it has no address of its own: libibverbs leaves it null.
    let new = NewMr { verb: Verb::RegDmMr, pd, addr: std::ptr::null_mut(), length, access, memory };
    mr::register(&mut state, new, &[address])
}

/// Whether so many bytes from the offset on can be copied from or to `host`.
fn check_copy(dm: *mut ffi::ibv_dm, offset: u64, host: usize, length: usize) -> Result<(), c_int> {
    let mut state = lock();
    let address = dm as usize;
    state.call(Verb::CopyDm, address);
    if !state.expect_live(Verb::CopyDm, address, Kind::Dm) {
        return Err(libc::EINVAL);
    }
    state.failure(Verb::CopyDm)?;
    let len = state.dm(address).map_or(0, |memory| memory.len() as u64);
    // A real provider adds without looking whether the sum overflows.
    if offset.checked_add(length as u64).is_none_or(|end| end > len) {
        state.violation(format!("CopyDm: {offset} and {length} more go beyond {len} bytes"));
        return Err(libc::EFAULT);
    }
    if (offset as usize | length) & (WORD - 1) != 0 {
        return Err(libc::EINVAL);
    }
    if host & (WORD - 1) != 0 {
        state.violation(format!("CopyDm: words at {host:#x}, which is not aligned"));
        return Err(libc::EFAULT);
    }
    Ok(())
}

unsafe extern "C" fn memcpy_to_dm(
    dm: *mut ffi::ibv_dm,
    offset: u64,
    host: *const c_void,
    length: usize,
) -> c_int {
    if let Err(code) = check_copy(dm, offset, host as usize, length) {
        return code;
    }
    // SAFETY: so many bytes can be read there (ibv_memcpy_to_dm(3)).
    let bytes = unsafe { std::slice::from_raw_parts(host.cast::<u8>(), length) };
    if let Some(memory) = lock().dm(dm as usize) {
        memory[offset as usize..][..length].copy_from_slice(bytes);
    }
    0
}

unsafe extern "C" fn memcpy_from_dm(
    host: *mut c_void,
    dm: *mut ffi::ibv_dm,
    offset: u64,
    length: usize,
) -> c_int {
    if let Err(code) = check_copy(dm, offset, host as usize, length) {
        return code;
    }
    // SAFETY: so many bytes can be written there, and nobody else uses them (ibv_memcpy_from_dm(3)).
    let bytes = unsafe { std::slice::from_raw_parts_mut(host.cast::<u8>(), length) };
    if let Some(memory) = lock().dm(dm as usize) {
        bytes.copy_from_slice(&memory[offset as usize..][..length]);
    }
    0
}
