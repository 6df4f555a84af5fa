//! Lists of addresses.

use std::ffi::{c_char, c_int, CStr};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ibverbs_sys as ffi;

use super::address;
use super::call::finish;
use super::values::{CmAddrInfo, CmArgs};
use crate::controls::lock;
use crate::objects::{Block, Data};
use crate::record::{Kind, Verb};

/// The text at a pointer; `None` if it is null.
///
/// # Safety
///
/// If it is not null, it points to a string.
unsafe fn text(from: *const c_char) -> Option<String> {
    // SAFETY: the caller's promise.
    (!from.is_null()).then(|| unsafe { CStr::from_ptr(from) }.to_string_lossy().into_owned())
}

/// The address that both texts mean; `None` if they are not numbers.
fn numeric(node: Option<&str>, service: Option<&str>, is_passive: bool) -> Option<SocketAddr> {
    let ip = match node {
        Some(node) => node.parse::<IpAddr>().ok()?,
        None if is_passive => Ipv6Addr::UNSPECIFIED.into(),
        None => Ipv4Addr::LOCALHOST.into(),
    };
    let port = service.map_or(Some(0), |service| service.parse().ok())?;
    Some(SocketAddr::new(ip, port))
}

/// The address in memory of its own, which is kept in `blocks`.
fn place(addr: Option<SocketAddr>, blocks: &mut Vec<Block>) -> (*mut libc::sockaddr, u32) {
    let Some(addr) = addr else { return (std::ptr::null_mut(), 0) };
    let (storage, len) = address::storage(addr);
    let block = Block::new(len);
    block.write_prefix(0, &storage);
    let raw = block.ptr().cast();
    blocks.push(block);
    (raw, len as u32)
}

pub(super) unsafe extern "C" fn getaddrinfo(
    node: *const c_char,
    service: *const c_char,
    hints: *const ffi::rdma_addrinfo,
    to: *mut *mut ffi::rdma_addrinfo,
) -> c_int {
    // SAFETY: it is null or points to a string (rdma_getaddrinfo(3)).
    let node = unsafe { text(node) };
    // SAFETY: as above.
    let service = unsafe { text(service) };
    let mut state = lock();
    let args = CmArgs::AddrInfo { node: node.clone(), service: service.clone() };
    state.cm_call(Verb::GetAddrInfo, 0, args);
    if let Err(code) = state.failure(Verb::GetAddrInfo) {
        return finish(Err(code));
    }
    let mut hint = ffi::rdma_addrinfo::default();
    if !hints.is_null() {
        // SAFETY: it is not null, and points to hints.
        hint = unsafe { hints.read() };
    } else if node.is_none() && service.is_none() {
        return finish(Err(libc::EINVAL));
    }
    // SAFETY: it is null, or points to an address.
    let src = unsafe { address::read(hint.ai_src_addr) };
    // SAFETY: as above.
    let dst = unsafe { address::read(hint.ai_dst_addr) };
    let is_passive = hint.ai_flags as u32 & ffi::RAI_PASSIVE != 0;
    let mut entries = state.config.cm.addrinfo.clone();
    if entries.is_empty() && node.is_none() && service.is_none() {
        entries.push(CmAddrInfo { src, dst });
    } else if entries.is_empty() {
        let Some(found) = numeric(node.as_deref(), service.as_deref(), is_passive) else {
            // As from getaddrinfo(3), and without an errno value.
            return libc::EAI_NONAME;
        };
        entries.push(match is_passive {
            true => CmAddrInfo { src: Some(found), dst: None },
            false => CmAddrInfo { src, dst: Some(found) },
        });
    }
    let or = |given: c_int, other: u32| if given == 0 { other as c_int } else { given };
    let mut next = std::ptr::null_mut();
    let mut blocks = Vec::new();
    let mut first = None;
    for CmAddrInfo { src, dst } in entries.into_iter().rev() {
        blocks.extend(first.take());
        let is_ipv4 = src.or(dst).is_none_or(|addr| addr.is_ipv4());
        let (ai_src_addr, ai_src_len) = place(src, &mut blocks);
        let (ai_dst_addr, ai_dst_len) = place(dst, &mut blocks);
        let entry = ffi::rdma_addrinfo {
            ai_flags: hint.ai_flags & ffi::RAI_PASSIVE as c_int,
            ai_family: if is_ipv4 { libc::AF_INET } else { libc::AF_INET6 },
            ai_qp_type: or(hint.ai_qp_type, ffi::IBV_QPT_RC),
            ai_port_space: or(hint.ai_port_space, ffi::RDMA_PS_TCP),
            ai_src_len,
            ai_dst_len,
            ai_src_addr,
            ai_dst_addr,
            ai_next: next,
            ..Default::default()
        };
        let block = Block::new(size_of_val(&entry));
        block.write_prefix(0, &entry);
        next = block.ptr().cast();
        first = Some(block);
    }
    if let Some(first) = first {
        state.insert(first, 0, Vec::new(), Data::AddrInfo { _rest: blocks });
    }
    // SAFETY: it points to a pointer (rdma_getaddrinfo(3)).
    unsafe { to.write(next) };
    0
}

pub(super) unsafe extern "C" fn freeaddrinfo(list: *mut ffi::rdma_addrinfo) {
    let mut state = lock();
    let address = list as usize;
    state.cm_call(Verb::FreeAddrInfo, address, CmArgs::None);
    if !list.is_null() && state.expect_live(Verb::FreeAddrInfo, address, Kind::AddrInfo) {
        state.remove(address);
    }
}
