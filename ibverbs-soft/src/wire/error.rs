//! What is wrong with bytes that are no packet, and with packets that have no bytes.

use super::{Service, MAX_PAYLOAD};

/// Why bytes are not a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The headers that its opcode asks for, the padding and the CRC do not fit.
    #[error("{len} bytes are too short for a packet that needs {needed}")]
    TooShort {
        /// How many bytes there are.
        len: usize,
        /// How many there would be without a payload.
        needed: usize,
    },
    /// The length is not a multiple of four: packets are padded.
    #[error("{0} bytes are not a multiple of four")]
    Unaligned(usize),
    /// The transport version is not 0.
    #[error("transport version {0} is unknown")]
    TransportVersion(u8),
    /// The opcode is reserved, or of a service that is not there.
    #[error("opcode {0:#04x} is unknown")]
    Opcode(u8),
    /// The syndrome of an acknowledgement is reserved.
    #[error("syndrome {0:#04x} of an acknowledgement is unknown")]
    Syndrome(u8),
    /// A payload comes with an operation that has none.
    #[error("{len} bytes of payload come with opcode {opcode:#04x}, which has none")]
    UnexpectedPayload {
        /// The opcode.
        opcode: u8,
        /// How many bytes there are, with padding.
        len: usize,
    },
    /// The payload is longer than any path's MTU.
    #[error("{0} bytes of payload are more than {MAX_PAYLOAD}")]
    PayloadTooLong(usize),
}

/// Why a packet has no bytes: its values contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmitError {
    /// No opcode of the service says this operation, with the values that come with it.
    #[error("no opcode of {0:?} says this operation")]
    Operation(Service),
    /// There is a datagram header in what is no datagram, or a datagram without one.
    #[error("a datagram header belongs to a datagram, which {0:?} is not or has not")]
    Datagram(Service),
    /// A payload comes with an operation that has none.
    #[error("{0} bytes of payload come with an operation that has none")]
    UnexpectedPayload(usize),
    /// The payload is longer than any path's MTU.
    #[error("{0} bytes of payload are more than {MAX_PAYLOAD}")]
    PayloadTooLong(usize),
}
