//! The device of a context does not outlive it.

use ibverbs::Context;

fn case(context: Context) -> usize {
    let device = context.device();
    let length = device.name().len();
    drop(context);
    length
}

fn main() {}
