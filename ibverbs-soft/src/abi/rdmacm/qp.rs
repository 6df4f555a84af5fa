//! Queue pairs and shared receive queues of identifiers, with completion queues and channels if they are given none.

use std::ffi::c_int;
use std::ptr;

use ibverbs_sys as ffi;
use rustix::io::Errno;

use super::attr::attributes;
use super::connect::modify;
use super::id::{id, Id};
use crate::abi::channel::{create_comp_channel, destroy_comp_channel};
use crate::abi::cq::{create_cq, destroy_cq};
use crate::abi::{errno, minus_one, qp, srq};
use crate::device::Result;

/// A queue for so many completions, with a channel of its own.
fn create_queue(id: &Id, size: u32) -> Result<(*mut ffi::ibv_comp_channel, *mut ffi::ibv_cq)> {
    // SAFETY: the context of an identifier is open.
    let channel = unsafe { create_comp_channel(id.verbs()) };
    if channel.is_null() {
        return Err(errno());
    }
    // SAFETY: as above, and the channel was made just now.
    let cq = unsafe { create_cq(id.verbs(), size as c_int, id.raw().cast(), channel, 0) };
    if cq.is_null() {
        let error = errno();
        // SAFETY: nobody has it.
        unsafe { destroy_comp_channel(channel) };
        return Err(error);
    }
    Ok((channel, cq))
}

/// Makes those completion queues that the identifier and the program have not; a size of 0 stands for none.
fn create_queues(id: &Id, send_size: u32, recv_size: u32) -> Result<()> {
    if recv_size > 0 {
        let (channel, cq) = create_queue(id, recv_size)?;
        id.set_recv_cq_channel(channel);
        id.set_recv_cq(cq);
    }
    if send_size > 0 {
        let (channel, cq) = create_queue(id, send_size).inspect_err(|_| destroy_queues(id))?;
        id.set_send_cq_channel(channel);
        id.set_send_cq(cq);
    }
    Ok(())
}

/// Destroys the queues that the identifier has.
fn destroy_queues(id: &Id) {
    let both = [(id.recv_cq(), id.recv_cq_channel()), (id.send_cq(), id.send_cq_channel())];
    let is_shared = both[0] == both[1];
    for (cq, channel) in both.into_iter().take(if is_shared { 1 } else { 2 }) {
        if !cq.is_null() {
            // SAFETY: it is alive, and the program does not use it any more (rdma_destroy_qp(3)).
            unsafe { destroy_cq(cq) };
        }
        if !channel.is_null() {
            // SAFETY: as above.
            unsafe { destroy_comp_channel(channel) };
        }
    }
    id.set_recv_cq(ptr::null_mut());
    id.set_recv_cq_channel(ptr::null_mut());
    id.set_send_cq(ptr::null_mut());
    id.set_send_cq_channel(ptr::null_mut());
}

pub(super) unsafe extern "C" fn create_qp(
    raw: *mut ffi::rdma_cm_id,
    pd: *mut ffi::ibv_pd,
    attr: *mut ffi::ibv_qp_init_attr,
) -> c_int {
    // SAFETY: as rdma_create_qp(3) demands.
    minus_one(unsafe { create_from(raw, pd, attr) })
}

/// # Safety
///
/// As rdma_create_qp(3) demands.
pub(super) unsafe fn create_from(
    raw: *mut ffi::rdma_cm_id,
    pd: *mut ffi::ibv_pd,
    attr: *mut ffi::ibv_qp_init_attr,
) -> Result<()> {
    // SAFETY: the identifier is alive, by the caller's promise.
    let id = unsafe { id(raw) };
    // SAFETY: they are whole, by the caller's promise.
    let asked = unsafe { attr.read() };
    let mut extended = ffi::ibv_qp_init_attr_ex {
        qp_context: asked.qp_context,
        send_cq: asked.send_cq,
        recv_cq: asked.recv_cq,
        srq: asked.srq,
        cap: asked.cap,
        qp_type: asked.qp_type,
        sq_sig_all: asked.sq_sig_all,
        comp_mask: ffi::IBV_QP_INIT_ATTR_PD,
        pd: if pd.is_null() { id.pd() } else { pd },
        ..Default::default()
    };
    let created = create(id, &mut extended);
    let told = ffi::ibv_qp_init_attr {
        send_cq: extended.send_cq,
        recv_cq: extended.recv_cq,
        srq: extended.srq,
        cap: extended.cap,
        ..asked
    };
    // SAFETY: they may be changed, by the caller's promise.
    unsafe { attr.write(told) };
    created
}

pub(super) unsafe extern "C" fn create_qp_ex(
    raw: *mut ffi::rdma_cm_id,
    attr: *mut ffi::ibv_qp_init_attr_ex,
) -> c_int {
    // SAFETY: the identifier is alive (rdma_create_qp_ex(3)).
    let id = unsafe { id(raw) };
    // SAFETY: the attributes are whole, and for this call (rdma_create_qp_ex(3)).
    minus_one(create(id, unsafe { &mut *attr }))
}

fn create(id: &Id, attr: &mut ffi::ibv_qp_init_attr_ex) -> Result<()> {
    if !id.qp().is_null() || id.verbs().is_null() {
        return Err(Errno::INVAL);
    }
    if attr.comp_mask & ffi::IBV_QP_INIT_ATTR_PD == 0 || attr.pd.is_null() {
        attr.comp_mask |= ffi::IBV_QP_INIT_ATTR_PD;
        attr.pd = id.pd();
    // SAFETY: the domain is alive (rdma_create_qp_ex(3)).
    } else if unsafe { (*attr.pd).context } != id.verbs() {
        return Err(Errno::INVAL);
    }
    let differ = |own: *mut ffi::ibv_cq, given: *mut ffi::ibv_cq| {
        !own.is_null() && !given.is_null() && own != given
    };
    if differ(id.recv_cq(), attr.recv_cq) || differ(id.send_cq(), attr.send_cq) {
        return Err(Errno::INVAL);
    }
    let size = |own: *mut ffi::ibv_cq, given: *mut ffi::ibv_cq, size: u32| {
        if own.is_null() && given.is_null() {
            size
        } else {
            0
        }
    };
    create_queues(
        id,
        size(id.send_cq(), attr.send_cq, attr.cap.max_send_wr),
        size(id.recv_cq(), attr.recv_cq, attr.cap.max_recv_wr),
    )?;
    for (own, given) in [(id.send_cq(), &mut attr.send_cq), (id.recv_cq(), &mut attr.recv_cq)] {
        if given.is_null() {
            *given = own;
        }
    }
    if attr.srq.is_null() {
        attr.srq = id.srq();
    }
    let created = create_ready(id, attr);
    if created.is_err() {
        destroy_queues(id);
    }
    created
}

fn create_ready(id: &Id, attr: &mut ffi::ibv_qp_init_attr_ex) -> Result<()> {
    // SAFETY: all that the attributes name is alive (rdma_create_qp_ex(3)), or was made for it.
    let qp = unsafe { qp::create_qp_ex(id.verbs(), attr) };
    if qp.is_null() {
        return Err(errno());
    }
    if let Err(error) = make_ready(id, qp) {
        // SAFETY: nobody has it.
        unsafe { qp::destroy_qp(qp) };
        return Err(error);
    }
    // SAFETY: alive.
    id.set_pd(unsafe { (*qp).pd });
    id.set_qp(qp);
    Ok(())
}

/// Receives can be posted then; and datagrams sent.
fn make_ready(id: &Id, qp: *mut ffi::ibv_qp) -> Result<()> {
    let (mut attr, mask) = attributes(id, ffi::IBV_QPS_INIT)?;
    modify(qp, &mut attr, mask)?;
    if id.is_datagram() {
        attr.qp_state = ffi::IBV_QPS_RTR;
        modify(qp, &mut attr, ffi::IBV_QP_STATE as c_int)?;
        attr.qp_state = ffi::IBV_QPS_RTS;
        attr.sq_psn = 0;
        modify(qp, &mut attr, (ffi::IBV_QP_STATE | ffi::IBV_QP_SQ_PSN) as c_int)?;
    }
    Ok(())
}

pub(super) unsafe extern "C" fn destroy_qp(raw: *mut ffi::rdma_cm_id) {
    // SAFETY: the identifier is alive (rdma_destroy_qp(3)).
    let id = unsafe { id(raw) };
    // SAFETY: so is its queue pair, which is not used any more.
    unsafe { qp::destroy_qp(id.qp()) };
    id.set_qp(ptr::null_mut());
    destroy_queues(id);
}

pub(super) unsafe extern "C" fn create_srq(
    raw: *mut ffi::rdma_cm_id,
    pd: *mut ffi::ibv_pd,
    attr: *mut ffi::ibv_srq_init_attr,
) -> c_int {
    // SAFETY: the attributes are whole (rdma_create_srq(3)).
    let asked = unsafe { attr.read() };
    let mut extended = ffi::ibv_srq_init_attr_ex {
        srq_context: asked.srq_context,
        attr: asked.attr,
        comp_mask: ffi::IBV_SRQ_INIT_ATTR_TYPE | ffi::IBV_SRQ_INIT_ATTR_PD,
        srq_type: ffi::IBV_SRQT_BASIC,
        pd,
        ..Default::default()
    };
    // SAFETY: as rdma_create_srq(3) demands.
    let code = unsafe { create_srq_ex(raw, &mut extended) };
    // SAFETY: they may be changed (rdma_create_srq(3)).
    unsafe { (*attr).attr = extended.attr };
    code
}

pub(super) unsafe extern "C" fn create_srq_ex(
    raw: *mut ffi::rdma_cm_id,
    attr: *mut ffi::ibv_srq_init_attr_ex,
) -> c_int {
    // SAFETY: the identifier is alive (rdma_create_srq_ex(3)).
    let id = unsafe { id(raw) };
    // SAFETY: the attributes are whole, and for this call (rdma_create_srq_ex(3)).
    let attr = unsafe { &mut *attr };
    if id.verbs().is_null() || attr.comp_mask & ffi::IBV_SRQ_INIT_ATTR_TYPE == 0 {
        return minus_one(Err(Errno::INVAL));
    }
    if attr.comp_mask & ffi::IBV_SRQ_INIT_ATTR_PD == 0 || attr.pd.is_null() {
        attr.pd = id.pd();
        attr.comp_mask |= ffi::IBV_SRQ_INIT_ATTR_PD;
    }
    // SAFETY: all that the attributes name is alive (rdma_create_srq_ex(3)).
    let queue = unsafe { srq::create_srq_ex(id.verbs(), attr) };
    if queue.is_null() {
        return minus_one(Err(errno()));
    }
    if id.pd().is_null() {
        id.set_pd(attr.pd);
    }
    id.set_srq(queue);
    0
}

pub(super) unsafe extern "C" fn destroy_srq(raw: *mut ffi::rdma_cm_id) {
    // SAFETY: the identifier is alive (rdma_destroy_srq(3)).
    let id = unsafe { id(raw) };
    // SAFETY: so is its queue, which is not used any more.
    unsafe { srq::destroy_srq(id.srq()) };
    id.set_srq(ptr::null_mut());
    destroy_queues(id);
}
