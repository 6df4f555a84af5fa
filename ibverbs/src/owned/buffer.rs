//! Buffers that are moved to the device and back.

use std::cell::UnsafeCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::ffi;
use crate::handle::Handle;
use crate::mr::{register_pages, AccessFlags, SharedMr};
use crate::pd::{identity, ProtectionDomain};

/// Registered buffers of one size; from [`ProtectionDomain::buffer_pool`].
///
/// [`take`](Self::take) takes one out, and dropping a [`Buffer`] puts it back; both take a lock, so that a program that
/// counts instructions uses the buffers again that completions hand it. The memory is deregistered when the pool and
/// all its buffers are dropped, those included that are posted.
///
/// # Examples
///
/// See [`OwnedQueuePair`](crate::OwnedQueuePair).
#[doc(alias = "ibv_reg_mr")]
pub struct BufferPool {
    inner: Arc<PoolInner>,
}

struct PoolInner {
    /// The places of the pieces of those that nobody has.
    free: Mutex<Vec<usize>>,
    /// What each buffer is. They do not move.
    pieces: Box<[Piece]>,
    size: u32,
    _registration: Handle<SharedMr>,
}

/// What a buffer is: what its owner has is a pointer to this, so that moving it moves one word.
#[repr(C, align(64))]
struct Piece {
    /// The scatter entry of all of it. Nobody writes it; but it is lent to C, whose pointers are mutable.
    whole: UnsafeCell<ffi::ibv_sge>,
    /// That of its first bytes, how many is written by whoever has the buffer.
    part: UnsafeCell<ffi::ibv_sge>,
    ptr: NonNull<u8>,
    /// The protection domain, which the registration keeps alive.
    domain: usize,
    /// While somebody has the buffer, a reference to the pool that is the buffer's.
    pool: AtomicPtr<PoolInner>,
    len: u32,
}

// SAFETY: the memory that a piece leads to is its buffer's owner's, and so is `part`; the rest are numbers that are not
// written, and an atomic.
unsafe impl Send for Piece {}
// SAFETY: as above.
unsafe impl Sync for Piece {}

/// Buffers begin at multiples of this, so that no two share a line of the processors' caches.
const ALIGNMENT: usize = 64;

/// Memory of a [`BufferPool`], for as long as it has it: an ordinary slice of bytes.
///
/// It is moved into an operation that uses it, and comes back with its completion, so that nobody looks at it while the
/// device does. At first it is zeroed; later it holds what it held when it was dropped.
#[must_use = "a buffer that is dropped goes back to its pool"]
pub struct Buffer {
    /// A piece of a pool to which this has a reference.
    piece: NonNull<Piece>,
}

// SAFETY: a `Buffer` has its bytes alone, as a `Box<[u8]>` would; bytes may be used by any thread, and so may its pool.
unsafe impl Send for Buffer {}
// SAFETY: as above; through a shared reference the bytes are only read.
unsafe impl Sync for Buffer {}

impl ProtectionDomain {
    /// Allocates and registers `count` buffers of `size` bytes each, for queue pairs of
    /// [`create_owned_qp`](Self::create_owned_qp).
    ///
    /// They have no remote rights: no peer reaches them, whatever key it guesses.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidArgument`] if `count` or `size` is zero, `size` does not fit 32 bits, or all of them together
    ///   do not fit the address space.
    /// - Those of [`allocate`](Self::allocate).
    #[doc(alias = "ibv_reg_mr")]
    pub fn buffer_pool(&self, count: usize, size: usize) -> Result<BufferPool> {
        let refuse = |what, value: usize, expected| {
            Err(Error::InvalidArgument { what, value: value as u64, expected })
        };
        let stride = size.checked_next_multiple_of(ALIGNMENT);
        let (Ok(len), Some(stride @ 1..)) = (u32::try_from(size), stride) else {
            return refuse("the size of a buffer", size, "it must be at least 1 and fit 32 bits");
        };
        let Some(whole @ 1..) = stride.checked_mul(count) else {
            let expected = "it must be at least 1, and all buffers must fit the address space";
            return refuse("the number of buffers", count, expected);
        };
        let memory = register_pages(self.handle(), whole, AccessFlags::LOCAL_WRITE)?;
        let (lkey, domain) = (memory.lkey, identity(self.handle()));
        let piece = |index| {
            // SAFETY: the pages have room for `count` times the stride.
            let ptr = unsafe { memory.ptr.add(index * stride) };
            let whole = ffi::ibv_sge { addr: ptr.as_ptr() as u64, length: len, lkey };
            let (whole, part) = (UnsafeCell::new(whole), UnsafeCell::new(whole));
            Piece { whole, part, ptr, domain, pool: AtomicPtr::default(), len }
        };
        let inner = PoolInner {
            free: Mutex::new((0..count).collect()),
            pieces: (0..count).map(piece).collect(),
            size: len,
            _registration: memory.registration,
        };
        Ok(BufferPool { inner: Arc::new(inner) })
    }
}

impl BufferPool {
    /// A buffer, or `None` if none is there: all are in use, or posted.
    pub fn take(&self) -> Option<Buffer> {
        let place = self.inner.free().pop()?;
        let piece = &self.inner.pieces[place];
        piece.pool.store(Arc::into_raw(self.inner.clone()).cast_mut(), Ordering::Relaxed);
        Some(Buffer { piece: NonNull::from(piece) })
    }

    /// The size of each buffer in bytes.
    pub fn buffer_size(&self) -> usize {
        self.inner.size as usize
    }

    /// How many buffers it was made with.
    pub fn count(&self) -> usize {
        self.inner.pieces.len()
    }

    /// How many can be [taken](Self::take) now.
    pub fn available(&self) -> usize {
        self.inner.free().len()
    }
}

impl PoolInner {
    fn free(&self) -> MutexGuard<'_, Vec<usize>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferPool")
            .field("count", &self.count())
            .field("buffer_size", &self.buffer_size())
            .field("available", &self.available())
            .finish()
    }
}

impl Buffer {
    #[inline]
    fn piece(&self) -> &Piece {
        // SAFETY: the piece is one of the pool's, which is alive, since this has a reference to it; and is not written.
        unsafe { self.piece.as_ref() }
    }

    /// The scatter entry of the first `len` bytes, which stands still until somebody asks for another part.
    #[inline(always)]
    pub(super) fn entry(&mut self, len: u32) -> *mut ffi::ibv_sge {
        let part = self.piece().part.get();
        // SAFETY: the entry is that of whoever has the buffer, which is borrowed exclusively; no device has it, and providers
        // look at it within the call that posts it only.
        unsafe { (*part).length = len };
        part
    }

    /// The scatter entry of all of it.
    #[inline(always)]
    pub(super) fn whole(&self) -> *mut ffi::ibv_sge {
        self.piece().whole.get()
    }

    /// How many bytes it has.
    #[inline]
    pub(super) fn size(&self) -> u32 {
        self.piece().len
    }

    /// The protection domain of its pool, as [`identity`] tells it: alive, since the pool is.
    #[inline]
    pub(super) fn domain(&self) -> usize {
        self.piece().domain
    }
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the pool has `len` bytes there, which are mapped and initialised for as long as it lives; nobody else
        // has them, and no device uses them, since this is not posted: no request names them whose end was not proved,
        // and no peer has a right to them.
        unsafe { slice::from_raw_parts(self.piece().ptr.as_ptr(), self.size() as usize) }
    }
}

impl DerefMut for Buffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; the pages are writable, and borrowed exclusively through `&mut self`.
        unsafe { slice::from_raw_parts_mut(self.piece().ptr.as_ptr(), self.size() as usize) }
    }
}

impl Drop for Buffer {
    // One call with a value, so that a buffer which might be dropped can be in a register.
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the buffer is not used any more.
        unsafe { put_back(self.piece) }
    }
}

/// Gives a piece back to its pool.
///
/// # Safety
///
/// It is that of a buffer which is not used any more.
#[cold]
#[inline(never)]
unsafe fn put_back(piece: NonNull<Piece>) {
    // SAFETY: the piece is alive, since the buffer had a reference to its pool.
    let pool = unsafe { piece.as_ref() }.pool.load(Ordering::Relaxed);
    // SAFETY: `take` has made this pointer of a reference, which was the buffer's and is used up here.
    let pool = unsafe { Arc::from_raw(pool) };
    let first = pool.pieces.as_ptr() as usize;
    let place = (piece.as_ptr() as usize - first) / size_of::<Piece>();
    pool.free().push(place);
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Piece { ptr, len, .. } = self.piece();
        f.debug_struct("Buffer").field("ptr", ptr).field("len", len).finish_non_exhaustive()
    }
}
