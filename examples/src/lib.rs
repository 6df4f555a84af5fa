//! What the examples share: their options, how a device is chosen, bytes that are filled and checked,
//! waiting, what two processes tell each other, and how values are shown.

mod data;
mod device;
mod options;
mod peer;
mod show;
mod wait;

pub use data::{check, fill};
pub use device::{devices, find, Local, Opened};
pub use options::Common;
pub use peer::{Peer, Terms};
pub use show::{row, Progress, Rate};
pub use wait::{wait, wait_while};
