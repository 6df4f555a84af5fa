//! Addresses and routes.

use std::ffi::c_int;

use ibverbs_sys as ffi;

use super::address;
use super::call::{on_id, Access};
use super::kernel::Stage;
use super::values::CmArgs;
use crate::record::Verb;

pub(super) unsafe extern "C" fn bind_addr(
    id: *mut ffi::rdma_cm_id,
    addr: *mut libc::sockaddr,
) -> c_int {
    // SAFETY: it points to an address (rdma_bind_addr(3)).
    let addr = unsafe { address::read(addr) };
    on_id(Verb::BindAddr, id, Access::Write, CmArgs::Bind(addr), |state| {
        state.bind(id as usize, addr.ok_or(libc::EINVAL)?)?;
        state.query_id(id as usize)
    })
}

pub(super) unsafe extern "C" fn listen(id: *mut ffi::rdma_cm_id, backlog: c_int) -> c_int {
    let address = id as usize;
    on_id(Verb::Listen, id, Access::Write, CmArgs::Listen(backlog), |state| {
        if state.served(address)?.stage == Stage::Idle {
            state.bind(address, ([0, 0, 0, 0], 0).into())?;
        }
        let id = state.served(address)?;
        if id.stage != Stage::Bound {
            return Err(libc::EINVAL);
        }
        id.stage = Stage::Listening;
        state.query_id(address)
    })
}

pub(super) unsafe extern "C" fn resolve_addr(
    id: *mut ffi::rdma_cm_id,
    src_addr: *mut libc::sockaddr,
    dst_addr: *mut libc::sockaddr,
    timeout_ms: c_int,
) -> c_int {
    let address = id as usize;
    // SAFETY: it is null or points to an address (rdma_resolve_addr(3)).
    let src = unsafe { address::read(src_addr) };
    // SAFETY: as above.
    let dst = unsafe { address::read(dst_addr) };
    let args = CmArgs::ResolveAddr { src, dst, timeout_ms };
    on_id(Verb::ResolveAddr, id, Access::Write, args, |state| {
        let dst = dst.ok_or(libc::EINVAL)?;
        if !src_addr.is_null() && src.is_none() {
            return Err(libc::EINVAL);
        }
        if state.served(address)?.stage == Stage::Idle {
            state.bind(address, src.unwrap_or_else(|| address::any_like(dst)))?;
        }
        let data = state.served(address)?;
        let of_other_family = data.src.is_some_and(|src| src.is_ipv4() != dst.is_ipv4());
        if data.stage != Stage::Bound || of_other_family {
            return Err(libc::EINVAL);
        }
        (data.stage, data.dst) = (Stage::ResolvingAddr, Some(dst));
        let to = id.wrapping_byte_add(address::DST).cast::<libc::sockaddr_storage>();
        // SAFETY: the identifier is alive, and has room for an address there.
        unsafe { to.write(address::storage(dst).0) };
        if state.config.cm.replies.resolve_addr {
            state.happen_plain(address, ffi::RDMA_CM_EVENT_ADDR_RESOLVED);
        }
        Ok(())
    })
}

pub(super) unsafe extern "C" fn resolve_route(
    id: *mut ffi::rdma_cm_id,
    timeout_ms: c_int,
) -> c_int {
    let address = id as usize;
    on_id(Verb::ResolveRoute, id, Access::Read, CmArgs::ResolveRoute(timeout_ms), |state| {
        state.expect_device(Verb::ResolveRoute, address).ok_or(libc::EFAULT)?;
        let id = state.served(address)?;
        if id.stage != Stage::AddrResolved {
            return Err(libc::EINVAL);
        }
        id.stage = Stage::ResolvingRoute;
        if state.config.cm.replies.resolve_route {
            state.happen_plain(address, ffi::RDMA_CM_EVENT_ROUTE_RESOLVED);
        }
        Ok(())
    })
}
