//! Memory windows: keys of their own for pieces of regions.
//!
//! A window is a number of 24 bits, and a key that number and the byte that its last bind has given it. A window of type 1 belongs
//! to its domain: it may be bound anew at any time, and every queue pair of the domain takes its key. A window of type 2
//! belongs to the queue pair that has bound it (this is what the specification calls 2B): only through that one can it be used
//! and withdrawn, and it must be withdrawn before it is bound again.

use rustix::io::Errno;

use super::numbers::Numbered;
use super::{limits, Result};
use crate::transport::{MemoryError, PdId, RemoteAccess, Through};

/// What a window is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WindowType {
    One,
    Two,
}

/// What a window is bound to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    /// The region, by its key.
    pub(super) region: u32,
    pub(super) addr: u64,
    pub(super) len: u64,
    pub(super) access: RemoteAccess,
    /// The queue pair that has bound it.
    pub(super) qp_num: u32,
}

impl Bound {
    /// Whether it covers `len` bytes at `addr`, and gives this right.
    fn covers(&self, addr: u64, len: u64, access: RemoteAccess) -> bool {
        let Some(offset) = addr.checked_sub(self.addr) else { return false };
        offset.checked_add(len).is_some_and(|end| end <= self.len)
            && (self.access.write || !access.write)
            && (self.access.read || !access.read)
            && (self.access.atomic || !access.atomic)
    }
}

/// A memory window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// The key that it has now, bound or not.
    key: u32,
    pub(super) pd: PdId,
    pub(super) kind: WindowType,
    pub(super) bound: Option<Bound>,
}

impl Window {
    /// Whether its key is for this queue pair.
    fn is_for(&self, through: Through, bound: &Bound) -> bool {
        self.pd == through.pd && (self.kind == WindowType::One || bound.qp_num == through.qp_num)
    }
}

/// The bits of a key that are not the window's number.
const BYTE: u32 = 8;

/// The windows by their numbers.
#[derive(Debug)]
pub(super) struct Windows(Numbered<Window, 24, 14>);

const _: () = assert!(limits::MAX_MW == 1 << 14, "the places of the table are the limit");

impl Windows {
    pub(super) fn new() -> Windows {
        Windows(Numbered::new())
    }

    /// Adds a window that is not bound, and returns its key. `is_taken` says which keys mean something else.
    pub(super) fn insert(
        &mut self,
        pd: PdId,
        kind: WindowType,
        is_taken: impl Fn(u32) -> bool,
    ) -> Result<u32> {
        let keys = |number: u32| (0..1 << BYTE).map(move |byte| number << BYTE | byte);
        let is_reserved = |number| number == 0 || keys(number).any(&is_taken);
        let make = |number| Window { key: number << BYTE, pd, kind, bound: None };
        let number = self.0.insert(is_reserved, make).ok_or(Errno::NOMEM)?;
        Ok(number << BYTE)
    }

    /// Removes a window, which is named by any key that it can have.
    pub(super) fn remove(&mut self, key: u32) -> Option<Window> {
        self.0.remove(key >> BYTE)
    }

    /// Whether a key is one that a window has or can have.
    pub(super) fn has(&self, key: u32) -> bool {
        self.0.get(key >> BYTE).is_some()
    }

    /// The window that has this key now.
    pub(super) fn get(&self, key: u32) -> Option<&Window> {
        self.0.get(key >> BYTE).filter(|window| window.key == key)
    }

    /// What the window with this key is bound to, if that covers `len` bytes at `addr` and gives these rights to a peer of the
    /// queue pair.
    #[inline]
    pub(super) fn find(
        &self,
        through: Through,
        key: u32,
        addr: u64,
        len: u64,
        access: RemoteAccess,
    ) -> Option<&Bound> {
        let window = self.get(key)?;
        let bound = window.bound.as_ref()?;
        (window.is_for(through, bound) && bound.covers(addr, len, access)).then_some(bound)
    }

    /// Binds the window that has this key, and gives it another one, in which its number is the same; returns what it was bound
    /// to.
    pub(super) fn bind(&mut self, key: u32, new_key: u32, bound: Option<Bound>) -> Option<Bound> {
        let window = self.0.get_mut(key >> BYTE).filter(|window| window.key == key)?;
        window.key = new_key;
        std::mem::replace(&mut window.bound, bound)
    }

    /// Withdraws a key; returns what it was bound to.
    pub(super) fn invalidate(
        &mut self,
        through: Through,
        key: u32,
    ) -> std::result::Result<Bound, MemoryError> {
        let window = self.0.get_mut(key >> BYTE).filter(|window| window.key == key);
        let window = window.filter(|window| window.kind == WindowType::Two).ok_or(MemoryError)?;
        let bound = window.bound.filter(|bound| window.is_for(through, bound));
        let bound = bound.ok_or(MemoryError)?;
        window.bound = None;
        Ok(bound)
    }

    /// Unbinds the windows of type 2 of a queue pair, and tells what they were bound to.
    pub(super) fn unbind_all_of(&mut self, qp_num: u32, mut unbound: impl FnMut(Bound)) {
        for window in self.0.iter_mut().filter(|window| window.kind == WindowType::Two) {
            if let Some(bound) = window.bound.take_if(|bound| bound.qp_num == qp_num) {
                unbound(bound);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::{Memory, Region, Right, Who};
    use super::super::Access;
    use super::*;
    use crate::transport::Bind;

    const PD: PdId = PdId(3);
    const THROUGH: Through = Through { pd: PD, qp_num: 9 };
    const NOTHING: RemoteAccess = RemoteAccess { write: false, read: false, atomic: false };
    const READ: RemoteAccess = RemoteAccess { read: true, ..NOTHING };
    const WRITE: RemoteAccess = RemoteAccess { write: true, ..NOTHING };
    const ALL: RemoteAccess = RemoteAccess { write: true, read: true, atomic: true };
    /// Where the region is named to be: 100 bytes.
    const IOVA: u64 = 0x1000;

    /// A region that windows can be bound to, if nothing else.
    fn region(access: Access) -> (Memory, u32) {
        static BYTES: [u8; 100] = [0; 100];
        let mut memory = Memory::new();
        let addr = BYTES.as_ptr() as u64;
        // SAFETY: these tests read and write nothing of it.
        let key = unsafe { memory.insert(Region { pd: PD, addr, len: 100, iova: IOVA, access }) };
        (memory, key.unwrap())
    }

    fn bindable() -> Access {
        Access { local_write: true, windows: true, ..Access::default() }
    }

    fn bind(old_rkey: u32, region: u32) -> Bind {
        let region = Some(region);
        Bind { old_rkey, rkey: old_rkey + 1, region, addr: IOVA + 10, len: 20, access: ALL }
    }

    fn may(memory: &Memory, through: Through, key: u32, addr: u64, len: u32) -> bool {
        memory.check(Who::Peer(through), Right::Remote(READ), key, addr, len).is_ok()
    }

    #[test]
    fn a_window_shows_its_piece_with_its_rights() {
        let (mut memory, region) = region(bindable());
        for kind in [WindowType::One, WindowType::Two] {
            for access in [READ, WRITE, RemoteAccess { atomic: true, ..NOTHING }, ALL, NOTHING] {
                let key = memory.alloc_window(PD, kind).unwrap();
                let bind = Bind { access, ..bind(key, region) };
                assert_eq!(memory.bind(THROUGH, &bind), Ok(()));
                for (addr, len, inside) in [
                    (10, 20, true),
                    (10, 1, true),
                    (29, 1, true),
                    (9, 1, false),
                    (9, 2, false),
                    (29, 2, false),
                    (30, 1, false),
                ] {
                    for wanted in [READ, WRITE, RemoteAccess { atomic: true, ..NOTHING }] {
                        let right = Right::Remote(wanted);
                        let addr = IOVA + addr;
                        let found = memory.check(Who::Peer(THROUGH), right, bind.rkey, addr, len);
                        let allowed = (access.write || !wanted.write)
                            && (access.read || !wanted.read)
                            && (access.atomic || !wanted.atomic);
                        assert_eq!(found.is_ok(), inside && allowed, "{addr:#x} {len} {wanted:?}");
                    }
                }
                // The key it had, the region's own, and either as a local one.
                assert!(!may(&memory, THROUGH, key, IOVA + 10, 1));
                assert!(!may(&memory, THROUGH, region, IOVA + 10, 1));
                let program = Who::Program(PD);
                let local = memory.check(program, Right::LocalRead, bind.rkey, IOVA + 10, 1);
                assert_eq!(local, Err(MemoryError));
                memory.free_window(bind.rkey).unwrap();
                assert!(!may(&memory, THROUGH, bind.rkey, IOVA + 10, 1));
            }
        }
    }

    #[test]
    fn type_1_is_for_the_domain_and_type_2_for_the_queue_pair() {
        let (mut memory, region) = region(bindable());
        let other_qp = Through { qp_num: 10, ..THROUGH };
        let other_pd = Through { pd: PdId(4), ..THROUGH };
        for (kind, others) in [(WindowType::One, true), (WindowType::Two, false)] {
            let key = memory.alloc_window(PD, kind).unwrap();
            let first = bind(key, region);
            assert_eq!(memory.bind(other_pd, &first), Err(MemoryError));
            assert_eq!(memory.bind(THROUGH, &first), Ok(()));
            let may = |memory: &Memory, through| may(memory, through, first.rkey, IOVA + 10, 1);
            assert_eq!(
                [THROUGH, other_qp, other_pd].map(|it| may(&memory, it)),
                [true, others, false]
            );
            // Type 1 is bound anew, type 2 must be withdrawn first.
            let again = bind(first.rkey, region);
            let unbind = Bind { len: 0, region: None, ..again };
            match kind {
                WindowType::One => {
                    assert_eq!(memory.invalidate(THROUGH, first.rkey), Err(MemoryError));
                    assert_eq!(memory.bind(other_qp, &again), Ok(()));
                    assert_eq!(memory.bind(THROUGH, &bind(again.rkey, region)), Ok(()));
                    let rkey = again.rkey + 1;
                    assert_eq!(memory.remove(region).err(), Some(Errno::BUSY));
                    let unbind = Bind { old_rkey: rkey, rkey: rkey + 1, ..unbind };
                    assert_eq!(memory.bind(THROUGH, &unbind), Ok(()));
                }
                WindowType::Two => {
                    assert_eq!(memory.bind(THROUGH, &again), Err(MemoryError));
                    assert_eq!(memory.bind(THROUGH, &unbind), Err(MemoryError));
                    assert!(may(&memory, THROUGH), "it is what it was");
                    for through in [other_qp, other_pd] {
                        assert_eq!(memory.invalidate(through, first.rkey), Err(MemoryError));
                    }
                    assert_eq!(memory.remove(region).err(), Some(Errno::BUSY));
                    assert_eq!(memory.invalidate(THROUGH, first.rkey), Ok(()));
                    assert_eq!(memory.invalidate(THROUGH, first.rkey), Err(MemoryError));
                }
            }
            assert!(!may(&memory, THROUGH));
        }
        assert!(memory.remove(region).is_ok(), "nothing is bound to it");
    }

    #[test]
    fn what_cannot_be_bound_is_refused() {
        let writing = |access| Bind { access, ..bind(0, 0) };
        for (access, attempt) in [
            (Access { windows: false, ..bindable() }, writing(READ)),
            (Access { local_write: false, ..bindable() }, writing(WRITE)),
            (Access { local_write: false, ..bindable() }, writing(ALL)),
            (bindable(), Bind { addr: IOVA - 1, ..writing(READ) }),
            (bindable(), Bind { addr: IOVA + 81, ..writing(READ) }),
            (bindable(), Bind { len: u64::MAX, ..writing(READ) }),
            (bindable(), Bind { addr: u64::MAX, ..writing(READ) }),
        ] {
            for kind in [WindowType::One, WindowType::Two] {
                let (mut memory, region) = region(access);
                let key = memory.alloc_window(PD, kind).unwrap();
                let attempt =
                    Bind { old_rkey: key, rkey: key + 1, region: Some(region), ..attempt };
                assert_eq!(memory.bind(THROUGH, &attempt), Err(MemoryError), "{attempt:?}");
                assert!(memory.remove(region).is_ok());
            }
        }
        let (mut memory, region) = region(bindable());
        let key = memory.alloc_window(PD, WindowType::Two).unwrap();
        let good = bind(key, region);
        for wrong in [
            Bind { old_rkey: key + 1, ..good },
            Bind { old_rkey: region, ..good },
            Bind { rkey: key ^ 0x100, ..good },
            Bind { region: None, ..good },
            Bind { region: Some(region ^ 1), ..good },
            Bind { region: Some(key), ..good },
        ] {
            assert_eq!(memory.bind(THROUGH, &wrong), Err(MemoryError), "{wrong:?}");
        }
        assert_eq!(memory.bind(THROUGH, &good), Ok(()));
    }

    #[test]
    fn the_windows_of_a_queue_pair_go_with_it() {
        let (mut memory, region) = region(bindable());
        let other = Through { qp_num: 10, ..THROUGH };
        let mut bound = |kind, through| {
            let key = memory.alloc_window(PD, kind).unwrap();
            memory.bind(through, &bind(key, region)).unwrap();
            key + 1
        };
        let one = bound(WindowType::One, THROUGH);
        let two = [bound(WindowType::Two, THROUGH), bound(WindowType::Two, THROUGH)];
        let others = bound(WindowType::Two, other);
        memory.invalidate_all_of(THROUGH.qp_num);
        let may = |through, key| may(&memory, through, key, IOVA + 10, 1);
        assert_eq!(two.map(|key| may(THROUGH, key)), [false; 2]);
        assert!(may(THROUGH, one) && may(other, others));
        for key in [one, others] {
            assert_eq!(memory.remove(region).err(), Some(Errno::BUSY));
            memory.free_window(key).unwrap();
        }
        // They can be bound again, by another one.
        assert_eq!(memory.bind(other, &bind(two[0], region)), Ok(()));
        memory.free_window(two[0]).unwrap();
        memory.free_window(two[1]).unwrap();
        assert_eq!(memory.free_window(two[1]), Err(Errno::INVAL));
        assert!(memory.remove(region).is_ok());
    }

    #[test]
    fn no_key_is_one_of_two_things() {
        let mut windows = Windows::new();
        let first = windows.insert(PD, WindowType::Two, |_| false).unwrap();
        let taken: Vec<u32> = (0..1000).map(|number| first ^ (number << 22) | 7).collect();
        for _ in 0..1000 {
            let key = windows.insert(PD, WindowType::One, |key| taken.contains(&key)).unwrap();
            assert!(taken.iter().all(|taken| taken >> 8 != key >> 8), "{key:#x}");
            assert!(windows.has(key) && windows.has(key | 0xff) && key > 0xff);
        }
        for _ in 1001..limits::MAX_MW {
            windows.insert(PD, WindowType::One, |_| false).unwrap();
        }
        assert_eq!(windows.insert(PD, WindowType::One, |_| false), Err(Errno::NOMEM));
    }
}
