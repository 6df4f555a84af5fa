//! A number in shared memory is not looked at when its region is gone.

use ibverbs::SharedRegion;

fn case(region: SharedRegion) -> ibverbs::Result<()> {
    let number = region.atomic_u64(0);
    number.store(1, std::sync::atomic::Ordering::Release);
    drop(region);
    Ok(())
}

fn main() {}
