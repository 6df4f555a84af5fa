//! Registered memory, by its keys.

use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::numbers::Numbered;
use super::{copy, limits, Access, Result};
use crate::transport::{MemoryError, PdId, RemoteAccess, Sge};

/// What an access needs of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Right {
    LocalRead,
    LocalWrite,
    Remote(RemoteAccess),
}

impl Right {
    const READ: Right = Right::Remote(RemoteAccess { write: false, read: true, atomic: false });
    const WRITE: Right = Right::Remote(RemoteAccess { write: true, read: false, atomic: false });
    const ATOMIC: Right = Right::Remote(RemoteAccess { write: false, read: false, atomic: true });
}

impl Access {
    fn allows(self, right: Right) -> bool {
        match right {
            Right::LocalRead => true,
            Right::LocalWrite => self.local_write,
            Right::Remote(RemoteAccess { write, read, atomic }) => {
                (!write || self.remote_write)
                    && (!read || self.remote_read)
                    && (!atomic || self.remote_atomic)
            }
        }
    }

    /// Whether the memory must be writable.
    pub(crate) fn writes(self) -> bool {
        self.local_write || self.remote_write || self.remote_atomic
    }
}

/// A memory region.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region {
    pub(crate) pd: PdId,
    /// Where the memory is.
    pub(crate) addr: u64,
    /// Its length, not 0; neither `addr` nor `iova` plus the length is beyond 64 bits.
    pub(crate) len: u64,
    /// The address by which it is named in requests.
    pub(crate) iova: u64,
    pub(crate) access: Access,
}

impl Region {
    /// Checks what can be known without looking at the memory.
    pub(crate) fn check(&self) -> Result<()> {
        let fits = |start: u64| start.checked_add(self.len).is_some();
        let remote = self.access.remote_write || self.access.remote_atomic;
        if self.len == 0
            || self.len > limits::MAX_MR_SIZE
            || !fits(self.addr)
            || !fits(self.iova)
            || (remote && !self.access.local_write)
        {
            return Err(Errno::INVAL);
        }
        Ok(())
    }
}

/// The memory table: a key is a place in it and a random tag.
#[derive(Debug)]
pub(crate) struct Memory {
    regions: Numbered<Region, 32, 16>,
}

const _: () = assert!(limits::MAX_MR == 1 << 16, "the places of the table are the limit");

impl Memory {
    pub(crate) fn new() -> Memory {
        Memory { regions: Numbered::new() }
    }

    /// Takes a region in, and returns its key.
    ///
    /// # Safety
    ///
    /// The memory must be mapped, readable, and writable if the access writes, until the region is removed.
    pub(crate) unsafe fn insert(&mut self, region: Region) -> Result<u32> {
        region.check()?;
        self.regions.insert(|key| key == 0, |_| region).ok_or(Errno::NOMEM)
    }

    pub(crate) fn remove(&mut self, key: u32) -> Option<Region> {
        self.regions.remove(key)
    }

    /// Where `len` bytes at `addr` are, if the key covers them and allows it.
    #[inline]
    fn find(
        &self,
        pd: PdId,
        key: u32,
        addr: u64,
        len: u64,
        right: Right,
    ) -> std::result::Result<*mut u8, MemoryError> {
        let region = self.regions.get(key).ok_or(MemoryError)?;
        let offset = addr.checked_sub(region.iova).ok_or(MemoryError)?;
        let end = offset.checked_add(len).ok_or(MemoryError)?;
        if region.pd != pd || end > region.len || !region.access.allows(right) {
            return Err(MemoryError);
        }
        Ok((region.addr + offset) as *mut u8)
    }

    /// Where a piece of a scatter entry is.
    #[inline]
    fn find_local(
        &self,
        pd: PdId,
        sge: &Sge,
        offset: u32,
        len: usize,
        right: Right,
    ) -> std::result::Result<*mut u8, MemoryError> {
        let addr = sge.addr.checked_add(u64::from(offset)).ok_or(MemoryError)?;
        self.find(pd, sge.lkey, addr, len as u64, right)
    }

    pub(crate) fn read_local(
        &self,
        pd: PdId,
        sge: &Sge,
        offset: u32,
        to: &mut [u8],
    ) -> std::result::Result<(), MemoryError> {
        if to.is_empty() {
            return Ok(());
        }
        let from = self.find_local(pd, sge, offset, to.len(), Right::LocalRead)?;
        // SAFETY: within a region that is in the table, and so mapped and readable.
        unsafe { copy::from_registered(from, to) };
        Ok(())
    }

    pub(crate) fn write_local(
        &self,
        pd: PdId,
        sge: &Sge,
        offset: u32,
        from: &[u8],
    ) -> std::result::Result<(), MemoryError> {
        if from.is_empty() {
            return Ok(());
        }
        let to = self.find_local(pd, sge, offset, from.len(), Right::LocalWrite)?;
        // SAFETY: within a region that is in the table and allows writes, and so is mapped and writable.
        unsafe { copy::to_registered(to, from) };
        Ok(())
    }

    pub(crate) fn check_local(
        &self,
        pd: PdId,
        sge: &Sge,
        write: bool,
    ) -> std::result::Result<(), MemoryError> {
        if sge.len == 0 {
            return Ok(());
        }
        let right = if write { Right::LocalWrite } else { Right::LocalRead };
        self.find(pd, sge.lkey, sge.addr, u64::from(sge.len), right).map(|_| ())
    }

    pub(crate) fn check_remote(
        &self,
        pd: PdId,
        rkey: u32,
        addr: u64,
        len: u32,
        access: RemoteAccess,
    ) -> std::result::Result<(), MemoryError> {
        if len == 0 {
            return Ok(());
        }
        self.find(pd, rkey, addr, u64::from(len), Right::Remote(access)).map(|_| ())
    }

    pub(crate) fn read_remote(
        &self,
        pd: PdId,
        rkey: u32,
        addr: u64,
        to: &mut [u8],
    ) -> std::result::Result<(), MemoryError> {
        if to.is_empty() {
            return Ok(());
        }
        let from = self.find(pd, rkey, addr, to.len() as u64, Right::READ)?;
        // SAFETY: within a region that is in the table, and so mapped and readable.
        unsafe { copy::from_registered(from, to) };
        Ok(())
    }

    pub(crate) fn write_remote(
        &self,
        pd: PdId,
        rkey: u32,
        addr: u64,
        from: &[u8],
    ) -> std::result::Result<(), MemoryError> {
        if from.is_empty() {
            return Ok(());
        }
        let to = self.find(pd, rkey, addr, from.len() as u64, Right::WRITE)?;
        // SAFETY: within a region that is in the table and allows writes, and so is mapped and writable.
        unsafe { copy::to_registered(to, from) };
        Ok(())
    }

    /// Where 8 bytes for an atomic operation are. The address by which they are named may be a multiple of 8 where they are not.
    fn find_word(
        &self,
        pd: PdId,
        rkey: u32,
        addr: u64,
    ) -> std::result::Result<*mut u8, MemoryError> {
        let at = self.find(pd, rkey, addr, 8, Right::ATOMIC)?;
        if at as usize % 8 == 0 {
            Ok(at)
        } else {
            Err(MemoryError)
        }
    }

    pub(crate) fn compare_swap(
        &self,
        pd: PdId,
        rkey: u32,
        addr: u64,
        compare: u64,
        swap: u64,
    ) -> std::result::Result<u64, MemoryError> {
        let at = self.find_word(pd, rkey, addr)?;
        // SAFETY: aligned, within a region that is in the table and allows writes.
        Ok(unsafe { copy::change(at, |word| copy::compare_swap(word, compare, swap)) })
    }

    pub(crate) fn fetch_add(
        &self,
        pd: PdId,
        rkey: u32,
        addr: u64,
        add: u64,
    ) -> std::result::Result<u64, MemoryError> {
        let at = self.find_word(pd, rkey, addr)?;
        // SAFETY: aligned, within a region that is in the table and allows writes.
        Ok(unsafe { copy::change(at, |word| word.fetch_add(add, Ordering::SeqCst)) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    const PD: PdId = PdId(3);
    const OTHER: PdId = PdId(4);
    const ALL: Access =
        Access { local_write: true, remote_write: true, remote_read: true, remote_atomic: true };
    const NOTHING: Access = Access {
        local_write: false,
        remote_write: false,
        remote_read: false,
        remote_atomic: false,
    };
    const IOVA: u64 = 0x1000;

    /// Words that are registered for as long as this lives.
    struct Registered {
        memory: Memory,
        words: Box<[AtomicU64]>,
        key: u32,
    }

    fn registered(access: Access) -> Registered {
        let words: Box<[AtomicU64]> = (0..4).map(|_| AtomicU64::new(0)).collect();
        let mut memory = Memory::new();
        let addr = words.as_ptr() as u64;
        let region = Region { pd: PD, addr, len: 32, iova: IOVA, access };
        // SAFETY: the box lives as long as the table.
        let key = unsafe { memory.insert(region) }.unwrap();
        Registered { memory, words, key }
    }

    impl Registered {
        fn sge(&self, addr: u64, len: u32) -> Sge {
            Sge { addr, len, lkey: self.key }
        }
    }

    #[test]
    fn bytes_go_in_and_out_within_the_bounds() {
        let it = registered(ALL);
        let sge = it.sge(IOVA + 8, 24);
        assert_eq!(it.memory.write_local(PD, &sge, 3, &[1, 2, 3]), Ok(()));
        let mut back = [0; 5];
        assert_eq!(it.memory.read_local(PD, &sge, 2, &mut back), Ok(()));
        assert_eq!(back, [0, 1, 2, 3, 0]);
        assert_eq!(it.memory.read_remote(PD, it.key, IOVA + 10, &mut back), Ok(()));
        assert_eq!(back, [0, 1, 2, 3, 0]);
        assert_eq!(it.memory.write_remote(PD, it.key, IOVA + 31, &[9]), Ok(()));
        assert_eq!(it.words[3].load(Ordering::Relaxed).to_ne_bytes()[7], 9);
        assert_eq!(it.memory.write_remote(PD, it.key, IOVA + 31, &[9, 9]), Err(MemoryError));
        assert_eq!(it.memory.write_remote(PD, it.key, IOVA - 1, &[9]), Err(MemoryError));
        assert_eq!(it.memory.write_local(PD, &sge, 24, &[9]), Err(MemoryError));
        let beyond = it.sge(u64::MAX, 1);
        assert_eq!(it.memory.write_local(PD, &beyond, 1, &[9]), Err(MemoryError));
        assert_eq!(it.memory.read_remote(PD, it.key, u64::MAX, &mut back), Err(MemoryError));
    }

    #[test]
    fn the_domain_and_the_whole_key_count() {
        let mut it = registered(ALL);
        let sge = it.sge(IOVA, 32);
        assert_eq!(it.memory.check_local(PD, &sge, true), Ok(()));
        assert_eq!(it.memory.check_local(OTHER, &sge, true), Err(MemoryError));
        for bit in 0..32 {
            let other = Sge { lkey: it.key ^ (1 << bit), ..sge };
            assert_eq!(it.memory.check_local(PD, &other, false), Err(MemoryError));
        }
        assert!(it.memory.remove(it.key).is_some());
        assert_eq!(it.memory.check_local(PD, &sge, false), Err(MemoryError));
        assert!(it.memory.remove(it.key).is_none());
    }

    #[test]
    fn each_right_is_asked_for() {
        let results = |access: Access| {
            let it = registered(access);
            let sge = it.sge(IOVA, 8);
            [
                it.memory.read_local(PD, &sge, 0, &mut [0]).is_ok(),
                it.memory.write_local(PD, &sge, 0, &[0]).is_ok(),
                it.memory.check_local(PD, &sge, true).is_ok(),
                it.memory.read_remote(PD, it.key, IOVA, &mut [0]).is_ok(),
                it.memory.write_remote(PD, it.key, IOVA, &[0]).is_ok(),
                it.memory.compare_swap(PD, it.key, IOVA, 0, 0).is_ok(),
                it.memory.fetch_add(PD, it.key, IOVA, 0).is_ok(),
            ]
        };
        let local = Access { local_write: true, ..NOTHING };
        assert_eq!(results(NOTHING), [true, false, false, false, false, false, false]);
        assert_eq!(results(local), [true, true, true, false, false, false, false]);
        let read = Access { remote_read: true, ..NOTHING };
        assert_eq!(results(read), [true, false, false, true, false, false, false]);
        let write = Access { remote_write: true, ..local };
        assert_eq!(results(write), [true, true, true, false, true, false, false]);
        let atomic = Access { remote_atomic: true, ..local };
        assert_eq!(results(atomic), [true, true, true, false, false, true, true]);
        assert_eq!(results(ALL), [true; 7]);
    }

    #[test]
    fn no_bytes_need_no_key() {
        let it = registered(NOTHING);
        let nowhere = Sge { addr: 7, len: 0, lkey: !it.key };
        assert_eq!(it.memory.check_local(OTHER, &nowhere, true), Ok(()));
        assert_eq!(it.memory.read_local(OTHER, &nowhere, 0, &mut []), Ok(()));
        assert_eq!(it.memory.write_local(OTHER, &nowhere, 0, &[]), Ok(()));
        let all = RemoteAccess { write: true, read: true, atomic: true };
        assert_eq!(it.memory.check_remote(OTHER, !it.key, 7, 0, all), Ok(()));
        assert_eq!(it.memory.check_remote(PD, it.key, IOVA, 1, all), Err(MemoryError));
    }

    #[test]
    fn atomics_change_words_where_they_are_aligned() {
        let it = registered(ALL);
        assert_eq!(it.memory.fetch_add(PD, it.key, IOVA + 8, 5), Ok(0));
        assert_eq!(it.memory.compare_swap(PD, it.key, IOVA + 8, 5, 7), Ok(5));
        assert_eq!(it.memory.compare_swap(PD, it.key, IOVA + 8, 5, 9), Ok(7));
        assert_eq!(it.words[1].load(Ordering::Relaxed), 7);
        assert_eq!(it.memory.fetch_add(PD, it.key, IOVA + 28, 5), Err(MemoryError));
        assert_eq!(it.memory.fetch_add(PD, it.key, IOVA + 4, 5), Err(MemoryError));
        let mut memory = Memory::new();
        let addr = it.words.as_ptr() as u64 + 4;
        let region = Region { pd: PD, addr, len: 16, iova: IOVA, access: ALL };
        // SAFETY: within the box, which lives longer.
        let key = unsafe { memory.insert(region) }.unwrap();
        assert_eq!(memory.fetch_add(PD, key, IOVA, 5), Err(MemoryError));
    }

    #[test]
    fn regions_that_make_no_sense_are_refused() {
        let region = Region { pd: PD, addr: 4096, len: 8, iova: IOVA, access: ALL };
        assert_eq!(region.check(), Ok(()));
        for wrong in [
            Region { len: 0, ..region },
            Region { len: limits::MAX_MR_SIZE + 1, ..region },
            Region { addr: u64::MAX - 6, ..region },
            Region { iova: u64::MAX - 6, ..region },
            Region { access: Access { local_write: false, ..ALL }, ..region },
        ] {
            assert_eq!(wrong.check(), Err(Errno::INVAL), "{wrong:?}");
        }
        let read = Access { remote_read: true, ..NOTHING };
        assert_eq!(Region { access: read, ..region }.check(), Ok(()));
        assert!(!read.writes());
    }
}
