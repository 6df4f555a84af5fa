//! What connects a queue pair: attributes, address vectors and paths.

use std::ffi::c_int;

use ibverbs_sys as ffi;
use rustix::io::Errno;

use super::address::gid;
use super::id::{id, Id, IdState};
use crate::abi::minus_one;
use crate::abi::port::{mtu_number, PKEY, PORT};
use crate::cm::{Facts, State};
use crate::device::Result;

/// The encoded time to wait for acknowledgements, if none was set: half a second.
pub(super) const ACK_TIMEOUT: u8 = 17;

/// How far packets go.
pub(super) const HOP_LIMIT: u8 = 64;

/// The queue key of datagrams.
pub(super) const QKEY: u32 = ffi::RDMA_UDP_QKEY;

/// The way from this side to the peer, by the addresses of an identifier that has both and a device.
pub(super) fn address_vector(state: &IdState) -> Option<ffi::ibv_ah_attr> {
    let (device, src, dst) = (state.device.as_ref()?, state.src?, state.dst?);
    Some(ffi::ibv_ah_attr {
        grh: ffi::ibv_global_route {
            dgid: gid(dst.ip()),
            flow_label: 0,
            sgid_index: device.gid_index(src.ip())?,
            hop_limit: HOP_LIMIT,
            traffic_class: state.traffic_class,
        },
        is_global: 1,
        port_num: PORT,
        ..Default::default()
    })
}

/// The way to the peer of a connection, as both have agreed.
fn agreed_vector(state: &IdState, facts: &Facts) -> Option<ffi::ibv_ah_attr> {
    let device = state.device.as_ref()?;
    Some(ffi::ibv_ah_attr {
        grh: ffi::ibv_global_route {
            dgid: gid(facts.path.dest),
            flow_label: facts.path.flow_label,
            sgid_index: device.gid_index(facts.path.source)?,
            hop_limit: facts.path.hop_limit,
            traffic_class: facts.path.traffic_class,
        },
        is_global: 1,
        port_num: PORT,
        ..Default::default()
    })
}

/// The path as librdmacm shows it.
pub(super) fn path_record(state: &IdState) -> Option<ffi::ibv_sa_path_rec> {
    let (device, src, dst) = (state.device.as_ref()?, state.src?, state.dst?);
    const EXACTLY: u8 = 2;
    Some(ffi::ibv_sa_path_rec {
        dgid: gid(dst.ip()),
        sgid: gid(src.ip()),
        hop_limit: HOP_LIMIT,
        traffic_class: state.traffic_class,
        reversible: 1,
        numb_path: 1,
        pkey: PKEY.to_be(),
        mtu_selector: EXACTLY,
        mtu: mtu_number(device.device().mtu()) as u8,
        rate_selector: EXACTLY,
        rate: ffi::IBV_RATE_40_GBPS as u8,
        packet_life_time_selector: EXACTLY,
        packet_life_time: state.options.ack_timeout.unwrap_or(ACK_TIMEOUT).saturating_sub(1),
        ..Default::default()
    })
}

/// The attributes for a transition to this state, and which they are.
pub(super) fn attributes(id: &Id, to: ffi::ibv_qp_state) -> Result<(ffi::ibv_qp_attr, c_int)> {
    let state = id.state();
    let device = state.device.as_ref().ok_or(Errno::INVAL)?;
    if to > ffi::IBV_QPS_ERR {
        return Err(Errno::INVAL);
    }
    let mut attr = ffi::ibv_qp_attr { qp_state: to, port_num: PORT, ..Default::default() };
    let base = ffi::IBV_QP_STATE | ffi::IBV_QP_PKEY_INDEX | ffi::IBV_QP_PORT;
    if id.is_datagram() {
        attr.qkey = QKEY;
        return Ok((attr, (base | ffi::IBV_QP_QKEY) as c_int));
    }
    let Some(connection) = state.connection else {
        return Ok((attr, (base | ffi::IBV_QP_ACCESS_FLAGS) as c_int));
    };
    let known =
        device.device().with_cm(|cm, _| cm.state(connection).zip(cm.facts(connection).copied()))?;
    let (progress, facts) = known.ok_or(Errno::INVAL)?;
    let has_peer = matches!(
        progress,
        State::ReqReceived | State::RepReceived | State::RepSent | State::Established
    );
    let mask = match to {
        ffi::IBV_QPS_INIT if has_peer || progress == State::ReqSent => {
            attr.qp_access_flags = ffi::IBV_ACCESS_REMOTE_WRITE;
            if facts.responder_resources > 0 {
                attr.qp_access_flags |= ffi::IBV_ACCESS_REMOTE_READ | ffi::IBV_ACCESS_REMOTE_ATOMIC;
            }
            base | ffi::IBV_QP_ACCESS_FLAGS
        }
        ffi::IBV_QPS_RTR if has_peer => {
            attr.ah_attr = agreed_vector(&state, &facts).ok_or(Errno::INVAL)?;
            attr.path_mtu = facts.mtu.into();
            attr.dest_qp_num = facts.remote_qpn;
            attr.rq_psn = state.psn;
            attr.max_dest_rd_atomic = facts.responder_resources;
            ffi::IBV_QP_STATE
                | ffi::IBV_QP_AV
                | ffi::IBV_QP_PATH_MTU
                | ffi::IBV_QP_DEST_QPN
                | ffi::IBV_QP_RQ_PSN
                | ffi::IBV_QP_MAX_DEST_RD_ATOMIC
                | ffi::IBV_QP_MIN_RNR_TIMER
        }
        ffi::IBV_QPS_RTS if has_peer => {
            attr.sq_psn = facts.sq_psn;
            attr.retry_cnt = facts.retry_count;
            attr.rnr_retry = facts.rnr_retry_count;
            attr.max_rd_atomic = facts.initiator_depth;
            attr.timeout = state.options.ack_timeout.unwrap_or(facts.ack_timeout);
            ffi::IBV_QP_STATE
                | ffi::IBV_QP_SQ_PSN
                | ffi::IBV_QP_RETRY_CNT
                | ffi::IBV_QP_RNR_RETRY
                | ffi::IBV_QP_MAX_QP_RD_ATOMIC
                | ffi::IBV_QP_TIMEOUT
        }
        _ => return Err(Errno::INVAL),
    };
    Ok((attr, mask as c_int))
}

pub(super) unsafe extern "C" fn init_qp_attr(
    raw: *mut ffi::rdma_cm_id,
    to: *mut ffi::ibv_qp_attr,
    mask: *mut c_int,
) -> c_int {
    // SAFETY: it points to attributes of which the state is set (rdma_init_qp_attr(3)).
    let state = unsafe { (*to).qp_state };
    // SAFETY: the identifier is alive (rdma_init_qp_attr(3)).
    minus_one(attributes(unsafe { id(raw) }, state).map(|(attr, bits)| {
        // Without what librdmacm does not write: there may be no room for it.
        let len = std::mem::offset_of!(ffi::ibv_qp_attr, rate_limit);
        let from = (&raw const attr).cast::<u8>();
        // SAFETY: both are at least as long as this, and different.
        unsafe { std::ptr::copy_nonoverlapping(from, to.cast::<u8>(), len) };
        // SAFETY: it points to a mask (rdma_init_qp_attr(3)).
        unsafe { mask.write(bits) };
    }))
}
