//! A number in shared memory is not looked at when its region is gone.
//~ error[E0505]: cannot move out of `region` because it is borrowed

use ibverbs::SharedRegion;

fn case(region: SharedRegion) -> ibverbs::Result<()> {
    let number = region.atomic_u64(0);
    drop(region);
    number.store(1, std::sync::atomic::Ordering::Release);
    Ok(())
}

fn main() {}
