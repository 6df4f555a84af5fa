//! Buffers that come from the device: ordinary memory, in whole pages.

use std::alloc::{alloc_zeroed, dealloc, Layout};
use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;

use ibverbs_sys as ffi;
use rustix::io::Errno;

use super::mr::{reg_mr, PAGE};
use super::object::{object, reclaim, Object, Place};
use super::pd::{domain, Domain};
use super::{minus_one, pointer};
use crate::device::Result;

/// A buffer, of which C knows the memory and this.
#[repr(C)]
struct Buf {
    /// Of this C knows nothing but its address.
    raw: UnsafeCell<MaybeUninit<ffi::ibv_buf>>,
    addr: NonNull<u8>,
    layout: Layout,
    domain: Arc<Domain>,
}

// SAFETY: `repr(C)`, and the structure for C comes first, in an `UnsafeCell`. The rest is never written, and nothing is done
// with the address before the end.
unsafe impl Object for Buf {
    type Raw = ffi::ibv_buf;
}

impl Drop for Buf {
    fn drop(&mut self) {
        // SAFETY: the memory was allocated with this layout.
        unsafe { dealloc(self.addr.as_ptr(), self.layout) };
    }
}

pub(super) unsafe extern "C" fn alloc_buf(
    pd: *mut ffi::ibv_pd,
    size: usize,
    to: *mut *mut ffi::ibv_buf,
) -> *mut c_void {
    // SAFETY: the domain is alive (ibv_alloc_buf(3)).
    let buf = alloc(unsafe { domain(pd) }, size);
    pointer(buf.map(|buf| {
        let addr = buf.addr.as_ptr().cast();
        // SAFETY: it points to a pointer (ibv_alloc_buf(3)).
        unsafe { to.write(Place::new().fill(buf)) };
        addr
    }))
}

fn alloc(domain: &Arc<Domain>, size: usize) -> Result<Buf> {
    if size == 0 {
        return Err(Errno::INVAL);
    }
    let layout =
        Layout::from_size_align(size, PAGE as usize).map_err(|_| Errno::NOMEM)?.pad_to_align();
    // SAFETY: the size is not 0.
    let addr = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(Errno::NOMEM)?;
    let raw = UnsafeCell::new(MaybeUninit::uninit());
    Ok(Buf { raw, addr, layout, domain: domain.clone() })
}

pub(super) unsafe extern "C" fn free_buf(buf: *mut ffi::ibv_buf) {
    // SAFETY: the buffer is not used any more (ibv_free_buf(3)).
    drop(unsafe { reclaim::<Buf>(buf) });
}

/// Registers a part of a buffer, by the domain that it came from.
pub(super) unsafe extern "C" fn reg_buf_mr(
    pd: *mut ffi::ibv_pd,
    buf: *mut ffi::ibv_buf,
    addr: *mut c_void,
    length: usize,
    access: c_int,
) -> *mut ffi::ibv_mr {
    // SAFETY: the buffer is alive (ibv_reg_buf_mr(3)).
    let Buf { addr: start, layout, domain: from, .. } = unsafe { object::<Buf>(buf) };
    // SAFETY: the domain is alive (ibv_reg_buf_mr(3)).
    let is_anothers = !Arc::ptr_eq(from, unsafe { domain(pd) });
    let offset = (addr as usize).checked_sub(start.as_ptr() as usize);
    let end = offset.and_then(|offset| offset.checked_add(length));
    if is_anothers || end.is_none_or(|end| end > layout.size()) {
        return pointer(Err(Errno::INVAL));
    }
    // SAFETY: the domain is alive, and the memory stays for as long as the buffer, which outlives the region.
    unsafe { reg_mr(pd, addr, length, access) }
}

/// No buffer is one of a dma-buf.
pub(super) unsafe extern "C" fn export_buf_dmabuf_fd(_buf: *mut ffi::ibv_buf) -> c_int {
    minus_one(Err(Errno::NODATA))
}
