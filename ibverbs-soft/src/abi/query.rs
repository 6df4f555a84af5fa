//! What the devices say about themselves.

use std::ffi::{c_char, c_int};

use ibverbs_sys as ffi;
use rustix::io::Errno;

use super::code;
use super::context::{shared, Shared};
use super::mr::PAGE;
use super::port::PORT;
use crate::device::{is_efa, limits, Device, Result};

/// A number that is no vendor's (its second bit says that anybody may use it), and "so" in ASCII.
const VENDOR_ID: u32 = 0x02_736f;
const VENDOR_PART: u32 = 1;

/// What the devices can do.
const CAPABILITIES: u32 = ffi::IBV_DEVICE_CURR_QP_STATE_MOD
    | ffi::IBV_DEVICE_SYS_IMAGE_GUID
    | ffi::IBV_DEVICE_RC_RNR_NAK_GEN
    | ffi::IBV_DEVICE_MEM_WINDOW
    | ffi::IBV_DEVICE_MEM_WINDOW_TYPE_2B
    | ffi::IBV_DEVICE_SRQ_RESIZE;

/// Ticks of the devices' clocks in a millisecond: they count nanoseconds.
const CLOCK_KHZ: u64 = 1_000_000;

/// Tells what the device is like.
fn attr(shared: &Shared) -> Result<ffi::ibv_device_attr> {
    if shared.device.is_broken() {
        return Err(Errno::IO);
    }
    let guid = Device::guid(shared.number).to_be();
    let max_sge_rd = if is_efa() { limits::MAX_SRD_RDMA_SGE } else { limits::MAX_SGE };
    let mut attr = ffi::ibv_device_attr {
        node_guid: guid,
        sys_image_guid: guid,
        max_mr_size: limits::MAX_MR_SIZE,
        page_size_cap: !(PAGE - 1) & u64::from(u32::MAX),
        vendor_id: VENDOR_ID,
        vendor_part_id: VENDOR_PART,
        max_qp: limits::MAX_QP as c_int,
        max_qp_wr: limits::MAX_QP_WR as c_int,
        device_cap_flags: CAPABILITIES,
        max_sge: limits::MAX_SGE as c_int,
        max_sge_rd: max_sge_rd as c_int,
        max_cq: limits::MAX_CQ as c_int,
        max_cqe: limits::MAX_CQE as c_int,
        max_mr: limits::MAX_MR as c_int,
        max_mw: limits::MAX_MW as c_int,
        max_pd: limits::MAX_PD as c_int,
        max_qp_rd_atom: limits::MAX_RD_ATOMIC.into(),
        max_qp_init_rd_atom: limits::MAX_RD_ATOMIC.into(),
        max_res_rd_atom: c_int::from(limits::MAX_RD_ATOMIC) * limits::MAX_QP as c_int,
        // The processor's atomic operations are those of the peers, too.
        atomic_cap: ffi::IBV_ATOMIC_GLOB,
        max_mcast_grp: limits::MAX_MCAST_GRP as c_int,
        max_mcast_qp_attach: limits::MAX_MCAST_QP_ATTACH as c_int,
        max_total_mcast_qp_attach: (limits::MAX_MCAST_GRP * limits::MAX_MCAST_QP_ATTACH) as c_int,
        max_ah: limits::MAX_AH as c_int,
        max_srq: limits::MAX_SRQ as c_int,
        max_srq_wr: limits::MAX_SRQ_WR as c_int,
        max_srq_sge: limits::MAX_SGE as c_int,
        max_pkeys: 1,
        local_ca_ack_delay: ACK_DELAY,
        phys_port_cnt: PORT,
        ..Default::default()
    };
    for (to, from) in attr.fw_ver.iter_mut().zip(env!("CARGO_PKG_VERSION").bytes()) {
        *to = from as c_char;
    }
    Ok(attr)
}

/// How long an acknowledgement may take: 4.096 us * 2^15 are 134 ms.
const ACK_DELAY: u8 = 15;

pub(super) unsafe extern "C" fn query_device(
    context: *mut ffi::ibv_context,
    to: *mut ffi::ibv_device_attr,
) -> c_int {
    // SAFETY: the device is open (ibv_query_device(3)).
    let attr = attr(unsafe { shared(context) });
    // SAFETY: it points to a whole structure (ibv_query_device(3)).
    code(attr.map(|attr| unsafe { to.write(attr) }))
}

/// The operation of `verbs_context`.
pub(super) unsafe extern "C" fn query_device_ex(
    context: *mut ffi::ibv_context,
    input: *const ffi::ibv_query_device_ex_input,
    to: *mut ffi::ibv_device_attr_ex,
    len: usize,
) -> c_int {
    // SAFETY: it is null, or points to a whole structure (ibv_query_device_ex(3)).
    if unsafe { input.as_ref() }.is_some_and(|input| input.comp_mask != 0) {
        return libc::EINVAL;
    }
    // SAFETY: the device is open (ibv_query_device_ex(3)).
    let attr = attr(unsafe { shared(context) }).map(|orig_attr| ffi::ibv_device_attr_ex {
        orig_attr,
        completion_timestamp_mask: u64::MAX,
        hca_core_clock: CLOCK_KHZ,
        device_cap_flags_ex: CAPABILITIES.into(),
        phys_port_cnt_ex: PORT.into(),
        ..Default::default()
    });
    // SAFETY: the caller of the operation says how long its structure is.
    code(attr.map(|attr| unsafe { write_prefix(&attr, to, len) }))
}

/// Copies as much of a structure as the caller has room for: an older program's is shorter.
///
/// # Safety
///
/// There is room for `len` bytes.
pub(super) unsafe fn write_prefix<T: Copy>(from: &T, to: *mut T, len: usize) {
    let len = len.min(size_of::<T>());
    // SAFETY: so many bytes are inside `from`, and by the caller's promise there is room for them.
    unsafe { std::ptr::copy_nonoverlapping((&raw const *from).cast::<u8>(), to.cast(), len) };
}

/// The operation of `verbs_context`. The clock's ticks stand in the nanoseconds, as many as there are, as with adapters.
pub(super) unsafe extern "C" fn query_rt_values(
    context: *mut ffi::ibv_context,
    values: *mut ffi::ibv_values_ex,
) -> c_int {
    // SAFETY: the device is open (ibv_query_rt_values_ex(3)).
    let device = &unsafe { shared(context) }.device;
    // SAFETY: it points to a whole structure (ibv_query_rt_values_ex(3)).
    let wanted = unsafe { (*values).comp_mask };
    if wanted & !ffi::IBV_VALUES_MASK_RAW_CLOCK != 0 {
        return libc::EINVAL;
    }
    if device.is_broken() {
        return libc::EIO;
    }
    let mut answer = ffi::ibv_values_ex { comp_mask: wanted, ..Default::default() };
    if wanted != 0 {
        answer.raw_clock.tv_nsec = device.clock() as i64;
    }
    // SAFETY: as above.
    unsafe { values.write(answer) };
    0
}
