//! Shared receive queues.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::sync::Arc;

use ibverbs_sys as ffi;
use rustix::io::Errno;

use super::object::{object, reclaim, unless_dead, Acknowledged, Object, Place};
use super::pd::{context_of, domain, Domain};
use super::{code, pointer};
use crate::device::{limits, Owner, Result};
use crate::transport::SrqId;

/// A shared receive queue.
#[repr(C)]
pub(super) struct Srq {
    raw: UnsafeCell<ffi::ibv_srq>,
    pub(super) queue: Arc<SharedQueue>,
    token: usize,
    pub(super) async_events: Acknowledged,
}

// SAFETY: `repr(C)`, and the structure for C comes first, in an `UnsafeCell`. The rest is `Sync`.
unsafe impl Object for Srq {
    type Raw = ffi::ibv_srq;
}

/// Every queue pair of a shared queue keeps this.
pub(super) struct SharedQueue {
    pub(super) id: SrqId,
    pub(super) max_sge: u32,
    pub(super) domain: Arc<Domain>,
}

pub(super) unsafe extern "C" fn create_srq(
    pd: *mut ffi::ibv_pd,
    init: *mut ffi::ibv_srq_init_attr,
) -> *mut ffi::ibv_srq {
    // SAFETY: it points to a whole structure (ibv_create_srq(3)).
    let ffi::ibv_srq_init_attr { srq_context, attr } = unsafe { init.read() };
    // SAFETY: the domain is alive (ibv_create_srq(3)). What was granted is what was asked for, and is there already.
    pointer(unsafe { create(pd, srq_context, &attr) })
}

/// The operation of `verbs_context`, for queues of other types than the basic one: there are none.
pub(super) unsafe extern "C" fn create_srq_ex(
    _context: *mut ffi::ibv_context,
    init: *mut ffi::ibv_srq_init_attr_ex,
) -> *mut ffi::ibv_srq {
    // SAFETY: it points to a whole structure (ibv_create_srq_ex(3)).
    let init = unsafe { init.read() };
    let mask = ffi::IBV_SRQ_INIT_ATTR_TYPE | ffi::IBV_SRQ_INIT_ATTR_PD;
    let has = |bit| init.comp_mask & bit != 0;
    let basic = !has(ffi::IBV_SRQ_INIT_ATTR_TYPE) || init.srq_type == ffi::IBV_SRQT_BASIC;
    if !basic || init.comp_mask & !mask != 0 {
        return pointer(Err(Errno::OPNOTSUPP));
    }
    if !has(ffi::IBV_SRQ_INIT_ATTR_PD) {
        return pointer(Err(Errno::INVAL));
    }
    // SAFETY: the mask says that there is a domain, which is alive (ibv_create_srq_ex(3)).
    pointer(unsafe { create(init.pd, init.srq_context, &init.attr) })
}

/// # Safety
///
/// The domain is alive.
unsafe fn create(
    pd: *mut ffi::ibv_pd,
    srq_context: *mut c_void,
    attr: &ffi::ibv_srq_attr,
) -> Result<*mut ffi::ibv_srq> {
    check_depth(attr.max_wr)?;
    if attr.max_sge > limits::MAX_SGE {
        return Err(Errno::INVAL);
    }
    // SAFETY: by the caller's promise.
    let domain = unsafe { domain(pd) };
    // SAFETY: by the caller's promise.
    let context = unsafe { context_of(pd) };
    let place = Place::<Srq>::new();
    let token = place.token();
    let owner = Owner { token, async_queue: domain.shared.async_queue.clone() };
    // A limit is set later, if at all.
    let id = domain.shared.device.create_srq(domain.id, attr.max_wr, 0, owner)?;
    let handle = id.0 as u32;
    let raw = ffi::ibv_srq { context, srq_context, pd, handle, ..Default::default() };
    let queue = SharedQueue { id, max_sge: attr.max_sge, domain: domain.clone() };
    Ok(place.fill(Srq {
        raw: UnsafeCell::new(raw),
        queue: Arc::new(queue),
        token,
        async_events: Acknowledged::default(),
    }))
}

fn check_depth(max_wr: u32) -> Result<()> {
    if (1..=limits::MAX_SRQ_WR).contains(&max_wr) {
        Ok(())
    } else {
        Err(Errno::INVAL)
    }
}

pub(super) unsafe extern "C" fn modify_srq(
    srq: *mut ffi::ibv_srq,
    attr: *mut ffi::ibv_srq_attr,
    mask: c_int,
) -> c_int {
    // SAFETY: the queue is alive (ibv_modify_srq(3)).
    let queue = &unsafe { object::<Srq>(srq) }.queue;
    // SAFETY: it points to a whole structure (ibv_modify_srq(3)).
    let attr = unsafe { attr.read() };
    code(modify(queue, &attr, mask as u32))
}

fn modify(queue: &SharedQueue, attr: &ffi::ibv_srq_attr, mask: u32) -> Result<()> {
    if mask & !(ffi::IBV_SRQ_MAX_WR | ffi::IBV_SRQ_LIMIT) != 0 {
        return Err(Errno::INVAL);
    }
    let max_wr = (mask & ffi::IBV_SRQ_MAX_WR != 0).then_some(attr.max_wr);
    let limit = (mask & ffi::IBV_SRQ_LIMIT != 0).then_some(attr.srq_limit);
    max_wr.map_or(Ok(()), check_depth)?;
    queue.domain.shared.device.modify_srq(queue.id, max_wr, limit)
}

pub(super) unsafe extern "C" fn query_srq(
    srq: *mut ffi::ibv_srq,
    to: *mut ffi::ibv_srq_attr,
) -> c_int {
    // SAFETY: the queue is alive (ibv_query_srq(3)).
    let queue = &unsafe { object::<Srq>(srq) }.queue;
    let attr =
        queue.domain.shared.device.query_srq(queue.id).map(|(max_wr, srq_limit)| {
            ffi::ibv_srq_attr { max_wr, max_sge: queue.max_sge, srq_limit }
        });
    // SAFETY: there is room for a structure (ibv_query_srq(3)).
    code(attr.map(|attr| unsafe { to.write(attr) }))
}

pub(super) unsafe extern "C" fn destroy_srq(raw: *mut ffi::ibv_srq) -> c_int {
    // SAFETY: the queue is alive (ibv_destroy_srq(3)).
    let result = destroy(unsafe { object::<Srq>(raw) });
    if result.is_ok() {
        // SAFETY: the queue is not used any more (ibv_destroy_srq(3)), nor does anything refer to it.
        drop(unsafe { reclaim::<Srq>(raw) });
    }
    code(result)
}

fn destroy(srq: &Srq) -> Result<()> {
    if Arc::strong_count(&srq.queue) > 1 {
        return Err(Errno::BUSY);
    }
    let shared = &srq.queue.domain.shared;
    unless_dead(shared.device.destroy_srq(srq.queue.id))?;
    if !shared.device.is_dead() {
        srq.async_events.wait(shared.async_queue.take_back(srq.token));
    }
    Ok(())
}
