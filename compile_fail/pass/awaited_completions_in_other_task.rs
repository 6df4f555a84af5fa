//! A poll ends in the thread that began it: a task that may move to another one drops it before it waits.

use ibverbs::AsyncCompletionQueue;

fn send<T: Send>(_: T) {}

async fn other() {}

fn case(mut cq: AsyncCompletionQueue) {
    send(async move {
        let completions = cq.completions().await;
        drop(completions);
        other().await;
    });
}

fn main() {}
