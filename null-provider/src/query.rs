//! What the devices and their ports say about themselves.

use std::ffi::c_int;
use std::mem::offset_of;
use std::net::{Ipv4Addr, Ipv6Addr};

use ibverbs_sys as ffi;

use crate::controls::{lock, State};
use crate::efa::{AMAZON, MAX_RDMA_SGE};
use crate::record::{Kind, Verb};
use crate::set_errno;

/// The one port of each device.
pub(crate) const PORT: u8 = 1;
pub(crate) const GID_TABLE_LEN: usize = 4;

/// The limits of a device, which creating objects goes by.
pub(crate) const MAX_WR: u32 = 4096;
pub(crate) const MAX_SGE: u32 = 16;
pub(crate) const MAX_CQE: u32 = 1 << 16;
pub(crate) const MAX_DM_SIZE: usize = 1 << 16;
/// Devices do not publish the next two.
pub(crate) const MAX_LOG_ALIGN: u32 = 12;
pub(crate) const CQ_MODERATION: ffi::ibv_cq_moderation_caps =
    ffi::ibv_cq_moderation_caps { max_cq_count: 1000, max_cq_period: 4095 };
/// Devices do not publish this one.
pub(crate) const MAX_INLINE: u32 = 512;

/// What the devices can do.
const CAPABILITIES: u32 = ffi::IBV_DEVICE_SRQ_RESIZE
    | ffi::IBV_DEVICE_MEM_WINDOW
    | ffi::IBV_DEVICE_MEM_WINDOW_TYPE_2B
    | ffi::IBV_DEVICE_MEM_MGT_EXTENSIONS;
/// The flags of flushes and atomic writes, for which the headers of libibverbs have no names.
const FLUSH_AND_ATOMIC_WRITE: u64 = 7 << 38;

/// Whether the question may be answered; if not, the `errno` value.
fn begin(state: &mut State, verb: Verb, context: *mut ffi::ibv_context) -> Result<(), c_int> {
    let address = context as usize;
    state.call(verb, address);
    if !state.expect_live(verb, address, Kind::Context) {
        return Err(libc::EINVAL);
    }
    state.failure(verb)
}

fn device_attr(
    state: &mut State,
    context: *mut ffi::ibv_context,
) -> Result<ffi::ibv_device_attr, c_int> {
    begin(state, Verb::QueryDevice, context)?;
    Ok(attr_of_devices(state))
}

/// What every device says of itself.
pub(crate) fn attr_of_devices(state: &State) -> ffi::ibv_device_attr {
    let mut answer = ffi::ibv_device_attr {
        // The second is that of adapters whose memory the host can copy to and from.
        vendor_id: if state.config.is_efa { AMAZON } else { 0x02c9 },
        max_mr_size: u64::MAX,
        page_size_cap: 4096,
        max_qp: 1024,
        max_qp_wr: MAX_WR as c_int,
        max_sge: MAX_SGE as c_int,
        max_sge_rd: if state.config.is_efa { MAX_RDMA_SGE } else { MAX_SGE } as c_int,
        max_cq: 1024,
        max_cqe: MAX_CQE as c_int,
        max_mr: 1024,
        max_pd: 1024,
        max_qp_rd_atom: 16,
        max_qp_init_rd_atom: 16,
        atomic_cap: ffi::IBV_ATOMIC_HCA,
        max_pkeys: 1,
        max_srq: 1024,
        max_srq_wr: MAX_WR as c_int,
        max_srq_sge: MAX_SGE as c_int,
        max_mw: 1024,
        device_cap_flags: CAPABILITIES,
        phys_port_cnt: PORT,
        ..Default::default()
    };
    if let Some(edit) = &state.config.edit_device_attr {
        edit(&mut answer);
    }
    answer
}

pub(crate) unsafe extern "C" fn query_device(
    context: *mut ffi::ibv_context,
    attr: *mut ffi::ibv_device_attr,
) -> c_int {
    match device_attr(&mut lock(), context) {
        Ok(answer) => {
            // SAFETY: it points to a whole structure (ibv_query_device(3)).
            unsafe { attr.write(answer) };
            0
        }
        Err(code) => code,
    }
}

/// The operation of `verbs_context`.
pub(crate) unsafe extern "C" fn query_device_ex(
    context: *mut ffi::ibv_context,
    _input: *const ffi::ibv_query_device_ex_input,
    attr: *mut ffi::ibv_device_attr_ex,
    len: usize,
) -> c_int {
    let mut state = lock();
    let orig_attr = match device_attr(&mut state, context) {
        Ok(orig_attr) => orig_attr,
        Err(code) => return code,
    };
    let mut answer = ffi::ibv_device_attr_ex {
        orig_attr,
        phys_port_cnt_ex: u32::from(PORT),
        max_dm_size: MAX_DM_SIZE as u64,
        cq_mod_caps: CQ_MODERATION,
        device_cap_flags_ex: u64::from(CAPABILITIES) | FLUSH_AND_ATOMIC_WRITE,
        ..Default::default()
    };
    if let Some(edit) = &state.config.edit_device_attr_ex {
        edit(&mut answer);
    }
    let len = len.min(size_of_val(&answer));
    // SAFETY: `len` bytes are inside `answer`; the caller of the operation says how long its structure is.
    unsafe { std::ptr::copy_nonoverlapping((&raw const answer).cast::<u8>(), attr.cast(), len) };
    0
}

fn port_attr(context: *mut ffi::ibv_context, port: u8) -> Result<ffi::ibv_port_attr, c_int> {
    let mut state = lock();
    begin(&mut state, Verb::QueryPort, context)?;
    if port != PORT {
        return Err(libc::EINVAL);
    }
    let mut answer = ffi::ibv_port_attr {
        state: ffi::IBV_PORT_ACTIVE,
        max_mtu: ffi::IBV_MTU_4096,
        active_mtu: ffi::IBV_MTU_1024,
        gid_tbl_len: GID_TABLE_LEN as c_int,
        max_msg_sz: 1 << 30,
        pkey_tbl_len: 1,
        active_width: 2,
        active_speed: 32,
        phys_state: 5,
        link_layer: if state.config.is_efa {
            ffi::IBV_LINK_LAYER_UNSPECIFIED
        } else {
            ffi::IBV_LINK_LAYER_ETHERNET
        } as u8,
        flags: ffi::IBV_QPF_GRH_REQUIRED as u8,
        ..Default::default()
    };
    if let Some(edit) = &state.config.edit_port_attr {
        edit(&mut answer);
    }
    Ok(answer)
}

/// Writes the first `len` bytes of the answer.
///
/// # Safety
///
/// `to` points to so many bytes that may be written.
unsafe fn answer_port(
    answer: Result<ffi::ibv_port_attr, c_int>,
    to: *mut ffi::ibv_port_attr,
    len: usize,
) -> c_int {
    let answer = match answer {
        Ok(answer) => answer,
        Err(code) => return code,
    };
    let len = len.min(size_of_val(&answer));
    // SAFETY: `len` bytes are inside `answer`, and may be written by the caller's promise.
    unsafe { std::ptr::copy_nonoverlapping((&raw const answer).cast::<u8>(), to.cast(), len) };
    0
}

/// The operation of `verbs_context`.
pub(crate) unsafe extern "C" fn query_port(
    context: *mut ffi::ibv_context,
    port: u8,
    attr: *mut ffi::ibv_port_attr,
    len: usize,
) -> c_int {
    // SAFETY: the caller of the operation says how long its structure is.
    unsafe { answer_port(port_attr(context, port), attr, len) }
}

/// The exported function, which knows the structure as it was before its last three fields.
pub(crate) unsafe extern "C" fn query_port_compat(
    context: *mut ffi::ibv_context,
    port: u8,
    attr: *mut ffi::_compat_ibv_port_attr,
) -> c_int {
    let len = offset_of!(ffi::ibv_port_attr, flags);
    // SAFETY: it points to at least the structure of the first version (ibv_query_port(3)).
    unsafe { answer_port(port_attr(context, port), attr.cast(), len) }
}

/// The addresses of a device.
pub(crate) fn ipv6(device: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 1 + device as u16)
}

pub(crate) fn ipv4(device: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 1 + device as u8)
}

/// The GID at this place of a port's table.
fn gid(device: usize, index: usize) -> ffi::ibv_gid {
    let address = match index {
        0 => ipv6(device),
        1 => ipv4(device).to_ipv6_mapped(),
        _ => Ipv6Addr::UNSPECIFIED,
    };
    ffi::ibv_gid { raw: address.octets() }
}

pub(crate) unsafe extern "C" fn query_gid(
    context: *mut ffi::ibv_context,
    port: u8,
    index: c_int,
    to: *mut ffi::ibv_gid,
) -> c_int {
    let mut state = lock();
    let answer = begin(&mut state, Verb::QueryGid, context);
    let index = usize::try_from(index).unwrap_or(usize::MAX);
    if answer.is_err() || port != PORT || index >= GID_TABLE_LEN {
        set_errno(answer.err().unwrap_or(libc::EINVAL));
        return -1;
    }
    let answer = gid(state.context(context as usize).0, index);
    // SAFETY: it points to a GID (ibv_query_gid(3)).
    unsafe { to.write(answer) };
    0
}

pub(crate) unsafe extern "C" fn query_gid_table(
    context: *mut ffi::ibv_context,
    entries: *mut ffi::ibv_gid_entry,
    max_entries: usize,
    _flags: u32,
    entry_size: usize,
) -> isize {
    let mut state = lock();
    if let Err(code) = begin(&mut state, Verb::QueryGid, context) {
        return -(code as isize);
    }
    let (device, _) = state.context(context as usize);
    let used = 2.min(max_entries);
    for index in 0..used {
        let mut answer = ffi::ibv_gid_entry {
            gid: gid(device, index),
            gid_index: index as u32,
            port_num: u32::from(PORT),
            gid_type: ffi::IBV_GID_TYPE_ROCE_V2,
            ndev_ifindex: 0,
        };
        if let Some(edit) = &state.config.edit_gid_entry {
            edit(&mut answer);
        }
        let to = entries.wrapping_byte_add(index * entry_size);
        // SAFETY: the array has more than `index` entries, each of `entry_size` bytes, which is the
        // size of the structure in every version (ibv_query_gid_table(3)).
        unsafe { to.write(answer) };
    }
    used as isize
}

pub(crate) unsafe extern "C" fn query_pkey(
    context: *mut ffi::ibv_context,
    port: u8,
    index: c_int,
    to: *mut ffi::__be16,
) -> c_int {
    let mut state = lock();
    let answer = begin(&mut state, Verb::QueryPkey, context);
    if answer.is_err() || port != PORT || index != 0 {
        set_errno(answer.err().unwrap_or(libc::EINVAL));
        return -1;
    }
    // SAFETY: it points to a 16-bit number (ibv_query_pkey(3)).
    unsafe { to.write(u16::MAX) };
    0
}

/// The operation of `verbs_context`.
pub(crate) unsafe extern "C" fn query_rt_values(
    context: *mut ffi::ibv_context,
    values: *mut ffi::ibv_values_ex,
) -> c_int {
    let mut state = lock();
    if let Err(code) = begin(&mut state, Verb::QueryRtValues, context) {
        return code;
    }
    // SAFETY: it points to a whole structure (ibv_query_rt_values_ex(3)).
    let values = unsafe { &mut *values };
    if values.comp_mask & !ffi::IBV_VALUES_MASK_RAW_CLOCK != 0 {
        return libc::EINVAL;
    }
    match &state.config.edit_rt_values {
        Some(edit) => edit(values),
        None => values.comp_mask = 0,
    }
    0
}
