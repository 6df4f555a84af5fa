//! `Serialize` and `Deserialize` for what peers exchange (feature `serde`).
//!
//! A format that people read gets named fields, and addresses as text. Any other gets the bytes of
//! `to_bytes`, which carry a version and have one length. Either way a value is checked when it is read.

use std::net::Ipv6Addr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::device::Guid;
use crate::gid::Gid;
use crate::mr::RemoteMemorySlice;
use crate::qp::QueuePairEndpoint;

/// As an IPv6 address: text, or 16 bytes.
impl Serialize for Gid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Ipv6Addr::from(*self).serialize(serializer)
    }
}

/// From an IPv6 address: text, or 16 bytes.
impl<'de> Deserialize<'de> for Gid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Gid, D::Error> {
        Ipv6Addr::deserialize(deserializer).map(Gid::from)
    }
}

/// As the text of its `Display`, or as a number.
impl Serialize for Guid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.to_u64().serialize(serializer)
        }
    }
}

/// From the text of its `Display`, or from a number.
impl<'de> Deserialize<'de> for Guid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Guid, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
        } else {
            u64::deserialize(deserializer).map(Guid::new)
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename = "QueuePairEndpoint", deny_unknown_fields)]
struct EndpointFields {
    qp_num: u32,
    psn: u32,
    lid: u16,
    gid: Option<Gid>,
}

/// As `qp_num`, `psn`, `lid` and `gid`, or as the bytes of [`to_bytes`](QueuePairEndpoint::to_bytes).
impl Serialize for QueuePairEndpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            let (qp_num, psn, lid, gid) = (self.qp_num(), self.psn(), self.lid(), self.gid());
            EndpointFields { qp_num, psn, lid, gid }.serialize(serializer)
        } else {
            self.to_bytes().serialize(serializer)
        }
    }
}

/// Checked as by [`new`](QueuePairEndpoint::new), or by [`from_bytes`](QueuePairEndpoint::from_bytes).
impl<'de> Deserialize<'de> for QueuePairEndpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let endpoint = if deserializer.is_human_readable() {
            let EndpointFields { qp_num, psn, lid, gid } = Deserialize::deserialize(deserializer)?;
            QueuePairEndpoint::new(qp_num, psn, lid, gid)
        } else {
            let bytes = <[u8; QueuePairEndpoint::BYTES]>::deserialize(deserializer)?;
            QueuePairEndpoint::from_bytes(&bytes)
        };
        endpoint.map_err(D::Error::custom)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename = "RemoteMemorySlice", deny_unknown_fields)]
struct SliceFields {
    addr: u64,
    len: u64,
    rkey: u32,
}

/// As `addr`, `len` and `rkey`, or as the bytes of [`to_bytes`](RemoteMemorySlice::to_bytes).
impl Serialize for RemoteMemorySlice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            let RemoteMemorySlice { addr, len, rkey } = *self;
            SliceFields { addr, len, rkey }.serialize(serializer)
        } else {
            self.to_bytes().serialize(serializer)
        }
    }
}

/// Checked as by [`from_bytes`](RemoteMemorySlice::from_bytes).
impl<'de> Deserialize<'de> for RemoteMemorySlice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let slice = if deserializer.is_human_readable() {
            let SliceFields { addr, len, rkey } = Deserialize::deserialize(deserializer)?;
            RemoteMemorySlice::received(addr, len, rkey)
        } else {
            let bytes = <[u8; RemoteMemorySlice::BYTES]>::deserialize(deserializer)?;
            RemoteMemorySlice::from_bytes(&bytes)
        };
        slice.map_err(D::Error::custom)
    }
}
