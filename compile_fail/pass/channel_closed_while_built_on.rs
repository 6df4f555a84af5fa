//! A builder borrows the completion channel that it was given.

use ibverbs::{CompletionChannel, CompletionQueue, Context, Result};

fn case(ctx: &Context, channel: CompletionChannel) -> Result<CompletionQueue> {
    let builder = ctx.create_cq(1).set_comp_channel(&channel);
    builder.build()
}

fn main() {}
