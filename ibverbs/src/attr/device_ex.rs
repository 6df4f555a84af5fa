//! A device's extended attributes.

use std::mem::MaybeUninit;

use super::{
    attributes, CqModerationCaps, DeviceAttr, DeviceCaps, OdpCaps, PacketPacingCaps, PciAtomicCaps,
    RawPacketCaps, RssCaps, TagMatchingCaps, TsoCaps,
};
use crate::context::Context;
use crate::error::{check, Result};
use crate::ffi;

impl Context {
    /// The device's attributes and limits, with those that came after the first version of the
    /// verbs.
    ///
    /// What the installed driver or kernel does not know it leaves zero, which the accessors give
    /// as `None`, an empty set or zero. A device that has no extended query at all still answers:
    /// with the base attributes alone.
    ///
    /// # Errors
    ///
    /// [`Error::Verb`](crate::Error::Verb) if the device does not answer.
    #[doc(alias = "ibv_query_device_ex")]
    pub fn query_device_ex(&self) -> Result<DeviceAttrEx> {
        let mut attr = MaybeUninit::zeroed();
        // SAFETY: the context is open, the input may be null (ibv_query_device_ex(3)), and the last
        // argument points to a whole `ibv_device_attr_ex`.
        check("ibv_query_device_ex", unsafe {
            ffi::ibv_query_device_ex(self.as_raw(), std::ptr::null(), attr.as_mut_ptr())
        })?;
        // SAFETY: an `ibv_device_attr_ex` is numbers only, for which the zeroes written above are
        // valid.
        Ok(DeviceAttrEx::new(unsafe { attr.assume_init() }))
    }
}

/// The attributes of a device, with those that came later; from [`Context::query_device_ex`].
#[doc(alias = "ibv_device_attr_ex")]
#[derive(Clone, Copy)]
pub struct DeviceAttrEx {
    raw: ffi::ibv_device_attr_ex,
}

impl DeviceAttrEx {
    pub(super) fn new(raw: ffi::ibv_device_attr_ex) -> DeviceAttrEx {
        DeviceAttrEx { raw }
    }

    /// The C structure.
    pub fn as_raw(&self) -> &ffi::ibv_device_attr_ex {
        &self.raw
    }
}

attributes! {
    DeviceAttrEx {
        /// The attributes that every device has.
        #[doc(alias = "orig_attr")]
        base(attr) -> DeviceAttr { DeviceAttr::new(attr.raw.orig_attr) }

        /// What the device can do, including the flags that came later.
        #[doc(alias = "device_cap_flags_ex")]
        capabilities(attr) -> DeviceCaps {
            let base = u64::from(attr.raw.orig_attr.device_cap_flags);
            DeviceCaps::from_bits_retain(attr.raw.device_cap_flags_ex | base)
        }

        /// How many ports the device has; unlike [`DeviceAttr::num_ports`] it can tell more than
        /// 255.
        #[doc(alias = "phys_port_cnt_ex")]
        num_ports(attr) -> u32 {
            attr.raw.phys_port_cnt_ex.max(u32::from(attr.raw.orig_attr.phys_port_cnt))
        }

        /// On-demand paging.
        odp_caps(attr) -> OdpCaps { OdpCaps::new(&attr.raw.odp_caps, attr.raw.xrc_odp_caps) }

        /// Which bits of a completion's timestamp count; `None` if completions have none.
        #[doc(alias = "completion_timestamp_mask")]
        timestamp_mask(attr) -> Option<u64> as HexOption {
            Some(attr.raw.completion_timestamp_mask).filter(|&mask| mask != 0)
        }

        /// The frequency of the device's clock, which counts completion timestamps, in kilohertz;
        /// `None` if it is not told.
        #[doc(alias = "hca_core_clock")]
        core_clock_khz(attr) -> Option<u64> {
            Some(attr.raw.hca_core_clock).filter(|&clock| clock != 0)
        }

        /// How much memory of the device itself can be allocated, in bytes.
        max_dm_size(attr) -> u64 { attr.raw.max_dm_size }

        /// How many receive work queues there can be.
        max_wq_type_rq(attr) -> u32 { attr.raw.max_wq_type_rq }

        /// What the device does for raw packets.
        raw_packet_caps(attr) -> RawPacketCaps {
            RawPacketCaps::from_bits_retain(attr.raw.raw_packet_caps)
        }

        /// Segmentation of TCP streams; `None` if the device does not do it.
        tso_caps(attr) -> Option<TsoCaps> { TsoCaps::new(&attr.raw.tso_caps) }

        /// Receive-side scaling; `None` if the device does not do it.
        rss_caps(attr) -> Option<RssCaps> { RssCaps::new(&attr.raw.rss_caps) }

        /// Limits of the sending rate; `None` if the device cannot be limited.
        packet_pacing_caps(attr) -> Option<PacketPacingCaps> {
            PacketPacingCaps::new(&attr.raw.packet_pacing_caps)
        }

        /// Tag matching; `None` if the device does not do it.
        #[doc(alias = "tm_caps")]
        tag_matching_caps(attr) -> Option<TagMatchingCaps> {
            TagMatchingCaps::new(&attr.raw.tm_caps)
        }

        /// Completion moderation; `None` if the device does not do it.
        #[doc(alias = "cq_mod_caps")]
        cq_moderation_caps(attr) -> Option<CqModerationCaps> {
            CqModerationCaps::new(&attr.raw.cq_mod_caps)
        }

        /// Atomic operations over PCI; `None` if the device does none.
        pci_atomic_caps(attr) -> Option<PciAtomicCaps> {
            PciAtomicCaps::new(&attr.raw.pci_atomic_caps)
        }
    }
}
