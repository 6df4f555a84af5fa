//! The options that every example has that moves data.

use anyhow::{ensure, Result};
use clap::value_parser;

use crate::device::{Local, Opened};

/// The options of every example that moves data.
#[derive(clap::Args)]
pub struct Common {
    #[command(flatten)]
    local: Local,

    /// Bytes per message
    #[arg(short, long, default_value_t = 4096, value_parser = value_parser!(u32).range(1..))]
    pub size: u32,

    /// How many messages to send
    #[arg(short = 'n', long, default_value_t = 1000, value_parser = value_parser!(u64).range(1..))]
    pub iters: u64,
}

impl Common {
    /// Opens the device that the options choose, and prints which one that is.
    pub fn open(&self) -> Result<Opened> {
        let opened = self.local.open()?;
        println!("{opened}");
        let (size, longest) = (self.size, opened.context.query_port(opened.port)?.max_msg_size());
        ensure!(size <= longest, "--size {size} is more than the port can send at once: {longest}");
        Ok(opened)
    }
}
