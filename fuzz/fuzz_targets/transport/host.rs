//! A device in memory that notes what completes, and holds queue pairs to what they may do.

use std::cell::RefCell;
use std::collections::VecDeque;

use ibverbs_soft::transport::{
    Bind, Completion, CqId, Host, MemoryError, PdId, QpEvent, RecvRequest, RemoteAccess, Sge,
    SrqId, Through,
};

pub const PD: PdId = PdId(3);
pub const SEND_CQ: CqId = CqId(4);
pub const RECV_CQ: CqId = CqId(5);
pub const SRQ: SrqId = SrqId(6);

/// Where the memory is, how long it is, and its key.
pub const BASE: u64 = 0x7000_0000;
pub const LEN: usize = 16 << 10;
pub const KEY: u32 = 0x55;

/// The first key of a window.
pub const WINDOW: u32 = 0xa00;

pub struct FuzzHost {
    qp_num: u32,
    /// Whether sends end in any order.
    in_any_order: bool,
    memory: RefCell<Vec<u8>>,
    /// A window: its key, and what it is bound to.
    window: (u32, Option<Bind>),
    /// What peers may do through the queue pair now.
    pub access: RemoteAccess,
    /// Whether the queue pair may do something for a peer now.
    pub receives: bool,
    /// Whether it may answer what a peer has asked for: also after it has failed by itself, before it says why.
    pub answers: bool,
    pub shared: VecDeque<RecvRequest>,
    /// Requests that are outstanding, oldest first.
    pub sends: VecDeque<u64>,
    pub recvs: VecDeque<u64>,
}

impl FuzzHost {
    pub fn new(qp_num: u32, in_any_order: bool) -> FuzzHost {
        FuzzHost {
            qp_num,
            in_any_order,
            memory: RefCell::new(vec![0xa5; LEN]),
            window: (WINDOW, None),
            access: RemoteAccess::default(),
            receives: false,
            answers: false,
            shared: VecDeque::new(),
            sends: VecDeque::new(),
            recvs: VecDeque::new(),
        }
    }

    /// The place of memory that a key covers.
    fn place(&self, pd: PdId, key: u32, addr: u64, len: usize) -> Result<usize, MemoryError> {
        assert_eq!(pd, PD);
        let offset = addr.checked_sub(BASE).ok_or(MemoryError)?;
        let offset = usize::try_from(offset).map_err(|_| MemoryError)?;
        let fits = offset.checked_add(len).is_some_and(|end| end <= LEN);
        if key == KEY && fits {
            Ok(offset)
        } else {
            Err(MemoryError)
        }
    }

    fn local(&self, pd: PdId, sge: &Sge, offset: u32, len: usize) -> Result<usize, MemoryError> {
        assert!(offset as usize + len <= sge.len as usize, "beyond the entry: {offset} + {len}");
        self.place(pd, sge.lkey, sge.addr.wrapping_add(offset.into()), len)
    }

    fn remote(
        &self,
        through: Through,
        key: u32,
        addr: u64,
        len: usize,
        allowed: bool,
    ) -> Result<usize, MemoryError> {
        assert!(allowed, "a peer gets what the queue pair does not allow");
        self.behind(through, key, addr, len)
    }

    /// The place of memory that a peer's key covers: the region's own, or the window's.
    fn behind(
        &self,
        through: Through,
        key: u32,
        addr: u64,
        len: usize,
    ) -> Result<usize, MemoryError> {
        assert_eq!(through.qp_num, self.qp_num);
        let key = match self.window {
            (window, Some(bind)) if window == key => {
                let offset = addr.checked_sub(bind.addr).ok_or(MemoryError)?;
                if u128::from(offset) + len as u128 > u128::from(bind.len) {
                    return Err(MemoryError);
                }
                KEY
            }
            _ => key,
        };
        self.place(through.pd, key, addr, len)
    }

    fn atomic(
        &self,
        through: Through,
        rkey: u32,
        addr: u64,
        change: impl Fn(u64) -> u64,
    ) -> Result<u64, MemoryError> {
        assert_eq!(addr % 8, 0);
        let at = self.remote(through, rkey, addr, 8, self.receives && self.access.atomic)?;
        let mut memory = self.memory.borrow_mut();
        let word: &mut [u8; 8] = memory[at..].first_chunk_mut().expect("it fits");
        let original = u64::from_ne_bytes(*word);
        *word = change(original).to_ne_bytes();
        Ok(original)
    }
}

impl Host for FuzzHost {
    fn read_local(
        &self,
        pd: PdId,
        sge: &Sge,
        offset: u32,
        to: &mut [u8],
    ) -> Result<(), MemoryError> {
        let at = self.local(pd, sge, offset, to.len())?;
        to.copy_from_slice(&self.memory.borrow()[at..][..to.len()]);
        Ok(())
    }

    fn write_local(
        &self,
        pd: PdId,
        sge: &Sge,
        offset: u32,
        from: &[u8],
    ) -> Result<(), MemoryError> {
        let at = self.local(pd, sge, offset, from.len())?;
        self.memory.borrow_mut()[at..][..from.len()].copy_from_slice(from);
        Ok(())
    }

    fn check_local(&self, pd: PdId, sge: &Sge, _write: bool) -> Result<(), MemoryError> {
        self.place(pd, sge.lkey, sge.addr, sge.len as usize).map(drop)
    }

    fn check_remote(
        &self,
        through: Through,
        rkey: u32,
        addr: u64,
        len: u32,
        _access: RemoteAccess,
    ) -> Result<(), MemoryError> {
        if len == 0 {
            return Ok(());
        }
        self.behind(through, rkey, addr, len as usize).map(drop)
    }

    fn read_remote(
        &self,
        through: Through,
        rkey: u32,
        addr: u64,
        to: &mut [u8],
    ) -> Result<(), MemoryError> {
        let at = self.remote(through, rkey, addr, to.len(), self.answers && self.access.read)?;
        to.copy_from_slice(&self.memory.borrow()[at..][..to.len()]);
        Ok(())
    }

    fn write_remote(
        &self,
        through: Through,
        rkey: u32,
        addr: u64,
        from: &[u8],
    ) -> Result<(), MemoryError> {
        let at =
            self.remote(through, rkey, addr, from.len(), self.receives && self.access.write)?;
        self.memory.borrow_mut()[at..][..from.len()].copy_from_slice(from);
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
        let len = usize::try_from(bind.len).map_err(|_| MemoryError)?;
        self.place(through.pd, bind.region.ok_or(MemoryError)?, bind.addr, len)?;
        if self.window.0 != bind.old_rkey || self.window.1.is_some() {
            return Err(MemoryError);
        }
        self.window = (bind.rkey, Some(*bind));
        Ok(())
    }

    fn invalidate(&mut self, through: Through, rkey: u32) -> Result<(), MemoryError> {
        assert_eq!(through.qp_num, self.qp_num);
        match &mut self.window {
            (key, bound) if *key == rkey => bound.take().map(drop).ok_or(MemoryError),
            _ => Err(MemoryError),
        }
    }

    fn complete(&mut self, cq: CqId, completion: Completion) {
        assert_eq!(completion.qp_num, self.qp_num);
        let queue = match cq {
            SEND_CQ => &mut self.sends,
            RECV_CQ => &mut self.recvs,
            other => panic!("a completion for {other:?}"),
        };
        // Everything is signaled, and both queues are in order; but sends of reliable datagrams end in any.
        let place = match (cq, self.in_any_order) {
            (SEND_CQ, true) => queue.iter().position(|wr_id| *wr_id == completion.wr_id),
            _ => Some(0),
        };
        let ended = place.and_then(|place| queue.remove(place));
        assert_eq!(ended, Some(completion.wr_id), "{completion:?}");
    }

    fn take_shared_receive(&mut self, srq: SrqId) -> Option<RecvRequest> {
        assert_eq!(srq, SRQ);
        let request = self.shared.pop_front()?;
        self.recvs.push_back(request.wr_id);
        Some(request)
    }

    fn raise(&mut self, qp_num: u32, _event: QpEvent) {
        assert_eq!(qp_num, self.qp_num);
    }
}
