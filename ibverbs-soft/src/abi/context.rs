//! Opened devices.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::mem::offset_of;
use std::sync::Arc;

use ibverbs_sys as ffi;

use super::ah::Handles;
use super::object::{object, reclaim, unless_dead, Object, Place};
use super::{code, cq, device, mw, pointer, poll, port, qp, query, recv, send, srq};
use crate::device::{limits, AsyncQueue, Device, Result};

/// What `abi_compat` is in a context that lies in a `verbs_context`.
const ABI_IS_EXTENDED: *mut c_void = usize::MAX as *mut c_void;

/// A context, which C knows by the `ibv_context` at the end of its structure.
#[repr(C)]
struct Context {
    raw: UnsafeCell<ffi::verbs_context>,
    shared: Arc<Shared>,
}

// SAFETY: `repr(C)`, and the structure for C comes first, in an `UnsafeCell`. What is shared is `Sync`, and the pointer to
// it is never written.
unsafe impl Object for Context {
    type Raw = ffi::verbs_context;
}

/// What all objects of a context share.
pub(super) struct Shared {
    pub(super) device: Arc<Device>,
    pub(super) async_queue: Arc<AsyncQueue>,
    /// The device's place in the list.
    pub(super) number: usize,
    pub(super) handles: Handles,
}

/// The structure around a context.
fn around(context: *mut ffi::ibv_context) -> *mut ffi::verbs_context {
    context.wrapping_byte_sub(offset_of!(ffi::verbs_context, context)).cast()
}

/// What the objects of a context share.
///
/// # Safety
///
/// It is the context of a device that is open, and stays so for as long as the reference is used.
pub(super) unsafe fn shared<'a>(context: *mut ffi::ibv_context) -> &'a Arc<Shared> {
    // SAFETY: `open_device` made the structure around it, as a `Context`; by the caller's promise it is alive.
    &unsafe { object::<Context>(around(context)) }.shared
}

pub(super) unsafe extern "C" fn open_device(device: *mut ffi::ibv_device) -> *mut ffi::ibv_context {
    // SAFETY: it is one of the list (ibv_open_device(3)).
    pointer(unsafe { open(device) })
}

/// # Safety
///
/// It is a device of the list.
unsafe fn open(listed: *mut ffi::ibv_device) -> Result<*mut ffi::ibv_context> {
    // SAFETY: by the caller's promise.
    let (number, device) = unsafe { device::open(listed) }?;
    let async_queue = Arc::new(AsyncQueue::new()?);
    device.watch(&async_queue)?;
    let mut raw = ffi::verbs_context {
        query_port: Some(port::query_port),
        query_device_ex: Some(query::query_device_ex),
        query_rt_values: Some(query::query_rt_values),
        create_cq_ex: Some(cq::create_cq_ex),
        create_srq_ex: Some(srq::create_srq_ex),
        create_qp_ex: Some(qp::create_qp_ex),
        sz: size_of::<ffi::verbs_context>(),
        ..Default::default()
    };
    raw.context.device = listed;
    raw.context.ops = ffi::ibv_context_ops {
        poll_cq: Some(poll::poll_cq),
        req_notify_cq: Some(cq::req_notify_cq),
        post_send: Some(send::post_send),
        post_recv: Some(recv::post_recv),
        post_srq_recv: Some(recv::post_srq_recv),
        alloc_mw: Some(mw::alloc_mw),
        bind_mw: Some(mw::bind_mw),
        dealloc_mw: Some(mw::dealloc_mw),
        ..Default::default()
    };
    raw.context.cmd_fd = -1;
    raw.context.async_fd = async_queue.as_raw_fd();
    raw.context.num_comp_vectors = limits::COMP_VECTORS as c_int;
    raw.context.abi_compat = ABI_IS_EXTENDED;
    let shared = Shared { device, async_queue, number, handles: Handles::default() };
    let context = Context { raw: UnsafeCell::new(raw), shared: Arc::new(shared) };
    let around = Place::new().fill(context);
    Ok(around.wrapping_byte_add(offset_of!(ffi::verbs_context, context)).cast())
}

/// Objects may be left, as with the kernel, which takes them away. What is left here is not used any more, and stays where it is;
/// but queue pairs are destroyed, so that no peer reaches memory by them, which the program may free now.
pub(super) unsafe extern "C" fn close_device(context: *mut ffi::ibv_context) -> c_int {
    // SAFETY: the context is not used any more (ibv_close_device(3)).
    let context = unsafe { reclaim::<Context>(around(context)) };
    let Shared { device, async_queue, .. } = &*context.shared;
    code(unless_dead(device.destroy_qps_of(async_queue)))
}
