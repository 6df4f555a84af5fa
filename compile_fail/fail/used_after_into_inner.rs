//! A region that has handed out its buffer is no region any more.
//~ error[E0382]: borrow of moved value: `region`

use ibverbs::{LocalMemorySlice, MemoryRegion, PageBuf};

fn case(region: MemoryRegion) -> ibverbs::Result<(PageBuf, LocalMemorySlice)> {
    let buf = region.into_inner()?;
    let slice = region.slice(..);
    Ok((buf, slice))
}

fn main() {}
