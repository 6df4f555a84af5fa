//! Closing consumes the channel.
//~ error[E0382]: borrow of moved value: `channel`

use ibverbs::CompletionChannel;

fn case(channel: CompletionChannel) -> ibverbs::Result<()> {
    channel.close()?;
    channel.get_event()?;
    Ok(())
}

fn main() {}
