//! The connection manager: how two programs agree on a connection of their queue pairs, or one finds a queue pair for datagrams.
//!
//! Both talk by [messages](Message), which queue pairs of number 1 exchange as datagrams. As in the transport, there is no socket,
//! clock or thread here: messages come in by [`Manager::handle_message`], go out by [`Manager::poll_transmit`], what programs are
//! to know comes out by [`Manager::poll_event`], and time is an argument.

mod addressing;
mod arrivals;
mod calls;
mod connection;
mod datagrams;
mod event;
mod manager;
mod message;
#[cfg(test)]
mod tests;

pub use addressing::{Addressing, ADDRESSING_LEN};
pub use calls::{Accept, Connect};
pub use connection::{Facts, State};
pub use datagrams::{Answer, Find};
pub use event::{Event, Notice, Peer, Requested, Responded};
pub use manager::{Listener, ListenerId, Manager, Refused};
pub use message::{
    filled_up, About, Context, Dreq, Message, MessageBytes, Mra, ParseError, PathRecord, Rej, Rep,
    Req, Short, SidrRep, SidrReq, MESSAGE_LEN,
};

/// The queue pair that messages come from and go to.
pub const QP_NUM: u32 = 1;

/// Its queue key.
pub const QKEY: u32 = 0x8001_0000;

/// Why a request or reply is rejected.
pub mod reason {
    /// The program has given up.
    pub const TIMEOUT: u16 = 4;
    /// Nobody listens.
    pub const INVALID_SERVICE_ID: u16 = 8;
    /// There is a connection of these queue pairs, which is gone on one side.
    pub const STALE_CONNECTION: u16 = 10;
    /// The program does not want it.
    pub const CONSUMER: u16 = 28;
}

/// What the answer to a question for a queue pair of datagrams says.
pub mod sidr_status {
    /// There is one.
    pub const SUCCESS: u8 = 0;
    /// Nobody listens.
    pub const UNSUPPORTED: u8 = 1;
    /// The program does not want to.
    pub const REJECTED: u8 = 2;
}
