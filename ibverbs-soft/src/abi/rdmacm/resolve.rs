//! Addresses, routes, and listening.

use std::ffi::c_int;
use std::net::SocketAddr;
use std::sync::Arc;

use ibverbs_sys as ffi;
use rustix::io::Errno;

use super::address;
use super::event::complete;
use super::id::{id, Id, IdState, Stage};
use super::ports::{Lease, Sharing};
use super::registry::CmDevice;
use crate::abi::minus_one;
use crate::cm::Listener;
use crate::device::{Happened, Result};

/// How many requests wait at most until they are read.
const MAX_BACKLOG: usize = 1024;

pub(super) unsafe extern "C" fn bind_addr(
    raw: *mut ffi::rdma_cm_id,
    addr: *mut libc::sockaddr,
) -> c_int {
    // SAFETY: the identifier is alive (rdma_bind_addr(3)).
    let id = unsafe { id(raw) };
    // SAFETY: it points to an address (rdma_bind_addr(3)).
    let addr = unsafe { address::read(addr) };
    minus_one(addr.and_then(|addr| {
        let mut state = id.state();
        bind(id, &mut state, addr.ok_or(Errno::INVAL)?)?;
        id.show_addresses(&state);
        Ok(())
    }))
}

/// What the identifier says about others at its port.
fn sharing(state: &IdState, addr: SocketAddr) -> Sharing {
    let family_only = state.options.family_only.unwrap_or(addr.is_ipv4());
    Sharing { reuse: state.options.reuse, family_only }
}

/// Gives an address and a port to an identifier that has none, and the device that has the address.
fn bind(id: &Id, state: &mut IdState, addr: SocketAddr) -> Result<()> {
    if state.stage != Stage::Idle {
        return Err(Errno::INVAL);
    }
    let device = match addr.ip().is_unspecified() {
        true => None,
        false => Some(CmDevice::with_address(addr)?),
    };
    let lease = Lease::new(id.ps(), addr, sharing(state, addr))?;
    let mut src = addr;
    src.set_port(lease.port);
    state.stage = Stage::Bound;
    (state.src, state.lease, state.device) = (Some(src), Some(lease), device);
    Ok(())
}

/// Undoes [`bind`].
fn unbind(state: &mut IdState) {
    state.stage = Stage::Idle;
    (state.src, state.lease, state.device) = (None, None, None);
}

pub(super) unsafe extern "C" fn listen(raw: *mut ffi::rdma_cm_id, backlog: c_int) -> c_int {
    // SAFETY: the identifier is alive (rdma_listen(3)).
    minus_one(begin_to_listen(unsafe { id(raw) }, backlog))
}

fn begin_to_listen(id: &Id, backlog: c_int) -> Result<()> {
    let mut state = id.state();
    let state = &mut *state;
    if state.stage == Stage::Idle {
        bind(id, state, ([0, 0, 0, 0], 0).into())?;
    }
    let (Stage::Bound, Some(src), Some(lease)) = (state.stage, state.src, &state.lease) else {
        return Err(Errno::INVAL);
    };
    let how = Sharing { reuse: false, ..sharing(state, src) };
    lease.check_alone(src.ip(), how)?;
    lease.set_sharing(how);
    state.options.reuse = false;
    let backlog = usize::try_from(backlog).unwrap_or(0);
    let is_any = src.ip().is_unspecified();
    let listener = Listener {
        service_id: service_id(id.ps(), src.port()),
        addr: (!is_any).then_some(src.ip()),
        ipv4: src.is_ipv4() || is_any && !how.family_only,
        ipv6: src.is_ipv6() || is_any && !how.family_only,
        connections: !id.is_datagram(),
        datagrams: id.is_datagram(),
        backlog: if (1..MAX_BACKLOG).contains(&backlog) { backlog } else { MAX_BACKLOG },
        owner: Arc::clone(&id.owner),
    };
    let devices: Vec<_> = match &state.device {
        Some(device) => vec![Arc::clone(device.device())],
        None => CmDevice::all().map(|device| Arc::clone(device.device())).collect(),
    };
    for device in devices {
        let listener = listener.clone();
        match device.with_cm(|cm, _| cm.listen(listener)) {
            Ok(at) => state.listeners.push((device, at)),
            // One that has failed does not keep it from the others.
            Err(_) if is_any => {}
            Err(error) => return Err(error),
        }
    }
    state.stage = Stage::Listening;
    id.show_addresses(state);
    Ok(())
}

/// What a port of a port space is called in messages.
pub(super) fn service_id(ps: ffi::rdma_port_space, port: u16) -> u64 {
    u64::from(ps) << 16 | u64::from(port)
}

pub(super) unsafe extern "C" fn resolve_addr(
    raw: *mut ffi::rdma_cm_id,
    src_addr: *mut libc::sockaddr,
    dst_addr: *mut libc::sockaddr,
    _timeout_ms: c_int,
) -> c_int {
    // SAFETY: the identifier is alive (rdma_resolve_addr(3)).
    let id = unsafe { id(raw) };
    // SAFETY: null, or an address (rdma_resolve_addr(3)).
    let src = unsafe { address::read(src_addr) };
    // SAFETY: as above.
    let dst = unsafe { address::read(dst_addr) };
    minus_one(src.and_then(|src| {
        resolve(id, src, dst?.ok_or(Errno::INVAL)?)?;
        complete(id)
    }))
}

/// Finds the device that leads to an address. There is nobody to ask: it is known at once, but told by an event all the same.
pub(super) fn resolve(id: &Id, src: Option<SocketAddr>, dst: SocketAddr) -> Result<()> {
    let mut state = id.state();
    let state = &mut *state;
    if src.is_some_and(|src| src.is_ipv4() != dst.is_ipv4()) {
        return Err(Errno::INVAL);
    }
    let was_idle = state.stage == Stage::Idle;
    if was_idle {
        bind(id, state, src.unwrap_or_else(|| address::any_like(dst)))?;
    }
    let (Stage::Bound, Some(own)) = (state.stage, state.src) else {
        return Err(Errno::INVAL);
    };
    if own.is_ipv4() != dst.is_ipv4()
        || address::is_link_local(dst.ip()) && address::scope(dst) == 0
    {
        if was_idle {
            unbind(state);
        }
        return Err(Errno::INVAL);
    }
    state.dst = Some(dst);
    let found = match &state.device {
        Some(_) => Ok(()),
        None => CmDevice::towards(dst).map(|(device, source)| {
            let scope = address::with_ip(dst, source);
            let mut own = if source == dst.ip() { scope } else { address::with_ip(own, source) };
            own.set_port(state.lease.as_ref().map_or(0, |lease| lease.port));
            (state.src, state.device) = (Some(own), Some(device));
        }),
    };
    match found {
        Ok(()) => {
            if dst.ip().is_unspecified() {
                // The peer is on this side.
                let own = state.src.map_or(dst.ip(), |own| own.ip());
                state.dst = Some(address::with_ip(dst, own));
            }
            state.stage = Stage::AddrResolved;
            id.tell(Happened::AddrResolved);
        }
        Err(error) => id.tell(Happened::AddrError(-error.raw_os_error())),
    }
    Ok(())
}

pub(super) unsafe extern "C" fn resolve_route(
    raw: *mut ffi::rdma_cm_id,
    _timeout_ms: c_int,
) -> c_int {
    // SAFETY: the identifier is alive (rdma_resolve_route(3)).
    let id = unsafe { id(raw) };
    minus_one(route(id).and_then(|()| complete(id)))
}

/// Fixes the path, which is known as soon as both addresses are.
pub(super) fn route(id: &Id) -> Result<()> {
    let mut state = id.state();
    if state.stage != Stage::AddrResolved {
        return Err(Errno::INVAL);
    }
    state.stage = Stage::RouteResolved;
    state.traffic_class = state.options.type_of_service;
    id.tell(Happened::RouteResolved);
    Ok(())
}

pub(super) unsafe extern "C" fn get_src_port(raw: *mut ffi::rdma_cm_id) -> ffi::__be16 {
    // SAFETY: the identifier is alive (rdma_get_src_port(3)).
    let addr = unsafe { ffi::rdma_get_local_addr(raw) };
    // SAFETY: the field is as long as any address.
    port_of(unsafe { address::read(addr) })
}

pub(super) unsafe extern "C" fn get_dst_port(raw: *mut ffi::rdma_cm_id) -> ffi::__be16 {
    // SAFETY: the identifier is alive (rdma_get_dst_port(3)).
    let addr = unsafe { ffi::rdma_get_peer_addr(raw) };
    // SAFETY: the field is as long as any address.
    port_of(unsafe { address::read(addr) })
}

fn port_of(addr: Result<Option<SocketAddr>>) -> ffi::__be16 {
    addr.ok().flatten().map_or(0, |addr| addr.port().to_be())
}
