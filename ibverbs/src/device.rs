//! The devices of this machine.

use std::ffi::CStr;
use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::str::FromStr;

use crate::c_enum::c_enum;
use crate::context::Context;
use crate::error::{last_errno, Error, Result};
use crate::{ffi, provider};

/// Lists the RDMA devices of this machine.
///
/// The first call of a process loads the [provider of the verbs](crate#the-provider-of-the-verbs): by default it
/// opens `libibverbs.so.1`. The list is a snapshot; a device that is plugged in later needs a new one.
///
/// # Errors
///
/// - [`Error::Provider`] if libibverbs is not installed.
/// - [`Error::InvalidVariable`] and [`Error::ProviderChosen`] if `IBVERBS_PROVIDER` asks for a provider that cannot be had.
/// - [`Error::Verb`] if the devices cannot be listed. A kernel without RDMA support is not an error:
///   the list is empty then.
///
/// # Examples
///
/// ```no_run
/// for device in &ibverbs::devices()? {
///     println!("{} {}", device.name(), device.guid());
/// }
/// # Ok::<(), ibverbs::Error>(())
/// ```
#[doc(alias = "ibv_get_device_list")]
pub fn devices() -> Result<DeviceList> {
    provider::verbs()?;
    let mut len = 0;
    let _turn = crate::fork::turn();
    // SAFETY: the argument is null or points to an int that the call may write (ibv_get_device_list(3)).
    let list = unsafe { ffi::ibv_get_device_list(&mut len) };
    match NonNull::new(list) {
        Some(list) => Ok(DeviceList { list: Some(list), len: usize::try_from(len).unwrap_or(0) }),
        // What a kernel without the uverbs module answers: there is no device then.
        None if last_errno() == libc::ENOSYS => Ok(DeviceList { list: None, len: 0 }),
        None => Err(Error::last_os_error("ibv_get_device_list")),
    }
}

/// The RDMA devices that this machine had when [`devices`] was called.
#[doc(alias = "ibv_free_device_list")]
pub struct DeviceList {
    list: Option<NonNull<*mut ffi::ibv_device>>,
    len: usize,
}

// SAFETY: the list is an array that nobody writes until `Drop` frees it, and libibverbs counts the
// references to the devices in it under its own lock (libibverbs/device.c, `dev_list_lock`).
unsafe impl Send for DeviceList {}
// SAFETY: as above; through a shared reference the array is only read.
unsafe impl Sync for DeviceList {}

impl DeviceList {
    /// The devices, in the library's order.
    pub fn iter(&self) -> DeviceIter<'_> {
        DeviceIter { list: self, next: 0 }
    }

    /// How many devices there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no device.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The device at this place of the list, or `None` beyond its end.
    pub fn get(&self, index: usize) -> Option<Device<'_>> {
        let list = self.list.filter(|_| index < self.len)?;
        // SAFETY: `index` is below the length that the library gave with this array.
        let entry = unsafe { list.add(index) };
        // SAFETY: the array holds `len` initialised pointers until it is freed in `Drop`.
        let raw = unsafe { entry.read() };
        Some(Device { raw: NonNull::new(raw)?, _list: PhantomData })
    }
}

impl Drop for DeviceList {
    fn drop(&mut self) {
        if let Some(list) = self.list {
            // SAFETY: the list came from `ibv_get_device_list` and is freed once. Devices that were
            // opened stay valid (ibv_free_device_list(3)); those that were not are borrowed from self.
            unsafe { ffi::ibv_free_device_list(list.as_ptr()) }
        }
    }
}

impl fmt::Debug for DeviceList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

impl<'l> IntoIterator for &'l DeviceList {
    type Item = Device<'l>;
    type IntoIter = DeviceIter<'l>;

    fn into_iter(self) -> DeviceIter<'l> {
        self.iter()
    }
}

/// Iterates over a [`DeviceList`].
#[derive(Debug, Clone)]
pub struct DeviceIter<'l> {
    list: &'l DeviceList,
    next: usize,
}

impl<'l> Iterator for DeviceIter<'l> {
    type Item = Device<'l>;

    fn next(&mut self) -> Option<Device<'l>> {
        let device = self.list.get(self.next)?;
        self.next += 1;
        Some(device)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.list.len() - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for DeviceIter<'_> {}

/// A device of a [`DeviceList`], not yet opened.
#[doc(alias = "ibv_device")]
#[derive(Clone, Copy)]
pub struct Device<'l> {
    raw: NonNull<ffi::ibv_device>,
    _list: PhantomData<&'l DeviceList>,
}

// SAFETY: `ibv_device` is not written after the library has made it, but for its reference count,
// which libibverbs guards itself (libibverbs/init.c, `ibverbs_device_hold`).
unsafe impl Send for Device<'_> {}
// SAFETY: as above.
unsafe impl Sync for Device<'_> {}

impl<'l> Device<'l> {
    /// Makes a device of a raw one.
    ///
    /// # Safety
    ///
    /// `raw` must point to a device that stays valid for `'l`: one of a list that is not freed, or
    /// the device of a context that is not closed.
    pub unsafe fn from_raw(raw: NonNull<ffi::ibv_device>) -> Device<'l> {
        Device { raw, _list: PhantomData }
    }

    /// The kernel's name of the device, such as `mlx5_0` or `rxe0`.
    #[doc(alias = "ibv_get_device_name")]
    pub fn name(&self) -> &'l str {
        // SAFETY: the device is valid for 'l.
        let name = unsafe { ffi::ibv_get_device_name(self.raw.as_ptr()) };
        if name.is_null() {
            return "";
        }
        // SAFETY: the name is a NUL-terminated array inside the device, which is valid for 'l and
        // not written after its creation.
        let name = unsafe { CStr::from_ptr::<'l>(name) };
        name.to_str().unwrap_or("")
    }

    /// The device's globally unique identifier.
    #[doc(alias = "ibv_get_device_guid")]
    pub fn guid(&self) -> Guid {
        // SAFETY: the device is valid for 'l.
        Guid::from_be(unsafe { ffi::ibv_get_device_guid(self.raw.as_ptr()) })
    }

    /// The kernel's index of the device, or `None` if the kernel is too old to have one.
    #[doc(alias = "ibv_get_device_index")]
    pub fn index(&self) -> Option<u32> {
        // SAFETY: the device is valid for 'l.
        let index = unsafe { ffi::ibv_get_device_index(self.raw.as_ptr()) };
        u32::try_from(index).ok()
    }

    /// What kind of node the device is: a channel adapter, a switch, ...
    #[doc(alias = "ibv_node_type_str")]
    pub fn node_type(&self) -> NodeType {
        // SAFETY: the device is valid for 'l and its type is not written after its creation.
        NodeType(unsafe { (*self.raw.as_ptr()).node_type })
    }

    /// Which protocol family the device speaks. RoCE counts as InfiniBand.
    pub fn transport_type(&self) -> TransportType {
        // SAFETY: the device is valid for 'l and its type is not written after its creation.
        TransportType(unsafe { (*self.raw.as_ptr()).transport_type })
    }

    /// Opens the device.
    ///
    /// # Errors
    ///
    /// - [`Error::OpenDevice`] if the kernel refuses: it often is a missing right to open
    ///   `/dev/infiniband/uverbs*`.
    /// - [`Error::UnsafeEnvironment`] if `MLX5_SINGLE_THREADED`, `RDMAV_ALLOW_DISASSOC_DESTROY` or
    ///   `MLX4_DEVICE_FATAL_CLEANUP` is set: they remove locks that make it safe to use the device's objects
    ///   from several threads, and let objects go that another thread may be using.
    #[doc(alias = "ibv_open_device")]
    pub fn open(&self) -> Result<Context> {
        Context::open(self)
    }

    pub(crate) fn raw(&self) -> NonNull<ffi::ibv_device> {
        self.raw
    }

    /// The C structure.
    pub fn as_raw(&self) -> *mut ffi::ibv_device {
        self.raw.as_ptr()
    }
}

impl fmt::Debug for Device<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("name", &self.name()).field("guid", &self.guid()).finish()
    }
}

/// A globally unique identifier (EUI-64) of a device, a port or a system image.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(u64);

impl Guid {
    /// The identifier with this value, most significant byte first.
    pub const fn new(value: u64) -> Guid {
        Guid(value)
    }

    /// From a `__be64`, as verbs hand them out.
    pub const fn from_be(value: u64) -> Guid {
        Guid(u64::from_be(value))
    }

    /// The value, most significant byte first: the first group that [`Display`](fmt::Display)
    /// prints is its highest 16 bits.
    pub const fn to_u64(self) -> u64 {
        self.0
    }

    /// The organisation that assigned the identifier: its first 24 bits.
    pub const fn oui(self) -> u32 {
        (self.0 >> 40) as u32
    }

    /// Whether this is the reserved value zero, which identifies nothing.
    pub const fn is_reserved(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = |shift: u32| (self.0 >> shift) as u16;
        write!(f, "{:04x}:{:04x}:{:04x}:{:04x}", group(48), group(32), group(16), group(0))
    }
}

/// Reads what [`Display`](fmt::Display) prints: four groups of four hexadecimal digits.
impl FromStr for Guid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Guid> {
        let invalid = Error::InvalidBytes {
            what: "GUID",
            reason: "a GUID is four groups of four hexadecimal digits, with colons between them",
        };
        let mut groups = text.split(':');
        let mut value = 0;
        for _ in 0..4 {
            let group = groups.next().filter(|group| group.len() == 4);
            let digits = group.filter(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()));
            let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
            let Some(number) = number else { return Err(invalid) };
            value = value << 16 | number;
        }
        match groups.next() {
            None => Ok(Guid(value)),
            Some(_) => Err(invalid),
        }
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guid({self})")
    }
}

c_enum! {
    /// What kind of node a device is (`enum ibv_node_type`).
    pub struct NodeType: i32 {
        /// Not known to the library.
        UNKNOWN = ffi::IBV_NODE_UNKNOWN, "unknown";
        /// An InfiniBand or RoCE channel adapter.
        CA = ffi::IBV_NODE_CA, "channel adapter";
        /// An InfiniBand switch.
        SWITCH = ffi::IBV_NODE_SWITCH, "switch";
        /// An InfiniBand router.
        ROUTER = ffi::IBV_NODE_ROUTER, "router";
        /// An iWARP adapter.
        RNIC = ffi::IBV_NODE_RNIC, "iWARP adapter";
        /// A usNIC adapter.
        USNIC = ffi::IBV_NODE_USNIC, "usNIC";
        /// A usNIC adapter over UDP.
        USNIC_UDP = ffi::IBV_NODE_USNIC_UDP, "usNIC over UDP";
        /// An adapter with a protocol of its own, such as EFA.
        UNSPECIFIED = ffi::IBV_NODE_UNSPECIFIED, "unspecified";
    }
}

c_enum! {
    /// Which protocol family a device speaks (`enum ibv_transport_type`).
    pub struct TransportType: i32 {
        /// Not known to the library.
        UNKNOWN = ffi::IBV_TRANSPORT_UNKNOWN, "unknown";
        /// InfiniBand, and RoCE.
        IB = ffi::IBV_TRANSPORT_IB, "InfiniBand";
        /// iWARP.
        IWARP = ffi::IBV_TRANSPORT_IWARP, "iWARP";
        /// usNIC.
        USNIC = ffi::IBV_TRANSPORT_USNIC, "usNIC";
        /// usNIC over UDP.
        USNIC_UDP = ffi::IBV_TRANSPORT_USNIC_UDP, "usNIC over UDP";
        /// A protocol of its own, such as EFA's.
        UNSPECIFIED = ffi::IBV_TRANSPORT_UNSPECIFIED, "unspecified";
    }
}
