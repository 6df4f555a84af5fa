//! The descriptor of a context's events does not outlive it.

use std::os::fd::AsRawFd;

use ibverbs::Context;

fn case(context: Context) -> ibverbs::Result<i32> {
    let fd = context.async_event_fd()?;
    let number = fd.as_raw_fd();
    drop(context);
    Ok(number)
}

fn main() {}
