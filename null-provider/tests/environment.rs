//! Rules 2, 9 and 10: a device is not opened if the environment asks its provider to leave out locks, or to
//! let objects go that the device or another thread may be using. The environment belongs to the whole
//! process, so that this is a test binary of its own.

use ibverbs::Error;
use null_provider::{Kind, Verb};

#[test]
fn unsafe_environments_are_refused() {
    // SAFETY: nothing of the provider is changed.
    let null = unsafe { null_provider::install() }.unwrap();
    let devices = ibverbs::devices().unwrap();
    let device = devices.get(0).unwrap();
    for name in
        ["MLX5_SINGLE_THREADED", "RDMAV_ALLOW_DISASSOC_DESTROY", "MLX4_DEVICE_FATAL_CLEANUP"]
    {
        // Libraries look at the value, but what they take for "no" has changed over time.
        for value in ["1", "0", ""] {
            std::env::set_var(name, value);
            match device.open() {
                Err(Error::UnsafeEnvironment { variable }) => assert_eq!(variable, name),
                other => panic!("{other:?}"),
            }
            assert_eq!(null.count(Verb::OpenDevice), 0);
        }
        std::env::remove_var(name);
    }
    drop(device.open().unwrap());
    assert_eq!(null.live(Kind::Context), 0);
}
