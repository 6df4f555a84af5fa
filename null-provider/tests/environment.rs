//! Rule 2: a device is not opened if the environment asks its provider to leave out locks. The
//! environment belongs to the whole process, so that this is a test binary of its own.

use ibverbs::Error;
use null_provider::{Kind, Verb};

#[test]
fn single_threaded_providers_are_refused() {
    // SAFETY: nothing of the provider is changed.
    let null = unsafe { null_provider::install() }.unwrap();
    let devices = ibverbs::devices().unwrap();
    let device = devices.get(0).unwrap();
    // mlx5 looks at the value, but what it takes for "no" has changed over time.
    for value in ["1", "0", ""] {
        std::env::set_var("MLX5_SINGLE_THREADED", value);
        match device.open() {
            Err(Error::UnsafeEnvironment { variable }) => {
                assert_eq!(variable, "MLX5_SINGLE_THREADED");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(null.count(Verb::OpenDevice), 0);
    }
    std::env::remove_var("MLX5_SINGLE_THREADED");
    drop(device.open().unwrap());
    assert_eq!(null.live(Kind::Context), 0);
}
