//! What can go wrong, and what a person needs to know to put it right.

mod code;
mod failed;
mod hint;

use std::ffi::OsString;
use std::io;
#[cfg(feature = "rdmacm")]
use std::net::SocketAddr;
#[cfg(feature = "rdmacm")]
use std::time::Duration;

use crate::ffi;
use crate::gid::Gid;
use crate::mr::{AccessFlags, Advice};
use crate::qp::{QpState, RouteFailure, SendOps, TransitionFailure};
#[cfg(feature = "rdmacm")]
use crate::rdmacm::ConnectionFailure;

#[cfg(feature = "rdmacm")]
pub(crate) use code::clear_errno;
pub(crate) use code::{at_least_one, check, created, error_number, last_errno, os_error};
pub use failed::Failed;
use hint::*;

/// The result of a call into this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed.
///
/// Each variant names the verb that failed, or the rule that the call would have broken, and carries
/// the values that matter. Where the operating system gave a reason, it is the
/// [`source`](std::error::Error::source), and [`os_error`](Self::os_error) gives its number.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No provider of the verbs could be had: the library is missing or cannot be loaded.
    #[error(transparent)]
    Provider(#[from] &'static ffi::provider::LoadError),

    /// A provider of the verbs was asked for, but the process has another one already.
    #[error(transparent)]
    ProviderChosen(#[from] ffi::provider::AlreadyChosen),

    /// A variable of the environment that chooses the provider of the verbs, or something about it, is set to what cannot
    /// be done.
    #[error("{variable} is {value:?} in the environment, but it {expected}")]
    InvalidVariable {
        /// The variable's name.
        variable: &'static str,
        /// What it is set to.
        value: OsString,
        /// What it may be, or what it would need.
        expected: &'static str,
    },

    /// The device, its driver or the installed library does not have this operation.
    #[error(
        "{operation} is not supported by this device, its driver or the installed rdma-core (a newer one \
         may have it)"
    )]
    Unsupported {
        /// The verb or the capability that is missing.
        operation: &'static str,
    },

    /// Two objects that were to work together belong to different opened devices.
    #[error(
        "the {what} belongs to another device context: everything that works together must come \
         from one `Context`"
    )]
    DeviceMismatch {
        /// Which of the parts is of another device.
        what: &'static str,
    },

    /// Two objects that were to work together belong to different protection domains.
    #[error("the {what} belongs to another protection domain than the queue pair")]
    ProtectionDomainMismatch {
        /// Which of the parts is of another domain.
        what: &'static str,
    },

    /// The completion queue is being polled, or a poll of it was forgotten with `mem::forget`.
    #[error(
        "a poll of the completion queue is in progress: drop its `Completions` first (if it was \
         forgotten, the queue stays locked)"
    )]
    PollInProgress,

    /// The completion queue has no completion channel for this.
    #[error("the completion queue was built without `{setter}`, which this needs")]
    NoCompletionChannel {
        /// The method of the queue's builder that was left out.
        setter: &'static str,
    },

    /// A completion queue cannot have a completion channel of its own and a shared one.
    #[error(
        "the completion queue is to have two completion channels: one that is set with `set_comp_channel`, \
         and one of its own to wait for; leave out one of them"
    )]
    TwoCompletionChannels,

    /// A completion queue could not be resized.
    #[error(
        "cannot resize a queue of {capacity} entries to {requested} ({verb}){}",
        resize_hint(.source, *requested, *capacity)
    )]
    Resize {
        /// The verb that was refused.
        verb: &'static str,
        /// The number of entries that was asked for.
        requested: u32,
        /// The number of entries that it had.
        capacity: u32,
        /// What the operating system said.
        source: io::Error,
    },

    /// The completion queue cannot be polled any more, because its driver lost it when it was resized.
    #[error("the completion queue was lost when it was resized: its queue pairs must be destroyed, then it")]
    CompletionQueueLost,

    /// The object cannot be destroyed, because something else still uses it.
    #[error(
        "the {resource} is still in use: close what was created from it or is bound to it, and its other \
         handles, first"
    )]
    InUse {
        /// What was to be destroyed.
        resource: &'static str,
    },

    /// An environment variable asks a provider to leave out the locks that this crate relies on.
    #[error(
        "{variable} is set in the environment: it makes the library unsafe to use from more than \
         one thread, which Rust allows; unset it"
    )]
    UnsafeEnvironment {
        /// The variable's name.
        variable: &'static str,
    },

    /// The device could not be opened.
    #[error("cannot open device {device} (ibv_open_device){}", open_hint(.source))]
    OpenDevice {
        /// The device's name.
        device: String,
        /// What the operating system said.
        source: io::Error,
    },

    /// The device has no port of this number.
    #[error("device {device} has no port {port}: its ports are 1 to {ports}")]
    InvalidPort {
        /// The device's name.
        device: String,
        /// The port that was asked for.
        port: u8,
        /// How many ports the device has.
        ports: u8,
    },

    /// The port has no GID to send from, which it needs on Ethernet.
    #[error("port {port} has no GID to send from: give its network interface an IP address")]
    NoGid {
        /// The port.
        port: u8,
    },

    /// The port's table has no entry of this index, or the entry is empty.
    #[error("port {port} has no {table} at index {index}: {}", place(*index, *entries))]
    InvalidIndex {
        /// Which table: GID or P_Key.
        table: &'static str,
        /// The port.
        port: u8,
        /// The index that was asked for.
        index: u32,
        /// How many entries the table has.
        entries: u32,
    },

    /// An argument is outside what the call accepts.
    #[error("{what} is {value}, but {expected}")]
    InvalidArgument {
        /// The argument.
        what: &'static str,
        /// The value that was given.
        value: u64,
        /// What would have been accepted.
        expected: &'static str,
    },

    /// More was asked for than the device has.
    #[error("{verb}: asked for {requested} {what}, but there are at most {available}")]
    Capacity {
        /// The verb that was refused.
        verb: &'static str,
        /// What there was not enough of.
        what: &'static str,
        /// How much was asked for.
        requested: u64,
        /// How much the device offers.
        available: u64,
        /// What the operating system said, if it was asked.
        source: Option<io::Error>,
    },

    /// Memory could not be had.
    #[error("cannot allocate {len} bytes (mmap)")]
    Allocate {
        /// How many bytes.
        len: usize,
        /// What the operating system said.
        source: io::Error,
    },

    /// Memory is not, or cannot be, registered with this access.
    #[error("a memory region with {access:?}: {reason}")]
    InvalidAccess {
        /// The access.
        access: AccessFlags,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// Memory could not be registered.
    #[error("cannot register {len} bytes with {access:?} ({verb}): {hint}")]
    Register {
        /// The verb that was refused.
        verb: &'static str,
        /// The length of the memory, in bytes.
        len: usize,
        /// The access that was asked for.
        access: AccessFlags,
        /// The likely cause, and what to do.
        hint: &'static str,
        /// What the operating system said.
        source: io::Error,
    },

    /// Advice about registered memory was refused.
    #[error("the advice `{advice}` was refused (ibv_advise_mr): {hint}")]
    Advise {
        /// The advice.
        advice: Advice,
        /// The likely cause.
        hint: &'static str,
        /// What the operating system said.
        source: io::Error,
    },

    /// A range does not lie within what it is a range of.
    #[error("bytes {start} to {end} do not lie within the {what}, which has {len}")]
    OutOfBounds {
        /// What the range should lie within.
        what: &'static str,
        /// The first byte of the range.
        start: u64,
        /// The byte behind the last of the range.
        end: u64,
        /// How many bytes there are.
        len: u64,
    },

    /// A queue pair's transition was refused.
    #[error(transparent)]
    Transition(Box<TransitionFailure>),

    /// The route to the remote queue pair could not be resolved.
    #[error(transparent)]
    Route(Box<RouteFailure>),

    /// A queue pair was to be built for operations that its transport does not have, or for none.
    #[error(
        "a queue pair of this transport cannot be built for {requested:?}: it has {possible:?}"
    )]
    InvalidSendOps {
        /// What was asked for.
        requested: SendOps,
        /// What the transport has.
        possible: SendOps,
    },

    /// A queue pair that is ready to send was asked for a state that its type does not allow.
    #[error(
        "a queue pair that is ready to send can be asked for RTS, SQD or ERR, not for {state} (see `reset`)"
    )]
    InvalidState {
        /// The state that was asked for.
        state: QpState,
    },

    /// The queue pair is not attached to this multicast group.
    #[error("the queue pair is not attached to the multicast group {gid} with the local identifier {lid}")]
    NotAttached {
        /// The group's address.
        gid: Gid,
        /// The group's local identifier.
        lid: u16,
    },

    /// The queue pair was not created with this operation.
    #[error("the queue pair was not built for {operation:?}: it was granted {granted:?} (see `set_send_ops`)")]
    OperationNotGranted {
        /// The operation that was started.
        operation: SendOps,
        /// What the queue pair was built for.
        granted: SendOps,
    },

    /// A batch was begun after one that was aborted, which this device's driver does not get over.
    #[error(
        "a batch of this queue pair was aborted, after which its driver reports completions too early: reset the \
         queue pair before the next batch"
    )]
    AbortedBefore,

    /// A send was begun on a queue pair that is not ready to send yet.
    #[error("the queue pair cannot send before `modify` has asked for RTS")]
    NotReadyToSend,

    /// A receive was posted to a queue pair that has no receive queue of its own.
    #[error(
        "the queue pair has no receive queue: it takes receives from its shared receive queue, or was built \
         with a depth of 0"
    )]
    NoReceiveQueue,

    /// More buffers are posted to a queue of the owned level than it takes.
    #[error("the {queue} queue has no place for another buffer: it takes {capacity}, until completions are polled")]
    QueueFull {
        /// Which queue: send or receive.
        queue: &'static str,
        /// How many buffers it takes.
        capacity: usize,
    },

    /// A queue of the owned level was to be drained without a completion queue that could be polled meanwhile.
    #[error("draining takes all completion queues to which what was posted completes, unless they were dropped")]
    CompletionQueueNeeded,

    /// A work request has more scatter entries than its queue was created with.
    #[error(
        "a {queue} work request has {entries} scatter entries, but its queue was granted {granted}"
    )]
    TooManyScatterEntries {
        /// Which queue: send or receive.
        queue: &'static str,
        /// How many entries the request has.
        entries: usize,
        /// How many the queue was granted.
        granted: u32,
    },

    /// A work request carries more inline data than the queue pair was created with.
    #[error("a work request carries {bytes} bytes inline, but the queue pair was granted {granted} for it (see `set_max_inline_data`, and for writes of SRD `set_inline_write`)")]
    InlineTooLong {
        /// The bytes of all inline buffers together.
        bytes: usize,
        /// How many the queue pair was granted.
        granted: u32,
    },

    /// An operation goes beyond the remote memory that it was given.
    #[error("a work request moves {bytes} bytes, but the remote memory slice has {len}")]
    BeyondRemote {
        /// The bytes that the request moves.
        bytes: u64,
        /// The length of the remote slice.
        len: u64,
    },

    /// A memory window cannot be bound, because it was freed with the queue pair that had bound it last.
    #[error(
        "the memory window was freed with the queue pair that had bound it: allocate another one"
    )]
    WindowFreed,

    /// The send batch was refused as a whole. Nothing of it is posted, unless SoftRoCE could not ring the
    /// doorbell: [`SendBatch::submit`](crate::SendBatch::submit) explains.
    #[error("the batch was refused (ibv_wr_complete){}", full_hint(.source))]
    PostSend {
        /// What the provider said; `ENOMEM` or `ENOSPC` where the send queue is full.
        source: io::Error,
    },

    /// A batch of shared memory was refused, but perhaps not from its beginning.
    #[error("the device has {accepted} of the {requested} requests of a shared batch (ibv_post_send){}", full_hint(.source))]
    PostShared {
        /// How many operations, counted from the first, are posted: those that the device took, or all if the provider
        /// does not say.
        accepted: usize,
        /// How many there were.
        requested: usize,
        /// What the provider said; `ENOMEM` where the send queue is full.
        source: io::Error,
    },

    /// A batch of receives was refused, but perhaps not from its beginning.
    #[error("{verb} failed: the device has {accepted} of the {requested} receives{}", full_hint(.source))]
    PostReceive {
        /// The verb that was refused.
        verb: &'static str,
        /// How many requests, counted from the first, the device may own the buffers of: those that it
        /// took, or all if the provider does not say.
        accepted: usize,
        /// How many there were.
        requested: usize,
        /// What the provider said; `ENOMEM` where the receive queue is full.
        source: io::Error,
    },

    /// Bytes that came from elsewhere are not what they should be.
    #[error("these bytes are no {what}: {reason}")]
    InvalidBytes {
        /// What was expected.
        what: &'static str,
        /// What is wrong with them.
        reason: &'static str,
    },

    /// [`fork_init`](crate::fork_init) was called when a device had been opened.
    #[error("ibv_fork_init comes too late: a device was opened, and its memory may be registered")]
    ForkInitTooLate,

    /// An event channel of the connection manager could not be opened.
    #[cfg(feature = "rdmacm")]
    #[error("cannot open an event channel (rdma_create_event_channel){}", channel_hint(.source))]
    EventChannel {
        /// What the operating system said.
        source: io::Error,
    },

    /// An identifier of the connection manager could not be bound to a local address.
    #[cfg(feature = "rdmacm")]
    #[error("cannot bind to {address} (rdma_bind_addr){}", bind_hint(.source))]
    BindAddress {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },

    /// An identifier of the connection manager could not begin to resolve the address of a peer, or the route to it.
    #[cfg(feature = "rdmacm")]
    #[error("cannot resolve the way to {address} ({verb}){}", resolve_hint(.source))]
    Resolve {
        /// The C function that refused.
        verb: &'static str,
        /// The peer's address.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },

    /// An identifier of the connection manager has no device yet.
    #[cfg(feature = "rdmacm")]
    #[error(
        "the connection identifier has no device: resolve an address first, or bind it to one of an RDMA device \
         that is not a wildcard (loopback addresses lead to no device)"
    )]
    NotBound,

    /// An identifier shares its event channel with others, whose events would be taken as well.
    #[cfg(feature = "rdmacm")]
    #[error(
        "the connection identifier has no event channel of its own: take its events from the channel that it \
         was created on or moved to, or use `migrate_to_own_channel`"
    )]
    SharedEventChannel,

    /// There is neither a connection request nor a response to answer.
    #[cfg(feature = "rdmacm")]
    #[error(
        "there is no connection request or response to answer: the peer may have given up, or it was answered before"
    )]
    NothingToAnswer {
        /// What the kernel would have said.
        source: io::Error,
    },

    /// The identifier's port space is not for this kind of queue pair, or not the one that was named.
    #[cfg(feature = "rdmacm")]
    #[error("the connection identifier is of port space {port_space}: this takes {expected}")]
    PortSpaceMismatch {
        /// The identifier's port space.
        port_space: &'static str,
        /// Which port space it should be of.
        expected: &'static str,
    },

    /// A message of the connection manager cannot carry that much private data.
    #[cfg(feature = "rdmacm")]
    #[error(
        "{bytes} bytes of private data are too many for {message}: it carries at most {available}"
    )]
    PrivateDataTooLong {
        /// Which message.
        message: &'static str,
        /// How many bytes there were.
        bytes: usize,
        /// How many it carries.
        available: usize,
    },

    /// The identifier is no member of this multicast group.
    #[cfg(feature = "rdmacm")]
    #[error("the connection identifier has not joined the multicast group {group}")]
    NotJoined {
        /// The group's address.
        group: SocketAddr,
    },

    /// The connection manager reported that a connection could not be set up, or is gone.
    #[cfg(feature = "rdmacm")]
    #[error(transparent)]
    Connection(Box<ConnectionFailure>),

    /// A step of setting up a connection took too long.
    #[cfg(feature = "rdmacm")]
    #[error("cannot {step} (peer {peer}): no answer within {timeout:?}")]
    TimedOut {
        /// What was tried, in words.
        step: &'static str,
        /// The peer's address.
        peer: Box<str>,
        /// How long it was waited for.
        timeout: Duration,
    },

    /// The name of a host or a service could not be resolved.
    #[cfg(feature = "rdmacm")]
    #[error("cannot resolve the address of {name} (rdma_getaddrinfo): {reason}")]
    ResolveName {
        /// The host and the service.
        name: Box<str>,
        /// What the resolver said.
        reason: Box<str>,
    },

    /// Something was to go wrong with a software device, and cannot be made to.
    #[cfg(feature = "soft")]
    #[error("cannot {action}")]
    Faults {
        /// What was to be done, in words.
        action: &'static str,
        /// Why it cannot.
        source: io::Error,
    },

    /// The operating system, the driver or the library refused a verb for another reason.
    #[error("{verb} failed")]
    Verb {
        /// The C function.
        verb: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
}

/// The kernel's own number for what it does not support, which is not meant for programs and reaches them all
/// the same (`rdma_join_multicast` of an IPv6 group on RoCE).
const ENOTSUPP: i32 = 524;

impl Error {
    /// The operating system's error number, where there is one.
    pub fn os_error(&self) -> Option<i32> {
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = next {
            if let Some(error) = error.downcast_ref::<io::Error>() {
                return error.raw_os_error();
            }
            next = error.source();
        }
        None
    }

    /// The error of a verb that returned `code`.
    #[cold]
    pub(crate) fn from_code(verb: &'static str, code: i32) -> Error {
        match error_number(code) {
            libc::EOPNOTSUPP | libc::ENOSYS | libc::EPROTONOSUPPORT | ENOTSUPP => {
                Error::Unsupported { operation: verb }
            }
            number => Error::Verb { verb, source: io::Error::from_raw_os_error(number) },
        }
    }

    /// The error of a verb that failed by returning null or -1 and set `errno`.
    #[cold]
    pub(crate) fn last_os_error(verb: &'static str) -> Error {
        Error::from_code(verb, last_errno())
    }

    /// The error of a destroying verb, of which the codes `in_use` mean that something still uses the object.
    #[cold]
    pub(crate) fn from_destroy(
        verb: &'static str,
        resource: &'static str,
        in_use: &[i32],
        code: i32,
    ) -> Error {
        match error_number(code) {
            number if in_use.contains(&number) => Error::InUse { resource },
            number => Error::from_code(verb, number),
        }
    }
}
