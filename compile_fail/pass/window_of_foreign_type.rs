//! A window is of one of two types.

use ibverbs::MemoryWindow;

fn case(_: MemoryWindow<ibverbs::WindowType1>) {}

fn main() {}
