//! A build without any way to the native libraries.
#![cfg(not(any(
    feature = "dynamic-loading",
    feature = "dynamic-linking",
    feature = "static-linking"
)))]

use std::ptr::null_mut;

use ibverbs_sys::{ibv_get_device_list, provider};

#[test]
fn the_error_says_what_to_do() {
    assert_eq!(provider::name(), "none");
    for error in [
        provider::verbs().unwrap_err(),
        provider::rdmacm().unwrap_err(),
        provider::efa().unwrap_err(),
    ] {
        let message = error.to_string();
        assert!(message.contains(error.library()), "{message}");
        assert!(
            message.contains("dynamic-loading") && message.contains("provider::install"),
            "{message}"
        );
    }
    // SAFETY: null is allowed.
    assert!(unsafe { ibv_get_device_list(null_mut()) }.is_null());
    assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::ELIBACC));
}
