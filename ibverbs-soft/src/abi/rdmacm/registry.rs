//! What the connection manager has of the devices: a context of each, opened when it is needed first, which stays open.

use std::ffi::c_int;
use std::net::{IpAddr, SocketAddr};
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard};

use ibverbs_sys as ffi;
use rustix::io::Errno;

use super::address::{is_link_local, scope};
use super::ports::Ports;
use crate::abi::context::{open_device, shared, Shared};
use crate::abi::object::locked;
use crate::abi::pd::{alloc_pd, dealloc_pd};
use crate::abi::{device, errno, route};
use crate::device::{count, Device, Generation, PerProcess, Result};

/// That of a process.
pub(super) struct Registry {
    generation: Generation,
    devices: Mutex<Vec<Opened>>,
    ports: Mutex<Ports>,
}

/// A device, opened or not.
#[derive(Clone, Copy)]
struct Opened {
    context: *mut ffi::ibv_context,
    /// The domain of those who have none of their own, as long as anybody uses the device.
    pd: *mut ffi::ibv_pd,
    users: usize,
}

// SAFETY: contexts and domains may be used by any thread.
unsafe impl Send for Opened {}

impl Registry {
    pub(super) fn of_this_process() -> &'static Registry {
        static CURRENT: PerProcess<Registry> = PerProcess::new();
        CURRENT.get(|generation| {
            let closed = Opened { context: ptr::null_mut(), pd: ptr::null_mut(), users: 0 };
            Registry {
                generation,
                devices: Mutex::new(vec![closed; count()]),
                ports: Mutex::new(Ports::new()),
            }
        })
    }

    /// Whether it is that of a parent of this process.
    pub(super) fn is_dead(&self) -> bool {
        self.generation.is_over()
    }

    pub(super) fn ports(&self) -> MutexGuard<'_, Ports> {
        locked(&self.ports)
    }
}

impl Opened {
    /// Opens the device, if it is not open.
    fn open(&mut self, number: usize) -> Result<()> {
        if self.context.is_null() {
            let listed = device::listed(number).ok_or(Errno::NODEV)?;
            // SAFETY: a device of the list.
            self.context = unsafe { open_device(listed) };
        }
        if self.context.is_null() {
            return Err(errno());
        }
        Ok(())
    }
}

/// A device that is in use.
pub(super) struct CmDevice {
    registry: &'static Registry,
    number: usize,
    pub(super) context: *mut ffi::ibv_context,
    pub(super) pd: *mut ffi::ibv_pd,
    device: Arc<Device>,
}

// SAFETY: contexts and domains may be used by any thread.
unsafe impl Send for CmDevice {}
// SAFETY: as above.
unsafe impl Sync for CmDevice {}

impl CmDevice {
    /// Begins to use the device with this place in the list.
    pub(super) fn open(number: usize) -> Result<CmDevice> {
        let registry = Registry::of_this_process();
        let mut devices = locked(&registry.devices);
        let opened = devices.get_mut(number).ok_or(Errno::NODEV)?;
        opened.open(number)?;
        let context = opened.context;
        if opened.pd.is_null() {
            // SAFETY: the context is open, and stays so.
            opened.pd = unsafe { alloc_pd(context) };
            if opened.pd.is_null() {
                return Err(errno());
            }
        }
        opened.users += 1;
        // SAFETY: as above.
        let device = Arc::clone(&shared_of(context).device);
        Ok(CmDevice { registry, number, context, pd: opened.pd, device })
    }

    /// Those that can be used.
    pub(super) fn all() -> impl Iterator<Item = CmDevice> {
        (0..count()).filter_map(|number| CmDevice::open(number).ok())
    }

    /// The one that has an address.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a link-local address without its scope, and `EADDRNOTAVAIL` if there is none.
    pub(super) fn with_address(addr: SocketAddr) -> Result<CmDevice> {
        if is_link_local(addr.ip()) && scope(addr) == 0 {
            return Err(Errno::INVAL);
        }
        CmDevice::all().find(|device| device.has(addr)).ok_or(Errno::ADDRNOTAVAIL)
    }

    /// One that leads to an address, and the address there that packets come from.
    ///
    /// # Errors
    ///
    /// `ENODEV` if there is none.
    pub(super) fn towards(dest: SocketAddr) -> Result<(CmDevice, IpAddr)> {
        if let Ok(device) = CmDevice::with_address(dest) {
            return Ok((device, dest.ip()));
        }
        let leads = |device: CmDevice| {
            let source = device.addrs().into_iter().find(|source| {
                source.is_ipv4() == dest.is_ipv4() && route::check_route(*source, dest.ip()).is_ok()
            });
            source.map(|source| (device, source))
        };
        CmDevice::all().find_map(leads).ok_or(Errno::NODEV)
    }

    fn has(&self, addr: SocketAddr) -> bool {
        let is_in_scope = !is_link_local(addr.ip()) || scope(addr) == self.device.netdev_index();
        is_in_scope && self.addrs().contains(&addr.ip())
    }

    /// Its addresses, in the order of its GIDs.
    pub(super) fn addrs(&self) -> [IpAddr; 2] {
        self.device.gids().map(|gid| route::address(&gid))
    }

    /// The place of an address among its GIDs.
    pub(super) fn gid_index(&self, addr: IpAddr) -> Option<u8> {
        self.addrs().iter().position(|it| *it == addr).map(|index| index as u8)
    }

    pub(super) fn device(&self) -> &Arc<Device> {
        &self.device
    }
}

impl Drop for CmDevice {
    fn drop(&mut self) {
        if self.registry.is_dead() {
            return;
        }
        let mut devices = locked(&self.registry.devices);
        let Some(opened) = devices.get_mut(self.number) else { return };
        opened.users -= 1;
        if opened.users == 0 {
            // SAFETY: the domain is alive. If the program has left something in it, it stays, and a new one is allocated.
            unsafe { dealloc_pd(opened.pd) };
            opened.pd = ptr::null_mut();
        }
    }
}

/// What is behind one of the contexts, which stay open.
fn shared_of<'a>(context: *mut ffi::ibv_context) -> &'a Arc<Shared> {
    // SAFETY: it was opened by `Opened::open`, and is never closed.
    unsafe { shared(context) }
}

/// The contexts of all devices that can be opened.
pub(super) unsafe extern "C" fn get_devices(len: *mut c_int) -> *mut *mut ffi::ibv_context {
    let registry = Registry::of_this_process();
    let mut devices = locked(&registry.devices);
    let mut contexts = Vec::new();
    for (number, opened) in devices.iter_mut().enumerate() {
        if opened.open(number).is_ok() {
            contexts.push(opened.context);
        }
    }
    if !len.is_null() {
        // SAFETY: if it is not null, it points to an int (rdma_get_devices(3)).
        unsafe { len.write(contexts.len() as c_int) };
    }
    contexts.push(ptr::null_mut());
    Box::into_raw(contexts.into_boxed_slice()).cast()
}

pub(super) unsafe extern "C" fn free_devices(list: *mut *mut ffi::ibv_context) {
    let mut len = 0;
    // SAFETY: a list from `get_devices` (rdma_free_devices(3)), which ends with a null pointer.
    while !unsafe { *list.wrapping_add(len) }.is_null() {
        len += 1;
    }
    let list = ptr::slice_from_raw_parts_mut(list, len + 1);
    // SAFETY: it is as long as it was made.
    drop(unsafe { Box::from_raw(list) });
}
