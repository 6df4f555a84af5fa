//! What an EFA device says about itself.

use bitflags::bitflags;

use super::{len_of, query};
use crate::attr::attributes;
use crate::context::Context;
use crate::error::{at_least_one, Result};
use crate::ffi;
use crate::qp::SendOps;

bitflags! {
    /// What an EFA device can do (`EFADV_DEVICE_ATTR_CAPS_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct DeviceCaps: u32 {
        /// RDMA read.
        const RDMA_READ = ffi::EFADV_DEVICE_ATTR_CAPS_RDMA_READ;
        /// How often [`Srd`](super::Srd) sends again to a peer that was not ready can be set.
        const RNR_RETRY = ffi::EFADV_DEVICE_ATTR_CAPS_RNR_RETRY;
        /// Completions can tell the GID of a sender that no address handle is known of.
        const CQ_WITH_SGID = ffi::EFADV_DEVICE_ATTR_CAPS_CQ_WITH_SGID;
        /// RDMA write.
        const RDMA_WRITE = ffi::EFADV_DEVICE_ATTR_CAPS_RDMA_WRITE;
        /// Writes with immediate data can do without a receive.
        const UNSOLICITED_WRITE_RECV = ffi::EFADV_DEVICE_ATTR_CAPS_UNSOLICITED_WRITE_RECV;
        /// A completion queue can lie in memory of another device.
        const CQ_WITH_EXT_MEM_DMABUF = ffi::EFADV_DEVICE_ATTR_CAPS_CQ_WITH_EXT_MEM_DMABUF;
        /// Completions can be counted without a queue.
        const COMP_CNTR = ffi::EFADV_DEVICE_ATTR_CAPS_COMP_CNTR;
    }
}

/// The attributes of an EFA device; from [`Context::query_efa_device`].
///
/// What the installed rdma-core or the kernel does not tell yet is zero.
#[doc(alias = "efadv_device_attr")]
#[derive(Clone, Copy)]
pub struct DeviceAttr {
    raw: ffi::efadv_device_attr,
}

impl DeviceAttr {
    /// The C structure.
    pub fn as_raw(&self) -> &ffi::efadv_device_attr {
        &self.raw
    }

    /// The operations that queue pairs of [`Srd`](super::Srd) can have on this device, for
    /// [`set_send_ops`](crate::QueuePairBuilder::set_send_ops).
    pub fn send_ops(&self) -> SendOps {
        let caps = self.capabilities();
        let mut ops = SendOps::SENDS;
        ops.set(SendOps::RDMA_READ, caps.contains(DeviceCaps::RDMA_READ));
        ops.set(SendOps::WRITES, caps.contains(DeviceCaps::RDMA_WRITE));
        ops
    }
}

attributes! {
    DeviceAttr {
        /// How many requests the deepest send queue holds. What else it is to hold makes it less deep: see
        /// [`Context::efa_max_send_wr`].
        max_sq_wr(attr) -> u32 { attr.raw.max_sq_wr }

        /// How many requests of one scatter entry the deepest receive queue holds.
        max_rq_wr(attr) -> u32 { attr.raw.max_rq_wr }

        /// How many scatter entries a send may have. (Writes and reads:
        /// [`DeviceAttr::max_sge_rd`](crate::DeviceAttr::max_sge_rd).)
        max_sq_sge(attr) -> u16 { attr.raw.max_sq_sge }

        /// How many scatter entries a receive may have.
        max_rq_sge(attr) -> u16 { attr.raw.max_rq_sge }

        /// How many bytes a request may carry inline.
        #[doc(alias = "inline_buf_size_ex")]
        inline_buf_size(attr) -> u16 { attr.raw.inline_buf_size_ex.max(attr.raw.inline_buf_size) }

        /// What the device can do.
        #[doc(alias = "device_caps")]
        capabilities(attr) -> DeviceCaps { DeviceCaps::from_bits_retain(attr.raw.device_caps) }

        /// How many bytes a write or a read may move. (Sends:
        /// [`PortAttr::max_msg_size`](crate::PortAttr::max_msg_size).)
        max_rdma_size(attr) -> u32 { attr.raw.max_rdma_size }
    }
}

/// What the requests of a send queue are to hold; for [`Context::efa_max_send_wr`].
///
/// ```
/// let shape = ibverbs::efa::SendQueueShape { max_inline_data: 64, ..Default::default() };
/// ```
#[doc(alias = "efadv_sq_depth_attr")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SendQueueShape {
    /// How many scatter entries a send may have.
    pub max_send_sge: u32,
    /// How many scatter entries a write or a read may have.
    pub max_rdma_sge: u32,
    /// How many bytes a request may carry inline.
    pub max_inline_data: u32,
    /// Whether a write may carry its bytes inline as well.
    pub inline_write: bool,
}

/// The depth that a query by libefa answers, or its error: a number below zero.
fn depth(verb: &'static str, ask: impl FnOnce() -> i32) -> Result<u32> {
    let mut answer = 0;
    query(verb, || {
        answer = ask();
        answer.min(0)
    })?;
    Ok(answer.unsigned_abs())
}

impl Context {
    /// The attributes that only EFA devices have.
    ///
    /// # Errors
    ///
    /// - [`Error::Unsupported`](crate::Error::Unsupported) if this is no EFA device.
    /// - [`Error::Provider`](crate::Error::Provider) if there is no libefa.
    /// - [`Error::Verb`](crate::Error::Verb) if libefa refuses.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn show(ctx: &ibverbs::Context) -> ibverbs::Result<()> {
    /// let attr = ctx.query_efa_device()?;
    /// println!("SRD has {:?}; one read or write moves {} bytes", attr.send_ops(), attr.max_rdma_size());
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "efadv_query_device")]
    pub fn query_efa_device(&self) -> Result<DeviceAttr> {
        let mut raw = ffi::efadv_device_attr::default();
        query("efadv_query_device, of EFA devices only,", || {
            let len = len_of::<ffi::efadv_device_attr>();
            // SAFETY: the context is open, and the attributes are as long as is said. For a device of another driver
            // the function does nothing but look which one that is (`is_efa_dev` in providers/efa/efa.c).
            unsafe { ffi::efadv_query_device(self.as_raw(), &mut raw, len) }
        })?;
        Ok(DeviceAttr { raw })
    }

    /// How deep a send queue can be on an EFA device, if its requests are to hold this.
    ///
    /// # Errors
    ///
    /// - [`Error::Unsupported`](crate::Error::Unsupported) if this is no EFA device, or the installed libefa does not
    ///   have this query.
    /// - [`Error::Provider`](crate::Error::Provider) if there is no libefa.
    /// - [`Error::Verb`](crate::Error::Verb) with `EINVAL` if the device has no requests that hold so much.
    #[doc(alias = "efadv_get_max_sq_depth")]
    pub fn efa_max_send_wr(&self, shape: &SendQueueShape) -> Result<u32> {
        let mut raw = ffi::efadv_sq_depth_attr {
            max_send_sge: shape.max_send_sge,
            max_rdma_sge: shape.max_rdma_sge,
            max_inline_data: shape.max_inline_data,
            ..Default::default()
        };
        if shape.inline_write {
            raw.flags |= ffi::EFADV_SQ_DEPTH_ATTR_INLINE_WRITE;
        }
        depth("efadv_get_max_sq_depth, of EFA devices only,", || {
            let len = len_of::<ffi::efadv_sq_depth_attr>();
            // SAFETY: as in `query_efa_device`.
            unsafe { ffi::efadv_get_max_sq_depth(self.as_raw(), &mut raw, len) }
        })
    }

    /// How deep a receive queue can be on an EFA device, if its receives may have `max_recv_sge` scatter entries.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidArgument`](crate::Error::InvalidArgument) if there is to be no entry.
    /// - The others of [`efa_max_send_wr`](Self::efa_max_send_wr).
    #[doc(alias = "efadv_get_max_rq_depth")]
    pub fn efa_max_recv_wr(&self, max_recv_sge: u32) -> Result<u32> {
        // The library divides by it.
        at_least_one("the number of scatter entries", max_recv_sge)?;
        let mut raw = ffi::efadv_rq_depth_attr { max_recv_sge, ..Default::default() };
        depth("efadv_get_max_rq_depth, of EFA devices only,", || {
            let len = len_of::<ffi::efadv_rq_depth_attr>();
            // SAFETY: as in `query_efa_device`.
            unsafe { ffi::efadv_get_max_rq_depth(self.as_raw(), &mut raw, len) }
        })
    }
}
