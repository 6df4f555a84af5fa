//! Whoever registers memory that the region does not own promises that it stays mapped.
//~ error[E0133]: call to unsafe function `ibverbs::mr::register::<impl ProtectionDomain>::register_from_raw` is unsafe

use ibverbs::{AccessFlags, MemoryRegion, ProtectionDomain};

fn case(pd: &ProtectionDomain, ptr: *mut u8) -> ibverbs::Result<MemoryRegion<()>> {
    pd.register_from_raw(ptr, 4096, AccessFlags::LOCAL_WRITE)
}

fn main() {}
