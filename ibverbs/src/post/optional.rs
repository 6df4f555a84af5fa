//! Operations that few devices have: memory windows, flushes and atomic writes.

use std::ops::RangeBounds;

use bitflags::bitflags;

use super::level::{add_raw, Raw};
use super::op::{begin, check_atomic_address, SendOp, WithoutImm};
use super::payload::Payload;
use super::refusal::Refusal;
use super::verb;
use crate::ffi;
use crate::mr::{AccessFlags, MemoryRegion, RemoteMemorySlice};
use crate::mw::{bind_info, check_length, MemoryWindow, WindowType2};
use crate::qp::{Connected, Core, Demand, Reliable, SendOps, Transport};

impl<T: Transport, I> SendOp<'_, T, Raw, I> {
    /// Binds a memory window of type 2 to a piece of a region, and returns what the peer needs to use it: it may be
    /// told in a send that is added later. The window gets a new key. It must not be bound already: see
    /// [`local_inv`](Self::local_inv). [`MemoryWindow`] has an example. For type 1 see
    /// [`QueuePair::bind_window`](crate::QueuePair::bind_window).
    ///
    /// A region that does not allow this, a window or a region of another protection domain and an empty range
    /// refuse the batch. If the batch is not posted, or the request fails, the window has still its old key:
    /// see [`MemoryWindow::set_rkey`].
    ///
    /// # Panics
    ///
    /// If the range does not lie within the region, as slicing does.
    ///
    /// # Safety
    ///
    /// Once the batch is submitted, and until the key is withdrawn ([`local_inv`](Self::local_inv), or the peer's
    /// [`send_with_inv`](Self::send_with_inv), has completed) or the window was freed, the peer may use the
    /// memory as `access` says: the contract of [`MemoryRegion::remote`]. That is the whole region, if the device
    /// does not look at the window's bounds: SoftRoCE does not.
    ///
    /// The region stays registered until the bind has completed, and for as long as the window is bound to it.
    #[doc(alias = "ibv_wr_bind_mw")]
    #[doc(alias = "ibv_inc_rkey")]
    #[track_caller]
    pub unsafe fn bind_window<B>(
        self,
        wr_id: u64,
        window: &mut MemoryWindow<WindowType2>,
        region: &MemoryRegion<B>,
        range: impl RangeBounds<usize>,
        access: AccessFlags,
    ) -> RemoteMemorySlice
    where
        T: Connected,
        I: WithoutImm,
    {
        let mut remote = RemoteMemorySlice { addr: 0, len: 0, rkey: 0 };
        let op = SendOps::BIND_MW;
        if !self.open.is_begun(self.core) {
            return remote;
        }
        if !self.open.admits::<T>(self.core, op, Demand::NOTHING) {
            return remote;
        }
        match prepare_bind(self.core, window, region, range, access) {
            Err(refusal) => self.refuse(refusal),
            Ok(info) => {
                let rkey = ffi::ibv_inc_rkey(window.rkey());
                remote = RemoteMemorySlice { addr: info.addr, len: info.length, rkey };
                let begin = begin!(ibv_wr_bind_mw, window.as_bound(), rkey, &info);
                // SAFETY: this binds a window, for which there is no payload; the window was added to the queue
                // pair, so that it is alive, as is the region; and they are of its domain.
                unsafe { self.add_bare(op, wr_id, begin) };
                // SAFETY: as above.
                unsafe { window.store_rkey(rkey) };
            }
        }
        remote
    }

    /// Withdraws the key of a memory window of this side: from its completion on the peer cannot use it.
    /// The window can be bound again then, also by a request that is posted after this one.
    ///
    /// The key is that of a window which is bound, and not invalidated by the peer meanwhile; otherwise the request
    /// fails. (On SoftRoCE, up to Linux 7.2 at least, the kernel crashes then. So let one side invalidate.)
    #[doc(alias = "ibv_wr_local_inv")]
    pub fn local_inv(self, wr_id: u64, rkey: u32)
    where
        T: Connected,
        I: WithoutImm,
    {
        let begin = begin!(ibv_wr_local_inv, rkey);
        // SAFETY: this begins an invalidation, for which there is no payload.
        unsafe { self.add_bare(SendOps::LOCAL_INV, wr_id, begin) }
    }

    /// Sends a message, and withdraws a key of the peer's: one of a memory window that was bound for this queue
    /// pair, and not invalidated since (see [`local_inv`](Self::local_inv)). The peer's completion tells the key,
    /// though not on SoftRoCE.
    #[doc(alias = "ibv_wr_send_inv")]
    #[inline]
    pub fn send_with_inv<'a>(self, wr_id: u64, payload: impl Into<Payload<'a>>, rkey: u32)
    where
        T: Connected,
        I: WithoutImm,
    {
        let (core, open, request) = self.into_request(wr_id);
        add_raw(core, open, request, &payload.into(), verb::SendInv(rkey));
    }

    /// Writes eight bytes into the peer's memory, at once: a peer that reads them as one number sees the old or
    /// the new one, and all earlier writes if it sees the new one. `value` is in host order. The remote address
    /// is a multiple of 8.
    ///
    /// Needs [`SendOps::ATOMIC_WRITE`], and a region with [`AccessFlags::REMOTE_WRITE`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use ibverbs::{MemoryRegion, QueuePair, Rc, RemoteMemorySlice, Result};
    /// # fn publish(
    /// #     qp: &mut QueuePair<Rc>, local: &MemoryRegion, record: RemoteMemorySlice, version: RemoteMemorySlice,
    /// # ) -> Result<()> {
    /// let mut batch = qp.start_send();
    /// batch.op().write(1, &[local.slice(..)], record);
    /// batch.op().signaled().atomic_write(2, version, 7); // a peer that reads 7 there sees the record
    /// // SAFETY: the region is not touched before the completion of request 2 is polled; the send queue is not full.
    /// unsafe { batch.submit() }
    /// # }
    /// ```
    #[doc(alias = "ibv_wr_atomic_write")]
    pub fn atomic_write(self, wr_id: u64, remote: RemoteMemorySlice, value: u64)
    where
        T: Reliable,
        I: WithoutImm,
    {
        if let Err(refusal) = check_atomic_address(remote) {
            return self.refuse(refusal);
        }
        let bytes = value.to_ne_bytes();
        let begin = begin!(ibv_wr_atomic_write, remote.rkey, remote.addr, bytes.as_ptr().cast());
        // SAFETY: this begins an atomic write, whose eight bytes are copied at once, and for which there is no
        // other payload.
        unsafe { self.add_bare(SendOps::ATOMIC_WRITE, wr_id, begin) }
    }

    /// Waits until earlier writes to the peer's memory have arrived where `placement` says, which their own
    /// completions do not tell.
    ///
    /// Needs [`SendOps::FLUSH`]; and [`AccessFlags::FLUSH_GLOBAL`] or [`AccessFlags::FLUSH_PERSISTENT`] of both
    /// the region and the peer's queue pair ([`set_access`](crate::QueuePairBuilder::set_access)). No placement,
    /// and a slice of 4 GiB or more, refuses the batch.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use ibverbs::{FlushLevel, FlushPlacement, MemoryRegion, QueuePair, Rc, RemoteMemorySlice, Result};
    /// # fn store(qp: &mut QueuePair<Rc>, local: &MemoryRegion, remote: RemoteMemorySlice) -> Result<()> {
    /// let mut batch = qp.start_send();
    /// batch.op().write(1, &[local.slice(..)], remote);
    /// // Completes when what was written would survive a loss of power.
    /// batch.op().signaled().flush(2, remote, FlushPlacement::PERSISTENT, FlushLevel::Range);
    /// // SAFETY: the region is not touched before the completion of request 2 is polled; the send queue is not full.
    /// unsafe { batch.submit() }
    /// # }
    /// ```
    #[doc(alias = "ibv_wr_flush")]
    pub fn flush(
        self,
        wr_id: u64,
        remote: RemoteMemorySlice,
        placement: FlushPlacement,
        level: FlushLevel,
    ) where
        T: Reliable,
        I: WithoutImm,
    {
        if placement.is_empty() || !FlushPlacement::all().contains(placement) {
            return self.refuse(Refusal::Placement(placement));
        }
        // SoftRoCE would flush what is left of the number in 32 bits, and succeed.
        if u32::try_from(remote.len).is_err() {
            return self.refuse(Refusal::FlushLength(remote.len));
        }
        let (RemoteMemorySlice { addr, len, rkey }, placement) = (remote, placement.bits());
        let begin = begin!(ibv_wr_flush, rkey, addr, len as usize, placement, level as u8);
        // SAFETY: this begins a flush, for which there is no payload.
        unsafe { self.add_bare(SendOps::FLUSH, wr_id, begin) }
    }
}

/// What a window is to show of a region, if the queue pair can bind it, whose window it is then.
#[track_caller]
fn prepare_bind<B>(
    core: &mut Core,
    window: &mut MemoryWindow<WindowType2>,
    region: &MemoryRegion<B>,
    range: impl RangeBounds<usize>,
    access: AccessFlags,
) -> Result<ffi::ibv_mw_bind_info, Refusal> {
    let info = bind_info(region.bindable(), range, access, window.pd()).and_then(check_length)?;
    if !core.is_of_domain(window.pd()) {
        return Err(Refusal::Domain("memory window"));
    }
    core.add_window(window)?;
    Ok(info)
}

bitflags! {
    /// Where a flush takes earlier writes (`enum ibv_placement_type`).
    #[doc(alias = "ibv_placement_type")]
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct FlushPlacement: u8 {
        /// Where every reader sees them: the peer's processors and devices.
        const GLOBAL = ffi::IBV_FLUSH_GLOBAL as u8;
        /// Where they survive a loss of power.
        const PERSISTENT = ffi::IBV_FLUSH_PERSISTENT as u8;
    }
}

/// Which writes a flush waits for (`enum ibv_selectivity_level`).
#[doc(alias = "ibv_selectivity_level")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FlushLevel {
    /// Those to the remote slice.
    Range = ffi::IBV_FLUSH_RANGE as u8,
    /// Those to the whole memory region that the slice is of.
    Region = ffi::IBV_FLUSH_MR as u8,
}
