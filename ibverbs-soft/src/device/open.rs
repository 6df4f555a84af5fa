//! Opening devices: one for each place in the list, shared by all who open it, and with an address of its own.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::fork::{self, Generation, PerProcess};
use super::Result;
use crate::driver::{Cm, Driver, Engine, EngineThread, Interface, Locked, Socket, Tape, Wake};
use crate::options::{Loopback, Options};
use crate::random::Random;
use crate::wire::UDP_PORT;

static OPTIONS: OnceLock<Options> = OnceLock::new();

/// Says what the devices are like, before any is opened. What is said first counts.
pub(crate) fn configure(options: Options) {
    let _ = OPTIONS.set(options);
}

fn options() -> &'static Options {
    OPTIONS.get_or_init(Options::default)
}

/// Whether the devices are like EFA's.
pub(crate) fn is_efa() -> bool {
    options().efa
}

/// How many devices there are.
pub(crate) fn count() -> usize {
    options().count()
}

/// An opened device, one for each address, shared by all contexts of the process.
pub(crate) struct Device {
    index: usize,
    addr: IpAddr,
    interface: Interface,
    generation: Generation,
    thread: EngineThread,
    driver: Arc<Driver>,
    /// Whether it was made to fail.
    pub(super) has_failed: AtomicBool,
    /// Given back when the address is.
    _place: Option<Place>,
}

impl Device {
    /// Opens the device with this place in the list, or joins those who have it open. Binds the socket; starts the engine.
    pub(crate) fn open(index: usize) -> Result<Arc<Device>> {
        if index >= count() {
            return Err(Errno::NODEV);
        }
        let registry = Registry::of_this_process();
        let mut places = registry.lock();
        loop {
            if let Some(device) = places[index].device.upgrade() {
                // One that has failed works again when those have closed it who have it open.
                return if device.is_broken() { Err(Errno::IO) } else { Ok(device) };
            }
            if !places[index].is_taken {
                break;
            }
            // Its last user is closing it: then the address is free again.
            places = registry.freed.wait(places).unwrap_or_else(PoisonError::into_inner);
        }
        let options = options();
        let device =
            bind(index, options).and_then(|socket| Device::start(index, socket, options.loopback));
        let errno = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        let mut device = device.map_err(errno)?;
        let place = &mut places[index];
        if let Some(path) = &options.capture {
            let tape = match place.tape.take() {
                Some(tape) => tape,
                None => begin_tape(index, path).map_err(errno)?,
            };
            device.capture(Arc::clone(place.tape.insert(tape)))?;
        }
        device._place = Some(Place { registry, index });
        let device = Arc::new(device);
        place.device = Arc::downgrade(&device);
        place.is_taken = true;
        Ok(device)
    }

    /// The device with this place in the list, if it is open; else `ENODEV`.
    pub(crate) fn opened(index: usize) -> Result<Arc<Device>> {
        let places = Registry::of_this_process().lock();
        places.get(index).and_then(|place| place.device.upgrade()).ok_or(Errno::NODEV)
    }

    /// Starts the engine of a device whose socket is bound.
    fn start(index: usize, socket: Socket, loopback: Loopback) -> io::Result<Device> {
        let generation = Generation::current();
        let (addr, interface) = (socket.addr(), socket.interface());
        let fd = Arc::clone(socket.fd());
        let cm = Cm::new(index, Device::guid(index));
        let engine = Engine::new(socket, link_local(index), loopback, cm)?;
        let driver = Arc::new(Driver::new(engine, Wake::new()?));
        let name = format!("ibverbs-soft{index}");
        let thread = EngineThread::start(Arc::clone(&driver), name)?;
        fork::remember_socket(index, Some(&fd));
        let has_failed = AtomicBool::new(false);
        Ok(Device { index, addr, interface, generation, thread, driver, has_failed, _place: None })
    }

    /// A device that no one else opens, at this address or a free one.
    #[cfg(test)]
    pub(super) fn of_its_own(index: usize, addr: Option<IpAddr>, loopback: Loopback) -> Device {
        let socket = match addr {
            Some(addr) => Socket::bind(addr),
            None => bind(index, &Options::default()),
        };
        Device::start(index, socket.unwrap(), loopback).unwrap()
    }

    /// Whether this is a child of the process that opened it: all calls fail with `EIO`, and none waits for a lock.
    pub(crate) fn is_dead(&self) -> bool {
        self.generation.is_over()
    }

    /// Whether it can do nothing any more: because it is dead, or has failed.
    #[inline]
    pub(crate) fn is_broken(&self) -> bool {
        self.is_dead() || self.has_failed.load(Ordering::Relaxed)
    }

    /// Everything that the lock protects; `EIO` if the device has failed, and in a child of the process.
    #[inline]
    pub(super) fn lock(&self) -> Result<Locked<'_>> {
        let engine = self.lock_anyhow()?;
        // It may have failed while the lock was waited for.
        if self.has_failed.load(Ordering::Relaxed) {
            return Err(Errno::IO);
        }
        Ok(engine)
    }

    /// The same if the device has failed: for those who take away what is left.
    #[inline]
    pub(super) fn lock_anyhow(&self) -> Result<Locked<'_>> {
        if self.is_dead() {
            return Err(Errno::IO);
        }
        Ok(self.driver.lock())
    }

    /// The device's address: its GID at index 1 (index 0 is link-local, made of the GUID).
    pub(crate) fn addr(&self) -> IpAddr {
        self.addr
    }

    /// What the device is known by to others: first an address made of its GUID, then its own.
    pub(crate) fn gids(&self) -> [[u8; 16]; 2] {
        let own = match self.addr {
            IpAddr::V4(addr) => addr.to_ipv6_mapped(),
            IpAddr::V6(addr) => addr,
        };
        [link_local(self.index).octets(), own.octets()]
    }

    /// A number that no other device has: random, marked as given out locally.
    pub(crate) fn guid(index: usize) -> u64 {
        const KINDS: u64 = 0b11 << 56;
        const LOCAL: u64 = 0b10 << 56;
        static FIRST: OnceLock<u64> = OnceLock::new();
        let first = *FIRST.get_or_init(|| Random::new().next() & !KINDS & !0xff | LOCAL);
        first | index as u64 & 0xff
    }

    /// The largest path MTU in bytes: 256 to 4096.
    pub(crate) fn mtu(&self) -> u32 {
        self.interface.path_mtu
    }

    /// The network interface that has the address.
    pub(crate) fn netdev_index(&self) -> u32 {
        self.interface.index
    }

    /// Sends what must not stay when the process ends, unless somebody holds the lock for long: then that is a thread that the end
    /// of the process has caught inside.
    fn finish(&self) {
        let end = Instant::now() + Duration::from_millis(10);
        let mut is_made = false;
        while !self.is_dead() && Instant::now() < end {
            match self.driver.try_lock() {
                Ok(Some(engine)) if is_made && engine.has_sent() => return,
                Ok(Some(mut engine)) if !is_made => {
                    engine.finish();
                    is_made = true;
                }
                // Others send, or the socket is full.
                Ok(_) => {}
                Err(_) => return,
            }
            std::thread::yield_now();
        }
    }
}

/// The address that is made of a device's GUID: no interface has it, and only the device itself is reached at it.
fn link_local(index: usize) -> Ipv6Addr {
    Ipv6Addr::from(0xfe80 << 112 | u128::from(Device::guid(index)))
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut it = f.debug_struct("Device");
        it.field("index", &self.index).field("addr", &self.addr());
        if let Ok(engine) = self.lock_anyhow() {
            it.field("dropped", &engine.dropped());
        }
        it.finish_non_exhaustive()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if self.is_dead() {
            // The engine stays as it is, kept by a thread that is not in this process.
            return self.thread.forget();
        }
        if let Ok(mut engine) = self.lock_anyhow() {
            engine.stop();
        }
        self.thread.join();
        fork::remember_socket(self.index, None);
    }
}

/// The open devices of a process.
struct Registry {
    generation: Generation,
    places: Mutex<[PlaceState; Options::MAX_DEVICES]>,
    /// A place is not taken any more.
    freed: Condvar,
}

#[derive(Default)]
struct PlaceState {
    device: Weak<Device>,
    /// Until its address is free again.
    is_taken: bool,
    /// Where its packets are captured: whenever it is open.
    tape: Option<Arc<Tape>>,
}

/// A taken place.
struct Place {
    registry: &'static Registry,
    index: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.registry.generation.is_over() {
            self.registry.lock()[self.index].is_taken = false;
            self.registry.freed.notify_all();
        }
    }
}

impl Registry {
    /// The open devices of this process: a child has none when it begins.
    fn of_this_process() -> &'static Registry {
        static CURRENT: PerProcess<Registry> = PerProcess::new();
        static AT_EXIT: Once = Once::new();
        let registry = CURRENT.get(|generation| Registry {
            generation,
            places: Mutex::default(),
            freed: Condvar::new(),
        });
        AT_EXIT.call_once(|| {
            // SAFETY: the function may be called when the program ends. If it cannot be registered, peers notice the end later.
            unsafe { libc::atexit(finish_all) };
        });
        registry
    }

    fn lock(&self) -> MutexGuard<'_, [PlaceState; Options::MAX_DEVICES]> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends what the devices owe to others, at the end of the process.
extern "C" fn finish_all() {
    let registry = Registry::of_this_process();
    let Ok(places) = registry.places.try_lock() else { return };
    let devices = places.each_ref().map(|place| (place.device.upgrade(), place.tape.clone()));
    drop(places);
    for (index, (device, tape)) in devices.into_iter().enumerate() {
        if let Some(device) = device {
            device.finish();
        }
        if let Some(Err(error)) = tape.map(|tape| tape.close()) {
            say(format_args!("the capture of soft{index} is not whole: {error}"));
        }
    }
}

/// Begins the capture of a device that lasts until the process ends.
fn begin_tape(index: usize, path: &Path) -> io::Result<Arc<Tape>> {
    let path = expand(path, &format!("soft{index}"), std::process::id());
    Tape::begin(&path).inspect_err(|error| {
        say(format_args!(
            "cannot capture in {} (IBVERBS_SOFT_PCAP): {error}; `%d` in it is the device's name, and `%p` the number of the process",
            path.display()
        ));
    })
}

/// Puts the device's name in the place of `%d`, and the number of the process in that of `%p`.
fn expand(path: &Path, device: &str, process: u32) -> PathBuf {
    let mut expanded = Vec::new();
    let mut rest = path.as_os_str().as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = match (first, after) {
            (b'%', [b'd', after @ ..]) => {
                expanded.extend(device.bytes());
                after
            }
            (b'%', [b'p', after @ ..]) => {
                expanded.extend(process.to_string().bytes());
                after
            }
            _ => {
                expanded.push(first);
                after
            }
        };
    }
    OsString::from_vec(expanded).into()
}

/// Binds a device's socket to the address that it was given, or to the first that is free.
fn bind(index: usize, options: &Options) -> io::Result<Socket> {
    if let Some(&addr) = options.addrs.get(index) {
        return Socket::bind(addr).inspect_err(|error| match error.raw_os_error() {
            Some(libc::EADDRINUSE) => complain(&addr.to_string()),
            _ => say(format_args!("cannot use the address {addr}: {error}")),
        });
    }
    let free = (1..=254).map(|last| IpAddr::from(Ipv4Addr::new(127, 0, 0, last)));
    for addr in free.filter(|addr| !options.addrs.contains(addr)) {
        match Socket::bind(addr) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            result => return result,
        }
    }
    complain("all addresses from 127.0.0.1 to 127.0.0.254");
    Err(io::Error::from_raw_os_error(libc::EADDRINUSE))
}

/// Says what holds the port.
fn complain(addr: &str) {
    say(format_args!(
        "UDP port {UDP_PORT} is taken at {addr}: by other software devices, or by the kernel's SoftRoCE, which takes it at every \
         address while the module rdma_rxe is loaded"
    ));
}

/// Says what an error number cannot. If that cannot be written, nobody reads it: no reason for a panic, which C would not survive.
fn say(message: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "ibverbs-soft: {message}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_can_tell_devices_and_processes_apart() {
        let expand = |path: &str| expand(Path::new(path), "soft3", 4711);
        assert_eq!(expand("/tmp/%d-%p.pcap"), Path::new("/tmp/soft3-4711.pcap"));
        assert_eq!(expand("100%.%%d%x%"), Path::new("100%.%soft3%x%"));
    }

    #[test]
    fn those_who_open_a_device_share_it() {
        let one = Device::open(0).unwrap();
        let other = Device::open(0).unwrap();
        assert!(Arc::ptr_eq(&one, &other));
        assert!(matches!(Device::open(count()), Err(Errno::NODEV)));
        assert_eq!(one.gids()[1][10..12], [0xff, 0xff]);
        assert_eq!(one.mtu(), 4096);
    }
}
