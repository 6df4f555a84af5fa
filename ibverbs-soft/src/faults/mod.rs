//! What can be made to go wrong with a device, for tests of programs.

mod handle;
mod link;

pub use handle::{Capture, Faults};
pub(crate) use link::{Arrival, Decisions};
pub use link::{Link, LinkCounts};
