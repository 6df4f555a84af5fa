//! The descriptor of a context's events does not outlive it.
//~ error[E0505]: cannot move out of `context` because it is borrowed

use std::os::fd::AsRawFd;

use ibverbs::Context;

fn case(context: Context) -> ibverbs::Result<i32> {
    let fd = context.async_event_fd()?;
    drop(context);
    let number = fd.as_raw_fd();
    Ok(number)
}

fn main() {}
