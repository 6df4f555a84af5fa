//! A batch that was submitted is still a part of the task: it ends in a block or a function before the task waits.
//~ error: future cannot be sent between threads safely

use ibverbs::{QueuePair, Rc};

fn send<T: Send>(_: T) {}

async fn other() {}

fn case(mut qp: QueuePair<Rc>) {
    send(async move {
        let mut batch = qp.start_send();
        batch.op().send(1, b"hello");
        let posted = unsafe { batch.submit() };
        other().await;
        drop(posted);
    });
}

fn main() {}
