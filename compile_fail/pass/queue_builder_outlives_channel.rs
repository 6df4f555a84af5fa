//! A completion queue is not built on a channel that is gone.

use ibverbs::{CompletionChannel, Context};

fn case(ctx: &Context, channel: CompletionChannel) -> ibverbs::Result<()> {
    let builder = ctx.create_cq(16).set_comp_channel(&channel);
    let _cq = builder.build()?;
    drop(channel);
    Ok(())
}

fn main() {}
