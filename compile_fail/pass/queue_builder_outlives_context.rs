//! A completion queue is not built in a context that is gone.

use ibverbs::Context;

fn case(ctx: Context) -> ibverbs::Result<()> {
    let builder = ctx.create_cq(16);
    let _cq = builder.build()?;
    drop(ctx);
    Ok(())
}

fn main() {}
