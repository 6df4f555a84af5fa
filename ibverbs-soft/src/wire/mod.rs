//! What stands in a RoCEv2 packet, from the base transport header to the invariant CRC.
//!
//! Each header is a checked view of its bytes, and a struct that holds values. [`Packet::parse`] and [`PacketView::parse`] read
//! a packet, [`PacketView::headers`] and [`PacketView::trailer`] make what stands around its payload, and
//! [`Encapsulation::check`] looks at its CRC.

mod aeth;
mod atomic_eth;
mod bth;
mod deth;
mod encapsulation;
mod error;
mod grh;
mod headers;
mod icrc;
mod opcode;
mod operation;
mod packet;
mod pcap;
mod psn;
mod reth;
mod srd;
#[cfg(test)]
pub(crate) mod test_packets;
mod u24;
mod view;

pub use aeth::{Aeth, NakCode, Syndrome};
pub use atomic_eth::AtomicEth;
pub use bth::Bth;
pub use deth::Deth;
pub use encapsulation::{Encapsulation, UDP_PORT};
pub use error::{EmitError, ParseError};
pub use grh::{grh, GRH_LEN};
pub use headers::{Headers, Trailer};
pub use icrc::IcrcError;
pub use operation::{Operation, Position, Service};
pub use packet::Packet;
pub use pcap::PcapWriter;
pub use psn::Psn;
pub use reth::Reth;
pub use srd::{Srd, SrdPart};
pub(crate) use u24::U24;
pub use view::{PacketView, MAX_PAYLOAD};
