//! A device without a device: memory, completion queues and shared receive queues, and a log of all that was done to them.

use std::cell::RefCell;
use std::collections::VecDeque;

use crate::transport::{
    Bind, Completion, CqId, Host, MemoryError, PdId, QpEvent, RecvRequest, RemoteAccess, Sge,
    SrqId, Through,
};

/// Something that a queue pair has done to its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// Put a completion into a queue.
    Complete(CqId, Completion),
    /// Wrote memory for a local request.
    LocalWrite { addr: u64, len: u32 },
    /// Wrote memory for a peer.
    RemoteWrite { addr: u64, bytes: Vec<u8> },
    /// Read memory for a peer.
    RemoteRead { addr: u64, len: u32 },
    /// Changed 8 bytes for a peer.
    Atomic { addr: u64, original: u64, new: u64 },
    /// Bound a window, which has this key now.
    Bind(u32),
    /// Withdrew a window's key.
    Invalidate(u32),
    /// Raised an event.
    Event(u32, QpEvent),
    /// Took a shared receive, after which there were fewer than the limit.
    SrqLimit(SrqId),
}

/// Rights of a region.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rights {
    pub(crate) local_write: bool,
    pub(crate) remote: RemoteAccess,
}

#[derive(Debug)]
struct Region {
    pd: PdId,
    key: u32,
    addr: u64,
    rights: Rights,
    bytes: RefCell<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Srq {
    receives: VecDeque<RecvRequest>,
    limit: usize,
}

/// A window: its key, and what it is bound to, through which queue pair.
#[derive(Debug)]
struct SimWindow {
    key: u32,
    bound: Option<(Through, Bind)>,
}

const READ: RemoteAccess = RemoteAccess { write: false, read: true, atomic: false };
const WRITE: RemoteAccess = RemoteAccess { write: true, read: false, atomic: false };
const ATOMIC: RemoteAccess = RemoteAccess { write: false, read: false, atomic: true };

/// A device in memory.
#[derive(Debug, Default)]
pub(crate) struct SimHost {
    regions: Vec<Region>,
    srqs: Vec<Srq>,
    windows: Vec<SimWindow>,
    log: RefCell<Vec<Record>>,
}

impl SimHost {
    /// Registers memory, and returns its address and its key. Between two regions there are addresses that nobody has.
    pub(crate) fn register(&mut self, pd: PdId, bytes: Vec<u8>, rights: Rights) -> (u64, u32) {
        let number = self.regions.len() as u64 + 1;
        let addr = number << 32 | 0xa_0000;
        let key = 0x5eed_0000 | (number as u32) << 8 | 0x77;
        self.regions.push(Region { pd, key, addr, rights, bytes: RefCell::new(bytes) });
        (addr, key)
    }

    /// Takes a key back. What is in memory can still be seen.
    pub(crate) fn deregister(&mut self, key: u32) {
        for region in self.regions.iter_mut().filter(|region| region.key == key) {
            // No key that was given out.
            region.key = 0;
        }
    }

    /// A window of type 2 that is bound to nothing; returns its key.
    pub(crate) fn alloc_window(&mut self) -> u32 {
        let key = 0xdd_0000 + ((self.windows.len() as u32 + 1) << 8);
        self.windows.push(SimWindow { key, bound: None });
        key
    }

    /// A shared receive queue, with a limit (0 for none).
    pub(crate) fn create_srq(&mut self, limit: usize) -> SrqId {
        self.srqs.push(Srq { receives: VecDeque::new(), limit });
        SrqId(self.srqs.len() - 1)
    }

    pub(crate) fn post_srq_recv(&mut self, srq: SrqId, request: RecvRequest) {
        self.srqs[srq.0].receives.push_back(request);
    }

    /// How many receives nobody has taken.
    pub(crate) fn srq_len(&self, srq: SrqId) -> usize {
        self.srqs[srq.0].receives.len()
    }

    /// What is in memory, whoever may see it.
    pub(crate) fn peek(&self, addr: u64, len: usize) -> Vec<u8> {
        let region = self
            .regions
            .iter()
            .find(|region| region.offset(addr, len).is_some())
            .expect("the test names memory that it has registered");
        let offset = region.offset(addr, len).expect("found by it");
        region.bytes.borrow()[offset..offset + len].to_vec()
    }

    /// Takes what was done since the last call.
    pub(crate) fn take_log(&mut self) -> Vec<Record> {
        std::mem::take(self.log.get_mut())
    }

    fn region(
        &self,
        pd: PdId,
        key: u32,
        allowed: impl Fn(Rights) -> bool,
    ) -> Result<&Region, MemoryError> {
        self.regions
            .iter()
            .find(|region| region.key == key && region.pd == pd && allowed(region.rights))
            .ok_or(MemoryError)
    }

    /// The region behind a peer's key: its own one, or that of a window.
    fn remote(
        &self,
        through: Through,
        rkey: u32,
        addr: u64,
        len: usize,
        access: RemoteAccess,
    ) -> Result<&Region, MemoryError> {
        let allows = |rights: RemoteAccess| {
            (rights.write || !access.write)
                && (rights.read || !access.read)
                && (rights.atomic || !access.atomic)
        };
        let Some(window) = self.windows.iter().find(|window| window.key == rkey) else {
            return self.region(through.pd, rkey, |rights| allows(rights.remote));
        };
        let (owner, bind) = window.bound.ok_or(MemoryError)?;
        let inside = addr >= bind.addr && addr + len as u64 <= bind.addr + bind.len;
        let key = bind.region.filter(|_| owner == through && inside && allows(bind.access));
        self.region(through.pd, key.ok_or(MemoryError)?, |_| true)
    }

    fn atomic(
        &self,
        through: Through,
        rkey: u32,
        addr: u64,
        change: impl Fn(u64) -> u64,
    ) -> Result<u64, MemoryError> {
        assert_eq!(addr % 8, 0, "an atomic operation at an address that is no multiple of 8");
        let region = self.remote(through, rkey, addr, 8, ATOMIC)?;
        let offset = region.offset(addr, 8).ok_or(MemoryError)?;
        let mut bytes = region.bytes.borrow_mut();
        let place = &mut bytes[offset..offset + 8];
        let original = u64::from_ne_bytes(place.try_into().expect("8 bytes"));
        let new = change(original);
        place.copy_from_slice(&new.to_ne_bytes());
        self.log.borrow_mut().push(Record::Atomic { addr, original, new });
        Ok(original)
    }
}

impl Region {
    /// Where in the region these addresses begin, if all of them are in it.
    fn offset(&self, addr: u64, len: usize) -> Option<usize> {
        let offset = usize::try_from(addr.checked_sub(self.addr)?).ok()?;
        (offset.checked_add(len)? <= self.bytes.borrow().len()).then_some(offset)
    }
}

/// The address of the bytes from `offset` of an entry on, which must be in the entry.
fn within(sge: &Sge, offset: u32, len: usize) -> u64 {
    assert!(
        u64::from(offset) + len as u64 <= u64::from(sge.len),
        "{len} bytes from {offset} on are not in {sge:?}"
    );
    sge.addr.wrapping_add(u64::from(offset))
}

impl Host for SimHost {
    fn read_local(
        &self,
        pd: PdId,
        sge: &Sge,
        offset: u32,
        to: &mut [u8],
    ) -> Result<(), MemoryError> {
        let addr = within(sge, offset, to.len());
        let region = self.region(pd, sge.lkey, |_| true)?;
        let start = region.offset(addr, to.len()).ok_or(MemoryError)?;
        to.copy_from_slice(&region.bytes.borrow()[start..start + to.len()]);
        Ok(())
    }

    fn write_local(
        &self,
        pd: PdId,
        sge: &Sge,
        offset: u32,
        from: &[u8],
    ) -> Result<(), MemoryError> {
        let addr = within(sge, offset, from.len());
        let region = self.region(pd, sge.lkey, |rights| rights.local_write)?;
        let start = region.offset(addr, from.len()).ok_or(MemoryError)?;
        region.bytes.borrow_mut()[start..start + from.len()].copy_from_slice(from);
        self.log.borrow_mut().push(Record::LocalWrite { addr, len: from.len() as u32 });
        Ok(())
    }

    fn check_local(&self, pd: PdId, sge: &Sge, write: bool) -> Result<(), MemoryError> {
        let region = self.region(pd, sge.lkey, |rights| rights.local_write || !write)?;
        region.offset(sge.addr, sge.len as usize).map(drop).ok_or(MemoryError)
    }

    fn check_remote(
        &self,
        through: Through,
        rkey: u32,
        addr: u64,
        len: u32,
        access: RemoteAccess,
    ) -> Result<(), MemoryError> {
        if len == 0 {
            return Ok(());
        }
        let region = self.remote(through, rkey, addr, len as usize, access)?;
        region.offset(addr, len as usize).map(drop).ok_or(MemoryError)
    }

    fn read_remote(
        &self,
        through: Through,
        rkey: u32,
        addr: u64,
        to: &mut [u8],
    ) -> Result<(), MemoryError> {
        let region = self.remote(through, rkey, addr, to.len(), READ)?;
        let start = region.offset(addr, to.len()).ok_or(MemoryError)?;
        to.copy_from_slice(&region.bytes.borrow()[start..start + to.len()]);
        self.log.borrow_mut().push(Record::RemoteRead { addr, len: to.len() as u32 });
        Ok(())
    }

    fn write_remote(
        &self,
        through: Through,
        rkey: u32,
        addr: u64,
        from: &[u8],
    ) -> Result<(), MemoryError> {
        let region = self.remote(through, rkey, addr, from.len(), WRITE)?;
        let start = region.offset(addr, from.len()).ok_or(MemoryError)?;
        region.bytes.borrow_mut()[start..start + from.len()].copy_from_slice(from);
        self.log.borrow_mut().push(Record::RemoteWrite { addr, bytes: from.to_vec() });
        Ok(())
    }

    fn compare_swap(
        &self,
        through: Through,
        rkey: u32,
        addr: u64,
        compare: u64,
        swap: u64,
    ) -> Result<u64, MemoryError> {
        self.atomic(through, rkey, addr, |value| if value == compare { swap } else { value })
    }

    fn fetch_add(
        &self,
        through: Through,
        rkey: u32,
        addr: u64,
        add: u64,
    ) -> Result<u64, MemoryError> {
        self.atomic(through, rkey, addr, |value| value.wrapping_add(add))
    }

    fn bind_window(&mut self, through: Through, bind: &Bind) -> Result<(), MemoryError> {
        let key = bind.region.ok_or(MemoryError)?;
        let region = self.region(through.pd, key, |rights| rights.local_write)?;
        region.offset(bind.addr, bind.len as usize).ok_or(MemoryError)?;
        let place = self.windows.iter().position(|window| window.key == bind.old_rkey);
        let window = &mut self.windows[place.ok_or(MemoryError)?];
        if window.bound.is_some() {
            return Err(MemoryError);
        }
        *window = SimWindow { key: bind.rkey, bound: Some((through, *bind)) };
        self.log.get_mut().push(Record::Bind(bind.rkey));
        Ok(())
    }

    fn invalidate(&mut self, through: Through, rkey: u32) -> Result<(), MemoryError> {
        let is_it = |window: &&mut SimWindow| {
            window.key == rkey && window.bound.is_some_and(|(owner, _)| owner == through)
        };
        self.windows.iter_mut().find(is_it).ok_or(MemoryError)?.bound = None;
        self.log.get_mut().push(Record::Invalidate(rkey));
        Ok(())
    }

    fn complete(&mut self, cq: CqId, completion: Completion) {
        self.log.get_mut().push(Record::Complete(cq, completion));
    }

    fn take_shared_receive(&mut self, srq: SrqId) -> Option<RecvRequest> {
        let queue = &mut self.srqs[srq.0];
        let request = queue.receives.pop_front()?;
        if queue.receives.len() < queue.limit {
            queue.limit = 0;
            self.log.get_mut().push(Record::SrqLimit(srq));
        }
        Some(request)
    }

    fn raise(&mut self, qp_num: u32, event: QpEvent) {
        self.log.get_mut().push(Record::Event(qp_num, event));
    }
}
