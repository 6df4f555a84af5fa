//! Asynchronous events: what a device reports of itself, its ports and its queues, whenever it happens.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::c_enum::c_enum;
use crate::context::Context;
use crate::error::{last_errno, Error, Result};
use crate::ffi;
use crate::readiness::{deadline, set_nonblocking, wait_readable};

#[cfg(feature = "tokio")]
mod task;

#[cfg(feature = "tokio")]
pub use task::AsyncEvents;

const GET: &str = "ibv_get_async_event";

c_enum! {
    /// What kind of event happened (`enum ibv_event_type`).
    #[doc(alias = "ibv_event_type")]
    #[doc(alias = "ibv_event_type_str")]
    pub struct EventType: u32 {
        /// A completion queue failed: mostly, it had no room for one more completion. Completions were
        /// lost; destroy the queue and its queue pairs.
        CQ_ERR = ffi::IBV_EVENT_CQ_ERR, "CQ_ERR";
        /// A queue pair failed so that no completion could tell, and is in the error state.
        QP_FATAL = ffi::IBV_EVENT_QP_FATAL, "QP_FATAL";
        /// A queue pair was sent a request that the transport does not allow, and is in the error state.
        QP_REQ_ERR = ffi::IBV_EVENT_QP_REQ_ERR, "QP_REQ_ERR";
        /// A peer accessed memory that it has no right to, and the queue pair is in the error state.
        QP_ACCESS_ERR = ffi::IBV_EVENT_QP_ACCESS_ERR, "QP_ACCESS_ERR";
        /// The first packet came for a queue pair that is ready to receive and not yet to send.
        COMM_EST = ffi::IBV_EVENT_COMM_EST, "COMM_EST";
        /// The send queue of a queue pair on its way to `SQD` has nothing left to do.
        SQ_DRAINED = ffi::IBV_EVENT_SQ_DRAINED, "SQ_DRAINED";
        /// A connection went over to its alternate path.
        PATH_MIG = ffi::IBV_EVENT_PATH_MIG, "PATH_MIG";
        /// A connection could not go over to its alternate path.
        PATH_MIG_ERR = ffi::IBV_EVENT_PATH_MIG_ERR, "PATH_MIG_ERR";
        /// The device failed, or is being removed. Nothing of it can be used any more.
        DEVICE_FATAL = ffi::IBV_EVENT_DEVICE_FATAL, "DEVICE_FATAL";
        /// A port came up.
        PORT_ACTIVE = ffi::IBV_EVENT_PORT_ACTIVE, "PORT_ACTIVE";
        /// A port went down.
        PORT_ERR = ffi::IBV_EVENT_PORT_ERR, "PORT_ERR";
        /// A port got another local identifier.
        LID_CHANGE = ffi::IBV_EVENT_LID_CHANGE, "LID_CHANGE";
        /// The partition keys of a port changed.
        PKEY_CHANGE = ffi::IBV_EVENT_PKEY_CHANGE, "PKEY_CHANGE";
        /// The port has another subnet manager.
        SM_CHANGE = ffi::IBV_EVENT_SM_CHANGE, "SM_CHANGE";
        /// A shared receive queue failed: no receive can be taken from it any more.
        SRQ_ERR = ffi::IBV_EVENT_SRQ_ERR, "SRQ_ERR";
        /// A shared receive queue holds fewer receives than its limit, which is disarmed by this.
        SRQ_LIMIT_REACHED = ffi::IBV_EVENT_SRQ_LIMIT_REACHED, "SRQ_LIMIT_REACHED";
        /// A queue pair in the error state will take no more receives from its shared receive queue.
        QP_LAST_WQE_REACHED = ffi::IBV_EVENT_QP_LAST_WQE_REACHED, "QP_LAST_WQE_REACHED";
        /// The subnet manager wants its subscriptions to be made anew.
        CLIENT_REREGISTER = ffi::IBV_EVENT_CLIENT_REREGISTER, "CLIENT_REREGISTER";
        /// The GIDs of a port changed: on Ethernet, an address of its network interface did.
        GID_CHANGE = ffi::IBV_EVENT_GID_CHANGE, "GID_CHANGE";
        /// A work queue of receive-side scaling failed, and is in the error state.
        WQ_FATAL = ffi::IBV_EVENT_WQ_FATAL, "WQ_FATAL";
        /// The speed of one or more of the device's ports changed.
        DEVICE_SPEED_CHANGE = ffi::IBV_EVENT_DEVICE_SPEED_CHANGE, "DEVICE_SPEED_CHANGE";
    }
}

/// What an event is about. Queues are told by numbers: when the program gets to see the event, they may be
/// gone.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventSource {
    /// A queue pair.
    Qp {
        /// Its number. A queue pair that is created later may have the same.
        qp_num: u32,
        /// What [`set_context`](crate::QueuePairBuilder::set_context) was given.
        context: u64,
    },
    /// A completion queue.
    Cq {
        /// What its builder's `set_context` was given.
        context: u64,
    },
    /// A shared receive queue.
    Srq {
        /// What its builder's `set_context` was given.
        context: u64,
    },
    /// A work queue of receive-side scaling, created through [`ffi`].
    Wq {
        /// Its number.
        wq_num: u32,
    },
    /// The port of this number, counted from 1.
    Port(u8),
    /// The device as a whole.
    Device,
    /// Not known, since this version does not know the type of the event.
    Unknown,
}

impl fmt::Display for EventSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            EventSource::Qp { qp_num, context } => {
                write!(f, "queue pair {qp_num} (context {context:#x})")
            }
            EventSource::Cq { context } => {
                write!(f, "completion queue (context {context:#x})")
            }
            EventSource::Srq { context } => {
                write!(f, "shared receive queue (context {context:#x})")
            }
            EventSource::Wq { wq_num } => write!(f, "work queue {wq_num}"),
            EventSource::Port(port) => write!(f, "port {port}"),
            EventSource::Device => f.write_str("device"),
            EventSource::Unknown => f.write_str("device or a part of it"),
        }
    }
}

/// Something that happened to a device, one of its ports or one of its queues; from
/// [`Context::poll_async_event`].
///
/// It prints as a sentence, such as `port 1 went down (PORT_ERR)`.
#[doc(alias = "ibv_async_event")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AsyncEvent {
    event_type: EventType,
    source: EventSource,
}

impl AsyncEvent {
    /// What happened.
    pub fn event_type(&self) -> EventType {
        self.event_type
    }

    /// What it happened to.
    #[doc(alias = "element")]
    pub fn source(&self) -> EventSource {
        self.source
    }

    /// Copies what is worth knowing out of an event of the library.
    ///
    /// # Safety
    ///
    /// `ibv_get_async_event` has written the event, and it is not acknowledged yet.
    unsafe fn copy(raw: &ffi::ibv_async_event) -> AsyncEvent {
        let element = &raw.element;
        // In what follows: the library tells by the type which member it has written
        // (libibverbs/device.c), and until the event is acknowledged, the verb that destroys the object
        // waits for that before the provider frees it (libibverbs/cmd_qp.c, cmd_cq.c, cmd_srq.c and
        // cmd_wq.c). The fields are not written once the verb that created the object has returned, and
        // nothing can happen to an object that nobody has seen yet.
        let event_type = EventType(raw.event_type);
        let source = match event_type {
            EventType::CQ_ERR => {
                // SAFETY: as above.
                let cq = unsafe { element.cq };
                // SAFETY: as above.
                EventSource::Cq { context: unsafe { (*cq).cq_context } as u64 }
            }
            EventType::QP_FATAL
            | EventType::QP_REQ_ERR
            | EventType::QP_ACCESS_ERR
            | EventType::COMM_EST
            | EventType::SQ_DRAINED
            | EventType::PATH_MIG
            | EventType::PATH_MIG_ERR
            | EventType::QP_LAST_WQE_REACHED => {
                // SAFETY: as above.
                let qp = unsafe { element.qp };
                // SAFETY: as above.
                let qp_num = unsafe { (*qp).qp_num };
                // SAFETY: as above.
                EventSource::Qp { qp_num, context: unsafe { (*qp).qp_context } as u64 }
            }
            EventType::SRQ_ERR | EventType::SRQ_LIMIT_REACHED => {
                // SAFETY: as above.
                let srq = unsafe { element.srq };
                // SAFETY: as above.
                EventSource::Srq { context: unsafe { (*srq).srq_context } as u64 }
            }
            EventType::WQ_FATAL => {
                // SAFETY: as above.
                let wq = unsafe { element.wq };
                // SAFETY: as above.
                EventSource::Wq { wq_num: unsafe { (*wq).wq_num } }
            }
            EventType::PORT_ACTIVE
            | EventType::PORT_ERR
            | EventType::LID_CHANGE
            | EventType::PKEY_CHANGE
            | EventType::SM_CHANGE
            | EventType::CLIENT_REREGISTER
            | EventType::GID_CHANGE => {
                // SAFETY: as above; and any number is valid.
                let port = unsafe { element.port_num };
                u8::try_from(port).map_or(EventSource::Unknown, EventSource::Port)
            }
            EventType::DEVICE_FATAL | EventType::DEVICE_SPEED_CHANGE => EventSource::Device,
            _ => EventSource::Unknown,
        };
        AsyncEvent { event_type, source }
    }

    /// What happened, as the end of a sentence that begins with the source.
    fn predicate(&self) -> &'static str {
        match self.event_type {
            EventType::CQ_ERR => "overflowed or failed",
            EventType::QP_FATAL | EventType::WQ_FATAL => "failed",
            EventType::QP_REQ_ERR => "was sent an invalid request",
            EventType::QP_ACCESS_ERR => "was denied an access to memory",
            EventType::COMM_EST => "received its first packet",
            EventType::SQ_DRAINED => "has drained its send queue",
            EventType::PATH_MIG => "migrated to its alternate path",
            EventType::PATH_MIG_ERR => "could not migrate to its alternate path",
            EventType::DEVICE_FATAL => "failed or is being removed",
            EventType::PORT_ACTIVE => "came up",
            EventType::PORT_ERR => "went down",
            EventType::LID_CHANGE => "has another LID",
            EventType::PKEY_CHANGE => "has other partition keys",
            EventType::SM_CHANGE => "has another subnet manager",
            EventType::SRQ_ERR => "failed",
            EventType::SRQ_LIMIT_REACHED => "holds fewer receives than its limit",
            EventType::QP_LAST_WQE_REACHED => "took its last shared receive",
            EventType::CLIENT_REREGISTER => "was asked to register with the subnet manager anew",
            EventType::GID_CHANGE => "has other GIDs",
            EventType::DEVICE_SPEED_CHANGE => "has a port of another speed",
            _ => "had an event that this version does not know",
        }
    }
}

impl fmt::Display for AsyncEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.source, self.predicate(), self.event_type)
    }
}

/// Who may read the events of a context: one at a time. The flag tells whether the descriptor is set up.
///
/// The kernel hands each event to one reader, and acknowledging takes the lock of the object. But between
/// the two the provider's `async_event` runs, and mlx5's sets a bit of the context's flags without a lock
/// (providers/mlx5/verbs.c).
pub(crate) type EventTurn = Mutex<bool>;

impl Context {
    /// Takes the next asynchronous event, if there is one: `None` if not. It never waits.
    ///
    /// All handles of a context share one queue of events, and each event is handed out once. Every opened
    /// context has its own: an event of a port or of the device comes to all of them, one of a queue to the
    /// context that the queue was created from. Events are acknowledged before this returns, so that they
    /// keep nobody from destroying what they are about.
    ///
    /// A driver may take locks of queues meanwhile: do not call it while a
    /// [`poll`](crate::CompletionQueue::poll) or a batch is open.
    ///
    /// # Errors
    ///
    /// - [`Error::Unsupported`] if the context has no descriptor for events.
    /// - [`Error::Verb`] if the kernel refuses.
    #[doc(alias = "ibv_get_async_event")]
    #[doc(alias = "ibv_ack_async_event")]
    pub fn poll_async_event(&self) -> Result<Option<AsyncEvent>> {
        let (_turn, _) = self.event_turn()?;
        let mut raw = ffi::ibv_async_event::default();
        // SAFETY: the context is open, and the last argument points to an event to fill.
        if unsafe { ffi::ibv_get_async_event(self.as_raw(), &mut raw) } != 0 {
            return match last_errno() {
                libc::EAGAIN => Ok(None),
                code => Err(Error::from_code(GET, code)),
            };
        }
        // SAFETY: the event was written just now.
        let event = unsafe { AsyncEvent::copy(&raw) };
        // SAFETY: the event came from `ibv_get_async_event`, and is acknowledged once.
        unsafe { ffi::ibv_ack_async_event(&mut raw) };
        Ok(Some(event))
    }

    /// Waits for the next asynchronous event: `None` if none came within `timeout`. Without a timeout it
    /// waits for as long as it takes.
    ///
    /// Several threads may wait; one of them gets the event. What is said of
    /// [`poll_async_event`](Self::poll_async_event) holds here, too.
    ///
    /// # Errors
    ///
    /// Those of [`poll_async_event`](Self::poll_async_event), and [`Error::Verb`] with `EIO` if the device
    /// was removed and all its events are read.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn watch(ctx: &ibverbs::Context) -> ibverbs::Result<()> {
    /// use ibverbs::{EventSource, EventType};
    ///
    /// while let Some(event) = ctx.wait_async_event(None)? {
    ///     println!("{event}");
    ///     match (event.event_type(), event.source()) {
    ///         (EventType::DEVICE_FATAL, _) => break,
    ///         (EventType::PORT_ERR, EventSource::Port(port)) => println!("no traffic on {port}"),
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait_async_event(&self, timeout: Option<Duration>) -> Result<Option<AsyncEvent>> {
        let deadline = deadline(timeout);
        let fd = self.async_event_fd()?;
        loop {
            if let Some(event) = self.poll_async_event()? {
                return Ok(Some(event));
            }
            // What makes the descriptor ready may be gone when it is read: another thread took it, or
            // the kernel dropped it together with the queue that it was about.
            if !wait_readable(GET, fd, deadline)? {
                return Ok(None);
            }
        }
    }

    /// A descriptor that is readable while there are asynchronous events, for `epoll` and the like.
    ///
    /// Do not read it, but call [`poll_async_event`](Self::poll_async_event) until that returns `None`, as it
    /// may do at once. When the device was removed and all its events are read, the descriptor reports an
    /// error (`EPOLLERR`).
    ///
    /// It is made non-blocking (`O_NONBLOCK`) by the first use of events in this context. Up to then it is
    /// as the library opened it, for programs that read events through [`ffi`].
    ///
    /// # Errors
    ///
    /// Those of [`poll_async_event`](Self::poll_async_event).
    #[doc(alias = "async_fd")]
    pub fn async_event_fd(&self) -> Result<BorrowedFd<'_>> {
        Ok(self.event_turn()?.1)
    }

    /// Takes turns with the other readers of events; the first one sets the descriptor up.
    fn event_turn(&self) -> Result<(MutexGuard<'_, bool>, BorrowedFd<'_>)> {
        // SAFETY: the context is open; the field is not written after that.
        let fd = unsafe { (*self.as_raw()).async_fd };
        if fd < 0 {
            return Err(Error::Unsupported { operation: "the descriptor of asynchronous events" });
        }
        // SAFETY: it is not -1, and is open for as long as the context, which `self` keeps open.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let turn = self.handle().event_turn();
        let mut set_up = turn.lock().unwrap_or_else(PoisonError::into_inner);
        if !*set_up {
            set_nonblocking(fd)?;
            *set_up = true;
        }
        Ok((set_up, fd))
    }
}
