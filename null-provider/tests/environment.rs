//! Rules 2, 9 and 10: a device is not opened if the environment asks its provider to leave out locks, or to
//! let objects go that the device or another thread may be using. The environment belongs to the whole
//! process, so that this is a test binary of its own.

use std::time::Duration;

use ibverbs::rdmacm::{Acceptor, CmId, Connector, Tcp};
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
            // Nor does the connection manager open one.
            let peer = ([10, 0, 0, 1], 7471).into();
            let mut id = CmId::create(Tcp).unwrap();
            id.bind_addr(([10, 0, 0, 1], 0).into()).unwrap();
            let acceptor = Acceptor::bind(Tcp, peer).unwrap();
            for refused in [
                id.context().map(drop),
                Connector::new(Tcp).resolve(peer, Duration::from_secs(30)).map(drop),
            ] {
                match refused {
                    Err(Error::UnsafeEnvironment { variable }) => assert_eq!(variable, name),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(null.count(Verb::OpenDevice), 0);
            drop((id, acceptor));
        }
        std::env::remove_var(name);
    }
    drop(device.open().unwrap());
    assert_eq!((null.live(Kind::Context), null.live(Kind::EventChannel)), (0, 0));
}
