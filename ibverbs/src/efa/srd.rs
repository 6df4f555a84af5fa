//! Scalable reliable datagrams: the transport that EFA is made for.

use super::device::{DeviceCaps, SendQueueShape};
use super::len_of;
use crate::context::Context;
use crate::cq::CompletionQueue;
use crate::error::{Error, Result};
use crate::ffi;
use crate::pd::ProtectionDomain;
use crate::qp::{
    capacity_error, Datagram, DatagramAddress, QpConfig, QueuePairBuilder, QueuePairCapacity,
    RdmaRead, RdmaWrite, RnrRetry, SendOps, Transport, TransportSpec,
};

/// Scalable reliable datagram, of EFA: one queue pair exchanges messages with any number of others, and each arrives
/// once, or its completion tells that it did not. They may overtake each other, for they take many paths through the
/// network; so they also complete in any order.
///
/// **Operations.** Each is addressed, as those of [`Ud`](crate::Ud), and completes, whether
/// [`signaled`](crate::SendOp::signaled) or not. A send is at most as long as
/// [`PortAttr::max_msg_size`](crate::PortAttr::max_msg_size) says, which is less than 9 KiB. By default a queue pair has
/// sends only. Writes and reads, which newer adapters have, are asked for with
/// [`set_send_ops`](QueuePairBuilder::set_send_ops), most easily as what
/// [`efa::DeviceAttr::send_ops`](super::DeviceAttr::send_ops) tells; they have one scatter entry, and move up to
/// [`max_rdma_size`](super::DeviceAttr::max_rdma_size) bytes. EFA has no [`solicited`](crate::SendOp::solicited) messages,
/// and refuses them when the batch is submitted.
///
/// **Completions.** That of a read has the opcode [`WcOpcode::SEND`](crate::WcOpcode::SEND): EFA tells writes and the
/// rest apart. A place in the send queue is free when the request that stands there has completed; a full queue refuses
/// the batch.
///
/// **Receives.** A message fills its receive from the first byte on; there is no global route header. A receive has at
/// least one scatter entry (one without is never used), of which up to 65535 bytes count. Memory that peers write and
/// read is protected by its keys alone.
///
/// **Peers** are reached by the GID in their [`QueuePairEndpoint`](crate::QueuePairEndpoint). A completion names the sender by the
/// [number](crate::AddressHandle::efa_ahn) of its address handle, as [`slid`](crate::WorkCompletion::slid), if there is
/// one here.
///
/// # Examples
///
/// ```no_run
/// # use ibverbs::{
/// #     AccessFlags, Context, QueuePairEndpoint, RecvRequest, RemoteMemorySlice, Result,
/// # };
/// # fn talk(ctx: &Context, exchange: impl Fn(QueuePairEndpoint) -> (QueuePairEndpoint, RemoteMemorySlice)) -> Result<()> {
/// const QKEY: u32 = 0x1234_5678; // of both sides
/// let (pd, cq) = (ctx.alloc_pd()?, ctx.create_cq(64).build()?);
/// let region = pd.allocate(4096, AccessFlags::LOCAL_WRITE)?;
/// let builder = pd.create_srd_qp(&cq, &cq, 1)?.set_send_ops(ctx.query_efa_device()?.send_ops());
/// let mut qp = builder.build()?.activate(QKEY)?;
///
/// let (peer, remote) = exchange(qp.endpoint()?); // over a socket, for example
/// let ah = pd.create_ah(&qp.address_of(&peer)?)?;
/// let mut batch = qp.start_send();
/// batch.to(&ah, peer.qp_num(), QKEY).send(1, &[region.slice(..64)]);
/// batch.to(&ah, peer.qp_num(), QKEY).write(2, &[region.slice(..)], remote);
/// // SAFETY: the region is not touched before both requests have completed, and the send queue is empty.
/// unsafe { batch.submit() }?;
/// # Ok(())
/// # }
/// ```
#[doc(alias = "EFADV_QP_DRIVER_TYPE_SRD")]
#[derive(Clone, Copy, Debug)]
pub enum Srd {}

impl Transport for Srd {}
impl Datagram for Srd {}
impl RnrRetry for Srd {}
impl RdmaWrite for Srd {}
impl RdmaRead for Srd {}

/// What a queue pair of SRD is built with, beside what all are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SrdConfig {
    unsolicited_write_recv: bool,
    inline_write: bool,
    /// How many scatter entries a write or a read may have.
    max_rdma_sge: u32,
}

impl ProtectionDomain {
    /// Starts a queue pair of [`Srd`] on `port`, which counts from 1; EFA devices have one. Its completions go to
    /// `send_cq` and `recv_cq`, which may be the same.
    ///
    /// This is [`create_qp::<Srd>`](Self::create_qp). Whether the device is one of EFA is found out when the queue pair
    /// is [built](QueuePairBuilder::build): [`Error::Unsupported`] if it is not, [`Error::Provider`] if there is no libefa.
    ///
    /// # Errors
    ///
    /// Those of [`create_qp`](Self::create_qp).
    #[doc(alias = "efadv_create_qp_ex")]
    pub fn create_srd_qp<'a>(
        &'a self,
        send_cq: &'a CompletionQueue,
        recv_cq: &'a CompletionQueue,
        port: u8,
    ) -> Result<QueuePairBuilder<'a, Srd>> {
        self.create_qp(send_cq, recv_cq, port)
    }
}

/// For scalable reliable datagrams.
impl QueuePairBuilder<'_, Srd> {
    /// Whether writes with immediate data of peers do without a receive. Their completions have the `wr_id` 0 then, which
    /// stands for no receive; [`efa_is_unsolicited`](crate::WorkCompletion::efa_is_unsolicited) tells them from those of a
    /// receive that was posted with this number. Default: false.
    #[doc(alias = "EFADV_QP_FLAGS_UNSOLICITED_WRITE_RECV")]
    pub fn set_unsolicited_write_recv(mut self, unsolicited_write_recv: bool) -> Self {
        self.config.srd.unsolicited_write_recv = unsolicited_write_recv;
        self
    }

    /// Whether writes may carry inline data as well, as much as
    /// [`set_max_inline_data`](Self::set_max_inline_data) says. Every request takes twice its place then. Default:
    /// false, and such a write is refused when its batch is submitted.
    #[doc(alias = "EFADV_QP_FLAGS_INLINE_WRITE")]
    pub fn set_inline_write(mut self, inline_write: bool) -> Self {
        self.config.srd.inline_write = inline_write;
        self
    }
}

impl TransportSpec for Srd {
    const QP_TYPE: ffi::ibv_qp_type = ffi::IBV_QPT_DRIVER;
    const SEND_OPS: SendOps = SendOps::SENDS;
    const OPTIONAL_OPS: SendOps = SendOps::WRITES.union(SendOps::RDMA_READ);
    const CLASSIC_OPS: SendOps = SendOps::SENDS;
    type Address = DatagramAddress;
    const CREATE: &'static str = "efadv_create_qp_ex";
    const ALWAYS_SIGNALED: bool = true;

    fn prepare(context: &Context, config: &mut QpConfig) -> Result<()> {
        let attr = match context.query_efa_device() {
            Err(Error::Unsupported { .. }) => {
                let operation = "SRD, which EFA devices have,";
                return Err(Error::Unsupported { operation });
            }
            attr => attr?,
        };
        let has_retries = attr.capabilities().contains(DeviceCaps::RNR_RETRY);
        if config.rnr_retry.is_some() && !has_retries {
            return Err(Error::Unsupported { operation: "a number of retries (`set_rnr_retry`)" });
        }
        config.srd.max_rdma_sge = context.query_device()?.max_sge_rd();
        Ok(())
    }

    unsafe fn create(
        context: *mut ffi::ibv_context,
        attr: &mut ffi::ibv_qp_init_attr_ex,
        config: &QpConfig,
    ) -> *mut ffi::ibv_qp {
        let mut flags = 0;
        if config.srd.unsolicited_write_recv {
            flags |= ffi::EFADV_QP_FLAGS_UNSOLICITED_WRITE_RECV;
        }
        if config.srd.inline_write {
            flags |= ffi::EFADV_QP_FLAGS_INLINE_WRITE;
        }
        let mut srd = ffi::efadv_qp_init_attr {
            driver_qp_type: ffi::EFADV_QP_DRIVER_TYPE_SRD,
            flags: flags as u16,
            sl: config.service_level,
            ..Default::default()
        };
        let len = len_of::<ffi::efadv_qp_init_attr>();
        // SAFETY: passed on to the caller; the second attributes are whole and as long as is said.
        unsafe { ffi::efadv_create_qp_ex(context, attr, &mut srd, len) }
    }

    #[cold]
    fn explain(
        context: &Context,
        config: &QpConfig,
        asked: &QueuePairCapacity,
        code: i32,
    ) -> Option<Error> {
        Some(explain(context, config, asked, code))
    }

    #[inline]
    fn rdma_capacity(config: &QpConfig, granted: &QueuePairCapacity) -> Option<QueuePairCapacity> {
        Some(QueuePairCapacity {
            max_send_sge: config.srd.max_rdma_sge,
            max_inline_data: if config.srd.inline_write { granted.max_inline_data } else { 0 },
            ..*granted
        })
    }
}

/// Finds out what the device does not have, or what was too much.
#[cold]
fn explain(context: &Context, config: &QpConfig, asked: &QueuePairCapacity, code: i32) -> Error {
    let Ok(attr) = context.query_efa_device() else {
        return Error::from_code(Srd::CREATE, code);
    };
    let (caps, ops, srd) = (attr.capabilities(), attr.send_ops(), &config.srd);
    if code == libc::EOPNOTSUPP {
        for (asked, cap, operation) in [
            (
                srd.unsolicited_write_recv,
                DeviceCaps::UNSOLICITED_WRITE_RECV,
                "a write without a receive (`set_unsolicited_write_recv`)",
            ),
            (srd.inline_write, DeviceCaps::RDMA_WRITE, "an inline write (`set_inline_write`)"),
        ] {
            if asked && !caps.contains(cap) {
                return Error::Unsupported { operation };
            }
        }
        let operation = match config.send_ops - ops {
            missing if missing.contains(SendOps::RDMA_READ) => "an RDMA read of SRD",
            missing if !missing.is_empty() => "an RDMA write of SRD",
            _ => Srd::CREATE,
        };
        return Error::Unsupported { operation };
    }
    let shape = SendQueueShape {
        max_send_sge: asked.max_send_sge,
        max_rdma_sge: 0,
        max_inline_data: asked.max_inline_data,
        inline_write: srd.inline_write,
    };
    // An older library does not tell, and more than this there never is.
    let max_send_wr = || context.efa_max_send_wr(&shape).unwrap_or(attr.max_sq_wr());
    let limits: [(&'static str, u32, &dyn Fn() -> u32); 5] = [
        ("send scatter entries", asked.max_send_sge, &|| attr.max_sq_sge().into()),
        ("receive scatter entries", asked.max_recv_sge, &|| attr.max_rq_sge().into()),
        ("bytes of inline data", asked.max_inline_data, &|| attr.inline_buf_size().into()),
        ("send requests", asked.max_send_wr, &max_send_wr),
        ("receive requests", asked.max_recv_wr, &|| attr.max_rq_wr() / asked.max_recv_sge.max(1)),
    ];
    for (what, requested, available) in limits {
        let available = available();
        if requested > available {
            return capacity_error(Srd::CREATE, what, requested, available, Some(code));
        }
    }
    Error::from_code(Srd::CREATE, code)
}
