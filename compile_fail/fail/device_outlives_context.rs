//! The device of a context does not outlive it.
//~ error[E0505]: cannot move out of `context` because it is borrowed

use ibverbs::Context;

fn case(context: Context) -> usize {
    let device = context.device();
    drop(context);
    let length = device.name().len();
    length
}

fn main() {}
