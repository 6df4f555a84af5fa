//! Completion queues: creating, arming, resizing, destroying.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::sync::Arc;

use ibverbs_sys as ffi;
use rustix::io::Errno;

use super::channel::{CompChannel, Used};
use super::context::{shared, Shared};
use super::lock::SpinLock;
use super::object::{by_token, object, reclaim, unless_dead, Acknowledged, Object, Place};
use super::{code, pointer, poll};
use crate::device::{limits, CqOwner, Entry, Result};
use crate::transport::CqId;

/// A completion queue.
#[repr(C)]
pub(super) struct Cq {
    raw: UnsafeCell<ffi::ibv_cq_ex>,
    pub(super) queue: Arc<Queue>,
    channel: Option<Arc<Used>>,
    token: usize,
    pub(super) comp_events: Acknowledged,
    pub(super) async_events: Acknowledged,
    /// Who has it polls, and has `current` and what the poll writes into `raw`.
    pub(super) polling: SpinLock,
    pub(super) current: UnsafeCell<Option<Entry>>,
    /// What EFA's queues have, and where C gets to it.
    efa: Box<EfaCq>,
}

/// The fields of EFA's queues.
#[repr(C)]
struct EfaCq {
    raw: UnsafeCell<ffi::efadv_cq>,
    /// The queue that it belongs to.
    cq: *mut ffi::ibv_cq_ex,
}

// SAFETY: `repr(C)`, and the structure for C comes first, in an `UnsafeCell`. `current` belongs to whoever has the lock
// `polling`; what is in `efa` is written before anybody else has the queue; the rest is `Sync`.
unsafe impl Object for Cq {
    type Raw = ffi::ibv_cq_ex;
}

/// Every queue pair of a completion queue keeps this.
pub(super) struct Queue {
    pub(super) id: CqId,
    pub(super) shared: Arc<Shared>,
}

impl Cq {
    /// What C sees.
    pub(super) fn raw(&self) -> *mut ffi::ibv_cq_ex {
        self.raw.get()
    }
}

/// What a completion queue is asked to be.
struct Wanted {
    context: *mut ffi::ibv_context,
    entries: u32,
    cq_context: *mut c_void,
    channel: *mut ffi::ibv_comp_channel,
    vector: u32,
    fields: u64,
}

/// The fields that completions can have.
const FIELDS: u64 = (ffi::IBV_WC_STANDARD_FLAGS
    | ffi::IBV_WC_EX_WITH_COMPLETION_TIMESTAMP
    | ffi::IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK) as u64;

pub(super) unsafe extern "C" fn create_cq(
    context: *mut ffi::ibv_context,
    entries: c_int,
    cq_context: *mut c_void,
    channel: *mut ffi::ibv_comp_channel,
    vector: c_int,
) -> *mut ffi::ibv_cq {
    // What is negative is more than there is.
    let (entries, vector) = (entries as u32, vector as u32);
    let wanted = Wanted { context, entries, cq_context, channel, vector, fields: 0 };
    // SAFETY: as ibv_create_cq(3) demands.
    pointer(unsafe { create(wanted) }).cast()
}

/// The operation of `verbs_context`.
pub(super) unsafe extern "C" fn create_cq_ex(
    context: *mut ffi::ibv_context,
    attr: *mut ffi::ibv_cq_init_attr_ex,
) -> *mut ffi::ibv_cq_ex {
    // SAFETY: it points to a whole structure (ibv_create_cq_ex(3)).
    let attr = unsafe { attr.read() };
    pointer(check(&attr).and_then(|()| {
        let ffi::ibv_cq_init_attr_ex { cqe: entries, cq_context, channel, .. } = attr;
        let (vector, fields) = (attr.comp_vector, attr.wc_flags);
        let wanted = Wanted { context, entries, cq_context, channel, vector, fields };
        // SAFETY: as ibv_create_cq_ex(3) demands.
        unsafe { create(wanted) }
    }))
}

/// Whether a queue can have these properties and fields. Its locks it has in any case.
fn check(attr: &ffi::ibv_cq_init_attr_ex) -> Result<()> {
    let flags = match attr.comp_mask & ffi::IBV_CQ_INIT_ATTR_MASK_FLAGS {
        0 => 0,
        _ => attr.flags,
    };
    let known = attr.comp_mask & !ffi::IBV_CQ_INIT_ATTR_MASK_FLAGS == 0
        && flags & !ffi::IBV_CREATE_CQ_ATTR_SINGLE_THREADED == 0
        && attr.wc_flags & !FIELDS == 0;
    if known {
        Ok(())
    } else {
        Err(Errno::OPNOTSUPP)
    }
}

/// # Safety
///
/// The device is open, and the channel null or alive.
unsafe fn create(wanted: Wanted) -> Result<*mut ffi::ibv_cq_ex> {
    let Wanted { context, entries, cq_context, channel, vector, fields } = wanted;
    check_entries(entries)?;
    if vector >= limits::COMP_VECTORS {
        return Err(Errno::INVAL);
    }
    // SAFETY: by the caller's promise.
    let shared = unsafe { shared(context) };
    let used = match channel.is_null() {
        true => None,
        // SAFETY: by the caller's promise.
        false => Some(unsafe { object::<CompChannel>(channel) }.used.clone()),
    };
    let place = Place::<Cq>::new();
    let token = place.token();
    let owner = CqOwner {
        token,
        channel: used.as_ref().map(|used| used.channel.clone()),
        async_queue: shared.async_queue.clone(),
    };
    let id = shared.device.create_cq(entries, owner)?;
    let mut raw = ffi::ibv_cq_ex {
        context,
        channel,
        cq_context,
        handle: id.0 as u32,
        cqe: entries as c_int,
        ..Default::default()
    };
    poll::set_functions(&mut raw, fields);
    Ok(place.fill(Cq {
        raw: UnsafeCell::new(raw),
        queue: Arc::new(Queue { id, shared: shared.clone() }),
        channel: used,
        token,
        comp_events: Acknowledged::default(),
        async_events: Acknowledged::default(),
        polling: SpinLock::default(),
        current: UnsafeCell::new(None),
        efa: Box::new(EfaCq { raw: UnsafeCell::default(), cq: by_token::<Cq>(token) }),
    }))
}

/// Lets completions have these fields of EFA.
///
/// # Safety
///
/// The queue is alive, and nobody else has it.
pub(super) unsafe fn add_efa_fields(cq: *mut ffi::ibv_cq_ex, fields: u64) {
    // SAFETY: by the caller's promise.
    let raw = unsafe { object::<Cq>(cq) }.efa.raw.get();
    if fields & u64::from(ffi::EFADV_WC_EX_WITH_SGID) != 0 {
        // SAFETY: it belongs to the queue, which nobody else has.
        unsafe { (*raw).wc_read_sgid = Some(wc_read_sgid) };
    }
}

pub(super) unsafe extern "C" fn efa_from_cq_ex(cq: *mut ffi::ibv_cq_ex) -> *mut ffi::efadv_cq {
    // SAFETY: the queue is alive (efadv_create_cq(3)).
    (&raw const *unsafe { object::<Cq>(cq) }.efa).cast_mut().cast()
}

unsafe extern "C" fn wc_read_sgid(efa: *mut ffi::efadv_cq, to: *mut ffi::ibv_gid) -> c_int {
    // SAFETY: it was given away by `efa_from_cq_ex`, and its queue is alive (efadv_create_cq(3)).
    let cq = unsafe { (*efa.cast::<EfaCq>()).cq };
    // SAFETY: a poll is open, and there is room for a GID (efadv_create_cq(3)).
    unsafe { poll::read_sgid(cq, to) }
}

fn check_entries(entries: u32) -> Result<()> {
    if (1..=limits::MAX_CQE).contains(&entries) {
        Ok(())
    } else {
        Err(Errno::INVAL)
    }
}

pub(super) unsafe extern "C" fn resize_cq(cq: *mut ffi::ibv_cq, entries: c_int) -> c_int {
    // SAFETY: the queue is alive (ibv_resize_cq(3)).
    let cq = unsafe { object::<Cq>(cq.cast()) };
    let Queue { id, shared } = &*cq.queue;
    let result =
        check_entries(entries as u32).and_then(|()| shared.device.resize_cq(*id, entries as u32));
    if result.is_ok() {
        // SAFETY: the queue is alive, and its size is written here only; that nobody reads it meanwhile is up to the
        // program, as with libibverbs.
        unsafe { (*cq.raw()).cqe = entries };
    }
    code(result)
}

/// The operation of `ibv_context`.
pub(super) unsafe extern "C" fn req_notify_cq(
    cq: *mut ffi::ibv_cq,
    solicited_only: c_int,
) -> c_int {
    // SAFETY: the queue is alive (ibv_req_notify_cq(3)).
    let Queue { id, shared } = &*unsafe { object::<Cq>(cq.cast()) }.queue;
    code(shared.device.arm_cq(*id, solicited_only != 0))
}

pub(super) unsafe extern "C" fn destroy_cq(raw: *mut ffi::ibv_cq) -> c_int {
    // SAFETY: the queue is alive (ibv_destroy_cq(3)).
    let cq = unsafe { object::<Cq>(raw.cast()) };
    let result = destroy(cq);
    if result.is_ok() {
        // SAFETY: the queue is not used any more (ibv_destroy_cq(3)), nor does anything refer to it.
        drop(unsafe { reclaim::<Cq>(raw.cast()) });
    }
    code(result)
}

fn destroy(cq: &Cq) -> Result<()> {
    if Arc::strong_count(&cq.queue) > 1 {
        return Err(Errno::BUSY);
    }
    let Queue { id, shared } = &*cq.queue;
    unless_dead(shared.device.destroy_cq(*id))?;
    if !shared.device.is_dead() {
        if let Some(used) = &cq.channel {
            cq.comp_events.wait(used.channel.take_back(cq.token));
        }
        cq.async_events.wait(shared.async_queue.take_back(cq.token));
    }
    Ok(())
}
