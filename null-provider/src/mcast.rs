//! Multicast groups of queue pairs, as Linux keeps them.

use std::ffi::c_int;

use ibverbs_sys as ffi;

use crate::controls::{lock, Guard};
use crate::objects::Group;
use crate::record::{Kind, Verb};

/// The state of the provider and the group, if the queue pair may have one.
///
/// # Safety
///
/// `gid` points to a GID.
unsafe fn begin(
    verb: Verb,
    qp: *mut ffi::ibv_qp,
    gid: *const ffi::ibv_gid,
    lid: u16,
) -> Result<(Guard, Group), c_int> {
    let mut state = lock();
    let address = qp as usize;
    state.call(verb, address);
    if !state.expect_live(verb, address, Kind::Qp) {
        return Err(libc::EINVAL);
    }
    state.failure(verb)?;
    // SAFETY: the caller's promise.
    let gid = unsafe { gid.read() };
    // SAFETY: every bit pattern is valid for the union's bytes.
    let group = Group { gid: unsafe { gid.raw }, lid };
    let datagrams = state.qp(address).is_some_and(|qp| qp.qp_type == ffi::IBV_QPT_UD);
    if !datagrams {
        state.violation(format!("{verb:?}: the queue pair is not one of datagrams"));
        return Err(libc::EINVAL);
    }
    Ok((state, group))
}

pub(crate) unsafe extern "C" fn attach_mcast(
    qp: *mut ffi::ibv_qp,
    gid: *const ffi::ibv_gid,
    lid: u16,
) -> c_int {
    // SAFETY: it points to a GID (ibv_attach_mcast(3)).
    let (mut state, group) = match unsafe { begin(Verb::AttachMcast, qp, gid, lid) } {
        Ok(begun) => begun,
        Err(code) => return code,
    };
    let Some(data) = state.qp(qp as usize) else { return libc::EINVAL };
    // A second time is no error, and changes nothing.
    if !data.groups.contains(&group) {
        data.groups.push(group);
    }
    0
}

pub(crate) unsafe extern "C" fn detach_mcast(
    qp: *mut ffi::ibv_qp,
    gid: *const ffi::ibv_gid,
    lid: u16,
) -> c_int {
    // SAFETY: it points to a GID (ibv_attach_mcast(3)).
    let (mut state, group) = match unsafe { begin(Verb::DetachMcast, qp, gid, lid) } {
        Ok(begun) => begun,
        Err(code) => return code,
    };
    let Some(data) = state.qp(qp as usize) else { return libc::EINVAL };
    match data.groups.iter().position(|&other| other == group) {
        Some(place) => {
            data.groups.swap_remove(place);
            0
        }
        None => libc::EINVAL,
    }
}
