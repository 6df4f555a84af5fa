//! A region that has handed out its buffer is no region any more.

use ibverbs::{LocalMemorySlice, MemoryRegion, PageBuf};

fn case(region: MemoryRegion) -> ibverbs::Result<(PageBuf, LocalMemorySlice)> {
    let slice = region.slice(..);
    let buf = region.into_inner()?;
    Ok((buf, slice))
}

fn main() {}
