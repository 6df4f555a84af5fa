//! Closing consumes the window.

use ibverbs::MemoryWindow;

fn case(window: MemoryWindow) -> ibverbs::Result<()> {
    println!("{}", window.rkey());
    window.close()?;
    Ok(())
}

fn main() {}
