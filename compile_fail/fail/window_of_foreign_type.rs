//! A window is of one of two types.
//~ error[E0277]: `u8` is no type of memory windows

use ibverbs::MemoryWindow;

fn case(_: MemoryWindow<u8>) {}

fn main() {}
