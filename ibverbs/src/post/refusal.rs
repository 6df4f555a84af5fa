//! Why a batch is not posted.

use super::optional::FlushPlacement;
use crate::error::Error;
use crate::mr::AccessFlags;
use crate::qp::{QueuePairCapacity, SendOps};

/// What an operation asked for that its queue pair cannot carry out.
pub enum Refusal {
    NotGranted(SendOps),
    /// What a shared batch of this transport does not have.
    NotClassic,
    /// More operations than there are places for.
    QueueFull(usize),
    /// More bytes of a buffer than it has.
    BeyondBuffer {
        len: usize,
        size: usize,
    },
    /// More operations than the send queue has places.
    BatchTooLong(usize),
    ScatterEntries(usize),
    InlineBytes(usize),
    BeyondRemote {
        bytes: u64,
        len: u64,
    },
    AtomicLength(u32),
    AtomicAddress(u64),
    /// What is of another protection domain.
    Domain(&'static str),
    WindowAccess(AccessFlags, &'static str),
    EmptyWindow,
    FlushLength(u64),
    FreedWindow,
    Placement(FlushPlacement),
}

impl Refusal {
    /// The error, for a queue pair that was granted this.
    #[cold]
    pub(crate) fn into_error(self, ops: SendOps, granted: &QueuePairCapacity) -> Error {
        match self {
            Refusal::NotGranted(operation) => {
                Error::OperationNotGranted { operation, granted: ops }
            }
            Refusal::NotClassic => Error::Unsupported {
                operation: "a write or a read in a shared batch of this transport",
            },
            Refusal::QueueFull(capacity) => Error::QueueFull { queue: "send", capacity },
            Refusal::BeyondBuffer { len, size } => {
                Error::OutOfBounds { what: "buffer", start: 0, end: len as u64, len: size as u64 }
            }
            Refusal::BatchTooLong(places) => Error::InvalidArgument {
                what: "the number of operations in a shared batch",
                value: places as u64 + 1,
                expected: "it must be at most the depth of the send queue",
            },
            Refusal::ScatterEntries(entries) => {
                let granted = granted.max_send_sge;
                Error::TooManyScatterEntries { queue: "send", entries, granted }
            }
            Refusal::InlineBytes(bytes) => {
                Error::InlineTooLong { bytes, granted: granted.max_inline_data }
            }
            Refusal::BeyondRemote { bytes, len } => Error::BeyondRemote { bytes, len },
            Refusal::AtomicLength(length) => Error::InvalidArgument {
                what: "the length of an atomic's local slice",
                value: u64::from(length),
                expected: "it must be 8 bytes",
            },
            Refusal::AtomicAddress(addr) => Error::InvalidArgument {
                what: "the remote address of an atomic",
                value: addr,
                expected: "it must be a multiple of 8",
            },
            Refusal::Domain(what) => Error::ProtectionDomainMismatch { what },
            Refusal::WindowAccess(access, reason) => Error::InvalidAccess { access, reason },
            Refusal::FlushLength(length) => Error::InvalidArgument {
                what: "the length of a flush",
                value: length,
                expected: "it must be less than 4 GiB",
            },
            Refusal::EmptyWindow => Error::InvalidArgument {
                what: "the length of a memory window",
                value: 0,
                expected: "it must be at least 1 byte",
            },
            Refusal::FreedWindow => Error::WindowFreed,
            Refusal::Placement(placement) => Error::InvalidArgument {
                what: "the placement of a flush",
                value: placement.bits().into(),
                expected: "it must be GLOBAL, PERSISTENT or both",
            },
        }
    }
}
