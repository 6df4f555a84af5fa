//! Creating, destroying, modifying and querying queue pairs.

use std::ffi::c_int;
use std::mem::offset_of;

use ibverbs_sys as ffi;

use crate::controls::{lock, wait_for_cq, DataPath, Guard, State};
use crate::event::settle;
use crate::objects::{Block, Data, QpData};
use crate::query::{MAX_INLINE, MAX_SGE, MAX_WR};
use crate::record::{Kind, Verb};
use crate::{minimal, null, wr};

/// How short the structure of a library can be: the first version ended after the abort.
const SHORTEST: usize = offset_of!(ffi::ibv_qp_ex, wr_atomic_write);

/// The operations that the devices have.
const SEND_OPS: u32 = ffi::IBV_QP_EX_WITH_SEND
    | ffi::IBV_QP_EX_WITH_SEND_WITH_IMM
    | ffi::IBV_QP_EX_WITH_RDMA_WRITE
    | ffi::IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM
    | ffi::IBV_QP_EX_WITH_RDMA_READ
    | ffi::IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP
    | ffi::IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD
    | ffi::IBV_QP_EX_WITH_SEND_WITH_INV
    | ffi::IBV_QP_EX_WITH_BIND_MW
    | ffi::IBV_QP_EX_WITH_LOCAL_INV
    | NEWER_OPS;

/// Those that the shortest structure has no functions for.
const NEWER_OPS: u32 = ffi::IBV_QP_EX_WITH_FLUSH | ffi::IBV_QP_EX_WITH_ATOMIC_WRITE;

/// Sets the functions of a data path. All of them are there, granted or not, so that a call of one that
/// was not granted can be recorded: a null pointer would only crash.
macro_rules! set_functions {
    ($qp:ident, $path:ident) => {
        $qp.wr_start = Some($path::wr_start);
        $qp.wr_complete = Some($path::wr_complete);
        $qp.wr_abort = Some($path::wr_abort);
        $qp.wr_send = Some($path::wr_send);
        $qp.wr_send_imm = Some($path::wr_send_imm);
        $qp.wr_rdma_write = Some($path::wr_rdma_write);
        $qp.wr_rdma_write_imm = Some($path::wr_rdma_write_imm);
        $qp.wr_rdma_read = Some($path::wr_rdma_read);
        $qp.wr_atomic_cmp_swp = Some($path::wr_atomic_cmp_swp);
        $qp.wr_atomic_fetch_add = Some($path::wr_atomic_fetch_add);
        $qp.wr_send_inv = Some($path::wr_send_inv);
        $qp.wr_bind_mw = Some($path::wr_bind_mw);
        $qp.wr_local_inv = Some($path::wr_local_inv);
        $qp.wr_flush = Some($path::wr_flush);
        $qp.wr_atomic_write = Some($path::wr_atomic_write);
        $qp.wr_set_ud_addr = Some($path::wr_set_ud_addr);
        $qp.wr_set_sge = Some($path::wr_set_sge);
        $qp.wr_set_sge_list = Some($path::wr_set_sge_list);
        $qp.wr_set_inline_data = Some($path::wr_set_inline_data);
        $qp.wr_set_inline_data_list = Some($path::wr_set_inline_data_list);
    };
}

/// Whether what a queue pair is to be made of is alive and of one context.
fn check_parts(
    state: &mut State,
    context: *mut ffi::ibv_context,
    attr: &ffi::ibv_qp_init_attr_ex,
) -> Result<(), c_int> {
    let context = context as usize;
    if !state.expect_live(Verb::CreateQp, context, Kind::Context) {
        return Err(libc::EINVAL);
    }
    for (address, kind) in [
        (attr.pd as usize, Kind::Pd),
        (attr.send_cq as usize, Kind::Cq),
        (attr.recv_cq as usize, Kind::Cq),
        (attr.srq as usize, Kind::Srq),
    ] {
        if kind == Kind::Srq && address == 0 {
            continue;
        }
        if !state.expect_live(Verb::CreateQp, address, kind) {
            return Err(libc::EINVAL);
        }
        if !state.refers_to(address, context) {
            state.violation(format!("CreateQp: the {kind:?} is of another context"));
            return Err(libc::EINVAL);
        }
    }
    Ok(())
}

pub(crate) unsafe extern "C" fn create_qp_ex(
    context: *mut ffi::ibv_context,
    attr: *mut ffi::ibv_qp_init_attr_ex,
) -> *mut ffi::ibv_qp {
    let mut state = lock();
    state.call(Verb::CreateQp, context as usize);
    // SAFETY: it points to a structure that may be changed (ibv_create_qp_ex(3)).
    let attr = unsafe { &mut *attr };
    let is_datagram = attr.qp_type == ffi::IBV_QPT_UD;
    if attr.qp_type == ffi::IBV_QPT_DRIVER || (state.config.is_efa && !is_datagram) {
        return null(libc::EOPNOTSUPP);
    }
    create(state, context, attr)
}

/// Creates a queue pair of a type that there is.
pub(crate) fn create(
    mut state: Guard,
    context: *mut ffi::ibv_context,
    attr: &mut ffi::ibv_qp_init_attr_ex,
) -> *mut ffi::ibv_qp {
    if let Err(code) = check_parts(&mut state, context, attr) {
        return null(code);
    }
    if let Err(code) = state.failure(Verb::CreateQp) {
        return null(code);
    }
    let len = state.config.qp_ex_len.unwrap_or(size_of::<ffi::ibv_qp_ex>());
    let ops = if len > SHORTEST { SEND_OPS } else { SEND_OPS - NEWER_OPS };
    if attr.send_ops_flags & !u64::from(ops) != 0 {
        return null(libc::EOPNOTSUPP);
    }
    let cap = attr.cap;
    if state.config.is_efa && cap.max_send_wr.min(cap.max_recv_wr).min(cap.max_recv_sge) == 0 {
        state.violation("CreateQp: EFA computes with depths and entries of zero".to_owned());
    }
    if cap.max_send_wr.max(cap.max_recv_wr) > MAX_WR
        || cap.max_send_sge.max(cap.max_recv_sge) > MAX_SGE
        || cap.max_inline_data > MAX_INLINE
    {
        return null(libc::EINVAL);
    }
    if let Some(edit) = &state.config.edit_qp_cap {
        edit(&mut attr.cap);
    }
    let qp_num = state.next_number() & 0xff_ffff;
    let mut qp = ffi::ibv_qp_ex::default();
    qp.qp_base.context = context;
    qp.qp_base.qp_context = attr.qp_context;
    qp.qp_base.pd = attr.pd;
    qp.qp_base.send_cq = attr.send_cq;
    qp.qp_base.recv_cq = attr.recv_cq;
    qp.qp_base.srq = attr.srq;
    qp.qp_base.handle = qp_num;
    qp.qp_base.qp_num = qp_num;
    qp.qp_base.state = ffi::IBV_QPS_RESET;
    qp.qp_base.qp_type = attr.qp_type;
    let (_, data_path) = state.context(context as usize);
    let offset = match data_path {
        DataPath::Checked => {
            set_functions!(qp, wr);
            0
        }
        DataPath::Minimal => {
            set_functions!(qp, minimal);
            minimal::QP_OFFSET
        }
    };
    if let Some(edit) = &state.config.edit_qp {
        edit(&mut qp);
    }
    let block = Block::new(offset + len.max(SHORTEST));
    if data_path == DataPath::Minimal {
        minimal::init_qp(&block, &state.config, &qp.qp_base);
    }
    block.write_prefix(offset, &qp);
    let raw = block.ptr().wrapping_add(offset).cast();
    let (pd, send_cq, recv_cq) = (attr.pd as usize, attr.send_cq as usize, attr.recv_cq as usize);
    let data = QpData {
        qp_num,
        qp_type: attr.qp_type,
        pd,
        groups: Vec::new(),
        send_cq,
        recv_cq,
        send_ops: attr.send_ops_flags,
        max_send_wr: cap.max_send_wr,
        max_send_sge: cap.max_send_sge as usize,
        max_recv_sge: cap.max_recv_sge as usize,
        max_inline: cap.max_inline_data as usize,
        complete_sends: state.config.complete_sends,
        complete_receives: state.config.complete_receives,
        batch: None,
    };
    let mut refers_to = vec![context as usize, pd, send_cq, recv_cq];
    if !attr.srq.is_null() {
        refers_to.push(attr.srq as usize);
    }
    state.insert(block, offset, refers_to, Data::Qp(data));
    raw
}

pub(crate) unsafe extern "C" fn qp_to_qp_ex(qp: *mut ffi::ibv_qp) -> *mut ffi::ibv_qp_ex {
    if lock().config.plain_queue_pairs {
        return std::ptr::null_mut();
    }
    qp.cast()
}

/// Takes the locks of both completion queues, as mlx5 and EFA do, and unlike EFA removes what they hold of this queue
/// pair. A batch that is still open holds a lock of the queue pair, which is a violation.
fn clean(mut state: Guard, verb: Verb, address: usize) -> Guard {
    let is_efa = state.config.is_efa;
    let Some(qp) = state.qp(address) else { return state };
    let (qp_num, queues) = (qp.qp_num, [qp.send_cq, qp.recv_cq]);
    if qp.batch.take().is_some() {
        state.violation(format!("{verb:?}: a batch of the queue pair is open"));
    }
    for cq in queues {
        (state, _) = wait_for_cq(state, verb, cq);
        if let Some(cq) = state.cq(cq) {
            if !is_efa {
                cq.queue.retain(|completion| completion.qp_num != qp_num);
            }
        }
    }
    state
}

pub(crate) unsafe extern "C" fn destroy_qp(qp: *mut ffi::ibv_qp) -> c_int {
    let mut state = lock();
    let address = qp as usize;
    if let Err(code) = state.may_destroy(Verb::DestroyQp, address, Kind::Qp) {
        return code;
    }
    if state.qp(address).is_some_and(|qp| !qp.groups.is_empty()) {
        state.refused.insert(address);
        return libc::EBUSY;
    }
    if state.windows().any(|mw| mw.bound_to.is_some_and(|(_, qp)| qp == address)) {
        state.violation("DestroyQp: a window is bound that refers to it".to_owned());
    }
    let state = clean(state, Verb::DestroyQp, address);
    settle(state, Verb::DestroyQp, address).remove(address);
    0
}

/// Whether there is such a transition. Which attributes it takes is not checked.
fn transition_exists(from: ffi::ibv_qp_state, to: ffi::ibv_qp_state) -> bool {
    matches!(
        (from, to),
        (_, ffi::IBV_QPS_RESET | ffi::IBV_QPS_ERR)
            | (ffi::IBV_QPS_RESET | ffi::IBV_QPS_INIT, ffi::IBV_QPS_INIT)
            | (ffi::IBV_QPS_INIT, ffi::IBV_QPS_RTR)
            | (
                ffi::IBV_QPS_RTR | ffi::IBV_QPS_RTS | ffi::IBV_QPS_SQD | ffi::IBV_QPS_SQE,
                ffi::IBV_QPS_RTS
            )
            | (ffi::IBV_QPS_RTS | ffi::IBV_QPS_SQD, ffi::IBV_QPS_SQD)
    )
}

pub(crate) unsafe extern "C" fn modify_qp(
    qp: *mut ffi::ibv_qp,
    attr: *mut ffi::ibv_qp_attr,
    mask: c_int,
) -> c_int {
    let mut state = lock();
    let address = qp as usize;
    state.call(Verb::ModifyQp, address);
    if !state.expect_live(Verb::ModifyQp, address, Kind::Qp) {
        return libc::EINVAL;
    }
    if let Err(code) = state.failure(Verb::ModifyQp) {
        return code;
    }
    // SAFETY: it points to a whole structure (ibv_modify_qp(3)).
    let attr = unsafe { attr.read() };
    state.modified.push((mask as u32, attr));
    // SAFETY: the queue pair is alive, as was checked above.
    let from = unsafe { (*qp).state };
    if mask as u32 & ffi::IBV_QP_STATE == 0 {
        return 0;
    }
    if !transition_exists(from, attr.qp_state) {
        return libc::EINVAL;
    }
    if attr.qp_state == ffi::IBV_QPS_RESET {
        if state.config.is_efa && !matches!(from, ffi::IBV_QPS_RESET | ffi::IBV_QPS_INIT) {
            state.violation("ModifyQp: EFA corrupts its queues by a reset".to_owned());
        }
        clean(state, Verb::ModifyQp, address).forget_work(address);
    }
    // SAFETY: the queue pair is alive; that nobody else accesses the field is what libibverbs relies on
    // as well, which stores the state here without a lock.
    unsafe { (*qp).state = attr.qp_state };
    0
}

pub(crate) unsafe extern "C" fn query_qp(
    qp: *mut ffi::ibv_qp,
    attr: *mut ffi::ibv_qp_attr,
    _mask: c_int,
    init_attr: *mut ffi::ibv_qp_init_attr,
) -> c_int {
    let mut state = lock();
    let address = qp as usize;
    state.call(Verb::QueryQp, address);
    if !state.expect_live(Verb::QueryQp, address, Kind::Qp) {
        return libc::EINVAL;
    }
    if let Err(code) = state.failure(Verb::QueryQp) {
        return code;
    }
    // SAFETY: the queue pair is alive, as was checked above.
    let current = unsafe { (*qp).state };
    let mut answer =
        ffi::ibv_qp_attr { qp_state: current, cur_qp_state: current, ..Default::default() };
    if let Some(edit) = &state.config.edit_qp_attr {
        edit(&mut answer);
    }
    // SAFETY: it points to a whole structure (ibv_query_qp(3)).
    unsafe { attr.write(answer) };
    // SAFETY: as above.
    unsafe { init_attr.write(ffi::ibv_qp_init_attr::default()) };
    // SAFETY: the queue pair is alive; libibverbs stores the state here, without a lock.
    unsafe { (*qp).state = answer.qp_state };
    0
}
