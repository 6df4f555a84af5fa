//! Posting sends through the classic interface, and what both have in common.

use std::ffi::c_int;

use ibverbs_sys as ffi;
use rustix::io::Errno;

use super::ah::path_of;
use super::mw;
use super::object::object;
use super::qp::Qp;
use crate::device::{limits, Posted, Result};
use crate::transport::{DatagramTarget, Payload, SendOperation, SendRequest, Sge, SrdOperation};
use crate::wire::Service;

/// The operation of `ibv_context`.
pub(super) unsafe extern "C" fn post_send(
    qp: *mut ffi::ibv_qp,
    wr: *mut ffi::ibv_send_wr,
    bad_wr: *mut *mut ffi::ibv_send_wr,
) -> c_int {
    // SAFETY: the queue pair is alive (ibv_post_send(3)).
    let qp = unsafe { object::<Qp>(qp.cast()) };
    // SAFETY: the chain is valid (ibv_post_send(3)).
    let mut requests = unsafe { chain(wr) }.map(|wr| {
        // SAFETY: it is a request of the chain, and what it points to is valid (ibv_post_send(3)).
        unsafe { request(qp, wr) }
    });
    let posted = qp.device().post_send(qp.number, &mut requests);
    // SAFETY: it is the same chain, and there is room for a pointer (ibv_post_send(3)).
    unsafe { tell(posted, wr, bad_wr) }
}

/// A work request that is linked to the next one.
pub(super) trait Linked: Sized {
    /// The next one, or null.
    fn next(&self) -> *mut Self;
}

impl Linked for ffi::ibv_send_wr {
    fn next(&self) -> *mut Self {
        self.next
    }
}

impl Linked for ffi::ibv_recv_wr {
    fn next(&self) -> *mut Self {
        self.next
    }
}

/// The requests of a chain.
///
/// # Safety
///
/// The pointer is null or points to a request, and so does the one in it. The chain is not changed for as long as the iterator
/// is used.
pub(super) unsafe fn chain<W: Linked>(first: *mut W) -> impl Iterator<Item = *mut W> {
    let existing = |wr: *mut W| (!wr.is_null()).then_some(wr);
    // SAFETY: by the caller's promise.
    std::iter::successors(existing(first), move |&wr| existing(unsafe { &*wr }.next()))
}

/// Tells which request of a chain was refused, if one was, and why.
///
/// # Safety
///
/// That of [`chain`], and there is room for a pointer.
pub(super) unsafe fn tell<W: Linked>(posted: Posted, first: *mut W, bad_wr: *mut *mut W) -> c_int {
    let Err((index, errno)) = posted else { return 0 };
    // SAFETY: by the caller's promise.
    if let Some(wr) = unsafe { chain(first) }.nth(index) {
        // SAFETY: by the caller's promise.
        unsafe { bad_wr.write(wr) };
    }
    errno.raw_os_error()
}

/// Reads a request.
///
/// # Safety
///
/// It is one of `ibv_post_send`.
unsafe fn request(qp: &Qp, wr: *mut ffi::ibv_send_wr) -> Result<SendRequest> {
    // SAFETY: by the caller's promise.
    let wr = unsafe { wr.read() };
    let flags = wr.send_flags;
    const FLAGS: u32 = ffi::IBV_SEND_FENCE
        | ffi::IBV_SEND_SIGNALED
        | ffi::IBV_SEND_SOLICITED
        | ffi::IBV_SEND_INLINE;
    let len = usize::try_from(wr.num_sge).map_err(|_| Errno::INVAL)?;
    if flags & !FLAGS != 0 {
        return Err(Errno::INVAL);
    }
    // SAFETY: the list has so many entries, by the caller's promise.
    let sges = unsafe { sges_of(wr.sg_list, len, qp.cap().max_send_sge) }?;
    let payload = if flags & ffi::IBV_SEND_INLINE != 0 {
        let buffers = sges.iter().map(|sge| (sge.addr as *const u8, sge.len as usize));
        // SAFETY: what is to be sent inline can be read, by the caller's promise.
        Payload::Inline(unsafe { bytes_of(buffers, qp.cap().max_inline_data) }?)
    } else {
        Payload::Sges(sges)
    };
    let request = SendRequest {
        wr_id: wr.wr_id,
        // SAFETY: by the caller's promise.
        operation: unsafe { operation(qp, &wr) }?,
        payload,
        signaled: flags & ffi::IBV_SEND_SIGNALED != 0,
        solicited: flags & ffi::IBV_SEND_SOLICITED != 0,
        fenced: flags & ffi::IBV_SEND_FENCE != 0,
    };
    check(qp, &request)?;
    Ok(request)
}

/// What a request is to do.
///
/// # Safety
///
/// It is one of `ibv_post_send`.
unsafe fn operation(qp: &Qp, wr: &ffi::ibv_send_wr) -> Result<SendOperation> {
    // SAFETY: every bit pattern is valid for a number, used or not; a key to withdraw stands in the same place.
    let number = unsafe { wr.__bindgen_anon_1.imm_data };
    let imm = u32::from_be(number);
    let imm = match wr.opcode {
        ffi::IBV_WR_SEND_WITH_IMM | ffi::IBV_WR_RDMA_WRITE_WITH_IMM => Some(imm),
        _ => None,
    };
    // SAFETY: as above, for this and the next.
    let rdma = unsafe { wr.wr.rdma };
    // SAFETY: as above.
    let atomic = unsafe { wr.wr.atomic };
    Ok(match wr.opcode {
        ffi::IBV_WR_SEND | ffi::IBV_WR_SEND_WITH_IMM if qp.service.is_datagram() => {
            // SAFETY: as above.
            let ud = unsafe { wr.wr.ud };
            // SAFETY: datagrams have an address, by the caller's promise.
            let path = unsafe { path_of(ud.ah) };
            let (remote_qpn, qkey) = (ud.remote_qpn, ud.remote_qkey);
            if qp.service == Service::Srd {
                let to = DatagramTarget { path, remote_qpn, qkey };
                return Ok(SendOperation::Srd { to, operation: SrdOperation::Send { imm } });
            }
            SendOperation::Datagram { path, remote_qpn, qkey, imm }
        }
        ffi::IBV_WR_SEND | ffi::IBV_WR_SEND_WITH_IMM => SendOperation::Send { imm },
        ffi::IBV_WR_SEND_WITH_INV => SendOperation::SendWithInvalidate { rkey: number },
        ffi::IBV_WR_LOCAL_INV => SendOperation::LocalInvalidate { rkey: number },
        ffi::IBV_WR_BIND_MW => {
            // SAFETY: as above.
            let bind = unsafe { wr.__bindgen_anon_2.bind_mw };
            // SAFETY: the window and the region are alive, by the caller's promise.
            unsafe { mw::of_type_2(qp, bind.mw, bind.rkey, &bind.bind_info) }?
        }
        ffi::IBV_WR_RDMA_WRITE | ffi::IBV_WR_RDMA_WRITE_WITH_IMM => {
            SendOperation::Write { addr: rdma.remote_addr, rkey: rdma.rkey, imm }
        }
        ffi::IBV_WR_RDMA_READ => SendOperation::Read { addr: rdma.remote_addr, rkey: rdma.rkey },
        ffi::IBV_WR_ATOMIC_CMP_AND_SWP => SendOperation::CompareSwap {
            addr: atomic.remote_addr,
            rkey: atomic.rkey,
            compare: atomic.compare_add,
            swap: atomic.swap,
        },
        ffi::IBV_WR_ATOMIC_FETCH_AND_ADD => SendOperation::FetchAdd {
            addr: atomic.remote_addr,
            rkey: atomic.rkey,
            add: atomic.compare_add,
        },
        _ => return Err(Errno::INVAL),
    })
}

/// Whether the queue pair's service has such a request.
pub(super) fn check(qp: &Qp, request: &SendRequest) -> Result<()> {
    const ATOMIC: u64 = 8;
    let SendRequest { operation, payload, .. } = request;
    let inline = matches!(payload, Payload::Inline(_));
    let good = match (qp.service, operation) {
        (Service::Ud, SendOperation::Datagram { .. }) => true,
        (Service::Srd, SendOperation::Srd { operation, .. }) => {
            !request.solicited && !request.fenced && is_of_srd(qp, *operation, payload)
        }
        (Service::Rc | Service::Uc, SendOperation::Send { .. } | SendOperation::Write { .. }) => {
            true
        }
        (Service::Rc, SendOperation::SendWithInvalidate { .. }) => true,
        (
            Service::Rc | Service::Uc,
            SendOperation::Bind(_) | SendOperation::LocalInvalidate { .. },
        ) => payload.is_empty(),
        (Service::Rc, SendOperation::Read { .. }) => !inline,
        (
            Service::Rc,
            SendOperation::CompareSwap { addr, .. } | SendOperation::FetchAdd { addr, .. },
        ) => !inline && payload.len() == ATOMIC && addr % ATOMIC == 0,
        _ => false,
    };
    if good {
        Ok(())
    } else {
        Err(Errno::INVAL)
    }
}

/// Whether a reliable datagram can have this payload.
fn is_of_srd(qp: &Qp, operation: SrdOperation, payload: &Payload) -> bool {
    let fits = match payload {
        Payload::Inline(_) => qp.inline_write,
        Payload::Sges(sges) => sges.len() <= limits::MAX_SRD_RDMA_SGE as usize,
    };
    match operation {
        SrdOperation::Send { .. } => true,
        SrdOperation::Write { .. } => fits,
        SrdOperation::Read { .. } => fits && matches!(payload, Payload::Sges(_)),
    }
}

/// A scatter entry.
pub(super) fn sge(sge: &ffi::ibv_sge) -> Sge {
    Sge { addr: sge.addr, len: sge.length, lkey: sge.lkey }
}

/// The entries of a list that is not longer than was granted.
///
/// # Safety
///
/// It has `len` entries.
pub(super) unsafe fn sges_of(
    list: *const ffi::ibv_sge,
    len: usize,
    granted: u32,
) -> Result<Vec<Sge>> {
    if len > granted as usize {
        return Err(Errno::INVAL);
    }
    let entries = (0..len).map(|index| {
        // SAFETY: there is such an entry, by the caller's promise.
        sge(&unsafe { list.wrapping_add(index).read() })
    });
    Ok(entries.collect())
}

/// A copy of what is in buffers, if it is not more than was granted.
///
/// # Safety
///
/// The buffers can be read.
pub(super) unsafe fn bytes_of(
    buffers: impl Iterator<Item = (*const u8, usize)>,
    granted: u32,
) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for (from, len) in buffers {
        if len > granted as usize - bytes.len() {
            return Err(Errno::INVAL);
        }
        if len > 0 {
            // SAFETY: so many bytes can be read, by the caller's promise, and there are some.
            bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(from, len) });
        }
    }
    Ok(bytes)
}
