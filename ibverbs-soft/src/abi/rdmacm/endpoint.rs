//! Endpoints: identifiers whose calls wait for their events, made from lists of addresses.

use std::ffi::c_int;
use std::ptr;

use ibverbs_sys as ffi;
use rustix::io::Errno;

use super::event::{self, complete};
use super::id::{self, acknowledge_own, destroy_id, id};
use super::qp::{create_from, destroy_qp, destroy_srq};
use super::resolve::{bind_addr, resolve, route};
use super::{address, connect};
use crate::abi::{errno, minus_one};
use crate::device::Result;

pub(super) unsafe extern "C" fn create_ep(
    to: *mut *mut ffi::rdma_cm_id,
    res: *mut ffi::rdma_addrinfo,
    pd: *mut ffi::ibv_pd,
    attr: *mut ffi::ibv_qp_init_attr,
) -> c_int {
    // SAFETY: it points to an element of a list (rdma_create_ep(3)).
    let info = unsafe { res.read() };
    let (ps, qp_type) = (info.ai_port_space as u32, info.ai_qp_type as u32);
    // SAFETY: no channel is given.
    let created = unsafe { id::create(ptr::null_mut(), ptr::null_mut(), ps, qp_type) };
    minus_one(created.and_then(|raw| {
        // SAFETY: as rdma_create_ep(3) demands, and the identifier was made just now.
        let set_up = unsafe { set_up(raw, &info, pd, attr) };
        if let Err(error) = set_up {
            // SAFETY: nobody has it.
            unsafe { destroy_ep(raw) };
            return Err(error);
        }
        // SAFETY: it points to a pointer (rdma_create_ep(3)).
        unsafe { to.write(raw) };
        Ok(())
    }))
}

/// # Safety
///
/// As rdma_create_ep(3) demands; the identifier is new.
unsafe fn set_up(
    raw: *mut ffi::rdma_cm_id,
    info: &ffi::rdma_addrinfo,
    pd: *mut ffi::ibv_pd,
    attr: *mut ffi::ibv_qp_init_attr,
) -> Result<()> {
    // SAFETY: by the caller's promise.
    let it = unsafe { id(raw) };
    if info.ai_flags as u32 & ffi::RAI_PASSIVE != 0 {
        // SAFETY: by the caller's promise.
        if unsafe { bind_addr(raw, info.ai_src_addr) } != 0 {
            return Err(errno());
        }
        if !pd.is_null() {
            it.set_pd(pd);
        }
        if !attr.is_null() {
            // SAFETY: by the caller's promise.
            let init = unsafe { attr.read() };
            let qp_type = info.ai_qp_type as u32;
            it.state().qp_init = Some(ffi::ibv_qp_init_attr { qp_type, ..init });
        }
        return Ok(());
    }
    // SAFETY: by the caller's promise.
    let src = unsafe { address::read(info.ai_src_addr) }?;
    // SAFETY: by the caller's promise.
    let dst = unsafe { address::read(info.ai_dst_addr) }?;
    resolve(it, src, dst.ok_or(Errno::INVAL)?)?;
    complete(it)?;
    route(it)?;
    complete(it)?;
    if !attr.is_null() {
        // SAFETY: by the caller's promise.
        unsafe { (*attr).qp_type = info.ai_qp_type as u32 };
        // SAFETY: by the caller's promise.
        unsafe { create_from(raw, pd, attr) }?;
    }
    // SAFETY: by the caller's promise, there are as many bytes.
    it.state().connect_data = unsafe { connect::bytes(info.ai_connect, info.ai_connect_len) };
    Ok(())
}

pub(super) unsafe extern "C" fn destroy_ep(raw: *mut ffi::rdma_cm_id) {
    // SAFETY: the identifier is alive (rdma_destroy_ep(3)).
    let it = unsafe { id(raw) };
    if !it.qp().is_null() {
        // SAFETY: it has one, which is not used any more.
        unsafe { destroy_qp(raw) };
    }
    if !it.srq().is_null() {
        // SAFETY: as above.
        unsafe { destroy_srq(raw) };
    }
    // SAFETY: the identifier is not used any more.
    unsafe { destroy_id(raw) };
}

pub(super) unsafe extern "C" fn get_request(
    raw: *mut ffi::rdma_cm_id,
    to: *mut *mut ffi::rdma_cm_id,
) -> c_int {
    // SAFETY: the identifier is alive (rdma_get_request(3)).
    let request = unsafe { next_request(raw) };
    // SAFETY: it points to a pointer (rdma_get_request(3)).
    minus_one(request.map(|request| unsafe { to.write(request) }))
}

/// # Safety
///
/// The identifier is alive.
unsafe fn next_request(raw: *mut ffi::rdma_cm_id) -> Result<*mut ffi::rdma_cm_id> {
    // SAFETY: by the caller's promise.
    let listener = unsafe { id(raw) };
    if !listener.state().sync {
        return Err(Errno::INVAL);
    }
    acknowledge_own(listener);
    // SAFETY: the identifier's own channel.
    let taken = unsafe { event::take(listener.channel()) }?;
    // SAFETY: taken just now.
    let event = unsafe { taken.read() };
    // SAFETY: as above.
    match unsafe { take_request(listener, &event) } {
        Ok(request) => {
            // SAFETY: the identifier that has come with the event.
            unsafe { id(request) }.set_event(taken);
            Ok(request)
        }
        Err(error) => {
            listener.set_event(taken);
            Err(error)
        }
    }
}

/// The identifier of a request, with a queue pair if the listener says how that is to be.
///
/// # Safety
///
/// The event was taken, and not acknowledged.
unsafe fn take_request(
    listener: &id::Id,
    event: &ffi::rdma_cm_event,
) -> Result<*mut ffi::rdma_cm_id> {
    if event.event == ffi::RDMA_CM_EVENT_REJECTED {
        return Err(Errno::CONNREFUSED);
    }
    if event.status != 0 {
        return Err(event::error_of(event.status));
    }
    if event.event != ffi::RDMA_CM_EVENT_CONNECT_REQUEST {
        return Err(Errno::INVAL);
    }
    let qp_init = listener.state().qp_init;
    if let Some(mut init) = qp_init {
        // SAFETY: the identifier is alive, and what the attributes name is, too (rdma_create_ep(3)).
        unsafe { create_from(event.id, listener.pd(), &mut init) }?;
    }
    Ok(event.id)
}
