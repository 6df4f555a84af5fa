//! The request for a connection (REQ).

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::path::PathBytes;
use super::{Layout, PathRecord};
use crate::wire::U24;

/// A request for a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Req {
    /// The number by which the sender knows the connection.
    pub local_id: u32,
    /// The vendor whose options the modifier has: 24 bits.
    pub vendor_id: u32,
    /// What is asked for.
    pub service_id: u64,
    /// The GUID of the sender's device.
    pub local_ca_guid: u64,
    /// The sender's queue pair: 24 bits.
    pub local_qpn: u32,
    /// How many reads and atomics the sender answers at a time.
    pub responder_resources: u8,
    /// How many it begins at a time.
    pub initiator_depth: u8,
    /// The encoded time in which the sender expects an answer: 5 bits.
    pub remote_response_timeout: u8,
    /// The encoded time in which the sender answers: 5 bits.
    pub local_response_timeout: u8,
    /// The transport service: 0 for reliable connections.
    pub transport: u8,
    /// Whether there is end-to-end flow control.
    pub flow_control: bool,
    /// The sequence number that the receiver is to begin with: 24 bits.
    pub starting_psn: u32,
    /// How often packets are sent again: 3 bits.
    pub retry_count: u8,
    /// The partition.
    pub pkey: u16,
    /// The path MTU, encoded as in `enum ibv_mtu`: 4 bits.
    pub mtu: u8,
    /// How often packets are sent again when there was no receive: 3 bits.
    pub rnr_retry_count: u8,
    /// How often messages of the connection manager are sent again: 4 bits.
    pub max_cm_retries: u8,
    /// Whether the queue pair has a shared receive queue.
    pub srq: bool,
    /// The path.
    pub path: PathRecord,
    /// What the programs make of it.
    pub private_data: [u8; Req::PRIVATE_DATA],
}

impl Req {
    /// How much private data there is.
    pub const PRIVATE_DATA: usize = 92;
}

/// Its bytes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct ReqBytes {
    local_id: U32,
    reserved: u8,
    vendor_id: U24,
    service_id: U64,
    local_ca_guid: U64,
    more_reserved: U32,
    local_qkey: U32,
    local_qpn: U24,
    responder_resources: u8,
    local_eecn: U24,
    initiator_depth: u8,
    remote_eecn: U24,
    /// The remote response timeout (5 bits), the transport service (2) and flow control.
    timeout_transport_flow: u8,
    starting_psn: U24,
    /// The local response timeout (5 bits) and the retry count (3).
    timeout_retries: u8,
    pkey: U16,
    /// The MTU (4 bits), whether there is a reliable datagram channel, and the RNR retry count (3).
    mtu_rnr_retries: u8,
    /// The retries of this protocol (4 bits), the shared receive queue, and the extended transport (3).
    cm_retries_srq: u8,
    primary: PathBytes,
    alternate: PathBytes,
    private_data: [u8; Req::PRIVATE_DATA],
}

impl Layout for ReqBytes {}

impl From<&Req> for ReqBytes {
    fn from(req: &Req) -> ReqBytes {
        ReqBytes {
            local_id: req.local_id.into(),
            reserved: 0,
            vendor_id: U24::new(req.vendor_id),
            service_id: req.service_id.into(),
            local_ca_guid: req.local_ca_guid.into(),
            more_reserved: U32::ZERO,
            local_qkey: U32::ZERO,
            local_qpn: U24::new(req.local_qpn),
            responder_resources: req.responder_resources,
            local_eecn: U24::new(0),
            initiator_depth: req.initiator_depth,
            remote_eecn: U24::new(0),
            timeout_transport_flow: req.remote_response_timeout << 3
                | (req.transport & 0b11) << 1
                | u8::from(req.flow_control),
            starting_psn: U24::new(req.starting_psn),
            timeout_retries: req.local_response_timeout << 3 | req.retry_count & 0b111,
            pkey: req.pkey.into(),
            mtu_rnr_retries: req.mtu << 4 | req.rnr_retry_count & 0b111,
            cm_retries_srq: req.max_cm_retries << 4 | u8::from(req.srq) << 3,
            primary: (&req.path).into(),
            alternate: PathBytes::NONE,
            private_data: req.private_data,
        }
    }
}

impl From<&ReqBytes> for Req {
    fn from(bytes: &ReqBytes) -> Req {
        Req {
            local_id: bytes.local_id.get(),
            vendor_id: bytes.vendor_id.get(),
            service_id: bytes.service_id.get(),
            local_ca_guid: bytes.local_ca_guid.get(),
            local_qpn: bytes.local_qpn.get(),
            responder_resources: bytes.responder_resources,
            initiator_depth: bytes.initiator_depth,
            remote_response_timeout: bytes.timeout_transport_flow >> 3,
            local_response_timeout: bytes.timeout_retries >> 3,
            transport: bytes.timeout_transport_flow >> 1 & 0b11,
            flow_control: bytes.timeout_transport_flow & 1 != 0,
            starting_psn: bytes.starting_psn.get(),
            retry_count: bytes.timeout_retries & 0b111,
            pkey: bytes.pkey.get(),
            mtu: bytes.mtu_rnr_retries >> 4,
            rnr_retry_count: bytes.mtu_rnr_retries & 0b111,
            max_cm_retries: bytes.cm_retries_srq >> 4,
            srq: bytes.cm_retries_srq >> 3 & 1 != 0,
            path: (&bytes.primary).into(),
            private_data: bytes.private_data,
        }
    }
}
