//! Posting sends through the extended interface: requests are collected, and posted together or not at all.

use std::ffi::{c_int, c_void};

use ibverbs_sys as ffi;
use rustix::io::Errno;

use super::ah::path_of;
use super::mw;
use super::object::object;
use super::qp::Qp;
use super::send::{bytes_of, check, sge, sges_of};
use crate::device::Result;
use crate::transport::{DatagramTarget, Payload, SendOperation, SendRequest, SrdOperation};
use crate::wire::Service;

/// The requests that were begun since `wr_start`.
#[derive(Default)]
pub(super) struct Batch {
    requests: Vec<SendRequest>,
    /// What is wrong with them: the first thing counts, and `wr_complete` tells it.
    error: Option<Errno>,
}

/// The operations that a service has, as flags of a queue pair's creation.
pub(super) fn operations(service: Service) -> u64 {
    const SEND: u32 = ffi::IBV_QP_EX_WITH_SEND | ffi::IBV_QP_EX_WITH_SEND_WITH_IMM;
    const WRITE: u32 = ffi::IBV_QP_EX_WITH_RDMA_WRITE | ffi::IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM;
    const READ: u32 = ffi::IBV_QP_EX_WITH_RDMA_READ
        | ffi::IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP
        | ffi::IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD;
    const WINDOWS: u32 = ffi::IBV_QP_EX_WITH_BIND_MW | ffi::IBV_QP_EX_WITH_LOCAL_INV;
    u64::from(match service {
        Service::Rc => SEND | WRITE | READ | WINDOWS | ffi::IBV_QP_EX_WITH_SEND_WITH_INV,
        Service::Uc => SEND | WRITE | WINDOWS,
        Service::Ud => SEND,
        Service::Srd => SEND | WRITE | ffi::IBV_QP_EX_WITH_RDMA_READ,
    })
}

/// Sets the functions of what the service has.
pub(super) fn set_functions(qp: &mut ffi::ibv_qp_ex, service: Service) {
    qp.wr_start = Some(wr_start);
    qp.wr_complete = Some(wr_complete);
    qp.wr_abort = Some(wr_abort);
    qp.wr_set_sge = Some(wr_set_sge);
    qp.wr_set_sge_list = Some(wr_set_sge_list);
    qp.wr_set_inline_data = Some(wr_set_inline_data);
    qp.wr_set_inline_data_list = Some(wr_set_inline_data_list);
    qp.wr_send = Some(wr_send);
    qp.wr_send_imm = Some(wr_send_imm);
    if service.is_datagram() {
        qp.wr_set_ud_addr = Some(wr_set_ud_addr);
    }
    if service != Service::Ud {
        qp.wr_rdma_write = Some(wr_rdma_write);
        qp.wr_rdma_write_imm = Some(wr_rdma_write_imm);
    }
    if service == Service::Srd {
        qp.wr_rdma_read = Some(wr_rdma_read);
    }
    if !service.is_datagram() {
        qp.wr_bind_mw = Some(wr_bind_mw);
        qp.wr_local_inv = Some(wr_local_inv);
    }
    if service == Service::Rc {
        qp.wr_send_inv = Some(wr_send_inv);
        qp.wr_rdma_read = Some(wr_rdma_read);
        qp.wr_atomic_cmp_swp = Some(wr_atomic_cmp_swp);
        qp.wr_atomic_fetch_add = Some(wr_atomic_fetch_add);
    }
}

/// Lets `f` change the open batch. Nothing is done where the device is dead: whoever had the lock may have left it half done.
///
/// # Safety
///
/// The queue pair is alive, and the caller has its lock, since `wr_start`.
unsafe fn with_batch(qp: *mut ffi::ibv_qp_ex, f: impl FnOnce(&Qp, &mut Batch)) {
    // SAFETY: by the caller's promise.
    let qp = unsafe { object::<Qp>(qp) };
    if !qp.device().is_dead() {
        // SAFETY: it belongs to whoever has the lock, which is the caller by his promise.
        f(qp, unsafe { &mut *qp.batch.get() });
    }
}

unsafe extern "C" fn wr_start(qp: *mut ffi::ibv_qp_ex) {
    // SAFETY: the queue pair is alive (ibv_wr_post(3)).
    let locked = unsafe { object::<Qp>(qp) };
    // Where this fails, everything that follows does nothing.
    if locked.batching.acquire(locked.device()).is_ok() {
        // SAFETY: the lock was taken just now.
        unsafe { with_batch(qp, |_, batch| *batch = Batch::default()) };
    }
}

unsafe extern "C" fn wr_complete(qp: *mut ffi::ibv_qp_ex) -> c_int {
    let mut result = Err(Errno::IO);
    // SAFETY: the queue pair is alive, and a batch is open (ibv_wr_post(3)).
    unsafe { with_batch(qp, |qp, batch| result = post(qp, batch)) };
    // SAFETY: as above.
    unsafe { object::<Qp>(qp) }.batching.release();
    super::code(result)
}

fn post(qp: &Qp, batch: &mut Batch) -> Result<()> {
    let Batch { requests, error } = std::mem::take(batch);
    if let Some(errno) = error {
        return Err(errno);
    }
    requests.iter().try_for_each(|request| check(qp, request))?;
    if requests.is_empty() {
        return Ok(());
    }
    qp.device().post_send_all(qp.number, requests)
}

unsafe extern "C" fn wr_abort(qp: *mut ffi::ibv_qp_ex) {
    // SAFETY: the queue pair is alive, and a batch is open (ibv_wr_post(3)).
    unsafe { with_batch(qp, |_, batch| *batch = Batch::default()) };
    // SAFETY: as above.
    unsafe { object::<Qp>(qp) }.batching.release();
}

/// Begins a request, with the identifier and the flags that the program has put into the queue pair.
///
/// # Safety
///
/// As [`with_batch`].
unsafe fn begin(qp: *mut ffi::ibv_qp_ex, operation: SendOperation) {
    // SAFETY: the queue pair is alive, and whoever fills a batch has the field.
    let wr_id = unsafe { (*qp).wr_id };
    // SAFETY: as above.
    let flags = unsafe { (*qp).wr_flags };
    let request = SendRequest {
        wr_id,
        operation,
        payload: Payload::Sges(Vec::new()),
        signaled: flags & ffi::IBV_SEND_SIGNALED != 0,
        solicited: flags & ffi::IBV_SEND_SOLICITED != 0,
        fenced: flags & ffi::IBV_SEND_FENCE != 0,
    };
    // SAFETY: the contract is the same.
    unsafe { with_batch(qp, |_, batch| batch.requests.push(request)) };
}

/// Functions that begin a request.
macro_rules! beginners {
    ($(fn $name:ident($($argument:ident: $type:ty),*) => $operation:expr;)*) => {
        $(
            unsafe extern "C" fn $name(qp: *mut ffi::ibv_qp_ex $(, $argument: $type)*) {
                // SAFETY: the queue pair is alive, and a batch is open (ibv_wr_post(3)).
                unsafe { begin(qp, $operation) };
            }
        )*
    };
}

beginners! {
    fn wr_send() => SendOperation::Send { imm: None };
    fn wr_send_imm(imm: ffi::__be32) => SendOperation::Send { imm: Some(u32::from_be(imm)) };
    fn wr_send_inv(rkey: u32) => SendOperation::SendWithInvalidate { rkey };
    fn wr_local_inv(rkey: u32) => SendOperation::LocalInvalidate { rkey };
    fn wr_rdma_write(rkey: u32, addr: u64) => SendOperation::Write { addr, rkey, imm: None };
    fn wr_rdma_write_imm(rkey: u32, addr: u64, imm: ffi::__be32) => {
        SendOperation::Write { addr, rkey, imm: Some(u32::from_be(imm)) }
    };
    fn wr_rdma_read(rkey: u32, addr: u64) => SendOperation::Read { addr, rkey };
    fn wr_atomic_cmp_swp(rkey: u32, addr: u64, compare: u64, swap: u64) => {
        SendOperation::CompareSwap { addr, rkey, compare, swap }
    };
    fn wr_atomic_fetch_add(rkey: u32, addr: u64, add: u64) => {
        SendOperation::FetchAdd { addr, rkey, add }
    };
}

unsafe extern "C" fn wr_bind_mw(
    qp: *mut ffi::ibv_qp_ex,
    window: *mut ffi::ibv_mw,
    rkey: u32,
    info: *const ffi::ibv_mw_bind_info,
) {
    // SAFETY: it points to a whole structure (ibv_wr_post(3)).
    let info = unsafe { info.read() };
    // SAFETY: the queue pair is alive (ibv_wr_post(3)).
    let its = unsafe { object::<Qp>(qp) };
    // SAFETY: the window and the region are alive (ibv_wr_post(3)).
    match unsafe { mw::of_type_2(its, window, rkey, &info) } {
        // SAFETY: the queue pair is alive, and a batch is open (ibv_wr_post(3)).
        Ok(operation) => unsafe { begin(qp, operation) },
        Err(errno) => {
            let note = |_: &Qp, batch: &mut Batch| {
                batch.error.get_or_insert(errno);
            };
            // SAFETY: as above.
            unsafe { with_batch(qp, note) };
        }
    }
}

/// Changes the request that was begun last.
///
/// # Safety
///
/// As [`with_batch`].
unsafe fn change(
    qp: *mut ffi::ibv_qp_ex,
    change: impl FnOnce(&Qp, &mut SendRequest) -> Result<()>,
) {
    let apply = |qp: &Qp, batch: &mut Batch| {
        let result = match batch.requests.last_mut() {
            Some(request) => change(qp, request),
            None => Err(Errno::INVAL),
        };
        if let Err(errno) = result {
            batch.error.get_or_insert(errno);
        }
    };
    // SAFETY: the contract is the same.
    unsafe { with_batch(qp, apply) };
}

/// An operation with an address, if the service has it so.
fn addressed(qp: &Qp, to: DatagramTarget, operation: SendOperation) -> Option<SendOperation> {
    let DatagramTarget { path, remote_qpn, qkey } = to;
    let operation = match (qp.service, operation) {
        (Service::Ud, SendOperation::Send { imm }) => {
            return Some(SendOperation::Datagram { path, remote_qpn, qkey, imm });
        }
        (Service::Srd, SendOperation::Send { imm }) => SrdOperation::Send { imm },
        (Service::Srd, SendOperation::Write { addr, rkey, imm }) => {
            SrdOperation::Write { addr, rkey, imm }
        }
        (Service::Srd, SendOperation::Read { addr, rkey }) => SrdOperation::Read { addr, rkey },
        _ => return None,
    };
    Some(SendOperation::Srd { to, operation })
}

unsafe extern "C" fn wr_set_ud_addr(
    qp: *mut ffi::ibv_qp_ex,
    ah: *mut ffi::ibv_ah,
    remote_qpn: u32,
    qkey: u32,
) {
    let address = |qp: &Qp, request: &mut SendRequest| {
        // SAFETY: the handle is alive (ibv_wr_post(3)).
        let path = unsafe { path_of(ah) };
        let to = DatagramTarget { path, remote_qpn, qkey };
        request.operation = addressed(qp, to, request.operation).ok_or(Errno::INVAL)?;
        Ok(())
    };
    // SAFETY: the queue pair is alive, and a batch is open (ibv_wr_post(3)).
    unsafe { change(qp, address) };
}

unsafe extern "C" fn wr_set_sge(qp: *mut ffi::ibv_qp_ex, lkey: u32, addr: u64, length: u32) {
    let set = |_: &Qp, request: &mut SendRequest| {
        request.payload = Payload::Sges(vec![sge(&ffi::ibv_sge { addr, length, lkey })]);
        Ok(())
    };
    // SAFETY: the queue pair is alive, and a batch is open (ibv_wr_post(3)).
    unsafe { change(qp, set) };
}

unsafe extern "C" fn wr_set_sge_list(
    qp: *mut ffi::ibv_qp_ex,
    len: usize,
    list: *const ffi::ibv_sge,
) {
    let set = |qp: &Qp, request: &mut SendRequest| {
        // SAFETY: the list has so many entries (ibv_wr_post(3)).
        request.payload = Payload::Sges(unsafe { sges_of(list, len, qp.cap().max_send_sge) }?);
        Ok(())
    };
    // SAFETY: the queue pair is alive, and a batch is open (ibv_wr_post(3)).
    unsafe { change(qp, set) };
}

unsafe extern "C" fn wr_set_inline_data(qp: *mut ffi::ibv_qp_ex, addr: *mut c_void, length: usize) {
    let buffer = ffi::ibv_data_buf { addr, length };
    // SAFETY: the contract is the same, with one buffer.
    unsafe { wr_set_inline_data_list(qp, 1, &buffer) };
}

unsafe extern "C" fn wr_set_inline_data_list(
    qp: *mut ffi::ibv_qp_ex,
    len: usize,
    list: *const ffi::ibv_data_buf,
) {
    let set = |qp: &Qp, request: &mut SendRequest| {
        let buffers = (0..len).map(|index| {
            // SAFETY: the list has so many entries (ibv_wr_post(3)).
            let buffer = unsafe { list.wrapping_add(index).read() };
            (buffer.addr as *const u8, buffer.length)
        });
        // SAFETY: the buffers can be read (ibv_wr_post(3)).
        let bytes = unsafe { bytes_of(buffers, qp.cap().max_inline_data) }?;
        request.payload = Payload::Inline(bytes);
        Ok(())
    };
    // SAFETY: the queue pair is alive, and a batch is open (ibv_wr_post(3)).
    unsafe { change(qp, set) };
}
