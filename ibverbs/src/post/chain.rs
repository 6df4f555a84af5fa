//! Receive requests that are linked once and posted again and again.

use std::fmt;
use std::ptr;
use std::slice;

use super::recv::{failure, too_many_entries, PostCall, RecvRequest};
use crate::error::Result;
use crate::ffi;

/// Receive requests, with their scatter lists, linked to a chain.
///
/// Posting it does not look at each request again: for a program that posts the same receives over and over. If
/// only a part is taken ([`PostReceive`](crate::Error::PostReceive)), the rest is posted as a batch of requests.
///
/// # Examples
///
/// ```no_run
/// # use ibverbs::{MemoryRegion, QueuePair, Rc, RecvChain, RecvRequest, Result};
/// # fn post(qp: &mut QueuePair<Rc>, region: &MemoryRegion) -> Result<()> {
/// let slices: Vec<_> = (0..32).map(|i| [region.slice(i * 64..(i + 1) * 64)]).collect();
/// let requests = slices.iter().zip(0..).map(|(slice, id)| RecvRequest::new(id, slice));
/// let mut chain = RecvChain::new(requests);
/// // SAFETY: the region is not touched before the completions of all 32 are polled.
/// unsafe { qp.post_chain(&mut chain) }?;
/// # Ok(())
/// # }
/// ```
pub struct RecvChain {
    requests: Vec<ffi::ibv_recv_wr>,
    /// What the requests point to.
    _entries: Vec<ffi::ibv_sge>,
    /// The longest scatter list among them.
    max_sge: u32,
    /// Where a provider tells which request it refused, as it must when it fails; null at first and after a failure. At a place of its own: where a call is given
    /// a pointer into this, the compiler must load the rest again.
    bad: Box<*mut ffi::ibv_recv_wr>,
}

// SAFETY: the pointers in it lead to its own vectors, which nobody else accesses and which are neither
// written nor moved to another address after `new`; but for `bad`, which is read while it is posted only.
unsafe impl Send for RecvChain {}
// SAFETY: as above; through a shared reference nothing but its length is read.
unsafe impl Sync for RecvChain {}

impl RecvChain {
    /// Links requests to a chain, in this order. Their scatter lists are copied.
    pub fn new<'a>(requests: impl IntoIterator<Item = RecvRequest<'a>>) -> RecvChain {
        let mut entries = Vec::new();
        let mut chain = Vec::new();
        let mut max_sge = 0;
        for request in requests {
            let mut raw = request.to_raw();
            if raw.num_sge > 0 {
                // SAFETY: the list is what `RecvRequest::new` borrowed, which the request still does: at least
                // `num_sge` entries.
                entries.extend_from_slice(unsafe {
                    slice::from_raw_parts(raw.sg_list, raw.num_sge as usize)
                });
            }
            // A list is never of negative length: see `RecvRequest::new`.
            max_sge = max_sge.max(raw.num_sge as u32);
            raw.sg_list = ptr::null_mut();
            chain.push(raw);
        }
        let (mut list, mut next) = (entries.as_mut_ptr(), chain.as_mut_ptr());
        let last = chain.len().saturating_sub(1);
        for (index, raw) in chain.iter_mut().enumerate() {
            raw.sg_list = list;
            // Neither is read beyond its end: the last request has no next one, and no list.
            list = list.wrapping_add(raw.num_sge as usize);
            next = next.wrapping_add(1);
            raw.next = if index < last { next } else { ptr::null_mut() };
        }
        RecvChain { requests: chain, _entries: entries, max_sge, bad: Box::new(ptr::null_mut()) }
    }

    /// How many requests it has.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether it has no request, so that posting it does nothing.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }
}

impl fmt::Debug for RecvChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvChain").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Posts a chain to a queue that was granted `granted` scatter entries.
#[inline]
pub(crate) fn post_chain(
    chain: &mut RecvChain,
    granted: u32,
    verb: &'static str,
    call: impl PostCall,
) -> Result<()> {
    if chain.max_sge > granted {
        return Err(too_many_entries(chain.max_sge, granted));
    }
    if chain.requests.is_empty() {
        return Ok(());
    }
    let first = chain.requests.as_mut_ptr();
    let code = call(first, &mut chain.bad);
    if code == 0 {
        return Ok(());
    }
    let bad = std::mem::replace(&mut *chain.bad, ptr::null_mut());
    Err(failure(first, chain.len(), verb, bad, code))
}
