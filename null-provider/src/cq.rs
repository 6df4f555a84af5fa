//! Creating and destroying completion queues.

use std::ffi::c_int;
use std::mem::offset_of;

use ibverbs_sys as ffi;

use crate::channel::{settle_cq, CqEvents};
use crate::controls::{lock, wait_for_cq, DataPath};
use crate::event::settle;
use crate::objects::{Block, CqData, Data, Poll};
use crate::query::{CQ_MODERATION, MAX_CQE};
use crate::record::{Kind, Verb};
use crate::{minimal, null, poll};

/// How short the structure of a library can be: the first version ended before the timestamp.
const SHORTEST: usize = offset_of!(ffi::ibv_cq_ex, read_completion_ts);

/// Sets the functions of a data path: those of the standard fields, and of the others that are wanted.
macro_rules! set_functions {
    ($cq:ident, $path:ident, $wanted:ident) => {
        $cq.start_poll = Some($path::start_poll);
        $cq.next_poll = Some($path::next_poll);
        $cq.end_poll = Some($path::end_poll);
        $cq.read_opcode = Some($path::read_opcode);
        $cq.read_vendor_err = Some($path::read_vendor_err);
        let wants = |flag: ffi::ibv_create_cq_wc_flags| $wanted & u64::from(flag) != 0;
        $cq.read_byte_len =
            wants(ffi::IBV_WC_EX_WITH_BYTE_LEN).then_some($path::read_byte_len as _);
        $cq.read_imm_data = wants(ffi::IBV_WC_EX_WITH_IMM).then_some($path::read_imm_data as _);
        $cq.read_qp_num = wants(ffi::IBV_WC_EX_WITH_QP_NUM).then_some($path::read_qp_num as _);
        $cq.read_src_qp = wants(ffi::IBV_WC_EX_WITH_SRC_QP).then_some($path::read_src_qp as _);
        $cq.read_wc_flags = Some($path::read_wc_flags);
        $cq.read_slid = wants(ffi::IBV_WC_EX_WITH_SLID).then_some($path::read_slid as _);
        $cq.read_sl = wants(ffi::IBV_WC_EX_WITH_SL).then_some($path::read_sl as _);
        $cq.read_dlid_path_bits =
            wants(ffi::IBV_WC_EX_WITH_DLID_PATH_BITS).then_some($path::read_dlid_path_bits as _);
        $cq.read_completion_ts = wants(ffi::IBV_WC_EX_WITH_COMPLETION_TIMESTAMP)
            .then_some($path::read_completion_ts as _);
        $cq.read_cvlan = wants(ffi::IBV_WC_EX_WITH_CVLAN).then_some($path::read_cvlan as _);
        $cq.read_flow_tag =
            wants(ffi::IBV_WC_EX_WITH_FLOW_TAG).then_some($path::read_flow_tag as _);
        $cq.read_tm_info = wants(ffi::IBV_WC_EX_WITH_TM_INFO).then_some($path::read_tm_info as _);
        $cq.read_completion_wallclock_ns =
            wants(ffi::IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK)
                .then_some($path::read_completion_wallclock_ns as _);
    };
}

pub(crate) unsafe extern "C" fn create_cq_ex(
    context: *mut ffi::ibv_context,
    attr: *mut ffi::ibv_cq_init_attr_ex,
) -> *mut ffi::ibv_cq_ex {
    let mut state = lock();
    let address = context as usize;
    state.call(Verb::CreateCq, address);
    if !state.expect_live(Verb::CreateCq, address, Kind::Context) {
        return null(libc::EINVAL);
    }
    if let Err(code) = state.failure(Verb::CreateCq) {
        return null(code);
    }
    // SAFETY: it points to a whole structure (ibv_create_cq_ex(3)).
    let attr = unsafe { attr.read() };
    if attr.cqe == 0 || attr.cqe > MAX_CQE || attr.comp_vector != 0 {
        return null(libc::EINVAL);
    }
    let channel = attr.channel as usize;
    let mut refers_to = vec![address];
    if channel != 0 {
        if !state.expect_live(Verb::CreateCq, channel, Kind::CompChannel) {
            return null(libc::EINVAL);
        }
        if !state.refers_to(channel, address) {
            state.violation("CreateCq: the channel is of another context".to_owned());
        }
        refers_to.push(channel);
    }
    let mut cq = ffi::ibv_cq_ex {
        context,
        channel: attr.channel,
        cq_context: attr.cq_context,
        handle: state.next_number(),
        cqe: attr.cqe.next_power_of_two() as c_int,
        ..Default::default()
    };
    let wanted = attr.wc_flags;
    let (_, data_path) = state.context(address);
    let offset = match data_path {
        DataPath::Checked => {
            set_functions!(cq, poll, wanted);
            0
        }
        DataPath::Minimal => {
            set_functions!(cq, minimal, wanted);
            minimal::CQ_OFFSET
        }
    };
    if let Some(edit) = &state.config.edit_cq {
        edit(&mut cq);
    }
    let len = state.config.cq_ex_len.unwrap_or(size_of_val(&cq));
    let block = Block::new(offset + len.max(SHORTEST));
    block.write_prefix(offset, &cq);
    let raw = block.ptr().wrapping_add(offset).cast();
    let events = CqEvents::on((channel != 0).then_some(channel));
    state.insert(block, offset, refers_to, Data::Cq(CqData { events, ..CqData::default() }));
    raw
}

pub(crate) unsafe extern "C" fn destroy_cq(cq: *mut ffi::ibv_cq) -> c_int {
    let mut state = lock();
    let address = cq as usize;
    if let Err(code) = state.may_destroy(Verb::DestroyCq, address, Kind::Cq) {
        return code;
    }
    if state.cq(address).is_some_and(|cq| cq.poll != Poll::Closed) {
        state.violation("DestroyCq: a poll of the completion queue is open".to_owned());
    }
    let state = settle(state, Verb::DestroyCq, address);
    settle_cq(state, address).remove(address);
    0
}

pub(crate) unsafe extern "C" fn resize_cq(cq: *mut ffi::ibv_cq, cqe: c_int) -> c_int {
    let mut state = lock();
    let address = cq as usize;
    state.call(Verb::ResizeCq, address);
    if !state.expect_live(Verb::ResizeCq, address, Kind::Cq) {
        return libc::EINVAL;
    }
    if let Err(code) = state.failure(Verb::ResizeCq) {
        return code;
    }
    let (mut state, free) = wait_for_cq(state, Verb::ResizeCq, address);
    if !free {
        return libc::EDEADLK;
    }
    let lost = state.config.resize_loses;
    let Some(data) = state.cq(address) else { return libc::EINVAL };
    let Ok(entries) = u32::try_from(cqe) else { return libc::EINVAL };
    if entries == 0 || entries > MAX_CQE || data.queue.len() > cqe as usize {
        return libc::EINVAL;
    }
    data.lost = lost;
    // SAFETY: the queue is alive, and nobody else accesses the field meanwhile (ibv_resize_cq(3)).
    unsafe { (*cq).cqe = entries.next_power_of_two() as c_int };
    if lost {
        libc::ENOMEM
    } else {
        0
    }
}

/// The operation of `verbs_context`.
pub(crate) unsafe extern "C" fn modify_cq(
    cq: *mut ffi::ibv_cq,
    attr: *mut ffi::ibv_modify_cq_attr,
) -> c_int {
    let mut state = lock();
    let address = cq as usize;
    state.call(Verb::ModifyCq, address);
    if !state.expect_live(Verb::ModifyCq, address, Kind::Cq) {
        return libc::EINVAL;
    }
    if let Err(code) = state.failure(Verb::ModifyCq) {
        return code;
    }
    // SAFETY: it points to a whole structure (ibv_modify_cq(3)).
    let attr = unsafe { attr.read() };
    let moderate = (attr.moderate.cq_count, attr.moderate.cq_period);
    if attr.attr_mask != ffi::IBV_CQ_ATTR_MODERATE
        || moderate.0 > CQ_MODERATION.max_cq_count
        || moderate.1 > CQ_MODERATION.max_cq_period
    {
        return libc::EINVAL;
    }
    state.moderations.push(moderate);
    0
}
