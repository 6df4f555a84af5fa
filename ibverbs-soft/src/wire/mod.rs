//! What stands in a RoCEv2 packet, from the base transport header to the invariant CRC.

mod packet;

pub use packet::{
    Aeth, AtomicEth, Bth, Deth, NakCode, Operation, Packet, Position, Psn, Reth, Service, Syndrome,
};
