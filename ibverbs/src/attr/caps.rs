//! Capabilities: what a device can do, as sets of flags and small structures.

use std::time::Duration;

use bitflags::bitflags;

use crate::c_enum::c_enum;
use crate::ffi;

c_enum! {
    /// How far atomic operations are atomic (`enum ibv_atomic_cap`).
    #[doc(alias = "ibv_atomic_cap")]
    pub struct AtomicCap: u32 {
        /// The device has no atomic operations.
        NONE = ffi::IBV_ATOMIC_NONE, "none";
        /// Among the queue pairs of this device only: the processor and other devices can
        /// interfere.
        HCA = ffi::IBV_ATOMIC_HCA, "within the device";
        /// With respect to the processor and other devices too.
        GLOB = ffi::IBV_ATOMIC_GLOB, "global";
    }
}

bitflags! {
    /// What a device can do (`enum ibv_device_cap_flags` and the 64-bit flags that came later).
    ///
    /// Bits that have no name here are kept.
    #[doc(alias = "ibv_device_cap_flags")]
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct DeviceCaps: u64 {
        /// The depth of a queue pair's queues can be changed (`IBV_DEVICE_RESIZE_MAX_WR`).
        const RESIZE_MAX_WR = ffi::IBV_DEVICE_RESIZE_MAX_WR as u64;
        /// Ports count packets with a wrong partition key (`IBV_DEVICE_BAD_PKEY_CNTR`).
        const BAD_PKEY_CNTR = ffi::IBV_DEVICE_BAD_PKEY_CNTR as u64;
        /// Ports count packets with a wrong queue key (`IBV_DEVICE_BAD_QKEY_CNTR`).
        const BAD_QKEY_CNTR = ffi::IBV_DEVICE_BAD_QKEY_CNTR as u64;
        /// Raw packets can be sent to many receivers (`IBV_DEVICE_RAW_MULTI`).
        const RAW_MULTI = ffi::IBV_DEVICE_RAW_MULTI as u64;
        /// A connection can move to an alternate path by itself (`IBV_DEVICE_AUTO_PATH_MIG`).
        const AUTO_PATH_MIG = ffi::IBV_DEVICE_AUTO_PATH_MIG as u64;
        /// A queue pair's port can be changed on its way from SQD to RTS
        /// (`IBV_DEVICE_CHANGE_PHY_PORT`).
        const CHANGE_PHY_PORT = ffi::IBV_DEVICE_CHANGE_PHY_PORT as u64;
        /// A datagram queue pair refuses address handles of another port
        /// (`IBV_DEVICE_UD_AV_PORT_ENFORCE`).
        const UD_AV_PORT_ENFORCE = ffi::IBV_DEVICE_UD_AV_PORT_ENFORCE as u64;
        /// A transition may name the state it starts from (`IBV_DEVICE_CURR_QP_STATE_MOD`).
        const CURR_QP_STATE_MOD = ffi::IBV_DEVICE_CURR_QP_STATE_MOD as u64;
        /// Ports can be shut down (`IBV_DEVICE_SHUTDOWN_PORT`).
        const SHUTDOWN_PORT = ffi::IBV_DEVICE_SHUTDOWN_PORT as u64;
        /// The kind of initialisation that a port asks of its subnet manager can be set
        /// (`IBV_DEVICE_INIT_TYPE`).
        const INIT_TYPE = ffi::IBV_DEVICE_INIT_TYPE as u64;
        /// There is an event for a port that becomes active (`IBV_DEVICE_PORT_ACTIVE_EVENT`).
        const PORT_ACTIVE_EVENT = ffi::IBV_DEVICE_PORT_ACTIVE_EVENT as u64;
        /// The device tells its system image GUID (`IBV_DEVICE_SYS_IMAGE_GUID`).
        const SYS_IMAGE_GUID = ffi::IBV_DEVICE_SYS_IMAGE_GUID as u64;
        /// A reliable connection answers a message without a receive with "receiver not ready"
        /// (`IBV_DEVICE_RC_RNR_NAK_GEN`).
        const RC_RNR_NAK_GEN = ffi::IBV_DEVICE_RC_RNR_NAK_GEN as u64;
        /// A shared receive queue can be resized (`IBV_DEVICE_SRQ_RESIZE`).
        const SRQ_RESIZE = ffi::IBV_DEVICE_SRQ_RESIZE as u64;
        /// A notification can be asked for after a number of completions
        /// (`IBV_DEVICE_N_NOTIFY_CQ`).
        const N_NOTIFY_CQ = ffi::IBV_DEVICE_N_NOTIFY_CQ as u64;
        /// There are memory windows of type 1 (`IBV_DEVICE_MEM_WINDOW`).
        const MEM_WINDOW = ffi::IBV_DEVICE_MEM_WINDOW as u64;
        /// The device computes IP and UDP checksums for IP over InfiniBand
        /// (`IBV_DEVICE_UD_IP_CSUM`).
        const UD_IP_CSUM = ffi::IBV_DEVICE_UD_IP_CSUM as u64;
        /// There are extended reliable connections (`IBV_DEVICE_XRC`).
        const XRC = ffi::IBV_DEVICE_XRC as u64;
        /// Local invalidation and send with invalidation work (`IBV_DEVICE_MEM_MGT_EXTENSIONS`).
        const MEM_MGT_EXTENSIONS = ffi::IBV_DEVICE_MEM_MGT_EXTENSIONS as u64;
        /// There are memory windows of type 2A (`IBV_DEVICE_MEM_WINDOW_TYPE_2A`).
        const MEM_WINDOW_TYPE_2A = ffi::IBV_DEVICE_MEM_WINDOW_TYPE_2A as u64;
        /// There are memory windows of type 2B (`IBV_DEVICE_MEM_WINDOW_TYPE_2B`).
        const MEM_WINDOW_TYPE_2B = ffi::IBV_DEVICE_MEM_WINDOW_TYPE_2B as u64;
        /// The device computes IP checksums on reliable connections (`IBV_DEVICE_RC_IP_CSUM`).
        const RC_IP_CSUM = ffi::IBV_DEVICE_RC_IP_CSUM as u64;
        /// The device computes IP checksums of raw packets (`IBV_DEVICE_RAW_IP_CSUM`).
        const RAW_IP_CSUM = ffi::IBV_DEVICE_RAW_IP_CSUM as u64;
        /// Flows of raw packets can be steered to queue pairs (`IBV_DEVICE_MANAGED_FLOW_STEERING`).
        const MANAGED_FLOW_STEERING = ffi::IBV_DEVICE_MANAGED_FLOW_STEERING as u64;
        /// Raw packets can be received with their frame check sequence
        /// (`IBV_DEVICE_RAW_SCATTER_FCS`).
        const RAW_SCATTER_FCS = ffi::IBV_DEVICE_RAW_SCATTER_FCS;
        /// The device can pad its writes to whole cache lines (`IBV_DEVICE_PCI_WRITE_END_PADDING`).
        const PCI_WRITE_END_PADDING = ffi::IBV_DEVICE_PCI_WRITE_END_PADDING;
        // The headers of libibverbs have no names for the next three; the kernel's have.

        /// RDMA flush can make data visible to everybody (`IB_UVERBS_DEVICE_FLUSH_GLOBAL`).
        const FLUSH_GLOBAL = 1 << 38;
        /// RDMA flush can make data persistent (`IB_UVERBS_DEVICE_FLUSH_PERSISTENT`).
        const FLUSH_PERSISTENT = 1 << 39;
        /// There are atomic writes (`IB_UVERBS_DEVICE_ATOMIC_WRITE`).
        const ATOMIC_WRITE = 1 << 40;
        /// This is a confidential guest whose device reaches memory through bounce buffers only
        /// (`IBV_DEVICE_CC_DMA_BOUNCE`).
        const CC_DMA_BOUNCE = ffi::IBV_DEVICE_CC_DMA_BOUNCE;

        const _ = !0;
    }

    /// Kinds of queue pairs, as a set: a capability's bit mask of `enum ibv_qp_type`.
    #[doc(alias = "supported_qpts")]
    #[doc(alias = "ibv_is_qpt_supported")]
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct QueuePairTypes: u32 {
        /// Reliable connection (`IBV_QPT_RC`).
        const RC = 1 << ffi::IBV_QPT_RC;
        /// Unreliable connection (`IBV_QPT_UC`).
        const UC = 1 << ffi::IBV_QPT_UC;
        /// Unreliable datagram (`IBV_QPT_UD`).
        const UD = 1 << ffi::IBV_QPT_UD;
        /// Raw Ethernet packets (`IBV_QPT_RAW_PACKET`).
        const RAW_PACKET = 1 << ffi::IBV_QPT_RAW_PACKET;
        /// Sending side of an extended reliable connection (`IBV_QPT_XRC_SEND`).
        const XRC_SEND = 1 << ffi::IBV_QPT_XRC_SEND;
        /// Receiving side of an extended reliable connection (`IBV_QPT_XRC_RECV`).
        const XRC_RECV = 1 << ffi::IBV_QPT_XRC_RECV;

        const _ = !0;
    }

    /// Whether memory can be registered without pinning it (`enum ibv_odp_general_caps`).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct OdpGeneralCaps: u64 {
        /// On-demand paging works (`IBV_ODP_SUPPORT`).
        const SUPPORT = ffi::IBV_ODP_SUPPORT as u64;
        /// The whole address space can be registered at once (`IBV_ODP_SUPPORT_IMPLICIT`).
        const SUPPORT_IMPLICIT = ffi::IBV_ODP_SUPPORT_IMPLICIT as u64;

        const _ = !0;
    }

    /// Which operations of a transport may touch on-demand paged memory
    /// (`enum ibv_odp_transport_cap_bits`).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct OdpTransportCaps: u32 {
        /// Sends (`IBV_ODP_SUPPORT_SEND`).
        const SEND = ffi::IBV_ODP_SUPPORT_SEND;
        /// Receives (`IBV_ODP_SUPPORT_RECV`).
        const RECV = ffi::IBV_ODP_SUPPORT_RECV;
        /// RDMA writes (`IBV_ODP_SUPPORT_WRITE`).
        const WRITE = ffi::IBV_ODP_SUPPORT_WRITE;
        /// RDMA reads (`IBV_ODP_SUPPORT_READ`).
        const READ = ffi::IBV_ODP_SUPPORT_READ;
        /// Atomic operations (`IBV_ODP_SUPPORT_ATOMIC`).
        const ATOMIC = ffi::IBV_ODP_SUPPORT_ATOMIC;
        /// Receives from a shared receive queue (`IBV_ODP_SUPPORT_SRQ_RECV`).
        const SRQ_RECV = ffi::IBV_ODP_SUPPORT_SRQ_RECV;
        /// RDMA flushes (`IBV_ODP_SUPPORT_FLUSH`).
        const FLUSH = ffi::IBV_ODP_SUPPORT_FLUSH;
        /// Atomic writes (`IBV_ODP_SUPPORT_ATOMIC_WRITE`).
        const ATOMIC_WRITE = ffi::IBV_ODP_SUPPORT_ATOMIC_WRITE;

        const _ = !0;
    }

    /// What the device does for raw packets (`enum ibv_raw_packet_caps`).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct RawPacketCaps: u32 {
        /// It strips the customer VLAN tag (`IBV_RAW_PACKET_CAP_CVLAN_STRIPPING`).
        const CVLAN_STRIPPING = ffi::IBV_RAW_PACKET_CAP_CVLAN_STRIPPING;
        /// It delivers the frame check sequence (`IBV_RAW_PACKET_CAP_SCATTER_FCS`).
        const SCATTER_FCS = ffi::IBV_RAW_PACKET_CAP_SCATTER_FCS;
        /// It computes IP checksums (`IBV_RAW_PACKET_CAP_IP_CSUM`).
        const IP_CSUM = ffi::IBV_RAW_PACKET_CAP_IP_CSUM;
        /// It can hold packets back for a while where no receive is posted
        /// (`IBV_RAW_PACKET_CAP_DELAY_DROP`).
        const DELAY_DROP = ffi::IBV_RAW_PACKET_CAP_DELAY_DROP;

        const _ = !0;
    }

    /// Fields of a packet that can be hashed to choose its receive queue (`enum
    /// ibv_rx_hash_fields`).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct RxHashFields: u64 {
        /// IPv4 source address (`IBV_RX_HASH_SRC_IPV4`).
        const SRC_IPV4 = ffi::IBV_RX_HASH_SRC_IPV4 as u64;
        /// IPv4 destination address (`IBV_RX_HASH_DST_IPV4`).
        const DST_IPV4 = ffi::IBV_RX_HASH_DST_IPV4 as u64;
        /// IPv6 source address (`IBV_RX_HASH_SRC_IPV6`).
        const SRC_IPV6 = ffi::IBV_RX_HASH_SRC_IPV6 as u64;
        /// IPv6 destination address (`IBV_RX_HASH_DST_IPV6`).
        const DST_IPV6 = ffi::IBV_RX_HASH_DST_IPV6 as u64;
        /// TCP source port (`IBV_RX_HASH_SRC_PORT_TCP`).
        const SRC_PORT_TCP = ffi::IBV_RX_HASH_SRC_PORT_TCP as u64;
        /// TCP destination port (`IBV_RX_HASH_DST_PORT_TCP`).
        const DST_PORT_TCP = ffi::IBV_RX_HASH_DST_PORT_TCP as u64;
        /// UDP source port (`IBV_RX_HASH_SRC_PORT_UDP`).
        const SRC_PORT_UDP = ffi::IBV_RX_HASH_SRC_PORT_UDP as u64;
        /// UDP destination port (`IBV_RX_HASH_DST_PORT_UDP`).
        const DST_PORT_UDP = ffi::IBV_RX_HASH_DST_PORT_UDP as u64;
        /// IPsec security parameter index (`IBV_RX_HASH_IPSEC_SPI`).
        const IPSEC_SPI = ffi::IBV_RX_HASH_IPSEC_SPI as u64;
        /// The fields of the inner packet of a tunnel (`IBV_RX_HASH_INNER`).
        const INNER = ffi::IBV_RX_HASH_INNER as u64;

        const _ = !0;
    }

    /// Functions that choose a packet's receive queue (`enum ibv_rx_hash_function_flags`).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct RxHashFunctions: u8 {
        /// The Toeplitz hash (`IBV_RX_HASH_FUNC_TOEPLITZ`).
        const TOEPLITZ = ffi::IBV_RX_HASH_FUNC_TOEPLITZ as u8;

        const _ = !0;
    }

    /// Operand sizes that an atomic operation over PCI can have (`enum ibv_pci_atomic_op_size`).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct PciAtomicSizes: u16 {
        /// 4 bytes (`IBV_PCI_ATOMIC_OPERATION_4_BYTE_SIZE_SUP`).
        const BYTES_4 = ffi::IBV_PCI_ATOMIC_OPERATION_4_BYTE_SIZE_SUP as u16;
        /// 8 bytes (`IBV_PCI_ATOMIC_OPERATION_8_BYTE_SIZE_SUP`).
        const BYTES_8 = ffi::IBV_PCI_ATOMIC_OPERATION_8_BYTE_SIZE_SUP as u16;
        /// 16 bytes (`IBV_PCI_ATOMIC_OPERATION_16_BYTE_SIZE_SUP`).
        const BYTES_16 = ffi::IBV_PCI_ATOMIC_OPERATION_16_BYTE_SIZE_SUP as u16;

        const _ = !0;
    }

    /// Where tags are matched (`enum ibv_tm_cap_flags`).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct TagMatchingFlags: u32 {
        /// On reliable connections (`IBV_TM_CAP_RC`).
        const RC = ffi::IBV_TM_CAP_RC;

        const _ = !0;
    }
}

/// Writes `Display` for sets of flags: the names, with ` | ` between them, or `none`.
macro_rules! display_flags {
    ($($name:ident)*) => { $(
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                if self.is_empty() {
                    return f.write_str("none");
                }
                bitflags::parser::to_writer(self, f)
            }
        }
    )* };
}
pub(super) use display_flags;

display_flags! {
    DeviceCaps QueuePairTypes OdpGeneralCaps OdpTransportCaps RawPacketCaps RxHashFields
    RxHashFunctions PciAtomicSizes TagMatchingFlags
}

/// On-demand paging: memory that is registered without being pinned (`struct ibv_odp_caps`).
#[doc(alias = "ibv_odp_caps")]
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OdpCaps {
    /// Whether there is on-demand paging at all.
    pub general: OdpGeneralCaps,
    /// What reliable connections can do with such memory (`rc_odp_caps`).
    pub rc: OdpTransportCaps,
    /// What unreliable connections can do with it (`uc_odp_caps`).
    pub uc: OdpTransportCaps,
    /// What unreliable datagrams can do with it (`ud_odp_caps`).
    pub ud: OdpTransportCaps,
    /// What extended reliable connections can do with it (`xrc_odp_caps`).
    pub xrc: OdpTransportCaps,
}

impl OdpCaps {
    pub(super) fn new(caps: &ffi::ibv_odp_caps, xrc: u32) -> OdpCaps {
        let transports = &caps.per_transport_caps;
        OdpCaps {
            general: OdpGeneralCaps::from_bits_retain(caps.general_caps),
            rc: OdpTransportCaps::from_bits_retain(transports.rc_odp_caps),
            uc: OdpTransportCaps::from_bits_retain(transports.uc_odp_caps),
            ud: OdpTransportCaps::from_bits_retain(transports.ud_odp_caps),
            xrc: OdpTransportCaps::from_bits_retain(xrc),
        }
    }
}

/// Segmentation of TCP streams by the device (`struct ibv_tso_caps`).
#[doc(alias = "ibv_tso_caps")]
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TsoCaps {
    /// The longest payload that the device cuts into segments, in bytes.
    pub max_tso: u32,
    /// The kinds of queue pairs that can do it.
    pub queue_pair_types: QueuePairTypes,
}

impl TsoCaps {
    pub(super) fn new(caps: &ffi::ibv_tso_caps) -> Option<TsoCaps> {
        (caps.max_tso != 0).then_some(TsoCaps {
            max_tso: caps.max_tso,
            queue_pair_types: QueuePairTypes::from_bits_retain(caps.supported_qpts),
        })
    }
}

/// Receive-side scaling: packets are spread over receive queues by a hash (`struct ibv_rss_caps`).
#[doc(alias = "ibv_rss_caps")]
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RssCaps {
    /// The kinds of queue pairs that can do it.
    pub queue_pair_types: QueuePairTypes,
    /// How many indirection tables there can be.
    pub max_rwq_indirection_tables: u32,
    /// How many receive queues one table can have.
    pub max_rwq_indirection_table_size: u32,
    /// The fields of a packet that can go into the hash.
    pub hash_fields: RxHashFields,
    /// The hash functions that there are.
    pub hash_functions: RxHashFunctions,
}

impl RssCaps {
    pub(super) fn new(caps: &ffi::ibv_rss_caps) -> Option<RssCaps> {
        (caps.supported_qpts != 0).then_some(RssCaps {
            queue_pair_types: QueuePairTypes::from_bits_retain(caps.supported_qpts),
            max_rwq_indirection_tables: caps.max_rwq_indirection_tables,
            max_rwq_indirection_table_size: caps.max_rwq_indirection_table_size,
            hash_fields: RxHashFields::from_bits_retain(caps.rx_hash_fields_mask),
            hash_functions: RxHashFunctions::from_bits_retain(caps.rx_hash_function),
        })
    }
}

/// Packet pacing: a queue pair's sending rate can be limited (`struct ibv_packet_pacing_caps`).
#[doc(alias = "ibv_packet_pacing_caps")]
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketPacingCaps {
    /// The lowest limit that can be set, in kilobits per second (`qp_rate_limit_min`).
    pub min_rate_kbps: u32,
    /// The highest limit that can be set, in kilobits per second (`qp_rate_limit_max`).
    pub max_rate_kbps: u32,
    /// The kinds of queue pairs that can be limited.
    pub queue_pair_types: QueuePairTypes,
}

impl PacketPacingCaps {
    pub(super) fn new(caps: &ffi::ibv_packet_pacing_caps) -> Option<PacketPacingCaps> {
        (caps.qp_rate_limit_max != 0).then_some(PacketPacingCaps {
            min_rate_kbps: caps.qp_rate_limit_min,
            max_rate_kbps: caps.qp_rate_limit_max,
            queue_pair_types: QueuePairTypes::from_bits_retain(caps.supported_qpts),
        })
    }
}

/// Matching of tagged messages by the device (`struct ibv_tm_caps`).
#[doc(alias = "ibv_tm_caps")]
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TagMatchingCaps {
    /// The longest header of a rendezvous request, in bytes.
    pub max_rndv_hdr_size: u32,
    /// How many tagged buffers one matching list can have.
    pub max_num_tags: u32,
    /// Where tags are matched.
    pub flags: TagMatchingFlags,
    /// How many operations on a list can be outstanding.
    pub max_ops: u32,
    /// How many scatter entries a tagged buffer can have.
    pub max_sge: u32,
}

impl TagMatchingCaps {
    pub(super) fn new(caps: &ffi::ibv_tm_caps) -> Option<TagMatchingCaps> {
        (caps.max_num_tags != 0).then_some(TagMatchingCaps {
            max_rndv_hdr_size: caps.max_rndv_hdr_size,
            max_num_tags: caps.max_num_tags,
            flags: TagMatchingFlags::from_bits_retain(caps.flags),
            max_ops: caps.max_ops,
            max_sge: caps.max_sge,
        })
    }
}

/// Completion moderation: events that are held back until several completions have come
/// (`struct ibv_cq_moderation_caps`).
#[doc(alias = "ibv_cq_moderation_caps")]
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CqModerationCaps {
    /// For how many completions an event can be held back (`max_cq_count`).
    pub max_count: u16,
    /// For how long an event can be held back (`max_cq_period`; in C in microseconds).
    pub max_period: Duration,
}

impl CqModerationCaps {
    pub(super) fn new(caps: &ffi::ibv_cq_moderation_caps) -> Option<CqModerationCaps> {
        (caps.max_cq_count != 0 && caps.max_cq_period != 0).then_some(CqModerationCaps {
            max_count: caps.max_cq_count,
            max_period: Duration::from_micros(u64::from(caps.max_cq_period)),
        })
    }
}

/// Atomic operations that the device can do in host memory over PCI (`struct ibv_pci_atomic_caps`).
#[doc(alias = "ibv_pci_atomic_caps")]
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PciAtomicCaps {
    /// Operand sizes of fetch and add.
    pub fetch_add: PciAtomicSizes,
    /// Operand sizes of an unconditional swap.
    pub swap: PciAtomicSizes,
    /// Operand sizes of compare and swap.
    pub compare_swap: PciAtomicSizes,
}

impl PciAtomicCaps {
    pub(super) fn new(caps: &ffi::ibv_pci_atomic_caps) -> Option<PciAtomicCaps> {
        (caps.fetch_add | caps.swap | caps.compare_swap != 0).then_some(PciAtomicCaps {
            fetch_add: PciAtomicSizes::from_bits_retain(caps.fetch_add),
            swap: PciAtomicSizes::from_bits_retain(caps.swap),
            compare_swap: PciAtomicSizes::from_bits_retain(caps.compare_swap),
        })
    }
}
