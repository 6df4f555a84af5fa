//! Names of values, and rates as numbers.

use std::ffi::{c_char, c_int};

use ibverbs_sys as ffi;

/// Functions that name the values of a C enum.
macro_rules! names {
    ($(
        $(#[$doc:meta])*
        fn $function:ident($value:ident: $type:ty) { $($known:path => $name:literal,)* }
    )*) => {
        $(
            $(#[$doc])*
            pub(super) unsafe extern "C" fn $function($value: $type) -> *const c_char {
                match $value {
                    $($known => $name.as_ptr(),)*
                    _ => c"unknown".as_ptr(),
                }
            }
        )*
    };
}

names! {
    /// What a completion's status means.
    fn wc_status_str(value: ffi::ibv_wc_status) {
        ffi::IBV_WC_SUCCESS => c"success",
        ffi::IBV_WC_LOC_LEN_ERR => c"local length error",
        ffi::IBV_WC_LOC_QP_OP_ERR => c"local QP operation error",
        ffi::IBV_WC_LOC_EEC_OP_ERR => c"local EE context operation error",
        ffi::IBV_WC_LOC_PROT_ERR => c"local protection error",
        ffi::IBV_WC_WR_FLUSH_ERR => c"work request flushed",
        ffi::IBV_WC_MW_BIND_ERR => c"memory window bind error",
        ffi::IBV_WC_BAD_RESP_ERR => c"bad response error",
        ffi::IBV_WC_LOC_ACCESS_ERR => c"local access error",
        ffi::IBV_WC_REM_INV_REQ_ERR => c"remote invalid request error",
        ffi::IBV_WC_REM_ACCESS_ERR => c"remote access error",
        ffi::IBV_WC_REM_OP_ERR => c"remote operation error",
        ffi::IBV_WC_RETRY_EXC_ERR => c"transport retry count exceeded",
        ffi::IBV_WC_RNR_RETRY_EXC_ERR => c"RNR retry count exceeded",
        ffi::IBV_WC_LOC_RDD_VIOL_ERR => c"local RDD violation error",
        ffi::IBV_WC_REM_INV_RD_REQ_ERR => c"remote invalid RD request",
        ffi::IBV_WC_REM_ABORT_ERR => c"remote operation aborted",
        ffi::IBV_WC_INV_EECN_ERR => c"invalid EE context number",
        ffi::IBV_WC_INV_EEC_STATE_ERR => c"invalid EE context state",
        ffi::IBV_WC_FATAL_ERR => c"fatal error",
        ffi::IBV_WC_RESP_TIMEOUT_ERR => c"response timeout",
        ffi::IBV_WC_GENERAL_ERR => c"general error",
        ffi::IBV_WC_TM_ERR => c"tag matching error",
        ffi::IBV_WC_TM_RNDV_INCOMPLETE => c"rendezvous software must complete",
    }
    /// What an event of the connection manager is called.
    fn cm_event_str(value: ffi::rdma_cm_event_type) {
        ffi::RDMA_CM_EVENT_ADDR_RESOLVED => c"RDMA_CM_EVENT_ADDR_RESOLVED",
        ffi::RDMA_CM_EVENT_ADDR_ERROR => c"RDMA_CM_EVENT_ADDR_ERROR",
        ffi::RDMA_CM_EVENT_ROUTE_RESOLVED => c"RDMA_CM_EVENT_ROUTE_RESOLVED",
        ffi::RDMA_CM_EVENT_ROUTE_ERROR => c"RDMA_CM_EVENT_ROUTE_ERROR",
        ffi::RDMA_CM_EVENT_CONNECT_REQUEST => c"RDMA_CM_EVENT_CONNECT_REQUEST",
        ffi::RDMA_CM_EVENT_CONNECT_RESPONSE => c"RDMA_CM_EVENT_CONNECT_RESPONSE",
        ffi::RDMA_CM_EVENT_CONNECT_ERROR => c"RDMA_CM_EVENT_CONNECT_ERROR",
        ffi::RDMA_CM_EVENT_UNREACHABLE => c"RDMA_CM_EVENT_UNREACHABLE",
        ffi::RDMA_CM_EVENT_REJECTED => c"RDMA_CM_EVENT_REJECTED",
        ffi::RDMA_CM_EVENT_ESTABLISHED => c"RDMA_CM_EVENT_ESTABLISHED",
        ffi::RDMA_CM_EVENT_DISCONNECTED => c"RDMA_CM_EVENT_DISCONNECTED",
        ffi::RDMA_CM_EVENT_DEVICE_REMOVAL => c"RDMA_CM_EVENT_DEVICE_REMOVAL",
        ffi::RDMA_CM_EVENT_MULTICAST_JOIN => c"RDMA_CM_EVENT_MULTICAST_JOIN",
        ffi::RDMA_CM_EVENT_MULTICAST_ERROR => c"RDMA_CM_EVENT_MULTICAST_ERROR",
        ffi::RDMA_CM_EVENT_ADDR_CHANGE => c"RDMA_CM_EVENT_ADDR_CHANGE",
        ffi::RDMA_CM_EVENT_TIMEWAIT_EXIT => c"RDMA_CM_EVENT_TIMEWAIT_EXIT",
        ffi::RDMA_CM_EVENT_ADDRINFO_RESOLVED => c"RDMA_CM_EVENT_ADDRINFO_RESOLVED",
        ffi::RDMA_CM_EVENT_ADDRINFO_ERROR => c"RDMA_CM_EVENT_ADDRINFO_ERROR",
    }
    /// What kind of a device it is.
    fn node_type_str(value: ffi::ibv_node_type) {
        ffi::IBV_NODE_CA => c"InfiniBand channel adapter",
        ffi::IBV_NODE_SWITCH => c"InfiniBand switch",
        ffi::IBV_NODE_ROUTER => c"InfiniBand router",
        ffi::IBV_NODE_RNIC => c"iWARP network interface",
        ffi::IBV_NODE_USNIC => c"usNIC",
        ffi::IBV_NODE_USNIC_UDP => c"usNIC over UDP",
        ffi::IBV_NODE_UNSPECIFIED => c"unspecified",
    }
    /// What state a port is in.
    fn port_state_str(value: ffi::ibv_port_state) {
        ffi::IBV_PORT_NOP => c"no change of state",
        ffi::IBV_PORT_DOWN => c"down",
        ffi::IBV_PORT_INIT => c"initializing",
        ffi::IBV_PORT_ARMED => c"armed",
        ffi::IBV_PORT_ACTIVE => c"active",
        ffi::IBV_PORT_ACTIVE_DEFER => c"active, link lost",
    }
    /// What has happened.
    fn event_type_str(value: ffi::ibv_event_type) {
        ffi::IBV_EVENT_CQ_ERR => c"CQ error",
        ffi::IBV_EVENT_QP_FATAL => c"QP fatal error",
        ffi::IBV_EVENT_QP_REQ_ERR => c"QP invalid request",
        ffi::IBV_EVENT_QP_ACCESS_ERR => c"QP access violation",
        ffi::IBV_EVENT_COMM_EST => c"communication established",
        ffi::IBV_EVENT_SQ_DRAINED => c"send queue drained",
        ffi::IBV_EVENT_PATH_MIG => c"path migrated",
        ffi::IBV_EVENT_PATH_MIG_ERR => c"path migration failed",
        ffi::IBV_EVENT_DEVICE_FATAL => c"device fatal error",
        ffi::IBV_EVENT_PORT_ACTIVE => c"port active",
        ffi::IBV_EVENT_PORT_ERR => c"port error",
        ffi::IBV_EVENT_LID_CHANGE => c"LID changed",
        ffi::IBV_EVENT_PKEY_CHANGE => c"P_Key table changed",
        ffi::IBV_EVENT_SM_CHANGE => c"subnet manager changed",
        ffi::IBV_EVENT_SRQ_ERR => c"SRQ error",
        ffi::IBV_EVENT_SRQ_LIMIT_REACHED => c"SRQ limit reached",
        ffi::IBV_EVENT_QP_LAST_WQE_REACHED => c"last WQE reached",
        ffi::IBV_EVENT_CLIENT_REREGISTER => c"client reregistration asked for",
        ffi::IBV_EVENT_GID_CHANGE => c"GID table changed",
        ffi::IBV_EVENT_WQ_FATAL => c"WQ fatal error",
        ffi::IBV_EVENT_DEVICE_SPEED_CHANGE => c"device speed changed",
    }
}

/// A rate: its number in C, how often it has the base rate of 2.5 Gb/s, and its megabits per second. Some are no
/// multiple.
struct Rate {
    number: ffi::ibv_rate,
    mult: c_int,
    mbps: c_int,
}

const fn rate(number: ffi::ibv_rate, mult: c_int, mbps: c_int) -> Rate {
    Rate { number, mult, mbps }
}

/// What says that there is no such number.
const NONE: c_int = -1;

const RATES: &[Rate] = &[
    rate(ffi::IBV_RATE_2_5_GBPS, 1, 2500),
    rate(ffi::IBV_RATE_5_GBPS, 2, 5000),
    rate(ffi::IBV_RATE_10_GBPS, 4, 10_000),
    rate(ffi::IBV_RATE_20_GBPS, 8, 20_000),
    rate(ffi::IBV_RATE_30_GBPS, 12, 30_000),
    rate(ffi::IBV_RATE_40_GBPS, 16, 40_000),
    rate(ffi::IBV_RATE_60_GBPS, 24, 60_000),
    rate(ffi::IBV_RATE_80_GBPS, 32, 80_000),
    rate(ffi::IBV_RATE_120_GBPS, 48, 120_000),
    rate(ffi::IBV_RATE_14_GBPS, NONE, 14_062),
    rate(ffi::IBV_RATE_56_GBPS, NONE, 56_250),
    rate(ffi::IBV_RATE_112_GBPS, NONE, 112_500),
    rate(ffi::IBV_RATE_168_GBPS, NONE, 168_750),
    rate(ffi::IBV_RATE_25_GBPS, NONE, 25_781),
    rate(ffi::IBV_RATE_100_GBPS, NONE, 103_125),
    rate(ffi::IBV_RATE_200_GBPS, NONE, 206_250),
    rate(ffi::IBV_RATE_300_GBPS, NONE, 309_375),
    rate(ffi::IBV_RATE_28_GBPS, 11, 28_125),
    rate(ffi::IBV_RATE_50_GBPS, 20, 53_125),
    rate(ffi::IBV_RATE_400_GBPS, 160, 425_000),
    rate(ffi::IBV_RATE_600_GBPS, 240, 637_500),
    rate(ffi::IBV_RATE_800_GBPS, 320, 850_000),
    rate(ffi::IBV_RATE_1200_GBPS, 480, 1_275_000),
];

fn by_number(number: ffi::ibv_rate, read: impl Fn(&Rate) -> c_int) -> c_int {
    RATES.iter().find(|rate| rate.number == number).map_or(NONE, read)
}

fn by_value(value: c_int, read: impl Fn(&Rate) -> c_int) -> ffi::ibv_rate {
    let found = RATES.iter().find(|rate| value != NONE && read(rate) == value);
    found.map_or(ffi::IBV_RATE_MAX, |rate| rate.number)
}

pub(super) unsafe extern "C" fn rate_to_mult(rate: ffi::ibv_rate) -> c_int {
    by_number(rate, |rate| rate.mult)
}

pub(super) unsafe extern "C" fn mult_to_rate(mult: c_int) -> ffi::ibv_rate {
    by_value(mult, |rate| rate.mult)
}

pub(super) unsafe extern "C" fn rate_to_mbps(rate: ffi::ibv_rate) -> c_int {
    by_number(rate, |rate| rate.mbps)
}

pub(super) unsafe extern "C" fn mbps_to_rate(mbps: c_int) -> ffi::ibv_rate {
    by_value(mbps, |rate| rate.mbps)
}
