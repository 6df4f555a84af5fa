//! Creating completion queues.

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicI32, AtomicU8};

use bitflags::bitflags;

use super::channel::CompletionChannel;
use super::events::{Events, PrivateChannel};
use super::modify::{check_entries, over_capacity};
use super::parking::Parked;
use super::{CompletionQueue, CqInner, IDLE};
use crate::context::{Context, ContextHandle};
use crate::error::{created, Error, Result};
use crate::ffi;

bitflags! {
    /// Optional fields of a completion, for [`CompletionQueueBuilder::set_wc_fields`].
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct WcFields: u64 {
        /// When it completed, in cycles of the device's clock.
        const COMPLETION_TIMESTAMP = ffi::IBV_WC_EX_WITH_COMPLETION_TIMESTAMP as u64;
        /// When it completed, in nanoseconds of the wall clock.
        const COMPLETION_WALLCLOCK_NS = ffi::IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK as u64;
        /// The VLAN tag that the device took off the packet.
        const CVLAN = ffi::IBV_WC_EX_WITH_CVLAN as u64;
        /// The tag of the flow that the packet matched.
        const FLOW_TAG = ffi::IBV_WC_EX_WITH_FLOW_TAG as u64;
        /// The header of a tag-matched message.
        const TM_INFO = ffi::IBV_WC_EX_WITH_TM_INFO as u64;
    }
}

/// Builds a [`CompletionQueue`]; see [`Context::create_cq`].
#[derive(Debug, Clone)]
#[must_use = "nothing is created before `build`"]
pub struct CompletionQueueBuilder<'a> {
    context: &'a Context,
    min_entries: u32,
    comp_vector: u32,
    fields: WcFields,
    #[cfg(feature = "efa")]
    pub(crate) efa_fields: crate::efa::WcFields,
    number: u64,
    channel: Option<&'a CompletionChannel>,
    private_channel: bool,
    solicited_only: bool,
}

impl<'a> CompletionQueueBuilder<'a> {
    pub(crate) fn new(context: &'a Context, min_entries: u32) -> Self {
        CompletionQueueBuilder {
            context,
            min_entries,
            comp_vector: 0,
            fields: WcFields::empty(),
            #[cfg(feature = "efa")]
            efa_fields: crate::efa::WcFields::empty(),
            number: 0,
            channel: None,
            private_channel: false,
            solicited_only: false,
        }
    }

    /// Which completion vector signals events, below [`Context::num_comp_vectors`]. Default: 0.
    pub fn set_comp_vector(mut self, comp_vector: u32) -> Self {
        self.comp_vector = comp_vector;
        self
    }

    /// Which optional fields completions have, beside the standard ones. Default: none.
    pub fn set_wc_fields(mut self, fields: WcFields) -> Self {
        self.fields = fields;
        self
    }

    /// The channel on which the queue raises events, once it is [armed](CompletionQueue::req_notify). Any number
    /// of queues can share one. Default: none.
    pub fn set_comp_channel(mut self, channel: &'a CompletionChannel) -> Self {
        self.channel = Some(channel);
        self
    }

    /// Gives the queue a channel of its own, for [`CompletionQueue::wait`].
    #[doc(alias = "ibv_create_comp_channel")]
    pub fn set_private_channel(mut self) -> Self {
        self.private_channel = true;
        self
    }

    /// Whether [`CompletionQueue::wait`], and the awaiting of a queue on tokio, sleep until a
    /// [solicited](crate::SendOp::solicited) completion comes, or one that failed. What is in the queue when they
    /// are called, solicited or not, they return at once. Default: false.
    pub fn set_solicited_only(mut self, solicited_only: bool) -> Self {
        self.solicited_only = solicited_only;
        self
    }

    /// A number of the program's choice, by which [`CompletionEvent::context`](super::CompletionEvent::context)
    /// tells the queue from others of the same channel. Default: 0.
    #[doc(alias = "cq_context")]
    pub fn set_context(mut self, number: u64) -> Self {
        self.number = number;
        self
    }

    /// Creates the queue.
    ///
    /// # Errors
    ///
    /// - [`Error::DeviceMismatch`] if the channel is of another context.
    /// - [`Error::TwoCompletionChannels`] if it was given a channel, and one of its own.
    /// - [`Error::Capacity`] if the device has no queue of so many entries.
    /// - [`Error::InvalidArgument`] if the number of entries is zero, or there is no such completion vector
    ///   or field.
    /// - [`Error::Unsupported`] if the device lacks the extended interface or one of the fields.
    /// - [`Error::Verb`] if the kernel refuses for another reason, or if there is no file descriptor for a
    ///   channel of its own.
    #[doc(alias = "ibv_create_cq_ex")]
    pub fn build(self) -> Result<CompletionQueue> {
        check_entries(self.min_entries)?;
        if self.comp_vector >= self.context.num_comp_vectors() {
            return Err(Error::InvalidArgument {
                what: "the completion vector",
                value: u64::from(self.comp_vector),
                expected: "it must be below `Context::num_comp_vectors`",
            });
        }
        if !WcFields::all().contains(self.fields) {
            return Err(Error::InvalidArgument {
                what: "the set of completion fields",
                value: self.fields.bits(),
                expected: "it may only have bits that have a name",
            });
        }
        #[cfg(feature = "efa")]
        self.efa_fields.check()?;
        let events = self.events()?;
        let mut attr = ffi::ibv_cq_init_attr_ex {
            cqe: self.min_entries,
            // A number as a pointer that points nowhere.
            cq_context: ptr::null_mut::<c_void>().wrapping_byte_add(self.number as usize),
            channel: events.as_raw(),
            comp_vector: self.comp_vector,
            ..Default::default()
        };
        let fields = self.fields;
        attr.wc_flags = u64::from(ffi::IBV_WC_STANDARD_FLAGS) | fields.bits();
        // SAFETY: the context is open, and the attributes are valid for it. The channel is null, or one of this
        // context, which `queue` keeps; the other pointers are null, but for the program's number, which is
        // only handed back.
        let raw = created(|| unsafe { self.create(&mut attr) });
        let raw = raw.map_err(|code| self.error(code))?;
        let inner = CqInner {
            raw,
            state: AtomicU8::new(IDLE),
            attr: UnsafeCell::new(ffi::ibv_poll_cq_attr { comp_mask: 0 }),
            poll_error: AtomicI32::new(0),
            parked: Parked::default(),
            fields,
            // SAFETY: the queue was created just now, with these fields.
            #[cfg(feature = "efa")]
            efa: unsafe { crate::efa::EfaCq::new(raw, self.efa_fields) },
            events,
            context: self.context.handle().clone(),
        };
        let queue = CompletionQueue::new(inner);
        // SAFETY: the queue is alive, in `queue`.
        let missing = unsafe { missing_function(raw, fields) };
        #[cfg(feature = "efa")]
        // SAFETY: as above.
        let missing = missing.or_else(|| unsafe { queue.inner.efa.missing_function() });
        match missing {
            None => Ok(queue),
            Some(operation) => Err(Error::Unsupported { operation }),
        }
    }

    /// Calls the verb that creates such a queue.
    ///
    /// # Safety
    ///
    /// That of `ibv_create_cq_ex`.
    unsafe fn create(&self, attr: &mut ffi::ibv_cq_init_attr_ex) -> *mut ffi::ibv_cq_ex {
        let context = self.context.as_raw();
        #[cfg(feature = "efa")]
        if !self.efa_fields.is_empty() {
            // SAFETY: passed on to the caller.
            return unsafe { self.efa_fields.create(context, attr) };
        }
        // SAFETY: passed on to the caller.
        unsafe { ffi::ibv_create_cq_ex(context, attr) }
    }

    /// Where the queue will raise events.
    fn events(&self) -> Result<Events> {
        match self.channel {
            Some(_) if self.private_channel => Err(Error::TwoCompletionChannels),
            Some(channel) => {
                let channel = channel.handle();
                if !ContextHandle::ptr_eq(channel.context(), self.context.handle()) {
                    return Err(Error::DeviceMismatch { what: "completion channel" });
                }
                Ok(Events::Shared(channel.clone()))
            }
            None if self.private_channel => {
                Ok(Events::Private(PrivateChannel::create(self.context, self.solicited_only)?))
            }
            None => Ok(Events::None),
        }
    }

    #[cold]
    fn error(&self, code: i32) -> Error {
        #[cfg(feature = "efa")]
        if code == libc::EOPNOTSUPP && !self.efa_fields.is_empty() {
            return Error::Unsupported {
                operation: "efadv_create_cq, of EFA devices only, or one of the fields (see `set_efa_wc_fields`),",
            };
        }
        if code == libc::EOPNOTSUPP && !self.fields.is_empty() {
            return Error::Unsupported {
                operation: "ibv_create_cq_ex, or one of the optional fields (see `set_wc_fields`),",
            };
        }
        const VERB: &str = "ibv_create_cq_ex";
        over_capacity(self.context, VERB, self.min_entries, code)
            .unwrap_or_else(|| Error::from_code(VERB, code))
    }
}

/// The name of a function that polling the queue will call, but that the provider did not set.
///
/// The optional ones are looked at only if their field was granted: the structure of an older library
/// may end before them.
///
/// # Safety
///
/// `raw` points to a completion queue that was created with the standard fields and `fields`.
unsafe fn missing_function(raw: NonNull<ffi::ibv_cq_ex>, fields: WcFields) -> Option<&'static str> {
    let cq = raw.as_ptr();
    macro_rules! require {
        ($($function:ident)*) => {
            $(
                // SAFETY: the queue is alive, and has this field by the caller's promise.
                if unsafe { (*cq).$function.is_none() } {
                    return Some(concat!("ibv_cq_ex.", stringify!($function)));
                }
            )*
        };
    }
    require!(start_poll next_poll end_poll read_opcode read_vendor_err read_byte_len);
    require!(read_imm_data read_qp_num read_src_qp read_wc_flags);
    require!(read_slid read_sl read_dlid_path_bits);
    if fields.contains(WcFields::COMPLETION_TIMESTAMP) {
        require!(read_completion_ts);
    }
    if fields.contains(WcFields::CVLAN) {
        require!(read_cvlan);
    }
    if fields.contains(WcFields::FLOW_TAG) {
        require!(read_flow_tag);
    }
    if fields.contains(WcFields::TM_INFO) {
        require!(read_tm_info);
    }
    if fields.contains(WcFields::COMPLETION_WALLCLOCK_NS) {
        require!(read_completion_wallclock_ns);
    }
    None
}
