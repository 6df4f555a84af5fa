//! Closing consumes the channel.

use ibverbs::CompletionChannel;

fn case(channel: CompletionChannel) -> ibverbs::Result<()> {
    channel.get_event()?;
    channel.close()?;
    Ok(())
}

fn main() {}
