//! One future at a time awaits events.

use ibverbs::AsyncEvents;

async fn case(events: &mut AsyncEvents) -> ibverbs::Result<()> {
    let first = events.next();
    first.await?;
    let second = events.next();
    second.await?;
    Ok(())
}

fn main() {}
