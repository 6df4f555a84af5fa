//! Receive requests.

use std::fmt;
use std::marker::PhantomData;
use std::ptr;

use crate::error::{Error, Result};
use crate::ffi;
use crate::mr::LocalMemorySlice;
use crate::qp::{CanReceive, QueuePair, State, Transport};

/// A receive request: where one incoming message goes (`struct ibv_recv_wr`).
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct RecvRequest<'a> {
    raw: ffi::ibv_recv_wr,
    _slices: PhantomData<&'a [LocalMemorySlice]>,
}

// SAFETY: the list pointer in it stands for the shared borrow of a slice of plain numbers, which may
// be used by any thread; the chain pointer is written and read only while the request is borrowed
// exclusively for posting.
unsafe impl Send for RecvRequest<'_> {}
// SAFETY: as above.
unsafe impl Sync for RecvRequest<'_> {}

impl<'a> RecvRequest<'a> {
    /// A request that fills `slices` one after the other. Its completion carries `wr_id`.
    #[inline]
    pub fn new(wr_id: u64, slices: &'a [LocalMemorySlice]) -> RecvRequest<'a> {
        let raw = ffi::ibv_recv_wr {
            wr_id,
            next: ptr::null_mut(),
            sg_list: slices.as_ptr().cast_mut().cast(),
            // A list too long for an int is also longer than any queue grants, and refused for that.
            num_sge: i32::try_from(slices.len()).unwrap_or(i32::MAX),
        };
        RecvRequest { raw, _slices: PhantomData }
    }

    /// The identifier that its completion will carry.
    #[inline]
    pub fn wr_id(&self) -> u64 {
        self.raw.wr_id
    }
}

impl fmt::Debug for RecvRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvRequest")
            .field("wr_id", &self.raw.wr_id)
            .field("num_sge", &self.raw.num_sge)
            .finish()
    }
}

/// Links the requests to a chain, after checking that each has at most `granted` entries.
#[inline]
fn link(requests: &mut [RecvRequest<'_>], granted: u32) -> Result<()> {
    let mut next = ptr::null_mut();
    for request in requests.iter_mut().rev() {
        // A list is never of negative length: see `RecvRequest::new`.
        if request.raw.num_sge as u32 > granted {
            return Err(too_many_entries(request.raw.num_sge, granted));
        }
        request.raw.next = next;
        next = &mut request.raw;
    }
    Ok(())
}

#[cold]
fn too_many_entries(entries: i32, granted: u32) -> Error {
    Error::TooManyScatterEntries { queue: "receive", entries: entries as usize, granted }
}

/// The error of a chain of which the provider refused `bad` and what follows it.
#[cold]
fn partial(
    verb: &'static str,
    requests: &[RecvRequest<'_>],
    bad: *const ffi::ibv_recv_wr,
    code: i32,
) -> Error {
    let place = requests.iter().position(|request| ptr::eq(&request.raw, bad));
    // If the provider does not say which one it refused, it may have taken any of them.
    let accepted = place.unwrap_or(requests.len());
    let source = std::io::Error::from_raw_os_error(if code < 0 { -code } else { code });
    Error::PostReceive { verb, accepted, requested: requests.len(), source }
}

impl<T: Transport, S: State> QueuePair<T, S> {
    /// Posts receive requests, with one call for all of them: an array, a `Vec` or a `&mut` slice.
    ///
    /// # Errors
    ///
    /// - [`Error::TooManyScatterEntries`] if a request has more entries than the queue was created with;
    ///   nothing is posted then.
    /// - [`Error::PostReceive`] if the device refuses, most often because the receive queue is full. It
    ///   tells how many requests were accepted: those are posted.
    ///
    /// # Safety
    ///
    /// For each request that is posted, until its completion is polled, or the queue pair is destroyed
    /// or reset: its memory stays registered and is not unmapped (with the exception that
    /// [`SendBatch::submit`](crate::SendBatch::submit) explains), nobody reads or writes it, and no
    /// reference to it exists.
    #[doc(alias = "ibv_post_recv")]
    #[inline]
    pub unsafe fn post_recv<'a>(
        &mut self,
        mut requests: impl AsMut<[RecvRequest<'a>]>,
    ) -> Result<()>
    where
        S: CanReceive,
    {
        // Once: what `as_mut` returns the next time may be another slice.
        let requests = requests.as_mut();
        let core = self.core_mut();
        link(requests, core.granted().max_recv_sge)?;
        let Some(first) = requests.first_mut() else { return Ok(()) };
        let mut bad = ptr::null_mut();
        let qp = core.raw().cast::<ffi::ibv_qp>();
        let first: *mut ffi::ibv_recv_wr = &mut first.raw;
        // SAFETY: the queue pair is alive, and `ibv_qp_ex` begins with its `ibv_qp`; the chain was linked
        // above and ends in null; its lists are borrowed by the requests. What the device does with the
        // memory is the caller's promise.
        let code = unsafe { ffi::ibv_post_recv(qp, first, &mut bad) };
        if code == 0 {
            Ok(())
        } else {
            Err(partial("ibv_post_recv", requests, bad, code))
        }
    }
}
