//! Rule 17: what the library does about `fork` is read when a device is opened, and cannot be changed
//! after that. Whether a device was opened is a fact of the whole process, so that this is a test binary
//! of its own, with one test.

use ibverbs::{ffi, ForkStatus};
use null_provider::Verb;

#[test]
fn fork_is_prepared_before_a_device_is_opened_and_never_after() {
    // SAFETY: nothing but a value is changed.
    let null = unsafe { null_provider::install() }.unwrap();
    ibverbs::fork_init().unwrap();
    assert_eq!(null.count(Verb::ForkInit), 1);
    null.fail(Verb::ForkInit, libc::EINVAL);
    assert_eq!(ibverbs::fork_init().unwrap_err().os_error(), Some(libc::EINVAL));
    null.fail(Verb::ForkInit, libc::ENOSYS);
    assert!(matches!(ibverbs::fork_init(), Err(ibverbs::Error::Unsupported { .. })));
    assert_eq!(null.count(Verb::ForkInit), 3);
    null.succeed(Verb::ForkInit);

    let devices = ibverbs::devices().unwrap();
    let opened = [ffi::IBV_FORK_DISABLED, ffi::IBV_FORK_ENABLED, ffi::IBV_FORK_UNNEEDED, 77];
    let contexts = opened.map(|status| {
        null.configure(|config| config.fork_status = status);
        devices.get(0).unwrap().open().unwrap()
    });
    assert_eq!(null.count(Verb::IsForkInitialized), opened.len());
    for (status, ctx) in opened.into_iter().zip(&contexts) {
        assert_eq!(ctx.fork_status(), ForkStatus(status));
    }
    assert_eq!(contexts[3].fork_status().to_string(), "unknown (77)");

    // It takes no lock, and registrations read what it writes: the provider does not hear of it.
    assert!(matches!(ibverbs::fork_init(), Err(ibverbs::Error::ForkInitTooLate)));
    for done in [ffi::IBV_FORK_ENABLED, ffi::IBV_FORK_UNNEEDED] {
        null.configure(|config| config.fork_status = done);
        ibverbs::fork_init().unwrap();
    }
    null.configure(|config| config.fork_status = ffi::IBV_FORK_DISABLED);
    drop((contexts, devices));
    assert!(matches!(ibverbs::fork_init(), Err(ibverbs::Error::ForkInitTooLate)));
    assert_eq!(null.count(Verb::ForkInit), 3);
    assert_eq!(null.all_live(), []);
}
