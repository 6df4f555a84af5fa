//! Closing consumes the region.
//~ error[E0382]: borrow of moved value: `region`

use ibverbs::MemoryRegion;

fn case(region: MemoryRegion) -> ibverbs::Result<()> {
    region.close()?;
    println!("{:?}", region.slice(..));
    Ok(())
}

fn main() {}
