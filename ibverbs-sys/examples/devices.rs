//! Lists the RDMA devices of this machine, through whatever provider the cargo features bring.

use std::ffi::CStr;

use ibverbs_sys::{ibv_free_device_list, ibv_get_device_list, ibv_get_device_name, provider};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("provider: {}", provider::name());
    provider::verbs()?;
    for (library, result) in
        [("librdmacm", provider::rdmacm().err()), ("libefa", provider::efa().err())]
    {
        match result {
            None => println!("{library}: available"),
            Some(error) => println!("{error}"),
        }
    }

    let mut count = 0;
    // SAFETY: the argument is a place for the number of devices.
    let list = unsafe { ibv_get_device_list(&mut count) };
    if list.is_null() {
        return Err(std::io::Error::last_os_error().into());
    }
    println!("devices: {count}");
    for index in 0..count as usize {
        // SAFETY: the list has `count` entries.
        let entry = unsafe { list.add(index) };
        // SAFETY: within the list, which is not freed yet.
        let device = unsafe { entry.read() };
        // SAFETY: a device of the list.
        let name = unsafe { ibv_get_device_name(device) };
        // SAFETY: a string that lives as long as the device.
        println!("  {}", unsafe { CStr::from_ptr(name) }.to_string_lossy());
    }
    // SAFETY: the list that was returned above, whose devices are not used any more.
    unsafe { ibv_free_device_list(list) };
    Ok(())
}
