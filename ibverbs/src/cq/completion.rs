//! Completions, lent by the poll that found them.

use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;

use super::status::{WcError, WcFlags, WcOpcode, WcStatus};
use super::{CqInner, WcFields};
use crate::ah::DatagramSender;
use crate::ffi;

/// The completions of one [`poll`](super::CompletionQueue::poll). Dropping it ends the poll.
#[doc(alias = "ibv_end_poll")]
#[must_use = "dropping it ends the poll: the completions are still in the queue then, but for the first"]
pub struct Completions<'cq> {
    /// The same as in `cq`, which the compiler must load again after each call of the provider.
    raw: NonNull<ffi::ibv_cq_ex>,
    cq: &'cq CqInner,
    position: Position,
    /// Providers hold a spin lock meanwhile, and whoever takes one should release it. (Only what was
    /// forgotten may end on another thread: see `handle.rs`.)
    _not_send: PhantomData<*mut ()>,
}

#[derive(Clone, Copy)]
enum Position {
    /// `start_poll` has found a completion that was not handed out yet.
    First,
    /// The completion at hand was handed out.
    Within,
    /// `next_poll` found nothing more. It must not be called again: the manual page does not allow it,
    /// and the rxe provider of older releases of rdma-core has released its lock by then.
    End,
}

impl<'cq> Completions<'cq> {
    /// # Safety
    ///
    /// A poll of this queue, which is `raw`, was opened successfully just now, and nobody else ends it.
    #[inline]
    pub(super) unsafe fn new(raw: NonNull<ffi::ibv_cq_ex>, cq: &'cq CqInner) -> Self {
        Completions { raw, cq, position: Position::First, _not_send: PhantomData }
    }

    /// The next completion, or `None` when there are no more. Calling it again after that is harmless.
    ///
    /// A completion is read where the device wrote it, and is valid until the next call.
    #[allow(clippy::should_implement_trait)] // an iterator cannot lend
    #[doc(alias = "ibv_next_poll")]
    #[inline]
    pub fn next(&mut self) -> Option<WorkCompletion<'_>> {
        match self.position {
            Position::First => self.position = Position::Within,
            Position::Within => {
                // SAFETY: a poll is open until `drop`, and has not come to its end; the builder
                // checked that the function is there.
                let code = unsafe { ffi::ibv_next_poll(self.raw.as_ptr()) };
                if code != 0 {
                    self.position = Position::End;
                    if code != libc::ENOENT {
                        self.cq.set_poll_error(code);
                    }
                    return None;
                }
            }
            Position::End => return None,
        }
        Some(WorkCompletion { raw: self.raw, cq: self.cq, _lent: PhantomData })
    }

    /// Goes on to the next completion, as [`next`](Self::next), which is not called then. Returns whether there is one.
    ///
    /// # Safety
    ///
    /// This was not called before without finding one.
    #[inline(always)]
    pub(crate) unsafe fn advance(&self) -> bool {
        // SAFETY: a poll is open until `drop`, and has not come to its end; the builder checked that the function is there.
        let code = unsafe { ffi::ibv_next_poll(self.raw.as_ptr()) };
        if code != 0 && code != libc::ENOENT {
            self.cq.set_poll_error(code);
        }
        code == 0
    }

    /// The completion that the poll has begun with, or has [come to](Self::advance).
    ///
    /// # Safety
    ///
    /// There is one, and it is not used after the next one was gone on to.
    #[inline(always)]
    pub(crate) unsafe fn at_hand(&self) -> WorkCompletion<'cq> {
        WorkCompletion { raw: self.raw, cq: self.cq, _lent: PhantomData }
    }
}

impl Drop for Completions<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the poll that `new` was told of is open, and is ended only here or, when this was
        // forgotten, by the drop of the queue. Completions borrow from self, so that none is read later.
        unsafe { self.cq.end_poll(self.raw) }
    }
}

impl fmt::Debug for Completions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completions").finish_non_exhaustive()
    }
}

/// A work completion: what became of a work request.
///
/// Fields are read from the device's queue when they are asked for. On an error only
/// [`wr_id`](Self::wr_id), [`ok`](Self::ok), [`status`](Self::status) and [`qp_num`](Self::qp_num)
/// mean anything.
pub struct WorkCompletion<'p> {
    raw: NonNull<ffi::ibv_cq_ex>,
    cq: &'p CqInner,
    _lent: PhantomData<&'p mut ()>,
}

/// Takes the queue by value: a reference to the completion would force it out of its registers. And reads the status
/// again, which would otherwise be loaded before it is known to be needed.
#[cold]
#[inline(never)]
fn error(raw: NonNull<ffi::ibv_cq_ex>) -> WcError {
    // SAFETY: the only caller is a lent completion, which is at hand.
    let status = WcStatus(unsafe { (*raw.as_ptr()).status });
    // SAFETY: as above; the builder checked that the function is there.
    WcError { status, vendor_err: unsafe { ffi::ibv_wc_read_vendor_err(raw.as_ptr()) } }
}

impl WorkCompletion<'_> {
    /// The identifier that the work request was posted with.
    #[inline]
    pub fn wr_id(&self) -> u64 {
        // SAFETY: the queue is alive, and this thread is the one that polls it.
        unsafe { (*self.raw.as_ptr()).wr_id }
    }

    /// How it ended.
    #[inline]
    pub fn status(&self) -> WcStatus {
        // SAFETY: the queue is alive, and this thread is the one that polls it.
        WcStatus(unsafe { (*self.raw.as_ptr()).status })
    }

    /// `Ok` if the work request succeeded.
    ///
    /// # Errors
    ///
    /// The status and the provider's own code of the failure. The queue pair is in the error state
    /// then (on a datagram transport: a send queue error), and its other requests are flushed.
    #[inline]
    pub fn ok(&self) -> Result<(), WcError> {
        if self.status() == WcStatus::SUCCESS {
            Ok(())
        } else {
            Err(error(self.raw))
        }
    }

    /// What was done. Invalid on an error.
    #[doc(alias = "ibv_wc_read_opcode")]
    #[inline]
    pub fn opcode(&self) -> WcOpcode {
        // SAFETY: a completion is at hand while it is lent; the builder checked that the function is there.
        WcOpcode(unsafe { ffi::ibv_wc_read_opcode(self.raw.as_ptr()) })
    }

    /// How many bytes were received or transferred. For a datagram of [`Ud`](crate::Ud) this includes the 40 bytes of
    /// the global route header. Undefined for sends and writes.
    #[allow(clippy::len_without_is_empty)] // a count of bytes, not of elements
    #[doc(alias = "ibv_wc_read_byte_len")]
    #[inline]
    pub fn len(&self) -> u32 {
        // SAFETY: a completion is at hand while it is lent; the builder checked that the function is there.
        unsafe { ffi::ibv_wc_read_byte_len(self.raw.as_ptr()) }
    }

    /// The immediate data that came with it, in host order, if any did.
    #[doc(alias = "ibv_wc_read_imm_data")]
    #[inline]
    pub fn imm_data(&self) -> Option<u32> {
        self.flags().contains(WcFlags::WITH_IMM).then(|| {
            // SAFETY: a completion is at hand while it is lent; the builder checked that the function is there.
            u32::from_be(unsafe { ffi::ibv_wc_read_imm_data(self.raw.as_ptr()) })
        })
    }

    /// The remote key that the peer's send has invalidated here, if it did. No immediate data came then.
    ///
    /// SoftRoCE cannot tell: its kernel driver reports this with another flag
    /// ([`WcFlags::IP_CSUM_OK`]).
    #[doc(alias = "ibv_wc_read_invalidated_rkey")]
    #[inline]
    pub fn invalidated_rkey(&self) -> Option<u32> {
        self.flags().contains(WcFlags::WITH_INV).then(|| {
            // SAFETY: a completion is at hand while it is lent; the builder checked that the function is there.
            unsafe { ffi::ibv_wc_read_invalidated_rkey(self.raw.as_ptr()) }
        })
    }

    /// The number of the local queue pair.
    #[doc(alias = "ibv_wc_read_qp_num")]
    #[inline]
    pub fn qp_num(&self) -> u32 {
        // SAFETY: a completion is at hand while it is lent; the builder checked that the function is there.
        unsafe { ffi::ibv_wc_read_qp_num(self.raw.as_ptr()) }
    }

    /// The number of the queue pair that sent it. Means something for received datagrams only.
    #[doc(alias = "ibv_wc_read_src_qp")]
    #[inline]
    pub fn src_qp(&self) -> u32 {
        // SAFETY: a completion is at hand while it is lent; the builder checked that the function is there.
        unsafe { ffi::ibv_wc_read_src_qp(self.raw.as_ptr()) }
    }

    /// What else is known of it.
    #[doc(alias = "ibv_wc_read_wc_flags")]
    #[inline]
    pub fn flags(&self) -> WcFlags {
        // SAFETY: a completion is at hand while it is lent; the builder checked that the function is there.
        WcFlags::from_bits_retain(unsafe { ffi::ibv_wc_read_wc_flags(self.raw.as_ptr()) })
    }

    /// Whether the first 40 bytes of the buffer are a global route header. Means something for received
    /// datagrams only.
    #[inline]
    pub fn has_grh(&self) -> bool {
        self.flags().contains(WcFlags::GRH)
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

    /// The sender's local identifier. Means something for received InfiniBand datagrams only.
    #[doc(alias = "ibv_wc_read_slid")]
    #[inline]
    pub fn slid(&self) -> u32 {
        // SAFETY: a completion is at hand while it is lent; the builder checked that the function is there.
        unsafe { ffi::ibv_wc_read_slid(self.raw.as_ptr()) }
    }

    /// The service level. Means something for received datagrams only.
    #[doc(alias = "ibv_wc_read_sl")]
    #[inline]
    pub fn sl(&self) -> u8 {
        // SAFETY: a completion is at hand while it is lent; the builder checked that the function is there.
        unsafe { ffi::ibv_wc_read_sl(self.raw.as_ptr()) }
    }

    /// The low bits of the local identifier that it was addressed to. Means something for received
    /// InfiniBand datagrams only.
    #[doc(alias = "ibv_wc_read_dlid_path_bits")]
    #[inline]
    pub fn dlid_path_bits(&self) -> u8 {
        // SAFETY: a completion is at hand while it is lent; the builder checked that the function is there.
        unsafe { ffi::ibv_wc_read_dlid_path_bits(self.raw.as_ptr()) }
    }

    /// What its queue has of EFA.
    #[cfg(feature = "efa")]
    #[inline]
    pub(crate) fn efa(&self) -> &crate::efa::EfaCq {
        &self.cq.efa
    }

    #[inline]
    fn has(&self, field: WcFields) -> bool {
        self.cq.fields.contains(field)
    }

    /// When it completed, in cycles of the device's clock, if
    /// [`WcFields::COMPLETION_TIMESTAMP`] was asked for.
    #[doc(alias = "ibv_wc_read_completion_ts")]
    #[inline]
    pub fn completion_timestamp(&self) -> Option<u64> {
        self.has(WcFields::COMPLETION_TIMESTAMP).then(|| {
            // SAFETY: the field was granted, and the builder checked that its function is there.
            unsafe { ffi::ibv_wc_read_completion_ts(self.raw.as_ptr()) }
        })
    }

    /// When it completed, in nanoseconds since 1970, if [`WcFields::COMPLETION_WALLCLOCK_NS`] was
    /// asked for.
    #[doc(alias = "ibv_wc_read_completion_wallclock_ns")]
    #[inline]
    pub fn completion_wallclock_ns(&self) -> Option<u64> {
        self.has(WcFields::COMPLETION_WALLCLOCK_NS).then(|| {
            // SAFETY: the field was granted, and the builder checked that its function is there.
            unsafe { ffi::ibv_wc_read_completion_wallclock_ns(self.raw.as_ptr()) }
        })
    }

    /// The VLAN tag that the device took off the packet, if [`WcFields::CVLAN`] was asked for.
    #[doc(alias = "ibv_wc_read_cvlan")]
    #[inline]
    pub fn cvlan(&self) -> Option<u16> {
        self.has(WcFields::CVLAN).then(|| {
            // SAFETY: the field was granted, and the builder checked that its function is there.
            unsafe { ffi::ibv_wc_read_cvlan(self.raw.as_ptr()) }
        })
    }

    /// The tag of the flow that the packet matched, if [`WcFields::FLOW_TAG`] was asked for.
    #[doc(alias = "ibv_wc_read_flow_tag")]
    #[inline]
    pub fn flow_tag(&self) -> Option<u32> {
        self.has(WcFields::FLOW_TAG).then(|| {
            // SAFETY: the field was granted, and the builder checked that its function is there.
            unsafe { ffi::ibv_wc_read_flow_tag(self.raw.as_ptr()) }
        })
    }

    /// The header of a tag-matched message, if [`WcFields::TM_INFO`] was asked for.
    #[doc(alias = "ibv_wc_read_tm_info")]
    #[inline]
    pub fn tag_matching_info(&self) -> Option<TagMatchingInfo> {
        self.has(WcFields::TM_INFO).then(|| {
            let mut info = ffi::ibv_wc_tm_info::default();
            // SAFETY: the field was granted, and the builder checked that its function is there; it writes
            // into a whole structure.
            unsafe { ffi::ibv_wc_read_tm_info(self.raw.as_ptr(), &mut info) };
            TagMatchingInfo { tag: info.tag, private_data: info.priv_ }
        })
    }
}

/// The header of a tag-matched message (`struct ibv_wc_tm_info`).
#[doc(alias = "ibv_wc_tm_info")]
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagMatchingInfo {
    /// The tag by which the message was matched.
    pub tag: u64,
    /// What the sender put into the header for the application.
    pub private_data: u32,
}

impl fmt::Debug for WorkCompletion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut s = f.debug_struct("WorkCompletion");
        s.field("wr_id", &self.wr_id()).field("qp_num", &self.qp_num());
        match self.ok() {
            Ok(()) => s.field("opcode", &self.opcode()).field("flags", &self.flags()),
            Err(error) => s.field("error", &error),
        };
        s.finish_non_exhaustive()
    }
}
