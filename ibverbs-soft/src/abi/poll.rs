//! Polling, and what a completion says.

use std::ffi::c_int;
use std::time::Duration;

use ibverbs_sys as ffi;
use rustix::io::Errno;
use rustix::time::{clock_gettime, ClockId};

use super::ah::NO_HANDLE;
use super::context::Shared;
use super::cq::{Cq, Queue};
use super::object::object;
use super::route::gid;
use crate::device::{Entry, Result};
use crate::transport::{Completion, CompletionKind, Status};

/// Sets the functions of a queue: those of the standard fields, and of the others that are wanted.
pub(super) fn set_functions(cq: &mut ffi::ibv_cq_ex, fields: u64) {
    cq.start_poll = Some(start_poll);
    cq.next_poll = Some(next_poll);
    cq.end_poll = Some(end_poll);
    cq.read_opcode = Some(read_opcode);
    cq.read_vendor_err = Some(read_vendor_err);
    cq.read_byte_len = Some(read_byte_len);
    cq.read_imm_data = Some(read_imm_data);
    cq.read_qp_num = Some(read_qp_num);
    cq.read_src_qp = Some(read_src_qp);
    cq.read_wc_flags = Some(read_wc_flags);
    cq.read_slid = Some(read_slid);
    cq.read_sl = Some(read_sl);
    cq.read_dlid_path_bits = Some(read_dlid_path_bits);
    let wants = |flag: ffi::ibv_create_cq_wc_flags| fields & u64::from(flag) != 0;
    if wants(ffi::IBV_WC_EX_WITH_COMPLETION_TIMESTAMP) {
        cq.read_completion_ts = Some(read_completion_ts);
    }
    if wants(ffi::IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK) {
        cq.read_completion_wallclock_ns = Some(read_completion_wallclock_ns);
    }
}

/// What a queue has at the moment, as verbs tell it: a queue that has lost completions has none any more, as on adapters, and
/// its event has told so.
fn found(result: Result<Option<Entry>>) -> Result<Entry> {
    match result {
        Ok(Some(entry)) => Ok(entry),
        Ok(None) | Err(Errno::OVERFLOW) => Err(Errno::NOENT),
        Err(errno) => Err(errno),
    }
}

/// Makes an entry the one that the program reads.
///
/// # Safety
///
/// The lock of the poll is held.
unsafe fn show(cq: &Cq, entry: Entry) {
    let raw = cq.raw();
    // SAFETY: the queue is alive, and the field belongs to the poll, whose lock is held.
    unsafe { (*raw).wr_id = entry.completion.wr_id };
    // SAFETY: as above.
    unsafe { (*raw).status = status(entry.completion.status) };
    // SAFETY: as above; nobody has a reference to it.
    unsafe { cq.current.get().write(Some(entry)) };
}

unsafe extern "C" fn start_poll(
    cq: *mut ffi::ibv_cq_ex,
    attr: *mut ffi::ibv_poll_cq_attr,
) -> c_int {
    // SAFETY: the queue is alive (ibv_create_cq_ex(3)).
    let cq = unsafe { object::<Cq>(cq) };
    // SAFETY: it is null, or points to a whole structure (ibv_create_cq_ex(3)).
    if unsafe { attr.as_ref() }.is_some_and(|attr| attr.comp_mask != 0) {
        return libc::EINVAL;
    }
    let Queue { id, shared } = &*cq.queue;
    if let Err(errno) = cq.polling.acquire(&shared.device) {
        return errno.raw_os_error();
    }
    match found(shared.device.poll_cq(*id)) {
        Ok(entry) => {
            // SAFETY: the lock was taken above.
            unsafe { show(cq, entry) };
            0
        }
        Err(errno) => {
            cq.polling.release();
            errno.raw_os_error()
        }
    }
}

unsafe extern "C" fn next_poll(cq: *mut ffi::ibv_cq_ex) -> c_int {
    // SAFETY: the queue is alive (ibv_create_cq_ex(3)).
    let cq = unsafe { object::<Cq>(cq) };
    let Queue { id, shared } = &*cq.queue;
    match found(shared.device.poll_more(*id)) {
        Ok(entry) => {
            // SAFETY: a poll is open (ibv_create_cq_ex(3)): the caller has its lock.
            unsafe { show(cq, entry) };
            0
        }
        Err(errno) => errno.raw_os_error(),
    }
}

unsafe extern "C" fn end_poll(cq: *mut ffi::ibv_cq_ex) {
    // SAFETY: the queue is alive (ibv_create_cq_ex(3)).
    unsafe { object::<Cq>(cq) }.polling.release();
}

/// The operation of `ibv_context`.
pub(super) unsafe extern "C" fn poll_cq(
    cq: *mut ffi::ibv_cq,
    len: c_int,
    wc: *mut ffi::ibv_wc,
) -> c_int {
    // SAFETY: the queue is alive (ibv_poll_cq(3)).
    let cq = unsafe { object::<Cq>(cq.cast()) };
    let Queue { id, shared } = &*cq.queue;
    let device = &shared.device;
    if let Err(errno) = cq.polling.acquire(device) {
        return -errno.raw_os_error();
    }
    let mut count = 0;
    let mut failure = None;
    while count < len {
        let entry = if count == 0 { device.poll_cq(*id) } else { device.poll_more(*id) };
        match found(entry) {
            Ok(entry) => {
                // SAFETY: the array has `len` entries (ibv_poll_cq(3)), and this is one of them.
                unsafe { wc.wrapping_add(count as usize).write(plain(shared, &entry.completion)) };
                count += 1;
            }
            Err(errno) => {
                failure = Some(errno).filter(|errno| *errno != Errno::NOENT);
                break;
            }
        }
    }
    cq.polling.release();
    match failure {
        Some(errno) if count == 0 => -errno.raw_os_error(),
        _ => count,
    }
}

/// A completion as the classic interface tells it.
fn plain(shared: &Shared, completion: &Completion) -> ffi::ibv_wc {
    let mut wc = ffi::ibv_wc {
        wr_id: completion.wr_id,
        status: status(completion.status),
        opcode: opcode(completion.kind),
        byte_len: completion.len,
        qp_num: completion.qp_num,
        src_qp: completion.src_qp,
        vendor_err: completion.vendor_error,
        slid: slid(shared, completion),
        wc_flags: flags(completion),
        ..Default::default()
    };
    wc.__bindgen_anon_1.imm_data = imm_or_key(completion);
    wc
}

fn status(status: Status) -> ffi::ibv_wc_status {
    match status {
        Status::Success => ffi::IBV_WC_SUCCESS,
        Status::LocalLength => ffi::IBV_WC_LOC_LEN_ERR,
        Status::LocalQpOperation => ffi::IBV_WC_LOC_QP_OP_ERR,
        Status::LocalProtection => ffi::IBV_WC_LOC_PROT_ERR,
        Status::WorkRequestFlushed => ffi::IBV_WC_WR_FLUSH_ERR,
        Status::WindowBind => ffi::IBV_WC_MW_BIND_ERR,
        Status::BadResponse => ffi::IBV_WC_BAD_RESP_ERR,
        Status::LocalAccess => ffi::IBV_WC_LOC_ACCESS_ERR,
        Status::RemoteInvalidRequest => ffi::IBV_WC_REM_INV_REQ_ERR,
        Status::RemoteAccess => ffi::IBV_WC_REM_ACCESS_ERR,
        Status::RemoteOperation => ffi::IBV_WC_REM_OP_ERR,
        Status::RetryExceeded => ffi::IBV_WC_RETRY_EXC_ERR,
        Status::RnrRetryExceeded => ffi::IBV_WC_RNR_RETRY_EXC_ERR,
        Status::RemoteInvalidRdRequest => ffi::IBV_WC_REM_INV_RD_REQ_ERR,
        Status::Unresponsive | Status::Unreachable => ffi::IBV_WC_RESP_TIMEOUT_ERR,
    }
}

fn opcode(kind: CompletionKind) -> ffi::ibv_wc_opcode {
    match kind {
        CompletionKind::Send => ffi::IBV_WC_SEND,
        CompletionKind::Write => ffi::IBV_WC_RDMA_WRITE,
        CompletionKind::Read => ffi::IBV_WC_RDMA_READ,
        CompletionKind::CompareSwap => ffi::IBV_WC_COMP_SWAP,
        CompletionKind::FetchAdd => ffi::IBV_WC_FETCH_ADD,
        CompletionKind::Bind => ffi::IBV_WC_BIND_MW,
        CompletionKind::LocalInvalidate => ffi::IBV_WC_LOCAL_INV,
        CompletionKind::Recv => ffi::IBV_WC_RECV,
        CompletionKind::RecvWriteWithImm => ffi::IBV_WC_RECV_RDMA_WITH_IMM,
    }
}

fn flags(completion: &Completion) -> u32 {
    let flag = |has, flag| if has { flag } else { 0 };
    flag(completion.grh, ffi::IBV_WC_GRH)
        | flag(completion.imm.is_some(), ffi::IBV_WC_WITH_IMM)
        | flag(completion.invalidated.is_some(), ffi::IBV_WC_WITH_INV)
}

/// Immediate data in network byte order, or the key that was invalidated: they share a place.
fn imm_or_key(completion: &Completion) -> ffi::__be32 {
    completion.imm.map(u32::to_be).or(completion.invalidated).unwrap_or(0)
}

/// Reads the completion at hand.
///
/// # Safety
///
/// The queue is alive, and the caller has it open for a poll.
unsafe fn current<R: Default>(cq: *mut ffi::ibv_cq_ex, read: impl FnOnce(&Entry) -> R) -> R {
    // SAFETY: by the caller's promise.
    let cq = unsafe { object::<Cq>(cq) };
    // SAFETY: it belongs to the caller, who has the lock of the poll by his promise.
    unsafe { &*cq.current.get() }.as_ref().map(read).unwrap_or_default()
}

/// Functions that read a field of the completion at hand.
macro_rules! readers {
    ($($name:ident: $type:ty = |$entry:pat_param| $value:expr;)*) => {
        $(
            unsafe extern "C" fn $name(cq: *mut ffi::ibv_cq_ex) -> $type {
                // SAFETY: the queue is alive, and a poll is open (ibv_create_cq_ex(3)).
                unsafe { current(cq, |$entry| $value) }
            }
        )*
    };
}

readers! {
    read_opcode: ffi::ibv_wc_opcode = |entry| opcode(entry.completion.kind);
    read_vendor_err: u32 = |entry| entry.completion.vendor_error;
    read_byte_len: u32 = |entry| entry.completion.len;
    read_imm_data: ffi::__be32 = |entry| imm_or_key(&entry.completion);
    read_qp_num: u32 = |entry| entry.completion.qp_num;
    read_src_qp: u32 = |entry| entry.completion.src_qp;
    read_wc_flags: u32 = |entry| flags(&entry.completion);
    read_sl: u8 = |_| 0;
    read_dlid_path_bits: u8 = |_| 0;
    read_completion_ts: u64 = |entry| entry.timestamp;
    read_completion_wallclock_ns: u64 = |entry| wallclock(entry.timestamp);
}

/// The number of the address handle for the sender of a reliable datagram, or one that none has. There are no local identifiers here.
fn slid(shared: &Shared, completion: &Completion) -> u16 {
    completion.source.map_or(0, |source| shared.handles.number_of(source).unwrap_or(NO_HANDLE))
}

unsafe extern "C" fn read_slid(cq: *mut ffi::ibv_cq_ex) -> u32 {
    // SAFETY: the queue is alive (ibv_create_cq_ex(3)).
    let shared = &unsafe { object::<Cq>(cq) }.queue.shared;
    // SAFETY: the queue is alive, and a poll is open (ibv_create_cq_ex(3)).
    unsafe { current(cq, |entry| slid(shared, &entry.completion).into()) }
}

/// The GID of the sender of a reliable datagram, if there is no address handle for it; `-ENOENT` if there is, as on EFA.
///
/// # Safety
///
/// The queue is alive, and a poll is open; there is room for a GID.
pub(super) unsafe fn read_sgid(cq: *mut ffi::ibv_cq_ex, to: *mut ffi::ibv_gid) -> c_int {
    // SAFETY: by the caller's promise.
    let shared = &unsafe { object::<Cq>(cq) }.queue.shared;
    // SAFETY: by the caller's promise.
    let source = unsafe { current(cq, |entry| entry.completion.source) };
    match source.filter(|source| shared.handles.number_of(*source).is_none()) {
        Some(source) => {
            // SAFETY: by the caller's promise.
            unsafe { to.write(ffi::ibv_gid { raw: gid(source) }) };
            0
        }
        None => -libc::ENOENT,
    }
}

/// When that was, in nanoseconds since the epoch.
fn wallclock(timestamp: u64) -> u64 {
    let now = |clock| {
        let time = clock_gettime(clock);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32).as_nanos() as u64
    };
    let age = now(ClockId::Monotonic).saturating_sub(timestamp);
    now(ClockId::Realtime).saturating_sub(age)
}
