//! Options.

use std::ffi::{c_int, c_void};

use ibverbs_sys as ffi;
use rustix::io::Errno;

use super::id::{id, Id, Stage};
use super::ports::Sharing;
use crate::abi::minus_one;
use crate::device::Result;

pub(super) unsafe extern "C" fn set_option(
    raw: *mut ffi::rdma_cm_id,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: usize,
) -> c_int {
    // SAFETY: the identifier is alive (rdma_set_option(3)).
    let id = unsafe { id(raw) };
    if level as u32 != ffi::RDMA_OPTION_ID {
        return minus_one(Err(Errno::NOSYS));
    }
    let value = match len {
        // SAFETY: there are as many bytes (rdma_set_option(3)).
        1 => unsafe { value.cast::<u8>().read() }.into(),
        // SAFETY: as above; they need not be aligned.
        4 => unsafe { value.cast::<c_int>().read_unaligned() },
        _ => return minus_one(Err(Errno::INVAL)),
    };
    minus_one(set(id, name as u32, value, len))
}

fn set(id: &Id, name: u32, value: c_int, len: usize) -> Result<()> {
    let is_byte = matches!(name, ffi::RDMA_OPTION_ID_TOS | ffi::RDMA_OPTION_ID_ACK_TIMEOUT);
    if is_byte != (len == 1) {
        return Err(Errno::INVAL);
    }
    let mut state = id.state();
    let stage = state.stage;
    match name {
        ffi::RDMA_OPTION_ID_TOS => state.options.type_of_service = value as u8,
        ffi::RDMA_OPTION_ID_ACK_TIMEOUT if id.is_datagram() || value > 31 => {
            return Err(Errno::INVAL);
        }
        ffi::RDMA_OPTION_ID_ACK_TIMEOUT => state.options.ack_timeout = Some(value as u8),
        ffi::RDMA_OPTION_ID_REUSEADDR => {
            if stage != Stage::Idle && (value == 0 || stage == Stage::Listening) {
                return Err(Errno::INVAL);
            }
            state.options.reuse = value != 0;
        }
        ffi::RDMA_OPTION_ID_AFONLY => {
            if !matches!(stage, Stage::Idle | Stage::Bound) {
                return Err(Errno::INVAL);
            }
            state.options.family_only = Some(value != 0);
        }
        _ => return Err(Errno::NOSYS),
    }
    if let (Some(lease), Some(src)) = (&state.lease, state.src) {
        let family_only = state.options.family_only.unwrap_or(src.is_ipv4());
        lease.set_sharing(Sharing { reuse: state.options.reuse, family_only });
    }
    Ok(())
}

pub(super) unsafe extern "C" fn set_local_ece(
    raw: *mut ffi::rdma_cm_id,
    ece: *mut ffi::ibv_ece,
) -> c_int {
    if raw.is_null() || ece.is_null() {
        return minus_one(Err(Errno::INVAL));
    }
    // SAFETY: not null, and alive (rdma_set_local_ece(3)).
    let id = unsafe { id(raw) };
    // SAFETY: not null, and whole (rdma_set_local_ece(3)).
    let ece = unsafe { ece.read() };
    if !id.qp().is_null() || ece.vendor_id == 0 || ece.comp_mask != 0 {
        return minus_one(Err(Errno::INVAL));
    }
    id.state().local_ece = (ece.vendor_id, ece.options);
    0
}

pub(super) unsafe extern "C" fn get_remote_ece(
    raw: *mut ffi::rdma_cm_id,
    to: *mut ffi::ibv_ece,
) -> c_int {
    if raw.is_null() || to.is_null() {
        return minus_one(Err(Errno::INVAL));
    }
    // SAFETY: not null, and alive (rdma_get_remote_ece(3)).
    let id = unsafe { id(raw) };
    if !id.qp().is_null() {
        return minus_one(Err(Errno::INVAL));
    }
    let (vendor_id, options) = id.state().remote_ece;
    // SAFETY: not null, and there is room (rdma_get_remote_ece(3)).
    unsafe { to.write(ffi::ibv_ece { vendor_id, options, comp_mask: 0 }) };
    0
}
