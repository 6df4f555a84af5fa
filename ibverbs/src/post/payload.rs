//! What a send or a write carries.

use std::io::IoSlice;
use std::marker::PhantomData;

use super::level::{Level, Raw, Shared};
use super::refusal::Refusal;
use crate::ffi;
use crate::mr::{LocalMemorySlice, SharedSlice};
use crate::qp::{Demand, Lacks, QueuePairCapacity};

/// What a send or a write carries: registered memory, or a copy of ordinary bytes.
///
/// The posting functions take `impl Into<Payload>`, so that one seldom writes its name:
///
/// | argument | meaning |
/// |---|---|
/// | `&[region.slice(..)]`, `&[LocalMemorySlice]`, on the shared level `&[SharedSlice]` | a scatter list: the device reads the memory later |
/// | `b"bytes"`, `&[u8]` | inline: copied into the request |
/// | `&[IoSlice]` | several buffers, copied one after the other |
/// | `Payload::EMPTY` | nothing |
#[doc(alias = "ibv_wr_set_sge")]
#[doc(alias = "ibv_wr_set_sge_list")]
#[doc(alias = "ibv_wr_set_inline_data")]
#[doc(alias = "ibv_wr_set_inline_data_list")]
#[doc(alias = "IBV_SEND_INLINE")]
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a, L: Level = Raw>(Kind<'a>, PhantomData<L>);

#[derive(Clone, Copy, Debug)]
pub enum Kind<'a> {
    /// Of the raw level only.
    Scatter(&'a [LocalMemorySlice]),
    /// Of the shared level only.
    Shared(&'a [SharedSlice<'a>]),
    Inline(&'a [u8]),
    /// Bytes whose length the compiler knows: no more than there is a bit for.
    Short(&'a [u8]),
    InlineList(&'a [IoSlice<'a>]),
}

impl<'a> From<&'a [LocalMemorySlice]> for Payload<'a, Raw> {
    #[inline]
    fn from(slices: &'a [LocalMemorySlice]) -> Self {
        Payload(Kind::Scatter(slices), PhantomData)
    }
}

impl<'a, const N: usize> From<&'a [LocalMemorySlice; N]> for Payload<'a, Raw> {
    #[inline]
    fn from(slices: &'a [LocalMemorySlice; N]) -> Self {
        Payload(Kind::Scatter(slices), PhantomData)
    }
}

impl<'a> From<&'a [SharedSlice<'a>]> for Payload<'a, Shared> {
    #[inline]
    fn from(slices: &'a [SharedSlice<'a>]) -> Self {
        Payload(Kind::Shared(slices), PhantomData)
    }
}

impl<'a, const N: usize> From<&'a [SharedSlice<'a>; N]> for Payload<'a, Shared> {
    #[inline]
    fn from(slices: &'a [SharedSlice<'a>; N]) -> Self {
        Payload(Kind::Shared(slices), PhantomData)
    }
}

impl<'a, L: Level> From<&'a [u8]> for Payload<'a, L> {
    #[inline]
    fn from(bytes: &'a [u8]) -> Self {
        Payload(Kind::Inline(bytes), PhantomData)
    }
}

impl<'a, L: Level, const N: usize> From<&'a [u8; N]> for Payload<'a, L> {
    #[inline]
    fn from(bytes: &'a [u8; N]) -> Self {
        let is_short = N <= Lacks::MAX_SHORT;
        Payload(if is_short { Kind::Short(bytes) } else { Kind::Inline(bytes) }, PhantomData)
    }
}

impl<'a, L: Level> From<&'a [IoSlice<'a>]> for Payload<'a, L> {
    #[inline]
    fn from(buffers: &'a [IoSlice<'a>]) -> Self {
        Payload(Kind::InlineList(buffers), PhantomData)
    }
}

impl<'a, L: Level, const N: usize> From<&'a [IoSlice<'a>; N]> for Payload<'a, L> {
    #[inline]
    fn from(buffers: &'a [IoSlice<'a>; N]) -> Self {
        Payload(Kind::InlineList(buffers), PhantomData)
    }
}

impl<L: Level> Payload<'static, L> {
    /// No bytes: for a message that is its immediate data, or only its arrival.
    pub const EMPTY: Payload<'static, L> = Payload(L::NOTHING, PhantomData);
}

impl<L: Level> Payload<'_, L> {
    /// The bytes of the payload. They fit a `u64`: a scatter entry has less than 2³² and there are
    /// less than 2³² of them; inline buffers lie in memory (and may overlap, so that it saturates).
    #[inline]
    pub(super) fn len(&self) -> u64 {
        match self.0 {
            Kind::Scatter(slices) => slices.iter().map(|slice| u64::from(slice.len())).sum(),
            Kind::Shared(slices) => slices.iter().map(|slice| u64::from(slice.len())).sum(),
            Kind::Inline(bytes) | Kind::Short(bytes) => bytes.len() as u64,
            Kind::InlineList(buffers) => total(buffers) as u64,
        }
    }

    /// Whether the queue pair can carry it. Providers are not trusted to check.
    #[inline(always)]
    pub(super) fn check(&self, granted: &QueuePairCapacity) -> Result<(), Refusal> {
        match self.0 {
            Kind::Scatter(slices) if slices.len() > granted.max_send_sge as usize => {
                Err(Refusal::ScatterEntries(slices.len()))
            }
            Kind::Shared(slices) if slices.len() > granted.max_send_sge as usize => {
                Err(Refusal::ScatterEntries(slices.len()))
            }
            Kind::Inline(bytes) | Kind::Short(bytes)
                if bytes.len() > granted.max_inline_data as usize =>
            {
                Err(Refusal::InlineBytes(bytes.len()))
            }
            Kind::InlineList(buffers) if total(buffers) > granted.max_inline_data as usize => {
                Err(Refusal::InlineBytes(total(buffers)))
            }
            _ => Ok(()),
        }
    }

    /// What it takes of the queue pair.
    #[inline(always)]
    pub(super) fn demand(&self) -> Demand {
        match self.0 {
            Kind::Scatter(slices) => Demand::Entries(slices.len()),
            Kind::Shared(slices) => Demand::Entries(slices.len()),
            Kind::Inline(bytes) => Demand::Bytes(bytes.len()),
            Kind::Short(bytes) => Demand::Short(bytes.len()),
            Kind::InlineList(buffers) => Demand::Bytes(total(buffers)),
        }
    }

    #[inline]
    pub(super) fn kind(&self) -> Kind<'_> {
        self.0
    }
}

impl Payload<'_, Raw> {
    /// The flag that goes with the request. The extended interface has a function for inline data and
    /// needs none, but SoftRoCE and bnxt_re look at the flag as well.
    #[inline]
    pub(super) fn flags(&self) -> u32 {
        match self.0 {
            Kind::Scatter(_) | Kind::Shared(_) => 0,
            Kind::Inline(_) | Kind::Short(_) | Kind::InlineList(_) => ffi::IBV_SEND_INLINE,
        }
    }

    /// Gives the payload to the request that was begun last.
    ///
    /// # Safety
    ///
    /// `qp` is alive, a batch is open in which a request was begun just now, the builder checked the
    /// functions, and what is [demanded](Self::demand) was granted.
    #[inline]
    pub(super) unsafe fn set(&self, qp: *mut ffi::ibv_qp_ex) {
        match self.0 {
            // One entry has a function of its own, which needs no loop.
            Kind::Scatter([slice]) => {
                // SAFETY: passed on to the caller.
                unsafe { ffi::ibv_wr_set_sge(qp, slice.lkey(), slice.addr(), slice.len()) }
            }
            Kind::Scatter(slices) => {
                let list = slices.as_ptr().cast::<ffi::ibv_sge>();
                // SAFETY: passed on to the caller; a `LocalMemorySlice` is an `ibv_sge`
                // (`repr(transparent)`), and the list is as long as the slice.
                unsafe { ffi::ibv_wr_set_sge_list(qp, slices.len(), list) }
            }
            // Payloads of this level are not made of them.
            Kind::Shared(_) => {}
            Kind::Inline(bytes) | Kind::Short(bytes) => {
                let addr = bytes.as_ptr().cast_mut().cast();
                // SAFETY: passed on to the caller; the provider only reads the bytes, now.
                unsafe { ffi::ibv_wr_set_inline_data(qp, addr, bytes.len()) }
            }
            Kind::InlineList(buffers) => {
                let list = buffers.as_ptr().cast::<ffi::ibv_data_buf>();
                // SAFETY: passed on to the caller; an `IoSlice` is an `iovec`, whose layout is that of
                // `ibv_data_buf` (see below), and the list is as long as the slice.
                unsafe { ffi::ibv_wr_set_inline_data_list(qp, buffers.len(), list) }
            }
        }
    }
}

#[inline]
fn total(buffers: &[IoSlice<'_>]) -> usize {
    buffers.iter().fold(0, |total: usize, buffer| total.saturating_add(buffer.len()))
}

// The standard library guarantees that an `IoSlice` is laid out as an `iovec`; here, that an `iovec` is
// laid out as an `ibv_data_buf`.
const _: () = {
    use std::mem::{offset_of, size_of};
    assert!(size_of::<ffi::ibv_data_buf>() == size_of::<libc::iovec>());
    assert!(offset_of!(ffi::ibv_data_buf, addr) == offset_of!(libc::iovec, iov_base));
    assert!(offset_of!(ffi::ibv_data_buf, length) == offset_of!(libc::iovec, iov_len));
};
