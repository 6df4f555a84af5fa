//! What is posted arrives, and what cannot be is refused or fails.

mod classic;
mod datagrams;
mod events;
mod extended;
mod shared;
mod windows;
