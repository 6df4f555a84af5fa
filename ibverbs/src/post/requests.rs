//! The requests of a batch that is submitted as a whole (`struct ibv_send_wr`), linked to a chain once.

use std::ptr::{self, NonNull};

use crate::error::{os_error, Error, Result};
use crate::ffi;
use crate::qp::QueuePairCapacity;

/// Requests of one queue pair, each with room for what it may carry. They are used again by each batch.
pub(crate) struct Requests {
    /// Each is linked to the next one, and has its entries as its scatter list.
    requests: Array<ffi::ibv_send_wr>,
    /// The one at which the chain ends, if it was ended: where the last batch has ended it.
    last: *mut ffi::ibv_send_wr,
    /// Behind all of them.
    end: *mut ffi::ibv_send_wr,
    entries: Array<ffi::ibv_sge>,
    bytes: Array<u8>,
    max_len: usize,
    entries_each: usize,
    bytes_each: usize,
    /// Where a provider tells which request it refused; null between two calls.
    bad: *mut ffi::ibv_send_wr,
}

// SAFETY: the pointers lead to its own arrays, and are followed only by whoever has borrowed it exclusively.
unsafe impl Send for Requests {}

/// The places of the requests that a batch has not filled yet. It stands on the stack of whoever fills the batch, where
/// the compiler keeps it in registers.
pub(crate) struct Places {
    first: *mut ffi::ibv_send_wr,
    next: *mut ffi::ibv_send_wr,
    end: *mut ffi::ibv_send_wr,
}

// SAFETY: the pointers lead to the requests of a queue pair, which the batch borrows exclusively, and may be sent as that
// may; they are followed by none but it.
unsafe impl Send for Places {}
// SAFETY: as above.
unsafe impl Sync for Places {}

impl Places {
    /// Whether there is none left.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.next == self.end
    }

    /// Puts the request that was described last into the batch: it is the next one's turn.
    #[inline]
    pub(crate) fn push(&mut self) {
        self.next = self.next.wrapping_add(1);
    }
}

/// The next request, which is not in the batch before [`push`](Places::push).
pub(crate) struct Slot<'a> {
    pub(crate) request: &'a mut ffi::ibv_send_wr,
    entries: *mut ffi::ibv_sge,
    bytes: *mut u8,
}

impl Requests {
    /// One request, for a queue pair that was granted this. (If it has no places, none is ever filled.)
    pub(crate) fn new(granted: &QueuePairCapacity) -> Requests {
        let mut requests = Requests {
            requests: Array::new(0),
            entries: Array::new(0),
            bytes: Array::new(0),
            max_len: granted.max_send_wr as usize,
            // What is inline needs one as well.
            entries_each: granted.max_send_sge.max(1) as usize,
            bytes_each: granted.max_inline_data as usize,
            last: ptr::null_mut(),
            end: ptr::null_mut(),
            bad: ptr::null_mut(),
        };
        requests.grow_to(1);
        requests
    }

    /// All places, for a batch that begins.
    #[inline]
    pub(crate) fn places(&self) -> Places {
        let (first, end) = (self.requests.at(0), self.end);
        // SAFETY: `new` has made room for one, and `grow` makes more.
        unsafe { std::hint::assert_unchecked(first != end) };
        Places { first, next: first, end }
    }

    /// How many requests are in the batch that these places were left by.
    #[inline]
    fn filled(&self, places: &Places) -> usize {
        (places.next as usize).wrapping_sub(self.requests.at(0) as usize)
            / size_of::<ffi::ibv_send_wr>()
    }

    /// The request that comes next.
    ///
    /// # Safety
    ///
    /// The places are those that this has handed out last, and are not [empty](Places::is_empty).
    #[inline]
    pub(crate) unsafe fn slot(&mut self, places: &Places) -> Slot<'_> {
        let bytes = self.bytes.at(self.filled(places) * self.bytes_each);
        // SAFETY: the request is one of the array, by the caller's promise, and was written by `Array::new`; self is
        // borrowed exclusively for as long as the reference lives, and providers know of no request outside of `post`.
        let request = unsafe { &mut *places.next };
        let entries = request.sg_list;
        Slot { request, entries, bytes }
    }

    /// Hands the chain of the requests that a batch has filled to `call`, if there are any. It stores the first request
    /// that it refuses, and returns a failure code or zero.
    ///
    /// # Safety
    ///
    /// The places are those that this has handed out last, and none was pushed that was [empty](Places::is_empty).
    #[inline]
    pub(crate) unsafe fn post(
        &mut self,
        places: &Places,
        call: impl FnOnce(*mut ffi::ibv_send_wr, &mut *mut ffi::ibv_send_wr) -> i32,
    ) -> Result<()> {
        let first = places.first;
        if places.next == first {
            return Ok(());
        }
        let last = places.next.wrapping_sub(1);
        let failure = if last == self.last {
            let code = call(first, &mut self.bad);
            if code == 0 {
                return Ok(());
            }
            Some(self.failure(code))
        } else {
            // SAFETY: the request is one of the array, by the caller's promise.
            unsafe { self.call_ended_at(last, first, call) }
        };
        match failure {
            None => Ok(()),
            Some(error) => Err(*error),
        }
    }

    /// Makes the call for a chain that is to end at another request than the last one did: in a function of its own, so that
    /// nothing need be kept for the call where it is not needed. Returns the error in a box, so that the caller's result can
    /// stay in registers.
    ///
    /// # Safety
    ///
    /// The request is one of the array.
    #[cold]
    #[inline(never)]
    unsafe fn call_ended_at(
        &mut self,
        last: *mut ffi::ibv_send_wr,
        first: *mut ffi::ibv_send_wr,
        call: impl FnOnce(*mut ffi::ibv_send_wr, &mut *mut ffi::ibv_send_wr) -> i32,
    ) -> Option<Box<Error>> {
        if !self.last.is_null() {
            // SAFETY: it is one of the array, of which `grow_to` forgets it; self is borrowed exclusively, and providers know
            // of no request outside of `post`.
            unsafe { (*self.last).next = self.last.wrapping_add(1) };
        }
        // SAFETY: as above, and by the caller's promise.
        unsafe { (*last).next = ptr::null_mut() };
        self.last = last;
        let code = call(first, &mut self.bad);
        (code != 0).then(|| self.failure(code))
    }

    /// The error of the chain, of which the provider refused one request and what follows it.
    #[cold]
    #[inline(never)]
    fn failure(&mut self, code: i32) -> Box<Error> {
        let filled = |next| self.filled(&Places { first: next, next, end: next });
        let requested = filled(self.last.wrapping_add(1));
        // If the provider does not say which one it refused, it may have taken any of them.
        let accepted = if self.bad.is_null() { requested } else { filled(self.bad).min(requested) };
        self.bad = ptr::null_mut();
        Box::new(Error::PostShared { accepted, requested, source: os_error(code) })
    }

    /// Makes room for more requests, when all are in the batch. Returns the new places, if there may be more.
    #[cold]
    #[inline(never)]
    pub(crate) fn grow(&mut self) -> Option<Places> {
        const FIRST: usize = 16;
        let filled = self.requests.len;
        let len = self.max_len.min((filled * 2).max(FIRST));
        if len <= filled {
            return None;
        }
        self.grow_to(len);
        Some(Places { next: self.requests.at(filled), ..self.places() })
    }

    /// Makes room for `len` requests, which are more than there are.
    fn grow_to(&mut self, len: usize) {
        let requests = Array::<ffi::ibv_send_wr>::new(len);
        let entries = Array::<ffi::ibv_sge>::new(len * self.entries_each);
        let bytes = Array::new(len * self.bytes_each);
        requests.copy_from(&self.requests);
        entries.copy_from(&self.entries);
        bytes.copy_from(&self.bytes);
        for index in 0..len {
            let (request, list) = (requests.at(index), entries.at(index * self.entries_each));
            // SAFETY: the request is one of the array, which nobody else knows.
            let request = unsafe { &mut *request };
            request.sg_list = list;
            // Not followed beyond the last one: `call_ended_at` ends the chain.
            request.next = requests.at(index + 1);
            if request.send_flags & ffi::IBV_SEND_INLINE != 0 {
                // SAFETY: each request has at least one entry in the array, which nobody else knows.
                unsafe { (*list).addr = bytes.at(index * self.bytes_each) as u64 };
            }
        }
        (self.last, self.end) = (ptr::null_mut(), requests.at(len));
        (self.requests, self.entries, self.bytes) = (requests, entries, bytes);
    }
}

impl Slot<'_> {
    /// Makes these the scatter list.
    ///
    /// # Safety
    ///
    /// They are no more than the queue pair was granted.
    #[inline]
    pub(crate) unsafe fn set_entries(&mut self, entries: impl Iterator<Item = ffi::ibv_sge>) {
        let mut len = 0;
        for entry in entries {
            // SAFETY: the list has room for as many as were granted, by the caller's promise, and self is borrowed
            // exclusively.
            let to = unsafe { self.entries.add(len) };
            // SAFETY: as above.
            unsafe { write_entry(to, entry) };
            len += 1;
        }
        self.request.num_sge = len as i32;
    }

    /// Copies these bytes, one slice after the other, and makes them what is sent inline. Returns the flag that says
    /// so.
    ///
    /// # Safety
    ///
    /// They are no more than the queue pair was granted.
    #[inline]
    pub(crate) unsafe fn set_bytes<'a>(
        &mut self,
        slices: impl IntoIterator<Item = &'a [u8]>,
    ) -> u32 {
        let mut len = 0;
        for slice in slices {
            // SAFETY: the slice's bytes fit behind those before them, by the caller's promise.
            let to = unsafe { self.bytes.add(len) };
            // SAFETY: as above; the room is this request's alone, so that the two do not overlap.
            unsafe { ptr::copy_nonoverlapping(slice.as_ptr(), to, slice.len()) };
            len += slice.len();
        }
        if len == 0 {
            self.request.num_sge = 0;
            return 0;
        }
        let entry = ffi::ibv_sge { addr: self.bytes as u64, length: len as u32, lkey: 0 };
        // SAFETY: every request has an entry.
        unsafe { self.entries.write(entry) };
        self.request.num_sge = 1;
        ffi::IBV_SEND_INLINE
    }
}

/// Writes an entry, with one store for what is half as long as an address: the compiler would make two.
///
/// # Safety
///
/// That of [`pointer::write`].
#[inline(always)]
unsafe fn write_entry(to: *mut ffi::ibv_sge, entry: ffi::ibv_sge) {
    // SAFETY: the pointer is that of an entry, by the caller's promise.
    unsafe { (*to).addr = entry.addr };
    // SAFETY: two numbers of 32 bits are as long as one of 64, which any bytes are.
    let rest = unsafe { std::mem::transmute::<[u32; 2], u64>([entry.length, entry.lkey]) };
    // SAFETY: as above.
    let place = unsafe { &raw mut (*to).length }.cast::<u64>();
    // SAFETY: these are the last two fields of the entry (see below), which lie at an address that is a multiple of eight.
    unsafe { place.write(rest) };
}

const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(ffi::ibv_sge, length) == 8 && offset_of!(ffi::ibv_sge, lkey) == 12);
};

/// Plain values at a place of their own, to which C code has pointers. It is held as a raw pointer, which those are
/// derived from: a `Box` or a `Vec` would claim to be the only way to its contents.
pub(crate) struct Array<T> {
    ptr: NonNull<T>,
    len: usize,
}

impl<T: Copy + Default> Array<T> {
    pub(crate) fn new(len: usize) -> Array<T> {
        let values = Box::leak(vec![T::default(); len].into_boxed_slice());
        Array { ptr: NonNull::from(values).cast(), len }
    }

    /// The place of a value; or the one behind the last, which is not to be followed.
    #[inline]
    pub(crate) fn at(&self, index: usize) -> *mut T {
        self.ptr.as_ptr().wrapping_add(index)
    }

    /// How many values it has.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Copies the values of an array that is not longer.
    pub(crate) fn copy_from(&self, other: &Array<T>) {
        let len = other.len.min(self.len);
        // SAFETY: both have at least `len` values, and are memory of their own.
        unsafe { ptr::copy_nonoverlapping(other.ptr.as_ptr(), self.ptr.as_ptr(), len) };
    }
}

impl<T> Drop for Array<T> {
    fn drop(&mut self) {
        let values = ptr::slice_from_raw_parts_mut(self.ptr.as_ptr(), self.len);
        // SAFETY: this is the box that `new` has leaked, and it is dropped once.
        drop(unsafe { Box::from_raw(values) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(max_send_wr: u32) -> QueuePairCapacity {
        QueuePairCapacity {
            max_send_wr,
            max_recv_wr: 0,
            max_send_sge: 2,
            max_recv_sge: 0,
            max_inline_data: 3,
        }
    }

    /// Fills a batch with `len` requests: every other one with two entries, the others inline.
    fn fill(requests: &mut Requests, len: usize) -> Places {
        let mut places = requests.places();
        for index in 0..len {
            if places.is_empty() {
                places = requests.grow().unwrap();
            }
            // SAFETY: there is room for one, as was checked just now.
            let mut slot = unsafe { requests.slot(&places) };
            let byte = index as u8;
            let entry = |half| ffi::ibv_sge { addr: index as u64, length: half, lkey: 9 };
            slot.request.send_flags = if index % 2 == 0 {
                // SAFETY: two were granted.
                unsafe { slot.set_entries([entry(0), entry(1)].into_iter()) };
                0
            } else {
                // SAFETY: three were granted.
                unsafe { slot.set_bytes([&[byte, 1][..], &[2]]) }
            };
            slot.request.wr_id = index as u64;
            places.push();
        }
        places
    }

    /// What a provider would see.
    fn posted(requests: &mut Requests, places: &Places) -> Vec<(u64, Vec<u8>)> {
        let mut seen = Vec::new();
        let bytes: *const u8 = requests.bytes.at(0);
        let call = |first: *mut ffi::ibv_send_wr, _: &mut _| {
            let mut next = first;
            while !next.is_null() {
                // SAFETY: a request of the chain.
                let request = unsafe { next.read() };
                let entry = |index: i32| {
                    // SAFETY: the list has so many entries.
                    unsafe { request.sg_list.wrapping_add(index as usize).read() }
                };
                let entries: Vec<_> = (0..request.num_sge).map(entry).collect();
                let carried = if request.send_flags & ffi::IBV_SEND_INLINE != 0 {
                    let offset = entries[0].addr as usize - bytes as usize;
                    let (at, len) = (bytes.wrapping_add(offset), entries[0].length as usize);
                    // SAFETY: what is inline is among these bytes, and can be read.
                    unsafe { std::slice::from_raw_parts(at, len) }.to_vec()
                } else {
                    entries.iter().map(|entry| entry.length as u8 + entry.addr as u8).collect()
                };
                seen.push((request.wr_id, carried));
                next = request.next;
            }
            0
        };
        // SAFETY: the places are what `fill` has left.
        unsafe { requests.post(places, call) }.unwrap();
        seen
    }

    #[test]
    fn a_batch_is_a_chain_of_what_was_added_to_it_however_often_it_grows() {
        let mut requests = Requests::new(&granted(100));
        for len in [1, 16, 17, 3, 100, 40] {
            let places = fill(&mut requests, len);
            let expected: Vec<_> = (0..len as u8)
                .map(|n| (u64::from(n), if n % 2 == 0 { vec![n, n + 1] } else { vec![n, 1, 2] }))
                .collect();
            assert_eq!(posted(&mut requests, &places), expected);
            let none = requests.places();
            assert_eq!(posted(&mut requests, &none), []);
        }
    }

    #[test]
    fn a_batch_has_no_more_requests_than_the_queue_has_places() {
        for places in [1, 15, 16, 17, 33] {
            let mut requests = Requests::new(&granted(places));
            let filled = fill(&mut requests, places as usize);
            assert!(filled.is_empty() && requests.grow().is_none());
            assert_eq!(posted(&mut requests, &filled).len(), places as usize);
        }
    }
}
