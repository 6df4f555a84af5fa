//! Queue pairs in simulated time, over links that lose, repeat, reorder and change packets: the same each time for the same seed.

pub(crate) mod fixture;
mod forgery;
pub(crate) mod host;
mod link;
mod network;
mod pair;
mod plan;
mod reliable;
mod rng;
mod scenario;
mod trace;

mod hostile;
mod rc;
mod srd;
mod table;
mod uc;
mod ud;
