//! Memory windows: remote rights that can be withdrawn.

use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeBounds;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::error::{created, error_number, os_error, Error, Failed, Result};
use crate::ffi;
use crate::handle::{Destroy, Handle};
use crate::mr::{AccessFlags, MemoryRegion, RemoteMemorySlice, SharedRegion};
use crate::pd::{PdHandle, PdUser, ProtectionDomain};
use crate::post::Refusal;
use crate::qp::{CanSend, Connected, QueuePair, SendOps, State, Transport};

mod sealed {
    use crate::ffi;

    /// What the crate knows of a type of windows. Only the crate's own markers implement it.
    pub trait Sealed {
        const RAW: ffi::ibv_mw_type;
    }
}

/// A type of memory windows: [`WindowType1`] or [`WindowType2`]. Sealed.
#[diagnostic::on_unimplemented(message = "`{Self}` is no type of memory windows")]
pub trait WindowType: sealed::Sealed + Sized + 'static {}

/// Windows that are bound by a call of their own, for whoever has the key:
/// [`QueuePair::bind_window`].
#[derive(Clone, Copy, Debug)]
pub enum WindowType1 {}

/// Windows that are bound by an operation of a batch, for the peer of that queue pair, and invalidated by
/// either side: [`SendOp::bind_window`](crate::SendOp::bind_window).
#[derive(Clone, Copy, Debug)]
pub enum WindowType2 {}

impl sealed::Sealed for WindowType1 {
    const RAW: ffi::ibv_mw_type = ffi::IBV_MW_TYPE_1;
}
impl sealed::Sealed for WindowType2 {
    const RAW: ffi::ibv_mw_type = ffi::IBV_MW_TYPE_2;
}
impl WindowType for WindowType1 {}
impl WindowType for WindowType2 {}

/// A memory window: a key of its own for a piece of a memory region, which is cheap to change.
///
/// A window of [`WindowType2`] is bound in a batch with [`bind_window`](crate::SendOp::bind_window), and its key
/// withdrawn with [`local_inv`](crate::SendOp::local_inv), or by the peer with
/// [`send_with_inv`](crate::SendOp::send_with_inv); then it can be bound again, with another key. The queue pair
/// is built with [`SendOps::WINDOWS`](crate::SendOps::WINDOWS). The region is registered with
/// [`AccessFlags::MW_BIND`], and with [`AccessFlags::LOCAL_WRITE`] if the peer is to write; it needs no remote
/// rights.
///
/// A region to which a window is bound cannot be deregistered: drop or invalidate the window first. (A region
/// that is dropped before is leaked, where the device knows of the window.)
///
/// A queue pair that is destroyed takes the windows of [`WindowType2`] with it that it was the last to bind: they are
/// freed, and cannot be bound again ([`Error::WindowFreed`]). A window whose key was withdrawn may be bound by
/// another queue pair of its domain.
///
/// # Examples
///
/// ```no_run
/// # use ibverbs::{AccessFlags, CompletionQueue, ProtectionDomain, QueuePairEndpoint, Rc, RemoteMemorySlice};
/// # use ibverbs::{Result, SendOps, WindowType2};
/// # fn lend(pd: &ProtectionDomain, cq: &CompletionQueue, peer: QueuePairEndpoint) -> Result<()> {
/// let region = pd.allocate(4096, AccessFlags::LOCAL_WRITE | AccessFlags::MW_BIND)?;
/// let builder = pd.create_qp::<Rc>(cq, cq, 1)?.add_send_ops(SendOps::WINDOWS);
/// let builder = builder.set_max_inline_data(RemoteMemorySlice::BYTES as u32);
/// let mut qp = builder.build()?.handshake(peer)?;
/// let mut window = pd.alloc_window::<WindowType2>()?;
///
/// let mut batch = qp.start_send();
/// let (range, access) = (..1024, AccessFlags::REMOTE_WRITE);
/// // SAFETY: the region stays registered, and is not touched until the key is withdrawn.
/// let remote = unsafe { batch.op().bind_window(1, &mut window, &region, range, access) };
/// // Tells the peer, which reads it with `RemoteMemorySlice::from_bytes`.
/// batch.op().signaled().send(2, &remote.to_bytes());
/// // SAFETY: inline data has no conditions, and the send queue is empty.
/// unsafe { batch.submit() }?;
///
/// // ... poll the completion of request 2; the peer writes, and says when it is done ...
///
/// let mut batch = qp.start_send();
/// batch.op().signaled().local_inv(3, window.rkey());
/// // SAFETY: this request has no memory, and the send queue is not full.
/// unsafe { batch.submit() }?;
/// // Once request 3 has completed the peer cannot write any more, and the region may be read.
/// # Ok(())
/// # }
/// ```
#[doc(alias = "ibv_mw")]
pub struct MemoryWindow<K: WindowType = WindowType2> {
    raw: NonNull<ffi::ibv_mw>,
    /// The same as in the C structure, which may be gone.
    rkey: u32,
    /// The queue pair that was the last to bind it, by the number that [`BoundWindows`] gave it; or zero.
    bound_by: u64,
    slot: Arc<Slot>,
    pd: PdHandle,
    _type: PhantomData<fn() -> K>,
}

// SAFETY: verbs may be called by any thread, as `handle.rs` argues. The C structure is written through
// `&mut self` only; and whoever frees the window has taken it out of its slot.
unsafe impl<K: WindowType> Send for MemoryWindow<K> {}
// SAFETY: as above.
unsafe impl<K: WindowType> Sync for MemoryWindow<K> {}

/// Where a window is found by its owner, and by the queue pair that was the last to bind it.
struct Slot(Mutex<Content>);

struct Content {
    /// `None` if it was freed.
    window: Option<Handle<MwInner>>,
    /// As in [`MemoryWindow`].
    bound_by: u64,
}

impl Content {
    /// Frees the window, unless that was done before. If it fails, the window is still there.
    fn free(&mut self) -> Result<()> {
        let Some(window) = self.window.take() else { return Ok(()) };
        window.close().map_err(|Failed { resource, error }| {
            self.window = Some(resource);
            error
        })
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct MwInner {
    raw: NonNull<ffi::ibv_mw>,
    /// What must outlive the window.
    _pd: PdUser,
}

// SAFETY: as for `MemoryWindow`.
unsafe impl Send for MwInner {}

impl Destroy for MwInner {
    const RESOURCE: &'static str = "memory window";
    const VERB: &'static str = "ibv_dealloc_mw";

    unsafe fn destroy(&mut self) -> i32 {
        // SAFETY: the window came from `ibv_alloc_mw`, and is freed once as the caller promises.
        unsafe { ffi::ibv_dealloc_mw(self.raw.as_ptr()) }
    }
}

impl ProtectionDomain {
    /// Allocates a memory window of the type that is named, as in `pd.alloc_window::<WindowType2>()`. It is bound to
    /// nothing.
    ///
    /// # Errors
    ///
    /// - [`Error::Unsupported`] if the device or its driver has no windows of this type.
    /// - [`Error::Verb`] if there are no more.
    #[doc(alias = "ibv_alloc_mw")]
    pub fn alloc_window<K: WindowType>(&self) -> Result<MemoryWindow<K>> {
        // SAFETY: the domain is alive.
        let raw = created(|| unsafe { ffi::ibv_alloc_mw(self.as_raw(), K::RAW) });
        let raw = raw.map_err(|code| match code {
            // The answer of kernel drivers that have the other type only, to a call that has no other argument.
            libc::EINVAL => Error::Unsupported { operation: "ibv_alloc_mw of this type" },
            code => Error::from_code("ibv_alloc_mw", code),
        })?;
        let pd = self.handle().clone();
        let window = Some(Handle::new(MwInner { raw, _pd: PdUser::new(&pd) }));
        let slot = Arc::new(Slot(Mutex::new(Content { window, bound_by: 0 })));
        // SAFETY: the window is alive.
        let rkey = unsafe { (*raw.as_ptr()).rkey };
        Ok(MemoryWindow { raw, rkey, bound_by: 0, slot, pd, _type: PhantomData })
    }
}

impl<K: WindowType> MemoryWindow<K> {
    /// The remote key: the one of the last bind that was posted.
    pub fn rkey(&self) -> u32 {
        self.rkey
    }

    /// Puts back a key that the window had before. To be called for a bind that was not posted or whose
    /// completion reports an error: the device has the old key then, and expects it at the next bind.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if this cannot have been a key of this window: they differ in their lowest 8
    /// bits only.
    pub fn set_rkey(&mut self, rkey: u32) -> Result<()> {
        // mlx5 takes the key of a window for the name of what is to be bound: another one's would be that.
        if (rkey ^ self.rkey) >> 8 != 0 {
            return Err(Error::InvalidArgument {
                what: "the remote key",
                value: u64::from(rkey),
                expected: "it must be one that the window had: all but its lowest 8 bits are always the same",
            });
        }
        self.rkey = rkey;
        if let Some(window) = &self.slot.lock().window {
            // SAFETY: the window is alive, and nobody frees it while the slot is locked; self is borrowed
            // exclusively.
            unsafe { (*window.raw.as_ptr()).rkey = rkey }
        }
        Ok(())
    }

    pub(crate) fn pd(&self) -> &PdHandle {
        &self.pd
    }

    /// Frees the window; if it is bound, its key is withdrawn. Dropping does the same, but cannot tell what went
    /// wrong.
    ///
    /// # Errors
    ///
    /// [`Error::Verb`] if the device refuses; one that was unplugged answers `EIO`.
    #[doc(alias = "ibv_dealloc_mw")]
    pub fn close(self) -> Result<(), Failed<Self>> {
        let freed = self.slot.lock().free();
        freed.map_err(|error| Failed { resource: self, error })
    }

    /// The C structure; null if the window was freed with its queue pair.
    pub fn as_raw(&self) -> *mut ffi::ibv_mw {
        self.slot.lock().window.as_ref().map_or(ptr::null_mut(), |window| window.raw.as_ptr())
    }
}

impl MemoryWindow<WindowType2> {
    /// The C structure, for a queue pair that has [added](BoundWindows::add) the window and is still there: then
    /// nobody has freed it.
    #[inline]
    pub(crate) fn as_bound(&self) -> *mut ffi::ibv_mw {
        self.raw.as_ptr()
    }

    /// Takes note of a new key.
    ///
    /// # Safety
    ///
    /// As [`as_bound`](Self::as_bound) says, the window was not freed.
    #[inline]
    pub(crate) unsafe fn store_rkey(&mut self, rkey: u32) {
        self.rkey = rkey;
        // SAFETY: the window is alive, by the caller's promise, and borrowed exclusively.
        unsafe { (*self.raw.as_ptr()).rkey = rkey }
    }
}

/// The windows that a queue pair has bound. They are freed before it: SoftRoCE's windows of type 2 refer to their
/// queue pair, for which its destruction waits 50 seconds, and then does not wait any longer.
#[derive(Default)]
pub(crate) struct BoundWindows {
    /// The queue pair's number, which no other one ever has; zero until it binds a window.
    number: u64,
    slots: Vec<Weak<Slot>>,
}

impl BoundWindows {
    /// Makes the window one of this queue pair's. It stays alive then until that is destroyed, or until it is dropped
    /// or another queue pair's.
    #[inline]
    pub(crate) fn add(&mut self, window: &mut MemoryWindow<WindowType2>) -> Result<(), Refusal> {
        // Mostly a window is bound by the same queue pair again: no lock, no allocation.
        if window.bound_by != 0 && window.bound_by == self.number {
            return Ok(());
        }
        self.adopt(window)
    }

    #[cold]
    fn adopt(&mut self, window: &mut MemoryWindow<WindowType2>) -> Result<(), Refusal> {
        if self.slots.len() == self.slots.capacity() {
            self.prune();
        }
        let mut content = window.slot.lock();
        if content.window.is_none() {
            return Err(Refusal::FreedWindow);
        }
        let number = self.number();
        content.bound_by = number;
        drop(content);
        window.bound_by = number;
        self.slots.push(Arc::downgrade(&window.slot));
        Ok(())
    }

    /// Forgets windows that are gone or another queue pair's, and those that came back and are here twice: a window that
    /// goes to and fro must not take more room each time.
    fn prune(&mut self) {
        let number = self.number;
        let is_own = |slot: Arc<Slot>| slot.lock().bound_by == number;
        self.slots.retain(|slot| slot.upgrade().is_some_and(is_own));
        self.slots.sort_by_key(Weak::as_ptr);
        self.slots.dedup_by(|one, other| one.ptr_eq(other));
    }

    /// Frees those that no other queue pair has bound since. Returns zero, or the failure code of one that could not be
    /// freed: it may refer to the queue pair, which must not be destroyed then.
    pub(crate) fn free(&mut self) -> i32 {
        // Should the queue pair not be destroyed after all, it must not take these for windows that are there.
        let number = std::mem::take(&mut self.number);
        let mut failure = 0;
        for weak in std::mem::take(&mut self.slots) {
            let Some(slot) = weak.upgrade() else { continue };
            let mut content = slot.lock();
            if content.bound_by != number {
                continue;
            }
            if let Err(error) = content.free() {
                failure = error.os_error().unwrap_or(libc::EBUSY);
                content.bound_by = self.number();
                self.slots.push(weak);
            }
        }
        failure
    }

    /// The queue pair's number, from now on at the latest.
    fn number(&mut self) -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        if self.number == 0 {
            self.number = NEXT.fetch_add(1, Ordering::Relaxed);
        }
        self.number
    }
}

impl<K: WindowType> Drop for MemoryWindow<K> {
    fn drop(&mut self) {
        // Before the slot goes: its queue pair, which may be going as well, has to wait for this.
        if self.slot.lock().free().is_err() {
            // It is leaked, but its queue pair, to which it may refer, still finds it.
            std::mem::forget(self.slot.clone());
        }
    }
}

impl<K: WindowType> fmt::Debug for MemoryWindow<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryWindow")
            .field("rkey", &format_args!("{:#x}", self.rkey()))
            .finish_non_exhaustive()
    }
}

/// A region that a window may be bound to.
pub(crate) struct Bindable<'a> {
    pub(crate) raw: *mut ffi::ibv_mr,
    /// All of it; the key does not matter.
    pub(crate) whole: RemoteMemorySlice,
    pub(crate) access: AccessFlags,
    pub(crate) pd: &'a PdHandle,
}

/// What a window is to show of a region, if that is possible.
///
/// # Panics
///
/// If the range does not lie within the region, as slicing does.
#[track_caller]
pub(crate) fn bind_info(
    region: Bindable<'_>,
    range: impl RangeBounds<usize>,
    access: AccessFlags,
    domain: &PdHandle,
) -> Result<ffi::ibv_mw_bind_info, Refusal> {
    let bounds = (range.start_bound().map(|&at| at as u64), range.end_bound().map(|&at| at as u64));
    let piece = region.whole.slice(bounds);
    check_access(region.access, access)?;
    if !PdHandle::ptr_eq(region.pd, domain) {
        return Err(Refusal::Domain("memory region of the window"));
    }
    Ok(ffi::ibv_mw_bind_info {
        mr: region.raw,
        addr: piece.addr,
        length: piece.len,
        mw_access_flags: access.bits(),
    })
}

/// A window of no bytes is one that is not bound.
pub(crate) fn check_length(info: ffi::ibv_mw_bind_info) -> Result<ffi::ibv_mw_bind_info, Refusal> {
    if info.length == 0 {
        return Err(Refusal::EmptyWindow);
    }
    Ok(info)
}

/// Whether a window with these rights can be bound to such a region.
fn check_access(region: AccessFlags, window: AccessFlags) -> Result<(), Refusal> {
    const RIGHTS: AccessFlags =
        AccessFlags::REMOTE_READ.union(AccessFlags::REMOTE_WRITE).union(AccessFlags::REMOTE_ATOMIC);
    const WRITING: AccessFlags = AccessFlags::REMOTE_WRITE.union(AccessFlags::REMOTE_ATOMIC);
    let (access, reason) = if !RIGHTS.contains(window) {
        (window, "a memory window has remote read, write and atomic rights only")
    } else if !region.contains(AccessFlags::MW_BIND) {
        (region, "a memory window can be bound to a region with MW_BIND only")
    } else if window.intersects(WRITING) && !region.contains(AccessFlags::LOCAL_WRITE) {
        (region, "a memory window that can be written to needs a region with LOCAL_WRITE")
    } else {
        return Ok(());
    };
    Err(Refusal::WindowAccess(access, reason))
}

impl<T: Transport, S: State> QueuePair<T, S> {
    /// Binds a window of type 1 to a piece of a region, in place of what it was bound to, and returns what a
    /// peer needs to use it. This is a send request, with a completion; the peer may be told of the key in a send
    /// that is posted later, or when it has completed.
    ///
    /// The queue pair is built with [`SendOps::BIND_MW`]. As to locks, this is a batch of one operation: see
    /// [`start_send`](Self::start_send).
    ///
    /// # Errors
    ///
    /// - [`Error::OperationNotGranted`] if the queue pair was not built for it.
    /// - [`Error::ProtectionDomainMismatch`] if the window or the region is of another domain than the queue
    ///   pair.
    /// - [`Error::InvalidAccess`] if the region does not allow this.
    /// - [`Error::InvalidArgument`] if the range has no bytes: see [`unbind_window`](Self::unbind_window).
    /// - [`Error::NotReadyToSend`] if the queue pair is in [`Manual`](crate::Manual) and was not asked for RTS
    ///   yet.
    /// - [`Error::Unsupported`] if the driver binds windows in batches only.
    /// - [`Error::PostSend`] if the device refuses, most often because the send queue is full.
    ///
    /// # Panics
    ///
    /// If the range does not lie within the region, as slicing does.
    ///
    /// # Safety
    ///
    /// From now on, and until the window is unbound, bound to something else or freed, whoever knows or
    /// guesses the key may use the memory as `access` says: the contract of
    /// [`MemoryRegion::remote`]. That is the whole region, if the device does not look at the window's bounds:
    /// SoftRoCE does not.
    ///
    /// The region stays registered until the bind has completed, and for as long as the window is bound to it.
    ///
    /// This is a send request: what [`SendBatch::submit`](crate::SendBatch::submit) demands concerning the room in
    /// the send queue holds for it.
    #[doc(alias = "ibv_bind_mw")]
    #[track_caller]
    pub unsafe fn bind_window<B>(
        &mut self,
        wr_id: u64,
        window: &mut MemoryWindow<WindowType1>,
        region: &MemoryRegion<B>,
        range: impl RangeBounds<usize>,
        access: AccessFlags,
    ) -> Result<RemoteMemorySlice>
    where
        T: Connected,
        S: CanSend,
    {
        // SAFETY: the region is borrowed; the rest is the caller's promise.
        unsafe { self.bind_to(wr_id, window, region.bindable(), range, access) }
    }

    /// Withdraws the key of a window of type 1: binds it to nothing of `region`, which is any one with
    /// [`AccessFlags::MW_BIND`], such as the one that it was bound to. This is a send request, with a completion: the
    /// key is dead when it has completed.
    ///
    /// # Errors
    ///
    /// Those of [`bind_window`](Self::bind_window).
    ///
    /// # Safety
    ///
    /// The region stays registered until the request has completed. This is a send request: what
    /// [`SendBatch::submit`](crate::SendBatch::submit) demands concerning the room in the send queue holds for it.
    #[doc(alias = "ibv_bind_mw")]
    pub unsafe fn unbind_window<B>(
        &mut self,
        wr_id: u64,
        window: &mut MemoryWindow<WindowType1>,
        region: &MemoryRegion<B>,
    ) -> Result<()>
    where
        T: Connected,
        S: CanSend,
    {
        // SAFETY: the region is borrowed; the rest is the caller's promise.
        unsafe { self.bind_to_nothing(wr_id, window, region.bindable()) }
    }

    /// Binds a window of type 1 to a piece of a shared region: as [`bind_window`](Self::bind_window), but nothing has
    /// to be promised. The memory is kept for as long as there is a window in its domain.
    ///
    /// # Errors
    ///
    /// Those of [`bind_window`](Self::bind_window).
    ///
    /// # Panics
    ///
    /// If the range does not lie within the region, as slicing does.
    #[doc(alias = "ibv_bind_mw")]
    #[track_caller]
    pub fn bind_window_shared(
        &mut self,
        wr_id: u64,
        window: &mut MemoryWindow<WindowType1>,
        region: &SharedRegion,
        range: impl RangeBounds<usize>,
        access: AccessFlags,
    ) -> Result<RemoteMemorySlice>
    where
        T: Connected,
        S: CanSend,
    {
        // SAFETY: the region is borrowed, and its domain, which `bind_to` compares, keeps it registered for as long as
        // the window is there. Providers post this through their classic interface, which looks whether there is room.
        unsafe { self.bind_to(wr_id, window, region.bindable(), range, access) }
    }

    /// Withdraws the key of a window of type 1: as [`unbind_window`](Self::unbind_window), but nothing has to be
    /// promised.
    ///
    /// # Errors
    ///
    /// Those of [`bind_window`](Self::bind_window).
    #[doc(alias = "ibv_bind_mw")]
    pub fn unbind_window_shared(
        &mut self,
        wr_id: u64,
        window: &mut MemoryWindow<WindowType1>,
        region: &SharedRegion,
    ) -> Result<()>
    where
        T: Connected,
        S: CanSend,
    {
        // SAFETY: as in `bind_window_shared`.
        unsafe { self.bind_to_nothing(wr_id, window, region.bindable()) }
    }

    /// # Safety
    ///
    /// The region is alive; after that, the contract of [`bind_window`](Self::bind_window).
    #[track_caller]
    unsafe fn bind_to(
        &mut self,
        wr_id: u64,
        window: &mut MemoryWindow<WindowType1>,
        region: Bindable<'_>,
        range: impl RangeBounds<usize>,
        access: AccessFlags,
    ) -> Result<RemoteMemorySlice> {
        let info = bind_info(region, range, access, window.pd())
            .and_then(check_length)
            .map_err(|refusal| self.core_mut().explain_refusal(refusal))?;
        // SAFETY: the region is alive by the caller's promise, and `bind_info` compared its domain; the rest is the
        // caller's promise.
        unsafe { self.post_bind(wr_id, window, info) }?;
        Ok(RemoteMemorySlice { addr: info.addr, len: info.length, rkey: window.rkey() })
    }

    /// # Safety
    ///
    /// The region is alive; after that, the contract of [`unbind_window`](Self::unbind_window).
    unsafe fn bind_to_nothing(
        &mut self,
        wr_id: u64,
        window: &mut MemoryWindow<WindowType1>,
        region: Bindable<'_>,
    ) -> Result<()> {
        // The C interface allows that there is no region then, but most providers look into it.
        let info = bind_info(region, ..0, AccessFlags::empty(), window.pd())
            .map_err(|refusal| self.core_mut().explain_refusal(refusal))?;
        // SAFETY: as in `bind_to`.
        unsafe { self.post_bind(wr_id, window, info) }
    }

    /// # Safety
    ///
    /// The region in `bind_info` is alive and of the window's domain. If this fills the send queue, what
    /// [`SendBatch::submit`](crate::SendBatch::submit) demands is kept.
    unsafe fn post_bind(
        &mut self,
        wr_id: u64,
        window: &mut MemoryWindow<WindowType1>,
        bind_info: ffi::ibv_mw_bind_info,
    ) -> Result<()> {
        let core = self.core_mut();
        if !core.is_of_domain(window.pd()) {
            return Err(core.explain_refusal(Refusal::Domain("memory window")));
        }
        core.prepare_send(SendOps::BIND_MW)?;
        let mut bind = ffi::ibv_mw_bind { wr_id, send_flags: ffi::IBV_SEND_SIGNALED, bind_info };
        let (qp, mw) = (core.raw().cast(), window.raw.as_ptr());
        // SAFETY: the queue pair, the window (of type 1, which no queue pair frees) and the region are alive and of
        // one domain, as was checked; the queue pair was built for this; no batch is open; the window, into which
        // the key is written, is borrowed exclusively. There is room for the request, or a provider that checks
        // this, by the caller's promise.
        match error_number(unsafe { ffi::ibv_bind_mw(qp, mw, &mut bind) }) {
            0 => {
                // SAFETY: as above.
                window.rkey = unsafe { (*mw).rkey };
                Ok(())
            }
            libc::EOPNOTSUPP | libc::ENOSYS => Err(Error::Unsupported { operation: "ibv_bind_mw" }),
            code => Err(Error::PostSend { source: os_error(code) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_that_go_to_and_fro_take_no_more_room() {
        let slot = |bound_by| Arc::new(Slot(Mutex::new(Content { window: None, bound_by })));
        let (own, other, gone) = (slot(7), slot(8), Arc::downgrade(&slot(7)));
        let [one, two] = [&own, &other].map(Arc::downgrade);
        let slots = vec![one.clone(), two.clone(), one.clone(), gone, two, one.clone()];
        let mut windows = BoundWindows { number: 7, slots };
        windows.prune();
        assert_eq!(windows.slots.len(), 1);
        assert!(windows.slots[0].ptr_eq(&one));
    }
}
