//! Closing consumes the region.

use ibverbs::MemoryRegion;

fn case(region: MemoryRegion) -> ibverbs::Result<()> {
    println!("{:?}", region.slice(..));
    region.close()?;
    Ok(())
}

fn main() {}
