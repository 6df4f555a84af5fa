//! Receive requests of the shared level.

use std::{ptr, slice};

use super::level::Shared;
use super::recv::{call_and_explain, link, too_many_entries, PostCall, RecvRequest};
use crate::error::{Error, Result};
use crate::ffi;
use crate::mr::SharedSlice;
use crate::qp::{CanReceive, QueuePair, State, Transport};

/// How many scatter entries a receive of this level may have, also where more were granted: they are copied together.
const MAX_ENTRIES: u32 = 64;
/// How many receives with several entries are posted by one call.
const MAX_CHAIN: usize = 32;

impl<'a> RecvRequest<'a, Shared> {
    /// A request that fills slices of a [`SharedRegion`](crate::SharedRegion) one after the other. Its completion
    /// carries `wr_id`.
    #[inline]
    pub fn shared(wr_id: u64, slices: &'a [SharedSlice<'a>]) -> RecvRequest<'a, Shared> {
        let mut request = RecvRequest::of_list(wr_id, slices);
        request.set_domain(if let [slice] = slices { Some(slice.domain()) } else { None });
        request
    }

    #[inline]
    fn slices(&self) -> &[SharedSlice<'a>] {
        // A list is never of negative length: see `of_list`. One that was too long for an int is cut off.
        let (list, len) = (self.sg_list.cast_const().cast(), self.num_sge as usize);
        // SAFETY: the list is what `shared` borrowed, which the request still does: at least `num_sge` slices.
        unsafe { slice::from_raw_parts(list, len) }
    }
}

impl<T: Transport, S: State> QueuePair<T, S> {
    /// Posts receive requests for shared memory: an array, a `Vec` or a `&mut` slice. Those that have one scatter
    /// entry each are posted with one call, others with a call for every 32 requests or 64 entries.
    ///
    /// # Errors
    ///
    /// - [`Error::TooManyScatterEntries`] if a request has more entries than the queue was created with, or more than
    ///   64; nothing is posted then.
    /// - [`Error::ProtectionDomainMismatch`] if an entry is of another domain than the queue pair; nothing is posted
    ///   then.
    /// - [`Error::NoReceiveQueue`] if the queue pair takes its receives from a
    ///   [`SharedReceiveQueue`](crate::SharedReceiveQueue).
    /// - [`Error::PostReceive`] if the device refuses, most often because the receive queue is full. It
    ///   tells how many of the requests, from the first, may complete.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # #![forbid(unsafe_code)]
    /// # use ibverbs::{QueuePair, Rc, RecvRequest, Result, SharedRegion};
    /// # fn post(qp: &mut QueuePair<Rc>, region: &SharedRegion) -> Result<()> {
    /// let slots: Vec<_> = (0..32).map(|i| [region.slice(i * 64..(i + 1) * 64)]).collect();
    /// let mut requests: Vec<_> =
    ///     slots.iter().zip(0..).map(|(slot, id)| RecvRequest::shared(id, slot)).collect();
    /// qp.post_recv_shared(&mut requests)
    /// # }
    /// ```
    #[doc(alias = "ibv_post_recv")]
    #[inline]
    pub fn post_recv_shared<'a>(
        &mut self,
        mut requests: impl AsMut<[RecvRequest<'a, Shared>]>,
    ) -> Result<()>
    where
        S: CanReceive,
    {
        let core = self.core_mut();
        let granted = core.prepare_recv()?;
        let domain = core.domain();
        // Once: what `as_mut` returns the next time may be another slice.
        post_shared(requests.as_mut(), granted, domain, "ibv_post_recv", |first, bad| {
            // SAFETY: the chain is valid, as `PostCall` says. The memory is of the queue pair's domain, stays registered for as long as the queue
            // pair is alive, and nobody has a reference to it.
            unsafe { core.post_recv(first, bad) }
        })
    }
}

/// Posts requests to a queue of the domain `domain` that was granted `granted` scatter entries.
#[inline]
pub(crate) fn post_shared(
    requests: &mut [RecvRequest<'_, Shared>],
    granted: u32,
    domain: usize,
    verb: &'static str,
    mut call: impl PostCall + FnMut(*mut ffi::ibv_recv_wr, &mut *mut ffi::ibv_recv_wr) -> i32,
) -> Result<()> {
    let (first, len) = (requests.as_mut_ptr(), requests.len());
    // No domain is told by zero: without room for an entry all are looked at more closely.
    let domain = if granted > 0 { domain } else { 0 };
    for index in 0..len {
        // SAFETY: the index is below their number.
        let request = unsafe { first.add(index) };
        // SAFETY: it points to one of the requests, which are borrowed exclusively, and from here on accessed through
        // `first` alone, or not any more.
        let request = unsafe { &mut *request };
        // SAFETY: it is of this level.
        if unsafe { request.single() } != domain {
            return post_others(requests, granted, domain, verb, call);
        }
        request.next.write(first.wrapping_add(index + 1).cast());
    }
    if len == 0 {
        return Ok(());
    }
    let last = first.wrapping_add(len - 1);
    // SAFETY: as above.
    unsafe { (*last).next.write(ptr::null_mut()) };
    // A `RecvRequest` is an `ibv_recv_wr` (`repr(transparent)`); and a `SharedSlice` begins with its `ibv_sge`
    // (`repr(C)`), so that a pointer to one is a list of one entry.
    call_and_explain(first.cast(), len, verb, &mut call)
}

/// The same, if there is a request that has not one entry, or one of another domain.
#[cold]
#[inline(never)]
fn post_others(
    requests: &mut [RecvRequest<'_, Shared>],
    granted: u32,
    domain: usize,
    verb: &'static str,
    mut call: impl FnMut(*mut ffi::ibv_recv_wr, &mut *mut ffi::ibv_recv_wr) -> i32,
) -> Result<()> {
    let max = granted.min(MAX_ENTRIES);
    for request in &*requests {
        check(request.slices(), max, domain)?;
    }
    if requests.iter().any(|request| request.slices().len() > 1) {
        return post_scattered(requests, verb, call);
    }
    let (first, len) = (requests.as_mut_ptr().cast::<ffi::ibv_recv_wr>(), requests.len());
    // SAFETY: a `RecvRequest` is an `ibv_recv_wr`, all of which but `next` is initialized; these are borrowed exclusively,
    // and from here on accessed through `first` alone.
    unsafe { link(first, len, max) }?;
    call_and_explain(first, len, verb, &mut call)
}

/// That a list is not longer than `max`, and of the domain `domain`.
fn check(slices: &[SharedSlice<'_>], max: u32, domain: usize) -> Result<()> {
    if slices.len() > max as usize {
        return Err(too_many_entries(slices.len() as u32, max));
    }
    if slices.iter().any(|slice| slice.domain() != domain) {
        return Err(Error::ProtectionDomainMismatch { what: "shared region" });
    }
    Ok(())
}

/// Posts requests with several entries, which lie further apart than the entries of a list do: copies of them.
fn post_scattered(
    requests: &[RecvRequest<'_, Shared>],
    verb: &'static str,
    mut call: impl FnMut(*mut ffi::ibv_recv_wr, &mut *mut ffi::ibv_recv_wr) -> i32,
) -> Result<()> {
    let mut done = 0;
    while done < requests.len() {
        let mut entries = [ffi::ibv_sge::default(); MAX_ENTRIES as usize];
        let mut chain = [ffi::ibv_recv_wr::default(); MAX_CHAIN];
        let (mut len, mut used) = (0, 0);
        for (request, copy) in requests[done..].iter().zip(&mut chain) {
            let slices = request.slices();
            let Some(list) = entries.get_mut(used..used + slices.len()) else { break };
            for (entry, slice) in list.iter_mut().zip(slices) {
                *entry = *slice.entry().raw();
            }
            (copy.wr_id, copy.num_sge) = (request.wr_id(), slices.len() as i32);
            (len, used) = (len + 1, used + slices.len());
        }
        // From here on both are accessed through these pointers alone.
        let (mut list, first) = (entries.as_mut_ptr(), chain.as_mut_ptr());
        for index in 0..len {
            // SAFETY: the index is below the length of the chain, which nobody else has.
            let copy = unsafe { first.add(index) };
            // SAFETY: as above.
            let copy = unsafe { &mut *copy };
            copy.sg_list = list;
            list = list.wrapping_add(copy.num_sge as usize);
        }
        // SAFETY: they are the first `len` of the chain, which nobody else has.
        unsafe { link(first, len, MAX_ENTRIES) }?;
        if let Err(error) = call_and_explain(first, len, verb, &mut call) {
            return Err(match error {
                Error::PostReceive { verb, accepted, source, .. } => Error::PostReceive {
                    verb,
                    accepted: done + accepted,
                    requested: requests.len(),
                    source,
                },
                other => other,
            });
        }
        done += len;
    }
    Ok(())
}
