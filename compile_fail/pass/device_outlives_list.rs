//! A device does not outlive the list that it is of.

use ibverbs::{Context, DeviceList};

fn case(list: DeviceList) -> Option<ibverbs::Result<Context>> {
    let device = list.get(0)?;
    let context = device.open();
    drop(list);
    Some(context)
}

fn main() {}
