//! The name of a device does not outlive the list.
//~ error[E0505]: cannot move out of `list` because it is borrowed

use ibverbs::DeviceList;

fn case(list: DeviceList) -> Option<usize> {
    let name = list.get(0)?.name();
    drop(list);
    let length = name.len();
    Some(length)
}

fn main() {}
