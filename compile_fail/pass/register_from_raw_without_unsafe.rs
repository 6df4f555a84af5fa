//! Whoever registers memory that the region does not own promises that it stays mapped.

use ibverbs::{AccessFlags, MemoryRegion, ProtectionDomain};

fn case(pd: &ProtectionDomain, ptr: *mut u8) -> ibverbs::Result<MemoryRegion<()>> {
    unsafe { pd.register_from_raw(ptr, 4096, AccessFlags::LOCAL_WRITE) }
}

fn main() {}
