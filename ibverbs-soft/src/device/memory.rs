//! Registered memory, by its keys.

use std::sync::atomic::AtomicU64;

use ibverbs_sys::registered;
use rustix::io::Errno;

use super::numbers::Numbered;
use super::windows::{Bound, WindowType, Windows};
use super::{atomic, limits, Access, Result};
use crate::transport::{Bind, MemoryError, PdId, RemoteAccess, Through};

/// The result of an access that was checked.
pub(crate) type Checked<T> = std::result::Result<T, MemoryError>;

/// Whose request it is that accesses memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// The program, through a queue pair of this domain.
    Program(PdId),
    Peer(Through),
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

/// A region in the table.
#[derive(Debug)]
struct Registered {
    region: Region,
    /// How many windows are bound to it.
    windows: u32,
}

/// The memory table. A region's key is a place in it and a random tag; no key is one of a region and of a window.
#[derive(Debug)]
pub(crate) struct Memory {
    regions: Numbered<Registered, 32, 16>,
    windows: Windows,
}

const _: () = assert!(limits::MAX_MR == 1 << 16, "the places of the table are the limit");

impl Memory {
    pub(crate) fn new() -> Memory {
        Memory { regions: Numbered::new(), windows: Windows::new() }
    }

    /// Takes a region in, and returns its key.
    ///
    /// # Safety
    ///
    /// The memory must be mapped, readable, and writable if the access writes, until the region is removed.
    pub(crate) unsafe fn insert(&mut self, region: Region) -> Result<u32> {
        region.check()?;
        let is_reserved = |key| key == 0 || self.windows.has(key);
        let registered = Registered { region, windows: 0 };
        self.regions.insert(is_reserved, |_| registered).ok_or(Errno::NOMEM)
    }

    /// `EBUSY` while a window is bound to it.
    pub(crate) fn remove(&mut self, key: u32) -> Result<Region> {
        match self.regions.get(key) {
            Some(Registered { windows: 1.., .. }) => Err(Errno::BUSY),
            _ => self.regions.remove(key).map(|it| it.region).ok_or(Errno::INVAL),
        }
    }

    /// Allocates a window that is not bound, and returns its key.
    pub(crate) fn alloc_window(&mut self, pd: PdId, kind: WindowType) -> Result<u32> {
        self.windows.insert(pd, kind, |key| self.regions.get(key).is_some())
    }

    /// Frees the window that has this key or had it. Returns its domain.
    pub(crate) fn free_window(&mut self, key: u32) -> Result<PdId> {
        let window = self.windows.remove(key).ok_or(Errno::INVAL)?;
        self.count(window.bound, |windows| *windows -= 1);
        Ok(window.pd)
    }

    /// Counts a window of the region to which it is bound, or was.
    fn count(&mut self, bound: Option<Bound>, count: impl FnOnce(&mut u32)) {
        // It is there: it cannot be removed while there is a window.
        if let Some(it) = bound.and_then(|bound| self.regions.get_mut(bound.region)) {
            count(&mut it.windows);
        }
    }

    /// Binds a window.
    pub(crate) fn bind(&mut self, through: Through, bind: &Bind) -> Checked<()> {
        const BYTE: u32 = 0xff;
        let window = self.windows.get(bind.old_rkey).ok_or(MemoryError)?;
        let is_free = window.kind == WindowType::One || window.bound.is_none();
        let is_same = (bind.old_rkey ^ bind.rkey) & !BYTE == 0;
        if window.pd != through.pd || !is_free || !is_same {
            return Err(MemoryError);
        }
        let bound = match bind.len {
            // Only those of type 1 are unbound like this.
            0 if window.kind == WindowType::One => None,
            0 => return Err(MemoryError),
            _ => Some(self.piece(through, bind)?),
        };
        let before = self.windows.bind(bind.old_rkey, bind.rkey, bound);
        self.count(bound, |windows| *windows += 1);
        self.count(before, |windows| *windows -= 1);
        Ok(())
    }

    /// What a window is to be bound to, if it can be.
    fn piece(&self, through: Through, bind: &Bind) -> Checked<Bound> {
        let Bind { addr, len, access, .. } = *bind;
        let key = bind.region.ok_or(MemoryError)?;
        let right =
            if access.write || access.atomic { Right::LocalWrite } else { Right::LocalRead };
        self.find(Who::Program(through.pd), key, addr, len, right)?;
        let region = &self.regions.get(key).ok_or(MemoryError)?.region;
        if !region.access.windows {
            return Err(MemoryError);
        }
        Ok(Bound { region: key, addr, len, access, qp_num: through.qp_num })
    }

    /// Withdraws the key of a window of type 2.
    pub(crate) fn invalidate(&mut self, through: Through, rkey: u32) -> Checked<()> {
        let bound = self.windows.invalidate(through, rkey)?;
        self.count(Some(bound), |windows| *windows -= 1);
        Ok(())
    }

    /// Withdraws the keys of all windows of type 2 that a queue pair has bound: it is no more.
    pub(crate) fn invalidate_all_of(&mut self, qp_num: u32) {
        let Memory { windows, regions } = self;
        windows.unbind_all_of(qp_num, |bound| {
            if let Some(it) = regions.get_mut(bound.region) {
                it.windows -= 1;
            }
        });
    }

    /// Where `len` bytes at `addr` are, if the key covers them and allows it.
    #[inline]
    fn find(&self, who: Who, key: u32, addr: u64, len: u64, right: Right) -> Checked<*mut u8> {
        let pd = match who {
            Who::Program(pd) | Who::Peer(Through { pd, .. }) => pd,
        };
        let (region, allowed) = match (self.regions.get(key), who, right) {
            (Some(it), ..) => (&it.region, it.region.access.allows(right)),
            (None, Who::Peer(through), Right::Remote(access)) => {
                let bound = self.windows.find(through, key, addr, len, access);
                let it = bound.and_then(|bound| self.regions.get(bound.region));
                (&it.ok_or(MemoryError)?.region, true)
            }
            _ => return Err(MemoryError),
        };
        let offset = addr.checked_sub(region.iova).ok_or(MemoryError)?;
        let end = offset.checked_add(len).ok_or(MemoryError)?;
        if region.pd != pd || end > region.len || !allowed {
            return Err(MemoryError);
        }
        Ok((region.addr + offset) as *mut u8)
    }

    /// Copies from memory.
    pub(crate) fn read(&self, who: Who, key: u32, addr: u64, to: &mut [u8]) -> Checked<()> {
        if !to.is_empty() {
            let right = match who {
                Who::Program(_) => Right::LocalRead,
                Who::Peer(_) => Right::READ,
            };
            let from = self.find(who, key, addr, to.len() as u64, right)?;
            // SAFETY: within a region that is in the table, and so mapped and readable.
            unsafe { registered::from_registered(from, to) };
        }
        Ok(())
    }

    /// Copies into memory.
    pub(crate) fn write(&self, who: Who, key: u32, addr: u64, from: &[u8]) -> Checked<()> {
        if !from.is_empty() {
            let right = match who {
                Who::Program(_) => Right::LocalWrite,
                Who::Peer(_) => Right::WRITE,
            };
            let to = self.find(who, key, addr, from.len() as u64, right)?;
            // SAFETY: within a region that is in the table and allows writes (or has a window that does, which could not be bound to
            // another one), and so is mapped and writable.
            unsafe { registered::to_registered(to, from) };
        }
        Ok(())
    }

    /// Whether a key covers `len` bytes and allows an access. Nothing is checked for no bytes.
    pub(crate) fn check(
        &self,
        who: Who,
        right: Right,
        key: u32,
        addr: u64,
        len: u32,
    ) -> Checked<()> {
        if len > 0 {
            self.find(who, key, addr, u64::from(len), right)?;
        }
        Ok(())
    }

    /// Changes 8 bytes as one operation, if a peer may do so. The address by which they are named may be a multiple of 8 where
    /// they are not: then they cannot be changed.
    pub(crate) fn change(
        &self,
        through: Through,
        rkey: u32,
        addr: u64,
        change: impl FnOnce(&AtomicU64) -> u64,
    ) -> Checked<u64> {
        let at = self.find(Who::Peer(through), rkey, addr, 8, Right::ATOMIC)?;
        if at as usize % 8 != 0 {
            return Err(MemoryError);
        }
        // SAFETY: aligned, within a region that is in the table and allows writes, or has a window that does.
        Ok(unsafe { atomic::change(at, change) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    const PD: PdId = PdId(3);
    const OTHER: PdId = PdId(4);
    const THROUGH: Through = Through { pd: PD, qp_num: 9 };
    const PROGRAM: Who = Who::Program(PD);
    const PEER: Who = Who::Peer(THROUGH);
    const ALL: Access = Access {
        local_write: true,
        remote_write: true,
        remote_read: true,
        remote_atomic: true,
        windows: true,
    };
    const NOTHING: Access = Access {
        local_write: false,
        remote_write: false,
        remote_read: false,
        remote_atomic: false,
        windows: false,
    };
    const IOVA: u64 = 0x1000;

    /// Words that are registered for as long as this lives.
    struct Registered {
        memory: Memory,
        /// Not in a box: that would claim, whenever it is moved, that nobody else has a pointer to them.
        words: Vec<AtomicU64>,
        key: u32,
    }

    fn registered(access: Access) -> Registered {
        let words: Vec<_> = (0..4).map(|_| AtomicU64::new(0)).collect();
        let mut memory = Memory::new();
        let addr = words.as_ptr() as u64;
        let region = Region { pd: PD, addr, len: 32, iova: IOVA, access };
        // SAFETY: the vector lives as long as the table.
        let key = unsafe { memory.insert(region) }.unwrap();
        Registered { memory, words, key }
    }

    impl Registered {
        fn read(&self, who: Who, addr: u64, to: &mut [u8]) -> Checked<()> {
            self.memory.read(who, self.key, addr, to)
        }

        fn write(&self, who: Who, addr: u64, from: &[u8]) -> Checked<()> {
            self.memory.write(who, self.key, addr, from)
        }

        fn add(&self, addr: u64, add: u64) -> Checked<u64> {
            self.memory
                .change(THROUGH, self.key, addr, |word| word.fetch_add(add, Ordering::SeqCst))
        }
    }

    #[test]
    fn bytes_go_in_and_out_within_the_bounds() {
        let it = registered(ALL);
        for (who, other) in [(PROGRAM, PEER), (PEER, PROGRAM)] {
            assert_eq!(it.write(who, IOVA + 11, &[1, 2, 3]), Ok(()));
            let mut back = [7; 5];
            assert_eq!(it.read(other, IOVA + 10, &mut back), Ok(()));
            assert_eq!(back, [0, 1, 2, 3, 0]);
            assert_eq!(it.write(who, IOVA + 31, &[9]), Ok(()));
            assert_eq!(it.words[3].load(Ordering::Relaxed).to_ne_bytes()[7], 9);
            for (addr, len) in [(IOVA + 31, 2), (IOVA - 1, 1), (IOVA + 32, 1), (u64::MAX, 2)] {
                assert_eq!(it.write(who, addr, &vec![8; len]), Err(MemoryError));
                assert_eq!(it.read(who, addr, &mut vec![8; len]), Err(MemoryError));
                let checked = it.memory.check(PROGRAM, Right::LocalRead, it.key, addr, len as u32);
                assert_eq!(checked, Err(MemoryError));
            }
        }
    }

    #[test]
    fn the_domain_and_the_whole_key_count() {
        let mut it = registered(ALL);
        let check = |it: &Registered, pd, key| {
            it.memory.check(Who::Program(pd), Right::LocalWrite, key, IOVA, 32).is_ok()
        };
        assert!(check(&it, PD, it.key));
        assert!(!check(&it, OTHER, it.key));
        assert!((0..32).all(|bit| !check(&it, PD, it.key ^ (1 << bit))));
        assert!(it.memory.remove(it.key).is_ok());
        assert!(!check(&it, PD, it.key));
        assert_eq!(it.memory.remove(it.key).err(), Some(Errno::INVAL));
    }

    #[test]
    fn each_right_is_asked_for() {
        let results = |access: Access| {
            let it = registered(access);
            [
                it.read(PROGRAM, IOVA, &mut [0]).is_ok(),
                it.write(PROGRAM, IOVA, &[0]).is_ok(),
                it.memory.check(PROGRAM, Right::LocalWrite, it.key, IOVA, 1).is_ok(),
                it.read(PEER, IOVA, &mut [0]).is_ok(),
                it.write(PEER, IOVA, &[0]).is_ok(),
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
            it.memory.check(PEER, right, it.key, IOVA, len)
        };
        assert_eq!(check(false, true, false, 32), Ok(()));
        assert_eq!(check(true, true, false, 32), Err(MemoryError));
        assert_eq!(check(false, true, true, 32), Err(MemoryError));
        assert_eq!(check(false, true, false, 33), Err(MemoryError));
    }

    #[test]
    fn no_bytes_need_no_key() {
        let it = registered(NOTHING);
        let other = Through { pd: OTHER, qp_num: 9 };
        for who in [Who::Program(OTHER), Who::Peer(other)] {
            assert_eq!(it.memory.read(who, !it.key, 7, &mut []), Ok(()));
            assert_eq!(it.memory.write(who, !it.key, 7, &[]), Ok(()));
        }
        assert_eq!(it.memory.check(Who::Peer(other), Right::WRITE, !it.key, 7, 0), Ok(()));
        assert_eq!(it.memory.check(PEER, Right::WRITE, it.key, IOVA, 1), Err(MemoryError));
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
        // SAFETY: within the vector, which lives longer.
        let key = unsafe { memory.insert(region) }.unwrap();
        assert_eq!(memory.change(THROUGH, key, IOVA, |_| 0), Err(MemoryError));
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
