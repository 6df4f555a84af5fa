//! Requests are awaited by one task.
//~ error[E0499]: cannot borrow `acceptor` as mutable more than once at a time

use ibverbs::rdmacm::{Acceptor, Tcp};

async fn case(mut acceptor: Acceptor<Tcp>) {
    let first = acceptor.accept_async();
    let second = acceptor.accept_async();
    let _requests = (first.await, second.await);
}

fn main() {}
