//! Registered memory, by its keys.

use std::sync::atomic::AtomicU64;

use ibverbs_sys::registered;
use rustix::io::Errno;

use super::numbers::Numbered;
use super::{atomic, limits, Access, Result};
use crate::transport::{MemoryError, PdId, RemoteAccess};

/// The result of an access that was checked.
pub(crate) type Checked<T> = std::result::Result<T, MemoryError>;

/// Whose request it is that accesses memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Program,
    Peer,
}

/// What an access needs of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
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
    fn find(&self, pd: PdId, key: u32, addr: u64, len: u64, right: Right) -> Checked<*mut u8> {
        let region = self.regions.get(key).ok_or(MemoryError)?;
        let offset = addr.checked_sub(region.iova).ok_or(MemoryError)?;
        let end = offset.checked_add(len).ok_or(MemoryError)?;
        if region.pd != pd || end > region.len || !region.access.allows(right) {
            return Err(MemoryError);
        }
        Ok((region.addr + offset) as *mut u8)
    }

    /// Copies from memory.
    pub(crate) fn read(
        &self,
        who: Who,
        pd: PdId,
        key: u32,
        addr: u64,
        to: &mut [u8],
    ) -> Checked<()> {
        if !to.is_empty() {
            let right = match who {
                Who::Program => Right::LocalRead,
                Who::Peer => Right::READ,
            };
            let from = self.find(pd, key, addr, to.len() as u64, right)?;
            // SAFETY: within a region that is in the table, and so mapped and readable.
            unsafe { registered::from_registered(from, to) };
        }
        Ok(())
    }

    /// Copies into memory.
    pub(crate) fn write(
        &self,
        who: Who,
        pd: PdId,
        key: u32,
        addr: u64,
        from: &[u8],
    ) -> Checked<()> {
        if !from.is_empty() {
            let right = match who {
                Who::Program => Right::LocalWrite,
                Who::Peer => Right::WRITE,
            };
            let to = self.find(pd, key, addr, from.len() as u64, right)?;
            // SAFETY: within a region that is in the table and allows writes, and so is mapped and writable.
            unsafe { registered::to_registered(to, from) };
        }
        Ok(())
    }

    /// Whether a key covers `len` bytes and allows an access. Nothing is checked for no bytes.
    pub(crate) fn check(
        &self,
        right: Right,
        pd: PdId,
        key: u32,
        addr: u64,
        len: u32,
    ) -> Checked<()> {
        if len > 0 {
            self.find(pd, key, addr, u64::from(len), right)?;
        }
        Ok(())
    }

    /// Changes 8 bytes as one operation, if a peer may do so. The address by which they are named may be a multiple of 8 where
    /// they are not: then they cannot be changed.
    pub(crate) fn change(
        &self,
        pd: PdId,
        rkey: u32,
        addr: u64,
        change: impl FnOnce(&AtomicU64) -> u64,
    ) -> Checked<u64> {
        let at = self.find(pd, rkey, addr, 8, Right::ATOMIC)?;
        if at as usize % 8 != 0 {
            return Err(MemoryError);
        }
        // SAFETY: aligned, within a region that is in the table and allows writes.
        Ok(unsafe { atomic::change(at, change) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

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
        fn read(&self, who: Who, addr: u64, to: &mut [u8]) -> Checked<()> {
            self.memory.read(who, PD, self.key, addr, to)
        }

        fn write(&self, who: Who, addr: u64, from: &[u8]) -> Checked<()> {
            self.memory.write(who, PD, self.key, addr, from)
        }

        fn add(&self, addr: u64, add: u64) -> Checked<u64> {
            self.memory.change(PD, self.key, addr, |word| word.fetch_add(add, Ordering::SeqCst))
        }
    }

    #[test]
    fn bytes_go_in_and_out_within_the_bounds() {
        let it = registered(ALL);
        for (who, other) in [(Who::Program, Who::Peer), (Who::Peer, Who::Program)] {
            assert_eq!(it.write(who, IOVA + 11, &[1, 2, 3]), Ok(()));
            let mut back = [7; 5];
            assert_eq!(it.read(other, IOVA + 10, &mut back), Ok(()));
            assert_eq!(back, [0, 1, 2, 3, 0]);
            assert_eq!(it.write(who, IOVA + 31, &[9]), Ok(()));
            assert_eq!(it.words[3].load(Ordering::Relaxed).to_ne_bytes()[7], 9);
            for (addr, len) in [(IOVA + 31, 2), (IOVA - 1, 1), (IOVA + 32, 1), (u64::MAX, 2)] {
                assert_eq!(it.write(who, addr, &vec![8; len]), Err(MemoryError));
                assert_eq!(it.read(who, addr, &mut vec![8; len]), Err(MemoryError));
                let checked = it.memory.check(Right::LocalRead, PD, it.key, addr, len as u32);
                assert_eq!(checked, Err(MemoryError));
            }
        }
    }

    #[test]
    fn the_domain_and_the_whole_key_count() {
        let mut it = registered(ALL);
        let check = |it: &Registered, pd, key| {
            it.memory.check(Right::LocalWrite, pd, key, IOVA, 32).is_ok()
        };
        assert!(check(&it, PD, it.key));
        assert!(!check(&it, OTHER, it.key));
        assert!((0..32).all(|bit| !check(&it, PD, it.key ^ (1 << bit))));
        assert!(it.memory.remove(it.key).is_some());
        assert!(!check(&it, PD, it.key));
        assert!(it.memory.remove(it.key).is_none());
    }

    #[test]
    fn each_right_is_asked_for() {
        let results = |access: Access| {
            let it = registered(access);
            [
                it.read(Who::Program, IOVA, &mut [0]).is_ok(),
                it.write(Who::Program, IOVA, &[0]).is_ok(),
                it.memory.check(Right::LocalWrite, PD, it.key, IOVA, 1).is_ok(),
                it.read(Who::Peer, IOVA, &mut [0]).is_ok(),
                it.write(Who::Peer, IOVA, &[0]).is_ok(),
                it.add(IOVA, 0).is_ok(),
            ]
        };
        let local = Access { local_write: true, ..NOTHING };
        assert_eq!(results(NOTHING), [true, false, false, false, false, false]);
        assert_eq!(results(local), [true, true, true, false, false, false]);
        let read = Access { remote_read: true, ..NOTHING };
        assert_eq!(results(read), [true, false, false, true, false, false]);
        let write = Access { remote_write: true, ..local };
        assert_eq!(results(write), [true, true, true, false, true, false]);
        let atomic = Access { remote_atomic: true, ..local };
        assert_eq!(results(atomic), [true, true, true, false, false, true]);
        assert_eq!(results(ALL), [true; 6]);
    }

    #[test]
    fn a_peer_needs_all_rights_that_are_checked_together() {
        let it = registered(Access { remote_read: true, ..NOTHING });
        let check = |write, read, atomic, len| {
            let right = Right::Remote(RemoteAccess { write, read, atomic });
            it.memory.check(right, PD, it.key, IOVA, len)
        };
        assert_eq!(check(false, true, false, 32), Ok(()));
        assert_eq!(check(true, true, false, 32), Err(MemoryError));
        assert_eq!(check(false, true, true, 32), Err(MemoryError));
        assert_eq!(check(false, true, false, 33), Err(MemoryError));
    }

    #[test]
    fn no_bytes_need_no_key() {
        let it = registered(NOTHING);
        for who in [Who::Program, Who::Peer] {
            assert_eq!(it.memory.read(who, OTHER, !it.key, 7, &mut []), Ok(()));
            assert_eq!(it.memory.write(who, OTHER, !it.key, 7, &[]), Ok(()));
        }
        assert_eq!(it.memory.check(Right::WRITE, OTHER, !it.key, 7, 0), Ok(()));
        assert_eq!(it.memory.check(Right::WRITE, PD, it.key, IOVA, 1), Err(MemoryError));
    }

    #[test]
    fn words_are_changed_where_they_are_aligned() {
        let it = registered(ALL);
        assert_eq!(it.add(IOVA + 8, 5), Ok(0));
        assert_eq!(it.add(IOVA + 8, 2), Ok(5));
        assert_eq!(it.words[1].load(Ordering::Relaxed), 7);
        assert_eq!([it.add(IOVA + 28, 5), it.add(IOVA + 4, 5)], [Err(MemoryError); 2]);
        let mut memory = Memory::new();
        let addr = it.words.as_ptr() as u64 + 4;
        let region = Region { pd: PD, addr, len: 16, iova: IOVA, access: ALL };
        // SAFETY: within the box, which lives longer.
        let key = unsafe { memory.insert(region) }.unwrap();
        assert_eq!(memory.change(PD, key, IOVA, |_| 0), Err(MemoryError));
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
