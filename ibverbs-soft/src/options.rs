//! What a program can choose about the software devices.

use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::path::PathBuf;

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
    /// How many devices there are, if not one or one for each address: see [`Options::count`].
    pub devices: usize,
    /// Whether the devices have what EFA's adapters have: scalable reliable datagrams, and what libefa asks for. A send of theirs, as the
    /// port's longest message, is not longer than on EFA.
    pub efa: bool,
    /// Where the packets of devices are captured, from the first time that they are opened until the process ends: see
    /// [`Faults::capture`](crate::Faults::capture). In the path, `%d` stands for the device's name and `%p` for the number of the process.
    pub capture: Option<PathBuf>,
}

/// A variable of the environment that says nothing that can be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable} is {value:?}, but it {expected}")]
pub struct OptionsError {
    variable: &'static str,
    value: OsString,
    expected: &'static str,
}

impl OptionsError {
    /// The variable's name.
    pub fn variable(&self) -> &'static str {
        self.variable
    }

    /// What it is set to.
    pub fn value(&self) -> &OsStr {
        &self.value
    }

    /// What it may be set to, as the rest of a sentence about it.
    pub fn expected(&self) -> &'static str {
        self.expected
    }
}

impl Options {
    /// How many devices a process can have.
    pub const MAX_DEVICES: usize = 16;

    /// How many devices there are: as many as were asked for, one for each address, and at least one.
    pub fn count(&self) -> usize {
        self.devices.max(self.addrs.len()).clamp(1, Self::MAX_DEVICES)
    }

    /// What the environment says: `IBVERBS_SOFT_ADDR` (addresses, with commas between them), `IBVERBS_SOFT_LOOPBACK` (`memory`
    /// or `wire`), `IBVERBS_SOFT_DEVICES` (a number), `IBVERBS_SOFT_EFA` (`0` or `1`) and `IBVERBS_SOFT_PCAP` (a path). One that is set
    /// to nothing says nothing.
    ///
    /// # Errors
    ///
    /// If one of them is set to something else.
    pub fn from_env() -> Result<Options, OptionsError> {
        Options::from_variables(std::env::var_os)
    }

    fn from_variables(
        get: impl Fn(&'static str) -> Option<OsString>,
    ) -> Result<Options, OptionsError> {
        Ok(Options {
            addrs: read(
                &get,
                "IBVERBS_SOFT_ADDR",
                "takes addresses, each once, with commas between them",
                addrs,
            )?,
            loopback: read(
                &get,
                "IBVERBS_SOFT_LOOPBACK",
                "can only be `memory` or `wire`",
                loopback,
            )?,
            devices: read(&get, "IBVERBS_SOFT_DEVICES", "takes a number from 1 to 16", devices)?,
            efa: read(&get, "IBVERBS_SOFT_EFA", "can only be 0 or 1", efa)?,
            capture: get("IBVERBS_SOFT_PCAP").filter(|path| !path.is_empty()).map(PathBuf::from),
        })
    }
}

/// Reads a variable; one that is not set, or set to nothing, is as by default.
fn read<T: Default>(
    get: impl Fn(&'static str) -> Option<OsString>,
    variable: &'static str,
    expected: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, OptionsError> {
    let Some(value) = get(variable).filter(|value| !value.is_empty()) else {
        return Ok(T::default());
    };
    value.to_str().and_then(parse).ok_or(OptionsError { variable, value, expected })
}

/// Addresses that devices can have, each once.
fn addrs(text: &str) -> Option<Vec<IpAddr>> {
    let mut addrs = Vec::new();
    for word in text.split(',') {
        let addr: IpAddr = word.trim().parse().ok()?;
        if addr.is_unspecified() || addr.is_multicast() || addrs.contains(&addr) {
            return None;
        }
        addrs.push(addr);
    }
    (addrs.len() <= Options::MAX_DEVICES).then_some(addrs)
}

fn loopback(text: &str) -> Option<Loopback> {
    match text {
        "memory" => Some(Loopback::Memory),
        "wire" => Some(Loopback::Wire),
        _ => None,
    }
}

fn efa(text: &str) -> Option<bool> {
    match text {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

fn devices(text: &str) -> Option<usize> {
    text.parse().ok().filter(|count| (1..=Options::MAX_DEVICES).contains(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variable: &'static str, value: &str) -> Result<Options, OptionsError> {
        Options::from_variables(|name| (name == variable).then(|| value.into()))
    }

    #[test]
    fn nothing_is_the_default() {
        let default = Ok(Options::default());
        assert_eq!(Options::from_variables(|_| None), default);
        assert_eq!(Options::from_variables(|_| Some(OsString::new())), default);
    }

    #[test]
    fn what_the_variables_say() {
        let addrs = with("IBVERBS_SOFT_ADDR", "127.0.0.7, fe80::1").unwrap().addrs;
        assert_eq!(addrs, ["127.0.0.7".parse::<IpAddr>().unwrap(), "fe80::1".parse().unwrap()]);
        let loopback = |text| with("IBVERBS_SOFT_LOOPBACK", text).unwrap().loopback;
        assert_eq!((loopback("wire"), loopback("memory")), (Loopback::Wire, Loopback::Memory));
        let efa = |text| with("IBVERBS_SOFT_EFA", text).unwrap().efa;
        assert_eq!((efa("1"), efa("0")), (true, false));
        assert_eq!(with("IBVERBS_SOFT_DEVICES", "16").unwrap().devices, Options::MAX_DEVICES);
        let capture = with("IBVERBS_SOFT_PCAP", "/tmp/%d.pcap").unwrap().capture;
        assert_eq!(capture, Some("/tmp/%d.pcap".into()));
    }

    #[test]
    fn there_is_a_device_for_each_address_and_at_least_one() {
        let count = |addrs: usize, devices| {
            let addrs = vec![IpAddr::from([127, 0, 0, 1]); addrs];
            Options { addrs, devices, ..Options::default() }.count()
        };
        assert_eq!([count(0, 0), count(2, 0), count(2, 3), count(3, 2)], [1, 2, 3, 3]);
        assert_eq!(count(0, usize::MAX), Options::MAX_DEVICES);
    }

    #[test]
    fn nonsense_is_told_with_its_variable() {
        for (variable, value) in [
            ("IBVERBS_SOFT_ADDR", "localhost"),
            ("IBVERBS_SOFT_ADDR", "127.0.0.1,"),
            ("IBVERBS_SOFT_ADDR", "127.0.0.1,127.0.0.1"),
            ("IBVERBS_SOFT_ADDR", "0.0.0.0"),
            ("IBVERBS_SOFT_ADDR", "224.0.0.1"),
            ("IBVERBS_SOFT_ADDR", "127.0.0.1:4791"),
            ("IBVERBS_SOFT_LOOPBACK", "Memory"),
            ("IBVERBS_SOFT_EFA", "yes"),
            ("IBVERBS_SOFT_DEVICES", "0"),
            ("IBVERBS_SOFT_DEVICES", "17"),
            ("IBVERBS_SOFT_DEVICES", "-1"),
        ] {
            let error = with(variable, value).unwrap_err();
            assert_eq!((error.variable(), error.value()), (variable, OsStr::new(value)));
            let message = error.to_string();
            assert!(message.contains(variable) && message.contains(error.expected()), "{message}");
        }
    }
}
