//! A window has one owner: it is freed once.
//~ error[E0599]: no method named `clone` found for struct `MemoryWindow<K>`

use ibverbs::MemoryWindow;

fn case(window: MemoryWindow) -> [MemoryWindow; 1] {
    [window.clone()]
}

fn main() {}
