//! Queue pairs: creating and destroying. Their states are in `modify`.

use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::sync::{Arc, Mutex};

use ibverbs_sys as ffi;
use rustix::io::Errno;

use super::batch::{self, Batch};
use super::cq::{Cq, Queue};
use super::lock::SpinLock;
use super::modify::Stored;
use super::object::{object, reclaim, unless_dead, Acknowledged, Object, Place};
use super::pd::{context_of, domain, Domain};
use super::srq::{SharedQueue, Srq};
use super::{code, pointer};
use crate::device::{limits, Device, Owner, Result};
use crate::transport::Config;
use crate::wire::Service;

/// A queue pair.
#[repr(C)]
pub(super) struct Qp {
    raw: UnsafeCell<ffi::ibv_qp_ex>,
    pub(super) number: u32,
    pub(super) service: Service,
    /// Whether writes of reliable datagrams can have their bytes inline.
    pub(super) inline_write: bool,
    /// What was asked for, and granted.
    pub(super) init: InitAttr,
    /// Whether it was created for the extended interface.
    extended: bool,
    pub(super) domain: Arc<Domain>,
    /// Keep their queues from being destroyed.
    _queues: (Arc<Queue>, Arc<Queue>, Option<Arc<SharedQueue>>),
    token: usize,
    /// Those attributes that the transport has no use for.
    pub(super) stored: Mutex<Stored>,
    pub(super) async_events: Acknowledged,
    /// Who has it fills the batch.
    pub(super) batching: SpinLock,
    pub(super) batch: UnsafeCell<Batch>,
}

// SAFETY: `repr(C)`, and the structure for C comes first, in an `UnsafeCell`. `batch` belongs to whoever has the lock
// `batching`; the rest is `Sync`: the pointers in `init` are only handed back.
unsafe impl Object for Qp {
    type Raw = ffi::ibv_qp_ex;
}

/// What kind of queue pair is created.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    pub(super) service: Service,
    pub(super) inline_write: bool,
}

impl Kind {
    fn of(qp_type: ffi::ibv_qp_type) -> Result<Kind> {
        Ok(Kind { service: service(qp_type)?, inline_write: false })
    }
}

/// The attributes of a creation.
pub(super) type InitAttr = ffi::ibv_qp_init_attr;

impl Qp {
    pub(super) fn device(&self) -> &Device {
        &self.domain.shared.device
    }

    /// What was granted.
    pub(super) fn cap(&self) -> &ffi::ibv_qp_cap {
        &self.init.cap
    }
}

pub(super) unsafe extern "C" fn create_qp(
    pd: *mut ffi::ibv_pd,
    attr: *mut ffi::ibv_qp_init_attr,
) -> *mut ffi::ibv_qp {
    // SAFETY: it points to a whole structure (ibv_create_qp(3)).
    let mut init = unsafe { attr.read() };
    let created = Kind::of(init.qp_type).and_then(|kind| {
        // SAFETY: as ibv_create_qp(3) demands.
        unsafe { create(pd, &mut init, kind, false) }
    });
    if created.is_ok() {
        // SAFETY: the structure may be changed (ibv_create_qp(3)).
        unsafe { (*attr).cap = init.cap };
    }
    pointer(created)
}

/// The operation of `verbs_context`.
pub(super) unsafe extern "C" fn create_qp_ex(
    _context: *mut ffi::ibv_context,
    attr: *mut ffi::ibv_qp_init_attr_ex,
) -> *mut ffi::ibv_qp {
    // SAFETY: it points to a whole structure (ibv_create_qp_ex(3)).
    let asked = unsafe { attr.read() };
    let mut init = plain(&asked);
    let created = Kind::of(asked.qp_type).and_then(|kind| {
        let extended = check(&asked, kind.service)?;
        // SAFETY: as ibv_create_qp_ex(3) demands; the mask says that there is a domain.
        unsafe { create(asked.pd, &mut init, kind, extended) }
    });
    if created.is_ok() {
        // SAFETY: the structure may be changed (ibv_create_qp_ex(3)).
        unsafe { (*attr).cap = init.cap };
    }
    pointer(created)
}

/// The attributes that the classic interface has, too.
pub(super) fn plain(asked: &ffi::ibv_qp_init_attr_ex) -> InitAttr {
    ffi::ibv_qp_init_attr {
        qp_context: asked.qp_context,
        send_cq: asked.send_cq,
        recv_cq: asked.recv_cq,
        srq: asked.srq,
        cap: asked.cap,
        qp_type: asked.qp_type,
        sq_sig_all: asked.sq_sig_all,
    }
}

/// Whether a queue pair can have these properties; and whether it is for the extended interface.
pub(super) fn check(asked: &ffi::ibv_qp_init_attr_ex, service: Service) -> Result<bool> {
    let has = |bit| asked.comp_mask & bit != 0;
    let known = ffi::IBV_QP_INIT_ATTR_PD
        | ffi::IBV_QP_INIT_ATTR_CREATE_FLAGS
        | ffi::IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
    let flags = has(ffi::IBV_QP_INIT_ATTR_CREATE_FLAGS) && asked.create_flags != 0;
    if asked.comp_mask & !known != 0 || flags {
        return Err(Errno::OPNOTSUPP);
    }
    if !has(ffi::IBV_QP_INIT_ATTR_PD) {
        return Err(Errno::INVAL);
    }
    let extended = has(ffi::IBV_QP_INIT_ATTR_SEND_OPS_FLAGS);
    if extended && asked.send_ops_flags & !batch::operations(service) != 0 {
        return Err(Errno::OPNOTSUPP);
    }
    Ok(extended)
}

fn service(qp_type: ffi::ibv_qp_type) -> Result<Service> {
    match qp_type {
        ffi::IBV_QPT_RC => Ok(Service::Rc),
        ffi::IBV_QPT_UC => Ok(Service::Uc),
        ffi::IBV_QPT_UD => Ok(Service::Ud),
        _ => Err(Errno::OPNOTSUPP),
    }
}

/// Whether the device has queues of such a size. What it has is granted as it was asked for.
fn check_cap(cap: &ffi::ibv_qp_cap) -> Result<()> {
    let fits = cap.max_send_wr.max(cap.max_recv_wr) <= limits::MAX_QP_WR
        && cap.max_send_sge.max(cap.max_recv_sge) <= limits::MAX_SGE
        && cap.max_inline_data <= limits::MAX_INLINE;
    if fits {
        Ok(())
    } else {
        Err(Errno::INVAL)
    }
}

/// The completion queue behind a pointer of C, if there is one and it is of this device.
///
/// # Safety
///
/// The pointer is null, or the queue is alive.
unsafe fn queue(cq: *mut ffi::ibv_cq, domain: &Domain) -> Result<Arc<Queue>> {
    if cq.is_null() {
        return Err(Errno::INVAL);
    }
    // SAFETY: by the caller's promise.
    let queue = &unsafe { object::<Cq>(cq.cast()) }.queue;
    if !Arc::ptr_eq(&queue.shared.device, &domain.shared.device) {
        return Err(Errno::INVAL);
    }
    Ok(queue.clone())
}

/// The shared receive queue behind a pointer of C, which must be of this device.
///
/// # Safety
///
/// The pointer is null, or the queue is alive.
unsafe fn shared_queue(
    srq: *mut ffi::ibv_srq,
    domain: &Domain,
) -> Result<Option<Arc<SharedQueue>>> {
    if srq.is_null() {
        return Ok(None);
    }
    // SAFETY: by the caller's promise.
    let queue = &unsafe { object::<Srq>(srq) }.queue;
    if !Arc::ptr_eq(&queue.domain.shared.device, &domain.shared.device) {
        return Err(Errno::INVAL);
    }
    Ok(Some(queue.clone()))
}

/// # Safety
///
/// The domain and the queues are alive; there may be no shared one.
pub(super) unsafe fn create(
    pd: *mut ffi::ibv_pd,
    init: &mut InitAttr,
    kind: Kind,
    extended: bool,
) -> Result<*mut ffi::ibv_qp> {
    // SAFETY: by the caller's promise.
    let domain = unsafe { domain(pd) };
    // SAFETY: by the caller's promise.
    let context = unsafe { context_of(pd) };
    let Kind { service, inline_write } = kind;
    // SAFETY: by the caller's promise.
    let send_cq = unsafe { queue(init.send_cq, domain) }?;
    // SAFETY: by the caller's promise.
    let recv_cq = unsafe { queue(init.recv_cq, domain) }?;
    // SAFETY: by the caller's promise.
    let srq = unsafe { shared_queue(init.srq, domain) }?;
    if srq.is_some() {
        (init.cap.max_recv_wr, init.cap.max_recv_sge) = (0, 0);
    }
    check_cap(&init.cap)?;
    let place = Place::<Qp>::new();
    let token = place.token();
    let config = Config {
        qp_num: 0,
        service,
        pd: domain.id,
        send_cq: send_cq.id,
        recv_cq: recv_cq.id,
        srq: srq.as_ref().map(|srq| srq.id),
        max_send_wr: init.cap.max_send_wr,
        max_recv_wr: init.cap.max_recv_wr,
        // EFA completes all.
        signal_all: init.sq_sig_all != 0 || service == Service::Srd,
    };
    let owner = Owner { token, async_queue: domain.shared.async_queue.clone() };
    let number = domain.shared.device.create_qp(config, owner)?;
    let mut raw = ffi::ibv_qp_ex {
        qp_base: ffi::ibv_qp {
            context,
            qp_context: init.qp_context,
            pd,
            send_cq: init.send_cq,
            recv_cq: init.recv_cq,
            srq: init.srq,
            handle: number,
            qp_num: number,
            state: ffi::IBV_QPS_RESET,
            qp_type: init.qp_type,
            ..Default::default()
        },
        ..Default::default()
    };
    if extended {
        batch::set_functions(&mut raw, service);
    }
    let qp = place.fill(Qp {
        raw: UnsafeCell::new(raw),
        number,
        service,
        inline_write,
        init: *init,
        extended,
        domain: domain.clone(),
        _queues: (send_cq, recv_cq, srq),
        token,
        stored: Mutex::default(),
        async_events: Acknowledged::default(),
        batching: SpinLock::default(),
        batch: UnsafeCell::default(),
    });
    Ok(qp.cast())
}

pub(super) unsafe extern "C" fn qp_to_qp_ex(qp: *mut ffi::ibv_qp) -> *mut ffi::ibv_qp_ex {
    let qp = qp.cast::<ffi::ibv_qp_ex>();
    // SAFETY: the queue pair is alive (ibv_qp_to_qp_ex(3)).
    match unsafe { object::<Qp>(qp) }.extended {
        true => qp,
        false => std::ptr::null_mut(),
    }
}

/// Nobody may look at memory before the completion says so.
pub(super) unsafe extern "C" fn query_qp_data_in_order(
    _qp: *mut ffi::ibv_qp,
    _opcode: ffi::ibv_wr_opcode,
    _flags: u32,
) -> c_int {
    0
}

pub(super) unsafe extern "C" fn destroy_qp(raw: *mut ffi::ibv_qp) -> c_int {
    // SAFETY: the queue pair is alive (ibv_destroy_qp(3)).
    let result = destroy(unsafe { object::<Qp>(raw.cast()) });
    if result.is_ok() {
        // SAFETY: the queue pair is not used any more (ibv_destroy_qp(3)), nor does anything refer to it.
        drop(unsafe { reclaim::<Qp>(raw.cast()) });
    }
    code(result)
}

fn destroy(qp: &Qp) -> Result<()> {
    unless_dead(qp.device().destroy_qp(qp.number))?;
    if !qp.device().is_dead() {
        qp.async_events.wait(qp.domain.shared.async_queue.take_back(qp.token));
    }
    Ok(())
}
