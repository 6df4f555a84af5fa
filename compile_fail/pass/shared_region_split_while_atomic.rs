//! A region is not split while a number in it is looked at: it could be in the other half.

use ibverbs::SharedRegion;

fn case(mut region: SharedRegion) -> ibverbs::Result<()> {
    let number = region.atomic_u64(8);
    number.store(1, std::sync::atomic::Ordering::Release);
    let _rest = region.split_off(8);
    Ok(())
}

fn main() {}
