//! What EFA has of its own: the adapters of Amazon EC2, by the functions of libefa (`efadv.h`).
//!
//! Its transport is [`Srd`]; [`ProtectionDomain::create_srd_qp`](crate::ProtectionDomain::create_srd_qp) builds its queue
//! pairs. (The adapters have [`Ud`](crate::Ud) as well, and neither connections nor shared receive queues.)
//!
//! | C | here |
//! |---|---|
//! | `efadv_create_qp_ex` | [`ProtectionDomain::create_srd_qp`](crate::ProtectionDomain::create_srd_qp) |
//! | `efadv_create_cq` | [`CompletionQueueBuilder::set_efa_wc_fields`](crate::CompletionQueueBuilder::set_efa_wc_fields) |
//! | `efadv_wc_read_sgid` | [`WorkCompletion::efa_sender_gid`](crate::WorkCompletion::efa_sender_gid) |
//! | `efadv_wc_is_unsolicited` | [`WorkCompletion::efa_is_unsolicited`](crate::WorkCompletion::efa_is_unsolicited) |
//! | `efadv_query_device` | [`Context::query_efa_device`](crate::Context::query_efa_device) |
//! | `efadv_get_max_sq_depth` | [`Context::efa_max_send_wr`](crate::Context::efa_max_send_wr) |
//! | `efadv_get_max_rq_depth` | [`Context::efa_max_recv_wr`](crate::Context::efa_max_recv_wr) |
//! | `efadv_query_ah` | [`AddressHandle::efa_ahn`](crate::AddressHandle::efa_ahn) |
//! | `efadv_query_mr` | [`MemoryRegion::efa_interconnects`](crate::MemoryRegion::efa_interconnects) |
//!
//! Everything here can be called on any device: on one that is not of EFA it fails with
//! [`Error::Unsupported`](crate::Error::Unsupported), and with [`Error::Provider`](crate::Error::Provider) if there is no
//! libefa.
//!
//! # What is not here
//!
//! - `efadv_create_driver_qp`: it makes queue pairs without the extended interface.
//! - `efadv_query_qp_wqs` and `efadv_query_cq`: the memory of queues, for programs that drive the device themselves.
//! - `efadv_create_comp_cntr`, the completion counters, and the queue memory of `efadv_create_cq`: for processors that
//!   are not the host's.
//! - `efadv_wr_set_processing_hints`, a hint to the device about bursts of small messages.

mod cq;
mod device;
mod objects;
mod srd;

pub(crate) use cq::EfaCq;
pub use cq::WcFields;
pub use device::{DeviceAttr, DeviceCaps, SendQueueShape};
pub use objects::Interconnects;
pub use srd::Srd;
pub(crate) use srd::SrdConfig;

use crate::error::{check, Result};
use crate::provider;

/// The size of a structure, which tells the library how much of it this crate knows.
const fn len_of<T>() -> u32 {
    std::mem::size_of::<T>() as u32
}

/// The result of a query by libefa, of which `verb` is the name, and what it is asked.
///
/// # Errors
///
/// [`Error::Provider`](crate::Error::Provider) if there is no libefa.
fn query(verb: &'static str, ask: impl FnOnce() -> i32) -> Result<()> {
    provider::efa()?;
    check(verb, ask())
}
