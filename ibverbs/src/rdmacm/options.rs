//! Options of identifiers.

use std::ffi::c_int;

use super::id::CmId;
use crate::error::Result;
use crate::ffi;
use crate::qp::AckTimeout;

impl CmId {
    /// The type of service of the connection's packets, and of those that set it up (RFC 2474). Set it before the
    /// route is resolved. Default: that of the host's configuration.
    ///
    /// # Errors
    ///
    /// [`Error::Verb`](crate::Error::Verb) if the kernel refuses.
    #[doc(alias = "rdma_set_option")]
    #[doc(alias = "RDMA_OPTION_ID_TOS")]
    pub fn set_type_of_service(&mut self, type_of_service: u8) -> Result<()> {
        self.set_option(ffi::RDMA_OPTION_ID_TOS, type_of_service)
    }

    /// Whether the local address may be bound again while another identifier still has it, as `SO_REUSEADDR` does for
    /// sockets. Set it before [`bind_addr`](Self::bind_addr), on both. None listens while another is bound to its address.
    /// Default: no.
    ///
    /// # Errors
    ///
    /// [`Error::Verb`](crate::Error::Verb) if the kernel refuses.
    #[doc(alias = "rdma_set_option")]
    #[doc(alias = "RDMA_OPTION_ID_REUSEADDR")]
    pub fn set_reuse_address(&mut self, reuse: bool) -> Result<()> {
        self.set_option(ffi::RDMA_OPTION_ID_REUSEADDR, c_int::from(reuse))
    }

    /// Whether a wildcard address stands for its own family only, as `IPV6_V6ONLY` does for sockets. Set it before
    /// [`bind_addr`](Self::bind_addr). Default: no; a listener on `::` also takes requests over IPv4.
    ///
    /// # Errors
    ///
    /// [`Error::Verb`](crate::Error::Verb) if the kernel refuses.
    #[doc(alias = "rdma_set_option")]
    #[doc(alias = "RDMA_OPTION_ID_AFONLY")]
    pub fn set_address_family_only(&mut self, only: bool) -> Result<()> {
        self.set_option(ffi::RDMA_OPTION_ID_AFONLY, c_int::from(only))
    }

    /// How long the peer's queue pair should wait for an acknowledgement, as the connection request says; the device may
    /// make it longer. Set it before the route is resolved. Default: what the path's latency suggests. A peer that is made
    /// with this crate waits as long as [its builder](crate::QueuePairBuilder::set_timeout) says instead, and so does this
    /// side.
    ///
    /// # Errors
    ///
    /// - [`Error::Unsupported`](crate::Error::Unsupported) before Linux 5.3.
    /// - [`Error::Verb`](crate::Error::Verb) with `EINVAL` in a datagram port space.
    #[doc(alias = "rdma_set_option")]
    #[doc(alias = "RDMA_OPTION_ID_ACK_TIMEOUT")]
    pub fn set_ack_timeout(&mut self, timeout: AckTimeout) -> Result<()> {
        self.set_option(ffi::RDMA_OPTION_ID_ACK_TIMEOUT, timeout.exponent())
    }

    fn set_option<T>(&mut self, option: u32, mut value: T) -> Result<()> {
        let value = std::ptr::from_mut(&mut value).cast();
        self.verb("rdma_set_option", |id| {
            let (level, option) = (ffi::RDMA_OPTION_ID as c_int, option as c_int);
            // SAFETY: the identifier is alive, and `value` points to as many bytes as the last argument says, which
            // the kernel reads.
            unsafe { ffi::rdma_set_option(id, level, option, value, size_of::<T>()) }
        })
    }
}
