//! Closing consumes the context.

use ibverbs::Context;

fn case(ctx: Context) -> ibverbs::Result<()> {
    ctx.query_device()?;
    ctx.close()?;
    Ok(())
}

fn main() {}
