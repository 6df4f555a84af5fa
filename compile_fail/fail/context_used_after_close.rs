//! Closing consumes the context.
//~ error[E0382]: borrow of moved value: `ctx`

use ibverbs::Context;

fn case(ctx: Context) -> ibverbs::Result<()> {
    ctx.close()?;
    ctx.query_device()?;
    Ok(())
}

fn main() {}
