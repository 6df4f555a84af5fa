//! The software device, feature `soft`: RDMA in the process, over UDP.
//!
//! It needs no adapter, no kernel module and no rights, so that programs that use verbs can be developed and tested on any
//! Linux machine, and in any container. It speaks RoCEv2: two processes on one machine reach each other without any
//! configuration, and other machines are reached if each device is given an address of its own machine.
//!
//! It is not for production: adapters move data without the processor, and this does not. Nothing chooses it by itself. A
//! program asks for it before its first verb, with [`install`] or [`SoftDevices`], or whoever runs the program sets
//! `IBVERBS_PROVIDER=soft`.
//!
//! ```
//! ibverbs::soft::install()?;
//! let devices = ibverbs::devices()?;
//! assert_eq!(devices.get(0).expect("there is always one").name(), "soft0");
//! # Ok::<(), ibverbs::Error>(())
//! ```
//!
//! In tests, begin each with `install`: the first call counts, and the others find it done.
//!
//! # Environment
//!
//! What the program leaves open, these variables say:
//!
//! | variable | what it says | otherwise |
//! |---|---|---|
//! | `IBVERBS_SOFT_ADDR` | the devices' addresses, with commas between them | the first that are free of 127.0.0.1, 127.0.0.2, ... |
//! | `IBVERBS_SOFT_LOOPBACK` | `memory` or `wire`: how packets get from a device to itself | `memory` |
//! | `IBVERBS_SOFT_DEVICES` | how many devices there are | one, or one for each address |
//!
//! The repository's page *The software device* says what it does, what it does not do, and what its limits are.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use ibverbs_soft::{Options, OptionsError};

pub use ibverbs_soft::Loopback;

use crate::error::{Error, Result};
use crate::ffi::provider::{self, AlreadyChosen};

/// Makes the software device the provider of this process, as the environment says: [`SoftDevices::install`] without options.
///
/// # Errors
///
/// Those of [`SoftDevices::install`].
pub fn install() -> Result<()> {
    SoftDevices::new().install()
}

/// The software devices of this process: what is to be different from what the [environment](self#environment) says.
///
/// # Examples
///
/// Two devices, whose packets all go over the wire:
///
/// ```
/// use ibverbs::soft::{Loopback, SoftDevices};
///
/// SoftDevices::new().set_devices(2).set_loopback(Loopback::Wire).install()?;
/// assert_eq!(ibverbs::devices()?.len(), 2);
/// # Ok::<(), ibverbs::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct SoftDevices {
    addrs: Option<Vec<IpAddr>>,
    loopback: Option<Loopback>,
    devices: Option<usize>,
}

impl SoftDevices {
    /// As the environment says.
    pub fn new() -> SoftDevices {
        SoftDevices::default()
    }

    /// The address of the first device: one of this machine. It is also its GID.
    pub fn set_addr(self, addr: IpAddr) -> Self {
        self.set_addrs([addr])
    }

    /// The addresses of the devices, in their order.
    pub fn set_addrs(mut self, addrs: impl IntoIterator<Item = IpAddr>) -> Self {
        self.addrs = Some(addrs.into_iter().collect());
        self
    }

    /// How packets get from a device to itself.
    pub fn set_loopback(mut self, loopback: Loopback) -> Self {
        self.loopback = Some(loopback);
        self
    }

    /// How many devices there are: 1 to 16.
    pub fn set_devices(mut self, devices: usize) -> Self {
        self.devices = Some(devices);
        self
    }

    /// Makes these the provider of this process. If they are that already, nothing is done.
    ///
    /// It does not touch the network: that comes when a device is opened.
    ///
    /// # Errors
    ///
    /// - [`Error::ProviderChosen`] if the process has another provider, or software devices with other options. This comes
    ///   too late after the first verb, which chooses one.
    /// - [`Error::InvalidVariable`] if one of the [variables](self#environment) says what cannot be understood.
    /// - [`Error::InvalidArgument`] if there are to be no devices, or too many.
    pub fn install(self) -> Result<()> {
        static INSTALLED: Mutex<Option<Options>> = Mutex::new(None);
        let options = self.options(Options::from_env().map_err(not_understood)?)?;
        let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        match &*installed {
            Some(same) if *same == options => return Ok(()),
            Some(_) => {
                let rejected = "soft, with other options";
                return Err(AlreadyChosen { in_place: provider::name(), rejected }.into());
            }
            None => {}
        }
        // SAFETY: ibverbs-soft implements the functions of libibverbs as their manual pages say; it is written for this, and
        // the integration tests run on it.
        unsafe { provider::install(ibverbs_soft::provider(options.clone())) }?;
        *installed = Some(options);
        Ok(())
    }

    /// Puts what the program says in the place of what the environment does.
    fn options(self, mut options: Options) -> Result<Options> {
        if let Some(devices) = self.devices {
            if !(1..=Options::MAX_DEVICES).contains(&devices) {
                return Err(too_many("the number of software devices", devices));
            }
            options.devices = devices;
        }
        if let Some(addrs) = self.addrs {
            if addrs.len() > Options::MAX_DEVICES {
                return Err(too_many("the number of addresses of software devices", addrs.len()));
            }
            options.addrs = addrs;
        }
        options.loopback = self.loopback.unwrap_or(options.loopback);
        Ok(options)
    }
}

fn too_many(what: &'static str, count: usize) -> Error {
    const { assert!(Options::MAX_DEVICES == 16) };
    Error::InvalidArgument { what, value: count as u64, expected: "a process has 1 to 16 of them" }
}

fn not_understood(error: OptionsError) -> Error {
    Error::InvalidVariable {
        variable: error.variable(),
        value: error.value().to_owned(),
        expected: error.expected(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Options {
        Options { addrs: vec![[127, 0, 0, 9].into()], loopback: Loopback::Wire, devices: 3 }
    }

    #[test]
    fn what_is_left_open_is_as_the_environment_says() {
        assert_eq!(SoftDevices::new().options(environment()).unwrap(), environment());
    }

    #[test]
    fn what_the_program_says_comes_first() {
        let addr = [127, 0, 0, 7].into();
        let devices =
            SoftDevices::new().set_addr(addr).set_devices(2).set_loopback(Loopback::Memory);
        let expected = Options { addrs: vec![addr], loopback: Loopback::Memory, devices: 2 };
        assert_eq!(devices.options(environment()).unwrap(), expected);
    }

    #[test]
    fn none_and_too_many_are_refused() {
        let too_many_addrs = (0..17).map(|n| [127, 0, 1, n].into());
        for devices in [
            SoftDevices::new().set_devices(0),
            SoftDevices::new().set_devices(17),
            SoftDevices::new().set_addrs(too_many_addrs),
        ] {
            let error = devices.options(environment()).unwrap_err();
            assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
        }
    }
}
