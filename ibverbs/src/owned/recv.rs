//! Posting buffers to receive into.

use super::buffer::Buffer;
use super::table::Ring;
use crate::error::{Error, Failed, Result};
use crate::ffi;
use crate::post::{call_and_explain, link, PostCall};

/// How many receives are posted by one call.
const MAX_CHAIN: usize = 32;

/// Why a buffer cannot be posted to a queue of the domain `domain`.
fn check(buffer: &Buffer, domain: usize) -> Result<()> {
    if buffer.domain() != domain {
        return Err(Error::ProtectionDomainMismatch { what: "buffer" });
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

/// Posts one buffer to the queue of this ring, which is of the domain `domain`.
#[inline]
pub(super) fn post_one(
    ring: &mut Ring,
    domain: usize,
    user: u64,
    buffer: Buffer,
    verb: &'static str,
    call: impl PostCall,
) -> Result<(), Failed<Option<Buffer>>> {
    if let Err(error) = check(&buffer, domain) {
        return Err(Failed { resource: Some(buffer), error });
    }
    let mut entry = buffer.entry(buffer.len() as u32);
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

/// Posts buffers to the queue of this ring, which was granted `granted` scatter entries, as [`post_one`] does, and takes those
/// out that are posted.
pub(super) fn post_all(
    ring: &mut Ring,
    domain: usize,
    granted: u32,
    receives: &mut Vec<(u64, Buffer)>,
    verb: &'static str,
    mut call: impl FnMut(*mut ffi::ibv_recv_wr, &mut *mut ffi::ibv_recv_wr) -> i32,
) -> Result<()> {
    let requested = receives.len();
    while !receives.is_empty() {
        let posted = requested - receives.len();
        post_some(ring, domain, granted, receives, verb, &mut call).map_err(
            |error| match error {
                Error::PostReceive { verb, accepted, source, .. } => {
                    Error::PostReceive { verb, accepted: posted + accepted, requested, source }
                }
                other => other,
            },
        )?;
    }
    Ok(())
}

/// Posts as many of the buffers as go into one chain, at least one.
fn post_some(
    ring: &mut Ring,
    domain: usize,
    granted: u32,
    receives: &mut Vec<(u64, Buffer)>,
    verb: &'static str,
    call: impl PostCall,
) -> Result<()> {
    let room = ring.room(MAX_CHAIN);
    let is_ours = |(_, buffer): &&(u64, Buffer)| buffer.domain() == domain;
    let len = receives.iter().take(room).take_while(is_ours).count();
    if len == 0 {
        return Err(match receives.first() {
            Some((_, buffer)) if room > 0 => check(buffer, domain).err().unwrap_or(full(ring)),
            _ => full(ring),
        });
    }
    let mut entries = [ffi::ibv_sge::default(); MAX_CHAIN];
    let mut chain = [ffi::ibv_recv_wr::default(); MAX_CHAIN];
    for ((user, buffer), (entry, request)) in
        receives.drain(..len).zip(entries.iter_mut().zip(&mut chain))
    {
        *entry = buffer.entry(buffer.len() as u32);
        let id = ring.stage(user, true, buffer).expect("there is room for as many as were counted");
        *request = describe(id, entry);
    }
    let ids = chain.map(|request| request.wr_id);
    // From here on the chain is accessed through this pointer alone.
    let first = chain.as_mut_ptr();
    // SAFETY: they are the first `len` of the chain, which nobody else has.
    unsafe { link(first, len, granted) }?;
    call_and_explain(first, len, verb, call).inspect_err(|error| {
        let Error::PostReceive { accepted, .. } = error else { return };
        let refused = ids[*accepted..len].iter().copied();
        // SAFETY: the provider says that it has not taken these requests, which were staged last.
        receives.splice(0..0, unsafe { ring.unstage(refused) });
    })
}
