//! What a program can choose about the software devices.

use std::net::IpAddr;

/// How packets get from a device to itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Loopback {
    /// In memory, without a socket.
    #[default]
    Memory,
    /// Over the wire, as all others do.
    Wire,
}

/// What a program can choose. The default is one device at the first free address of 127.0.0.1, 127.0.0.2, ...
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The addresses of the devices, in their order; those that are not named get free ones.
    pub addrs: Vec<IpAddr>,
    /// How packets get from a device to itself.
    pub loopback: Loopback,
    /// How many devices there are; 0 is taken for 1.
    pub devices: usize,
}

/// A variable of the environment that says nothing that can be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable} is {value:?}: {expected}")]
pub struct OptionsError {
    variable: &'static str,
    value: String,
    expected: &'static str,
}

impl Options {
    /// What the environment says: `IBVERBS_SOFT_ADDR` (addresses, with commas between them), `IBVERBS_SOFT_LOOPBACK` (`memory`
    /// or `wire`) and `IBVERBS_SOFT_DEVICES` (a number).
    ///
    /// # Errors
    ///
    /// If one of them is set to something else.
    pub fn from_env() -> Result<Options, OptionsError> {
        todo!()
    }
}
