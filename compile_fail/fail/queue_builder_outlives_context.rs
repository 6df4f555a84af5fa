//! A completion queue is not built in a context that is gone.
//~ error[E0505]: cannot move out of `ctx` because it is borrowed

use ibverbs::Context;

fn case(ctx: Context) -> ibverbs::Result<()> {
    let builder = ctx.create_cq(16);
    drop(ctx);
    let _cq = builder.build()?;
    Ok(())
}

fn main() {}
