//! The path that a request proposes.

use std::net::{IpAddr, Ipv6Addr};

use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A path, from the sender's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathRecord {
    /// The sender's address.
    pub local: IpAddr,
    /// The receiver's.
    pub remote: IpAddr,
    /// The flow label: 20 bits.
    pub flow_label: u32,
    /// The traffic class.
    pub traffic_class: u8,
    /// The hop limit.
    pub hop_limit: u8,
    /// The encoded time within which the sender expects acknowledgements: 5 bits.
    pub ack_timeout: u8,
}

/// Its bytes.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct PathBytes {
    local_lid: U16,
    remote_lid: U16,
    local_gid: [u8; 16],
    remote_gid: [u8; 16],
    /// The flow label (20 bits), 6 that are reserved, and the packet rate (6).
    flow_label_rate: U32,
    traffic_class: u8,
    hop_limit: u8,
    /// The service level (4 bits), whether it is within the subnet, and 3 that are reserved.
    service_level: u8,
    /// The timeout (5 bits), and 3 that are reserved.
    ack_timeout: u8,
}

const FLOW_LABEL: u32 = 0xf_ffff;
/// Ethernet has no LIDs.
const PERMISSIVE_LID: u16 = 0xffff;
/// 40 Gb/s, as the port says.
const RATE: u32 = 7;

/// An address as a GID.
fn gid(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
        IpAddr::V6(addr) => addr.octets(),
    }
}

impl PathBytes {
    /// That there is none.
    pub(super) const NONE: PathBytes = PathBytes {
        local_lid: U16::ZERO,
        remote_lid: U16::ZERO,
        local_gid: [0; 16],
        remote_gid: [0; 16],
        flow_label_rate: U32::ZERO,
        traffic_class: 0,
        hop_limit: 0,
        service_level: 0,
        ack_timeout: 0,
    };
}

impl From<&PathRecord> for PathBytes {
    fn from(path: &PathRecord) -> PathBytes {
        PathBytes {
            local_lid: PERMISSIVE_LID.into(),
            remote_lid: PERMISSIVE_LID.into(),
            local_gid: gid(path.local),
            remote_gid: gid(path.remote),
            flow_label_rate: ((path.flow_label & FLOW_LABEL) << 12 | RATE).into(),
            traffic_class: path.traffic_class,
            hop_limit: path.hop_limit,
            service_level: 0,
            ack_timeout: path.ack_timeout << 3,
        }
    }
}

impl From<&PathBytes> for PathRecord {
    fn from(bytes: &PathBytes) -> PathRecord {
        PathRecord {
            local: Ipv6Addr::from(bytes.local_gid).to_canonical(),
            remote: Ipv6Addr::from(bytes.remote_gid).to_canonical(),
            flow_label: bytes.flow_label_rate.get() >> 12,
            traffic_class: bytes.traffic_class,
            hop_limit: bytes.hop_limit,
            ack_timeout: bytes.ack_timeout >> 3,
        }
    }
}
