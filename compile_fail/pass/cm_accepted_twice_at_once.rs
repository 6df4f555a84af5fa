//! Requests are awaited by one task.

use ibverbs::rdmacm::{Acceptor, Tcp};

async fn case(mut acceptor: Acceptor<Tcp>) {
    let first = acceptor.accept_async().await;
    let second = acceptor.accept_async().await;
    let _requests = (first, second);
}

fn main() {}
