//! What the errors of the operating system mean here, and what to do.

use std::io;

pub(super) fn place(index: u32, entries: u32) -> String {
    if index < entries {
        "that entry of its table is empty (`Context::gid_table` lists those in use)".to_owned()
    } else {
        format!("its table has {entries} entries")
    }
}

pub(super) fn open_hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => {
            ": the user has no right to open /dev/infiniband/uverbs*"
        }
        // These two come from the software device only.
        Some(libc::EADDRINUSE) => {
            ": UDP port 4791 of its address is taken, by another process or, for every address, by the kernel's \
             SoftRoCE (rdma_rxe)"
        }
        Some(libc::EADDRNOTAVAIL) => ": its address is none of this machine's (IBVERBS_SOFT_ADDR)",
        _ => "",
    }
}

#[cfg(feature = "rdmacm")]
pub(super) fn channel_hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EOPNOTSUPP) => ": the process's provider of verbs has no connection manager",
        Some(libc::ENODEV) => ": there is no RDMA device",
        Some(libc::ENOENT) => {
            ": the kernel's connection manager is not there (`modprobe rdma_ucm`)"
        }
        Some(libc::EACCES | libc::EPERM) => {
            ": the user has no right to open /dev/infiniband/rdma_cm"
        }
        _ => "",
    }
}

#[cfg(feature = "rdmacm")]
pub(super) fn resolve_hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => ": there is no route to it",
        Some(libc::EADDRNOTAVAIL | libc::ENODEV) => {
            ": no RDMA device leads there, or none that has the source address; none leads to a loopback address"
        }
        Some(libc::EINVAL) => {
            ": not in this state of the identifier, or the source address is of another family"
        }
        _ => "",
    }
}

#[cfg(feature = "rdmacm")]
pub(super) fn bind_hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EADDRINUSE) => ": another one has this port (see `CmId::set_reuse_address`)",
        Some(libc::EADDRNOTAVAIL | libc::ENODEV) => {
            ": it is no address of an RDMA device; or, for a wildcard, another one has this port of one address"
        }
        Some(libc::EINVAL) => ": it is bound already, or this is no address to bind to",
        _ => "",
    }
}

pub(super) fn resize_hint(source: &io::Error, requested: u32, capacity: u32) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EINVAL) if requested < capacity => {
            ": it may hold more than that; take completions, or lower its limit, first"
        }
        _ => "",
    }
}

pub(super) fn full_hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::ENOMEM | libc::ENOSPC) => {
            ": the queue is full; poll completions of earlier requests first, or build a deeper queue"
        }
        _ => "",
    }
}
