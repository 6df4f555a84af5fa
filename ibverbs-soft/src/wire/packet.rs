//! A packet as the transport sees it: headers that hold valid values only, and the payload.
//!
//! Names and numbers are those of the InfiniBand Architecture Specification, volume 1, chapter 9.

use super::{Bth, Deth, EmitError, Headers, Operation, PacketView, ParseError};

/// A packet, without its addresses and its CRC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The base transport header.
    pub bth: Bth,
    /// Of datagrams only.
    pub deth: Option<Deth>,
    /// What it is for, with its extended headers.
    pub operation: Operation,
    /// The payload, without padding.
    pub payload: Vec<u8>,
}

impl Packet {
    /// Reads a packet from the payload of a UDP datagram, with a copy of its payload. Its CRC is skipped:
    /// [`Encapsulation::check`](super::Encapsulation::check) looks at it.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the bytes.
    pub fn parse(bytes: &[u8]) -> Result<Packet, ParseError> {
        PacketView::parse(bytes).map(PacketView::to_packet)
    }

    /// The bytes in front of its payload.
    ///
    /// # Errors
    ///
    /// If its values contradict each other.
    pub fn headers(&self) -> Result<Headers, EmitError> {
        self.view().headers()
    }

    /// The packet, with its payload borrowed.
    pub fn view(&self) -> PacketView<'_> {
        PacketView {
            bth: self.bth,
            deth: self.deth,
            operation: self.operation,
            payload: &self.payload,
        }
    }
}

#[cfg(test)]
mod tests;
