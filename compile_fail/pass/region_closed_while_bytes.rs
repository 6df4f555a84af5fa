//! Memory that is looked at is not given back.

use ibverbs::MemoryRegion;

fn case(region: MemoryRegion) -> ibverbs::Result<()> {
    let bytes = region.bytes();
    println!("{bytes:?}");
    region.close()?;
    Ok(())
}

fn main() {}
