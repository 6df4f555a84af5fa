//! What the examples share: their options, how a device is chosen, bytes that are filled and checked,
//! waiting, what two processes tell each other, and how values are shown.

mod cm;
mod data;
mod device;
mod inbox;
mod options;
mod peer;
mod show;
mod talk;
mod transfer;
mod wait;

pub use cm::{
    event_channel, explain, show, text, wait_connected, Addresses, Route, Served, PATIENCE, SET_UP,
};
pub use data::{check, fill};
pub use device::{devices, find, Local, Opened};
pub use inbox::Inbox;
pub use options::Common;
pub use peer::{Listener, Peer, Terms};
pub use show::{row, Progress, Rate};
pub use talk::{Hello, Talk};
pub use transfer::{Arrived, Message, Ring, Wire, MAX_CHUNK, SLOTS};
pub use wait::{wait, wait_while};
