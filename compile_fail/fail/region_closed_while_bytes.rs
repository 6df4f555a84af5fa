//! Memory that is looked at is not given back.
//~ error[E0505]: cannot move out of `region` because it is borrowed

use ibverbs::MemoryRegion;

fn case(region: MemoryRegion) -> ibverbs::Result<()> {
    let bytes = region.bytes();
    region.close()?;
    println!("{bytes:?}");
    Ok(())
}

fn main() {}
