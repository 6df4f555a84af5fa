//! Connecting, accepting, rejecting, disconnecting.

use std::ffi::{c_int, c_void};

use ibverbs_sys as ffi;
use rustix::io::Errno;

use super::attr::{attributes, ACK_TIMEOUT, HOP_LIMIT, QKEY};
use super::event::complete;
use super::id::{id, Id, IdState, Stage};
use super::resolve::service_id;
use crate::abi::minus_one;
use crate::abi::modify::modify_qp;
use crate::abi::port::mtu_number;
use crate::cm::{
    filled_up, reason, sidr_status, Accept, Addressing, Answer, Connect, Find, Manager, Peer,
    Refused,
};
use crate::device::{limits, CmOwner, Result};
use crate::transport::Path;

/// What a program passes, with its private data.
struct Parameters {
    raw: ffi::rdma_conn_param,
    private_data: Vec<u8>,
}

/// What is asked for unless the program says otherwise.
const MOST_RETRIES: u8 = 7;

/// The options of a vendor that does not want those of the other side: a reason of the specification.
const VENDOR_OPTION_NOT_SUPPORTED: u16 = 35;

/// # Safety
///
/// It is null, or points to parameters with as much private data as they say.
unsafe fn read(param: *const ffi::rdma_conn_param) -> Option<Parameters> {
    if param.is_null() {
        return None;
    }
    // SAFETY: by the caller's promise.
    let raw = unsafe { param.read() };
    // SAFETY: by the caller's promise.
    let private_data = unsafe { bytes(raw.private_data, raw.private_data_len.into()) };
    Some(Parameters { raw, private_data })
}

/// # Safety
///
/// It is null, or points to so many bytes.
pub(super) unsafe fn bytes(data: *const c_void, len: usize) -> Vec<u8> {
    if data.is_null() || len == 0 {
        return Vec::new();
    }
    // SAFETY: by the caller's promise.
    unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) }.to_vec()
}

/// Whether the device can do as much as is asked for.
fn check(id: &Id, param: Option<&Parameters>) -> Result<()> {
    if id.ps() != ffi::RDMA_PS_TCP {
        return Ok(());
    }
    let Some(Parameters { raw, .. }) = param else {
        return if id.qp().is_null() { Err(Errno::INVAL) } else { Ok(()) };
    };
    let most = |value: u8, any| u32::from(value) == any || value <= limits::MAX_RD_ATOMIC;
    let good = most(raw.responder_resources, ffi::RDMA_MAX_RESP_RES)
        && most(raw.initiator_depth, ffi::RDMA_MAX_INIT_DEPTH);
    if good {
        Ok(())
    } else {
        Err(Errno::INVAL)
    }
}

/// What this side says of its queue pair.
fn local(id: &Id, state: &IdState, param: Option<&Parameters>, vendor_id: u32) -> Peer {
    let (retry_count, rnr_retry_count) = param.map_or((MOST_RETRIES, MOST_RETRIES), |param| {
        (param.raw.retry_count.min(MOST_RETRIES), param.raw.rnr_retry_count.min(MOST_RETRIES))
    });
    let (qpn, srq) = match id.qp() {
        qp if qp.is_null() => {
            param.map_or((0, false), |param| (param.raw.qp_num, param.raw.srq != 0))
        }
        qp => {
            // SAFETY: the queue pair of an identifier is alive, and nobody writes to these fields.
            let qp = unsafe { &*qp };
            (qp.qp_num, !qp.srq.is_null())
        }
    };
    Peer {
        qpn,
        responder_resources: state.responder_resources,
        initiator_depth: state.initiator_depth,
        flow_control: param.is_some_and(|param| param.raw.flow_control != 0),
        retry_count,
        rnr_retry_count,
        srq,
        vendor_id,
        options: state.local_ece.1,
    }
}

/// The program's private data, behind what the endpoint has.
fn private_data(state: &IdState, param: Option<&Parameters>) -> Vec<u8> {
    let mut data = state.connect_data.clone();
    data.extend(param.map_or(&[][..], |param| &param.private_data));
    data
}

pub(super) unsafe extern "C" fn connect(
    raw: *mut ffi::rdma_cm_id,
    param: *mut ffi::rdma_conn_param,
) -> c_int {
    // SAFETY: the identifier is alive (rdma_connect(3)).
    let id = unsafe { id(raw) };
    // SAFETY: null, or parameters (rdma_connect(3)).
    let param = unsafe { read(param) };
    minus_one(check(id, param.as_ref()).and_then(|()| {
        ask(id, param.as_ref())?;
        complete(id)
    }))
}

fn ask(id: &Id, param: Option<&Parameters>) -> Result<()> {
    let mut state = id.state();
    let state = &mut *state;
    let (Stage::RouteResolved, Some(device), Some(src), Some(dst)) =
        (state.stage, &state.device, state.src, state.dst)
    else {
        return Err(Errno::INVAL);
    };
    let own = |value: Option<u8>, any: u32| match value {
        Some(value) if u32::from(value) != any => value,
        _ => limits::MAX_RD_ATOMIC,
    };
    state.initiator_depth =
        own(param.map(|param| param.raw.initiator_depth), ffi::RDMA_MAX_INIT_DEPTH);
    state.responder_resources =
        own(param.map(|param| param.raw.responder_resources), ffi::RDMA_MAX_RESP_RES);
    let addressing = Addressing { source: src.ip(), port: src.port(), dest: dst.ip() };
    let data = private_data(state, param);
    let path = Path {
        source: src.ip(),
        dest: dst.ip(),
        traffic_class: state.traffic_class,
        hop_limit: HOP_LIMIT,
        flow_label: 0,
    };
    let service_id = service_id(id.ps(), dst.port());
    let owner = std::sync::Arc::clone(&id.owner);
    let connection = if id.is_datagram() {
        let private_data = addressing.emit(&data).ok_or(Errno::INVAL)?;
        let find = Find { path, service_id, private_data };
        device.device().with_cm(|cm, now| cm.find(now, find, owner))
    } else {
        let connect = Connect {
            path,
            mtu: mtu_number(device.device().mtu()) as u8,
            ack_timeout: state.options.ack_timeout.unwrap_or(ACK_TIMEOUT),
            service_id,
            local: local(id, state, param, state.local_ece.0),
            starting_psn: state.psn,
            private_data: addressing.emit(&data).ok_or(Errno::INVAL)?,
        };
        device.device().with_cm(|cm, now| cm.connect(now, connect, owner))
    };
    state.connection = Some(connection?);
    state.stage = Stage::Connecting;
    state.connect_data = Vec::new();
    Ok(())
}

pub(super) unsafe extern "C" fn accept(
    raw: *mut ffi::rdma_cm_id,
    param: *mut ffi::rdma_conn_param,
) -> c_int {
    // SAFETY: the identifier is alive (rdma_accept(3)).
    let id = unsafe { id(raw) };
    // SAFETY: null, or parameters (rdma_accept(3)).
    let param = unsafe { read(param) };
    minus_one(check(id, param.as_ref()).and_then(|()| {
        if id.is_datagram() {
            answer(id, param.as_ref())?;
            if id.state().sync {
                super::id::acknowledge_own(id);
            }
            return Ok(());
        }
        reply(id, param.as_ref())?;
        complete(id)
    }))
}

fn answer(id: &Id, param: Option<&Parameters>) -> Result<()> {
    let state = id.state();
    let data = private_data(&state, param);
    let qpn = local(id, &state, param, 0).qpn;
    let Some(private_data) = filled_up(&data) else {
        let _ = with_connection(&state, |cm, _, it| cm.answer(it, rejection([0; 136])));
        return Err(Errno::INVAL);
    };
    let answer = Answer { status: sidr_status::SUCCESS, qpn, qkey: QKEY, private_data };
    with_connection(&state, |cm, _, it| cm.answer(it, answer))
}

fn rejection(private_data: [u8; 136]) -> Answer {
    Answer { status: sidr_status::REJECTED, qpn: 0, qkey: 0, private_data }
}

fn reply(id: &Id, param: Option<&Parameters>) -> Result<()> {
    let (responder_resources, initiator_depth) = {
        let mut state = id.state();
        let least = |asked: Option<u8>, any: u32, offered: u8| match asked {
            Some(value) if u32::from(value) != any => value,
            _ => offered.min(limits::MAX_RD_ATOMIC),
        };
        let depth = param.map(|param| param.raw.initiator_depth);
        let resources = param.map(|param| param.raw.responder_resources);
        state.initiator_depth = least(depth, ffi::RDMA_MAX_INIT_DEPTH, state.initiator_depth);
        state.responder_resources =
            least(resources, ffi::RDMA_MAX_RESP_RES, state.responder_resources);
        (state.responder_resources, state.initiator_depth)
    };
    bring_up(id, Some(responder_resources), Some(initiator_depth))?;
    let replied = send_reply(id, param);
    if replied.is_err() {
        fail(id);
    }
    replied
}

fn send_reply(id: &Id, param: Option<&Parameters>) -> Result<()> {
    let state = id.state();
    let data = private_data(&state, param);
    let Some(private_data) = filled_up(&data) else {
        // As the kernel: then it is rejected.
        let _ = with_connection(&state, |cm, _, it| cm.reject(it, reason::CONSUMER, [0; 148]));
        return Err(Errno::INVAL);
    };
    let accept = Accept {
        local: local(id, &state, param, state.remote_ece.0),
        starting_psn: state.psn,
        private_data,
    };
    with_connection(&state, |cm, now, it| cm.accept(now, it, accept))
}

/// Does something with the connection of an identifier; `EINVAL` if there is none, or that makes no sense.
fn with_connection(
    state: &IdState,
    change: impl FnOnce(
        &mut Manager<std::sync::Arc<CmOwner>>,
        std::time::Instant,
        u32,
    ) -> std::result::Result<(), Refused>,
) -> Result<()> {
    let (Some(device), Some(connection)) = (&state.device, state.connection) else {
        return Err(Errno::INVAL);
    };
    device.device().with_cm(|cm, now| change(cm, now, connection))?.map_err(|refused| match refused
    {
        Refused::State => Errno::INVAL,
        Refused::Established => Errno::ISCONN,
    })
}

/// Connects the queue pair of an identifier, if it has one: through its states until it is ready to send.
pub(super) fn bring_up(
    id: &Id,
    responder_resources: Option<u8>,
    initiator_depth: Option<u8>,
) -> Result<()> {
    let qp = id.qp();
    if qp.is_null() {
        return Ok(());
    }
    for to in [ffi::IBV_QPS_INIT, ffi::IBV_QPS_RTR, ffi::IBV_QPS_RTS] {
        let (mut attr, mask) = attributes(id, to)?;
        match to {
            ffi::IBV_QPS_RTR => {
                attr.max_dest_rd_atomic = responder_resources.unwrap_or(attr.max_dest_rd_atomic);
            }
            ffi::IBV_QPS_RTS => {
                attr.max_rd_atomic = initiator_depth.unwrap_or(attr.max_rd_atomic);
            }
            _ => {}
        }
        modify(qp, &mut attr, mask)?;
    }
    Ok(())
}

pub(super) fn modify(qp: *mut ffi::ibv_qp, attr: &mut ffi::ibv_qp_attr, mask: c_int) -> Result<()> {
    // SAFETY: the queue pair of an identifier is alive, and the attributes are whole.
    match unsafe { modify_qp(qp, attr, mask) } {
        0 => Ok(()),
        error => Err(Errno::from_raw_os_error(error)),
    }
}

/// Lets the queue pair of an identifier fail, if it has one.
pub(super) fn fail(id: &Id) {
    let mut attr = ffi::ibv_qp_attr { qp_state: ffi::IBV_QPS_ERR, ..Default::default() };
    if !id.qp().is_null() {
        // From any state.
        let _ = modify(id.qp(), &mut attr, ffi::IBV_QP_STATE as c_int);
    }
}

/// Tells the peer, who has accepted, that this side is ready.
pub(super) fn confirm(id: &Id) -> Result<()> {
    with_connection(&id.state(), |cm, _, it| cm.confirm(it))
}

pub(super) unsafe extern "C" fn establish(raw: *mut ffi::rdma_cm_id) -> c_int {
    // SAFETY: the identifier is alive (rdma_establish(3)).
    let id = unsafe { id(raw) };
    if !id.qp().is_null() {
        return minus_one(Err(Errno::INVAL));
    }
    minus_one(confirm(id))
}

pub(super) unsafe extern "C" fn reject(
    raw: *mut ffi::rdma_cm_id,
    data: *const c_void,
    len: u8,
) -> c_int {
    // SAFETY: as rdma_reject(3) demands.
    minus_one(unsafe { reject_for(raw, data, len, reason::CONSUMER) })
}

pub(super) unsafe extern "C" fn reject_ece(
    raw: *mut ffi::rdma_cm_id,
    data: *const c_void,
    len: u8,
) -> c_int {
    // SAFETY: as rdma_reject(3) demands.
    minus_one(unsafe { reject_for(raw, data, len, VENDOR_OPTION_NOT_SUPPORTED) })
}

/// # Safety
///
/// The identifier is alive, and the data null or as long as is said.
unsafe fn reject_for(
    raw: *mut ffi::rdma_cm_id,
    data: *const c_void,
    len: u8,
    reason: u16,
) -> Result<()> {
    // SAFETY: by the caller's promise.
    let id = unsafe { id(raw) };
    // SAFETY: by the caller's promise.
    let data = unsafe { bytes(data, len.into()) };
    let state = id.state();
    if id.is_datagram() {
        let answer = rejection(filled_up(&data).ok_or(Errno::INVAL)?);
        return with_connection(&state, |cm, _, it| cm.answer(it, answer));
    }
    let data = filled_up(&data).ok_or(Errno::INVAL)?;
    with_connection(&state, |cm, _, it| cm.reject(it, reason, data))
}

pub(super) unsafe extern "C" fn disconnect(raw: *mut ffi::rdma_cm_id) -> c_int {
    // SAFETY: the identifier is alive (rdma_disconnect(3)).
    let id = unsafe { id(raw) };
    if id.verbs().is_null() {
        return minus_one(Err(Errno::INVAL));
    }
    fail(id);
    let disconnected = with_connection(&id.state(), |cm, now, it| {
        cm.disconnect(now, it);
        Ok(())
    });
    minus_one(disconnected.and_then(|()| complete(id)))
}

pub(super) unsafe extern "C" fn notify(
    raw: *mut ffi::rdma_cm_id,
    event: ffi::ibv_event_type,
) -> c_int {
    // SAFETY: the identifier is alive (rdma_notify(3)).
    let id = unsafe { id(raw) };
    minus_one(match event {
        ffi::IBV_EVENT_COMM_EST => with_connection(&id.state(), |cm, _, it| cm.notice_data(it)),
        _ => Err(Errno::INVAL),
    })
}
