//! Receive requests.

use std::ffi::c_int;
use std::fmt;
use std::marker::PhantomData;
use std::mem::{offset_of, size_of, MaybeUninit};
use std::ptr;

use super::chain::{post_chain, RecvChain};
use super::level::{Level, Raw};
use crate::error::{os_error, Error, Result};
use crate::ffi;
use crate::mr::LocalMemorySlice;
use crate::qp::{CanReceive, QueuePair, State, Transport};

/// A receive request: where one incoming message goes (`struct ibv_recv_wr`).
#[doc(alias = "ibv_recv_wr")]
#[derive(Clone, Copy)]
#[repr(C)]
pub struct RecvRequest<'a, L: Level = Raw> {
    wr_id: u64,
    /// Written when the request is posted, and not before.
    pub(super) next: MaybeUninit<*mut ffi::ibv_recv_wr>,
    pub(super) sg_list: *mut ffi::ibv_sge,
    pub(super) num_sge: c_int,
    /// Of the shared level: the domain of the entry, if there is one, as [`identity`](crate::pd::identity) tells it; or zero.
    /// C has no field here.
    domain: MaybeUninit<u32>,
    _slices: PhantomData<(&'a [LocalMemorySlice], L)>,
}

// It is laid out as the C structure.
const _: () = {
    type C = ffi::ibv_recv_wr;
    assert!(size_of::<RecvRequest<'_>>() == size_of::<C>());
    assert!(offset_of!(RecvRequest<'_>, wr_id) == offset_of!(C, wr_id));
    assert!(offset_of!(RecvRequest<'_>, next) == offset_of!(C, next));
    assert!(offset_of!(RecvRequest<'_>, sg_list) == offset_of!(C, sg_list));
    assert!(offset_of!(RecvRequest<'_>, num_sge) == offset_of!(C, num_sge));
};

// SAFETY: the list pointer in it stands for the shared borrow of a slice of plain numbers, which may
// be used by any thread; the chain pointer is written and read only while the request is borrowed
// exclusively for posting.
unsafe impl Send for RecvRequest<'_, Raw> {}
// SAFETY: as above.
unsafe impl Sync for RecvRequest<'_, Raw> {}

impl<'a> RecvRequest<'a, Raw> {
    /// A request that fills `slices` one after the other. Its completion carries `wr_id`.
    #[inline]
    pub fn new(wr_id: u64, slices: &'a [LocalMemorySlice]) -> RecvRequest<'a> {
        RecvRequest::of_list(wr_id, slices)
    }
}

impl<L: Level> RecvRequest<'_, L> {
    /// A request with a pointer to this list, whatever its entries are.
    #[inline]
    pub(super) fn of_list<S>(wr_id: u64, slices: &[S]) -> Self {
        RecvRequest {
            wr_id,
            next: MaybeUninit::uninit(),
            sg_list: slices.as_ptr().cast_mut().cast(),
            // A list too long for an int is also longer than any queue grants, and refused for that.
            num_sge: c_int::try_from(slices.len()).unwrap_or(c_int::MAX),
            domain: MaybeUninit::uninit(),
            _slices: PhantomData,
        }
    }

    /// Takes note of the domain of its entry, if it has one.
    #[inline(always)]
    pub(super) fn set_domain(&mut self, single: Option<usize>) {
        if let Some(domain) = single {
            // SAFETY: a number of 64 bits is as long as two of 32, which any bytes are.
            let [num_sge, domain] = unsafe { std::mem::transmute::<usize, [u32; 2]>(domain) };
            self.num_sge = num_sge as c_int;
            self.domain.write(domain);
        } else {
            self.domain.write(0);
        }
    }

    /// The domain of its entry, as [`identity`](crate::pd::identity) tells it, if it has one; or else something that no
    /// domain is told by.
    ///
    /// # Safety
    ///
    /// The request is of the shared level.
    #[inline(always)]
    pub(super) unsafe fn single(&self) -> usize {
        // SAFETY: `set_domain` has written it, by the caller's promise.
        let domain = unsafe { self.domain.assume_init() };
        // SAFETY: as there.
        unsafe { std::mem::transmute::<[u32; 2], usize>([self.num_sge as u32, domain]) }
    }

    /// The identifier that its completion will carry.
    #[inline]
    pub fn wr_id(&self) -> u64 {
        self.wr_id
    }

    /// The C structure, which nothing follows.
    pub(super) fn to_raw(self) -> ffi::ibv_recv_wr {
        let RecvRequest { wr_id, sg_list, num_sge, .. } = self;
        ffi::ibv_recv_wr { wr_id, next: ptr::null_mut(), sg_list, num_sge }
    }
}

impl<L: Level> fmt::Debug for RecvRequest<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvRequest")
            .field("wr_id", &self.wr_id)
            .field("num_sge", &self.num_sge)
            .finish()
    }
}

/// How many scatter entries a request has: never a negative number, see `RecvRequest::of_list`. A function of its own for
/// errors, so that nothing is kept for them where there are none.
///
/// # Safety
///
/// `request` points to one, which nobody writes.
#[cold]
#[inline(never)]
unsafe fn entries(request: *const ffi::ibv_recv_wr) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { (*request).num_sge as u32 }
}

/// Links `len` requests from `first` on to a chain, after checking that each has at most `granted`
/// entries.
///
/// # Safety
///
/// `first` points to `len` requests that nobody else accesses. What follows each need not be initialized.
#[inline]
pub(crate) unsafe fn link(first: *mut ffi::ibv_recv_wr, len: usize, granted: u32) -> Result<()> {
    let mut request = first;
    for left in (0..len).rev() {
        // SAFETY: it points to a request that nobody else accesses.
        if unsafe { (*request).num_sge } as u32 > granted {
            // SAFETY: as above.
            return Err(too_many_entries(unsafe { entries(request) }, granted));
        }
        let next = request.wrapping_add(1);
        // SAFETY: as above.
        unsafe { (*request).next = if left > 0 { next } else { ptr::null_mut() } };
        request = next;
    }
    Ok(())
}

#[inline(always)]
pub(super) fn too_many_entries(entries: u32, granted: u32) -> Error {
    Error::TooManyScatterEntries { queue: "receive", entries: entries as usize, granted }
}

/// How many of a chain of `requested` requests from `first` on the provider has taken, if it refused `bad` and what
/// follows it.
#[cold]
fn accepted(
    first: *const ffi::ibv_recv_wr,
    requested: usize,
    bad: *const ffi::ibv_recv_wr,
) -> usize {
    let place = (bad as usize).wrapping_sub(first as usize) / size_of::<ffi::ibv_recv_wr>();
    // If the provider does not say which one it refused, it may have taken any of them.
    if bad.is_null() {
        requested
    } else {
        place.min(requested)
    }
}

/// The call that posts a chain of requests, which begins with the first argument and ends in null; its
/// scatter lists are alive. It stores the first request that it refuses, and returns a failure code or zero.
pub(crate) trait PostCall:
    FnOnce(*mut ffi::ibv_recv_wr, &mut *mut ffi::ibv_recv_wr) -> c_int
{
}

impl<F: FnOnce(*mut ffi::ibv_recv_wr, &mut *mut ffi::ibv_recv_wr) -> c_int> PostCall for F {}

/// Makes the call for a valid chain of `len` requests that stand one behind the other.
#[inline]
pub(crate) fn call_and_explain(
    first: *mut ffi::ibv_recv_wr,
    len: usize,
    verb: &'static str,
    call: impl PostCall,
) -> Result<()> {
    let mut bad = ptr::null_mut();
    let code = call(first, &mut bad);
    if code == 0 {
        return Ok(());
    }
    Err(failure(first, len, verb, bad, code))
}

/// The error of a chain of which the provider refused one request, and what follows it.
#[inline(always)]
pub(super) fn failure(
    first: *const ffi::ibv_recv_wr,
    requested: usize,
    verb: &'static str,
    bad: *const ffi::ibv_recv_wr,
    code: c_int,
) -> Error {
    let (accepted, source) = (accepted(first, requested, bad), os_error(code));
    Error::PostReceive { verb, accepted, requested, source }
}

/// Posts requests to a queue that was granted `granted` scatter entries.
#[inline]
pub(crate) fn post_requests(
    requests: &mut [RecvRequest<'_>],
    granted: u32,
    verb: &'static str,
    call: impl PostCall,
) -> Result<()> {
    let (first, len) = (requests.as_mut_ptr().cast::<ffi::ibv_recv_wr>(), requests.len());
    // SAFETY: a `RecvRequest` is laid out as an `ibv_recv_wr`, and all but `next`, which is written first, is
    // initialized; these are borrowed exclusively, and from here on accessed through `first` alone.
    unsafe { link(first, len, granted) }?;
    if len == 0 {
        return Ok(());
    }
    call_and_explain(first, len, verb, call)
}

impl<T: Transport, S: State> QueuePair<T, S> {
    /// Posts receive requests, with one call for all of them: an array, a `Vec` or a `&mut` slice.
    ///
    /// # Errors
    ///
    /// - [`Error::TooManyScatterEntries`] if a request has more entries than the queue was created with;
    ///   nothing is posted then.
    /// - [`Error::NoReceiveQueue`] if the queue pair takes its receives from a
    ///   [`SharedReceiveQueue`](crate::SharedReceiveQueue).
    /// - [`Error::PostReceive`] if the device refuses, most often because the receive queue is full. It
    ///   tells how many of the requests, from the first, the device may own the buffers of.
    ///
    /// # Safety
    ///
    /// For each request that is posted, until its completion is polled, or [`close`](Self::close) or
    /// [`reset`](Self::reset) of the queue pair has returned `Ok`: its memory stays registered and is not
    /// unmapped (with the exception that [`SendBatch::submit`](crate::SendBatch::submit) explains), nobody
    /// reads or writes it, and no reference to it exists. Dropping the queue pair ends this too, unless a poll of one of its
    /// completion queues is open (then it goes on receiving until that poll ends), or the device is broken
    /// and does not destroy it.
    #[doc(alias = "ibv_post_recv")]
    #[inline]
    pub unsafe fn post_recv<'a>(
        &mut self,
        mut requests: impl AsMut<[RecvRequest<'a>]>,
    ) -> Result<()>
    where
        S: CanReceive,
    {
        let core = self.core_mut();
        let granted = core.prepare_recv()?;
        // Once: what `as_mut` returns the next time may be another slice.
        post_requests(requests.as_mut(), granted, "ibv_post_recv", |first, bad| {
            // SAFETY: the chain is valid, as `PostCall` says. What the device does with the memory is the caller's promise.
            unsafe { core.post_recv(first, bad) }
        })
    }

    /// Posts the receives of a chain, with one call and without looking at them again.
    ///
    /// # Errors
    ///
    /// As [`post_recv`](Self::post_recv).
    ///
    /// # Safety
    ///
    /// That of [`post_recv`](Self::post_recv), for each request of the chain.
    #[doc(alias = "ibv_post_recv")]
    #[inline]
    pub unsafe fn post_chain(&mut self, chain: &mut RecvChain) -> Result<()>
    where
        S: CanReceive,
    {
        let core = self.core_mut();
        let granted = core.prepare_recv()?;
        post_chain(chain, granted, "ibv_post_recv", |first, bad| {
            // SAFETY: as in `post_recv`.
            unsafe { core.post_recv(first, bad) }
        })
    }
}
