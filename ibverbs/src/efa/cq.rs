//! What completions tell on EFA only.

use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};

use bitflags::bitflags;

use super::len_of;
use crate::cq::{CompletionQueueBuilder, WorkCompletion};
use crate::error::{Error, Result};
use crate::ffi;
use crate::gid::Gid;
use crate::provider;

bitflags! {
    /// Optional fields of completions on EFA, for
    /// [`set_efa_wc_fields`](CompletionQueueBuilder::set_efa_wc_fields).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct WcFields: u64 {
        /// The GID of a sender of whom no address handle is known.
        const SENDER_GID = ffi::EFADV_WC_EX_WITH_SGID as u64;
        /// Whether a write with immediate data did without a receive.
        const IS_UNSOLICITED = ffi::EFADV_WC_EX_WITH_IS_UNSOLICITED as u64;
    }
}

impl CompletionQueueBuilder<'_> {
    /// Which fields of EFA completions have as well: see [`WorkCompletion::efa_sender_gid`] and
    /// [`efa_is_unsolicited`](WorkCompletion::efa_is_unsolicited). If there is any, the queue is
    /// [built](Self::build) on EFA devices only, and with libefa. Default: none.
    #[doc(alias = "efadv_create_cq")]
    pub fn set_efa_wc_fields(mut self, fields: WcFields) -> Self {
        self.efa_fields = fields;
        self
    }
}

impl WcFields {
    /// That these fields have names, and that there is libefa if there are any.
    pub(crate) fn check(self) -> Result<()> {
        if !WcFields::all().contains(self) {
            return Err(Error::InvalidArgument {
                what: "the set of EFA's completion fields",
                value: self.bits(),
                expected: "it may only have bits that have a name",
            });
        }
        if !self.is_empty() {
            provider::efa()?;
        }
        Ok(())
    }

    /// Creates a completion queue that has these fields.
    ///
    /// # Safety
    ///
    /// That of `ibv_create_cq_ex`.
    pub(crate) unsafe fn create(
        self,
        context: *mut ffi::ibv_context,
        attr: &mut ffi::ibv_cq_init_attr_ex,
    ) -> *mut ffi::ibv_cq_ex {
        let mut efa = ffi::efadv_cq_init_attr { wc_flags: self.bits(), ..Default::default() };
        let len = len_of::<ffi::efadv_cq_init_attr>();
        // SAFETY: passed on to the caller; the second attributes are whole and as long as is said.
        unsafe { ffi::efadv_create_cq(context, attr, &mut efa, len) }
    }
}

/// What a completion queue has of EFA.
#[derive(Clone, Copy)]
pub(crate) struct EfaCq {
    fields: WcFields,
    /// Null if there are no fields.
    raw: *mut ffi::efadv_cq,
}

impl EfaCq {
    /// # Safety
    ///
    /// The queue is alive, and was [created](WcFields::create) with these fields, if there is any.
    pub(crate) unsafe fn new(cq: NonNull<ffi::ibv_cq_ex>, fields: WcFields) -> EfaCq {
        let raw = if fields.is_empty() {
            ptr::null_mut()
        } else {
            // SAFETY: the queue is alive and of EFA, where it has this structure inside.
            unsafe { ffi::efadv_cq_from_ibv_cq_ex(cq.as_ptr()) }
        };
        EfaCq { fields, raw }
    }

    /// The name of a function that reading the fields will call, but that the provider did not set.
    ///
    /// # Safety
    ///
    /// The queue is alive.
    pub(crate) unsafe fn missing_function(&self) -> Option<&'static str> {
        if self.fields.is_empty() {
            return None;
        }
        if self.raw.is_null() {
            return Some("efadv_cq_from_ibv_cq_ex");
        }
        if self.fields.contains(WcFields::SENDER_GID) {
            // SAFETY: the queue is alive, and was created with this field, which the structure has then.
            if unsafe { (*self.raw).wc_read_sgid.is_none() } {
                return Some("efadv_cq.wc_read_sgid");
            }
        }
        if self.fields.contains(WcFields::IS_UNSOLICITED) {
            // SAFETY: as above.
            if unsafe { (*self.raw).wc_is_unsolicited.is_none() } {
                return Some("efadv_cq.wc_is_unsolicited");
            }
        }
        None
    }
}

impl WorkCompletion<'_> {
    /// The GID of the sender of a message, on EFA, if no address handle of it is known to the device (then
    /// [`slid`](Self::slid) names that) and [`WcFields::SENDER_GID`] was asked for.
    /// [`AddressVector::to_gid`](crate::AddressVector::to_gid) makes an address of it, to answer to.
    #[doc(alias = "efadv_wc_read_sgid")]
    #[inline]
    pub fn efa_sender_gid(&self) -> Option<Gid> {
        let EfaCq { fields, raw } = *self.efa();
        if !fields.contains(WcFields::SENDER_GID) || !self.opcode().is_recv() {
            return None;
        }
        let mut gid = MaybeUninit::<ffi::ibv_gid>::zeroed();
        // SAFETY: a completion is at hand while it is lent; the field was granted, and the builder checked that its
        // function is there; the last argument points to a whole `ibv_gid`.
        let code = unsafe { ffi::efadv_wc_read_sgid(raw, gid.as_mut_ptr()) };
        if code != 0 {
            return None;
        }
        // SAFETY: an `ibv_gid` is 16 bytes, all of them initialised above.
        let gid = unsafe { gid.assume_init() };
        // SAFETY: every bit pattern is valid for the union's bytes.
        Some(Gid::from(unsafe { gid.raw }))
    }

    /// Whether this is a write with immediate data of a peer that took no receive, so that
    /// [`wr_id`](Self::wr_id) means nothing; if [`WcFields::IS_UNSOLICITED`] was asked for. Such writes are those to a
    /// queue pair that was built with
    /// [`set_unsolicited_write_recv`](crate::QueuePairBuilder::set_unsolicited_write_recv).
    #[doc(alias = "efadv_wc_is_unsolicited")]
    #[inline]
    pub fn efa_is_unsolicited(&self) -> Option<bool> {
        let EfaCq { fields, raw } = *self.efa();
        fields.contains(WcFields::IS_UNSOLICITED).then(|| {
            // SAFETY: a completion is at hand while it is lent; the field was granted, and the builder checked that its
            // function is there.
            unsafe { ffi::efadv_wc_is_unsolicited(raw) }
        })
    }
}
