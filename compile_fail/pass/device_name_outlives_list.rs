//! The name of a device does not outlive the list.

use ibverbs::DeviceList;

fn case(list: DeviceList) -> Option<usize> {
    let name = list.get(0)?.name();
    let length = name.len();
    drop(list);
    Some(length)
}

fn main() {}
