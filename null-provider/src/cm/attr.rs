//! The attributes that connect a queue pair.

use std::ffi::c_int;
use std::mem::offset_of;

use ibverbs_sys as ffi;

use super::call::{on_id, Access};
use super::kernel::{Connection, Stage};
use super::values::CmArgs;
use crate::controls::State;
use crate::query::PORT;
use crate::record::Verb;

/// The packet sequence numbers that connections begin with.
const RQ_PSN: u32 = 0x11_1111;
const SQ_PSN: u32 = 0x22_2222;

/// The timeout, unless one was set: 4.096 µs times two to this power.
const TIMEOUT: u8 = 19;

/// The attributes for a transition to this state, and which they are.
fn answer(
    state: &mut State,
    address: usize,
    to: ffi::ibv_qp_state,
) -> Result<(ffi::ibv_qp_attr, c_int), c_int> {
    if to > ffi::IBV_QPS_ERR {
        return Err(libc::EINVAL);
    }
    let id = state.served(address)?;
    if id.device.is_none() {
        return Err(libc::EINVAL);
    }
    let (is_ud, connection, stage) = (id.is_ud(), id.connection, id.stage);
    let (conn, dst, timeout) = (id.conn, id.dst, id.ack_timeout.unwrap_or(TIMEOUT));
    let mut attr = ffi::ibv_qp_attr { port_num: PORT, ..Default::default() };
    let mut mask = ffi::IBV_QP_STATE | ffi::IBV_QP_PKEY_INDEX | ffi::IBV_QP_PORT;
    if is_ud {
        attr.qkey = ffi::RDMA_UDP_QKEY;
        return Ok((attr, (mask | ffi::IBV_QP_QKEY) as c_int));
    }
    if connection == Connection::None && stage != Stage::Connecting {
        return Ok((attr, (mask | ffi::IBV_QP_ACCESS_FLAGS) as c_int));
    }
    let has_peer = matches!(
        connection,
        Connection::RequestReceived
            | Connection::ReplySent
            | Connection::ReplyReceived
            | Connection::Established
    );
    match to {
        ffi::IBV_QPS_INIT if connection != Connection::Closed => {
            mask |= ffi::IBV_QP_ACCESS_FLAGS;
            attr.qp_access_flags = ffi::IBV_ACCESS_REMOTE_WRITE;
            if conn.responder_resources > 0 {
                attr.qp_access_flags |= ffi::IBV_ACCESS_REMOTE_READ | ffi::IBV_ACCESS_REMOTE_ATOMIC;
            }
        }
        ffi::IBV_QPS_RTR if has_peer => {
            mask = ffi::IBV_QP_STATE
                | ffi::IBV_QP_AV
                | ffi::IBV_QP_PATH_MTU
                | ffi::IBV_QP_DEST_QPN
                | ffi::IBV_QP_RQ_PSN
                | ffi::IBV_QP_MAX_DEST_RD_ATOMIC
                | ffi::IBV_QP_MIN_RNR_TIMER;
            attr = ffi::ibv_qp_attr {
                ah_attr: state.way_to(dst),
                path_mtu: ffi::IBV_MTU_1024,
                dest_qp_num: state.cm_id(address).map_or(0, |id| id.remote_qp_num),
                rq_psn: RQ_PSN,
                max_dest_rd_atomic: conn.responder_resources,
                ..Default::default()
            };
        }
        ffi::IBV_QPS_RTS if has_peer => {
            mask = ffi::IBV_QP_STATE
                | ffi::IBV_QP_SQ_PSN
                | ffi::IBV_QP_RETRY_CNT
                | ffi::IBV_QP_RNR_RETRY
                | ffi::IBV_QP_MAX_QP_RD_ATOMIC
                | ffi::IBV_QP_TIMEOUT;
            attr = ffi::ibv_qp_attr {
                sq_psn: SQ_PSN,
                retry_cnt: conn.retry_count,
                rnr_retry: conn.rnr_retry_count,
                max_rd_atomic: conn.initiator_depth,
                timeout,
                ..Default::default()
            };
        }
        _ => return Err(libc::EINVAL),
    }
    Ok((attr, mask as c_int))
}

pub(super) unsafe extern "C" fn init_qp_attr(
    id: *mut ffi::rdma_cm_id,
    attr: *mut ffi::ibv_qp_attr,
    mask: *mut c_int,
) -> c_int {
    // SAFETY: it points to attributes whose state is set (rdma_init_qp_attr(3)).
    let to = unsafe { (*attr).qp_state };
    on_id(Verb::InitQpAttr, id, Access::Read, CmArgs::QpState(to), |state| {
        let (mut found, mut found_mask) = answer(state, id as usize, to)?;
        found.qp_state = to;
        if let Some(edit) = &state.config.cm.edit_qp_attr {
            edit(&mut found, &mut found_mask);
        }
        // Without what librdmacm does not know.
        let len = offset_of!(ffi::ibv_qp_attr, rate_limit);
        let from = (&raw const found).cast::<u8>();
        // SAFETY: so many bytes are inside both structures, which are different ones.
        unsafe { std::ptr::copy_nonoverlapping(from, attr.cast::<u8>(), len) };
        // SAFETY: it points to a mask (rdma_init_qp_attr(3)).
        unsafe { mask.write(found_mask) };
        Ok(())
    })
}
