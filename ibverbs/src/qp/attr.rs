//! The attributes of a queue pair, for `modify` and `query`.

use std::fmt;

use bitflags::bitflags;

use super::state::QpState;
use super::timers::{AckTimeout, RnrTimer};
use crate::ah::AddressVector;
use crate::attr::Mtu;
use crate::ffi;
use crate::mr::AccessFlags;

bitflags! {
    /// Which attributes are meant (`enum ibv_qp_attr_mask`).
    #[doc(alias = "ibv_qp_attr_mask")]
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct QueuePairAttrMask: u32 {
        /// The state to go to.
        const STATE = ffi::IBV_QP_STATE;
        /// The state that the queue pair is assumed to be in.
        const CUR_STATE = ffi::IBV_QP_CUR_STATE;
        /// Whether an event tells that the send queue is drained.
        const EN_SQD_ASYNC_NOTIFY = ffi::IBV_QP_EN_SQD_ASYNC_NOTIFY;
        /// What the peer may do.
        const ACCESS_FLAGS = ffi::IBV_QP_ACCESS_FLAGS;
        /// The index of the partition key.
        const PKEY_INDEX = ffi::IBV_QP_PKEY_INDEX;
        /// The local port.
        const PORT = ffi::IBV_QP_PORT;
        /// The queue key of a datagram queue pair.
        const QKEY = ffi::IBV_QP_QKEY;
        /// The route to the peer.
        const AV = ffi::IBV_QP_AV;
        /// The path MTU.
        const PATH_MTU = ffi::IBV_QP_PATH_MTU;
        /// The acknowledgement timeout.
        const TIMEOUT = ffi::IBV_QP_TIMEOUT;
        /// How often a packet is sent again without an acknowledgement.
        const RETRY_CNT = ffi::IBV_QP_RETRY_CNT;
        /// How often a message is sent again to a peer that was not ready.
        const RNR_RETRY = ffi::IBV_QP_RNR_RETRY;
        /// The first packet sequence number to receive.
        const RQ_PSN = ffi::IBV_QP_RQ_PSN;
        /// How many reads and atomics may be under way from here.
        const MAX_RD_ATOMIC = ffi::IBV_QP_MAX_QP_RD_ATOMIC;
        /// The alternate path. It has no accessor here: see [`QueuePairAttr::as_raw`].
        const ALT_PATH = ffi::IBV_QP_ALT_PATH;
        /// How long a peer that finds no receive should wait.
        const MIN_RNR_TIMER = ffi::IBV_QP_MIN_RNR_TIMER;
        /// The first packet sequence number to send.
        const SQ_PSN = ffi::IBV_QP_SQ_PSN;
        /// How many reads and atomics may be under way towards here.
        const MAX_DEST_RD_ATOMIC = ffi::IBV_QP_MAX_DEST_RD_ATOMIC;
        /// The state of path migration. It has no accessor here: see [`QueuePairAttr::as_raw`].
        const PATH_MIG_STATE = ffi::IBV_QP_PATH_MIG_STATE;
        /// The capacities of the queues, which [`QueuePair::capacity`](crate::QueuePair::capacity) tells.
        const CAP = ffi::IBV_QP_CAP;
        /// The number of the remote queue pair.
        const DEST_QPN = ffi::IBV_QP_DEST_QPN;
        /// The rate limit.
        const RATE_LIMIT = ffi::IBV_QP_RATE_LIMIT;
    }
}

/// Attributes of a queue pair (`struct ibv_qp_attr`), with the knowledge which of them are set.
///
/// # Examples
///
/// ```
/// use ibverbs::{QpState, QueuePairAttr};
///
/// let attr = QueuePairAttr::new().set_state(QpState::INIT).set_pkey_index(0).set_port(1);
/// assert_eq!(attr.port(), Some(1));
/// assert_eq!(attr.path_mtu(), None);
/// ```
#[doc(alias = "ibv_qp_attr")]
#[derive(Clone, Copy, Default)]
pub struct QueuePairAttr {
    raw: ffi::ibv_qp_attr,
    mask: QueuePairAttrMask,
}

macro_rules! accessors {
    ($(
        $(#[$meta:meta])*
        $flag:ident: $get:ident, $set:ident, $type:ty = $raw:ident.$($field:ident).+,
        $from_raw:expr, $to_raw:expr;
    )*) => {
        impl QueuePairAttr {
            $(
                $(#[$meta])*
                /// `None` if it is not set.
                pub fn $get(&self) -> Option<$type> {
                    let $raw = &self.raw;
                    self.mask.contains(QueuePairAttrMask::$flag).then(|| ($from_raw)($raw.$($field).+))
                }

                #[doc = concat!("Sets what [`", stringify!($get), "`](Self::", stringify!($get), ") returns.")]
                pub fn $set(mut self, value: $type) -> Self {
                    let $raw = &mut self.raw;
                    $raw.$($field).+ = ($to_raw)(value);
                    self.mask |= QueuePairAttrMask::$flag;
                    self
                }
            )*
        }

        impl fmt::Debug for QueuePairAttr {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut s = f.debug_struct("QueuePairAttr");
                $(
                    if let Some(value) = self.$get() {
                        s.field(stringify!($get), &value);
                    }
                )*
                s.finish_non_exhaustive()
            }
        }
    };
}

fn same<T>(value: T) -> T {
    value
}

accessors! {
    /// The state to go to, or that the queue pair is in.
    STATE: state, set_state, QpState = raw.qp_state, QpState, |state: QpState| state.0;
    /// The state that the queue pair is assumed to be in.
    CUR_STATE: cur_state, set_cur_state, QpState = raw.cur_qp_state, QpState, |state: QpState| state.0;
    /// What the peer may do: the remote rights of the flags count.
    ACCESS_FLAGS: access, set_access, AccessFlags = raw.qp_access_flags,
        AccessFlags::from_bits_retain, |access: AccessFlags| access.bits();
    /// The index of the partition key in the port's table.
    PKEY_INDEX: pkey_index, set_pkey_index, u16 = raw.pkey_index, same, same;
    /// The local port, from 1.
    PORT: port, set_port, u8 = raw.port_num, same, same;
    /// The queue key of a datagram queue pair.
    QKEY: qkey, set_qkey, u32 = raw.qkey, same, same;
    /// The route to the peer.
    AV: address, set_address, AddressVector = raw.ah_attr,
        |raw: ffi::ibv_ah_attr| AddressVector::from_raw(&raw), AddressVector::to_raw;
    /// The path MTU.
    PATH_MTU: path_mtu, set_path_mtu, Mtu = raw.path_mtu, Mtu, |mtu: Mtu| mtu.0;
    /// The acknowledgement timeout.
    TIMEOUT: timeout, set_timeout, AckTimeout = raw.timeout,
        |n: u8| AckTimeout::from_exponent(n & 31).unwrap_or_default(), AckTimeout::exponent;
    /// How often a packet is sent again without an acknowledgement, 0 to 7.
    RETRY_CNT: retry_count, set_retry_count, u8 = raw.retry_cnt, same, same;
    /// How often a message is sent again to a peer that was not ready, 0 to 6; 7 means without end.
    RNR_RETRY: rnr_retry, set_rnr_retry, u8 = raw.rnr_retry, same, same;
    /// The first packet sequence number to receive, 24 bits.
    RQ_PSN: rq_psn, set_rq_psn, u32 = raw.rq_psn, same, same;
    /// The first packet sequence number to send, 24 bits.
    SQ_PSN: sq_psn, set_sq_psn, u32 = raw.sq_psn, same, same;
    /// How many reads and atomics may be under way from here.
    MAX_RD_ATOMIC: max_rd_atomic, set_max_rd_atomic, u8 = raw.max_rd_atomic, same, same;
    /// How many reads and atomics may be under way towards here.
    MAX_DEST_RD_ATOMIC: max_dest_rd_atomic, set_max_dest_rd_atomic, u8 = raw.max_dest_rd_atomic, same, same;
    /// How long a peer that finds no receive should wait.
    MIN_RNR_TIMER: min_rnr_timer, set_min_rnr_timer, RnrTimer = raw.min_rnr_timer,
        |code: u8| RnrTimer::from_code(code & 31).unwrap_or_default(), RnrTimer::code;
    /// The number of the remote queue pair, 24 bits.
    DEST_QPN: dest_qp_num, set_dest_qp_num, u32 = raw.dest_qp_num, same, same;
    /// Whether an event tells that the send queue is drained.
    EN_SQD_ASYNC_NOTIFY: sqd_async_notify, set_sqd_async_notify, bool = raw.en_sqd_async_notify,
        |notify: u8| notify != 0, u8::from;
    /// The rate limit, in kilobits per second; 0 for none.
    RATE_LIMIT: rate_limit, set_rate_limit, u32 = raw.rate_limit, same, same;
}

impl QueuePairAttr {
    /// Attributes of which none is set.
    pub fn new() -> QueuePairAttr {
        QueuePairAttr::default()
    }

    pub(crate) fn from_raw(raw: ffi::ibv_qp_attr, mask: QueuePairAttrMask) -> QueuePairAttr {
        QueuePairAttr { raw, mask }
    }

    /// Whether a queue pair that was asked for [`QpState::SQD`] is still draining its send queue. Comes
    /// with [`QueuePairAttrMask::STATE`] from a query.
    pub fn sq_draining(&self) -> Option<bool> {
        self.mask.contains(QueuePairAttrMask::STATE).then_some(self.raw.sq_draining != 0)
    }

    /// Which attributes are set.
    pub fn mask(&self) -> QueuePairAttrMask {
        self.mask
    }

    /// The C structure. What is not in [`mask`](Self::mask) means nothing.
    pub fn as_raw(&self) -> &ffi::ibv_qp_attr {
        &self.raw
    }
}
