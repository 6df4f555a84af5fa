//! Rules 15 and 17: from its first use on, librdmacm may open devices at any time, so that `fork` cannot be prepared
//! for any more. Whether it was used is a fact of the whole process, so that this is a test binary of its own,
//! with one test.

use ibverbs::rdmacm::EventChannel;
use ibverbs::{ffi, Error};
use null_provider::Verb;

#[test]
fn fork_is_prepared_before_librdmacm_is_used_and_never_after() {
    // SAFETY: nothing but a value is changed.
    let null = unsafe { null_provider::install() }.unwrap();
    ibverbs::fork_init().unwrap();
    // What did not come about opens nothing.
    null.fail_once(Verb::CreateEventChannel, libc::ENODEV);
    assert!(matches!(EventChannel::create(), Err(Error::EventChannel { .. })));
    ibverbs::fork_init().unwrap();
    assert_eq!(null.count(Verb::ForkInit), 2);

    let channel = EventChannel::create().unwrap();
    assert!(matches!(ibverbs::fork_init(), Err(Error::ForkInitTooLate)));
    drop(channel);
    assert!(matches!(ibverbs::fork_init(), Err(Error::ForkInitTooLate)));
    null.configure(|config| config.fork_status = ffi::IBV_FORK_UNNEEDED);
    ibverbs::fork_init().unwrap();
    assert_eq!(null.count(Verb::ForkInit), 2);
    assert_eq!(null.all_live(), []);
}
