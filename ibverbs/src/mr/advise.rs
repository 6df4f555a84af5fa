//! Advice to the kernel about memory that is registered on demand.

use std::io;

use bitflags::bitflags;

use super::LocalMemorySlice;
use crate::c_enum::c_enum;
use crate::error::{error_number, Error, Result};
use crate::ffi;
use crate::pd::ProtectionDomain;

c_enum! {
    /// What is advised (`enum ibv_advise_mr_advice`), for [`ProtectionDomain::advise_mr`].
    #[doc(alias = "ibv_advise_mr_advice")]
    pub struct Advice: u32 {
        /// Bring the pages in, for the device to read.
        PREFETCH = ffi::IBV_ADVISE_MR_ADVICE_PREFETCH, "prefetch";
        /// Bring the pages in, for the device to write. The regions need
        /// [`AccessFlags::LOCAL_WRITE`](crate::AccessFlags::LOCAL_WRITE).
        PREFETCH_WRITE = ffi::IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE, "prefetch for writing";
        /// Tell the device of those pages that are in memory already, and bring in no others.
        PREFETCH_NO_FAULT = ffi::IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT, "prefetch without faulting";
    }
}

bitflags! {
    /// How advice is followed (`enum ibv_advise_mr_flag`), for [`ProtectionDomain::advise_mr`].
    #[doc(alias = "ibv_advise_mr_flag")]
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct AdviseFlags: u32 {
        /// The call returns when it is done. Otherwise it may go on in the background, and what goes
        /// wrong then is not reported.
        const FLUSH = ffi::IBV_ADVISE_MR_FLAG_FLUSH;
    }
}

impl ProtectionDomain {
    /// Gives the kernel advice about pieces of regions that are registered with
    /// [`AccessFlags::ON_DEMAND`](crate::AccessFlags::ON_DEMAND): which pages the device is going to need.
    ///
    /// It saves the device page faults; nothing depends on it being followed.
    ///
    /// # Errors
    ///
    /// - [`Error::Unsupported`] if the device has no on-demand paging, or not this advice
    ///   ([`DeviceAttrEx::odp_caps`](crate::DeviceAttrEx::odp_caps)).
    /// - [`Error::InvalidArgument`] if there is no slice, or more than 4095.
    /// - [`Error::Advise`] if the kernel refuses, with the likely cause: a slice is of a region that is gone, was
    ///   registered otherwise or belongs to another protection domain, or its memory is not mapped.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn warm_up(pd: &ibverbs::ProtectionDomain) -> ibverbs::Result<()> {
    /// use ibverbs::{AccessFlags, Advice, AdviseFlags};
    ///
    /// let region = pd.allocate(1 << 20, AccessFlags::LOCAL_WRITE | AccessFlags::ON_DEMAND)?;
    /// pd.advise_mr(Advice::PREFETCH_WRITE, AdviseFlags::FLUSH, &[region.slice(..65536)])?;
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "ibv_advise_mr")]
    pub fn advise_mr(
        &self,
        advice: Advice,
        flags: AdviseFlags,
        slices: &[LocalMemorySlice],
    ) -> Result<()> {
        // The kernel's interface gives the length of the list 16 bits, and counts bytes.
        const MAX: usize = u16::MAX as usize / size_of::<ffi::ibv_sge>();
        if slices.is_empty() || slices.len() > MAX {
            return Err(Error::InvalidArgument {
                what: "the number of slices that advice is about",
                value: slices.len() as u64,
                expected: "it must be from 1 to 4095",
            });
        }
        let list = slices.as_ptr().cast::<ffi::ibv_sge>().cast_mut();
        let len = slices.len() as u32;
        // SAFETY: the domain is alive, and the list has `len` entries, for a slice is an `ibv_sge`. It is
        // only read: providers hand it to the kernel as input (`ibv_cmd_advise_mr` in
        // libibverbs/cmd_mr.c). The kernel checks the keys, the ranges and the flags.
        let code = unsafe { ffi::ibv_advise_mr(self.as_raw(), advice.0, flags.bits(), list, len) };
        if code == 0 {
            return Ok(());
        }
        Err(advise_error(advice, slices.len(), error_number(code)))
    }
}

#[cold]
fn advise_error(advice: Advice, slices: usize, code: i32) -> Error {
    let hint = match code {
        libc::EFAULT => "a slice goes beyond its region, or its memory is not mapped",
        libc::EINVAL | libc::ENOENT | libc::EPERM => {
            "each slice must be of a live region of this protection domain that was registered with ON_DEMAND, \
             and with LOCAL_WRITE for PREFETCH_WRITE"
        }
        _ => match Error::from_code("ibv_advise_mr", code) {
            unsupported @ Error::Unsupported { .. } => return unsupported,
            _ => "the kernel refused",
        },
    };
    Error::Advise { advice, slices, hint, source: io::Error::from_raw_os_error(code) }
}
