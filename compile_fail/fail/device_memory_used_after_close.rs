//! Memory that was freed is not copied into.
//~ error[E0382]: borrow of moved value: `memory`

use ibverbs::{DeviceMemory, Result};

fn case(memory: DeviceMemory) -> Result<()> {
    memory.close()?;
    memory.write_at(0, &[0; 4])
}

fn main() {}
