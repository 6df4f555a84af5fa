//! What may be done with registered memory.

use bitflags::bitflags;

use crate::ffi;

bitflags! {
    /// What a device and its peers may do with memory (`enum ibv_access_flags`). Reading by the
    /// device itself is always allowed.
    ///
    /// A device that does not know [`RELAXED_ORDERING`](Self::RELAXED_ORDERING) ignores it. Any other
    /// flag that it does not know is an error where it is used.
    #[doc(alias = "ibv_access_flags")]
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct AccessFlags: u32 {
        /// The device may write: receive, read from a peer, or store an atomic's old value here.
        const LOCAL_WRITE = ffi::IBV_ACCESS_LOCAL_WRITE;
        /// A peer may write. Needs [`LOCAL_WRITE`](Self::LOCAL_WRITE) as well.
        const REMOTE_WRITE = ffi::IBV_ACCESS_REMOTE_WRITE;
        /// A peer may read.
        const REMOTE_READ = ffi::IBV_ACCESS_REMOTE_READ;
        /// A peer may execute atomics. Needs [`LOCAL_WRITE`](Self::LOCAL_WRITE) as well.
        const REMOTE_ATOMIC = ffi::IBV_ACCESS_REMOTE_ATOMIC;
        /// Memory windows may be bound to the region.
        const MW_BIND = ffi::IBV_ACCESS_MW_BIND;
        /// The pages are not pinned: the device faults them in when it needs them
        /// ([`DeviceAttrEx::odp_caps`](crate::DeviceAttrEx::odp_caps)).
        ///
        /// SoftRoCE has it since Linux 6.15, but takes every address for that of its page, so that data ends up
        /// elsewhere in the page (seen in Linux 7.2): use it there at the beginnings of pages only.
        const ON_DEMAND = ffi::IBV_ACCESS_ON_DEMAND;
        /// The memory is of huge pages, and stays so. It goes with [`ON_DEMAND`](Self::ON_DEMAND); memory that
        /// is pinned needs no flag for huge pages.
        const HUGETLB = ffi::IBV_ACCESS_HUGETLB;
        /// A peer may flush earlier writes to global visibility.
        const FLUSH_GLOBAL = ffi::IBV_ACCESS_FLUSH_GLOBAL;
        /// A peer may flush earlier writes to persistence. The memory must be persistent.
        const FLUSH_PERSISTENT = ffi::IBV_ACCESS_FLUSH_PERSISTENT;
        /// The device may reorder its accesses on the bus, which is faster. What is complete when
        /// the completion is polled does not change.
        const RELAXED_ORDERING = ffi::IBV_ACCESS_RELAXED_ORDERING;

        /// Local write, remote read, write and atomic, relaxed ordering: what most programs need.
        const PERMISSIVE = Self::LOCAL_WRITE.bits() | Self::REMOTE_READ.bits()
            | Self::REMOTE_WRITE.bits() | Self::REMOTE_ATOMIC.bits() | Self::RELAXED_ORDERING.bits();
    }
}

impl AccessFlags {
    /// The rights that a key gives to whoever knows it.
    pub(crate) const REMOTE: AccessFlags = AccessFlags::REMOTE_WRITE
        .union(AccessFlags::REMOTE_READ)
        .union(AccessFlags::REMOTE_ATOMIC)
        .union(AccessFlags::FLUSH_GLOBAL)
        .union(AccessFlags::FLUSH_PERSISTENT);
}
