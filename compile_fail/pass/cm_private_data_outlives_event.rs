//! Private data is the event's.

use ibverbs::rdmacm::CmEvent;

fn case(event: CmEvent) {
    let data = event.private_data();
    println!("{data:?}");
    drop(event);
}

fn main() {}
