//! An opened device: where every other object comes from.

use std::fmt;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::attr::{DeviceAttr, PortAttr};
use crate::cq::{CompletionChannel, CompletionQueueBuilder};
use crate::device::Device;
use crate::error::{check, created, Error, Failed, Result};
use crate::event::EventTurn;
use crate::ffi;
use crate::fork::{self, ForkStatus};
use crate::gid::{Gid, GidEntry};
use crate::handle::{Destroy, Handle};
use crate::pd::ProtectionDomain;

/// An opened device.
///
/// Cloning is cheap and gives a second handle of the same context. The device is closed when the last
/// handle is gone and everything that was created from it.
#[doc(alias = "ibv_context")]
#[derive(Clone)]
pub struct Context {
    inner: ContextHandle,
}

/// What everything that is created from a context keeps alive.
pub(crate) type ContextHandle = Arc<Handle<ContextInner>>;

pub(crate) struct ContextInner {
    raw: NonNull<ffi::ibv_context>,
    device: NonNull<ffi::ibv_device>,
    fork_status: ForkStatus,
    event_turn: EventTurn,
}

// SAFETY: verbs may be called by any thread, as `handle.rs` argues. The context's own fields are not
// written after `ibv_open_device`, but for what is under its mutex.
unsafe impl Send for ContextInner {}
// SAFETY: as above.
unsafe impl Sync for ContextInner {}

/// Variables that take away what this crate relies on. The first removes the locks of mlx5. With the others,
/// destroying an object of a device that was removed succeeds at once (libibverbs/cmd_write.h,
/// `verbs_is_destroy_err`), though another thread may have an event of it at hand.
const UNSAFE_VARIABLES: [&str; 3] =
    ["MLX5_SINGLE_THREADED", "RDMAV_ALLOW_DISASSOC_DESTROY", "MLX4_DEVICE_FATAL_CLEANUP"];

impl Context {
    pub(crate) fn open(device: &Device<'_>) -> Result<Context> {
        for variable in UNSAFE_VARIABLES {
            if std::env::var_os(variable).is_some() {
                return Err(Error::UnsafeEnvironment { variable });
            }
        }
        let mut turn = fork::turn();
        // SAFETY: a `Device` is valid for its lifetime, which the borrow is within.
        let raw = created(|| unsafe { ffi::ibv_open_device(device.as_raw()) });
        let raw = raw.map_err(|code| Error::OpenDevice {
            device: device.name().to_owned(),
            source: std::io::Error::from_raw_os_error(code),
        })?;
        let inner = ContextInner {
            raw,
            device: device.raw(),
            fork_status: turn.opened(),
            event_turn: EventTurn::default(),
        };
        Ok(Context::from_handle(Arc::new(Handle::new(inner))))
    }

    pub(crate) fn from_handle(inner: ContextHandle) -> Context {
        Context { inner }
    }

    pub(crate) fn handle(&self) -> &ContextHandle {
        &self.inner
    }

    /// The device that was opened.
    pub fn device(&self) -> Device<'_> {
        self.inner.device()
    }

    /// Starts a completion queue that can hold at least `min_entries` completions.
    ///
    /// This crate uses the extended interface of completion queues and of queue pairs. In rdma-core 65 the
    /// drivers mlx5, hns, ionic and rxe (SoftRoCE) have both, and EFA for datagrams; others report
    /// [`Error::Unsupported`] when a queue is built.
    #[doc(alias = "ibv_create_cq_ex")]
    #[doc(alias = "ibv_create_cq")]
    #[doc(alias = "ibv_cq_ex_to_cq")]
    pub fn create_cq(&self, min_entries: u32) -> CompletionQueueBuilder<'_> {
        CompletionQueueBuilder::new(self, min_entries)
    }

    /// Creates a completion channel, on which completion queues tell that something has completed.
    ///
    /// # Errors
    ///
    /// [`Error::Verb`] with `EMFILE` or `ENFILE` if there are no more file descriptors.
    #[doc(alias = "ibv_create_comp_channel")]
    pub fn create_comp_channel(&self) -> Result<CompletionChannel> {
        CompletionChannel::create(self)
    }

    /// Allocates a protection domain: memory and queue pairs of one domain work together.
    ///
    /// # Errors
    ///
    /// [`Error::Verb`] with `ENOMEM` if the device has no more domains.
    #[doc(alias = "ibv_alloc_pd")]
    pub fn alloc_pd(&self) -> Result<ProtectionDomain> {
        ProtectionDomain::alloc(self)
    }

    /// The device's attributes and limits.
    ///
    /// # Errors
    ///
    /// [`Error::Verb`] if the device does not answer.
    #[doc(alias = "ibv_query_device")]
    pub fn query_device(&self) -> Result<DeviceAttr> {
        self.inner.query_device()
    }

    /// A port's attributes. Ports count from 1.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidPort`] if the device has no such port.
    /// - [`Error::Verb`] if the device does not answer.
    #[doc(alias = "ibv_query_port")]
    pub fn query_port(&self, port: u8) -> Result<PortAttr> {
        self.inner.query_port(port)
    }

    /// The partition key at `index` of a port's table.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidPort`] if the device has no such port.
    /// - [`Error::InvalidIndex`] if the port's table has no such entry.
    /// - [`Error::Verb`] if the device does not answer.
    #[doc(alias = "ibv_query_pkey")]
    pub fn query_pkey(&self, port: u8, index: u16) -> Result<u16> {
        let entries = self.query_port(port)?.pkey_table_len();
        if index >= entries {
            let (index, entries) = (u32::from(index), u32::from(entries));
            return Err(Error::InvalidIndex { table: "P_Key", port, index, entries });
        }
        self.read_pkey(port, index)
    }

    /// The port's table has an entry of this index.
    fn read_pkey(&self, port: u8, index: u16) -> Result<u16> {
        let mut pkey = 0;
        // SAFETY: the context is open, and the last argument points to a `__be16`.
        let code = unsafe { ffi::ibv_query_pkey(self.as_raw(), port, i32::from(index), &mut pkey) };
        check("ibv_query_pkey", code)?;
        Ok(u16::from_be(pkey))
    }

    /// Where a partition key stands in a port's table; `None` if it is not there.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidPort`] if the device has no such port.
    /// - [`Error::Verb`] if the device does not answer.
    #[doc(alias = "ibv_get_pkey_index")]
    pub fn pkey_index(&self, port: u8, pkey: u16) -> Result<Option<u16>> {
        // The C function cannot tell a port that does not exist from a key that is not there.
        for index in 0..self.query_port(port)?.pkey_table_len() {
            if self.read_pkey(port, index)? == pkey {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// What the port moves in effect, in units of 100 megabits per second: for a port of several links, or of a
    /// part of one, this is another number than [`PortAttr::gbps`].
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidPort`] if the device has no such port.
    /// - [`Error::Unsupported`] if the driver or the installed rdma-core does not have this query.
    /// - [`Error::Verb`] if the device does not answer.
    #[doc(alias = "ibv_query_port_speed")]
    pub fn query_port_speed(&self, port: u8) -> Result<u64> {
        self.query_port(port)?;
        let mut speed = 0;
        // SAFETY: the context is open, and the last argument points to a `uint64_t`.
        let code = unsafe { ffi::ibv_query_port_speed(self.as_raw(), u32::from(port), &mut speed) };
        check("ibv_query_port_speed", code)?;
        Ok(speed)
    }

    /// The GID at `index` of a port's table. It is all zero where the entry is empty.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidPort`] if the device has no such port.
    /// - [`Error::InvalidIndex`] if the port's table has no such entry.
    /// - [`Error::Verb`] if the device does not answer.
    #[doc(alias = "ibv_query_gid")]
    #[doc(alias = "ibv_query_gid_ex")]
    pub fn query_gid(&self, port: u8, index: u32) -> Result<Gid> {
        self.inner.query_gid(port, index)
    }

    /// All GIDs of all ports that are in use, with their types and network devices.
    ///
    /// # Errors
    ///
    /// - [`Error::Unsupported`] if the installed rdma-core is older than version 33.
    /// - [`Error::Verb`] if the device does not answer.
    #[doc(alias = "ibv_query_gid_table")]
    pub fn gid_table(&self) -> Result<Vec<GidEntry>> {
        self.inner.gid_table()
    }

    /// The GID that reaches furthest on this port: what a program should use that was not told
    /// which. `None` if the port has no GID at all.
    ///
    /// RoCE v2 comes before InfiniBand and RoCE v1, IPv4 before IPv6, and a link-local address last.
    ///
    /// # Errors
    ///
    /// As [`gid_table`](Self::gid_table), and [`Error::InvalidPort`] if the device has no such port.
    pub fn routable_gid(&self, port: u8) -> Result<Option<GidEntry>> {
        self.inner.routable_gid(port)
    }

    /// How many completion vectors there are: a completion queue's vector is below it.
    pub fn num_comp_vectors(&self) -> u32 {
        // SAFETY: the context is open; the field is not written after that.
        u32::try_from(unsafe { (*self.as_raw()).num_comp_vectors }).unwrap_or(0)
    }

    /// Whether the library protected registered memory from `fork` when this context was opened.
    #[doc(alias = "ibv_is_fork_initialized")]
    pub fn fork_status(&self) -> ForkStatus {
        self.inner.fork_status
    }

    /// Closes the device. Dropping does the same, but cannot tell what went wrong.
    ///
    /// # Errors
    ///
    /// - [`Error::InUse`] if there is another handle of this context, or anything created from it.
    /// - [`Error::Verb`] if the library refuses.
    #[doc(alias = "ibv_close_device")]
    pub fn close(self) -> Result<(), Failed<Self>> {
        Handle::close_shared(self.inner).map_err(|failed| failed.map(Context::from_handle))
    }

    /// The C structure.
    pub fn as_raw(&self) -> *mut ffi::ibv_context {
        self.inner.as_raw()
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("device", &self.device().name()).finish()
    }
}

impl ContextInner {
    pub(crate) fn as_raw(&self) -> *mut ffi::ibv_context {
        self.raw.as_ptr()
    }

    pub(crate) fn device(&self) -> Device<'_> {
        // SAFETY: an open context holds a reference to its device (`ibverbs_device_hold`,
        // called in libibverbs/device.c), so that the device lives as long as the borrow of self.
        unsafe { Device::from_raw(self.device) }
    }

    pub(crate) fn event_turn(&self) -> &EventTurn {
        &self.event_turn
    }

    pub(crate) fn query_port(&self, port: u8) -> Result<PortAttr> {
        let mut attr = MaybeUninit::zeroed();
        // SAFETY: the context is open, and the last argument points to a whole `ibv_port_attr`.
        let code = unsafe { ffi::ibv_query_port(self.as_raw(), port, attr.as_mut_ptr()) };
        if code != 0 {
            return Err(self.port_error(port, code));
        }
        // SAFETY: an `ibv_port_attr` is numbers only, for which the zeroes written above are valid.
        Ok(PortAttr::new(port, unsafe { attr.assume_init() }))
    }

    #[cold]
    fn port_error(&self, port: u8, code: i32) -> Error {
        match self.query_device().map(|attr| attr.num_ports()) {
            Ok(ports) if port == 0 || port > ports => {
                Error::InvalidPort { device: self.device().name().to_owned(), port, ports }
            }
            _ => Error::from_code("ibv_query_port", code),
        }
    }

    pub(crate) fn query_gid(&self, port: u8, index: u32) -> Result<Gid> {
        let entries = self.query_port(port)?.gid_table_len();
        let mut gid = MaybeUninit::<ffi::ibv_gid>::zeroed();
        let c_index = i32::try_from(index).ok().filter(|_| index < entries);
        let Some(c_index) = c_index else {
            return Err(Error::InvalidIndex { table: "GID", port, index, entries });
        };
        // SAFETY: the context is open, and the last argument points to a whole `ibv_gid`.
        let code = unsafe { ffi::ibv_query_gid(self.as_raw(), port, c_index, gid.as_mut_ptr()) };
        check("ibv_query_gid", code)?;
        // SAFETY: an `ibv_gid` is 16 bytes, all of them initialised above.
        let gid = unsafe { gid.assume_init() };
        // SAFETY: every bit pattern is valid for the union's bytes.
        Ok(Gid::from(unsafe { gid.raw }))
    }

    /// That there is a GID to send from at `index`: there is no way from an empty entry of the table.
    pub(crate) fn check_source_gid(&self, port: u8, index: u8) -> Result<()> {
        let index = u32::from(index);
        if self.query_gid(port, index)?.is_reserved() {
            let entries = self.query_port(port)?.gid_table_len();
            return Err(Error::InvalidIndex { table: "GID", port, index, entries });
        }
        Ok(())
    }
}

impl Destroy for ContextInner {
    const RESOURCE: &'static str = "device context";
    const VERB: &'static str = "ibv_close_device";

    unsafe fn destroy(&mut self) -> i32 {
        // SAFETY: the context came from `ibv_open_device`, is closed once as the caller promises, and
        // whatever was created from it held a reference to this structure.
        unsafe { ffi::ibv_close_device(self.raw.as_ptr()) }
    }
}
