//! What libefa has, for devices that are asked to be like EFA's: queue pairs of scalable reliable datagrams, and queries.

use std::ffi::c_int;

use ibverbs_sys as ffi;
use rustix::io::Errno;

use super::context::shared;
use super::pd::context_of;
use super::query::write_prefix;
use super::{ah, code, cq, pointer, qp};
use crate::device::{is_efa, limits, Result};
use crate::transport::SRD_MAX_RDMA;
use crate::wire::Service;

/// What is not here, the process's table answers with `EOPNOTSUPP`.
pub(super) static EFA: ffi::Efa = ffi::Efa {
    efadv_query_device: Some(query_device),
    efadv_get_max_sq_depth: Some(get_max_sq_depth),
    efadv_get_max_rq_depth: Some(get_max_rq_depth),
    efadv_query_ah: Some(query_ah),
    efadv_query_mr: Some(query_mr),
    efadv_create_driver_qp: Some(create_driver_qp),
    efadv_create_qp_ex: Some(create_qp_ex),
    efadv_create_cq: Some(create_cq),
    efadv_cq_from_ibv_cq_ex: Some(cq::efa_from_cq_ex),
    ..ffi::Efa::EMPTY
};

/// What the devices can do of what EFA's can.
const CAPS: u32 = ffi::EFADV_DEVICE_ATTR_CAPS_RDMA_READ
    | ffi::EFADV_DEVICE_ATTR_CAPS_RNR_RETRY
    | ffi::EFADV_DEVICE_ATTR_CAPS_CQ_WITH_SGID
    | ffi::EFADV_DEVICE_ATTR_CAPS_RDMA_WRITE;

/// The sizes of queues, about those of an adapter, so that what fits here fits there.
const MAX_SQ_WR: u32 = 4096;
const MAX_RQ_WR: u32 = 16_384;
const MAX_SQ_SGE: u16 = 2;
const MAX_RQ_SGE: u16 = 3;
/// How many bytes fit into a request that takes one place in the send queue, and into one that takes two.
const INLINE: u16 = 32;
const INLINE_WIDE: u16 = 80;

/// Checks that this is a device that is to be like EFA's, and that the caller knows as much of a structure as all do.
fn check(len: u32, least: usize) -> Result<()> {
    if !is_efa() {
        Err(Errno::OPNOTSUPP)
    } else if (len as usize) < least {
        Err(Errno::INVAL)
    } else {
        Ok(())
    }
}

/// A depth, or what is wrong as a number below zero.
fn depth(result: Result<u32>) -> c_int {
    match result {
        Ok(depth) => depth as c_int,
        Err(errno) => -errno.raw_os_error(),
    }
}

/// Writes an answer of which the caller knows `len` bytes.
///
/// # Safety
///
/// There is room for them.
unsafe fn answer<T: Copy>(from: &T, to: *mut T, len: u32) {
    let known = size_of::<T>();
    // SAFETY: by the caller's promise.
    unsafe { write_prefix(from, to, len as usize) };
    if let Some(rest) = (len as usize).checked_sub(known) {
        // SAFETY: as above: what this library does not know is zero.
        unsafe { to.cast::<u8>().wrapping_add(known).write_bytes(0, rest) };
    }
}

/// Reads what a caller asks for, of which he knows `len` bytes.
///
/// # Safety
///
/// There are so many bytes. Any are valid for a `T`.
unsafe fn read_prefix<T: Copy + Default>(from: *const T, len: u32) -> T {
    let mut to = T::default();
    let len = size_of::<T>().min(len as usize);
    // SAFETY: so many bytes are there, by the caller's promise, and fit into a `T`.
    unsafe { std::ptr::copy_nonoverlapping(from.cast::<u8>(), (&raw mut to).cast(), len) };
    to
}

unsafe extern "C" fn query_device(
    context: *mut ffi::ibv_context,
    attr: *mut ffi::efadv_device_attr,
    len: u32,
) -> c_int {
    let least = std::mem::offset_of!(ffi::efadv_device_attr, device_caps);
    if let Err(errno) = check(len, least) {
        return errno.raw_os_error();
    }
    // SAFETY: the device is open (efadv_query_device(3)).
    if unsafe { shared(context) }.device.is_dead() {
        return libc::EIO;
    }
    let attributes = ffi::efadv_device_attr {
        max_sq_wr: MAX_SQ_WR,
        max_rq_wr: MAX_RQ_WR,
        max_sq_sge: MAX_SQ_SGE,
        max_rq_sge: MAX_RQ_SGE,
        inline_buf_size: INLINE,
        inline_buf_size_ex: INLINE_WIDE,
        device_caps: CAPS,
        max_rdma_size: SRD_MAX_RDMA,
        ..Default::default()
    };
    // SAFETY: there is room for `len` bytes (efadv_query_device(3)).
    unsafe { answer(&attributes, attr, len) };
    0
}

/// How deep a send queue can be.
fn max_send_wr(inline: u32, inline_write: bool) -> u32 {
    if inline > u32::from(INLINE) || inline_write {
        MAX_SQ_WR / 2
    } else {
        MAX_SQ_WR
    }
}

unsafe extern "C" fn get_max_sq_depth(
    _context: *mut ffi::ibv_context,
    attr: *mut ffi::efadv_sq_depth_attr,
    len: u32,
) -> c_int {
    depth(check(len, size_of::<ffi::efadv_sq_depth_attr>()).and_then(|()| {
        // SAFETY: it points to `len` bytes (efadv_get_max_sq_depth(3)).
        let asked = unsafe { read_prefix(attr, len) };
        let fits = asked.comp_mask == 0
            && asked.max_send_sge <= u32::from(MAX_SQ_SGE)
            && asked.max_rdma_sge <= limits::MAX_SRD_RDMA_SGE
            && asked.max_inline_data <= u32::from(INLINE_WIDE);
        let inline_write = asked.flags & ffi::EFADV_SQ_DEPTH_ATTR_INLINE_WRITE != 0;
        fits.then(|| max_send_wr(asked.max_inline_data, inline_write)).ok_or(Errno::INVAL)
    }))
}

unsafe extern "C" fn get_max_rq_depth(
    _context: *mut ffi::ibv_context,
    attr: *mut ffi::efadv_rq_depth_attr,
    len: u32,
) -> c_int {
    let least = std::mem::offset_of!(ffi::efadv_rq_depth_attr, max_recv_sge) + size_of::<u32>();
    depth(check(len, least).and_then(|()| {
        // SAFETY: it points to `len` bytes (efadv_get_max_rq_depth(3)).
        let asked = unsafe { read_prefix(attr, len) };
        let fits = asked.comp_mask == 0 && asked.max_recv_sge <= u32::from(MAX_RQ_SGE);
        MAX_RQ_WR.checked_div(asked.max_recv_sge).filter(|_| fits).ok_or(Errno::INVAL)
    }))
}

unsafe extern "C" fn query_ah(
    ah: *mut ffi::ibv_ah,
    attr: *mut ffi::efadv_ah_attr,
    len: u32,
) -> c_int {
    let least = std::mem::offset_of!(ffi::efadv_ah_attr, reserved);
    code(check(len, least).map(|()| {
        // SAFETY: the handle is alive (efadv_query_ah(3)).
        let ahn = unsafe { ah::number_of(ah) };
        let attributes = ffi::efadv_ah_attr { ahn, ..Default::default() };
        // SAFETY: there is room for `len` bytes (efadv_query_ah(3)).
        unsafe { answer(&attributes, attr, len) };
    }))
}

/// There are no interconnects here.
unsafe extern "C" fn query_mr(
    _mr: *mut ffi::ibv_mr,
    attr: *mut ffi::efadv_mr_attr,
    len: u32,
) -> c_int {
    let least = std::mem::offset_of!(ffi::efadv_mr_attr, rdma_recv_ic_id) + size_of::<u16>();
    code(check(len, least).map(|()| {
        // SAFETY: there is room for `len` bytes (efadv_query_mr(3)).
        unsafe { answer(&ffi::efadv_mr_attr::default(), attr, len) };
    }))
}

/// Whether there are queue pairs of this kind and size.
fn check_qp(srd: &ffi::efadv_qp_init_attr, cap: &ffi::ibv_qp_cap) -> Result<qp::Kind> {
    let flags = u32::from(srd.flags);
    if srd.driver_qp_type != ffi::EFADV_QP_DRIVER_TYPE_SRD
        || flags & !ffi::EFADV_QP_FLAGS_INLINE_WRITE != 0
        || srd.wr_flags != 0
    {
        return Err(Errno::OPNOTSUPP);
    }
    let inline_write = flags & ffi::EFADV_QP_FLAGS_INLINE_WRITE != 0;
    let fits = cap.max_send_sge <= u32::from(MAX_SQ_SGE)
        && cap.max_recv_sge <= u32::from(MAX_RQ_SGE)
        && cap.max_inline_data <= u32::from(INLINE_WIDE)
        && cap.max_send_wr <= max_send_wr(cap.max_inline_data, inline_write)
        && cap.max_recv_wr <= MAX_RQ_WR / cap.max_recv_sge.max(1);
    fits.then_some(qp::Kind { service: Service::Srd, inline_write }).ok_or(Errno::INVAL)
}

unsafe extern "C" fn create_driver_qp(
    pd: *mut ffi::ibv_pd,
    attr: *mut ffi::ibv_qp_init_attr,
    driver_qp_type: u32,
) -> *mut ffi::ibv_qp {
    // SAFETY: it points to a whole structure (efadv_create_driver_qp(3)).
    let mut init = unsafe { attr.read() };
    let srd = ffi::efadv_qp_init_attr { driver_qp_type, ..Default::default() };
    let kind = check(0, 0).and_then(|()| match init.qp_type {
        ffi::IBV_QPT_DRIVER => check_qp(&srd, &init.cap),
        _ => Err(Errno::INVAL),
    });
    pointer(kind.and_then(|kind| {
        // SAFETY: as efadv_create_driver_qp(3) demands.
        unsafe { qp::create(pd, &mut init, kind, false) }
    }))
}

unsafe extern "C" fn create_qp_ex(
    context: *mut ffi::ibv_context,
    attr: *mut ffi::ibv_qp_init_attr_ex,
    srd: *mut ffi::efadv_qp_init_attr,
    len: u32,
) -> *mut ffi::ibv_qp {
    // SAFETY: it points to a whole structure (efadv_create_qp_ex(3)).
    let asked = unsafe { attr.read() };
    let least = std::mem::offset_of!(ffi::efadv_qp_init_attr, flags);
    pointer(check(len, least).and_then(|()| {
        // SAFETY: it points to `len` bytes (efadv_create_qp_ex(3)).
        let srd = unsafe { read_prefix(srd, len) };
        if asked.qp_type != ffi::IBV_QPT_DRIVER || srd.comp_mask != 0 || srd.reserved != 0 {
            return Err(Errno::INVAL);
        }
        let kind = check_qp(&srd, &asked.cap)?;
        let extended = qp::check(&asked, Service::Srd)?;
        // SAFETY: the mask says that there is a domain, which is alive (efadv_create_qp_ex(3)).
        if unsafe { context_of(asked.pd) } != context {
            return Err(Errno::INVAL);
        }
        // SAFETY: as efadv_create_qp_ex(3) demands.
        unsafe { qp::create(asked.pd, &mut qp::plain(&asked), kind, extended) }
    }))
}

unsafe extern "C" fn create_cq(
    context: *mut ffi::ibv_context,
    attr: *mut ffi::ibv_cq_init_attr_ex,
    efa: *mut ffi::efadv_cq_init_attr,
    len: u32,
) -> *mut ffi::ibv_cq_ex {
    let least = std::mem::offset_of!(ffi::efadv_cq_init_attr, flags);
    let fields = check(len, least).and_then(|()| {
        // SAFETY: it points to `len` bytes (efadv_create_cq(3)).
        let efa = unsafe { read_prefix(efa, len) };
        let known = efa.wc_flags & !u64::from(ffi::EFADV_WC_EX_WITH_SGID) == 0 && efa.flags == 0;
        match (known, efa.comp_mask) {
            (true, 0) => Ok(efa.wc_flags),
            (false, 0) => Err(Errno::OPNOTSUPP),
            _ => Err(Errno::INVAL),
        }
    });
    pointer(fields.and_then(|fields| {
        // SAFETY: as efadv_create_cq(3) demands.
        let created = unsafe { cq::create_cq_ex(context, attr) };
        if created.is_null() {
            return Err(super::errno());
        }
        // SAFETY: created just now, and nobody else has it.
        unsafe { cq::add_efa_fields(created, fields) };
        Ok(created)
    }))
}
