//! One future at a time awaits events.
//~ error[E0499]: cannot borrow `*events` as mutable more than once at a time

use ibverbs::AsyncEvents;

async fn case(events: &mut AsyncEvents) -> ibverbs::Result<()> {
    let first = events.next();
    let second = events.next();
    first.await?;
    second.await?;
    Ok(())
}

fn main() {}
