//! Memory that lies on the device.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::context::{Context, ContextHandle};
use crate::error::{check, created, error_number, Error, Failed, Result};
use crate::ffi;
use crate::handle::{Destroy, Handle};
use crate::mr::{try_resolve, PageBuf};

/// Memory that lies on the device (`struct ibv_dm`): a little of it, which the device and its peers reach
/// faster than the memory of the host.
///
/// The program copies into and out of it with [`write_at`](Self::write_at) and [`read_at`](Self::read_at). Work
/// requests and peers use it through a region, from
/// [`ProtectionDomain::register_dm`](crate::ProtectionDomain::register_dm).
///
/// It is not zeroed: at first there is in it what its last user left. Peers and the device may write to it at
/// any time, if they were given the right: then a copy can be torn between an old and a new value.
///
/// Regions keep it allocated, so that it may be dropped before them. Should freeing it fail, it is leaked.
///
/// # Examples
///
/// ```no_run
/// # fn counter(ctx: &ibverbs::Context, pd: &ibverbs::ProtectionDomain) -> ibverbs::Result<()> {
/// use ibverbs::AccessFlags;
///
/// let memory = ctx.alloc_dm(64, 3)?; // aligned to 8 bytes, for atomics
/// memory.write_at(0, &0u64.to_ne_bytes())?;
/// let region = pd.register_dm(&memory, ..8, AccessFlags::PERMISSIVE)?;
/// // SAFETY: there are no references to memory on the device.
/// let counter = unsafe { region.remote() }?; // for the peers
/// # drop(counter);
/// # Ok(())
/// # }
/// ```
#[doc(alias = "ibv_dm")]
pub struct DeviceMemory {
    inner: DmHandle,
}

/// What the regions of device memory keep alive.
pub(crate) type DmHandle = Arc<Handle<DmInner>>;

pub(crate) struct DmInner {
    raw: NonNull<ffi::ibv_dm>,
    len: usize,
    /// Whether the provider has set the functions that copy, or set them to null.
    can_copy: bool,
    context: ContextHandle,
}

// SAFETY: verbs may be called by any thread, as `handle.rs` argues, and `ibv_dm` is not written after its
// creation (verbs.h: a context pointer, two functions, a handle).
unsafe impl Send for DmInner {}
// SAFETY: as above. Several threads may copy at a time: the one provider that has the functions, mlx5, copies with
// atomic loads and stores of 32 bits and changes nothing else (`mlx5_access_dm` in providers/mlx5/verbs.c);
// and nobody has a Rust reference to the memory that is copied into or out of.
unsafe impl Sync for DmInner {}

impl Destroy for DmInner {
    const RESOURCE: &'static str = "device memory";
    const VERB: &'static str = "ibv_free_dm";

    unsafe fn destroy(&mut self) -> i32 {
        // SAFETY: the memory came from `ibv_alloc_dm`, is freed once as the caller promises, and its
        // regions held references to this structure.
        unsafe { ffi::ibv_free_dm(self.raw.as_ptr()) }
    }
}

impl DmInner {
    pub(crate) fn as_raw(&self) -> *mut ffi::ibv_dm {
        self.raw.as_ptr()
    }

    pub(crate) fn context(&self) -> &ContextHandle {
        &self.context
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Context {
    /// Allocates `len` bytes of memory on the device. Its address on the device is a multiple of
    /// 2 to the power of `log_align`; atomics need 3.
    ///
    /// [`DeviceAttrEx::max_dm_size`](crate::DeviceAttrEx::max_dm_size) tells how much there is, for everybody
    /// who uses the device. Of the drivers of rdma-core 65, mlx5 and mana have device memory.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidArgument`] if `len` is zero, or the device cannot align so.
    /// - [`Error::Capacity`] if the device has no memory of this length.
    /// - [`Error::Unsupported`] if the device has no memory to allocate. SoftRoCE has none.
    /// - [`Error::Verb`] with `ENOMEM` if others have allocated it.
    #[doc(alias = "ibv_alloc_dm")]
    pub fn alloc_dm(&self, len: usize, log_align: u32) -> Result<DeviceMemory> {
        if len == 0 {
            return Err(Error::InvalidArgument {
                what: "the length of device memory",
                value: 0,
                expected: "it must be at least 1",
            });
        }
        let can_copy = self.query_device()?.vendor_id() == MELLANOX;
        let mut attr =
            ffi::ibv_alloc_dm_attr { length: len, log_align_req: log_align, comp_mask: 0 };
        // SAFETY: the context is open, and the attributes are valid for it.
        let raw = created(|| unsafe { ffi::ibv_alloc_dm(self.as_raw(), &mut attr) });
        let raw = raw.map_err(|code| alloc_error(self, len, log_align, code))?;
        let inner = DmInner { raw, len, can_copy, context: self.handle().clone() };
        Ok(DeviceMemory { inner: Arc::new(Handle::new(inner)) })
    }
}

/// The vendor of the adapters with which the host can copy. Of the two providers that have device memory (mlx5 and
/// mana, in rdma-core 65) one sets the functions that copy; the other leaves them uninitialised (`mana_alloc_dm` in
/// providers/mana/mana.c), so that no look at them tells.
const MELLANOX: u32 = 0x02c9;

#[cold]
fn alloc_error(context: &Context, len: usize, log_align: u32, code: i32) -> Error {
    const VERB: &str = "ibv_alloc_dm";
    let requested = len as u64;
    let available = context.query_device_ex().map(|attr| attr.max_dm_size());
    match (Error::from_code(VERB, code), available) {
        (error @ Error::Unsupported { .. }, _) => error,
        // mlx5 says so of a device without such memory: it compares the length first.
        (_, Ok(0)) if code == libc::EINVAL => Error::Unsupported { operation: VERB },
        (_, Ok(available)) if requested > available => Error::Capacity {
            verb: VERB,
            what: "bytes of device memory",
            requested,
            available,
            source: Some(std::io::Error::from_raw_os_error(code)),
        },
        _ if code == libc::EINVAL && log_align != 0 => Error::InvalidArgument {
            what: "the binary logarithm of the alignment of device memory",
            value: u64::from(log_align),
            expected: "the device cannot align so",
        },
        (error, _) => error,
    }
}

impl DeviceMemory {
    pub(crate) fn handle(&self) -> &DmHandle {
        &self.inner
    }

    /// The length in bytes.
    pub fn len(&self) -> usize {
        self.inner.len
    }

    /// Whether it has no bytes, which no device memory of this crate's has.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies `bytes` into the memory, from `offset` on.
    ///
    /// Adapters of mlx5 copy words of 4 bytes: offset and length must be multiples of 4.
    ///
    /// # Errors
    ///
    /// - [`Error::OutOfBounds`] if the bytes would not lie within the memory.
    /// - [`Error::InvalidArgument`] if the device copies whole words only.
    /// - [`Error::Unsupported`] if the host cannot reach this device's memory.
    #[doc(alias = "ibv_memcpy_to_dm")]
    pub fn write_at(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        const VERB: &str = "ibv_memcpy_to_dm";
        let len = bytes.len();
        self.check_copy(VERB, offset, len)?;
        if len == 0 {
            return Ok(());
        }
        if !is_word_aligned(bytes) {
            let mut aligned = PageBuf::new(len)?;
            aligned.copy_from_slice(bytes);
            return self.write_at(offset, &aligned);
        }
        let from = bytes.as_ptr().cast();
        // SAFETY: the memory is alive, and has `len` bytes from the offset on, as was checked; so have `bytes`,
        // which are aligned to words; and the function is set or null, as was checked too.
        let code = unsafe { ffi::ibv_memcpy_to_dm(self.as_raw(), offset as u64, from, len) };
        copied(VERB, offset, len, code)
    }

    /// Copies out of the memory, from `offset` on, until `bytes` is full.
    ///
    /// Adapters of mlx5 copy words of 4 bytes: offset and length must be multiples of 4.
    ///
    /// # Errors
    ///
    /// As [`write_at`](Self::write_at).
    #[doc(alias = "ibv_memcpy_from_dm")]
    pub fn read_at(&self, offset: usize, bytes: &mut [u8]) -> Result<()> {
        const VERB: &str = "ibv_memcpy_from_dm";
        let len = bytes.len();
        self.check_copy(VERB, offset, len)?;
        if len == 0 {
            return Ok(());
        }
        if !is_word_aligned(bytes) {
            let mut aligned = PageBuf::new(len)?;
            self.read_at(offset, &mut aligned)?;
            bytes.copy_from_slice(&aligned);
            return Ok(());
        }
        let to = bytes.as_mut_ptr().cast();
        // SAFETY: as in `write_at`; and `bytes` is borrowed exclusively.
        let code = unsafe { ffi::ibv_memcpy_from_dm(to, self.as_raw(), offset as u64, len) };
        copied(VERB, offset, len, code)
    }

    /// Whether so many bytes from the offset on may be copied. mlx5 would not notice that the end overflows.
    fn check_copy(&self, verb: &'static str, offset: usize, len: usize) -> Result<()> {
        try_resolve(offset..offset.saturating_add(len), self.len(), "device memory")?;
        if self.inner.can_copy {
            Ok(())
        } else {
            Err(Error::Unsupported { operation: verb })
        }
    }

    /// Frees the memory. Dropping does the same, but cannot tell what went wrong.
    ///
    /// # Errors
    ///
    /// - [`Error::InUse`] if there is a region of it.
    /// - [`Error::Verb`] if the device refuses; one that was unplugged answers `EIO`.
    #[doc(alias = "ibv_free_dm")]
    pub fn close(self) -> Result<(), Failed<Self>> {
        Handle::close_shared(self.inner).map_err(|failed| failed.map(|inner| Self { inner }))
    }

    /// The C structure.
    pub fn as_raw(&self) -> *mut ffi::ibv_dm {
        self.inner.as_raw()
    }
}

impl fmt::Debug for DeviceMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceMemory")
            .field("device", &self.inner.context.device().name())
            .field("len", &self.len())
            .finish()
    }
}

/// Whether the bytes can be read and written as words of 4 bytes: mlx5 does that on the host's side too.
fn is_word_aligned(bytes: &[u8]) -> bool {
    bytes.as_ptr().cast::<u32>().is_aligned()
}

/// What a copy came to, of which the provider returned `code`.
fn copied(verb: &'static str, offset: usize, len: usize, code: i32) -> Result<()> {
    let numbers = [("the offset of a copy", offset), ("the length of a copy", len)];
    match numbers.into_iter().find(|(_, number)| number % 4 != 0) {
        Some((what, value)) if code != 0 && error_number(code) == libc::EINVAL => {
            let expected = "this device copies whole words of 4 bytes";
            Err(Error::InvalidArgument { what, value: value as u64, expected })
        }
        _ => check(verb, code),
    }
}
