//! Private data is the event's.
//~ error[E0505]: cannot move out of `event` because it is borrowed

use ibverbs::rdmacm::CmEvent;

fn case(event: CmEvent) {
    let data = event.private_data();
    drop(event);
    println!("{data:?}");
}

fn main() {}
