//! Closing consumes the window.
//~ error[E0382]: borrow of moved value: `window`

use ibverbs::MemoryWindow;

fn case(window: MemoryWindow) -> ibverbs::Result<()> {
    window.close()?;
    println!("{}", window.rkey());
    Ok(())
}

fn main() {}
