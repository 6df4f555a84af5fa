//! The minimal data path, for benchmarks: what a provider cannot do without, and nothing else.
//!
//! Its functions take no lock, look up nothing and allocate nothing; what they need lies in front of
//! the C structures, in the same block of memory. One thread uses a completion queue and all its queue
//! pairs.

use std::ffi::{c_int, c_void};
use std::mem::offset_of;

use ibverbs_sys as ffi;

use crate::controls::Config;
use crate::objects::Block;

/// How many completions a queue holds, and how many signaled requests a batch. More are dropped.
const RING: usize = 512;

/// Where in its block a completion queue begins.
pub(crate) const CQ_OFFSET: usize = offset_of!(CqBlock, cq);
/// Where in its block a queue pair begins.
pub(crate) const QP_OFFSET: usize = offset_of!(QpBlock, qp);

#[repr(C)]
struct CqBlock {
    ring: Ring,
    cq: ffi::ibv_cq_ex,
}

#[repr(C)]
struct QpBlock {
    work: Work,
    qp: ffi::ibv_qp_ex,
}

/// The completions that are to be polled.
struct Ring {
    /// How many were taken out, and put in.
    head: u32,
    tail: u32,
    current: Entry,
    entries: [Entry; RING],
}

#[derive(Clone, Copy)]
struct Entry {
    wr_id: u64,
    opcode: ffi::ibv_wc_opcode,
    qp_num: u32,
}

/// The requests of a queue pair.
struct Work {
    send_ring: *mut Ring,
    recv_ring: *mut Ring,
    complete_sends: bool,
    complete_receives: bool,
    qp_num: u32,
    /// The signaled requests of the open batch, if they are to complete.
    staged_len: u32,
    /// What was given to the last request, so that it is not for nothing.
    last_address: (u64, u64),
    last_payload: (u64, u64),
    staged: [Entry; RING],
}

impl Ring {
    #[inline(always)]
    fn push(&mut self, entry: Entry) {
        if self.tail.wrapping_sub(self.head) < RING as u32 {
            self.entries[self.tail as usize % RING] = entry;
            self.tail = self.tail.wrapping_add(1);
        }
    }

    #[inline(always)]
    fn pop(&mut self) -> Option<Entry> {
        if self.head == self.tail {
            return None;
        }
        self.current = self.entries[self.head as usize % RING];
        self.head = self.head.wrapping_add(1);
        Some(self.current)
    }
}

fn ring_of(cq: *mut ffi::ibv_cq) -> *mut Ring {
    cq.wrapping_byte_sub(CQ_OFFSET).cast()
}

/// Fills the part of a queue pair's block that is not the C structure.
pub(crate) fn init_qp(block: &Block, config: &Config, qp: &ffi::ibv_qp) {
    let work = block.ptr().cast::<Work>();
    // SAFETY: the block begins with a `Work`, all zero, which is valid for its numbers, pointers and
    // booleans; nobody else knows of the block yet.
    let work = unsafe { &mut *work };
    work.send_ring = ring_of(qp.send_cq);
    work.recv_ring = ring_of(qp.recv_cq);
    work.complete_sends = config.complete_sends;
    work.complete_receives = config.complete_receives;
    work.qp_num = qp.qp_num;
}

/// # Safety
///
/// The queue was created on this data path and is alive; nobody else uses it meanwhile.
#[inline(always)]
unsafe fn ring<'a>(cq: *mut ffi::ibv_cq_ex) -> &'a mut Ring {
    // SAFETY: the ring lies in front of the queue in one block of memory, initialised with zeroes,
    // which are valid for it; and is used by nobody else, by the caller's promise.
    unsafe { &mut *ring_of(cq.cast()) }
}

/// # Safety
///
/// The queue pair was created on this data path and is alive; nobody else uses it meanwhile.
#[inline(always)]
unsafe fn work<'a>(qp: *mut ffi::ibv_qp_ex) -> &'a mut Work {
    // SAFETY: it lies in front of the queue pair in one block of memory, initialised by `init_qp`; and
    // is used by nobody else, by the caller's promise.
    unsafe { &mut *qp.wrapping_byte_sub(QP_OFFSET).cast() }
}

/// Takes the next completion out of the ring.
///
/// # Safety
///
/// As for `ring`.
#[inline(always)]
unsafe fn take(cq: *mut ffi::ibv_cq_ex) -> c_int {
    // SAFETY: the caller's promise.
    let Some(entry) = unsafe { ring(cq) }.pop() else { return libc::ENOENT };
    // SAFETY: the queue is alive and nobody else uses it, by the caller's promise.
    unsafe { (*cq).wr_id = entry.wr_id };
    // SAFETY: as above.
    unsafe { (*cq).status = ffi::IBV_WC_SUCCESS };
    0
}

/// Puts the last `len` completions that were taken out of a queue back into it, for whoever measures polling: it
/// costs next to nothing, and counts as the provider's.
///
/// # Safety
///
/// The queue was created on the [minimal](crate::DataPath::Minimal) data path and is alive, no poll of it is open, and
/// nobody else uses it meanwhile. At least `len` completions were taken out of it, and it has held no more than 512.
#[inline(never)]
pub unsafe extern "C" fn rewind(cq: *mut ffi::ibv_cq_ex, len: u32) {
    // SAFETY: the caller's promise.
    let ring = unsafe { ring(cq) };
    ring.head = ring.tail.wrapping_sub(len);
}

pub(crate) unsafe extern "C" fn start_poll(
    cq: *mut ffi::ibv_cq_ex,
    _attr: *mut ffi::ibv_poll_cq_attr,
) -> c_int {
    // SAFETY: the queue is alive (ibv_create_cq_ex(3)), and used by one thread (`DataPath::Minimal`).
    unsafe { take(cq) }
}

pub(crate) unsafe extern "C" fn next_poll(cq: *mut ffi::ibv_cq_ex) -> c_int {
    // SAFETY: as in `start_poll`.
    unsafe { take(cq) }
}

pub(crate) unsafe extern "C" fn end_poll(_cq: *mut ffi::ibv_cq_ex) {}

pub(crate) unsafe extern "C" fn read_opcode(cq: *mut ffi::ibv_cq_ex) -> ffi::ibv_wc_opcode {
    // SAFETY: as in `start_poll`.
    unsafe { ring(cq) }.current.opcode
}

pub(crate) unsafe extern "C" fn read_qp_num(cq: *mut ffi::ibv_cq_ex) -> u32 {
    // SAFETY: as in `start_poll`.
    unsafe { ring(cq) }.current.qp_num
}

pub(crate) unsafe extern "C" fn poll_cq(
    cq: *mut ffi::ibv_cq,
    len: c_int,
    wc: *mut ffi::ibv_wc,
) -> c_int {
    // SAFETY: as in `start_poll`.
    let ring = unsafe { ring(cq.cast()) };
    for found in 0..len {
        let Some(Entry { wr_id, opcode, qp_num }) = ring.pop() else { return found };
        let to = wc.wrapping_add(found as usize);
        let entry = ffi::ibv_wc { wr_id, opcode, qp_num, ..Default::default() };
        // SAFETY: the array has `len` entries (ibv_poll_cq(3)), and this is one of them.
        unsafe { to.write(entry) };
    }
    len
}

pub(crate) unsafe extern "C" fn read_tm_info(
    _cq: *mut ffi::ibv_cq_ex,
    _to: *mut ffi::ibv_wc_tm_info,
) {
}

macro_rules! zero_readers {
    ($($name:ident: $type:ty;)*) => {
        $(
            pub(crate) unsafe extern "C" fn $name(_cq: *mut ffi::ibv_cq_ex) -> $type {
                0
            }
        )*
    };
}

zero_readers! {
    read_vendor_err: u32;
    read_byte_len: u32;
    read_imm_data: u32;
    read_src_qp: u32;
    read_wc_flags: u32;
    read_slid: u32;
    read_sl: u8;
    read_dlid_path_bits: u8;
    read_completion_ts: u64;
    read_completion_wallclock_ns: u64;
    read_cvlan: u16;
    read_flow_tag: u32;
}

pub(crate) unsafe extern "C" fn wr_start(qp: *mut ffi::ibv_qp_ex) {
    // SAFETY: the queue pair is alive (ibv_wr_post(3)), and used by one thread (`DataPath::Minimal`).
    unsafe { work(qp) }.staged_len = 0;
}

pub(crate) unsafe extern "C" fn wr_abort(qp: *mut ffi::ibv_qp_ex) {
    // SAFETY: as in `wr_start`.
    unsafe { work(qp) }.staged_len = 0;
}

pub(crate) unsafe extern "C" fn wr_complete(qp: *mut ffi::ibv_qp_ex) -> c_int {
    // SAFETY: as in `wr_start`.
    let work = unsafe { work(qp) };
    // SAFETY: the completion queue was created before the queue pair on the same data path, cannot be
    // destroyed before it, and is used by the same thread.
    let ring = unsafe { &mut *work.send_ring };
    for entry in work.staged.iter().take(work.staged_len as usize) {
        ring.push(*entry);
    }
    work.staged_len = 0;
    0
}

/// # Safety
///
/// As for `work`.
#[inline(always)]
unsafe fn begin(qp: *mut ffi::ibv_qp_ex, opcode: ffi::ibv_wc_opcode) {
    // SAFETY: the queue pair is alive, by the caller's promise.
    let flags = unsafe { (*qp).wr_flags };
    // SAFETY: as above.
    let wr_id = unsafe { (*qp).wr_id };
    // SAFETY: the caller's promise.
    let work = unsafe { work(qp) };
    let place = work.staged_len as usize;
    if flags & ffi::IBV_SEND_SIGNALED != 0 && work.complete_sends && place < RING {
        work.staged[place] = Entry { wr_id, opcode, qp_num: work.qp_num };
        work.staged_len += 1;
    }
}

macro_rules! operations {
    ($($name:ident($($argument:ident: $type:ty),*) => $opcode:ident;)*) => {
        $(
            pub(crate) unsafe extern "C" fn $name(qp: *mut ffi::ibv_qp_ex $(, $argument: $type)*) {
                // SAFETY: as in `wr_start`.
                unsafe { begin(qp, ffi::$opcode) }
            }
        )*
    };
}

operations! {
    wr_send() => IBV_WC_SEND;
    wr_send_imm(_imm: u32) => IBV_WC_SEND;
    wr_rdma_write(_rkey: u32, _addr: u64) => IBV_WC_RDMA_WRITE;
    wr_rdma_write_imm(_rkey: u32, _addr: u64, _imm: u32) => IBV_WC_RDMA_WRITE;
    wr_rdma_read(_rkey: u32, _addr: u64) => IBV_WC_RDMA_READ;
    wr_atomic_cmp_swp(_rkey: u32, _addr: u64, _compare: u64, _swap: u64) => IBV_WC_COMP_SWAP;
    wr_atomic_fetch_add(_rkey: u32, _addr: u64, _add: u64) => IBV_WC_FETCH_ADD;
    wr_send_inv(_rkey: u32) => IBV_WC_SEND;
    wr_bind_mw(_mw: *mut ffi::ibv_mw, _rkey: u32, _info: *const ffi::ibv_mw_bind_info) => IBV_WC_BIND_MW;
    wr_local_inv(_rkey: u32) => IBV_WC_LOCAL_INV;
    wr_flush(_rkey: u32, _addr: u64, _len: usize, _placement: u8, _level: u8) => IBV_WC_FLUSH;
    wr_atomic_write(_rkey: u32, _addr: u64, _value: *const c_void) => IBV_WC_ATOMIC_WRITE;
}

pub(crate) unsafe extern "C" fn wr_set_ud_addr(
    qp: *mut ffi::ibv_qp_ex,
    ah: *mut ffi::ibv_ah,
    remote_qpn: u32,
    qkey: u32,
) {
    // SAFETY: as in `wr_start`.
    unsafe { work(qp) }.last_address = (ah as u64, u64::from(remote_qpn) << 32 | u64::from(qkey));
}

pub(crate) unsafe extern "C" fn wr_set_sge(
    qp: *mut ffi::ibv_qp_ex,
    lkey: u32,
    addr: u64,
    length: u32,
) {
    // SAFETY: as in `wr_start`.
    unsafe { work(qp) }.last_payload = (addr, u64::from(lkey) << 32 | u64::from(length));
}

pub(crate) unsafe extern "C" fn wr_set_sge_list(
    qp: *mut ffi::ibv_qp_ex,
    len: usize,
    list: *const ffi::ibv_sge,
) {
    // SAFETY: as in `wr_start`.
    unsafe { work(qp) }.last_payload = (list as u64, len as u64);
}

pub(crate) unsafe extern "C" fn wr_set_inline_data(
    qp: *mut ffi::ibv_qp_ex,
    addr: *mut c_void,
    len: usize,
) {
    // SAFETY: as in `wr_start`.
    unsafe { work(qp) }.last_payload = (addr as u64, len as u64);
}

pub(crate) unsafe extern "C" fn wr_set_inline_data_list(
    qp: *mut ffi::ibv_qp_ex,
    len: usize,
    list: *const ffi::ibv_data_buf,
) {
    // SAFETY: as in `wr_start`.
    unsafe { work(qp) }.last_payload = (list as u64, len as u64);
}

pub(crate) unsafe extern "C" fn post_send(
    qp: *mut ffi::ibv_qp,
    wr: *mut ffi::ibv_send_wr,
    _bad_wr: *mut *mut ffi::ibv_send_wr,
) -> c_int {
    // SAFETY: as in `wr_start`; an extended queue pair begins with the plain one.
    let work = unsafe { work(qp.cast()) };
    // SAFETY: as in `wr_complete`.
    let ring = unsafe { &mut *work.send_ring };
    let mut next = wr;
    while !next.is_null() {
        // SAFETY: a request of the chain, which ends in null (ibv_post_send(3)).
        let wr = unsafe { &*next };
        if wr.send_flags & ffi::IBV_SEND_SIGNALED != 0 && work.complete_sends {
            let opcode = match wr.opcode {
                ffi::IBV_WR_RDMA_WRITE | ffi::IBV_WR_RDMA_WRITE_WITH_IMM => ffi::IBV_WC_RDMA_WRITE,
                ffi::IBV_WR_RDMA_READ => ffi::IBV_WC_RDMA_READ,
                ffi::IBV_WR_ATOMIC_CMP_AND_SWP => ffi::IBV_WC_COMP_SWAP,
                ffi::IBV_WR_ATOMIC_FETCH_AND_ADD => ffi::IBV_WC_FETCH_ADD,
                _ => ffi::IBV_WC_SEND,
            };
            ring.push(Entry { wr_id: wr.wr_id, opcode, qp_num: work.qp_num });
        }
        next = wr.next;
    }
    0
}

pub(crate) unsafe extern "C" fn post_recv(
    qp: *mut ffi::ibv_qp,
    wr: *mut ffi::ibv_recv_wr,
    _bad_wr: *mut *mut ffi::ibv_recv_wr,
) -> c_int {
    // SAFETY: as in `wr_start`; an extended queue pair begins with the plain one.
    let work = unsafe { work(qp.cast()) };
    // SAFETY: as in `wr_complete`.
    let ring = unsafe { &mut *work.recv_ring };
    let mut next = wr;
    while !next.is_null() {
        // SAFETY: a request of the chain, which ends in null (ibv_post_recv(3)).
        let wr_id = unsafe { (*next).wr_id };
        if work.complete_receives {
            ring.push(Entry { wr_id, opcode: ffi::IBV_WC_RECV, qp_num: work.qp_num });
        }
        // SAFETY: as above.
        next = unsafe { (*next).next };
    }
    0
}
