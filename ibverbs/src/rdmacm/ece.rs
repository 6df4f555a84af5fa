//! Enhanced connection establishment: what vendors agree on beyond the standard.

use super::id::CmId;
use crate::error::{check, Result};
use crate::ffi;
use crate::qp::{QueuePair, State, Transport, Unconnected};

/// Options of a vendor for a connection (`struct ibv_ece`). What they mean is the vendor's matter: a program passes
/// them on.
///
/// The client gives its queue pair's options to the identifier before it connects; the server sets those of the request
/// for its queue pair before bringing it up, and gives what that has made of them to the identifier before it
/// accepts; the client sets those of the response before bringing its own up.
#[doc(alias = "ibv_ece")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ece {
    /// The vendor. 0 for none.
    pub vendor_id: u32,
    /// The vendor's options.
    pub options: u32,
}

impl Ece {
    fn to_raw(self) -> ffi::ibv_ece {
        ffi::ibv_ece { vendor_id: self.vendor_id, options: self.options, comp_mask: 0 }
    }

    fn from_raw(raw: ffi::ibv_ece) -> Ece {
        Ece { vendor_id: raw.vendor_id, options: raw.options }
    }
}

impl CmId {
    /// The options to send with the request, or with its acceptance, which has the vendor of the request.
    ///
    /// # Errors
    ///
    /// [`Error::Verb`](crate::Error::Verb) with `EINVAL` if there is no vendor.
    #[doc(alias = "rdma_set_local_ece")]
    pub fn set_local_ece(&mut self, ece: Ece) -> Result<()> {
        let mut raw = ece.to_raw();
        // SAFETY: the identifier is alive, and the options are a whole structure.
        self.verb("rdma_set_local_ece", |id| unsafe { ffi::rdma_set_local_ece(id, &mut raw) })
    }

    /// The options that came with the request or the response. All zero if there were none.
    ///
    /// # Errors
    ///
    /// [`Error::Verb`](crate::Error::Verb) if the library refuses.
    #[doc(alias = "rdma_get_remote_ece")]
    pub fn remote_ece(&mut self) -> Result<Ece> {
        let mut raw = ffi::ibv_ece::default();
        // SAFETY: the identifier is alive, and the options are a whole structure.
        self.verb("rdma_get_remote_ece", |id| unsafe { ffi::rdma_get_remote_ece(id, &mut raw) })?;
        Ok(Ece::from_raw(raw))
    }
}

/// Options of the vendor for a connection: see [`Ece`].
impl<T: Transport, S: State> QueuePair<T, S> {
    /// The options that the queue pair can have, or has.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`](crate::Error::Unsupported) if the device has none.
    #[doc(alias = "ibv_query_ece")]
    pub fn query_ece(&mut self) -> Result<Ece> {
        let mut raw = ffi::ibv_ece::default();
        // SAFETY: the queue pair is alive, and the options are a whole structure.
        let code = unsafe { ffi::ibv_query_ece(self.as_raw().cast(), &mut raw) };
        check("ibv_query_ece", code)?;
        Ok(Ece::from_raw(raw))
    }

    /// Sets options, before the queue pair is brought up.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`](crate::Error::Unsupported) if the device has none,
    /// [`Error::Verb`](crate::Error::Verb) if it refuses these.
    #[doc(alias = "ibv_set_ece")]
    pub fn set_ece(&mut self, ece: Ece) -> Result<()>
    where
        S: Unconnected,
    {
        let mut raw = ece.to_raw();
        // SAFETY: the queue pair is alive, and the options are a whole structure.
        let code = unsafe { ffi::ibv_set_ece(self.as_raw().cast(), &mut raw) };
        check("ibv_set_ece", code)
    }
}
