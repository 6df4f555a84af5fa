//! The key of a window is changed by whoever has it exclusively.
//~ error[E0596]: cannot borrow `*window` as mutable, as it is behind a `&` reference

use ibverbs::{MemoryWindow, Result};

fn case(window: &MemoryWindow, rkey: u32) -> Result<()> {
    window.set_rkey(rkey)
}

fn main() {}
