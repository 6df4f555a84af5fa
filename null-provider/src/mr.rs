//! Memory regions.

use std::ffi::{c_int, c_uint, c_void};
use std::fs::File;
use std::os::fd::FromRawFd;
use std::os::unix::fs::MetadataExt;
use std::ptr;

use ibverbs_sys as ffi;

use crate::controls::{lock, State};
use crate::null;
use crate::objects::{Block, Data};
use crate::record::{Advised, Kind, Memory, Registration, Verb};

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
    state.call(Verb::RegMr, pd as usize);
    let memory = Memory::Process;
    register(&mut state, NewMr { verb: Verb::RegMr, pd, addr, length, access, memory }, &[])
}

pub(crate) unsafe extern "C" fn reg_dmabuf_mr(
    pd: *mut ffi::ibv_pd,
    offset: u64,
    length: usize,
    iova: u64,
    fd: c_int,
    access: c_int,
) -> *mut ffi::ibv_mr {
    let mut state = lock();
    state.call(Verb::RegDmabufMr, pd as usize);
    let file = match file(fd) {
        Ok(file) => file,
        Err(code) => return null(code),
    };
    let memory = Memory::Dmabuf { file, offset };
    let (verb, addr, access) =
        (Verb::RegDmabufMr, ptr::without_provenance_mut(iova as usize), access as c_uint);
    register(&mut state, NewMr { verb, pd, addr, length, access, memory }, &[])
}

/// The device and the number of the file that a descriptor is one of: it stands for the dma-buf.
fn file(fd: c_int) -> Result<(u64, u64), c_int> {
    // SAFETY: the call looks whether the descriptor is one.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
    if copy < 0 {
        return Err(libc::EBADF);
    }
    // SAFETY: the copy was made above, and nobody else knows of it.
    let file = unsafe { File::from_raw_fd(copy) };
    let metadata = file.metadata().map_err(|_| libc::EBADF)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// A registration that is asked for.
pub(crate) struct NewMr {
    pub(crate) verb: Verb,
    pub(crate) pd: *mut ffi::ibv_pd,
    pub(crate) addr: *mut c_void,
    pub(crate) length: usize,
    pub(crate) access: u32,
    pub(crate) memory: Memory,
}

/// Makes a region that refers to its domain and to `others`.
pub(crate) fn register(state: &mut State, new: NewMr, others: &[usize]) -> *mut ffi::ibv_mr {
    let NewMr { verb, pd, addr, length, access, memory } = new;
    let address = pd as usize;
    if !state.expect_live(verb, address, Kind::Pd) {
        return null(libc::EINVAL);
    }
    for other in others {
        if !state.same_context(address, *other) {
            state.violation(format!("{verb:?}: what is registered is of another context"));
            return null(libc::EINVAL);
        }
    }
    if let Err(code) = state.failure(verb) {
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
    // Only that of memory in the process means something, and libibverbs stores others.
    let stored = if memory == Memory::Process { addr } else { ptr::null_mut() };
    let addr = addr.addr();
    let mr = ffi::ibv_mr { context, pd, addr: stored, length, handle, lkey: key, rkey: key };
    state.registrations.push(Registration { addr, length, access, key, memory });
    let block = Block::new(size_of_val(&mr));
    block.write_prefix(0, &mr);
    let raw = block.ptr().cast();
    let mut refers_to = vec![address];
    refers_to.extend(others);
    state.insert(block, 0, refers_to, Data::Mr);
    raw
}

pub(crate) unsafe extern "C" fn dereg_mr(mr: *mut ffi::ibv_mr) -> c_int {
    let mut state = lock();
    let address = mr as usize;
    // As SoftRoCE does.
    if state.windows().any(|mw| mw.bound_to.is_some_and(|(region, _)| region == address)) {
        state.call(Verb::DeregMr, address);
        state.refused.insert(address);
        return libc::EINVAL;
    }
    if let Err(code) = state.may_destroy(Verb::DeregMr, address, Kind::Mr) {
        return code;
    }
    // SAFETY: the region is alive, as was checked above.
    let key = unsafe { (*mr).lkey };
    if state.in_flight.iter().any(|&(_, lkey)| lkey == key) {
        state.violation("DeregMr: the memory is posted, and its queue is there".to_owned());
    }
    state.remove(address);
    0
}

pub(crate) unsafe extern "C" fn advise_mr(
    pd: *mut ffi::ibv_pd,
    advice: ffi::ibv_advise_mr_advice,
    flags: u32,
    list: *mut ffi::ibv_sge,
    len: u32,
) -> c_int {
    let mut state = lock();
    let address = pd as usize;
    state.call(Verb::AdviseMr, address);
    if !state.expect_live(Verb::AdviseMr, address, Kind::Pd) {
        return libc::EINVAL;
    }
    if let Err(code) = state.failure(Verb::AdviseMr) {
        return code;
    }
    // SAFETY: it points to so many entries (ibv_advise_mr(3)).
    let list = unsafe { std::slice::from_raw_parts(list, len as usize) };
    let ranges = list.iter().map(|sge| (sge.addr, sge.length, sge.lkey)).collect();
    state.advised.push(Advised { advice, flags, ranges });
    0
}
