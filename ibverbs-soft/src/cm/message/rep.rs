//! The reply that accepts a connection (REP).

use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Layout;
use crate::wire::U24;

/// The reply that accepts a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rep {
    /// The number by which the sender knows the connection.
    pub local_id: u32,
    /// The number by which the receiver does.
    pub remote_id: u32,
    /// The vendor whose options the modifier has: 24 bits.
    pub vendor_id: u32,
    /// The sender's queue pair: 24 bits.
    pub local_qpn: u32,
    /// The sequence number that the receiver is to begin with: 24 bits.
    pub starting_psn: u32,
    /// How many reads and atomics the sender answers at a time.
    pub responder_resources: u8,
    /// How many it begins at a time.
    pub initiator_depth: u8,
    /// Whether there is end-to-end flow control.
    pub flow_control: bool,
    /// How often packets are sent again when there was no receive: 3 bits.
    pub rnr_retry_count: u8,
    /// Whether the queue pair has a shared receive queue.
    pub srq: bool,
    /// The GUID of the sender's device.
    pub local_ca_guid: u64,
    /// What the programs make of it.
    pub private_data: [u8; Rep::PRIVATE_DATA],
}

impl Rep {
    /// How much private data there is.
    pub const PRIVATE_DATA: usize = 196;
}

/// Its bytes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RepBytes {
    local_id: U32,
    remote_id: U32,
    local_qkey: U32,
    local_qpn: U24,
    vendor_id_high: u8,
    local_eecn: U24,
    vendor_id_middle: u8,
    starting_psn: U24,
    vendor_id_low: u8,
    responder_resources: u8,
    initiator_depth: u8,
    /// The target's delay (5 bits), whether failing over is accepted (2), and flow control.
    delay_failover_flow: u8,
    /// The RNR retry count (3 bits), the shared receive queue, and 4 that are reserved.
    rnr_retries_srq: u8,
    local_ca_guid: U64,
    private_data: [u8; Rep::PRIVATE_DATA],
}

impl Layout for RepBytes {}

impl From<&Rep> for RepBytes {
    fn from(rep: &Rep) -> RepBytes {
        let [_, high, middle, low] = rep.vendor_id.to_be_bytes();
        RepBytes {
            local_id: rep.local_id.into(),
            remote_id: rep.remote_id.into(),
            local_qkey: U32::ZERO,
            local_qpn: U24::new(rep.local_qpn),
            vendor_id_high: high,
            local_eecn: U24::new(0),
            vendor_id_middle: middle,
            starting_psn: U24::new(rep.starting_psn),
            vendor_id_low: low,
            responder_resources: rep.responder_resources,
            initiator_depth: rep.initiator_depth,
            delay_failover_flow: u8::from(rep.flow_control),
            rnr_retries_srq: rep.rnr_retry_count << 5 | u8::from(rep.srq) << 4,
            local_ca_guid: rep.local_ca_guid.into(),
            private_data: rep.private_data,
        }
    }
}

impl From<&RepBytes> for Rep {
    fn from(bytes: &RepBytes) -> Rep {
        let vendor_id = [0, bytes.vendor_id_high, bytes.vendor_id_middle, bytes.vendor_id_low];
        Rep {
            local_id: bytes.local_id.get(),
            remote_id: bytes.remote_id.get(),
            vendor_id: u32::from_be_bytes(vendor_id),
            local_qpn: bytes.local_qpn.get(),
            starting_psn: bytes.starting_psn.get(),
            responder_resources: bytes.responder_resources,
            initiator_depth: bytes.initiator_depth,
            flow_control: bytes.delay_failover_flow & 1 != 0,
            rnr_retry_count: bytes.rnr_retries_srq >> 5,
            srq: bytes.rnr_retries_srq >> 4 & 1 != 0,
            local_ca_guid: bytes.local_ca_guid.get(),
            private_data: bytes.private_data,
        }
    }
}
