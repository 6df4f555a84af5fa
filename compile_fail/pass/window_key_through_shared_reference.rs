//! The key of a window is changed by whoever has it exclusively.

use ibverbs::{MemoryWindow, Result};

fn case(window: &mut MemoryWindow, rkey: u32) -> Result<()> {
    window.set_rkey(rkey)
}

fn main() {}
