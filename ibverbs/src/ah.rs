//! Where to send: the address of a remote port.

use std::mem::MaybeUninit;

use crate::ffi;
use crate::gid::Gid;

/// The path to a remote port (`struct ibv_ah_attr`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressVector {
    /// The local port to send from. Ports count from 1.
    pub port: u8,
    /// The remote port's local identifier. Means nothing on Ethernet.
    pub dlid: u16,
    /// The service level, 0 to 15; on Ethernet the priority, 0 to 7.
    pub service_level: u8,
    /// The low bits of the local identifier to send from.
    pub src_path_bits: u8,
    /// The static rate (`enum ibv_rate`); 0 for the port's own.
    pub static_rate: u8,
    /// The global route. Needed on Ethernet, and between InfiniBand subnets.
    pub grh: Option<GlobalRoute>,
}

/// The global part of an address (`struct ibv_global_route`): on RoCE v2, an IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlobalRoute {
    /// The remote port's GID.
    pub dgid: Gid,
    /// The flow label, 20 bits.
    pub flow_label: u32,
    /// The index of the local GID to send from.
    pub gid_index: u8,
    /// The hop limit: on RoCE v2, the time to live.
    pub hop_limit: u8,
    /// The traffic class: on RoCE v2, the type of service.
    pub traffic_class: u8,
}

impl AddressVector {
    pub(crate) fn to_raw(self) -> ffi::ibv_ah_attr {
        let mut raw = MaybeUninit::<ffi::ibv_ah_attr>::zeroed();
        // SAFETY: the structure is numbers and byte arrays, for which zero is valid.
        let raw_ref = unsafe { raw.assume_init_mut() };
        raw_ref.port_num = self.port;
        raw_ref.dlid = self.dlid;
        raw_ref.sl = self.service_level;
        raw_ref.src_path_bits = self.src_path_bits;
        raw_ref.static_rate = self.static_rate;
        if let Some(grh) = self.grh {
            raw_ref.is_global = 1;
            raw_ref.grh.dgid.raw = grh.dgid.into();
            raw_ref.grh.flow_label = grh.flow_label;
            raw_ref.grh.sgid_index = grh.gid_index;
            raw_ref.grh.hop_limit = grh.hop_limit;
            raw_ref.grh.traffic_class = grh.traffic_class;
        }
        *raw_ref
    }

    pub(crate) fn from_raw(raw: &ffi::ibv_ah_attr) -> AddressVector {
        // SAFETY: every bit pattern is valid for the union's bytes.
        let dgid = unsafe { raw.grh.dgid.raw };
        AddressVector {
            port: raw.port_num,
            dlid: raw.dlid,
            service_level: raw.sl,
            src_path_bits: raw.src_path_bits,
            static_rate: raw.static_rate,
            grh: (raw.is_global != 0).then(|| GlobalRoute {
                dgid: Gid::from(dgid),
                flow_label: raw.grh.flow_label,
                gid_index: raw.grh.sgid_index,
                hop_limit: raw.grh.hop_limit,
                traffic_class: raw.grh.traffic_class,
            }),
        }
    }
}
