//! The states and attributes of queue pairs: `ibv_modify_qp` and `ibv_query_qp`.

use std::ffi::c_int;

use ibverbs_sys as ffi;
use ibverbs_sys::transitions::rule;
use rustix::io::Errno;

use super::code;
use super::context::Shared;
use super::object::{locked, object};
use super::port::{mtu_bytes, mtu_number, PKEY, PORT};
use super::qp::Qp;
use super::route::resolve;
use crate::device::{limits, Result};
use crate::transport::{Attributes, Path, RemoteAccess, State};
use crate::wire::{Psn, Service};

/// Attributes that are only told again. Everything else is in the transport's [`Attributes`].
#[derive(Clone, Copy, Default)]
pub(super) struct Stored {
    address: ffi::ibv_ah_attr,
    access: u32,
    port: u8,
    drained_event: u8,
}

fn parse_state(number: ffi::ibv_qp_state) -> Option<State> {
    Some(match number {
        ffi::IBV_QPS_RESET => State::Reset,
        ffi::IBV_QPS_INIT => State::Init,
        ffi::IBV_QPS_RTR => State::ReadyToReceive,
        ffi::IBV_QPS_RTS => State::ReadyToSend,
        ffi::IBV_QPS_SQD => State::SendQueueDrain,
        ffi::IBV_QPS_SQE => State::SendQueueError,
        ffi::IBV_QPS_ERR => State::Error,
        _ => return None,
    })
}

fn state_number(state: State) -> ffi::ibv_qp_state {
    match state {
        State::Reset => ffi::IBV_QPS_RESET,
        State::Init => ffi::IBV_QPS_INIT,
        State::ReadyToReceive => ffi::IBV_QPS_RTR,
        State::ReadyToSend => ffi::IBV_QPS_RTS,
        State::SendQueueDrain => ffi::IBV_QPS_SQD,
        State::SendQueueError => ffi::IBV_QPS_SQE,
        State::Error => ffi::IBV_QPS_ERR,
    }
}

pub(super) unsafe extern "C" fn modify_qp(
    raw: *mut ffi::ibv_qp,
    attr: *mut ffi::ibv_qp_attr,
    mask: c_int,
) -> c_int {
    // SAFETY: the queue pair is alive (ibv_modify_qp(3)).
    let qp = unsafe { object::<Qp>(raw.cast()) };
    // SAFETY: it points to a whole structure (ibv_modify_qp(3)).
    let attr = unsafe { attr.read() };
    let result = modify(qp, &Change { attr, mask: mask as u32 });
    if let (Ok(()), true) = (&result, mask as u32 & ffi::IBV_QP_STATE != 0) {
        // SAFETY: the queue pair is alive; that nobody else is at the field is up to the program, as with libibverbs, which
        // stores the state here without a lock.
        unsafe { (*raw).state = attr.qp_state };
    }
    code(result)
}

/// What is to be changed.
struct Change {
    attr: ffi::ibv_qp_attr,
    mask: u32,
}

impl Change {
    fn has(&self, bit: ffi::ibv_qp_attr_mask) -> bool {
        self.mask & bit != 0
    }
}

/// The number of retries that is without end.
const FOR_EVER: u8 = 7;

fn modify(qp: &Qp, change: &Change) -> Result<()> {
    // The kernel is asked for a route here, since the device is locked below.
    let path = change.has(ffi::IBV_QP_AV).then(|| peer(&qp.domain.shared, &change.attr.ah_attr));
    qp.device().modify_qp(qp.number, &mut |state, attributes| {
        let to = next_state(qp, state, change)?;
        let starts = state == State::ReadyToReceive && to == State::ReadyToSend;
        check_values(change, qp.device().mtu())?;
        apply(change, path.transpose()?, attributes);
        if qp.service.is_datagram() {
            // There is no path to have one: a datagram is one packet, which may be as long as the port takes.
            attributes.path_mtu = qp.device().mtu();
        }
        if qp.service == Service::Srd && !change.has(ffi::IBV_QP_RNR_RETRY) && starts {
            // EFA waits for receivers for as long as it takes, unless it is told.
            attributes.rnr_retry = FOR_EVER;
        }
        Ok(to)
    })?;
    store(change, &mut locked(&qp.stored));
    Ok(())
}

/// The path to the peer of a connection, which is no multicast group.
fn peer(shared: &Shared, attr: &ffi::ibv_ah_attr) -> Result<Path> {
    let path = resolve(shared, attr)?;
    if path.dest.is_multicast() {
        return Err(Errno::INVAL);
    }
    Ok(path)
}

/// The state that is gone to, if there is such a transition from this one, with these attributes.
fn next_state(qp: &Qp, state: State, change: &Change) -> Result<State> {
    let from = state_number(state);
    if change.has(ffi::IBV_QP_CUR_STATE) && change.attr.cur_qp_state != from {
        return Err(Errno::INVAL);
    }
    let to = if change.has(ffi::IBV_QP_STATE) { change.attr.qp_state } else { from };
    let rule = rule(qp.init.qp_type, from, to).ok_or(Errno::INVAL)?;
    let allowed = rule.required | rule.optional | ffi::IBV_QP_STATE;
    if change.mask & !allowed != 0 || rule.required & !change.mask != 0 {
        return Err(Errno::INVAL);
    }
    parse_state(to).ok_or(Errno::INVAL)
}

/// Whether the values can be.
fn check_values(change: &Change, active_mtu: u32) -> Result<()> {
    let attr = &change.attr;
    const TIMER: u8 = 31;
    const COUNT: u8 = 7;
    const QP_NUM: u32 = 0xff_ffff;
    let good = [
        (ffi::IBV_QP_PORT, attr.port_num == PORT),
        (ffi::IBV_QP_PKEY_INDEX, attr.pkey_index == 0),
        (ffi::IBV_QP_PATH_MTU, mtu_bytes(attr.path_mtu).is_some_and(|mtu| mtu <= active_mtu)),
        (ffi::IBV_QP_DEST_QPN, attr.dest_qp_num <= QP_NUM),
        (ffi::IBV_QP_MAX_QP_RD_ATOMIC, attr.max_rd_atomic <= limits::MAX_RD_ATOMIC),
        (ffi::IBV_QP_MAX_DEST_RD_ATOMIC, attr.max_dest_rd_atomic <= limits::MAX_RD_ATOMIC),
        (ffi::IBV_QP_TIMEOUT, attr.timeout <= TIMER),
        (ffi::IBV_QP_MIN_RNR_TIMER, attr.min_rnr_timer <= TIMER),
        (ffi::IBV_QP_RETRY_CNT, attr.retry_cnt <= COUNT),
        (ffi::IBV_QP_RNR_RETRY, attr.rnr_retry <= COUNT),
        // Paths do not migrate.
        (ffi::IBV_QP_ALT_PATH, false),
        (ffi::IBV_QP_PATH_MIG_STATE, attr.path_mig_state == ffi::IBV_MIG_MIGRATED),
    ];
    if good.iter().all(|&(bit, good)| good || !change.has(bit)) {
        Ok(())
    } else {
        Err(Errno::INVAL)
    }
}

/// Changes what the transport knows.
fn apply(change: &Change, path: Option<Path>, to: &mut Attributes) {
    let Change { attr, .. } = change;
    if let Some(path) = path {
        to.path = Some(path);
    }
    macro_rules! apply {
        ($($bit:ident: $to:ident = $value:expr;)*) => {
            $( if change.has(ffi::$bit) { to.$to = $value; } )*
        };
    }
    apply! {
        IBV_QP_PKEY_INDEX: pkey = PKEY;
        IBV_QP_QKEY: qkey = attr.qkey;
        IBV_QP_ACCESS_FLAGS: access = remote_access(attr.qp_access_flags);
        IBV_QP_PATH_MTU: path_mtu = mtu_bytes(attr.path_mtu).unwrap_or(to.path_mtu);
        IBV_QP_DEST_QPN: dest_qp = attr.dest_qp_num;
        IBV_QP_RQ_PSN: rq_psn = Psn::new(attr.rq_psn);
        IBV_QP_SQ_PSN: sq_psn = Psn::new(attr.sq_psn);
        IBV_QP_MAX_DEST_RD_ATOMIC: max_dest_rd_atomic = attr.max_dest_rd_atomic;
        IBV_QP_MAX_QP_RD_ATOMIC: max_rd_atomic = attr.max_rd_atomic;
        IBV_QP_MIN_RNR_TIMER: min_rnr_timer = attr.min_rnr_timer;
        IBV_QP_TIMEOUT: timeout = attr.timeout;
        IBV_QP_RETRY_CNT: retry_count = attr.retry_cnt;
        IBV_QP_RNR_RETRY: rnr_retry = attr.rnr_retry;
    }
}

/// What peers may do. Other flags mean nothing to a queue pair.
fn remote_access(flags: u32) -> RemoteAccess {
    RemoteAccess {
        write: flags & ffi::IBV_ACCESS_REMOTE_WRITE != 0,
        read: flags & ffi::IBV_ACCESS_REMOTE_READ != 0,
        atomic: flags & ffi::IBV_ACCESS_REMOTE_ATOMIC != 0,
    }
}

fn store(change: &Change, to: &mut Stored) {
    let attr = &change.attr;
    if change.has(ffi::IBV_QP_STATE) && attr.qp_state == ffi::IBV_QPS_RESET {
        *to = Stored::default();
    }
    if change.has(ffi::IBV_QP_AV) {
        to.address = attr.ah_attr;
    }
    if change.has(ffi::IBV_QP_ACCESS_FLAGS) {
        to.access = attr.qp_access_flags;
    }
    if change.has(ffi::IBV_QP_PORT) {
        to.port = attr.port_num;
    }
    if change.has(ffi::IBV_QP_EN_SQD_ASYNC_NOTIFY) {
        to.drained_event = attr.en_sqd_async_notify;
    }
}

/// Everything is told, whatever was asked for.
pub(super) unsafe extern "C" fn query_qp(
    raw: *mut ffi::ibv_qp,
    to: *mut ffi::ibv_qp_attr,
    mask: c_int,
    to_init: *mut ffi::ibv_qp_init_attr,
) -> c_int {
    // SAFETY: the queue pair is alive (ibv_query_qp(3)).
    let qp = unsafe { object::<Qp>(raw.cast()) };
    // As libibverbs: nothing tells it.
    if mask as u32 & ffi::IBV_QP_RATE_LIMIT != 0 {
        return libc::EOPNOTSUPP;
    }
    let attr = match query(qp) {
        Ok(attr) => attr,
        Err(errno) => return errno.raw_os_error(),
    };
    // SAFETY: there is room for a structure (ibv_query_qp(3)).
    unsafe { to.write(attr) };
    // SAFETY: as above.
    unsafe { to_init.write(qp.init) };
    // SAFETY: as in `modify_qp`.
    unsafe { (*raw).state = attr.qp_state };
    0
}

fn query(qp: &Qp) -> Result<ffi::ibv_qp_attr> {
    let (state, draining, attributes) = qp.device().query_qp(qp.number)?;
    let stored = *locked(&qp.stored);
    let state = state_number(state);
    Ok(ffi::ibv_qp_attr {
        qp_state: state,
        cur_qp_state: state,
        path_mtu: if attributes.path_mtu == 0 { 0 } else { mtu_number(attributes.path_mtu) },
        path_mig_state: ffi::IBV_MIG_MIGRATED,
        qkey: attributes.qkey,
        rq_psn: attributes.rq_psn.get(),
        sq_psn: attributes.sq_psn.get(),
        dest_qp_num: attributes.dest_qp,
        qp_access_flags: stored.access,
        cap: *qp.cap(),
        ah_attr: stored.address,
        en_sqd_async_notify: stored.drained_event,
        sq_draining: draining.into(),
        max_rd_atomic: attributes.max_rd_atomic,
        max_dest_rd_atomic: attributes.max_dest_rd_atomic,
        min_rnr_timer: attributes.min_rnr_timer,
        port_num: stored.port,
        timeout: attributes.timeout,
        retry_cnt: attributes.retry_count,
        rnr_retry: attributes.rnr_retry,
        ..Default::default()
    })
}
