//! A completion queue is not built on a channel that is gone.
//~ error[E0505]: cannot move out of `channel` because it is borrowed

use ibverbs::{CompletionChannel, Context};

fn case(ctx: &Context, channel: CompletionChannel) -> ibverbs::Result<()> {
    let builder = ctx.create_cq(16).set_comp_channel(&channel);
    drop(channel);
    let _cq = builder.build()?;
    Ok(())
}

fn main() {}
