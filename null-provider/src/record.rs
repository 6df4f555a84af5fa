//! What the provider remembers of how it was used, and what it is told to report.

use std::ffi::c_int;

use ibverbs_sys as ffi;

/// The kinds of objects that the provider counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A list of devices.
    DeviceList,
    /// An opened device.
    Context,
    /// A protection domain.
    Pd,
    /// A memory region.
    Mr,
    /// Device memory.
    Dm,
    /// A completion channel.
    CompChannel,
    /// A completion queue.
    Cq,
    /// A queue pair.
    Qp,
    /// An address handle.
    Ah,
    /// A shared receive queue.
    Srq,
    /// A memory window.
    Mw,
    /// An event channel of librdmacm.
    EventChannel,
    /// A communication identifier.
    CmId,
    /// An event of librdmacm that was read and not acknowledged.
    CmEvent,
    /// A list of the devices that librdmacm has opened.
    CmDevices,
    /// A list of addresses.
    AddrInfo,
}

/// The entry points of the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// `ibv_get_device_list`
    GetDeviceList,
    /// `ibv_free_device_list`
    FreeDeviceList,
    /// `ibv_open_device`
    OpenDevice,
    /// `ibv_close_device`
    CloseDevice,
    /// `ibv_query_device`
    QueryDevice,
    /// `ibv_query_port`
    QueryPort,
    /// `ibv_query_gid` and `ibv_query_gid_table`
    QueryGid,
    /// `ibv_query_pkey`
    QueryPkey,
    /// `ibv_query_rt_values_ex`
    QueryRtValues,
    /// `ibv_get_async_event`
    GetAsyncEvent,
    /// `ibv_ack_async_event`
    AckAsyncEvent,
    /// `ibv_fork_init`
    ForkInit,
    /// `ibv_is_fork_initialized`
    IsForkInitialized,
    /// `ibv_alloc_pd`
    AllocPd,
    /// `ibv_dealloc_pd`
    DeallocPd,
    /// `ibv_reg_mr` and `ibv_reg_mr_iova2`
    RegMr,
    /// `ibv_reg_dmabuf_mr`
    RegDmabufMr,
    /// `ibv_reg_dm_mr`
    RegDmMr,
    /// `ibv_dereg_mr`
    DeregMr,
    /// `ibv_advise_mr`
    AdviseMr,
    /// `ibv_alloc_dm`
    AllocDm,
    /// `ibv_free_dm`
    FreeDm,
    /// `ibv_memcpy_to_dm` and `ibv_memcpy_from_dm`
    CopyDm,
    /// `ibv_create_comp_channel`
    CreateCompChannel,
    /// `ibv_destroy_comp_channel`
    DestroyCompChannel,
    /// `ibv_get_cq_event`
    GetCqEvent,
    /// `ibv_ack_cq_events`
    AckCqEvents,
    /// `ibv_create_cq_ex`
    CreateCq,
    /// `efadv_create_cq`
    CreateEfaCq,
    /// `ibv_destroy_cq`
    DestroyCq,
    /// `ibv_resize_cq`
    ResizeCq,
    /// `ibv_modify_cq`
    ModifyCq,
    /// `ibv_req_notify_cq`
    ReqNotifyCq,
    /// `ibv_poll_cq`
    PollCq,
    /// `ibv_start_poll`
    StartPoll,
    /// `ibv_next_poll`
    NextPoll,
    /// `ibv_end_poll`
    EndPoll,
    /// any `ibv_wc_read_*`
    ReadField,
    /// `ibv_create_qp_ex`
    CreateQp,
    /// `efadv_create_qp_ex`
    CreateSrdQp,
    /// any query of libefa, such as `efadv_query_device`
    QueryEfa,
    /// `ibv_destroy_qp`
    DestroyQp,
    /// `ibv_modify_qp`
    ModifyQp,
    /// `ibv_query_qp`
    QueryQp,
    /// `ibv_create_srq`
    CreateSrq,
    /// `ibv_modify_srq`
    ModifySrq,
    /// `ibv_query_srq`
    QuerySrq,
    /// `ibv_destroy_srq`
    DestroySrq,
    /// `ibv_post_srq_recv`
    PostSrqRecv,
    /// `ibv_alloc_mw`
    AllocMw,
    /// `ibv_bind_mw`
    BindMw,
    /// `ibv_dealloc_mw`
    DeallocMw,
    /// `ibv_create_ah`
    CreateAh,
    /// `ibv_destroy_ah`
    DestroyAh,
    /// `ibv_attach_mcast`
    AttachMcast,
    /// `ibv_detach_mcast`
    DetachMcast,
    /// `ibv_post_send`
    PostSend,
    /// `ibv_post_recv`
    PostRecv,
    /// `ibv_wr_start`
    WrStart,
    /// `ibv_wr_complete`
    WrComplete,
    /// `ibv_wr_abort`
    WrAbort,
    /// any function that begins a work request, such as `ibv_wr_send`
    WrOperation,
    /// `ibv_wr_set_ud_addr`
    WrAddress,
    /// any `ibv_wr_set_*` of a payload
    WrPayload,
    /// `rdma_create_event_channel`
    CreateEventChannel,
    /// `rdma_destroy_event_channel`
    DestroyEventChannel,
    /// `rdma_get_cm_event`
    GetCmEvent,
    /// `rdma_ack_cm_event`
    AckCmEvent,
    /// `rdma_create_id`
    CreateCmId,
    /// `rdma_destroy_id`
    DestroyCmId,
    /// `rdma_migrate_id`
    MigrateCmId,
    /// `rdma_bind_addr`
    BindAddr,
    /// `rdma_listen`
    Listen,
    /// `rdma_resolve_addr`
    ResolveAddr,
    /// `rdma_resolve_route`
    ResolveRoute,
    /// `rdma_connect`
    Connect,
    /// `rdma_accept`
    Accept,
    /// `rdma_reject` and `rdma_reject_ece`
    Reject,
    /// `rdma_establish`
    Establish,
    /// `rdma_disconnect`
    Disconnect,
    /// `rdma_init_qp_attr`
    InitQpAttr,
    /// `rdma_set_option`
    SetCmOption,
    /// `rdma_set_local_ece`
    SetLocalEce,
    /// `rdma_get_remote_ece`
    GetRemoteEce,
    /// `rdma_get_src_port` and `rdma_get_dst_port`
    GetCmPort,
    /// `rdma_join_multicast_ex`
    JoinMulticast,
    /// `rdma_leave_multicast`
    LeaveMulticast,
    /// `rdma_get_devices`
    GetCmDevices,
    /// `rdma_free_devices`
    FreeCmDevices,
    /// `rdma_getaddrinfo`
    GetAddrInfo,
    /// `rdma_freeaddrinfo`
    FreeAddrInfo,
    /// What librdmacm asks the kernel about an identifier, after it was bound and when an event is read.
    /// It is no call of the program's, but may fail.
    QueryCmId,
}

/// A call that reached the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Which entry point.
    pub verb: Verb,
    /// The address of the object that it was called on; zero if there was none.
    pub object: usize,
}

/// A memory registration that the provider was asked for and granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The address of the memory, as the device sees it.
    pub addr: usize,
    /// Its length in bytes.
    pub length: usize,
    /// The access flags (`IBV_ACCESS_*`).
    pub access: u32,
    /// The key, local and remote: one number, as on many adapters.
    pub key: u32,
    /// Where the memory is.
    pub memory: Memory,
}

/// Where registered memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// In the process.
    Process,
    /// In a dma-buf.
    Dmabuf {
        /// The device and the number of the file that the descriptor was one of.
        file: (u64, u64),
        /// Where in it the region begins.
        offset: u64,
    },
    /// On the device.
    Device {
        /// The address of its `ibv_dm`.
        dm: usize,
        /// Where in it the region begins.
        offset: u64,
    },
}

/// Advice that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advised {
    /// The advice (`IBV_ADVISE_MR_ADVICE_*`).
    pub advice: u32,
    /// The flags (`IBV_ADVISE_MR_FLAG_*`).
    pub flags: u32,
    /// What it is about: address, length, key.
    pub ranges: Vec<(u64, u32, u32)>,
}

/// A work request that was submitted, or that a receive queue took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The number of the queue pair.
    pub qp_num: u32,
    /// The program's identifier.
    pub wr_id: u64,
    /// The flags (`IBV_SEND_*`); zero for a receive.
    pub flags: u32,
    /// What it does.
    pub operation: Operation,
    /// Where it goes, if it is a datagram.
    pub address: Option<Address>,
    /// What it carries.
    pub payload: Payload,
}

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address of the `ibv_ah`.
    pub ah: usize,
    /// The number of the remote queue pair.
    pub remote_qpn: u32,
    /// The queue key.
    pub qkey: u32,
}

/// What an address handle was created for (`ibv_ah_attr`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The local port.
    pub port: u8,
    /// The remote port's local identifier.
    pub dlid: u16,
    /// The service level.
    pub sl: u8,
    /// The path bits.
    pub src_path_bits: u8,
    /// The static rate.
    pub static_rate: u8,
    /// The remote GID.
    pub dgid: [u8; 16],
    /// The flow label.
    pub flow_label: u32,
    /// The index of the local GID.
    pub sgid_index: u8,
    /// The hop limit.
    pub hop_limit: u8,
    /// The traffic class.
    pub traffic_class: u8,
}

impl Path {
    pub(crate) fn new(attr: &ffi::ibv_ah_attr) -> Path {
        Path {
            port: attr.port_num,
            dlid: attr.dlid,
            sl: attr.sl,
            src_path_bits: attr.src_path_bits,
            static_rate: attr.static_rate,
            // SAFETY: every bit pattern is valid for the union's bytes.
            dgid: unsafe { attr.grh.dgid.raw },
            flow_label: attr.grh.flow_label,
            sgid_index: attr.grh.sgid_index,
            hop_limit: attr.grh.hop_limit,
            traffic_class: attr.grh.traffic_class,
        }
    }
}

/// What a work request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A receive.
    Recv,
    /// A send, with immediate data in network order if there is any.
    Send {
        /// The immediate data.
        imm: Option<u32>,
    },
    /// A send that invalidates a key of the peer's.
    SendInv {
        /// The key.
        rkey: u32,
    },
    /// An RDMA write.
    Write {
        /// The remote key.
        rkey: u32,
        /// The remote address.
        addr: u64,
        /// The immediate data in network order.
        imm: Option<u32>,
    },
    /// An RDMA read.
    Read {
        /// The remote key.
        rkey: u32,
        /// The remote address.
        addr: u64,
    },
    /// An atomic compare and swap.
    CompareSwap {
        /// The remote key.
        rkey: u32,
        /// The remote address.
        addr: u64,
        /// What the number is compared with.
        compare: u64,
        /// What replaces it.
        swap: u64,
    },
    /// An atomic fetch and add.
    FetchAdd {
        /// The remote key.
        rkey: u32,
        /// The remote address.
        addr: u64,
        /// What is added.
        add: u64,
    },
    /// The binding of a memory window.
    Bind {
        /// The address of the `ibv_mw`.
        window: usize,
        /// The address of the `ibv_mr`.
        region: usize,
        /// The key that the window had.
        old_rkey: u32,
        /// The key that it is to have.
        rkey: u32,
        /// The address of the memory.
        addr: u64,
        /// Its length.
        length: u64,
        /// The rights (`IBV_ACCESS_*`).
        access: u32,
    },
    /// The invalidation of a key.
    LocalInv {
        /// The key.
        rkey: u32,
    },
    /// A flush.
    Flush {
        /// The remote key.
        rkey: u32,
        /// The remote address.
        addr: u64,
        /// How many bytes.
        length: usize,
        /// The placement (`IBV_FLUSH_*`).
        placement: u8,
        /// The selectivity level.
        level: u8,
    },
    /// An atomic write.
    AtomicWrite {
        /// The remote key.
        rkey: u32,
        /// The remote address.
        addr: u64,
        /// The bytes.
        value: [u8; 8],
    },
}

impl Operation {
    /// The opcode of its completion.
    pub(crate) fn wc_opcode(self) -> ffi::ibv_wc_opcode {
        match self {
            Operation::Recv => ffi::IBV_WC_RECV,
            Operation::Send { .. } | Operation::SendInv { .. } => ffi::IBV_WC_SEND,
            Operation::Write { .. } => ffi::IBV_WC_RDMA_WRITE,
            Operation::Read { .. } => ffi::IBV_WC_RDMA_READ,
            Operation::CompareSwap { .. } => ffi::IBV_WC_COMP_SWAP,
            Operation::FetchAdd { .. } => ffi::IBV_WC_FETCH_ADD,
            Operation::Bind { .. } => ffi::IBV_WC_BIND_MW,
            Operation::LocalInv { .. } => ffi::IBV_WC_LOCAL_INV,
            Operation::Flush { .. } => ffi::IBV_WC_FLUSH,
            Operation::AtomicWrite { .. } => ffi::IBV_WC_ATOMIC_WRITE,
        }
    }

    /// The flag that a queue pair needs at its creation for it.
    pub(crate) fn grant(self) -> u64 {
        u64::from(match self {
            Operation::Recv => 0,
            Operation::Send { imm: None } => ffi::IBV_QP_EX_WITH_SEND,
            Operation::Send { imm: Some(_) } => ffi::IBV_QP_EX_WITH_SEND_WITH_IMM,
            Operation::Write { imm: None, .. } => ffi::IBV_QP_EX_WITH_RDMA_WRITE,
            Operation::Write { imm: Some(_), .. } => ffi::IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM,
            Operation::Read { .. } => ffi::IBV_QP_EX_WITH_RDMA_READ,
            Operation::CompareSwap { .. } => ffi::IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP,
            Operation::FetchAdd { .. } => ffi::IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD,
            Operation::SendInv { .. } => ffi::IBV_QP_EX_WITH_SEND_WITH_INV,
            Operation::Bind { .. } => ffi::IBV_QP_EX_WITH_BIND_MW,
            Operation::LocalInv { .. } => ffi::IBV_QP_EX_WITH_LOCAL_INV,
            Operation::Flush { .. } => ffi::IBV_QP_EX_WITH_FLUSH,
            Operation::AtomicWrite { .. } => ffi::IBV_QP_EX_WITH_ATOMIC_WRITE,
        })
    }

    /// Whether a payload belongs to it.
    pub(crate) fn has_payload(self) -> bool {
        !matches!(
            self,
            Operation::Bind { .. }
                | Operation::LocalInv { .. }
                | Operation::Flush { .. }
                | Operation::AtomicWrite { .. }
        )
    }
}

/// What a work request carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Scatter entries: address, length, key.
    Scatter(Vec<(u64, u32, u32)>),
    /// Inline data, all buffers of it joined.
    Inline(Vec<u8>),
}

/// A completion for a program to poll.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// The identifier of the work request.
    pub wr_id: u64,
    /// How it ended; any number will do.
    pub status: ffi::ibv_wc_status,
    /// What it did; any number will do.
    pub opcode: ffi::ibv_wc_opcode,
    /// The vendor's error code.
    pub vendor_err: u32,
    /// How many bytes arrived.
    pub byte_len: u32,
    /// The immediate data in network order, or the key that was invalidated in host order.
    pub imm_data: u32,
    /// The local queue pair.
    pub qp_num: u32,
    /// The remote queue pair.
    pub src_qp: u32,
    /// The flags (`IBV_WC_*`).
    pub wc_flags: u32,
    /// The sender's local identifier.
    pub slid: u32,
    /// The service level.
    pub sl: u8,
    /// The path bits.
    pub dlid_path_bits: u8,
    /// The device's clock.
    pub completion_ts: u64,
    /// The wall clock.
    pub completion_wallclock_ns: u64,
    /// The VLAN tag.
    pub cvlan: u16,
    /// The flow tag.
    pub flow_tag: u32,
    /// The tag of a tag-matched message, and what its sender added.
    pub tm_info: (u64, u32),
    /// The sender's GID, if EFA tells it.
    pub sender_gid: Option<[u8; 16]>,
    /// Whether it took no receive.
    pub unsolicited: bool,
    /// Whether it raises an event if the queue is armed for solicited completions only.
    pub solicited: bool,
}

impl Completion {
    /// As `ibv_poll_cq` writes it.
    pub(crate) fn plain(&self) -> ffi::ibv_wc {
        ffi::ibv_wc {
            wr_id: self.wr_id,
            status: self.status,
            opcode: self.opcode,
            vendor_err: self.vendor_err,
            byte_len: self.byte_len,
            __bindgen_anon_1: ffi::ibv_wc__bindgen_ty_1 { imm_data: self.imm_data },
            qp_num: self.qp_num,
            src_qp: self.src_qp,
            wc_flags: self.wc_flags,
            slid: self.slid as u16,
            sl: self.sl,
            dlid_path_bits: self.dlid_path_bits,
            ..Default::default()
        }
    }
}

/// How much of a chain of requests is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostLimit {
    /// How many requests each call accepts.
    pub accept: usize,
    /// What it returns if there were more.
    pub code: c_int,
    /// Whether it says which request it refused.
    pub set_bad_wr: bool,
}
