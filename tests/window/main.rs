//! Memory windows: keys that can be given away and withdrawn.

mod type_1;
mod type_2;

use ibverbs::{
    AccessFlags, Error, MemoryWindow, Rc, RemoteMemorySlice, SendBatch, SendOps, WcOpcode,
    WcStatus, WindowType1, WindowType2,
};
use ibverbs_tests::{pair_with, submit, wait_one, Ability, Bed, Mem, Side};

pub(crate) const READ: AccessFlags = AccessFlags::REMOTE_READ;
pub(crate) const WRITE: AccessFlags = AccessFlags::REMOTE_WRITE;
pub(crate) const ATOMIC: AccessFlags = AccessFlags::REMOTE_ATOMIC;
pub(crate) const ALL: AccessFlags = READ.union(WRITE).union(ATOMIC);

/// What a region needs for windows that can be written to. It has no remote rights of its own.
pub(crate) const BINDABLE: AccessFlags = AccessFlags::LOCAL_WRITE.union(AccessFlags::MW_BIND);

pub(crate) const OK: WcStatus = WcStatus::SUCCESS;
pub(crate) const REFUSED: WcStatus = WcStatus::REM_ACCESS_ERR;

/// A bed whose device has windows of both types; one that has none must say so.
pub(crate) fn bed() -> Option<Bed> {
    let bed = Bed::new();
    let unsupported = |result: Result<(), Error>| {
        assert!(matches!(result, Err(Error::Unsupported { .. })), "{result:?}");
    };
    if !bed.can(Ability::WindowsOfType1) {
        unsupported(bed.pd().alloc_window::<WindowType1>().map(drop));
    }
    if !bed.can(Ability::WindowsOfType2) {
        unsupported(bed.pd().alloc_window::<WindowType2>().map(drop));
    }
    Bed::with([Ability::WindowsOfType1, Ability::WindowsOfType2])
}

/// Two queue pairs that can bind and invalidate.
pub(crate) fn pair(bed: &Bed) -> (Side, Side) {
    pair_with::<Rc>(bed, |builder| {
        builder.add_send_ops(SendOps::WINDOWS).set_max_inline_data(64).set_max_send_sge(2)
    })
}

/// Where windows are bound to, and who may use them.
pub(crate) struct Lab {
    /// The peer.
    pub(crate) a: Side,
    /// Whose memory it is.
    pub(crate) b: Side,
    /// Memory of the peer's.
    pub(crate) from: Mem,
    /// Memory without a remote key of its own.
    pub(crate) target: Mem,
}

pub(crate) const LEN: usize = 4096;

impl Lab {
    pub(crate) fn new(bed: &Bed) -> Lab {
        Lab::with(bed, BINDABLE)
    }

    pub(crate) fn with(bed: &Bed, access: AccessFlags) -> Lab {
        let (a, b) = pair(bed);
        let (from, target) = (bed.mem(LEN), bed.mem_with(LEN, access));
        Lab { a, b, from, target }
    }

    /// Binds the window on `b`, and waits until that is done.
    #[track_caller]
    pub(crate) fn bind(
        &mut self,
        window: &mut MemoryWindow,
        range: std::ops::Range<usize>,
        access: AccessFlags,
    ) -> RemoteMemorySlice {
        let mut remote = None;
        submit(&mut self.b.qp, |batch| {
            remote = Some(bind(batch, 71, window, &self.target, range, access));
        })
        .unwrap();
        let wc = wait_one(&self.b.send_cq, 71);
        assert_eq!((wc.ok, wc.opcode), (Ok(()), WcOpcode::BIND_MW));
        remote.unwrap()
    }

    /// The memory, with a key that does not fit.
    pub(crate) fn target_as_remote(&self) -> RemoteMemorySlice {
        RemoteMemorySlice { addr: self.target.slice(..).addr(), len: LEN as u64, rkey: 0 }
    }

    #[track_caller]
    pub(crate) fn invalidate(&mut self, rkey: u32) {
        submit(&mut self.b.qp, |batch| batch.op().signaled().local_inv(72, rkey)).unwrap();
        let wc = wait_one(&self.b.send_cq, 72);
        assert_eq!((wc.ok, wc.opcode), (Ok(()), WcOpcode::LOCAL_INV));
    }

    /// Ends the connection, and makes the window one that was never bound.
    pub(crate) fn free(self, window: &mut MemoryWindow) {
        *window = self.b.bed.pd().alloc_window().unwrap();
    }

    #[track_caller]
    pub(crate) fn write(&mut self, bytes: &[u8], remote: RemoteMemorySlice) -> WcStatus {
        self.from.write(0, bytes);
        let slice = self.from.slice(..bytes.len());
        submit(&mut self.a.qp, |batch| batch.op().signaled().write(73, &[slice], remote)).unwrap();
        wait_one(&self.a.send_cq, 73).status()
    }

    #[track_caller]
    pub(crate) fn read(
        &mut self,
        len: usize,
        remote: RemoteMemorySlice,
    ) -> Result<Vec<u8>, WcStatus> {
        let slice = self.from.slice(..len);
        submit(&mut self.a.qp, |batch| batch.op().signaled().read(74, &[slice], remote)).unwrap();
        match wait_one(&self.a.send_cq, 74).status() {
            OK => Ok(self.from.read(..len)),
            status => Err(status),
        }
    }

    #[track_caller]
    pub(crate) fn add(&mut self, remote: RemoteMemorySlice, add: u64) -> WcStatus {
        let slice = self.from.slice(..8);
        submit(&mut self.a.qp, |batch| {
            batch.op().signaled().atomic_fetch_add(75, slice, remote, add)
        })
        .unwrap();
        wait_one(&self.a.send_cq, 75).status()
    }
}

/// Adds a bind to a batch.
#[track_caller]
pub(crate) fn bind(
    batch: &mut SendBatch<'_, Rc>,
    wr_id: u64,
    window: &mut MemoryWindow,
    mem: &Mem,
    range: std::ops::Range<usize>,
    access: AccessFlags,
) -> RemoteMemorySlice {
    let op = batch.op().signaled();
    // SAFETY: nothing in this package makes a reference to the bytes of a `Mem`.
    unsafe { op.bind_window(wr_id, window, mem.region(), range, access) }
}

/// Waits for a bind that failed.
#[track_caller]
pub(crate) fn assert_unbound(lab: &Lab, wr_id: u64) {
    let status = wait_one(&lab.b.send_cq, wr_id).status();
    // The second is what SoftRoCE says in newer kernels (6.12, 7.2).
    assert!([WcStatus::MW_BIND_ERR, WcStatus::WR_FLUSH_ERR].contains(&status), "{status}");
}
