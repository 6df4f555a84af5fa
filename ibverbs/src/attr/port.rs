//! A port's attributes.

use std::time::Duration;

use bitflags::bitflags;

use super::{
    attributes, caps::display_flags, limit, LinkLayer, LinkSpeed, LinkWidth, Mtu, PhysicalState,
    PortState,
};
use crate::ffi;
use crate::qp::exponent_time;

/// The attributes of a port, as they were when it was asked; from
/// [`Context::query_port`](crate::Context::query_port).
#[doc(alias = "ibv_port_attr")]
#[derive(Clone, Copy)]
pub struct PortAttr {
    port: u8,
    raw: ffi::ibv_port_attr,
}

impl PortAttr {
    pub(crate) fn new(port: u8, raw: ffi::ibv_port_attr) -> PortAttr {
        PortAttr { port, raw }
    }

    /// The C structure.
    pub fn as_raw(&self) -> &ffi::ibv_port_attr {
        &self.raw
    }
}

attributes! {
    PortAttr {
        /// The port's number, counted from 1.
        port(attr) -> u8 { attr.port }

        /// The logical state.
        state(attr) -> PortState { PortState(attr.raw.state) }

        /// The state of the physical link.
        #[doc(alias = "phys_state")]
        physical_state(attr) -> PhysicalState { PhysicalState(attr.raw.phys_state) }

        /// What packets travel on.
        link_layer(attr) -> LinkLayer { LinkLayer(attr.raw.link_layer) }

        /// The longest payload of a packet that the port can be configured for.
        max_mtu(attr) -> Mtu { Mtu(attr.raw.max_mtu) }

        /// The longest payload of a packet that the port is configured for.
        active_mtu(attr) -> Mtu { Mtu(attr.raw.active_mtu) }

        /// The signalling rate of each lane.
        #[doc(alias = "active_speed_ex")]
        active_speed(attr) -> LinkSpeed {
            // Speeds from XDR on do not fit into the older field.
            match attr.raw.active_speed_ex {
                0 => LinkSpeed(u32::from(attr.raw.active_speed)),
                speed => LinkSpeed(speed),
            }
        }

        /// How many lanes the link has.
        active_width(attr) -> LinkWidth { LinkWidth(attr.raw.active_width) }

        /// The link's nominal rate in gigabits per second, all lanes together; `None` if its speed
        /// or width is not known.
        gbps(attr) -> Option<f64> {
            let lanes = attr.active_width().lanes()?;
            Some(attr.active_speed().lane_gbps()? * f64::from(lanes))
        }

        /// The longest message, in bytes.
        #[doc(alias = "max_msg_sz")]
        max_msg_size(attr) -> u32 { attr.raw.max_msg_sz }

        /// How many entries the port's GID table has; most of them may be empty.
        #[doc(alias = "gid_tbl_len")]
        gid_table_len(attr) -> u32 { limit(attr.raw.gid_tbl_len) }

        /// How many entries the port's partition key table has.
        #[doc(alias = "pkey_tbl_len")]
        pkey_table_len(attr) -> u16 { attr.raw.pkey_tbl_len }

        /// The base local identifier (LID) of an InfiniBand port. On Ethernet it is zero.
        lid(attr) -> u16 { attr.raw.lid }

        /// How many of the lowest bits of the LID the port leaves to the path, 0 to 7.
        lmc(attr) -> u8 { attr.raw.lmc }

        /// The LID of the subnet manager.
        sm_lid(attr) -> u16 { attr.raw.sm_lid }

        /// The service level at which the subnet manager is reached, 0 to 15.
        sm_sl(attr) -> u8 { attr.raw.sm_sl }

        /// How long a packet may take through the subnet, at most.
        subnet_timeout(attr) -> Duration { exponent_time(attr.raw.subnet_timeout) }

        /// How many virtual lanes for data there can be; `None` if the value is not known.
        #[doc(alias = "max_vl_num")]
        max_virtual_lanes(attr) -> Option<u8> {
            match attr.raw.max_vl_num {
                1 => Some(1),
                2 => Some(2),
                3 => Some(4),
                4 => Some(8),
                5 => Some(15),
                _ => None,
            }
        }

        /// What the subnet manager did to initialise the port.
        init_type_reply(attr) -> u8 { attr.raw.init_type_reply }

        /// Whether every address handle and connection needs a GID, as on Ethernet
        /// (`IBV_QPF_GRH_REQUIRED`).
        #[doc(alias = "IBV_QPF_GRH_REQUIRED")]
        grh_required(attr) -> bool { u32::from(attr.raw.flags) & ffi::IBV_QPF_GRH_REQUIRED != 0 }

        /// How many packets came with a partition key that the port does not have.
        #[doc(alias = "bad_pkey_cntr")]
        bad_pkey_counter(attr) -> u32 { attr.raw.bad_pkey_cntr }

        /// How many packets came with a wrong queue key.
        #[doc(alias = "qkey_viol_cntr")]
        qkey_violation_counter(attr) -> u32 { attr.raw.qkey_viol_cntr }

        /// What the port can do.
        #[doc(alias = "port_cap_flags")]
        capabilities(attr) -> PortCaps { PortCaps::from_bits_retain(attr.raw.port_cap_flags) }

        /// What the port can do, continued.
        #[doc(alias = "port_cap_flags2")]
        capabilities2(attr) -> PortCaps2 { PortCaps2::from_bits_retain(attr.raw.port_cap_flags2) }
    }
}

bitflags! {
    /// What a port can do (`enum ibv_port_cap_flags`); InfiniBand's `CapabilityMask`.
    ///
    /// Bits that have no name here are kept.
    #[doc(alias = "ibv_port_cap_flags")]
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct PortCaps: u32 {
        /// It is the subnet manager's port (`IBV_PORT_SM`).
        const SM = ffi::IBV_PORT_SM;
        /// It knows notices (`IBV_PORT_NOTICE_SUP`).
        const NOTICE_SUP = ffi::IBV_PORT_NOTICE_SUP;
        /// It sends traps (`IBV_PORT_TRAP_SUP`).
        const TRAP_SUP = ffi::IBV_PORT_TRAP_SUP;
        /// It has the optional inter-packet delays (`IBV_PORT_OPT_IPD_SUP`).
        const OPT_IPD_SUP = ffi::IBV_PORT_OPT_IPD_SUP;
        /// Connections move to their alternate path by themselves (`IBV_PORT_AUTO_MIGR_SUP`).
        const AUTO_MIGR_SUP = ffi::IBV_PORT_AUTO_MIGR_SUP;
        /// It maps service levels to virtual lanes (`IBV_PORT_SL_MAP_SUP`).
        const SL_MAP_SUP = ffi::IBV_PORT_SL_MAP_SUP;
        /// It keeps its management key over a restart (`IBV_PORT_MKEY_NVRAM`).
        const MKEY_NVRAM = ffi::IBV_PORT_MKEY_NVRAM;
        /// It keeps its partition keys over a restart (`IBV_PORT_PKEY_NVRAM`).
        const PKEY_NVRAM = ffi::IBV_PORT_PKEY_NVRAM;
        /// It has light-emitting diodes to control (`IBV_PORT_LED_INFO_SUP`).
        const LED_INFO_SUP = ffi::IBV_PORT_LED_INFO_SUP;
        /// It knows system image GUIDs (`IBV_PORT_SYS_IMAGE_GUID_SUP`).
        const SYS_IMAGE_GUID_SUP = ffi::IBV_PORT_SYS_IMAGE_GUID_SUP;
        /// It traps wrong partition keys at a switch's external port
        /// (`IBV_PORT_PKEY_SW_EXT_PORT_TRAP_SUP`).
        const PKEY_SW_EXT_PORT_TRAP_SUP = ffi::IBV_PORT_PKEY_SW_EXT_PORT_TRAP_SUP;
        /// It has extended link speeds (`IBV_PORT_EXTENDED_SPEEDS_SUP`).
        const EXTENDED_SPEEDS_SUP = ffi::IBV_PORT_EXTENDED_SPEEDS_SUP;
        /// [`PortCaps2`] is valid (`IBV_PORT_CAP_MASK2_SUP`).
        const CAP_MASK2_SUP = ffi::IBV_PORT_CAP_MASK2_SUP;
        /// It has a communication manager (`IBV_PORT_CM_SUP`).
        const CM_SUP = ffi::IBV_PORT_CM_SUP;
        /// It tunnels SNMP (`IBV_PORT_SNMP_TUNNEL_SUP`).
        const SNMP_TUNNEL_SUP = ffi::IBV_PORT_SNMP_TUNNEL_SUP;
        /// It can be reinitialised (`IBV_PORT_REINIT_SUP`).
        const REINIT_SUP = ffi::IBV_PORT_REINIT_SUP;
        /// It has device management (`IBV_PORT_DEVICE_MGMT_SUP`).
        const DEVICE_MGMT_SUP = ffi::IBV_PORT_DEVICE_MGMT_SUP;
        /// It has vendor-specific management classes (`IBV_PORT_VENDOR_CLASS_SUP`).
        const VENDOR_CLASS_SUP = ffi::IBV_PORT_VENDOR_CLASS_SUP;
        /// It knows direct-route notices (`IBV_PORT_DR_NOTICE_SUP`).
        const DR_NOTICE_SUP = ffi::IBV_PORT_DR_NOTICE_SUP;
        /// It sends a notice when its capabilities change (`IBV_PORT_CAP_MASK_NOTICE_SUP`).
        const CAP_MASK_NOTICE_SUP = ffi::IBV_PORT_CAP_MASK_NOTICE_SUP;
        /// It has boot management (`IBV_PORT_BOOT_MGMT_SUP`).
        const BOOT_MGMT_SUP = ffi::IBV_PORT_BOOT_MGMT_SUP;
        /// It measures the link's latency (`IBV_PORT_LINK_LATENCY_SUP`).
        const LINK_LATENCY_SUP = ffi::IBV_PORT_LINK_LATENCY_SUP;
        /// It can ask its clients to register again (`IBV_PORT_CLIENT_REG_SUP`).
        const CLIENT_REG_SUP = ffi::IBV_PORT_CLIENT_REG_SUP;
        /// Its GIDs are IP addresses, as RoCE's are (`IBV_PORT_IP_BASED_GIDS`).
        const IP_BASED_GIDS = ffi::IBV_PORT_IP_BASED_GIDS;

        const _ = !0;
    }

    /// What a port can do, continued (`enum ibv_port_cap_flags2`); InfiniBand's `CapabilityMask2`.
    ///
    /// It is valid if [`PortCaps::CAP_MASK2_SUP`] is set.
    #[doc(alias = "ibv_port_cap_flags2")]
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct PortCaps2: u16 {
        /// The node's description can be set (`IBV_PORT_SET_NODE_DESC_SUP`).
        const SET_NODE_DESC_SUP = ffi::IBV_PORT_SET_NODE_DESC_SUP as u16;
        /// It has extended port information (`IBV_PORT_INFO_EXT_SUP`).
        const INFO_EXT_SUP = ffi::IBV_PORT_INFO_EXT_SUP as u16;
        /// It has virtual ports (`IBV_PORT_VIRT_SUP`).
        const VIRT_SUP = ffi::IBV_PORT_VIRT_SUP as u16;
        /// It has a table of a switch's port states (`IBV_PORT_SWITCH_PORT_STATE_TABLE_SUP`).
        const SWITCH_PORT_STATE_TABLE_SUP = ffi::IBV_PORT_SWITCH_PORT_STATE_TABLE_SUP as u16;
        /// Its link can have two lanes (`IBV_PORT_LINK_WIDTH_2X_SUP`).
        const LINK_WIDTH_2X_SUP = ffi::IBV_PORT_LINK_WIDTH_2X_SUP as u16;
        /// Its link can have the speed HDR (`IBV_PORT_LINK_SPEED_HDR_SUP`).
        const LINK_SPEED_HDR_SUP = ffi::IBV_PORT_LINK_SPEED_HDR_SUP as u16;
        /// Its link can have the speed NDR (`IBV_PORT_LINK_SPEED_NDR_SUP`).
        const LINK_SPEED_NDR_SUP = ffi::IBV_PORT_LINK_SPEED_NDR_SUP as u16;
        /// Its link can have the speed XDR (`IBV_PORT_LINK_SPEED_XDR_SUP`).
        const LINK_SPEED_XDR_SUP = ffi::IBV_PORT_LINK_SPEED_XDR_SUP as u16;

        const _ = !0;
    }
}

display_flags! { PortCaps PortCaps2 }
