//! Batches that are being filled.

use std::ptr::NonNull;

use super::core::Core;
use super::gate::Gate;
use super::limits::{Demand, Lacks, Limits};
use super::transport::{SendOps, Transport};
use super::QueuePairCapacity;
use crate::ffi;
use crate::post::{Places, Refusal};

/// The batch that is being filled, with what it needs of its queue pair.
///
/// They are copies that stand on the stack of whoever fills the batch, where the compiler sees that no call of the
/// provider changes them: it keeps them in registers, and checks before a loop what it would check again and again
/// within.
pub struct OpenBatch {
    /// The queue pair; or one that does nothing, if the batch could not be begun.
    pub(crate) raw: NonNull<ffi::ibv_qp_ex>,
    usual: Usual,
    pub(crate) granted: QueuePairCapacity,
    pub(super) is_refused: bool,
}

/// What a queue pair lacks of what is usual. Most lack nothing, which is looked at when a batch begins: the compiler knows
/// then what an operation would find.
#[derive(Clone, Copy)]
struct Usual {
    /// The usual operations of the transport, and [an entry](Lacks::ENTRY).
    lacks: Lacks,
    /// The same, and [short inline data](Lacks::short). It is a number of its own because more queue pairs lack some.
    lacks_short: Lacks,
}

impl Usual {
    const GRANTED: Usual = Usual { lacks: Lacks::NOTHING, lacks_short: Lacks::NOTHING };

    /// What a queue pair lacks on which a batch may be open or not, but that is otherwise free.
    #[inline(always)]
    fn of(gate: Gate, lacks: Lacks) -> Usual {
        let usual = if gate.lacks_usual() { lacks } else { Lacks::NOTHING };
        Usual { lacks: usual, lacks_short: lacks }
    }

    /// Whether an operation asks for more than this, or than `limits`. If it does, that is to be looked at more closely.
    #[inline(always)]
    fn lacks<T: Transport>(
        self,
        limits: &Limits,
        granted: &QueuePairCapacity,
        op: SendOps,
        demand: Demand,
    ) -> bool {
        let asked = Lacks::of(op).and(demand.asked());
        let is_lacking = if !T::SEND_OPS.contains(op) {
            limits.lacks.include(asked)
        } else if demand.is_short() {
            self.lacks_short.include(asked)
        } else {
            self.lacks.include(asked)
        };
        is_lacking || demand.is_beyond(granted)
    }
}

impl Core {
    /// Opens a batch, and first aborts one that was forgotten. If the queue pair is not ready to send, there will be none:
    /// the provider is not called.
    #[inline(always)]
    pub(crate) fn start_batch(&mut self) -> OpenBatch {
        let (raw, granted) = (self.raw, self.limits.granted);
        if self.gate.enter() {
            // SAFETY: the queue pair is alive and no batch is open; the builder checked that the function is there.
            unsafe { ffi::ibv_wr_start(raw.as_ptr()) }
            return OpenBatch { raw, usual: Usual::GRANTED, granted, is_refused: false };
        }
        cold();
        if self.gate.before().is_free() {
            // SAFETY: as above.
            unsafe { ffi::ibv_wr_start(raw.as_ptr()) }
            // Looked at when the call is done, so that it need not be kept meanwhile.
            let usual = Usual::of(self.gate.before(), self.limits.lacks);
            return OpenBatch { raw, usual, granted, is_refused: false };
        }
        // SAFETY: this is the queue pair, and something stands in the way.
        let raw = unsafe { self.inner.start(raw) };
        self.gate = self.inner.gate.with_obstacle(raw != self.raw).entered();
        let usual = Usual::of(self.inner.gate, self.limits.lacks);
        OpenBatch { raw, usual, granted, is_refused: false }
    }

    /// Begins a shared batch, and first aborts one that was forgotten. If the queue pair is not ready to send, the
    /// batch is refused.
    #[inline(always)]
    pub(crate) fn start_shared(&mut self) -> OpenShared {
        let (limits, domain) = (self.limits, self.domain());
        if self.gate.is_clear() {
            let (usual, places) = (Usual::GRANTED, self.inner.requests.places());
            return OpenShared { limits, usual, domain, places, is_refused: false };
        }
        cold();
        if self.gate.now().is_free() || self.make_free() {
            let usual = Usual::of(self.gate.now(), self.limits.lacks);
            let places = self.inner.requests.places();
            return OpenShared { limits, usual, domain, places, is_refused: false };
        }
        let (limits, places) = (Limits::nothing(), self.inner.requests.places());
        let usual = Usual { lacks: limits.lacks, lacks_short: limits.lacks };
        OpenShared { limits, usual, domain, places, is_refused: true }
    }
}

/// Tells the compiler that what follows is done seldom.
#[cold]
fn cold() {}

impl OpenBatch {
    /// Whether the queue pair has what an operation with this payload asks for. Otherwise the batch is refused.
    // Always: see `add_raw`.
    #[inline(always)]
    pub(crate) fn admits<T: Transport>(
        &mut self,
        core: &mut Core,
        op: SendOps,
        demand: Demand,
    ) -> bool {
        if self.usual.lacks::<T>(&core.limits, &self.granted, op, demand) {
            cold();
            let (entries, bytes, is_first) = (demand.entries(), demand.bytes(), !self.is_refused);
            if !core.inner.admits(op, entries, bytes, is_first) {
                self.is_refused = true;
                return false;
            }
        }
        true
    }

    /// Whether the provider knows of it. If it does not, operations go nowhere.
    #[inline(always)]
    pub(crate) fn is_begun(&self, core: &Core) -> bool {
        self.raw == core.raw
    }

    /// Refuses the batch, which is one of `core`, for an operation of it. The first reason counts.
    #[inline]
    pub(crate) fn refuse(&mut self, core: &mut Core, refusal: Refusal) {
        let is_first = !std::mem::replace(&mut self.is_refused, true);
        core.inner.refuse(refusal, is_first);
    }

    /// The same, for an operation that goes beyond `capacity`.
    #[inline]
    pub(crate) fn refuse_beyond(
        &mut self,
        core: &mut Core,
        refusal: Refusal,
        capacity: &QueuePairCapacity,
    ) {
        let is_first = !std::mem::replace(&mut self.is_refused, true);
        core.inner.refuse_beyond(refusal, capacity, is_first);
    }
}

/// The batch of the shared level that is being filled: copies, as in [`OpenBatch`]. The provider knows nothing of it.
pub struct OpenShared {
    pub(crate) limits: Limits,
    /// The protection domain, as [`SharedSlice::domain`](crate::SharedSlice) tells it.
    pub(crate) domain: usize,
    usual: Usual,
    /// Where its requests go.
    pub(crate) places: Places,
    pub(super) is_refused: bool,
}

impl OpenShared {
    /// Makes sure that there is a place for a request. If there may be none, because the batch has as many requests as the
    /// send queue has places, it returns their number.
    #[inline]
    pub(crate) fn reserve(&mut self, core: &mut Core) -> Result<(), usize> {
        if self.places.is_empty() {
            let places = core.inner.requests.grow();
            self.places = places.ok_or(core.limits.granted.max_send_wr as usize)?;
        }
        Ok(())
    }

    /// Whether the queue pair has what an operation with this payload asks for. Otherwise the batch is refused.
    #[inline(always)]
    pub(crate) fn admits<T: Transport>(
        &mut self,
        core: &mut Core,
        op: SendOps,
        demand: Demand,
    ) -> bool {
        if self.usual.lacks::<T>(&self.limits, &self.limits.granted, op, demand) {
            cold();
            let (entries, bytes) = (demand.entries(), demand.bytes());
            if self.is_refused || !core.inner.admits(op, entries, bytes, true) {
                self.is_refused = true;
                return false;
            }
        }
        true
    }

    /// Refuses the batch, which is one of `core`, for an operation of it. The first reason counts.
    #[inline]
    pub(crate) fn refuse(&mut self, core: &mut Core, refusal: Refusal) {
        let is_first = !std::mem::replace(&mut self.is_refused, true);
        core.inner.refuse(refusal, is_first);
    }

    /// The same, for an operation that goes beyond `capacity`.
    #[inline]
    pub(crate) fn refuse_beyond(
        &mut self,
        core: &mut Core,
        refusal: Refusal,
        capacity: &QueuePairCapacity,
    ) {
        let is_first = !std::mem::replace(&mut self.is_refused, true);
        core.inner.refuse_beyond(refusal, capacity, is_first);
    }
}

// SAFETY: the pointer is that of a `Core`, which the batch borrows exclusively, and may be sent as that may.
unsafe impl Send for OpenBatch {}
// SAFETY: as above.
unsafe impl Sync for OpenBatch {}
