//! A task that may move to another thread does not keep a shared reference to an identifier across a wait.
//~ error: future cannot be sent between threads safely

use ibverbs::rdmacm::CmId;

fn send<T: Send>(_: T) {}

async fn other() {}

fn case(id: CmId) {
    send(async move {
        let id = &id;
        other().await;
        println!("{:?}", id.local_addr());
    });
}

fn main() {}
