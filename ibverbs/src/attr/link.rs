//! A port's link: its states, packet size, speed and width.

use crate::c_enum::c_enum;
use crate::ffi;

c_enum! {
    /// The longest payload of a packet (`enum ibv_mtu`): a path's maximum transfer unit.
    ///
    /// Headers are not counted, so that an Ethernet of 1500 bytes carries packets of
    /// [`Mtu::B1024`].
    #[doc(alias = "ibv_mtu")]
    pub struct Mtu: u32 {
        /// 256 bytes.
        B256 = ffi::IBV_MTU_256, "256 bytes";
        /// 512 bytes.
        B512 = ffi::IBV_MTU_512, "512 bytes";
        /// 1024 bytes.
        B1024 = ffi::IBV_MTU_1024, "1024 bytes";
        /// 2048 bytes.
        B2048 = ffi::IBV_MTU_2048, "2048 bytes";
        /// 4096 bytes.
        B4096 = ffi::IBV_MTU_4096, "4096 bytes";
    }
}

impl Mtu {
    /// The size in bytes, or `None` if this version does not know the value.
    pub const fn bytes(self) -> Option<u32> {
        match self {
            Mtu::B256 => Some(256),
            Mtu::B512 => Some(512),
            Mtu::B1024 => Some(1024),
            Mtu::B2048 => Some(2048),
            Mtu::B4096 => Some(4096),
            _ => None,
        }
    }

    /// The unit of exactly this many bytes, or `None` if there is none.
    pub const fn from_bytes(bytes: u32) -> Option<Mtu> {
        match bytes {
            256 => Some(Mtu::B256),
            512 => Some(Mtu::B512),
            1024 => Some(Mtu::B1024),
            2048 => Some(Mtu::B2048),
            4096 => Some(Mtu::B4096),
            _ => None,
        }
    }
}

c_enum! {
    /// A port's logical state (`enum ibv_port_state`).
    #[doc(alias = "ibv_port_state")]
    #[doc(alias = "ibv_port_state_str")]
    pub struct PortState: u32 {
        /// No state, or no change of it.
        NOP = ffi::IBV_PORT_NOP, "no state";
        /// Down: it can neither send nor receive.
        DOWN = ffi::IBV_PORT_DOWN, "down";
        /// The link is up, and waits for the subnet manager. Only management packets pass.
        INIT = ffi::IBV_PORT_INIT, "initializing";
        /// The subnet manager has configured the port, but not yet activated it.
        ARMED = ffi::IBV_PORT_ARMED, "armed";
        /// The port works.
        ACTIVE = ffi::IBV_PORT_ACTIVE, "active";
        /// The link went down a moment ago, and may come back before the port is down.
        ACTIVE_DEFER = ffi::IBV_PORT_ACTIVE_DEFER, "active, link lost";
    }
}

c_enum! {
    /// The state of a port's physical link: InfiniBand's `PortPhysicalState`, for which the C
    /// headers have no names.
    #[doc(alias = "phys_state")]
    pub struct PhysicalState: u8 {
        /// Not known, or no change of it.
        NOP = 0, "no state";
        /// Asleep.
        SLEEP = 1, "sleep";
        /// Looking for a partner at the other end of the cable.
        POLLING = 2, "polling";
        /// Switched off.
        DISABLED = 3, "disabled";
        /// Training the link.
        PORT_CONFIGURATION_TRAINING = 4, "port configuration training";
        /// The link is up.
        LINK_UP = 5, "link up";
        /// Retraining after errors.
        LINK_ERROR_RECOVERY = 6, "link error recovery";
        /// In a test.
        PHY_TEST = 7, "phy test";
    }
}

c_enum! {
    /// What a port's packets travel on (`IBV_LINK_LAYER_*`).
    #[doc(alias = "link_layer")]
    pub struct LinkLayer: u8 {
        /// Not told; in the past that meant InfiniBand.
        UNSPECIFIED = ffi::IBV_LINK_LAYER_UNSPECIFIED, "unspecified";
        /// InfiniBand: ports have local identifiers (LIDs).
        INFINIBAND = ffi::IBV_LINK_LAYER_INFINIBAND, "InfiniBand";
        /// Ethernet, for RoCE and iWARP: every path needs a GID.
        ETHERNET = ffi::IBV_LINK_LAYER_ETHERNET, "Ethernet";
    }
}

c_enum! {
    /// The signalling rate of each lane of a link: InfiniBand's `LinkSpeedActive`, for which the C
    /// headers have no names.
    ///
    /// An Ethernet port reports the rate and [width](LinkWidth) whose product comes closest to its
    /// own.
    #[doc(alias = "active_speed")]
    #[doc(alias = "active_speed_ex")]
    pub struct LinkSpeed: u32 {
        /// Single data rate, 2.5 Gb/s.
        SDR = 1, "SDR";
        /// Double data rate, 5 Gb/s.
        DDR = 2, "DDR";
        /// Quad data rate, 10 Gb/s.
        QDR = 4, "QDR";
        /// Fourteen data rate at 10 Gb/s, with a leaner line code than QDR's.
        FDR10 = 8, "FDR10";
        /// Fourteen data rate, 14 Gb/s.
        FDR = 16, "FDR";
        /// Enhanced data rate, 25 Gb/s.
        EDR = 32, "EDR";
        /// High data rate, 50 Gb/s.
        HDR = 64, "HDR";
        /// Next data rate, 100 Gb/s.
        NDR = 128, "NDR";
        /// Extreme data rate, 200 Gb/s.
        XDR = 256, "XDR";
    }
}

impl LinkSpeed {
    /// One lane's nominal rate in gigabits per second, or `None` if this version does not know the
    /// value.
    pub const fn lane_gbps(self) -> Option<f64> {
        match self {
            LinkSpeed::SDR => Some(2.5),
            LinkSpeed::DDR => Some(5.0),
            LinkSpeed::QDR | LinkSpeed::FDR10 => Some(10.0),
            LinkSpeed::FDR => Some(14.0),
            LinkSpeed::EDR => Some(25.0),
            LinkSpeed::HDR => Some(50.0),
            LinkSpeed::NDR => Some(100.0),
            LinkSpeed::XDR => Some(200.0),
            _ => None,
        }
    }
}

c_enum! {
    /// How many lanes a link has: InfiniBand's `LinkWidthActive`, for which the C headers have no
    /// names.
    #[doc(alias = "active_width")]
    pub struct LinkWidth: u8 {
        /// One lane.
        X1 = 1, "1X";
        /// Two lanes.
        X2 = 16, "2X";
        /// Four lanes.
        X4 = 2, "4X";
        /// Eight lanes.
        X8 = 4, "8X";
        /// Twelve lanes.
        X12 = 8, "12X";
    }
}

impl LinkWidth {
    /// The number of lanes, or `None` if this version does not know the value.
    pub const fn lanes(self) -> Option<u32> {
        match self {
            LinkWidth::X1 => Some(1),
            LinkWidth::X2 => Some(2),
            LinkWidth::X4 => Some(4),
            LinkWidth::X8 => Some(8),
            LinkWidth::X12 => Some(12),
            _ => None,
        }
    }
}
