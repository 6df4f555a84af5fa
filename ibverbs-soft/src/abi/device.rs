//! The list of devices, and what concerns the process.

use std::cell::UnsafeCell;
use std::ffi::{c_char, c_int};
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

use ibverbs_sys as ffi;
use rustix::io::Errno;

use super::object::{object, Object, Place};
use crate::device::{count, Device, Result};

/// How many bytes of a device may be looked at: libefa and libmlx5 take it for the larger structure of a driver of rdma-core,
/// in which zeros say that it is not theirs.
const VISIBLE: usize = 712;

/// A device of the list.
#[repr(C)]
struct Listed {
    raw: UnsafeCell<ffi::ibv_device>,
    zeros: [u8; VISIBLE - size_of::<ffi::ibv_device>()],
    number: usize,
}

// SAFETY: `repr(C)`, and the structure for C comes first, in an `UnsafeCell`. The number is never written.
unsafe impl Object for Listed {
    type Raw = ffi::ibv_device;
}

/// The devices: they stay where they are for as long as the process lives, whether anybody holds a reference or not.
struct Devices(Vec<NonNull<ffi::ibv_device>>);

// SAFETY: nobody writes to a device after it was made.
unsafe impl Send for Devices {}
// SAFETY: as above.
unsafe impl Sync for Devices {}

fn devices() -> &'static [NonNull<ffi::ibv_device>] {
    static DEVICES: OnceLock<Devices> = OnceLock::new();
    &DEVICES.get_or_init(|| Devices((0..count()).filter_map(list).collect())).0
}

fn list(number: usize) -> Option<NonNull<ffi::ibv_device>> {
    let mut device = ffi::ibv_device {
        node_type: ffi::IBV_NODE_CA,
        transport_type: ffi::IBV_TRANSPORT_IB,
        ..Default::default()
    };
    for (to, from) in device.name.iter_mut().zip(format!("soft{number}").bytes()) {
        *to = from as c_char;
    }
    let zeros = [0; VISIBLE - size_of::<ffi::ibv_device>()];
    NonNull::new(Place::new().fill(Listed { raw: UnsafeCell::new(device), zeros, number }))
}

/// The device with this place in the list.
pub(super) fn listed(number: usize) -> Option<*mut ffi::ibv_device> {
    devices().get(number).map(|device| device.as_ptr())
}

/// The place of a device in the list.
///
/// # Safety
///
/// It is one of the list.
pub(super) unsafe fn number_of(device: *mut ffi::ibv_device) -> usize {
    // SAFETY: by the caller's promise; devices of the list are never taken back.
    unsafe { object::<Listed>(device) }.number
}

pub(super) unsafe extern "C" fn get_device_list(len: *mut c_int) -> *mut *mut ffi::ibv_device {
    let end = std::iter::once(ptr::null_mut());
    let list: Box<[_]> = devices().iter().map(|device| device.as_ptr()).chain(end).collect();
    if !len.is_null() {
        // SAFETY: if it is not null, it points to an int (ibv_get_device_list(3)).
        unsafe { len.write(devices().len() as c_int) };
    }
    Box::into_raw(list).cast()
}

pub(super) unsafe extern "C" fn free_device_list(list: *mut *mut ffi::ibv_device) {
    if list.is_null() {
        return;
    }
    let list = ptr::slice_from_raw_parts_mut(list, devices().len() + 1);
    // SAFETY: it came from `get_device_list` (ibv_free_device_list(3)), where it was as long as this.
    drop(unsafe { Box::from_raw(list) });
}

pub(super) unsafe extern "C" fn get_device_name(device: *mut ffi::ibv_device) -> *const c_char {
    // SAFETY: it is one of the list (ibv_get_device_name(3)).
    unsafe { (&raw const (*device).name).cast() }
}

pub(super) unsafe extern "C" fn get_device_index(device: *mut ffi::ibv_device) -> c_int {
    // SAFETY: it is one of the list (ibv_get_device_index(3)).
    unsafe { number_of(device) as c_int }
}

pub(super) unsafe extern "C" fn get_device_guid(device: *mut ffi::ibv_device) -> ffi::__be64 {
    // SAFETY: it is one of the list (ibv_get_device_guid(3)).
    Device::guid(unsafe { number_of(device) }).to_be()
}

/// The device's memory is the program's own, which a child has copies of: there is nothing to do.
pub(super) unsafe extern "C" fn fork_init() -> c_int {
    0
}

pub(super) unsafe extern "C" fn is_fork_initialized() -> ffi::ibv_fork_status {
    ffi::IBV_FORK_UNNEEDED
}

/// Opens a device.
///
/// # Safety
///
/// It is one of the list.
pub(super) unsafe fn open(device: *mut ffi::ibv_device) -> Result<(usize, std::sync::Arc<Device>)> {
    if device.is_null() {
        return Err(Errno::INVAL);
    }
    // SAFETY: by the caller's promise.
    let number = unsafe { number_of(device) };
    Ok((number, Device::open(number)?))
}
