//! A task that may move to another thread does not keep a shared reference to an identifier across a wait.

use ibverbs::rdmacm::CmId;

fn send<T: Send>(_: T) {}

async fn other() {}

fn case(id: CmId) {
    send(async move {
        other().await;
        let id = &id;
        println!("{:?}", id.local_addr());
    });
}

fn main() {}
