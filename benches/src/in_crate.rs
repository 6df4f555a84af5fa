//! The cases as a program on this crate has them: functions that are lent what they use.

use std::hint::black_box;

use ibverbs::{
    AddressHandle, CompletionQueue, LocalMemorySlice, MemoryRegion, QueuePair, Rc, RecvChain,
    RecvRequest, RemoteMemorySlice, SendBatch, SharedRegion, Transport, Ud,
};

use crate::rig::{cost_fail, OwnedRig, BATCH, INLINE_LEN, POLL, QKEY, REMOTE_QPN, SLOTS, SLOT_LEN};

/// A scatter list.
type Slices = [LocalMemorySlice; 1];

#[inline(always)]
fn submit<T: Transport>(batch: SendBatch<'_, T>) {
    // SAFETY: nobody touches the region of a rig, and its queues have room for a batch: what was posted before has
    // completed, or the null provider, which keeps no requests, has dropped it.
    if unsafe { batch.submit() }.is_err() {
        cost_fail();
    }
}

#[inline(always)]
fn expect_completion(cq: &CompletionQueue, wr_id: u64) {
    let Ok(Some(mut completions)) = cq.poll() else { cost_fail() };
    while let Some(wc) = completions.next() {
        if wc.ok().is_err() || wc.wr_id() != wr_id {
            cost_fail();
        }
    }
}

#[no_mangle]
#[inline(never)]
pub(crate) fn cost_crate_send(
    qp: &mut QueuePair<Rc>,
    cq: &CompletionQueue,
    slices: &Slices,
    n: u64,
) {
    let mut wr_id = 0;
    while wr_id < n {
        let mut batch = qp.start_send();
        batch.op().signaled().send(wr_id, slices);
        submit(batch);
        expect_completion(cq, wr_id);
        wr_id += 1;
    }
}

#[no_mangle]
#[inline(never)]
pub(crate) fn cost_crate_writes(
    qp: &mut QueuePair<Rc>,
    slices: &Slices,
    remote: RemoteMemorySlice,
    n: u64,
) {
    for _ in 0..n {
        let mut batch = qp.start_send();
        for place in 0..BATCH {
            let op = batch.op();
            let op = if place == BATCH - 1 { op.signaled() } else { op };
            op.write(place as u64, slices, remote);
        }
        submit(batch);
    }
}

#[no_mangle]
#[inline(never)]
pub(crate) fn cost_crate_pieces(
    qp: &mut QueuePair<Rc>,
    slices: &[Slices; BATCH],
    remotes: &[RemoteMemorySlice; BATCH],
    n: u64,
) {
    for _ in 0..n {
        let mut batch = qp.start_send();
        for place in 0..BATCH {
            let op = batch.op();
            let op = if place == BATCH - 1 { op.signaled() } else { op };
            op.write(place as u64, &slices[place], remotes[place]);
        }
        submit(batch);
    }
}

#[no_mangle]
#[inline(never)]
pub(crate) fn cost_crate_receives(qp: &mut QueuePair<Rc>, slices: &[Slices; BATCH], n: u64) {
    for _ in 0..n {
        let requests: [_; BATCH] =
            std::array::from_fn(|place| RecvRequest::new(place as u64, &slices[place]));
        // SAFETY: as in `submit`.
        if unsafe { qp.post_recv(requests) }.is_err() {
            cost_fail();
        }
    }
}

#[no_mangle]
#[inline(never)]
pub(crate) fn cost_crate_chain(qp: &mut QueuePair<Rc>, chain: &mut RecvChain, n: u64) {
    for _ in 0..n {
        // SAFETY: as in `submit`.
        if unsafe { qp.post_chain(chain) }.is_err() {
            cost_fail();
        }
    }
}

#[no_mangle]
#[inline(never)]
pub(crate) fn cost_crate_poll(cq: &CompletionQueue, n: u64) {
    let mut sum = 0;
    for _ in 0..n {
        // SAFETY: no poll is open, and this many completions were taken out of the queue before.
        unsafe { null_provider::rewind(cq.as_raw(), POLL) };
        let Ok(Some(mut completions)) = cq.poll() else { cost_fail() };
        while let Some(wc) = completions.next() {
            if wc.ok().is_err() {
                cost_fail();
            }
            sum += wc.wr_id();
            sum += u64::from(wc.opcode().0);
            sum += u64::from(wc.len());
        }
    }
    black_box(sum);
}

#[no_mangle]
#[inline(never)]
pub(crate) fn cost_crate_inline(
    qp: &mut QueuePair<Rc>,
    cq: &CompletionQueue,
    bytes: &[u8; INLINE_LEN],
    n: u64,
) {
    let mut wr_id = 0;
    while wr_id < n {
        let mut batch = qp.start_send();
        batch.op().signaled().send(wr_id, bytes);
        submit(batch);
        expect_completion(cq, wr_id);
        wr_id += 1;
    }
}

#[no_mangle]
#[inline(never)]
pub(crate) fn cost_crate_slice(
    qp: &mut QueuePair<Rc>,
    cq: &CompletionQueue,
    region: &MemoryRegion,
    n: u64,
) {
    let mut wr_id = 0;
    while wr_id < n {
        let from = wr_id as usize % SLOTS * SLOT_LEN;
        let mut batch = qp.start_send();
        batch.op().signaled().send(wr_id, &[region.slice(from..from + SLOT_LEN)]);
        submit(batch);
        expect_completion(cq, wr_id);
        wr_id += 1;
    }
}

#[no_mangle]
#[inline(never)]
pub(crate) fn cost_crate_empty(cq: &CompletionQueue, n: u64) {
    for _ in 0..n {
        let Ok(None) = cq.poll() else { cost_fail() };
    }
}

#[no_mangle]
#[inline(never)]
pub(crate) fn cost_crate_datagram(
    qp: &mut QueuePair<Ud>,
    cq: &CompletionQueue,
    ah: &AddressHandle,
    slices: &Slices,
    n: u64,
) {
    let mut wr_id = 0;
    while wr_id < n {
        let mut batch = qp.start_send();
        batch.to(ah, REMOTE_QPN, QKEY).signaled().send(wr_id, slices);
        submit(batch);
        expect_completion(cq, wr_id);
        wr_id += 1;
    }
}

#[no_mangle]
#[inline(never)]
pub(crate) fn cost_crate_shared_send(
    qp: &mut QueuePair<Rc>,
    cq: &CompletionQueue,
    region: &SharedRegion,
    n: u64,
) {
    let slices = [region.slice(..SLOT_LEN)];
    let mut wr_id = 0;
    while wr_id < n {
        let mut batch = qp.start_shared();
        batch.op().signaled().send(wr_id, &slices);
        if batch.submit().is_err() {
            cost_fail();
        }
        expect_completion(cq, wr_id);
        wr_id += 1;
    }
}

#[no_mangle]
#[inline(never)]
pub(crate) fn cost_crate_shared_writes(
    qp: &mut QueuePair<Rc>,
    region: &SharedRegion,
    remote: RemoteMemorySlice,
    n: u64,
) {
    let slices = [region.slice(..SLOT_LEN)];
    for _ in 0..n {
        let mut batch = qp.start_shared();
        for place in 0..BATCH {
            let op = batch.op();
            let op = if place == BATCH - 1 { op.signaled() } else { op };
            op.write(place as u64, &slices, remote);
        }
        if batch.submit().is_err() {
            cost_fail();
        }
    }
}

#[no_mangle]
#[inline(never)]
pub(crate) fn cost_crate_shared_receives(qp: &mut QueuePair<Rc>, region: &SharedRegion, n: u64) {
    let slices: [_; BATCH] =
        std::array::from_fn(|place| [region.slice(place * SLOT_LEN..(place + 1) * SLOT_LEN)]);
    // They are somewhere else than the requests, as they are in programs.
    let slices = black_box(&slices);
    for _ in 0..n {
        let requests: [_; BATCH] =
            std::array::from_fn(|place| RecvRequest::shared(place as u64, &slices[place]));
        if qp.post_recv_shared(requests).is_err() {
            cost_fail();
        }
    }
}

#[no_mangle]
#[inline(never)]
pub(crate) fn cost_crate_owned_send(rig: &mut OwnedRig, n: u64) {
    let OwnedRig { qp, cq, buffers, .. } = rig;
    let Some(mut buffer) = buffers.pop() else { cost_fail() };
    for user in 0..n {
        if qp.send(user, buffer, SLOT_LEN).is_err() {
            cost_fail();
        }
        let Ok(Some(mut completions)) = cq.poll() else { cost_fail() };
        let Some(mut completion) = completions.next() else { cost_fail() };
        if completion.ok().is_err() || completion.user() != user {
            cost_fail();
        }
        let Some(back) = completion.take() else { cost_fail() };
        buffer = back;
        if completions.next().is_some() {
            cost_fail();
        }
    }
    buffers.push(buffer);
}

#[no_mangle]
#[inline(never)]
pub(crate) fn cost_crate_owned_writes(rig: &mut OwnedRig, remote: RemoteMemorySlice, n: u64) {
    let OwnedRig { qp, cq, buffers, .. } = rig;
    for _ in 0..n {
        let mut batch = qp.start_send();
        for place in 0..BATCH {
            let Some(buffer) = buffers.pop() else { cost_fail() };
            let op = batch.op();
            let op = if place == BATCH - 1 { op } else { op.unsignaled() };
            op.write(place as u64, buffer, SLOT_LEN, remote);
        }
        if batch.submit().is_err() {
            cost_fail();
        }
        let Ok(Some(mut completions)) = cq.poll() else { cost_fail() };
        while let Some(mut completion) = completions.next() {
            if completion.ok().is_err() || completion.user() != BATCH as u64 - 1 {
                cost_fail();
            }
            while let Some(buffer) = completion.take() {
                buffers.push(buffer);
            }
        }
    }
}

#[no_mangle]
#[inline(never)]
pub(crate) fn cost_crate_owned_receives(rig: &mut OwnedRig, n: u64) {
    let OwnedRig { qp, cq, receives, .. } = rig;
    for _ in 0..n {
        if qp.post_recv_all(receives).is_err() {
            cost_fail();
        }
        let Ok(Some(mut completions)) = cq.poll() else { cost_fail() };
        while let Some(mut completion) = completions.next() {
            if completion.ok().is_err() {
                cost_fail();
            }
            let Some(buffer) = completion.take() else { cost_fail() };
            receives.push((completion.user(), buffer));
        }
    }
}
