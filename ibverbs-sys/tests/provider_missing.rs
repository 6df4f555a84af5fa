//! A machine without the libraries, as `dynamic-loading` finds it.
#![cfg(all(
    feature = "dynamic-loading",
    not(any(feature = "dynamic-linking", feature = "static-linking"))
))]

use std::process::Command;
use std::ptr::null_mut;

use ibverbs_sys::{ibv_close_device, ibv_get_device_list, provider, rdma_listen};

/// Runs in a process of its own, in which the libraries that the loader finds first are no libraries.
#[test]
#[ignore = "part of `without_libraries`, which runs it in another process"]
fn in_the_other_process() {
    let verbs = provider::verbs().expect_err("the library is a text file").to_string();
    for expected in [
        "libibverbs.so.1",
        "libibverbs1",
        "ibverbs-providers",
        "dnf",
        "LD_LIBRARY_PATH",
        "static-linking",
    ] {
        assert!(verbs.contains(expected), "`{expected}` is missing in: {verbs}");
    }
    assert!(
        verbs.contains("invalid ELF header") || verbs.contains("file too short"),
        "not the loader's reason: {verbs}"
    );
    let rdmacm = provider::rdmacm().expect_err("the library is a text file");
    assert_eq!(rdmacm.library(), "librdmacm");
    assert!(rdmacm.to_string().contains("librdmacm1"), "{rdmacm}");
    let efa = provider::efa().expect_err("the library is a text file");
    assert!(efa.to_string().contains("libefa.so.1"), "{efa}");

    // SAFETY: null is allowed.
    assert!(unsafe { ibv_get_device_list(null_mut()) }.is_null());
    assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::ELIBACC));
    // SAFETY: there is no library that could look at the pointer.
    assert_eq!(unsafe { ibv_close_device(null_mut()) }, libc::ELIBACC);
    // SAFETY: there is no library that could look at the pointer.
    assert_eq!(unsafe { rdma_listen(null_mut(), 1) }, -1);
}

#[test]
fn without_libraries() {
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-libraries");
    std::fs::create_dir_all(&directory).expect("the folder for the test's files can be written");
    for library in ["libibverbs.so.1", "librdmacm.so.1", "libefa.so.1"] {
        let text =
            "This is a text file, longer than the header of a shared library would be. ".repeat(4);
        std::fs::write(directory.join(library), text)
            .expect("the folder for the test's files can be written");
    }
    let output = Command::new(std::env::current_exe().expect("a process has a program"))
        .args(["--ignored", "--exact", "in_the_other_process", "--nocapture"])
        .env("LD_LIBRARY_PATH", &directory)
        .output()
        .expect("this program runs");
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "the test in the other process did not run:\n{text}");
}
