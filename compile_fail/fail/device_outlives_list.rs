//! A device does not outlive the list that it is of.
//~ error[E0505]: cannot move out of `list` because it is borrowed

use ibverbs::{Context, DeviceList};

fn case(list: DeviceList) -> Option<ibverbs::Result<Context>> {
    let device = list.get(0)?;
    drop(list);
    let context = device.open();
    Some(context)
}

fn main() {}
