//! What the one port of each device says, and its tables.

use std::ffi::c_int;
use std::mem::offset_of;

use ibverbs_sys as ffi;
use rustix::io::Errno;

use super::context::{shared, Shared};
use super::query::write_prefix;
use super::{code, minus_one};
use crate::device::{is_efa, Result};
use crate::transport::SRD_MAX_SEND;

/// Its number.
pub(super) const PORT: u8 = 1;

/// The one partition key: of the default partition, with full membership.
pub(super) const PKEY: u16 = 0xffff;

/// The longest message.
const MAX_MESSAGE: u32 = 1 << 31;

/// The number by which C calls a path MTU; the largest one that is not longer.
pub(super) fn mtu_number(bytes: u32) -> ffi::ibv_mtu {
    match bytes {
        4096.. => ffi::IBV_MTU_4096,
        2048.. => ffi::IBV_MTU_2048,
        1024.. => ffi::IBV_MTU_1024,
        512.. => ffi::IBV_MTU_512,
        _ => ffi::IBV_MTU_256,
    }
}

/// The bytes of a path MTU, if the number is one.
pub(super) fn mtu_bytes(number: ffi::ibv_mtu) -> Option<u32> {
    (ffi::IBV_MTU_256..=ffi::IBV_MTU_4096).contains(&number).then(|| 128 << number)
}

/// Whether there is a port of this number that can be asked.
fn check(shared: &Shared, port: u32) -> Result<()> {
    if shared.device.is_broken() {
        Err(Errno::IO)
    } else if port != u32::from(PORT) {
        Err(Errno::INVAL)
    } else {
        Ok(())
    }
}

fn attr(shared: &Shared, port: u8) -> Result<ffi::ibv_port_attr> {
    // InfiniBand's numbers, for which the headers have no names: 40 Gb/s, about what memory gives.
    const WIDTH_4X: u8 = 2;
    const SPEED_QDR: u8 = 4;
    const DISABLED: u8 = 3;
    const LINK_UP: u8 = 5;
    check(shared, port.into())?;
    let (state, phys_state) = match shared.device.is_port_up()? {
        true => (ffi::IBV_PORT_ACTIVE, LINK_UP),
        false => (ffi::IBV_PORT_DOWN, DISABLED),
    };
    Ok(ffi::ibv_port_attr {
        state,
        max_mtu: ffi::IBV_MTU_4096,
        active_mtu: mtu_number(shared.device.mtu()),
        gid_tbl_len: shared.device.gids().len() as c_int,
        port_cap_flags: ffi::IBV_PORT_CM_SUP | ffi::IBV_PORT_IP_BASED_GIDS,
        max_msg_sz: if is_efa() { SRD_MAX_SEND } else { MAX_MESSAGE },
        pkey_tbl_len: 1,
        max_vl_num: 1,
        active_width: WIDTH_4X,
        active_speed: SPEED_QDR,
        phys_state,
        link_layer: ffi::IBV_LINK_LAYER_ETHERNET as u8,
        flags: ffi::IBV_QPF_GRH_REQUIRED as u8,
        active_speed_ex: SPEED_QDR.into(),
        ..Default::default()
    })
}

/// Writes as much of the port's attributes as there is room for.
///
/// # Safety
///
/// The device is open, and there is room for `len` bytes.
unsafe fn answer(
    context: *mut ffi::ibv_context,
    port: u8,
    to: *mut ffi::ibv_port_attr,
    len: usize,
) -> c_int {
    // SAFETY: by the caller's promise.
    let attr = attr(unsafe { shared(context) }, port);
    // SAFETY: by the caller's promise.
    code(attr.map(|attr| unsafe { write_prefix(&attr, to, len) }))
}

/// The operation of `verbs_context`.
pub(super) unsafe extern "C" fn query_port(
    context: *mut ffi::ibv_context,
    port: u8,
    to: *mut ffi::ibv_port_attr,
    len: usize,
) -> c_int {
    // SAFETY: the device is open, and the caller of the operation says how long its structure is.
    unsafe { answer(context, port, to, len) }
}

/// The exported function, which knows the structure as it was before its last three fields.
pub(super) unsafe extern "C" fn query_port_compat(
    context: *mut ffi::ibv_context,
    port: u8,
    to: *mut ffi::_compat_ibv_port_attr,
) -> c_int {
    let len = offset_of!(ffi::ibv_port_attr, flags);
    // SAFETY: the device is open, and there is room for the structure of the first version (ibv_query_port(3)).
    unsafe { answer(context, port, to.cast(), len) }
}

fn gid(shared: &Shared, port: u32, index: u32) -> Result<ffi::ibv_gid> {
    check(shared, port)?;
    let raw = shared.device.gids().get(index as usize).copied().ok_or(Errno::INVAL)?;
    Ok(ffi::ibv_gid { raw })
}

pub(super) unsafe extern "C" fn query_gid(
    context: *mut ffi::ibv_context,
    port: u8,
    index: c_int,
    to: *mut ffi::ibv_gid,
) -> c_int {
    // SAFETY: the device is open (ibv_query_gid(3)). A negative index is more than there are.
    let gid = gid(unsafe { shared(context) }, port.into(), index as u32);
    // SAFETY: it points to a GID (ibv_query_gid(3)).
    minus_one(gid.map(|gid| unsafe { to.write(gid) }))
}

fn entry(shared: &Shared, port: u32, index: u32) -> Result<ffi::ibv_gid_entry> {
    Ok(ffi::ibv_gid_entry {
        gid: gid(shared, port, index)?,
        gid_index: index,
        port_num: port,
        gid_type: ffi::IBV_GID_TYPE_ROCE_V2,
        ndev_ifindex: shared.device.netdev_index(),
    })
}

pub(super) unsafe extern "C" fn query_gid_ex(
    context: *mut ffi::ibv_context,
    port: u32,
    index: u32,
    to: *mut ffi::ibv_gid_entry,
    flags: u32,
    len: usize,
) -> c_int {
    if flags != 0 {
        return libc::EOPNOTSUPP;
    }
    // SAFETY: the device is open (ibv_query_gid_ex(3)).
    let entry = entry(unsafe { shared(context) }, port, index);
    // SAFETY: there is room for `len` bytes, which is the size of an entry (ibv_query_gid_ex(3)).
    code(entry.map(|entry| unsafe { write_prefix(&entry, to, len) }))
}

pub(super) unsafe extern "C" fn query_gid_table(
    context: *mut ffi::ibv_context,
    to: *mut ffi::ibv_gid_entry,
    max_entries: usize,
    flags: u32,
    len: usize,
) -> isize {
    if flags != 0 {
        return -(libc::EOPNOTSUPP as isize);
    }
    // SAFETY: the device is open (ibv_query_gid_table(3)).
    let shared = unsafe { shared(context) };
    let count = shared.device.gids().len();
    if count > max_entries {
        return -(libc::EINVAL as isize);
    }
    for index in 0..count {
        match entry(shared, PORT.into(), index as u32) {
            // SAFETY: the array has more than `index` entries of `len` bytes (ibv_query_gid_table(3)).
            Ok(entry) => unsafe {
                write_prefix(&entry, to.wrapping_byte_add(index * len), len);
            },
            Err(errno) => return -(errno.raw_os_error() as isize),
        }
    }
    count as isize
}

pub(super) unsafe extern "C" fn query_pkey(
    context: *mut ffi::ibv_context,
    port: u8,
    index: c_int,
    to: *mut ffi::__be16,
) -> c_int {
    // SAFETY: the device is open (ibv_query_pkey(3)).
    let mut result = check(unsafe { shared(context) }, port.into());
    if index != 0 {
        result = result.and(Err(Errno::INVAL));
    }
    // SAFETY: it points to a 16-bit number (ibv_query_pkey(3)).
    minus_one(result.map(|()| unsafe { to.write(PKEY.to_be()) }))
}

pub(super) unsafe extern "C" fn get_pkey_index(
    context: *mut ffi::ibv_context,
    port: u8,
    pkey: ffi::__be16,
) -> c_int {
    // SAFETY: the device is open (ibv_get_pkey_index(3)).
    let result = check(unsafe { shared(context) }, port.into());
    let found = u16::from_be(pkey) == PKEY;
    // The index of the only key is 0.
    minus_one(result.and(if found { Ok(()) } else { Err(Errno::INVAL) }))
}
