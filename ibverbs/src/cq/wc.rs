//! Completions as plain copies.

use std::ffi::c_int;
use std::fmt;
use std::sync::atomic::Ordering;

use super::status::{WcError, WcFlags, WcOpcode, WcStatus};
use super::CompletionQueue;
use crate::ah::DatagramSender;
use crate::error::{Error, Result};
use crate::ffi;

/// A completion that was copied out of its queue by [`CompletionQueue::poll_into`].
///
/// It has the standard fields of a [`WorkCompletion`](super::WorkCompletion), under the same names. On an error
/// only [`wr_id`](Self::wr_id), [`ok`](Self::ok), [`status`](Self::status) and [`qp_num`](Self::qp_num) mean
/// anything.
#[doc(alias = "ibv_wc")]
#[repr(transparent)]
#[derive(Clone, Copy, Default)]
pub struct Wc(ffi::ibv_wc);

impl CompletionQueue {
    /// Copies completions into `wcs` and returns those that it found: an empty slice if there are none.
    ///
    /// It makes one call of the driver where [`poll`](Self::poll) makes one for each completion and each field.
    /// That is faster where all fields are looked at. There are no optional fields.
    ///
    /// # Errors
    ///
    /// - [`Error::PollInProgress`] if a poll is open, or was forgotten.
    /// - [`Error::Verb`] if the provider cannot make sense of the queue (`EIO`). What it copied before that
    ///   is lost with mlx5 and hns.
    /// - [`Error::CompletionQueueLost`] if [`resize`](Self::resize) has lost the queue.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn poll(cq: &ibverbs::CompletionQueue) -> ibverbs::Result<()> {
    /// let mut wcs = [ibverbs::Wc::default(); 16];
    /// for wc in cq.poll_into(&mut wcs)? {
    ///     println!("{}: {:?}", wc.wr_id(), wc.ok());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "ibv_poll_cq")]
    #[inline]
    pub fn poll_into<'w>(&self, wcs: &'w mut [Wc]) -> Result<&'w [Wc]> {
        let inner = &**self.inner;
        inner.check_idle()?;
        let len = c_int::try_from(wcs.len()).unwrap_or(c_int::MAX);
        let to = wcs.as_mut_ptr().cast();
        // SAFETY: the queue is alive; no poll of it is open, as checked above by the one poller, for
        // `CompletionQueue` is not `Sync`; `to` points to `len` structures, for `Wc` is transparent. Every
        // provider has the operation, and it polls extended queues as well.
        let poll = || unsafe { ffi::ibv_poll_cq(inner.as_raw(), len, to) };
        let mut found = poll();
        if found < 0 {
            // As in `poll_past`.
            let mut left = inner.capacity();
            while left > 0 && inner.is_stale(found) {
                (found, left) = (poll(), left - 1);
            }
        }
        match usize::try_from(found) {
            Ok(0) if inner.poll_error.load(Ordering::Relaxed) != 0 => {
                Err(inner.poll_failure(libc::ENOENT).into_error())
            }
            Ok(found) => Ok(&wcs[..found]),
            Err(_) => Err(Error::from_code("ibv_poll_cq", found)),
        }
    }
}

impl Wc {
    /// The identifier that the work request was posted with.
    #[inline]
    pub fn wr_id(&self) -> u64 {
        self.0.wr_id
    }

    /// How it ended.
    #[inline]
    pub fn status(&self) -> WcStatus {
        WcStatus(self.0.status)
    }

    /// `Ok` if the work request succeeded.
    ///
    /// # Errors
    ///
    /// The status and the provider's own code of the failure, as of [`WorkCompletion::ok`].
    ///
    /// [`WorkCompletion::ok`]: super::WorkCompletion::ok
    #[inline]
    pub fn ok(&self) -> Result<(), WcError> {
        match self.status() {
            WcStatus::SUCCESS => Ok(()),
            status => Err(WcError { status, vendor_err: self.0.vendor_err }),
        }
    }

    /// What was done. Invalid on an error.
    #[inline]
    pub fn opcode(&self) -> WcOpcode {
        WcOpcode(self.0.opcode)
    }

    /// How many bytes were received or transferred. For a datagram this includes the 40 bytes of the
    /// global route header. Undefined for sends and writes.
    #[allow(clippy::len_without_is_empty)] // a count of bytes, not of elements
    #[inline]
    pub fn len(&self) -> u32 {
        self.0.byte_len
    }

    /// The immediate data that came with it, in host order, if any did.
    #[inline]
    pub fn imm_data(&self) -> Option<u32> {
        // SAFETY: both fields of the union are numbers of 32 bits, which every bit pattern is valid for.
        let imm_data = unsafe { self.0.__bindgen_anon_1.imm_data };
        self.flags().contains(WcFlags::WITH_IMM).then_some(u32::from_be(imm_data))
    }

    /// The remote key that the peer's send has invalidated here, if it did; see
    /// [`WorkCompletion::invalidated_rkey`](super::WorkCompletion::invalidated_rkey).
    #[inline]
    pub fn invalidated_rkey(&self) -> Option<u32> {
        // SAFETY: as above.
        let rkey = unsafe { self.0.__bindgen_anon_1.invalidated_rkey };
        self.flags().contains(WcFlags::WITH_INV).then_some(rkey)
    }

    /// The number of the local queue pair.
    #[inline]
    pub fn qp_num(&self) -> u32 {
        self.0.qp_num
    }

    /// The number of the queue pair that sent it. Means something for received datagrams only.
    #[inline]
    pub fn src_qp(&self) -> u32 {
        self.0.src_qp
    }

    /// What else is known of it.
    #[inline]
    pub fn flags(&self) -> WcFlags {
        WcFlags::from_bits_retain(self.0.wc_flags)
    }

    /// Whether the first 40 bytes of the buffer are a global route header. Means something for received
    /// datagrams only.
    #[inline]
    pub fn has_grh(&self) -> bool {
        self.flags().contains(WcFlags::GRH)
    }

    /// The sender's local identifier. Means something for received InfiniBand datagrams only.
    #[inline]
    pub fn slid(&self) -> u32 {
        u32::from(self.0.slid)
    }

    /// Who sent the datagram, for
    /// [`create_ah_from_wc`](crate::ProtectionDomain::create_ah_from_wc).
    pub fn sender(&self) -> DatagramSender {
        DatagramSender {
            src_qp: self.src_qp(),
            slid: self.slid(),
            service_level: self.sl(),
            dlid_path_bits: self.dlid_path_bits(),
            has_grh: self.has_grh(),
        }
    }

    /// The service level. Means something for received datagrams only.
    #[inline]
    pub fn sl(&self) -> u8 {
        self.0.sl
    }

    /// The low bits of the local identifier that it was addressed to. Means something for received
    /// InfiniBand datagrams only.
    #[inline]
    pub fn dlid_path_bits(&self) -> u8 {
        self.0.dlid_path_bits
    }

    /// The C structure.
    pub fn as_raw(&self) -> &ffi::ibv_wc {
        &self.0
    }
}

impl fmt::Debug for Wc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut s = f.debug_struct("Wc");
        s.field("wr_id", &self.wr_id()).field("qp_num", &self.qp_num());
        match self.ok() {
            Ok(()) => s.field("opcode", &self.opcode()).field("flags", &self.flags()),
            Err(error) => s.field("error", &error),
        };
        s.finish_non_exhaustive()
    }
}
