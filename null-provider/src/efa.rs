//! What libefa has: queue pairs of SRD, and queries.

use std::ffi::c_int;

use ibverbs_sys as ffi;

use crate::controls::{lock, State};
use crate::objects::{Block, Poll};
use crate::record::{Completion, Kind, Verb};
use crate::{cq, null, qp};

pub(crate) static EFA: ffi::Efa = ffi::Efa {
    efadv_query_device: Some(query_device),
    efadv_get_max_sq_depth: Some(get_max_sq_depth),
    efadv_get_max_rq_depth: Some(get_max_rq_depth),
    efadv_query_ah: Some(query_ah),
    efadv_query_mr: Some(query_mr),
    efadv_create_qp_ex: Some(create_qp_ex),
    efadv_create_cq: Some(create_cq),
    efadv_cq_from_ibv_cq_ex: Some(cq_from_ibv_cq_ex),
    ..ffi::Efa::EMPTY
};

/// The vendor of EFA.
pub(crate) const AMAZON: u32 = 0x1d0f;

/// How many bytes fit into a short request.
const SHORT_INLINE: u32 = 32;

/// How many scatter entries a write or a read may have.
pub(crate) const MAX_RDMA_SGE: u32 = 1;

/// What the devices say about themselves, if they are EFA's.
fn attributes(state: &State) -> ffi::efadv_device_attr {
    let mut answer = ffi::efadv_device_attr {
        max_sq_wr: 512,
        max_rq_wr: 1024,
        max_sq_sge: 2,
        max_rq_sge: 3,
        inline_buf_size: SHORT_INLINE as u16,
        inline_buf_size_ex: 80,
        device_caps: 0x7f,
        max_rdma_size: 1 << 30,
        ..Default::default()
    };
    if let Some(edit) = &state.config.edit_efa_attr {
        edit(&mut answer);
    }
    answer
}

/// Whether a question about an object may be answered, for which the caller says how long its `T` is; if not, the `errno`
/// value.
fn begin<T>(state: &mut State, object: usize, kind: Kind, len: u32) -> Result<(), c_int> {
    state.call(Verb::QueryEfa, object);
    if !state.expect_live(Verb::QueryEfa, object, kind) {
        return Err(libc::EINVAL);
    }
    state.failure(Verb::QueryEfa)?;
    if !state.config.is_efa {
        return Err(libc::EOPNOTSUPP);
    }
    if len as usize != size_of::<T>() {
        state.violation(format!("QueryEfa: {len} bytes are too few or too many"));
        return Err(libc::EINVAL);
    }
    Ok(())
}

unsafe extern "C" fn query_device(
    context: *mut ffi::ibv_context,
    attr: *mut ffi::efadv_device_attr,
    len: u32,
) -> c_int {
    let mut state = lock();
    let result = begin::<ffi::efadv_device_attr>(&mut state, context as usize, Kind::Context, len);
    if let Err(code) = result {
        return code;
    }
    // SAFETY: it points to a whole structure (efadv_query_device(3)).
    unsafe { attr.write(attributes(&state)) };
    0
}

/// How deep a send queue can be.
fn max_send_wr(attr: &ffi::efadv_device_attr, inline: u32, inline_write: bool) -> u32 {
    if inline > SHORT_INLINE || inline_write {
        attr.max_sq_wr / 2
    } else {
        attr.max_sq_wr
    }
}

unsafe extern "C" fn get_max_sq_depth(
    context: *mut ffi::ibv_context,
    attr: *mut ffi::efadv_sq_depth_attr,
    len: u32,
) -> c_int {
    let mut state = lock();
    let result =
        begin::<ffi::efadv_sq_depth_attr>(&mut state, context as usize, Kind::Context, len);
    if let Err(code) = result {
        return -code;
    }
    // SAFETY: it points to a whole structure (efadv_get_max_sq_depth(3)).
    let asked = unsafe { attr.read() };
    let device = attributes(&state);
    if asked.max_send_sge > u32::from(device.max_sq_sge)
        || asked.max_rdma_sge > MAX_RDMA_SGE
        || asked.max_inline_data > u32::from(device.inline_buf_size_ex)
    {
        return -libc::EINVAL;
    }
    let inline_write = asked.flags & ffi::EFADV_SQ_DEPTH_ATTR_INLINE_WRITE != 0;
    max_send_wr(&device, asked.max_inline_data, inline_write) as c_int
}

unsafe extern "C" fn get_max_rq_depth(
    context: *mut ffi::ibv_context,
    attr: *mut ffi::efadv_rq_depth_attr,
    len: u32,
) -> c_int {
    let mut state = lock();
    let result =
        begin::<ffi::efadv_rq_depth_attr>(&mut state, context as usize, Kind::Context, len);
    if let Err(code) = result {
        return -code;
    }
    // SAFETY: it points to a whole structure (efadv_get_max_rq_depth(3)).
    let asked = unsafe { attr.read() };
    let device = attributes(&state);
    if asked.max_recv_sge > u32::from(device.max_rq_sge) {
        return -libc::EINVAL;
    }
    match device.max_rq_wr.checked_div(asked.max_recv_sge) {
        Some(depth) => depth as c_int,
        None => {
            state.violation("QueryEfa: it divides by the number of scatter entries".to_owned());
            -libc::EINVAL
        }
    }
}

unsafe extern "C" fn query_ah(
    ah: *mut ffi::ibv_ah,
    attr: *mut ffi::efadv_ah_attr,
    len: u32,
) -> c_int {
    let mut state = lock();
    let result = begin::<ffi::efadv_ah_attr>(&mut state, ah as usize, Kind::Ah, len);
    if let Err(code) = result {
        return code;
    }
    // SAFETY: the handle is alive, as was checked above.
    let number = unsafe { (*ah).handle };
    let answer = ffi::efadv_ah_attr { ahn: number as u16, ..Default::default() };
    // SAFETY: it points to a whole structure (efadv_query_ah(3)).
    unsafe { attr.write(answer) };
    0
}

unsafe extern "C" fn query_mr(
    mr: *mut ffi::ibv_mr,
    attr: *mut ffi::efadv_mr_attr,
    len: u32,
) -> c_int {
    let mut state = lock();
    let result = begin::<ffi::efadv_mr_attr>(&mut state, mr as usize, Kind::Mr, len);
    if let Err(code) = result {
        return code;
    }
    let mut answer = ffi::efadv_mr_attr::default();
    if let Some(edit) = &state.config.edit_efa_mr {
        edit(&mut answer);
    }
    // SAFETY: it points to a whole structure (efadv_query_mr(3)).
    unsafe { attr.write(answer) };
    0
}

/// The operations that queue pairs of SRD can have.
fn send_ops(device: &ffi::efadv_device_attr) -> u32 {
    let mut ops = ffi::IBV_QP_EX_WITH_SEND | ffi::IBV_QP_EX_WITH_SEND_WITH_IMM;
    if device.device_caps & ffi::EFADV_DEVICE_ATTR_CAPS_RDMA_READ != 0 {
        ops |= ffi::IBV_QP_EX_WITH_RDMA_READ;
    }
    if device.device_caps & ffi::EFADV_DEVICE_ATTR_CAPS_RDMA_WRITE != 0 {
        ops |= ffi::IBV_QP_EX_WITH_RDMA_WRITE | ffi::IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM;
    }
    ops
}

/// The flags that queue pairs of SRD can have.
fn qp_flags(device: &ffi::efadv_device_attr) -> u32 {
    let mut flags = 0;
    if device.device_caps & ffi::EFADV_DEVICE_ATTR_CAPS_RDMA_WRITE != 0 {
        flags |= ffi::EFADV_QP_FLAGS_INLINE_WRITE;
    }
    if device.device_caps & ffi::EFADV_DEVICE_ATTR_CAPS_UNSOLICITED_WRITE_RECV != 0 {
        flags |= ffi::EFADV_QP_FLAGS_UNSOLICITED_WRITE_RECV;
    }
    flags
}

unsafe extern "C" fn create_qp_ex(
    context: *mut ffi::ibv_context,
    attr: *mut ffi::ibv_qp_init_attr_ex,
    srd: *mut ffi::efadv_qp_init_attr,
    len: u32,
) -> *mut ffi::ibv_qp {
    let mut state = lock();
    state.call(Verb::CreateSrdQp, context as usize);
    // SAFETY: it points to a structure that may be changed (efadv_create_qp_ex(3)).
    let attr = unsafe { &mut *attr };
    // SAFETY: it points to a structure of `len` bytes, which is what is looked at next (efadv_create_qp_ex(3)).
    let srd = unsafe { srd.read() };
    if len as usize != size_of_val(&srd) {
        state.violation(format!("CreateSrdQp: {len} bytes are too few or too many"));
        return null(libc::EINVAL);
    }
    if !state.config.is_efa {
        return null(libc::EOPNOTSUPP);
    }
    let known = srd.comp_mask == 0 && srd.reserved == 0;
    if attr.qp_type != ffi::IBV_QPT_DRIVER || !known {
        return null(libc::EINVAL);
    }
    let device = attributes(&state);
    if srd.driver_qp_type != ffi::EFADV_QP_DRIVER_TYPE_SRD
        || u32::from(srd.flags) & !qp_flags(&device) != 0
        || attr.send_ops_flags & !u64::from(send_ops(&device)) != 0
    {
        return null(libc::EOPNOTSUPP);
    }
    let cap = &attr.cap;
    let inline_write = u32::from(srd.flags) & ffi::EFADV_QP_FLAGS_INLINE_WRITE != 0;
    if cap.max_send_sge > u32::from(device.max_sq_sge)
        || cap.max_recv_sge > u32::from(device.max_rq_sge)
        || cap.max_inline_data > u32::from(device.inline_buf_size_ex)
        || cap.max_send_wr > max_send_wr(&device, cap.max_inline_data, inline_write)
        || cap.max_recv_wr > device.max_rq_wr / cap.max_recv_sge.max(1)
    {
        return null(libc::EINVAL);
    }
    state.srd.push(srd);
    qp::create(state, context, attr)
}

/// The fields that completions can have.
fn wc_fields(device: &ffi::efadv_device_attr) -> u32 {
    let mut fields = 0;
    if device.device_caps & ffi::EFADV_DEVICE_ATTR_CAPS_CQ_WITH_SGID != 0 {
        fields |= ffi::EFADV_WC_EX_WITH_SGID;
    }
    if device.device_caps & ffi::EFADV_DEVICE_ATTR_CAPS_UNSOLICITED_WRITE_RECV != 0 {
        fields |= ffi::EFADV_WC_EX_WITH_IS_UNSOLICITED;
    }
    fields
}

unsafe extern "C" fn create_cq(
    context: *mut ffi::ibv_context,
    attr: *mut ffi::ibv_cq_init_attr_ex,
    efa: *mut ffi::efadv_cq_init_attr,
    len: u32,
) -> *mut ffi::ibv_cq_ex {
    let mut state = lock();
    state.call(Verb::CreateEfaCq, context as usize);
    // SAFETY: it points to a structure of `len` bytes, which is what is looked at next (efadv_create_cq(3)).
    let efa = unsafe { efa.read() };
    if len as usize != size_of_val(&efa) {
        state.violation(format!("CreateEfaCq: {len} bytes are too few or too many"));
        return null(libc::EINVAL);
    }
    let fields = efa.wc_flags;
    let supported = u64::from(wc_fields(&attributes(&state)));
    if !state.config.is_efa || fields & !supported != 0 || efa.flags != 0 {
        return null(libc::EOPNOTSUPP);
    }
    if efa.comp_mask != 0 {
        return null(libc::EINVAL);
    }
    drop(state);
    // SAFETY: passed on to the caller.
    let raw = unsafe { cq::create_cq_ex(context, attr) };
    let mut state = lock();
    let wants = |field: u32| fields & u64::from(field) != 0;
    let mut efa = ffi::efadv_cq {
        wc_read_sgid: wants(ffi::EFADV_WC_EX_WITH_SGID).then_some(wc_read_sgid as _),
        wc_is_unsolicited: wants(ffi::EFADV_WC_EX_WITH_IS_UNSOLICITED)
            .then_some(wc_is_unsolicited as _),
        ..Default::default()
    };
    if let Some(edit) = &state.config.edit_efa_cq {
        edit(&mut efa);
    }
    if let Some(data) = state.cq(raw as usize) {
        let block = Block::new(size_of_val(&efa));
        block.write_prefix(0, &efa);
        data.efa = Some(block);
    }
    raw
}

unsafe extern "C" fn cq_from_ibv_cq_ex(cq: *mut ffi::ibv_cq_ex) -> *mut ffi::efadv_cq {
    let mut state = lock();
    match state.cq(cq as usize).and_then(|cq| cq.efa.as_ref()) {
        Some(block) => block.ptr().cast(),
        None => {
            state.violation("efadv_cq_from_ibv_cq_ex: the queue is not of EFA".to_owned());
            std::ptr::null_mut()
        }
    }
}

/// The completion at hand; an empty one, and a violation, if there is none.
fn current(efa: *mut ffi::efadv_cq) -> Completion {
    let mut state = lock();
    state.call(Verb::ReadField, efa as usize);
    let poll = state.cqs().find_map(|cq| {
        let block = cq.efa.as_ref()?;
        (block.ptr() == efa.cast()).then_some(cq.poll)
    });
    match poll {
        Some(Poll::At(completion)) => completion,
        _ => {
            state.violation("ReadField: no completion of EFA is at hand".to_owned());
            Completion::default()
        }
    }
}

unsafe extern "C" fn wc_read_sgid(efa: *mut ffi::efadv_cq, to: *mut ffi::ibv_gid) -> c_int {
    match current(efa).sender_gid {
        Some(raw) => {
            // SAFETY: it points to a GID (efadv_create_cq(3)).
            unsafe { to.write(ffi::ibv_gid { raw }) };
            0
        }
        None => -libc::ENOENT,
    }
}

unsafe extern "C" fn wc_is_unsolicited(efa: *mut ffi::efadv_cq) -> bool {
    current(efa).unsolicited
}
