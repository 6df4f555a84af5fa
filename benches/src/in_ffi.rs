//! The cases on the functions of `ibverbs_sys`, line by line what in_c.c has.

use std::hint::black_box;
use std::mem::MaybeUninit;
use std::ptr;

use ibverbs::ffi;
use libc::ENOENT;

use crate::rig::{cost_fail, Raw, BATCH, INLINE_LEN, POLL, SLOTS, SLOT_LEN};

/// Calls a verb, or reads or writes a field of a C object.
macro_rules! raw {
    ($operation:expr) => {
        // SAFETY: the objects of a `Raw` are alive and used by nobody else, as the caller of each case promises; batches
        // and polls are opened, filled and ended in the order of the manual pages; and the null provider never looks at
        // the memory of a scatter entry.
        unsafe { $operation }
    };
}

/// # Safety
///
/// The queue is alive and used by nobody else.
#[inline(always)]
unsafe fn expect_completion(cq: *mut ffi::ibv_cq_ex, wr_id: u64) {
    let mut attr = ffi::ibv_poll_cq_attr { comp_mask: 0 };
    if raw!(ffi::ibv_start_poll(cq, &mut attr)) != 0 {
        cost_fail();
    }
    let end = loop {
        if raw!((*cq).status) != ffi::IBV_WC_SUCCESS || raw!((*cq).wr_id) != wr_id {
            cost_fail();
        }
        match raw!(ffi::ibv_next_poll(cq)) {
            0 => {}
            end => break end,
        }
    };
    raw!(ffi::ibv_end_poll(cq));
    if end != ENOENT {
        cost_fail();
    }
}

/// # Safety
///
/// For this and all other cases here: what `rig` points to is alive, and used by nobody else.
#[no_mangle]
#[inline(never)]
pub(crate) unsafe extern "C" fn cost_ffi_send(rig: &Raw, n: u64) {
    let (qp, cq) = (rig.qp, rig.cq);
    let sge = raw!(rig.sges.read());
    let mut wr_id = 0;
    while wr_id < n {
        raw!(ffi::ibv_wr_start(qp));
        raw!((*qp).wr_id = wr_id);
        raw!((*qp).wr_flags = ffi::IBV_SEND_SIGNALED);
        raw!(ffi::ibv_wr_send(qp));
        raw!(ffi::ibv_wr_set_sge(qp, sge.lkey, sge.addr, sge.length));
        if raw!(ffi::ibv_wr_complete(qp)) != 0 {
            cost_fail();
        }
        raw!(expect_completion(cq, wr_id));
        wr_id += 1;
    }
}

/// # Safety
///
/// As for `cost_ffi_send`.
#[no_mangle]
#[inline(never)]
pub(crate) unsafe extern "C" fn cost_ffi_writes(rig: &Raw, n: u64) {
    let (qp, remote) = (rig.quiet, raw!(&*rig.remotes));
    let (rkey, addr, sge) = (remote.rkey, remote.addr, raw!(rig.sges.read()));
    for _ in 0..n {
        raw!(ffi::ibv_wr_start(qp));
        for place in 0..BATCH {
            let flags = if place == BATCH - 1 { ffi::IBV_SEND_SIGNALED } else { 0 };
            raw!((*qp).wr_id = place as u64);
            raw!((*qp).wr_flags = flags);
            raw!(ffi::ibv_wr_rdma_write(qp, rkey, addr));
            raw!(ffi::ibv_wr_set_sge(qp, sge.lkey, sge.addr, sge.length));
        }
        if raw!(ffi::ibv_wr_complete(qp)) != 0 {
            cost_fail();
        }
    }
}

/// # Safety
///
/// As for `cost_ffi_send`.
#[no_mangle]
#[inline(never)]
pub(crate) unsafe extern "C" fn cost_ffi_writes_done(rig: &Raw, n: u64) {
    let (qp, cq, remote) = (rig.qp, rig.cq, raw!(&*rig.remotes));
    let (rkey, addr, sge) = (remote.rkey, remote.addr, raw!(rig.sges.read()));
    for _ in 0..n {
        raw!(ffi::ibv_wr_start(qp));
        for place in 0..BATCH {
            let flags = if place == BATCH - 1 { ffi::IBV_SEND_SIGNALED } else { 0 };
            raw!((*qp).wr_id = place as u64);
            raw!((*qp).wr_flags = flags);
            raw!(ffi::ibv_wr_rdma_write(qp, rkey, addr));
            raw!(ffi::ibv_wr_set_sge(qp, sge.lkey, sge.addr, sge.length));
        }
        if raw!(ffi::ibv_wr_complete(qp)) != 0 {
            cost_fail();
        }
        raw!(expect_completion(cq, BATCH as u64 - 1));
    }
}

/// # Safety
///
/// As for `cost_ffi_send`.
#[no_mangle]
#[inline(never)]
pub(crate) unsafe extern "C" fn cost_ffi_pieces(rig: &Raw, n: u64) {
    let (qp, sges, remotes) = (rig.quiet, rig.sges, rig.remotes);
    for _ in 0..n {
        raw!(ffi::ibv_wr_start(qp));
        for place in 0..BATCH {
            let flags = if place == BATCH - 1 { ffi::IBV_SEND_SIGNALED } else { 0 };
            raw!((*qp).wr_id = place as u64);
            raw!((*qp).wr_flags = flags);
            let (remote, sge) = (raw!(&*remotes.add(place)), raw!(*sges.add(place)));
            raw!(ffi::ibv_wr_rdma_write(qp, remote.rkey, remote.addr));
            raw!(ffi::ibv_wr_set_sge(qp, sge.lkey, sge.addr, sge.length));
        }
        if raw!(ffi::ibv_wr_complete(qp)) != 0 {
            cost_fail();
        }
    }
}

/// # Safety
///
/// As for `cost_ffi_send`.
#[no_mangle]
#[inline(never)]
pub(crate) unsafe extern "C" fn cost_ffi_receives(rig: &Raw, n: u64) {
    let (qp, sges) = (rig.quiet.cast::<ffi::ibv_qp>(), rig.sges);
    for _ in 0..n {
        let mut requests = MaybeUninit::<[ffi::ibv_recv_wr; BATCH]>::uninit();
        let first = requests.as_mut_ptr().cast::<ffi::ibv_recv_wr>();
        let mut bad = ptr::null_mut();
        for place in 0..BATCH {
            let next =
                if place < BATCH - 1 { first.wrapping_add(place + 1) } else { ptr::null_mut() };
            let sg_list = sges.wrapping_add(place);
            let request = ffi::ibv_recv_wr { wr_id: place as u64, next, sg_list, num_sge: 1 };
            raw!(first.add(place).write(request));
        }
        if raw!(ffi::ibv_post_recv(qp, first, &mut bad)) != 0 {
            cost_fail();
        }
    }
}

/// # Safety
///
/// As for `cost_ffi_send`.
#[no_mangle]
#[inline(never)]
pub(crate) unsafe extern "C" fn cost_ffi_receives_done(rig: &Raw, n: u64) {
    let (qp, cq, sges) = (rig.taking.cast::<ffi::ibv_qp>(), rig.cq, rig.sges);
    for _ in 0..n {
        let mut requests = MaybeUninit::<[ffi::ibv_recv_wr; BATCH]>::uninit();
        let first = requests.as_mut_ptr().cast::<ffi::ibv_recv_wr>();
        let mut bad = ptr::null_mut();
        for place in 0..BATCH {
            let next =
                if place < BATCH - 1 { first.wrapping_add(place + 1) } else { ptr::null_mut() };
            let sg_list = sges.wrapping_add(place);
            let request = ffi::ibv_recv_wr { wr_id: place as u64, next, sg_list, num_sge: 1 };
            raw!(first.add(place).write(request));
        }
        if raw!(ffi::ibv_post_recv(qp, first, &mut bad)) != 0 {
            cost_fail();
        }
        let mut attr = ffi::ibv_poll_cq_attr { comp_mask: 0 };
        if raw!(ffi::ibv_start_poll(cq, &mut attr)) != 0 {
            cost_fail();
        }
        let mut wr_id = 0;
        let end = loop {
            if raw!((*cq).status) != ffi::IBV_WC_SUCCESS || raw!((*cq).wr_id) != wr_id {
                cost_fail();
            }
            wr_id += 1;
            match raw!(ffi::ibv_next_poll(cq)) {
                0 => {}
                end => break end,
            }
        };
        raw!(ffi::ibv_end_poll(cq));
        if end != ENOENT || wr_id != BATCH as u64 {
            cost_fail();
        }
    }
}

/// # Safety
///
/// As for `cost_ffi_send`.
#[no_mangle]
#[inline(never)]
pub(crate) unsafe extern "C" fn cost_ffi_chain(rig: &Raw, n: u64) {
    let (qp, chain) = (rig.quiet.cast::<ffi::ibv_qp>(), rig.chain);
    for _ in 0..n {
        let mut bad = ptr::null_mut();
        if raw!(ffi::ibv_post_recv(qp, chain, &mut bad)) != 0 {
            cost_fail();
        }
    }
}

/// # Safety
///
/// As for `cost_ffi_send`.
#[no_mangle]
#[inline(never)]
pub(crate) unsafe extern "C" fn cost_ffi_poll(rig: &Raw, n: u64) {
    let (cq, rewind) = (rig.full, rig.rewind);
    let mut sum = 0;
    for _ in 0..n {
        let mut attr = ffi::ibv_poll_cq_attr { comp_mask: 0 };
        raw!(rewind(cq, POLL));
        if raw!(ffi::ibv_start_poll(cq, &mut attr)) != 0 {
            cost_fail();
        }
        let end = loop {
            if raw!((*cq).status) != ffi::IBV_WC_SUCCESS {
                cost_fail();
            }
            sum += raw!((*cq).wr_id);
            sum += u64::from(raw!(ffi::ibv_wc_read_opcode(cq)));
            sum += u64::from(raw!(ffi::ibv_wc_read_byte_len(cq)));
            match raw!(ffi::ibv_next_poll(cq)) {
                0 => {}
                end => break end,
            }
        };
        raw!(ffi::ibv_end_poll(cq));
        if end != ENOENT {
            cost_fail();
        }
    }
    black_box(sum);
}

/// # Safety
///
/// As for `cost_ffi_send`.
#[no_mangle]
#[inline(never)]
pub(crate) unsafe extern "C" fn cost_ffi_inline(rig: &Raw, n: u64) {
    let (qp, cq, bytes) = (rig.qp, rig.cq, rig.bytes);
    let mut wr_id = 0;
    while wr_id < n {
        raw!(ffi::ibv_wr_start(qp));
        raw!((*qp).wr_id = wr_id);
        raw!((*qp).wr_flags = ffi::IBV_SEND_SIGNALED);
        raw!(ffi::ibv_wr_send(qp));
        raw!(ffi::ibv_wr_set_inline_data(qp, bytes.cast(), INLINE_LEN));
        if raw!(ffi::ibv_wr_complete(qp)) != 0 {
            cost_fail();
        }
        raw!(expect_completion(cq, wr_id));
        wr_id += 1;
    }
}

/// # Safety
///
/// As for `cost_ffi_send`.
#[no_mangle]
#[inline(never)]
pub(crate) unsafe extern "C" fn cost_ffi_slice(rig: &Raw, n: u64) {
    let (qp, cq, addr, lkey) = (rig.qp, rig.cq, rig.addr, rig.lkey);
    let mut wr_id = 0;
    while wr_id < n {
        let from = wr_id % SLOTS as u64 * SLOT_LEN as u64;
        raw!(ffi::ibv_wr_start(qp));
        raw!((*qp).wr_id = wr_id);
        raw!((*qp).wr_flags = ffi::IBV_SEND_SIGNALED);
        raw!(ffi::ibv_wr_send(qp));
        raw!(ffi::ibv_wr_set_sge(qp, lkey, addr + from, SLOT_LEN as u32));
        if raw!(ffi::ibv_wr_complete(qp)) != 0 {
            cost_fail();
        }
        raw!(expect_completion(cq, wr_id));
        wr_id += 1;
    }
}

/// # Safety
///
/// As for `cost_ffi_send`.
#[no_mangle]
#[inline(never)]
pub(crate) unsafe extern "C" fn cost_ffi_empty(rig: &Raw, n: u64) {
    let cq = rig.empty;
    for _ in 0..n {
        let mut attr = ffi::ibv_poll_cq_attr { comp_mask: 0 };
        if raw!(ffi::ibv_start_poll(cq, &mut attr)) != ENOENT {
            cost_fail();
        }
    }
}

/// # Safety
///
/// As for `cost_ffi_send`.
#[no_mangle]
#[inline(never)]
pub(crate) unsafe extern "C" fn cost_ffi_datagram(rig: &Raw, n: u64) {
    let (qp, cq) = (rig.ud, rig.cq);
    let sge = raw!(rig.sges.read());
    let (ah, remote_qpn, qkey) = (rig.ah, rig.remote_qpn, rig.qkey);
    let mut wr_id = 0;
    while wr_id < n {
        raw!(ffi::ibv_wr_start(qp));
        raw!((*qp).wr_id = wr_id);
        raw!((*qp).wr_flags = ffi::IBV_SEND_SIGNALED);
        raw!(ffi::ibv_wr_send(qp));
        raw!(ffi::ibv_wr_set_ud_addr(qp, ah, remote_qpn, qkey));
        raw!(ffi::ibv_wr_set_sge(qp, sge.lkey, sge.addr, sge.length));
        if raw!(ffi::ibv_wr_complete(qp)) != 0 {
            cost_fail();
        }
        raw!(expect_completion(cq, wr_id));
        wr_id += 1;
    }
}
