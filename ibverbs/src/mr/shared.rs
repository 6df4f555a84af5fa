//! Memory that the program, the device and peers use at the same time.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeBounds;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use super::source::Source;
use super::{slice, AccessFlags, LocalMemorySlice, PageBuf, RemoteMemorySlice};
use crate::error::Result;
use crate::ffi::{self, registered};
use crate::handle::{Destroy, Handle};
use crate::mw::Bindable;
use crate::pd::{identity, PdHandle, ProtectionDomain};

/// Registered memory that may be used by the program, by the device and by peers at any time, each not knowing of the
/// others; from [`ProtectionDomain::allocate_shared`].
///
/// There is no reference to it, so that nobody has to promise anything: [`read_at`](Self::read_at) and
/// [`write_at`](Self::write_at) copy, [`atomic_u64`](Self::atomic_u64) looks at one number, batches of
/// [`start_shared`](crate::QueuePair::start_shared) and receives of
/// [`post_recv_shared`](crate::QueuePair::post_recv_shared) take [slices](Self::slice) of it, and
/// [`remote`](Self::remote) gives it to peers. What is copied while somebody writes it may be old in one byte and new
/// in the next: completions tell when it is whole.
///
/// It is `Send`, but not `Sync`: one thread and the device use it. Several threads use pieces
/// ([`split_off`](Self::split_off)).
///
/// **The memory stays.** What was posted must find it registered. So a region that is dropped is kept by its
/// protection domain, registered and mapped, until no queue pair, shared receive queue or memory window of that domain
/// is left; then it is deregistered and freed. A program that comes and goes with regions while a queue pair lives
/// would eat up its memory: keep few, large ones, and use them again. What is kept costs nothing when something is
/// posted.
///
/// # Examples
///
/// ```no_run
/// # #![forbid(unsafe_code)]
/// # use ibverbs::{AccessFlags, CompletionQueue, ProtectionDomain, QueuePair, Rc, RecvRequest, Result};
/// # fn answer(pd: &ProtectionDomain, cq: &CompletionQueue, mut qp: QueuePair<Rc>) -> Result<()> {
/// let region = pd.allocate_shared(8192, AccessFlags::LOCAL_WRITE)?;
/// qp.post_recv_shared([RecvRequest::shared(1, &[region.slice(..4096)])])?;
/// loop {
///     let Some(mut completions) = cq.poll()? else { continue };
///     while let Some(wc) = completions.next() {
///         wc.ok().expect("work request failed");
///         let mut request = vec![0; wc.len() as usize];
///         region.read_at(0, &mut request);
///         println!("{request:?}");
///         return Ok(());
///     }
/// }
/// # }
/// ```
#[doc(alias = "ibv_mr")]
pub struct SharedRegion {
    ptr: NonNull<u8>,
    len: usize,
    lkey: u32,
    rkey: u32,
    /// That of `memory`: one load less for each slice.
    domain: usize,
    memory: Arc<Memory>,
    _one_thread: PhantomData<Cell<()>>,
}

// SAFETY: nothing of a region is tied to the thread that made it. It reaches bytes which no other region does, since
// `split_off` divides them; and what it shares with others, its memory and its domain, is only read, or kept under a
// lock.
unsafe impl Send for SharedRegion {}

/// The memory of one registration, which several regions may be pieces of.
struct Memory {
    /// Taken out by `drop` only.
    registration: Option<Handle<SharedMr>>,
    access: AccessFlags,
    pd: PdHandle,
}

/// A registration, and what must outlive it.
pub(crate) struct SharedMr {
    raw: NonNull<ffi::ibv_mr>,
    _pages: PageBuf,
    /// While the domain keeps this, its users keep the domain, and the last one takes it out.
    _pd: PdHandle,
}

// SAFETY: `ibv_mr` is not written after its creation (verbs.h: pointers, a length, keys), and verbs may be called by
// any thread, as `handle.rs` argues.
unsafe impl Send for SharedMr {}
// SAFETY: as above.
unsafe impl Sync for SharedMr {}

impl Destroy for SharedMr {
    const RESOURCE: &'static str = "memory region";
    const VERB: &'static str = "ibv_dereg_mr";

    unsafe fn destroy(&mut self) -> i32 {
        // SAFETY: the region came from `Source::register`; that it is deregistered once is the caller's promise.
        unsafe { ffi::ibv_dereg_mr(self.raw.as_ptr()) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(registration) = self.registration.take() {
            self.pd.retire(registration);
        }
    }
}

/// Memory that was registered just now.
pub(crate) struct Registered {
    pub(crate) registration: Handle<SharedMr>,
    pub(crate) ptr: NonNull<u8>,
    pub(crate) lkey: u32,
    pub(crate) rkey: u32,
}

/// Allocates zeroed pages and registers them.
pub(crate) fn register_pages(pd: &PdHandle, len: usize, access: AccessFlags) -> Result<Registered> {
    let pages = PageBuf::new(len)?;
    let ptr = pages.ptr();
    let source = Source::Address(ptr);
    source.check_access(access)?;
    // SAFETY: the pages are `len` bytes of mapped memory, and are freed after the registration is gone: both are
    // in one handle.
    let raw = unsafe { source.register(pd, len, access) }
        .map_err(|code| source.error(pd, len, access, code))?;
    // SAFETY: a successful registration returns an initialised `ibv_mr`.
    let lkey = unsafe { (*raw.as_ptr()).lkey };
    // SAFETY: as above.
    let rkey = unsafe { (*raw.as_ptr()).rkey };
    let registration = Handle::new(SharedMr { raw, _pages: pages, _pd: pd.clone() });
    Ok(Registered { registration, ptr, lkey, rkey })
}

impl ProtectionDomain {
    /// Allocates `len` bytes of zeroed, page-aligned memory and registers it, to be shared with the device and with
    /// peers.
    ///
    /// The rights in `access` are real at once: peers reach the memory if they know or guess its key.
    ///
    /// # Errors
    ///
    /// Those of [`allocate`](Self::allocate).
    #[doc(alias = "ibv_reg_mr")]
    pub fn allocate_shared(&self, len: usize, access: AccessFlags) -> Result<SharedRegion> {
        let pd = self.handle();
        let Registered { registration, ptr, lkey, rkey } = register_pages(pd, len, access)?;
        let memory = Arc::new(Memory { registration: Some(registration), access, pd: pd.clone() });
        let domain = identity(pd);
        Ok(SharedRegion { ptr, len, lkey, rkey, domain, memory, _one_thread: PhantomData })
    }
}

impl SharedRegion {
    /// A piece of the region, to be posted with a work request. It borrows the region: a piece of one that is gone
    /// cannot be posted.
    ///
    /// # Panics
    ///
    /// If the range does not lie within the region, as slicing does, or is longer than `u32::MAX`.
    #[inline]
    #[track_caller]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> SharedSlice<'_> {
        let (start, length) = slice::resolve(range, self.len);
        let addr = self.ptr.as_ptr() as u64 + start as u64;
        let entry = LocalMemorySlice::new(addr, length, self.lkey);
        SharedSlice { entry, domain: self.domain, _region: PhantomData }
    }

    /// What a peer needs to use the memory as far as its rights go: none if the region has no remote right.
    ///
    /// A peer may do so at any time, until the memory is deregistered, which may be long after the region was dropped
    /// (see above).
    #[doc(alias = "rkey")]
    pub fn remote(&self) -> RemoteMemorySlice {
        let addr = self.ptr.as_ptr() as u64;
        RemoteMemorySlice { addr, len: self.len as u64, rkey: self.rkey }
    }

    /// Copies the bytes from `offset` on.
    ///
    /// # Panics
    ///
    /// If they are not all within the region.
    #[track_caller]
    pub fn read_at(&self, offset: usize, to: &mut [u8]) {
        let from = self.at(offset, to.len());
        // SAFETY: `at` found so many bytes within the region, which stay mapped while it is borrowed. Nobody has a
        // reference to them, so that they are not in `to`.
        unsafe { registered::from_registered(from, to) }
    }

    /// Replaces the bytes from `offset` on.
    ///
    /// # Panics
    ///
    /// If they are not all within the region.
    #[track_caller]
    pub fn write_at(&self, offset: usize, from: &[u8]) {
        let to = self.at(offset, from.len());
        // SAFETY: as in `read_at`; the pages are writable, whatever the registration allows the device.
        unsafe { registered::to_registered(to, from) }
    }

    /// The eight bytes from `offset` on, as a number that is read and written at once.
    ///
    /// # Panics
    ///
    /// If they are not all within the region, or `offset` is such that they are not aligned to eight bytes.
    #[inline]
    #[track_caller]
    pub fn atomic_u64(&self, offset: usize) -> SharedAtomicU64<'_> {
        let word = self.at(offset, size_of::<u64>()).cast::<u64>();
        assert!(word.is_aligned(), "offset {offset} is not that of an aligned number of 8 bytes");
        SharedAtomicU64 { word, _region: PhantomData }
    }

    /// Where `len` bytes from `offset` on are.
    #[inline]
    #[track_caller]
    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        slice::check_within(offset, len, self.len);
        // SAFETY: the offset is at most the length of the region, as was checked above.
        unsafe { self.ptr.as_ptr().add(offset) }
    }

    /// Splits the region in two: it keeps the bytes before `at`, and the new one has the others. They share one
    /// registration, which is gone when both are; a thread may have each.
    ///
    /// # Panics
    ///
    /// If `at` is beyond the end.
    #[track_caller]
    pub fn split_off(&mut self, at: usize) -> SharedRegion {
        slice::check_within(at, 0, self.len);
        // SAFETY: the place is at most the length of the region, as was checked above.
        let ptr = unsafe { self.ptr.add(at) };
        let len = self.len - at;
        self.len = at;
        let SharedRegion { lkey, rkey, domain, .. } = *self;
        let memory = self.memory.clone();
        SharedRegion { ptr, len, lkey, rkey, domain, memory, _one_thread: PhantomData }
    }

    /// The length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes, which may be so after [`split_off`](Self::split_off).
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The access that was asked for.
    pub fn access(&self) -> AccessFlags {
        self.memory.access
    }

    /// The C structure, which is that of the whole registration.
    pub fn as_raw(&self) -> *mut ffi::ibv_mr {
        let registration = self.memory.registration.as_ref();
        registration.map_or(std::ptr::null_mut(), |mr| mr.raw.as_ptr())
    }

    /// What a window may be bound to.
    pub(crate) fn bindable(&self) -> Bindable<'_> {
        let Memory { access, pd, .. } = &*self.memory;
        Bindable { raw: self.as_raw(), whole: self.remote(), access: *access, pd }
    }
}

impl fmt::Debug for SharedRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedRegion")
            .field("addr", &self.ptr)
            .field("len", &self.len)
            .field("lkey", &format_args!("{:#x}", self.lkey))
            .field("access", &self.memory.access)
            .finish_non_exhaustive()
    }
}

/// A piece of a [`SharedRegion`]: one scatter entry (`struct ibv_sge`), and the domain that it is of.
#[doc(alias = "ibv_sge")]
#[derive(Clone, Copy)]
#[repr(C)]
pub struct SharedSlice<'r> {
    // First: a receive with one entry has a pointer to the slice for its scatter list.
    entry: LocalMemorySlice,
    domain: usize,
    _region: PhantomData<&'r SharedRegion>,
}

impl SharedSlice<'_> {
    /// The address of the first byte.
    #[inline]
    pub fn addr(&self) -> u64 {
        self.entry.addr()
    }

    /// The length in bytes.
    #[inline]
    pub fn len(&self) -> u32 {
        self.entry.len()
    }

    /// Whether it has no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.entry.is_empty()
    }

    /// The local key of the region.
    #[inline]
    pub fn lkey(&self) -> u32 {
        self.entry.lkey()
    }

    #[inline]
    pub(crate) fn entry(&self) -> &LocalMemorySlice {
        &self.entry
    }

    /// The protection domain of its region, as [`identity`] tells it: alive, since the region is borrowed.
    #[inline]
    pub(crate) fn domain(&self) -> usize {
        self.domain
    }
}

impl fmt::Debug for SharedSlice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedSlice").field(&self.entry).finish()
    }
}

/// Eight aligned bytes of a [`SharedRegion`], as a number in host order; see [`SharedRegion::atomic_u64`].
///
/// It is atomic towards this program. Whether a peer's atomic operation is atomic towards it as well, the device tells
/// ([`AtomicCap`](crate::AtomicCap)); a plain number that a peer writes is seen at once, old or new, on usual machines.
#[derive(Clone, Copy)]
pub struct SharedAtomicU64<'r> {
    word: *mut u64,
    _region: PhantomData<&'r SharedRegion>,
}

impl SharedAtomicU64<'_> {
    /// For the moment of one access.
    #[inline]
    fn word(&self) -> &AtomicU64 {
        // SAFETY: the eight bytes are aligned and within the region, as `atomic_u64` checked, and stay mapped and
        // writable while that is borrowed. This program accesses them through atomics and copies that count as such
        // alone, and by one thread at a time, since neither this nor the region is `Sync`.
        unsafe { AtomicU64::from_ptr(self.word) }
    }

    /// Reads it; see [`AtomicU64::load`].
    ///
    /// # Panics
    ///
    /// If the order is one of stores.
    #[inline]
    pub fn load(&self, order: Ordering) -> u64 {
        self.word().load(order)
    }

    /// Writes it; see [`AtomicU64::store`].
    ///
    /// # Panics
    ///
    /// If the order is one of loads.
    #[inline]
    pub fn store(&self, value: u64, order: Ordering) {
        self.word().store(value, order);
    }

    /// Replaces it, and returns what it was; see [`AtomicU64::swap`].
    #[inline]
    pub fn swap(&self, value: u64, order: Ordering) -> u64 {
        self.word().swap(value, order)
    }

    /// Adds to it, around the end, and returns what it was; see [`AtomicU64::fetch_add`].
    #[inline]
    pub fn fetch_add(&self, add: u64, order: Ordering) -> u64 {
        self.word().fetch_add(add, order)
    }

    /// Replaces it if it equals `current`; see [`AtomicU64::compare_exchange`].
    ///
    /// # Errors
    ///
    /// What it is, if that is something else.
    ///
    /// # Panics
    ///
    /// If the order of failure is one of stores.
    #[inline]
    pub fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        self.word().compare_exchange(current, new, success, failure)
    }
}

impl fmt::Debug for SharedAtomicU64<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedAtomicU64").field(&self.load(Ordering::Relaxed)).finish()
    }
}
