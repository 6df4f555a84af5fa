//! A connection is not ended while a batch is open.
//~ error[E0499]: cannot borrow `connection` as mutable more than once at a time

use ibverbs::rdmacm::Connection;

fn case(mut connection: Connection) -> ibverbs::Result<()> {
    let batch = connection.queue_pair.start_send();
    connection.disconnect()?;
    drop(batch);
    Ok(())
}

fn main() {}
