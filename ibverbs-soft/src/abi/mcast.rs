//! Multicast groups.

use std::ffi::c_int;
use std::net::IpAddr;

use ibverbs_sys as ffi;
use rustix::io::Errno;

use super::code;
use super::object::object;
use super::qp::Qp;
use super::route::address;
use crate::device::Result;
use crate::wire::Service;

/// A group of Ethernet has no local identifier: any is taken, as in the kernel.
pub(super) unsafe extern "C" fn attach_mcast(
    qp: *mut ffi::ibv_qp,
    gid: *const ffi::ibv_gid,
    _lid: u16,
) -> c_int {
    // SAFETY: the queue pair is alive (ibv_attach_mcast(3)).
    let qp = unsafe { object::<Qp>(qp.cast()) };
    // SAFETY: it points to a GID (ibv_attach_mcast(3)).
    let group = unsafe { group(qp, gid) };
    code(group.and_then(|group| qp.device().attach(qp.number, group)))
}

pub(super) unsafe extern "C" fn detach_mcast(
    qp: *mut ffi::ibv_qp,
    gid: *const ffi::ibv_gid,
    _lid: u16,
) -> c_int {
    // SAFETY: the queue pair is alive (ibv_detach_mcast(3)).
    let qp = unsafe { object::<Qp>(qp.cast()) };
    // SAFETY: it points to a GID (ibv_detach_mcast(3)).
    let group = unsafe { group(qp, gid) };
    code(group.and_then(|group| qp.device().detach(qp.number, group)))
}

/// The group that a GID is, if the queue pair can be in one.
///
/// # Safety
///
/// It points to a GID.
unsafe fn group(qp: &Qp, gid: *const ffi::ibv_gid) -> Result<IpAddr> {
    // SAFETY: by the caller's promise.
    let gid = unsafe { gid.read() };
    // SAFETY: every bit pattern is valid for the union's bytes.
    let group = address(&unsafe { gid.raw });
    if qp.service == Service::Ud && group.is_multicast() {
        Ok(group)
    } else {
        Err(Errno::INVAL)
    }
}
