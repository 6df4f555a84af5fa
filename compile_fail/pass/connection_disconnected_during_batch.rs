//! A connection is not ended while a batch is open.

use ibverbs::rdmacm::Connection;

fn case(mut connection: Connection) -> ibverbs::Result<()> {
    let batch = connection.queue_pair.start_send();
    drop(batch);
    connection.disconnect()?;
    Ok(())
}

fn main() {}
