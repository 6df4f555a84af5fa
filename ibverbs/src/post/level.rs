//! Posting levels: who guarantees what becomes of memory that a device uses.

use std::fmt::Debug;

use super::payload::{Kind, Payload};
use super::refusal::Refusal;
use super::shared;
use super::verb::{Classic, Verb};
use crate::mr::{LocalMemorySlice, SharedSlice};
use crate::qp::{Address, Core, OpenBatch, OpenShared, QueuePairCapacity, Transport};

pub(crate) mod sealed {
    use super::{
        Classic, Core, Kind, LocalMemorySlice, Payload, QueuePairCapacity, Refusal, Transport,
    };

    /// What the crate does differently on each level. Only the crate's own markers implement it.
    pub trait Sealed: Sized {
        /// An empty scatter list.
        const NOTHING: Kind<'static>;

        /// What a batch has beside its queue pair.
        type Open;

        /// Takes note that an operation of the batch that is being filled is refused.
        fn refuse(core: &mut Core, open: &mut Self::Open, refusal: Refusal);

        /// The same, of an operation that goes beyond `capacity`.
        fn refuse_beyond(
            core: &mut Core,
            open: &mut Self::Open,
            refusal: Refusal,
            capacity: &QueuePairCapacity,
        );

        /// Adds an operation to the batch, if the queue pair can carry it out.
        fn add<T: Transport, V: Classic>(
            core: &mut Core,
            open: &mut Self::Open,
            request: Request<T>,
            payload: &Payload<'_, Self>,
            verb: V,
        ) where
            Self: super::Level;

        /// Takes back a batch that was dropped.
        fn abort(core: &mut Core);

        /// The payload that slices are.
        fn payload<'s, 'r: 's>(slices: &'s [Self::Slice<'r>]) -> Payload<'s, Self>
        where
            Self: super::Level;

        /// The scatter entry that a slice is.
        fn entry<'s>(slice: &'s Self::Slice<'_>) -> &'s LocalMemorySlice
        where
            Self: super::Level;
    }

    /// What every operation has.
    #[derive(Clone, Copy)]
    pub struct Request<T: Transport> {
        pub(crate) wr_id: u64,
        pub(crate) flags: u32,
        /// If it names an address handle, that is borrowed while the request is added; and, on the shared level, for as
        /// long as the batch.
        pub(crate) address: T::Address,
    }
}
pub(crate) use sealed::Request;

/// A posting level: [`Raw`] or [`Shared`]. Sealed.
///
/// The repository's page *Posting levels* tells which one is for what.
#[diagnostic::on_unimplemented(message = "`{Self}` is not a posting level")]
pub trait Level: sealed::Sealed + Copy + Debug + 'static {
    /// What its scatter lists consist of.
    type Slice<'r>: Copy + Debug;
}

/// The raw level: slices of a [`MemoryRegion`](crate::MemoryRegion). Who posts promises what nobody checks:
/// [`SendBatch::submit`](crate::SendBatch::submit) is `unsafe`.
#[derive(Clone, Copy, Debug)]
pub enum Raw {}

/// The shared level: slices of a [`SharedRegion`](crate::SharedRegion), and inline data. Nothing has to be promised.
#[derive(Clone, Copy, Debug)]
pub enum Shared {}

impl Level for Raw {
    type Slice<'r> = LocalMemorySlice;
}

impl Level for Shared {
    type Slice<'r> = SharedSlice<'r>;
}

impl sealed::Sealed for Raw {
    const NOTHING: Kind<'static> = Kind::Scatter(&[]);

    type Open = OpenBatch;

    #[inline]
    fn refuse(core: &mut Core, open: &mut OpenBatch, refusal: Refusal) {
        open.refuse(core, refusal);
    }

    #[inline]
    fn refuse_beyond(
        core: &mut Core,
        open: &mut OpenBatch,
        refusal: Refusal,
        capacity: &QueuePairCapacity,
    ) {
        open.refuse_beyond(core, refusal, capacity);
    }

    #[inline(always)]
    fn add<T: Transport, V: Classic>(
        core: &mut Core,
        open: &mut OpenBatch,
        request: Request<T>,
        payload: &Payload<'_, Raw>,
        verb: V,
    ) {
        add_raw(core, open, request, payload, verb);
    }

    #[inline(always)]
    fn abort(core: &mut Core) {
        core.abort_batch();
    }

    #[inline]
    fn payload<'s, 'r: 's>(slices: &'s [LocalMemorySlice]) -> Payload<'s, Raw> {
        slices.into()
    }

    #[inline]
    fn entry(slice: &LocalMemorySlice) -> &LocalMemorySlice {
        slice
    }
}

impl sealed::Sealed for Shared {
    const NOTHING: Kind<'static> = Kind::Shared(&[]);

    type Open = OpenShared;

    #[inline]
    fn refuse(core: &mut Core, open: &mut OpenShared, refusal: Refusal) {
        open.refuse(core, refusal);
    }

    #[inline]
    fn refuse_beyond(
        core: &mut Core,
        open: &mut OpenShared,
        refusal: Refusal,
        capacity: &QueuePairCapacity,
    ) {
        open.refuse_beyond(core, refusal, capacity);
    }

    #[inline(always)]
    fn add<T: Transport, V: Classic>(
        core: &mut Core,
        open: &mut OpenShared,
        request: Request<T>,
        payload: &Payload<'_, Shared>,
        verb: V,
    ) {
        shared::add(core, open, request, payload, verb);
    }

    #[inline]
    fn abort(_: &mut Core) {
        // Nothing has reached the provider, and the next batch begins at the beginning.
    }

    #[inline]
    fn payload<'s, 'r: 's>(slices: &'s [SharedSlice<'r>]) -> Payload<'s, Shared> {
        slices.into()
    }

    #[inline]
    fn entry<'s>(slice: &'s SharedSlice<'_>) -> &'s LocalMemorySlice {
        slice.entry()
    }
}

/// Adds an operation to the open batch: one call of the provider for the operation, one for its address if it has one,
/// and one for its payload, with nothing in between that could fail.
// Always: what is known of the payload where it is named must be known here too, and in a loop the
// compiler would rather make a call.
#[inline(always)]
pub(super) fn add_raw<T: Transport, V: Verb>(
    core: &mut Core,
    open: &mut OpenBatch,
    request: Request<T>,
    payload: &Payload<'_, Raw>,
    verb: V,
) {
    let Request { wr_id, flags, address } = request;
    if !address.is_usable() {
        // The batch is refused already.
        return;
    }
    if !open.admits::<T>(core, V::OP, payload.demand()) {
        return;
    }
    let qp = open.raw.as_ptr();
    // SAFETY: the queue pair is alive and borrowed by the batch, exclusively.
    unsafe { (*qp).wr_id = wr_id };
    // SAFETY: as above.
    unsafe { (*qp).wr_flags = flags | payload.flags() };
    // SAFETY: the queue pair is alive, a batch is open on it, or it is one that does nothing; the operation was granted.
    unsafe { verb.begin(qp) };
    // SAFETY: a batch is open and a request was begun in it; the builder checked the function; the
    // address is usable, and its handle borrowed by the caller's caller, from whom the request is.
    unsafe { address.set(qp) };
    // SAFETY: a batch is open, a request that takes a payload was begun, and the batch admits it.
    unsafe { payload.set(qp) }
}
