//! A window has one owner: it is freed once.

use ibverbs::MemoryWindow;

fn case(window: MemoryWindow) -> [MemoryWindow; 1] {
    [window]
}

fn main() {}
