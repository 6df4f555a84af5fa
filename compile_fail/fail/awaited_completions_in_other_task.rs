//! A poll ends in the thread that began it: a task that may move to another one drops it before it waits.
//~ error: future cannot be sent between threads safely
//~ error: future cannot be sent between threads safely

use ibverbs::AsyncCompletionQueue;

fn send<T: Send>(_: T) {}

async fn other() {}

fn case(mut cq: AsyncCompletionQueue) {
    send(async move {
        let completions = cq.completions().await;
        other().await;
        drop(completions);
    });
}

fn main() {}
