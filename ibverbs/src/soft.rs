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
//! | `IBVERBS_SOFT_EFA` | `1`: the devices have what EFA's adapters have, too | `0` |
//! | `IBVERBS_SOFT_PCAP` | a file in which the device's packets are captured; `%d` in it is the device's name, and `%p` the number of the process | none |
//!
//! # What goes wrong
//!
//! [`faults`] gives what makes things go wrong with a device of this process: a [`Link`] that loses, doubles, delays, reorders and
//! corrupts packets, a port that goes down, memory that cannot be registered, a device that fails. So a program can be tested for
//! what happens seldom, and never when it is looked at. It captures packets, too.
//!
//! The repository's page *The software device* says what it does, what it does not do, and what its limits are.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use ibverbs_soft::{Options, OptionsError};

pub use ibverbs_soft::{Link, LinkCounts, Loopback};

use crate::context::Context;
use crate::error::{Error, Result};
use crate::ffi::provider::{self, AlreadyChosen};

/// What this process was given.
static INSTALLED: Mutex<Option<Options>> = Mutex::new(None);

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
    efa: Option<bool>,
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

    /// Whether the devices have what EFA's adapters have: queue pairs of scalable reliable datagrams (`Srd`, feature `efa`), and what can
    /// be asked of such devices only. The longest message of their port is that of EFA then, for whatever transport.
    pub fn set_efa(mut self, efa: bool) -> Self {
        self.efa = Some(efa);
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
        options.efa = self.efa.unwrap_or(options.efa);
        Ok(options)
    }
}

/// What can be made to go wrong with the device that this context is of.
///
/// # Errors
///
/// [`Error::Faults`] if it is not a software device of this process.
pub fn faults(context: &Context) -> Result<Faults> {
    const ACTION: &str = "make anything go wrong with the device";
    let action = |source| Error::Faults { action: ACTION, source };
    if INSTALLED.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
        return Err(action(io::Error::other("it is no software device of this process")));
    }
    // The place in the list: there is always one.
    let index = context.device().index().unwrap_or(u32::MAX);
    let faults = ibverbs_soft::Faults::of_device(index as usize).map_err(action)?;
    Ok(Faults(faults))
}

/// What can be made to go wrong with an open software device; from [`faults`].
///
/// It is about the device, and so about everybody in the process who has it open: give a test that uses this a device, or a process, of
/// its own. What was set stays until it is set otherwise, or until the last context of the device is closed; who opens it
/// then has a device with which nothing is wrong. This handle does not keep the device open; when it is closed, everything fails with
/// `ENODEV`.
///
/// # Examples
///
/// ```
/// use ibverbs::soft::{faults, Link};
/// use ibverbs::AccessFlags;
///
/// ibverbs::soft::install()?;
/// let context = ibverbs::devices()?.get(0).expect("there is always one").open()?;
/// let faults = faults(&context)?;
/// faults.set_link(Link::new().set_loss(0.05).set_corruption(0.01).set_seed(7))?;
/// // Run what is to be tested; reliable connections get over it.
/// println!("{:?}", faults.link_counts()?);
///
/// faults.fail_registrations(1, 12)?; // ENOMEM
/// let pd = context.alloc_pd()?;
/// assert_eq!(pd.allocate(4096, AccessFlags::LOCAL_WRITE).unwrap_err().os_error(), Some(12));
/// assert!(pd.allocate(4096, AccessFlags::LOCAL_WRITE).is_ok());
/// # Ok::<(), ibverbs::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Faults(ibverbs_soft::Faults);

impl Faults {
    /// From here on, the device's packets go through this link; [`Link::new`] ends it. Packets that the link delays already still
    /// arrive when they were to.
    ///
    /// Packets of the device to itself are then built and checked as if they went over the wire, whatever
    /// [`Loopback`] says.
    ///
    /// # Errors
    ///
    /// [`Error::Faults`] if the link has impossible values, or the device is closed.
    pub fn set_link(&self, link: Link) -> Result<()> {
        self.0.set_link(link).map_err(failed("set the link"))
    }

    /// What links have done to the device's packets since it was opened.
    ///
    /// # Errors
    ///
    /// [`Error::Faults`] if the device is closed.
    pub fn link_counts(&self) -> Result<LinkCounts> {
        self.0.link_counts().map_err(failed("look at the link"))
    }

    /// Takes the port down, as if its cable was pulled.
    ///
    /// No packet is sent or received any more, and those that the link has delayed are lost;
    /// [`query_port`](Context::query_port) says [`DOWN`](crate::PortState::DOWN), and every context of the device gets the event
    /// [`PORT_ERR`](crate::EventType::PORT_ERR). Queue pairs stay as they are: reliable connections try again, and fail when their
    /// retries are used up. Nothing happens if the port is down.
    ///
    /// # Errors
    ///
    /// [`Error::Faults`] if the device is closed or has failed.
    pub fn port_down(&self) -> Result<()> {
        self.0.port_down().map_err(failed("take the port down"))
    }

    /// Brings the port up again, with the event [`PORT_ACTIVE`](crate::EventType::PORT_ACTIVE). Nothing happens if it is up.
    ///
    /// # Errors
    ///
    /// [`Error::Faults`] if the device is closed or has failed.
    pub fn port_up(&self) -> Result<()> {
        self.0.port_up().map_err(failed("bring the port up"))
    }

    /// Lets the next `count` registrations of memory that would have succeeded fail with this error number. With a `count` of 0, no
    /// more fail.
    ///
    /// # Errors
    ///
    /// [`Error::Faults`] if it is no error number of the system, which is from 1 to 4095, or if the device is closed.
    pub fn fail_registrations(&self, count: u32, errno: i32) -> Result<()> {
        self.0.fail_registrations(count, errno).map_err(failed("let registrations fail"))
    }

    /// Lets the device fail for good.
    ///
    /// All queue pairs that are in use go to the error state, where their work is flushed; then every context of the device gets the
    /// event [`DEVICE_FATAL`](crate::EventType::DEVICE_FATAL). No packet is sent or received any more. Verbs fail with `EIO`, but for
    /// those that poll, wait and destroy. When all contexts were closed, the device can be opened again, and works.
    ///
    /// # Errors
    ///
    /// [`Error::Faults`] if the device is closed.
    pub fn fail_device(&self) -> Result<()> {
        self.0.fail_device().map_err(failed("let the device fail"))
    }

    /// Captures the device's packets in this file, which is made, or made empty. It is in the format of libpcap, with headers of IP and
    /// UDP, times in nanoseconds, and opens in Wireshark.
    ///
    /// Packets are captured between the link and the network: what the link loses is not in the file, and what it doubles or corrupts
    /// is there as that. A packet to the device itself is there once. While there is a capture, such packets are built as if they
    /// went over the wire, whatever [`Loopback`] says.
    ///
    /// If packets come faster than the file can be written, up to 64 MiB wait; [`Capture::finish`] says if that was not enough.
    ///
    /// # Errors
    ///
    /// [`Error::Faults`] if the file cannot be written or another capture is being written to it, or if the device is closed.
    pub fn capture(&self, path: impl AsRef<Path>) -> Result<Capture> {
        self.0.capture(path.as_ref()).map(Capture).map_err(failed("capture packets"))
    }
}

/// A capture of a device's packets; from [`Faults::capture`]. It ends when it is finished or dropped, or the device is closed.
#[derive(Debug)]
pub struct Capture(ibverbs_soft::Capture);

impl Capture {
    /// Ends the capture, and waits until all of it is in the file. Returns how many packets are.
    ///
    /// # Errors
    ///
    /// [`Error::Faults`] if not everything could be written.
    pub fn finish(self) -> Result<u64> {
        self.0.finish().map_err(failed("write the whole capture"))
    }
}

fn failed(action: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Faults { action, source }
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
        Options {
            addrs: vec![[127, 0, 0, 9].into()],
            loopback: Loopback::Wire,
            devices: 3,
            efa: true,
            capture: None,
        }
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
        let devices = devices.set_efa(false);
        let (addrs, loopback) = (vec![addr], Loopback::Memory);
        let expected = Options { addrs, loopback, devices: 2, efa: false, ..environment() };
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
