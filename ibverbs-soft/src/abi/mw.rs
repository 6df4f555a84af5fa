//! Memory windows.

use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::ptr;
use std::sync::Arc;

use ibverbs_sys as ffi;
use rustix::io::Errno;

use super::mr::Mr;
use super::object::{object, reclaim, unless_dead, Object, Place};
use super::pd::{context_of, domain, Domain};
use super::qp::Qp;
use super::send::check;
use super::{code, pointer};
use crate::device::{Result, WindowType};
use crate::transport::{Bind, Payload, RemoteAccess, SendOperation, SendRequest};

/// A memory window.
#[repr(C)]
struct Mw {
    raw: UnsafeCell<ffi::ibv_mw>,
    /// The key that it had first: in all but the lowest 8 bits it is the one that it has.
    key: u32,
    kind: WindowType,
    domain: Arc<Domain>,
}

// SAFETY: `repr(C)`, and the structure for C comes first, in an `UnsafeCell`. The rest is `Sync` and never written.
unsafe impl Object for Mw {
    type Raw = ffi::ibv_mw;
}

/// The operation of `ibv_context`.
pub(super) unsafe extern "C" fn alloc_mw(
    pd: *mut ffi::ibv_pd,
    type_: ffi::ibv_mw_type,
) -> *mut ffi::ibv_mw {
    // SAFETY: the domain is alive (ibv_alloc_mw(3)).
    pointer(unsafe { alloc(pd, type_) })
}

/// # Safety
///
/// The domain is alive.
unsafe fn alloc(pd: *mut ffi::ibv_pd, type_: ffi::ibv_mw_type) -> Result<*mut ffi::ibv_mw> {
    // SAFETY: by the caller's promise.
    let domain = unsafe { domain(pd) };
    // SAFETY: by the caller's promise.
    let context = unsafe { context_of(pd) };
    let kind = match type_ {
        ffi::IBV_MW_TYPE_1 => WindowType::One,
        ffi::IBV_MW_TYPE_2 => WindowType::Two,
        _ => return Err(Errno::INVAL),
    };
    let rkey = domain.shared.device.alloc_window(domain.id, kind)?;
    let raw = UnsafeCell::new(ffi::ibv_mw { context, pd, rkey, handle: rkey >> 8, type_ });
    Ok(Place::new().fill(Mw { raw, key: rkey, kind, domain: domain.clone() }))
}

/// The operation of `ibv_context`.
pub(super) unsafe extern "C" fn dealloc_mw(mw: *mut ffi::ibv_mw) -> c_int {
    // SAFETY: the window is alive (ibv_dealloc_mw(3)).
    let Mw { key, domain, .. } = unsafe { object::<Mw>(mw) };
    let result = unless_dead(domain.shared.device.free_window(*key));
    if result.is_ok() {
        // SAFETY: the window is not used any more (ibv_dealloc_mw(3)).
        drop(unsafe { reclaim::<Mw>(mw) });
    }
    code(result)
}

/// The operation of `ibv_context`, for windows of type 1. The window has its new key when this returns.
pub(super) unsafe extern "C" fn bind_mw(
    qp: *mut ffi::ibv_qp,
    mw: *mut ffi::ibv_mw,
    bind: *mut ffi::ibv_mw_bind,
) -> c_int {
    // SAFETY: the queue pair is alive (ibv_bind_mw(3)).
    let qp = unsafe { object::<Qp>(qp.cast()) };
    // SAFETY: it points to a whole structure (ibv_bind_mw(3)).
    let bind = unsafe { bind.read() };
    // SAFETY: the window is alive, and its key is the program's to read and write (ibv_bind_mw(3)).
    let rkey = ffi::ibv_inc_rkey(unsafe { (*mw).rkey });
    // SAFETY: the window and the region are alive (ibv_bind_mw(3)).
    let result = unsafe { operation(qp, mw, WindowType::One, rkey, &bind.bind_info) };
    let result = result.and_then(|operation| post(qp, &bind, operation));
    if result.is_ok() {
        // SAFETY: as above.
        unsafe { (*mw).rkey = rkey };
    }
    code(result)
}

fn post(qp: &Qp, bind: &ffi::ibv_mw_bind, operation: SendOperation) -> Result<()> {
    const FLAGS: u32 = ffi::IBV_SEND_FENCE | ffi::IBV_SEND_SIGNALED;
    let flags = bind.send_flags;
    if flags & !FLAGS != 0 {
        return Err(Errno::INVAL);
    }
    let request = SendRequest {
        wr_id: bind.wr_id,
        operation,
        payload: Payload::Sges(Vec::new()),
        signaled: flags & ffi::IBV_SEND_SIGNALED != 0,
        solicited: false,
        fenced: flags & ffi::IBV_SEND_FENCE != 0,
    };
    check(qp, &request)?;
    qp.device().post_send_all(qp.number, vec![request])
}

/// The request that binds a window of type 2.
///
/// # Safety
///
/// The window is null or alive, and so is the region.
pub(super) unsafe fn of_type_2(
    qp: &Qp,
    mw: *mut ffi::ibv_mw,
    rkey: u32,
    info: &ffi::ibv_mw_bind_info,
) -> Result<SendOperation> {
    // SAFETY: by the caller's promise.
    unsafe { operation(qp, mw, WindowType::Two, rkey, info) }
}

/// The request that binds a window, which must be of this type. Whether it can be bound to that, the device says when the
/// request's turn has come.
///
/// # Safety
///
/// The window is null or alive, and so is the region.
unsafe fn operation(
    qp: &Qp,
    raw: *mut ffi::ibv_mw,
    kind: WindowType,
    rkey: u32,
    info: &ffi::ibv_mw_bind_info,
) -> Result<SendOperation> {
    const RIGHTS: u32 =
        ffi::IBV_ACCESS_REMOTE_WRITE | ffi::IBV_ACCESS_REMOTE_READ | ffi::IBV_ACCESS_REMOTE_ATOMIC;
    if raw.is_null() {
        return Err(Errno::INVAL);
    }
    // SAFETY: by the caller's promise.
    let mw = unsafe { object::<Mw>(raw) };
    // SAFETY: by the caller's promise; the field is the program's to read and write, and it posts.
    let old_rkey = unsafe { (*raw).rkey };
    let is_here = |domain: &Domain| ptr::eq(&*domain.shared.device, qp.device());
    let region = match info.mr.is_null() {
        true => None,
        // SAFETY: by the caller's promise.
        false => Some(unsafe { object::<Mr>(info.mr) }),
    };
    let here = is_here(&mw.domain) && region.is_none_or(|region| is_here(&region.domain));
    let flags = info.mw_access_flags;
    if !here || mw.kind != kind || flags & !RIGHTS != 0 {
        return Err(Errno::INVAL);
    }
    // What the program has written there may be the key of another window.
    if (old_rkey ^ mw.key) >> 8 != 0 {
        return Err(Errno::INVAL);
    }
    let has = |flag| flags & flag != 0;
    let access = RemoteAccess {
        write: has(ffi::IBV_ACCESS_REMOTE_WRITE),
        read: has(ffi::IBV_ACCESS_REMOTE_READ),
        atomic: has(ffi::IBV_ACCESS_REMOTE_ATOMIC),
    };
    let region = region.map(|region| region.key);
    let (addr, len) = (info.addr, info.length);
    Ok(SendOperation::Bind(Bind { old_rkey, rkey, region, addr, len, access }))
}
