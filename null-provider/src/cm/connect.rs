//! Connections.

use std::ffi::{c_int, c_void};

use ibverbs_sys as ffi;

use super::call::{on_id, Access};
use super::kernel::CONSUMER_DEFINED;
use super::values::{bytes_of, conn_of, CmArgs, CmConn};
use crate::controls::State;
use crate::record::Verb;

/// The largest depth, which stands for as much as the device can do.
const MAX_DEPTH: u8 = u8::MAX;

/// Why requests are refused whose enhanced connection establishment the program does not want.
const VENDOR_OPTION_NOT_SUPPORTED: u8 = 35;

/// The limits of the device, if the parameters are within them. librdmacm looks at them without asking whether
/// there is a device.
fn limits(
    state: &mut State,
    verb: Verb,
    address: usize,
    conn: Option<&CmConn>,
) -> Result<(u8, u8), c_int> {
    let is_tcp = state.served(address)?.ps == ffi::RDMA_PS_TCP;
    let Some(conn) = conn else {
        // Allowed for identifiers with a queue pair, which are a violation.
        return Err(libc::EINVAL);
    };
    let (resources, depth) = (conn.responder_resources, conn.initiator_depth);
    if !is_tcp && resources != MAX_DEPTH && depth != MAX_DEPTH {
        return Ok((MAX_DEPTH, MAX_DEPTH));
    }
    let device = state.expect_device(verb, address).ok_or(libc::EFAULT)?;
    let device = &state.cm.devices[device];
    let limits = (device.max_responder_resources, device.max_initiator_depth);
    let exceeds = |asked: u8, limit: u8| asked != MAX_DEPTH && asked > limit;
    if is_tcp && (exceeds(resources, limits.0) || exceeds(depth, limits.1)) {
        return Err(libc::EINVAL);
    }
    Ok(limits)
}

/// The depth that is asked for, or else another.
fn depth_or(asked: u8, other: u8) -> u8 {
    if asked == MAX_DEPTH {
        other
    } else {
        asked
    }
}

pub(super) unsafe extern "C" fn connect(
    id: *mut ffi::rdma_cm_id,
    param: *mut ffi::rdma_conn_param,
) -> c_int {
    let address = id as usize;
    // SAFETY: it points to parameters and they to their private data (rdma_connect(3)).
    let conn = unsafe { conn_of(param) };
    on_id(Verb::Connect, id, Access::Write, CmArgs::Conn(conn.clone()), |state| {
        let limits = limits(state, Verb::Connect, address, conn.as_ref().map(|(conn, _)| conn))?;
        let (mut conn, private_data) = conn.ok_or(libc::EINVAL)?;
        conn.responder_resources = depth_or(conn.responder_resources, limits.0);
        conn.initiator_depth = depth_or(conn.initiator_depth, limits.1);
        state.send_request(address, conn, private_data)
    })
}

pub(super) unsafe extern "C" fn accept(
    id: *mut ffi::rdma_cm_id,
    param: *mut ffi::rdma_conn_param,
) -> c_int {
    let address = id as usize;
    // SAFETY: it points to parameters and they to their private data (rdma_accept(3)).
    let conn = unsafe { conn_of(param) };
    on_id(Verb::Accept, id, Access::Write, CmArgs::Conn(conn.clone()), |state| {
        if conn.is_none() {
            state.violation("Accept: null pointer, there are no parameters".to_owned());
            return Err(libc::EFAULT);
        }
        let limits = limits(state, Verb::Accept, address, conn.as_ref().map(|(conn, _)| conn))?;
        let (mut conn, private_data) = conn.ok_or(libc::EINVAL)?;
        let asked = state.served(address)?.conn;
        let resources = asked.responder_resources.min(limits.0);
        let depth = asked.initiator_depth.min(limits.1);
        conn.responder_resources = depth_or(conn.responder_resources, resources);
        conn.initiator_depth = depth_or(conn.initiator_depth, depth);
        state.send_reply(address, conn, private_data)
    })
}

/// Rejects a request; zero is no reason in particular.
///
/// # Safety
///
/// If `data` is not null, it points to `len` bytes.
unsafe fn reject_with(id: *mut ffi::rdma_cm_id, data: *const c_void, len: u8, reason: u8) -> c_int {
    // SAFETY: the caller's promise.
    let private_data = unsafe { bytes_of(data, len.into()) };
    let args = CmArgs::Reject { reason, private_data: private_data.clone() };
    on_id(Verb::Reject, id, Access::Read, args, |state| {
        let reason = if reason == 0 { CONSUMER_DEFINED } else { reason.into() };
        state.send_reject(id as usize, reason, private_data)
    })
}

pub(super) unsafe extern "C" fn reject(
    id: *mut ffi::rdma_cm_id,
    data: *const c_void,
    len: u8,
) -> c_int {
    // SAFETY: it points to so many bytes, or is null (rdma_reject(3)).
    unsafe { reject_with(id, data, len, 0) }
}

pub(super) unsafe extern "C" fn reject_ece(
    id: *mut ffi::rdma_cm_id,
    data: *const c_void,
    len: u8,
) -> c_int {
    // SAFETY: it points to so many bytes, or is null (rdma_reject(3)).
    unsafe { reject_with(id, data, len, VENDOR_OPTION_NOT_SUPPORTED) }
}

pub(super) unsafe extern "C" fn establish(id: *mut ffi::rdma_cm_id) -> c_int {
    on_id(Verb::Establish, id, Access::Read, CmArgs::None, |state| state.send_ready(id as usize))
}

pub(super) unsafe extern "C" fn disconnect(id: *mut ffi::rdma_cm_id) -> c_int {
    on_id(Verb::Disconnect, id, Access::Read, CmArgs::None, |state| {
        if state.cm_id(id as usize).is_some_and(|id| id.known_device.is_none()) {
            return Err(libc::EINVAL);
        }
        state.send_disconnect(id as usize)
    })
}
