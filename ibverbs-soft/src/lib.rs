#![doc = include_str!("../README.md")]

#[cfg(not(target_os = "linux"))]
compile_error!("ibverbs-soft works on Linux only: RDMA verbs are an interface of the Linux kernel");

mod abi;
#[forbid(unsafe_code)]
pub mod cm;
mod device;
mod driver;
mod faults;
mod options;
mod random;
#[cfg(test)]
#[forbid(unsafe_code)]
mod sim;
#[forbid(unsafe_code)]
pub mod transport;
#[forbid(unsafe_code)]
pub mod wire;

pub use abi::provider;
pub use faults::{Capture, Faults, Link, LinkCounts};
pub use options::{Loopback, Options, OptionsError};
