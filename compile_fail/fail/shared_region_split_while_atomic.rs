//! A region is not split while a number in it is looked at: it could be in the other half.
//~ error[E0502]: cannot borrow `region` as mutable because it is also borrowed as immutable

use ibverbs::SharedRegion;

fn case(mut region: SharedRegion) -> ibverbs::Result<()> {
    let number = region.atomic_u64(8);
    let _rest = region.split_off(8);
    number.store(1, std::sync::atomic::Ordering::Release);
    Ok(())
}

fn main() {}
