//! Memory that was freed is not copied into.

use ibverbs::{DeviceMemory, Result};

fn case(memory: DeviceMemory) -> Result<()> {
    memory.write_at(0, &[0; 4])?;
    Ok(memory.close()?)
}

fn main() {}
