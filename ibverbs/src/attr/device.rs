//! A device's attributes.

use std::mem::MaybeUninit;
use std::time::Duration;

use super::{attributes, limit, AtomicCap, DeviceCaps};
use crate::context::ContextInner;
use crate::device::Guid;
use crate::error::{check, Result};
use crate::ffi;
use crate::qp::exponent_time;

impl ContextInner {
    /// What [`Context::query_device`](crate::Context::query_device) does.
    pub(crate) fn query_device(&self) -> Result<DeviceAttr> {
        let mut attr = MaybeUninit::zeroed();
        // SAFETY: the context is open, and the second argument points to a whole `ibv_device_attr`.
        check("ibv_query_device", unsafe {
            ffi::ibv_query_device(self.as_raw(), attr.as_mut_ptr())
        })?;
        // SAFETY: an `ibv_device_attr` is numbers only, for which the zeroes written above are
        // valid.
        Ok(DeviceAttr::new(unsafe { attr.assume_init() }))
    }
}

/// The attributes of a device; from [`Context::query_device`](crate::Context::query_device).
///
/// The limits are the device's own. Less may be had, depending on the memory of the machine, on the
/// rights of the user and on what others have taken.
#[doc(alias = "ibv_device_attr")]
#[derive(Clone, Copy)]
pub struct DeviceAttr {
    raw: ffi::ibv_device_attr,
}

impl DeviceAttr {
    pub(crate) fn new(raw: ffi::ibv_device_attr) -> DeviceAttr {
        DeviceAttr { raw }
    }

    /// The C structure.
    pub fn as_raw(&self) -> &ffi::ibv_device_attr {
        &self.raw
    }

    /// Whether the device is one of EFA, whose driver is handled with care in a few places.
    pub(crate) fn is_efa(&self) -> bool {
        const AMAZON: u32 = 0x1d0f;
        self.vendor_id() == AMAZON
    }
}

attributes! {
    DeviceAttr {
        /// The version of the firmware, as text. Empty for devices that have none.
        #[doc(alias = "fw_ver")]
        firmware_version(attr) -> String {
            // `c_char` has a sign on some processors; the cast keeps its bits.
            let bytes = attr.raw.fw_ver.iter().map(|&c| c as u8);
            bytes.take_while(|&byte| byte != 0).map(char::from).collect()
        }

        /// The device's identifier.
        node_guid(attr) -> Guid { Guid::from_be(attr.raw.node_guid) }

        /// The identifier that the devices of one adapter share.
        #[doc(alias = "sys_image_guid")]
        system_image_guid(attr) -> Guid { Guid::from_be(attr.raw.sys_image_guid) }

        /// The vendor's number, as IEEE assigned it.
        vendor_id(attr) -> u32 as Hex { attr.raw.vendor_id }

        /// The vendor's number of this part.
        vendor_part_id(attr) -> u32 { attr.raw.vendor_part_id }

        /// The version of the hardware.
        #[doc(alias = "hw_ver")]
        hardware_version(attr) -> u32 as Hex { attr.raw.hw_ver }

        /// How many ports the device has. They are numbered from 1.
        #[doc(alias = "phys_port_cnt")]
        num_ports(attr) -> u8 { attr.raw.phys_port_cnt }

        /// What the device can do. Flags that came later are in
        /// [`DeviceAttrEx::capabilities`](super::DeviceAttrEx::capabilities) only.
        #[doc(alias = "device_cap_flags")]
        capabilities(attr) -> DeviceCaps {
            DeviceCaps::from_bits_retain(u64::from(attr.raw.device_cap_flags))
        }

        /// How far atomic operations are atomic.
        atomic_cap(attr) -> AtomicCap { AtomicCap(attr.raw.atomic_cap) }

        /// The longest memory region, in bytes.
        max_mr_size(attr) -> u64 { attr.raw.max_mr_size }

        /// The page sizes that the device can map, as a sum of powers of two.
        page_size_cap(attr) -> u64 as Hex { attr.raw.page_size_cap }

        /// How many queue pairs there can be.
        max_qp(attr) -> u32 { limit(attr.raw.max_qp) }

        /// How many work requests one queue of a queue pair can hold.
        max_qp_wr(attr) -> u32 { limit(attr.raw.max_qp_wr) }

        /// How many scatter entries a work request can have that is not an RDMA read.
        max_sge(attr) -> u32 { limit(attr.raw.max_sge) }

        /// How many scatter entries an RDMA read can have.
        max_sge_rd(attr) -> u32 { limit(attr.raw.max_sge_rd) }

        /// How many completion queues there can be.
        max_cq(attr) -> u32 { limit(attr.raw.max_cq) }

        /// How many completions one completion queue can hold.
        max_cqe(attr) -> u32 { limit(attr.raw.max_cqe) }

        /// How many memory regions there can be.
        max_mr(attr) -> u32 { limit(attr.raw.max_mr) }

        /// How many protection domains there can be.
        max_pd(attr) -> u32 { limit(attr.raw.max_pd) }

        /// How many memory windows there can be.
        max_mw(attr) -> u32 { limit(attr.raw.max_mw) }

        /// How many address handles there can be.
        max_ah(attr) -> u32 { limit(attr.raw.max_ah) }

        /// How many RDMA reads and atomic operations of its peer a queue pair can work on at a
        /// time.
        max_qp_rd_atom(attr) -> u32 { limit(attr.raw.max_qp_rd_atom) }

        /// How many RDMA reads and atomic operations of its own a queue pair can have under way.
        max_qp_init_rd_atom(attr) -> u32 { limit(attr.raw.max_qp_init_rd_atom) }

        /// How many RDMA reads and atomic operations of all peers the device can work on at a time.
        max_res_rd_atom(attr) -> u32 { limit(attr.raw.max_res_rd_atom) }

        /// How many shared receive queues there can be.
        max_srq(attr) -> u32 { limit(attr.raw.max_srq) }

        /// How many receives a shared receive queue can hold.
        max_srq_wr(attr) -> u32 { limit(attr.raw.max_srq_wr) }

        /// How many scatter entries a receive of a shared receive queue can have.
        max_srq_sge(attr) -> u32 { limit(attr.raw.max_srq_sge) }

        /// How many multicast groups there can be.
        max_mcast_grp(attr) -> u32 { limit(attr.raw.max_mcast_grp) }

        /// How many queue pairs can join one multicast group.
        max_mcast_qp_attach(attr) -> u32 { limit(attr.raw.max_mcast_qp_attach) }

        /// How many queue pairs can be in multicast groups, all groups together.
        max_total_mcast_qp_attach(attr) -> u32 { limit(attr.raw.max_total_mcast_qp_attach) }

        /// How many partitions a port can belong to.
        max_pkeys(attr) -> u16 { attr.raw.max_pkeys }

        /// How long the device takes to acknowledge a message, at most: part of a peer's
        /// acknowledge timeout.
        local_ca_ack_delay(attr) -> Duration { exponent_time(attr.raw.local_ca_ack_delay) }
    }
}
