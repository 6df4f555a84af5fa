//! What is awaited while connecting moves to another thread, but not with a batch that is open.
//~ error: future cannot be sent between threads safely

use ibverbs::rdmacm::{Connection, ConnectionParams, Resolved, Tcp};
use ibverbs::{PreparedQueuePair, Rc};

fn send<T: Send>(_: T) {}

fn case(mut old: Connection, resolved: Resolved<Tcp>, prepared: PreparedQueuePair<Rc>) {
    send(async move {
        let batch = old.queue_pair.start_send();
        let connection = resolved.connect_async(prepared, &ConnectionParams::new()).await;
        drop((batch, connection));
    });
}

fn main() {}
