//! Posting buffers to receive into.

use std::mem::MaybeUninit;

use super::buffer::Buffer;
use super::table::Ring;
use crate::error::{Error, Failed, Result};
use crate::ffi;
use crate::post::{call_and_explain, link, PostCall};

/// How many receives are posted by one call.
const MAX_CHAIN: usize = 32;

/// Why a buffer cannot be posted to a queue of the domain `domain` that was granted `granted` scatter entries.
#[inline]
fn check(buffer: &Buffer, domain: usize, granted: u32) -> Result<()> {
    if buffer.domain() != domain {
        return Err(Error::ProtectionDomainMismatch { what: "buffer" });
    }
    if granted == 0 {
        return Err(Error::TooManyScatterEntries { queue: "receive", entries: 1, granted });
    }
    Ok(())
}

/// The error of a receive queue without an empty place.
#[cold]
fn full(ring: &Ring) -> Error {
    Error::QueueFull { queue: "receive", capacity: ring.capacity() }
}

/// A request of one entry, or of none.
fn describe(id: u64, entry: &mut ffi::ibv_sge) -> ffi::ibv_recv_wr {
    ffi::ibv_recv_wr { wr_id: id, next: std::ptr::null_mut(), sg_list: entry, num_sge: 1 }
}

/// Posts one buffer to the queue of this ring, which is of the domain `domain` and was granted `granted` scatter entries.
#[inline]
pub(super) fn post_one(
    ring: &mut Ring,
    domain: usize,
    granted: u32,
    user: u64,
    buffer: Buffer,
    verb: &'static str,
    call: impl PostCall,
) -> Result<(), Failed<Option<Buffer>>> {
    if let Err(error) = check(&buffer, domain, granted) {
        return Err(Failed { resource: Some(buffer), error });
    }
    let mut entry = buffer.entry(buffer.size());
    let id = match ring.stage(user, true, buffer) {
        Ok(id) => id,
        Err(buffer) => return Err(Failed { resource: Some(buffer), error: full(ring) }),
    };
    let mut request = describe(id, &mut entry);
    call_and_explain(&mut request, 1, verb, call).map_err(|error| {
        let resource = match error {
            // SAFETY: the provider says that it has not taken the request, which was staged last.
            Error::PostReceive { accepted: 0, .. } => unsafe { ring.unstage([id]) }.pop(),
            _ => None,
        };
        Failed { resource: resource.map(|(_, buffer)| buffer), error }
    })
}

/// Posts buffers to the queue of this ring, as [`post_one`] does, and takes those out that are posted.
pub(super) fn post_all(
    ring: &mut Ring,
    domain: usize,
    granted: u32,
    receives: &mut Vec<(u64, Buffer)>,
    verb: &'static str,
    mut call: impl FnMut(*mut ffi::ibv_recv_wr, &mut *mut ffi::ibv_recv_wr) -> i32,
) -> Result<()> {
    let requested = receives.len();
    // The first is the first to be taken.
    receives.reverse();
    let mut result = Ok(());
    while !receives.is_empty() && result.is_ok() {
        let posted = requested - receives.len();
        result = post_some(ring, domain, granted, receives, verb, &mut call);
        if let Err(Error::PostReceive { accepted, requested: of, .. }) = &mut result {
            (*accepted, *of) = (*accepted + posted, requested);
        }
    }
    receives.reverse();
    result
}

/// Posts as many of the buffers, from the last, as go into one chain, at least one.
fn post_some(
    ring: &mut Ring,
    domain: usize,
    granted: u32,
    receives: &mut Vec<(u64, Buffer)>,
    verb: &'static str,
    call: impl PostCall,
) -> Result<()> {
    let mut entries = [const { MaybeUninit::<ffi::ibv_sge>::uninit() }; MAX_CHAIN];
    let mut chain = [const { MaybeUninit::<ffi::ibv_recv_wr>::uninit() }; MAX_CHAIN];
    let (mut len, mut refused) = (0, None);
    for (entry, request) in entries.iter_mut().zip(&mut chain) {
        let Some((user, buffer)) = receives.pop() else { break };
        if let Err(error) = check(&buffer, domain, granted) {
            receives.push((user, buffer));
            refused = Some(error);
            break;
        }
        let described = buffer.entry(buffer.size());
        match ring.stage(user, true, buffer) {
            Ok(id) => request.write(describe(id, entry.write(described))),
            Err(buffer) => {
                receives.push((user, buffer));
                refused = Some(full(ring));
                break;
            }
        };
        len += 1;
    }
    if len > 0 {
        // From here on the chain is accessed through this pointer alone.
        let first = chain.as_mut_ptr().cast::<ffi::ibv_recv_wr>();
        // SAFETY: they are the first `len` of the chain, which were written, and which nobody else has.
        unsafe { link(first, len, granted) }?;
        call_and_explain(first, len, verb, call).inspect_err(|error| {
            let Error::PostReceive { accepted, .. } = error else { return };
            let refused = (*accepted..len).map(|index| {
                let request = first.wrapping_add(index);
                // SAFETY: it is of the first `len` of the chain, and the provider does not write identifiers.
                unsafe { (*request).wr_id }
            });
            // SAFETY: the provider says that it has not taken these requests, which were staged last.
            receives.extend(unsafe { ring.unstage(refused) }.into_iter().rev());
        })?;
    }
    refused.map_or(Ok(()), Err)
}
