//! Which provider of the verbs a process gets: what it asks for, and never silently another. There is one in a process, so that
//! each test runs in a process of its own.

use ibverbs::ffi::provider::{self, Provider};
use ibverbs::ffi::{Efa, Rdmacm, Verbs};
use ibverbs::rdmacm::EventChannel;
use ibverbs::soft::{self, Loopback, SoftDevices};
use ibverbs::{devices, fork_init, Error, Result};
use ibverbs_tests::{alone, alone_with_each};

const SOFT: (&str, &str) = ("IBVERBS_PROVIDER", "soft");

/// The names of the devices.
#[track_caller]
fn names() -> Vec<String> {
    devices().unwrap().iter().map(|device| device.name().to_owned()).collect()
}

/// Checks that the process has the native library or, if there is none, says so.
#[track_caller]
fn assert_native() {
    match devices() {
        Ok(devices) => {
            let is_soft = |name: &str| name.starts_with("soft");
            assert!(!devices.iter().any(|device| is_soft(device.name())), "{devices:?}");
        }
        Err(Error::Provider(error)) => assert_eq!(error.library(), "libibverbs"),
        Err(error) => panic!("{error}"),
    }
    assert!(provider::installed().is_none());
}

/// Checks that the process has the software device.
#[track_caller]
fn assert_soft() {
    assert_eq!(names(), ["soft0"]);
    assert_eq!(provider::installed().map(|provider| provider.name), Some("soft"));
}

#[track_caller]
fn assert_invalid<T>(result: Result<T>, name: &str, told: &str, says: &str) {
    match result.map(drop) {
        Err(error @ Error::InvalidVariable { .. }) => {
            let text = error.to_string();
            assert!([name, told, says].iter().all(|part| text.contains(part)), "{text}");
        }
        other => panic!("{name} is {told:?}: {other:?}"),
    }
}

#[test]
fn a_process_that_asks_for_nothing_gets_the_native_library() {
    alone("a_process_that_asks_for_nothing_gets_the_native_library", &[], assert_native);
}

#[test]
fn a_process_gets_the_native_library_by_name() {
    let sets: [&[_]; 2] = [&[("IBVERBS_PROVIDER", "native")], &[("IBVERBS_PROVIDER", "")]];
    alone_with_each("a_process_gets_the_native_library_by_name", &sets, assert_native);
}

#[test]
fn the_variable_is_read_when_devices_are_listed() {
    alone("the_variable_is_read_when_devices_are_listed", &[SOFT], || {
        assert!(provider::installed().is_none());
        drop(devices().unwrap());
        assert_soft();
    });
}

#[test]
fn the_variable_is_read_when_fork_is_prepared() {
    alone("the_variable_is_read_when_fork_is_prepared", &[SOFT], || {
        fork_init().unwrap();
        assert_eq!(provider::name(), "soft");
        assert_soft();
    });
}

#[test]
fn the_variable_is_read_when_an_event_channel_is_opened() {
    alone("the_variable_is_read_when_an_event_channel_is_opened", &[SOFT], || {
        drop(EventChannel::create().unwrap());
        assert_eq!(provider::name(), "soft");
        assert_soft();
    });
}

#[test]
fn threads_agree() {
    alone("threads_agree", &[SOFT], || {
        let threads: Vec<_> = (0..8).map(|_| std::thread::spawn(assert_soft)).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn a_provider_that_there_is_not_is_an_error_of_every_first_verb() {
    let variable = ("IBVERBS_PROVIDER", "rxe");
    alone("a_provider_that_there_is_not_is_an_error_of_every_first_verb", &[variable], || {
        let (name, told) = variable;
        for _ in 0..2 {
            assert_invalid(devices(), name, told, "`soft`");
            assert_invalid(fork_init(), name, told, "`soft`");
            assert_invalid(EventChannel::create(), name, told, "`soft`");
        }
        // Nothing has been chosen.
        std::env::set_var(name, "soft");
        assert_soft();
    });
}

#[test]
fn the_program_asks() {
    alone("the_program_asks", &[("IBVERBS_PROVIDER", "nonsense")], || {
        // What the program has chosen comes first: the variable is not read.
        soft::install().unwrap();
        assert_soft();
        // Again, as tests in one process do.
        soft::install().unwrap();
        SoftDevices::new().install().unwrap();
        for other in [
            SoftDevices::new().set_devices(2),
            SoftDevices::new().set_loopback(Loopback::Wire),
            SoftDevices::new().set_addr([127, 0, 0, 77].into()),
        ] {
            let error = other.install().unwrap_err();
            assert!(matches!(error, Error::ProviderChosen(_)), "{error}");
            assert!(error.to_string().contains("other options"), "{error}");
        }
        assert_soft();
    });
}

#[test]
fn the_program_asks_too_late() {
    alone("the_program_asks_too_late", &[], || {
        let _ = devices();
        let error = soft::install().unwrap_err();
        assert!(matches!(error, Error::ProviderChosen(_)), "{error}");
        assert!(error.to_string().contains("before the first verb"), "{error}");
        assert_native();
    });
}

#[test]
fn the_variable_comes_too_late() {
    alone("the_variable_comes_too_late", &[SOFT], || {
        // The C API chooses without it.
        let _ = provider::verbs();
        let error = devices().unwrap_err();
        assert!(matches!(error, Error::ProviderChosen(_)), "{error}");
        assert!(matches!(fork_init(), Err(Error::ProviderChosen(_))));
    });
}

#[test]
fn another_provider_of_the_program_s_stays() {
    static VERBS: Verbs = Verbs::EMPTY;
    static RDMACM: Rdmacm = Rdmacm::EMPTY;
    static EFA: Efa = Efa::EMPTY;
    alone("another_provider_of_the_program_s_stays", &[SOFT], || {
        let empty = Provider { name: "empty", verbs: &VERBS, rdmacm: &RDMACM, efa: &EFA };
        // SAFETY: a provider without functions keeps every contract.
        unsafe { provider::install(empty) }.unwrap();
        let error = devices().unwrap_err();
        assert!(
            matches!(error, Error::Unsupported { operation: "ibv_get_device_list" }),
            "{error}"
        );
        let error = soft::install().unwrap_err();
        assert!(error.to_string().contains("`empty`"), "{error}");
    });
}

#[test]
fn the_devices_are_as_the_environment_says() {
    let count = ("IBVERBS_SOFT_DEVICES", "3");
    alone("the_devices_are_as_the_environment_says", &[SOFT, count], || {
        assert_eq!(names(), ["soft0", "soft1", "soft2"]);
    });
}

#[test]
fn the_devices_are_as_the_program_says() {
    let count = ("IBVERBS_SOFT_DEVICES", "3");
    alone("the_devices_are_as_the_program_says", &[count], || {
        SoftDevices::new().set_devices(2).install().unwrap();
        assert_eq!(names(), ["soft0", "soft1"]);
    });
}

#[test]
fn there_is_a_device_for_each_address() {
    let addrs = ("IBVERBS_SOFT_ADDR", "127.0.0.8,127.0.0.9");
    alone("there_is_a_device_for_each_address", &[SOFT, addrs], || {
        assert_eq!(names(), ["soft0", "soft1"]);
    });
}

#[test]
fn what_cannot_be_understood_is_an_error() {
    const WRONG: [(&str, &str, &str); 3] = [
        ("IBVERBS_SOFT_ADDR", "localhost", "addresses"),
        ("IBVERBS_SOFT_LOOPBACK", "shared", "`wire`"),
        ("IBVERBS_SOFT_DEVICES", "two", "number"),
    ];
    let sets = WRONG.map(|(name, value, _)| [SOFT, (name, value)]);
    let sets = sets.each_ref().map(|set| &set[..]);
    alone_with_each("what_cannot_be_understood_is_an_error", &sets, || {
        let is_set = |(name, _, _): &(&str, _, _)| std::env::var_os(name).is_some();
        let (name, told, says) = WRONG.into_iter().find(is_set).unwrap();
        assert_invalid(devices(), name, told, says);
        assert_invalid(fork_init(), name, told, says);
        assert_invalid(soft::install(), name, told, says);
        assert!(provider::installed().is_none());
        // Put right, it works.
        std::env::remove_var(name);
        assert_soft();
    });
}
