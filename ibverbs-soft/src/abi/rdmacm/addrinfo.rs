//! Names of hosts and services: lists of addresses, from what the C library finds.

use std::ffi::{c_char, c_int};
use std::ptr;

use ibverbs_sys as ffi;
use rustix::io::Errno;

use super::event::complete;
use super::id::{id, Names};
use crate::abi::minus_one;
use crate::device::{Happened, Result};

/// What looking up has failed with: what the C library says of names, or an error number.
enum Failure {
    Name(c_int),
    Errno(Errno),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Failure {
        Failure::Errno(errno)
    }
}

/// A list of the C library's, given back when it is dropped.
struct Found(*mut libc::addrinfo);

impl Drop for Found {
    fn drop(&mut self) {
        // SAFETY: a list that `getaddrinfo` has made.
        unsafe { libc::freeaddrinfo(self.0) };
    }
}

/// As the C library is asked.
fn hints_of(hints: &ffi::rdma_addrinfo) -> libc::addrinfo {
    // SAFETY: numbers that may be zero, and pointers that may be null.
    let mut asked: libc::addrinfo = unsafe { std::mem::zeroed() };
    let has = |flag: u32| hints.ai_flags as u32 & flag != 0;
    if has(ffi::RAI_PASSIVE) {
        asked.ai_flags |= libc::AI_PASSIVE;
    }
    if has(ffi::RAI_NUMERICHOST) {
        asked.ai_flags |= libc::AI_NUMERICHOST;
    }
    if hints.ai_family as u32 != ffi::AF_IB {
        asked.ai_family = hints.ai_family;
    }
    asked.ai_socktype = match hints.ai_qp_type as u32 {
        ffi::IBV_QPT_RC | ffi::IBV_QPT_UC => libc::SOCK_STREAM,
        ffi::IBV_QPT_UD => libc::SOCK_DGRAM,
        _ => 0,
    };
    asked.ai_protocol = match (hints.ai_port_space as u32, asked.ai_socktype) {
        (ffi::RDMA_PS_TCP, _) | (ffi::RDMA_PS_IB, libc::SOCK_STREAM) => libc::IPPROTO_TCP,
        (ffi::RDMA_PS_UDP | ffi::RDMA_PS_IPOIB, _) | (ffi::RDMA_PS_IB, libc::SOCK_DGRAM) => {
            libc::IPPROTO_UDP
        }
        _ => 0,
    };
    asked
}

/// Copies an address into memory of its own, which [`freeaddrinfo`] gives back.
///
/// # Safety
///
/// The address is so long.
unsafe fn copy(addr: *const libc::sockaddr, len: u32) -> Result<*mut libc::sockaddr> {
    // SAFETY: it takes any size.
    let to = unsafe { libc::malloc(len as usize) }.cast::<u8>();
    if to.is_null() {
        return Err(Errno::NOMEM);
    }
    // SAFETY: so much was allocated, and is there by the caller's promise.
    unsafe { ptr::copy_nonoverlapping(addr.cast::<u8>(), to, len as usize) };
    Ok(to.cast())
}

/// # Safety
///
/// As rdma_getaddrinfo(3) demands.
unsafe fn look_up(
    node: *const c_char,
    service: *const c_char,
    hints: *const ffi::rdma_addrinfo,
    info: &mut ffi::rdma_addrinfo,
) -> std::result::Result<(), Failure> {
    let hint = match hints.is_null() {
        true => ffi::rdma_addrinfo::default(),
        // SAFETY: whole, by the caller's promise.
        false => unsafe { hints.read() },
    };
    if hint.ai_flags as u32 & ffi::RAI_SA != 0 {
        // There is no subnet administration.
        return Err(Errno::OPNOTSUPP.into());
    }
    if node.is_null() && service.is_null() {
        if hints.is_null() {
            return Err(Errno::INVAL.into());
        }
        info.ai_flags = hint.ai_flags;
        info.ai_family = hint.ai_family;
        info.ai_qp_type = hint.ai_qp_type;
        info.ai_port_space = hint.ai_port_space;
        if hint.ai_dst_len > 0 {
            // SAFETY: as long as is said, by the caller's promise.
            info.ai_dst_addr = unsafe { copy(hint.ai_dst_addr, hint.ai_dst_len) }?;
            info.ai_dst_len = hint.ai_dst_len;
        }
    } else {
        // SAFETY: by the caller's promise.
        unsafe { look_up_names(node, service, (!hints.is_null()).then_some(&hint), info) }?;
    }
    if info.ai_src_len == 0 && hint.ai_src_len > 0 {
        // SAFETY: as long as is said, by the caller's promise.
        info.ai_src_addr = unsafe { copy(hint.ai_src_addr, hint.ai_src_len) }?;
        info.ai_src_len = hint.ai_src_len;
    }
    Ok(())
}

/// # Safety
///
/// The names are null or strings.
unsafe fn look_up_names(
    node: *const c_char,
    service: *const c_char,
    hints: Option<&ffi::rdma_addrinfo>,
    info: &mut ffi::rdma_addrinfo,
) -> std::result::Result<(), Failure> {
    let asked = hints.map(hints_of);
    let asked_ptr = asked.as_ref().map_or(ptr::null(), ptr::from_ref);
    let mut first = ptr::null_mut();
    // SAFETY: names by the caller's promise, hints that are whole or null, and a place for a list.
    let error = unsafe { libc::getaddrinfo(node, service, asked_ptr, &mut first) };
    if error != 0 {
        return Err(Failure::Name(error));
    }
    let found = Found(first);
    // SAFETY: there is at least one element on success.
    let found = unsafe { &*found.0 };
    let hint = hints.copied().unwrap_or_default();
    info.ai_qp_type = match (hint.ai_qp_type, found.ai_socktype) {
        (0, libc::SOCK_STREAM) => ffi::IBV_QPT_RC as c_int,
        (0, libc::SOCK_DGRAM) => ffi::IBV_QPT_UD as c_int,
        (given, _) => given,
    };
    info.ai_port_space = match (hint.ai_port_space, found.ai_protocol) {
        (0, libc::IPPROTO_TCP) => ffi::RDMA_PS_TCP as c_int,
        (0, libc::IPPROTO_UDP) => ffi::RDMA_PS_UDP as c_int,
        (given, _) => given,
    };
    info.ai_family = found.ai_family;
    // SAFETY: as long as is said.
    let addr = unsafe { copy(found.ai_addr, found.ai_addrlen) }?;
    if hint.ai_flags as u32 & ffi::RAI_PASSIVE != 0 {
        info.ai_flags = ffi::RAI_PASSIVE as c_int;
        (info.ai_src_addr, info.ai_src_len) = (addr, found.ai_addrlen);
    } else {
        (info.ai_dst_addr, info.ai_dst_len) = (addr, found.ai_addrlen);
    }
    Ok(())
}

pub(super) unsafe extern "C" fn getaddrinfo(
    node: *const c_char,
    service: *const c_char,
    hints: *const ffi::rdma_addrinfo,
    to: *mut *mut ffi::rdma_addrinfo,
) -> c_int {
    let mut info = Box::<ffi::rdma_addrinfo>::default();
    // SAFETY: as rdma_getaddrinfo(3) demands.
    let result = unsafe { look_up(node, service, hints, &mut info) };
    let info = Box::into_raw(info);
    match result {
        Ok(()) => {
            // SAFETY: it points to a pointer (rdma_getaddrinfo(3)).
            unsafe { to.write(info) };
            0
        }
        Err(failure) => {
            // SAFETY: nobody has it.
            unsafe { freeaddrinfo(info) };
            match failure {
                Failure::Name(error) => error,
                Failure::Errno(errno) => minus_one(Err(errno)),
            }
        }
    }
}

pub(super) unsafe extern "C" fn freeaddrinfo(list: *mut ffi::rdma_addrinfo) {
    let mut next = list;
    while !next.is_null() {
        // SAFETY: an element that `getaddrinfo` has made (rdma_freeaddrinfo(3)).
        let info = unsafe { Box::from_raw(next) };
        let parts = [
            info.ai_connect,
            info.ai_route,
            info.ai_src_canonname.cast(),
            info.ai_dst_canonname.cast(),
            info.ai_src_addr.cast(),
            info.ai_dst_addr.cast(),
        ];
        for part in parts {
            // SAFETY: null, or from `malloc`.
            unsafe { libc::free(part) };
        }
        next = info.ai_next;
    }
}

pub(super) unsafe extern "C" fn resolve_addrinfo(
    raw: *mut ffi::rdma_cm_id,
    node: *const c_char,
    service: *const c_char,
    hints: *const ffi::rdma_addrinfo,
) -> c_int {
    if raw.is_null() {
        return minus_one(Err(Errno::INVAL));
    }
    // SAFETY: not null, and alive (rdma_resolve_addrinfo(3)).
    let id = unsafe { id(raw) };
    match &mut id.state().names {
        names @ Names::None => *names = Names::Asked,
        _ => return minus_one(Err(Errno::BUSY)),
    }
    let mut list = ptr::null_mut();
    // SAFETY: as rdma_resolve_addrinfo(3) demands.
    let error = unsafe { getaddrinfo(node, service, hints, &mut list) };
    if error != 0 {
        id.state().names = Names::None;
        return error;
    }
    id.state().names = Names::Found(list);
    id.tell(Happened::NamesResolved);
    minus_one(complete(id))
}

pub(super) unsafe extern "C" fn query_addrinfo(
    raw: *mut ffi::rdma_cm_id,
    to: *mut *mut ffi::rdma_addrinfo,
) -> c_int {
    if raw.is_null() || to.is_null() {
        return minus_one(Err(Errno::INVAL));
    }
    // SAFETY: not null, and alive (rdma_query_addrinfo(3)).
    let id = unsafe { id(raw) };
    let mut state = id.state();
    let Names::Found(list) = state.names else {
        return minus_one(Err(Errno::NOENT));
    };
    state.names = Names::None;
    // SAFETY: not null, and there is room (rdma_query_addrinfo(3)).
    unsafe { to.write(list) };
    0
}
