//! Creating queue pairs.

mod refusal;

use std::collections::hash_map::RandomState;
use std::ffi::c_void;
use std::hash::{BuildHasher, Hasher};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

pub(crate) use refusal::capacity_error;

use super::endpoint::MASK_24;
use super::functions;
use super::gate::Gate;
use super::queues::QueueLevel;
use super::timers::{AckTimeout, RnrTimer};
use super::transport::{Address, Connected, Reliable, RnrRetry, SendOps, Transport};
use super::{Core, PreparedQueuePair, QpInner, QueuePairCapacity, Reset};
use crate::ah::{check_route, DEFAULT_HOP_LIMIT};
use crate::attr::{AtomicCap, LinkLayer, Mtu};
use crate::context::ContextHandle;
use crate::cq::drop_or_park;
#[cfg(feature = "efa")]
use crate::efa::SrdConfig;
use crate::error::{created, Error, Result};
use crate::ffi;
use crate::handle::Handle;
use crate::mr::AccessFlags;
use crate::mw::BoundWindows;
use crate::owned::{KeptTables, Owned, OwnedQueuePair};
use crate::pd::{PdHandle, PdUser, ProtectionDomain};
use crate::post::{Raw, Requests};

/// What a queue pair must know to be brought up.
#[derive(Clone, Copy, Debug)]
pub struct QpConfig {
    pub(super) qp_type: ffi::ibv_qp_type,
    pub(crate) send_ops: SendOps,
    pub(super) port: u8,
    pub(super) gid_index: Option<u8>,
    pub(super) pkey_index: u16,
    pub(crate) service_level: u8,
    pub(super) traffic_class: u8,
    pub(super) hop_limit: u8,
    pub(super) flow_label: u32,
    pub(super) first_psn: u32,
    pub(super) access: AccessFlags,
    pub(super) path_mtu: Mtu,
    pub(super) min_rnr_timer: RnrTimer,
    pub(super) timeout: AckTimeout,
    pub(crate) retry_count: u8,
    /// If it is not the transport's default.
    pub(crate) rnr_retry: Option<u8>,
    pub(crate) max_rd_atomic: u8,
    pub(crate) max_dest_rd_atomic: u8,
    /// Whether the driver cannot take back a batch: see [`PENSANDO`].
    pub(super) abort_spoils: bool,
    /// Whether the driver is EFA's, which (providers/efa/verbs.c of rdma-core 65)
    ///
    /// - divides by the number of receive scatter entries (`efa_calc_rq_max_depth`), and rounds depths up to a power of
    ///   two in a way that is undefined for zero (`roundup_pow_of_two`);
    /// - forgets at a reset what was posted, but not what has completed and was not polled: that frees a place which is
    ///   free already, and writes beyond the table of places (`efa_qp_init_indices`, `efa_wq_put_wrid_idx_locked`).
    pub(super) is_efa: bool,
    #[cfg(feature = "efa")]
    pub(crate) srd: SrdConfig,
}

impl QpConfig {
    /// How often a reliable queue pair sends again to a peer that was not ready to receive.
    pub(crate) fn rnr_retries(&self) -> u8 {
        self.rnr_retry.unwrap_or(DEFAULT_RNR_RETRIES)
    }
}

/// Builds a [`PreparedQueuePair`]; see [`ProtectionDomain::create_qp`].
///
/// The defaults work for a loopback and for a data-centre link: 128 requests of one scatter entry in
/// each queue, the port's active MTU, six retries after 67 ms each, and as many outstanding reads
/// and atomics as the device has, up to 16.
#[doc(alias = "ibv_qp_init_attr_ex")]
#[derive(Debug)]
#[must_use = "nothing is created before `build`"]
pub struct QueuePairBuilder<'a, T: Transport, L: QueueLevel = Raw> {
    pd: &'a ProtectionDomain,
    send_cq: &'a L::CompletionQueue,
    recv_cq: &'a L::CompletionQueue,
    srq: Option<&'a L::SharedReceiveQueue>,
    pub(crate) config: QpConfig,
    capacity: QueuePairCapacity,
    context: u64,
    atomics: bool,
    link_layer: LinkLayer,
    limits: Limits,
    _type: PhantomData<fn() -> (T, L)>,
}

/// What the device and the port offer, for defaults and for the diagnosis of a refusal.
#[derive(Debug, Clone, Copy)]
struct Limits {
    qp_wr: u32,
    sge: u32,
    init_rd_atomic: u32,
    dest_rd_atomic: u32,
    pkeys: u16,
}

const DEFAULT_DEPTH: u32 = 128;
const DEFAULT_RD_ATOMIC: u32 = 16;
/// The vendor of the adapters whose provider, ionic, does not take back all of a batch that is aborted: from then on it
/// reports requests as complete that are not (`ionic_wr_abort` in providers/ionic/ionic_verbs.c of rdma-core 65
/// leaves `msn_prod` as it is).
const PENSANDO: u32 = 0x1dd8;
/// One less than there could be: SoftRoCE repeats without end if it is the most.
const DEFAULT_RETRIES: u8 = 6;
/// Without end.
const DEFAULT_RNR_RETRIES: u8 = 7;

impl<T: Transport, L: QueueLevel> Clone for QueuePairBuilder<'_, T, L> {
    fn clone(&self) -> Self {
        QueuePairBuilder { ..*self }
    }
}

impl<'a, T: Transport, L: QueueLevel> QueuePairBuilder<'a, T, L> {
    pub(crate) fn new(
        pd: &'a ProtectionDomain,
        send_cq: &'a L::CompletionQueue,
        recv_cq: &'a L::CompletionQueue,
        port: u8,
    ) -> Result<Self> {
        let context = pd.handle().context();
        for (what, cq) in
            [("send completion queue", send_cq), ("receive completion queue", recv_cq)]
        {
            if !ContextHandle::ptr_eq(L::completion_queue(cq).handle().context(), context) {
                return Err(Error::DeviceMismatch { what });
            }
        }
        let port_attr = context.query_port(port)?;
        let device = context.query_device()?;
        let limits = Limits {
            qp_wr: device.max_qp_wr(),
            sge: device.max_sge(),
            init_rd_atomic: device.max_qp_init_rd_atom(),
            dest_rd_atomic: device.max_qp_rd_atom(),
            pkeys: port_attr.pkey_table_len(),
        };
        let atomics = device.atomic_cap() != AtomicCap::NONE;
        let mut access = AccessFlags::REMOTE_WRITE;
        if T::QP_TYPE == ffi::IBV_QPT_RC {
            access |= AccessFlags::REMOTE_READ;
            access.set(AccessFlags::REMOTE_ATOMIC, atomics);
        }
        let depth = DEFAULT_DEPTH.min(limits.qp_wr);
        Ok(QueuePairBuilder {
            pd,
            send_cq,
            recv_cq,
            srq: None,
            config: QpConfig {
                qp_type: T::QP_TYPE,
                send_ops: T::SEND_OPS,
                port,
                gid_index: None,
                pkey_index: 0,
                service_level: 0,
                traffic_class: 0,
                hop_limit: DEFAULT_HOP_LIMIT,
                flow_label: 0,
                first_psn: random_psn(),
                access,
                path_mtu: port_attr.active_mtu(),
                min_rnr_timer: RnrTimer::DEFAULT,
                timeout: AckTimeout::DEFAULT,
                retry_count: DEFAULT_RETRIES,
                rnr_retry: None,
                max_rd_atomic: limits.init_rd_atomic.min(DEFAULT_RD_ATOMIC) as u8,
                max_dest_rd_atomic: limits.dest_rd_atomic.min(DEFAULT_RD_ATOMIC) as u8,
                abort_spoils: device.vendor_id() == PENSANDO,
                is_efa: device.is_efa(),
                #[cfg(feature = "efa")]
                srd: SrdConfig::default(),
            },
            capacity: QueuePairCapacity {
                max_send_wr: depth,
                max_recv_wr: depth,
                max_send_sge: 1,
                max_recv_sge: 1,
                max_inline_data: 0,
            },
            context: 0,
            atomics,
            link_layer: port_attr.link_layer(),
            limits,
            _type: PhantomData,
        })
    }

    /// Which GID of the port to send from; see [`Context::gid_table`](crate::Context::gid_table).
    ///
    /// Default: on Ethernet the [`routable_gid`](crate::Context::routable_gid), on EFA the only one, on InfiniBand none.
    pub fn set_gid_index(mut self, gid_index: u8) -> Self {
        self.config.gid_index = Some(gid_index);
        self
    }

    /// The index of the partition key in the port's table. Default: 0.
    pub fn set_pkey_index(mut self, pkey_index: u16) -> Self {
        self.config.pkey_index = pkey_index;
        self
    }

    /// The service level, 0 to 15; on Ethernet the priority, 0 to 7; with `Srd` (feature `efa`) that of the queue pair,
    /// where 0 is the device's ordinary one. Default: 0.
    pub fn set_service_level(mut self, service_level: u8) -> Self {
        self.config.service_level = service_level;
        self
    }

    /// The traffic class of the global route; on RoCE v2 the type of service. Default: 0.
    pub fn set_traffic_class(mut self, traffic_class: u8) -> Self {
        self.config.traffic_class = traffic_class;
        self
    }

    /// The hop limit of the global route; on RoCE v2 the time to live, for which Linux takes that of
    /// the IP route instead. Default: 64.
    pub fn set_hop_limit(mut self, hop_limit: u8) -> Self {
        self.config.hop_limit = hop_limit;
        self
    }

    /// The flow label of the global route, 20 bits. Default: 0.
    pub fn set_flow_label(mut self, flow_label: u32) -> Self {
        self.config.flow_label = flow_label;
        self
    }

    /// The sequence number of the first packet, 24 bits. Default: random, so that packets of an
    /// earlier connection are not taken for this one's.
    pub fn set_first_psn(mut self, psn: u32) -> Self {
        self.config.first_psn = psn;
        self
    }

    /// How many sends may be posted and not yet completed. Default: 128. With 0 there may be no send
    /// queue: then a send is refused when its batch is submitted.
    pub fn set_max_send_wr(mut self, max_send_wr: u32) -> Self {
        self.capacity.max_send_wr = max_send_wr;
        self
    }

    /// How many receives may be posted and not yet completed. Default: 128.
    pub fn set_max_recv_wr(mut self, max_recv_wr: u32) -> Self {
        self.capacity.max_recv_wr = max_recv_wr;
        self
    }

    /// Where it takes its receives from, instead of a receive queue of its own. The shared receive queue and the
    /// queue pair are of one protection domain. Its depth and scatter entries are those of the shared
    /// queue.
    pub fn set_srq(mut self, srq: &'a L::SharedReceiveQueue) -> Self {
        self.srq = Some(srq);
        self
    }

    /// How many scatter entries a send may have. Default: 1.
    pub fn set_max_send_sge(mut self, max_send_sge: u32) -> Self {
        self.capacity.max_send_sge = max_send_sge;
        self
    }

    /// How many scatter entries a receive may have. Default: 1.
    pub fn set_max_recv_sge(mut self, max_recv_sge: u32) -> Self {
        self.capacity.max_recv_sge = max_recv_sge;
        self
    }

    /// How many bytes a send may carry inline. Default: 0. Devices round it up as it suits them.
    pub fn set_max_inline_data(mut self, max_inline_data: u32) -> Self {
        self.capacity.max_inline_data = max_inline_data;
        self
    }

    /// Which operations will be posted. Default: sends, and what the transport has of writes, reads, compare and
    /// swap, and fetch and add.
    ///
    /// Leave out what a device does not have (adapters without atomics exist), and what would cost it
    /// larger queues. An operation that was left out is refused when its batch is submitted.
    pub fn set_send_ops(mut self, send_ops: SendOps) -> Self {
        self.config.send_ops = send_ops;
        self
    }

    /// Which operations will be posted as well: those that few devices have, such as
    /// [`SendOps::WINDOWS`], are not among the default ones.
    pub fn add_send_ops(mut self, send_ops: SendOps) -> Self {
        self.config.send_ops |= send_ops;
        self
    }

    /// A value of the program's own, which comes with the queue pair's asynchronous events (see
    /// [`EventSource`](crate::EventSource)). Default: 0.
    #[doc(alias = "qp_context")]
    pub fn set_context(mut self, context: u64) -> Self {
        self.context = context;
        self
    }

    /// Creates the queue pair: see `build`.
    fn create_prepared(mut self) -> Result<PreparedQueuePair<T>> {
        if let Some(srq) = self.srq.map(L::shared_receive_queue) {
            if !PdHandle::ptr_eq(srq.handle().pd(), self.pd.handle()) {
                return Err(Error::ProtectionDomainMismatch { what: "shared receive queue" });
            }
            (self.capacity.max_recv_wr, self.capacity.max_recv_sge) = (0, 0);
        }
        if self.config.is_efa {
            let capacity = &mut self.capacity;
            for number in
                [&mut capacity.max_send_wr, &mut capacity.max_recv_wr, &mut capacity.max_recv_sge]
            {
                *number = (*number).max(1);
            }
        }
        self.check_ranges()?;
        self.config.send_ops.check_capabilities(&self.pd.context())?;
        T::prepare(&self.pd.context(), &mut self.config)?;
        self.check_pkey()?;
        self.choose_gid()?;
        let inner = self.create(self.capacity).map_err(|code| self.explain(code))?;
        // SAFETY: the queue pair was created just now, and is alive in `inner`.
        let qp_ex = unsafe { ffi::ibv_qp_to_qp_ex(inner.raw.as_ptr()) };
        let Some(qp_ex) = NonNull::new(qp_ex) else {
            drop_or_park(inner);
            return Err(Error::Unsupported { operation: "the extended queue pair interface" });
        };
        // SAFETY: the queue pair is alive, and was created with these operations.
        let missing =
            unsafe { functions::missing(qp_ex, self.config.send_ops, T::Address::ADDRESSED) };
        if let Some(operation) = missing {
            drop_or_park(inner);
            return Err(Error::Unsupported { operation });
        }
        Ok(PreparedQueuePair::new(Core::new(qp_ex, inner)))
    }

    fn check_ranges(&self) -> Result<()> {
        let config = &self.config;
        check_route(config.service_level, config.flow_label)?;
        let ranges: [(&'static str, u32, u32, &'static str); 3] = [
            ("the retry count", config.retry_count.into(), 7, "it must be at most 7"),
            (
                "the RNR retry count",
                config.rnr_retry.unwrap_or_default().into(),
                7,
                "it must be at most 7",
            ),
            ("the first packet sequence number", config.first_psn, MASK_24, "it has 24 bits"),
        ];
        for (what, value, max, expected) in ranges {
            if value > max {
                return Err(Error::InvalidArgument { what, value: u64::from(value), expected });
            }
        }
        let send_ops = config.send_ops;
        if send_ops.is_empty() || !T::SEND_OPS.union(T::OPTIONAL_OPS).contains(send_ops) {
            let possible = T::SEND_OPS.union(T::OPTIONAL_OPS);
            return Err(Error::InvalidSendOps { requested: send_ops, possible });
        }
        for (what, requested, available) in [
            ("outstanding reads and atomics", config.max_rd_atomic, self.limits.init_rd_atomic),
            ("incoming reads and atomics", config.max_dest_rd_atomic, self.limits.dest_rd_atomic),
        ] {
            if u32::from(requested) > available {
                // What is not tried here would be refused on the way to RTR or RTS.
                let requested = requested.into();
                return Err(capacity_error("ibv_modify_qp", what, requested, available, None));
            }
        }
        Ok(())
    }

    fn check_pkey(&self) -> Result<()> {
        let (port, index, entries) = (self.config.port, self.config.pkey_index, self.limits.pkeys);
        if index < entries {
            return Ok(());
        }
        let (index, entries) = (u32::from(index), u32::from(entries));
        Err(Error::InvalidIndex { table: "P_Key", port, index, entries })
    }

    fn choose_gid(&mut self) -> Result<()> {
        let port = self.config.port;
        let context = self.pd.handle().context();
        let index = match (self.config.gid_index, self.link_layer) {
            (Some(index), _) => index,
            (None, LinkLayer::ETHERNET) => {
                let entry = context.routable_gid(port)?;
                entry.and_then(|entry| entry.gid_index()).ok_or(Error::NoGid { port })?
            }
            // The only one there is, and the only address of the port.
            (None, _) if self.config.is_efa => 0,
            (None, _) => return Ok(()),
        };
        context.check_source_gid(port, index)?;
        self.config.gid_index = Some(index);
        Ok(())
    }

    /// Creates a queue pair of this capacity. It is not simply to be dropped: a poll of its completion queues may be
    /// open.
    fn create(&self, capacity: QueuePairCapacity) -> Result<Handle<QpInner>, i32> {
        let send_cq = L::completion_queue(self.send_cq).handle();
        let recv_cq = L::completion_queue(self.recv_cq).handle();
        let srq = self.srq.map(|srq| L::shared_receive_queue(srq).handle());
        let mut attr = ffi::ibv_qp_init_attr_ex {
            qp_context: ptr::null_mut::<c_void>().wrapping_byte_add(self.context as usize),
            send_cq: send_cq.as_raw(),
            recv_cq: recv_cq.as_raw(),
            srq: srq.map_or(ptr::null_mut(), |srq| srq.as_raw()),
            cap: capacity.to_raw(),
            qp_type: T::QP_TYPE,
            sq_sig_all: 0,
            comp_mask: ffi::IBV_QP_INIT_ATTR_PD | ffi::IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
            pd: self.pd.as_raw(),
            send_ops_flags: self.config.send_ops.bits(),
            ..Default::default()
        };
        let context = self.pd.handle().context().as_raw();
        // SAFETY: the context, the domain, the completion queues and the shared receive queue are alive and, as
        // `new` and `build` checked, of one device; `qp_context` is kept and never followed
        // (ibv_create_qp_ex(3)); the other pointers of the attributes are null, and not claimed by `comp_mask`.
        let raw = created(|| unsafe { T::create(context, &mut attr, &self.config) })?;
        let mut granted = QueuePairCapacity::from_raw(&attr.cap);
        if self.srq.is_some() {
            // Providers may say something else, but there is no queue to post to.
            (granted.max_recv_wr, granted.max_recv_sge) = (0, 0);
        }
        let limits = super::Limits::new(self.config.send_ops, granted);
        // SAFETY: the queue pair was created just now.
        let posting = unsafe { functions::Posting::of(raw) };
        Ok(Handle::new(QpInner {
            raw,
            posting,
            config: self.config,
            send_cq: send_cq.clone(),
            recv_cq: recv_cq.clone(),
            _srq: srq.cloned(),
            groups: Vec::new(),
            windows: BoundWindows::default(),
            requests: Requests::new(&granted),
            refusal: None,
            obstacle: Default::default(),
            limits,
            gate: Gate::new(&limits, T::SEND_OPS),
            nowhere: None,
            resets: 0,
            tables: KeptTables::default(),
            pd: PdUser::new(self.pd.handle()),
        }))
    }
}

impl<T: Transport> QueuePairBuilder<'_, T, Raw> {
    /// Creates the queue pair.
    ///
    /// # Errors
    ///
    /// - [`Error::Capacity`] if the device does not have queues of such a depth, or so many scatter
    ///   entries or inline bytes.
    /// - [`Error::InvalidIndex`] if the port has no GID or partition key of that index, [`Error::NoGid`] if no
    ///   GID was named and the port has none that could be used.
    /// - [`Error::InvalidArgument`] if a value is out of its range.
    /// - [`Error::InvalidSendOps`] if the transport does not have one of the operations, or there is none.
    /// - [`Error::ProtectionDomainMismatch`] if the shared receive queue is of another domain.
    /// - [`Error::Unsupported`] if the device lacks one of the operations, or the extended interface.
    /// - [`Error::Verb`] if the kernel refuses for another reason, or a query fails.
    #[doc(alias = "ibv_create_qp_ex")]
    pub fn build(self) -> Result<PreparedQueuePair<T>> {
        self.create_prepared()
    }
}

impl<T: Transport> QueuePairBuilder<'_, T, Owned> {
    /// Creates the queue pair, with at least one scatter entry for each operation.
    ///
    /// # Errors
    ///
    /// Those of [`build`](QueuePairBuilder::build) on the raw level.
    #[doc(alias = "ibv_create_qp_ex")]
    pub fn build(mut self) -> Result<OwnedQueuePair<T, Reset>> {
        let capacity = &mut self.capacity;
        for entries in [&mut capacity.max_send_sge, &mut capacity.max_recv_sge] {
            *entries = (*entries).max(1);
        }
        let QueuePairBuilder { send_cq, recv_cq, srq, .. } = self;
        Ok(OwnedQueuePair::new(self.create_prepared()?, send_cq, recv_cq, srq))
    }
}

/// For connected transports.
impl<T: Transport, L: QueueLevel> QueuePairBuilder<'_, T, L> {
    /// What the peer may do through this queue pair, as far as the memory's keys allow it as well. Only
    /// the remote rights count. Default: what the transport and the device have of read, write and
    /// atomics; but no flushes.
    pub fn set_access(mut self, access: AccessFlags) -> Self
    where
        T: Connected,
    {
        self.config.access = access;
        self
    }

    /// The longest packet, at most the port's active MTU, which is the default. Both sides must agree. A longer one is
    /// not refused, and does not arrive.
    pub fn set_path_mtu(mut self, path_mtu: Mtu) -> Self
    where
        T: Connected,
    {
        self.config.path_mtu = path_mtu;
        self
    }
}

/// For reliable transports.
impl<T: Transport, L: QueueLevel> QueuePairBuilder<'_, T, L> {
    /// How long a peer that finds no receive posted here should wait. Default: 0.64 ms.
    pub fn set_min_rnr_timer(mut self, min_rnr_timer: RnrTimer) -> Self
    where
        T: Reliable,
    {
        self.config.min_rnr_timer = min_rnr_timer;
        self
    }

    /// How long to wait for an acknowledgement. Default: 67 ms.
    pub fn set_timeout(mut self, timeout: AckTimeout) -> Self
    where
        T: Reliable,
    {
        self.config.timeout = timeout;
        self
    }

    /// How often to send again without an acknowledgement, 0 to 7. Default: 6. SoftRoCE takes 7 as without
    /// end: it would never notice that the peer is gone.
    pub fn set_retry_count(mut self, retry_count: u8) -> Self
    where
        T: Reliable,
    {
        self.config.retry_count = retry_count;
        self
    }

    /// How often to send again to a peer that was not ready to receive, 0 to 6; 7 means without end.
    /// Default: 7; with `Srd` (feature `efa`), what the device does by itself.
    pub fn set_rnr_retry(mut self, rnr_retry: u8) -> Self
    where
        T: RnrRetry,
    {
        self.config.rnr_retry = Some(rnr_retry);
        self
    }

    /// How many reads and atomics may be under way from here; at most what the peer's
    /// [`set_max_dest_rd_atomic`](Self::set_max_dest_rd_atomic) says. Default: up to 16.
    pub fn set_max_rd_atomic(mut self, max_rd_atomic: u8) -> Self
    where
        T: Reliable,
    {
        self.config.max_rd_atomic = max_rd_atomic;
        self
    }

    /// How many reads and atomics may be under way towards here. Default: up to 16.
    pub fn set_max_dest_rd_atomic(mut self, max_dest_rd_atomic: u8) -> Self
    where
        T: Reliable,
    {
        self.config.max_dest_rd_atomic = max_dest_rd_atomic;
        self
    }
}

/// 24 bits that nobody can foresee: the standard library's hash keys are random.
fn random_psn() -> u32 {
    RandomState::new().build_hasher().finish() as u32 & MASK_24
}
