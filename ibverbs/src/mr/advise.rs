//! Advice to the kernel about memory that is registered on demand.

use std::io;
use std::ops::RangeBounds;
use std::sync::PoisonError;

use bitflags::bitflags;

use super::slice::try_resolve;
use super::{AccessFlags, MemoryRegion, Registration};
use crate::c_enum::c_enum;
use crate::error::{error_number, Error, Result};
use crate::ffi;

c_enum! {
    /// What is advised (`enum ibv_advise_mr_advice`), for [`MemoryRegion::advise`].
    #[doc(alias = "ibv_advise_mr_advice")]
    pub struct Advice: u32 {
        /// Bring the pages in, for the device to read.
        PREFETCH = ffi::IBV_ADVISE_MR_ADVICE_PREFETCH, "prefetch";
        /// Bring the pages in, for the device to write. The region needs
        /// [`AccessFlags::LOCAL_WRITE`](crate::AccessFlags::LOCAL_WRITE).
        PREFETCH_WRITE = ffi::IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE, "prefetch for writing";
        /// Tell the device of those pages that are in memory already, and bring in no others.
        PREFETCH_NO_FAULT = ffi::IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT, "prefetch without faulting";
    }
}

bitflags! {
    /// How advice is followed (`enum ibv_advise_mr_flag`), for [`MemoryRegion::advise`].
    #[doc(alias = "ibv_advise_mr_flag")]
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct AdviseFlags: u32 {
        /// The call returns when it is done. Otherwise it may go on in the background, and what goes
        /// wrong then is not reported.
        const FLUSH = ffi::IBV_ADVISE_MR_FLAG_FLUSH;
    }
}

impl<B> MemoryRegion<B> {
    /// Gives the kernel advice about a range of a region that is registered with
    /// [`AccessFlags::ON_DEMAND`]: which pages the device is going to need.
    ///
    /// It saves the device page faults; nothing depends on it being followed. A device
    /// has a page table for each registration: if the region was given away ([`remote`](Self::remote)), the
    /// advice is about both of its registrations.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidAccess`] if the region is not registered on demand, or not with
    ///   [`AccessFlags::LOCAL_WRITE`] and it is to be prefetched for writing.
    /// - [`Error::OutOfBounds`] if the range does not lie within the region.
    /// - [`Error::Unsupported`] if the device or the kernel does not take this advice.
    /// - [`Error::Advise`] if the kernel refuses, with the likely cause.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn warm_up(pd: &ibverbs::ProtectionDomain) -> ibverbs::Result<()> {
    /// use ibverbs::{AccessFlags, Advice, AdviseFlags};
    ///
    /// let region = pd.allocate(1 << 20, AccessFlags::LOCAL_WRITE | AccessFlags::ON_DEMAND)?;
    /// region.advise(Advice::PREFETCH_WRITE, AdviseFlags::FLUSH, ..65536)?;
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "ibv_advise_mr")]
    pub fn advise(
        &self,
        advice: Advice,
        flags: AdviseFlags,
        range: impl RangeBounds<usize>,
    ) -> Result<()> {
        let (start, len) = try_resolve(range, self.len, "memory region")?;
        let Registration { local, remote, access, pd, .. } = &*self.inner.registration;
        check_access(advice, *access)?;
        // No registration is undone meanwhile: that takes the region by value.
        let remote = *remote.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list = Vec::new();
        for mr in [Some(*local), remote].into_iter().flatten() {
            // SAFETY: a successful registration returns an initialised `ibv_mr`, alive until `destroy`.
            let lkey = unsafe { (*mr.as_ptr()).lkey };
            let pieces = (0..len).step_by(PIECE).map(|offset| ffi::ibv_sge {
                addr: self.addr + (start + offset) as u64,
                length: PIECE.min(len - offset) as u32,
                lkey,
            });
            list.extend(pieces);
        }
        for list in list.chunks_mut(MAX_ENTRIES) {
            let (entries, len) = (list.as_mut_ptr(), list.len() as u32);
            // SAFETY: the domain is alive, and the list has so many entries. The kernel checks the advice and the
            // flags; the keys are those of live regions of the domain, and the ranges lie within them.
            let code =
                unsafe { ffi::ibv_advise_mr(pd.as_raw(), advice.0, flags.bits(), entries, len) };
            if code != 0 {
                return Err(advise_error(advice, error_number(code)));
            }
        }
        Ok(())
    }
}

/// The longest piece that one entry of the list is about: the length has 32 bits.
const PIECE: usize = 1 << 31;

/// The longest list: the kernel's interface counts its bytes with 16 bits.
const MAX_ENTRIES: usize = u16::MAX as usize / size_of::<ffi::ibv_sge>();

fn check_access(advice: Advice, access: AccessFlags) -> Result<()> {
    // SoftRoCE of Linux 7.2 takes memory that is pinned for memory on demand, and the kernel falls over it.
    let reason = if !access.contains(AccessFlags::ON_DEMAND) {
        "there is advice about memory with ON_DEMAND only"
    } else if advice == Advice::PREFETCH_WRITE && !access.contains(AccessFlags::LOCAL_WRITE) {
        "prefetching for writing needs LOCAL_WRITE"
    } else {
        return Ok(());
    };
    Err(Error::InvalidAccess { access, reason })
}

#[cold]
fn advise_error(advice: Advice, code: i32) -> Error {
    let hint = match (Error::from_code("ibv_advise_mr", code), code) {
        (unsupported @ Error::Unsupported { .. }, _) => return unsupported,
        (_, libc::EFAULT) => "the memory is not mapped, or not writable",
        (_, libc::EINVAL) => "the kernel does not know this advice or one of the flags",
        _ => "the kernel refused",
    };
    Error::Advise { advice, hint, source: io::Error::from_raw_os_error(code) }
}
