//! What EFA knows of address handles and memory regions.

use super::{len_of, query};
use crate::ah::AddressHandle;
use crate::error::Result;
use crate::ffi;
use crate::mr::MemoryRegion;

impl AddressHandle {
    /// The number that an EFA device has given to the handle: by this, and not by an address, a completion
    /// [names](crate::WorkCompletion::slid) the sender of a message that came from there.
    ///
    /// # Errors
    ///
    /// - [`Error::Unsupported`](crate::Error::Unsupported) if this is no EFA device.
    /// - [`Error::Provider`](crate::Error::Provider) if there is no libefa.
    #[doc(alias = "efadv_query_ah")]
    #[doc(alias = "ahn")]
    pub fn efa_ahn(&self) -> Result<u16> {
        let mut raw = ffi::efadv_ah_attr::default();
        query("efadv_query_ah, of EFA devices only,", || {
            // SAFETY: the handle is alive, and the attributes are as long as is said. For a device of another driver the
            // function does nothing but look which one that is (`is_efa_dev` in providers/efa/efa.c).
            unsafe { ffi::efadv_query_ah(self.as_raw(), &mut raw, len_of::<ffi::efadv_ah_attr>()) }
        })?;
        Ok(raw.ahn)
    }
}

/// By which interconnects of an EFA device a memory region is reached; from [`MemoryRegion::efa_interconnects`].
///
/// The numbers mean nothing by themselves. What has the same one shares an interconnect.
#[doc(alias = "efadv_mr_attr")]
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Interconnects {
    /// That of what is received into the region.
    pub recv: Option<u16>,
    /// That of what reads of this side fetch into the region.
    pub rdma_read: Option<u16>,
    /// That of what peers write into the region.
    pub rdma_recv: Option<u16>,
}

impl<B> MemoryRegion<B> {
    /// By which interconnects of an EFA device the region is reached, as far as the device tells.
    ///
    /// # Errors
    ///
    /// - [`Error::Unsupported`](crate::Error::Unsupported) if this is no EFA device, or the installed libefa or the
    ///   kernel does not have this query.
    /// - [`Error::Provider`](crate::Error::Provider) if there is no libefa.
    /// - [`Error::Verb`](crate::Error::Verb) if the device does not answer.
    #[doc(alias = "efadv_query_mr")]
    pub fn efa_interconnects(&self) -> Result<Interconnects> {
        let mut raw = ffi::efadv_mr_attr::default();
        query("efadv_query_mr, of EFA devices only,", || {
            // SAFETY: the region is alive, and the attributes are as long as is said. For a device of another driver the
            // function does nothing but look which one that is (`is_efa_dev` in providers/efa/efa.c).
            unsafe { ffi::efadv_query_mr(self.as_raw(), &mut raw, len_of::<ffi::efadv_mr_attr>()) }
        })?;
        let valid = |flag: u32, id: u16| (u32::from(raw.ic_id_validity) & flag != 0).then_some(id);
        Ok(Interconnects {
            recv: valid(ffi::EFADV_MR_ATTR_VALIDITY_RECV_IC_ID, raw.recv_ic_id),
            rdma_read: valid(ffi::EFADV_MR_ATTR_VALIDITY_RDMA_READ_IC_ID, raw.rdma_read_ic_id),
            rdma_recv: valid(ffi::EFADV_MR_ATTR_VALIDITY_RDMA_RECV_IC_ID, raw.rdma_recv_ic_id),
        })
    }
}
