//! `cargo xtask drop-in`: the software device for programs that are there already, as a library in the place of rdma-core's.

mod library;

use anyhow::Result;

/// Runs the command: builds, and prints where the library is.
pub(crate) fn run() -> Result<u8> {
    println!("{}", library::build()?.display());
    Ok(0)
}
