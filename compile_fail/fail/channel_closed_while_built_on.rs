//! A builder borrows the completion channel that it was given.
//~ error[E0505]: cannot move out of `channel` because it is borrowed

use ibverbs::{CompletionChannel, CompletionQueue, Context, Result};

fn case(ctx: &Context, channel: CompletionChannel) -> Result<CompletionQueue> {
    let builder = ctx.create_cq(1).set_comp_channel(&channel);
    channel.close()?;
    builder.build()
}

fn main() {}
